"""Data that a user's function returns: arrays, frames, data sets of torch, a Bunch; read, checked and identified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from landscape_cli.data.objects import Objects, standardised
from landscape_cli.errors import BadInput
from landscape_cli.own.reading import as_labels, as_objects, check_finite_objects, read_items
from landscape_cli.own.targets import build, explained, seeded

NODE = "dataset"
SHAPES = (
    "(x, y), (x_train, y_train, x_test, y_test), a torch Dataset of pairs (x, y), a pair of them (train, test), or "
    "what scikit-learn's loaders return"
)
SEED = 0  # of the objects that are drawn where not all are used, and of whatever a user's function draws


@dataclass(frozen=True)
class OwnSource:
    """Data that a user's function returned."""

    name: str  # the dotted path
    title: str
    description: str
    checksum: str  # SHA-256 of the values of the objects used, hex
    train_objects: int  # all that there are
    test_objects: int
    classes: int | None
    files: tuple[Path, ...] = ()
    layout: str = "function"
    whole: bool = True
    dropped: int = 0  # rows left out, as of a table's source

    @property
    def place(self) -> str:
        """Where the objects came from."""
        return f"what {self.name} returns"


_read: dict[str, Objects] = {}  # by checksum: a command looks at the data when it plans and again when it measures


def locate_own(wanted: Mapping[str, Any]) -> OwnSource:
    """Call the user's function and read the objects that are used.

    Parameters
    ----------
    wanted
        Keys of :class:`~landscape_cli.config.OwnDataConfig`: ``name`` (the dotted path), ``arguments``, ``train_size``
        and ``max_size``.

    Raises
    ------
    BadInput
        It cannot be called, or what it returns is no data.
    """
    target = wanted["name"]
    what = f"{NODE}._target_: {target}"
    with seeded(SEED):  # random crops are then the same ones every time
        train, test = _parts(build(target, wanted["arguments"], NODE), what)
        there = [_length(part, what) for part in (train, test)]
        sizes = [size for size in (wanted["train_size"], wanted["max_size"]) if size is not None]
        size = min([there[0], *sizes])
        x, y = _taken(train, size, f"{what}: train" if test else what)
        x_test, y_test = (x[:0], y[:0]) if test is None else _taken(test, min(size, there[1]), f"{what}: test")
    y, y_test = as_labels([y, y_test], what)
    if x.shape[1:] != x_test.shape[1:]:
        raise BadInput(
            f"{what}: test objects have the shape {tuple(x_test.shape[1:])}, train objects {tuple(x.shape[1:])}; "
            "allowed: the same"
        )
    objects = Objects(x, y, x_test, y_test)
    checksum = _checksum(objects)
    _read.clear()  # one data set in memory
    _read[checksum] = objects
    return OwnSource(target, target, "own data", checksum, *there, objects.classes)


def load_own(source: OwnSource, normalisation: str) -> Objects:
    """Return the objects that :func:`locate_own` read, on the CPU.

    Parameters
    ----------
    normalisation
        ``none``, or ``standard``: each feature or channel at mean 0 and deviation 1.
    """
    objects = _read[source.checksum]
    if normalisation == "none":
        return objects
    if objects.x_train.dim() < 2 or not objects.x_train.is_floating_point():
        raise BadInput(
            f"dataset.normalisation: {normalisation!r} needs real features, and {source.name} returns "
            f"{objects.x_train.dtype} {tuple(objects.x_train.shape)}; allowed: none"
        )
    return Objects(*_interleaved(standardised(objects.x_train, objects.x_test), objects))


def _interleaved(x: tuple[torch.Tensor, torch.Tensor], objects: Objects) -> tuple[torch.Tensor, ...]:
    return x[0], objects.y_train, x[1], objects.y_test


def _parts(returned: Any, what: str) -> tuple[Any, Any]:
    """Train and test part of what a function returned: data sets, or pairs (x, y); no test part: None."""
    if isinstance(returned, Mapping):
        if "data" not in returned or "target" not in returned:
            keys = ", ".join(map(str, list(returned)[:5]))
            raise BadInput(f"{what}: it returned a mapping of {keys or 'nothing'}; allowed: {SHAPES}")
        return (returned["data"], returned["target"]), None
    if isinstance(returned, DataLoader):
        raise BadInput(
            f"{what}: it returned a DataLoader, and batches are made here; allowed: its data set, or {SHAPES}"
        )
    if isinstance(returned, Dataset):
        return returned, None
    if isinstance(returned, tuple | list):
        if len(returned) == 2 and all(isinstance(part, Dataset) for part in returned):
            return tuple(returned)
        if any(isinstance(part, Dataset | DataLoader) for part in returned):
            raise BadInput(f"{what}: it returned {_written(returned)}; allowed: {SHAPES}")
        if len(returned) == 2 and all(_is_array(part) for part in returned):
            return tuple(returned), None
        if len(returned) == 4 and all(_is_array(part) for part in returned):
            return tuple(returned[:2]), tuple(returned[2:])
    raise BadInput(f"{what}: it returned {_written(returned)}; allowed: {SHAPES}")


def _is_array(part: Any) -> bool:
    return isinstance(part, list) or hasattr(part, "__array__") or isinstance(part, torch.Tensor)


def _written(returned: Any) -> str:
    if isinstance(returned, tuple | list):
        kinds = ", ".join(type(part).__name__ for part in returned[:5])
        return f"a {type(returned).__name__} of {len(returned)} ({kinds}{', …' if len(returned) > 5 else ''})"
    return f"a {type(returned).__name__}"


def _length(part: Any, what: str) -> int:
    if part is None:
        return 0
    if isinstance(part, IterableDataset):
        raise BadInput(f"{what}: an IterableDataset has no order and no length; allowed: {SHAPES}")
    with explained(what):
        if isinstance(part, Dataset):
            count = len(part)
        else:
            lengths = [len(array) for array in part]
            if lengths[0] != lengths[1]:
                raise BadInput(f"{what}: {lengths[0]} objects x and {lengths[1]} targets y; allowed: as many")
            count = lengths[0]
    if count == 0:
        raise BadInput(f"{what}: it returned no object; allowed: one or more")
    return count


def _taken(part: Any, size: int, what: str) -> tuple[torch.Tensor, Any]:
    """So many objects, drawn at random since data is often sorted by class, in the data's order."""
    count = _length(part, what)
    rows = None if size >= count else np.sort(np.random.default_rng(SEED).permutation(count)[:size])
    if isinstance(part, TensorDataset) and len(part.tensors) == 2:
        part = part.tensors
    if isinstance(part, Dataset):
        x, y = read_items(part, range(count) if rows is None else rows.tolist(), what)
    else:
        x, y = part
        if rows is not None:
            x, y = (array.iloc[rows] if hasattr(array, "iloc") else _by_number(array, rows) for array in (x, y))
    x = as_objects(x, what)
    check_finite_objects(x, "x", what, rows)
    return x, y


def _by_number(array: Any, rows: np.ndarray) -> Any:
    return [array[row] for row in rows] if isinstance(array, list) else array[rows]


def _checksum(objects: Objects) -> str:
    digest = hashlib.sha256()
    for tensor in (objects.x_train, objects.y_train, objects.x_test, objects.y_test):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
