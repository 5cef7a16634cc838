"""Settings of a data set: of which kind they are, which objects they name, whether stored ones can be those wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from landscape_cli.data.corpora import CorpusSource
from landscape_cli.data.corpus_sets import CORPUS_SETS, LANGUAGES
from landscape_cli.data.locate import Source, check_train_size
from landscape_cli.data.tables import TABLE_SETS, default_drop
from landscape_cli.data.tabular import TableSource

if TYPE_CHECKING:
    from landscape_cli.own.data import OwnSource

AnySource: TypeAlias = "Source | TableSource | CorpusSource | OwnSource"


def kind_of(dataset: Mapping[str, Any]) -> str:
    """Return the kind of data set that settings are of, as wanted or as stored: images, table, corpus or own."""
    if "arguments" in dataset:
        return "own"
    if "target" in dataset:
        return "table"
    return "corpus" if "target_language" in dataset else "images"


def identity(wanted: Mapping[str, Any], source: AnySource) -> dict[str, Any]:
    """Say which objects a point uses: name, number and checksum of the data set; what is used of a table or corpus.

    Raises
    ------
    BadInput
        If more objects are asked for than there are.
    """
    cap, size = wanted["max_size"], wanted["train_size"]
    if size is not None and cap is not None:
        size = min(size, cap)
    if size is not None:
        check_train_size(source, size)
    else:
        size = min(source.train_objects, cap or source.train_objects)
    known = {name: wanted[name] for name in ("normalisation", "arguments") if name in wanted}
    if isinstance(source, TableSource):  # as found, so that asking for the default makes no difference
        known = {"target": source.target, "drop": list(source.drop), "encoding": source.encoding, "task": source.task}
    elif isinstance(source, CorpusSource):
        known = dict(zip(LANGUAGES, source.languages, strict=True))
    return {"name": wanted["name"], "objects": size, "checksum": source.checksum, **known}


def same_dataset(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a stored data set can be the one that is wanted, whatever its checksum and, unless asked, size."""
    kind = kind_of(wanted)
    sizes = [s for s in (wanted.get("train_size"), wanted.get("max_size")) if s is not None]
    same = kind_of(stored) == kind and all(stored.get(key) == wanted.get(key) for key in ("name", "normalisation"))
    same = same and (not sizes or stored["objects"] == min(sizes))
    by_kind = {"images": _same_images, "table": _same_table, "corpus": _same_corpus, "own": _same_own}
    return same and by_kind[kind](stored, wanted)


def _same_images(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return True


def _same_table(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    published = TABLE_SETS.get(wanted["name"])
    if published is None:  # without the file there is no telling whether it is the same
        return False
    target = wanted["target"] or published.target
    # Where no text is used the encoding makes no difference and is stored as none.
    encoding = wanted["encoding"] or published.encoding
    tasks = (wanted["task"],) if wanted["task"] != "auto" else (published.task,)
    if wanted["task"] == "auto" and target != published.target:
        tasks = ("regression", "classification")
    drop = wanted["drop"] if wanted["drop"] is not None else default_drop(published, target)
    return (
        stored["target"] == target
        and sorted(stored["drop"]) == sorted(set(drop))
        and stored["encoding"] in (None, encoding)
        and stored["task"] in tasks
    )


def _same_corpus(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    # A user's own folder may hold anything by now.
    return wanted["name"] in CORPUS_SETS and all(stored[role] == wanted[role] for role in LANGUAGES)


def _same_own(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    # A user's function may return anything by now.
    return False
