"""Blocks of code and commands of documentation: for the tests of the README and of the site."""

import re
import shlex
from functools import cache
from pathlib import Path

from landscape_cli import cli, slurm, submit
from landscape_cli.composing import load
from landscape_cli.listing import shipped

MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
OTHERS = {".", "eval", "pip"}  # first words of commands that are not ours


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code of a language, without their fences; ``""``: of those that name none."""
    found, opened, lines = [], None, []
    for line in text.splitlines():
        if opened is None:
            if line.startswith("```"):
                opened, lines = line.removeprefix("```").partition(" ")[0], []
        elif line == "```":
            if opened == language:
                found.append("".join(f"{line}\n" for line in lines))
            opened = None
        else:
            lines.append(line)
    return found


def commands(text: str, language: str = "sh") -> list[tuple[str, ...]]:
    """The commands of all blocks, as words; comments are left out."""
    lines = [line for block in blocks(text, language) for line in block.splitlines()]
    return [words for line in lines if (words := tuple(shlex.split(line, comments=True)))]


def check(words: tuple[str, ...]) -> None:
    """Parse and compose a command as it would be before anything is measured; raises what it would stop with."""
    first, *rest = words
    if first == "make":
        targets = [word for word in rest if "=" not in word]
        assert targets
        assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets), words
    elif first == "landscape":
        _check_ours(rest[0], rest[1:])
    else:
        assert first in OTHERS, words


def _check_ours(command: str, words: list[str]) -> None:
    if command == "run":
        for job in _jobs([word for word in words if word not in ("-m", "--dry-run")]):
            _composes(job)
        return
    if command == "submit":
        names, _, options, overrides = submit._parsed(words)
        slurm.flags(options)
        for name in names:
            _composes((f"experiment={name}", *overrides))
        return
    parsed = vars(cli._parser().parse_args([command, *words]))
    given = [word for found in parsed.values() if isinstance(found, list) for word in found]
    names = [word for word in (*given, parsed.get("name")) if word and "=" not in word]
    if command != "data":
        assert set(names) <= set(shipped()), words
        for name in names or ["quickstart"]:
            _composes((f"experiment={name}", *(word for word in given if "=" in word)))


def _jobs(words: list[str]) -> list[tuple[str, ...]]:
    """The first job of a sweep, once for each experiment that it names."""
    plain = [word for word in words if not word.startswith("hydra")]
    jobs: list[tuple[str, ...]] = [()]
    for word in plain:
        key, _, value = word.partition("=")
        values = value.split(",") if not value.startswith(("[", "{")) else [value]
        values = ["0"] if value.startswith("range(") else values if key == "experiment" else values[:1]
        jobs = [(*job, f"{key}={each}") for job in jobs for each in values]
    return jobs


@cache
def _composes(overrides: tuple[str, ...]) -> None:
    load(list(overrides))
