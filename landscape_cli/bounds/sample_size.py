"""What Theorems 27 to 30 are about (thesis 3.4, 3.5): nearness of Gaussian posteriors of neighbouring samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def gaussian_kl(mean: np.ndarray, covariance: np.ndarray, other: np.ndarray, other_covariance: np.ndarray) -> float:
    """D_KL(N(mean, covariance) ‖ N(other, other_covariance)), nats.

    Parameters
    ----------
    mean, other
        Shape (n,).
    covariance, other_covariance
        Shape (n, n), positive definite.
    """
    step = np.asarray(other, dtype=float) - mean
    ratio = np.linalg.solve(other_covariance, covariance)
    logs = np.linalg.slogdet(other_covariance)[1] - np.linalg.slogdet(covariance)[1]
    square = step @ np.linalg.solve(other_covariance, step)
    return float(0.5 * (np.trace(ratio) + square - len(step) + logs))


def gaussian_s_score(
    mean: np.ndarray, covariance: np.ndarray, other: np.ndarray, other_covariance: np.ndarray
) -> float:
    """s-score of two Gaussians: exp(-½ (m_2 - m_1)ᵀ (Σ_1 + Σ_2)⁻¹ (m_2 - m_1)); arguments as of :func:`gaussian_kl`."""
    step = np.asarray(other, dtype=float) - mean
    return float(np.exp(-0.5 * step @ np.linalg.solve(np.add(covariance, other_covariance), step)))


@dataclass(frozen=True)
class Step:
    """What one more object does to the posterior of a linear regression."""

    kl: float  # D_KL(p_k ‖ p_{k+1})
    s_score: float
    mean: float  # ‖m_{k+1} - m_k‖
    covariance: float  # ‖Σ_{k+1} - Σ_k‖_F


class Posterior:
    """N(m_k, Σ_k) of a linear regression with the prior N(0, α⁻¹ I) and noise of variance σ², object by object.

    Parameters
    ----------
    features
        n.
    precision, noise
        α and σ², positive.
    """

    def __init__(self, features: int, precision: float, noise: float) -> None:
        if precision <= 0 or noise <= 0:
            raise ValueError(f"precision {precision}, noise {noise}; allowed: more than 0")
        self.mean, self.covariance, self.noise = np.zeros(features), np.eye(features) / precision, noise

    def add(self, x: np.ndarray, y: float) -> Step:
        """Add an object, as :func:`posterior_step` has it."""
        given = (self.mean[None], self.covariance[None], np.asarray(x)[None], np.array([y]), self.noise)
        kl, s_score, step, change = (part[0] for part in posterior_step(*given))
        self.mean, self.covariance = self.mean + step, self.covariance - change
        return Step(float(kl), float(s_score), float(np.linalg.norm(step)), float(np.linalg.norm(change)))


def posterior_step(
    mean: np.ndarray, covariance: np.ndarray, x: np.ndarray, y: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Add one object to each of B posteriors: KL(k) = ½ [h - ln(1 + h) + (r²/σ²) h/(1 + h)] (Theorem 30).

    h = xᵀΣ_k x/σ² and r = y - xᵀm_k; the covariance changes by a matrix of rank one.

    Parameters
    ----------
    mean, covariance
        m_k (B, n) and Σ_k (B, n, n).
    x, y
        The objects, (B, n) and (B,).
    noise
        σ².

    Returns
    -------
    KL(k) and S(k), (B,) each; m_{k+1} - m_k, (B, n); Σ_k - Σ_{k+1}, (B, n, n).
    """
    pulled = (covariance @ x[:, :, None])[:, :, 0]
    h = np.sum(x * pulled, axis=1) / noise
    residual = y - np.sum(x * mean, axis=1)
    share = residual**2 / noise * h / (1 + h)
    gain = pulled / (noise * (1 + h))[:, None]
    # (Σ_k + Σ_{k+1}) differs from 2Σ_k by a matrix of rank one, too.
    kl, s_score = 0.5 * (h - np.log1p(h) + share), np.exp(-0.5 * share / (2 + h))
    return kl, s_score, gain * residual[:, None], gain[:, :, None] * pulled[:, None, :]


def shrinking_posteriors(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counterexample to Theorems 28 and 29: Σ_k = 1/k, |m_{k+1} - m_k| = k^{-1/2}. KL -> ½ and S -> e^{-1/4}.

    Returns
    -------
    KL(k) and S(k), (n,) each.
    """
    k = np.asarray(k, dtype=float)
    kl = 0.5 * ((k + 1) / k + (k + 1) / k - 1 + np.log(k / (k + 1)))
    return kl, np.exp(-0.5 / k / (1 / k + 1 / (k + 1)))


def drifting_means(k: np.ndarray) -> np.ndarray:
    """Counterexample to Theorem 27: X = 1, y = 0, σ = 1, m_k = √k, Σ_k = 0. M(k) = ½ though m_{k+1} - m_k -> 0."""
    k = np.asarray(k, dtype=float)
    expected = -0.5 * np.sqrt(np.stack([k, k + 1])) ** 2  # of log p(y | X, w) without its constant
    return np.abs(expected[1] - expected[0])
