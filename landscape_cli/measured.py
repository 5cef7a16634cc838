"""What the functions of :mod:`landscape_cli.api` return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape_cli.convergence.laws import PowerLaw
from landscape_cli.samplesize.rules import METHODS, Curve, Sufficient, settled_from

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class LossDifferenceCurve:
    """How the mean loss L_k of the first k objects settles along random orderings of them."""

    k: np.ndarray  # (n,) int64; up to 10000 objects every k = 1 … N-1, of more a part
    mean: np.ndarray  # (n,) mean |L_{k+1} - L_k| over orderings, in units of the loss
    standard_error: np.ndarray  # (n,) of that mean
    smoothed: np.ndarray  # (n,) its exponential moving average
    losses: np.ndarray  # (N,) float64, one an object
    accuracy: float  # share of objects classified rightly; NaN where there are no classes
    law: PowerLaw  # fitted over the last decade of k

    def sufficient(self, threshold: float) -> Sufficient:
        """The smallest k from which the smoothed mean stays at or below a threshold, or that there is none.

        What is not reached with these objects is no number here; :meth:`PowerLaw.reaches` extrapolates.

        Parameters
        ----------
        threshold
            In units of the loss.
        """
        size = settled_from(self.k, self.smoothed <= threshold)
        return Sufficient(size, size == self.k[0], "" if size is not None else "not reached")


@dataclass(frozen=True, eq=False)
class HessianSpectrum:
    """Eigenvalues of the Hessian of the mean loss, in units of the loss per parameter²."""

    eigenvalues: np.ndarray  # (top,) largest first
    residuals: np.ndarray  # (top,) ‖Hv - λv‖₂
    smallest: float  # the most negative, or least, eigenvalue
    smallest_residual: float
    grid: np.ndarray  # (G,) where the density is taken; (0,) where there was no room for one
    density: np.ndarray  # (G,) of eigenvalues, smoothed; integrates to 1
    standard_error: np.ndarray  # (G,) over probes
    parameters: int  # P
    objects: int  # N
    steps: int  # of Lanczos, behind the density; fewer than were asked for where there was no room for more

    @property
    def norm(self) -> float:
        """‖H‖₂."""
        return max(abs(float(self.eigenvalues[0])), abs(self.smallest))

    def gradient_step(self, gradient_norm: float) -> float:
        """What a step along the gradient can still lower the mean loss by, to second order: ‖∇L‖²/(2‖H‖₂).

        Parameters
        ----------
        gradient_norm
            ‖∇L‖₂, in units of the loss per parameter.
        """
        return gradient_norm**2 / (2 * self.norm) if self.norm else math.nan


@dataclass(frozen=True, eq=False)
class SampleSizes:
    """How many objects are enough by each method, of those that are there."""

    sizes: Mapping[str, Sufficient]  # method -> m*, or the reason why there is none
    curves: Mapping[str, Curve]  # method -> its statistic along the sample size
    available: int  # m
    task: str  # regression or classification

    def frame(self) -> pd.DataFrame:
        """A row a method: its name, m* (missing where it was not reached) and the reason."""
        import pandas as pd

        rows = [(METHODS[name].title, found.size, found.reason) for name, found in self.sizes.items()]
        frame = pd.DataFrame(rows, columns=["method", "m_star", "reason"])
        return frame.astype({"m_star": "Int64"})
