"""Image sets as arrays, and as tensors with normalised pixels."""

from __future__ import annotations

import gzip
import hashlib
import math
import pickle
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape_cli.data.archive import damaged, map_array, read_arrays, reading
from landscape_cli.data.locate import ARCHIVE, SCIKIT_LEARN, Source, check_size, check_train_size, pictures
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.errors import MissingData

if TYPE_CHECKING:
    import torch

    from landscape_cli.data.pixels import Pixels

_COUNTED = 4096  # pictures whose pixels are counted at a time
_UNSIGNED_BYTES = 0x08  # type code of an idx file
_ORDER_SEED = 0  # of the order of pictures that are stored class by class
WHOLE_BYTES = 2**31  # of float32 pixels of a split, up to which it is held in memory as a whole
_DECODERS = 4  # threads; a picture is decoded and resized without holding the interpreter's lock


@dataclass(frozen=True, eq=False)
class Images:
    """An image set as stored."""

    x_train: np.ndarray  # uint8 (N, C, H, W)
    y_train: np.ndarray  # int64 (N,)
    x_test: np.ndarray  # uint8 (M, C, H, W)
    y_test: np.ndarray  # int64 (M,)
    class_names: tuple[str, ...]  # (K,)


@dataclass(frozen=True, eq=False)
class ImageData:
    """An image set on a device, ready to train on."""

    x_train: torch.Tensor | Pixels  # float32 (N, C, H, W); features: (N, F, 1, 1)
    y_train: torch.Tensor  # int64 (N,)
    x_test: torch.Tensor | Pixels  # float32 (M, C, H, W); features: (M, F, 1, 1)
    y_test: torch.Tensor  # int64 (M,)
    class_names: tuple[str, ...]  # (K,)
    source: Source  # with the checksum

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one object, (F, 1, 1) of its features."""
        return tuple(self.x_train.shape[1:])


def load_images(
    source: Source,
    train_size: int | None,
    test_size: int | None = None,
    device: str | torch.device = "cpu",
    normalisation: str = "symmetric",
    streamed: bool = False,
) -> ImageData:
    """Read an image set and normalise its pixels.

    Parameters
    ----------
    source
        From :func:`~landscape_cli.data.locate.locate`.
    train_size, test_size
        The first so many objects of each split, in the order of :func:`read`; None: all.
    device
        Where the tensors live.
    normalisation
        ``symmetric``: pixels x become ``2 x / max_value - 1``, in [-1, 1]. ``standard``: x / max_value less its
        channel's mean, over its channel's deviation; the set's published ones, or those of the train objects read.
    streamed
        Leave large splits of an uncompressed archive in their file: they become :class:`Pixels`.

    Returns
    -------
    ImageData
        Images float32 (N, C, H, W), labels int64 (N,).

    Raises
    ------
    BadInput
        A size that the source does not hold.
    MissingData
        A file is damaged.
    """
    import torch

    from landscape_cli.data.pixels import Pixels

    train_size = check_train_size(source, train_size)
    test_size = check_size(source, "test_size", test_size, source.test_objects, minimum=0)
    images = read(source, train_size, test_size, mapped=streamed)
    if normalisation == "standard":
        means, deviations = _channel_statistics(source, images.x_train)
        normalise = partial(_standardised, max_value=source.max_value, means=means, deviations=deviations)
    else:
        normalise = partial(_symmetric, max_value=source.max_value)

    def on_device(split: str, x: np.ndarray) -> torch.Tensor | Pixels:
        if isinstance(x, np.memmap):
            return Pixels(x, normalise, device, f"{source.checksum} {split} {normalisation}")
        return torch.from_numpy(normalise(x)).to(device)

    return ImageData(
        x_train=on_device("train", images.x_train),
        y_train=torch.from_numpy(images.y_train).to(device),
        x_test=on_device("test", images.x_test),
        y_test=torch.from_numpy(images.y_test).to(device),
        class_names=images.class_names,
        source=source,
    )


def read(source: Source, train_size: int | None = None, test_size: int | None = None, mapped: bool = False) -> Images:
    """Read the arrays of a source and check them: zip CRCs (but of mapped ones), shapes, lengths, label ranges.

    Objects come in the published order. Pictures in class folders have none: sorted by class and name, those of each
    split are put in the order ``numpy.random.default_rng(0).permutation``, so that the first ones are of all classes.
    They are brought to RGB, to H = W pixels on the shorter side (bicubic, with antialiasing), and cropped in the
    centre.

    Parameters
    ----------
    source
        From :func:`~landscape_cli.data.locate.locate`.
    train_size, test_size
        The first so many objects of each split; None: all. Of pictures in class folders only these are decoded.
    mapped
        Map images of an uncompressed archive into memory if they would take more than ``WHOLE_BYTES`` as float32.

    Returns
    -------
    Images
        uint8 images (N, C, H, W), int64 labels (N,).

    Raises
    ------
    MissingData
        A file is damaged, or is not the one that was located.
    """
    if source.layout == SCIKIT_LEARN:
        images = _read_digits(source)
    elif source.layout == ARCHIVE:
        images = _read_archive(source, train_size, test_size, mapped)
    elif IMAGE_SETS[source.name].layout.reader == "idx":
        images = _read_idx_files(source)
    elif IMAGE_SETS[source.name].layout.reader == "cifar":
        images = _read_cifar(source)
    else:
        return _read_folders(source, train_size, test_size)
    _check(source, images)
    return Images(
        x_train=images.x_train[:train_size],
        y_train=images.y_train[:train_size],
        x_test=images.x_test[:test_size],
        y_test=images.y_test[:test_size],
        class_names=images.class_names,
    )


def _symmetric(x: np.ndarray, max_value: int) -> np.ndarray:
    """Return uint8 pixels as float32 in [-1, 1]."""
    # Here and not on the device: a GPU divides by multiplying with the rounded reciprocal, and would miss 1.
    scaled = x.astype(np.float32)
    scaled *= 2
    scaled /= max_value
    scaled -= 1
    return scaled


def _standardised(x: np.ndarray, max_value: int, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return uint8 pixels as float32 with mean 0 and deviation 1 in each channel."""
    scaled = x.astype(np.float32)
    scaled /= max_value
    scaled -= means.astype(np.float32)[:, None, None]
    scaled /= deviations.astype(np.float32)[:, None, None]
    return scaled


