"""The catalogue of the thesis's figures and tables, and the shipped experiments; quick to read, nothing composed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from landscape_cli.config_path import config_folder
from landscape_cli.progress import read_grids, state_of


@dataclass(frozen=True)
class Item:
    """A figure or table of the thesis."""

    name: str  # "figure 1.3"
    caption: str
    experiments: dict[str, str]  # experiment -> file without suffix

    @property
    def chapter(self) -> int:
        """Number of its chapter."""
        return int(self.name.split()[1].split(".")[0])


@cache
def catalogue() -> tuple[Item, ...]:
    """Every figure and table of the thesis, in order."""
    spec = find_spec("experiments")
    text = (Path(spec.submodule_search_locations[0]) / "catalogue.yaml").read_text(encoding="utf-8")
    return tuple(Item(e["item"], e["caption"], e["experiments"]) for e in yaml.load(text, yaml.CSafeLoader))


@cache
def shipped() -> dict[str, str]:
    """Names and titles of the experiments that are built."""
    return {name: _line(text, r"^title: *(.+)$") for name, text in _texts().items()}


@cache
def _texts() -> dict[str, str]:
    paths = sorted((config_folder() / "experiment").glob("*.yaml"))
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}


def _line(text: str, pattern: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip("\"'") if found else ""


def _data(name: str) -> str:
    """The data sets of an experiment: its grid's, else its own."""
    text = _texts()[name]
    several = _line(text, r"^  dataset: *\[(.+)\]")
    return several or _line(text, r"override /dataset: *(\S+)") or "no data"


def items_of(experiment: str) -> list[Item]:
    """The figures and tables that an experiment makes."""
    return [item for item in catalogue() if experiment in item.experiments]


def list_experiments() -> int:
    """Print every experiment with what it makes, where its last run stands, and what is not built yet."""
    width = max(map(len, shipped()))
    output = default_output()
    grids = read_grids(output)
    for name, title in shipped().items():
        made = ", ".join(item.name for item in items_of(name)) or "beyond the thesis"
        print(f"{name:<{width}}  {state_of(name, output, grids):<22}  {made}: {title} [{_data(name)}]")
    missing: dict[str, list[str]] = {}
    for item in catalogue():
        for name in item.experiments:
            if name not in shipped():
                missing.setdefault(name, []).append(item.name)
    built = sum(any(name in shipped() for name in item.experiments) for item in catalogue())
    whole = sum(all(name in shipped() for name in item.experiments) for item in catalogue())
    partly = f" ({built - whole} of them in part)" if built > whole else ""
    print(f"\n{built} of the thesis's {len(catalogue())} figures and tables can be made{partly}; not built yet:")
    for name, items in missing.items():
        print(f"  {name}: {', '.join(items)}")
    return 0


def default_output() -> Path:
    """Where outputs are, for commands that compose no configuration."""
    return Path(os.environ.get("LANDSCAPE_OUTPUTS") or "outputs").expanduser()
