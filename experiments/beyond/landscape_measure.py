"""The landscape measure of trained networks (Definition 10) along the axes of chapter 1, beside the corollaries' rates.

The thesis defines μ_f(f|D) = mean_i ‖H_i(θ*) - H̄(θ*)‖₂, gives its growth with the architecture (Corollaries 1 to 3)
and never measures it. Here D is the first objects of the train set, θ* the parameters after training on all of it, and
the norms are those of objects sampled from D.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import title
from experiments.chapter1.sweep import label
from experiments.grid import Grid, trained
from landscape_cli.config import bounded
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.geometry import Shape
from landscape_cli.statistics import equivalence_verdict, log_log_slope, mean_interval, sign_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {
    "mean_loss": "nats",
    **dict.fromkeys(
        ("measure", "standard_error", "maximum", "mean_hessian", "residual", "norm"), "nats per parameter²"
    ),
}
SYMBOLS = {
    "hidden_size": "h",
    "num_layers": "L",
    "kernel_size": "k_{conv}",
    "channels": "C",
    "num_heads": "n_{heads}",
    "patch_size": "p",
}
# Kind of network -> the corollary and its rate as printed, M the largest |parameter|.
COROLLARIES = {
    "mlp": ("Corollary 1", r"$L(hM)^{2L}$"),
    "conv1d": ("Corollary 2", r"$L(C^2M^2kd)^L$"),
    "conv2d": ("Corollary 3", r"$C^2k^2L(C^2k^2M^2mn)^L$"),
}
BLOCK = ("thesis 2.3.5, Theorem 26", "beyond the thesis, whose blocks have one head")
PROPORTIONAL = (0.8, 1.2)  # slope of log μ_f against log rate, within which they count as proportional


@dataclass
class LandscapeMeasureOptions:
    """What is measured at θ*."""

    hessian_objects: int = bounded(200, minimum=2)  # N: the first so many train objects, over which H̄ is the mean
    hessian_samples: int = bounded(50, minimum=2)  # of them, whose own Hessians are compared with H̄
    tolerance: float = bounded(1e-2, above=0, below=1)  # residual of a norm, relative to it


class LandscapeMeasureSweep(Grid):
    """Trains networks along the grid's axes and measures μ_f of each."""

    Options = LandscapeMeasureOptions
    threads = 1  # beside another process two threads take four times as long
    min_objects = 2

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``networks`` (a row a seed) and ``norms`` (a row a seed and sampled object)."""
        import torch

        from landscape_cli.convergence.losses import object_losses
        from landscape_cli.curvature import Hessian, Objective, landscape_measure, spectral_norm
        from landscape_cli.rng import generator

        settings, data = point.settings, context.images()
        seeds, options = settings["seeds"], settings["measure"]
        model, parameters = trained(point, context)
        x, y = data.x_train, data.y_train
        losses = object_losses(model, parameters, x, y)
        size = min(options["hessian_objects"], len(x))
        networks, norms = [], []
        for s, seed in enumerate(context.progress(seeds, desc="landscape measure")):
            objective = Objective(model.module(parameters, s), x[:size], y[:size])
            hessian = Hessian(objective)
            hessian.verify()
            order = torch.randperm(size, generator=generator(seed, "sampled objects", point.stream))
            found = landscape_measure(objective, order[: options["hessian_samples"]], options["tolerance"])
            mean, residual = spectral_norm(hessian, options["tolerance"])
            largest = max(float(tensor.abs().max()) for tensor in objective.parameters.values())
            networks.append(
                {
                    "seed": seed,
                    "parameters": objective.size,
                    "measure": found.mean,
                    "standard_error": found.standard_error,
                    "maximum": found.maximum,
                    "mean_hessian": mean,
                    "residual": max(residual, float(found.residuals.max())),
                    "log10_rate": log10_rate(settings["model"], data.shape, largest),
                    "largest_parameter": largest,
                    "hessian_objects": size,
                    "samples": len(found.norms),
                    "mean_loss": float(losses.losses[s].mean()),
                    "train_accuracy": float(losses.correct[s]),
                    "dead": bool(losses.constant[s]),
                }
            )
            columns = {"seed": seed, "object": found.sampled.cpu(), "norm": found.norms.cpu()}
            norms.append(pd.DataFrame(columns))
        frames = {"networks": pd.DataFrame(networks), "norms": pd.concat(norms, ignore_index=True)}
        return Measurement(with_units(frames, UNITS), parameters=parameters)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw μ_f above and the corollary's rate below, one column an axis; one figure a data set."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

        networks, axes = _living(results), self.axes
        corollary = COROLLARIES.get(self.config.model.kind)
        datasets = list(networks["dataset"].unique())
        for dataset in datasets:
            rows = 2 if corollary else 1
            drawing, panels = new_figure(rows, len(axes), FULL_WIDTH, 2.3 if rows > 1 else 3.0)
            for column, axis in enumerate(axes):
                own = self._along(networks, dataset, axis)
                self._panel(panels[0, column], own, axis)
                panels[0, column].set_title(self._title(axis), fontsize=8)
                if corollary:
                    self._rate_panel(panels[1, column], own, axis)
                for panel in panels[:, column]:
                    panel.set_xscale("log")
                    values = sorted(own[axis].unique())
                    panel.set_xticks(values, [str(value) for value in values])
                    panel.minorticks_off()
                panels[-1, column].set_xlabel(f"{label(axis)} ${SYMBOLS.get(axis, axis)}$")
            panels[0, 0].set_ylabel("nats per parameter²")
            heights = [panel.get_ylim() for panel in panels[0]]
            for panel in panels[0]:
                panel.set_ylim(min(low for low, _ in heights), max(high for _, high in heights))
            if corollary:
                panels[1, 0].set_ylabel(f"{corollary[0]}:\n$\\log_{{10}}$ of {corollary[1]}")
            titled_legend(drawing, f"{title(results, dataset)}: landscape measure $\\mu_f(f|D)$", panels[0, 0], 3)
            caption = "Landscape measure of trained networks, and the growth that the thesis's corollary gives it."
            name = self.config.name + (f"_{dataset}" if len(datasets) > 1 else "")
            yield Figure(name, drawing, caption, self._note(results))

    def tables(self, results: Results) -> Iterator[Table]:
        """One row a network of the grid, means over seeds with 95 % intervals."""
        rows = []
        for values, group in _living(results).groupby(["dataset", *self.axes], sort=False):
            interval = mean_interval(group["measure"])
            rows.append(
                {
                    **dict(zip(["dataset", *self.axes], values, strict=True)),
                    "parameters": int(group["parameters"].iloc[0]),
                    "measure": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "maximum": group["maximum"].max(),
                    "mean_hessian": group["mean_hessian"].mean(),
                    "log10_rate": group["log10_rate"].mean(),
                    "mean_loss": group["mean_loss"].mean(),
                    "train_accuracy": group["train_accuracy"].mean(),
                    "networks": len(group),
                }
            )
        caption = "Landscape measure of trained networks: mean over seeds and 95 % interval."
        yield Table(self.config.name, pd.DataFrame(rows), caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test that μ_f grows along every axis and that it is proportional to the corollary's rate."""
        networks = _living(results)
        corollary = COROLLARIES.get(self.config.model.kind)
        several = networks["dataset"].nunique() > 1
        for dataset in networks["dataset"].unique():
            prefix = f"{dataset}: " if several else ""
            for axis in self.axes:
                own = self._along(networks, dataset, axis)
                slopes = [
                    float(log_log_slope(g[axis].to_numpy(), g["measure"].to_numpy()))
                    for _, g in own.groupby("seed")
                    if g[axis].nunique() >= 2
                ]
                if not slopes:
                    continue
                slope = mean_interval(slopes)
                yield Verdict(
                    claim=f"{prefix}the landscape measure grows with {label(axis)}",
                    source=f"thesis 1.3, {corollary[0]}" if corollary else BLOCK[axis == "num_heads"],
                    statistic=f"slope of log(μ_f) against log({SYMBOLS.get(axis, axis)})",
                    verdict=sign_verdict(slope, 1),
                    effect=slope.mean,
                    low=slope.low,
                    high=slope.high,
                    note="the sentence is about a bound; the measure itself need not follow it",
                )
            if corollary:
                yield from self._proportional(networks[networks["dataset"] == dataset], prefix, corollary)

    def _proportional(self, own: pd.DataFrame, prefix: str, corollary: tuple[str, str]) -> Iterator[Verdict]:
        slopes = []
        for _, group in own.groupby("seed"):
            rate = group["log10_rate"].to_numpy()
            if len(group) >= 3 and np.ptp(rate) > 0:
                slopes.append(np.polyfit(rate, np.log10(group["measure"].to_numpy()), 1)[0])
        if not slopes:
            return
        slope = mean_interval(slopes)
        yield Verdict(
            claim=f"{prefix}the landscape measure has the asymptotics of {corollary[0]}",
            source=f"thesis 1.3, {corollary[0]}",
            statistic=f"slope of log(μ_f) against log(rate) over all networks; to lie in {list(PROPORTIONAL)}",
            verdict=equivalence_verdict(slope, *PROPORTIONAL),
            effect=slope.mean,
            low=slope.low,
            high=slope.high,
            note="rate with M the largest |parameter| of each network and its own sizes",
        )

    def _along(self, networks: pd.DataFrame, dataset: str, axis: str) -> pd.DataFrame:
        keep = networks["dataset"] == dataset
        for other in self.axes:
            if other != axis:
                keep &= networks[other] == self.fixed(other)
        return networks[keep]

    def _title(self, axis: str) -> str:
        fixed = ", ".join(f"${SYMBOLS.get(o, o)}={self.fixed(o)}$" for o in self.axes if o != axis)
        return f"{label(axis)}, at {fixed}" if fixed else label(axis)

    def _panel(self, ax: Axes, own: pd.DataFrame, axis: str) -> None:
        from landscape_cli.plotting.curves import band
        from landscape_cli.plotting.style import ordered_colours

        dark, middle, bright = ordered_colours(3)
        looks = {
            "measure": (dark, "-", r"$\mu_f$, mean over objects"),
            "maximum": (middle, (0, (5, 1.2)), r"largest $\|H_i-\bar H\|_2$ of the sample"),
            "mean_hessian": (bright, (0, (1.2, 1.2)), r"$\|\bar H\|_2$"),
        }
        for column, (colour, line_style, text) in looks.items():
            table = own.pivot(index="seed", columns=axis, values=column)
            look = {"linestyle": line_style, "marker": "o", "markersize": 2.5, "label": text}
            band(ax, table.columns.to_numpy(), table.to_numpy(), colour, **look)
        ax.set_yscale("log")

    def _rate_panel(self, ax: Axes, own: pd.DataFrame, axis: str) -> None:
        from landscape_cli.plotting.curves import band

        table = own.pivot(index="seed", columns=axis, values="log10_rate")
        band(ax, table.columns.to_numpy(), table.to_numpy(), "0.35", marker="o", markersize=2.5)

    def _note(self, results: Results) -> str:
        networks = results.frames["networks"]
        dead = networks[networks["dead"]]
        left = f" {len(dead)} networks of {len(networks)} died and are left out." if len(dead) else ""
        size, samples = int(networks["hessian_objects"].max()), int(networks["samples"].max())
        return (
            f"H̄: mean over the first {size} train objects; {samples} of them sampled. Lines and bands: mean and range "
            f"over seeds. Train accuracy {networks['train_accuracy'].min():.0%} to "
            f"{networks['train_accuracy'].max():.0%}.{left}"
        )


def log10_rate(model: Mapping[str, Any], shape: Shape, largest: float) -> float:
    """Decimal logarithm of the growth that the corollaries give μ_f; NaN where the thesis gives none.

    Parameters
    ----------
    model
        The ``model`` node of a point's settings.
    shape
        (C, H, W) of one object.
    largest
        M, the largest |parameter|.
    """
    log = math.log10
    if model["kind"] == "mlp":
        layers = model["num_layers"] + 2  # the theorems count all matrices
        return log(layers) + 2 * layers * log(model["hidden_size"] * largest)
    if model["kind"] == "conv1d":
        c, k, layers = model["channels"], model["kernel_size"], model["num_layers"]
        return log(layers) + layers * log(c**2 * largest**2 * k * shape[1])
    if model["kind"] == "conv2d":
        c, k, layers = model["channels"], model["kernel_size"], model["num_layers"]
        return log(c**2 * k**2 * layers) + layers * log(c**2 * k**2 * largest**2 * shape[1] * shape[2])
    return math.nan


def _living(results: Results) -> pd.DataFrame:
    networks = results.frames["networks"]
    return networks[~networks["dead"]]
