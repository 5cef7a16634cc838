"""The measurement behind Figs 1.3-1.10: |L_{k+1} - L_k| at θ̂ against the number of objects k, over a grid of nets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.grid import Grid, trained, trained_together
from landscape_cli.config import bounded
from landscape_cli.convergence.laws import power_law, stored_k
from landscape_cli.experiment import Context, Measurement, Point, Results, with_units
from landscape_cli.statistics import log_log_slope, mean_interval

if TYPE_CHECKING:
    from landscape_cli.models import Parameters, StackedModel

TOGETHER = 16  # networks trained at once; a process that is killed loses these
UNITS = {
    "k": "objects",
    "difference": "nats",
    "standard_error": "nats",
    "ema": "nats",
    "closed_form": "nats",
    "mean_loss": "nats",
    "mad": "nats",
}


@dataclass
class LossDifferenceOptions:
    """What is measured at θ̂."""

    permutations: int = bounded(100, minimum=2)  # orderings averaged over, a network
    smoothing: float = bounded(0.99, minimum=0, below=1)  # a of the moving average


class LossDifference(Grid):
    """Train, take one loss an object, follow L_k along random orderings of the same objects.

    At θ = θ̂ the Hessian term of the thesis's bound (1.6) is multiplied by ‖θ - θ*‖² = 0, so this tests the loss term
    alone: over random orderings E|L_{k+1} - L_k| tends to MAD/(k+1), MAD the mean absolute deviation of the losses.
    """

    Options = LossDifferenceOptions
    # Measured on 2 cores, a step of five seeds: 0.7 ms with one thread, 0.5 to 0.7 with two; beside a process 0.6
    # against 1.3 to 4.2.
    threads = 1
    streams = True
    min_objects = 2  # a difference needs a second one

    def together(self, points: Sequence[Point]) -> list[list[Point]]:
        """Fully connected nets on the same objects: they are small, and a step of several takes little longer."""
        groups: dict[str, list[Point]] = {}
        for point in points:
            rest = {name: node for name, node in point.settings.items() if name != "model"}
            small = point.settings["model"]["kind"] in ("mlp", "feedforward")
            label = json.dumps(rest if small else point.settings, sort_keys=True)
            groups.setdefault(label, []).append(point)
        return [
            group[begin : begin + TOGETHER] for group in groups.values() for begin in range(0, len(group), TOGETHER)
        ]

    def measure_together(self, points: Sequence[Point], context: Context) -> list[Measurement]:
        """Train them together; the rest is each one's own."""
        if len(points) == 1:
            return [self.measure(points[0], context)]
        networks = trained_together(points, context)
        return [self._measured(point, context, *network) for point, network in zip(points, networks, strict=True)]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``curves`` (one row a seed and k, see :func:`stored_k`) and ``networks`` (one row a seed)."""
        return self._measured(point, context, *trained(point, context))

    def _measured(self, point: Point, context: Context, model: StackedModel, parameters: Parameters) -> Measurement:
        import torch

        from landscape_cli.convergence.differences import mean_absolute_deviation
        from landscape_cli.convergence.losses import object_losses
        from landscape_cli.convergence.streamed import difference_curve
        from landscape_cli.rng import generator

        settings, data = point.settings, context.images()
        seeds, options = settings["seeds"], settings["measure"]
        train = object_losses(model, parameters, data.x_train, data.y_train)
        test = object_losses(model, parameters, data.x_test, data.y_test) if len(data.x_test) else None
        curves = []
        kept = stored_k(train.losses.shape[1] - 1)
        deviations = mean_absolute_deviation(train.losses)
        for s, seed in enumerate(seeds):
            curve = difference_curve(
                train.losses[s],
                options["permutations"],
                generator(seed, "orderings", point.stream),
                torch.from_numpy(kept),
                options["smoothing"],
            )
            columns = {"difference": curve.mean, "standard_error": curve.standard_error, "ema": curve.average}
            frame = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
            frame["closed_form"] = float(deviations[s]) / (kept + 1)
            frame.insert(0, "k", kept)
            frame.insert(0, "seed", seed)
            curves.append(frame)
        networks = pd.DataFrame(
            {
                "seed": seeds,
                "mean_loss": train.losses.mean(dim=1).cpu().numpy(),
                "mad": deviations.cpu().numpy(),
                "train_accuracy": train.correct.cpu().numpy(),
                "test_accuracy": test.correct.cpu().numpy() if test else np.nan,
                "dead": train.constant.cpu().numpy(),
            }
        )
        frames = {"curves": pd.concat(curves, ignore_index=True), "networks": networks}
        return Measurement(with_units(frames, UNITS), parameters=parameters)


def alive(results: Results) -> pd.DataFrame:
    """The curves of the networks that did not die."""
    curves, networks = results.frames["curves"], results.frames["networks"]
    keys = [column for column in networks.columns if column in curves.columns]
    keep = np.ones(len(curves), dtype=bool)
    for _, dead in networks.loc[networks["dead"], keys].iterrows():
        keep &= ~np.logical_and.reduce([curves[key] == dead[key] for key in keys])
    return curves[keep]


def dead_networks(results: Results, symbols: Mapping[str, str]) -> list[str]:
    """Name the networks whose ReLUs all died: ``"MNIST h=4, L=5: seeds 2, 3"``.

    Parameters
    ----------
    symbols
        Axis -> the symbol that the figure gives it.
    """
    networks = results.frames["networks"]
    axes = [axis for axis in symbols if axis in networks]
    named = []
    for (dataset, *values), group in networks[networks["dead"]].groupby(["dataset", *axes], sort=False):
        point = ", ".join(f"{symbols[axis]}={value}" for axis, value in zip(axes, values, strict=True))
        seeds = ", ".join(map(str, group["seed"]))
        where = f"{title(results, dataset)} {point}".rstrip()
        named.append(f"{where}: seed{'s' if len(group) > 1 else ''} {seeds}")
    return named


def title(results: Results, dataset: str) -> str:
    """Name a data set as the thesis does."""
    return results.sources[dataset].title if dataset in results.sources else dataset


def end_values(curves: pd.DataFrame, axes: list[str], published_k: int | None = None) -> pd.DataFrame:
    """Moving average at the end of each data set's curves (or at `published_k`): one row a network."""
    k = published_k or curves.groupby("dataset")["k"].transform("max")
    return curves[curves["k"] == k][["dataset", *axes, "seed", "k", "ema", "closed_form"]].reset_index(drop=True)


