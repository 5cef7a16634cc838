"""Random streams: one generator for each (seed, purpose, point), the same on every device and in every shard."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def generator(seed: int, purpose: str, point: str = "") -> torch.Generator:
    """Return a CPU generator that depends on nothing but its three arguments.

    Draw on the CPU and move the result: then every device sees the same numbers.

    Parameters
    ----------
    seed
        The network's or resample's seed, 0 or larger.
    purpose
        What is drawn, for example ``"initialisation"``; different purposes are independent.
    point
        The grid point's label; different points are independent.
    """
    return torch.Generator().manual_seed(stream_number(seed, purpose, point))


def numpy_generator(seed: int, purpose: str, point: str = "") -> np.random.Generator:
    """The same for numpy."""
    return np.random.default_rng(stream_number(seed, purpose, point))


def stream_number(seed: int, purpose: str, point: str = "") -> int:
    """The number that seeds the generator of a seed, purpose and point: 63 bits of a hash."""
    digest = hashlib.blake2b(f"{seed}|{purpose}|{point}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
