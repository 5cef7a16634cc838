"""Away from the minimum: |L_{k+1}(θ) - L_k(θ)| at θ = θ̂ + r u, where the Hessian term of the bounds counts.

At θ̂ itself the published curves test the loss term alone. Here u are random unit directions and r grows. Beside the
exact curves stand the prediction to second order, from ℓ_i(θ̂), uᵀ∇ℓ_i and uᵀH_i u of every object, its quadratic term
½r²|uᵀ(H_{k+1} - H^(k))u|/(k+1), and the bound (1.5): the curve at θ̂ and r²‖H_{k+1} - H^(k)‖/(k+1) with that norm at its
limit, the landscape measure μ_f, as printed and with the ½ of the Taylor term (1.4). (1.6) has M_ℓ for the curve at θ̂.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import title
from experiments.grid import Grid, trained
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.statistics import equivalence_verdict, log_log_slope, mean_interval, sign_verdict

if TYPE_CHECKING:
    import torch

    from landscape_cli.curvature import Objective

KEPT = 200  # values of k of a curve, equally wide in log k
UNITS = dict.fromkeys(
    ("difference", "predicted", "quadratic", "bound", "printed_bound", "loss", "mean_loss", "largest_loss"), "nats"
)


@dataclass
class RadiusOptions:
    """Where and how the loss is followed."""

    radii: list[float] = bounded(factory=lambda: [0.0, 0.1, 0.3, 1.0, 3.0], minimum=0)
    directions: int = bounded(3, minimum=1)  # random unit u, a network
    permutations: int = bounded(100, minimum=2)
    hessian_objects: int = bounded(200, minimum=2)  # over which H̄ is the mean
    hessian_samples: int = bounded(50, minimum=2)
    tolerance: float = bounded(1e-2, above=0, below=1)


class Radius(Grid):
    """Trains, moves away from θ̂, and follows the mean loss along random orderings."""

    Options = RadiusOptions
    min_objects = 2
    threads = 1

    def points(self) -> list[Point]:
        """Refuse radii without a start, and more than one network."""
        if self.axes:
            raise BadInput(f"grid.{self.axes[0]}: one network is moved; allowed: grid.dataset")
        radii = self.config.measure.radii
        if 0 not in radii or not any(radii):
            raise BadInput(f"measure.radii: {radii}; allowed: a list with 0 among its values, and at least one more")
        return super().points()

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``curves`` (a row a seed, direction, r and k) and ``networks`` (a row a seed)."""
        import torch

        from landscape_cli.convergence.losses import object_losses
        from landscape_cli.curvature import Objective, landscape_measure
        from landscape_cli.rng import generator

        settings, data = point.settings, context.images()
        seeds, options = settings["seeds"], settings["measure"]
        model, parameters = trained(point, context)
        x, y = data.x_train, data.y_train
        at_start = object_losses(model, parameters, x, y)
        curves, networks = [], []
        for s, seed in enumerate(context.progress(seeds, desc="radii")):
            objective = Objective(model.module(parameters, s), x, y)
            size = min(options["hessian_objects"], len(x))
            near = objective.of_objects(slice(0, size))
            order = torch.randperm(size, generator=generator(seed, "sampled objects", point.stream))
            measured = landscape_measure(near, order[: options["hessian_samples"]], options["tolerance"])
            orderings = generator(seed, "orderings", point.stream)
            orders = torch.stack([torch.randperm(len(x), generator=orderings) for _ in range(options["permutations"])])
            draw = generator(seed, "directions", point.stream)
            losses = at_start.losses[s].double()
            for direction in range(options["directions"]):
                u = torch.randn(objective.size, generator=draw, dtype=torch.float64)
                u = (u / u.norm()).to(objective.device, objective.dtype)
                slope, bend = directional_derivatives(objective, u)
                bends = curve_of(bend[orders])  # mean over orderings of |uᵀ(H_{k+1} - H^(k))u|/(k+1)
                for radius in options["radii"]:
                    moved = self._moved(objective, u, radius)
                    own = {
                        "difference": object_losses_of(objective, moved).double(),
                        "predicted": losses + radius * slope + radius**2 / 2 * bend,
                    }
                    frame = self._curve({name: values[orders] for name, values in own.items()})
                    frame["quadratic"] = radius**2 / 2 * bends[frame["k"] - 1]
                    term = radius**2 * measured.mean / (frame["k"] + 1)
                    base = curve_of(losses[orders])[frame["k"] - 1]
                    frame["bound"], frame["printed_bound"] = base + term / 2, base + term
                    frame["loss"] = float(own["difference"].mean())
                    curves.append(frame.assign(seed=seed, direction=direction, radius=radius))
            networks.append(
                {
                    "seed": seed,
                    "mean_loss": float(losses.mean()),
                    "largest_loss": float(losses.max()),
                    "train_accuracy": float(at_start.correct[s]),
                    "landscape_measure": measured.mean,
                    "length": float(objective.flatten(objective.parameters).norm()),
                    "dead": bool(at_start.constant[s]),
                }
            )
        frames = {"curves": pd.concat(curves, ignore_index=True), "networks": pd.DataFrame(networks)}
        return Measurement(with_units(frames, UNITS), parameters=parameters)

    def _moved(self, objective: Objective, u: torch.Tensor, radius: float) -> dict[str, torch.Tensor]:
        return {
            name: tensor + radius * u[objective.slices[name]].view_as(tensor)
            for name, tensor in objective.parameters.items()
        }

    def _curve(self, losses: dict[str, torch.Tensor]) -> pd.DataFrame:
        curves = {name: curve_of(values) for name, values in losses.items()}
        last = len(next(iter(curves.values())))
        k = np.unique(np.geomspace(1, last, KEPT).astype(int))
        return pd.DataFrame({"k": k, **{name: curve[k - 1] for name, curve in curves.items()}})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the curves by radius, and what the radius adds beside its prediction and the bounds."""
        from landscape_cli.plotting.curves import band, end_labels
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, ordered_colours, titled_legend

        curves = _living(results, "curves")
        for dataset, own in curves.groupby("dataset", sort=False):
            radii = sorted(own["radius"].unique())
            drawing, ((left, right),) = new_figure(1, 2, FULL_WIDTH, 3.3)
            ends, labels, colours = [], [], ordered_colours(len(radii))
            for radius, colour in zip(radii, colours, strict=True):
                table = own[own["radius"] == radius].pivot_table(index="seed", columns="k", values="difference")
                band(left, table.columns.to_numpy(), table.to_numpy(), colour, linewidth=1)
                ends.append(float(table.iloc[:, -1].mean()))
                labels.append(f"$r={radius:g}$")
            left.set(xscale="log", yscale="log", xlabel="number of objects $k$")
            left.set_ylabel(r"$|\mathcal{L}_{k+1}-\mathcal{L}_k|$ at $\hat\theta+ru$, nats")
            excess = added(own)
            if len(excess):
                self._excess_panel(right, excess)
            number = int(own["k"].max())
            right.set_title(f"what $r$ adds at $k={number}$")
            text = f"{title(results, dataset)}: the loss difference away from the minimum"
            titled_legend(drawing, text, right, 5, 6.5)
            drawing.draw_without_rendering()
            end_labels(left, ends, labels, colours, number)
            caption = "Loss difference at a distance from the trained parameters, its prediction and bounds."
            several = curves["dataset"].nunique() > 1
            yield Figure(
                f"{self.config.name}_{dataset}" if several else self.config.name, drawing, caption, self._note()
            )

    def _excess_panel(self, ax: object, excess: pd.DataFrame) -> None:
        looks = {
            "bound": ("#0072b2", "-", "(1.5) with its ½"),
            "printed_bound": ("#d55e00", (0, (5, 1.5)), "(1.5) as printed"),
            "predicted": ("0.45", (0, (1.2, 1.2)), "second order"),
            "quadratic": ("0.45", (0, (4, 1, 1, 1)), r"$\frac{r^2}{2}|u^\top(H_{k+1}-H^{(k)})u|/(k+1)$"),
        }
        means = excess.groupby("radius").mean(numeric_only=True)
        squares = means.index.to_numpy() ** 2
        for name, (colour, line_style, text) in looks.items():
            ax.plot(squares, means[name].where(means[name] > 0), color=colour, linestyle=line_style, label=text, lw=1)
        spread = excess.groupby("radius")["difference"]
        ax.plot(squares, means["difference"].where(means["difference"] > 0), "ko", markersize=4, label="measured")
        low, high = spread.min().clip(lower=means["difference"].abs().min() / 100), spread.max()
        ax.vlines(squares, low, high, color="k", linewidth=0.8)
        ax.set(xscale="log", yscale="log", xlabel=r"$r^2=\|\theta-\hat\theta\|^2$", ylabel="nats")

    def _note(self) -> str:
        measure = self.config.measure
        return (
            f"{measure.directions} random unit directions a network, {measure.permutations} orderings. Bounds: the "
            f"curve at r = 0 and r²μ_f/(k+1), μ_f from {measure.hessian_samples} objects. Bars: range over nets and "
            "directions, its positive part; bands: over networks."
        )

    def tables(self, results: Results) -> Iterator[Table]:
        """What r adds at the last k; Lemma 3 worked out."""
        curves = _living(results, "curves")
        means = added(curves).groupby(["dataset", "radius"], as_index=False).mean(numeric_only=True)
        yield Table(
            self.config.name, means.drop(columns=["seed", "direction"]), "What the distance r adds to |L_{k+1} - L_k|."
        )
        caption = (
            "Lemma 3: with μ_D(D|f) = C m*, where m* objects are enough for a change of at most ε within R, it says "
            "m* <= (M_ℓ + μ_f R²)/ε."
        )
        yield Table(f"lemma_3_{self.config.name}", lemma_3(curves, _living(results, "networks")), caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test the decay away from the minimum, the growth with r², and the bound (1.5) in both forms."""
        curves = _living(results, "curves")
        for dataset, own in curves.groupby("dataset", sort=False):
            prefix = f"{title(results, dataset)}: " if curves["dataset"].nunique() > 1 else ""
            largest = own[own["radius"] == own["radius"].max()]
            late = largest[largest["k"] >= largest["k"].max() / 30]
            slopes = _slopes(late, "k")
            yield _verdict(
                f"{prefix}|L_(k+1) - L_k| -> 0 away from the minimum too",
                f"slope of log difference against log k at r = {own['radius'].max():g}; to lie in [-1.05, -0.95]",
                slopes,
                (-1.05, -0.95),
                "at a fixed θ this follows from (1.3)",
            )
            excess = added(own).groupby(["seed", "radius"], as_index=False)["difference"].mean()
            rising = excess.groupby("seed")["difference"].transform("min") > 0
            slopes = _slopes(excess[rising].assign(direction=0), "radius")
            left = excess.loc[~rising, "seed"].nunique()
            yield _verdict(
                f"{prefix}the difference grows as the square of the distance",
                "slope of log(difference at r less that at 0) against log r; to lie in [1.8, 2.2]",
                slopes,
                (1.8, 2.2),
                "Assumption 1 (all gradients vanish) would make it so"
                + (f"; {left} networks, whose difference falls somewhere, are left out" if left else ""),
            )
            end = own[(own["k"] == own["k"].max()) & (own["radius"] > 0)]  # at r = 0 both sides are the same
            for name, text in (("bound", "with its ½"), ("printed_bound", "as printed")):
                room = np.log(end[name] / end["difference"]).groupby([end["seed"]]).min()
                interval = mean_interval(room.to_numpy())
                yield Verdict(
                    claim=f"{prefix}the bound (1.5) {text} holds at every r > 0",
                    source="thesis 1.3, (1.5), (1.9)",
                    statistic="log(bound/difference) at the last k, the least over directions and radii",
                    verdict=sign_verdict(interval, 1),
                    effect=interval.mean,
                    low=interval.low,
                    high=interval.high,
                )


