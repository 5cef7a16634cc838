"""Curves with bands, and labels written at the ends of the lines instead of a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.special import stdtrit


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
    gap = 9.5 / (ax.get_window_extent().height * 72 / ax.figure.dpi)
    placed = spread(own, gap)
    placed += max(0.0, 0.03 - placed.min())  # clear of the labels of the x axis
    for label, colour, start, height in zip(labels, colours, own, placed, strict=True):
        where = {"transform": ax.transAxes, "clip_on": False}
        ax.plot([end + 0.005, end + 0.03], [start, height], color=colour, linewidth=0.5, **where)
        ax.text(end + 0.037, height, label, color=colour, fontsize=7, va="center", **where)
