"""Intervals over seeds and the verdicts drawn from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided confidence interval (Student's t)."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of independent values and its t interval.

    Parameters
    ----------
    values
        Shape (n,), one value a seed. With n = 1 the interval is infinite; with n = 0 everything is NaN.
    level
        Coverage of the interval.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, -math.inf, math.inf)
    half = stdtrit(values.size - 1, 0.5 + level / 2) * values.std(ddof=1) / math.sqrt(values.size)
    return Interval(mean, mean - float(half), mean + float(half))


def sign_verdict(interval: Interval, sign: int) -> str:
    """Judge "the effect has this sign": the whole interval on that side, on the other side, or neither."""
    if sign * interval.low > 0 and sign * interval.high > 0:
        return REPRODUCED
    if sign * interval.low < 0 and sign * interval.high < 0:
        return NOT_REPRODUCED
    return INCONCLUSIVE


def equivalence_verdict(interval: Interval, low: float, high: float) -> str:
    """Judge "the effect lies in [low, high]": the whole interval inside, wholly outside, or neither."""
    if low <= interval.low and interval.high <= high:
        return REPRODUCED
    if interval.high < low or interval.low > high:
        return NOT_REPRODUCED
    return INCONCLUSIVE


def log_log_slope(x: Sequence[float] | np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of log y against log x.

    Parameters
    ----------
    x
        Shape (n,), positive, at least two different values.
    y
        Shape (..., n), positive.

    Returns
    -------
    Shape (...).
    """
    u = np.log(np.asarray(x, dtype=float))
    u = u - u.mean()
    return np.log(np.asarray(y, dtype=float)) @ u / (u @ u)


def turning(groups: Sequence[np.ndarray], level: float = 0.95) -> Interval:
    """How far a sequence of means turns: the smaller of its largest rise and its largest fall between two places.

    Positive: the means rise somewhere and fall somewhere, so they are not monotone. Negative: they only rise or only
    fall, and it is minus the smallest step. The interval is simultaneous over all pairs (Tukey's honestly significant
    differences), so that the many pairs of a long sequence do not make one turn by chance.

    Parameters
    ----------
    groups
        Independent values at each place, in order; at least three places. Equal variances are assumed.

    Returns
    -------
    Infinite if a place has fewer than two values.
    """
    means = np.array([group.mean() for group in groups])
    pairs = np.triu_indices(len(groups), 1)
    rises = means[pairs[1]] - means[pairs[0]]
    effect = float(min(rises.max(), (-rises).max()))
    if min(len(group) for group in groups) < 2:
        return Interval(effect, -math.inf, math.inf)
    from scipy.stats import tukey_hsd  # takes a second to import

    with np.errstate(divide="ignore", invalid="ignore"):  # its statistic, of values that are all equal
        interval = tukey_hsd(*groups).confidence_interval(level)
    low, high = interval.low.T[pairs], interval.high.T[pairs]  # of mean_j - mean_i, i < j
    return Interval(effect, float(min(low.max(), (-high).max())), float(min(high.max(), (-low).max())))
