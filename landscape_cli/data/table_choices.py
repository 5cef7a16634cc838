"""What is used of a table: target, features, encoding of text, task; and text as numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape_cli.data.table_files import Columns, is_number, is_text, missing_cells
from landscape_cli.data.tables import TableSet, default_drop
from landscape_cli.errors import BadInput

_SHOWN = 30  # names in a message


@dataclass(frozen=True)
class Choice:
    """What is used of a table."""

    target: str
    drop: tuple[str, ...]  # in the table's order
    features: tuple[str, ...]  # columns that are left, in the table's order
    encoding: str | None  # of the text columns among them; None where there are none
    task: str


def choose(columns: Columns, wanted: Mapping[str, Any], published: TableSet | None, shown: str) -> Choice:
    """Settle what is used of a table.

    Parameters
    ----------
    columns
        All of them.
    wanted
        Keys of :class:`~landscape_cli.config.TableConfig`.
    published
        The known table, which gives what is not asked for; None: a user's own.
    shown
        What to call it in messages.

    Raises
    ------
    BadInput
        A column is not there or cannot be used as asked.
    """
    target = wanted.get("target")
    if target is None:
        if published is None:
            raise BadInput(f"dataset.target: null; allowed: a column of {shown}: {_list(columns)}")
        target = published.target
    _check_column(columns, target, "dataset.target", shown)
    drop = _dropped(columns, wanted.get("drop"), target, published, shown)
    features = tuple(name for name in columns if name not in drop and name != target)
    if not features:
        raise BadInput(f"dataset.drop: {', '.join(drop)}: nothing is left of {shown} to predict {target!r} from")
    encoding = _encoding(columns, features, wanted.get("encoding"), published, shown)
    gaps = {name: missing_cells(columns[name]) for name in (*features, target)}
    complete = ~np.any(list(gaps.values()), axis=0)
    if not complete.any():
        worst = max(gaps, key=lambda name: gaps[name].sum())
        raise BadInput(
            f"{shown}: every row has a missing value; column {worst!r} has {int(gaps[worst].sum())} of them; "
            f"leave it out with dataset.drop=[{worst}]"
        )
    known = published.task if published and target == published.target else None
    task = _task(columns[target][complete], target, wanted.get("task") or "auto", known, shown)
    return Choice(target, drop, features, encoding, task)


def class_names(target: np.ndarray) -> tuple[str, ...]:
    """Return the classes' names in the order of their numbers: text and numbers sorted."""
    values = np.unique(target).tolist()
    return tuple(f"{value:.0f}" if not is_text(target) and value.is_integer() else str(value) for value in values)


def encoded(
    columns: Columns,
    features: Sequence[str],
    encoding: str | None,
    complete: np.ndarray,
    orders: Mapping[str, Sequence[str]],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn the complete rows of the used columns into numbers.

    Parameters
    ----------
    encoding
        Of text: ``ordinal``, the number of the value in its order, from 0 on; ``one_hot``, a column of zeros and ones
        for each value. Values that complete rows do not have are not counted, but where the order is known.
    complete
        bool (N,).
    orders
        Of a text column's values; sorted where it has none.

    Returns
    -------
    X float64 (m, n) and the n names.
    """
    parts, names = [], []
    for name in features:
        column = columns[name][complete]
        if not is_text(column):
            parts.append(column)
            names.append(name)
            continue
        there = set(np.unique(column).tolist())
        if encoding == "ordinal":
            values = list(orders.get(name) or sorted(there))
            codes = {value: float(code) for code, value in enumerate(values)}
            parts.append(np.array([codes[value] for value in column.tolist()]))
            names.append(name)
        else:
            values = [value for value in orders.get(name) or sorted(there) if value in there]
            parts += [(column == value).astype(np.float64) for value in values]
            names += [f"{name}={value}" for value in values]
    return np.stack(parts, axis=1).astype(np.float64), tuple(names)


def _check_column(columns: Columns, name: str, key: str, shown: str) -> None:
    if name not in columns:
        close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise BadInput(f"{key}: {name!r} is no column of {shown}{hint}; columns: {_list(columns)}")


def _dropped(
    columns: Columns, wanted: Sequence[str] | None, target: str, published: TableSet | None, shown: str
) -> tuple[str, ...]:
    if wanted is None:
        drop = default_drop(published, target) if published else []
    else:
        drop = list(wanted)
        for name in drop:
            _check_column(columns, name, "dataset.drop", shown)
        if target in drop:
            raise BadInput(f"dataset.drop: {target!r} is the target; allowed: other columns of {shown}")
    return tuple(name for name in columns if name in drop)


def _encoding(
    columns: Columns, features: Sequence[str], wanted: str | None, published: TableSet | None, shown: str
) -> str | None:
    """How text becomes numbers; None where there is none, so that what is asked for makes no difference."""
    text = [name for name in features if is_text(columns[name])]
    if not text:
        return None
    encoding = wanted or (published.encoding if published else None)
    if encoding is None:
        name = text[0]
        example = next(value for value in columns[name].tolist() if value and not is_number(value))
        raise BadInput(
            f"dataset.encoding: null, and column {name!r} of {shown} is text (such as {example!r}); allowed: "
            f"dataset.encoding=one_hot, dataset.encoding=ordinal, or dataset.drop=[{name}]"
        )
    return encoding


def _task(target: np.ndarray, name: str, wanted: str, known: str | None, shown: str) -> str:
    values, counts = np.unique(target, return_counts=True)
    task = wanted
    if wanted == "auto":
        task = known or ("classification" if is_text(target) or len(values) == 2 else "regression")
    if task == "regression":
        if is_text(target) and len(values) > 2:
            raise BadInput(
                f"dataset.task: regression, and the target {name!r} of {shown} is text with {len(values)} values (such "
                f"as {str(values[0])!r}); allowed: dataset.task=classification, or another dataset.target"
            )
        return task
    labels = class_names(target)
    if len(labels) < 2:
        raise BadInput(f"dataset.target: {name!r} of {shown} has one class only, {labels[0]!r}; allowed: two or more")
    rare = int(counts.argmin())
    if counts[rare] < 2:
        instead = "another dataset.target" if is_text(target) else "dataset.task=regression"
        raise BadInput(
            f"dataset.target: class {labels[rare]!r} of {name!r} in {shown} has 1 object; allowed: 2 or more of "
            f"each of the {len(labels)} classes, or {instead}"
        )
    return task


def _list(columns: Columns) -> str:
    names = list(columns)
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)} in all)" if len(names) > _SHOWN else "")
