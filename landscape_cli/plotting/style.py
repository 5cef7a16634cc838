"""One look for every figure: column widths, an ordered colour-blind-safe palette, line styles as well as colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt  # after the backend is chosen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from landscape_cli.plotting.sizes import ARRANGED, COLUMN_WIDTH, FULL_WIDTH, Arranged, arrange, of_size

__all__ = ["COLUMN_WIDTH", "FULL_WIDTH", "SINGLE_WIDTH", "new_figure", "ordered_colours", "style", "titled_legend"]

SINGLE_WIDTH = 4.8  # one panel with many labelled curves

TITLED: WeakKeyDictionary[Figure, Legend] = WeakKeyDictionary()  # legends whose place a title keeps

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
def style(size: str = "own") -> Iterator[None]:
    """Draw inside this context for the project's look, with figures of a size: own, column, page or slide."""
    with mpl.rc_context(_RC), of_size(size):
        yield


def new_figure(
    rows: int,
    columns: int,
    width: float,
    row_height: float,
    *,
    extra: float = 0.0,
    panels: int | None = None,
    whole: bool = False,
    pictures: bool = False,
    axes: Mapping[str, Any] | None = None,
) -> tuple[Figure, np.ndarray]:
    """Make a figure with a grid of axes; in another size than its own they are somewhere else on paper.

    Parameters
    ----------
    width, row_height, extra
        Inches: of the figure, of a row, and beside the rows.
    panels
        How many axes are used, where the caller removes the last ones.
    whole
        The figure is a drawing whose parts belong together: another size scales it and moves nothing.
    pictures
        The panels are as wide as high: in a narrow figure they stand in pairs where others are stacked.
    axes
        Options of every axes.

    Returns
    -------
    The figure and its axes, shape (rows, columns).
    """
    arrangement = arrange(rows, columns, width, row_height, extra, panels, whole, pictures)
    drawing = plt.figure(figsize=arrangement.inches)
    grid = drawing.add_gridspec(*arrangement.physical)
    made = [drawing.add_subplot(grid[place], **(axes or {})) for place in arrangement.places]
    ARRANGED[drawing] = Arranged(arrangement, made)
    return drawing, np.array(made, dtype=object).reshape(rows, columns)


def titled_legend(drawing: Figure, title: str, axes: Axes, columns: int, fontsize: float = 7) -> None:
    """Write the figure's title and, in rows of so many below it, the legend of one of its axes for all."""
    handles, labels = axes.get_legend_handles_labels()
    legend_below_title(drawing, title, handles, labels, columns, fontsize)


def legend_below_title(
    drawing: Figure, title: str, handles: list, labels: list[str], columns: int, fontsize: float = 7
) -> None:
    """Write a title of one line or more and the legend below it, which it keeps the place of."""
    rows = -(-len(labels) // columns)
    room = "\n" * rows  # keeps the legend's place
    drawing.suptitle(f"{title}{room}", fontsize=8.5, linespacing=1.8 if rows == 1 else 1.5)
    place = (0.5, 1 - 13 * (1 + title.count("\n")) / (72 * drawing.get_figheight()))
    look = {"fontsize": fontsize, "handlelength": 3, "frameon": False, "borderaxespad": 0.3}
    legend = drawing.legend(handles, labels, loc="upper center", bbox_to_anchor=place, ncols=columns, **look)
    TITLED[drawing] = legend


def ordered_colours(count: int) -> list[tuple[float, float, float, float]]:
    """Colours for an ordered hyperparameter, dark to bright, distinguishable in grey and by colour-blind readers."""
    ramp = mpl.colormaps["viridis"]
    return [ramp(0.05 + 0.77 * i / max(count - 1, 1)) for i in range(count)]
