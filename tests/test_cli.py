"""The commands beside ``run``: what they print, what they need, and what they leave alone."""

import re
import shutil
import subprocess
import sys

import pytest

from landscape_cli import __version__
from landscape_cli.data.corpus_sets import CORPUS_SETS
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.listing import catalogue, shipped

HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn", "pyarrow")


def heavy_imports(*words: str) -> list[str]:
    """Run a command in a fresh process; return which of the heavy packages it has imported."""
    script = f"""
import sys
from landscape_cli.cli import dispatch
try:
    dispatch({list(words)!r})
except SystemExit:
    pass
print(*sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return done.stderr.split()


def test_help_names_every_command(landscape):
    finished = landscape("--help")
    assert finished.code == 0
    for command in ("run", "figures", "list", "show", "data", "doctor"):
        assert re.search(rf"^ +{command} ", finished.out, re.MULTILINE), command


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_of_run_names_its_words(landscape, word):
    finished = landscape("run", word)
    assert finished.code == 0
    for text in ("experiment=NAME", "profile=NAME", "--dry-run", "--multirun", "shard.count", "--debug"):
        assert text in finished.out


def test_version(landscape):
    assert landscape("--version").out == f"landscape {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list"], ["run", "--help"]], ids=" ".join)
def test_imports_nothing_heavy(words):
    assert heavy_imports(*words) == []


def test_a_refusal_imports_no_torch():
    script = """
import sys
from landscape_cli.cli import dispatch
assert dispatch(["run", "experiment=fc_mnist", "model.hidden_size=0"]) == 2
assert dispatch(["run", "experiment=fc_mnist", "data.download=false"]) == 3
assert dispatch(["show", "fc_mnist"]) == 0
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


class TestList:
    def test_names_every_experiment_of_the_catalogue(self, landscape):
        finished = landscape("list")
        assert finished.code == 0
        built, _, rest = finished.out.partition("not built yet:")
        for item in catalogue():
            for name in item.experiments:
                lines = (built if name in shipped() else rest).splitlines()
                (line,) = [line for line in lines if line.split()[:1] in ([name], [f"{name}:"])]
                assert re.search(rf"\b{re.escape(item.name)}\b(?!\.?\d)", line), (name, item.name)

    def test_names_titles_and_data(self, landscape):
        out = landscape("list").out
        for title in shipped().values():
            assert title
            assert title in out
        line = next(line for line in out.splitlines() if line.startswith("fc_pixels"))
        assert all(dataset in line for dataset in ("fashion_mnist", "cifar10", "cifar100"))
        assert "digits" in next(line for line in out.splitlines() if line.startswith("quickstart"))

    def test_counts_what_can_be_made(self, landscape):
        made = [item for item in catalogue() if set(item.experiments) & set(shipped())]
        assert f"{len(made)} of the thesis's 64 figures and tables" in landscape("list").out

    def test_says_where_the_last_run_stands(self, landscape, measured, small):
        def state():
            finished = landscape("list")
            assert finished.code == 0, finished.err
            return next(line for line in finished.out.splitlines() if line.startswith("quickstart"))

        assert "4/4 points (smoke)" in state()
        landscape("run", *small, "seeds=1")  # not the experiment's own
        assert "4/4 points (smoke)" in state()
        for folder in list(measured.glob("results/*/*")):
            shutil.rmtree(folder)
        assert "0/4 points (smoke)" in state()
        landscape("run", *small, "shard.count=2")
        assert "2/4 points (smoke)" in state()
        for broken in ("{", "[]", "null", '{"points": 3}'):
            (measured / "runs" / "grids" / "quickstart@smoke.json").write_text(broken)
            assert "not run here" in state()


class TestShow:
    def test_of_a_measured_experiment(self, landscape, measured, small):
        finished = landscape("show", "quickstart", *small)
        assert finished.code == 0
        for key in (path.name for path in measured.glob("results/*/*")):
            assert re.search(rf"^  stored +{key[:12]} ", finished.out, re.MULTILINE)
        assert "hidden_size=64" in finished.out
        assert "train_size: null" in finished.out
        assert "smoothing: 0.9" in finished.out

    def test_of_one_that_was_not_run(self, landscape, tmp_path):
        finished = landscape("show", "quickstart")
        assert len(re.findall(r"^  missing  [0-9a-f]{12}  dataset=digits", finished.out, re.MULTILINE)) == 9
        assert not (tmp_path / "outputs").exists()

    def test_without_its_data(self, landscape):
        finished = landscape("show", "fc_mnist")
        assert finished.code == 0
        assert "makes figure 1.3" in finished.out
        assert finished.out.count("no data  ") == 9

    @pytest.mark.parametrize("name", shipped())
    def test_every_experiment(self, landscape, name):
        finished = landscape("show", name)
        assert finished.code == 0
        assert finished.out.startswith(f"{name}: {shipped()[name]}")
        assert "\npoints:\n" in finished.out
        assert f"name: {name}" in finished.out


