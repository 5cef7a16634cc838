"""Gaussian variational posterior of a network's parameters (thesis 4.1; essay 2.2; Graves 2011).

q = N(m, S⁻¹) maximises E_q[log p(D | w)] - KL(q || N(0, I/α)). At the optimum S = E_q[H] + α I and E_q[g] + α m = 0,
with g and H the gradient and Hessian of -log p(D | w). Both are iterated towards, the second by natural gradients with
the correction that keeps S positive definite (Lin, Schmidt, Khan 2020, "Handling the positive-definite constraint in
the Bayesian learning rule"). Expectations are means over antithetic samples, so that those of gradient and
Hessian are exact for a linear model with squared error. Regression has Gaussian noise; its variance and α maximise the
same bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from landscape_cli.checkpointing import resumed
from landscape_cli.curvature.stacked import BYTES, flatten, hessian, hessian_diagonal, unflatten
from landscape_cli.descent import mean_losses
from landscape_cli.errors import MeasurementFailed
from landscape_cli.models.mlp import FeedForward

FULL, DIAGONAL = "full", "diagonal"
DIVERGED = "the variational posterior diverged; try a smaller measure.posterior_rate"
NEAR = 1e-4  # of a step: where its gradient is taken again
TRUST = 0.01  # nats a parameter, and one nat at least: how far one iteration may move q, in Kullback-Leibler divergence


@dataclass(frozen=True)
class Gaussian:
    """The posteriors N(m, S⁻¹) of R networks with P parameters, and how their fits went."""

    mean: torch.Tensor  # (R, P)
    precision: torch.Tensor  # (R, P, P); of the mean field its diagonal, (R, P)
    prior_precision: torch.Tensor  # (R,): α
    noise_variance: torch.Tensor  # (R,): of a regression's targets; 1 in a classification
    bound: torch.Tensor  # (iterations, R): the evidence lower bound, nats, as its samples estimate it

    @classmethod
    def together(cls, parts: Sequence[Gaussian]) -> Gaussian:
        """Posteriors of several stacks of networks as one."""
        tensors = [torch.cat([getattr(part, name) for part in parts]) for name in _OF_NETWORKS]
        return cls(*tensors, torch.cat([part.bound for part in parts], dim=1))

    @property
    def fitted(self) -> bool:
        """Whether it was fitted here, and not given."""
        return len(self.bound) > 0

    @property
    def matrix(self) -> torch.Tensor:
        """S, (R, P, P)."""
        return torch.diag_embed(self.precision) if self.precision.dim() == 2 else self.precision

    @property
    def covariance(self) -> torch.Tensor:
        """S⁻¹, (R, P, P)."""
        if self.precision.dim() == 2:
            return torch.diag_embed(1 / self.precision)
        return _inverse(torch.linalg.cholesky(self.precision))


_OF_NETWORKS = ("mean", "precision", "prior_precision", "noise_variance")


@torch.no_grad()
def fit_posterior(
    model: FeedForward,
    start: dict[str, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    generators: Sequence[torch.Generator],
    covariance: str = FULL,
    iterations: int = 60,
    samples: int = 4,
    rate: float = 0.3,
    prior_precision: float | None = None,
    noise_variance: float | None = None,
    progress: Any = None,
) -> Gaussian:
    """Fit the posteriors of several networks at once.

    Parameters
    ----------
    start
        Parameters near a minimum of the loss, name -> (R, …), float64.
    x, y
        Each network's train objects (R, N, …) and targets (R, N): classes, or real values.
    generators
        One a network, on the CPU.
    covariance
        ``full``, or ``diagonal``: the mean field.
    samples
        Networks drawn from q at each iteration; an even number, half of them the others mirrored at the mean.
    rate
        Step of the natural gradient, falling to a tenth over the second half of the iterations.
    prior_precision, noise_variance
        α and the noise of a regression's targets; None: those that maximise the bound.

    Raises
    ------
    MeasurementFailed
        If a posterior is not finite at the end.
    """
    count, regression = x.shape[1], y.is_floating_point()
    mean = flatten(start).clone()
    networks, size = mean.shape
    alpha = torch.full((networks,), 1.0 if prior_precision is None else prior_precision, dtype=mean.dtype)
    noise = torch.ones(networks, dtype=mean.dtype)
    if regression:
        first = mean_losses(model, unflatten(mean, start), x, y).cpu()
        noise = first if noise_variance is None else torch.full_like(first, noise_variance)
    alpha, noise = alpha.to(mean), noise.to(mean)
    curvature = _expected(model, start, x, y, mean[None], covariance)[2] * _scale(regression, count, noise, covariance)
    precision = _definite(curvature, alpha)
    bounds: list[torch.Tensor] = []
    state = {"mean": mean, "precision": precision, "alpha": alpha, "noise": noise, "bounds": bounds}
    given = (samples, rate, prior_precision, noise_variance)
    label = {"kind": "posterior", "model": model, "covariance": covariance, "options": given}
    for step in resumed(iterations, state, label, (x, y), generators=generators, progress=progress, desc="posterior"):
        mean, precision, alpha, noise = (state[name] for name in ("mean", "precision", "alpha", "noise"))
        now = rate if step < iterations / 2 else rate * 0.1 ** (2 * step / iterations - 1)
        factor = _factor(precision)
        drawn = torch.stack([torch.randn(samples // 2, size, generator=g, dtype=mean.dtype) for g in generators], dim=1)
        shift = _solve(factor, drawn.to(mean.device))
        drawn_weights = torch.cat([mean + shift, mean - shift])
        loss, slope, curvature = _expected(model, start, x, y, drawn_weights, covariance)
        variances = _variances(factor)
        if regression and noise_variance is None:
            noise = noise + now * (loss - noise)
        if prior_precision is None:
            alpha = size / (mean.square() + variances).sum(dim=1)
        bounds.append(_bound(loss, noise, alpha, mean, variances, factor, count, regression))
        scale = _scale(regression, count, noise, "vector")
        gradient = slope * scale + alpha[:, None] * mean
        change = curvature * _scale(regression, count, noise, covariance) + _ridge(alpha, precision) - precision
        if covariance == FULL:
            halfway = torch.linalg.solve_triangular(factor, change, upper=False)
            relative = torch.linalg.solve_triangular(factor, halfway.mT, upper=False).flatten(1)
            direction = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
            grown = halfway.mT @ halfway
        else:
            relative, direction = change / precision, gradient / precision
            grown = change * relative
        moved = ((gradient * direction).sum(dim=1) + relative.square().sum(dim=1) / 2) / 2
        now = (max(1.0, TRUST * size) / moved.clamp(min=1e-300)).sqrt().clamp(max=now)
        reach = now
        if covariance == DIAGONAL:  # S knows nothing of correlations: the step must not pass the minimum on its way
            near = _slopes(model, start, x, y, drawn_weights - NEAR * direction)
            bend = (((slope - near) * scale + alpha[:, None] * NEAR * direction) * direction).sum(dim=1) / NEAR
            best = (gradient * direction).sum(dim=1) / bend.clamp(min=1e-300)
            reach = torch.minimum(now, best)
        mean = mean - reach[:, None] * direction
        now = now.view(-1, *[1] * (precision.dim() - 1))
        precision = precision + now * change + now**2 / 2 * grown
        precision = (precision + precision.mT) / 2 if covariance == FULL else precision
        state.update(mean=mean, precision=precision, alpha=alpha, noise=noise)
    mean, precision, alpha, noise = (state[name] for name in ("mean", "precision", "alpha", "noise"))
    if not bool(mean.isfinite().all() and precision.isfinite().all()):
        raise MeasurementFailed(DIVERGED)
    return Gaussian(mean, precision, alpha, noise, torch.stack(bounds))


def _expected(
    model: FeedForward,
    like: dict[str, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    weights: torch.Tensor,
    covariance: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean loss (R,), its gradient (R, P) and Hessian (R, P, P) or diagonal (R, P); means over weights (s, R, P)."""
    total: list[torch.Tensor] = []
    second = hessian if covariance == FULL else hessian_diagonal
    for parameters, own_x, own_y, shape in _together(like, x, y, weights, covariance):
        found = [
            mean_losses(model, parameters, own_x, own_y),
            flatten(model.gradients(parameters, own_x, own_y)),
            second(model, parameters, own_x, own_y),
        ]
        found = [part.view(*shape, *part.shape[1:]).sum(dim=0) for part in found]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return tuple(part / len(weights) for part in total)


