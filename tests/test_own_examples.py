"""The page on one's own network and data: its commands and its Python run as they stand, on smaller sizes."""

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "own.md").read_text(encoding="utf-8")
SMALL = {
    "seeds": "1",
    "training.epochs": "2",
    "dataset.train_size": "24",
    "measure.permutations": "5",
    "measure.hessian_objects": "6",
    "measure.hessian_samples": "2",
    "measure.probes": "2",
    "measure.steps": "4",
    "plot.formats": "[png]",
    "plot.dpi": "50",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture
def examples(isolated, monkeypatch):
    """The current folder, with copies of the examples in it."""
    work = isolated / "work"
    for name in ("pictures", "table"):
        shutil.copytree(DOCS / "examples" / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sys, "path", [str(work), *sys.path])
    yield work
    for name in [name for name in sys.modules if name.split(".")[0] in ("pictures", "table")]:
        del sys.modules[name]


def small(words: list[str]) -> list[str]:
    """A command's words, with smaller sizes in the place of its own."""
    own = {word.partition("=")[0]: word for word in words[1:]}
    return [
        *words[:1],
        *(word for key, word in own.items() if key not in SMALL),
        *(f"{k}={v}" for k, v in SMALL.items()),
    ]


@pytest.mark.parametrize("line", [line for line in commands() if "table" in line])
def test_commands_on_tables_run(landscape, examples, tmp_path, line):
    program, *words = shlex.split(line)
    assert program == "landscape"
    done = landscape(*small(words))
    assert (done.code, done.err) == (0, "")
    assert "24 of " in done.out
    assert "landscape measure" in done.out
    count = 2 if "model.width=8,32" in line else 1
    for name in ("own_loss_difference.png", "own_spectrum.png", "own_summary.csv"):
        assert len(list(tmp_path.rglob(name))) == count


@pytest.mark.slow
def test_commands_on_pictures_run(landscape, examples, monkeypatch, tmp_path):
    ran = 0
    for line in commands():
        if "pictures" not in line:
            continue
        program, *words = shlex.split(line)
        if program == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_module(words[1], run_name="__main__")
            assert len(list(Path("digits_png").rglob("*.png"))) == 537
        else:
            done = landscape(*small(words))
            assert (done.code, done.err) == (0, "")
            assert "11178051 parameters, 24 objects" in done.out
        ran += 1
    assert ran == 3


def test_the_python_runs_as_it_stands(examples, capsys):
    names = {}
    for block in blocks("python"):
        exec(block, names)
    printed = capsys.readouterr().out
    assert "Sufficient(size=" in printed
    assert "gauss_newton" in printed
    assert 0.8 < names["curve"].law.exponent < 1.2
    assert names["measure"].mean > 0
    assert len(names["spectrum"].eigenvalues) == 5
    assert len(names["sizes"].sizes) == 13


def test_every_key_that_the_page_names_is_one(examples):
    from landscape_cli.composing import load

    table = PAGE.split("## What is worth knowing")[1]
    keys = re.findall(r"\b((?:training|measure|dataset)\.[a-z_]+)=", table)
    assert len(keys) >= 7
    config = load(["experiment=own", "model._target_=table.Net", "dataset._target_=sklearn.datasets.load_wine"])
    for key in keys:
        node, name = key.split(".")
        assert hasattr(getattr(config, node), name), key
