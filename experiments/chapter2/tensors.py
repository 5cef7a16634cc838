"""What the parameter tensors of a vision transformer are called in figures, and which belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Part of a parameter's name -> its symbol; the first that fits.
SYMBOLS = {
    "projection": "patches",
    "class_token": "class",
    "positions": "positions",
    "attention.query": "Q",
    "attention.key": "K",
    "attention.value": "V",
    "attention.output": "O",
    "norm1": "LN1",
    "ffn.linear1": "W1",
    "ffn.linear2": "W2",
    "norm2": "LN2",
    "norm": "LN",
    "head": "head",
}
# What Figs 2.4 to 2.8 show, and the symbols that belong to it.
FAMILIES = {
    "queries": ("Q",),
    "keys": ("K",),
    "values": ("V",),
    "layer_norm": ("LN1", "LN2"),
    "feed_forward": ("W1", "W2"),
}
ATTENTION = ("Q", "K", "V")


def symbol(name: str) -> str:
    """``blocks.0.attention.query.weight`` -> ``Q``."""
    return next(short for part, short in SYMBOLS.items() if part in name)


def label(name: str, layers: int) -> str:
    """Symbol of a parameter, with the number of its block where there are several."""
    block = re.search(r"blocks\.(\d+)\.", name)
    return f"{symbol(name)}.{int(block[1]) + 1}" if block and layers > 1 else symbol(name)


def grouped(names: Sequence[str], layers: int) -> dict[str, list[str]]:
    """Tensors by label, in the network's order: weights with their biases, scales with their shifts."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(label(name, layers), []).append(name)
    return groups


def family(names: Sequence[str], what: str) -> list[str]:
    """Tensors of one of FAMILIES in the first block."""
    first = [name for name in names if not re.search(r"blocks\.[1-9]", name) and name.startswith("blocks.")]
    return [name for name in first if symbol(name) in FAMILIES[what]]
