"""The config node ``dataset``: of which kind it is, what an experiment takes, what stands in without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from landscape_cli.config import CorpusConfig, DatasetConfig, TableConfig
from landscape_cli.data.corpus_sets import CORPUS_SETS, LANGUAGES, check_corpus_name
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import STAND_INS, TABLE_SETS, check_table_name
from landscape_cli.errors import BadInput

DatasetNode = DatasetConfig | TableConfig | CorpusConfig

_KNOWN = {"images": IMAGE_SETS, "table": TABLE_SETS, "corpus": CORPUS_SETS}
_NOUNS = {"images": "a set of images", "table": "a table", "corpus": "a parallel corpus"}
_PLURALS = {
    "images": "images, for example dataset=mnist",
    "table": "tables, for example dataset=boston",
    "corpus": "parallel corpora, for example dataset=multi30k",
}


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
    if kind in _NOUNS and kind != taken and name not in _KNOWN[taken]:
        raise BadInput(f"dataset: {name!r} is {_NOUNS[kind]}; {experiment} takes {_PLURALS[taken]}")
    _check_name(name, taken, "dataset", experiment)
    if kind in _NOUNS and kind != taken:
        raise BadInput(f"dataset.kind: {kind!r}; {experiment} takes {_PLURALS[taken]}")


def check_grid(grid: Mapping[str, list[Any]], node: DatasetNode, experiment: str) -> None:
    """Refuse names in ``grid.dataset`` that are data sets of another kind."""
    for name in grid.get("dataset", []):
        _check_name(name, node.kind, "grid.dataset", experiment)


def check_names(grid: Mapping[str, list[Any]], node: DatasetNode) -> None:
    """Refuse a table or corpus that is not known and has no path, and what is said of one that is not used."""
    if isinstance(node, DatasetConfig):
        return
    check_name = check_table_name if isinstance(node, TableConfig) else check_corpus_name
    names = grid.get("dataset", [node.name])
    for name in names:
        own = name == node.name
        check_name(name, node.path if own else None, "dataset.name" if own else "grid.dataset")
    if isinstance(node, CorpusConfig):
        _check_languages(node)
    if node.name not in names:
        for key in ("path", "target", "drop") if isinstance(node, TableConfig) else ("path",):
            if getattr(node, key) is not None:
                raise BadInput(
                    f"dataset.{key}: {getattr(node, key)!r} is for {node.name!r}, which grid.dataset does not have; "
                    "allowed: null"
                )


def _check_languages(node: CorpusConfig) -> None:
    roles = list(LANGUAGES)
    for role, other in ((role, other) for k, role in enumerate(roles) for other in roles[:k]):
        if getattr(node, role) == getattr(node, other):
            raise BadInput(f"dataset.{role}: {getattr(node, role)!r} is the {other} too; allowed: three different ones")


def stand_in(node: DatasetNode, grid: dict[str, list[Any]], given: set[str]) -> None:
    """Put data that needs no file in the place of what is configured, and note for what; in place.

    Parameters
    ----------
    given
        Keys given on the command line, which stay as they are.
    """
    names = grid.get("dataset", [node.name])
    instead = {name: _instead(node, name) for name in [*names, node.name]}
    node.in_place_of = [name for name in names if name != instead[name]]
    if not isinstance(node, DatasetConfig) and instead[node.name] != node.name:
        if node.train_size is not None and "dataset.train_size" not in given:
            node.max_size = min(node.train_size, node.max_size or node.train_size)  # there may be fewer
        of_a_table = {"target": None, "drop": None, "encoding": None, "task": "auto"}
        for key, value in {"train_size": None, **(of_a_table if isinstance(node, TableConfig) else LANGUAGES)}.items():
            if f"dataset.{key}" not in given:
                setattr(node, key, value)
        node.path = None
    node.name = instead[node.name]
    if "dataset" in grid:
        grid["dataset"] = list(dict.fromkeys(instead[name] for name in names))


def _instead(node: DatasetNode, name: str) -> str:
    if not isinstance(node, TableConfig) or node.embedded is not None:
        return node.embedded
    if name in TABLE_SETS:
        return TABLE_SETS[name].stand_in
    return STAND_INS["classification" if node.task == "classification" else "regression"]


def _check_name(name: Any, taken: str, key: str, experiment: str) -> None:
    for kind, known in _KNOWN.items():
        if kind != taken and isinstance(name, str) and name in known:
            raise BadInput(f"{key}: {name!r} is {_NOUNS[kind]}; {experiment} takes {_PLURALS[taken]}")
