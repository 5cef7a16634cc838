"""Figs 3.4 to 3.7: D(k) and M(k), and the sufficient size against the threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.chapter3.likelihood_tables import FUNCTIONS, function
from experiments.chapter3.sample_size_tables import own, title
from landscape_cli.experiment import Figure, Results
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 2  # place of the size whose values the frame still shows
COLOURS = {AS_DEFINED: "#0072b2", AS_PUBLISHED: "#d55e00"}
STYLES = {AS_DEFINED: "-", AS_PUBLISHED: (0, (1.2, 1.2))}
NAMES = {
    "D": r"$D(k)=\mathrm{Var}\,l(\mathfrak{D}_m,\hat w_k)$",
    "M": r"$M(k)=|E\,l(\mathfrak{D}_m,\hat w_{k+1})-E\,l(\mathfrak{D}_m,\hat w_k)|$",
}


def functions(results: Results, name: str) -> Figure:
    """D(k) and M(k) of one data set, as defined and as published."""
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

    dataset = results.frames["table"]["dataset"].iloc[0]
    drawing, axes = new_figure(1, 2, FULL_WIDTH, 3.0)
    for ax, symbol in zip(axes[0], FUNCTIONS, strict=True):
        for variant in (AS_PUBLISHED, AS_DEFINED):
            curves = own(results.frames["curves"], dataset, variant)
            if not curves.empty:
                _function(ax, curves, symbol, variant)
        ax.set(yscale="log", xlabel="sample size $k$")
        top = max(line.get_ydata()[min(SHOWN, len(line.get_ydata()) - 1)] for line in ax.lines)
        if top > 0:
            ax.set_ylim(None, 5 * top)
        ax.set_title(NAMES[symbol], fontsize=8)
        units = ("nats²", "nats") if _in_nats(results, dataset) else ("target⁴", "target²")
        ax.set_ylabel(f"${symbol}(k)$, {units[symbol == 'M']}")
    for variant, label in (
        (AS_DEFINED, "as defined: to one object more"),
        (AS_PUBLISHED, "as published: to the next size"),
    ):
        if not own(results.frames["curves"], dataset, variant).empty:
            axes[0, 0].plot([], [], color=COLOURS[variant], linestyle=STYLES[variant], label=label)
    titled_legend(drawing, f"D- and M-sufficiency, {title(results, dataset)}", axes[0, 0], 2)
    resamples = results.points[0].settings["measure"]["resamples"]
    note = (
        f"{resamples} bootstrap samples a size and seed, {_seeds(results)}. Lines: means over seeds; bands: 95 % of a "
        "value's own Monte-Carlo error. M as published is the change over a whole step of the grid. The first sizes, "
        "where a sample hardly settles the parameters, can lie above the frame."
    )
    caption = f"Convergence of the functions D(k) and M(k), {title(results, dataset)}."
    return Figure(name, drawing, caption, note)


def _function(ax: Axes, curves: pd.DataFrame, symbol: str, variant: str) -> None:
    mean = curves.groupby("k")[FUNCTIONS[symbol]].mean().dropna()
    error = np.sqrt((curves.set_index(["seed", "k"])[f"{FUNCTIONS[symbol]}_error"] ** 2).groupby("k").mean())
    error = (error / np.sqrt(curves["seed"].nunique())).loc[mean.index]
    values = mean.abs() if symbol == "M" else mean
    least = values[values > 0].min() / 10 if (values > 0).any() else 1e-12
    ax.plot(values.index, values, color=COLOURS[variant], linestyle=STYLES[variant])
    low, high = np.maximum(values - 1.96 * error, least), values + 1.96 * error
    ax.fill_between(values.index, low, high, color=COLOURS[variant], alpha=0.15, linewidth=0)


def thresholds(results: Results, name: str) -> Figure:
    """Sufficient size against ε for several data sets, ε in units of the function's last value."""
    from landscape_cli.plotting.style import FULL_WIDTH, LINE_STYLES, new_figure, titled_legend

    table = results.frames["table"]
    datasets = table.loc[table["variant"] == AS_DEFINED, "dataset"].unique()
    drawing, axes = new_figure(1, 2, FULL_WIDTH, 3.0)
    for ax, symbol in zip(axes[0], FUNCTIONS, strict=True):
        for number, dataset in enumerate(datasets):
            table = function(own(results.frames["curves"], dataset, AS_DEFINED), symbol)
            sizes, values = table.columns.to_numpy(), table.mean(axis=0).to_numpy()
            # Non-increasing from the right: the largest value from each size on is the least ε that it is enough for.
            needed = np.maximum.accumulate(values[::-1])[::-1] / values[-1]
            ax.step(
                needed,
                sizes,
                where="post",
                color=f"C{number}",
                linestyle=LINE_STYLES[number],
                label=title(results, dataset),
            )
        ax.set(xscale="log", xlabel=rf"threshold $\varepsilon$, in units of the last ${symbol}(k)$", xlim=(0.7, 1e7))
        ax.set_ylabel(f"sufficient size $m^*$ by ${symbol}$")
    titled_legend(drawing, "Sufficient sample size against the threshold", axes[0, 0], len(datasets))
    caption = "Sufficient sample size against the threshold, by D and by M."
    return Figure(name, drawing, caption, f"Means over {_seeds(results)}; sizes on each set's grid.")


def _in_nats(results: Results, dataset: str) -> bool:
    return any(
        point.coordinates["dataset"] == dataset and point.settings["measure"]["loss"] == "log_likelihood"
        for point in results.points
    )


def _seeds(results: Results) -> str:
    count = results.frames["curves"]["seed"].nunique()
    return f"{count} seed{'s' if count > 1 else ''}"
