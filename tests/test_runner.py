"""The loop: what is stored is not measured again, whatever stops, fails or is damaged; outputs are the same again."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landscape_cli.draw import variant_name
from landscape_cli.errors import MeasurementFailed
from landscape_cli.experiment import Experiment, Figure, Measurement, Point, Table


@dataclass
class ToyOptions:
    """How the toy behaves; ``x`` is the grid's axis."""

    x: int = 0
    seconds: float = 0.0
    failing: list[int] = field(default_factory=list)
    odd: str = ""  # what the measurement or the drawing does wrong


class Toy(Experiment):
    """Squares x, slowly if asked, and fails where it is told to."""

    Options = ToyOptions

    def points(self):
        return [Point.of({"x": x}, {"x": x}) for x in self.config.grid["x"]]

    def measure(self, point, context):
        options, x = self.config.measure, point.settings["x"]
        time.sleep(options.seconds)
        if x in options.failing:
            if options.odd == "expected":
                raise MeasurementFailed(f"x = {x} diverged")
            raise ZeroDivisionError(f"x = {x}\nwith a second line")
        frames = {} if options.odd == "nothing" else {"squares": pd.DataFrame({"y": [x * x]})}
        return Measurement({"squares": frames["squares"].head(0)} if options.odd == "empty" else frames)

    def figures(self, results):
        from landscape_cli.plotting.style import new_figure

        if self.config.measure.odd == "figures":
            raise ValueError("cannot draw")
        drawing, axes = new_figure(1, 1, 3, 2)
        axes[0, 0].plot(results.frames["squares"]["x"], results.frames["squares"]["y"])
        yield Figure("toy", drawing, "Squares.")

    def tables(self, results):
        yield Table("toy", results.frames["squares"], "Squares.")


TOY = ("experiment=schematic_loss_change", "name=toy", "family=test_runner.Toy", "plot.formats=[png]", "plot.dpi=50")
FOUR = (*TOY, "+grid.x=[1,2,3,4]")


def stored_files(output):
    """Every result but ``point.json``, which names times and commands: path -> content."""
    results = output / "results"
    return {
        path.relative_to(results): path.read_bytes()
        for path in results.rglob("*")
        if path.is_file() and path.name != "point.json"
    }


