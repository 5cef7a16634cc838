"""Where the checkpoint of a vision transformer is, and whether it is whole. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from landscape_cli.data.locate import expand
from landscape_cli.errors import DamagedData, ImpossibleModel, MissingData

TRANSFORMERS, TORCHVISION = "transformers", "torchvision"
WEIGHTS = "model.safetensors"  # of a transformers checkpoint
PARTS = ("config.json", WEIGHTS)
OPTIONAL = "preprocessor_config.json"  # mean and deviation of the pixels
INSTALL = "pip install 'landscape-cli[features]'"
REMEDY = "features=small_cnn and features=random_conv need no checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a vision transformer."""

    path: Path  # a folder (transformers) or a file (torchvision)
    library: str  # TRANSFORMERS or TORCHVISION: whose format it is
    name: str  # for captions
    checksum: str  # SHA-256 of the weights and of what else the features depend on


def find_checkpoint(
    given: str | None, repository: str, weights: str, output: str, roots: Sequence[Path], download: bool
) -> Checkpoint:
    """Find a checkpoint, fetch it if it is nowhere and may be fetched.

    Parameters
    ----------
    given
        ``features.checkpoint``: a folder or file; None: ``extractors/`` in the data roots, the Hugging Face cache, and
        torch's cache are searched.
    repository
        Name on the Hugging Face hub.
    weights
        Name of torchvision's file.
    output
        ``class_token`` or ``pooled``, what is asked of the transformer.

    Raises
    ------
    MissingData
        Nothing was found, or the package that reads it is not installed.
    DamagedData
        It is incomplete, or its tensors do not have the shapes that its configuration says.
    ImpossibleModel
        ``pooled`` of a checkpoint without a pooling layer.
    """
    if given is not None:
        path = expand(given)
        if not path.exists():
            raise MissingData(f"features.checkpoint: {given}: there is no such file or folder; {REMEDY}")
        return _opened(path, path.name, output)
    places = list(_places(repository, weights, roots))
    for path in places:
        if path.is_file() or all((path / part).is_file() for part in PARTS):
            return _opened(path, weights if path.is_file() else repository, output)
    reason = "not looked for on the network (data.download=false)"
    if download and find_spec("huggingface_hub"):
        try:
            return _opened(_fetch(repository), repository, output)
        except MissingData as error:
            reason = str(error)
    elif download:
        reason = f"not downloaded, transformers is not installed ({INSTALL})"
    searched = ", ".join(dict.fromkeys(str(path) for path in places))
    raise MissingData(
        f"features: the checkpoint {repository} was not found: looked for {searched}; {reason}; "
        f"features.checkpoint=PATH names one, {REMEDY}"
    )


def _places(repository: str, weights: str, roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        yield root / "extractors" / repository.rpartition("/")[2]
        yield root / "extractors" / weights
    home = Path(os.environ.get("HF_HOME") or expand("~/.cache/huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = hub / f"models--{repository.replace('/', '--')}" / "snapshots"
    yield from sorted(snapshots.glob("*")) or [snapshots]
    yield Path(os.environ.get("TORCH_HOME") or expand("~/.cache/torch")) / "hub" / "checkpoints" / weights


def _opened(path: Path, name: str, output: str) -> Checkpoint:
    """Check what can be checked without loading the weights."""
    pooling = False
    if path.suffix == ".safetensors":
        path = path.parent
    if path.is_dir():
        for part in PARTS:
            if not (path / part).is_file():
                raise DamagedData(f"features.checkpoint: {path} is not a checkpoint of transformers: it has no {part}")
        if not find_spec("transformers"):
            raise MissingData(f"features.checkpoint: {path} needs the package transformers: {INSTALL}; {REMEDY}")
        pooling = _check_shapes(path)
    if output == "pooled" and not pooling:
        raise ImpossibleModel(
            f"features.output: 'pooled', and {path} has no pooling layer (transformers would draw one at random); "
            "allowed: class_token"
        )
    library = TRANSFORMERS if path.is_dir() else TORCHVISION
    parts = [path / part for part in (*PARTS, OPTIONAL) if (path / part).is_file()] if path.is_dir() else [path]
    digests = [library]
    for part in parts:
        with part.open("rb") as file:
            digests.append(f"{part.name if path.is_dir() else ''} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return Checkpoint(path, library, name, hashlib.sha256("\n".join(digests).encode()).hexdigest())


def pixel_statistics(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of the pixels in 0..1 that a checkpoint of transformers was trained with, three each."""
    path, found = folder / OPTIONAL, []
    known = _json(path) if path.is_file() else {}
    for name in ("image_mean", "image_std"):
        values = known.get(name, [0.5, 0.5, 0.5])
        numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
        if not numbers or len(values) != 3 or (name == "image_std" and min(values) <= 0):
            raise DamagedData(f"features.checkpoint: {path}: {name} is {values!r}, and must be three numbers")
        found.append(values)
    return found[0], found[1]


def _check_shapes(folder: Path) -> bool:
    """Compare the tensors' shapes with the configuration's, from the header of the weights alone.

    Returns
    -------
    Whether there is a pooling layer.
    """
    pixel_statistics(folder)
    config, shapes = _json(folder / "config.json"), _shapes(folder / WEIGHTS)
    if config.get("model_type") != "vit":
        found = config.get("model_type")
        raise DamagedData(f"features.checkpoint: {folder} holds a model of type {found!r}, and must hold a 'vit'")
    sizes = {"hidden_size": 768, "patch_size": 16, "image_size": 224, "num_channels": 3}
    for name, usual in sizes.items():
        sizes[name] = config.get(name, usual)
        if not isinstance(sizes[name], int) or sizes[name] < 1:
            raise DamagedData(f"features.checkpoint: {folder / 'config.json'}: {name} is {sizes[name]!r}")
    width, patch, side, channels = sizes.values()
    if channels != 3:
        raise DamagedData(f"features.checkpoint: {folder} takes pictures of {channels} channels, and must take three")
    patches = (side // patch) ** 2
    expected = {
        "embeddings.cls_token": [1, 1, width],
        "embeddings.position_embeddings": [1, patches + 1, width],
        "embeddings.patch_embeddings.projection.weight": [width, channels, patch, patch],
    }
    for name, shape in expected.items():
        found = shapes.get(name, shapes.get(f"vit.{name}"))
        if found != shape:
            what = f"has shape {found}" if found else "is missing"
            raise DamagedData(
                f"features.checkpoint: {folder / WEIGHTS}: {name} {what}, and by config.json must have {shape}"
            )
    return any(name.endswith("pooler.dense.weight") for name in shapes)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping")
        return content
    except ValueError as error:
        raise DamagedData(f"features.checkpoint: {path} cannot be read ({error})") from error


def _shapes(path: Path) -> dict[str, list[int]]:
    """Shapes in a safetensors file: eight bytes give the length of the header, which is JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise ValueError("it is cut short")
            header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        if path.stat().st_size != 8 + length + end:
            raise ValueError("it is cut short")
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedData(f"features.checkpoint: {path} cannot be read ({error})") from error


def _fetch(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=[*PARTS, OPTIONAL], etag_timeout=5))
    except Exception as error:  # the hub's client raises classes of several HTTP libraries
        reason = " ".join(str(error).split())[:160]
        raise MissingData(f"the download failed ({type(error).__name__}: {reason})") from error
