"""The config node ``dataset``: images or a table, what an experiment takes, what stands in where there is no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from landscape_cli.config import DatasetConfig, TableConfig
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import STAND_INS, TABLE_SETS, check_table_name
from landscape_cli.errors import BadInput

_NOUNS = {"images": "a set of images", "table": "a table"}
_PLURALS = {"images": "images, for example dataset=mnist", "table": "tables, for example dataset=boston"}


def check_kind(node: Any, taken: str, experiment: str) -> None:
    """Refuse a data set of another kind than the experiment takes.

    Parameters
    ----------
    node
        As composed, not yet validated.
    taken
        The kind that the experiment takes.
    """
    if not isinstance(node, Mapping):
        return
    kind, name = node.get("kind", "images"), node.get("name")
    if kind in _NOUNS and kind != taken and name not in (IMAGE_SETS if taken == "images" else TABLE_SETS):
        raise BadInput(f"dataset: {name!r} is {_NOUNS[kind]}; {experiment} takes {_PLURALS[taken]}")
    _check_name(name, taken, "dataset", experiment)
    if kind in _NOUNS and kind != taken:
        raise BadInput(f"dataset.kind: {kind!r}; {experiment} takes {_PLURALS[taken]}")


def check_grid(grid: Mapping[str, list[Any]], node: DatasetConfig | TableConfig, experiment: str) -> None:
    """Refuse names in ``grid.dataset`` that are data sets of another kind."""
    for name in grid.get("dataset", []):
        _check_name(name, node.kind, "grid.dataset", experiment)


def check_table(grid: Mapping[str, list[Any]], node: DatasetConfig | TableConfig) -> None:
    """Refuse a table that is not known and has no file, and what is said of a table that is not used."""
    if not isinstance(node, TableConfig):
        return
    names = grid.get("dataset", [node.name])
    for name in names:
        own = name == node.name
        check_table_name(name, node.path if own else None, "dataset.name" if own else "grid.dataset")
    if node.name not in names:
        for key in ("path", "target", "drop"):
            if getattr(node, key) is not None:
                raise BadInput(
                    f"dataset.{key}: {getattr(node, key)!r} is for {node.name!r}, which grid.dataset does not have; "
                    "allowed: null"
                )


def stand_in(node: DatasetConfig | TableConfig, grid: dict[str, list[Any]], given: set[str]) -> None:
    """Put data that needs no file in the place of what is configured, and note for what; in place.

    Parameters
    ----------
    given
        Keys given on the command line, which stay as they are.
    """
    names = grid.get("dataset", [node.name])
    instead = {name: _instead(node, name) for name in [*names, node.name]}
    node.in_place_of = [name for name in names if name != instead[name]]
    if isinstance(node, TableConfig) and instead[node.name] != node.name:
        if node.train_size is not None and "dataset.train_size" not in given:
            node.max_size = min(node.train_size, node.max_size or node.train_size)  # there may be fewer
        for key, value in {"target": None, "drop": None, "encoding": None, "task": "auto", "train_size": None}.items():
            if f"dataset.{key}" not in given:
                setattr(node, key, value)
        node.path = None
    node.name = instead[node.name]
    if "dataset" in grid:
        grid["dataset"] = list(dict.fromkeys(instead[name] for name in names))


def _instead(node: DatasetConfig | TableConfig, name: str) -> str:
    if not isinstance(node, TableConfig) or node.embedded is not None:
        return node.embedded
    if name in TABLE_SETS:
        return TABLE_SETS[name].stand_in
    return STAND_INS["classification" if node.task == "classification" else "regression"]


def _check_name(name: Any, taken: str, key: str, experiment: str) -> None:
    other = {"images": ("table", TABLE_SETS), "table": ("images", IMAGE_SETS)}[taken]
    if isinstance(name, str) and name in other[1]:
        raise BadInput(f"{key}: {name!r} is {_NOUNS[other[0]]}; {experiment} takes {_PLURALS[taken]}")
