"""Bounds of the Hessian of one object's cross-entropy, networks without attention (Theorems 4-6, 8, 9, 11-16).

Each theorem takes its hyperparameters as numbers or tensors of one shape, so that many networks are bounded at once and
a bound can be differentiated; :func:`of_network` reads the hyperparameters off a network and checks the hypotheses. All
norms are spectral. ``layers`` is the number of matrices, which the thesis calls L in section 2.1 and L + 1 in 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from landscape_cli.curvature.chain import Chain
from landscape_cli.errors import BadInput

Number = TypeVar("Number", float, torch.Tensor)
ROOT2 = math.sqrt(2)  # sup‖p - y‖, and the thesis's bound of ‖A‖
HALF = 0.5  # sup‖A‖, at p = (1/2, 1/2, 0, …)


@dataclass(frozen=True)
class Bound:
    """One theorem about one quantity; numbers, or tensors with one value a network."""

    theorem: str
    quantity: str  # gauss_newton: ‖H_O‖; hessian: ‖H‖
    printed: float | torch.Tensor  # as the thesis has it
    corrected: float | torch.Tensor  # of the same hyperparameters, and true
    tight: float | torch.Tensor | None = None  # with the network's own ‖T^(p)‖ and positions


def fully_connected(
    layers: int, max_input: Number, max_weight: Number, biases: bool = False, theorem: str = "8"
) -> tuple[Bound, ...]:
    """Theorem 8 (thesis 2.1.1).

    Parameters
    ----------
    layers
        Matrices, L of the theorem.
    max_input, max_weight
        M_x >= ‖x‖, M_W >= ‖W^(p)‖.
    biases
        Biases are parameters too, at b = 0; the theorem has none, yet its second sum is theirs.

    Returns
    -------
    Of ‖H_O‖ and ‖H‖, for which the theorem prints one number; with biases of ‖H_O‖ only.
    """
    weights = layers * max_input**2 * max_weight ** (2 * (layers - 1))
    printed = ROOT2 * (weights * max_weight**2 + sum(max_weight ** (2 * k) for k in range(1, layers + 1)))
    gauss_newton = HALF * weights
    if biases:
        own = HALF * sum(max_weight ** (2 * k) for k in range(layers))
        return (Bound(theorem, "gauss_newton", printed, gauss_newton + own),)
    rest = ROOT2 * (layers - 1) * max_input * max_weight ** (layers - 2) if layers > 1 else 0 * max_input
    return (
        Bound(theorem, "gauss_newton", printed, gauss_newton),
        Bound(theorem, "hessian", printed, gauss_newton + rest),
    )


def fully_connected_by_width(
    layers: int, max_input: Number, width: int, max_entry: Number, biases: bool = False
) -> tuple[Bound, ...]:
    """Theorem 9 (thesis 2.1.1): Theorem 8 at M_W = hM, h the largest of all layer widths, M >= |w_ij|."""
    return fully_connected(layers, max_input, width * max_entry, biases, "9")


def matrices(
    layers: int, norm: Number, max_matrix: Number, q_squared: Number, theorem: str = "11"
) -> tuple[Bound, ...]:
    """Theorem 11 (thesis 2.2.2).

    Parameters
    ----------
    layers
        Matrices, L + 1 of the theorem.
    norm, max_matrix, q_squared
        ‖x‖, w_T >= ‖T^(p)‖, q² >= ‖Q^(p)‖².
    """
    scale = q_squared * norm**2 * layers * max_matrix ** (2 * (layers - 1))
    rest = ROOT2 * (layers - 1) * q_squared * norm * max_matrix ** (layers - 2) if layers > 1 else 0 * scale
    return (
        Bound(theorem, "gauss_newton", ROOT2 * scale, HALF * scale),
        Bound(theorem, "hessian", ROOT2 * scale, HALF * scale + rest),
    )


def convolutions(
    layers: int, norm: Number, channels: int, kernel: int, size: Sequence[int], max_entry: Number
) -> tuple[Bound, ...]:
    """Theorem 12 for sequences, 13 for pictures (thesis 2.2.2).

    Parameters
    ----------
    layers
        Convolutions, L + 1 of the theorem; no padding, stride 1.
    norm
        ‖x‖.
    channels, kernel
        C >= C_p and k >= k_p in each direction.
    size
        (d,) or (m, n) of the input.
    max_entry
        w >= |entry of a kernel|.
    """
    positions = math.prod(size)
    matrix_squared = channels**2 * kernel ** len(size) * max_entry**2 * positions
    theorem, q_squared = ("12", positions**2) if len(size) == 1 else ("13", channels**2 * kernel**2 * positions)
    printed = ROOT2 * norm**2 * q_squared * layers * matrix_squared ** (layers - 1)
    corrected = matrices(layers, norm, matrix_squared**0.5, positions, theorem)
    return tuple(Bound(theorem, bound.quantity, printed, bound.corrected) for bound in corrected)


def pooling(
    layers: int,
    norm: Number,
    channels: int,
    kernel: int,
    size: Sequence[int],
    max_entry: Number,
    position: int,
    window: int,
    average: bool = False,
) -> tuple[Bound, ...]:
    """Theorem 14 (max pooling) or 15 (average pooling), in the place of the ReLU after convolution ``position``.

    Parameters as of :func:`convolutions`; ``window`` is k_pool, the pooling's window and stride.
    """
    theorem, positions = "15" if average else "14", math.prod(size)
    matrix_squared = channels**2 * kernel**2 * max_entry**2 * positions
    shrunk = float(window) ** (-2 * (layers - 1 - position + 2))
    scale = norm**2 * layers * shrunk * matrix_squared ** (layers - 1)
    rest = matrices(layers, norm, matrix_squared**0.5, positions)
    rest = rest[1].corrected - rest[0].corrected  # smaller maps would make it smaller; not needed
    printed = ROOT2 * scale * positions * channels**2 * kernel**2
    return (
        Bound(theorem, "gauss_newton", printed, HALF * scale * positions),
        Bound(theorem, "hessian", printed, HALF * scale * positions + rest),
    )


def with_head(
    layers: int,
    norm: Number,
    channels: int,
    kernel: int,
    size: Sequence[int],
    max_entry: Number,
    head_layers: int,
    width: int,
    max_head_entry: Number,
) -> tuple[Bound, ...]:
    """Theorem 16 (thesis 2.2.2): convolutions as of :func:`convolutions`, then fully connected layers.

    Parameters
    ----------
    head_layers, width, max_head_entry
        P, h >= the sizes of the connected layers' inputs and outputs, w̃ >= |entry of a connected layer|.
    """
    positions = math.prod(size)
    head = width**2 * max_head_entry**2
    body = kernel**2 * channels**2 * max_entry**2 * positions
    total = layers + head_layers
    blocks = norm**2 * head**head_layers * body ** (layers - 1)
    printed = ROOT2 * blocks * channels**2 * kernel**2 * positions * (layers + head_layers * head / body)
    in_head = head_layers * norm**2 * head ** (head_layers - 1) * body**layers
    corrected = HALF * positions * (layers * blocks + in_head)
    largest = torch.maximum(head, body) if isinstance(head * body, torch.Tensor) else max(head, body)
    rest = ROOT2 * (total - 1) * positions * norm * largest ** ((total - 2) / 2) if total > 1 else 0 * norm
    return (
        Bound("16", "gauss_newton", printed, corrected),
        Bound("16", "hessian", printed, corrected + rest),
    )


def own_norms(chain: Chain, weights: Sequence[torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bound ‖H_O‖ and ‖H‖ by the norms of the network's own matrices and the number of output positions.

    ½‖x‖² Σ_p ‖Q^(p)‖² Π_{s≠p} ‖T^(s)‖² and, added for H, the norm of the matrix with the entries
    √2 ‖x‖ ‖Q^(p)‖ ‖Q^(q)‖ Π_{s≠p,q} ‖T^(s)‖ beside a diagonal of zeros. A layer and the pooling after it are one
    matrix, with one position a window.

    Parameters
    ----------
    weights, x
        As of :meth:`~landscape_cli.curvature.chain.Chain.run`.

    Returns
    -------
    (…) each.
    """
    passage, count = chain.run(weights, x), len(chain.layers)
    spectral, positions = [], []
    for p, layer in enumerate(chain.layers):
        gate = chain.gates[p] if p < count - 1 else None
        matrix, repeated = passage.matrices[p], layer.positions
        if gate is not None and gate.windows is not None:
            matrix, repeated = passage.gates[p] @ matrix, len(gate.windows) // layer.shape[0]
        spectral.append(_spectral(matrix).expand(x.shape[:-1]))
        positions.append(repeated)
    norms = torch.stack(spectral, dim=-1)
    q = torch.tensor(positions, dtype=norms.dtype, device=norms.device).sqrt()
    length = x.norm(dim=-1)
    others = torch.stack([norms[..., [s for s in range(count) if s != p]].prod(dim=-1) for p in range(count)], dim=-1)
    gauss_newton = HALF * length**2 * ((q * others) ** 2).sum(dim=-1)
    pairs = norms.new_zeros(*length.shape, count, count)
    for p in range(count):
        for other in range(p):
            left = [s for s in range(count) if s not in (p, other)]
            pairs[..., p, other] = pairs[..., other, p] = q[p] * q[other] * norms[..., left].prod(dim=-1)
    return gauss_newton, gauss_newton + ROOT2 * length * _spectral(pairs)


