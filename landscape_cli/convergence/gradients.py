"""‖∇L_k(θ)‖ along orderings of the objects: how nearly one θ is a minimum of every L_k (Assumption 1, thesis 1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from landscape_cli.convergence.losses import wide
from landscape_cli.models import Parameters, StackedModel

CHUNK = 256  # objects an ordering handled at a time


def gradient_norms(
    model: StackedModel,
    parameters: Parameters,
    x: torch.Tensor,
    y: torch.Tensor,
    orderings: torch.Tensor,
    sizes: Sequence[int],
) -> torch.Tensor:
    """‖∇L_k(θ)‖₂ for growing k, along several orderings at once.

    Gradients of chunks of objects are float32, their running sum is float64.

    Parameters
    ----------
    parameters
        One network's: a leading axis of length 1.
    x, y
        Objects (N, …) and class indices (N,).
    orderings
        Shape (P, N).
    sizes
        The k at which the norm is taken, increasing, from 1 to N.

    Returns
    -------
    Shape (P, len(sizes)), float64.
    """
    count = len(orderings)
    repeated = {name: tensor.expand(count, *tensor.shape[1:]) for name, tensor in parameters.items()}
    total: torch.Tensor | float = 0.0
    norms, position = [], 0
    for size in sizes:
        while position < size:
            index = orderings[:, position : min(position + CHUNK, size)]
            total = total + _flat(model.gradients(repeated, x[index], y[index])) * index.shape[1]
            position += index.shape[1]
        norms.append(total.norm(dim=1) / size)
    return torch.stack(norms, dim=1)


@dataclass(frozen=True)
class GradientMoments:
    """What the closed form of E‖∇L_k‖² needs."""

    mean_square: float  # mean over objects of ‖∇ℓ_i‖²
    square_of_mean: float  # ‖∇L_m‖²
    objects: int  # m

    def expected_norm(self, k: torch.Tensor) -> torch.Tensor:
        """√E‖∇L_k‖² over random orderings of the m objects.

        Sampling without replacement: E‖∇L_k‖² = ‖∇L_m‖² + σ²/k · (m-k)/(m-1), σ² = mean‖∇ℓ_i‖² - ‖∇L_m‖².
        """
        variance = self.mean_square - self.square_of_mean
        return (self.square_of_mean + variance / k * (self.objects - k) / max(self.objects - 1, 1)).sqrt()


def gradient_moments(model: StackedModel, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> GradientMoments:
    """First two moments of the objects' gradients of one network (leading axis of length 1)."""
    squares, total = 0.0, torch.zeros(())
    for begin in range(0, len(x), CHUNK):
        part = slice(begin, begin + CHUNK)
        count = len(y[part])
        repeated = {name: tensor.expand(count, *tensor.shape[1:]) for name, tensor in parameters.items()}
        each = _flat(model.gradients(repeated, x[part, None], y[part, None]))
        squares += float(each.square().sum())
        total = total.to(each) + each.sum(dim=0)
    return GradientMoments(squares / len(x), float((total / len(x)).square().sum()), len(x))


def _flat(gradients: Parameters) -> torch.Tensor:
    """Concatenate a gradient's tensors: (S, P) float64, in the order of their names."""
    return torch.cat([wide(gradients[name]).flatten(1) for name in sorted(gradients)], dim=1)
