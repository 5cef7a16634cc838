"""The thesis's fully connected network, several seeds at once (thesis 1.4.1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch


class MLP:
    """Linear(in, h), ReLU, ``num_layers`` times (Linear(h, h), ReLU), Linear(h, K).

    The figures' L counts the inner h x h layers, so the net has L + 2 matrices (the theorems' L). Tensors are named as
    in :meth:`module`'s ``state_dict`` and have a leading seed axis: weights (S, out, in), biases (S, out).
    """

    chunk = 2048  # objects at a time when nothing is trained: the largest activation stays in a CPU's cache

    def __init__(self, in_features: int, classes: int, hidden_size: int, num_layers: int, bias: bool = False) -> None:
        self.widths = (in_features, *[hidden_size] * (num_layers + 1), classes)
        self.bias = bias

    def initialise(self, generators: Sequence[torch.Generator]) -> dict[str, torch.Tensor]:
        """Draw weights and biases uniformly in ±1/√fan_in, PyTorch's default, one seed a generator."""
        drawn: dict[str, list[torch.Tensor]] = {}
        for generator in generators:
            for layer, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
                bound = 1 / math.sqrt(fan_in)
                shapes = {"weight": (fan_out, fan_in), **({"bias": (fan_out,)} if self.bias else {})}
                for part, shape in shapes.items():
                    values = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                    drawn.setdefault(f"{2 * layer}.{part}", []).append(values)
        return {name: torch.stack(values) for name, values in drawn.items()}

    def forward(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Logits (S, B, K) for inputs (S, B, …), or (1, B, …) shared by all seeds."""
        return self._activations(parameters, x)[-1]

    def hidden(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Activations of the last ReLU, (S, B, h); all zero on all objects: the network is dead."""
        return self._activations(parameters, x)[-2]

    def gradients(
        self, parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Gradient of each seed's mean cross-entropy over its minibatch.

        Written out, since recording a graph costs as much as these small products themselves.

        Parameters
        ----------
        x
            Shape (S, B, …), or (1, B, …) shared by all seeds.
        y
            Class indices, shape (S, B).

        Returns
        -------
        One tensor a parameter, of its shape.
        """
        activations = self._activations(parameters, x)
        delta = torch.softmax(activations[-1], dim=-1)
        index = y.unsqueeze(-1)
        delta.scatter_add_(2, index, torch.full_like(index, -1, dtype=delta.dtype))
        delta /= y.shape[1]
        gradients = {}
        for layer in reversed(range(len(self.widths) - 1)):
            gradients[f"{2 * layer}.weight"] = delta.transpose(1, 2) @ activations[layer]
            if self.bias:
                gradients[f"{2 * layer}.bias"] = delta.sum(dim=1)
            if layer:
                delta = torch.bmm(delta, parameters[f"{2 * layer}.weight"])
                delta = torch.ops.aten.threshold_backward(delta, activations[layer], 0)
        return gradients

    def module(self, parameters: dict[str, torch.Tensor], seed: int) -> torch.nn.Sequential:
        """Return one seed's network as an ordinary module on objects (B, …)."""
        layers: list[tuple[str, torch.nn.Module]] = [("flatten", torch.nn.Flatten())]
        for layer, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            layers.append((str(2 * layer), torch.nn.Linear(fan_in, fan_out, bias=self.bias)))
            layers.append((str(2 * layer + 1), torch.nn.ReLU()))
        net = torch.nn.Sequential(OrderedDict(layers[:-1]))
        tensors = {name: tensor[seed] for name, tensor in parameters.items()}
        net.to(next(iter(tensors.values()))).load_state_dict(tensors)
        return net

    def _activations(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
        """Input, every ReLU's output, logits."""
        seeds = next(iter(parameters.values())).shape[0]
        activations = [x.flatten(2).expand(seeds, -1, -1)]
        for layer in range(len(self.widths) - 1):
            weight = parameters[f"{2 * layer}.weight"].transpose(1, 2)
            bias = parameters.get(f"{2 * layer}.bias")
            z = torch.bmm(activations[-1], weight)
            if bias is not None:
                z += bias[:, None]
            activations.append(torch.relu_(z) if layer < len(self.widths) - 2 else z)
        return activations
