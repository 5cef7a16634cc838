"""Distribution of Σ_j λ_j z_j² with independent standard normal z_j: exact, for many spectra at once.

It is ‖w - m‖² under a Gaussian posterior N(m, Σ) with the eigenvalues λ_j of Σ. The Laplace transform of its density is
Π_j (1 + 2 λ_j s)^(-1/2), whose singularities lie on the negative axis. Talbot's contour winds around them, and the
midpoint rule on it converges like 3.9^-N (Trefethen, Weideman and Schmelzer 2006).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincinv

from landscape_cli.errors import MeasurementFailed

COARSE, FINE, FINEST = 16, 32, 64  # nodes of the whole contour, half of them by symmetry
_SHIFT, _WIDTH, _RATE, _SLOPE = 0.6122, 0.5017, 0.6407, 0.2645


def _contour(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points z of the contour's upper half for t = 1, and e^z z' with the rule's weight, (nodes/2,) each."""
    theta = (2 * np.arange(nodes // 2) + 1) * np.pi / nodes
    cotangent = 1 / np.tan(_RATE * theta)
    z = nodes * (-_SHIFT + _WIDTH * theta * cotangent + 1j * _SLOPE * theta)
    slope = nodes * (_WIDTH * cotangent - _WIDTH * theta * _RATE / np.sin(_RATE * theta) ** 2 + 1j * _SLOPE)
    return z, np.exp(z) * slope * 2 / nodes


_CONTOURS = {nodes: _contour(nodes) for nodes in (COARSE, FINE, FINEST)}


def cdf(x: np.ndarray | float, eigenvalues: np.ndarray) -> np.ndarray:
    """P(Σ_j λ_j z_j² <= x).

    Parameters
    ----------
    x
        (...), broadcast against the spectra; 0 or less gives 0.
    eigenvalues
        λ_j, (..., n), positive.

    Returns
    -------
    (...), to about 1e-11 up to 100 eigenvalues.
    """
    spectra = np.asarray(eigenvalues, dtype=float)
    return _distribution(np.asarray(x, dtype=float), spectra, _nodes(spectra))[0]


def quantile(probability: float, eigenvalues: np.ndarray) -> np.ndarray:
    """The x with P(Σ_j λ_j z_j² <= x) = probability.

    Parameters
    ----------
    probability
        Inside (0, 1).
    eigenvalues
        (..., n), positive.

    Returns
    -------
    (...), to about 1e-10 of itself for probabilities up to 0.999.

    Raises
    ------
    MeasurementFailed
        Newton's method does not converge.
    """
    spectra = np.asarray(eigenvalues, dtype=float)
    if not 0 < probability < 1:
        raise ValueError(f"probability {probability}; allowed: inside (0, 1)")
    first, second = spectra.sum(axis=-1), (spectra**2).sum(axis=-1)
    x = 2 * second / first * gammaincinv(first**2 / second / 2, probability)  # a χ² with the same mean and variance
    # Few nodes do far from the answer, but where there are many λ they can mislead.
    nodes = COARSE if spectra.shape[-1] <= 20 and 0.05 <= probability <= 0.995 else _nodes(spectra)
    for _ in range(60):
        value, density = _distribution(x, spectra, nodes)
        step = np.clip((value - probability) / np.maximum(density * x, 1e-300), -0.7, 0.7)
        x = x * np.exp(-step)
        largest = np.max(np.abs(step), initial=0.0)
        if nodes != COARSE and largest < 1e-6:  # the next step would be about its square
            return x
        if largest < 1e-3:
            nodes = _nodes(spectra)
    raise MeasurementFailed(f"no quantile {probability} of a weighted χ² was found in 60 steps")


def _nodes(spectra: np.ndarray) -> int:
    return FINE if spectra.shape[-1] <= 20 else FINEST


def _distribution(x: np.ndarray, spectra: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Distribution function and density."""
    z, weights = _CONTOURS[nodes]
    shape = np.broadcast_shapes(x.shape, spectra.shape[:-1])
    x, spectra = np.broadcast_to(x, shape), np.broadcast_to(spectra, (*shape, spectra.shape[-1]))
    positive = np.where(x > 0, x, 1.0)
    scaled = 2 * spectra / positive[..., None]
    transform = 1.0
    for j in range(spectra.shape[-1]):  # one feature at a time: no array larger than the answer times the nodes
        transform = transform * np.sqrt(1 + scaled[..., j, None] * z)
    terms = weights / transform
    density = np.imag(terms.sum(axis=-1)) / positive
    value = np.imag((terms / z).sum(axis=-1))
    return np.where(x > 0, np.clip(value, 0, 1), 0.0), np.where(x > 0, density, 0.0)
