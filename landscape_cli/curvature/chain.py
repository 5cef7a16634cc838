"""ReLU networks as products of matrices, f(x) = T^(P) Λ^(P-1) … Λ^(1) T^(1) x (thesis 2.2), and their exact Hessians.

Fully connected and convolutional networks (no padding, stride 1), poolings in the place of ReLUs, without biases. A
matrix T^(p) is read off its layer's parameters, T_ij = w[index_ij], so Q^(p) = ∂vec_r(T^(p))/∂w^(p) has zeros and ones.
For almost every x the product is linear in each T^(p), so the Hessian of one object's loss has the closed form

    H = Qᵀ Fᵀ A F Q + Σ_{p<q} (D_q M_qp E_pᵀ + its transpose)                           (Theorem 10, and what it leaves)

with A the Hessian of the loss by the outputs, g its gradient, G^(p) = ∂z/∂z^(p), M_qp = ∂x^(q-1)/∂z^(p),
u_q = G^(q)ᵀ g, E_p = Q^(p)ᵀ (I ⊗ x^(p-1)) and D_q = Q^(q)ᵀ (u_q ⊗ I). It is built without differentiating anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from landscape_cli.errors import BadInput
from landscape_cli.geometry import Shape
from landscape_cli.models.toeplitz import convolution_matrix, pooling_windows


@dataclass(frozen=True)
class Layer:
    """A linear layer, T = w[index]."""

    name: str
    kind: str  # linear, conv1d, conv2d
    index: torch.Tensor  # (out, in), entries of the parameters; -1: zero
    parameters: int
    shape: tuple[int, ...]  # of the layer's weight

    @property
    def positions(self) -> int:
        """How often each parameter stands in T, ‖Q^(p)‖²: the number of output positions."""
        return self.index.shape[0] // self.shape[0]

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """Place weights (…, *shape) in T, (…, out, in)."""
        flat = weight.flatten(-len(self.shape))
        if self.kind == "linear":
            return flat.unflatten(-1, self.index.shape)
        zero = flat.new_zeros(*flat.shape[:-1], 1)
        return torch.cat([flat, zero], dim=-1)[..., self.index]  # the index -1 is the zero

    def derivative(self) -> torch.Tensor:
        """Q = ∂vec_r(T)/∂w: (out·in, parameters), float64."""
        index = self.index.flatten()
        return nn.functional.one_hot(index + 1, self.parameters + 1)[:, 1:].double()


@dataclass(frozen=True)
class Gate:
    """What stands after a linear layer: a ReLU, a pooling, or nothing."""

    kind: str  # relu, max, average, none
    windows: torch.Tensor | None = None  # (out', window) of a pooling, positions in its input

    def apply(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Take z (…, out) to Λ z and Λ: a ReLU's Λ as its diagonal (…, out), a pooling's as (…, out', out)."""
        if self.kind == "none":
            return z, None
        if self.kind == "relu":
            return z.clamp(min=0), (z > 0).to(z.dtype)
        values = z[..., self.windows]
        share = (
            torch.full_like(values, 1 / values.shape[-1])
            if self.kind == "average"
            else nn.functional.one_hot(values.argmax(dim=-1), values.shape[-1]).to(z.dtype)
        )
        matrix = z.new_zeros(*share.shape[:-1], z.shape[-1])
        matrix.scatter_(-1, self.windows.expand_as(share), share)
        return (share * values).sum(dim=-1), matrix


