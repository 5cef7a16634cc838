"""Bounds of the Hessian of attention's and of a transformer block's squared error (Theorems 7, 17, 22, 23, 26).

F(X) = A X W_V, A = softmax(X W_Q W_Kᵀ Xᵀ / √d_K); Y = LN(X + F(X)), Z = LN(Y + ReLU(Y W_1) W_2), layer norms without
weights; the loss is the mean over the L·d_V outputs of their squared errors. Everything takes numbers, or tensors of
one shape, one value a network. All norms are spectral where nothing else is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

import torch

from landscape_cli.bounds.blocks import layer_norm
from landscape_cli.bounds.chains import Bound
from landscape_cli.errors import BadInput

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


def of_attention(
    weights: Mapping[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor, tight: bool = True
) -> Bound:
    """Theorem 17 for networks and an object of each.

    Parameters
    ----------
    weights
        ``Q``, ``K`` (…, d_V, d_K) and ``V`` (…, d_V, d_V): one head, no biases, no output projection.
    x, target
        (…, L, d_V).
    tight
        Also evaluate the variant with the layer's own ‖A‖, softmax and residual.

    Raises
    ------
    BadInput
        The shapes are not those of the theorem; says which.
    """
    _check_shapes("17", weights, x, target)
    norm = {name: torch.linalg.matrix_norm(weights[name], 2) for name in "QKV"}
    width, key_width = weights["Q"].shape[-2:]
    given = (torch.linalg.matrix_norm(x, 2), norm["Q"], norm["K"], norm["V"], torch.linalg.matrix_norm(target, 2))
    norms = AttentionNorms(x.shape[-2], width, key_width, *given)
    if not tight:
        return self_attention(norms)
    a = attention_matrix(weights, x)
    jacobian = torch.diag_embed(a) - a.unsqueeze(-1) * a.unsqueeze(-2)
    residual = a @ x @ weights["V"] - target
    own = AttentionState(
        torch.linalg.matrix_norm(a, 2),
        torch.linalg.matrix_norm(jacobian, 2).amax(dim=-1),
        torch.linalg.matrix_norm(residual, 2),
        torch.linalg.matrix_norm(residual),
    )
    return self_attention(norms, own)


def of_block(weights: Mapping[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor) -> tuple[Bound, Bound]:
    """Theorem 26 for networks and an object of each; arguments as of :func:`of_attention`, with ``1`` and ``2`` beside.

    Raises
    ------
    BadInput
        The shapes are not those of the theorem, or a row that a layer norm takes has no variance (Assumption 2).
    """
    _check_shapes("26", weights, x, target)
    width, key_width = weights["Q"].shape[-2:]
    inner = x + attention_matrix(weights, x) @ x @ weights["V"]
    y = layer_norm(inner)
    outer = y + (y @ weights["1"]).clamp(min=0) @ weights["2"]
    deviations = [rows.std(dim=-1, correction=0).amin(dim=-1) for rows in (inner, outer)]
    for what, deviation in zip(("X + F(X)", "Y + FFN(Y)"), deviations, strict=True):
        if bool((deviation <= 0).any()):
            raise BadInput(f"Theorem 26, Assumption 2: a row of {what} has no variance")
    norms = (torch.linalg.matrix_norm(matrix, 2) for matrix in (x, *(weights[name] for name in "QKV12")))
    sizes = (x.shape[-2], width, key_width, weights["1"].shape[-1])
    return transformer_block(BlockNorms(*sizes, *norms, torch.linalg.matrix_norm(target), *deviations))


def attention_matrix(weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A = softmax(X W_Q W_Kᵀ Xᵀ / √d_K), (…, L, L)."""
    scores = x @ weights["Q"] @ weights["K"].mT @ x.mT / math.sqrt(weights["Q"].shape[-1])
    return scores.softmax(dim=-1)


def _check_shapes(theorem: str, weights: Mapping[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor) -> None:
    width, key_width = x.shape[-1], weights["Q"].shape[-1]
    wanted = {"Q": (width, key_width), "K": (width, key_width), "V": (width, width)}
    if theorem == "26":
        hidden = weights["1"].shape[-1]
        wanted |= {"1": (width, hidden), "2": (hidden, width)}
    for name, shape in wanted.items():
        if tuple(weights[name].shape[-2:]) != shape:
            raise BadInput(
                f"Theorem {theorem}: W_{name} is {tuple(weights[name].shape[-2:])}; allowed: {shape}, one head"
            )
    if target.shape[-2:] != x.shape[-2:]:
        raise BadInput(f"Theorem {theorem}: Target is {tuple(target.shape[-2:])}; allowed: {tuple(x.shape[-2:])}, as X")


def check_positive(norms: AttentionNorms | BlockNorms) -> None:
    """Refuse norms that are negative or not finite."""
    for field in fields(norms):
        value = torch.as_tensor(getattr(norms, field.name), dtype=torch.float64)
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise ValueError(f"{field.name}: not a norm: {getattr(norms, field.name)}")
