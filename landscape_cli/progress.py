"""How experiments stand: which points their last commands want, and which of these are stored, running or failed.

Every command that measures leaves the list of its points in ``runs/grids``; the rest is read off the store, so that
nothing has to be composed, located or loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape_cli.claims import Owner, clear_drafts
from landscape_cli.store import Store, replace_text


@dataclass(frozen=True)
class Grid:
    """The points of an experiment as one command wanted them."""

    name: str  # of the experiment
    variant: str  # profile and overrides that change numbers; empty: the thesis's own setting
    own: bool  # whether nothing but the profile differs from the experiment's own setting
    profile: str
    family: str
    parameters: bool  # whether trained parameters are to be kept
    points: tuple[tuple[str, str], ...]  # key and label of each
    without_data: int  # points whose data was not there
    command: str
    time: str

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.name} ({self.variant})" if self.variant else self.name


@dataclass(frozen=True)
class Standing:
    """How the points of a grid stand."""

    grid: Grid
    stored: int
    running: dict[str, Owner]  # label -> process
    queued: int
    failed: dict[str, dict[str, Any]]  # label -> record of the failure
    missing: int

    @property
    def total(self) -> int:
        """Number of points."""
        return len(self.grid.points) + self.grid.without_data


def write_grid(output_dir: Path, grid: Grid) -> None:
    """Leave a grid's list of points, in the place of an earlier one."""
    name = re.sub(r"[^A-Za-z0-9_.=,@+-]+", "-", f"{grid.name}@{grid.variant}" if grid.variant else grid.name)
    folder = output_dir / "runs" / "grids"
    clear_drafts(folder)
    replace_text(folder / f"{name}.json", json.dumps(vars(grid)))


def read_grids(output_dir: Path) -> list[Grid]:
    """Read every grid that a command left here; unreadable ones are passed over."""
    found = []
    for path in sorted((output_dir / "runs" / "grids").glob("[!.]*.json")):
        try:
            fields = json.loads(path.read_text())
            fields["points"] = tuple((str(key), str(label)) for key, label in fields["points"])
            grid = Grid(**fields)
            texts = (grid.name, grid.variant, grid.profile, grid.family, grid.command, grid.time)
            if all(isinstance(text, str) for text in texts) and isinstance(grid.without_data, int):
                found.append(grid)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


Points = frozenset[tuple[str, str]]  # family and key of each


def standing(
    output_dir: Path, grids: Sequence[Grid], queued: Points = frozenset(), ahead: Points = frozenset()
) -> list[Standing]:
    """Say how grids stand.

    Parameters
    ----------
    queued
        Points that jobs in a queue are to measure.
    ahead
        Points of jobs that are running.
    """
    store, seen = Store(output_dir), {}
    for family in {grid.family for grid in grids}:
        folder = store.root / family
        seen[family] = _Seen(_listed(folder), store.claims(family).living(), _failures(folder / ".failed"))
    return [_standing(store, grid, seen[grid.family], queued, ahead) for grid in grids]


@dataclass(frozen=True)
class _Seen:
    """What lies in the store of a family."""

    stored: frozenset[str]
    living: dict[str, Owner]
    failures: dict[str, dict[str, Any]]


def _standing(store: Store, grid: Grid, seen: _Seen, queued: Points, ahead: Points) -> Standing:
    stored, waiting, missing = 0, 0, grid.without_data
    running, failed = {}, {}
    for key, label in grid.points:
        if key in seen.stored and (not grid.parameters or store.has(grid.family, key, parameters=True)):
            stored += 1
        elif key in seen.living:
            running[label] = seen.living[key]
        elif (grid.family, key) in queued:
            waiting += 1
        elif key in seen.failures:
            failed[label] = seen.failures[key]
        elif (grid.family, key) in ahead:
            waiting += 1
        else:
            missing += 1
    return Standing(grid, stored, running, waiting, failed, missing)


def state_of(name: str, output_dir: Path, grids: Sequence[Grid]) -> str:
    """How an experiment's own setting stands, in a few words, for ``landscape list``."""
    own = [grid for grid in grids if grid.name == name and grid.own]
    if not own:
        return "not run here"
    newest = max(own, key=lambda grid: grid.time)
    (stands,) = standing(output_dir, [newest])
    return f"{stands.stored}/{stands.total} points ({newest.profile})"


def _listed(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _failures(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for name in _listed(folder):
        if name.startswith("."):
            continue
        try:
            record = json.loads((folder / name).read_text())
            found[name.removesuffix(".json")] = {"error": str(record["error"]), "log": record["log"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
