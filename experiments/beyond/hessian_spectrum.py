"""Bulk and outliers of the Hessian, of its Gauss-Newton part and of the rest: what stands behind H ≈ H_O (2.1.1)."""

from __future__ import annotations

import math
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
from landscape_cli.statistics import equivalence_verdict, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVATURE = "nats per parameter²"
UNITS = {
    **{"mean_loss": "nats", "density": f"1/({CURVATURE})", "standard_error": f"1/({CURVATURE})"},
    **dict.fromkeys(("eigenvalue", "node", "value", "residual"), CURVATURE),
    **dict.fromkeys(("hessian_norm", "gauss_newton_norm", "rest_norm"), CURVATURE),
    **dict.fromkeys(("hessian_residual", "gauss_newton_residual", "rest_residual"), CURVATURE),
}
PARTS = {"hessian": "$H$", "gauss_newton": "$H_O$", "rest": "$H-H_O$"}
LOOKS = {"hessian": ("#0072b2", "-"), "gauss_newton": ("#d55e00", (0, (5, 1.2))), "rest": ("0.35", (0, (1.2, 1.2)))}
CLOSE = 0.1  # relative spectral error up to which H_O counts as H
NEAR_ZERO = 0.05  # |λ| over ‖H‖₂ up to which an eigenvalue belongs to the bulk
WIDTHS = 150  # of the Gaussian that smooths a density, over the axis
BULK = 0.9  # share of the eigenvalues that the bulk is to hold


@dataclass
class SpectrumOptions:
    """What is measured of the spectra."""

    hessian_objects: int = bounded(1000, minimum=1)  # the first so many train objects
    eigenvalues: int = bounded(12, minimum=1)  # largest ones of H and H_O: outliers are one fewer than classes
    probes: int = bounded(8, minimum=2)  # of the density
    steps: int = bounded(80, minimum=2)  # Lanczos steps of the density
    tolerance: float = bounded(1e-3, above=0, below=1)  # of eigenvalues, relative to the largest