def trend_slopes(ends: pd.DataFrame, axis: str) -> np.ndarray:
    """Slope of log(end value) against log(axis), one a seed; a seed with fewer than two living networks has none."""
    slopes = []
    for _, group in ends.groupby("seed"):
        if group[axis].nunique() >= 2:
            slopes.append(float(log_log_slope(group[axis].to_numpy(), group["ema"].to_numpy())))
    return np.array(slopes)


def decay_slopes(curves: pd.DataFrame, axes: list[str]) -> np.ndarray:
    """Slope of log d̄_k against log k over the last decade of k, the mean over networks, one a seed.

    See :func:`~landscape_cli.convergence.laws.power_law`.
    """
    slopes, last = [], int(curves["k"].max())
    for _, seed in curves.groupby("seed"):
        laws = [
            power_law(g["k"].to_numpy(), g["difference"].to_numpy(), last) for _, g in seed.groupby(["dataset", *axes])
        ]
        slopes.append(-float(np.mean([law.exponent for law in laws])))
    return np.array(slopes)


def summarise_ends(ends: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """Mean over seeds of the end values, with 95 % intervals: one row a point."""
    rows = []
    for values, group in ends.groupby(["dataset", *axes], sort=False):
        interval = mean_interval(group["ema"])
        rows.append(
            {
                **dict(zip(["dataset", *axes], values, strict=True)),
                "k": int(group["k"].iloc[0]),
                "ema": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "closed_form": group["closed_form"].mean(),
                "networks": len(group),
            }
        )
    columns = ["dataset", *axes, "k", "ema", "low", "high", "closed_form", "networks"]
    return pd.DataFrame(rows, columns=columns)
