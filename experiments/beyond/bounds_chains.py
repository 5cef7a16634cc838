"""The bounds' networks without attention: fully connected, convolutional, with pooling, with a head (Theorems 8-16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.beyond.bounds import Bounds, BoundsOptions
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Point

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from experiments.beyond.search import ChainFamily, Training

BATCH, RATE = 32, 5e-3


class ChainBounds(Bounds):
    """Networks that are products of matrices, on objects of a data set."""

    def pool(self, context: Context) -> tuple[torch.Tensor, torch.Tensor]:
        """Train objects and classes, float64 on the CPU, where small matrices are fastest."""
        data = context.images()
        return data.x_train.double().cpu(), data.y_train.cpu()

    def training(self, options: dict) -> Training:
        """Adam, fixed; what a bound says does not depend on how a network came about."""
        from experiments.beyond.search import Training

        return Training(options["train_steps"], BATCH, RATE)


class FullyConnectedBounds(ChainBounds):
    """Theorems 8, 9 and 11 for the networks of chapter 1."""

    shift: ClassVar[dict[str, int]] = {"num_layers": 2}  # the theorems count all matrices
    named: ClassVar[dict[str, tuple[str, str]]] = {"num_layers": ("matrices", "L")}

    def points(self) -> list[Point]:
        """Refuse networks that the theorems are not about."""
        if self.config.model.kind != "mlp" or self.config.model.bias:
            raise BadInput("model: Theorems 8 and 9 are about fully connected networks without biases; allowed: mlp")
        return super().points()

    def _note(self, own: pd.DataFrame) -> str:
        widest = (
            " The theorem's h is the largest width, the inputs' among them." if (own["theorem"] == "9").all() else ""
        )
        return super()._note(own) + widest

    def families(self, point: Point, context: Context) -> dict[str, ChainFamily]:
        """One family."""
        from experiments.beyond.search import ChainFamily
        from landscape_cli.models import build_model
        from landscape_cli.rng import generator

        x, y = self.pool(context)
        shape, classes = tuple(x.shape[1:]), context.source.classes
        model = build_model(point.settings["model"], shape, classes)
        net = model.module(model.initialise([generator(0, "shape")]), 0)
        training = self.training(point.settings["measure"])
        return {"8, 9, 11": ChainFamily(net, shape, ("8", "9", "11"), (x, y), training)}


@dataclass
class ConvolutionBoundsOptions(BoundsOptions):
    """Which networks are built beside."""

    channels: int = bounded(2, minimum=1)
    kernel_size: int = bounded(2, minimum=1)
    num_layers: int = bounded(3, minimum=2)  # convolutions, L + 1 of the theorems
    head: int = bounded(8, minimum=1)  # hidden size of Theorem 16's head


class ConvolutionBounds(ChainBounds):
    """Theorems 12 (sequences of rows), 13 (pictures) and 16 (pictures, two connected layers at the end)."""

    Options = ConvolutionBoundsOptions
    uses = frozenset({"dataset", "seeds"})
    named: ClassVar[dict[str, tuple[str, str]]] = {"num_layers": ("convolutions", "L+1")}

    def families(self, point: Point, context: Context) -> dict[str, ChainFamily]:
        """One family a theorem."""
        from torch import nn

        from experiments.beyond.search import ChainFamily, convolutions

        x, y = self.pool(context)
        shape, classes, options = tuple(x.shape[1:]), context.source.classes, point.settings["measure"]
        rows = (shape[0] * shape[2], shape[1])  # a sequence of the picture's rows
        sequence = x.transpose(1, 2).flatten(2).transpose(1, 2).contiguous()
        sizes = (options["channels"], options["kernel_size"], options["num_layers"])
        training = self.training(options)
        body = convolutions(shape, *sizes, classes)
        features = sum(1 for _ in body(x[:1].float())[0])
        head = nn.Sequential(
            *body[:-1],
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(features, options["head"], bias=False),
            nn.ReLU(),
            nn.Linear(options["head"], classes, bias=False),
        )
        return {
            "12": ChainFamily(convolutions(rows, *sizes, classes), rows, ("12",), (sequence, y), training),
            "13": ChainFamily(body, shape, ("13",), (x, y), training),
            "16": ChainFamily(head, shape, ("16",), (x, y), training),
        }


@dataclass
class PoolingBoundsOptions(ConvolutionBoundsOptions):
    """Where the pooling stands."""

    position: int = bounded(1, minimum=1)


class PoolingBounds(ConvolutionBounds):
    """Theorems 14 (max pooling) and 15 (average pooling)."""

    Options = PoolingBoundsOptions

    def families(self, point: Point, context: Context) -> dict[str, ChainFamily]:
        """One family a kind of pooling."""
        from experiments.beyond.search import ChainFamily, convolutions

        x, y = self.pool(context)
        shape, classes, options = tuple(x.shape[1:]), context.source.classes, point.settings["measure"]
        sizes = (options["channels"], options["kernel_size"], options["num_layers"])
        found = {}
        for theorem, pooling in (("14", "max"), ("15", "average")):
            net = convolutions(shape, *sizes, classes, pooling, options["position"])
            found[theorem] = ChainFamily(net, shape, (theorem,), (x, y), self.training(options))
        return found
