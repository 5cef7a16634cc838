"""Exact Hessians of stacked fully connected networks, many networks at once, without automatic differentiation.

A weight enters the loss through its layer's pre-activation z alone, and that linearly. So an object's Hessian by the
pre-activations, which follows from the layer above (Botev, Ritter, Barber 2017, "Practical Gauss-Newton optimisation
for deep learning", eq. 13), gives the diagonal by the weights at the price of a few backward passes, and with the
Jacobians between layers every block. Losses are those of the networks' gradients: cross-entropy for class indices,
squared error (y - f)² for real targets. For other networks see :func:`landscape_cli.curvature.dense`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape_cli.models.mlp import FeedForward

BYTES = 2**28  # of the largest intermediate value, from which objects are taken in chunks


@dataclass(frozen=True)
class _Passage:
    """What a forward and a backward pass over some objects yield, layer by layer; d_l outputs of layer l."""

    inputs: list[torch.Tensor]  # (S, B, in [+ 1]): with a one where there are biases
    slopes: list[torch.Tensor | None]  # (S, B, in): of the activation before the layer; None before the first
    weights: list[torch.Tensor]  # (S, d_l, in)
    deltas: list[torch.Tensor]  # (S, B, d_l): derivative of the loss by the pre-activation
    hessians: list[torch.Tensor]  # (S, B, d_l, d_l): second derivative by it


def flatten(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """Parameters as vectors, (S, P), tensor after tensor."""
    return torch.cat([tensor.flatten(1) for tensor in parameters.values()], dim=1)


def unflatten(vectors: torch.Tensor, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Vectors (S, P) as parameters with the names and shapes of others."""
    sizes = [tensor[0].numel() for tensor in like.values()]
    parts = vectors.split(sizes, dim=1)
    return {name: part.reshape(-1, *tensor.shape[1:]) for (name, tensor), part in zip(like.items(), parts, strict=True)}