def of_network(
    theorem: str,
    chain: Chain,
    weights: Sequence[torch.Tensor],
    x: torch.Tensor,
    shape: Sequence[int],
    tight: bool = True,
) -> tuple[Bound, ...]:
    """Evaluate a theorem's bounds for networks and their objects.

    Parameters
    ----------
    theorem
        ``"8"``, ``"9"``, ``"11"`` … ``"16"``.
    chain, weights, x
        As of :meth:`~landscape_cli.curvature.chain.Chain.run`: one network, or one for each vector of x (…, in).
    shape
        (C, d) or (C, H, W) of the first convolution's input; of fully connected networks unused.
    tight
        Also evaluate the variant with the network's own norms.

    Raises
    ------
    BadInput
        The network breaks a hypothesis; says which.
    """
    _check(theorem, chain)
    norm, layers = x.norm(dim=-1), len(chain.layers)
    linear = [layer for layer in chain.layers if layer.kind == "linear"]
    convolved = [layer for layer in chain.layers if layer.kind != "linear"]
    if theorem in ("8", "11"):
        spectral = _largest([_spectral(layer.matrix(w)) for layer, w in _pairs(chain, weights)])
    else:
        entries = [w.abs().flatten(-len(layer.shape)).amax(dim=-1) for layer, w in _pairs(chain, weights)]
    if theorem == "8":
        found = fully_connected(layers, norm, spectral)
    elif theorem == "9":
        width = max(size for layer in linear for size in layer.shape)
        found = fully_connected_by_width(layers, norm, width, _largest(entries))
    elif theorem == "11":
        found = matrices(layers, norm, spectral, max(layer.positions for layer in chain.layers))
    else:
        count = len(convolved)
        channels = max(size for layer in convolved for size in layer.shape[:2])
        kernel = max(size for layer in convolved for size in layer.shape[2:])
        plain = (count, norm, channels, kernel, tuple(shape[1:]), _largest(entries[:count]))
        if theorem in ("12", "13"):
            found = convolutions(*plain)
        elif theorem == "16":
            width = max(size for layer in linear for size in layer.shape)
            found = with_head(*plain, len(linear), width, _largest(entries[count:]))
        else:
            position, gate = next((p, g) for p, g in enumerate(chain.gates, 1) if g.kind in ("max", "average"))
            window = math.isqrt(gate.windows.shape[1])
            found = pooling(*plain, position, window, gate.kind == "average")
    if not tight:
        return found
    own = dict(zip(("gauss_newton", "hessian"), own_norms(chain, weights, x), strict=True))
    return tuple(Bound(b.theorem, b.quantity, b.printed, b.corrected, own[b.quantity]) for b in found)


