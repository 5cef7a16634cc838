"""A pretrained vision transformer as a feature extractor, in the formats of transformers and of torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from landscape_cli.data.images import ImageData
from landscape_cli.data.torchvision_import import torchvision  # before transformers, which imports it too
from landscape_cli.errors import DamagedData
from landscape_cli.features.checkpoints import TRANSFORMERS, Checkpoint, pixel_statistics

# What torchvision's ImageNet weights were trained with.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD_WIDTH = 64  # of every attention head of torchvision's ViT-B and ViT-L


def vision_transformer(
    checkpoint: Checkpoint, output: str, images: ImageData
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function from pictures to features.

    Pictures are brought to the transformer's size (bilinear), grey ones to three equal channels, and pixels to the
    mean and deviation that it was trained with.

    Parameters
    ----------
    output
        ``class_token``: the class token after the last layer norm. ``pooled``: tanh of a dense layer of it, where the
        checkpoint has that layer; those tuned for classification have none.
    images
        In [-1, 1].

    Returns
    -------
    (B, C, H, W) -> (B, F).

    Raises
    ------
    DamagedData
        The checkpoint's tensors are not those of a vision transformer.
    """
    device = images.x_train.device
    if checkpoint.library == TRANSFORMERS:
        run, size, mean, deviation = _transformers(checkpoint, output, device)
    else:
        run, size, mean, deviation = _torchvision(checkpoint, device)
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in (mean, deviation))

    def features(x: torch.Tensor) -> torch.Tensor:
        x = functional.interpolate((x + 1) / 2, size=(size, size), mode="bilinear", antialias=True)
        return run((x.expand(-1, 3, -1, -1) - mean) / deviation)

    return features


def _transformers(checkpoint: Checkpoint, output: str, device: torch.device) -> tuple:
    from transformers import ViTModel
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        net, report = ViTModel.from_pretrained(checkpoint.path, local_files_only=True, output_loading_info=True)
    except Exception as error:  # it raises a dozen classes on damaged files
        reason = " ".join(str(error).split())[:200]
        raise DamagedData(f"features.checkpoint: {checkpoint.path} cannot be loaded ({reason})") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    pooler = [name for name in missing if name.startswith("pooler")]
    if len(pooler) < len(missing):
        lacking = next(name for name in missing if not name.startswith("pooler"))
        raise DamagedData(
            f"features.checkpoint: {checkpoint.path} lacks {len(missing) - len(pooler)} tensors, the first is {lacking}"
        )
    # The head of a classifier is not needed; layers that are left out would change the features.
    ignored = sorted(name for name in report["unexpected_keys"] if not name.startswith("classifier"))
    if ignored:
        raise DamagedData(
            f"features.checkpoint: {checkpoint.path} has {len(ignored)} tensors that its config.json does not know, "
            f"the first is {ignored[0]}"
        )
    net = net.eval().to(device)
    mean, deviation = pixel_statistics(checkpoint.path)

    def run(x: torch.Tensor) -> torch.Tensor:
        found = net(pixel_values=x)
        return found.pooler_output if output == "pooled" else found.last_hidden_state[:, 0]

    return run, net.config.image_size, mean, deviation


def _torchvision(checkpoint: Checkpoint, device: torch.device) -> tuple:
    try:
        tensors = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
        net = torchvision.models.VisionTransformer(**_dimensions(tensors))
        net.load_state_dict(tensors)
    except Exception as error:  # unpickling and loading raise a dozen classes on a wrong file
        reason = " ".join(str(error).split())[:200]
        raise DamagedData(
            f"features.checkpoint: {checkpoint.path} is not a vision transformer of torchvision ({reason})"
        ) from error
    net.heads = torch.nn.Identity()
    net = net.eval().to(device)
    return net, net.image_size, IMAGENET_MEAN, IMAGENET_DEVIATION


def _dimensions(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Read the architecture off the tensors' shapes."""
    width, _, patch, _ = tensors["conv_proj.weight"].shape
    patches = tensors["encoder.pos_embedding"].shape[1] - 1
    return {
        "image_size": math.isqrt(patches) * patch,
        "patch_size": patch,
        "num_layers": sum(name.endswith(".self_attention.in_proj_weight") for name in tensors),
        "num_heads": width // HEAD_WIDTH,
        "hidden_dim": width,
        "mlp_dim": len(tensors["encoder.layers.encoder_layer_0.mlp.0.bias"]),
        "num_classes": len(tensors["heads.head.bias"]),
    }
