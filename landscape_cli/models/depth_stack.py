"""Fully connected ReLU networks of one width and several depths as one, to be trained in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape_cli.models.mlp import FeedForward, loss_derivative

VECTOR = 16  # most float32 values that a CPU handles at once
Parameters = dict[str, torch.Tensor]


class DepthStack:
    """Networks that differ in the number of hidden layers only, side by side.

    The deepest come first, so that every hidden layer is one product over the first so many networks. ``first`` and
    ``last`` are tensors (S, …) of all networks, ``0``, ``1``, … the h x h layers of those that have them.

    Parameters
    ----------
    models
        As :meth:`key` agrees.
    seeds
        Networks of each model; S = seeds · len(models).
    """

    recordable = True

    def __init__(self, models: Sequence[FeedForward], seeds: int) -> None:
        inner = [len(model.widths) - 3 for model in models]
        self.order = sorted(range(len(models)), key=lambda m: -inner[m])  # of the models, as they lie
        self.models, self.seeds = models, seeds
        # How many networks have an h x h layer number j.
        self.counts = [seeds * sum(number > j for number in inner) for j in range(max(inner))]

    @staticmethod
    def key(model: object) -> tuple | None:
        """What networks must share to be stacked; None: it is of another kind."""
        if not isinstance(model, FeedForward) or model.bias or model.activation != "relu":
            return None
        features, *hidden, classes = model.widths
        if len(set(hidden)) != 1:
            return None
        # The optimiser rounds the last values of a tensor otherwise: there must be none that fill no vector.
        whole = all(hidden[0] * other % VECTOR == 0 for other in (features, hidden[0], classes))
        return (features, hidden[0], classes) if whole else None

    def pack(self, parameters: Sequence[Parameters]) -> Parameters:
        """Each model's parameters, name -> (seeds, …), as the stack's."""
        packed: dict[str, list[torch.Tensor]] = {}
        for m in self.order:
            for name, tensor in zip(self._names(m), parameters[m].values(), strict=True):
                packed.setdefault(name, []).append(tensor)
        return {name: torch.cat(tensors) for name, tensors in packed.items()}

    def unpack(self, packed: Parameters) -> list[Parameters]:
        """Each model's parameters, under its own names."""
        found: dict[int, Parameters] = {}
        for place, m in enumerate(self.order):
            own = slice(place * self.seeds, (place + 1) * self.seeds)
            names = self._names(m)
            found[m] = {f"{2 * layer}.weight": packed[name][own].clone() for layer, name in enumerate(names)}
        return [found[m] for m in range(len(self.models))]

    def gradients(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Gradient of each network's mean loss over its minibatch, x (S, B, …), classes y (S, B)."""
        x = x.flatten(2)
        outputs = [torch.relu_(torch.bmm(x, parameters["first"].transpose(1, 2)))]
        ends = []  # of the networks that have no further layer
        for j, count in enumerate(self.counts):
            ends.append(outputs[-1][count:])
            outputs.append(torch.relu_(torch.bmm(outputs[-1][:count], parameters[str(j)].transpose(1, 2))))
        last = torch.cat([outputs[-1], *reversed(ends)])
        delta = loss_derivative(torch.bmm(parameters["last"], last.transpose(1, 2)).transpose(1, 2), y, y.shape[1])
        gradients = {"last": torch.bmm(delta.transpose(1, 2), last)}
        back = torch.bmm(delta, parameters["last"])
        below = back[: self.counts[-1]] if self.counts else back
        for j in reversed(range(len(self.counts))):
            count, less = self.counts[j], self.counts[j - 1] if j else len(x)
            below = torch.ops.aten.threshold_backward(below, outputs[j + 1], 0)
            gradients[str(j)] = torch.bmm(below.transpose(1, 2), outputs[j][:count])
            below = torch.cat([torch.bmm(below, parameters[str(j)]), back[count:less]])
        below = torch.ops.aten.threshold_backward(below, outputs[0], 0)
        gradients["first"] = torch.bmm(below.transpose(1, 2), x)
        return gradients

    def _names(self, m: int) -> list[str]:
        return ["first", *map(str, range(len(self.models[m].widths) - 3)), "last"]
