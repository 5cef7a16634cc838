"""Derivatives of layer norm, attention and transformer block as explicit matrices (Theorems 18-21, 24, 25), corrected.

Row-major vectorisation throughout: ∂F/∂X is the Jacobian of vec_r(F) by vec_r(X), and ∂²F/∂X² that of vec_r(∂F/∂X), of
shape (size F · size X, size X). Everything is float64, for one X (L, d_V); layer norms have no weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

Tensors = Mapping[str, torch.Tensor]  # Q, K (d_V, d_K), V (d_V, d_V), 1 (d_V, d_ff), 2 (d_ff, d_V)


def commutation(rows: int, columns: int) -> torch.Tensor:
    """K with K vec_r(A) = vec_r(Aᵀ) for A (rows, columns)."""
    order = torch.arange(rows * columns).view(rows, columns).T.reshape(-1)
    return torch.eye(rows * columns, dtype=torch.float64)[order]


def kronecker_derivative(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """∂(X ⊗ Y)/∂X and ∂(X ⊗ Y)/∂Y for X (n, q), Y (p, r)."""
    (n, q), (p, r) = x.shape, y.shape
    shuffle = _kron(_eye(n), commutation(q, p), _eye(r))
    by_x = shuffle @ _kron(_eye(n * q), y.reshape(-1, 1))
    by_y = shuffle @ _kron(x.reshape(-1, 1), _eye(p * r))
    return by_x, by_y


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    """(x - row mean) / row standard deviation, (L, d_V) or a batch of them, without weights."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / centred.square().mean(dim=-1, keepdim=True).sqrt()


