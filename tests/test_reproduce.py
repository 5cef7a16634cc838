"""``landscape reproduce``: past failures, in order of cost, the same again, and what it says at its end."""

import hashlib
import os
import re
import signal
import time
from pathlib import Path

import pytest

from landscape_cli import reproduce as whole
from landscape_cli.composing import load
from landscape_cli.errors import MeasurementFailed
from landscape_cli.listing import catalogue, shipped
from landscape_cli.report.gather import gather

CHEAP = ("vit_architectures", "schematic_loss_change")


def written(output):
    """Every figure, table and report: path -> digest."""
    paths = [path for part in ("figures", "tables", "report") for path in (output / part).rglob("*") if path.is_file()]
    return {path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "outputs"


def lines_of(finished, state):
    return [line.split()[len(state.split())] for line in finished.out.splitlines() if re.match(rf"{state}  ", line)]


def test_draws_each_and_reports(landscape, output, small):
    finished = landscape("reproduce", *CHEAP, *small, "--jobs", "1")
    assert (finished.code, finished.err) == (0, "")
    assert sorted(lines_of(finished, "drawn")) == sorted(CHEAP)
    assert (output / "figures" / "smoke" / "fig_1_1_schematic_loss_change.png").is_file()
    report = finished.out[finished.out.index("report: ") :]
    assert report.startswith("report: 1 of 47 figures drawn, 1 of 17 tables drawn, 2 claims reproduced")
    for name in ("index.html", "claims.csv", "thesis.tex"):
        assert str(output / "report" / name) in report
        assert (output / "report" / name).stat().st_size > 100


def test_the_same_command_gives_the_same_bytes(landscape, output, small):
    assert landscape("reproduce", *CHEAP, *small, "--jobs", "1").code == 0
    first = written(output)
    assert landscape("reproduce", *CHEAP, *small, "--jobs", "1").code == 0
    assert written(output) == first
    assert len(first) > 5


def test_processes_change_nothing(landscape, output, small, tmp_path, monkeypatch):
    assert landscape("reproduce", *CHEAP, *small, "--jobs", "1").code == 0
    alone = {path: digest for path, digest in written(output).items() if not path.startswith("report")}
    monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(tmp_path / "others"))
    finished = landscape("reproduce", *CHEAP, *small, "--jobs", "2")
    assert finished.code == 0
    assert "cells that agree" in finished.out  # what the processes printed
    shared = {path: digest for path, digest in written(tmp_path / "others").items() if not path.startswith("report")}
    assert shared == alone


def test_missing_data_is_told_with_how_to_get_it(landscape, output):
    finished = landscape("reproduce", "fc_mnist", "vit_architectures", "profile=quick", "data.download=false")
    assert finished.code == 3
    assert lines_of(finished, "drawn") == ["vit_architectures"]
    assert lines_of(finished, "data missing") == ["fc_mnist"]
    assert "landscape data fetch mnist" in finished.out
    assert "profile=embedded" in finished.out
    text = (output / "report" / "index.html").read_text()
    assert "landscape data fetch mnist" in text


def test_data_of_some_points(landscape, output, small):
    names = ("grid.dataset=[digits,nosuch]", "grid.hidden_size=[4]", "grid.num_layers=[1]")
    finished = landscape("reproduce", "fc_pixels", *small, *names, "--jobs", "1")
    assert finished.code == 3
    assert lines_of(finished, "drawn in part") == ["fc_pixels"]
    assert "nosuch" in finished.out


def test_goes_on_past_a_failure(landscape, output, small, monkeypatch):
    from experiments.chapter1.schematic import SchematicLossChange

    def fails(self, point, context):
        raise MeasurementFailed("the chalk broke")

    monkeypatch.setattr(SchematicLossChange, "measure", fails)
    finished = landscape("reproduce", *CHEAP, *small, "--jobs", "1")
    assert finished.code == 1
    assert lines_of(finished, "drawn") == ["vit_architectures"]
    assert lines_of(finished, "failed") == ["schematic_loss_change"]
    after = finished.out[finished.out.index("failed  ") :]
    assert "the chalk broke" in after
    assert "then: landscape run experiment=schematic_loss_change" in after
    assert "the chalk broke" in (output / "report" / "index.html").read_text()


def test_goes_on_past_an_error_of_the_code(landscape, output, small, monkeypatch):
    real = whole.attempt

    def breaks(config, overrides):
        if config.name == "vit_architectures":
            raise ZeroDivisionError("a slip")
        return real(config, overrides)

    monkeypatch.setattr(whole, "attempt", breaks)
    finished = landscape("reproduce", *CHEAP, *small, "--jobs", "1")
    assert finished.code == 1
    assert lines_of(finished, "drawn") == ["schematic_loss_change"]
    assert "ZeroDivisionError: a slip (log: " in finished.out
    assert "a slip" in (output / "runs" / "vit_architectures.log").read_text()


