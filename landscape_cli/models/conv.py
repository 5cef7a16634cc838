"""The thesis's convolutional network, several seeds at once (thesis 1.4.2, 2.2).

On a CPU the maps are laid out as (row, channel, column, object). Then the patches under one column of the kernel are
a strided view: a convolution is a matrix product for each column of the kernel and row of the output, with nothing
copied, and its two gradients are products of the same kind. For the few channels of these networks that is faster than
the library's convolutions, plain, grouped or under vmap (``make bench``). Each seed, and of many objects each part, is
a task of its own (:mod:`landscape_cli.parallel`). On other devices the seeds are the groups of one grouped convolution.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from landscape_cli import parallel
from landscape_cli.geometry import Shape, conv_geometry

Parameters = dict[str, torch.Tensor]
PART = 64  # objects of a task on a CPU; measured: fewer make tasks so short that they wait for the interpreter


class ConvNet:
    """L convolutions (C channels, kernel k, stride 1, no padding) with ReLUs between them, then a connected head.

    A pooling (window = stride = 2) takes the place of the ReLU at ``position``. The head is Linear(features, K), after
    hidden layers of the sizes in ``head``, each followed by a ReLU. ``conv1d`` reads a picture (C, H, W) as a sequence
    of its H rows with C·W channels.

    Tensors are named as in :meth:`module`'s ``state_dict`` and have a leading seed axis: ``conv1.weight``
    (S, C, C_in, k, k), or (S, C, C_in, k) in one dimension, ``conv1.bias`` (S, C), ``head1.weight`` (S, out, in), ….
    """

    chunk = 256  # objects at a time when nothing is trained

    def __init__(self, settings: Mapping[str, Any], shape: Shape, classes: int) -> None:
        self.one_dimensional = settings["kind"] == "conv1d"
        self.geometry = conv_geometry(settings, shape)
        self.bias = settings["bias"]
        self.position = settings["position"]
        self.average = settings["pooling"] == "average"
        self.relu_after_last = settings["relu_after_last"]
        self.layers = settings["num_layers"]
        self.channels = (self.geometry.input[0], *[settings["channels"]] * self.layers)
        self.widths = (self.geometry.features, *settings["head"], classes)

    def initialise(self, generators: Sequence[torch.Generator]) -> Parameters:
        """Draw weights and biases uniformly in ±1/√fan_in, PyTorch's default, one seed a generator."""
        drawn: dict[str, list[torch.Tensor]] = {}
        for generator in generators:
            for name, weight, bias in self._shapes():
                bound = 1 / math.sqrt(math.prod(weight[1:]))
                for part, shape in (("weight", weight), *([("bias", bias)] if self.bias else [])):
                    values = (torch.rand(shape, generator=generator) * 2 - 1) * bound
                    drawn.setdefault(f"{name}.{part}", []).append(values)
        return {name: torch.stack(values) for name, values in drawn.items()}

    def forward(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Logits (S, B, K) for pictures (S, B, C, H, W), or (1, B, C, H, W) shared by all seeds."""
        if x.device.type != "cpu":
            return self.forward_grouped(parameters, x)
        return self._of_parts(parameters, x, lambda own, x: self._run(own, x).outputs[-1].T)

    def features(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Return what the head is given, (S, B, features): a map's channels, rows and columns in that order."""
        if x.device.type != "cpu":
            return self._features_grouped(parameters, x)
        return self._of_parts(parameters, x, lambda own, x: self._maps(own, x)[0][-1].permute(3, 1, 0, 2).flatten(1))

    def gradients(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Gradient of each seed's mean cross-entropy over its minibatch.

        Parameters
        ----------
        x
            Shape (S, B, C, H, W), or (1, B, C, H, W) shared by all seeds.
        y
            Class indices, shape (S, B).

        Returns
        -------
        One tensor a parameter, of its shape.
        """
        if x.device.type != "cpu":
            return self.gradients_grouped(parameters, x, y)
        seeds, batch = y.shape
        begins = range(0, batch, PART)

        def gradients(task: tuple[int, int]) -> Parameters:
            seed, part = task[0], slice(task[1], task[1] + PART)
            return self._gradients(_one(parameters, seed), x[seed % len(x), part], y[seed, part], batch)

        found = parallel.each(gradients, [(seed, begin) for seed in range(seeds) for begin in begins])
        sums = {name: torch.stack([part[name] for part in found]) for name in parameters}
        return {name: parts.unflatten(0, (seeds, len(begins))).sum(dim=1) for name, parts in sums.items()}

    def forward_grouped(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Do as :meth:`forward`, with the seeds as the groups of one convolution a layer."""
        z = self._features_grouped(parameters, x)
        for layer in range(1, len(self.widths)):
            z = z @ parameters[f"head{layer}.weight"].transpose(1, 2)
            if self.bias:
                z = z + parameters[f"head{layer}.bias"][:, None]
            if layer < len(self.widths) - 1:
                z = z.relu()
        return z

    def gradients_grouped(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Do as :meth:`gradients`, by autograd through :meth:`forward_grouped`."""
        with torch.enable_grad():
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
            logits = self.forward_grouped(leaves, x)
            loss = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / y.shape[1]
            return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    def module(self, parameters: Parameters, seed: int) -> torch.nn.Sequential:
        """Return one seed's network as an ordinary module on pictures (B, C, H, W)."""
        nn = torch.nn
        steps: list[tuple[str, nn.Module]] = [("rows", _Rows())] if self.one_dimensional else []
        convolution = nn.Conv1d if self.one_dimensional else nn.Conv2d
        pooling = {
            (True, True): nn.AvgPool1d,
            (True, False): nn.MaxPool1d,
            (False, True): nn.AvgPool2d,
            (False, False): nn.MaxPool2d,
        }[self.one_dimensional, self.average]
        for layer, (c_in, c_out) in enumerate(zip(self.channels, self.channels[1:], strict=False), start=1):
            steps.append((f"conv{layer}", convolution(c_in, c_out, self.geometry.kernel[0], bias=self.bias)))
            if layer == self.position:
                steps.append((f"pool{layer}", pooling(self.geometry.window[0])))
            elif self.rectified(layer):
                steps.append((f"relu{layer}", nn.ReLU()))
        steps.append(("flatten", nn.Flatten()))
        for layer, (fan_in, fan_out) in enumerate(zip(self.widths, self.widths[1:], strict=False), start=1):
            steps.append((f"head{layer}", nn.Linear(fan_in, fan_out, bias=self.bias)))
            if layer < len(self.widths) - 1:
                steps.append((f"head_relu{layer}", nn.ReLU()))
        net = nn.Sequential(OrderedDict(steps))
        tensors = _one(parameters, seed)
        net.to(next(iter(tensors.values()))).load_state_dict(tensors)
        return net

    def _shapes(self) -> list[tuple[str, tuple[int, ...], tuple[int]]]:
        """Name, weight's shape and bias's shape of every layer."""
        kernel = self.geometry.kernel[:1] if self.one_dimensional else self.geometry.kernel
        pairs = zip(self.channels, self.channels[1:], strict=False)
        convolutions = [(f"conv{n}", (c_out, c_in, *kernel), (c_out,)) for n, (c_in, c_out) in enumerate(pairs, 1)]
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return convolutions + [(f"head{n}", (h_out, h_in), (h_out,)) for n, (h_in, h_out) in enumerate(pairs, 1)]

    def rectified(self, layer: int) -> bool:
        """Whether a ReLU follows this convolution (counted from 1)."""
        return layer != self.position and (layer < self.layers or self.relu_after_last)

    def _features_grouped(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        seeds, batch = len(next(iter(parameters.values()))), x.shape[1]
        x = x.expand(seeds, *x.shape[1:])
        if self.one_dimensional:
            x = x.transpose(3, 4).flatten(2, 3).unsqueeze(-1)
        z = x.transpose(0, 1).flatten(1, 2)
        pool = functional.avg_pool2d if self.average else functional.max_pool2d
        for layer in range(1, self.layers + 1):
            weight = parameters[f"conv{layer}.weight"].flatten(0, 1)
            weight = weight.unsqueeze(-1) if self.one_dimensional else weight
            bias = parameters[f"conv{layer}.bias"].flatten() if self.bias else None
            z = functional.conv2d(z, weight, bias, groups=seeds)
            if layer == self.position:
                z = pool(z, self.geometry.window)
            elif self.rectified(layer):
                z = z.relu()
        return z.unflatten(1, (seeds, -1)).transpose(0, 1).reshape(seeds, batch, -1)

    def _run(self, own: Parameters, x: torch.Tensor) -> _Run:
        """Follow pictures (B, C, H, W) through one seed's network."""
        maps, unpooled = self._maps(own, x)
        outputs = [maps[-1].flatten(0, 2)]
        for layer in range(1, len(self.widths)):
            z = self._head_weight(own, layer) @ outputs[-1]
            if self.bias:
                z += own[f"head{layer}.bias"][:, None]
            outputs.append(torch.relu_(z) if layer < len(self.widths) - 1 else z)
        return _Run(maps, unpooled, outputs)

    def _maps(self, own: Parameters, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Return the input and what each convolution passes on, (H, C, W, B), and what the pooling was given."""
        if self.one_dimensional:
            x = x.transpose(2, 3).flatten(1, 2).unsqueeze(-1)
        maps, unpooled = [x.permute(2, 1, 3, 0).contiguous()], None
        for layer in range(1, self.layers + 1):
            kernel = _columns(self._kernel(own, layer))
            z = _convolve(maps[-1], kernel, self.geometry.kernel, own.get(f"conv{layer}.bias"))
            if layer == self.position:
                unpooled = z
                z = _pool(z, self.geometry.window, self.average)
            elif self.rectified(layer):
                z = torch.relu_(z)
            maps.append(z)
        return maps, unpooled

    def _of_parts(
        self, parameters: Parameters, x: torch.Tensor, what: Callable[[Parameters, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Compute something of shape (objects, …) from each seed's parameters and part of the objects."""
        seeds = len(next(iter(parameters.values())))
        begins = range(0, x.shape[1], PART)

        def run(task: tuple[int, int]) -> torch.Tensor:
            seed, part = task[0], slice(task[1], task[1] + PART)
            return what(_one(parameters, seed), x[seed % len(x), part])

        found = parallel.each(run, [(seed, begin) for seed in range(seeds) for begin in begins])
        return torch.stack([torch.cat(found[s * len(begins) : (s + 1) * len(begins)]) for s in range(seeds)])

    def _gradients(self, own: Parameters, x: torch.Tensor, y: torch.Tensor, batch: int) -> Parameters:
        """One seed's gradients of the summed loss of x (B, C, H, W), y (B,), over the size of the minibatch."""
        run, found = self._run(own, x), {}
        delta = torch.softmax(run.outputs[-1], dim=0)
        delta.scatter_add_(0, y[None], torch.full_like(delta[:1], -1))
        delta /= batch
        for layer in reversed(range(1, len(self.widths))):
            weight = delta @ run.outputs[layer - 1].T
            if layer == 1:
                channels, height, width = self.geometry.passed_on[-1]
                weight = weight.view(-1, height, channels, width).transpose(1, 2).flatten(1)
            found[f"head{layer}.weight"] = weight
            if self.bias:
                found[f"head{layer}.bias"] = delta.sum(dim=1)
            delta = self._head_weight(own, layer).T @ delta
            if layer > 1:
                delta = torch.ops.aten.threshold_backward(delta, run.outputs[layer - 1], 0)
        delta = delta.view_as(run.maps[-1])
        for layer in reversed(range(1, self.layers + 1)):
            delta = self._before_nonlinearity(delta, layer, run)
            weight = _kernel_gradient(run.maps[layer - 1], delta.inner, self.geometry.kernel)
            found[f"conv{layer}.weight"] = weight.view_as(own[f"conv{layer}.weight"])
            if self.bias:
                found[f"conv{layer}.bias"] = delta.inner.sum(dim=(0, 2, 3))
            if layer > 1:
                flipped = self._kernel(own, layer).flip(2, 3).transpose(0, 1)
                delta = _convolve(delta.padded, _columns(flipped), self.geometry.kernel, None)
        return found

    def _before_nonlinearity(self, delta: torch.Tensor, layer: int, run: _Run) -> _Padded:
        """Take the gradient back through a layer's nonlinearity, and pad it for the way back through the kernel."""
        _, height, width = self.geometry.convolved[layer - 1]
        rows, columns = (k - 1 if layer > 1 else 0 for k in self.geometry.kernel)
        shape = (height + 2 * rows, delta.shape[1], width + 2 * columns, delta.shape[3])
        padded = delta.new_empty(shape)
        inner = padded[rows : rows + height, :, columns : columns + width]
        for frame in (padded[:rows], padded[rows + height :]):
            frame.zero_()
        for frame in (padded[:, :, :columns], padded[:, :, columns + width :]):
            frame.zero_()
        if layer == self.position:
            _unpool(delta, run.unpooled, run.maps[layer], self.geometry.window, self.average, inner)
        elif self.rectified(layer):
            torch.ops.aten.threshold_backward.grad_input(delta, run.maps[layer], 0, grad_input=inner)
        else:
            inner.copy_(delta)
        return _Padded(padded, inner)

    def _kernel(self, own: Parameters, layer: int) -> torch.Tensor:
        weight = own[f"conv{layer}.weight"]
        return weight.unsqueeze(-1) if self.one_dimensional else weight

    def _head_weight(self, own: Parameters, layer: int) -> torch.Tensor:
        """Weight (out, in) with the inputs in the order of the maps: row, channel, column."""
        weight = own[f"head{layer}.weight"]
        if layer > 1:
            return weight
        return weight.unflatten(1, self.geometry.passed_on[-1]).transpose(1, 2).flatten(1)


@dataclass(frozen=True)
class _Run:
    maps: list[torch.Tensor]  # the input, then what each convolution passes on: (H, C, W, B)
    unpooled: torch.Tensor | None  # what the pooling was given
    outputs: list[torch.Tensor]  # of the head, from its input to the logits: (width, B)


@dataclass(frozen=True)
class _Padded:
    padded: torch.Tensor  # zeros around
    inner: torch.Tensor  # the gradient, a view of it


class _Rows(torch.nn.Module):
    """Pictures (B, C, H, W) as sequences of their rows, (B, C·W, H)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(2, 3).flatten(1, 2)


def _one(parameters: Parameters, seed: int) -> Parameters:
    return {name: tensor[seed] for name, tensor in parameters.items()}


def _columns(kernel: torch.Tensor) -> torch.Tensor:
    """(C_out, C_in, k, k) -> one matrix a column of the kernel, (k, C_out, k·C_in)."""
    return kernel.permute(3, 0, 2, 1).flatten(2)


def _patches(maps: torch.Tensor, column: int, rows: int, width: int) -> torch.Tensor:
    """View of maps (H, C, W, B), contiguous: for each output row the k·C_in values under one column of the kernel."""
    height, channels, whole, batch = maps.shape
    size = (height - rows + 1, rows * channels, width * batch)
    # Not maps.stride(): of an axis of length 1 it can be anything.
    strides = (channels * whole * batch, whole * batch, 1)
    return maps.as_strided(size, strides, maps.storage_offset() + column * batch)


def _convolve(
    maps: torch.Tensor, columns: torch.Tensor, kernel: tuple[int, int], bias: torch.Tensor | None
) -> torch.Tensor:
    """Convolve maps (H, C_in, W, B), contiguous, with a kernel from :func:`_columns`: (H', C_out, W', B)."""
    height, _, width, batch = maps.shape
    height, width, channels = height - kernel[0] + 1, width - kernel[1] + 1, columns.shape[1]
    convolved = maps.new_empty(height, channels, width, batch)
    flat = convolved.flatten(2)
    if bias is not None:
        flat.copy_(bias[:, None].expand_as(flat))
    for column, matrix in enumerate(columns):
        first = column == 0 and bias is None
        patches = _patches(maps, column, kernel[0], width)
        torch.baddbmm(flat, matrix.expand(height, -1, -1), patches, beta=0 if first else 1, out=flat)
    return convolved


def _kernel_gradient(maps: torch.Tensor, delta: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """Gradient (C_out, C_in, k, k) of a kernel from its maps (H, C_in, W, B) and the gradient of what it put out."""
    height, channels, width, batch = delta.shape
    rows = delta.as_strided((height, channels, width * batch), (*delta.stride()[:2], 1), delta.storage_offset())
    columns = [
        torch.bmm(rows, _patches(maps, column, kernel[0], width).transpose(1, 2)).sum(dim=0)
        for column in range(kernel[1])
    ]
    return torch.stack(columns).unflatten(2, (kernel[0], -1)).permute(1, 3, 2, 0)


def _windows(maps: torch.Tensor, window: tuple[int, int]) -> list[torch.Tensor]:
    """Views of the elements of each pooling window in reading order, cut where the last window is not whole."""
    height, width = maps.shape[0] // window[0], maps.shape[2] // window[1]
    return [
        maps[i : i + window[0] * height : window[0], :, j : j + window[1] * width : window[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _pool(maps: torch.Tensor, window: tuple[int, int], average: bool) -> torch.Tensor:
    first, *others = _windows(maps, window)
    pooled = first.clone(memory_format=torch.contiguous_format)
    for other in others:
        pooled = pooled.add_(other) if average else torch.maximum(pooled, other, out=pooled)
    return pooled.div_(len(others) + 1) if average else pooled


def _unpool(
    delta: torch.Tensor,
    unpooled: torch.Tensor,
    pooled: torch.Tensor,
    window: tuple[int, int],
    average: bool,
    out: torch.Tensor,
) -> None:
    """Spread the gradient over each window, or give it to the first of its largest elements, as PyTorch does."""
    targets = _windows(out, window)
    out[delta.shape[0] * window[0] :].zero_()  # what no window covers
    out[:, :, delta.shape[2] * window[1] :].zero_()
    if average:
        shared = delta / len(targets)
        for target in targets:
            target.copy_(shared)
        return
    free = torch.ones_like(delta, dtype=torch.bool)
    for target, value in zip(targets, _windows(unpooled, window), strict=True):
        largest = (value == pooled) & free
        torch.mul(delta, largest, out=target)
        free &= ~largest
