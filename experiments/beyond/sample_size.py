"""How many objects are enough, and are they there? Nine classical methods and the thesis's four on any table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.chapter3.sample_size_methods import SampleSizeMethods
from experiments.chapter3.sample_size_tables import answers, as_text, interval, interval_text
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Figure, Point, Results, Table, Verdict
from landscape_cli.samplesize.rules import AS_DEFINED, METHODS, TESTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

YES, NO, UNSURE = "yes", "no", "unsure"
LOOKS = {YES: ("#0072b2", "o"), UNSURE: ("#999999", "s"), NO: ("#d55e00", "D")}


class SampleSize(SampleSizeMethods):
    """One figure and one table for one table of data: m* by each method, its interval, and whether it is there."""

    stored_as = "SampleSizeMethods"

    def points(self) -> list[Point]:
        """One point: the table, as defined."""
        if self.config.measure.variant != AS_DEFINED or self.config.grid:
            raise BadInput(
                f"{self.config.name}: one table as defined; allowed: measure.variant={AS_DEFINED} and no grid"
            )
        return super().points()

    def figures(self, results: Results) -> Iterator[Figure]:
        """Each method's m* and interval beside what is available."""
        from matplotlib.ticker import StrMethodFormatter

        from landscape_cli.plotting.style import FULL_WIDTH, new_figure

        rows, available = self._rows(results), self._available_objects(results)
        drawing, axes = new_figure(1, 1, FULL_WIDTH, 0.9 + 0.33 * len(rows))
        ax = axes[0, 0]
        ax.set_xscale("log")
        for place, row in enumerate(rows.itertuples()):
            _draw_row(ax, place, row, available)
        ax.axvline(available, color="0.2", linewidth=1)
        ax.set_yticks(range(len(rows)), rows["method"])
        ax.set_ylim(len(rows) - 0.4, -1.0)
        least = min(rows["m_star"].min(), rows["low"].min(), available)
        ax.set_xlim(least * 0.6, max(available, rows["high"].replace(np.inf, 0).max()) * 1.8)
        ax.text(available, -0.6, f" {available} available", fontsize=7, ha="left", va="center")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.set_xlabel("sufficient number of objects $m^*$")
        ax.grid(axis="y", visible=False)
        for verdict, text in ((YES, "enough"), (UNSURE, "unsure"), (NO, "not enough")):
            ax.plot([], [], LOOKS[verdict][1], color=LOOKS[verdict][0], markersize=5, label=text)
        drawing.legend(loc="outside upper center", ncols=3, title="How many objects are enough, and are they there?")
        note = (
            f"Bars: 95 % over {self.config.measure.copies} bootstrap copies of the table; arrows: not reached with all "
            "objects. Features are standardised; what each method asks is in the table."
        )
        yield Figure(self.config.name, drawing, "Sufficient sample size by each method and what is available.", note)

    def tables(self, results: Results) -> Iterator[Table]:
        """A row a method: what it asks, m*, interval, and whether that is available."""
        rows = self._rows(results)
        frame = rows.drop(columns=["m_star", "low", "high"])
        caption = (
            f"How many objects are enough, of {self._available_objects(results)} available. Coefficients are those of "
            "standardised features (and target); interval: 95 % over bootstrap copies of the table, in which objects "
            "repeat: that moves it up a little; ≤: the rule holds at the smallest size that was looked at."
        )
        yield Table(self.config.name, frame, caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """None: the thesis says nothing about this table."""
        return iter(())

    def answers(self, results: Results) -> Iterator[str]:
        """Each method's answer in a line."""
        available = self._available_objects(results)
        for row in self._rows(results).itertuples():
            yield f"{row.method}: {row.sufficient} [{row.interval}] of {available}; enough: {row.enough} ({row.asks})"
        if results.frames["table"]["separable"].iloc[0]:
            yield "a plane separates the classes: the likelihood has no maximum, and the ridge decides the estimates"

    def _available_objects(self, results: Results) -> int:
        return int(results.frames["table"]["objects"].iloc[0])

    def _rows(self, results: Results) -> pd.DataFrame:
        """A row a method, in the table's words and as numbers (NaN and infinite where nothing was reached)."""
        dataset = results.frames["table"]["dataset"].iloc[0]
        available, rows = self._available_objects(results), []
        for name, answer in answers(results, dataset, AS_DEFINED).items():
            low, high = interval(results, dataset, name)
            size = np.nan if answer.size is None else float(answer.size)
            rows.append(
                {
                    "method": METHODS[name].title,
                    "asks": self._question(name),
                    "sufficient": as_text(answer),
                    "interval": interval_text(low, high, available),
                    "enough": _enough(size, low, high, available),
                    "m_star": size,
                    "low": low,
                    "high": high,
                }
            )
        return pd.DataFrame(rows)

    def _question(self, name: str) -> str:
        options = self.config.measure
        if name in TESTS:
            return f"power {1 - options.beta:g} to tell half of the coefficients from ones larger by {options.shift:g}"
        return {
            "cross_validation": f"test objects at most {options.overfitting:g} nats less likely than train objects",
            "bootstrap": f"{1 - options.alpha:.0%} bootstrap intervals of coefficients narrower than {options.width:g}",
            "apvc": f"posterior variance of all coefficients together at most {options.variance:g}",
            "acc": f"posterior mass within {options.coverage_radius:g} of the estimate at least {1 - options.alpha:g}",
            "alc": f"posterior mass {1 - options.alpha:g} within a radius of at most {options.radius:g}",
            "utility": f"one more object no longer worth {options.cost:g} nats",
            "d": f"variance of the log-likelihood at most {options.part:g} of its value at the first size",
            "m": f"change of the mean log-likelihood by an object at most {options.part:g} of the first one",
            "kl": f"KL to one object more within {options.deviation:.0%} of its last value (it falls like 1/k)",
            "s": f"s-score to one object more within {options.deviation:.0%} of its last value",
        }[name]


def _enough(size: float, low: float, high: float, available: int) -> str:
    """Whether m* is available: yes or no where the whole interval says so."""
    if size <= available and high <= available:
        return YES
    beyond = np.isnan(size) or size > available
    return NO if beyond and low > available else UNSURE


def _draw_row(ax: Axes, place: int, row: object, available: int) -> None:
    colour, marker = LOOKS[row.enough]
    edge = max(available, row.low if np.isfinite(row.low) else 0) * 1.35
    low, high = (value if np.isfinite(value) else edge for value in (row.low, row.high))
    ax.plot([low, high], [place, place], color=colour, linewidth=4, alpha=0.3, solid_capstyle="butt")
    if not np.isfinite(row.high):
        ax.plot([edge], [place], ">", color=colour, markersize=5, alpha=0.6)
    if np.isfinite(row.m_star):
        ax.plot([row.m_star], [place], marker, color=colour, markersize=5)
    ax.annotate(
        row.sufficient, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7, color=colour
    )
