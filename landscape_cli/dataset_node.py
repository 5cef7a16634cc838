"""The config node ``dataset``: of which kind it is, what an experiment takes, what stands in without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from landscape_cli.config import CorpusConfig, DatasetConfig, OwnDataConfig, OwnModelConfig, TableConfig
from landscape_cli.data.corpus_sets import CORPUS_SETS, LANGUAGES, check_corpus_name
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import STAND_INS, TABLE_SETS, check_table_name
from landscape_cli.errors import BadInput

DatasetNode = DatasetConfig | TableConfig | CorpusConfig | OwnDataConfig

_KNOWN = {"images": IMAGE_SETS, "table": TABLE_SETS, "corpus": CORPUS_SETS, "own": {}}
_NOUNS = {"images": "a set of images", "table": "a table", "corpus": "a parallel corpus", "own": "data of your own"}
_TAKEN = {"objects": ("images", "table", "own")}  # kinds of data set that an experiment's kind stands for
_PLURALS = {
    "images": "images, for example dataset=mnist",
    "table": "tables, for example dataset=boston",
    "corpus": "parallel corpora, for example dataset=multi30k",
    "objects": "images, tables and data of your own, for example dataset._target_=my_pkg.data",
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
    kinds = _TAKEN.get(taken, (taken,))
    if kind in _NOUNS and kind not in kinds and not any(name in _KNOWN[each] for each in kinds):
        raise BadInput(f"dataset: {name!r} is {_NOUNS[kind]}; {experiment} takes {_PLURALS[taken]}")
    _check_name(name, taken, "dataset", experiment)
    if kind in _NOUNS and kind not in kinds:
        raise BadInput(f"dataset.kind: {kind!r}; {experiment} takes {_PLURALS[taken]}")


def check_grid(grid: Mapping[str, list[Any]], node: DatasetNode, experiment: str) -> None:
    """Refuse names in ``grid.dataset`` that are data sets of another kind."""
    for name in grid.get("dataset", []):
        _check_name(name, node.kind, "grid.dataset", experiment)


def check_names(grid: Mapping[str, list[Any]], node: DatasetNode) -> None:
    """Refuse a table or corpus that is not known and has no path, and what is said of one that is not used."""
    if isinstance(node, DatasetConfig | OwnDataConfig):
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


def with_arguments(node: Any, key: str) -> Any:
    """Take keys of a user's own network or data that the configuration does not know for its arguments.

    Parameters
    ----------
    node
        ``model`` or ``dataset`` as composed.
    key
        Its name.

    Raises
    ------
    BadInput
        An argument is given twice.
    """
    if not isinstance(node, Mapping) or node.get("kind") != "own":
        return node
    schema = OwnModelConfig if key == "model" else OwnDataConfig
    # The name of the data is its target, so that a key of this name is an argument like any other.
    known = {name: value for name, value in node.items() if name in schema.__dataclass_fields__ and name != "name"}
    beside = {name: value for name, value in node.items() if name not in known}
    arguments = known.get("arguments") or {}
    if not isinstance(arguments, Mapping):
        raise BadInput(f"{key}.arguments: {arguments!r}; allowed: keys of its own, {key}.arguments.NAME=VALUE")
    for name in beside.keys() & arguments.keys():
        raise BadInput(f"{key}.{name}: given here and as {key}.arguments.{name}; allowed: one of them")
    named = {} if key == "model" else {"name": known.get("_target_") or ""}
    return {**known, **named, "arguments": {**arguments, **beside}}


def demonstration(node: Any, key: str) -> Any:
    """Under profile=embedded: a network and data that ship, in the place of a user's own that were not named."""
    if not isinstance(node, Mapping) or node.get("kind") != "own" or node.get("_target_"):
        return node
    return {"kind": "mlp", "num_layers": 1} if key == "model" else {"kind": "images", "name": "digits"}


def stand_in(node: DatasetNode, grid: dict[str, list[Any]], given: set[str]) -> None:
    """Put data that needs no file in the place of what is configured, and note for what; in place.

    Parameters
    ----------
    given
        Keys given on the command line, which stay as they are.
    """
    if isinstance(node, OwnDataConfig):  # it was named, and needs no file of ours
        return
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
        if kind not in _TAKEN.get(taken, (taken,)) and isinstance(name, str) and name in known:
            raise BadInput(f"{key}: {name!r} is {_NOUNS[kind]}; {experiment} takes {_PLURALS[taken]}")
