"""Bounds of the Hessian of attention's and of a transformer block's squared error (Theorems 7, 17, 22, 23, 26).

F(X) = A X W_V, A = softmax(X W_Q W_Kᵀ Xᵀ / √d_K); Y = LN(X + F(X)), Z = LN(Y + ReLU(Y W_1) W_2), layer norms without
weights; the loss is the mean over the L·d_V outputs of their squared errors. Everything takes numbers, or tensors of
one shape, one value a network. All norms are spectral where nothing else is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypeVar

import torch

from landscape_cli.bounds.chains import Bound

Number = TypeVar("Number", float, torch.Tensor)
SECOND = 6.0  # >= norm of the second derivative of a row's softmax


@dataclass(frozen=True)
class AttentionNorms:
    """What Theorem 17 asks of a layer."""

    tokens: int  # L
    width: int  # d_V
    key_width: int  # d_K
    x: float | torch.Tensor  # a = ‖X‖
    query: float | torch.Tensor  # q = ‖W_Q‖
    key: float | torch.Tensor  # k = ‖W_K‖
    value: float | torch.Tensor  # v = ‖W_V‖
    target: float | torch.Tensor  # ‖Target‖


@dataclass(frozen=True)
class AttentionState:
    """What the tight variant asks of a layer beside: the norms that the theorem bounds."""

    attention: torch.Tensor  # ‖A‖, at most √L
    softmax: torch.Tensor  # max over rows of ‖diag(a) - aaᵀ‖, at most ½
    residual: torch.Tensor  # ‖F(X) - Target‖
    residual_frobenius: torch.Tensor  # ‖F(X) - Target‖_F


def self_attention(norms: AttentionNorms, state: AttentionState | None = None) -> Bound:
    """Theorem 17 (thesis 2.3.1): ‖H‖ of one object by W_Q, W_K, W_V.

    The printed bound lacks the blocks (K, K) and (V, K) and has 1/L, true of uniform attention only, for ½. The
    corrected one is the norm of the 3 x 3 matrix of the blocks' bounds.
    """
    a, q, k, v = norms.x, norms.query, norms.key, norms.value
    tokens, width, d_k = norms.tokens, norms.width, norms.key_width
    rank = math.sqrt(min(tokens, width))
    error = tokens * a * v + norms.target
    printed = 3 * _largest(
        2 * tokens / width * a**2,
        8 / (tokens**3 * width * d_k) * k**2 * v**2 * a**6 + 12 / (width * d_k) * rank * error * v * k**2 * a**5,
        4 / (tokens * width * math.sqrt(d_k)) * v * k * a**4
        + 4 * rank / (tokens**2 * math.sqrt(d_k)) * error * k * a**3,
        8 / (tokens**3 * width * d_k) * k * q * v**2 * a**6
        + 4
        * rank
        * error
        / (tokens * width * math.sqrt(d_k))
        * v
        * (3 * tokens * k * q * a**5 + width / tokens * a**3),
    )
    residual = math.sqrt(tokens) * a * v + norms.target
    corrected = _attention_blocks(norms, math.sqrt(tokens), 0.5, residual, rank * residual)
    tight = None
    if state is not None:
        tight = _attention_blocks(norms, state.attention, state.softmax, state.residual, state.residual_frobenius)
    return Bound("17", "hessian", printed, _matrix_norm(corrected), None if tight is None else _matrix_norm(tight))


def _attention_blocks(
    norms: AttentionNorms, attention: Number, softmax: Number, residual: Number, frobenius: Number
) -> list[list[Number]]:
    """Bounds of the 3 x 3 blocks, in the order V, Q, K."""
    a, q, k, v = norms.x, norms.query, norms.key, norms.value
    scale, root = 2 / (norms.tokens * norms.width), math.sqrt(norms.key_width)
    outer = softmax**2 * v**2 * a**6  # of ∂F/∂W_Q and ∂F/∂W_K, apart from the other one's norm
    bent = SECOND * frobenius * v * a**5
    vv = scale * attention**2 * a**2
    qq = scale / norms.key_width * k**2 * (outer + bent)
    kk = scale / norms.key_width * q**2 * (outer + bent)
    qk = scale / norms.key_width * k * q * (outer + bent) + scale * frobenius * v * a**3 * softmax / root
    shared = scale / root * softmax * a**3 * (attention * v * a + residual)
    vq, vk = shared * k, shared * q
    return [[vv, vq, vk], [vq, qq, qk], [vk, qk, kk]]


@dataclass(frozen=True)
class BlockNorms:
    """What Theorem 26 asks of a transformer block."""

    tokens: int  # L
    width: int  # d_V
    key_width: int  # d_K
    hidden: int  # d_ff
    x: float | torch.Tensor  # ‖X‖
    query: float | torch.Tensor
    key: float | torch.Tensor
    value: float | torch.Tensor
    first: float | torch.Tensor  # ‖W_1‖
    second: float | torch.Tensor  # ‖W_2‖
    target: float | torch.Tensor  # ‖Target‖_F
    deviation: float | torch.Tensor  # min_i σ_i of the rows of X + F(X)
    second_deviation: float | torch.Tensor  # and of Y + FFN(Y)


BLOCK = ("1", "2", "K", "Q", "V")


def transformer_block(norms: BlockNorms) -> tuple[Bound, Bound]:
    """Theorem 26 (thesis 2.3.5): max over blocks of ‖∂²Z/∂W_i ∂W_j‖, and ‖H‖ of one object's loss."""
    largest, total = {}, {}
    for printed in (True, False):
        jacobians, curvatures, residual = _block_parts(norms, printed)
        scale = 2 / (norms.tokens * norms.width)
        both = [[scale * jacobians[i] * jacobians[j] + residual * curvatures[i][j] for j in range(5)] for i in range(5)]
        largest[printed] = _largest(*(entry for row in curvatures for entry in row))
        total[printed] = 5 * _largest(*(entry for row in both for entry in row)) if printed else _matrix_norm(both)
    return (
        Bound("26", "network", largest[True], largest[False]),
        Bound("26", "hessian", total[True], total[False]),
    )