def _after(product: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """Product Λ for a product (…, m, out')."""
    if gate is None:
        return product
    if gate.dim() == product.dim():
        return product @ gate
    return product * gate.unsqueeze(-2)


@dataclass(frozen=True)
class Passage:
    """One pass of one or several objects through a chain, with the matrices of the thesis's section 2.2."""

    matrices: tuple[torch.Tensor, ...]  # T^(p), (…, out, in), p = 1 … P
    inputs: tuple[torch.Tensor, ...]  # x^(p-1), (…, in)
    gates: tuple[torch.Tensor | None, ...]  # Λ^(p), p = 1 … P - 1, see Gate.apply
    outputs: torch.Tensor  # z, (…, K)
    to_output: tuple[torch.Tensor, ...]  # G^(p) = ∂z/∂z^(p), (…, K, out)

    def between(self, q: int, p: int) -> torch.Tensor:
        """M_qp = ∂x^(q-1)/∂z^(p), (…, in_q, out_p), layers counted from 0, p < q."""
        width = self.inputs[q].shape[-1]
        product = torch.eye(width, dtype=self.outputs.dtype, device=self.outputs.device)
        product = product.expand(*self.outputs.shape[:-1], width, width)
        for layer in range(q - 1, p, -1):
            product = _after(product, self.gates[layer]) @ self.matrices[layer]
        return _after(product, self.gates[p])


@dataclass(frozen=True)
class Chain:
    """The layers of a network, without its weights."""

    layers: tuple[Layer, ...]
    gates: tuple[Gate, ...]  # one fewer
    prepare: nn.Sequential  # what the network does to an object before its first layer; no parameters

    @classmethod
    def of(cls, net: nn.Sequential, shape: Shape) -> Chain:
        """Read a network off its modules.

        Parameters
        ----------
        net
            Linear, Conv1d and Conv2d layers, with one ReLU or pooling between two of them; Flatten anywhere.
        shape
            (C, H, W) of an object.

        Raises
        ------
        BadInput
            Biases, padding, a stride, another kind of layer, two layers without a nonlinearity between them.
        """
        prepare, layers, gates = nn.Sequential(), [], []
        now: tuple[int, ...] = shape  # of the maps
        last = ""
        for name, module in net.named_children():
            if isinstance(module, nn.Flatten):
                now = (math.prod(now),)
                continue
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                if len(gates) < len(layers):
                    gates.append(Gate("none"))
                layer, now = _layer(name, module, now)
                layers.append(layer)
            elif not layers and not any(True for _ in module.parameters()):
                prepare.append(module)
                now = tuple(module(torch.zeros(1, *now)).shape[1:])
            elif layers and len(gates) < len(layers):
                gate, now = _gate(name, module, now)
                gates.append(gate)
                last = name
            else:
                raise BadInput(f"{name}: {type(module).__name__} does not fit into a product of matrices (2.1)")
        if not layers:
            raise BadInput("no linear layer, so no product of matrices (2.1)")
        if len(gates) == len(layers):
            raise BadInput(
                f"{last}: the last layer is followed by a nonlinearity; the product (2.1) ends with a matrix"
            )
        return cls(tuple(layers), tuple(gates), prepare)

    def weights(self, net: nn.Sequential) -> list[torch.Tensor]:
        """The network's weights in the order of the layers, float64."""
        return [net.get_submodule(layer.name).weight.detach().double() for layer in self.layers]

    def vector(self, x: torch.Tensor) -> torch.Tensor:
        """Objects (B, C, H, W) -> their vectors x^(0), (B, in), float64."""
        return self.prepare(x).flatten(1).double()

    def run(self, weights: Sequence[torch.Tensor], x: torch.Tensor) -> Passage:
        """Pass vectors x (…, in) through the chain; weights (…, *shape), with or without the vectors' axes."""
        matrices, inputs, masks = [], [], []
        for layer, gate, weight in itertools.zip_longest(self.layers, self.gates, weights):
            matrices.append(layer.matrix(weight))
            inputs.append(x)
            z = (matrices[-1] @ x.unsqueeze(-1)).squeeze(-1)
            if gate is not None:
                x, mask = gate.apply(z)
                masks.append(mask)
        product = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device).expand(*z.shape, z.shape[-1])
        to_output = [product]
        for matrix, mask in zip(reversed(matrices[1:]), reversed(masks), strict=True):
            product = _after(product @ matrix, mask)
            to_output.append(product)
        return Passage(tuple(matrices), tuple(inputs), tuple(masks), z, tuple(reversed(to_output)))

    def outputs(self, weights: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Outputs (…, B, K) of networks with weights (…, *shape) at vectors (…, B, in)."""
        for layer, gate, weight in itertools.zip_longest(self.layers, self.gates, weights):
            x = x @ layer.matrix(weight).mT
            x = x if gate is None else gate.apply(x)[0]
        return x


@dataclass(frozen=True)
class Factors:
    """H_O = Qᵀ Fᵀ A F Q of one object (Theorem 10), float64. N = Σ_p out_p·in_p, n parameters."""

    A: torch.Tensor  # (K, K)
    F: torch.Tensor  # (K, N)
    Q: torch.Tensor  # (N, n), block-diagonal

    def product(self) -> torch.Tensor:
        """H_O, (n, n)."""
        derivative = self.F @ self.Q
        return derivative.T @ self.A @ derivative


def factorise(chain: Chain, weights: Sequence[torch.Tensor], x: torch.Tensor) -> Factors:
    """Build the three factors of Theorem 10 for one vector x (in,) and the cross-entropy."""
    passage = chain.run(weights, x)
    blocks = [torch.kron(g, v[None]) for g, v in zip(passage.to_output, passage.inputs, strict=True)]
    curvature, _ = _cross_entropy(passage.outputs, None)
    return Factors(curvature, torch.cat(blocks, 1), torch.block_diag(*(layer.derivative() for layer in chain.layers)))


def object_hessians(
    chain: Chain, weights: Sequence[torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Newton part and Hessian of each object's cross-entropy, in coordinates with the same spectrum.

    A linear layer's directions that do not change the loss to second order are left out, by an isometry: what remains
    of out·in of them is out + in, of a first layer out.

    Parameters
    ----------
    weights
        (…, *shape) of each layer: one network, or one for each object.
    x, y
        Vectors (…, in) and classes (…).

    Returns
    -------
    H_O and H, each (…, r, r). Eigenvalues are those of the matrices by the parameters, but for zeros.
    """
    passage = chain.run(weights, x)
    curvature, slope = _cross_entropy(passage.outputs, y)
    along, across = [], []
    for p, layer in enumerate(chain.layers):
        back = (passage.to_output[p].mT @ slope.unsqueeze(-1)).squeeze(-1)
        e, d = _coordinates(layer, passage.inputs[p], back if p else None)
        along.append(e)
        across.append(d)
    jacobian = torch.cat([g @ e.mT for g, e in zip(passage.to_output, along, strict=True)], dim=-1)
    gauss_newton = jacobian.mT @ curvature @ jacobian
    rows = []
    for q in range(len(chain.layers)):
        left = [across[q] @ passage.between(q, p) @ along[p].mT for p in range(q)]
        width = along[q].shape[-2]
        right = [jacobian.new_zeros(*x.shape[:-1], width, e.shape[-2]) for e in along[q:]]
        rows.append(torch.cat([*left, *right], dim=-1))
    lower = torch.cat(rows, dim=-2)
    return gauss_newton, gauss_newton + lower + lower.mT


def object_norms(
    chain: Chain, weights: Sequence[torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """‖H_O‖₂ and ‖H‖₂ of each object, (…) each; arguments as of :func:`object_hessians`."""
    gauss_newton, hessian = object_hessians(chain, weights, x, y)
    largest = torch.linalg.eigvalsh(gauss_newton)[..., -1]
    ends = torch.linalg.eigvalsh(hessian)
    return largest, torch.maximum(ends[..., -1], -ends[..., 0])


def _coordinates(layer: Layer, v: torch.Tensor, u: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """E = Qᵀ(I ⊗ v) (…, r, out) and D = Qᵀ(u ⊗ I) (…, r, in) in coordinates of the parameters.

    Of a linear layer a vᵀ + u bᵀ = (‖v‖ a + u v̂ᵀb) v̂ᵀ + ‖u‖ û (b - v̂ v̂ᵀb)ᵀ: two orthogonal parts, of sizes out and in.
    """
    out, width = layer.index.shape
    if layer.kind != "linear":
        entries = layer.index.clamp(min=0)
        held = (layer.index >= 0).to(v.dtype)
        sources = [held * v.unsqueeze(-2)] if u is None else [held * v.unsqueeze(-2), held * u.unsqueeze(-1)]
        e = v.new_zeros(*v.shape[:-1], layer.parameters, out)
        e.scatter_add_(-2, entries.T.expand(*v.shape[:-1], width, out), sources[0].mT)
        if u is None:
            return e, None
        d = v.new_zeros(*v.shape[:-1], layer.parameters, width)
        return e, d.scatter_add_(-2, entries.expand(*v.shape[:-1], out, width), sources[1])
    largest = v.abs().amax(dim=-1).clamp(min=torch.finfo(v.dtype).tiny)
    scaled = v / largest.unsqueeze(-1)  # squares of very small numbers would vanish
    length = largest * scaled.norm(dim=-1)
    identity = torch.eye(out, dtype=v.dtype, device=v.device)
    e = length[..., None, None] * identity
    if u is None:
        return e, None
    unit = scaled / scaled.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    shared = u.unsqueeze(-1) * unit.unsqueeze(-2)
    rest = torch.eye(width, dtype=v.dtype, device=v.device) - unit.unsqueeze(-1) * unit.unsqueeze(-2)
    below = v.new_zeros(*v.shape[:-1], width, out)
    return torch.cat([e, below], dim=-2), torch.cat([shared, u.norm(dim=-1)[..., None, None] * rest], dim=-2)


def _cross_entropy(z: torch.Tensor, y: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A = diag(p) - ppᵀ and g = p - y of outputs (…, K)."""
    p = z.softmax(dim=-1)
    curvature = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    return curvature, None if y is None else p - nn.functional.one_hot(y, z.shape[-1]).to(z.dtype)


def _layer(name: str, module: nn.Module, shape: tuple[int, ...]) -> tuple[Layer, tuple[int, ...]]:
    weight = module.weight
    if module.bias is not None:
        raise BadInput(f"{name}: biases; the product of matrices (2.1) has none (model.bias=false)")
    numbers = torch.arange(1, weight.numel() + 1, dtype=torch.float64).view(weight.shape)
    if isinstance(module, nn.Linear):
        if shape != (module.in_features,):
            what = f"maps of the shape {shape}, with no Flatten" if len(shape) > 1 else f"{shape[0]} values"
            raise BadInput(f"{name}: takes {module.in_features} features and is given {what}")
        return Layer(name, "linear", (numbers - 1).long(), weight.numel(), tuple(weight.shape)), (len(weight),)
    plain = {"padding": 0, "stride": 1, "dilation": 1, "groups": 1}
    for option, value in plain.items():
        given = getattr(module, option)
        if any(part != value for part in (given if isinstance(given, tuple) else (given,))):
            raise BadInput(f"{name}: {option} {given}; the bounds are for convolutions with {option} {value}")
    one_dimensional = isinstance(module, nn.Conv1d)
    if len(shape) != (2 if one_dimensional else 3):
        raise BadInput(f"{name}: {type(module).__name__} is given objects of the shape {shape}")
    maps = (*shape, 1) if one_dimensional else shape
    try:
        index = convolution_matrix(numbers, maps).long() - 1
    except ValueError as error:
        raise BadInput(f"{name}: {error}") from error
    kernel = (*weight.shape[2:], 1) if one_dimensional else weight.shape[2:]
    now = (len(weight), maps[1] - kernel[0] + 1, maps[2] - kernel[1] + 1)
    layer = Layer(name, "conv1d" if one_dimensional else "conv2d", index, weight.numel(), tuple(weight.shape))
    return layer, now[:2] if one_dimensional else now


def _gate(name: str, module: nn.Module, shape: tuple[int, ...]) -> tuple[Gate, tuple[int, ...]]:
    if isinstance(module, nn.ReLU):
        return Gate("relu"), shape
    kinds = {nn.MaxPool1d: "max", nn.MaxPool2d: "max", nn.AvgPool1d: "average", nn.AvgPool2d: "average"}
    kind = kinds.get(type(module))
    if kind is None:
        raise BadInput(f"{name}: {type(module).__name__}; allowed between two layers: ReLU, max and average pooling")
    sizes = [s if isinstance(s, tuple) else (s,) * (len(shape) - 1) for s in (module.kernel_size, module.stride)]
    if sizes[0] != sizes[1] or module.padding not in (0, (0, 0), (0,)):
        raise BadInput(f"{name}: a pooling whose window is not its stride, or with padding; the theorems have neither")
    for option, value in {"ceil_mode": False, "dilation": 1, "divisor_override": None}.items():
        if getattr(module, option, value) != value:
            raise BadInput(f"{name}: a pooling with {option}={getattr(module, option)}; allowed: {value}")
    if len(shape) != (2 if type(module) in (nn.MaxPool1d, nn.AvgPool1d) else 3):
        raise BadInput(f"{name}: {type(module).__name__} is given objects of the shape {shape}")
    maps = shape if len(shape) == 3 else (*shape, 1)
    window = sizes[0] if len(shape) == 3 else (*sizes[0], 1)
    now = (maps[0], maps[1] // window[0], maps[2] // window[1])
    try:
        windows = pooling_windows(maps, window)
    except ValueError as error:
        raise BadInput(f"{name}: {error}") from error
    return Gate(kind, windows), now if len(shape) == 3 else now[:2]
