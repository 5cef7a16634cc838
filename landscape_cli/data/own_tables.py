"""A user's own table: a text file whose first line names the columns. Whatever is wrong with it is said in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from landscape_cli.data.table_files import (
    SEPARATORS,
    BadTable,
    Columns,
    columns_of,
    guess_separator,
    is_number,
    is_text,
    read_text,
    split_rows,
)
from landscape_cli.errors import BadInput, MissingData

MISSING = ("", "NA", "NaN", "nan", "N/A", "null", "?")


def expand_path(path: str) -> Path:
    """Return a path, from the current folder on, absolute."""
    return Path(os.path.expanduser(os.path.expandvars(path))).absolute()


def read_own(path: Path) -> Columns:
    """Read a user's table.

    Parameters
    ----------
    path
        Of a text file in UTF-8: comma, semicolon or tab between cells, one line an object.

    Returns
    -------
    Columns
        In the file's order.

    Raises
    ------
    MissingData
        There is no such file.
    BadInput
        It is no table.
    """
    key = f"dataset.path: {path}"
    if not path.exists():
        raise MissingData(f"{key}: there is no such file; allowed: a path, read from the current folder on")
    try:
        text = read_text(path)
        rows = split_rows(text, guess_separator(text))
        if not rows:
            raise BadTable("it is empty")
        (_, names), *rows = rows
        _check_names(names)
        if not rows:
            raise BadTable("it has no rows below the names of its columns")
        columns = columns_of(names, rows, MISSING)
    except OSError as error:
        raise BadInput(f"{key}: it cannot be read ({error.strerror})") from error
    except BadTable as problem:
        raise BadInput(f"{key}: {problem}; allowed: a text file, the first line names the columns") from problem
    for name, column in columns.items():
        if not is_text(column) and np.isinf(column).any():
            raise BadInput(f"{key}: column {name!r} has a number that is too large")
    return columns


def _check_names(names: list[str]) -> None:
    if all(is_number(name) for name in names):
        raise BadTable(f"the first line must name the columns, and it is {', '.join(names[:3])}, …")
    if "" in names:
        raise BadTable(f"column {names.index('') + 1} has no name in the first line")
    if len(names) == 1:
        raise BadTable(f"it has one column only ({' or '.join(SEPARATORS.values())} between cells)")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadTable(f"two columns have the name {twice!r}")
