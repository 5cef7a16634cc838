"""The README's examples work when pasted, and its commands exist."""

import re
import shutil
import sys
from pathlib import Path

import documented
import pytest

from landscape_cli import cli, composing, config_path, jobs, listing

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def _block(language: str, holding: str = "") -> str:
    return next(text for text in documented.blocks(README, language) if holding in text)


@pytest.fixture
def pasted(tmp_path, monkeypatch):
    """A copy of conf/ and of the package of experiments with the example in it."""
    conf = tmp_path / "conf"
    shutil.copytree(config_path.config_folder(), conf)
    (conf / "experiment" / "loss_share.yaml").write_text(_block("yaml"))
    package = tmp_path / "beyond"
    package.mkdir()
    (package / "loss_share.py").write_text(_block("python", "class LossShare"))
    for module in (composing, jobs, listing):
        monkeypatch.setattr(module, "config_folder", lambda: conf)
    from experiments import beyond

    monkeypatch.setattr(beyond, "__path__", [*beyond.__path__, str(package)])
    monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(tmp_path / "outputs"))
    yield tmp_path / "outputs"
    sys.modules.pop("experiments.beyond.loss_share", None)
    for cached in (listing.shipped, listing._texts):
        cached.cache_clear()


def test_example_runs_when_pasted(pasted, capsys):
    listing.shipped.cache_clear()
    listing._texts.cache_clear()
    assert cli.dispatch(["run", "experiment=loss_share", "training.epochs=2", "seeds=2"]) == 0
    assert "2 points: 0 stored, 2 to measure" in capsys.readouterr().out
    drawn = list(pasted.glob("figures/*/loss_share.png"))
    assert len(drawn) == 1
    assert drawn[0].stat().st_size > 5000


def test_curvature_example_runs_when_pasted():
    names = {}
    exec(_block("python", "landscape_cli.curvature"), names)
    assert names["hessian"].shape == (195, 195)


def test_theorems_example_runs_when_pasted():
    names = {}
    exec(_block("python", "landscape_cli.bounds"), names)
    assert len(names["chain"].layers) == 2


def test_sample_size_example_runs_when_pasted():
    names = {}
    exec(_block("python", "samplesize"), names)
    assert 20 < names["sufficient"](names["curve"]).size < 150


def test_pruning_example_runs_when_pasted():
    names = {}
    exec(_block("python", "landscape_cli.pruning"), names)
    assert (names["step"].removed, int((names["step"].weights == 0).sum())) == (160, 160)


def test_example_is_short():
    assert sum(bool(line.strip()) for line in _block("python", "class LossShare").splitlines()) <= 30
    assert len(_block("yaml").splitlines()) <= 11


def test_first_commands_are_make_targets():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    commands = re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)
    assert commands[:2] == ["quickstart", "test"]
    for target in set(re.findall(r"make ([a-z]+(?:-[a-z]+)*)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_it_names_exist():
    for path in re.findall(r"\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / path).is_file(), path


@pytest.mark.parametrize("words", documented.commands(README, ""), ids=" ".join)
def test_commands_are_valid(words):
    documented.check(words)


def test_subcommands_it_names_exist(capsys):
    for command in set(re.findall(r"^landscape ([a-z]+)", README, re.MULTILINE)):
        if command != "run":
            with pytest.raises(SystemExit) as stop:
                cli.dispatch([command, "--help"])
            assert stop.value.code == 0
    assert cli.dispatch(["run", "--help"]) == 0
    for key in ("experiment=", "profile=", "shard.count", "--dry-run", "sweep=full"):
        assert key in capsys.readouterr().out or key in cli.RUN_HELP
