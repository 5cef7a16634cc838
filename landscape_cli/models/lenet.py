"""Convolutions that are pooled one after the other, and connected layers, several seeds at once (Tables 4.3 and 4.4).

On a CPU each seed, and of many objects each part, is a task of its own (:mod:`landscape_cli.parallel`), with channels
last: the library's convolutions are fastest so. For very small pictures, whose time goes into calls, and elsewhere
the seeds are the groups of one grouped convolution.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from landscape_cli import parallel
from landscape_cli.geometry import WINDOW, Shape, lenet_geometry

Parameters = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, int, slice], torch.Tensor]  # of logits (B, K), the seed, which objects of the minibatch
SMALL = (
    16 * 16
)  # pixels up to which grouped convolutions are faster on a CPU: half the time for 8 x 8, more for 28 x 28
PART = 32  # objects of a task on a CPU: two parts of a usual minibatch keep two cores busy with an odd number of seeds


class LeNet:
    """Stages of convolution (stride 1, no padding), ReLU and max pooling (window = stride = 2), then connected layers.

    A ReLU follows every connected layer but the last. The pooling is taken before the ReLU, which gives the same
    values and gradients with a quarter of the work.

    Tensors have a leading seed axis: ``conv1.weight`` (S, C, C_in, k, k), ``conv1.bias`` (S, C), ``head1.weight``
    (S, out, in), ….
    """

    chunk = 256  # objects at a time when nothing is trained

    def __init__(self, settings: Mapping[str, Any], shape: Shape, classes: int) -> None:
        self.geometry = lenet_geometry(settings, shape)
        self.bias = settings["bias"]
        self.small = shape[1] * shape[2] <= SMALL
        self.kernels = tuple(settings["kernel_sizes"])
        self.channels = (shape[0], *settings["channels"])
        self.widths = (self.geometry.features, *settings["hidden"], classes)

    def initialise(self, generators: Sequence[torch.Generator]) -> Parameters:
        """Draw weights and biases uniformly in ±1/√fan_in, PyTorch's default, one seed a generator."""
        drawn: dict[str, list[torch.Tensor]] = {}
        for generator in generators:
            for name, weight in self._shapes():
                bound = 1 / math.sqrt(math.prod(weight[1:]))
                for part, shape in (("weight", weight), *([("bias", weight[:1])] if self.bias else [])):
                    values = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                    drawn.setdefault(f"{name}.{part}", []).append(values)
        return {name: torch.stack(values) for name, values in drawn.items()}

    def forward(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Logits (S, B, K) for pictures (S, B, C, H, W), or (1, B, C, H, W) shared by all seeds; no gradients."""
        seeds = len(next(iter(parameters.values())))
        if self.small or x.device.type != "cpu":
            return self.forward_grouped(parameters, x)
        begins = range(0, x.shape[1], PART)

        def run(task: tuple[int, int]) -> torch.Tensor:
            seed, begin = task
            return self._run(_one(parameters, seed), x[seed % len(x), begin : begin + PART])

        found = parallel.each(run, [(seed, begin) for seed in range(seeds) for begin in begins])
        return torch.stack([torch.cat(found[s * len(begins) : (s + 1) * len(begins)]) for s in range(seeds)])

    def gradients(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Gradient of each seed's mean cross-entropy over its minibatch, x (S, B, C, H, W), y (S, B)."""
        batch = y.shape[1]

        def loss(logits: torch.Tensor, seed: int, part: slice) -> torch.Tensor:
            return functional.cross_entropy(logits, y[seed, part], reduction="sum") / batch

        return self.gradients_of(parameters, x, loss)

    def gradients_of(self, parameters: Parameters, x: torch.Tensor, loss: Loss) -> Parameters:
        """Gradient of each seed's loss.

        Parameters
        ----------
        x
            Shape (S, B, C, H, W), or (1, B, C, H, W) shared by all seeds.
        loss
            A sum over objects: called with logits (B', K), the seed's number and which objects of its minibatch they
            are.

        Returns
        -------
        One tensor a parameter, of its shape.
        """
        seeds, batch = len(next(iter(parameters.values()))), x.shape[1]
        if self.small or x.device.type != "cpu":
            with torch.enable_grad():
                leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
                logits = self.forward_grouped(leaves, x)
                total = sum(loss(logits[seed], seed, slice(0, batch)) for seed in range(seeds))
                return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
        begins = range(0, batch, PART)

        def gradients(task: tuple[int, int]) -> list[torch.Tensor]:
            seed, part = task[0], slice(task[1], min(task[1] + PART, batch))
            with torch.enable_grad():
                own = {name: tensor[seed].detach().requires_grad_() for name, tensor in parameters.items()}
                value = loss(self._run(own, x[seed % len(x), part]), seed, part)
                return list(torch.autograd.grad(value, list(own.values())))

        found = parallel.each(gradients, [(seed, begin) for seed in range(seeds) for begin in begins])
        total = {}
        for n, name in enumerate(parameters):
            stacked = torch.stack([parts[n] for parts in found])
            total[name] = stacked.unflatten(0, (seeds, len(begins))).sum(dim=1)
        return total

    def forward_grouped(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Do as :meth:`forward`, with the seeds as the groups of one convolution a stage; differentiable."""
        seeds = len(next(iter(parameters.values())))
        z = x.expand(seeds, *x.shape[1:]).transpose(0, 1).flatten(1, 2)
        for stage in range(1, len(self.channels)):
            weight = parameters[f"conv{stage}.weight"].flatten(0, 1)
            bias = parameters[f"conv{stage}.bias"].flatten() if self.bias else None
            z = functional.max_pool2d(functional.conv2d(z, weight, bias, groups=seeds), WINDOW).relu()
        z = z.unflatten(1, (seeds, -1)).transpose(0, 1).flatten(2)
        for layer in range(1, len(self.widths)):
            z = z @ parameters[f"head{layer}.weight"].transpose(1, 2)
            if self.bias:
                z = z + parameters[f"head{layer}.bias"][:, None]
            if layer < len(self.widths) - 1:
                z = z.relu()
        return z

    def module(self, parameters: Parameters, seed: int) -> torch.nn.Sequential:
        """Return one seed's network as an ordinary module on pictures (B, C, H, W)."""
        nn = torch.nn
        steps: list[tuple[str, nn.Module]] = []
        for stage, kernel in enumerate(self.kernels, start=1):
            convolution = nn.Conv2d(self.channels[stage - 1], self.channels[stage], kernel, bias=self.bias)
            steps += [(f"conv{stage}", convolution), (f"relu{stage}", nn.ReLU()), (f"pool{stage}", nn.MaxPool2d(2))]
        steps.append(("flatten", nn.Flatten()))
        for layer, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:], strict=False), start=1):
            steps.append((f"head{layer}", nn.Linear(fan_in, fan_out, bias=self.bias)))
            if layer < len(self.widths) - 1:
                steps.append((f"head_relu{layer}", nn.ReLU()))
        net = nn.Sequential(OrderedDict(steps))
        tensors = _one(parameters, seed)
        net.to(next(iter(tensors.values()))).load_state_dict(tensors)
        return net

    def _shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and weight's shape of every layer."""
        pairs = zip(self.channels, self.channels[1:], self.kernels, strict=False)
        convolutions = [(f"conv{n}", (c_out, c_in, k, k)) for n, (c_in, c_out, k) in enumerate(pairs, 1)]
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return convolutions + [(f"head{n}", (h_out, h_in)) for n, (h_in, h_out) in enumerate(pairs, 1)]

    def _run(self, own: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of one seed's network for pictures (B, C, H, W)."""
        z = x.contiguous(memory_format=torch.channels_last)
        for stage in range(1, len(self.channels)):
            z = functional.conv2d(z, own[f"conv{stage}.weight"], own.get(f"conv{stage}.bias"))
            z = functional.max_pool2d(z, WINDOW).relu()
        z = z.flatten(1)
        for layer in range(1, len(self.widths)):
            z = functional.linear(z, own[f"head{layer}.weight"], own.get(f"head{layer}.bias"))
            if layer < len(self.widths) - 1:
                z = z.relu()
        return z


def _one(parameters: Parameters, seed: int) -> Parameters:
    return {name: tensor[seed] for name, tensor in parameters.items()}