def layer_norm_derivatives(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Theorems 18 and 19: J = ∂LN/∂X (L·d, L·d) and H = ∂²LN/∂X² ((L·d)², L·d).

    (2.11) with d(P ⊗ I_d)/dX = (I_L ⊗ K ⊗ I_d)(I_{L²} ⊗ vec_r I_d) dP/dX, 1/√d before both terms of d²P, 1/√d in dD/dX
    and dA_2/dX = E diag(-½ τ^{-3/2}) 2 J diag(vec_r M) dM/dX, τ = M^{∘2} 1.
    """
    tokens, width = x.shape
    size = tokens * width
    m = x - x.mean(dim=1, keepdim=True)
    tau = m.square().sum(dim=1)
    sigma = (tau / width).sqrt()
    p, d_inverse = torch.diag(1 / sigma), torch.diag(1 / sigma)
    g = _eye(size) - _kron(_eye(tokens), torch.full((width, width), 1 / width, dtype=torch.float64))
    e = torch.stack([_kron(unit, unit) for unit in _eye(tokens)], dim=1)  # (L², L)
    j = _kron(_eye(tokens), torch.ones(1, width, dtype=torch.float64))  # (L, L·d)
    a1 = -_kron(d_inverse, d_inverse.T)
    a2 = torch.diag(tau**-0.5)
    a3 = torch.diag(m.reshape(-1))
    b3 = g  # dM/dX
    b2 = j @ a3 @ b3
    b1 = e @ a2 @ b2
    d_p = a1 @ b1 / math.sqrt(width)
    jacobian = _kron(p, _eye(width)) @ g + _kron(_eye(tokens), m.T) @ d_p

    d_d = b1 / math.sqrt(width)
    d_minus_inverse = _kron(d_inverse, d_inverse.T) @ d_d
    d_inverse_t = commutation(tokens, tokens) @ -d_minus_inverse
    by_first, by_second = kronecker_derivative(-d_inverse, d_inverse.T)
    d_a1 = by_first @ d_minus_inverse + by_second @ d_inverse_t
    d_a2 = e @ torch.diag(-0.5 * tau**-1.5) @ (2 * b2)
    columns = _eye(size)
    d_a3 = torch.stack([_kron(unit, unit) for unit in columns], dim=1) @ b3
    d_b2 = _kron(j, _eye(size)) @ (_kron(_eye(size), b3.T) @ d_a3)
    inner = _kron(a2, _eye(size)) @ d_b2 + _kron(_eye(tokens), b2.T) @ d_a2
    d_b1 = _kron(e, _eye(size)) @ inner
    second = (_kron(a1, _eye(size)) @ d_b1 + _kron(_eye(tokens**2), b1.T) @ d_a1) / math.sqrt(width)

    d_pi = kronecker_derivative(p, _eye(width))[0] @ d_p
    d_im = kronecker_derivative(_eye(tokens), m.T)[1] @ commutation(tokens, width) @ g
    curvature = (
        _kron(_eye(size), g.T) @ d_pi
        + _kron(_kron(_eye(tokens), m.T), _eye(size)) @ second
        + _kron(_eye(size), d_p.T) @ d_im
    )
    return jacobian, curvature


@dataclass(frozen=True)
class Attention:
    """A self-attention layer at X, and its derivatives by W_Q, W_K, W_V."""

    output: torch.Tensor  # F (L, d_V)
    jacobians: dict[str, torch.Tensor]  # G_i = ∂F/∂W_i, (L·d_V, n_i)
    curvatures: dict[tuple[str, str], torch.Tensor]  # Φ_ij = ∂G_i/∂W_j, (L·d_V·n_i, n_j)


def attention_derivatives(x: torch.Tensor, weights: Tensors) -> Attention:
    """Lemma 21 and the attention's part of Theorem 24, without the factor 2/(L d_V) in Φ."""
    tokens, width = x.shape
    q, k, v = weights["Q"], weights["K"], weights["V"]
    d_k = q.shape[1]
    root = math.sqrt(d_k)
    a = (x @ q @ k.T @ x.T / root).softmax(dim=1)
    first, second = softmax_derivatives(a)
    z1 = _kron(_eye(tokens), x.T) @ first @ _kron(x, x)
    z2 = _kron(_eye(tokens), x.T, x.T, x.T) @ second @ _kron(x, x)
    swap = commutation(width, d_k)
    by_q = _kron(_eye(width), k)
    by_k = _kron(q, _eye(width)) @ swap
    through_v = _kron(_eye(tokens), v.T)
    jacobians = {
        "V": _kron(a @ x, _eye(width)),
        "Q": through_v @ z1 @ by_q / root,
        "K": through_v @ z1 @ by_k / root,
    }
    shape = _kron(_eye(width), commutation(width, width)) @ _kron(_eye(width).reshape(-1, 1), _eye(width))
    bent = {
        (i, j): _bent(through_v, z2, left, right) / d_k
        for i, left in (("Q", by_q), ("K", by_k))
        for j, right in (("Q", by_q), ("K", by_k))
    }
    shift = _kron(through_v, _eye(width)) @ _kron(z1, _eye(width)) @ shape
    curvatures = dict(bent)
    curvatures["Q", "K"] = bent["Q", "K"] + _kron(shift, _eye(d_k)) / root
    curvatures["K", "Q"] = transposed(curvatures["Q", "K"], tokens * width)
    curvatures["V", "V"] = torch.zeros(tokens * width * width**2, width**2, dtype=torch.float64)
    for name, by in (("Q", by_q), ("K", by_k)):
        curvatures["V", name] = _kron(_eye(tokens), shape) @ z1 @ by / root
        curvatures[name, "V"] = transposed(curvatures["V", name], tokens * width)
    return Attention(a @ x @ v, jacobians, curvatures)


def _bent(through: torch.Tensor, z2: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(I_L ⊗ W_Vᵀ ⊗ leftᵀ) Z_2 right: the part of Φ that is the softmax's second derivative."""
    return _kron(through, left.T) @ z2 @ right


def softmax_derivatives(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """∂A/∂T (L², L²) and ∂²A/∂T² (L⁴, L²) of a row-wise softmax A (L, L)."""
    tokens = len(a)
    rows = [torch.diag(row) - torch.outer(row, row) for row in a]
    first = torch.block_diag(*rows)
    second = torch.zeros((tokens,) * 6, dtype=torch.float64)  # row, column of A; row, column of T, twice
    for i, (row, jacobian) in enumerate(zip(a, rows, strict=True)):
        # ∂/∂t_m of a_j δ_jl - a_j a_l
        change = torch.diag_embed(jacobian.T) - torch.einsum("jm,l->mjl", jacobian, row)
        change = change - torch.einsum("j,lm->mjl", row, jacobian)
        second[i, :, i, :, i, :] = change.permute(1, 2, 0)
    return first, second.reshape(tokens**4, tokens**2)


def transposed(curvature: torch.Tensor, outputs: int) -> torch.Tensor:
    """Exchange the two parameters of a second derivative: (outputs·n_i, n_j) -> (outputs·n_j, n_i)."""
    n_j = curvature.shape[1]
    return curvature.view(outputs, -1, n_j).mT.reshape(outputs * n_j, -1)


@dataclass(frozen=True)
class Block:
    """A transformer block at X, and its derivatives by W_1, W_2, W_K, W_Q, W_V."""

    output: torch.Tensor  # Z (L, d_V)
    jacobians: dict[str, torch.Tensor]  # ∂Z/∂W_i, (L·d_V, n_i)
    curvatures: dict[tuple[str, str], torch.Tensor]  # ∂²Z/∂W_i ∂W_j, (L·d_V·n_i, n_j)


def block_derivatives(x: torch.Tensor, weights: Tensors) -> Block:
    """Theorems 24 and 25, (2.17): ξ_12 and ξ_21 exchanged, masks 1{Y W_1 > 0}."""
    tokens, width = x.shape
    size = tokens * width
    w1, w2 = weights["1"], weights["2"]
    hidden = w1.shape[1]
    attention = attention_derivatives(x, weights)
    inner = x + attention.output
    y = layer_norm(inner)
    jy, hy = layer_norm_derivatives(inner)
    active = torch.diag((y @ w1 > 0).double().reshape(-1))
    rectified = (y @ w1).clamp(min=0)
    s = y + rectified @ w2
    jz, hz = layer_norm_derivatives(s)
    through_w2 = _kron(_eye(tokens), w2.T)
    jsy = through_w2 @ active @ _kron(_eye(tokens), w1.T) + _eye(size)
    by_w1 = active @ _kron(y, _eye(hidden))
    b = {"1": through_w2 @ by_w1, "2": _kron(rectified, _eye(width))}
    b |= {name: jsy @ jy @ attention.jacobians[name] for name in "KQV"}
    n = {name: matrix.shape[1] for name, matrix in b.items()}

    d_rectified = kronecker_derivative(rectified, _eye(width))[0]
    d_y = kronecker_derivative(y, _eye(hidden))[0]
    xi = {
        ("1", "1"): torch.zeros(size * n["1"], n["1"], dtype=torch.float64),
        ("2", "2"): torch.zeros(size * n["2"], n["2"], dtype=torch.float64),
        ("2", "1"): d_rectified @ by_w1,
    }
    xi["1", "2"] = transposed(xi["2", "1"], size)
    for name in "KQV":
        own = jy @ attention.jacobians[name]
        xi["1", name] = _kron(through_w2 @ active, _eye(n["1"])) @ d_y @ own
        xi["2", name] = d_rectified @ active @ _kron(_eye(tokens), w1.T) @ own
        for other in "12":
            xi[name, other] = transposed(xi[other, name], size)
        for other in "KQV":
            bent = _kron(_eye(size), attention.jacobians[name].T) @ hy @ attention.jacobians[other]
            bent = bent + _kron(jy, _eye(n[name])) @ attention.curvatures[name, other]
            xi[name, other] = _kron(jsy, _eye(n[name])) @ bent
    curvatures = {(i, j): _kron(jz, _eye(n[i])) @ xi[i, j] + _kron(_eye(size), b[i].T) @ hz @ b[j] for i, j in xi}
    return Block(layer_norm(s), {name: jz @ matrix for name, matrix in b.items()}, curvatures)


def _eye(n: int) -> torch.Tensor:
    return torch.eye(n, dtype=torch.float64)


def _kron(*factors: torch.Tensor) -> torch.Tensor:
    # torch.kron takes no transposed matrices (torch 2.13), thin ones that count as contiguous either.
    product, *others = (factor.clone(memory_format=torch.contiguous_format) for factor in factors)
    for factor in others:
        product = torch.kron(product, factor)
    return product
