"""|L_{k+1} - L_k| along random orderings of more objects than fit several times into memory.

An ordering is never written down: it is a bijection of 0 … m-1 that gives the object at any place by itself, and only
the values at the k that are asked for are kept. Memory depends on the number of orderings, not on m; the losses
themselves may be a file that is mapped into memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape_cli import parallel
from landscape_cli.convergence.differences import DifferenceStream, exponential_moving_average, loss_differences

WHOLE = 2**22  # objects up to which orderings are drawn as a whole
BLOCK = 2**17  # objects of one ordering handled at a time, at most
BLOCK_BYTES = 2**25  # of permuted losses held at once
ROUNDS = 6  # of the network; four with random functions cannot be told from chance by who sees few places


class Ordering:
    """A random ordering of m objects that gives the objects at any places.

    A Feistel network on pairs (high, low), low of some bits and high below ⌈m / 2^bits⌉, whose round functions are
    tables of random numbers; the few pairs that fall outside of 0 … m-1 go through it again (cycle walking), so that it
    stays a bijection of 0 … m-1.

    Parameters
    ----------
    objects
        Their number m, at least 2.
    generator
        Draws the tables, on the CPU.
    """

    def __init__(self, objects: int, generator: torch.Generator, device: torch.device | str = "cpu") -> None:
        if objects < 2:
            raise ValueError(f"at least 2 objects are needed, not {objects}")
        self.objects = objects
        self.bits = max(1, (objects - 1).bit_length() // 2)
        self.high = -(-objects // 2**self.bits)  # how many high parts there are
        self._tables = []
        for number in range(ROUNDS):
            read, written = (2**self.bits, self.high) if number % 2 == 0 else (self.high, 2**self.bits)
            self._tables.append(torch.randint(written, (read,), generator=generator).to(device))

    def at(self, places: torch.Tensor) -> torch.Tensor:
        """Objects at some places: int64, of any shape, to int64 of the same shape."""
        found = self._through(places)
        outside = (found >= self.objects).nonzero(as_tuple=True)
        while len(outside[0]):
            again = self._through(found[outside])
            found[outside] = again
            left = again >= self.objects
            outside = tuple(index[left] for index in outside)
        return found

    def _through(self, places: torch.Tensor) -> torch.Tensor:
        high, low = places >> self.bits, places & (2**self.bits - 1)
        for number, table in enumerate(self._tables):
            if number % 2 == 0:
                high = high + table.take(low)  # half the time of table[low]
                high.sub_((high >= self.high) * self.high)
            else:
                low = low.bitwise_xor(table.take(high))
        return high.bitwise_left_shift_(self.bits).bitwise_or_(low)


@dataclass(frozen=True)
class SampledCurve:
    """Mean over P orderings of d_k, and its moving average, at some k."""

    k: torch.Tensor  # (n,) int64
    mean: torch.Tensor  # (n,) float64
    standard_error: torch.Tensor  # (n,) float64, of the mean over orderings
    average: torch.Tensor  # (n,) float64, the moving average of all means up to k


def streamed_differences(
    losses: torch.Tensor, permutations: int, generator: torch.Generator, at: torch.Tensor, smoothing: float
) -> SampledCurve:
    """Mean |L_{k+1} - L_k| over random orderings, at some k, in one pass.

    Parameters
    ----------
    losses
        One network's loss of each object, shape (m,), m >= 2; may be mapped from a file.
    permutations
        Number P of orderings, at least 2.
    generator
        Draws the orderings on the CPU, so that every device sees the same ones.
    at
        The k whose values are kept, ascending, 1 … m-1; every value depends on all objects before it all the same.
    smoothing
        Of the moving average, in [0, 1).
    """
    m = len(losses)
    if m < 2 or permutations < 2:
        raise ValueError(f"at least 2 objects and 2 orderings are needed, not {m} and {permutations}")
    at = at.cpu()
    if len(at) and (int(at[0]) < 1 or int(at[-1]) > m - 1 or bool((at.diff() <= 0).any())):
        raise ValueError(f"the k to keep must ascend within 1 … {m - 1}")
    device = losses.device
    orderings = [Ordering(m, generator, device) for _ in range(permutations)]
    stream = DifferenceStream(permutations, device)
    kept, previous = [], None
    size = max(2, min(BLOCK, BLOCK_BYTES // (8 * permutations)))
    for begin in range(0, m, size):
        places = torch.arange(begin, min(begin + size, m), device=device)

        def picked(ordering: Ordering, places: torch.Tensor = places) -> torch.Tensor:
            return losses.index_select(0, ordering.at(places)).double()

        block = torch.stack(parallel.each(picked, orderings) if device.type == "cpu" else list(map(picked, orderings)))
        differences = stream.update(block)
        mean = differences.mean(dim=0)
        if not len(mean):
            continue
        average = exponential_moving_average(mean, smoothing, previous)
        previous = average[-1]
        last = stream.count - 1  # the k of the block's last difference
        first = last - len(mean) + 1
        inside = at[(at >= first) & (at <= last)].to(device) - first
        if not len(inside):
            continue
        error = differences[:, inside].std(dim=0) / permutations**0.5
        kept.append((mean[inside], error, average[inside]))
    if not kept:
        kept = [(torch.zeros(0, dtype=torch.float64, device=device),) * 3]
    mean, error, average = (torch.cat(pieces) for pieces in zip(*kept, strict=True))
    return SampledCurve(at, mean, error, average)


def difference_curve(
    losses: torch.Tensor, permutations: int, generator: torch.Generator, at: torch.Tensor, smoothing: float
) -> SampledCurve:
    """Mean |L_{k+1} - L_k| and its moving average at some k: as a whole where it fits, else in one pass.

    Parameters and errors as of :func:`streamed_differences`. The two ways draw other orderings.
    """
    if len(losses) > WHOLE:
        return streamed_differences(losses, permutations, generator, at, smoothing)
    curve = loss_differences(losses, permutations, generator)
    place = at.to(losses.device) - 1
    average = exponential_moving_average(curve.mean, smoothing)
    return SampledCurve(at, curve.mean[place], curve.standard_error[place], average[place])
