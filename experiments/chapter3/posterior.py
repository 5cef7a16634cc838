"""Figs 3.8 to 3.11: neighbouring posteriors of a linear regression as objects leave one at a time (thesis 3.6.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import (
    NOT_REPRODUCED,
    REPRODUCED,
    Context,
    Figure,
    Measurement,
    Point,
    Results,
    Table,
    Verdict,
    with_units,
)
from landscape_cli.samplesize.rules import settled_from
from landscape_cli.statistics import log_log_slope, mean_interval, sign_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, OTHER, LIMIT = "#0072b2", "#d55e00", "0.35"


@dataclass
class PosteriorOptions:
    """The model and the number of chains."""

    chains: int = bounded(100, minimum=2)  # B: orders in which objects leave, a seed
    precision: float = bounded(1.0, above=0)  # α of the prior N(0, I/α)
    noise: float = bounded(1.0, above=0)  # σ²
    eigenvalues: int = bounded(100, minimum=2)  # sizes at which the least eigenvalue is computed
    standardise: bool = False  # the features; the target is left as it is, and there is no constant
    epsilon: float = bounded(0.05, above=0, below=1)  # of the table: relative deviation from the last value


class Posterior(Grid):
    """KL(k), S(k) and the least eigenvalue of X_kᵀ X_k along random orders of the objects."""

    Options = PosteriorOptions
    uses = frozenset({"dataset", "seeds"})
    data = "table"

    def points(self) -> list[Point]:
        """One point: figures and tables have room for one data set."""
        if self.config.grid:
            axis = next(iter(self.config.grid))
            raise BadInput(f"grid.{axis}: one data set at a time; allowed: no grid, for example dataset=liver")
        return super().points()

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``curves`` (seed, k) and ``eigenvalues`` (seed, k), means and spread over chains."""
        from landscape_cli.rng import numpy_generator
        from landscape_cli.samplesize.neighbours import chains

        options, data = point.settings["measure"], context.table()
        if data.source.task != "regression":
            raise BadInput("dataset.target: classes; these posteriors are a regression's, allowed: a numeric target")
        spread = data.X.std(axis=0)
        if options["standardise"] and not spread.all():
            constant = data.features[int(np.argmin(spread))]
            raise BadInput(f"dataset: column {constant!r} is constant; leave it out: dataset.drop=[{constant}]")
        X = (data.X - data.X.mean(axis=0)) / spread if options["standardise"] else data.X
        curves, least = [], []
        for seed in context.progress(point.settings["seeds"], desc="seeds"):
            random = numpy_generator(seed, "chains", point.settings["dataset"]["checksum"])
            asked = {name: options[name] for name in ("precision", "noise", "eigenvalues")}
            found = chains(X, data.y, options["chains"], random, **asked)
            columns = {"k": found.sizes, "seed": seed}
            for name, values in (("kl", found.kl), ("s_score", found.s_score)):
                columns[name] = values.mean(axis=0)
                columns[f"{name}_low"], columns[f"{name}_high"] = np.quantile(values, [0.025, 0.975], axis=0)
            curves.append(pd.DataFrame(columns))
            columns = {"k": found.eigenvalue_sizes, "seed": seed, "eigenvalue": found.eigenvalues.mean(axis=0)}
            columns["least"], columns["most"] = found.eigenvalues.min(axis=0), found.eigenvalues.max(axis=0)
            least.append(pd.DataFrame(columns))
        frames = {"curves": pd.concat(curves, ignore_index=True), "eigenvalues": pd.concat(least, ignore_index=True)}
        return Measurement(with_units(frames, {"k": "objects", "kl": "nats"}))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Figs 3.8, 3.9 or 3.10, and 3.11 of one data set."""
        name = self.config.name.removeprefix("posterior_")
        functions = self.config.thesis.removeprefix("figure ").replace(".", "_")
        about = next(iter(results.sources.values())).title if results.sources else name
        yield _eigenvalues(results, f"fig_3_8_min_eigenvalue_{name}", about)
        yield _functions(results, f"fig_{functions}_posterior_{name}", about)
        yield _thresholds(results, f"fig_3_11_threshold_{name}", about)

    def tables(self, results: Results) -> Iterator[Table]:
        """The size from which each function is within ε of its last value, and end values."""
        means = results.frames["curves"].groupby("k").mean(numeric_only=True)
        rows = [
            {
                "criterion": label,
                "first_value": means[column].iloc[0],
                "last_value": means[column].iloc[-1],
                "epsilon": self.config.measure.epsilon,
                "sufficient": settled(means.index.to_numpy(), means[column].to_numpy(), self.config.measure.epsilon),
                "objects": int(means.index.max()) + 1,
            }
            for label, column in (("KL", "kl"), ("S", "s_score"))
        ]
        caption = "Size from which KL(k) and S(k) deviate from their value at the last k by at most ε of it."
        yield Table(self.config.name, pd.DataFrame(rows), caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """KL -> 0, S -> 1, the least eigenvalue outgrows √k, and S asks for smaller thresholds."""
        curves, least = results.frames["curves"], results.frames["eigenvalues"]
        late = curves[curves["k"] >= curves["k"].median()]
        for claim, values in (("KL(k) tends to zero", late["kl"]), ("S(k) tends to one", 1 - late["s_score"])):
            slopes = [
                float(log_log_slope(g["k"].to_numpy(), values[g.index].to_numpy())) for _, g in late.groupby("seed")
            ]
            statistic = "slope of the logarithm (of 1 - S) against log k over the upper half of k; to be negative"
            yield _slope_verdict(claim, statistic, slopes, 0.0)
        late = least[least["k"] >= least["k"].median()]
        slopes = [
            float(log_log_slope(g["k"].to_numpy(), g["eigenvalue"].to_numpy())) - 0.5 for _, g in late.groupby("seed")
        ]
        interval = mean_interval(slopes)
        last = least[least["k"] == least["k"].max()]
        yield Verdict(
            claim="The least eigenvalue of X_kᵀ X_k outgrows √k",
            source="thesis 3.6.3, the hypothesis of Theorem 30",
            statistic="slope of its logarithm against log k, less ½; to be positive",
            verdict=sign_verdict(interval, 1),
            effect=interval.mean,
            low=interval.low,
            high=interval.high,
            note=f"at the last k it is {last['eigenvalue'].mean() / np.sqrt(last['k'].iloc[0]):.3g} times √k",
        )
        means = curves.groupby("k").mean(numeric_only=True)
        epsilons = np.geomspace(max(means["kl"].min(), 1e-6) * 1.01, means["kl"].max(), 50)
        pairs = [(_absolute(means["kl"], e), _absolute(1 - means["s_score"], e)) for e in epsilons]
        share = float(np.mean([s <= kl for kl, s in pairs]))
        yield Verdict(
            claim="S-sufficiency needs lower thresholds than KL-sufficiency for the same size",
            source="Fig 3.11",
            statistic="share of thresholds at which the S-sufficient size is not the larger one",
            verdict=REPRODUCED if share == 1 else NOT_REPRODUCED,
            effect=share,
            low=share,
            high=share,
            note="it is thus the less demanding one at the same threshold, as Table 3.6 says, not the more demanding",
        )


def settled(sizes: np.ndarray, values: np.ndarray, epsilon: float) -> int:
    """The smallest size from which all values are within ε of the last one, relative to it."""
    return settled_from(sizes, np.abs(values - values[-1]) <= epsilon * abs(values[-1]))


def _absolute(values: pd.Series, epsilon: float) -> float:
    """The smallest k from which a function is at most ε (Definitions 14, 15); infinite if there is none."""
    size = settled_from(values.index.to_numpy(), values.to_numpy() <= epsilon)
    return np.inf if size is None else float(size)


def _slope_verdict(claim: str, statistic: str, slopes: list[float], less: float) -> Verdict:
    interval = mean_interval(np.array(slopes) - less)
    given = {"effect": interval.mean, "low": interval.low, "high": interval.high}
    return Verdict(claim, "thesis 3.6.3", statistic, sign_verdict(interval, -1), **given)


def _eigenvalues(results: Results, name: str, about: str) -> Figure:
    from landscape_cli.plotting.style import COLUMN_WIDTH, new_figure

    least = results.frames["eigenvalues"].groupby("k").agg({"eigenvalue": "mean", "least": "min", "most": "max"})
    drawing, axes = new_figure(1, 1, COLUMN_WIDTH, 2.7)
    ax = axes[0, 0]
    ax.plot(least.index, least["eigenvalue"], color=INK, label=r"$\lambda_{\min}(X_k^\top X_k)$")
    ax.fill_between(least.index, least["least"], least["most"], color=INK, alpha=0.15, linewidth=0)
    ax.plot(least.index, np.sqrt(least.index), color=OTHER, linestyle=(0, (5, 1.2)), label=r"$\sqrt{k}$")
    ax.plot(least.index, least.index / 2, color=LIMIT, linestyle=(0, (1.2, 1.2)), label="$k/2$")
    ax.set(xlabel="sample size $k$", ylabel="least eigenvalue", xscale="log", yscale="log")
    ax.set_ylim(max(least["eigenvalue"].min(), 1e-3) / 2, None)
    ax.legend(loc="lower right")
    ax.set_title(about, fontsize=8)
    note = "Line: mean over chains; band: all of them. k/2 is what the published figure draws under the name of √k."
    return Figure(name, drawing, f"Least eigenvalue against sample size, {about}.", note)


def _functions(results: Results, name: str, about: str) -> Figure:
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure

    means = results.frames["curves"].groupby("k").mean(numeric_only=True)
    drawing, axes = new_figure(1, 2, FULL_WIDTH, 2.8)
    _function(axes[0, 0], means, "kl", r"$KL(k)$, nats")
    axes[0, 0].set_yscale("log")
    _function(axes[0, 1], means, "s_score", "$S(k)$")
    axes[0, 1].axhline(1, color=LIMIT, linewidth=0.7, linestyle=(0, (4, 2)))
    drawing.suptitle(f"Neighbouring posteriors of k and k + 1 objects, {about}", fontsize=8.5)
    note = "Lines: means over chains of objects that leave at random; bands: 95 % of the chains."
    return Figure(name, drawing, f"Convergence of KL(k) and S(k), {about}.", note)


def _function(ax: Axes, means: pd.DataFrame, column: str, label: str) -> None:
    ax.plot(means.index, means[column], color=INK)
    low = means[f"{column}_low"].clip(lower=means[column].min() / 100) if column == "kl" else means[f"{column}_low"]
    ax.fill_between(means.index, low, means[f"{column}_high"], color=INK, alpha=0.15, linewidth=0)
    ax.set(xlabel="sample size $k$", ylabel=label)


def _thresholds(results: Results, name: str, about: str) -> Figure:
    from landscape_cli.plotting.style import COLUMN_WIDTH, new_figure

    means = results.frames["curves"].groupby("k").mean(numeric_only=True)
    drawing, axes = new_figure(1, 1, COLUMN_WIDTH, 2.7)
    ax = axes[0, 0]
    for values, colour, line, label in (
        (means["kl"], INK, "-", r"KL: $KL(k)\leq\varepsilon$"),
        (1 - means["s_score"], OTHER, (0, (5, 1.2)), r"S: $S(k)\geq 1-\varepsilon$"),
    ):
        needed = np.maximum.accumulate(values.to_numpy()[::-1])[::-1]
        ax.step(needed, means.index, where="post", color=colour, linestyle=line, label=label)
    ax.set(xscale="log", xlabel=r"threshold $\varepsilon$", ylabel="sufficient size $m^*$")
    ax.legend(loc="upper right")
    ax.set_title(about, fontsize=8)
    return Figure(name, drawing, f"Sufficient sample size against the threshold, {about}.", "Means over chains.")
