"""Anti-distillation: a larger student's parameters as the minimum of a composite loss (thesis 4.3, eq. 4.3).

L(w) = λ₁ L_ce(w, D₁) + λ₂ ‖u - Pr[w]‖² + λ₃ E_{x' ∈ U_δ(x)} L_ce(w, D₁) + λ₄ tr ∂²L_ce/∂w², u the teacher's parameters.
Losses of objects are means and not sums, so that the weights do not depend on the number of objects. U_δ(x) is uniform
on [x - δ, x + δ], which the text prints as [δ - x, δ + x]. Each step draws x' and, for the trace, random signs once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from landscape_cli.curvature.stacked import quadratic_form
from landscape_cli.distillation.growing import project
from landscape_cli.distillation.losses import OwnLoss
from landscape_cli.errors import BadInput
from landscape_cli.models import Parameters
from landscape_cli.models.mlp import FeedForward


@dataclass(frozen=True)
class Weights:
    """λ₁ to λ₄ of the composite loss, and δ."""

    loss: float
    teacher: float
    noise: float
    trace: float
    radius: float = 0.1  # δ, in the inputs' units

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"{entry.name}: {value}; allowed: 0 or more")


class Composite(OwnLoss):
    """The composite loss as a network whose gradients a :class:`~landscape_cli.training.Trainer` can follow.

    Parameters
    ----------
    student
        Architecture of R networks.
    teacher
        u, name -> (R, …); used where λ₂ > 0.
    generators
        One a network, on the CPU: noise of the objects and signs.
    """

    def __init__(
        self, student: FeedForward, teacher: Parameters, weights: Weights, generators: Sequence[torch.Generator]
    ) -> None:
        super().__init__(student)
        self.teacher, self.weights, self.generators = teacher, weights, generators

    def gradients(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Gradient of the composite loss over each network's minibatch, x (R, B, …), y (R, B)."""
        weights = self.weights
        total = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}

        def add(part: Parameters, weight: float) -> None:
            for name, tensor in part.items():
                total[name].add_(tensor, alpha=weight)

        if weights.loss:
            add(self.student.gradients(parameters, x, y), weights.loss)
        if weights.noise:
            add(self.student.gradients(parameters, self.noisy(x), y), weights.noise)
        if weights.teacher:
            for name, tensor in project(parameters, self.teacher).items():
                index = (slice(None), *(slice(size) for size in tensor.shape[1:]))
                total[name][index].add_(tensor - self.teacher[name], alpha=2 * weights.teacher)
        if weights.trace:
            add(self._trace_gradients(parameters, x, y), weights.trace)
        return total

    def noisy(self, x: torch.Tensor) -> torch.Tensor:
        """Objects drawn from U_δ, uniformly on [x - δ, x + δ]."""
        drawn = torch.stack([torch.rand(x.shape[1:], generator=g, dtype=x.dtype) for g in self.generators])
        return x + self.weights.radius * (2 * drawn.to(x.device) - 1)

    def signs(self, parameters: Parameters) -> Parameters:
        """Random signs with the shapes of the parameters."""
        drawn: dict[str, list[torch.Tensor]] = {name: [] for name in parameters}
        for g in self.generators:
            for name, tensor in parameters.items():
                drawn[name].append(torch.randint(2, tensor.shape[1:], generator=g))
        return {name: (2 * torch.stack(rows) - 1).to(parameters[name]) for name, rows in drawn.items()}

    def _trace_gradients(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> Parameters:
        """Gradient of Hutchinson's estimate of the trace of each network's Hessian."""
        signs = self.signs(parameters)
        with torch.enable_grad():
            free = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
            estimate = quadratic_form(self.student, free, signs, x, y).sum()
            found = torch.autograd.grad(estimate, list(free.values()), allow_unused=True)
        return {name: g for name, g in zip(free, found, strict=True) if g is not None}


def grow(
    student: FeedForward,
    start: Parameters,
    teacher: Parameters,
    weights: Weights,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    generators: Sequence[torch.Generator],
    **options: Any,
) -> Parameters:
    """Minimise the composite loss from a start with Adam, all networks at once.

    Parameters
    ----------
    start
        Name -> (R, …).
    x, y
        D₁, shared by all networks.
    options
        ``seeds``, ``epochs``, ``batch_size``, ``learning_rate``, ``rows`` and others of
        :func:`~landscape_cli.training.fit`.
    """
    from landscape_cli.training import fit

    return fit(Composite(student, teacher, weights, generators), x, y, start=start, **options)
