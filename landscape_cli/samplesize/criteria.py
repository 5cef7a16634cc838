"""What the six methods that watch a statistic compute on each resample (thesis 3.2, 3.3).

Functions take fits of K resamples and return K values; the bootstrap's one value is over all of them.
"""

from __future__ import annotations

import numpy as np

from landscape_cli.samplesize import weighted_chi_square
from landscape_cli.samplesize.design import Design
from landscape_cli.samplesize.fits import LOG_2_PI, Fits, log_likelihood, log_sigmoid

PUBLISHED_RADII = 3  # the published code measures 3 l where the text has l
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(12)


def overfitting(design: Design, train: np.ndarray, test: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """RS = mean log-likelihood of an object of the train half less that of the test half, in nats.

    Parameters
    ----------
    train, test
        Weightings (K, m).
    coefficients
        (K, n), fitted to the train halves.

    Returns
    -------
    (K,); NaN where a half is empty, as copies of one object can leave it.
    """
    means = []
    for half in (train, test):
        count = half.sum(axis=1)
        means.append(log_likelihood(design, half, coefficients) / np.where(count > 0, count, np.nan))
    return means[0] - means[1]


def widest_interval(coefficients: np.ndarray, alpha: float) -> np.ndarray:
    """Largest distance of a coefficient's α/2 and 1 - α/2 quantiles over bootstrap resamples: (..., K, n) -> (...)."""
    low, high = np.quantile(coefficients, [alpha / 2, 1 - alpha / 2], axis=-2)
    return np.max(high - low, axis=-1)


def posterior_variances(fits: Fits, noise: float = 1.0) -> np.ndarray:
    """Eigenvalues of the posterior's covariance: that of the Gaussian about ŵ with the curvature there, (K, n).

    Parameters
    ----------
    noise
        σ² of a linear regression whose ridge is α/σ².
    """
    return noise / np.maximum(np.linalg.eigvalsh(fits.information), 1e-300)


def total_variance(variances: np.ndarray) -> np.ndarray:
    """D[w | D_m] = E ‖w - ŵ‖²: the trace of the posterior's covariance, (K, n) -> (K,)."""
    return variances.sum(axis=1)


def published_variance(variances: np.ndarray) -> np.ndarray:
    """Half the Frobenius norm of the posterior's covariance, as the published code has it: (K, n) -> (K,)."""
    return np.sqrt(np.sum((variances / 2) ** 2, axis=1))


def coverage(variances: np.ndarray, radius: float) -> np.ndarray:
    """P(‖w - ŵ‖ <= radius) under the posterior, exactly: (K, n) -> (K,)."""
    return weighted_chi_square.cdf(radius**2, variances)


def credible_radius(variances: np.ndarray, alpha: float) -> np.ndarray:
    """Radius of the ball about ŵ with the posterior's mass 1 - α, exactly: (K, n) -> (K,)."""
    return np.sqrt(weighted_chi_square.quantile(1 - alpha, variances))


def expected_log_likelihood(design: Design, weights: np.ndarray, fits: Fits) -> np.ndarray:
    """Posterior mean of the log-likelihood of each resample's own objects, (K,) in nats.

    For a logistic regression an object's margin is Gaussian under the posterior; 12 Gauss-Hermite nodes.
    """
    covariance = np.linalg.inv(fits.information)
    if design.linear:
        return -0.5 * (fits.squares + fits.count * LOG_2_PI + np.sum(fits.gram * covariance, axis=(1, 2)))
    rows, columns = design.pairs
    twice = np.where(rows == columns, 1.0, 2.0)
    deviations = np.sqrt(np.maximum((covariance[:, rows, columns] * twice) @ design.products.T, 0))
    margins = fits.coefficients @ design.signed.T
    there = weights > 0
    own_margins, own_deviations = margins[there], deviations[there]
    means = np.zeros_like(own_margins)
    for node, weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
        means += weight * log_sigmoid(own_margins + node * own_deviations)
    totals = np.zeros_like(weights)
    totals[there] = means
    return np.sum(weights * totals, axis=1)


def utility(design: Design, weights: np.ndarray, fits: Fits, cost: float) -> np.ndarray:
    """Posterior mean of the log-likelihood an object, less cost · m: (K,).

    The text has the sum over objects in the place of their mean. For a regression with a standardised target the sum
    falls with every object that comes, so that its arg max is the smallest size; the published code divides by m.
    """
    return expected_log_likelihood(design, weights, fits) / fits.count - cost * fits.count


def published_utility(design: Design, weights: np.ndarray, fits: Fits, cost: float, ridge: float) -> np.ndarray:
    """The same plus the log density of a prior N(0, ridge · I), whose variance is the ridge instead of its inverse."""
    n = design.features
    covariance_trace = np.trace(np.linalg.inv(fits.information), axis1=1, axis2=2)
    squares = np.sum(fits.coefficients**2, axis=1) + covariance_trace
    prior = -0.5 * (squares / ridge + n * (LOG_2_PI + np.log(ridge)))
    return (expected_log_likelihood(design, weights, fits) + prior) / fits.count - cost * fits.count
