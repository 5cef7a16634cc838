"""The law by which |L_{k+1} - L_k| falls: its fitted power, where it is small enough, which k are stored. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from landscape_cli.statistics import log_log_slope

DENSE = 5000  # so many first values of a long curve are stored, and as many of the rest
BINS = 20  # over the last decade of k, equally wide in its logarithm


@dataclass(frozen=True)
class PowerLaw:
    """d_k = coefficient · k^(-exponent), fitted over the last decade of k."""

    coefficient: float  # in the unit of the loss; NaN where a value that is zero has no logarithm
    exponent: float

    def at(self, k: float) -> float:
        """Its value at k objects."""
        return self.coefficient * k**-self.exponent

    def reaches(self, threshold: float) -> float:
        """The k at which it falls to a threshold; infinite if it never does, NaN if there is no fit."""
        if math.isnan(self.exponent):
            return math.nan
        if self.exponent <= 0:
            return math.inf
        return (self.coefficient / threshold) ** (1 / self.exponent)


def power_law(k: np.ndarray, values: np.ndarray, last: int | None = None) -> PowerLaw:
    """Fit log d_k against log k by least squares over the last decade of k.

    Values are first averaged in 20 bins equally wide in log k, so that the many large k do not outweigh the few small
    ones.

    Parameters
    ----------
    k, values
        (n,), k ascending: means over orderings, not their moving average, whose start-up would steepen the law.
    last
        Where the decade ends; None: at the last k.
    """
    last = int(k.max()) if last is None else last
    tail = k >= last / 10
    k, values = k[tail].astype(float), values[tail]
    place = np.digitize(k, np.geomspace(last / 10, last + 1, BINS + 1))
    counts = np.bincount(place)
    there = counts > 0
    x, y = (np.bincount(place, weights)[there] / counts[there] for weights in (k, values))
    if len(x) < 2 or not (y > 0).all():
        return PowerLaw(math.nan, math.nan)
    slope = float(log_log_slope(x, y))
    return PowerLaw(float(np.exp(np.log(y).mean() - slope * np.log(x).mean())), -slope)


def suited_smoothing(objects: int) -> float:
    """Choose the moving average's a for so many objects: 0.99, less where its window is over a twentieth of them."""
    return min(0.99, max(0.0, 1 - 20 / objects))


def stored_k(last: int) -> np.ndarray:
    """The k of a curve that ends at `last` whose values are stored.

    All up to DENSE, then as many again evenly spaced, the last among them. Every value is computed from all that come
    before it; a longer table would only take space.
    """
    if last <= 2 * DENSE:
        return np.arange(1, last + 1)
    return np.concatenate([np.arange(1, DENSE + 1), np.linspace(DENSE, last, DENSE + 1).round().astype(int)[1:]])
