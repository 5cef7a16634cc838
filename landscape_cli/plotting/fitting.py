"""What another size or language asks of a finished drawing: labels for panels that moved, every text in its room."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, NullFormatter

from landscape_cli.plotting.curves import apart
from landscape_cli.plotting.sizes import ARRANGED, PAGE_HEIGHT, Arranged, size_of
from landscape_cli.plotting.style import TITLED, legend_below_title
from landscape_cli.plotting.wrapping import LEAST, wrap

ROUNDS = 3  # a wrapped text moves the axes, so that others may have to be wrapped


def fit(drawing: Figure) -> None:
    """Bring the texts of a drawing into its box, after everything was written on it and before it is saved."""
    arranged = ARRANGED.get(drawing)
    if arranged is not None:
        _scale(arranged)
        if arranged.arrangement.moved:
            _label_moved(arranged)
        _raise_fonts(drawing, arranged)
    for ax in drawing.axes:
        if ax.axison and ax.get_legend() is not None:
            ax.get_legend().set_in_layout(False)  # else one that is too wide takes the axes' width before it is broken
    _fit_title(drawing)
    drawing.draw_without_rendering()
    if arranged is not None and _grow(drawing, arranged):
        _fit_title(drawing)
        drawing.draw_without_rendering()
    for _ in range(ROUNDS):
        narrowed = [_narrow_legend(drawing, legend) for legend in list(drawing.legends)]
        broken = [_fit_axes(ax) for ax in drawing.axes]
        if not any(narrowed + broken):
            break
        drawing.draw_without_rendering()
    for ax in drawing.axes:
        apart(ax)
    drawing.draw_without_rendering()  # the layout settles in two rounds


def _scale(arranged: Arranged) -> None:
    """Scale the letters of a drawing that was scaled, a little less than the drawing."""
    scale = arranged.arrangement.scale
    if scale == 1.0:
        return
    for ax in arranged.panels:
        for text in ax.texts:
            text.set_fontsize(text.get_fontsize() * scale)
        for line in ax.lines:
            line.set_linewidth(line.get_linewidth() * scale**0.5)
        legend = ax.get_legend()
        if legend is not None:
            _set_size(legend, legend._fontsize * scale)


def _raise_fonts(drawing: Figure, arranged: Arranged) -> None:
    """Make small letters larger, but for the small print, numbers at points, and those in and around pictures."""
    least = arranged.arrangement.size.least_font
    if arranged.arrangement.scale != 1.0 or not least:
        return
    for ax in drawing.axes:
        if ax.images or hasattr(ax, "zaxis"):
            continue
        for axis in (ax.xaxis, ax.yaxis):
            labels = [label.get_fontsize() for label in axis.get_ticklabels()]
            if labels and min(labels) < least:
                axis.set_tick_params(labelsize=least)
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts):
            if text.get_fontsize() < least and not isinstance(text, Annotation):
                text.set_fontsize(least)
        legend = ax.get_legend()
        if legend is not None and legend._fontsize < least:
            _set_size(legend, least)
    for legend in drawing.legends:
        if legend._fontsize < least:
            _set_size(legend, least)


def _set_size(legend: Legend, points: float) -> None:
    """Write a legend again in letters of another size, with everything in it that goes by their size."""
    labels = [text.get_text() for text in legend.get_texts()]
    legend._fontsize = points
    legend.prop.set_size(points)
    legend._init_legend_box(legend.legend_handles, labels)
    legend._legend_box.set_offset(legend._findoffset)


def _grow(drawing: Figure, arranged: Arranged) -> bool:
    """Make a figure of a column higher whose title, legend and small print leave its panels too little."""
    arrangement = arranged.arrangement
    if arrangement.size.name != "column" or arrangement.scale != 1.0:
        return False
    panels = [ax for ax in arranged.panels if ax.figure is not None and ax.axison and not ax.images]
    if not panels:
        return False
    down = arrangement.physical[0]
    wanted = 1.7 if down <= 2 else 1.25 if down <= 4 else 0.8
    missing = wanted - min(ax.get_window_extent().height for ax in panels) / drawing.dpi
    height = drawing.get_figheight()
    grown = min(height + down * missing, max(PAGE_HEIGHT, height))
    if missing <= 0 or grown <= height + 0.05:
        return False
    drawing.set_figheight(grown, forward=False)
    return True


def _label_moved(arranged: Arranged) -> None:
    """Give panels the labels and titles that their old neighbours had for them; take what new neighbours have."""
    rows, columns = arranged.arrangement.logical
    grid = [arranged.panels[row * columns : (row + 1) * columns] for row in range(rows)]
    place = {
        ax: at for ax, at in zip(arranged.panels, arranged.arrangement.places, strict=True) if ax.figure is not None
    }
    there = {at: ax for ax, at in place.items()}
    titles, x_labels, y_labels = {}, {}, {}
    for row in range(rows):
        for column in range(columns):
            ax = grid[row][column]
            if ax in place:
                above = [grid[r][column] for r in range(row, -1, -1)]
                below = [grid[r][column] for r in range(row, rows)]
                titles[ax] = _first(above, lambda a: a.title)
                x_labels[ax] = _first(below, lambda a: a.xaxis.label)
                y_labels[ax] = _first(grid[row][column::-1], lambda a: a.yaxis.label)
    for ax, (row, column) in place.items():
        ax.set_title(titles[ax][0], fontsize=titles[ax][1])
        under, beside = there.get((row + 1, column)), there.get((row, column - 1))
        same_below = rows > 1 and under is not None and x_labels[under][0] == x_labels[ax][0]
        same_left = columns > 1 and beside is not None and y_labels[beside][0] == y_labels[ax][0]
        ax.set_xlabel("" if same_below else x_labels[ax][0], fontsize=x_labels[ax][1])
        ax.set_ylabel("" if same_left else y_labels[ax][0], fontsize=y_labels[ax][1])


def _first(panels: list[Axes], of: Callable[[Axes], Text]) -> tuple[str, float]:
    """The first of the panels' texts that is not empty, and its size."""
    for ax in panels:
        if ax.figure is not None and of(ax).get_text():
            return of(ax).get_text(), of(ax).get_fontsize()
    return "", 8.0


