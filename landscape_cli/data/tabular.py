"""Where a table is, what is used of it, and its objects as numbers.

Nothing here imports torch or pandas: a command that only looks at stored results starts fast.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from landscape_cli.data.archive import damaged
from landscape_cli.data.locate import check_train_size, expand
from landscape_cli.data.own_tables import expand_path, read_own
from landscape_cli.data.table_choices import Choice, choose, class_names, encoded
from landscape_cli.data.table_files import (
    BadTable,
    Columns,
    digest,
    generated_columns,
    is_text,
    missing_cells,
    read_arff,
    read_delimited,
    read_sheet,
    shipped_columns,
)
from landscape_cli.data.tables import ARFF, BLANKS, GENERATED, SCIKIT_LEARN, TABLE_SETS, TableSet, check_table_name
from landscape_cli.errors import BadInput, DamagedData, MissingData

OWN, FILES = "own", "files"


@dataclass(frozen=True)
class TableSource:
    """A table that was found, with its values verified, and what is used of it."""

    name: str
    title: str
    description: str
    layout: str  # FILES, OWN, SCIKIT_LEARN or GENERATED
    files: tuple[Path, ...]  # none for the last two
    checksum: str  # SHA-256 hex digest of the values; a user's own file: of the used columns' values
    train_objects: int  # rows without a missing value in a used column
    columns: tuple[str, ...]  # all that there are, with the target
    target: str
    drop: tuple[str, ...]  # left out, in the table's order
    encoding: str | None  # of text columns; None where none is used
    task: str  # "regression" or "classification"
    features: int  # columns after encoding
    dropped: int  # rows with a missing value in a used column
    classes: tuple[str, ...]  # (K,); empty for regression
    test_objects: int = 0
    whole: bool = True

    unit: ClassVar[str] = "complete rows"  # a table is not split

    @property
    def place(self) -> str:
        """The file, the folder of several, or where it comes from without one."""
        if not self.files:
            return self.layout
        return str(self.files[0] if len(self.files) == 1 else self.files[0].parent)


@dataclass(frozen=True, eq=False)
class TableData:
    """The objects of a table as numbers."""

    X: np.ndarray  # float64 (m, n): encoded, not standardised
    y: np.ndarray  # float64 (m,); of a classification the classes' numbers, 0 to K - 1
    features: tuple[str, ...]  # (n,)
    classes: tuple[str, ...]  # (K,); empty for regression
    source: TableSource


def locate_table(wanted: Mapping[str, Any], roots: Sequence[str | Path]) -> TableSource:
    """Find a table, verify its values and settle what is used of it.

    Parameters
    ----------
    wanted
        Keys of :class:`~landscape_cli.config.TableConfig`: ``name``, and where they are not the table's own ``path``,
        ``target``, ``drop``, ``encoding`` and ``task``.
    roots
        Folders, searched in order: ``tabular/`` in each and then the folder itself. A damaged copy is passed over for
        a sound one.

    Raises
    ------
    MissingData
        It was not found, or what was found is damaged.
    BadInput
        There is no such table or column, or a user's own file is none.
    """
    name, path = wanted["name"], wanted.get("path")
    check_table_name(name, path)
    if path is not None:
        file = expand_path(path)
        columns = read_own(file)
        choice = choose(columns, wanted, None, file.name)
        used = {name: columns[name] for name in (*choice.features, choice.target)}
        return _source(name, file.name, "own table", OWN, (file,), digest(used), columns, choice, None)
    published = TABLE_SETS[name]
    columns, files = _find(published, roots)
    choice = choose(columns, wanted, published, name)
    layout = FILES if files else published.reader
    about = (published.title, published.description)
    return _source(name, *about, layout, files, published.digest, columns, choice, published)


def load_table(source: TableSource, train_size: int | None = None) -> TableData:
    """Read a table's objects: its complete rows, with text as numbers.

    Parameters
    ----------
    source
        From :func:`locate_table`.
    train_size
        So many of the complete rows, always the same ones, drawn at random because tables are often sorted; in the
        table's order. None: all.

    Returns
    -------
    TableData
        X float64 (m, n), y float64 (m,).

    Raises
    ------
    BadInput
        There are fewer rows, or a class keeps fewer than two objects.
    DamagedData
        The file is no longer the one that was located.
    """
    size = check_train_size(source, train_size)
    published = TABLE_SETS.get(source.name)
    if published is None:
        columns = read_own(source.files[0])
        used = {name: column for name, column in columns.items() if name not in source.drop and name != source.target}
        used[source.target] = columns.get(source.target, np.empty(0))
        if digest(used) != source.checksum:
            raise DamagedData(f"dataset.path: {source.place} has changed since the run began; run again")
    else:
        columns = _read(published, source.files)
    names = [name for name in source.columns if name not in source.drop and name != source.target]
    complete = _complete(columns, (*names, source.target))
    X, features = encoded(columns, names, source.encoding, complete, published.orders if published else {})
    target = columns[source.target][complete]
    if source.classes or is_text(target):
        values = np.unique(target)
        y = np.searchsorted(values, target).astype(np.float64)
    else:
        y = target.astype(np.float64)
    if size < len(y):
        rows = np.sort(np.random.default_rng(0).permutation(len(y))[:size])
        X, y = X[rows], y[rows]
    for number, label in enumerate(source.classes):
        count = int((y == number).sum())
        if count < 2:
            raise BadInput(
                f"dataset.train_size: {size} rows of {source.title} have {count} of class {label!r}; allowed: more rows"
            )
    return TableData(X, y, features, source.classes, source)


def table_missing_message(published: TableSet, roots: Sequence[str | Path]) -> str:
    """Return the line that says what was looked for, where, and what to do."""
    searched = ", ".join(str(expand(root)) for root in roots) or "no folder (data.roots is empty)"
    files = ", ".join(" or ".join(f"tabular/{form}" for form in file.forms) for file in published.files)
    return (
        f"data set '{published.name}' ({published.title}) not found: looked for {files} in {searched}; "
        f"`landscape data fetch {published.name}` downloads it, profile=embedded needs no download"
    )


def _source(
    name: str,
    title: str,
    description: str,
    layout: str,
    files: tuple[Path, ...],
    checksum: str,
    columns: Columns,
    choice: Choice,
    published: TableSet | None,
) -> TableSource:
    used = (*choice.features, choice.target)
    complete = _complete(columns, used)
    orders = published.orders if published else {}
    _, features = encoded(columns, choice.features, choice.encoding, complete, orders)
    return TableSource(
        name=name,
        title=title,
        description=description,
        layout=layout,
        files=files,
        checksum=checksum,
        train_objects=int(complete.sum()),
        columns=tuple(columns),
        target=choice.target,
        drop=choice.drop,
        encoding=choice.encoding,
        task=choice.task,
        features=len(features),
        dropped=int((~complete).sum()),
        classes=class_names(columns[choice.target][complete]) if choice.task == "classification" else (),
    )


def _complete(columns: Columns, used: Sequence[str]) -> np.ndarray:
    """Return bool (N,): the rows with a value in every used column."""
    return ~np.any([missing_cells(columns[name]) for name in used], axis=0)


def _find(published: TableSet, roots: Sequence[str | Path]) -> tuple[Columns, tuple[Path, ...]]:
    """Read the first sound copy of a table."""
    if not published.files:
        return _read(published, ()), ()
    problems: list[MissingData] = []
    for root in map(expand, roots):
        for folder in (root / "tabular", root):
            present = [
                [folder / form for form in file.forms if os.path.isfile(folder / form)] for file in published.files
            ]
            if not any(present):
                continue
            gone = [file.name for file, paths in zip(published.files, present, strict=True) if not paths]
            if gone:
                problem = f"{folder} is incomplete: {gone[0]} is missing"
                fetch = f"run `landscape data fetch {published.name}`"
                problems.append(MissingData(f"data set '{published.name}': {problem}; {fetch}"))
                continue
            # Either form of a file will do; only a file that stands alone has two.
            for files in zip(*present, strict=True):
                try:
                    return _read(published, files), files
                except DamagedData as problem:
                    problems.append(problem)
    raise problems[0] if problems else MissingData(table_missing_message(published, roots))


def _read(published: TableSet, files: tuple[Path, ...]) -> Columns:
    """Read a known table and check its values."""
    name = published.name
    if published.reader in (SCIKIT_LEARN, GENERATED):
        made = published.reader == GENERATED
        sizes = (published.rows, published.columns - 1)
        columns = generated_columns(name, published.task, *sizes) if made else shipped_columns(name)
        if digest(columns) != published.digest:
            library = "numpy" if made else "scikit-learn"
            raise MissingData(f"data set '{name}': this {library} gives other values; reinstall {library}")
        return columns
    parts = [_read_file(published, path) for path in files]
    place = files[0]
    columns = parts[0]
    if published.joined:
        column, values = published.joined
        if any(part.keys() != columns.keys() for part in parts):
            raise damaged(name, files[-1], f"it has the columns {', '.join(parts[-1])}, unlike {files[0].name}")
        told = np.concatenate(
            [np.full(len(next(iter(part.values()))), v) for part, v in zip(parts, values, strict=True)]
        )
        columns = {key: np.concatenate([part[key] for part in parts]) for key in columns}
        columns[column] = told
        place = files[0].parent
    rows = len(next(iter(columns.values()))) if columns else 0
    if (rows, len(columns)) != (published.rows, published.columns):
        found, known = (
            f"{r} rows and {c} columns" for r, c in ((rows, len(columns)), (published.rows, published.columns))
        )
        raise damaged(name, place, f"{known} expected, {found} found")
    found = digest(columns)
    if found != published.digest:
        raise damaged(name, place, f"digest of its values {published.digest[:12]} expected, {found[:12]} found")
    return columns


def _read_file(published: TableSet, path: Path) -> Columns:
    missing = ("", published.missing)
    try:
        if path.suffix == ".xlsx":
            return read_sheet(path, missing)
        if published.reader == ARFF:
            return read_arff(path, missing)
        width = published.columns - (published.joined is not None)
        return read_delimited(path, published.header, missing, width, published.reader == BLANKS)
    except BadTable as problem:
        raise damaged(published.name, path, str(problem)) from problem
    except Exception as error:  # decoders of workbooks raise many unrelated classes
        reason = " ".join(str(error).split())
        raise damaged(published.name, path, f"it cannot be read ({type(error).__name__}: {reason})") from error