def _slopes(frame: pd.DataFrame, axis: str) -> list[float]:
    """Slope of log difference against log `axis`, one a network: the mean over its directions."""
    found = {
        key: float(log_log_slope(g[axis].to_numpy(), g["difference"].to_numpy()))
        for key, g in frame.groupby(["seed", "direction"])
        if len(g) >= 2
    }
    return list(pd.Series(found, dtype=float).groupby(level=0).mean()) if found else []


def directional_derivatives(objective: Objective, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uᵀ∇ℓ_i and uᵀH_i u of every object, (N,) each, float64, for a direction u (P,)."""
    import torch
    from torch.func import jvp

    direction = {name: u[part].view_as(objective.fixed[name]) for name, part in objective.slices.items()}
    first, second = [], []
    for x, y in zip(objective.x.split(1000), objective.y.split(1000), strict=True):

        def losses(own: dict, x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            return objective.loss(objective.outputs(own, x), y)

        def slopes(own: dict) -> torch.Tensor:
            return jvp(losses, (own,), (direction,))[1]

        slope, bend = jvp(slopes, (objective.parameters,), (direction,))
        first.append(slope.double())
        second.append(bend.double())
    return torch.cat(first), torch.cat(second)


def object_losses_of(objective: Objective, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """Losses of every object at other parameters, (N,)."""
    import torch

    with torch.no_grad():
        parts = zip(objective.x.split(4000), objective.y.split(4000), strict=True)
        return torch.cat([objective.loss(objective.outputs(parameters, x), y) for x, y in parts])


def curve_of(losses: torch.Tensor) -> np.ndarray:
    """Mean over orderings of |L_{k+1} - L_k|, k = 1 … m - 1, of losses in the orderings (P, m)."""
    from landscape_cli.convergence.differences import DifferenceStream

    return DifferenceStream(len(losses)).update(losses).mean(dim=0).cpu().numpy()


def added(curves: pd.DataFrame) -> pd.DataFrame:
    """Value at the last k less that of the difference at r = 0: a row a network, direction and radius."""
    ends = curves[curves["k"] == curves.groupby("dataset")["k"].transform("max")]
    keys = ["dataset", "seed", "direction"]
    start = ends[ends["radius"] == 0].set_index(keys)["difference"]
    found = ends[ends["radius"] > 0].set_index(keys)
    values = ["difference", "predicted", "quadratic", "bound", "printed_bound"]
    above = [name for name in values if name != "quadratic"]  # which is a term, not a curve
    found[above] = found[above].sub(start.reindex(found.index), axis=0)
    return found.reset_index()[[*keys, "radius", *values]]


def lemma_3(curves: pd.DataFrame, networks: pd.DataFrame, tolerances: tuple[float, ...] = (1e-3, 1e-4)) -> pd.DataFrame:
    """Objects that the lemma asks for beside those that were needed, means over networks and directions."""
    own = networks.set_index(["dataset", "seed"])
    rows = []
    for (dataset, radius), part in curves.groupby(["dataset", "radius"]):
        measure, largest = own.loc[dataset, "landscape_measure"].mean(), own.loc[dataset, "largest_loss"].mean()
        mean = part.groupby("k")["difference"].mean()
        for epsilon in tolerances:
            above = mean[mean > epsilon]
            needed = 1 if above.empty else int(above.index[-1]) + 1
            rows.append(
                {
                    "dataset": dataset,
                    "radius": radius,
                    "epsilon": epsilon,
                    "largest_loss": largest,
                    "landscape_measure": measure,
                    "lemma": (largest + measure * radius**2) / epsilon,
                    "measured": needed if needed <= mean.index[-1] else np.nan,
                }
            )
    return pd.DataFrame(rows)


def _living(results: Results, name: str) -> pd.DataFrame:
    networks = results.frames["networks"]
    dead = networks[networks["dead"]].set_index(["dataset", "seed"]).index
    frame = results.frames[name]
    return frame[~pd.MultiIndex.from_frame(frame[["dataset", "seed"]]).isin(dead)]


def _verdict(claim: str, statistic: str, values: list[float], span: tuple[float, float], note: str) -> Verdict:
    interval = mean_interval(values)
    return Verdict(
        claim=claim,
        source="thesis 1.3, Theorem 4",
        statistic=statistic,
        verdict=equivalence_verdict(interval, *span),
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
        note=note,
    )
