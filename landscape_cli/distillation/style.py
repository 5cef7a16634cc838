"""A fixed stylisation of pictures: the mapping φ where no trained one is given (thesis 4.2.3).

The thesis maps pictures with a trained generator and names no other mapping; this one is this project's choice. It
posterises, paints each level of brightness in a colour of its own, and draws dark edges.

Definition 16 wants an injective φ. This one is not: all shades of a level get one colour, so that pictures which
differ in shading alone become the same. What it keeps is where the levels and the edges are.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch.nn import functional

from landscape_cli.errors import BadInput
from landscape_cli.rng import generator

SHADES = 256
LUMINANCE = (77, 150, 29)  # red, green, blue in 256ths: (.299, .587, .114) of Rec. 601
EDGE_LIMIT = 2 * (SHADES - 1)  # a step by half the range, where the sum of the Sobel derivatives' sizes is this
CHUNK_PIXELS = 2**20


def stylise(x: torch.Tensor, levels: int = 4, seed: int = 0, lower: float = -1.0, upper: float = 1.0) -> torch.Tensor:
    """Posterise pictures, paint the levels in the colours of a seeded palette, and draw dark edges.

    The luminance (Rec. 601 of three channels, the mean of any other number) is cut into ``levels`` equal parts; level
    k is painted in ``palette(…)[k]``. The colour is blended with black by the Sobel derivatives of the luminance,
    |∂_h| + |∂_w| with reflection at the border, fully so from a step of half the range.

    Everything before the look-up of the colours is arithmetic of whole numbers, 256 shades a channel: no rounding
    can put a shade on another side of a level's limit, and every device gives the same pictures bit by bit.

    Parameters
    ----------
    x
        Shape (N, C, H, W), in ``lower``..``upper``; values outside count as the nearest limit.
    levels
        3 or more: two colours are always in order or in reverse.
    seed
        Of the palette.
    lower, upper
        Limits of the pixels.

    Returns
    -------
    Shape (N, C, H, W), on the device and of the type of ``x``, in ``lower``..``upper``.

    Raises
    ------
    BadInput
        Pictures of another shape, of a height or width below 2, or with values that are not finite.
    """
    if x.dim() != 4 or x.shape[1] < 1 or min(x.shape[2:]) < 2:
        raise BadInput(
            f"stylisation: pictures of shape {tuple(x.shape)}; allowed: (N, C, H, W), a height and width of 2 or more"
        )
    channels, pixels = x.shape[1], math.prod(x.shape[2:])
    table = _table(palette(channels, levels, seed, lower, upper), lower).to(x)
    styled = torch.empty_like(x, memory_format=torch.contiguous_format)
    chunk = max(1, CHUNK_PIXELS // pixels)
    for start in range(0, len(x), chunk):
        part = x[start : start + chunk]
        if not part.isfinite().all():
            raise BadInput(f"stylisation: pictures with values that are not finite; allowed: {lower:g} to {upper:g}")
        grey = _luminance(part, lower, upper)
        entry = (grey * levels // SHADES) * SHADES + _edges(grey)
        styled[start : start + chunk] = table[entry].movedim(-1, 1)
    return styled


def palette(channels: int, levels: int = 4, seed: int = 0, lower: float = -1.0, upper: float = 1.0) -> torch.Tensor:
    """Draw the colours of the levels, from the darkest level on.

    Every channel takes ``levels`` equidistant values from ``lower`` to ``upper``, each once, in a random order. Orders
    are drawn until the colours' luminance is not monotone in the level and does not grow with it on the whole (their
    correlation is 0 or less): otherwise grey pictures would stay nearly what they are, and a network trained on plain
    ones would still know them.

    Returns
    -------
    Shape (levels, channels), float32, on the CPU.

    Raises
    ------
    BadInput
        Fewer than 3 levels, more than 256, or limits out of order.
    """
    if not 3 <= levels <= SHADES:
        raise BadInput(f"stylisation: {levels} levels; allowed: 3 to {SHADES}")
    if not lower < upper:
        raise BadInput(f"stylisation: pixels from {lower:g} to {upper:g}; allowed: a lower limit below the upper one")
    draw = generator(seed, "stylisation palette")
    weights = torch.tensor(_weights(channels))
    while True:
        order = torch.stack([torch.randperm(levels, generator=draw) for _ in range(channels)], dim=1)
        luminance = (order * weights).sum(1)
        steps = luminance.diff()
        rising = ((2 * torch.arange(levels) - levels + 1) * luminance).sum()  # of the sign of the correlation
        if rising <= 0 and (steps > 0).any() and (steps < 0).any():
            break
    shares = order.double() / (levels - 1)
    return (lower + (upper - lower) * shares).clamp(lower, upper).float()


def _weights(channels: int) -> tuple[int, ...]:
    return LUMINANCE if channels == len(LUMINANCE) else (1,) * channels


def _table(colours: torch.Tensor, lower: float) -> torch.Tensor:
    """Every colour blended with black by every strength of an edge, shape (levels · 256, C), on the CPU."""
    dark = torch.linspace(0, 1, SHADES, dtype=torch.float64)[:, None]
    blended = colours.double()[:, None] * (1 - dark) + lower * dark
    return blended.flatten(0, 1).float()


def _luminance(x: torch.Tensor, lower: float, upper: float) -> torch.Tensor:
    """(N, C, H, W) -> (N, H, W), whole numbers 0..255."""
    shades = ((x - lower) * ((SHADES - 1) / (upper - lower))).round().clamp(0, SHADES - 1).int()
    weights = _weights(x.shape[1])
    summed = sum(weight * shades[:, channel] for channel, weight in enumerate(weights))
    return torch.div(summed, sum(weights), rounding_mode="floor")


def _edges(grey: torch.Tensor) -> torch.Tensor:
    """Strength of the edge at each pixel, whole numbers 0..255, shape (N, H, W).

    The sum of the derivatives' sizes and not the root of their squares: it is a whole number.
    """
    padded = functional.pad(grey.float(), (1, 1, 1, 1), mode="reflect").int()
    height, width = grey.shape[1:]
    down, across = torch.zeros_like(grey), torch.zeros_like(grey)
    for row, column in itertools.product(range(3), range(3)):
        shifted = padded[:, row : row + height, column : column + width]
        down += (row - 1) * (2 - abs(column - 1)) * shifted
        across += (column - 1) * (2 - abs(row - 1)) * shifted
    strength = (down.abs() + across.abs()).clamp(max=EDGE_LIMIT)
    return torch.div(strength * (SHADES - 1), EDGE_LIMIT, rounding_mode="floor")
