"""The methods by name, nine classical ones and the thesis's four, their thresholds, and the rule from a curve to m*.

Nothing here computes a statistic: what only draws stored results starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AS_DEFINED, AS_PUBLISHED = "as_defined", "as_published"
AT_MOST, AT_LEAST, LARGEST, NEAR_LAST = "at most", "at least", "largest", "near its last value"
LAGRANGE, LIKELIHOOD_RATIO, WALD = "lagrange", "likelihood_ratio", "wald"
TESTS = (LAGRANGE, LIKELIHOOD_RATIO, WALD)
CROSS_VALIDATION, BOOTSTRAP = "cross_validation", "bootstrap"
APVC, ACC, ALC, UTILITY = "apvc", "acc", "alc", "utility"
D, M, KL, S = "d", "m", "kl", "s"  # Definitions 11, 12, 14, 15


@dataclass(frozen=True)
class Method:
    """A method of sample size determination."""

    name: str
    title: str
    statistic: str  # what it watches, as a label
    rule: str  # AT_MOST or AT_LEAST its threshold, LARGEST, or NEAR_LAST: within a share of its last value


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(LAGRANGE, "Lagrange multipliers", r"$m\gamma^0$", AT_LEAST),
        Method(LIKELIHOOD_RATIO, "Likelihood ratio", r"$m\Delta^*$", AT_LEAST),
        Method(WALD, "Wald", r"$m\delta$", AT_LEAST),
        Method(CROSS_VALIDATION, "Cross-validation", "RS, nats", AT_MOST),
        Method(BOOTSTRAP, "Bootstrap", "widest interval", AT_MOST),
        Method(APVC, "APVC", r"$E\,D[w|\mathfrak{D}_m]$", AT_MOST),
        Method(ACC, "ACC", r"$E\,P(\|w-\hat w\|\leq l)$", AT_LEAST),
        Method(ALC, "ALC", r"$E\,r_m$", AT_MOST),
        Method(UTILITY, "Utility", r"$E\,u$, nats", LARGEST),
        Method(D, "D-sufficiency", "$D(k)$, nats²", AT_MOST),
        Method(M, "M-sufficiency", "$M(k)$, nats", AT_MOST),
        Method(KL, "KL-sufficiency", "$KL(k)$, nats", NEAR_LAST),
        Method(S, "S-sufficiency", "$S(k)$", NEAR_LAST),
    )
}
CLASSICAL = tuple(name for name in METHODS if name not in (D, M, KL, S))
COMPARED = (*CLASSICAL, KL, S)  # in Table 3.6 and Fig 3.12


@dataclass(frozen=True)
class Thresholds:
    """Table 3.3, and the models' ridge."""

    shift: float = 0.2  # ε of the three tests
    alpha: float = 0.05
    beta: float = 0.2
    overfitting: float = 0.05  # ε of cross-validation
    width: float = 0.5  # l of the bootstrap
    variance: float = 0.5  # l of APVC
    coverage_radius: float = 0.25  # l of ACC
    radius: float = 0.5  # l of ALC
    cost: float = 0.005  # c of the utility
    ridge: float = 0.01
    part: float = 0.5  # of their first value, that D and M are to fall to (Table 3.4)
    deviation: float = 0.05  # of their last value, that KL and S may be away from it (Table 3.6)
    precision: float = 1.0  # α of the prior whose posteriors KL and S compare, σ² = 1


@dataclass(frozen=True, eq=False)
class Curve:
    """A method's statistic along the sample size."""

    method: str
    sizes: np.ndarray  # (S,)
    values: np.ndarray  # (S,): means over resamples, the bootstrap's one value
    errors: np.ndarray  # (S,): their standard errors; NaN for the bootstrap
    threshold: float  # NaN for the utility; a share for NEAR_LAST
    separable: np.ndarray  # (S,): share of resamples whose classes a plane separates


@dataclass(frozen=True)
class Sufficient:
    """A sufficient sample size, or that there is none."""

    size: int | None  # m*; None: not reached
    first: bool = False  # it is the smallest size that was looked at: the true one may be smaller
    reason: str = ""  # why there is none


def sufficient(curve: Curve, variant: str = AS_DEFINED) -> Sufficient:
    """m*: the smallest size from which the rule holds for all larger ones; as published, the first where it holds."""
    rule, sizes = METHODS[curve.method].rule, curve.sizes
    if rule == LARGEST:
        place = int(np.argmax(curve.values))
        if variant == AS_DEFINED and place == len(sizes) - 1:
            return Sufficient(None, reason="still rising at the last size")
        return Sufficient(int(sizes[place]), first=place == 0)
    if rule == NEAR_LAST:
        holds = np.abs(curve.values - curve.values[-1]) <= curve.threshold * abs(curve.values[-1])
    else:
        holds = curve.values <= curve.threshold if rule == AT_MOST else curve.values >= curve.threshold
    if variant == AS_PUBLISHED and rule != NEAR_LAST:
        if not holds.any():
            return Sufficient(None, reason="not reached")
        place = int(np.argmax(holds))
        return Sufficient(int(sizes[place]), first=place == 0)
    size = settled_from(sizes, holds)
    return Sufficient(size, first=size == sizes[0], reason="" if size is not None else "not reached")


def settled_from(sizes: np.ndarray, holds: np.ndarray) -> int | None:
    """The smallest size from which a rule holds for all larger ones; None where it does not hold at the last.

    Parameters
    ----------
    sizes, holds
        (S,), ascending, and bool (S,).
    """
    if not holds[-1]:
        return None
    broken = np.flatnonzero(~holds)
    return int(sizes[broken[-1] + 1]) if len(broken) else int(sizes[0])
