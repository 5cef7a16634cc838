"""Arrays, frames and items of any make as tensors: real numbers in float32, numbers of tokens and classes in int64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from landscape_cli.errors import BadInput
from landscape_cli.own.targets import explained

NAMED = 5  # objects named in a message


def as_objects(x: Any, what: str) -> torch.Tensor:
    """Objects as a tensor (N, …): float32, or int64 where they are whole numbers (of tokens) and no frame or bytes.

    Raises
    ------
    BadInput
        They are no numbers, or of several shapes.
    """
    if isinstance(x, torch.Tensor):
        found = x.detach().cpu()
    else:
        if hasattr(x, "dtypes") and hasattr(x, "columns"):
            texts = [name for name, kind in x.dtypes.items() if not (np.issubdtype(_kind(kind), np.number))]
            if texts:
                raise BadInput(f"{what}: column {texts[0]!r} of x holds no numbers; allowed: numbers in every column")
            x = x.to_numpy(dtype=float)
        array = _array(x, f"{what}: x")
        if array.dtype.kind not in "fiub":
            raise BadInput(f"{what}: x holds {array.dtype}, no numbers; allowed: real or whole numbers")
        found = _tensor(array)
    if found.is_complex():
        raise BadInput(f"{what}: x holds complex numbers; allowed: real or whole ones")
    whole = not found.is_floating_point() and found.dtype not in (torch.uint8, torch.bool)
    return (found.long() if whole else found.float()).contiguous()


def as_labels(parts: Sequence[Any], what: str) -> list[torch.Tensor]:
    """Targets of all parts: classes int64 (N,), text and categories by their place in the alphabet; else float32.

    Raises
    ------
    BadInput
        They are not finite, or of a kind that is neither.
    """
    arrays = [part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part for part in parts]
    arrays = [_array(part, f"{what}: y") for part in arrays]
    if arrays[0].dtype.kind in "OUSb":
        try:
            names = np.unique(np.concatenate([array.reshape(-1) for array in arrays]))
        except TypeError as error:
            raise BadInput(f"{what}: y mixes text and numbers; allowed: one of them") from error
        arrays = [np.searchsorted(names, array) for array in arrays]
    if arrays[0].dtype.kind not in "iuf":
        raise BadInput(f"{what}: y holds {arrays[0].dtype}; allowed: classes or real numbers")
    whole = arrays[0].dtype.kind in "iu"
    found = [_tensor(array) for array in arrays]
    found = [part.long() if whole else part.float() for part in found]
    for part in found:
        check_finite_objects(part, "y", what)
    return [part.squeeze(1) if whole and part.dim() == 2 and part.shape[1] == 1 else part for part in found]


def read_items(dataset: Any, rows: Sequence[int], what: str) -> tuple[torch.Tensor, Any]:
    """Read pairs (x, y) of a data set one by one, as their transforms want, and stack them.

    Raises
    ------
    BadInput
        An item is no pair, no numbers, or of another shape than the first.
    """
    objects, labels = [], []
    for row in rows:
        with explained(f"{what}, object {row}"):
            item = dataset[row]
        if not isinstance(item, tuple | list) or len(item) != 2:
            length = f" of {len(item)}" if isinstance(item, tuple | list) else ""
            raise BadInput(f"{what}: object {row} is a {type(item).__name__}{length}; allowed: a pair (x, y)")
        x, y = item
        if not isinstance(x, torch.Tensor | np.ndarray | int | float | list):
            raise BadInput(
                f"{what}: x of object {row} is of the type {type(x).__name__}; allowed: a tensor or an array, for "
                "pictures by transform._target_=torchvision.transforms.ToTensor"
            )
        x = as_objects(x, f"{what}, object {row}") if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
        if objects and x.shape != objects[0].shape:
            raise BadInput(
                f"{what}: x of object {row} has the shape {tuple(x.shape)}, of object {rows[0]} "
                f"{tuple(objects[0].shape)}; allowed: one shape (a transform can resize)"
            )
        objects.append(x)
        labels.append(y)
    if isinstance(labels[0], torch.Tensor | np.ndarray):
        labels = np.stack([np.asarray(label) for label in labels])
    return torch.stack(objects), labels


def check_finite_objects(values: torch.Tensor, name: str, what: str, rows: np.ndarray | None = None) -> None:
    """Refuse objects of which a value is not finite, naming them.

    Parameters
    ----------
    values
        Shape (N, …).
    rows
        The objects' numbers where they are not 0, 1, ….

    Raises
    ------
    BadInput
        With how many there are and the first of them.
    """
    if not values.is_floating_point():
        return
    bad = (
        (~values.isfinite())
        .reshape(len(values), math.prod(values.shape[1:]))
        .any(dim=1)
        .nonzero()
        .reshape(-1)
        .cpu()
        .numpy()
    )
    if len(bad):
        raise BadInput(f"{what}: {name} is not finite for {which(bad if rows is None else rows[bad], len(values))}")


def which(bad: np.ndarray, count: int) -> str:
    """Name the first of some objects and say how many they are."""
    first = ", ".join(map(str, bad[:NAMED].tolist()))
    more = ", …" if len(bad) > NAMED else ""
    return f"{len(bad)} of {count} objects: number {first}{more} (counted from 0)"


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _kind(dtype: Any) -> Any:
    return dtype.numpy_dtype if hasattr(dtype, "numpy_dtype") else dtype if isinstance(dtype, np.dtype) else object


def _array(values: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:  # rows of several lengths
        raise BadInput(f"{what} cannot be an array: {str(error).splitlines()[0]}") from error
    if array.dtype == object and array.ndim == 1 and array.size and isinstance(array.flat[0], bool | int | float):
        return array.astype(float)
    return array
