"""Figs 3.2 and 3.3: statistics of the nine methods along the sample size, and m* against what is available."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.chapter3.sample_size_tables import answers, own, published_sizes, title
from landscape_cli.experiment import Figure, Results
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED, CLASSICAL, COMPARED, METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, PUBLISHED, LIMIT = "#0072b2", "#d55e00", "0.35"
LOGARITHMIC = ("cross_validation", "bootstrap", "apvc", "alc")
MEANING = (
    "Dashed: thresholds of Table 3.3. Dots: m*, the size from which the rule holds; for the tests from all objects, "
    "while their curves are means over subsamples, which heavy tails lift. Bands: range over seeds."
)


def statistics(results: Results, name: str) -> Figure:
    """Fig 3.2: a panel a method."""
    from matplotlib.ticker import NullFormatter

    from landscape_cli.plotting.curves import band
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

    dataset = results.frames["table"]["dataset"].iloc[0]
    curves, cells = results.frames["curves"], published_sizes()
    drawing, axes = new_figure(3, 3, FULL_WIDTH, 1.75)
    for ax, method in zip(axes.flat, CLASSICAL, strict=True):
        about = METHODS[method]
        for variant, colour, line in ((AS_PUBLISHED, PUBLISHED, (0, (5, 1.2))), (AS_DEFINED, INK, "-")):
            mine = own(curves, dataset, variant)
            mine = mine[mine["method"] == method]
            if mine.empty:
                continue
            table = mine.pivot(index="seed", columns="size", values="value")
            band(ax, table.columns.to_numpy(), table.to_numpy(), colour, linestyle=line)
            limit = mine["threshold"].iloc[0]
            if np.isfinite(limit):
                ax.axhline(limit, color=LIMIT, linestyle=(0, (4, 2)), linewidth=0.8)
        found = _mark(ax, results, dataset, method, cells.get((dataset, method)))
        if method in LOGARITHMIC:
            ax.set_yscale("log")
            ax.yaxis.set_minor_formatter(NullFormatter())
        if method == "utility":
            _clip(ax)
        ax.set_title(f"{about.title}: {found}", fontsize=7.5)
        ax.set_ylabel(about.statistic)
    for ax in axes[-1]:
        ax.set_xlabel("sample size $m$")
    for label, look in _looks().items():
        axes[0, 0].plot([], [], label=label, **look)
    titled_legend(drawing, f"Statistics of the sample size methods, {title(results, dataset)}", axes[0, 0], 4)
    caption = f"Values of the statistics of the different methods, {title(results, dataset)}."
    return Figure(name, drawing, caption, MEANING)


def _looks() -> dict[str, dict[str, object]]:
    return {
        "as defined": {"color": INK},
        "as published": {"color": PUBLISHED, "linestyle": (0, (5, 1.2))},
        "threshold": {"color": LIMIT, "linestyle": (0, (4, 2)), "linewidth": 0.8},
        "m* of Table 3.2": {"color": PUBLISHED, "marker": "v", "linestyle": "none", "markersize": 4},
    }


def _mark(ax: Axes, results: Results, dataset: str, method: str, cell: str | None) -> str:
    """Draw m* as a dot on its curve, the published one as a triangle on the axis; return it in words."""
    if cell and cell != "–":
        look = {"color": PUBLISHED, "markersize": 4, "clip_on": False, "transform": ax.get_xaxis_transform()}
        ax.plot([float(cell)], [0.0], "v", **look)
    if own(results.frames["curves"], dataset, AS_DEFINED).empty:
        return "as published"
    answer = answers(results, dataset, AS_DEFINED)[method]
    mine = own(results.frames["curves"], dataset, AS_DEFINED)
    means = mine[mine["method"] == method].groupby("size")["value"].mean()
    if answer.size is not None and means.index.min() <= answer.size <= means.index.max():
        ax.plot([answer.size], [np.interp(answer.size, means.index, means)], "o", color=INK, markersize=4, zorder=5)
    return "m* not reached" if answer.size is None else f"m* {'≤' if answer.first else '='} {answer.size}"


def _clip(ax: Axes) -> None:
    """Leave out where small samples send the utility, which hides its maximum."""
    bottoms = [np.quantile(line.get_ydata(), 0.1) for line in ax.lines if len(line.get_ydata()) > 2]
    tops = [np.max(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) > 2]
    if bottoms:
        ax.set_ylim(min(bottoms) - 0.2 * (max(tops) - min(bottoms)), max(tops) + 0.15 * (max(tops) - min(bottoms)))


def available_size(results: Results, name: str) -> Figure:
    """Fig 3.3: a panel a method."""
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

    dataset = results.frames["table"]["dataset"].iloc[0]
    copies = own(results.frames["copies"], dataset, AS_DEFINED)
    drawing, axes = new_figure(3, 3, FULL_WIDTH, 1.75)
    for ax, method in zip(axes.flat, CLASSICAL, strict=True):
        about = METHODS[method]
        mine = copies[copies["method"] == method]
        table = mine.pivot(index="available", columns="copy", values="m_star")
        _available(ax, table.index.to_numpy(), table.to_numpy())
        ax.set_title(about.title, fontsize=8)
        ax.set_ylim(0, None)
    for ax in axes[-1]:
        ax.set_xlabel("available objects")
    for ax in axes[:, 0]:
        ax.set_ylabel("sufficient size $m^*$")
    axes[0, 0].plot([], [], "o-", color=INK, markersize=3, label="median")
    axes[0, 0].fill_between([], [], [], color=INK, alpha=0.15, linewidth=0, label="95 % of bootstrap copies")
    axes[0, 0].plot([], [], color=LIMIT, linestyle=(0, (1, 1.5)), label="m* = all that is available")
    titled_legend(drawing, f"Sufficient sample size against available size, {title(results, dataset)}", axes[0, 0], 3)
    count = copies["copy"].nunique()
    note = (
        f"{count} bootstrap copies of the table at each available size. A copy that does not reach m* counts as lying "
        "beyond what is available; percentages: copies that reach it, where not all do."
    )
    return Figure(
        name, drawing, f"Analysis of the methods against the available sample size, {title(results, dataset)}.", note
    )


def comparison(results: Results, name: str) -> Figure:
    """Fig 3.12: median m* of the compared methods against the available size, in one picture."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    from landscape_cli.plotting.curves import end_labels
    from landscape_cli.plotting.style import LINE_STYLES, SINGLE_WIDTH, new_figure, ordered_colours

    dataset = results.frames["table"]["dataset"].iloc[0]
    copies = own(results.frames["copies"], dataset, AS_DEFINED)
    drawing, axes = new_figure(1, 1, SINGLE_WIDTH + 0.6, 3.6)
    ax, ends, labels, colours = axes[0, 0], [], [], []
    palette = ordered_colours(len(COMPARED))
    for number, method in enumerate(COMPARED):
        table = copies[copies["method"] == method].pivot(index="available", columns="copy", values="m_star")
        median = np.quantile(table.fillna(np.inf).to_numpy(), 0.5, axis=1, method="inverted_cdf")
        shown = np.where(np.isfinite(median), median, table.index.to_numpy())  # at least what is available
        ax.plot(table.index, shown, color=palette[number], linestyle=LINE_STYLES[number % len(LINE_STYLES)])
        missed = ~np.isfinite(median)
        ax.plot(table.index[missed], shown[missed], "^", color=palette[number], markersize=4)
        ends.append(shown[-1])
        labels.append(METHODS[method].title)
        colours.append(palette[number])
    available = np.sort(copies["available"].unique())
    ax.plot(available, available, color=LIMIT, linestyle=(0, (1, 1.5)), linewidth=0.9)
    ax.set(yscale="log", xlabel="available objects $m$", ylabel="sufficient size $m^*$")
    ax.set_ylim(min(ends) / 1.5, max(ends) * 1.6)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks([20, 50, 100, 200, 400])
    ax.set_title(f"Sufficient size by eleven methods, {title(results, dataset)}", fontsize=8.5)
    drawing.get_layout_engine().set(rect=(0, 0, 0.84, 1))
    drawing.draw_without_rendering()
    end_labels(ax, ends, labels, colours, float(available[-1]))
    note = (
        f"Medians over {copies['copy'].nunique()} bootstrap copies of the table. Triangles on the dotted diagonal: "
        "more than all that is available. KL falls like 1/k, so that it is within 5 % of its last value from m/1.05, "
        "on any noisy data."
    )
    return Figure(name, drawing, f"Sufficient sample size against the available size, {title(results, dataset)}.", note)


def _available(ax: Axes, available: np.ndarray, m_star: np.ndarray) -> None:
    """Median and 95 % of the copies at each available size; ends that are not reached stop at the diagonal."""
    reached = np.isfinite(m_star)
    filled = np.where(reached, m_star, np.inf)
    low, middle, high = np.quantile(filled, [0.025, 0.5, 0.975], axis=1, method="inverted_cdf")
    ax.fill_between(
        available,
        np.minimum(low, available),
        np.where(np.isfinite(high), high, available),
        color=INK,
        alpha=0.15,
        linewidth=0,
    )
    ax.plot(available, np.where(np.isfinite(middle), middle, np.nan), "o-", color=INK, markersize=3)
    ax.plot(available, available, color=LIMIT, linestyle=(0, (1, 1.5)), linewidth=0.9)
    share = reached.mean(axis=1)
    for size, part in zip(available, share, strict=True):
        if part < 1:
            place = {"xytext": (0, 2), "textcoords": "offset points", "ha": "right", "fontsize": 5.5, "color": LIMIT}
            ax.annotate(f"{part:.0%}", (size, size), **place)
