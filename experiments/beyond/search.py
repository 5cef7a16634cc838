"""Networks against bounds: many at once, drawn at random, trained, or driven to where a bound is closest to failing.

A family knows how to draw networks, how to train them, what their exact norms are and what the theorems say of them.
Everything is float64; a state is a dictionary of tensors with one leading axis, the networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.func import hessian, jacfwd, jacrev, vmap

from landscape_cli.bounds import attention as transformers
from landscape_cli.bounds import chains
from landscape_cli.bounds.blocks import layer_norm
from landscape_cli.bounds.chains import Bound
from landscape_cli.curvature.chain import Chain, object_norms
from landscape_cli.errors import BadInput

State = dict[str, torch.Tensor]
SCALES = (1e-3, 10.0)  # of random weights, times 1/√fan_in; log-uniform
LENGTHS = (0.1, 10.0)  # of random inputs
TINY = 1e-300


class Family(Protocol):
    """Networks of one shape."""

    free: tuple[str, ...]  # what the adversary may change

    def draw(self, count: int, generator: torch.Generator) -> State:
        """Draw networks and an object for each."""

    def train(self, count: int, generator: torch.Generator) -> State:
        """Draw networks, train them, and give each an object."""

    def norms(self, state: State) -> dict[str, torch.Tensor]:
        """Exact norms of each network, by quantity."""

    def bounds(self, state: State, tight: bool = True) -> Sequence[Bound]:
        """What the theorems say of each."""


def driven(
    family: Family, start: State, goals: Sequence[tuple[str, str, str]], steps: int, learning_rate: float = 0.03
) -> list[State]:
    """Change networks by gradient ascent on log(exact norm / bound), and return the closest that each came.

    Parameters
    ----------
    start
        Networks (S, …), driven towards every goal.
    goals
        Theorem, quantity and variant of the bounds; all are sought in one pass.

    Returns
    -------
    One state a goal.
    """
    many = {name: torch.cat([tensor] * len(goals)) for name, tensor in start.items()}
    state = {name: tensor.clone().requires_grad_(name in family.free) for name, tensor in many.items()}
    optimiser = torch.optim.Adam([state[name] for name in family.free], lr=learning_rate)
    best = {name: tensor.clone() for name, tensor in many.items()}
    lowest = torch.full((len(next(iter(many.values()))),), math.inf, dtype=torch.float64)
    for _ in range(steps + 1):
        gap = _gaps(family, state, goals)
        better = gap.detach() < lowest
        lowest = torch.where(better, gap.detach(), lowest)
        for name in family.free:
            best[name][better] = state[name].detach()[better]
        optimiser.zero_grad()
        gap[gap.isfinite()].sum().backward()
        for name in family.free:
            state[name].grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
    return chunks(best, len(lowest) // len(goals))


def _gaps(family: Family, state: State, goals: Sequence[tuple[str, str, str]]) -> torch.Tensor:
    """Logarithm of bound / exact norm, each network's own goal."""
    norms = {quantity: _log(norm) for quantity, norm in family.norms(state).items()}
    bounds = {(b.theorem, b.quantity): b for b in family.bounds(state, tight=False)}
    size, found = len(next(iter(norms.values()))) // len(goals), []
    for i, (theorem, quantity, variant) in enumerate(goals):
        own = slice(i * size, (i + 1) * size)
        found.append(_log(getattr(bounds[theorem, quantity], variant)[own]) - norms[quantity][own])
    return torch.cat(found)