class TestFigures:
    def test_lists_what_is_missing_and_the_command(self, landscape, tmp_path):
        finished = landscape("figures", "quickstart", "seeds=2", "plot.formats=[png]")
        assert finished.code == 1
        assert finished.lines[0] == "missing:"
        assert "quickstart: 9 of 9 points" in finished.err
        assert "landscape run experiment=quickstart seeds=2 'plot.formats=[png]'" in finished.err
        assert not (tmp_path / "outputs").exists()

    def test_draws_what_is_stored(self, landscape, measured, small):
        for path in measured.glob("figures/smoke/*"):
            path.unlink()
        finished = landscape("figures", "quickstart", *small)
        assert finished.code == 0
        assert finished.err == ""
        assert str(measured / "figures/smoke/quickstart.png") in finished.out
        assert (measured / "figures/smoke/quickstart.png").stat().st_size > 1000

    @pytest.mark.parametrize("text", ["[]", "{", '{"settings": null}'])
    @pytest.mark.parametrize("command", ["show", "figures"])
    def test_pass_over_a_damaged_point_of_the_same_family(self, landscape, measured, command, text):
        """An experiment without its data looks through all stored points, whosever they are."""
        for path in measured.glob("results/*/*/point.json"):
            path.write_text(text)
        finished = landscape(command, "fc_mnist", "data.download=false")
        assert "unexpected" not in finished.err
        assert finished.code == {"show": 0, "figures": 1}[command]

    @pytest.mark.slow  # composes every experiment; a chapter's are composed below
    def test_of_all(self, landscape, measured, small):
        finished = landscape("figures", *small)
        assert finished.code == 0  # what can be drawn was drawn
        assert "conv_layers_mnist: 2 of 2 points" in finished.err
        assert "quickstart:" not in finished.err
        assert "quickstart:" in finished.out

    def test_of_an_experiment_among_the_overrides(self, landscape):
        landscape("figures", "experiment=fc_mnist").assert_refused(2, "experiment=fc_mnist", "figures fc_mnist")

    def test_of_a_chapter(self, landscape, small):
        finished = landscape("figures", "--chapter", "1", *small)
        assert "fc_mnist: 4 of 4 points" in finished.err
        assert "quickstart" not in finished.err  # it is in no chapter

    def test_of_a_chapter_that_is_not_built(self, landscape):
        finished = landscape("figures", "--chapter", "3")
        assert finished.out + finished.err != ""


class TestData:
    def test_list(self, landscape):
        finished = landscape("data", "list")
        assert finished.code == 0
        assert [line.split()[0] for line in finished.out.splitlines()] == [*IMAGE_SETS, *TABLE_SETS, *CORPUS_SETS]
        digits, _, mnist, *_ = finished.out.splitlines()
        assert "1437 train, 360 test, 1x8x8, 10 classes, whole" in digits
        assert "not found" in mnist

    def test_where(self, landscape, isolated):
        finished = landscape("data", "where")
        assert finished.code == 0
        assert [line.split()[0] for line in finished.out.splitlines()] == [
            str(isolated / "no-data"),
            str(isolated / "work" / "data"),
            str(isolated / "home" / ".cache" / "landscape"),
        ]
        assert "not there" not in finished.out.splitlines()[0]
        assert "not there" in finished.out.splitlines()[1]

    def test_verify_of_what_ships(self, landscape):
        finished = landscape("data", "verify", "digits")
        assert (finished.code, finished.err) == (0, "")
        assert "1437 train" in finished.out

    def test_verify_of_what_is_not_there(self, landscape):
        finished = landscape("data", "verify", "digits", "mnist")
        assert finished.code == 3
        assert "1437 train" in finished.out
        assert len(finished.lines) == 1
        assert "`landscape data fetch mnist`" in finished.err

    def test_damaged_archive(self, landscape, isolated, small):
        (isolated / "no-data" / "images").mkdir()
        (isolated / "no-data" / "images" / "mine.npz").write_bytes(b"PK damaged")
        for words in (["data", "verify", "mine"], ["run", *small, "dataset.name=mine"]):
            finished = landscape(*words)
            assert finished.code == 3
            assert len(finished.lines) == 1
            assert "mine.npz is damaged" in finished.err

    def test_fetch_of_what_ships(self, landscape):
        finished = landscape("data", "fetch", "digits")
        assert (finished.code, finished.err) == (0, "")

    def test_fetch_without_a_network(self, landscape):
        finished = landscape("data", "fetch", "mnist")
        assert finished.code == 3
        assert "Traceback" not in finished.err
        assert "download of 'mnist' failed" in finished.lines[-1]


class TestDoctor:
    def test_says_what_works(self, landscape, tmp_path, isolated):
        finished = landscape("doctor")
        assert finished.code == 0, finished.out
        for text in ("python 3.", "torch ", "cpu: ", "cuda", "torchvision", "digits", str(isolated / "no-data")):
            assert text in finished.out
        assert f"output folder\n  {tmp_path / 'outputs'}\n" in finished.out
        assert not (tmp_path / "outputs").exists()

    def test_says_what_does_not(self, landscape, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(tmp_path / "file" / "below"))
        finished = landscape("doctor")
        assert finished.code == 1
        assert "CANNOT BE WRITTEN" in finished.out


def test_unexpected_errors_are_one_line_too(landscape, monkeypatch):
    def broken():
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("landscape_cli.listing.list_experiments", broken)
    finished = landscape("list")
    assert finished.code == 1
    assert finished.lines == ["landscape: unexpected RuntimeError: first line second line (--debug shows where)"]
    assert "Traceback" in landscape("list", "--debug").err


def test_interruption_of_any_command(landscape, monkeypatch):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr("landscape_cli.listing.list_experiments", stopped)
    finished = landscape("list")
    assert (finished.code, finished.lines) == (130, ["landscape: stopped"])


@pytest.mark.parametrize("words", ["list", "--help", "show quickstart", "data list"])
def test_reader_that_goes_away(words):
    """``| head -1`` ends the reader first: no traceback, whatever the command was printing."""
    writer = f"import sys; from landscape_cli.cli import main; sys.argv[1:] = {words.split()!r}; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", writer], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    error = process.stderr.read()
    process.wait()
    process.stderr.close()
    assert "Traceback" not in error
    assert "BrokenPipeError" not in error
