"""Curvature as a matrix, whole or by blocks, under a cap in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.func import grad, jacrev, jvp, vmap

from landscape_cli.curvature.objective import Objective, in_words, plain_kernels
from landscape_cli.curvature.operators import CurvatureOperator, GaussNewton
from landscape_cli.errors import BadInput

BYTE_CAP = 4 * 2**30


def dense(
    operator: CurvatureOperator,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    byte_cap: int = BYTE_CAP,
    progress: Any = None,
) -> torch.Tensor:
    """Build the matrix, or the block of some rows and columns.

    The whole matrix is exactly symmetric: the columns of each parameter tensor are computed from that tensor's rows
    downwards, which takes about half the work, and mirrored. The Gauss-Newton matrix is built from Jacobians.

    Parameters
    ----------
    rows, columns
        Names of parameters or patterns; None: all. For a diagonal block take ``operator.part(names)``.
    byte_cap
        The most that the matrix may take.
    progress
        Like tqdm.

    Returns
    -------
    Shape (rows, columns), the parameters' dtype.

    Raises
    ------
    BadInput
        The matrix is larger than the cap.
    """
    objective = operator.objective
    down = objective.part(rows) if rows is not None else objective
    across = objective.part(columns) if columns is not None else objective
    needed = down.size * across.size * objective.dtype.itemsize
    if needed > byte_cap:
        raise BadInput(
            f"a dense matrix of {down.size} x {across.size} parameters takes {in_words(needed)}, the cap is "
            f"{in_words(byte_cap)}; take a block (operator.part(names), rows=…, columns=…), or products, "
            "eigenpairs, trace, diagonal and spectral density, which never build it"
        )
    if down.names == across.names and isinstance(operator, GaussNewton):
        return _from_jacobians(down, progress)
    matrix = torch.zeros(down.size, across.size, dtype=objective.dtype, device=objective.device)
    bar = progress(total=across.size, unit="column") if progress else None
    whole = type(operator)(objective)
    for name, part in across.slices.items():
        # The matrix of a row and a column is that of the column and the row: below the diagonal only.
        wanted = down.names[down.names.index(name) :] if down.names == across.names else down.names
        begin = down.slices[wanted[0]].start
        shape = objective.fixed[name].shape
        size = part.stop - part.start
        _, together = objective.chunks(size)
        for first in range(0, size, together):
            count = min(together, size - first)
            directions = torch.zeros(count, size, dtype=objective.dtype, device=objective.device)
            directions[range(count), range(first, first + count)] = 1
            found = whole.columns({name: directions.view(count, *shape)}, wanted)
            left = part.start + first
            matrix[begin:, left : left + count] = found.T.to(matrix.dtype)
            if bar is not None:
                bar.update(count)
    if bar is not None:
        bar.close()
    return _mirror(matrix) if down.names == across.names else matrix


def jacobians(objective: Objective, x: torch.Tensor) -> torch.Tensor:
    """Jacobian of each object's outputs by the parameters: (B, …) -> (B, K, P), outputs flattened."""

    def one(x: torch.Tensor) -> torch.Tensor:
        found = jacrev(lambda own: objective.outputs(own, x[None])[0].flatten())(objective.parameters)
        return objective.flatten(found)

    with plain_kernels():
        return vmap(one)(x)


def output_hessians(objective: Objective, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hessian of each object's loss by its outputs, (B, K, K), and the outputs (B, K)."""
    with plain_kernels(), torch.no_grad():
        outputs = objective.outputs({}, x)
    shape = outputs.shape[1:]

    def one(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        slope = grad(lambda z: objective.loss(z.view(1, *shape), y[None]).sum())
        unit = torch.eye(len(z), dtype=z.dtype, device=z.device)
        return vmap(lambda direction: jvp(slope, (z,), (direction,))[1])(unit)

    flat = outputs.flatten(1)
    return vmap(one)(flat, y), flat


def jacobian_chunk(objective: Objective) -> int:
    """How many objects' Jacobians to hold at a time."""
    outputs = objective.outputs({}, objective.x[:1]).numel()
    return max(1, objective.own_chunk(outputs))


def _from_jacobians(objective: Objective, progress: Any) -> torch.Tensor:
    """(1/N) Σ_i J_iᵀ A_i J_i."""
    total = torch.zeros(objective.size, objective.size, dtype=objective.dtype, device=objective.device)
    begins = range(0, objective.objects, size := jacobian_chunk(objective))
    for begin in progress(begins, unit="chunk") if progress else begins:
        x, y = objective.x[begin : begin + size], objective.y[begin : begin + size]
        jacobian = jacobians(objective, x)
        curvature, _ = output_hessians(objective, x, y)
        total.addmm_(jacobian.flatten(0, 1).T, (curvature @ jacobian).flatten(0, 1))
    return _mirror(total.div_(objective.objects))


def _mirror(matrix: torch.Tensor, block: int = 1024) -> torch.Tensor:
    """Copy what is below the diagonal to above it, in place."""
    for begin in range(0, len(matrix), block):
        end = min(begin + block, len(matrix))
        square = matrix[begin:end, begin:end]
        square.copy_(square.tril() + square.tril(-1).T)
        matrix[begin:end, end:] = matrix[end:, begin:end].T
    return matrix