def _log(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(min=TINY).log()


def log_uniform(limits: tuple[float, float], count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw (count,) numbers whose logarithms are uniform."""
    low, high = (math.log(limit) for limit in limits)
    return (low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)).exp()


def normal(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Draw standard normal numbers in float64."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Training:
    """How chains are trained: Adam on the cross-entropy of a pool of objects."""

    steps: int
    batch_size: int
    learning_rate: float


class ChainFamily:
    """Products of matrices (2.1) with one object each; the pool's objects are real ones."""

    def __init__(
        self,
        net: nn.Sequential,
        shape: tuple[int, ...],
        theorems: Sequence[str],
        pool: tuple[torch.Tensor, torch.Tensor],
        training: Training,
        scales: tuple[float, float] = SCALES,
    ) -> None:
        self.chain, self.shape, self.theorems = Chain.of(net, shape), shape, tuple(theorems)
        self.x, self.y = self.chain.vector(pool[0]), pool[1]
        self.training, self.scales = training, scales
        self.free = ("x", *(f"weight{p}" for p in range(len(self.chain.layers))))

    def weights(self, state: State) -> list[torch.Tensor]:
        """Of each layer, (S, *shape)."""
        return [state[f"weight{p}"] for p in range(len(self.chain.layers))]

    def draw(self, count: int, generator: torch.Generator) -> State:
        """Normal weights at log-uniform scales; a real object, its length log-uniform."""
        state = self._initial(count, generator, self.scales)
        x = self.x[torch.randint(len(self.x), (count,), generator=generator)]
        unit = x / x.norm(dim=1, keepdim=True).clamp(min=TINY)
        outputs = len(self.chain.layers[-1].index)
        classes = torch.randint(outputs, (count,), generator=generator)
        return {**state, "x": unit * log_uniform(LENGTHS, count, generator)[:, None], "y": classes}

    def train(self, count: int, generator: torch.Generator) -> State:
        """Train on the pool by Adam, all networks in one pass."""
        state = self._initial(count, generator, (1.0, 1.0))
        weights = [weight.requires_grad_() for weight in self.weights(state)]
        optimiser = torch.optim.Adam(weights, lr=self.training.learning_rate)
        for _ in range(self.training.steps):
            index = torch.randint(len(self.x), (count, self.training.batch_size), generator=generator)
            outputs = self.chain.outputs(weights, self.x[index])
            loss = nn.functional.cross_entropy(outputs.flatten(0, 1), self.y[index].flatten(), reduction="sum")
            optimiser.zero_grad()
            (loss / self.training.batch_size).backward()
            optimiser.step()
        chosen = torch.randint(len(self.x), (count,), generator=generator)
        trained = {f"weight{p}": weight.detach() for p, weight in enumerate(weights)}
        return {**trained, "x": self.x[chosen].clone(), "y": self.y[chosen]}

    def accuracy(self, state: State) -> torch.Tensor:
        """Share of the pool that each network classifies rightly, (S,)."""
        with torch.no_grad():
            found = self.chain.outputs(self.weights(state), self.x.expand(len(state["y"]), *self.x.shape))
        return (found.argmax(dim=-1) == self.y).double().mean(dim=1)

    def norms(self, state: State) -> dict[str, torch.Tensor]:
        """‖H_O‖ and ‖H‖."""
        found = object_norms(self.chain, self.weights(state), state["x"], state["y"])
        return dict(zip(("gauss_newton", "hessian"), found, strict=True))

    def bounds(self, state: State, tight: bool = True) -> list[Bound]:
        """Of every theorem that is asked for."""
        given = (self.chain, self.weights(state), state["x"], self.shape, tight)
        return [bound for theorem in self.theorems for bound in chains.of_network(theorem, *given)]

    def _initial(self, count: int, generator: torch.Generator, scales: tuple[float, float]) -> State:
        state = {}
        for p, layer in enumerate(self.chain.layers):
            scale, fan_in = log_uniform(scales, count, generator), math.prod(layer.shape[1:])
            values = normal((count, *layer.shape), generator) / math.sqrt(fan_in)
            state[f"weight{p}"] = values * scale.view(-1, *[1] * len(layer.shape))
        return state


def convolutions(
    shape: tuple[int, ...], channels: int, kernel: int, layers: int, classes: int, pooling: str = "", position: int = 0
) -> nn.Sequential:
    """Convolutions alone, as Theorems 12 to 15 have them: the last one's maps are the outputs, at least one a class.

    Parameters
    ----------
    shape
        (C, d) or (C, H, W) of the input.
    layers
        L + 1 convolutions, no padding, stride 1, no biases.
    pooling, position
        ``max`` or ``average`` with a window of 2 in the place of the ReLU after convolution ``position``.
    """
    convolution = nn.Conv1d if len(shape) == 2 else nn.Conv2d
    pools = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
    modules: list[nn.Module] = []
    sides, now = list(shape[1:]), shape[0]
    for layer in range(1, layers + 1):
        sides = [side - kernel + 1 for side in sides]
        if min(sides) < 1:
            raise BadInput(f"{layers} convolutions of kernel {kernel} do not fit on objects of the shape {shape}")
        out = channels if layer < layers else -(-classes // math.prod(sides))
        modules.append(convolution(now, out, kernel, bias=False))
        now = out
        if layer == position and pooling:
            modules.append(pools[pooling](2))
            sides = [side // 2 for side in sides]
        elif layer < layers:
            modules.append(nn.ReLU())
    return nn.Sequential(*modules, nn.Flatten())


class AttentionFamily:
    """Self-attention layers with one object (X, Target) each (Theorem 17)."""

    free: tuple[str, ...] = ("X", "Q", "K", "V", "target")

    def __init__(self, tokens: int, width: int, key_width: int, steps: int) -> None:
        self.tokens, self.width, self.key_width, self.steps = tokens, width, key_width, steps
        self.shapes = {"V": (width, width), "Q": (width, key_width), "K": (width, key_width)}
        self.chunk = 64

    def draw(self, count: int, generator: torch.Generator) -> State:
        """Normal weights at log-uniform scales, X and Target of log-uniform lengths."""
        shapes = self.shapes | dict.fromkeys(("X", "target"), (self.tokens, self.width))
        return {
            name: normal((count, *s), generator)
            / math.sqrt(s[0])
            * log_uniform(SCALES, count, generator)[:, None, None]
            for name, s in shapes.items()
        }

    def train(self, count: int, generator: torch.Generator) -> State:
        """Fit each network to the outputs of another one on 16 objects, all in one pass; one of them is its object."""
        own, teacher = (self._initial(count, generator) for _ in range(2))
        x = normal((count, 16, self.tokens, self.width), generator)
        target = self.output({n: t[:, None] for n, t in teacher.items()}, x)
        weights = {name: tensor.requires_grad_() for name, tensor in own.items()}
        optimiser = torch.optim.Adam(weights.values(), lr=0.02)
        for _ in range(self.steps):
            outputs = self.output({n: t[:, None] for n, t in weights.items()}, x)
            optimiser.zero_grad()
            (outputs - target).square().mean(dim=(1, 2, 3)).sum().backward()
            optimiser.step()
        return {**{n: t.detach() for n, t in weights.items()}, "X": x[:, 0].clone(), "target": target[:, 0].clone()}

    def _initial(self, count: int, generator: torch.Generator) -> State:
        return {name: normal((count, *s), generator) / math.sqrt(s[0]) for name, s in self.shapes.items()}

    def attention(self, weights: State, x: torch.Tensor) -> torch.Tensor:
        """A, (…, L, L)."""
        return transformers.attention_matrix(weights, x)

    def output(self, weights: State, x: torch.Tensor) -> torch.Tensor:
        """F(X), (…, L, d_V)."""
        return self.attention(weights, x) @ x @ weights["V"]

    def hessians(self, state: State) -> torch.Tensor:
        """Exact Hessians of the mean squared error by all weights, (S, P, P)."""
        sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}

        def loss(flat: torch.Tensor, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            parts = flat.split(list(sizes.values()))
            weights = {n: p.view(self.shapes[n]) for n, p in zip(sizes, parts, strict=True)}
            return (self.output(weights, x) - target).square().mean()

        flat = torch.cat([state[name].flatten(1) for name in sizes], dim=1)
        return vmap(hessian(loss), chunk_size=self.chunk)(flat, state["X"], state["target"])

    def norms(self, state: State) -> dict[str, torch.Tensor]:
        """Exact ‖H‖."""
        ends = torch.linalg.eigvalsh(self.hessians(state))
        return {"hessian": torch.maximum(ends[:, -1], -ends[:, 0])}

    def bounds(self, state: State, tight: bool = True) -> list[Bound]:
        """Theorem 17."""
        return [transformers.of_attention(state, state["X"], state["target"], tight)]


class BlockFamily(AttentionFamily):
    """Transformer blocks (2.10) with one object each, layer norms without weights (Theorem 26)."""

    free = ("X", "Q", "K", "V", "1", "2", "target")

    def __init__(self, tokens: int, width: int, key_width: int, hidden: int, steps: int) -> None:
        super().__init__(tokens, width, key_width, steps)
        self.hidden, self.chunk = hidden, 32
        self.shapes = {**self.shapes, "1": (width, hidden), "2": (hidden, width)}

    def output(self, weights: State, x: torch.Tensor) -> torch.Tensor:
        """Z, (…, L, d_V)."""
        y = layer_norm(x + super().output(weights, x))
        return layer_norm(y + (y @ weights["1"]).clamp(min=0) @ weights["2"])

    def norms(self, state: State) -> dict[str, torch.Tensor]:
        """Exact ‖H‖ and, where nothing is differentiated further, the largest block ‖∂²Z/∂W_i ∂W_j‖."""
        found = super().norms(state)
        return found if torch.is_grad_enabled() else found | {"network": self.network(state)}

    def network(self, state: State) -> torch.Tensor:
        """Largest spectral norm among the blocks of the outputs' second derivatives, (S,)."""
        second = vmap(jacfwd(jacrev(self.output)), chunk_size=self.chunk)(
            {name: state[name] for name in self.shapes}, state["X"]
        )
        size = self.tokens * self.width
        norms = []
        for i, first in self.shapes.items():
            for j, other in self.shapes.items():
                block = second[i][j].reshape(-1, size * math.prod(first), math.prod(other))
                norms.append(torch.linalg.matrix_norm(block, 2))
        return torch.stack(norms, dim=-1).amax(dim=-1)

    def bounds(self, state: State, tight: bool = True) -> list[Bound]:
        """Theorem 26: of the loss and, unless only what an adversary seeks is asked for, of the outputs."""
        found = transformers.of_block(state, state["X"], state["target"])
        return [bound for bound in found if tight or bound.quantity == "hessian"]


def chunks(state: State, size: int) -> list[State]:
    """Split networks."""
    count = len(next(iter(state.values())))
    return [{n: t[begin : begin + size] for n, t in state.items()} for begin in range(0, count, size)]