def _fit_title(drawing: Figure) -> None:
    """Bring a figure's title and the legend below it into the figure's width."""
    title = drawing._suptitle
    if title is None or not title.get_text().strip():
        return
    legend = TITLED.get(drawing)
    title.set_text(title.get_text().rstrip("\n"))
    wrap(title, 0.96 * drawing.bbox.width)
    if legend is None:
        return
    handles = legend.legend_handles
    labels = [text.get_text() for text in legend.get_texts()]
    fontsize = legend.get_texts()[0].get_fontsize()
    text, size, columns = title.get_text(), title.get_fontsize(), legend._ncols
    while True:
        legend.remove()
        legend_below_title(drawing, text, handles, labels, columns, fontsize)
        drawing._suptitle.set_fontsize(size)
        legend = drawing.legends[-1]
        if columns == 1 or legend.get_window_extent().width <= 0.99 * drawing.bbox.width:
            return
        columns -= 1


def _narrow_legend(drawing: Figure, legend: Legend) -> bool:
    """Take columns from a legend outside the axes that is wider than the figure."""
    if legend is TITLED.get(drawing) or legend.get_window_extent().width <= 0.99 * drawing.bbox.width:
        return False
    if legend._ncols == 1:
        return _wrap_legend(legend, 0.98 * drawing.bbox.width)
    labels, title = [text.get_text() for text in legend.get_texts()], legend.get_title().get_text()
    handles, size = legend.legend_handles, legend.get_texts()[0].get_fontsize()
    legend.remove()
    place = "outside upper center" if legend._outside_loc else legend._loc
    less = drawing.legend(handles, labels, loc=place, ncols=legend._ncols - 1, title=title or None, fontsize=size)
    _narrow_legend(drawing, less)
    return True


def _wrap_legend(legend: Legend, room: float) -> bool:
    """Break the lines of a legend of one column."""
    texts = legend.get_texts()
    letters = legend.handlelength + legend.handletextpad + 2 * (legend.borderpad + legend.borderaxespad)
    beside = letters * legend._fontsize * legend.figure.dpi / 72
    return sum(wrap(text, room - beside) for text in texts) > 0


