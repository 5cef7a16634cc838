"""One method beside several others, seed by seed."""

from __future__ import annotations

import math

import pandas as pd

from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED
from landscape_cli.statistics import Interval, equivalence_verdict, mean_interval, sign_verdict


def level(differences: pd.DataFrame) -> float:
    """Coverage of each rival's interval with which all hold together in 95 % of the cases (Bonferroni)."""
    return 1 - 0.05 / differences.shape[1]


def nearest(differences: pd.DataFrame) -> tuple[str, Interval]:
    """The rival (column) with the smallest mean difference over seeds (rows), and its simultaneous interval."""
    if differences.empty:
        return "", Interval(math.nan, math.nan, math.nan)
    rival = differences.mean().idxmin()
    return rival, mean_interval(differences[rival].to_numpy(), level(differences))


def all_positive(differences: pd.DataFrame) -> str:
    """Judge "every difference is positive" by simultaneous intervals."""
    if differences.empty:
        return INCONCLUSIVE
    found = [mean_interval(differences[rival].to_numpy(), level(differences)) for rival in differences]
    return _all([sign_verdict(interval, 1) for interval in found])


def all_within(differences: pd.DataFrame, limit: float) -> str:
    """Judge "every difference is at most so large, of either sign" by simultaneous intervals."""
    found = [mean_interval(differences[rival].to_numpy(), level(differences)) for rival in differences]
    return _all([equivalence_verdict(interval, -limit, limit) for interval in found])


def _all(verdicts: list[str]) -> str:
    if NOT_REPRODUCED in verdicts:
        return NOT_REPRODUCED
    return REPRODUCED if set(verdicts) == {REPRODUCED} else INCONCLUSIVE
