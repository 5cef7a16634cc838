"""Exact and matrix-free curvature of a per-object loss: products, dense blocks, spectra, the landscape measure.

For any ``torch.nn.Module`` on any device, float32 or float64; nothing here knows of experiments. :class:`Objective`
ties a network to its objects and loss; :class:`Hessian`, :class:`GaussNewton` and :class:`Rest` are its curvature as
linear operators.
"""

from landscape_cli.curvature.dense import BYTE_CAP, dense
from landscape_cli.curvature.estimates import (
    Estimate,
    diagonal,
    hutchinson_diagonal,
    hutchinson_frobenius,
    hutchinson_trace,
    trace,
)
from landscape_cli.curvature.measure import LandscapeMeasure, landscape_measure
from landscape_cli.curvature.objective import Objective, cross_entropy, squared_error
from landscape_cli.curvature.operators import CurvatureOperator, GaussNewton, Hessian, Rest
from landscape_cli.curvature.spectrum import (
    Eigenpairs,
    NotConverged,
    SpectralDensity,
    block_norms,
    spectral_density,
    spectral_norm,
    top_eigenpairs,
)

__all__ = [
    "BYTE_CAP",
    "CurvatureOperator",
    "Eigenpairs",
    "Estimate",
    "GaussNewton",
    "Hessian",
    "LandscapeMeasure",
    "NotConverged",
    "Objective",
    "Rest",
    "SpectralDensity",
    "block_norms",
    "cross_entropy",
    "dense",
    "diagonal",
    "hutchinson_diagonal",
    "hutchinson_frobenius",
    "hutchinson_trace",
    "landscape_measure",
    "spectral_density",
    "spectral_norm",
    "squared_error",
    "top_eigenpairs",
    "trace",
]
