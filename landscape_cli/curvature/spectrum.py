"""Eigenvalues of curvature operators from their products alone: extreme pairs, norms, spectral density."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from landscape_cli.curvature.operators import CurvatureOperator
from landscape_cli.errors import MeasurementFailed

SMALL = 64  # parameters, up to which a dense solver is quicker than any iteration
BASIS_CAP = 2**31  # bytes of Lanczos vectors that a density holds at a time
SEED = 0  # of starting vectors: the same command twice gives the same digits


class NotConverged(MeasurementFailed):
    """An iteration ended before its tolerance was reached."""


@dataclass(frozen=True)
class Eigenpairs:
    """Some eigenvalues with their vectors."""

    values: np.ndarray  # (k,) float64, largest magnitude (or value) first
    vectors: np.ndarray  # (P, k) float64, of unit length
    residuals: np.ndarray  # (k,) ‖A v - λ v‖₂, in units of the eigenvalues


@dataclass(frozen=True)
class SpectralDensity:
    """A smoothed density of eigenvalues."""

    grid: np.ndarray  # (G,) eigenvalues
    density: np.ndarray  # (G,) per unit of eigenvalue; integrates to 1
    standard_error: np.ndarray  # (G,) over probes
    width: float  # standard deviation of the Gaussian that smooths it
    nodes: np.ndarray  # (probes, steps) Ritz values
    weights: np.ndarray  # (probes, steps), each row sums to 1


def top_eigenpairs(
    operator: CurvatureOperator,
    k: int = 1,
    which: Literal["magnitude", "largest", "smallest"] = "magnitude",
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    norm: float | None = None,
) -> Eigenpairs:
    """Extreme eigenpairs by ARPACK's implicitly restarted Lanczos iteration.

    Parameters
    ----------
    which
        Largest in magnitude, largest, or smallest (most negative).
    tolerance
        Every residual ‖A v - λ v‖ is at most this share of ‖A‖₂; it bounds the eigenvalue's error.
    max_steps
        Restarts, at most.
    norm
        An eigenvalue of the other end, by magnitude, where it is known: that saves the run that finds ‖A‖₂.

    Raises
    ------
    NotConverged
        With the number of pairs found and the residuals reached.
    """
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    size, objective = operator.shape[0], operator.objective
    if not 1 <= k <= size:
        raise ValueError(f"k={k}; allowed: 1 to {size}")

    def product(vector: np.ndarray) -> np.ndarray:
        columns = torch.from_numpy(np.ascontiguousarray(vector)).to(objective.device, objective.dtype)
        return (operator @ columns).double().cpu().numpy()

    start = np.random.default_rng(SEED).standard_normal(size)
    if size <= SMALL or k >= size - 1:
        matrix = product(np.eye(size))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        scale = float(np.abs(values).max())
    elif not product(start).any():  # the zero matrix, which ARPACK takes for a failure
        values, vectors, scale = np.zeros(k), np.eye(size, k), 0.0
    else:

        def solve(number: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
            matrix = LinearOperator((size, size), lambda v: product(v.ravel()) + shift * v.ravel(), dtype=np.float64)
            try:
                values, vectors = eigsh(matrix, number, v0=start, tol=tolerance / 10, maxiter=max_steps)
            except ArpackNoConvergence as error:
                raise NotConverged(
                    f"{len(error.eigenvalues)} of {number} eigenpairs converged to {tolerance:g}, {max_steps} restarts"
                ) from error
            except ArpackError as error:
                raise NotConverged(f"the eigenvalue iteration broke off: {error}") from error
            return values - shift, vectors

        scale = norm
        if which == "magnitude" or norm is None:
            values, vectors = solve(k if which == "magnitude" else 1, 0.0)
            scale = float(np.abs(values).max())
        if which != "magnitude":  # one end of the spectrum becomes the largest in magnitude, and never zero
            values, vectors = solve(k, scale if which == "largest" else -scale)
            scale = max(scale, float(np.abs(values).max()))
    order = {"magnitude": -np.abs(values), "largest": -values, "smallest": values}[which].argsort(kind="stable")[:k]
    values, vectors = values[order], vectors[:, order]
    residuals = np.linalg.norm(product(vectors) - vectors * values, axis=0)
    worst = float(residuals.max())
    if not worst <= tolerance * scale:
        raise NotConverged(f"residual {worst:.3g}, the tolerance is {tolerance:g} of the norm {scale:.3g}")
    return Eigenpairs(values, vectors, residuals)


def spectral_norm(operator: CurvatureOperator, tolerance: float = 1e-3, max_steps: int = 1000) -> tuple[float, float]:
    """‖A‖₂, the largest |eigenvalue|, and its residual ‖A v - λ v‖₂; see :func:`top_eigenpairs`."""
    found = top_eigenpairs(operator, 1, "magnitude", tolerance, max_steps)
    return float(abs(found.values[0])), float(found.residuals[0])


def spectral_density(
    operator: CurvatureOperator,
    probes: int,
    steps: int,
    generator: torch.Generator | None = None,
    grid: np.ndarray | None = None,
    width: float | None = None,
) -> SpectralDensity:
    """Density of eigenvalues by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017).

    Probes go through the operator together, as many at a time as have room for their vectors.

    Parameters
    ----------
    probes
        Random start vectors, at least 2; the standard error is over them.
    steps
        Lanczos steps, at most P.
    generator
        On the CPU; None: torch's own.
    grid
        Where the density is wanted; None: 1001 points over the spectrum.
    width
        Of the smoothing Gaussian; None: a hundredth of the spectrum's width.
    """
    if probes < 2:
        raise ValueError(f"a standard error takes at least 2 probes, not {probes}")
    size, objective = operator.shape[0], operator.objective
    start = torch.randn(probes, size, generator=generator, dtype=torch.float64)
    start = start.to(objective.device)
    steps = min(steps, size)
    found = []
    for group in start.split(max(1, BASIS_CAP // (8 * size * steps))):
        run = Lanczos(group)
        for _ in range(steps):
            run.advance((operator @ run.last.T.to(objective.dtype)).T)
        found.append(torch.linalg.eigh(run.tridiagonal))
    nodes, rows = (torch.cat(parts) for parts in zip(*found, strict=True))
    weights = rows[:, 0, :].square().cpu().numpy()
    nodes = nodes.cpu().numpy()
    low, high = float(nodes.min()), float(nodes.max())
    spread = max(high - low, 1e-12 * max(abs(low), abs(high))) or 1.0
    width = width or spread / 100
    grid = np.linspace(low - 4 * width, high + 4 * width, 1001) if grid is None else np.asarray(grid, dtype=float)
    each = np.stack(
        [
            (np.exp(-0.5 * ((grid[:, None] - n) / width) ** 2) @ w) / (width * math.sqrt(2 * math.pi))
            for n, w in zip(nodes, weights, strict=True)
        ]
    )
    return SpectralDensity(
        grid, each.mean(axis=0), each.std(axis=0, ddof=1) / math.sqrt(probes), float(width), nodes, weights
    )


class Lanczos:
    """The Lanczos recurrence of several symmetric matrices side by side, each with its own start, in float64.

    Every new vector is made orthogonal to all before it, twice, so that no eigenvalue appears in copies.

    Parameters
    ----------
    start
        Shape (B, P); a row of zeros stays zero.
    """

    def __init__(self, start: torch.Tensor) -> None:
        self.basis = [_unit(start.double())[0]]
        self.alphas: list[torch.Tensor] = []
        self.betas: list[torch.Tensor] = []

    @property
    def last(self) -> torch.Tensor:
        """The vectors (B, P) to multiply next."""
        return self.basis[-1]

    def advance(self, product: torch.Tensor) -> None:
        """Take the matrices' products with :attr:`last`, (B, P)."""
        product = product.double()
        self.alphas.append((self.last * product).sum(dim=1))
        scale = product.norm(dim=1)
        for _ in range(2):
            for vector in self.basis:
                product = product - (vector * product).sum(dim=1, keepdim=True) * vector
        vector, length = _unit(product)
        # What is left of an invariant subspace is rounding, not a direction.
        exhausted = length <= 1e-10 * scale
        self.betas.append(torch.where(exhausted, 0.0, length))
        self.basis.append(torch.where(exhausted[:, None], 0.0, vector))

    @property
    def tridiagonal(self) -> torch.Tensor:
        """The projected matrices, (B, m, m) after m steps."""
        matrix = torch.diag_embed(torch.stack(self.alphas, dim=1))
        if len(self.alphas) > 1:
            off = torch.stack(self.betas[:-1], dim=1)
            matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        return matrix

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the matrices."""
        self.basis = [vector[rows] for vector in self.basis]
        self.alphas = [alpha[rows] for alpha in self.alphas]
        self.betas = [beta[rows] for beta in self.betas]


@dataclass(frozen=True)
class Norms:
    """Spectral norms of many symmetric matrices."""

    values: torch.Tensor  # (B,) float64
    residuals: torch.Tensor  # (B,) ‖A v - λ v‖₂
    steps: int  # of the matrix that took the most


def many_norms(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    tolerance: float,
    max_steps: int,
) -> Norms:
    """Spectral norms of many symmetric matrices at once; one that has converged leaves the others' batch.

    Parameters
    ----------
    product
        Which matrices (b,) and a vector for each (b, P) -> (b, P).
    start
        Shape (B, P).
    tolerance
        Both ends of each spectrum have residuals of at most this share of the norm.

    Raises
    ------
    NotConverged
        Some matrices have not converged after `max_steps` products.
    """
    run = Lanczos(start)
    active = torch.arange(len(start), device=start.device)
    values = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    residuals = torch.zeros_like(values)
    steps = min(max_steps, start.shape[1])
    for step in range(1, steps + 1):
        run.advance(product(active, run.last))
        if step % 4 and step < steps:
            continue
        ritz, rows = torch.linalg.eigh(run.tridiagonal)
        size = ritz.abs().amax(dim=1)
        ends = run.betas[-1][:, None] * rows[:, -1, [0, -1]].abs()
        done = (ends <= tolerance * size[:, None]).all(dim=1)
        if bool(done.any()):
            which = ritz.abs().argmax(dim=1)
            chosen = done.nonzero().squeeze(1)
            combination = rows[chosen, :, which[chosen]]
            vectors = sum(combination[:, i, None] * run.basis[i][chosen] for i in range(step))
            value = ritz[chosen, which[chosen]]
            error = product(active[chosen], vectors).double() - value[:, None] * vectors
            values[active[chosen]], residuals[active[chosen]] = value.abs(), error.norm(dim=1)
            run.keep(~done)
            active = active[~done]
        if not len(active):
            return Norms(values, residuals, step)
    raise NotConverged(
        f"{len(active)} of {len(start)} spectral norms have not converged to {tolerance:g} after {steps} products"
    )


def block_norms(
    operator: CurvatureOperator,
    blocks: Mapping[str, Sequence[str]],
    tolerance: float = 1e-3,
    max_steps: int = 200,
) -> dict[str, tuple[float, float]]:
    """Spectral norms of several diagonal blocks at once, none of them built.

    Parameters
    ----------
    blocks
        Label -> names of the block's parameters, or patterns.

    Returns
    -------
    Label -> norm and residual ‖A v - λ v‖₂.

    Raises
    ------
    NotConverged
        Some norms did not reach the tolerance.
    """
    objective = operator.objective
    masks = torch.zeros(len(blocks), objective.size, dtype=torch.bool, device=objective.device)
    for mask, names in zip(masks, blocks.values(), strict=True):
        for name in objective.part(names).names:
            mask[objective.slices[name]] = True

    def product(active: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return (operator @ vectors.T.to(objective.dtype)).T * masks[active]

    start = torch.randn(masks.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    found = many_norms(product, start.to(masks.device) * masks, tolerance, max_steps)
    return {
        label: (float(norm), float(residual))
        for label, norm, residual in zip(blocks, found.values, found.residuals, strict=True)
    }


def _unit(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of length one (zero rows stay), and the lengths."""
    lengths = vectors.norm(dim=1)
    return vectors / lengths.clamp(min=torch.finfo(vectors.dtype).tiny)[:, None], lengths