def _fit_axes(ax: Axes) -> bool:
    """Break the title, the labels and the legend of one axes where they are longer than it."""
    drawing = ax.figure
    if not (ax.axison or hasattr(ax, "zaxis")):  # axes in space turn those of the plane off
        return False
    box, cell, changed = ax.get_window_extent(), _cell(ax), False
    middle = box.x0 + box.width / 2
    if ax.get_title():
        changed |= wrap(ax.title, min(cell, 2 * min(middle, drawing.bbox.width - middle)))
    if hasattr(ax, "zaxis"):
        return changed
    if ax.get_xlabel():
        changed |= wrap(ax.xaxis.label, min(cell, drawing.bbox.width))
    if ax.get_ylabel():
        changed |= wrap(ax.yaxis.label, max(1.12 * box.height, 0.5 * drawing.dpi))
    legend = ax.get_legend()
    if legend is not None and legend.get_texts():
        changed |= _fit_legend(ax, legend)
    return _thin_ticks(ax) or _shrink_ticks(ax) or changed


def _fit_legend(ax: Axes, legend: Legend) -> bool:
    """Break the lines of a legend that is wider than its axes, and make room for one that lies on the curves."""
    box, own, changed = ax.get_window_extent(), legend.get_window_extent(), False
    if own.width > 0.98 * box.width and legend._ncols == 1:
        changed = _wrap_legend(legend, 0.98 * box.width)
        own = legend.get_window_extent()
    if own.height > 0.45 * box.height and size_of(ax.figure).name in ("own", "column"):
        more = (own.height / 0.44 - box.height) / ax.figure.dpi
        ax.figure.set_figheight(min(ax.figure.get_figheight() + more, PAGE_HEIGHT), forward=False)
        return True
    return _make_room(ax, legend) or changed


def _make_room(ax: Axes, legend: Legend) -> bool:
    """Move a limit of the y axis away from the curves where a legend at the upper or lower end lies on them."""
    box, own = ax.get_window_extent(), legend.get_window_extent()
    share = (own.height + 4 * ax.figure.dpi / 72) / box.height
    drawn = [(line, False) for line in ax.lines] + [(area, True) for area in ax.collections]
    hidden = any(
        path.transformed(artist.get_transform()).intersects_bbox(own, filled=filled)
        for artist, filled in drawn
        if artist.get_transform().contains_branch(ax.transData)
        for path in (artist.get_paths() if filled else [artist.get_path()])
        if len(path.vertices)
    )
    upper = own.y0 + own.height / 2 > box.y0 + box.height / 2
    if not hidden or share > 0.6 or ax.images or ax.yaxis_inverted():
        return False
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim()))
    more = (high - low) * share / (1 - share)
    low, high = (low, high + more) if upper else (low - more, high)
    ax.set_ylim(*scale.inverted().transform(np.array([low, high])))
    return True


def _thin_ticks(ax: Axes) -> bool:
    """Take the labels of minor ticks from a horizontal axis on which labels overlap."""
    minor = [label.get_window_extent() for label in ax.get_xticklabels(minor=True) if label.get_text()]
    major = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    boxes = sorted(minor + major, key=lambda box: box.x0)
    if minor and any(a.x1 > b.x0 for a, b in itertools.pairwise(boxes)):
        ax.xaxis.set_minor_formatter(NullFormatter())
        return True
    return False


def _shrink_ticks(ax: Axes) -> bool:
    """Make the words beside a vertical axis smaller where they overlap."""
    labels = [label for label in ax.get_yticklabels() if label.get_text()]
    middles = sorted(label.get_window_extent().y0 + label.get_window_extent().height / 2 for label in labels)
    if len(middles) < 3 or not isinstance(ax.yaxis.get_major_formatter(), FuncFormatter) or ax.images:
        return False
    room = min(b - a for a, b in itertools.pairwise(middles)) * 72 / ax.figure.dpi
    if labels[0].get_fontsize() <= max(0.95 * room, LEAST - 1):
        return False
    ax.yaxis.set_tick_params(labelsize=max(0.9 * room, LEAST - 1))
    return True


def _cell(ax: Axes) -> float:
    """Pixels that a title or a label may take: up to the middle of the gaps to the panels beside."""
    own = ax.get_window_extent()
    room = 0.97 * ax.figure.bbox.width
    for other in ax.figure.axes:
        place = other.get_window_extent()
        level = min(own.y1, place.y1) - max(own.y0, place.y0) > 0.3 * min(own.height, place.height)
        if other is not ax and other.get_subplotspec() is not None and level:
            room = min(room, 0.97 * abs(place.x0 + place.width / 2 - own.x0 - own.width / 2))
    return room if hasattr(ax, "zaxis") else max(room, own.width)
