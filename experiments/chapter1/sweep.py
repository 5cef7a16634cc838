"""Figures and tables of a sweep of networks: curves of |L_{k+1} - L_k| by the value of one axis, and their ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import (
    LossDifference,
    alive,
    dead_networks,
    decay_slopes,
    end_values,
    summarise_ends,
    title,
    trend_slopes,
)
from landscape_cli.experiment import INCONCLUSIVE, Figure, Results, Table, Verdict
from landscape_cli.statistics import equivalence_verdict, mean_interval, sign_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADE = 100  # a curve's last k, below which its last decade is too short for a slope
EXCESS = 0.05  # of the moving average over the closed form at the end, from which it is said
HIDDEN = 0.5  # from which nothing is concluded
MARKERS = {"linestyle": "none", "marker": "o", "markerfacecolor": "none"}  # of published points


@dataclass(frozen=True)
class Panel:
    """One axis of one data set."""

    axis: str
    fixed: Mapping[str, Any] = field(default_factory=dict)  # values that the rows have in other columns


class Sweep(LossDifference):
    """Draws and tabulates; what is claimed of the curves is the business of its subclasses.

    The thesis draws one run a configuration; here several seeds, the mean with their range. A network whose ReLUs all
    died has the same loss on every object and no differences: it is named, and left out of the means.
    """

    symbols: ClassVar[Mapping[str, str]] = {}  # axis -> symbol
    what: ClassVar[str] = "raw pixels"  # that are classified, for the caption

    def panels(self) -> list[Panel]:
        """One panel an axis, the others at their fixed values."""
        return [Panel(axis, {other: self.fixed(other) for other in self.axes if other != axis}) for axis in self.axes]

    def select(self, frame: pd.DataFrame, panel: Panel, dataset: str) -> pd.DataFrame:
        """Rows of a panel."""
        keep = frame["dataset"] == dataset
        for column, value in panel.fixed.items():
            keep &= frame[column] == value
        return frame[keep]

    def first_k(self, last: int) -> int:
        """Where a figure begins, of a curve that ends at `last`."""
        return 1

    def published(self, results: Results) -> pd.DataFrame | None:
        """Points of the published curves, if these results have their settings and axes."""
        return None

    def value_label(self, axis: str, value: Any) -> str:
        """Label of one curve."""
        return f"${self.symbol(axis)}={value}$"

    def panel_title(self, panel: Panel, name: str) -> str:
        """Title of a panel of the data set `name`."""
        fixed = ", ".join(f"${self.symbol(axis)}={value}$" for axis, value in panel.fixed.items())
        return f"{name}: {label(panel.axis)} ${self.symbol(panel.axis)}$" + (f", at {fixed}" if fixed else "")

    def symbol(self, axis: str) -> str:
        """The figures' symbol for an axis, its name where the thesis has none."""
        return self.symbols.get(axis, axis.replace("_", r"\ "))

    def plain(self, axis: str) -> str:
        """The symbol without mathematical markup, for text."""
        return self.symbols.get(axis, axis).replace("{", "").replace("}", "")

    @property
    def _plain_symbols(self) -> dict[str, str]:
        return {axis: self.plain(axis) for axis in self.symbols}

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw one row a data set, one panel an axis; with ``sweep=full`` also the whole grid as a heat map."""
        import matplotlib.pyplot as plt

        from landscape_cli.plotting.curves import end_labels
        from landscape_cli.plotting.style import FULL_WIDTH, SINGLE_WIDTH, new_figure

        curves, published, chosen = alive(results), self.published(results), self.panels()
        datasets = list(results.frames["networks"]["dataset"].unique())
        if not datasets:
            return
        if len(chosen) == 1:
            layout = [[(dataset, chosen[0]) for dataset in datasets]]
        else:
            layout = [[(dataset, panel) for panel in chosen] for dataset in datasets]
        columns = len(layout[0])
        width = FULL_WIDTH if columns > 1 else SINGLE_WIDTH
        drawing, axes = new_figure(len(layout), columns, width, 3.1 if columns < 3 else 2.7)
        labels = []
        for row, places in zip(axes, layout, strict=True):
            for ax, (dataset, panel) in zip(row, places, strict=True):
                labels.append((ax, self._panel(ax, self.select(curves, panel, dataset), panel, published)))
                ax.set_title(self.panel_title(panel, title(results, dataset)), fontsize=8.5 if columns < 3 else 7.5)
            if len(chosen) > 1:
                low, high = min(ax.get_ylim()[0] for ax in row), max(ax.get_ylim()[1] for ax in row)
                for ax in row:
                    ax.set_ylim(low, high)
            row[0].set_ylabel(r"$|\mathcal{L}_{k+1}(\hat\theta)-\mathcal{L}_k(\hat\theta)|$, nats")
        for ax in axes[-1]:
            ax.set_xlabel("sample size $k$, objects")
        smoothing = f"moving average, $a={self.config.measure.smoothing:g}$: mean and range over seeds"
        styles = {
            smoothing: {},
            r"$\bar d_k$": {"linewidth": 0.4, "alpha": 0.6},
            r"MAD$/(k+1)$": {"linewidth": 0.8, "linestyle": (0, (2, 1.5))},
            "published": {"markersize": 3, **MARKERS},
        }
        if published is None:
            del styles["published"]
        handles = [plt.Line2D([], [], color="0.2", label=label, **look) for label, look in styles.items()]
        drawing.legend(handles=handles, loc="outside upper center", ncols=len(handles) if columns > 1 else 2)
        note = self._note(results)
        drawing.draw_without_rendering()
        for ax, (ends, texts, colours, k) in labels:
            if ends:
                end_labels(ax, ends, texts, colours, k)
        caption = f"Absolute loss difference against the sample size, classification of {self.what}."
        yield Figure(self.file_name("fig"), drawing, caption, note)
        if self.config.sweep == "full" and len(self.axes) == 2 and [panel.axis for panel in chosen] == self.axes:
            yield from self._heat_maps(curves, results, note)

    def tables(self, results: Results) -> Iterator[Table]:
        """End values of every point."""
        table, caption, formats = self.end_table(results)
        yield Table(f"end_values_{self.config.name}", table, caption, formats)

    def end_table(self, results: Results, k: int | None = None) -> tuple[pd.DataFrame, str, dict[str, str]]:
        """End values (or those at k) with intervals, accuracies and dead networks; caption and formats."""
        ends = summarise_ends(end_values(alive(results), self.axes, k), self.axes)
        networks = results.frames["networks"]
        means = ["mean_loss", "train_accuracy", "test_accuracy"]
        living = networks[means].where(~networks["dead"])
        points = networks.assign(**living).groupby(["dataset", *self.axes], sort=False)
        extra = points.agg(dead=("dead", "sum"), **{name: (name, "mean") for name in means}).reset_index()
        lasts = results.frames["curves"].groupby("dataset")["k"].max()
        extra.insert(1, "objects", extra["dataset"].map(lasts) + 1)
        # Points are listed from the networks, so that one whose networks all died keeps its row.
        table = extra.merge(ends, on=["dataset", *self.axes], how="left").astype({"k": "Int64", "networks": "Int64"})
        formats = {"ema": ".3g", "low": ".3g", "high": ".3g", "closed_form": ".3g"}
        caption = "Moving average of the loss difference at the end of the curve, mean over seeds and 95 % interval."
        return table, caption, formats

    def trend_claim(
        self,
        results: Results,
        ends: pd.DataFrame,
        panel: Panel,
        dataset: str,
        sign: int,
        sentence: str,
        source: str,
    ) -> Iterator[Verdict]:
        """Test that end values grow (sign 1) or fall (-1) along the axis of a panel, over all its values."""
        axis, values = panel.axis, self.select(ends, panel, dataset)
        values = values[values[axis] > 0]
        if values[axis].nunique() < 2:
            return
        slope = mean_interval(trend_slopes(values, axis))
        networks = self.select(results.frames["networks"], panel, dataset)
        dead = dead_networks(replace(results, frames={"networks": networks}), self._plain_symbols)
        notes = [_steps(values, axis, sign)]
        if dead:
            notes.append(f"without dead networks: {'; '.join(dead)}")
        notes += start_up(values)
        yield Verdict(
            claim=sentence,
            source=source,
            statistic=f"slope of log(end value) against log({self.plain(axis)})",
            verdict=INCONCLUSIVE if hidden(values) else sign_verdict(slope, sign),
            effect=slope.mean,
            low=slope.low,
            high=slope.high,
            note="; ".join(notes),
        )

    def decay_claim(self, curves: pd.DataFrame, prefix: str) -> Iterator[Verdict]:
        """Test the 1/k of Theorem 4 on the curves of one data set."""
        if curves["k"].max() < DECADE:
            return
        slope = mean_interval(decay_slopes(curves, self.axes))
        yield Verdict(
            claim=prefix + "the loss difference falls as 1/k",
            source="thesis 1.3.1, Theorem 4",
            statistic="slope of log(mean difference) against log(k), last decade; to lie in [-1.05, -0.95]",
            verdict=equivalence_verdict(slope, -1.05, -0.95),
            effect=slope.mean,
            low=slope.low,
            high=slope.high,
            note="at a fixed θ this follows from (1.3) for any losses; it tests the computation, not the network",
        )

    def file_name(self, kind: str) -> str:
        """``fig_1_3_fc_mnist``; the experiment's name alone where the thesis has no such figure."""
        number = (self.config.thesis or "").removeprefix("figure ").replace(".", "_")
        return f"{kind}_{number}_{self.config.name}" if number else self.config.name

    def _note(self, results: Results) -> str:
        dead = dead_networks(results, self._plain_symbols)
        orderings = f"{self.config.measure.permutations} orderings a network."
        note = f"All ReLUs died, left out of the means: {'; '.join(dead)}." if dead else ""
        return f"{note} {orderings}".strip()

    def _panel(self, ax: Axes, chosen: pd.DataFrame, panel: Panel, published: pd.DataFrame | None) -> tuple:
        """Draw one axis of one data set; return what its end labels need."""
        from landscape_cli.plotting.curves import band, thinned
        from landscape_cli.plotting.style import LINE_STYLES, ordered_colours

        if chosen.empty:
            ax.text(0.5, 0.5, "no living network", transform=ax.transAxes, ha="center")
            ax.set_yscale("log")
            return [], [], [], 1
        axis = panel.axis
        values = sorted(chosen[axis].unique())
        colours = ordered_colours(len(values))
        last = int(chosen["k"].max())
        first = self.first_k(last)
        stored = np.sort(chosen["k"].unique())
        stored = stored[stored >= first]
        k = stored[thinned(len(stored), dense=400 if first == 1 else 0)]
        drawn = chosen.loc[chosen["k"].isin(k), ["seed", "k", axis, "ema", "difference", "closed_form"]]
        ends = []
        for value, colour, line_style in zip(values, colours, itertools.cycle(LINE_STYLES), strict=False):
            own = drawn[drawn[axis] == value].pivot(index="seed", columns="k")
            ema = own["ema"].to_numpy()
            ax.plot(k, own["difference"].mean(), color=colour, linewidth=0.4, alpha=0.6 if first == 1 else 0.3)
            ax.plot(k, own["closed_form"].mean(), color=colour, linewidth=0.8, linestyle=(0, (2, 1.5)))
            band(ax, k, ema, colour, linestyle=line_style, zorder=3)
            ends.append(ema.mean(axis=0)[-1])
            if published is not None:
                points = self.select(published.assign(dataset=""), panel, "")
                points = points[points[axis] == value]
                look = {"markersize": 2.6, "markeredgecolor": colour, "markeredgewidth": 0.6, **MARKERS}
                ax.plot(points["k"], points["value"], zorder=4, clip_on=False, **look)
        ax.set_yscale("log")
        begin = first if first > 1 else 0
        ax.set_xlim(begin, last + 0.005 * (last - begin))
        return ends, [self.value_label(axis, value) for value in values], colours, last

    def _heat_maps(self, curves: pd.DataFrame, results: Results, note: str) -> Iterator[Figure]:
        from landscape_cli.plotting.style import COLUMN_WIDTH, new_figure

        datasets = list(curves["dataset"].unique())
        if not datasets:
            return
        first, second = self.axes
        ends = summarise_ends(end_values(curves, self.axes), self.axes)
        drawing, panels = new_figure(len(datasets), 1, COLUMN_WIDTH, 2.6)
        for ax, dataset in zip(panels[:, 0], datasets, strict=True):
            grid = ends[ends["dataset"] == dataset].pivot(index=second, columns=first, values="ema")
            image = ax.imshow(np.log10(grid), origin="lower", aspect="auto", cmap="viridis")
            ax.set_xticks(range(len(grid.columns)), grid.columns)
            ax.set_yticks(range(len(grid.index)), grid.index)
            ax.grid(visible=False)
            ax.set_xlabel(f"{label(first)} ${self.symbol(first)}$")
            ax.set_ylabel(f"{label(second)} ${self.symbol(second)}$")
            ax.set_title(title(results, dataset))
            drawing.colorbar(image, ax=ax, label=r"$\log_{10}$ of the end value, nats")
        yield Figure(
            self.file_name("fig") + "_full", drawing, "End value of the loss difference over the whole grid.", note
        )


def start_up(ends: pd.DataFrame) -> list[str]:
    """Say how much of the end values is still the moving average's start-up, if it is much."""
    excess = float((ends["ema"] / ends["closed_form"]).mean() - 1)
    return [f"the average's start-up still adds {excess:.0%} to MAD/(k+1)"] if excess > EXCESS else []


def hidden(ends: pd.DataFrame) -> bool:
    """Whether the end values are so much start-up that they say little of the curves."""
    return bool((ends["ema"] / ends["closed_form"]).mean() - 1 > HIDDEN)


def _steps(ends: pd.DataFrame, axis: str, sign: int) -> str:
    """Say how many neighbours on the axis follow the claimed order, in the means over seeds."""
    means = ends.groupby(axis)["ema"].mean().sort_index()
    follow = int((np.sign(np.diff(means)) == sign).sum())
    return f"means {'rise' if sign > 0 else 'fall'} at {follow} of {len(means) - 1} steps"


def label(axis: str) -> str:
    """An axis in words."""
    return axis.removeprefix("num_").replace("_", " ")