def test_an_override_that_fits_some(landscape, small):
    finished = landscape("reproduce", *CHEAP, *small, "measure.nosuch=3", "--jobs", "1")
    finished.assert_refused(2, "measure.nosuch")
    mixed = landscape("reproduce", "fc_mnist", "vit_architectures", *small, "grid.hidden_size=[4]", "--jobs", "1")
    assert mixed.code == 1
    assert lines_of(mixed, "failed") == ["vit_architectures"]
    assert lines_of(mixed, "drawn") == ["fc_mnist"]


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("fc_mnits",), ("fc_mnits", "fc_mnist")),
        (("vit_architectures", "--dry-run"), ("--dry-run",)),
        (("vit_architectures", "dry_run=true"), ("dry_run",)),
        (("vit_architectures", "shard.count=2"), ("shard",)),
        (("vit_architectures", "--jobs", "0"), ("--jobs", "1 or more")),
        (("profile=tiny",), ("profile=tiny", "quick")),
        (("experiment=fc_mnist",), ("experiment=fc_mnist", "without experiment=")),
    ],
)
def test_bad_input(landscape, words, texts):
    landscape("reproduce", *words).assert_refused(2, *texts)


def test_by_default_all_of_the_catalogue_and_the_theorems():
    names = whole.of_the_report(beyond=False)
    assert set(names) == {name for item in catalogue() for name in item.experiments} | {"theorems"}
    assert set(whole.of_the_report(beyond=True)) == set(shipped())
    assert len(names) == len(set(names))


def test_experiments_that_share_points_are_one_group_and_the_cheapest_come_first():
    words = ("profile=smoke", "data.download=false")
    names = ("fc_mnist", "conv_pooling_mnist", "vit_architectures", "fc_fashion_mnist")
    configs = {name: load([f"experiment={name}", *words]) for name in names}
    groups = whole.cheapest_first(configs)
    assert ["fc_mnist", "fc_fashion_mnist"] in groups  # the digits stand in for both
    assert sorted(name for group in groups for name in group) == sorted(names)
    position = {name: number for number, group in enumerate(groups) for name in group}
    assert position["fc_mnist"] < position["conv_pooling_mnist"]


def test_results_are_kept_and_replaced(tmp_path):
    first = whole.Result("a", whole.FAILED, ["why"], False, 1.0, "landscape run experiment=a")
    other = whole.Result("b", whole.DRAWN, [], True, 2.0, "landscape run experiment=b")
    whole.write_results(tmp_path, "quick", [first, other])
    again = whole.Result("a", whole.DRAWN, [], True, 1.0, "landscape run experiment=a")
    whole.write_results(tmp_path, "quick", [again])
    assert whole.read_results(tmp_path, "quick") == {"a": again, "b": other}
    assert whole.read_results(tmp_path, "") == {}
    next((tmp_path / "runs" / "reproduced").iterdir()).write_text("{")
    assert whole.read_results(tmp_path, "quick") == {}


def test_one_that_failed_and_then_was_run_is_not_reported_as_failed(landscape, output, small, monkeypatch):
    from experiments.chapter1.schematic import SchematicLossChange

    with monkeypatch.context() as patched:
        patched.setattr(SchematicLossChange, "measure", lambda *_: 1 / 0)
        assert landscape("reproduce", *CHEAP[1:], *small, "--jobs", "1").code == 1
    assert landscape("run", "experiment=schematic_loss_change", *small).code == 0
    assert landscape("report", *small).code == 0
    entry = gather(output, "smoke").entries[0]
    assert (entry.item.name, entry.state) == ("figure 1.1", "drawn")
    assert [part.reasons for part in entry.parts] == [[]]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def living_children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_leaves_no_process(start, output, small, sign):
    process = start("reproduce", "fc_mnist", "conv_pooling_mnist", *small, "training.epochs=5000", "--jobs", "2")
    deadline = time.monotonic() + 90
    while not list(output.glob("results/*/.claims/*")):
        assert time.monotonic() < deadline, process.communicate()
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    children = living_children(process.pid)
    assert len(children) >= 2
    os.kill(process.pid, sign)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == (130 if sign == signal.SIGINT else -signal.SIGKILL)
    if sign == signal.SIGINT:
        assert "stopped: 0 of 2 experiments are drawn; the same command goes on from there" in out
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(output.glob("results/*/*/point.json"))
