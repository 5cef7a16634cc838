"""Heat maps of matrices whose entries span many powers of ten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from landscape_cli.plotting.curves import spread

NOTHING = "0.85"  # colour of exact zeros, which have no logarithm


def log_limits(matrices: Sequence[np.ndarray], decades: float = 8) -> tuple[float, float]:
    """One colour scale for several matrices: log10 of the largest |entry|, and where a hundredth of entries lie below.

    Parameters
    ----------
    decades
        The most that the scale spans.

    Raises
    ------
    ValueError
        An entry is not finite: it would be drawn as if it were zero.
    """
    if not all(np.isfinite(matrix).all() for matrix in matrices):
        raise ValueError("a matrix has entries that are not finite")
    sizes = np.concatenate([np.abs(matrix[matrix != 0]).ravel() for matrix in matrices])
    if not sizes.size:
        return -1.0, 0.0
    high = float(np.log10(sizes.max()))
    low = float(np.log10(np.quantile(sizes, 0.01)))
    return max(low, high - decades), high


def log_heat_map(ax: Axes, matrix: np.ndarray, limits: tuple[float, float]) -> AxesImage:
    """Draw log10|entry| of a matrix, its first row on top; exact zeros are grey."""
    ax.set_facecolor(NOTHING)
    with np.errstate(divide="ignore"):
        logarithms = np.ma.masked_equal(np.log10(np.abs(matrix)), -np.inf)
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(True)
    return ax.imshow(logarithms, vmin=limits[0], vmax=limits[1], cmap="magma", interpolation="antialiased")


def block_lines(ax: Axes, spans: Mapping[str, tuple[float, float]], fontsize: float = 6) -> None:
    """Mark blocks of rows and columns by lines, and name them.

    Parameters
    ----------
    spans
        Name -> (begin, end), in entries of the drawn matrix.
    """
    ends = [end for _, end in spans.values()]
    for end in ends[:-1]:
        for line in (ax.axhline, ax.axvline):
            line(end - 0.5, color="w", linewidth=0.4)
    middles = np.array([(begin + end) / 2 - 0.5 for begin, end in spans.values()])
    ax.set_xticks(middles, list(spans), rotation=90, fontsize=fontsize)
    ax.set_yticks(middles, list(spans), fontsize=fontsize)
    ax.figure.draw_without_rendering()  # lays the axes out, so that a point's height on them is known
    heights = ax.get_window_extent().height * 72 / ax.figure.dpi
    placed = spread(middles, 1.25 * fontsize * ends[-1] / heights)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(placed, list(spans))
        axis.set_ticks(middles, minor=True)
    ax.tick_params(length=0, pad=2.5)
    ax.tick_params(which="minor", length=1.5, width=0.4)
