"""Taking parameters away, the lowest scores first, and what is left of a network's quality (thesis 4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from landscape_cli.curvature.stacked import BYTES, unflatten
from landscape_cli.models import StackedModel

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # weights and active (R, P) -> scores (R, P)
Retrain = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # weights and active (R, P) -> weights (R, P)


@dataclass(frozen=True)
class Step:
    """Networks with so many parameters removed."""

    removed: int
    weights: torch.Tensor  # (R, P), zero where removed
    active: torch.Tensor  # (R, P) bool


def remove(
    weights: torch.Tensor,
    score: Score,
    counts: Sequence[int],
    retrain: Retrain | None = None,
    ties: Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """Remove parameters of R networks; scores are computed anew at every step.

    Parameters
    ----------
    weights
        Shape (R, P).
    score
        The lowest are removed.
    counts
        How many parameters are removed in all after each step, rising.
    retrain
        Trains what is left after each step; None: what is left stays as it is.
    ties
        One generator a network, on the CPU: of equal scores one at random is removed. None: the parameter of the
        lowest number.

    Raises
    ------
    ValueError
        Counts that do not rise or pass P, or a retraining that moves a removed parameter.
    """
    if any(b <= a for a, b in itertools.pairwise(counts)) or not 0 <= counts[0] <= counts[-1]:
        raise ValueError(f"counts {list(counts)} do not rise")
    if counts[-1] > weights.shape[1]:
        raise ValueError(f"{counts[-1]} parameters to be removed of {weights.shape[1]}")
    weights, active, removed = weights.clone(), torch.ones_like(weights, dtype=torch.bool), 0
    for count in counts:
        if count > removed:
            scores = score(weights, active).masked_fill(~active, torch.inf)
            active = active.scatter(1, lowest(scores, count - removed, ties), False)
            weights = weights.masked_fill(~active, 0)
            removed = count
            if retrain is not None and count < weights.shape[1]:
                weights = retrain(weights, active)
                if bool(weights.masked_select(~active).any()):
                    raise ValueError("retraining moved a removed parameter")
        yield Step(count, weights, active)


def lowest(scores: torch.Tensor, count: int, ties: Sequence[torch.Generator] | None = None) -> torch.Tensor:
    """Places of the lowest scores, (R, P) -> (R, count); of equal ones some at random."""
    if ties is None:
        return scores.argsort(dim=1, stable=True)[:, :count]
    shuffled = torch.stack([torch.randperm(scores.shape[1], generator=g) for g in ties]).to(scores.device)
    return shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, stable=True)[:, :count])


@torch.no_grad()
def quality(
    model: StackedModel, like: dict[str, torch.Tensor], weights: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Accuracy of classifiers, mean squared error of regressions (R_cl and R_rg of the thesis).

    A classifier that gives several classes the same largest output is right in a proportional share of the cases: an
    empty network guesses, and does not name the first class.

    Parameters
    ----------
    weights
        Shape (..., R, P).
    x, y
        Objects (R, n, …) or (1, n, …), and targets (R, n) or (1, n).

    Returns
    -------
    Shape (..., R), float64.
    """
    found = []
    for vectors in weights.reshape(-1, *weights.shape[-2:]):
        total = torch.zeros(len(vectors), dtype=torch.float64, device=weights.device)
        for begin in range(0, x.shape[1], model.chunk):
            part, targets = x[:, begin : begin + model.chunk], y[:, begin : begin + model.chunk]
            outputs = model.forward(unflatten(vectors, like), part).double()
            if y.is_floating_point():
                total += (outputs.squeeze(-1) - targets).square().sum(dim=1)
            else:
                best = outputs == outputs.amax(dim=-1, keepdim=True)
                index = targets.expand(len(vectors), -1).unsqueeze(-1)
                total += (best.gather(2, index).squeeze(-1).double() / best.sum(dim=-1)).sum(dim=1)
        found.append(total / x.shape[1])
    return torch.stack(found).view(weights.shape[:-1])


@torch.no_grad()
def output_noise(
    model: StackedModel,
    like: dict[str, torch.Tensor],
    weights: torch.Tensor,
    x: torch.Tensor,
    levels: Sequence[float],
    *,
    copies: int,
    generators: Sequence[torch.Generator],
    classes: bool,
) -> torch.Tensor:
    """Standard deviation of the output over noisy copies of the input.

    A restart's networks all see the same noise, so that surfaces of different orders differ by the networks alone.

    Parameters
    ----------
    weights
        Shape (..., R, P).
    x
        Objects (R, n, F).
    levels
        Standard deviations of the noise that is added.
    copies
        Of each object.
    generators
        One a restart, on the CPU.
    classes
        The output is the softmax, and not the network's own value.

    Returns
    -------
    Shape (..., R, levels): root of the mean variance over objects and outputs.
    """
    networks = weights.reshape(-1, *weights.shape[-2:])
    found = torch.zeros(*networks.shape[:2], len(levels), dtype=weights.dtype, device=weights.device)
    together = max(1, BYTES // (copies * x[0].numel() * x.element_size()))
    for begin in range(0, len(x), together):
        some = slice(begin, min(begin + together, len(x)))
        drawn = [torch.randn(copies, *x.shape[1:], generator=g, dtype=x.dtype) for g in generators[some]]
        noise = torch.stack(drawn).to(x.device)
        for number, level in enumerate(levels):
            noisy = (x[some, None] + level * noise).flatten(1, 2)
            for row, vectors in enumerate(networks[:, some]):
                outputs = model.forward(unflatten(vectors, like), noisy)
                outputs = outputs.softmax(dim=-1) if classes else outputs
                spread = outputs.view(len(vectors), copies, x.shape[1], -1).var(dim=1)
                found[row, some, number] = spread.mean(dim=(1, 2)).sqrt()
    return found.view(*weights.shape[:-1], len(levels))
