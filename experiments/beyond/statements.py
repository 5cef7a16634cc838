"""The theorems in words: what each states, how it is to be corrected, and the counterexamples that are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Statement:
    """One theorem."""

    theorem: str
    text: str
    corrected: str
    misprinted: bool = False  # an identity whose printed form is wrong, as its derivation shows
    kind: str = "Theorem"


@dataclass(frozen=True)
class Counterexample:
    """A network that meets the printed hypotheses."""

    theorem: str
    quantity: str
    group: str  # of experiments.beyond.theorems
    text: str
    values: Callable[[], dict[str, float]]  # measured, printed, corrected


STATEMENTS = (
    Statement("4", "|L_{k+1} - L_k| <= 2(M_ℓ + M_H R²)/(k+1), connected", "(M_ℓ + M_H R²)/(k+1), M_H of corrected 8"),
    Statement("5", "the same, 1D convolutions", "(M_ℓ + M_H R²)/(k+1), M_H of corrected 12 for the full Hessian"),
    Statement("6", "the same, 2D convolutions", "(M_ℓ + M_H R²)/(k+1), M_H of corrected 13 for the full Hessian"),
    Statement(
        "7",
        "|L_{k+1} - L_k| <= (2 L + M R²)/(k+1), attention and transformer",
        "(M_ℓ + M_H R²)/(k+1), M_H of corrected 17 or 26",
    ),
    Statement(
        "8",
        "‖H_i‖ <= √2 L M_x² M_W^{2L} + √2 Σ_k M_W^{2k}",
        "‖H_O‖ <= ½ L M_x² M_W^{2(L-1)}; for ‖H‖ add √2 (L-1) M_x M_W^{L-2}",
    ),
    Statement("9", "Theorem 8 with M_W = hM", "the corrected form with M_W = hM, h the largest of all widths"),
    Statement("10", "H_O = QᵀFᵀAFQ", "exact; the proof's last line transposes F"),
    Statement("11", "‖H_O‖ <= √2 q²‖x‖² (L+1) w_T^{2L}", "½ for √2; for ‖H‖ add √2 L q²‖x‖ w_T^{L-1}"),
    Statement("12", "‖H_O‖ <= √2 ‖x‖² d² (L+1)(C²w²kd)^L", "½ for √2 and d for d²; for ‖H‖ add the term of 11"),
    Statement("13", "‖H_O‖ <= √2 ‖x‖² C²k²mn (L+1)(C²k²w²mn)^L", "½ for √2 and mn for C²k²mn; for ‖H‖ the term of 11"),
    Statement(
        "14", "Theorem 13 times k_pool^{-2(L-l+2)}, max pooling", "½ for √2, mn for C²k²mn; for ‖H‖ the term of 11"
    ),
    Statement("15", "Theorem 13 times k_pool^{-2(L-l+2)}, average pooling", "as 14"),
    Statement(
        "16",
        "‖H_O‖ of convolutions and P connected layers, with L+1 + P h²w̃²/(k²C²w²mn)",
        "L+1 + P k²C²w²mn/(h²w̃²): the fraction is inverted",
    ),
    Statement(
        "17",
        "‖H‖ <= M, self-attention",
        "blocks (K,K) and (V,K) are missing, ½ for 1/L, √L for L; norm of the 3x3 matrix of the blocks' bounds",
    ),
    Statement("18", "∂LN/∂X in matrices", "exact"),
    Statement("19", "∂²LN/∂X² in matrices (2.11)", "d(P ⊗ I)/dX, the factor 1/√d_V and dA_2/dX corrected", True),
    Statement("20", "∂ReLU/∂X = diag(vec_r 1{X > 0}), almost everywhere", "holds"),
    Statement(
        "21",
        "second derivatives Φ of attention",
        "without 2/(L d_V); first factor of Φ_QK's second term I_L",
        True,
        kind="Lemma",
    ),
    Statement("22", "‖FFN(Y)‖ <= √min(L, d_ff) ‖Y‖ ‖W_1‖ ‖W_2‖", "as printed; ‖Y‖_F² = L d_V", kind="Lemma"),
    Statement(
        "23",
        "bounds of ‖J_LN‖ and ‖H_LN‖ with σ_min = min ‖M_i‖",
        "‖J_LN‖ = 1/min σ_i; (2.16) with σ_min = min σ_i",
        kind="Lemma",
    ),
    Statement("24", "∂Z/∂W_i of a transformer block", "K_{dK,dV} in G_K; the mask is 1{Y W_1 > 0}", True),
    Statement(
        "25", "∂²Z/∂W_i ∂W_j of a transformer block (2.17)", "ξ_12 and ξ_21 exchanged, K_{dV,dff}, I_{n1} in ξ_1k", True
    ),
    Statement(
        "26",
        "‖H_tr‖ of a transformer block",
        "its parts: √d_V‖Y‖ for ξ_21, ½ for 1/L, no 2/(L d_V) in Φ, σ_i for ‖M_i‖",
    ),
    Statement("27", "means and covariances of the estimates come together => M(k) -> 0", "also sup‖m_k‖ < ∞"),
    Statement("28", "means and covariances come together => KL(k) -> 0", "under 30's hypotheses: the closed form -> 0"),
    Statement("29", "means come together => S(k) -> 1", "under 30's hypotheses"),
    Statement("30", "linear regression: bounded features, λ_min = ω(√k) => both come together", "holds"),
)


def _chain(weights: list, x: list, y: int, theorem: str, quantity: str) -> dict[str, float]:
    import torch
    from torch import nn

    from landscape_cli.bounds.chains import of_network
    from landscape_cli.curvature.chain import Chain, object_norms

    modules: list[nn.Module] = []
    for rows in weights:
        matrix = torch.tensor(rows, dtype=torch.float64)
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
        layer.weight.data = matrix
        modules += [layer, nn.ReLU()]
    chain = Chain.of(nn.Sequential(*modules[:-1]), (len(x),))
    own = [module.weight.detach() for module in modules if isinstance(module, nn.Linear)]
    vector = torch.tensor(x, dtype=torch.float64)
    return _values(chain, own, vector, y, (), theorem, quantity, of_network, object_norms)


def _values(
    chain: object,
    own: list,
    x: object,
    y: int,
    shape: tuple,
    theorem: str,
    quantity: str,
    bounds: Callable,
    norms: Callable,
) -> dict[str, float]:
    import torch

    measured = dict(zip(("gauss_newton", "hessian"), norms(chain, own, x, torch.tensor(y)), strict=True))[quantity]
    bound = next(b for b in bounds(theorem, chain, own, x, shape) if b.quantity == quantity)
    return {"measured": float(measured), "printed": float(bound.printed), "corrected": float(bound.corrected)}


def _convolutions(dimensions: int, theorem: str) -> dict[str, float]:
    """conv-ReLU-conv, C = k = 2, all-ones kernels times 1e-3, the second layer's channel 2 negated, constant unit x."""
    import torch
    from torch import nn

    from landscape_cli.bounds.chains import of_network
    from landscape_cli.curvature.chain import Chain, object_norms

    kind = nn.Conv1d if dimensions == 1 else nn.Conv2d
    first, second = (kind(2, 2, 2, bias=False, dtype=torch.float64) for _ in range(2))
    for module in (first, second):
        module.weight.data.fill_(1e-3)
    second.weight.data[1] *= -1
    shape = (2, *[3] * dimensions)
    x = torch.ones(1, *shape, dtype=torch.float64)
    chain = Chain.of(nn.Sequential(first, nn.ReLU(), second, nn.Flatten()), shape)
    own = [first.weight.detach(), second.weight.detach()]
    vector = chain.vector(x / x.norm())[0]
    return _values(chain, own, vector, 1, shape, theorem, "hessian", of_network, object_norms)


