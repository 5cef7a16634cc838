"""Scores by which parameters are removed, the lowest first (thesis 4.1; essay 2.3 to 2.6).

Everything takes R networks at once. What is removed already has no say: the matrices of the Belsley method are given
for the active parameters only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve, eigh

from landscape_cli.pruning.removal import lowest

DEGENERATE = 16  # roundings by which eigenvalues that are equal come out different, times their number
TIE = 1e-9  # of the largest share: shares that close are equal
SMALL = 64  # parameters up to which a decomposition of the whole is the fastest
REFRESH = 64  # removals after which the inverse is taken anew
WELL_CONDITIONED = 1e9  # condition numbers up to which the inverse is used


def optimal_brain_damage(hessian_diagonal: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Change of the loss when w_j is set to zero, by its second-order term alone, h_jj w_j² / 2 (LeCun et al. 1989).

    Parameters
    ----------
    hessian_diagonal, weights
        Shape (R, P).
    """
    return hessian_diagonal * weights.square() / 2


def signal_to_noise(weights: torch.Tensor, deviations: torch.Tensor) -> torch.Tensor:
    """|μ_j / σ_j| of a Gaussian posterior (Graves 2011), both (R, P)."""
    return weights.abs() / deviations


@dataclass(frozen=True)
class Belsley:
    """Singular value decomposition A = U Λ Uᵀ of positive semidefinite matrices, and what Belsley reads off it."""

    eigenvalues: torch.Tensor  # (R, n), falling
    vectors: torch.Tensor  # (R, n, n): u_ij of parameter i and component j
    rank: torch.Tensor  # (R,): eigenvalues beyond it are rounding noise, and so are their vectors one by one

    @property
    def condition_indices(self) -> torch.Tensor:
        """η_j = λ_max / λ_j, (R, n)."""
        return self.eigenvalues[:, :1] / self.eigenvalues

    @property
    def shares(self) -> torch.Tensor:
        """q_ij = (u_ij² / λ_j) / Σ_j (u_ij² / λ_j), (R, n, n): share of component j in parameter i."""
        parts = self.vectors.square() / self.eigenvalues[:, None]
        return parts / parts.sum(dim=-1, keepdim=True)

    @property
    def null_space(self) -> torch.Tensor:
        """Squared length of each parameter's axis in the null space, (R, n): what noise leaves of the last shares."""
        beyond = torch.arange(self.eigenvalues.shape[-1], device=self.rank.device) >= self.rank[:, None]
        return (self.vectors.square() * beyond[:, None]).sum(dim=-1)


def belsley(matrices: torch.Tensor) -> Belsley:
    """Decompose symmetric positive semidefinite matrices (R, n, n)."""
    values, vectors = torch.linalg.eigh(matrices)
    values, falling = values.abs().sort(dim=-1, descending=True)  # what should be zero comes out of either sign
    vectors = vectors.gather(2, falling[:, None].expand_as(vectors))
    noise = DEGENERATE * values.shape[-1] * torch.finfo(values.dtype).eps * values[:, :1]
    return Belsley(values, vectors, (values > noise).sum(dim=-1))


def belsley_scores(matrices: torch.Tensor) -> torch.Tensor:
    """Minus each parameter's share in the component of the largest condition index, (R, n).

    Its argmin is the text's ζ = argmax_j q_ξj, where the component comes first.

    Components whose eigenvalues agree to rounding are one, since their vectors are arbitrary. Where the matrix is
    singular that component is its null space: shares in it tend to one, and the length in it decides.
    """
    found = belsley(matrices)
    values = found.eigenvalues
    size = values.shape[-1]
    noise = DEGENERATE * size * torch.finfo(values.dtype).eps * values[:, :1]
    last = values <= values[:, -1:] + noise
    parts = found.vectors.square() / values.clamp(min=torch.finfo(values.dtype).tiny)[:, None]
    shares = (parts * last[:, None]).sum(dim=-1) / parts.sum(dim=-1)
    shares = torch.where((found.rank < size)[:, None], found.null_space, shares)
    return -(shares / (TIE * shares.amax(dim=-1, keepdim=True))).round() * TIE


def belsley_order(matrices: torch.Tensor, ties: Sequence[torch.Generator] | None = None) -> torch.Tensor:
    """When each parameter goes if the Belsley method removes them one at a time, (R, P): 0 for the first.

    After each removal the rows and columns of what is left are decomposed again: of a covariance matrix that is the
    distribution of what is left whatever the removed ones are, of a precision matrix that given that they are zero.
    Of a large matrix only the component wanted is computed, and the inverse, for its diagonal, loses a row and column
    by a rank-one update.

    Parameters
    ----------
    matrices
        Shape (R, P, P).
    ties
        One generator a network: of equal shares one at random goes first. None: that of the lowest number.
    """
    order = torch.zeros(matrices.shape[:2], dtype=torch.int64)
    for number, matrix in enumerate(matrices.cpu().double().numpy()):
        own = None if ties is None else [ties[number]]
        left, inverse = np.arange(len(matrix)), None
        for step in range(len(matrix)):
            part = matrix[np.ix_(left, left)]
            if step % REFRESH == 0 and len(left) > SMALL:
                known, inverse = left, _inverse(part)
            scores = None
            if inverse is not None and len(left) > SMALL:
                place = np.searchsorted(known, left)
                scores = _scores_by_inverse(part, inverse[place, place])
            if scores is None:
                scores = belsley_scores(torch.from_numpy(part)[None])[0]
            gone = int(lowest(scores[None], 1, own))
            order[number, left[gone]] = step
            if inverse is not None:
                column = inverse[:, np.searchsorted(known, left[gone])].copy()
                inverse -= np.outer(column, column / column[np.searchsorted(known, left[gone])])
            left = np.delete(left, gone)
    return order.to(matrices.device)


def _inverse(matrix: np.ndarray) -> np.ndarray | None:
    """The inverse of a matrix that is far from singular."""
    try:
        factor = cho_factor(matrix)
    except np.linalg.LinAlgError:
        return None
    inverse = cho_solve(factor, np.eye(len(matrix)))
    return inverse if np.linalg.norm(matrix) * np.linalg.norm(inverse) < WELL_CONDITIONED else None


def _scores_by_inverse(matrix: np.ndarray, variances: np.ndarray) -> torch.Tensor | None:
    """Belsley's scores from two eigenpairs and the inverse's diagonal; None where equal eigenvalues need all."""
    size = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[0, 1], check_finite=False)
    noise = DEGENERATE * size * np.finfo(float).eps * np.linalg.norm(matrix)
    if values[0] <= noise or values[1] - values[0] <= noise:
        return None
    shares = vectors[:, 0] ** 2 / values[0] / variances
    return torch.from_numpy(-np.round(shares / (TIE * shares.max())) * TIE)
