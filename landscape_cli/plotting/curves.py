"""Curves with bands, and labels written at the ends of the lines instead of a legend."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from scipy.special import stdtrit

GAP = 9.5  # points between the middles of labels of 7 points
# Labels at line ends with the lines that point at them, which are moved once more when the figure is finished.
_WRITTEN: WeakKeyDictionary[Axes, list[tuple[Line2D, Text]]] = WeakKeyDictionary()


def thinned(n: int, dense: int = 400, sparse: int = 600) -> np.ndarray:
    """Choose which of n points of a long curve to draw: all of the first `dense`, then `sparse` evenly spaced ones.

    A page is not wide enough for more; the frames keep every point.
    """
    if n <= dense + sparse:
        return np.arange(n)
    return np.concatenate([np.arange(dense), np.unique(np.linspace(dense, n - 1, sparse).astype(int))])


def band(ax: Axes, x: np.ndarray, values: np.ndarray, colour: object, **line: object) -> None:
    """Draw the mean of several curves and their range.

    Parameters
    ----------
    x
        Shape (n,).
    values
        One row a seed, shape (S, n); NaN where a seed has no value.
    """
    ax.plot(x, np.nanmean(values, axis=0), color=colour, **line)
    if len(values) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        ax.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)


def interval_band(ax: Axes, x: np.ndarray, values: np.ndarray, colour: object, **line: object) -> None:
    """Draw the mean of several curves and its 95 % interval, on a logarithmic axis no lower than the lowest curve.

    Parameters
    ----------
    x
        Shape (n,).
    values
        One row a seed, shape (S, n).
    """
    mean, count = values.mean(axis=0), len(values)
    ax.plot(x, mean, color=colour, **line)
    if count > 1:
        half = stdtrit(count - 1, 0.975) * values.std(axis=0, ddof=1) / np.sqrt(count)
        low = np.maximum(mean - half, values.min(axis=0)) if ax.get_yscale() == "log" else mean - half
        ax.fill_between(x, low, mean + half, color=colour, alpha=0.15, linewidth=0)


def spread(positions: np.ndarray, gap: float) -> np.ndarray:
    """Move positions as little as possible (least squares) so that no two are closer than `gap`.

    Shape (n,) -> (n,). Only crowded ones move: isotonic regression by pooling neighbours.
    """
    order = np.argsort(positions, kind="stable")
    pools: list[tuple[float, int]] = []
    for rank, position in enumerate(positions[order]):
        pools.append((position - rank * gap, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    placed = np.empty_like(positions)
    heights, counts = zip(*pools, strict=True)
    placed[order] = np.repeat(heights, counts) + gap * np.arange(len(positions))
    return placed


def end_labels(ax: Axes, ends: Sequence[float], labels: Sequence[str], colours: Sequence[object], x: float) -> None:
    """Write each label right of its line's end, moved apart where they would overlap.

    Call it after the figure was laid out (``Figure.draw_without_rendering``), when the axes' limits are final.

    Parameters
    ----------
    ends
        Last y value of each line, in data units; its axis may be logarithmic.
    x
        Last x value of the lines, in data units.
    """
    transform = ax.transData + ax.transAxes.inverted()
    own = np.array([transform.transform((x, y))[1] for y in ends])
    end = transform.transform((x, ends[0]))[0]
    written = []
    for label, colour, start, height in zip(labels, colours, own, _heights(ax, own, GAP), strict=True):
        where = {"transform": ax.transAxes, "clip_on": False}
        (pointer,) = ax.plot([end + 0.005, end + 0.03], [start, height], color=colour, linewidth=0.5, **where)
        text = ax.text(end + 0.037, height, label, color=colour, fontsize=7, va="center", **where)
        written.append((pointer, text))
    _WRITTEN[ax] = written


def apart(ax: Axes) -> None:
    """Move the labels at line ends apart again, of axes whose height has changed since; smaller where they are many."""
    written = _WRITTEN.get(ax)
    if not written:
        return
    own = np.array([pointer.get_ydata()[0] for pointer, _ in written])
    room = ax.get_window_extent().height * 72 / ax.figure.dpi
    size = max(text.get_fontsize() for _, text in written)
    size = max(min(size, size * 1.05 * room / (size * GAP / 7 * len(written))), 5.0)
    placed = _heights(ax, own, size * GAP / 7)
    placed -= max(0.0, min(placed.max() - 1.0, placed.min() - 0.03))  # clear of the title too, where there is room
    for (pointer, text), height in zip(written, placed, strict=True):
        pointer.set_ydata([pointer.get_ydata()[0], height])
        text.set(y=height, fontsize=size)


def _heights(ax: Axes, own: np.ndarray, points: float) -> np.ndarray:
    """Heights of labels that are at least so many points apart, clear of the labels of the x axis."""
    gap = points / (ax.get_window_extent().height * 72 / ax.figure.dpi)
    placed = spread(own, gap)
    return placed + max(0.0, 0.03 - placed.min())
