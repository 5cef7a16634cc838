"""Networks that hold the parameters of several seeds at once.

A stacked model keeps no parameters itself. They are a mapping from tensor name to a tensor of shape (S, …), one
slice a seed, so that an elementwise optimiser updates all seeds at once and each as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from landscape_cli.errors import BadInput
from landscape_cli.models.conv import ConvNet
from landscape_cli.models.lenet import LeNet
from landscape_cli.models.mlp import MLP, FeedForward
from landscape_cli.models.vit import VisionTransformer

Parameters = dict[str, torch.Tensor]  # name -> (S, …)


class StackedModel(Protocol):
    """What training and measuring need of a network."""

    chunk: int  # objects to handle at a time when nothing is trained

    def initialise(self, generators: Sequence[torch.Generator]) -> Parameters:
        """Draw one initialisation a generator, with PyTorch's default distribution."""

    def forward(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Outputs (S, B, K) for inputs (S, B, …), or (1, B, …) shared by all seeds."""

    def gradients(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Each seed's gradient of its mean loss over its minibatch, x (S, B, …), y (S, B): classes, cross-entropy."""

    def module(self, parameters: Parameters, seed: int) -> torch.nn.Module:
        """One seed's network as an ordinary module."""


def build_model(settings: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> StackedModel:
    """Build a network from the ``model`` node of a point's settings.

    Parameters
    ----------
    shape
        (C, H, W) of one input; (F, 1, 1) for a vector of F features.
    classes
        Number of outputs K.
    """
    kind = settings["kind"]
    if kind in ("mlp", "feedforward"):
        options = {name: value for name, value in settings.items() if name != "kind"}
        network = MLP if kind == "mlp" else FeedForward
        return network(in_features=math.prod(shape), classes=classes, **options)
    if kind in ("conv1d", "conv2d"):
        return ConvNet(settings, shape, classes)
    if kind == "lenet":
        return LeNet(settings, shape, classes)
    if kind == "vit":
        return VisionTransformer(settings, shape, classes)
    raise BadInput(f"model.kind: {kind!r}; allowed: mlp, feedforward, conv1d, conv2d, lenet, vit")


def forward_operations(model: StackedModel, shape: tuple[int, int, int]) -> float:
    """Floating-point operations of one object in one seed's network: those of matrix products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    net = model.module(model.initialise([torch.Generator()]), 0).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        net(torch.empty(1, *shape, device="meta"))
    return float(counted.get_total_flops())
