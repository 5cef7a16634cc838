"""Features of a data set, computed once and cached by data set and extractor."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from landscape_cli.claims import clear_drafts, draft_name
from landscape_cli.data.images import ImageData
from landscape_cli.errors import DamagedData
from landscape_cli.features.checkpoints import Checkpoint
from landscape_cli.models.conv import ConvNet
from landscape_cli.rng import generator
from landscape_cli.training import fit

VERSION = 1  # raised when an extractor changes its numbers
SPLITS = ("x_train", "x_test")

Extractor = Callable[[torch.Tensor], torch.Tensor]  # pictures (B, C, H, W) as they were loaded -> (B, F)


def load_features(
    extractor: Mapping[str, Any],
    dataset: Mapping[str, Any],
    load: Callable[[Mapping[str, Any]], ImageData],
    checkpoint: Checkpoint | None,
    folder: Path,
    progress: Callable[..., Any],
) -> ImageData:
    """Features of the objects in place of the objects themselves.

    Parameters
    ----------
    extractor, dataset
        The nodes ``features`` and ``dataset`` of a point's settings: what identifies them.
    load
        Reads the data set of such a node.
    checkpoint
        Of a vision transformer.
    folder
        Where features are cached, one file a data set and extractor.
    progress
        Like tqdm.

    Returns
    -------
    The data set with features float32 (N, F, 1, 1).

    Raises
    ------
    DamagedData
        A feature is not a finite number.
    """
    identity = json.dumps({"version": VERSION, "extractor": extractor, "dataset": dataset}, sort_keys=True)
    path = folder / f"{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}.safetensors"
    images = load(dataset)
    cached = _read(path) if path.is_file() else None
    if cached is None:
        function, batch = _extractor(extractor, images, load, checkpoint, progress)
        cached = {}
        for split in SPLITS:
            x = getattr(images, split)
            parts = x.split(batch) if len(x) else ()
            with torch.no_grad():
                pieces = [function(part).float() for part in progress(parts, desc=f"features, {split}")]
            cached[split] = torch.cat(pieces).cpu() if pieces else torch.empty(0, cached["x_train"].shape[1])
        if not all(bool(tensor.isfinite().all()) for tensor in cached.values()):
            raise DamagedData(f"features: the extractor {extractor['kind']} gives values that are not finite")
        _write(path, cached, identity)
    device = images.x_train.device
    x_train, x_test = (cached[split].to(device)[:, :, None, None] for split in SPLITS)
    return replace(images, x_train=x_train, x_test=x_test)


def _extractor(
    extractor: Mapping[str, Any],
    images: ImageData,
    load: Callable[[Mapping[str, Any]], ImageData],
    checkpoint: Checkpoint | None,
    progress: Callable[..., Any],
) -> tuple[Extractor, int]:
    """Return the function and how many pictures to give it at a time."""
    if extractor["kind"] == "vit":
        from landscape_cli.features.vit import vision_transformer

        return vision_transformer(checkpoint, extractor["output"], images), 32
    settings = {**extractor, "kind": "conv2d", "bias": True, "relu_after_last": True, "head": []}
    here = ConvNet(settings, images.shape, images.source.classes)
    if extractor["kind"] == "random_conv":
        parameters = here.initialise([generator(extractor["seed"], "initialisation", "features")])
    else:
        other = load(extractor["dataset"])
        parameters = fit(
            ConvNet(settings, other.shape, other.source.classes),
            other.x_train,
            other.y_train,
            seeds=[extractor["seed"]],
            stream="features",
            progress=progress,
            **{name: extractor[name] for name in ("epochs", "batch_size", "learning_rate")},
        )
    parameters = {name: tensor.to(images.x_train.device) for name, tensor in parameters.items()}
    return lambda x: here.features(parameters, x[None])[0], here.chunk


def _write(path: Path, features: Mapping[str, torch.Tensor], identity: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_drafts(path.parent)
    draft = path.with_name(draft_name())
    try:
        save_file(dict(features), draft, metadata={"digest": _digest(features), "identity": identity})
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, torch.Tensor] | None:
    try:
        with safe_open(path, framework="pt") as file:
            # A copy lies in memory as what has just been computed does: elsewhere products are rounded otherwise.
            features = {name: file.get_tensor(name).clone() for name in SPLITS}
            whole = file.metadata()["digest"] == _digest(features)
    except (SafetensorError, KeyError, TypeError, OSError):
        whole = False
    if not whole:
        print(f"damaged features {path}, they are computed again", file=sys.stderr)
        return None
    return features


def _digest(features: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in SPLITS:
        digest.update(features[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
