"""Files of tables as columns of numbers and of text, exactly as they say them, and the digest of these values."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
Columns = dict[str, np.ndarray]  # name -> float64 (N,), NaN where missing; or text (N,), empty where missing
Rows = list[tuple[int, list[str]]]  # number of the line, cells


class BadTable(Exception):
    """What is wrong with a file; its reader knows whose it is."""


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number in decimal digits; no other spelling (nan, inf, 1_000) is one."""
    return _NUMBER.fullmatch(cell) is not None


def is_text(column: np.ndarray) -> bool:
    """Whether a column holds text."""
    return column.dtype.kind == "U"


def missing_cells(column: np.ndarray) -> np.ndarray:
    """Return bool (N,): where a column has no value."""
    return column == "" if is_text(column) else np.isnan(column)


def read_text(path: Path) -> str:
    """Read a file as text.

    Raises
    ------
    BadTable
        It is none.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTable(f"it is not text in UTF-8 (byte {error.start})") from error
    if "\0" in text:
        raise BadTable("it is not text (it has NUL bytes)")
    return text


def split_rows(text: str, separator: str) -> Rows:
    """Split text into stripped cells, row by row; empty lines are left out.

    Parameters
    ----------
    separator
        One character; a blank stands for any number of blanks and tabs.
    """
    if separator == " ":
        text = "\n".join(" ".join(line.split()) for line in text.splitlines())
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows, begins = [], 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped) or len(stripped) > 1:
                rows.append((begins, stripped))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise BadTable(f"line {begins} cannot be read ({error})") from error
    return rows


def guess_separator(text: str) -> str:
    """Return the separator that cuts the first lines most evenly, and of such the one that cuts most."""
    head = "\n".join(text.splitlines()[:20])

    def evenness(separator: str) -> tuple[int, int]:
        rows = split_rows(head, separator)
        width = len(rows[0][1]) if rows else 0
        return (sum(len(cells) == width for _, cells in rows) if width > 1 else 0, width)

    return max(SEPARATORS, key=evenness)


def columns_of(names: Sequence[str], rows: Rows, missing: Collection[str]) -> Columns:
    """Turn rows of cells into columns; one whose cells are all numbers, but for missing ones, is a column of numbers.

    Raises
    ------
    BadTable
        A row has more or fewer cells than there are names.
    """
    for line, cells in rows:
        if len(cells) != len(names):
            raise BadTable(f"line {line} has {len(cells)} cells, and there are {len(names)} columns")
    columns = {}
    for position, name in enumerate(names):
        cells = [row[position] for _, row in rows]
        absent = np.array([cell in missing for cell in cells], dtype=bool)
        if all(gone or is_number(cell) for cell, gone in zip(cells, absent, strict=True)):
            texts = ["nan" if gone else cell for cell, gone in zip(cells, absent, strict=True)]
            columns[name] = np.array(texts, dtype=str).astype(np.float64)
        else:
            columns[name] = np.array(
                ["" if gone else cell for cell, gone in zip(cells, absent, strict=True)], dtype=str
            )
    return columns


def read_delimited(path: Path, header: Sequence[str], missing: Collection[str], width: int, blanks: bool) -> Columns:
    """Read a published file, whatever separates its cells.

    Parameters
    ----------
    header
        Names of the columns where the first line does not give them.
    missing
        Cells that say that there is no value.
    width
        Number of its columns, from which the separator is known.
    blanks
        Whether it is separated by blanks.

    Raises
    ------
    BadTable
        It is no table, or one of other columns.
    """
    text = read_text(path)
    for separator in [" "] if blanks else SEPARATORS:
        rows = split_rows(text, separator)
        if rows and len(rows[0][1]) == width:
            break
    if not rows:
        raise BadTable("it is empty")
    names = list(header)
    if not names:
        (_, names), *rows = rows
    if len(names) != width or len(set(names)) != width:
        raise BadTable(f"it has the columns {', '.join(names)}, and {width} are expected")
    return columns_of(names, rows, missing)


def read_sheet(path: Path, missing: Collection[str]) -> Columns:
    """Read the first sheet of a workbook; rows without a value and columns without a name are left out."""
    import openpyxl  # takes a while to import, and few tables need it

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        first, *others = book.worksheets[0].iter_rows(values_only=True)
    finally:
        book.close()
    named = [position for position, name in enumerate(first) if name is not None]
    rows = []
    for line, row in enumerate(others, start=2):
        # repr gives back the very number.
        cells = ["" if row[k] is None else row[k] if isinstance(row[k], str) else repr(row[k]) for k in named]
        if any(cells):
            rows.append((line, [cell.strip() for cell in cells]))
    return columns_of([str(first[position]).strip() for position in named], rows, missing)


def read_arff(path: Path, missing: Collection[str]) -> Columns:
    """Read an ARFF file: names in ``@attribute`` lines, cells separated by commas after ``@data``."""
    head, *rest = re.split(r"(?im)^@data\s*$", read_text(path), maxsplit=1)
    if not rest:
        raise BadTable("it has no line @data")
    names = re.findall(r"(?im)^@attribute\s+('[^']*'|\"[^\"]*\"|\S+)", head)
    rows = [(line, cells) for line, cells in split_rows(rest[0], ",") if not cells[0].startswith("%")]
    return columns_of([name.strip("'\"") for name in names], rows, missing)


def digest(columns: Columns) -> str:
    """Return the SHA-256 of a table's values: names, numbers as little-endian float64, text in UTF-8."""
    found = hashlib.sha256()
    for name, column in columns.items():
        found.update(name.encode() + b"\0")
        if is_text(column):
            found.update("\0".join(column.tolist()).encode())
        else:  # with one pattern of bits for what is missing
            found.update(np.where(np.isnan(column), np.nan, column).astype("<f8").tobytes())
    return found.hexdigest()


def shipped_columns(name: str) -> Columns:
    """Return a table that scikit-learn ships, its target last."""
    # scikit-learn takes a second to import, and only these tables need it.
    from sklearn import datasets

    bunch = {"sklearn_diabetes": datasets.load_diabetes, "wine": datasets.load_wine}.get(
        name, datasets.load_breast_cancer
    )()
    # The diabetes table is scaled when it is loaded; the last digits differ from one processor to another.
    values = np.round(bunch.data, 11) if name == "sklearn_diabetes" else bunch.data
    columns = {str(feature): values[:, k].astype(np.float64) for k, feature in enumerate(bunch.feature_names)}
    return {**columns, "target": bunch.target.astype(np.float64)}


def generated_columns(name: str, task: str, rows: int, features: int) -> Columns:
    """Draw a table: one of a name of its own, or from a linear model with unit noise, or from a logistic one.

    Parameters
    ----------
    name
        ``synthetic_relevance``: independent features, N(1, 1), of which the first is the target (thesis 4.4.1).
    task
        ``regression``: y = x w + noise; ``classification``: y is 1 with probability sigmoid(x w).
    """
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, features))
    if name == "synthetic_relevance":
        x += 1
        y = x[:, 0].copy()
    else:
        w = random.standard_normal(features)
        # Correctly rounded sums: a matrix product's last digits differ from one processor to another.
        scores = np.array([math.fsum(products) for products in x * w])
        if task == "regression":
            y = scores + random.standard_normal(rows)
        else:
            y = (random.random(rows) < 1 / (1 + np.exp(-scores))).astype(np.float64)
    return {**{f"x{k + 1}": x[:, k].copy() for k in range(features)}, "y": y}
