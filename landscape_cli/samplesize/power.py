"""How many objects a test of H0: w_u = w_u⁰ needs: Lagrange multipliers, likelihood ratio, Wald (thesis 3.1).

All three statistics follow χ² with k = dim w_u degrees of freedom under H0, and a non-central χ² with parameter m γ⁰
under the alternative that the fitted parameters are the true ones; m* = γ*/γ⁰ gives the power 1 - β.

For two classes the shift of the Lagrange multipliers is that of its score's variance under the fitted model, as the
thesis has it, while the test itself takes the variance under H0: with rare classes its m* is larger than needed.

As published, γ* comes from a shifted central χ² in the place of the non-central one, the Wald test of a regression
takes the noise variance 1 and the other two the residuals' own, and the restricted fit is where scipy's Newton-CG
gives up on an objective whose gradient belongs to another ridge (the prior's precision is 1/α in one and α in the
other). Exactly solved, Lagrange multipliers and likelihood ratio agree for a regression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.stats import chi2, ncx2

from landscape_cli.errors import MeasurementFailed
from landscape_cli.samplesize import weighted_chi_square
from landscape_cli.samplesize.design import Design
from landscape_cli.samplesize.fits import Fits, fit_logistic, log_sigmoid, sigmoid
from landscape_cli.samplesize.rules import LAGRANGE, LIKELIHOOD_RATIO, TESTS, WALD

_HELD = 1e-9  # added to curvatures that a resample can leave singular


@dataclass(frozen=True, eq=False)
class Shifts:
    """What a test sees of the distance between the fitted parameters and H0, for K weightings."""

    per_object: dict[str, np.ndarray]  # γ⁰ by test, (K,)
    level: np.ndarray  # (K,): α* of the Wald test; α for a regression


def noncentrality(degrees: int, alpha: float, beta: float) -> float:
    """γ* with χ²_{k, 1-α} = χ²_{k, β}(γ*): the shift at which a test of level α has the power 1 - β.

    Parameters
    ----------
    degrees
        k, 1 or more.
    alpha, beta
        Level and missing power, inside (0, 1); α + β < 1.
    """
    if not (0 < alpha < 1 and 0 < beta < 1 and alpha + beta < 1):
        raise ValueError(f"alpha {alpha}, beta {beta}; allowed: inside (0, 1), of a sum below 1")
    critical = chi2.isf(alpha, degrees)
    return float(brentq(lambda shift: ncx2.cdf(critical, degrees, shift) - beta, 1e-9, 20 * critical + 100, xtol=1e-10))


def published_noncentrality(degrees: int, alpha: float, beta: float) -> float:
    """The same with a central χ² moved by γ, as in the published code."""
    return float(chi2.isf(alpha, degrees) - chi2.ppf(beta, degrees))


def tested(design: Design) -> np.ndarray:
    """Which parameters are w_u: the first half, the constant not among them. bool (n,)."""
    return np.arange(design.features) < design.features // 2


def shifts(
    design: Design,
    weights: np.ndarray,
    fits: Fits,
    ridge: float,
    shift: float,
    alpha: float,
    names: Iterable[str] = TESTS,
) -> Shifts:
    """γ⁰ of the tests on every weighting, as the thesis defines them.

    Parameters
    ----------
    fits
        Of these weightings.
    shift
        ε: H0 is w_u = ŵ_u + ε.
    alpha
        Level of the tests.
    names
        Of the tests that are wanted.
    """
    names = set(names)
    null = _restricted(design, weights, fits, ridge, shift)
    u, count = tested(design), fits.count
    found = {}
    if LAGRANGE in names:
        found[LAGRANGE] = _lagrange(null, u) / count
    if LIKELIHOOD_RATIO in names:
        found[LIKELIHOOD_RATIO] = null.ratio() / count
    level = np.full(len(weights), alpha)
    if WALD in names:
        variance = (null.noise[:, None, None] * np.linalg.inv(fits.information))[:, u][:, :, u]
        distance = np.full((len(weights), int(u.sum()), 1), shift)
        found[WALD] = np.sum(distance * _solve(variance, distance), axis=(1, 2)) / count
        if not design.linear:
            null_variance = np.linalg.inv(null.null_gram + ridge * np.eye(design.features))
            level = _actual_level(variance, null_variance[:, u][:, :, u], alpha)
    return Shifts(found, level)


@dataclass(frozen=True, eq=False)
class _Null:
    """The restricted fits: w_u held at ŵ_u + ε, w_v where the expected score under the fitted model vanishes."""

    noise: np.ndarray  # (K,): σ̂²; 1 for two classes
    score: np.ndarray  # (K, n): Σ (μ - μ*) x
    truth_gram: np.ndarray  # (K, n, n): Σ Var(y) x xᵀ under the fitted model
    null_gram: np.ndarray  # (K, n, n): information at the restricted fit
    ratio: Callable[[], np.ndarray]  # expected likelihood ratio statistic, (K,)


def _restricted(design: Design, weights: np.ndarray, fits: Fits, ridge: float, shift: float) -> _Null:
    u = tested(design)
    v = ~u
    restricted = fits.coefficients.copy()
    restricted[:, u] += shift
    # Exact for a regression but for the ridge; where Newton's method starts for two classes.
    moved = _solve(fits.information[:, v][:, :, v], fits.gram[:, v][:, :, u].sum(axis=2)[:, :, None])
    restricted[:, v] -= shift * moved[:, :, 0]
    if design.linear:
        noise = fits.squares / np.maximum(fits.count - design.features, 1)
        if (noise < 1e-12).any():
            raise MeasurementFailed("the residuals vanish: the target is a linear function of the features")
        step = fits.coefficients - restricted
        score = (fits.gram @ step[:, :, None])[:, :, 0]
        return _Null(
            noise=noise,
            score=score,
            truth_gram=noise[:, None, None] * fits.gram,
            null_gram=fits.gram,
            ratio=lambda: np.sum(step * score, axis=1) / noise,
        )
    held = restricted[:, u] @ design.X[:, u].T
    predictor = fits.coefficients @ design.X.T
    p = sigmoid(predictor)
    free = Design(design.X[:, v], design.y, design.task, design.objects)
    restricted[:, v], _ = fit_logistic(free, p, weights, _HELD if ridge else 0.0, restricted[:, v], held)
    null_predictor = restricted @ design.X.T
    q = sigmoid(null_predictor)

    def ratio() -> np.ndarray:
        terms = (predictor - null_predictor) * p + log_sigmoid(-predictor) - log_sigmoid(-null_predictor)
        return 2 * np.sum(weights * terms, axis=1)

    return _Null(
        noise=np.ones(len(weights)),
        score=(weights * (p - q)) @ design.X,
        truth_gram=fits.gram,
        null_gram=design.gram(weights * (q - q * q)),
        ratio=ratio,
    )


def _lagrange(null: _Null, u: np.ndarray) -> np.ndarray:
    """ξᵀ Σ⁻¹ ξ with Z* = x_u - A' x_v, whose weighted sums are those of x, transformed: (K,)."""
    v, k = ~u, int(u.sum())
    own = null.null_gram[:, v][:, :, v] + _HELD * np.eye(int(v.sum()))
    away = _solve(own, null.null_gram[:, v][:, :, u])
    transform = np.zeros((len(own), k, len(u)))
    transform[:, :, u] = np.eye(k)
    transform[:, :, v] = -np.swapaxes(away, 1, 2)
    xi = transform @ null.score[:, :, None]
    spread = transform @ null.truth_gram @ np.swapaxes(transform, 1, 2)
    return np.sum(xi * _solve(spread, xi), axis=(1, 2))


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve K systems; where copies of too few objects leave one singular, with as good as nothing added."""
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        size = matrix.shape[-1]
        added = _HELD * (1 + np.trace(matrix, axis1=1, axis2=2) / size)
        return np.linalg.solve(matrix + added[:, None, None] * np.eye(size), right)


def _actual_level(variance: np.ndarray, null_variance: np.ndarray, alpha: float) -> np.ndarray:
    """α* = P(ξᵀ Σ*⁻¹ ξ > χ²_{k, 1-α}), ξ ~ N(0, Σ): a weighted χ², exactly."""
    factor = np.linalg.cholesky(variance)
    inside = np.swapaxes(factor, 1, 2) @ np.linalg.solve(null_variance, factor)
    weights = np.linalg.eigvalsh((inside + np.swapaxes(inside, 1, 2)) / 2)
    return 1 - weighted_chi_square.cdf(chi2.isf(alpha, variance.shape[1]), np.maximum(weights, 1e-12))


def published_sizes(design: Design, ridge: float, shift: float, alpha: float, beta: float) -> dict[str, int]:
    """m* of the three tests on the whole design as the published code computes them (Table 3.2)."""
    X, y, m = design.X, design.y, design.size
    u = tested(design)
    v, k = ~u, int(u.sum())
    fitted = published_coefficients(design, np.ones((1, m)), ridge)[0]
    null = _published_restricted(design, fitted, ridge, shift)
    information, null_information = (_information(design, w, ridge) for w in (fitted, null))
    predictor, null_predictor = X @ fitted, X @ null
    if design.linear:
        mean, null_mean = predictor, null_predictor
        variance = np.full(m, (mean - y).var())
        ratio = np.mean((predictor - null_predictor) ** 2) / variance[0]
        level = alpha
    else:
        mean, null_mean = sigmoid(predictor), sigmoid(null_predictor)
        variance = mean * (1 - mean)
        terms = (predictor - null_predictor) * mean + log_sigmoid(-predictor) - log_sigmoid(-null_predictor)
        ratio = 2 * terms.mean()
        level = _published_level(information, null_information, u, alpha)
    away = np.linalg.solve(null_information[np.ix_(v, v)], null_information[np.ix_(v, u)])
    Z = X[:, u] - X[:, v] @ away
    xi, spread = (mean - null_mean) @ Z, (Z.T * variance) @ Z
    distance = fitted[u] - null[u]
    own = m * np.linalg.inv(information)[np.ix_(u, u)]
    gamma = published_noncentrality(k, alpha, beta)
    per_object = {
        LAGRANGE: (gamma, xi @ np.linalg.solve(spread, xi) / m),
        LIKELIHOOD_RATIO: (gamma, ratio),
        WALD: (published_noncentrality(k, level, beta), distance @ np.linalg.solve(own, distance)),
    }
    return {name: int(np.ceil(needed / seen)) for name, (needed, seen) in per_object.items()}


def published_coefficients(
    design: Design, weights: np.ndarray, ridge: float, start: np.ndarray | None = None
) -> np.ndarray:
    """Coefficients (K, n) of the published fits.

    Two classes are fitted there with an intercept beside the constant, which is then dropped; the solver stops where
    it has shared the sum out equally between the two.
    """
    if design.linear:
        information = design.gram(weights) + ridge * np.eye(design.features)
        return np.linalg.solve(information, (weights @ design.against)[:, :, None])[:, :, 0]
    penalty = np.append(np.full(design.features - 1, ridge), 0.0)
    coefficients, _ = fit_logistic(design, design.y, weights, penalty, start)
    coefficients[:, -1] /= 2
    return coefficients


def _information(design: Design, w: np.ndarray, ridge: float) -> np.ndarray:
    p = sigmoid(design.X @ w)
    variance = np.ones(design.size) if design.linear else p * (1 - p)
    return (design.X.T * variance) @ design.X + ridge * np.eye(design.features)


def _published_restricted(design: Design, fitted: np.ndarray, ridge: float, shift: float) -> np.ndarray:
    """Where Newton-CG stops with w_u held at ŵ_u + ε."""
    X, y = design.X, design.y
    u = tested(design)
    v = ~u
    w = fitted.copy()
    w[u] += shift

    def filled(free: np.ndarray) -> np.ndarray:
        w[v] = free
        return w

    def objective(free: np.ndarray) -> float:
        predictor = X @ filled(free)
        losses = 0.5 * (y - predictor) ** 2 if design.linear else -log_sigmoid((2 * y - 1) * predictor)
        return losses.sum() + 0.5 * np.sum(w**2) / ridge

    def gradient(free: np.ndarray) -> np.ndarray:
        predictor = X @ filled(free)
        mean = predictor if design.linear else sigmoid(predictor)
        return (ridge * w - (y - mean) @ X)[v]

    def hessian(free: np.ndarray) -> np.ndarray:
        return _information(design, filled(free), ridge)[np.ix_(v, v)]

    stopped = minimize(objective, np.zeros(int(v.sum())), jac=gradient, hess=hessian, method="Newton-CG")
    return filled(stopped.x).copy()


def _published_level(information: np.ndarray, null_information: np.ndarray, u: np.ndarray, alpha: float) -> float:
    """α* by an F, gamma or inverse gamma distribution with the same three cumulants."""
    from scipy.stats import f, gamma, invgamma

    own = np.linalg.inv(information)[np.ix_(u, u)]
    null = np.linalg.inv(null_information)[np.ix_(u, u)]
    spectrum = np.real(np.linalg.eigvals(np.linalg.solve(null, own)))
    first, second, third = spectrum.sum(), 2 * (spectrum**2).sum(), 8 * (spectrum**3).sum()
    critical = chi2.isf(alpha, len(spectrum))
    a = 4 * first * second**2 + third * (second - first**2)
    b = third * first - 2 * second**2
    if a < 1e-5:
        return float(invgamma.sf(critical, 2 + first**2 / second**2, scale=first**3 / second + first))
    if b < 1e-5:
        return float(gamma.sf(critical, first**2 / second, scale=second / first))
    shape = 2 * first * (third * first + second * first**2 - second**2) / a
    other = 3 + 2 * second * (second + first**2) / b
    return float(f.sf(other * b * critical / (shape * a), 2 * shape, 2 * other))
