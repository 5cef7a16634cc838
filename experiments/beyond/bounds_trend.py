"""Does the Hessian's norm grow with an architecture as its bound's rate says? Fitted exponents beside each other.

The corollaries read the growth of ‖H_i‖ off the bounds, ‖H_i‖ ∝ L(hM)^{2L} and so on. Here many networks of each size
are drawn and trained, the exact norms of single objects' Hessians averaged, and the slope of their logarithm along an
axis is set beside the slope of the printed bound of the very same networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import title
from landscape_cli.config import bounded
from landscape_cli.experiment import (
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
from landscape_cli.statistics import Interval, equivalence_verdict, log_log_slope, mean_interval, sign_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from experiments.beyond.search import ChainFamily

SAME = 0.2  # share of the bound's slope within which the norm's counts as the same
BATCH, RATE = 32, 5e-3


@dataclass(frozen=True)
class Sweep:
    """One axis, the others fixed."""

    name: str  # in words
    symbol: str
    theorem: str
    values: tuple[int, ...]
    kind: str  # which network is built
    axis: str


FIXED = {
    "connected": {"hidden_size": 8, "layers": 3},
    "convolutional": {"channels": 2, "kernel": 2, "layers": 3},
    "pooled": {"channels": 10, "kernel": 2, "layers": 3},  # as many as classes: C is the same at every position
}
SWEEPS = (
    Sweep("width", "h", "9", (10, 20, 40, 80), "connected", "hidden_size"),  # no narrower than inputs and outputs
    Sweep("matrices", "L", "9", (2, 3, 4, 6), "connected", "layers"),
    Sweep("channels", "C", "13", (1, 2, 4, 8), "convolutional", "channels"),
    Sweep("kernel", "k", "13", (1, 2, 3), "convolutional", "kernel"),
    Sweep("convolutions", "L+1", "13", (2, 3, 4), "convolutional", "layers"),
    Sweep("pooling position", "l", "14", (1, 2), "pooled", "position"),
)


@dataclass
class BoundsTrendOptions:
    """How many networks are averaged over."""

    networks: int = bounded(40, minimum=2)  # of each size
    hessian_samples: int = bounded(16, minimum=1)  # objects of each network
    train_steps: int = bounded(300, minimum=0)


class BoundsTrend(Experiment):
    """Norms and bounds along h, L, C, k and the pooling's position, before and after training."""

    Options = BoundsTrendOptions
    uses = frozenset({"dataset", "seeds"})
    threads = 1

    def points(self) -> list[Point]:
        """One point a sweep and value."""
        name, points = self.config.dataset.name, []
        for sweep in SWEEPS:
            for value in sweep.values:
                settings = self.settings()
                sizes = {**FIXED[sweep.kind], sweep.axis: value}
                settings |= {"seeds": settings["seeds"][:1], "sweep": sweep.name}
                settings |= {"network": {"kind": sweep.kind, **sizes}}
                points.append(Point.of({"dataset": name, "sweep": sweep.name, "value": value}, settings))
        return points

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frame ``norms``: one row a state and network; norms are means over objects."""
        import torch

        from landscape_cli.rng import generator

        data, options = context.images(), point.settings["measure"]
        family = self._family(point, data.x_train.double().cpu(), data.y_train.cpu(), context.source.classes)
        stream = f"{point.stream} {point.settings['network']}"
        count, rows = options["networks"], []
        for state in ("initial", "trained"):
            draw = generator(point.settings["seeds"][0], f"networks {state}", stream)
            training = family.training
            if state == "initial":
                family.training = type(training)(0, training.batch_size, training.learning_rate)
            networks = family.train(count, draw)
            family.training = training
            sums = dict.fromkeys(("hessian", "gauss_newton", "printed"), 0.0)
            with torch.no_grad():
                for _ in context.progress(range(options["hessian_samples"]), desc=state):
                    chosen = torch.randint(len(family.x), (count,), generator=draw)
                    networks |= {"x": family.x[chosen], "y": family.y[chosen]}
                    found = family.norms(networks) | {"printed": family.bounds(networks, tight=False)[0].printed}
                    sums = {name: sums[name] + value for name, value in found.items()}
                rows.append(
                    pd.DataFrame(
                        {
                            "state": state,
                            "network": np.arange(count),
                            **{name: (total / options["hessian_samples"]).numpy() for name, total in sums.items()},
                            "accuracy": family.accuracy(networks).numpy(),
                        }
                    )
                )
        units = dict.fromkeys(("hessian", "gauss_newton", "printed"), "nats per parameter²")
        return Measurement(with_units({"norms": pd.concat(rows, ignore_index=True)}, units))

    def _family(self, point: Point, x: object, y: object, classes: int) -> ChainFamily:
        from torch import nn

        from experiments.beyond.search import ChainFamily, Training, convolutions

        sizes = dict(point.settings["network"])
        kind, shape = sizes.pop("kind"), tuple(x.shape[1:])
        training = Training(point.settings["measure"]["train_steps"], BATCH, RATE)
        if kind == "connected":
            x = nn.functional.adaptive_avg_pool2d(
                x.mean(dim=1, keepdim=True), 2
            )  # four inputs, narrower than any layer
            shape = tuple(x.shape[1:])
            widths = [x[0].numel(), *[sizes["hidden_size"]] * (sizes["layers"] - 1), classes]
            modules: list[nn.Module] = [nn.Flatten()]
            for fan_in, fan_out in itertools.pairwise(widths):
                modules += [nn.Linear(fan_in, fan_out, bias=False), nn.ReLU()]
            return ChainFamily(nn.Sequential(*modules[:-1]), shape, ("9",), (x, y), training)
        pooling = ("max", sizes["position"]) if kind == "pooled" else ()
        net = convolutions(shape, sizes["channels"], sizes["kernel"], sizes["layers"], classes, *pooling)
        return ChainFamily(net, shape, ("14" if pooling else "13",), (x, y), training)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw norm and bound along each axis, each over its own value at the first size."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

        norms = results.frames["norms"]
        drawing, panels = new_figure(2, 3, FULL_WIDTH, 2.5)
        for panel, sweep in zip(panels.ravel(), SWEEPS, strict=True):
            self._panel(panel, norms[norms["sweep"] == sweep.name], sweep)
        for row in panels:
            row[0].set_ylabel("relative to the first size")
        data = title(results, results.points[0].coordinates["dataset"])
        text = f"{data}: growth of the Hessian's norm and of its printed bound"
        titled_legend(drawing, text, panels[0, 0], 3)
        trained = norms[norms["state"] == "trained"]
        note = (
            f"Mean of ‖H_i‖ over {self.config.measure.hessian_samples} objects, geometric mean and 95 % interval over "
            f"{self.config.measure.networks} networks of each size; bound: of the same trained networks. Accuracy of "
            f"trained ones {trained['accuracy'].min():.0%} to {trained['accuracy'].max():.0%}."
        )
        yield Figure(self.config.name, drawing, "Growth of exact norm and printed bound along the architecture.", note)

    def _panel(self, ax: Axes, norms: pd.DataFrame, sweep: Sweep) -> None:
        looks = {
            ("trained", "hessian"): ("#0072b2", "-", "o", r"$\|H_i\|$ trained"),
            ("initial", "hessian"): ("#009e73", (0, (5, 1.5)), "s", r"$\|H_i\|$ initial"),
            ("trained", "printed"): ("#d55e00", (0, (1.2, 1.2)), "X", "bound as printed"),
        }
        for (state, name), (colour, line_style, marker, text) in looks.items():
            own = norms[(norms["state"] == state) & (norms[name] > 0)]
            logs = np.log(own[name]).groupby(own["value"])
            intervals = [mean_interval(values.to_numpy()) for _, values in logs]
            if not intervals:
                continue
            x, first = np.array(list(logs.groups)), intervals[0].mean
            middle, low, high = (
                np.exp([getattr(i, end) - first for i in intervals]) for end in ("mean", "low", "high")
            )
            look = {"color": colour, "linestyle": line_style, "marker": marker, "markersize": 3, "linewidth": 1}
            ax.plot(x, middle, label=text, **look)
            ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.set(xscale="log", yscale="log", xlabel=f"{sweep.name} ${sweep.symbol}$")
        ax.set_xticks(sweep.values, [str(value) for value in sweep.values])
        ax.minorticks_off()
        ax.set_title(f"Theorem {sweep.theorem}", fontsize=7.5)

    def tables(self, results: Results) -> Iterator[Table]:
        """Fitted exponents with intervals, by sweep and state."""
        yield Table(
            self.config.name, exponents(results.frames["norms"]), "Exponents of growth: norm and printed bound."
        )

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test that the norm grows as its bound does, and as fast."""
        table = exponents(results.frames["norms"])
        for row in table[table["state"] == "trained"].itertuples():
            sweep = next(s for s in SWEEPS if s.name == row.sweep)
            interval = Interval(row.norm, row.low, row.high)
            yield Verdict(
                claim=f"the norm grows with {row.sweep}, as the rate of Theorem {row.theorem} does",
                source="thesis 1.3, Corollaries 1 to 3",
                statistic=f"slope of log(mean ‖H_i‖) against log({sweep.symbol})",
                verdict=sign_verdict(interval, 1),
                effect=row.norm,
                low=row.low,
                high=row.high,
                note=f"slope of the printed bound with the networks' own largest weights: {row.bound:.3g}",
            )
            ends = [
                min((1 - SAME) * row.bound, (1 + SAME) * row.bound),
                max((1 - SAME) * row.bound, (1 + SAME) * row.bound),
            ]
            yield Verdict(
                claim=f"the norm is proportional to the bound of Theorem {row.theorem} along {row.sweep}",
                source="thesis 1.3, Corollaries 1 to 3",
                statistic=f"the same slope; to lie in [{ends[0]:.3g}, {ends[1]:.3g}], the bound's within {SAME:.0%}",
                verdict=equivalence_verdict(interval, *ends),
                effect=row.norm,
                low=row.low,
                high=row.high,
            )


def exponents(norms: pd.DataFrame) -> pd.DataFrame:
    """Slopes of logarithms along each sweep: one row a sweep and state, 95 % intervals over networks."""
    rows = []
    for sweep in SWEEPS:
        for state in ("initial", "trained"):
            own = norms[(norms["sweep"] == sweep.name) & (norms["state"] == state)]
            slopes = {}
            for name in ("hessian", "gauss_newton", "printed"):
                table = own.pivot(index="network", columns="value", values=name)
                table = table[(table > 0).all(axis=1)]
                slopes[name] = log_log_slope(table.columns.to_numpy(), table.to_numpy()) if len(table) else np.array([])
            norm, part = mean_interval(slopes["hessian"]), mean_interval(slopes["gauss_newton"])
            rows.append(
                {
                    "sweep": sweep.name,
                    "theorem": sweep.theorem,
                    "state": state,
                    "norm": norm.mean,
                    "low": norm.low,
                    "high": norm.high,
                    "gauss_newton": part.mean,
                    "bound": mean_interval(slopes["printed"]).mean,
                    "networks": len(slopes["hessian"]),
                }
            )
    return pd.DataFrame(rows)
