"""Convolutions and poolings as matrices (thesis 2.2.2): f(x) = T^(L+1) Λ^(L) … Λ^(1) T^(1) x.

A picture (C, H, W) is the vector of its elements in reading order, vec(x) of length C·H·W; one-dimensional ones have
W = 1. Every row of T^(p) applies one kernel at one position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape_cli.geometry import Shape
from landscape_cli.models.conv import ConvNet

Parameters = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Factor:
    """One factor of the product, applied as matrix · vec + offset."""

    name: str  # conv1, relu1, pool2, head1, …
    matrix: torch.Tensor  # (out, in); of a nonlinearity: Λ^(l), which depends on the input
    offset: torch.Tensor  # (out,); zero without biases and for nonlinearities


def convolution_matrix(weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Matrix of a convolution without padding, stride 1.

    Parameters
    ----------
    weight
        Kernel (C_out, C_in, k, k), or (C_out, C_in, k) in one dimension, where ``shape`` is (C_in, d, 1).
    shape
        (C_in, H, W) of the input.

    Returns
    -------
    (C_out·H'·W', C_in·H·W), H' = H - k + 1, in the dtype of the kernel.
    """
    weight = weight if weight.dim() == 4 else weight.unsqueeze(-1)
    c_out, c_in, kernel_height, kernel_width = weight.shape
    channels, height, width = shape
    rows, columns = height - kernel_height + 1, width - kernel_width + 1
    if channels != c_in or rows < 1 or columns < 1:
        raise ValueError(f"a kernel {tuple(weight.shape)} does not fit on an input {shape}")
    # One axis for each index of output and input position; an entry is the kernel's where they differ by its offset.
    matrix = weight.new_zeros(c_out, rows, columns, c_in, height, width)
    y, x = torch.arange(rows, device=weight.device), torch.arange(columns, device=weight.device)
    for i in range(kernel_height):
        for j in range(kernel_width):
            matrix[:, y[:, None], x, :, y[:, None] + i, x + j] = weight[:, :, i, j]
    return matrix.reshape(c_out * rows * columns, c_in * height * width)


def average_pooling_matrix(shape: Shape, window: tuple[int, int]) -> torch.Tensor:
    """Matrix of an average pooling, window = stride: (C·(H//h)·(W//w), C·H·W), float64.

    Each entry is 1/(h·w) or 0; what no whole window covers is left out.
    """
    chosen = pooling_windows(shape, window)
    matrix = torch.zeros(len(chosen), shape[0] * shape[1] * shape[2], dtype=torch.float64)
    return matrix.scatter_(1, chosen, 1 / chosen.shape[1])


def max_pooling_matrix(x: torch.Tensor, window: tuple[int, int]) -> torch.Tensor:
    """Matrix of a max pooling of one input, window = stride: one 1 in each row, at its window's largest element.

    Parameters
    ----------
    x
        The input, shape (C, H, W). Of several largest elements the first in reading order is taken, as PyTorch does.

    Returns
    -------
    (C·(H//h)·(W//w), C·H·W), float64.
    """
    chosen = pooling_windows(tuple(x.shape), window).to(x.device)
    values = x.reshape(-1)[chosen]
    # argmax does not say which of several it takes.
    first = (values == values.amax(dim=1, keepdim=True)).double().argsort(dim=1, descending=True, stable=True)[:, :1]
    matrix = torch.zeros(len(chosen), x.numel(), dtype=torch.float64, device=x.device)
    return matrix.scatter_(1, chosen.gather(1, first), 1)


def factors(model: ConvNet, parameters: Parameters, seed: int, x: torch.Tensor) -> list[Factor]:
    """Every layer of a network as a matrix, at one input; their product is the network's output there.

    Parameters
    ----------
    parameters
        Of all seeds, as the model has them.
    x
        One picture, shape (C, H, W).

    Returns
    -------
    In the order in which they are applied, float64. The matrices of ReLU and max pooling depend on x. With biases
    the product of the matrices alone is not the network: each ``offset`` is added after its matrix.
    """
    own = {name: tensor[seed].double() for name, tensor in parameters.items()}
    geometry = model.geometry
    if model.one_dimensional:
        x = x.transpose(1, 2)
    found: list[Factor] = []
    value, shape = x.double().reshape(-1), geometry.input

    def add(name: str, matrix: torch.Tensor, offset: torch.Tensor | None = None) -> None:
        nonlocal value
        offset = matrix.new_zeros(len(matrix)) if offset is None else offset
        found.append(Factor(name, matrix, offset))
        value = matrix @ value + offset

    for layer in range(1, model.layers + 1):
        shape, inputs = geometry.convolved[layer - 1], shape
        bias = own.get(f"conv{layer}.bias")
        offset = None if bias is None else bias.repeat_interleave(shape[1] * shape[2])
        add(f"conv{layer}", convolution_matrix(own[f"conv{layer}.weight"], inputs), offset)
        if layer == model.position:
            if model.average:
                matrix = average_pooling_matrix(shape, geometry.window).to(value)
            else:
                matrix = max_pooling_matrix(value.view(shape), geometry.window)
            add(f"pool{layer}", matrix)
        elif model.rectified(layer):
            add(f"relu{layer}", torch.diag((value > 0).double()))
        shape = geometry.passed_on[layer - 1]
    for layer in range(1, len(model.widths)):
        add(f"head{layer}", own[f"head{layer}.weight"], own.get(f"head{layer}.bias"))
        if layer < len(model.widths) - 1:
            add(f"head_relu{layer}", torch.diag((value > 0).double()))
    return found


def pooling_windows(shape: Shape, window: tuple[int, int]) -> torch.Tensor:
    """Positions in vec(x) of each window's elements in reading order: (windows, h·w)."""
    channels, height, width = shape
    rows, columns = height // window[0], width // window[1]
    if rows < 1 or columns < 1:
        raise ValueError(f"a window {window} does not fit on an input {shape}")
    index = torch.arange(channels * height * width).view(shape)[:, : rows * window[0], : columns * window[1]]
    split = index.reshape(channels, rows, window[0], columns, window[1])
    return split.transpose(2, 3).reshape(-1, window[0] * window[1])
