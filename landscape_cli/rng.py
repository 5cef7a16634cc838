"""Random streams: one generator for each (seed, purpose, point), the same on every device and in every shard."""

from __future__ import annotations

import hashlib

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
    digest = hashlib.blake2b(f"{seed}|{purpose}|{point}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
