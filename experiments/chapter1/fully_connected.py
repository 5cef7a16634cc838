"""Figs 1.3 and 1.5: fully connected nets on pixels; left hidden size h at fixed L, right layers L at fixed h."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

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
from experiments.reference import published_curves
from landscape_cli.experiment import Figure, Results, Table, Verdict
from landscape_cli.statistics import equivalence_verdict, log_log_slope, mean_interval, sign_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SYMBOLS = {"hidden_size": "h", "num_layers": "L"}
TRENDS = (
    ("num_layers", 1, "adding more layers leads to a larger loss difference"),
    ("hidden_size", -1, "a larger hidden size leads to a smaller loss difference"),
)
PUBLISHED = {
    "dataset": "mnist",
    "objects": 10000,
    "bias": False,
    "smoothing": 0.99,
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 1e-3,
}
PUBLISHED_K = 9990  # where the published curves end
DECADE = 100  # a curve's last k, below which its last decade is too short for a slope
EXCESS = 0.05  # of the moving average over the closed form at the end, from which it is said
TOLERANCE = 0.3  # of an end value, for hidden sizes from 8 on


class FullyConnected(LossDifference):
    """Curves of nets that differ in width and depth.

    The thesis draws one run a configuration; here several seeds, the mean with their range. A network whose ReLUs all
    died has the same loss on every object and no differences: it is named, and left out of the means.
    """

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw one row a data set, one panel an axis; with ``sweep=full`` also the whole grid as a heat map."""
        import matplotlib.pyplot as plt

        from landscape_cli.plotting.curves import end_labels
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure

        curves = alive(results)
        published = self._published(results)
        datasets = list(results.frames["networks"]["dataset"].unique())
        drawing, panels = new_figure(len(datasets), len(self.axes), FULL_WIDTH, 3.1)
        labels = []
        for row, dataset in zip(panels, datasets, strict=True):
            for ax, axis in zip(row, self.axes, strict=True):
                labels.append((ax, self._panel(ax, self.slice_along(curves, axis, dataset), axis, published)))
                fixed = ", ".join(f"${symbol(a)}={self.fixed(a)}$" for a in self.axes if a != axis)
                ax.set_title(
                    f"{title(results, dataset)}: {label(axis)} ${symbol(axis)}$" + (f", at {fixed}" if fixed else "")
                )
            low, high = min(ax.get_ylim()[0] for ax in row), max(ax.get_ylim()[1] for ax in row)
            for ax in row:
                ax.set_ylim(low, high)
            row[0].set_ylabel(r"$|\mathcal{L}_{k+1}(\hat\theta)-\mathcal{L}_k(\hat\theta)|$, nats")
        for ax in panels[-1]:
            ax.set_xlabel("sample size $k$, objects")
        smoothing = f"moving average, $a={self.config.measure.smoothing:g}$: mean and range over seeds"
        styles = {
            smoothing: {},
            r"$\bar d_k$": {"linewidth": 0.4, "alpha": 0.6},
            r"MAD$/(k+1)$": {"linewidth": 0.8, "linestyle": (0, (2, 1.5))},
            "published": {"marker": "o", "markersize": 3, "markerfacecolor": "none", "linestyle": "none"},
        }
        if published is None:
            del styles["published"]
        handles = [plt.Line2D([], [], color="0.2", label=label, **look) for label, look in styles.items()]
        drawing.legend(handles=handles, loc="outside upper center", ncols=len(handles))
        dead = dead_networks(results, SYMBOLS)
        orderings = f"{self.config.measure.permutations} orderings a network."
        note = f"All ReLUs died, left out of the means: {'; '.join(dead)}." if dead else ""
        note = f"{note} {orderings}".strip()
        drawing.draw_without_rendering()
        for ax, (ends, texts, colours, k) in labels:
            if ends:
                end_labels(ax, ends, texts, colours, k)
        caption = "Absolute loss difference against the sample size, classification of raw pixels. One panel an axis."
        yield Figure(self._name("fig"), drawing, caption, note)
        if self.config.sweep == "full" and len(self.axes) == 2:
            yield from self._heat_maps(curves, results, note)

    def tables(self, results: Results) -> Iterator[Table]:
        """End values of every point, and the published curves point by point beside ours."""
        curves = alive(results)
        published = self._published(results)
        k = PUBLISHED_K if published is not None else None
        ends = summarise_ends(end_values(curves, self.axes, k), self.axes)
        networks = results.frames["networks"]
        means = ["mean_loss", "train_accuracy", "test_accuracy"]
        living = networks[means].where(~networks["dead"])
        points = networks.assign(**living).groupby(["dataset", *self.axes], sort=False)
        extra = points.agg(dead=("dead", "sum"), **{name: (name, "mean") for name in means}).reset_index()
        # Points are listed from the networks, so that one whose networks all died keeps its row.
        table = extra.merge(ends, on=["dataset", *self.axes], how="left").astype({"k": "Int64", "networks": "Int64"})
        formats = {"ema": ".3g", "low": ".3g", "high": ".3g", "closed_form": ".3g", "published": ".3g", "ratio": ".3f"}
        caption = "Moving average of the loss difference at the end of the curve, mean over seeds and 95 % interval."
        if published is not None:
            end = published[published["k"] == PUBLISHED_K].drop(columns="k").rename(columns={"value": "published"})
            table = table.merge(end, on=self.axes, how="left")
            table["ratio"] = table["ema"] / table["published"]
            caption += " Beside it the published value (one seed)."
            yield self._curve_table(curves, published)
        yield Table(f"end_values_{self.config.name}", table, caption, formats)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Trends in h and L, the 1/k decay, and the agreement with the published end values."""
        curves = alive(results)
        published = self._published(results)
        several = curves["dataset"].nunique() > 1
        for dataset in curves["dataset"].unique():
            own = curves[curves["dataset"] == dataset]
            prefix = f"{dataset}: " if several else ""
            ends = end_values(own, self.axes, PUBLISHED_K if published is not None else None)
            for axis, sign, sentence in TRENDS:
                values = self.slice_along(ends, axis, dataset)
                if axis not in self.axes or values[axis].nunique() < 2:
                    continue
                slope = mean_interval(trend_slopes(values, axis))
                networks = self.slice_along(results.frames["networks"], axis, dataset)
                dead = dead_networks(replace(results, frames={"networks": networks}), SYMBOLS)
                notes = [_steps(values, axis, sign)]
                if dead:
                    notes.append(f"without dead networks: {'; '.join(dead)}")
                excess = float((values["ema"] / values["closed_form"]).mean() - 1)
                if excess > EXCESS:
                    notes.append(f"the average's start-up still adds {excess:.0%} to MAD/(k+1)")
                yield Verdict(
                    claim=prefix + sentence,
                    source="thesis 1.4.1, Fig 1.3 and 1.5",
                    statistic=f"slope of log(end value) against log({symbol(axis)})",
                    verdict=sign_verdict(slope, sign),
                    effect=slope.mean,
                    low=slope.low,
                    high=slope.high,
                    published=self._published_slope(published, axis),
                    note="; ".join(notes),
                )
            if own["k"].max() < DECADE:
                continue
            slope = mean_interval(decay_slopes(own, self.axes))
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
        if published is not None:
            yield from self._agreement(end_values(curves, self.axes, PUBLISHED_K), published)

    def _panel(self, ax: Axes, chosen: pd.DataFrame, axis: str, published: pd.DataFrame | None) -> tuple:
        """Draw one axis of one data set; return what its end labels need."""
        from landscape_cli.plotting.curves import band, thinned
        from landscape_cli.plotting.style import LINE_STYLES, ordered_colours

        if chosen.empty:
            ax.text(0.5, 0.5, "no network is alive", transform=ax.transAxes, ha="center")
            return [], [], [], 1
        values = sorted(chosen[axis].unique())
        colours = ordered_colours(len(values))
        last = int(chosen["k"].max())
        k = thinned(last) + 1
        drawn = chosen.loc[chosen["k"].isin(k), ["seed", "k", axis, "ema", "difference", "closed_form"]]
        ends = []
        for value, colour, line_style in zip(values, colours, itertools.cycle(LINE_STYLES), strict=False):
            own = drawn[drawn[axis] == value].pivot(index="seed", columns="k")
            ema = own["ema"].to_numpy()
            ax.plot(k, own["difference"].mean(), color=colour, linewidth=0.4, alpha=0.6)
            ax.plot(k, own["closed_form"].mean(), color=colour, linewidth=0.8, linestyle=(0, (2, 1.5)))
            band(ax, k, ema, colour, linestyle=line_style, zorder=3)
            ends.append(ema.mean(axis=0)[-1])
            if published is not None:
                points = self.slice_along(published.assign(dataset=""), axis, "")
                points = points[points[axis] == value]
                ax.plot(
                    points["k"],
                    points["value"],
                    linestyle="none",
                    marker="o",
                    markersize=2.6,
                    markerfacecolor="none",
                    markeredgecolor=colour,
                    markeredgewidth=0.6,
                    zorder=4,
                    clip_on=False,
                )
        ax.set_yscale("log")
        ax.set_xlim(0, last * 1.005)
        return ends, [f"${symbol(axis)}={value}$" for value in values], colours, last

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
            ax.set_xlabel(f"{label(first)} ${symbol(first)}$")
            ax.set_ylabel(f"{label(second)} ${symbol(second)}$")
            ax.set_title(title(results, dataset))
            drawing.colorbar(image, ax=ax, label=r"$\log_{10}$ of the end value, nats")
        yield Figure(
            self._name("fig") + "_full", drawing, "End value of the loss difference over the whole grid.", note
        )

    def _curve_table(self, curves: pd.DataFrame, published: pd.DataFrame) -> Table:
        means = curves.groupby([*self.axes, "k"])["ema"].agg(["mean", "min", "max"]).reset_index()
        table = published.merge(means, on=[*self.axes, "k"], how="inner").rename(columns={"value": "published"})
        table["ratio"] = table["mean"] / table["published"]
        caption = (
            "Published curves (one seed) beside ours: moving average of the loss difference, mean and range over seeds."
        )
        formats = dict.fromkeys(("published", "mean", "min", "max"), ".3g") | {"ratio": ".3f"}
        return Table(f"published_{self.config.name}", table, caption, formats)

    def _agreement(self, ends: pd.DataFrame, published: pd.DataFrame) -> Iterator[Verdict]:
        end = published[published["k"] == PUBLISHED_K].drop(columns="k")
        paired = ends.merge(end, on=self.axes)
        left_out = paired[paired["hidden_size"] < 8]
        paired = paired[paired["hidden_size"] >= 8]
        if paired.empty:
            return
        ratios = {
            point: mean_interval(group["ema"] / group["value"])
            for point, group in paired.groupby(self.axes, sort=False)
        }
        worst = max(ratios, key=lambda point: abs(ratios[point].mean - 1))
        named = ", ".join(f"{symbol(a)}={v}" for a, v in zip(self.axes, worst, strict=True))
        interval = ratios[worst]
        within = sum(abs(ratio.mean - 1) <= TOLERANCE for ratio in ratios.values())
        others = [
            f"not judged: {', '.join(f'{symbol(a)}={v}' for a, v in zip(self.axes, point, strict=True))}, "
            f"ratio {(group['ema'] / group['value']).mean():.2f}"
            for point, group in left_out.groupby(self.axes, sort=False)
        ]
        yield Verdict(
            claim="end values of Fig 1.3, for h >= 8",
            source="the published curves (one seed each)",
            statistic=f"our mean over the published value, where it is farthest from 1; to lie within {TOLERANCE:.0%}",
            verdict=equivalence_verdict(interval, 1 - TOLERANCE, 1 + TOLERANCE),
            effect=interval.mean,
            low=interval.low,
            high=interval.high,
            published=1.0,
            note="; ".join([f"at {named}; {within} of {len(ratios)} means lie within {TOLERANCE:.0%}", *others]),
        )

    def _published(self, results: Results) -> pd.DataFrame | None:
        """The published curves, if these results have their settings and axes."""
        if set(self.axes) != set(SYMBOLS):
            return None
        for settings in (point.settings for point in results.points):
            found = {
                "dataset": settings["dataset"]["name"],
                "objects": settings["dataset"]["objects"],
                "bias": settings["model"]["bias"],
                "smoothing": settings["measure"]["smoothing"],
                **settings["training"],
            }
            if found != PUBLISHED:
                return None
        return published_curves(self.config.name)

    def _published_slope(self, published: pd.DataFrame | None, axis: str) -> float | None:
        if published is None:
            return None
        end = self.slice_along(published[published["k"] == PUBLISHED_K].assign(dataset=""), axis, "")
        if end[axis].nunique() < 2:
            return None
        return float(log_log_slope(end[axis].to_numpy(), end["value"].to_numpy()))

    def _name(self, kind: str) -> str:
        number = (self.config.thesis or "").removeprefix("figure ").replace(".", "_")
        return f"{kind}_{number}_{self.config.name}" if number else self.config.name


def _steps(ends: pd.DataFrame, axis: str, sign: int) -> str:
    """Say how many neighbours on the axis follow the claimed order, in the means over seeds."""
    means = ends.groupby(axis)["ema"].mean().sort_index()
    follow = int((np.sign(np.diff(means)) == sign).sum())
    return f"means {'rise' if sign > 0 else 'fall'} at {follow} of {len(means) - 1} steps"


def symbol(axis: str) -> str:
    """The figures' symbol for an axis, its name where the thesis has none."""
    return SYMBOLS.get(axis, axis.replace("_", r"\ "))


def label(axis: str) -> str:
    """An axis in words."""
    return axis.removeprefix("num_").replace("_", " ")
