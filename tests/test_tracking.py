"""Copies for TensorBoard: off unless asked for, what they hold, and what they need."""

import pandas as pd
import pytest

from landscape_cli.experiment import Measurement
from landscape_cli.tracking import scalars


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def test_a_frame_with_steps_becomes_curves_of_means_over_seeds():
    frame = pd.DataFrame(
        {"seed": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "loss": [4.0, 2.0, 2.0, 1.0], "name": list("abcd")}
    )
    assert list(scalars(Measurement({"curves": frame}))) == [("curves/loss", 1, 3.0), ("curves/loss", 2, 1.5)]


def test_a_frame_without_steps_becomes_its_means():
    frame = pd.DataFrame({"seed": [0, 1], "accuracy": [0.5, 1.0]})
    assert list(scalars(Measurement({"networks": frame}))) == [("networks/accuracy", 0, 0.75)]


def test_long_curves_are_thinned_evenly():
    frame = pd.DataFrame({"k": range(1, 2501), "difference": range(2500)})
    found = list(scalars(Measurement({"curves": frame})))
    assert [step for _, step, _ in found][:3] == [1, 4, 7]
    assert len(found) == 834


def test_points_and_figures_are_written_when_they_are_measured(landscape, tmp_path, small):
    finished = landscape("run", *small, "tracking=tensorboard")
    assert finished.code == 0, finished.err
    tracked = tmp_path / "outputs" / "tracking" / "quickstart"
    keys = {path.name for path in (tmp_path / "outputs" / "results").glob("*/[!.]*") if path.is_dir()}
    runs = {path.name.rpartition("_")[2]: path for path in tracked.iterdir() if path.name != "figures"}
    assert {key[:8] for key in keys} == set(runs)
    key = next(iter(keys))
    read = events(runs[key[:8]])
    (folder,) = (tmp_path / "outputs" / "results").glob(f"*/{key}")
    curves = pd.read_parquet(folder / "curves.parquet")
    column = next(c for c in curves.select_dtypes("number") if c not in ("seed", "k"))
    written = {event.step: event.value for event in read.Scalars(f"curves/{column}")}
    expected = curves.groupby("k")[column].mean()
    assert len(written) > 1
    for step, value in written.items():
        assert value == pytest.approx(expected[step], rel=1e-6)
    assert events(tracked / "figures").Tags()["images"] == ["quickstart"]


def test_nothing_is_written_unless_asked(landscape, tmp_path, small):
    assert landscape("run", *small).code == 0
    assert not (tmp_path / "outputs" / "tracking").exists()


def test_it_is_refused_where_it_is_not_installed(landscape, monkeypatch, small):
    monkeypatch.setattr("landscape_cli.tracking.find_spec", lambda name: None)
    landscape("run", *small, "tracking=tensorboard").assert_refused(2, "landscape-cli[tracking]")
    landscape("run", *small, "tracking=mlflow").assert_refused(2, "tracking")
