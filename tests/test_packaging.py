"""What an installation that is not a checkout needs: conf/ and experiments/ with their data files."""

import os
import shutil
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from landscape_cli.config_path import config_folder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NEEDED = [
    "landscape_cli/cli.py",
    "landscape_cli/conf/config.yaml",
    *(f"landscape_cli/conf/{p.relative_to(ROOT / 'conf').as_posix()}" for p in (ROOT / "conf").rglob("*.yaml")),
    "experiments/catalogue.yaml",
    "experiments/reference/fc_mnist_published.csv",
    "experiments/reference/thesis_tables.csv",
]


def unpack_as_installed(target: Path) -> None:
    """Lay out the tree that the wheel's settings describe."""
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    clean = shutil.ignore_patterns("__pycache__")
    for package in wheel["packages"]:
        shutil.copytree(ROOT / package, target / package, ignore=clean)
    for source, place in wheel["force-include"].items():
        shutil.copytree(ROOT / source, target / place, ignore=clean)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed here")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def run_from(tree: Path, work: Path) -> None:
    """Compose, list and run from a tree that has no checkout around it, in a folder of its own."""
    script = f"""
        import sys
        import landscape_cli, experiments
        from landscape_cli.cli import dispatch
        from landscape_cli.config_path import config_folder
        tree = {str(tree)!r}
        assert landscape_cli.__file__.startswith(tree), landscape_cli.__file__
        assert experiments.__file__.startswith(tree), experiments.__file__
        assert str(config_folder()) == tree + "/landscape_cli/conf", config_folder()
        assert dispatch(["list"]) == 0
        assert dispatch(["run", "experiment=schematic_loss_change", "plot.formats=[png]", "plot.dpi=50"]) == 0
        assert dispatch(["run", "profile=smoke", "--dry-run"]) == 0
        assert dispatch(["run", "experiment=quikstart"]) == 2
        from experiments.reference import published_curves, published_table
        assert len(published_curves("fc_mnist")) > 50
        assert len(published_table("1.1")) > 10
    """
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=work, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 figures and tables" in done.stdout


def test_settings_of_the_wheel_name_all_that_is_needed(tmp_path):
    tree = tmp_path / "installed"
    unpack_as_installed(tree)
    assert [path for path in NEEDED if not (tree / path).is_file()] == []


def test_runs_from_the_layout_of_the_wheel(tmp_path, isolated):
    tree = tmp_path / "installed"
    unpack_as_installed(tree)
    run_from(tree, isolated / "work")


def test_wheel_contains_what_is_needed(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert sorted(set(NEEDED) - names) == []
    assert not [name for name in names if name.startswith(("tests/", "conf/", "outputs/")) or "__pycache__" in name]


def test_runs_from_the_wheel(wheel, tmp_path, isolated):
    tree = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(tree)
    run_from(tree, isolated / "work")


def test_checkout_uses_its_own_conf():
    assert config_folder() == ROOT / "conf"
    assert config_folder().is_absolute()


def test_console_script():
    (script,) = [entry for entry in entry_points(group="console_scripts") if entry.name == "landscape"]
    assert script.value == PROJECT["project"]["scripts"]["landscape"]
    assert callable(script.load())


def test_hydra_and_python_are_pinned_as_designed():
    assert "hydra-core>=1.3.8,<1.4" in PROJECT["project"]["dependencies"]
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
