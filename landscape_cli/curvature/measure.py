"""The landscape measure μ_f(f|D) = mean_i ‖H_i(θ) - H̄(θ)‖₂ (Definition 10, thesis 1.3), no H_i ever built."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from landscape_cli.curvature.dense import BYTE_CAP, dense
from landscape_cli.curvature.objective import Objective
from landscape_cli.curvature.operators import Hessian
from landscape_cli.curvature.spectrum import SEED, many_norms

STEPS = 15  # products that a norm usually takes: what building the mean Hessian is weighed against
BASIS = 2**29  # bytes of Lanczos vectors held at a time, where the norms take twice the usual number of products


@dataclass(frozen=True)
class LandscapeMeasure:
    """How far the Hessians of single objects are from their mean."""

    norms: torch.Tensor  # (n,) float64, ‖H_i - H̄‖₂ of the sampled objects
    residuals: torch.Tensor  # (n,) of their eigenpairs, in the same unit
    sampled: torch.Tensor  # (n,) which objects
    objects: int  # N, over which H̄ is the mean

    @property
    def mean(self) -> float:
        """μ_f, the mean over the sampled objects."""
        return float(self.norms.mean())

    @property
    def maximum(self) -> float:
        """Largest of the sampled objects: what the bound (1.9) needs in the place of the mean."""
        return float(self.norms.max())

    @property
    def standard_error(self) -> float:
        """Of the mean, for the objects that were not sampled; zero if all were."""
        n = len(self.norms)
        if n == self.objects:
            return 0.0
        return float(self.norms.std()) / math.sqrt(n) * math.sqrt(1 - n / self.objects) if n > 1 else math.nan


def landscape_measure(
    objective: Objective,
    sampled: torch.Tensor | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 200,
    byte_cap: int = BYTE_CAP,
) -> LandscapeMeasure:
    """Measure μ_f at the objective's parameters.

    The norms of all sampled objects are found side by side by Lanczos iterations. The mean Hessian is built where that
    is cheaper than its products and fits under the cap, else it is applied without being built.

    Parameters
    ----------
    sampled
        Indices (n,) of the objects whose norms are taken; None: all N.
    tolerance
        Residual of each norm, relative to it.
    max_steps
        Products a norm, at most.

    Raises
    ------
    NotConverged
        Some norms did not reach the tolerance.
    """
    operator, size = Hessian(objective), objective.size
    sampled = torch.arange(objective.objects) if sampled is None else sampled
    if not len(sampled):
        raise ValueError("no object is sampled; allowed: one or more")
    sampled = sampled.to(objective.device)
    if sampled.dtype == torch.bool or int(sampled.min()) < 0 or int(sampled.max()) >= objective.objects:
        raise ValueError(f"sampled: allowed: indices from 0 to {objective.objects - 1}")
    if len(sampled.unique()) < len(sampled):
        raise ValueError("sampled: an object is named twice; its norm would count twice, and the error be too small")
    cheap = size <= STEPS * len(sampled) and size**2 * objective.dtype.itemsize <= byte_cap
    mean = dense(operator, byte_cap=byte_cap) if cheap else None
    generator = torch.Generator().manual_seed(SEED)
    together = max(1, BASIS // (8 * size * 2 * STEPS))
    norms, residuals = [], []
    for chosen in sampled.split(together):

        def product(active: torch.Tensor, vectors: torch.Tensor, chosen: torch.Tensor = chosen) -> torch.Tensor:
            vectors = vectors.to(objective.dtype)
            own = Hessian(objective.of_objects(chosen[active])).each(vectors)
            return own - (vectors @ mean if mean is not None else (operator @ vectors.T).T)

        start = torch.randn(len(chosen), size, generator=generator, dtype=torch.float64).to(objective.device)
        found = many_norms(product, start, tolerance, max_steps)
        norms.append(found.values)
        residuals.append(found.residuals)
    return LandscapeMeasure(torch.cat(norms), torch.cat(residuals), sampled, objective.objects)
