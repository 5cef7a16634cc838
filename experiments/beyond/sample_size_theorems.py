"""Theorems 27 to 30: do neighbouring posteriors come together? Counterexamples, and what holds for linear regression.

Theorems 27 to 29 ask that means and covariances of neighbouring posteriors come together; posteriors shrink meanwhile,
so that is not enough. Under Theorem 30's hypotheses KL(k) has a closed form and does tend to 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from landscape_cli.config import bounded
from landscape_cli.experiment import (
    NOT_REPRODUCED,
    Context,
    Experiment,
    Figure,
    Measurement,
    Point,
    Results,
    Table,
    Verdict,
    with_units,
)
from landscape_cli.statistics import log_log_slope, mean_interval, sign_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANK = 1e-6  # below, a least eigenvalue is that of fewer objects than features
NAMES = {
    "27": r"Theorem 27: $m_k=\sqrt{k}$, $\Sigma_k=0$",
    "28, 29": r"Theorems 28, 29: $\Sigma_k=1/k$, $m_{k+1}-m_k=k^{-1/2}$",
    "30": "Theorem 30: linear regression",
}


@dataclass
class SampleSizeTheoremsOptions:
    """How long the sequences are."""

    objects: int = bounded(10000, minimum=10)  # k runs up to it
    features: int = bounded(5, minimum=1)  # of the regression
    precision: float = bounded(1.0, above=0)  # α of the prior
    noise: float = bounded(1.0, above=0)  # σ²


class SampleSizeTheorems(Experiment):
    """Sequences of Gaussian posteriors, in closed form and of bounded random designs; no data is needed."""

    Options = SampleSizeTheoremsOptions
    uses = frozenset({"seeds"})

    def points(self) -> list[Point]:
        """One point."""
        return [Point.of({"prior": "normal"}, self.settings())]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``sequences`` (a theorem and k) and ``regression`` (a seed and k)."""
        from landscape_cli.bounds.sample_size import Posterior, drifting_means, shrinking_posteriors

        options = point.settings["measure"]
        k = np.unique(np.geomspace(1, options["objects"], 200).astype(int))
        kl, score = shrinking_posteriors(k)
        sequences = pd.concat(
            [
                pd.DataFrame(
                    {"theorem": "27", "k": k, "M": drifting_means(k), "mean_step": np.sqrt(k + 1) - np.sqrt(k)}
                ),
                pd.DataFrame(
                    {
                        **{"theorem": "28, 29", "k": k, "KL": kl, "S": score, "mean_step": k**-0.5},
                        "covariance_step": 1 / (k * (k + 1)),
                    }
                ),
            ],
            ignore_index=True,
        )
        regressions = []
        for seed in point.settings["seeds"]:
            random = np.random.default_rng([seed, options["features"]])
            posterior = Posterior(options["features"], options["precision"], options["noise"])
            truth, gram, rows = random.uniform(-1, 1, options["features"]), 0.0, []
            for number in range(1, options["objects"] + 1):
                x = random.uniform(-1, 1, options["features"])
                y = float(x @ truth + random.uniform(-1, 1))
                step = posterior.add(x, y)
                gram = gram + np.outer(x, x)
                if number in k:
                    least = np.linalg.eigvalsh(gram)[0]
                    rows.append((number, step.kl, step.s_score, step.mean, step.covariance, least))
            columns = ["k", "KL", "S", "mean_step", "covariance_step", "least_eigenvalue"]
            regressions.append(pd.DataFrame(rows, columns=columns).assign(seed=seed))
        frames = {"sequences": sequences, "regression": pd.concat(regressions, ignore_index=True)}
        return Measurement(with_units(frames, {"M": "nats", "KL": "nats"}))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw each theorem's hypotheses and its conclusion."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure

        sequences, regression = results.frames["sequences"], results.frames["regression"]
        drawing, ((first, second, third),) = new_figure(1, 3, FULL_WIDTH, 3.0)
        own = sequences[sequences["theorem"] == "27"]
        self._draw(first, own["k"], {"mean_step": own["mean_step"], "M": own["M"]})
        own = sequences[sequences["theorem"] == "28, 29"]
        parts = {name: own[name] for name in ("mean_step", "covariance_step", "KL")}
        self._draw(second, own["k"], parts | {"1 - S": 1 - own["S"]})
        means = regression.groupby("k").mean(numeric_only=True)
        parts = {name: means[name] for name in ("mean_step", "covariance_step", "KL")}
        self._draw(
            third,
            means.index,
            parts
            | {
                "1 - S": 1 - means["S"],
                "root": np.sqrt(means.index) / means["least_eigenvalue"].where(means["least_eigenvalue"] > RANK),
            },
        )
        for ax, text in zip((first, second, third), NAMES.values(), strict=True):
            ax.set_title(text, fontsize=7.5)
            ax.set_xlabel("number of objects $k$")
            ax.legend(loc="lower left", fontsize=6.5, handlelength=3)
        drawing.suptitle("What the theorems ask (thin) and what they promise (thick)", fontsize=8.5)
        note = (
            f"Left and middle: counterexamples in closed form. Right: mean over {regression['seed'].nunique()} designs "
            f"of {self.config.measure.features} bounded features."
        )
        yield Figure(self.config.name, drawing, "Theorems 27 to 30: neighbouring posteriors as data grows.", note)

    def _draw(self, ax: Axes, k: object, parts: dict[str, pd.Series]) -> None:
        looks = {
            "mean_step": ("0.5", "-", 0.7, r"$\|m_{k+1}-m_k\|$"),
            "covariance_step": ("0.5", (0, (4, 1.5)), 0.7, r"$\|\Sigma_{k+1}-\Sigma_k\|_F$"),
            "root": ("0.5", (0, (1, 1)), 0.7, r"$\sqrt{k}/\lambda_{\min}$"),
            "M": ("#d55e00", "-", 1.6, "$M(k)$"),
            "KL": ("#d55e00", "-", 1.6, "$KL(k)$"),
            "1 - S": ("#0072b2", (0, (5, 1.5)), 1.6, "$1-S(k)$"),
        }
        for name, values in parts.items():
            colour, line_style, width, text = looks[name]
            ax.plot(k, values, color=colour, linestyle=line_style, linewidth=width, label=text)
        ax.set(xscale="log", yscale="log")

    def tables(self, results: Results) -> Iterator[Table]:
        """Values at the last k."""
        sequences, regression = results.frames["sequences"], results.frames["regression"]
        rows = sequences[sequences["k"] == sequences["k"].max()].to_dict("records")
        last = regression[regression["k"] == regression["k"].max()].mean(numeric_only=True).drop("seed")
        rows.append({"theorem": "30", **last.to_dict()})
        yield Table(self.config.name, pd.DataFrame(rows), "Neighbouring posteriors at the last number of objects.")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Judge the theorems: a counterexample's limit away from 0, and the decay of regression's KL and 1 - S."""
        sequences, regression = results.frames["sequences"], results.frames["regression"]
        last = sequences[sequences["k"] == sequences["k"].max()].set_index("theorem")
        for theorem, column, key, limit, text in (
            ("27", "M", "27", 0.0, "M(k) -> 0"),
            ("28", "KL", "28, 29", 0.0, "KL(k) -> 0"),
            ("29", "S", "28, 29", 1.0, "S(k) -> 1"),
        ):
            value = float(last.loc[key, column])
            yield Verdict(
                claim=f"Theorem {theorem}, as printed: {text}",
                source=f"thesis, Theorem {theorem}",
                statistic=f"{column}(k) at k = {int(last.loc[key, 'k'])} of a sequence that meets the hypotheses",
                verdict=NOT_REPRODUCED if abs(value - limit) > 0.1 else "inconclusive",
                effect=value,
                low=value,
                high=value,
                note=f"counterexample: {NAMES[key].partition(': ')[2]}; a deterministic sequence",
            )
        late = regression[regression["k"] >= regression["k"].max() / 30]
        steps = (("‖m_(k+1) - m_k‖ -> 0", late["mean_step"]), ("‖Σ_(k+1) - Σ_k‖ -> 0", late["covariance_step"]))
        for text, values in (*steps, ("KL(k) -> 0", late["KL"]), ("S(k) -> 1", 1 - late["S"])):
            slopes = [
                float(log_log_slope(g["k"].to_numpy(), values[g.index].to_numpy())) for _, g in late.groupby("seed")
            ]
            interval = mean_interval(slopes)
            yield Verdict(
                claim=f"Theorem 30: {text} for linear regression with bounded features",
                source="thesis, Theorem 30",
                statistic="slope of its logarithm against log k over the last k; to be negative",
                verdict=sign_verdict(interval, -1),
                effect=interval.mean,
                low=interval.low,
                high=interval.high,
            )