def loss_difference(
    k: Number, max_loss: Number, max_hessian: Number, radius: Number, printed: bool = False, theorem: str = "4"
) -> Number:
    """Theorems 4 to 7: bound of |L_{k+1}(θ) - L_k(θ)| for ‖θ - θ*‖ <= R, given bounds of losses and Hessians.

    They hold to second order in R, where the gradients of all objects vanish at θ* (Assumption 1).
    :func:`loss_difference_by` takes M_H from another theorem.

    Parameters
    ----------
    max_loss, max_hessian
        M_ℓ >= ℓ_i(θ*) >= 0 and M_H >= ‖H_i(θ*)‖.
    printed
        As in the thesis, which adds up what can only be subtracted and, but in Theorem 7, leaves out the ½ of (1.4).
    theorem
        ``"4"``, ``"5"``, ``"6"`` or ``"7"``; they differ as printed.
    """
    if printed and theorem == "7":
        return (2 * max_loss + max_hessian * radius**2) / (k + 1)
    if printed:
        return 2 / (k + 1) * (max_loss + max_hessian * radius**2)
    return (max_loss + max_hessian * radius**2) / (k + 1)


def loss_difference_by(bound: Bound, k: Number, max_loss: Number, radius: Number) -> Bound:
    """Theorems 4 (from 8 or 9), 5 (from 12), 6 (from 13) and 7 (from 17 or 26), M_H as that theorem has it.

    Parameters
    ----------
    bound
        Of ‖H‖, from one of these theorems.

    Raises
    ------
    BadInput
        The bound is of another quantity or theorem.
    """
    theorem = {"8": "4", "9": "4", "12": "5", "13": "6", "17": "7", "26": "7"}.get(bound.theorem)
    if theorem is None or bound.quantity != "hessian":
        raise BadInput(
            f"a bound of {bound.quantity} by Theorem {bound.theorem}; allowed: of hessian, by 8, 9, 12, 13, 17, 26"
        )
    printed = loss_difference(k, max_loss, bound.printed, radius, True, theorem)
    tight = None if bound.tight is None else loss_difference(k, max_loss, bound.tight, radius)
    return Bound(theorem, "difference", printed, loss_difference(k, max_loss, bound.corrected, radius), tight)