def _slopes(
    model: FeedForward, like: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Gradient of the mean loss, mean over weights (s, R, P)."""
    parts = _together(like, x, y, weights, DIAGONAL)
    found = [flatten(model.gradients(own, *objects)).view(*shape, -1).sum(dim=0) for own, *objects, shape in parts]
    return torch.stack(found).sum(dim=0) / len(weights)


def _together(
    like: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, covariance: str
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, tuple[int, int]]]:
    """Draws as one stack of networks with their objects, as many draws at a time as fit in memory."""
    networks, size = weights.shape[1:]
    held = size * size if covariance == FULL else size + x[0].numel()
    at_once = max(1, BYTES // (held * networks * weights.element_size()))
    for part in weights.split(at_once):
        own_x, own_y = (tensor.expand(len(part), *tensor.shape).flatten(0, 1) for tensor in (x, y))
        yield unflatten(part.flatten(0, 1), like), own_x, own_y, (len(part), networks)


def _scale(regression: bool, count: int, noise: torch.Tensor, shape: str) -> torch.Tensor:
    """What makes the mean loss -log p(D | w) up to a constant, shaped to act on vectors or matrices."""
    scale = count / (2 * noise) if regression else torch.full_like(noise, count)
    return scale[:, None, None] if shape == FULL else scale[:, None]


def _ridge(alpha: torch.Tensor, precision: torch.Tensor) -> torch.Tensor:
    if precision.dim() == 2:
        return alpha[:, None]
    return alpha[:, None, None] * torch.eye(precision.shape[-1], dtype=alpha.dtype, device=alpha.device)


def _definite(curvature: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """A positive definite matrix to start from: the curvature's absolute value, and the prior."""
    if curvature.dim() == 2:
        return curvature.abs() + alpha[:, None]
    values, vectors = torch.linalg.eigh(curvature)
    return (vectors * (values.abs() + alpha[:, None])[:, None]) @ vectors.mT


def _factor(precision: torch.Tensor) -> torch.Tensor:
    """L of S = L Lᵀ; of a diagonal its root."""
    if precision.dim() == 2:
        return precision.sqrt()
    factor, failed = torch.linalg.cholesky_ex(precision)
    if bool(failed.any()):
        raise MeasurementFailed(DIVERGED)
    return factor


def _solve(factor: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Draws (s, R, P) of N(0, S⁻¹) from standard normal ones; S = L Lᵀ."""
    if factor.dim() == 2:
        return drawn / factor
    return torch.linalg.solve_triangular(factor.mT, drawn.permute(1, 2, 0), upper=True).permute(2, 0, 1)


def _inverse(factor: torch.Tensor) -> torch.Tensor:
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    half = torch.linalg.solve_triangular(factor, identity, upper=False)
    return half.mT @ half


def _variances(factor: torch.Tensor) -> torch.Tensor:
    """Diagonal of S⁻¹, (R, P)."""
    return 1 / factor.square() if factor.dim() == 2 else _inverse(factor).diagonal(dim1=-2, dim2=-1)


def _bound(
    loss: torch.Tensor,
    noise: torch.Tensor,
    alpha: torch.Tensor,
    mean: torch.Tensor,
    variances: torch.Tensor,
    factor: torch.Tensor,
    count: int,
    regression: bool,
) -> torch.Tensor:
    """E_q[log p(D | w)] - KL(q || N(0, I/α)), (R,)."""
    fit = -count * (loss / (2 * noise) + (2 * math.pi * noise).log() / 2) if regression else -count * loss
    diagonal = factor if factor.dim() == 2 else factor.diagonal(dim1=-2, dim2=-1)
    size = mean.shape[1]
    spread = alpha * (mean.square() + variances).sum(dim=1)
    return fit - (spread - size - size * alpha.log() + 2 * diagonal.log().sum(dim=1)) / 2
