"""Sizes of figures (plot.size): what suits each figure, a paper's column or page, a slide; and where the panels go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL_WIDTH = 6.9  # inches, a page's text width
COLUMN_WIDTH = 3.4
PAGE_HEIGHT = 9.2  # inches, of the tallest figure
SLIDE = (
    160 / 25.4,
    90 / 25.4,
)  # inches, 16:9: the page of a beamer talk, whose text of 11 points is that of an ordinary talk
PROJECTED = 40 / 3  # inches, the width of the same slide in an office program
LOWEST = 1.45  # inches, of a stacked panel with its labels


@dataclass(frozen=True)
class Size:
    """What a size asks of every figure."""

    name: str
    least_font: float  # points; 0: as the figure has it
    magnified: float = 1.0  # pixels an inch are so many times plot.dpi


SIZES = {
    "own": Size("own", 0.0),
    "column": Size("column", 7.0),
    "page": Size("page", 7.0),
    # 7.6 points here are 16 on a slide of 13.33 inches.
    "slide": Size("slide", 7.6, PROJECTED / SLIDE[0]),
}
_ACTIVE: ContextVar[Size] = ContextVar("size", default=SIZES["own"])


@contextmanager
def of_size(name: str) -> Iterator[None]:
    """Make the figures of this context of a size."""
    token = _ACTIVE.set(SIZES[name])
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active() -> Size:
    """Return the size that figures are made of now."""
    return _ACTIVE.get()


@dataclass(frozen=True)
class Arrangement:
    """Where the panels of a figure are: the experiment's grid, and the one on paper."""

    size: Size
    logical: tuple[int, int]  # rows and columns as the experiment asked for them
    physical: tuple[int, int]  # rows and columns on paper
    places: tuple[tuple[int, int], ...]  # on paper, of every panel of the logical grid, row by row
    inches: tuple[float, float]
    scale: float = 1.0  # of a figure that is drawn as it is, only smaller or larger

    @property
    def moved(self) -> bool:
        """Whether panels have other neighbours than the experiment gave them."""
        return self.physical != self.logical


@dataclass
class Arranged:
    """A figure's arrangement and its panels, for those who finish it."""

    arrangement: Arrangement
    panels: list[Axes]  # of the logical grid, row by row; removed ones among them


ARRANGED: WeakKeyDictionary[Figure, Arranged] = WeakKeyDictionary()


def size_of(drawing: Figure) -> Size:
    """Return the size that a figure was made of."""
    arranged = ARRANGED.get(drawing)
    return arranged.arrangement.size if arranged else SIZES["own"]


def stacked(drawing: Figure) -> bool:
    """Whether panels that stood side by side are one above the other."""
    arranged = ARRANGED.get(drawing)
    return bool(arranged) and arranged.arrangement.moved and arranged.arrangement.physical[1] == 1


def arrange(
    rows: int,
    columns: int,
    width: float,
    row_height: float,
    extra: float = 0.0,
    panels: int | None = None,
    whole: bool = False,
    pictures: bool = False,
    size: Size | None = None,
) -> Arrangement:
    """Find a place for every panel.

    Parameters
    ----------
    rows, columns, width, row_height, extra
        The figure as its experiment wants it: grid, and inches of its width, of a row and beside the rows.
    panels
        How many of the grid are used, where the last ones are not.
    whole
        Its parts belong together: it is scaled, nothing is moved.
    pictures
        Panels as wide as high, which stand in pairs where others are stacked.
    """
    size = size or active()
    height = rows * row_height + extra
    used = panels or rows * columns
    own = Arrangement(size, (rows, columns), (rows, columns), _row_by_row(rows, columns, columns), (width, height))
    if size.name == "own":
        return own
    if whole:
        scale = {
            "column": COLUMN_WIDTH / width,
            "page": FULL_WIDTH / width,
            "slide": min(SLIDE[0] / width, SLIDE[1] / height),
        }[size.name]
        inches = SLIDE if size.name == "slide" else (width * scale, height * scale)
        return Arrangement(size, own.logical, own.physical, own.places, inches, scale)
    panel = (width / columns, row_height)
    if size.name == "page":
        grown = min((FULL_WIDTH / width) ** 0.5, 1.4)
        return Arrangement(size, own.logical, own.physical, own.places, (FULL_WIDTH, min(grown * height, PAGE_HEIGHT)))
    if size.name == "column":
        across = columns if width <= 1.01 * COLUMN_WIDTH else _stacked(used)
        if pictures and across == 1 and used > 2:
            across = 2
        down = -(-used // across)
        shrunk = min(1.0, (COLUMN_WIDTH / across / panel[0]) ** 0.5)
        lowest = min(LOWEST, row_height) if down > 1 else row_height
        tall = max(min(row_height * shrunk, (PAGE_HEIGHT - extra) / down), min(lowest, PAGE_HEIGHT / down))
        inches = (COLUMN_WIDTH, down * tall + extra)
    else:
        down, across = _on_slide(used, panel)
        inches = SLIDE
    if pictures and (down, across) == (columns, rows) != (rows, columns):
        places = tuple((column, row) for row in range(rows) for column in range(columns))  # rows become columns
    else:
        places = _row_by_row(rows, columns, across)
    last = (down - 1, across - 1)
    places = tuple(place if place[0] < down else last for place in places)  # those that are not used
    return Arrangement(size, own.logical, (down, across), places, inches)


def _row_by_row(rows: int, columns: int, across: int) -> tuple[tuple[int, int], ...]:
    return tuple(divmod(number, across) for number in range(rows * columns))


def _stacked(panels: int) -> int:
    """How many panels stand side by side in a column: a few are stacked, many in pairs."""
    return 1 if panels * LOWEST <= PAGE_HEIGHT else 2


def _on_slide(panels: int, panel: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns whose cells are most like the panel itself, a little wider."""
    wanted = math.log(1.15 * panel[0] / panel[1])
    room = (SLIDE[0], SLIDE[1] - 0.7)  # without title, legend and small print

    def unlike(across: int) -> float:
        down = -(-panels // across)
        empty = down * across - panels
        return abs(math.log(room[0] / across / (room[1] / down)) - wanted) + 0.15 * empty

    across = min(range(1, panels + 1), key=unlike)
    return -(-panels // across), across
