"""Numpy archives of images, ``images/<name>.npz``: what they hold, without reading the pictures."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landscape_cli.data.corpus_sets import CORPUS_SETS
from landscape_cli.data.sets import IMAGE_SETS, ImageSet
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.errors import DamagedData

_PARTS = ("x_train", "y_train", "x_test", "y_test")
# By the first letter of an array's name: kinds of dtype, numbers of axes, and both in words.
_FORMS = {
    "x": ("u", (3, 4), "uint8 (N, H, W) or (N, H, W, C)"),
    "y": ("iu", (1,), "integers (N,)"),
    "c": ("Uiu", (1,), "names (K,)"),
}
_NAME_LENGTH_AT = 26  # of a zip file's local header; the length of the extra field follows, then both
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class ArchiveContents:
    """What an archive holds."""

    train_objects: int
    test_objects: int
    shape: tuple[int, int, int]  # (C, H, W)
    classes: int


def damaged(name: str, path: Path, problem: str) -> DamagedData:
    """Return the one-line error for a file of the data set ``name`` that is there but cannot be used."""
    corpus = CORPUS_SETS.get(name)
    remedy = "write it again"
    if name in IMAGE_SETS or name in TABLE_SETS or (corpus and corpus.url):
        remedy = f"run `landscape data fetch {name}`"
    elif corpus:
        remedy = f"get it again from {corpus.get}"
    return DamagedData(f"data set '{name}': {path} is damaged: {problem}; delete it and {remedy}")


@contextmanager
def reading(name: str, path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into the one-line error of :func:`damaged`."""
    try:
        yield
    # Zip, zlib, npy and pickle decoders raise a dozen unrelated classes on the same flipped byte.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise damaged(name, path, f"it cannot be read ({type(error).__name__}: {reason})") from error


def inspect_archive(name: str, path: Path) -> ArchiveContents:
    """Read what an archive holds from its headers and labels, and check that the parts agree.

    Parameters
    ----------
    name
        Of the data set; an archive of a published set must have its image shape and classes, and no more objects.
    path
        The archive: ``x_train``, ``x_test`` uint8 (N, H, W, C) or (N, H, W), ``y_train``, ``y_test`` integers (N,)
        and, unless the labels are to be counted, ``classes`` (K,), their names.

    Returns
    -------
    ArchiveContents

    Raises
    ------
    DamagedData
        The archive cannot be read, lacks a part, or its parts do not agree.
    """
    with reading(name, path), zipfile.ZipFile(path) as archive:
        present = {member.removesuffix(".npy") for member in archive.namelist()}
        headers = {key: _header(archive, key) for key in (*_PARTS, "classes") if key in present}
    for key in _PARTS:
        if key not in headers:
            raise damaged(name, path, f"it has no array {key}")
    for key, (shape, dtype) in headers.items():
        kinds, axes, wanted = _FORMS[key[0]]
        if dtype.kind not in kinds or len(shape) not in axes or (key[0] == "x" and dtype != np.uint8):
            raise damaged(name, path, f"{key} is {dtype} {shape}, and must be {wanted}")
    shapes = {key: shape for key, (shape, _) in headers.items()}
    (train_objects, *image), (test_objects, *test_image) = shapes["x_train"], shapes["x_test"]
    if image != test_image or train_objects == 0:
        raise damaged(name, path, f"x_train is {shapes['x_train']} and x_test is {shapes['x_test']}")
    for split, objects in (("train", train_objects), ("test", test_objects)):
        if shapes[f"y_{split}"] != (objects,):
            raise damaged(name, path, f"y_{split} is {shapes[f'y_{split}']}, and there are {objects} images")

    published = IMAGE_SETS.get(name)
    labels = np.concatenate(list(read_arrays(name, path, ("y_train", "y_test")).values()))
    counted = published.classes if published else int(labels.max()) + 1
    (classes,) = shapes.get("classes", (counted,))
    if labels.min() < 0 or labels.max() >= classes:
        raise damaged(name, path, f"its labels are {labels.min()}..{labels.max()}, and it has {classes} classes")

    height, width, channels = image if len(image) == 3 else (*image, 1)
    contents = ArchiveContents(train_objects, test_objects, (channels, height, width), classes)
    if published:
        _check_published(published, path, contents)
    return contents


def _check_published(published: ImageSet, path: Path, contents: ArchiveContents) -> None:
    """Refuse an archive that cannot be the published set or a part of it."""
    if (
        (contents.shape, contents.classes) != (published.shape, published.classes)
        or contents.train_objects > published.train_objects
        or contents.test_objects > published.test_objects
    ):
        held, known = (
            f"{it.train_objects} + {it.test_objects} objects of shape {it.shape} in {it.classes} classes"
            for it in (contents, published)
        )
        raise damaged(published.name, path, f"it holds {held}, and {published.title} has {known}")


def read_arrays(name: str, path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read arrays of an archive, as stored; one that is not there is left out.

    Raises
    ------
    DamagedData
        The archive cannot be read: truncated, a wrong CRC, pickled objects.
    """
    with reading(name, path), np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in keys if key in archive.files}


def map_array(name: str, path: Path, key: str) -> np.ndarray | None:
    """Map an array of an archive into memory, unread; None if it is compressed (``numpy.savez`` does not compress).

    Raises
    ------
    DamagedData
        The archive cannot be read.
    """
    with reading(name, path), zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{key}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(member) as content:
            shape, fortran, dtype = _HEADER_READERS[np.lib.format.read_magic(content)](content)
            header = content.tell()
        with path.open("rb") as file:
            file.seek(member.header_offset + _NAME_LENGTH_AT)
            names = struct.unpack("<HH", file.read(4))
        begin = member.header_offset + _NAME_LENGTH_AT + 4 + sum(names) + header
        return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")


def _header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(f"{key}.npy") as member:
        shape, _, dtype = _HEADER_READERS[np.lib.format.read_magic(member)](member)
    return shape, dtype
