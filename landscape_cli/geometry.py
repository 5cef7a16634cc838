"""What a network's layers do to the size of a picture, and whether it can take the picture at all. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landscape_cli.errors import ImpossibleModel

Shape = tuple[int, int, int]
WINDOW = 2  # of a pooling, and its stride


@dataclass(frozen=True)
class ConvGeometry:
    """The maps of a convolutional network, layer by layer."""

    input: Shape  # (C, H, W) as the first convolution sees it; a one-dimensional one has W = 1
    kernel: tuple[int, int]
    window: tuple[int, int]  # of the pooling, and its stride
    convolved: tuple[Shape, ...]  # what each convolution puts out
    passed_on: tuple[Shape, ...]  # the same after the nonlinearity: smaller where it is the pooling

    @property
    def features(self) -> int:
        """Inputs of the fully connected head."""
        channels, height, width = self.passed_on[-1]
        return channels * height * width


@dataclass(frozen=True)
class LeNetGeometry:
    """The maps of a network of pooled convolutions, stage by stage."""

    convolved: tuple[Shape, ...]  # what each convolution puts out
    pooled: tuple[Shape, ...]  # the same after the pooling

    @property
    def features(self) -> int:
        """Inputs of the first connected layer."""
        channels, height, width = self.pooled[-1]
        return channels * height * width


@dataclass(frozen=True)
class ViTGeometry:
    """The tokens of a vision transformer."""

    input: Shape  # (C, H, W) of a picture
    patch: int  # side of a patch
    patch_features: int  # values of a patch
    tokens: int  # with the class token, if there is one
    ffn_size: int


def check_model(model: Mapping[str, Any], shape: Shape | None, name: str, node: str = "model") -> None:
    """Refuse a network that cannot take the objects of a data set.

    Parameters
    ----------
    model
        The ``model`` node of a point's settings.
    shape
        (C, H, W) of one object; None: a vector of features.
    name, node
        Of the data set and of the configuration's node, for messages.

    Raises
    ------
    ImpossibleModel
        With the arithmetic.
    """
    if model["kind"] in ("mlp", "feedforward", "own"):
        return
    if model["kind"] == "encoder_decoder":
        raise ImpossibleModel(
            f"{node}.kind: 'encoder_decoder' translates sentences, and {name} has none; allowed: a network of classes"
        )
    if shape is None:
        raise ImpossibleModel(
            f"{node}.kind: {model['kind']!r} needs pictures, and features are vectors; allowed: mlp, feedforward"
        )
    if model["kind"] == "vit":
        vit_geometry(model, shape, name, node)
    elif model["kind"] == "lenet":
        lenet_geometry(model, shape, name, node)
    else:
        conv_geometry(model, shape, name, node)


def vit_geometry(model: Mapping[str, Any], shape: Shape, name: str = "the data", node: str = "model") -> ViTGeometry:
    """Cut a picture into the patches of a vision transformer.

    Parameters
    ----------
    model
        Fields of :class:`~landscape_cli.config.TransformerConfig`.
    shape
        (C, H, W) of one picture.
    name, node
        Of the data set and of the configuration's node, for messages.

    Raises
    ------
    ImpossibleModel
        If the patches do not fill the picture, or the heads do not share the hidden size.
    """
    (channels, height, width), patch = shape, model["patch_size"]
    hidden, heads = model["hidden_size"], model["num_heads"]
    if height % patch or width % patch:
        fitting = [size for size in range(1, min(height, width) + 1) if height % size == 0 and width % size == 0]
        raise ImpossibleModel(
            f"{node}.patch_size: {patch} does not divide the {height}x{width} pixels of {name}; allowed: "
            f"{', '.join(map(str, fitting))}"
        )
    if hidden % heads:
        raise ImpossibleModel(f"{node}.num_heads: {heads} does not divide {node}.hidden_size={hidden}")
    tokens = (height // patch) * (width // patch) + model["class_token"]
    return ViTGeometry(shape, patch, channels * patch**2, tokens, model["ffn_size"] or 4 * hidden)


def conv_geometry(model: Mapping[str, Any], shape: Shape, name: str = "the data", node: str = "model") -> ConvGeometry:
    """Follow a picture through a convolutional network: stride 1, no padding, pooling with window = stride = 2.

    Parameters
    ----------
    model
        Fields of :class:`~landscape_cli.config.ConvConfig`.
    shape
        (C, H, W) of one picture. ``conv1d`` reads it as a sequence of its H rows with C·W channels.
    name, node
        Of the data set and of the configuration's node, for messages.

    Raises
    ------
    ImpossibleModel
        If a kernel or the pooling is larger than what is left of the picture: at which layer, and how large it is.
    """
    kind, layers, k, position = (model[key] for key in ("kind", "num_layers", "kernel_size", "position"))
    if position > layers - 1:
        between = ("1, or 0" if layers == 2 else f"1 to {layers - 1}, or 0") if layers > 1 else "0"
        raise ImpossibleModel(
            f"{node}.position: {position} with {node}.num_layers={layers}: the pooling takes the place of the "
            f"nonlinearity between two convolutions; allowed: {between} for none"
        )
    channels, height, width = shape
    one = kind == "conv1d"
    start = (channels * width, height, 1) if one else shape
    kernel, window = ((k, 1), (WINDOW, 1)) if one else ((k, k), (WINDOW, WINDOW))
    size, convolved, passed_on = start[1:], [], []
    path = [_written(size, one)]
    for layer in range(1, layers + 1):
        if size[0] < kernel[0] or size[1] < kernel[1]:
            raise ImpossibleModel(
                f"{node}.kernel_size: {k} is larger than what is left of {name} at convolution {layer} of {layers}: "
                f"{_written(size, one)} ({' -> '.join(path)}; each convolution takes {k} - 1 = {k - 1} off"
                + (f", the pooling after convolution {position} halves" if 0 < position < layer else "")
                + ")"
            )
        size = (size[0] - kernel[0] + 1, size[1] - kernel[1] + 1)
        convolved.append((model["channels"], *size))
        path.append(_written(size, one))
        if layer == position:
            if size[0] < window[0] or size[1] < window[1]:
                raise ImpossibleModel(
                    f"{node}.position: {position}: what is left of {name} after convolution {position} is "
                    f"{_written(size, one)} ({' -> '.join(path)}), less than the pooling's window of {WINDOW}"
                )
            size = (size[0] // window[0], size[1] // window[1])
            path.append(_written(size, one))
        passed_on.append((model["channels"], *size))
    return ConvGeometry(start, kernel, window, tuple(convolved), tuple(passed_on))


def lenet_geometry(
    model: Mapping[str, Any], shape: Shape, name: str = "the data", node: str = "model"
) -> LeNetGeometry:
    """Follow a picture through stages of convolution (stride 1, no padding) and pooling (window = stride = 2).

    Parameters
    ----------
    model
        Fields of :class:`~landscape_cli.config.LeNetConfig`.
    shape
        (C, H, W) of one picture.
    name, node
        Of the data set and of the configuration's node, for messages.

    Raises
    ------
    ImpossibleModel
        If there are not as many kernels as channels, or a kernel or a pooling is larger than what is left.
    """
    channels, kernels = model["channels"], model["kernel_sizes"]
    if len(channels) != len(kernels):
        raise ImpossibleModel(
            f"{node}.kernel_sizes: {len(kernels)} of them, and {node}.channels has {len(channels)}; allowed: one each"
        )
    size, convolved, pooled = shape[1:], [], []
    path = [_written(size, False)]
    for stage, (count, kernel) in enumerate(zip(channels, kernels, strict=True), start=1):
        after = (size[0] - kernel + 1, size[1] - kernel + 1)
        if min(after) < WINDOW:
            raise ImpossibleModel(
                f"{node}.kernel_sizes: {kernel} and a pooling of {WINDOW} need pictures of {kernel + WINDOW - 1}x"
                f"{kernel + WINDOW - 1} pixels at stage {stage}, and {_written(size, False)} is left of {name} "
                f"({' -> '.join(path)})"
            )
        size = (after[0] // WINDOW, after[1] // WINDOW)
        convolved.append((count, *after))
        pooled.append((count, *size))
        path += [_written(after, False), _written(size, False)]
    return LeNetGeometry(tuple(convolved), tuple(pooled))


def _written(size: tuple[int, int], one: bool) -> str:
    return str(size[0]) if one else f"{size[0]}x{size[1]}"
