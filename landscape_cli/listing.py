"""The catalogue of the thesis's figures and tables, and the shipped experiments; quick to read, nothing composed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from landscape_cli.config_path import config_folder
from landscape_cli.errors import BadInput
from landscape_cli.progress import read_grids, state_of
from landscape_cli.validation import nearest


@dataclass(frozen=True)
class Item:
    """A figure or table of the thesis."""

    name: str  # "figure 1.3"
    caption: str
    experiments: dict[str, str]  # experiment -> file without suffix
    note: str = ""  # what is wrong with the caption, or missing from the thesis
    russian: str = ""  # the thesis's own caption

    @property
    def chapter(self) -> int:
        """Number of its chapter."""
        return int(self.name.split()[1].split(".")[0])


@dataclass(frozen=True)
class Thesis:
    """The thesis whose figures and tables they are."""

    author: str
    title: str
    russian: str  # its title as printed
    theorems: str  # the experiment that tries each theorem
    chapters: dict[int, dict[str, str]]  # number -> title, russian


@cache
def thesis() -> Thesis:
    """What the report says of the thesis itself."""
    return Thesis(**_shipped_yaml("thesis.yaml"))


@cache
def catalogue() -> tuple[Item, ...]:
    """Every figure and table of the thesis, in order."""
    entries = _shipped_yaml("catalogue.yaml")
    return tuple(
        Item(e["item"], e["caption"], e["experiments"], e.get("note", ""), e.get("russian", "")) for e in entries
    )


def _shipped_yaml(name: str) -> Any:
    folder = Path(find_spec("experiments").submodule_search_locations[0])
    return yaml.load((folder / name).read_text(encoding="utf-8"), yaml.CSafeLoader)


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


def check_experiment(name: str) -> None:
    """Refuse a name that no shipped experiment has.

    Raises
    ------
    BadInput
        With the nearest name.
    """
    if name not in shipped():
        raise BadInput(f"there is no experiment {name!r}{nearest(name, shipped())}; valid: {', '.join(shipped())}")


def check_no_experiment(overrides: Sequence[str]) -> None:
    """Refuse an experiment among overrides that hold for several.

    Raises
    ------
    BadInput
        Says how experiments are named there.
    """
    for text in overrides:
        if text.lstrip("+~").startswith("experiment="):
            raise BadInput(f"{text}: here experiments are named without experiment=, as in landscape figures fc_mnist")


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