def _pairs(chain: Chain, weights: Sequence[torch.Tensor]) -> zip:
    return zip(chain.layers, weights, strict=True)


def _spectral(matrix: torch.Tensor) -> torch.Tensor:
    """‖M‖ of matrices (…, m, n), from the smaller Gram matrix: several times faster than a singular value."""
    gram = matrix @ matrix.mT if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT @ matrix
    return torch.linalg.eigvalsh(gram)[..., -1].clamp(min=0).sqrt()


def _largest(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(values), dim=-1).amax(dim=-1)


def _check(theorem: str, chain: Chain) -> None:
    """Refuse a network that the theorem is not about."""
    kinds = [layer.kind for layer in chain.layers]
    gates = [gate.kind for gate in chain.gates]
    pooled = [gate for gate in chain.gates if gate.kind in ("max", "average")]

    def refuse(what: str) -> None:
        raise BadInput(f"Theorem {theorem}: {what}")

    if theorem not in ("8", "9", *map(str, range(11, 17))):
        raise BadInput(f"theorem: {theorem!r}; allowed: 8, 9, 11 to 16")
    if theorem in ("8", "9") and set(kinds) != {"linear"}:
        refuse(f"every layer is fully connected; {_named(chain, lambda kind: kind != 'linear')} is a convolution")
    if theorem in ("8", "9") and set(gates) - {"relu"}:
        refuse("a ReLU stands between any two layers")
    if theorem == "12" and set(kinds) != {"conv1d"}:
        refuse(f"every layer is a 1D convolution; {_named(chain, lambda kind: kind != 'conv1d')} is not")
    if theorem in ("13", "14", "15") and set(kinds) != {"conv2d"}:
        refuse(f"every layer is a 2D convolution; {_named(chain, lambda kind: kind != 'conv2d')} is not")
    if theorem == "16":
        body = [kind for kind in kinds if kind != "linear"]
        if not body or set(body) != {"conv2d"} or kinds != body + ["linear"] * (len(kinds) - len(body)):
            refuse("2D convolutions come first, fully connected layers after them")
        if kinds[-1] != "linear":
            refuse("a fully connected layer comes last")
    if theorem in ("12", "13", "16") and pooled:
        refuse("there is no pooling")
    if theorem in ("14", "15"):
        wanted = "max" if theorem == "14" else "average"
        if [gate.kind for gate in pooled] != [wanted]:
            refuse(f"one {wanted} pooling stands in the place of a ReLU; here: {[g.kind for g in pooled] or 'none'}")
        if math.isqrt(pooled[0].windows.shape[1]) ** 2 != pooled[0].windows.shape[1]:
            refuse("the pooling's window is a square")


def _named(chain: Chain, unfit: object) -> str:
    return next(layer.name for layer in chain.layers if unfit(layer.kind))
