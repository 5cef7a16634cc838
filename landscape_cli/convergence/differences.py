"""|L_{k+1} - L_k| over random orderings of the objects, streamed in float64; its moving average and closed form.

With ℓ_i the loss of object i, π an ordering and L_k = (1/k) Σ_{i<=k} ℓ_π(i), the quantity of the thesis (1.3) is
d_k = |L_{k+1} - L_k| = |ℓ_π(k+1) - L_k|/(k+1), k = 1 … m-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK = 1024  # objects of one ordering handled at a time: a hundred orderings of them stay in a cache
STEP = 64  # values of a moving average handled by one product
BATCH_BYTES = 64 * 2**20  # of permuted losses held at once


class DifferenceStream:
    """Differences of consecutive running means, object by object, with the state carried between blocks.

    State: the number of objects seen and the sum of their losses in each ordering; memory does not grow with m.

    Parameters
    ----------
    orderings
        Number P of orderings followed side by side.
    """

    def __init__(self, orderings: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.total = torch.zeros(orderings, 1, dtype=torch.float64, device=device)

    def update(self, block: torch.Tensor) -> torch.Tensor:
        """Add the next objects.

        Parameters
        ----------
        block
            Losses in each ordering, shape (P, B), float64.

        Returns
        -------
        d_k for the new objects, shape (P, B); (P, B - 1) for the first block, since L_1 has no predecessor. It is
        computed as |ℓ_{k+1} - L_k|/(k+1), which is exact where the difference of two means would cancel.
        """
        size = block.shape[1]
        sums = torch.cumsum(block, dim=1).add_(self.total)
        seen = torch.arange(self.count + 1, self.count + size + 1, dtype=torch.float64, device=block.device)
        before = torch.cat([self.total, sums[:, :-1]], dim=1).div_((seen - 1).clamp_(min=1))
        differences = before.sub_(block).abs_().div_(seen)
        first = self.count == 0
        self.count += size
        self.total = sums[:, -1:].clone()
        return differences[:, 1:] if first else differences


@dataclass(frozen=True)
class DifferenceCurve:
    """Mean over P orderings of d_k, k = 1 … m-1."""

    mean: torch.Tensor  # (m-1,) float64
    standard_error: torch.Tensor  # (m-1,) float64, of the mean over orderings


def loss_differences(losses: torch.Tensor, permutations: int, generator: torch.Generator) -> DifferenceCurve:
    """Mean |L_{k+1} - L_k| over random orderings of the objects.

    Parameters
    ----------
    losses
        One network's loss of each object, shape (m,), m >= 2, float64.
    permutations
        Number P of orderings, at least 2.
    generator
        Draws the orderings on the CPU, so that every device sees the same ones.
    """
    m = len(losses)
    if m < 2 or permutations < 2:
        raise ValueError(f"at least 2 objects and 2 orderings are needed, not {m} and {permutations}")
    total = torch.zeros(m - 1, dtype=torch.float64, device=losses.device)
    squares = torch.zeros_like(total)
    together = max(1, min(permutations, BATCH_BYTES // (8 * m)))
    for begin in range(0, permutations, together):
        count = min(together, permutations - begin)
        order = torch.stack([torch.randperm(m, generator=generator) for _ in range(count)]).to(losses.device)
        permuted = losses.take(order)
        stream = DifferenceStream(count, losses.device)
        position = 0
        for block in permuted.split(BLOCK, dim=1):
            differences = stream.update(block)
            part = slice(position, position + differences.shape[1])
            total[part] += differences.sum(dim=0)
            squares[part] += differences.square_().sum(dim=0)
            position = part.stop
    mean = total / permutations
    variance = (squares / permutations - mean**2).clamp_(min=0) * permutations / (permutations - 1)
    return DifferenceCurve(mean, (variance / permutations).sqrt())


def exponential_moving_average(
    values: torch.Tensor, smoothing: float, previous: torch.Tensor | None = None
) -> torch.Tensor:
    """e_1 = v_1, e_k = a e_{k-1} + (1 - a) v_k, block by block.

    Inside a block of B values the recurrence is a product with the triangular matrix (1 - a) a^(i-j); from block to
    block only the last value is carried, by the same recurrence with a^B, and so block by block again.

    Parameters
    ----------
    values
        Shape (..., n).
    smoothing
        a in [0, 1).
    previous
        The average before the first value, shape (...,), to go on from an earlier call; None: e_1 = v_1.

    Returns
    -------
    Shape (..., n), the dtype of `values`.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"the smoothing must be in [0, 1), not {smoothing}")
    carried = values[..., 0] if previous is None else previous
    return _recurrence(values, smoothing, 1 - smoothing, carried)


def _recurrence(values: torch.Tensor, decay: float, weight: float, carried: torch.Tensor) -> torch.Tensor:
    """e_k = decay e_{k-1} + weight v_k along the last axis, with e_0 = carried."""
    n = values.shape[-1]
    size = min(STEP, max(n, 1))
    power = torch.arange(size, dtype=values.dtype, device=values.device)
    lag = power[:, None] - power[None, :]
    kernel = torch.where(lag >= 0, weight * decay ** lag.clamp(min=0), 0)  # e[i] += kernel[i, j] v[j]
    padded = torch.nn.functional.pad(values, (0, -n % size)) if n % size else values.contiguous()
    padded = padded.unflatten(-1, (-1, size))
    local = padded @ kernel.T
    before = carried[..., None]
    if local.shape[-2] > 1:
        before = torch.cat([before, _recurrence(local[..., :-1, -1], decay**size, 1.0, carried)], dim=-1)
    local.flatten(end_dim=-2).addr_(before.flatten(), decay ** (power + 1))
    return local.flatten(-2)[..., :n]


def mean_absolute_deviation(losses: torch.Tensor) -> torch.Tensor:
    """MAD = (1/m) Σ |ℓ_i - L_m| over the last axis, shape (..., m) -> (...)."""
    return (losses - losses.mean(dim=-1, keepdim=True)).abs().mean(dim=-1)


def closed_form(losses: torch.Tensor) -> torch.Tensor:
    """MAD/(k+1), k = 1 … m-1: what E|L_{k+1} - L_k| over random orderings tends to for large k.

    Shape (..., m) -> (..., m-1).
    """
    k = torch.arange(1, losses.shape[-1], dtype=losses.dtype, device=losses.device)
    return mean_absolute_deviation(losses).unsqueeze(-1) / (k + 1)
