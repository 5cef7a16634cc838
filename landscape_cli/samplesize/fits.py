"""Ridge fits of linear and logistic regressions for many weightings of one design at once.

A resample is a row of weights: how often each object is in it. The Gram matrices of all resamples of a size are then
one matrix product with the table of the objects' outer products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape_cli.errors import MeasurementFailed
from landscape_cli.samplesize.design import Design

CONVERGED = 1e-4  # largest change of a linear predictor in a Newton step; the next one's would be about its square
MAX_STEPS = 100
LOG_2_PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class Fits:
    """Fits of K weightings."""

    coefficients: np.ndarray  # (K, n)
    information: np.ndarray  # (K, n, n): -∇² of the log-likelihood (σ² = 1) plus the ridge
    gram: np.ndarray  # (K, n, n): the same without the ridge
    squares: np.ndarray  # (K,): a regression's sum of squared residuals; NaN for two classes
    count: np.ndarray  # (K,): objects in each
    separable: np.ndarray  # bool (K,): a plane has all objects of a class on one side; never for a regression


def sigmoid(t: np.ndarray) -> np.ndarray:
    """1/(1 + e^-t); numpy's vectorised exponential makes it several times faster than scipy's expit."""
    with np.errstate(over="ignore"):  # e^-t is infinite where the answer is 0
        p = np.exp(-t)
    p += 1
    return np.reciprocal(p, out=p)


def log_sigmoid(t: np.ndarray) -> np.ndarray:
    """Logarithm of sigmoid(t), to rounding error of 1."""
    p = np.exp(-np.abs(t))
    p += 1
    return np.minimum(t, 0) - np.log(p, out=p)


def fit(design: Design, weights: np.ndarray, ridge: float, start: np.ndarray | None = None) -> Fits:
    """Maximise log-likelihood minus ½ ridge ‖w‖² for every weighting, with σ² = 1.

    Parameters
    ----------
    design
        m objects, n features.
    weights
        (K, m), 0 or more.
    ridge
        α, 0 or more; the constant is penalised like the features, as in the published code.
    start
        (K, n) for logistic regression: from where Newton's method starts; None: from 0.

    Raises
    ------
    MeasurementFailed
        A logistic fit does not converge: separable classes without a ridge.
    """
    weights = np.asarray(weights, dtype=float)
    if design.linear:
        return _linear(design, weights, ridge)
    return at(design, weights, ridge, *fit_logistic(design, design.y, weights, ridge, start))


def at(
    design: Design, weights: np.ndarray, ridge: float, coefficients: np.ndarray, gram: np.ndarray | None = None
) -> Fits:
    """What logistic regressions with these coefficients (K, n) are, whether or not they are fits."""
    if gram is None:
        p = sigmoid(coefficients @ design.X.T)
        gram = design.gram(weights * p * (1 - p))
    margins = coefficients @ design.signed.T
    return Fits(
        coefficients=coefficients,
        information=gram + ridge * np.eye(design.features),
        gram=gram,
        squares=np.full(len(weights), np.nan),
        count=weights.sum(axis=1),
        separable=np.all((margins > 0) | (weights == 0), axis=1),
    )


def _linear(design: Design, weights: np.ndarray, ridge: float) -> Fits:
    gram, against = design.gram(weights), weights @ design.against
    information = gram + ridge * np.eye(design.features)
    coefficients = np.linalg.solve(information, against[:, :, None])[:, :, 0]
    pulled = (gram @ coefficients[:, :, None])[:, :, 0] - 2 * against
    return Fits(
        coefficients=coefficients,
        information=information,
        gram=gram,
        squares=weights @ design.y**2 + np.sum(coefficients * pulled, axis=1),
        count=weights.sum(axis=1),
        separable=np.zeros(len(weights), dtype=bool),
    )


def log_likelihood(design: Design, weights: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Log-likelihood of each weighting's objects under its own coefficients, σ² = 1: (K, m) and (K, n) -> (K,)."""
    if design.linear:
        residuals = design.y - coefficients @ design.X.T
        return -0.5 * np.sum(weights * (residuals**2 + LOG_2_PI), axis=1)
    return np.sum(weights * log_sigmoid(coefficients @ design.signed.T), axis=1)


def fit_logistic(
    design: Design,
    targets: np.ndarray,
    weights: np.ndarray,
    ridge: float | np.ndarray,
    start: np.ndarray | None = None,
    offset: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method for K logistic regressions at once.

    Steps are shortened to ln(1 + ρ)/ρ of Newton's, ρ the largest change of a linear predictor: logistic losses change
    their curvature by at most a factor exp(ρ) on the way, so that such a step never goes up.

    Parameters
    ----------
    targets
        (m,) or (K, m), in [0, 1].
    weights
        (K, m).
    ridge
        One for all coefficients, or (n,).
    start
        (K, n); None: zeros.
    offset
        (K, m) added to the linear predictors; None: zeros.

    Returns
    -------
    Coefficients (K, n), to about 1e-8 of a linear predictor; Σ_i weights_i p_i (1 - p_i) x_i x_iᵀ, (K, n, n), where the
    last step began, to about 1e-4 of itself.
    """
    K, n = len(weights), design.features
    w = np.zeros((K, n)) if start is None else np.array(start, dtype=float)
    gram, penalty = np.empty((K, n, n)), np.diag(np.broadcast_to(np.asarray(ridge, dtype=float), n))
    active, own, inside = np.arange(K), weights, (weights > 0).astype(float)
    aims = (weights * targets) @ design.X  # Σ weights targets x
    predictor = w @ design.X.T if offset is None else w @ design.X.T + offset
    for _ in range(MAX_STEPS):
        p = sigmoid(predictor)
        weighted = own * p
        gradient = aims[active] - weighted @ design.X - w[active] @ penalty
        p *= weighted
        weighted -= p
        gram[active] = curvature = design.gram(weighted)
        try:
            step = np.linalg.solve(curvature + penalty, gradient[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError as error:
            raise MeasurementFailed("a logistic regression has no curvature left: give it a ridge") from error
        change = step @ design.X.T
        np.multiply(change, inside, out=weighted)
        largest = np.maximum(weighted.max(axis=1), -weighted.min(axis=1))
        damping = np.where(largest > CONVERGED, np.log1p(largest) / np.maximum(largest, CONVERGED), 1.0)
        w[active] += damping[:, None] * step
        going = largest > CONVERGED
        if not going.any():
            return w, gram
        change *= damping[:, None]
        predictor += change
        if going.mean() < 0.8:  # else copying costs more than it saves
            active, own, inside, predictor = active[going], own[going], inside[going], predictor[going]
    raise MeasurementFailed(
        f"{len(active)} of {K} logistic regressions did not converge in {MAX_STEPS} steps: are the classes separable? "
        "Give them a ridge, or a larger one"
    )
