"""One look for every figure: column widths, an ordered colour-blind-safe palette, line styles as well as colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt  # after the backend is chosen
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FULL_WIDTH = 6.9  # inches, a page's text width
COLUMN_WIDTH = 3.4
SINGLE_WIDTH = 4.8  # one panel with many labelled curves

LINE_STYLES = (
    "-",
    (0, (5, 1.2)),
    (0, (3, 1, 1, 1)),
    (0, (1.2, 1.2)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (2, 2)),
)

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "mathtext.fontset": "dejavusans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "landscape",
    "path.simplify_threshold": 0.3,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this context for the project's look."""
    with mpl.rc_context(_RC):
        yield


def new_figure(rows: int, columns: int, width: float, row_height: float) -> tuple[Figure, object]:
    """Make a figure with a grid of axes.

    Parameters
    ----------
    width, row_height
        Inches.

    Returns
    -------
    The figure and its axes, shape (rows, columns).
    """
    return plt.subplots(rows, columns, figsize=(width, rows * row_height), squeeze=False)


def titled_legend(drawing: Figure, title: str, axes: Axes, columns: int, fontsize: float = 7) -> None:
    """Write the figure's title and, in rows of so many below it, the legend of one of its axes for all."""
    handles, labels = axes.get_legend_handles_labels()
    rows = -(-len(labels) // columns)
    room = "\n" * rows  # keeps the legend's place
    drawing.suptitle(f"{title}{room}", fontsize=8.5, linespacing=1.8 if rows == 1 else 1.5)
    place = (0.5, 1 - 13 / (72 * drawing.get_figheight()))
    look = {"fontsize": fontsize, "handlelength": 3, "frameon": False, "borderaxespad": 0.3}
    drawing.legend(handles, labels, loc="upper center", bbox_to_anchor=place, ncols=columns, **look)


def ordered_colours(count: int) -> list[tuple[float, float, float, float]]:
    """Colours for an ordered hyperparameter, dark to bright, distinguishable in grey and by colour-blind readers."""
    ramp = mpl.colormaps["viridis"]
    return [ramp(0.05 + 0.77 * i / max(count - 1, 1)) for i in range(count)]