class HessianSpectrum(Experiment):
    """Spectra before and after training."""

    Options = SpectrumOptions
    threads = 1  # beside another process two threads take four times as long
    uses = frozenset({"dataset", "model", "training", "seeds"})

    def points(self) -> list[Point]:
        """One point a seed."""
        first, name = self.config.seed, self.config.dataset.name
        return [
            Point.of({"dataset": name, "seed": seed}, {**self.settings(), "seeds": [seed]})
            for seed in range(first, first + self.config.seeds)
        ]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``density`` (a state, part and λ), ``nodes`` (its Ritz values), ``eigenvalues``, ``summary``."""
        from landscape_cli.convergence.losses import object_losses
        from landscape_cli.curvature import (
            GaussNewton,
            Hessian,
            Objective,
            Rest,
            spectral_density,
            spectral_norm,
            top_eigenpairs,
        )
        from landscape_cli.models import build_model
        from landscape_cli.rng import generator
        from landscape_cli.training import fit

        settings, data = point.settings, context.images()
        options, seeds = settings["measure"], settings["seeds"]
        model = build_model(settings["model"], data.shape, data.source.classes)
        x, y = data.x_train, data.y_train
        start = model.initialise([generator(seed, "initialisation", point.stream) for seed in seeds])
        start = {name: tensor.to(x.device) for name, tensor in start.items()}
        trained = fit(model, x, y, seeds=seeds, stream=point.stream, progress=context.progress, **settings["training"])
        size = min(options["hessian_objects"], len(x))
        density, nodes, eigenvalues, summary = [], [], [], []
        for state, parameters in context.progress({"initial": start, "trained": trained}.items(), desc="spectra"):
            objective = Objective(model.module(parameters, 0), x[:size], y[:size])
            operators = {"hessian": Hessian(objective), "gauss_newton": GaussNewton(objective), "rest": Rest(objective)}
            losses = object_losses(model, parameters, x, y)
            row = {
                "state": state,
                "parameters": objective.size,
                "hessian_objects": size,
                "mean_loss": float(losses.losses.mean()),
                "train_accuracy": float(losses.correct),
            }
            for part, operator in operators.items():
                operator.verify()
                norm, residual = spectral_norm(operator, options["tolerance"])
                row |= {f"{part}_norm": norm, f"{part}_residual": residual}
            high = 1.05 * max(row["hessian_norm"], row["gauss_newton_norm"]) or 1.0
            low = -(1.3 * row["rest_norm"] + 0.05 * high)  # no eigenvalue of H is below the least of H - H_O
            for part, operator in operators.items():
                if part != "rest":
                    many = min(options["eigenvalues"], objective.size)
                    top = top_eigenpairs(operator, many, "largest", options["tolerance"])
                    ranks = {"state": state, "part": part, "rank": np.arange(1, many + 1)}
                    eigenvalues.append(pd.DataFrame({**ranks, "value": top.values, "residual": top.residuals}))
                probes = generator(seeds[0], f"probes {part}", point.stream)
                grid, width = np.linspace(low, high, 1001), (high - low) / WIDTHS
                found = spectral_density(operator, options["probes"], options["steps"], probes, grid, width)
                curve = {"eigenvalue": found.grid, "density": found.density, "standard_error": found.standard_error}
                density.append(pd.DataFrame({"state": state, "part": part, **curve}))
                ritz = {"node": found.nodes.ravel(), "weight": found.weights.ravel() / len(found.nodes)}
                nodes.append(pd.DataFrame({"state": state, "part": part, **ritz}))
            summary.append(row)
        frames = {
            "density": pd.concat(density, ignore_index=True),
            "nodes": pd.concat(nodes, ignore_index=True),
            "eigenvalues": pd.concat(eigenvalues, ignore_index=True),
            "summary": pd.DataFrame(summary),
        }
        return Measurement(with_units(frames, UNITS), parameters=trained)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the densities before and after training, outliers marked; the first seed's."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure

        summary = results.frames["summary"]
        seed = summary["seed"].min()
        drawing, axes = new_figure(1, 2, FULL_WIDTH, 3.0)
        for ax, state in zip(axes[0], ("initial", "trained"), strict=True):
            self._panel(ax, results, seed, state)
        axes[0, 0].set_ylabel("density of eigenvalues, parameter²/nats")
        axes[0, 0].legend(loc="upper right", fontsize=6.5)
        data = title(results, results.points[0].coordinates["dataset"])
        parameters, size = int(summary["parameters"].iloc[0]), int(summary["hessian_objects"].iloc[0])
        drawing.suptitle(f"{data}, $P={parameters}$: spectrum on {size} train objects", fontsize=8.5)
        measure = self.config.measure
        note = (
            f"Stochastic Lanczos quadrature, {measure.probes} probes of {measure.steps} steps, smoothed by a "
            f"Gaussian of 1/{WIDTHS} of the axis; bands: one standard error. Ticks: the {measure.eigenvalues} largest "
            f"eigenvalues of H and of its Gauss-Newton part. Seed {seed}."
        )
        caption = "Spectral density of the Hessian, of its Gauss-Newton part and of their difference."
        yield Figure(self.config.name, drawing, caption, note)

    def tables(self, results: Results) -> Iterator[Table]:
        """Norms of the three, and their ratio, by seed and state."""
        summary = results.frames["summary"]
        summary = summary.assign(relative_error=summary["rest_norm"] / summary["hessian_norm"])
        yield Table(self.config.name, summary, "Spectral norms of H, H_O and H - H_O.")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test H ≈ H_O and what the thesis says of bulk and outliers, before and after training."""
        summary, values = results.frames["summary"], results.frames["eigenvalues"]
        nodes = results.frames["nodes"]
        outliers = min(self._classes(results) - 1, int(values["rank"].max()))
        for state in ("initial", "trained"):
            own = summary[(summary["state"] == state) & (summary["hessian_norm"] > 0)].set_index("seed")
            living = values[(values["state"] == state) & values["seed"].isin(own.index)]
            yield _within(
                f"{state}: the Hessian is approximated by its G component, H ≈ H_O",
                "‖H - H_O‖₂/‖H‖₂",
                own["rest_norm"] / own["hessian_norm"],
                high=CLOSE,
            )
            table = living[living["rank"] <= outliers].pivot(index=["seed", "rank"], columns="part", values="value")
            difference = ((table["hessian"] - table["gauss_newton"]).abs() / table["hessian"].abs()).groupby("seed")
            yield _within(
                f"{state}: the outliers come from the G component",
                f"mean |λ(H) - λ(H_O)|/λ(H) of the {outliers} largest",
                difference.mean(),
                high=CLOSE,
            )
            ritz = nodes[(nodes["state"] == state) & (nodes["part"] == "hessian") & nodes["seed"].isin(own.index)]
            ritz = ritz.set_index("seed")
            inside = ritz["node"].abs() <= NEAR_ZERO * own["hessian_norm"].reindex(ritz.index)
            yield _within(
                f"{state}: most eigenvalues are concentrated near zero",
                f"share of eigenvalues with |λ| <= {NEAR_ZERO:g} ‖H‖₂",
                (ritz["weight"] * inside).groupby("seed").sum(),
                low=BULK,
            )
            last = table["hessian"].xs(outliers, level="rank")
            yield _within(
                f"{state}: the rest makes the bulk and no outlier",
                f"‖H - H_O‖₂ over the {outliers}th eigenvalue of H",
                own["rest_norm"] / last,
                high=1,
            )

    def _classes(self, results: Results) -> int:
        source = results.sources.get(results.points[0].coordinates["dataset"])
        return source.classes if source else 10

    def _panel(self, ax: Axes, results: Results, seed: int, state: str) -> None:
        def own(name: str) -> pd.DataFrame:
            frame = results.frames[name]
            return frame[(frame["seed"] == seed) & (frame["state"] == state)]

        density, values = own("density"), own("eigenvalues")
        row = own("summary").iloc[0]
        floor = 1e-2 / row["parameters"] / max(row["hessian_norm"], 1e-12)
        for height, (part, text) in enumerate(PARTS.items()):
            colour, line_style = LOOKS[part]
            curve = density[density["part"] == part]
            x, y, error = (curve[name].to_numpy() for name in ("eigenvalue", "density", "standard_error"))
            ax.plot(x, np.where(y > floor, y, np.nan), color=colour, linestyle=line_style, linewidth=1, label=text)
            below, above = np.maximum(y - error, floor), np.maximum(y + error, floor)
            ax.fill_between(x, below, above, where=y > floor, color=colour, alpha=0.15, lw=0)
            top = values.loc[values["part"] == part, "value"]
            marks, along = np.full(len(top), 0.02 + 0.035 * height), ax.get_xaxis_transform()
            ax.plot(top, marks, "|", color=colour, markersize=4, markeredgewidth=0.6, transform=along)
        ax.set_yscale("log")
        ax.set_ylim(floor / 30, None)
        ax.set_xlabel(r"eigenvalue $\lambda$, nats per parameter²")
        text = f"{state}: train accuracy {row['train_accuracy']:.0%}"
        if row["hessian_norm"]:
            text += rf", $\|H-H_O\|/\|H\|={row['rest_norm'] / row['hessian_norm']:.2g}$"
        ax.set_title(text if row["hessian_norm"] else f"{text}, dead: $H=0$", fontsize=8)


def _within(claim: str, statistic: str, values: pd.Series, low: float = -math.inf, high: float = math.inf) -> Verdict:
    interval = mean_interval(values.to_numpy())
    wanted = f"at most {high:g}" if math.isfinite(high) else f"at least {low:g}"
    return Verdict(
        claim=claim,
        source="thesis 2.1.1",
        statistic=f"{statistic}; to be {wanted}",
        verdict=equivalence_verdict(interval, low, high),
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
    )