@torch.no_grad()
def hessian_diagonal(
    model: FeedForward, parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Exact diagonal of each network's Hessian of its mean loss.

    Parameters
    ----------
    x, y
        Objects (S, N, …) and targets (S, N), or (1, N, …) and (1, N) shared by all networks.

    Returns
    -------
    Shape (S, P), in the order of :func:`flatten`.
    """
    total: torch.Tensor | None = None
    for begin, end in _chunks(model, parameters, x.shape[1], whole=False):
        passage = _pass(model, parameters, x[:, begin:end], y[:, begin:end], x.shape[1])
        parts = []
        for inputs, curvatures in zip(passage.inputs, passage.hessians, strict=True):
            parts.append((curvatures.diagonal(dim1=-2, dim2=-1).mT @ inputs.square()).flatten(1))
        found = torch.cat(parts, dim=1)[:, _positions(model).to(x.device)]
        total = found if total is None else total + found
    return total


@torch.no_grad()
def hessian(model: FeedForward, parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each network's Hessian of its mean loss, whole.

    Parameters
    ----------
    x, y
        Objects (S, N, …) and targets (S, N), or (1, N, …) and (1, N) shared by all networks.

    Returns
    -------
    Shape (S, P, P), exactly symmetric, in the order of :func:`flatten`.
    """
    place = _positions(model).to(x.device)
    first = next(iter(parameters.values()))
    total = first.new_zeros(len(first), len(place), len(place))
    for begin, end in _chunks(model, parameters, x.shape[1], whole=True):
        _blocks(_pass(model, parameters, x[:, begin:end], y[:, begin:end], x.shape[1]), total)
    return total[:, place][:, :, place] if model.bias else total


def quadratic_form(
    model: FeedForward,
    parameters: dict[str, torch.Tensor],
    directions: dict[str, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
) -> torch.Tensor:
    """vᵀ H v of each network's Hessian of its mean loss: the second derivative along v, in one forward pass.

    With random signs v it estimates the trace without bias (Hutchinson 1990), and can be differentiated by the
    parameters (Pearlmutter 1994, "Fast exact multiplication by the Hessian", the R operator twice).

    Parameters
    ----------
    directions
        v, with the names and shapes of the parameters.
    x, y
        Objects (S, N, …) and targets (S, N), or (1, N, …) and (1, N) shared by all networks.

    Returns
    -------
    Shape (S,).
    """
    layers = len(model.widths) - 1
    count = next(iter(parameters.values())).shape[0]
    a = x.flatten(2).expand(count, -1, -1)
    first = second = None  # derivatives of a along v
    for layer in range(layers):
        weight, along = (tensors[f"{2 * layer}.weight"].mT for tensors in (parameters, directions))
        z, z1 = a @ weight, a @ along
        z2 = torch.zeros_like(z)
        if first is not None:
            z1 = z1 + first @ weight
            z2 = 2 * (first @ along) + second @ weight
        if model.bias:
            z = z + parameters[f"{2 * layer}.bias"].unsqueeze(1)
            z1 = z1 + directions[f"{2 * layer}.bias"].unsqueeze(1)
        if layer < layers - 1:
            if model.activation == "relu":
                slope = (z > 0).to(z.dtype)
                a, first, second = z * slope, slope * z1, slope * z2
            else:
                a = torch.tanh(z)
                slope = 1 - a.square()
                first, second = slope * z1, slope * z2 - 2 * a * slope * z1.square()
    if y.is_floating_point():
        residual = z - y.view(*y.shape[:2], z.shape[-1])
        return 2 * (z1.square() + residual * z2).sum(dim=-1).mean(dim=1)
    p = z.softmax(dim=-1)
    mean = (p * z1).sum(dim=-1, keepdim=True)
    slope = p - torch.nn.functional.one_hot(y, z.shape[-1]).to(z.dtype)
    return (p * (z1 - mean).square() + slope * z2).sum(dim=-1).mean(dim=1)


def _blocks(passage: _Passage, total: torch.Tensor) -> None:
    """Add the objects' Hessians to (S, Σ d·in, Σ d·in), rows (output, input) of each layer."""
    ends = [0]
    for hessian, inputs in zip(passage.hessians, passage.inputs, strict=True):
        ends.append(ends[-1] + hessian.shape[-1] * inputs.shape[-1])
    for p, along in enumerate(passage.inputs):
        low_outs, low_ins = passage.hessians[p].shape[-1], along.shape[-1]
        between = None  # ∂z_q / ∂z_p
        for q in range(p, len(passage.inputs)):
            above, outs = passage.inputs[q], passage.hessians[q].shape[-1]
            ins = above.shape[-1]
            if q == p:
                mixed = passage.hessians[p]
            else:
                slope = passage.slopes[q]
                before = torch.diag_embed(slope) if between is None else slope.unsqueeze(-1) * between
                between = passage.weights[q].unsqueeze(1) @ before
                mixed = passage.hessians[q] @ between
            pairs = (above.unsqueeze(-1) * along.unsqueeze(-2)).flatten(2)
            found = (mixed.flatten(2).mT @ pairs).view(-1, outs, low_outs, ins, low_ins).permute(0, 1, 3, 2, 4)
            place = total[:, ends[q] : ends[q + 1], ends[p] : ends[p + 1]]
            block = place.unflatten(2, (low_outs, low_ins)).unflatten(1, (outs, ins))
            block += found
            if q > p:  # the inputs of layer q move too
                width = before.shape[-2]
                moved = (passage.deltas[q][..., None, None] * before.unsqueeze(2)).flatten(2)
                block[:, :, :width] += (moved.mT @ along).view(-1, outs, width, low_outs, low_ins)
                total[:, ends[p] : ends[p + 1], ends[q] : ends[q + 1]] = place.mT
            else:
                place.copy_((place + place.mT) / 2)


def _pass(
    model: FeedForward, parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, objects: int
) -> _Passage:
    """Pass forward and backward; derivatives are of the objects' share in the mean loss of `objects`."""
    outputs = model.layer_outputs(parameters, x)
    weights = [parameters[f"{2 * layer}.weight"] for layer in range(len(model.widths) - 1)]
    z = outputs[-1]
    if y.is_floating_point():
        delta = 2 / objects * (z - y.view(*y.shape[:2], z.shape[-1]))
        curvature = 2 / objects * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device).expand(*z.shape, -1)
    else:
        p = z.softmax(dim=-1)
        delta = (p - torch.nn.functional.one_hot(y, z.shape[-1]).to(z.dtype)) / objects
        curvature = (torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)) / objects
    deltas, hessians, slopes = [delta], [curvature], []
    for layer in reversed(range(1, len(weights))):
        a, weight = outputs[layer], weights[layer]
        slope = (a > 0).to(a.dtype) if model.activation == "relu" else 1 - a.square()
        back = deltas[0] @ weight
        curvature = weight.mT.unsqueeze(1) @ (hessians[0] @ weight.unsqueeze(1))
        curvature = slope.unsqueeze(-1) * curvature * slope.unsqueeze(-2)
        if model.activation == "tanh":
            curvature.diagonal(dim1=-2, dim2=-1).add_(-2 * a * slope * back)
        slopes.insert(0, slope)
        deltas.insert(0, slope * back)
        hessians.insert(0, curvature)
    inputs = outputs[:-1]
    if model.bias:
        inputs = [torch.cat([a, torch.ones_like(a[..., :1])], dim=-1) for a in inputs]
    return _Passage(inputs, [None, *slopes], weights, deltas, hessians)


def _positions(model: FeedForward) -> torch.Tensor:
    """Where each parameter, in the order of :func:`flatten`, stands among rows (output, input and one) of layers."""
    places, begin = [], 0
    for width, outs in zip(model.widths, model.widths[1:], strict=False):
        grid = begin + torch.arange(outs * (width + model.bias)).view(outs, width + model.bias)
        places.append(grid[:, :width].flatten())
        if model.bias:
            places.append(grid[:, width])
        begin += grid.numel()
    return torch.cat(places)


def _chunks(
    model: FeedForward, parameters: dict[str, torch.Tensor], objects: int, *, whole: bool
) -> list[tuple[int, int]]:
    """Begins and ends of chunks of objects whose intermediate values fit in memory."""
    first = next(iter(parameters.values()))
    widest = max(model.widths[1:])
    values = widest * widest
    if whole:
        widest_input = max(model.widths) + 1
        values = max(values * max(model.widths[1:-1], default=1), widest_input * widest_input)
    size = max(1, BYTES // (values * first.shape[0] * first.element_size()))
    return [(begin, min(begin + size, objects)) for begin in range(0, objects, size)]