def _head(quantity: str) -> dict[str, float]:
    """Two all-ones 2x2 convolutions, C = 2, an input of ones 2x3x3, a 2x2 head of weights ±0.01; h = 4 as printed."""
    import torch
    from torch import nn

    from landscape_cli.bounds.chains import with_head
    from landscape_cli.curvature.chain import Chain, object_norms

    bodies = [nn.Conv2d(2, 2, 2, bias=False, dtype=torch.float64) for _ in range(2)]
    for module in bodies:
        module.weight.data.fill_(1.0)
    head = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    head.weight.data.fill_(0.01)
    net = nn.Sequential(bodies[0], nn.ReLU(), bodies[1], nn.ReLU(), nn.Flatten(), head)
    chain = Chain.of(net, (2, 3, 3))
    x = chain.vector(torch.ones(1, 2, 3, 3, dtype=torch.float64))[0]
    which = ("gauss_newton", "hessian").index(quantity)
    measured = object_norms(chain, chain.weights(net), x, torch.tensor(0))[which]
    bound = with_head(2, 18**0.5, 2, 2, (3, 3), 1.0, 1, 4, 0.01)[which]
    return {"measured": float(measured), "printed": bound.printed, "corrected": bound.corrected}


def _attention(c: float, epsilon: float) -> dict[str, float]:
    """X = W_V = I_2, W_Q = c I, W_K = ε I, Target = F(X)."""
    import torch

    from experiments.beyond.search import AttentionFamily

    family, identity = AttentionFamily(2, 2, 2, 0), torch.eye(2, dtype=torch.float64)[None]
    state = {"X": identity, "V": identity, "Q": c * identity, "K": epsilon * identity}
    state["target"] = family.output(state, identity)
    (bound,) = family.bounds(state)
    measured = family.norms(state)["hessian"]
    return {"measured": float(measured), "printed": float(bound.printed), "corrected": float(bound.corrected)}