def layer_norm_bounds(
    norm: Number, deviation: Number, rows: int, columns: int, printed: bool = False
) -> tuple[Number, Number]:
    """Lemma 23: bounds of ‖J_LN‖ and ‖H_LN‖ at a matrix (m, n).

    Parameters
    ----------
    norm
        ‖X‖.
    deviation
        min_i σ_i of its rows. The thesis's σ_min is min_i ‖M_i‖ = √n min_i σ_i, with which the lemma fails.
    printed
        As in the thesis; else ‖J_LN‖ = 1/min_i σ_i, which is exact for n >= 3 (Theorem 18), and (2.16) with σ_i.
    """
    sigma = deviation * math.sqrt(columns) if printed else deviation
    curvature = (
        norm / sigma**3 * (1 + math.sqrt(rows / columns))
        + norm**2 / (math.sqrt(columns) * sigma**3)
        + 3 * norm**3 / (columns * sigma**5)
    )
    jacobian = 1 / sigma + norm**2 / (math.sqrt(columns) * sigma**3) if printed else 1 / sigma
    return jacobian, curvature


def _block_parts(norms: BlockNorms, printed: bool) -> tuple[list[Number], list[list[Number]], Number]:
    """Bounds of ‖∂Z/∂W_i‖, of ‖∂²Z/∂W_i ∂W_j‖ and of the residual, in the order 1, 2, K, Q, V."""
    tokens, width, d_k, hidden = norms.tokens, norms.width, norms.key_width, norms.hidden
    a, q, k, v, w1, w2 = norms.x, norms.query, norms.key, norms.value, norms.first, norms.second
    attention, softmax = (tokens, 1 / tokens) if printed else (math.sqrt(tokens), 0.5)
    y = math.sqrt(tokens * width)
    root, small = math.sqrt(d_k), math.sqrt(min(tokens, hidden))
    jy, hy = layer_norm_bounds(a + attention * a * v, norms.deviation, tokens, width, printed)
    jz, hz = layer_norm_bounds(y * (1 + small * w1 * w2), norms.second_deviation, tokens, width, printed)
    slope = softmax / root * v * a**3
    g = {"V": attention * a, "Q": slope * k, "K": slope * q}
    through = 1 + w1 * w2
    b = {"1": w2 * y, "2": w1 * y, **{name: through * jy * g[name] for name in "KQV"}}
    scale = 2 / (tokens * width) if printed else 1.0
    bent, shift = scale * SECOND / d_k * v * a**5, scale * math.sqrt(width) * softmax / root * a**3
    phi = {
        ("V", "V"): 0 * a,
        ("Q", "Q"): bent * k**2,
        ("K", "K"): bent * q**2,
        ("K", "Q"): bent * k * q + shift * v,
        ("Q", "V"): shift * k,
        ("K", "V"): shift * q,
    }

    def xi(i: str, j: str) -> Number:
        i, j = sorted((i, j))
        if i == j and i in "12":
            return 0 * a
        if (i, j) == ("1", "2"):
            return (
                math.sqrt(width) * y if not printed else _largest(math.sqrt(width) * y + 0 * w2, math.sqrt(hidden) * w2)
            )
        if i == "1":
            return math.sqrt(hidden) * w2 * jy * g[j]
        if i == "2":
            return math.sqrt(width) * w1 * jy * g[j]
        return through * (g[i] * hy * g[j] + jy * phi[i, j])

    jacobians = [jz * b[i] for i in BLOCK]
    curvatures = [[jz * xi(i, j) + b[i] * hz * b[j] for j in BLOCK] for i in BLOCK]
    residual = (y + norms.target) * (1.0 if printed else 2 / (tokens * width))
    return jacobians, curvatures, residual


def _largest(*values: Number) -> Number:
    if any(isinstance(value, torch.Tensor) for value in values):
        return torch.stack(torch.broadcast_tensors(*map(torch.as_tensor, values)), dim=-1).amax(dim=-1)
    return max(values)


def _matrix_norm(rows: list[list[Number]]) -> Number:
    """Spectral norm of a symmetric matrix of numbers, or of tensors, entry by entry."""
    flat = torch.broadcast_tensors(*(torch.as_tensor(entry, dtype=torch.float64) for row in rows for entry in row))
    found = torch.linalg.matrix_norm(torch.stack(flat, dim=-1).unflatten(-1, (len(rows), len(rows))), 2)
    return found if any(isinstance(entry, torch.Tensor) for row in rows for entry in row) else float(found)


def check_positive(norms: AttentionNorms | BlockNorms) -> None:
    """Refuse norms that are negative or not finite."""
    for field in fields(norms):
        value = torch.as_tensor(getattr(norms, field.name), dtype=torch.float64)
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise ValueError(f"{field.name}: not a norm: {getattr(norms, field.name)}")
