"""KL- and S-sufficiency (Definitions 14, 15): how near the posteriors of k and of k + 1 objects are.

A linear regression with the prior N(0, Σ_0) and noise of variance σ² has a Gaussian posterior, and one more object
changes its covariance by a matrix of rank one. Along many orders of the objects at once that is a few products a step,
and both measures have closed forms in h = xᵀΣ_k x/σ² and the residual r = y - xᵀm_k (Theorem 30).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape_cli.bounds.sample_size import posterior_step
from landscape_cli.errors import BadInput
from landscape_cli.samplesize.design import Design
from landscape_cli.samplesize.fits import Fits


@dataclass(frozen=True, eq=False)
class Chains:
    """Neighbouring posteriors along B orders of the objects, from n objects to one less than all."""

    sizes: np.ndarray  # k, (K,)
    kl: np.ndarray  # D_KL(p_k ‖ p_{k+1}) in nats, (B, K)
    s_score: np.ndarray  # (B, K)
    eigenvalue_sizes: np.ndarray  # (E,)
    eigenvalues: np.ndarray  # least one of X_kᵀ X_k, (B, E)


def chains(
    X: np.ndarray,
    y: np.ndarray,
    count: int,
    random: np.random.Generator,
    precision: float = 1.0,
    noise: float = 1.0,
    prior: np.ndarray | None = None,
    eigenvalues: int = 0,
) -> Chains:
    """Follow posteriors as objects come in random orders; backwards, objects leave one at a time (thesis 3.6.3).

    Parameters
    ----------
    X, y
        Objects (m, n) and targets (m,), m > n.
    count
        B.
    precision
        α of the prior N(0, α⁻¹ I).
    noise
        σ².
    prior
        Covariance Σ_0 (n, n) in the place of α⁻¹ I.
    eigenvalues
        At how many sizes, evenly spaced, the least eigenvalue of X_kᵀ X_k is computed.

    Raises
    ------
    BadInput
        σ² or α is not positive, Σ_0 is singular or not symmetric, there are no more objects than features.
    """
    m, n = X.shape
    if m <= n:
        raise BadInput(f"dataset: {m} objects for {n} features; allowed: more objects than features")
    covariance = np.repeat(checked_prior(n, precision, noise, prior)[None], count, axis=0)
    mean, gram = np.zeros((count, n)), np.zeros((count, n, n))
    orders = random.permuted(np.broadcast_to(np.arange(m), (count, m)), axis=1)
    sizes = np.arange(n, m)
    kl, s_score = np.empty((count, len(sizes))), np.empty((count, len(sizes)))
    looked = set(np.unique(np.linspace(n, m - 1, eigenvalues).round().astype(int)).tolist()) if eigenvalues else set()
    least = []
    for k in range(m):  # from k objects to k + 1
        x, target = X[orders[:, k]], y[orders[:, k]]
        if k in looked:
            least.append(np.linalg.eigvalsh(gram)[:, 0])
        if looked:
            gram += x[:, :, None] * x[:, None, :]
        own_kl, own_score, step, change = posterior_step(mean, covariance, x, target, noise)
        if k >= n:
            kl[:, k - n], s_score[:, k - n] = own_kl, own_score
        mean += step
        covariance -= change
    shape = (count, len(looked))
    return Chains(sizes, kl, s_score, np.array(sorted(looked)), np.stack(least, axis=1) if looked else np.empty(shape))


def expected_neighbours(
    design: Design, fits: Fits, came_last: np.ndarray, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """KL(k) and S(k) of K samples of k + 1 objects for a linear regression, over the objects that may have come last.

    The posterior without an object follows from that with it: h/(1 - h) and r/(1 - h) in the place of h and r. The mean
    over all objects of a sample has the expectation that one of them drawn at random has, and a small part of its
    spread.

    Parameters
    ----------
    fits
        To samples of k + 1 objects; the ridge is α σ².
    came_last
        Weights (K, m) of the objects that may have come last, all of them in the samples.

    Returns
    -------
    (K,) each.
    """
    rows, columns = design.pairs
    twice = np.where(rows == columns, 1.0, 2.0)
    covariance = np.linalg.inv(fits.information)
    with_it = np.where(came_last > 0, (covariance[:, rows, columns] * twice) @ design.products.T, 0.0)
    h = with_it / (1 - with_it)
    residual = (design.y - fits.coefficients @ design.X.T) * (1 + h)
    share = residual**2 / noise * with_it
    total = came_last.sum(axis=1)
    kl = np.sum(came_last * 0.5 * (h - np.log1p(h) + share), axis=1) / total
    return kl, np.sum(came_last * np.exp(-0.5 * share / (2 + h)), axis=1) / total


def checked_prior(features: int, precision: float, noise: float, prior: np.ndarray | None) -> np.ndarray:
    """Return the prior's covariance (n, n), or refuse it."""
    if not (np.isfinite(noise) and noise > 0):
        raise BadInput(f"noise: σ² = {noise:g}; allowed: more than 0")
    if prior is None:
        if not (np.isfinite(precision) and precision > 0):
            raise BadInput(f"precision: α = {precision:g}; allowed: more than 0")
        return np.eye(features) / precision
    prior = np.asarray(prior, dtype=float)
    if prior.shape != (features, features) or not np.allclose(prior, prior.T):
        raise BadInput(f"prior: shape {prior.shape}; allowed: a symmetric matrix ({features}, {features})")
    least, most = np.linalg.eigvalsh(prior)[[0, -1]]
    if least <= 1e-12 * max(most, 0):
        raise BadInput(f"prior: its covariance is singular (least eigenvalue {least:.2g}); allowed: positive definite")
    return prior


def neighbouring(first: Fits, second: Fits, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """KL and s-score of the Gaussian posteriors about two fits, for K resamples: (K,) each.

    For a logistic regression, whose posterior is Gaussian only in the limit (Laplace's approximation).

    Parameters
    ----------
    first, second
        Of k and of k + 1 objects.
    """
    step = second.coefficients - first.coefficients
    covariance, other = noise * np.linalg.inv(first.information), noise * np.linalg.inv(second.information)
    inside = second.information / noise
    moved = np.einsum("kj,kjl,kl->k", step, inside, step)
    trace = np.einsum("kjl,klj->k", inside, covariance)
    logs = np.linalg.slogdet(other)[1] - np.linalg.slogdet(covariance)[1]
    kl = 0.5 * (trace + moved - step.shape[1] + logs)
    shared = np.linalg.solve(covariance + other, step[:, :, None])[:, :, 0]
    return kl, np.exp(-0.5 * np.sum(step * shared, axis=1))