def documents(output):
    paths = output.glob("results/*/[!.]*/point.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def variant_folder(output, kind):
    """The one folder below ``figures`` or ``tables`` that this test's commands wrote to."""
    (folder,) = {path.parent for path in (output / kind).rglob("*") if path.is_file()}
    return folder


def contents(output, kind):
    return {path.relative_to(output): path.read_bytes() for path in (output / kind).rglob("*") if path.is_file()}


def pixels(output):
    import matplotlib.image

    return {p.relative_to(output): matplotlib.image.imread(p) for p in (output / "figures").rglob("*.png")}


def times(output):
    return {key: document["provenance"]["began"] for key, document in documents(output).items()}


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


class TestStored:
    def test_second_run_measures_nothing(self, landscape, measured, small):
        before = stored_files(measured), documents(measured)
        finished = landscape("run", *small)
        assert finished.code == 0, finished.err
        assert "4 points: 4 stored, 0 to measure" in finished.out
        assert (stored_files(measured), documents(measured)) == before

    def test_second_run_and_figures_import_no_torch(self, measured, small):
        script = textwrap.dedent(f"""
            import sys
            from landscape_cli.cli import dispatch
            assert dispatch(["run", *{small}]) == 0
            assert dispatch(["figures", "quickstart", *{small}]) == 0
            assert dispatch(["show", "quickstart", *{small}]) == 0
            print(sorted({{"torch", "torchvision"}} & set(sys.modules)))
        """)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"

    def test_outputs_are_the_same_again(self, landscape, measured, small):
        before = contents(measured, "tables"), contents(measured, "figures"), pixels(measured)
        assert all(before)
        for kind in ("tables", "figures"):
            shutil.rmtree(measured / kind)
        assert landscape("figures", "quickstart", *small).code == 0
        assert contents(measured, "tables") == before[0]
        assert contents(measured, "figures") == before[1]
        after = pixels(measured)
        assert after.keys() == before[2].keys()
        assert all(np.array_equal(after[path], before[2][path]) for path in after)

    @pytest.mark.slow
    def test_pdf_is_the_same_again(self, landscape, measured, small):
        words = [*(word for word in small if "formats" not in word), "plot.formats=[pdf,svg]"]
        assert landscape("figures", "quickstart", *words).code == 0
        before = {path: c for path, c in contents(measured, "figures").items() if path.suffix in (".pdf", ".svg")}
        assert len(before) == 2
        time.sleep(1.1)  # a date would differ
        assert landscape("figures", "quickstart", *words).code == 0
        assert before.items() <= contents(measured, "figures").items()

    def test_measuring_again_gives_the_same_numbers(self, landscape, measured_once, tmp_path, small):
        assert landscape("run", *small).code == 0
        assert stored_files(tmp_path / "outputs") == stored_files(measured_once)
        assert contents(tmp_path / "outputs", "tables") == contents(measured_once, "tables")

    def test_another_experiment_takes_the_shared_points(self, landscape, measured, small):
        same = ["dataset=digits", "dataset.max_size=120", "dataset.train_size=null", "measure.smoothing=0.9"]
        finished = landscape("run", "experiment=fc_mnist", *small, *same)
        assert finished.code == 0, finished.err
        assert "4 points: 4 stored, 0 to measure" in finished.out

    def test_one_point_more_measures_one(self, landscape, measured, small):
        finished = landscape("run", *small, "grid.hidden_size=[4,8,64]")
        assert "5 points: 4 stored, 1 to measure" in finished.out

    def test_from_another_working_directory(self, landscape, measured, tmp_path, monkeypatch, small):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert "4 points, 0 to measure" in landscape("run", *small, "--dry-run").out
        assert landscape("run", *FOUR).code == 0
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_relative_output_folder_is_below_the_working_directory(self, landscape, isolated, monkeypatch):
        monkeypatch.delenv("LANDSCAPE_OUTPUTS")
        assert landscape("run", *FOUR).code == 0
        assert [path.name for path in (isolated / "work").iterdir()] == ["outputs"]
        assert landscape("run", *FOUR, "output_dir='~/mine'").code == 0
        assert (isolated / "home" / "mine" / "results").is_dir()

    def test_provenance(self, measured):
        for document in documents(measured).values():
            provenance = document["provenance"]
            assert provenance["device"] == "cpu" or provenance["device"].startswith(("cuda", "mps"))
            assert provenance["seconds"] > 0
            assert {"python", "torch", "numpy"} <= provenance["versions"].keys()
            assert document["settings"]["seeds"] == [0, 1]
            assert document["settings"]["dataset"]["objects"] == 120

    def test_provenance_names_the_command_as_typed(self, landscape, tmp_path):
        assert landscape("run", *FOUR, "--debug").code == 0
        commands = {document["provenance"]["command"] for document in documents(tmp_path / "outputs").values()}
        (command,) = commands
        assert command.startswith("landscape run experiment=schematic_loss_change")
        assert command.endswith("--debug")


class TestDryRun:
    def test_writes_nothing(self, landscape, tmp_path, isolated, small):
        finished = landscape("run", *small, "--dry-run")
        assert finished.code == 0
        assert "4 points, 4 to measure" in finished.out
        assert finished.out.count("missing  ") == 4
        assert not (tmp_path / "outputs").exists()
        assert list((isolated / "work").iterdir()) == []

    def test_of_a_sweep_writes_nothing(self, landscape, tmp_path, small):
        finished = landscape("run", "-m", *small, "seed=0,1", "--dry-run")
        assert finished.out.count("4 points, 4 to measure") == 2
        assert not (tmp_path / "outputs").exists()

    def test_lists_what_is_stored(self, landscape, measured, small):
        before = stored_files(measured), documents(measured)
        finished = landscape("run", *small, "grid.hidden_size=[4,8,64]", "--dry-run")
        assert finished.out.count("stored   ") == 4
        assert finished.out.count("missing  ") == 1
        assert "hidden_size=8" in next(line for line in finished.out.splitlines() if line.startswith("missing"))
        assert (stored_files(measured), documents(measured)) == before

    def test_of_missing_data(self, landscape):
        finished = landscape("run", "experiment=datasets", "data.download=false", "--dry-run")
        assert finished.code == 3
        assert "Traceback" not in finished.err


class TestParameters:
    def test_are_kept_when_asked_for(self, landscape, measured, small):
        from safetensors.numpy import load_file

        before = stored_files(measured)
        assert not list(measured.rglob("*.safetensors"))
        finished = landscape("run", *small, "keep_parameters=true")
        assert "4 points: 0 stored, 4 to measure" in finished.out
        assert finished.code == 0, finished.err
        files = list(measured.glob("results/*/*/parameters.safetensors"))
        assert len(files) == 4
        for file in files:
            settings = documents(measured)[file.parent.name]["settings"]
            tensors = load_file(file)
            assert {len(tensor) for tensor in tensors.values()} == {len(settings["seeds"])}
            hidden, layers = settings["model"]["hidden_size"], settings["model"]["num_layers"]
            assert sum(tensor[0].size for tensor in tensors.values()) == hidden * (64 + 10 + layers * hidden)
        assert before.items() <= stored_files(measured).items()  # the same numbers
        for words in (["keep_parameters=true"], []):
            assert "4 points, 0 to measure" in landscape("run", *small, "--dry-run", *words).out


class TestFailures:
    @pytest.mark.parametrize(("odd", "text"), [("", "ZeroDivisionError: x = 2"), ("expected", "x = 2 diverged")])
    def test_a_failed_point_does_not_stop_the_others(self, landscape, tmp_path, odd, text):
        finished = landscape("run", *FOUR, "+measure.failing=[2,4]", f"+measure.odd={odd}")
        assert finished.code == 1
        assert sorted(d["settings"]["x"] for d in documents(tmp_path / "outputs").values()) == [1, 3]
        assert finished.lines[0] == "2 failed:"
        assert len(finished.lines) == 3
        for line, x in zip(finished.lines[1:], (2, 4), strict=True):
            assert f"x={x}: {text.replace('2', str(x))}" in line
            log = Path(line.rpartition("(log: ")[2].rstrip(")"))
            assert "Traceback" in log.read_text()
            assert f"x = {x}" in log.read_text()
        table = pd.read_csv(variant_folder(tmp_path / "outputs", "tables") / "toy.csv")
        assert table["x"].tolist() == [1, 3]
        assert "MISSING 2 of 4 points" in finished.out

    def test_the_same_command_measures_the_failed_ones_only(self, landscape, tmp_path):
        landscape("run", *FOUR, "+measure.failing=[2]")
        began = times(tmp_path / "outputs")
        finished = landscape("run", *FOUR)
        assert finished.code == 0
        assert "4 points: 3 stored, 1 to measure" in finished.out
        assert began.items() <= times(tmp_path / "outputs").items()
        assert len(documents(tmp_path / "outputs")) == 4

    def test_all_fail(self, landscape, tmp_path):
        finished = landscape("run", *FOUR, "+measure.failing=[1,2,3,4]")
        assert finished.code == 1
        assert finished.lines[0] == "4 failed:"
        assert not documents(tmp_path / "outputs")

    @pytest.mark.parametrize("odd", ["nothing", "empty"])
    def test_a_measurement_without_rows_is_a_failure(self, landscape, tmp_path, odd):
        finished = landscape("run", *FOUR, f"+measure.odd={odd}")
        assert finished.code == 1
        assert finished.lines[0] == "4 failed:"
        assert not documents(tmp_path / "outputs")

    def test_a_figure_that_fails_leaves_the_tables(self, landscape, tmp_path):
        finished = landscape("run", *FOUR, "+measure.odd=figures")
        assert finished.code == 1
        assert "drawing figures: ValueError: cannot draw" in finished.err
        log = Path(finished.err.rpartition("(log: ")[2].rstrip(")\n"))
        assert "Traceback" in log.read_text()
        assert (variant_folder(tmp_path / "outputs", "tables") / "toy.csv").is_file()

    @pytest.mark.parametrize("failing", ["hidden_size", "num_layers"])
    def test_a_shipped_figure_is_drawn_from_what_there_is(self, landscape, monkeypatch, tmp_path, failing, small):
        """Every point of one axis fails: its panel has nothing to show, the other one has."""
        from experiments.chapter1.loss_difference import LossDifference

        measured = LossDifference._measured
        bad = {"hidden_size": (4, 64), "num_layers": (1, 10)}[failing]

        def broken(self, point, *given):
            if point.coordinates[failing] in bad:
                raise MeasurementFailed("diverged")
            return measured(self, point, *given)

        monkeypatch.setattr(LossDifference, "_measured", broken)
        finished = landscape("run", *small)
        assert finished.code == 1
        assert finished.lines[0] == "2 failed:", finished.err
        assert "MISSING 2 of 4 points" in finished.out
        assert (tmp_path / "outputs/figures/smoke/quickstart.png").is_file()

    def test_too_few_objects_are_bad_input(self, landscape, tmp_path, small):
        """A loss difference needs two objects: that is known before anything is trained."""
        finished = landscape("run", *small, "dataset.train_size=1")
        assert finished.code == 2
        assert len(finished.lines) == 1
        assert not documents(tmp_path / "outputs")


class TestDamage:
    @pytest.mark.parametrize("file", ["point.json", "squares.parquet"])
    @pytest.mark.parametrize("how", ["truncated", "flipped", "deleted"])
    def test_is_said_and_measured_again(self, landscape, tmp_path, file, how):
        output = tmp_path / "outputs"
        landscape("run", *FOUR)
        whole = stored_files(output)
        path = sorted(output.glob(f"results/*/*/{file}"))[1]
        content = bytearray(path.read_bytes())
        if how == "deleted":
            path.unlink()
        else:
            content[len(content) // 2] ^= 1
            path.write_bytes(content if how == "flipped" else content[: len(content) // 2])
        finished = landscape("run", *FOUR)
        assert finished.code == 0, finished.err
        assert "4 points: 3 stored, 1 to measure" in finished.out
        assert stored_files(output) == whole
        assert "4 stored, 0 to measure" in landscape("run", *FOUR).out
        assert len(finished.lines) == 1, finished.err
        assert "damaged point" in finished.err
        assert path.parent.name in finished.err
        assert "measured again" in finished.err

    def test_edited_settings_are_damage(self, landscape, measured, small):
        path = sorted(measured.glob("results/*/*/point.json"))[0]
        path.write_text(path.read_text().replace('"objects": 120', '"objects": 121'))
        finished = landscape("run", *small)
        assert finished.code == 0
        assert "damaged point" in finished.err
        assert json.loads(path.read_text())["settings"]["dataset"]["objects"] == 120

    def test_figures_says_so_and_names_the_command(self, landscape, measured, small):
        path = sorted(measured.glob("results/*/*/curves.parquet"))[0]
        path.write_bytes(b"")
        finished = landscape("figures", "quickstart", *small)
        assert finished.code == 1
        assert "damaged point" in finished.err
        assert "quickstart: 1 of 4 points: landscape run experiment=quickstart profile=smoke" in finished.err
        assert "MISSING 1 of 4 points" in finished.out


class TestInterruption:
    def _slow(self, start, tmp_path, *words):
        process = start("run", *TOY, "+grid.x=[1,2,3,4,5,6,7,8]", "+measure.seconds=0.3", *words)
        until(lambda: process.poll() is not None or len(documents(tmp_path / "outputs")) >= 2)
        return process

    def _goes_on(self, landscape, tmp_path):
        began = times(tmp_path / "outputs")
        assert 2 <= len(began) < 8
        finished = landscape("run", *TOY, "+grid.x=[1,2,3,4,5,6,7,8]")
        assert finished.code == 0, finished.err
        assert f"8 points: {len(began)} stored, {8 - len(began)} to measure" in finished.out
        assert began.items() <= times(tmp_path / "outputs").items()
        table = pd.read_csv(variant_folder(tmp_path / "outputs", "tables") / "toy.csv")
        assert table["y"].tolist() == [x * x for x in range(1, 9)]

    def test_ctrl_c_keeps_finished_points(self, landscape, start, tmp_path):
        process = self._slow(start, tmp_path)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert f"stopped: {len(documents(tmp_path / 'outputs'))} of 8 points are stored" in err
        assert not list((tmp_path / "outputs/results").rglob(".draft-*"))
        self._goes_on(landscape, tmp_path)

    @pytest.mark.slow
    def test_ctrl_c_stops_a_sweep(self, start, tmp_path):
        process = start("run", "-m", *TOY, "+grid.x=[1,2,3,4,5,6,7,8],[9],[10]", "+measure.seconds=0.3")
        until(lambda: process.poll() is not None or len(documents(tmp_path / "outputs")) >= 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert not {9, 10} & {document["settings"]["x"] for document in documents(tmp_path / "outputs").values()}

    def test_kill_9_and_again(self, landscape, start, tmp_path):
        process = self._slow(start, tmp_path)
        process.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        self._goes_on(landscape, tmp_path)
        assert not list((tmp_path / "outputs/results").rglob(".draft-*"))

    @pytest.mark.slow
    def test_two_runs_at_once_share_one_store(self, start, tmp_path):
        words = ("run", *TOY, "+grid.x=[1,2,3,4,5,6]", "+measure.seconds=0.05")
        runs = [start(*words) for _ in range(3)]
        for process in runs:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        assert len(documents(tmp_path / "outputs")) == 6
        table = pd.read_csv(variant_folder(tmp_path / "outputs", "tables") / "toy.csv")
        assert table["y"].tolist() == [x * x for x in range(1, 7)]
        assert not list((tmp_path / "outputs").rglob(".*"))

    def test_reader_that_goes_away(self, measured, small):
        """``landscape run | head -1`` ends without a traceback."""
        command = f"{sys.executable} -m landscape_cli.cli run {' '.join(small)} | head -1".replace("[", "\\[")
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


class TestShards:
    def test_one_after_the_other_give_what_a_whole_run_gives(self, landscape, measured_once, tmp_path, small):
        first = landscape("run", *small, "shard.count=2", "shard.index=0")
        assert first.code == 0
        assert "4 points: 0 stored, 2 to measure, shard 0 of 2" in first.out
        assert "2 points of other shards are missing" in first.out
        assert not (tmp_path / "outputs" / "figures").exists()
        second = landscape("run", *small, "shard.count=2", "shard.index=1")
        assert second.code == 0
        assert "4 points: 2 stored, 2 to measure, shard 1 of 2" in second.out
        assert stored_files(tmp_path / "outputs") == stored_files(measured_once)
        assert contents(tmp_path / "outputs", "tables") == contents(measured_once, "tables")
        assert contents(tmp_path / "outputs", "figures") == contents(measured_once, "figures")

    def test_as_a_sweep(self, landscape, measured_once, tmp_path, small):
        finished = landscape("run", "-m", *small, "shard.count=2", "shard.index=range(2)")
        assert finished.code == 0, finished.err
        assert stored_files(tmp_path / "outputs") == stored_files(measured_once)
        assert contents(tmp_path / "outputs", "tables") == contents(measured_once, "tables")

    def test_every_point_is_in_one_shard(self, landscape, tmp_path):
        for index in range(3):
            assert landscape("run", *FOUR, "shard.count=3", f"shard.index={index}", "--dry-run").code == 0
            assert landscape("run", *FOUR, "shard.count=3", f"shard.index={index}").code == 0
        assert sorted(d["settings"]["x"] for d in documents(tmp_path / "outputs").values()) == [1, 2, 3, 4]

    def test_more_shards_than_points(self, landscape):
        finished = landscape("run", *TOY, "+grid.x=[1]", "shard.count=3", "shard.index=2")
        assert finished.code == 0
        assert "0 to measure" in finished.out


class TestSweeps:
    def test_of_experiments(self, landscape, tmp_path, small):
        finished = landscape("run", "-m", "experiment=schematic_loss_change,datasets", *small)
        assert finished.code == 0, finished.err
        names = {path.stem for path in (tmp_path / "outputs").rglob("*_1_1_*")}
        assert names == {"fig_1_1_schematic_loss_change", "table_1_1_datasets"}

    @pytest.mark.parametrize("samples", ["0,4", "4,0"])
    def test_a_bad_job_does_not_stop_a_good_one(self, landscape, tmp_path, samples, small):
        words = ("model.num_layers=5", f"model.hidden_size={samples}", "grid.num_layers=[5]", "grid.hidden_size=[4]")
        finished = landscape("run", "-m", *small, *words)
        assert finished.code == 2
        assert finished.lines == ["landscape: model.hidden_size: 0; allowed: 1 or more"]
        assert len(documents(tmp_path / "outputs")) == 1

    def test_a_failed_and_a_bad_job(self, landscape, tmp_path):
        finished = landscape("run", "-m", *FOUR, "+measure.failing=[1],[]", "plot.dpi=50,1")
        assert finished.code == 1
        assert finished.err.count("plot.dpi: 1; allowed") == 2
        assert finished.err.count("1 failed:") == 1
        assert "Traceback" not in finished.err
        assert len(documents(tmp_path / "outputs")) == 4

    @pytest.mark.parametrize("names", ["schematic_loss_change,nosuch", "nosuch,schematic_loss_change"])
    def test_an_unknown_experiment_is_refused_first(self, landscape, tmp_path, names, small):
        finished = landscape("run", "-m", f"experiment={names}", *small)
        assert finished.code == 2
        assert len(finished.lines) == 1
        assert "experiment=nosuch" in finished.err
        assert not documents(tmp_path / "outputs")

    def test_an_unknown_key_is_said_once(self, landscape, small):
        finished = landscape("run", "-m", *small, "seeed=1,2")
        assert (finished.code, len(finished.lines)) == (2, 1)
        assert "did you mean 'seed'" in finished.err

    def test_leaves_nothing_of_hydras(self, landscape, tmp_path, isolated):
        assert landscape("run", "-m", *FOUR, "+measure.seconds=0,0.01").code == 0
        assert list((isolated / "work").iterdir()) == []
        assert {path.name for path in (tmp_path / "outputs").iterdir()} <= {"results", "figures", "tables", "runs"}
        assert not list((tmp_path / "outputs").rglob(".hydra"))
        assert not list((tmp_path / "outputs").rglob("*.log"))


class TestVariants:
    def test_another_number_of_seeds_overwrites_nothing(self, landscape, measured, small):
        before = contents(measured, "figures") | contents(measured, "tables")
        assert landscape("run", *small, "seeds=1").code == 0
        after = contents(measured, "figures") | contents(measured, "tables")
        assert before.items() < after.items()
        assert len(after) == 2 * len(before)

    @pytest.mark.parametrize(
        "override", ["seeds=2", "+seeds=2", "training.epochs=3", "profile.seeds=2", "profile.objects=50", "sweep=full"]
    )
    def test_what_changes_a_number_has_its_own_folder(self, override):
        assert variant_name("paper", [override]) not in ("", "quick")

    @pytest.mark.parametrize(
        "override",
        ["experiment=a", "profile=paper", "device=cpu", "output_dir=x", "plot.dpi=99", "shard.count=2", "threads=1"],
    )
    def test_what_changes_none_has_not(self, override):
        assert variant_name("paper", [override]) == ""
        assert variant_name("smoke", [override]) == "smoke"

    def test_long_commands_stay_apart(self):
        many = [f"grid.hidden_size=[{','.join(map(str, range(60)))}]"]
        assert variant_name("paper", [*many, "seeds=2"]) != variant_name("paper", [*many, "seeds=3"])

    @pytest.mark.parametrize("override", ["seeds=../../x", "seeds=a/b", "seeds=a b", "title='ü'"])
    def test_is_one_plain_folder(self, override):
        name = variant_name("paper", [override])
        assert "/" not in name
        assert name.isascii()
        assert name not in (".", "..")

    @pytest.mark.slow
    def test_figures_takes_the_same_words(self, landscape, measured, small):
        assert landscape("run", *small, "seeds=1").code == 0
        before = contents(measured, "figures")
        assert landscape("figures", "quickstart", *small, "seeds=1").code == 0
        assert contents(measured, "figures") == before


class TestThreads:
    def test_configured_number_is_used(self, landscape, tmp_path):
        import torch

        before = torch.get_num_threads()
        try:
            landscape("run", *TOY, "+grid.x=[1]", "threads=1")
            landscape("run", *TOY, "+grid.x=[2]", "threads=2")
        finally:
            torch.set_num_threads(before)
        used = {d["settings"]["x"]: d["provenance"]["threads"] for d in documents(tmp_path / "outputs").values()}
        assert used == {1: 1, 2: 2}


def test_run_folder_keeps_the_configuration(landscape, tmp_path):
    assert landscape("run", *FOUR).code == 0
    (config,) = (tmp_path / "outputs" / "runs").glob("*/config.yaml")
    assert "x:" in config.read_text()
    about = json.loads((config.parent / "run.json").read_text())
    assert about["command"].startswith("landscape run experiment=schematic_loss_change")
    assert landscape("run", *FOUR).code == 0
    assert len(list((tmp_path / "outputs" / "runs").glob("*/config.yaml"))) == 1  # nothing was measured


def test_silent_when_not_a_terminal(landscape):
    assert landscape("run", *FOUR).err == ""
