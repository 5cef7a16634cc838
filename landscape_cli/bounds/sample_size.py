"""What Theorems 27 to 30 are about (thesis 3.4, 3.5): nearness of Gaussian posteriors of neighbouring samples."""

from __future__ import annotations

import math
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
        """Add an object; KL(k) = ½ [h - ln(1 + h) + (r²/σ²) h/(1 + h)], h = xᵀΣ_k x/σ², r = y - xᵀm_k (Theorem 30)."""
        pulled = self.covariance @ x
        h, residual = float(x @ pulled) / self.noise, y - float(x @ self.mean)
        kl = 0.5 * (h - math.log1p(h) + residual**2 / self.noise * h / (1 + h))
        # (Σ_k + Σ_{k+1}) differs from 2Σ_k by a matrix of rank one, too.
        step, change = pulled * residual / (self.noise * (1 + h)), np.outer(pulled, pulled) / (self.noise * (1 + h))
        s_score = math.exp(-0.5 * (residual / (self.noise * (1 + h))) ** 2 * self.noise * h * (1 + h) / (2 + h))
        self.mean, self.covariance = self.mean + step, self.covariance - change
        return Step(kl, s_score, float(np.linalg.norm(step)), float(np.linalg.norm(change)))


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
