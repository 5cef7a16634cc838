"""Trace and diagonal of a curvature operator: exact, or by Hutchinson's estimator with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from landscape_cli.curvature.dense import jacobian_chunk, jacobians, output_hessians
from landscape_cli.curvature.operators import CurvatureOperator, GaussNewton


@dataclass(frozen=True)
class Estimate:
    """A mean over random probes."""

    value: torch.Tensor  # () of a trace, (P,) of a diagonal; float64
    standard_error: torch.Tensor  # the same shape
    probes: int


def diagonal(operator: CurvatureOperator) -> torch.Tensor:
    """Exact diagonal, (P,), float64; of the Hessian it costs as many products as there are parameters."""
    objective = operator.objective
    found = torch.zeros(objective.size, dtype=torch.float64, device=objective.device)
    if isinstance(operator, GaussNewton):
        size = jacobian_chunk(objective)
        for begin in range(0, objective.objects, size):
            x, y = objective.x[begin : begin + size], objective.y[begin : begin + size]
            jacobian, (curvature, _) = jacobians(objective, x), output_hessians(objective, x, y)
            found += (jacobian * (curvature @ jacobian)).sum(dim=(0, 1)).double()
        return found / objective.objects
    for name, part in objective.slices.items():
        size = part.stop - part.start
        _, together = objective.chunks(size)
        for first in range(0, size, together):
            count = min(together, size - first)
            directions = torch.zeros(count, size, dtype=objective.dtype, device=objective.device)
            directions[range(count), range(first, first + count)] = 1
            rows = operator.columns({name: directions.view(count, *objective.fixed[name].shape)}, [name])
            begin = part.start + first
            found[begin : begin + count] = rows[range(count), range(first, first + count)]
    return found


def trace(operator: CurvatureOperator) -> float:
    """Exact trace; see :func:`diagonal` for its cost."""
    return float(diagonal(operator).sum())


def hutchinson_trace(operator: CurvatureOperator, probes: int, generator: torch.Generator | None = None) -> Estimate:
    """Mean of vᵀ A v over vectors v of random signs: the trace in expectation (Hutchinson 1990).

    Parameters
    ----------
    probes
        Number of vectors, at least 2.
    generator
        On the CPU, so that every device sees the same vectors; None: torch's own.
    """
    values = [(v.double() * av.double()).sum(dim=0) for v, av in _probed(operator, probes, generator)]
    return _estimate(torch.cat(values))


def hutchinson_diagonal(operator: CurvatureOperator, probes: int, generator: torch.Generator | None = None) -> Estimate:
    """Mean of v ∘ A v over vectors v of random signs: the diagonal in expectation (Bekas et al. 2007)."""
    total = squares = torch.zeros(operator.shape[0], dtype=torch.float64, device=operator.objective.device)
    for v, av in _probed(operator, probes, generator):
        values = v.double() * av.double()
        total, squares = total + values.sum(dim=1), squares + values.square().sum(dim=1)
    mean = total / probes
    variance = (squares / probes - mean**2).clamp(min=0) * probes / (probes - 1)
    return Estimate(mean, (variance / probes).sqrt(), probes)


def hutchinson_frobenius(
    operator: CurvatureOperator, probes: int, generator: torch.Generator | None = None
) -> Estimate:
    """Frobenius norm from the mean of ‖A v‖² over vectors v of random signs, whose expectation is ‖A‖_F².

    Its standard error is to first order that of the mean over twice the norm.
    """
    squares = [av.double().square().sum(dim=0) for _, av in _probed(operator, probes, generator)]
    found = _estimate(torch.cat(squares))
    norm = found.value.sqrt()
    return Estimate(norm, found.standard_error / (2 * norm.clamp(min=torch.finfo(torch.float64).tiny)), probes)


def signs(shape: tuple[int, ...], generator: torch.Generator | None) -> torch.Tensor:
    """Random signs, float32, drawn on the CPU."""
    return torch.randint(2, shape, generator=generator).mul_(2).sub_(1).float()


def _probed(operator: CurvatureOperator, probes: int, generator: torch.Generator | None) -> Iterator[tuple]:
    if probes < 2:
        raise ValueError(f"a standard error takes at least 2 probes, not {probes}")
    _, together = operator.objective.chunks(probes)
    for begin in range(0, probes, together):
        count = min(together, probes - begin)
        vectors = signs((count, operator.shape[0]), generator).to(operator.objective.device, operator.dtype).T
        yield vectors, operator @ vectors


def _estimate(values: torch.Tensor) -> Estimate:
    return Estimate(values.mean(), values.std() / math.sqrt(len(values)), len(values))