def _layer_norm(width: int, which: int) -> dict[str, float]:
    """The centred row (1, -1, 1, …) of even width: σ = 1, ‖M_1‖ = ‖X‖ = √width."""
    import torch
    from torch.func import jacfwd, jacrev

    from landscape_cli.bounds.attention import layer_norm_bounds
    from landscape_cli.bounds.blocks import layer_norm

    x = torch.tensor([[1.0, -1.0] * (width // 2)], dtype=torch.float64)
    derivative = (jacrev(layer_norm), jacfwd(jacrev(layer_norm)))[which](x).reshape(-1, width)
    printed, corrected = (layer_norm_bounds(width**0.5, 1.0, 1, width, printed=p)[which] for p in (True, False))
    return {"measured": float(torch.linalg.matrix_norm(derivative, 2)), "printed": printed, "corrected": corrected}


def _pooled(theorem: str) -> dict[str, float]:
    """conv-pool-conv on 6x6, C = k = 2, all entries 1e-3, the last channel's negated, x = ones/6."""
    import torch
    from torch import nn

    from landscape_cli.bounds.chains import of_network
    from landscape_cli.curvature.chain import Chain, object_norms

    first = nn.Conv2d(1, 2, 2, bias=False, dtype=torch.float64)
    second = nn.Conv2d(2, 2, 2, bias=False, dtype=torch.float64)
    for module in (first, second):
        module.weight.data.fill_(1e-3)
    second.weight.data[1] *= -1
    pool = nn.MaxPool2d(2) if theorem == "14" else nn.AvgPool2d(2)
    chain = Chain.of(nn.Sequential(first, pool, second, nn.Flatten()), (1, 6, 6))
    x = torch.full((36,), 1 / 6, dtype=torch.float64)
    own = [first.weight.detach(), second.weight.detach()]
    return _values(chain, own, x, 1, (1, 6, 6), theorem, "hessian", of_network, object_norms)


def _block() -> dict[str, float]:
    """L = 1, d_V = 8, d_K = 1, d_ff = 2: X = (1, -1, …), W_V = 0, W_1 along X, the others small."""
    import torch

    from landscape_cli.bounds import attention, blocks

    x = torch.tensor([[1.0, -1.0] * 4], dtype=torch.float64)
    ones = 1e-3 * torch.ones(8, 1, dtype=torch.float64)
    pattern = 1e-3 * torch.tensor([[1.0, 1, -1, -1] * 2], dtype=torch.float64)
    weights = {"Q": ones, "K": ones, "V": torch.zeros(8, 8, dtype=torch.float64)}
    weights |= {"1": 1e-3 * x.T.repeat(1, 2), "2": pattern.repeat(2, 1)}
    found = blocks.block_derivatives(x, weights)
    norms = {name: float(torch.linalg.matrix_norm(own, 2)) for name, own in weights.items()}
    outer = x + (x @ weights["1"]).clamp(min=0) @ weights["2"]
    sizes = (1, 8, 1, 2, 8**0.5, *(norms[name] for name in ("Q", "K", "V", "1", "2")), 0.0, 1.0)
    bound, _ = attention.transformer_block(attention.BlockNorms(*sizes, float(outer.std(correction=0))))
    measured = max(float(torch.linalg.matrix_norm(own, 2)) for own in found.curvatures.values())
    return {"measured": measured, "printed": float(bound.printed), "corrected": float(bound.corrected)}


COUNTEREXAMPLES = (
    Counterexample(
        "8",
        "hessian",
        "connected",
        "L = 1, W = 0.1 I_2, x = (3, 4): ‖H‖ = 12.47, printed 0.3677",
        lambda: _chain([[[0.1, 0], [0, 0.1]]], [3, 4], 0, "8", "hessian"),
    ),
    Counterexample(
        "8",
        "gauss_newton",
        "connected",
        "L = 2, W_1 = W_2 = 0.1 I_2, x = (3, 4): ‖H_O‖ = 0.25, printed 0.02135",
        lambda: _chain([[[0.1, 0], [0, 0.1]]] * 2, [3, 4], 0, "8", "gauss_newton"),
    ),
    Counterexample(
        "9",
        "hessian",
        "connected",
        "L = 1, W = 0.1 I_2, x = (3, 4): ‖H‖ = 12.47, printed 1.471",
        lambda: _chain([[[0.1, 0], [0, 0.1]]], [3, 4], 0, "9", "hessian"),
    ),
    Counterexample(
        "12",
        "hessian",
        "convolutional",
        "conv-ReLU-conv, w = 0.001: ‖H‖ = 0.8165, printed 6.1e-4",
        lambda: _convolutions(1, "12"),
    ),
    Counterexample(
        "13",
        "hessian",
        "convolutional",
        "conv-ReLU-conv, w = 0.001: ‖H‖ = 0.9429, printed 0.0587",
        lambda: _convolutions(2, "13"),
    ),
    Counterexample(
        "16",
        "gauss_newton",
        "convolutional",
        "two all-ones convolutions, head of 0.01: ‖H_O‖ = 4096, printed 1689",
        lambda: _head("gauss_newton"),
    ),
    Counterexample(
        "16",
        "hessian",
        "convolutional",
        "two all-ones convolutions, head of 0.01: ‖H‖ = 4096, printed 1689",
        lambda: _head("hessian"),
    ),
    Counterexample(
        "17",
        "hessian",
        "attention",
        "X = W_V = I_2, W_Q = 100 I_2, W_K = 0, no residual: ‖H‖ = 625.5, printed 9",
        lambda: _attention(100.0, 0.0),
    ),
    Counterexample(
        "23",
        "layer_norm_jacobian",
        "norms",
        "X = (1, -1, 1, -1): ‖J_LN‖ = 1, printed 0.75",
        lambda: _layer_norm(4, 0),
    ),
    Counterexample(
        "23",
        "layer_norm_hessian",
        "norms",
        "X = (1, -1, … ) of width 8: ‖H_LN‖ = 0.866, printed 0.341",
        lambda: _layer_norm(8, 1),
    ),
    Counterexample(
        "11",
        "hessian",
        "connected",
        "L = 2, W_1 = W_2 = 0.1 I_2, x = (3, 4): ‖H‖ = 3.698, printed 0.7071",
        lambda: _chain([[[0.1, 0], [0, 0.1]]] * 2, [3, 4], 0, "11", "hessian"),
    ),
    Counterexample(
        "14",
        "hessian",
        "pooled",
        "conv-pool-conv on 6x6, C = k = 2, entries ±0.001, x = ones/6: ‖H‖ = 0.4714, printed 0.0587",
        lambda: _pooled("14"),
    ),
    Counterexample(
        "15",
        "hessian",
        "pooled",
        "conv-pool-conv on 6x6, C = k = 2, entries ±0.001, x = ones/6: ‖H‖ = 0.4714, printed 0.0587",
        lambda: _pooled("15"),
    ),
    Counterexample(
        "26",
        "network",
        "block",
        "X = (1, -1, …) of width 8, W_V = 0, the others of 0.001: ‖∂²Z/∂W_V²‖ = 6.928, printed 3.829",
        _block,
    ),
)
# Of the theorems about limits: sequences that meet the hypotheses.
SEQUENCES = {
    "27": "X = 1, y = 0, σ = 1, m_k = √k, Σ_k = 0: M(k) = 0.5",
    "28": "Σ_k = 1/k, |m_{k+1} - m_k| = 1/√k: KL(k) -> 0.5",
    "29": "Σ_k = 1/k, |m_{k+1} - m_k| = 1/√k: S(k) -> 0.7788",
}
