"""Fully connected networks, several seeds at once (thesis 1.4.1, 4.1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch

ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}


class FeedForward:
    """Linear layers of given widths with an activation between them; no hidden layer: a linear model.

    Tensors are named as in :meth:`module`'s ``state_dict`` and have a leading seed axis: weights (S, out, in), biases
    (S, out).

    Parameters
    ----------
    hidden
        Widths of the hidden layers.
    activation
        ``relu`` or ``tanh``.
    """

    recordable = True  # its gradients are the same operators every time
    chunk = 1024  # objects at a time when nothing is trained: the largest activation stays in a CPU's cache

    def __init__(
        self, in_features: int, classes: int, hidden: Sequence[int], activation: str = "relu", bias: bool = False
    ) -> None:
        self.widths = (in_features, *hidden, classes)
        self.activation = activation
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
        return self.layer_outputs(parameters, x)[-1]

    def hidden(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Outputs of the last hidden layer, (S, B, h); behind a ReLU all zero on all objects: the network is dead."""
        return self.layer_outputs(parameters, x)[-2]

    def gradients(
        self, parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Gradient of each seed's mean loss over its minibatch.

        Written out, since recording a graph costs as much as these small products themselves.

        Parameters
        ----------
        x
            Shape (S, B, …), or (1, B, …) shared by all seeds.
        y
            Class indices, shape (S, B): the loss is the cross-entropy. Real targets: the squared error (y - f)² of the
            one output, or of all, (S, B, K).

        Returns
        -------
        One tensor a parameter, of its shape, in the parameters' order.
        """
        activations = self.layer_outputs(parameters, x)
        gradients = {}
        for layer, delta in self._deltas(parameters, activations, y, y.shape[1]):
            gradients[f"{2 * layer}.weight"] = torch.bmm(delta.transpose(1, 2), activations[layer])
            if self.bias:
                gradients[f"{2 * layer}.bias"] = delta.sum(dim=1)
        return {name: gradients[name] for name in parameters}

    def input_gradients(self, parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Gradient of each object's own loss by the object, (S, B, …); arguments as of :meth:`gradients`."""
        *_, (_, delta) = self._deltas(parameters, self.layer_outputs(parameters, x), y, 1)
        return (delta @ parameters["0.weight"]).view(-1, *x.shape[1:])

    def _deltas(
        self, parameters: dict[str, torch.Tensor], activations: list[torch.Tensor], y: torch.Tensor, objects: int
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Derivative of the mean loss by each object's pre-activations, (S, B, h), from the last layer down."""
        delta = loss_derivative(activations[-1], y, objects)
        for layer in reversed(range(len(self.widths) - 1)):
            yield layer, delta
            if layer:
                delta = torch.bmm(delta, parameters[f"{2 * layer}.weight"])
                if self.activation == "relu":
                    delta = torch.ops.aten.threshold_backward(delta, activations[layer], 0)
                else:
                    delta = torch.ops.aten.tanh_backward(delta, activations[layer])

    def module(self, parameters: dict[str, torch.Tensor], seed: int) -> torch.nn.Sequential:
        """Return one seed's network as an ordinary module on objects (B, …)."""
        layers: list[tuple[str, torch.nn.Module]] = [("flatten", torch.nn.Flatten())]
        for layer, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            layers.append((str(2 * layer), torch.nn.Linear(fan_in, fan_out, bias=self.bias)))
            layers.append((str(2 * layer + 1), ACTIVATIONS[self.activation]()))
        net = torch.nn.Sequential(OrderedDict(layers[:-1]))
        tensors = {name: tensor[seed] for name, tensor in parameters.items()}
        net.to(next(iter(tensors.values()))).load_state_dict(tensors)
        return net

    def layer_outputs(self, parameters: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
        """Input, every hidden layer's output, logits."""
        seeds = next(iter(parameters.values())).shape[0]
        shared = len(x) < seeds
        activations = [x.flatten(2).expand(seeds, -1, -1)]
        for layer in range(len(self.widths) - 1):
            weight = parameters[f"{2 * layer}.weight"]
            bias = parameters.get(f"{2 * layer}.bias")
            if shared and layer == 0:  # one product reads the objects once for all seeds
                z = (x[0].flatten(1) @ weight.flatten(0, 1).T).unflatten(1, (seeds, -1)).transpose(0, 1)
            elif layer == len(self.widths) - 2:  # few outputs: products and softmax want them before the objects
                z = torch.bmm(weight, activations[-1].transpose(1, 2)).transpose(1, 2)
            else:
                z = torch.bmm(activations[-1], weight.transpose(1, 2))
            if bias is not None:
                z += bias[:, None]
            if layer < len(self.widths) - 2:
                z = torch.relu_(z) if self.activation == "relu" else torch.tanh_(z)
            activations.append(z)
        return activations


def loss_derivative(outputs: torch.Tensor, y: torch.Tensor, objects: int) -> torch.Tensor:
    """Derivative of the mean loss over so many objects by each one's outputs, (S, B, K); y as of the gradients."""
    if y.is_floating_point():
        delta = outputs - y.view(outputs.shape)
        delta *= 2 / objects
        return delta
    delta = torch.softmax(outputs.transpose(1, 2).contiguous(), dim=1).transpose(1, 2)
    index = y.unsqueeze(-1)
    delta.scatter_add_(2, index, torch.full_like(index, -1, dtype=delta.dtype))
    delta /= objects
    return delta


class MLP(FeedForward):
    """Linear(in, h), ReLU, ``num_layers`` times (Linear(h, h), ReLU), Linear(h, K).

    The figures' L counts the inner h x h layers, so the net has L + 2 matrices (the theorems' L).
    """

    def __init__(self, in_features: int, classes: int, hidden_size: int, num_layers: int, bias: bool = False) -> None:
        super().__init__(in_features, classes, [hidden_size] * (num_layers + 1), bias=bias)