def _channel_statistics(source: Source, x_train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel's pixels in 0..1, each of shape (C,)."""
    published = IMAGE_SETS.get(source.name)
    if published and published.channel_means:
        return np.array(published.channel_means), np.array(published.channel_deviations)
    # From the histogram of each channel: exact, and without a copy of the pictures.
    values = np.arange(256) / source.max_value
    counts = np.zeros((x_train.shape[1], 256), dtype=np.int64)
    for begin in range(0, len(x_train), _COUNTED):
        for channel, count in enumerate(counts):
            count += np.bincount(x_train[begin : begin + _COUNTED, channel].reshape(-1), minlength=256)
    means = np.array([count @ values / count.sum() for count in counts])
    squares = np.array([count @ values**2 / count.sum() for count in counts])
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    return means, np.where(deviations > 0, deviations, 1)


def _check(source: Source, images: Images) -> None:
    for split, x, y, objects in (
        ("train", images.x_train, images.y_train, source.train_objects),
        ("test", images.x_test, images.y_test, source.test_objects),
    ):
        expected = (objects, *source.shape)
        if x.shape != expected or y.shape != (objects,):
            problem = f"{split} images are {x.shape} and labels {y.shape}, not {expected} and ({objects},)"
            raise damaged(source.name, Path(source.place), problem)
        if objects and not 0 <= y.min() <= y.max() < source.classes:
            problem = f"{split} labels are {y.min()}..{y.max()}, not 0..{source.classes - 1}"
            raise damaged(source.name, Path(source.place), problem)


def _read_digits(source: Source) -> Images:
    # scikit-learn takes a second to import, and only this data set needs it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = digits.images[:, np.newaxis].astype(np.uint8), digits.target.astype(np.int64)
    if source.shape == (1, 32, 32):
        x = _enlarged(x)
    if hashlib.sha256(x.tobytes() + y.astype("<i8").tobytes()).hexdigest() != source.checksum:
        raise MissingData(f"data set '{source.name}': this scikit-learn ships other digits; reinstall scikit-learn")
    train = source.train_objects
    return Images(x[:train], y[:train], x[train:], y[train:], IMAGE_SETS[source.name].class_names)


def _enlarged(x: np.ndarray) -> np.ndarray:
    """Enlarge digits (N, 1, 8, 8) in 0..16 four times, bilinearly, to (N, 1, 32, 32) in 0..255; in whole numbers."""
    centres = np.clip((2 * np.arange(32) + 1) - 4, 0, 56)  # position between the pixels' centres, in eighths of a pixel
    below, weight = centres // 8, centres % 8
    above = np.minimum(below + 1, 7)
    wide = x.astype(np.int64)
    wide = wide[..., below, :] * (8 - weight)[:, None] + wide[..., above, :] * weight[:, None]
    wide = wide[..., below] * (8 - weight) + wide[..., above] * weight
    return ((wide * 255 + 512) // 1024).astype(np.uint8)  # 16 of the digits, 8 and 8 of the weights


def _read_archive(source: Source, train_size: int | None, test_size: int | None, mapped: bool) -> Images:
    keys, arrays = ["y_train", "y_test", "classes"], {}
    for key, objects in (("x_train", train_size or source.train_objects), ("x_test", test_size)):
        objects = source.test_objects if objects is None else objects
        large = mapped and 4 * objects * math.prod(source.shape) > WHOLE_BYTES
        arrays[key] = map_array(source.name, source.files[0], key) if large else None
        keys += [key] if arrays[key] is None else []
    arrays |= read_arrays(source.name, source.files[0], tuple(keys))
    # With no names the classes are their numbers.
    names = arrays.get("classes", np.arange(source.classes))
    return Images(
        x_train=_channels_first(arrays["x_train"]),
        y_train=arrays["y_train"].astype(np.int64),
        x_test=_channels_first(arrays["x_test"]),
        y_test=arrays["y_test"].astype(np.int64),
        class_names=tuple(np.asarray(names, dtype=str).tolist()),
    )


def _channels_first(x: np.ndarray) -> np.ndarray:
    """Return (N, H, W) or (N, H, W, C) as (N, C, H, W); a mapped array as a view."""
    if x.ndim == 3:
        return x[:, np.newaxis]
    moved = x.transpose(0, 3, 1, 2)
    return moved if isinstance(x, np.memmap) else np.ascontiguousarray(moved)


def _read_idx_files(source: Source) -> Images:
    x_train, y_train, x_test, y_test = (_read_idx(source.name, path) for path in source.files)
    return Images(
        x_train=x_train[:, np.newaxis],
        y_train=y_train.astype(np.int64),
        x_test=x_test[:, np.newaxis],
        y_test=y_test.astype(np.int64),
        class_names=IMAGE_SETS[source.name].class_names,
    )


def _read_idx(name: str, path: Path) -> np.ndarray:
    """Read an idx file of bytes: two zeros, a type code, the number of axes, their lengths, then the values."""
    opener = gzip.open if path.suffix == ".gz" else open
    with reading(name, path), opener(path, "rb") as file:
        content = file.read()
        zeros, kind, axes = struct.unpack_from(">HBB", content)
        if (zeros, kind) != (0, _UNSIGNED_BYTES):
            raise ValueError("not an idx file of unsigned bytes")
        shape = struct.unpack_from(f">{axes}I", content, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_cifar(source: Source) -> Images:
    *train_files, test_file, names_file = source.files
    image = (-1, *source.shape)
    batches = [_unpickle(source.name, path) for path in (*train_files, test_file)]
    names = _unpickle(source.name, names_file)
    with reading(source.name, Path(source.place)):
        x = [np.asarray(batch["data"], dtype=np.uint8).reshape(image) for batch in batches]
        y = [np.asarray(batch.get("labels", batch.get("fine_labels")), dtype=np.int64) for batch in batches]
        return Images(
            x_train=np.concatenate(x[:-1]),
            y_train=np.concatenate(y[:-1]),
            x_test=x[-1],
            y_test=y[-1],
            class_names=tuple(names.get("label_names") or names["fine_label_names"]),
        )


def _unpickle(name: str, path: Path) -> dict[str, Any]:
    # Safe: `locate` has found the published file's digest.
    with reading(name, path), path.open("rb") as file, warnings.catch_warnings():
        # The published pickles come from Python 2; numpy 2.4.0 to 2.4.4 warn of the way they spell a dtype.
        warnings.simplefilter("ignore")
        return pickle.load(file, encoding="latin1")


def _read_folders(source: Source, train_size: int | None, test_size: int | None) -> Images:
    published = IMAGE_SETS[source.name]
    parts = []
    for split, objects, size in zip(
        source.files, (source.train_objects, source.test_objects), (train_size, test_size), strict=True
    ):
        with reading(source.name, split):
            listed = pictures(split, published.layout.class_folders)
        if len(listed) != objects:
            raise damaged(source.name, split, f"it holds {len(listed)} pictures, and {objects} were found at first")
        used = [listed[index] for index in np.random.default_rng(_ORDER_SEED).permutation(objects)[:size]]
        parts.append(_decoded(source.name, [path for path, _ in used], source.shape))
        parts.append(np.array([label for _, label in used], dtype=np.int64))
    return Images(*parts, class_names=published.class_names)


def _decoded(name: str, paths: Sequence[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Decode pictures on a few threads, as uint8 (N, C, H, W)."""
    x = np.empty((len(paths), *shape), dtype=np.uint8)

    def fill(index: int) -> None:
        x[index] = _picture(name, paths[index], shape[1]).transpose(2, 0, 1)

    with ThreadPoolExecutor(_DECODERS) as pool:
        # Raises the first error and drops the pictures that still wait.
        for _ in pool.map(fill, range(len(paths))):
            pass
    return x


def _picture(name: str, path: Path, side: int) -> np.ndarray:
    """Decode a picture, bring its shorter side to ``side`` pixels and crop its centre: uint8 (side, side, 3)."""
    # Only this layout needs it.
    from PIL import Image

    with reading(name, path), Image.open(path) as stored:
        # Rounded as torchvision's Resize and CenterCrop do, so that the pixels are those that they give.
        scaled = tuple(side * length // min(stored.size) for length in stored.size)
        left, top = (round((length - side) / 2) for length in scaled)
        resized = stored.convert("RGB").resize(scaled, Image.Resampling.BICUBIC)
        return np.asarray(resized.crop((left, top, left + side, top + side)))
