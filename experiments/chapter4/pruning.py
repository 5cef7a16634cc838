"""Figs 4.4 to 4.9: parameters of a network removed in several orders, and the noise of what is left (thesis 4.4.1).

All orders prune the same networks, at the mean of their variational posteriors; on the synthetic set parameters drawn
from the given one. The thesis writes the posterior as N(m, A⁻¹) and calls A its covariance matrix. Belsley's shares
u²/λ are parts of a parameter's variance if A is the precision; the illustration (Table 4.1) and the synthetic set
decompose a covariance matrix. Both readings are measured. Rows and columns of a covariance matrix say what is left
whatever the removed parameters are, those of a precision matrix what is left given that they are zero.

Optimal brain damage looks anew at every step; the others keep what they know of the whole network, with retraining too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from experiments.chapter4 import networks, pruning_claims, pruning_figures
from experiments.chapter4.networks import Networks
from experiments.chapter4.restarts import Restarts, of_table
from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units

if TYPE_CHECKING:
    import torch

    from landscape_cli.pruning.removal import Score, Step

METHODS = ("random", "optimal_brain_damage", "variational", "belsley", "belsley_precision", "gradient_covariance")


@dataclass
class RemovalOptions:
    """What is removed in which order, and what is looked at. The thesis gives the split alone."""

    methods: list[str] = bounded(factory=lambda: list(METHODS), choices=METHODS)
    test_share: float = bounded(0.2, above=0, below=1)
    removal_steps: int | None = bounded(None, minimum=1)  # null: one parameter at a time
    noise_levels: list[float] = bounded(factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0], minimum=0)
    noise_copies: int = bounded(50, minimum=2)  # of each test object
    noise_shares: int = bounded(20, minimum=1)  # steps of the share removed
    noise_objects: int = bounded(200, minimum=1)  # test objects, at most
    tolerance: float = bounded(0.05, above=0, below=1)  # of what the network gained over the empty one: "no loss"


@dataclass
class PruningOptions(RemovalOptions):
    """How the posterior is fitted, and whether what is left is trained."""

    covariance: str = bounded("full", choices=("full", "diagonal"))  # of the posterior; diagonal: the mean field
    prior_precision: float | None = bounded(None, above=0)  # null: the one that maximises the evidence bound
    posterior_iterations: int = bounded(100, minimum=1)
    posterior_samples: int = bounded(4, minimum=2)
    posterior_rate: float = bounded(0.3, above=0, maximum=1)
    retrain: int = bounded(0, minimum=0)  # epochs after each of the retrained curves' steps; 0: no such curves
    retrain_steps: int = bounded(20, minimum=1)


@dataclass
class GivenOptions(RemovalOptions):
    """How the covariance of gradients is gathered where nothing is trained."""

    batch_size: int = bounded(64, minimum=2)  # of the one pass over the objects


class Pruning(Grid):
    """Removal curves and noise surfaces of every order, all restarts of a table's network together."""

    Options = PruningOptions
    data = "table"
    kinds: ClassVar[tuple[str, ...]] = ("feedforward",)  # of networks
    min_objects = 10
    threads_run_tasks = True

    def points(self) -> list[Point]:
        """One point: figures have room for one data set."""
        if self.config.grid:
            axis = next(iter(self.config.grid))
            raise BadInput(f"grid.{axis}: one data set and network at a time; allowed: no grid")
        if self.config.model.kind not in self.kinds:
            raise BadInput(f"model.kind: {self.config.model.kind!r}; allowed: {', '.join(self.kinds)}")
        options, training = self.config.measure, self.config.training
        repeated = [method for k, method in enumerate(options.methods) if method in options.methods[:k]]
        if repeated:
            raise BadInput(f"measure.methods: {repeated[0]} twice; allowed: each once")
        if "gradient_covariance" in options.methods and getattr(training or options, "batch_size", 2) < 2:
            raise BadInput(
                "training.batch_size: 1; allowed: 2 or more, since a gradient is compared with its minibatch's"
            )
        if getattr(options, "posterior_samples", 2) % 2:
            raise BadInput(f"measure.posterior_samples: {options.posterior_samples}; allowed: an even number")
        levels = getattr(options, "noise_levels", [0.0, 1.0])
        if sorted(set(levels)) != levels or len(levels) < 2:
            raise BadInput(f"measure.noise_levels: {levels}; allowed: two numbers or more that rise")
        return super().points()

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``curves`` (seed, method, retrained, removed), ``surface`` (… share, noise) and ``fits`` (seed)."""
        import torch

        from landscape_cli.pruning.removal import quality, remove

        settings = point.settings
        options, seeds = settings["measure"], settings["seeds"]
        data = context.images() if self.data == "images" else context.table()
        restarts = self.restarts(data, settings)
        with torch.no_grad():
            state = self.networks(point, data, restarts, context)
            parts = {
                name: restarts.of(restarts.own(rows))
                for name, rows in (("test", restarts.test), ("train", restarts.train))
            }
            size, methods = state.weights.shape[1], options["methods"]
            unit = torch.ones_like(restarts.unit) if restarts.classes else restarts.unit
            scores = networks.scores(state, restarts, point, methods)
            score, ties = _together(scores, len(seeds)), _ties(point, len(methods))
            plans = [(False, _counts(size, options["removal_steps"]))]
            if options.get("retrain"):
                plans.append((True, _counts(size, options["retrain_steps"])))
            curves: list[pd.DataFrame] = []
            for retrained, counts in plans:
                retrain = networks.retraining(state, restarts, point) if retrained else None
                removal = remove(state.weights.repeat(len(methods), 1), score, counts, retrain, ties)
                steps = list(context.progress(removal, desc="removal", total=len(counts)))
                weights = torch.stack([step.weights for step in steps]).view(
                    len(counts), len(methods), *state.weights.shape
                )
                found = quality(state.model, state.like, weights, *parts["test"]).cpu() * unit
                axes = {"removed": counts, "method": methods, "seed": seeds}
                index = pd.MultiIndex.from_product(axes.values(), names=axes)
                frame = pd.DataFrame({"test": found.flatten().numpy()}, index=index).reset_index()
                curves.append(frame.assign(share=frame["removed"] / size, retrained=retrained))
                if not retrained:
                    kept, removed_at = weights, _removed_at(steps).reshape(len(methods), len(seeds), size)
            frames = {"curves": pd.concat(curves, ignore_index=True), "fits": self.fits(state, parts, unit, seeds)}
            if "noise_levels" in options:
                frames["surface"] = _surface(state, restarts, parts["test"][0], plans[0][1], kept, point)
            ranks = {f"removed_at_{method}": at for method, at in zip(methods, removed_at, strict=True)}
        return Measurement(with_units(frames, {"bound": "nats"}), arrays=ranks)

    def restarts(self, data: Any, settings: Mapping[str, Any]) -> Restarts:
        """Split the table for every seed."""
        return of_table(data, settings["seeds"], settings["measure"]["test_share"])

    def networks(self, point: Point, data: Any, restarts: Restarts, context: Context) -> Networks:
        """Train, and fit the posterior."""
        return networks.fitted(point, data, restarts, context)

    def fits(
        self,
        state: Networks,
        parts: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        unit: torch.Tensor,
        seeds: list[int],
    ) -> pd.DataFrame:
        """How good the networks are, trained and at the mean of the posterior, and how the posterior's fit ended."""
        from landscape_cli.pruning.removal import quality

        columns: dict[str, Any] = {"seed": seeds}
        columns["test_objects"] = parts["test"][1].shape[1]
        fitted = state.posterior is not None and state.posterior.fitted
        for name, weights in (("trained", state.trained), *([("posterior", state.weights)] if fitted else [])):
            for part, objects in parts.items():
                found = quality(state.model, state.like, weights, *objects).cpu() * unit
                columns[f"{name}_{part}"] = found.numpy()
        if fitted:
            bound = state.posterior.bound.cpu()
            tenth = max(1, len(bound) // 10)
            columns["bound"] = bound[-tenth:].mean(dim=0).numpy()
            columns["bound_change"] = (bound[-tenth:].mean(dim=0) - bound[-2 * tenth :][:tenth].mean(dim=0)).numpy()
            columns["prior_precision"] = state.posterior.prior_precision.cpu().numpy()
            columns["noise_variance"] = (state.posterior.noise_variance.cpu() * unit).numpy()
        return pd.DataFrame(columns)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Quality against the share removed, and the noise surfaces, in 3D and as heat maps."""
        yield from pruning_figures.figures(results, self.config)

    def tables(self, results: Results) -> Iterator[Table]:
        """What each order can remove, and quality at some shares."""
        yield pruning_claims.summary(results, self.config)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test the text's sentences on the data set that it says them of."""
        yield from pruning_claims.verdicts(results, self.config)

    def answers(self, results: Results) -> Iterator[str]:
        """Share of the parameters that each order removes without loss."""
        yield from pruning_claims.answers(results, self.config)


class GivenPruning(Pruning):
    """A linear model whose parameters are drawn from a given posterior, N(m, A), and not trained (thesis 4.4.1)."""

    Options = GivenOptions
    uses = frozenset({"dataset", "model", "seeds"})

    def points(self) -> list[Point]:
        """One point, of the data set that the posterior is given for."""
        if self.config.dataset.name != "synthetic_relevance":
            raise BadInput(f"dataset.name: {self.config.dataset.name!r}; allowed: synthetic_relevance")
        return super().points()

    def restarts(self, data: Any, settings: Mapping[str, Any]) -> Restarts:
        """Split the table for every seed; features and target stay as they are."""
        return of_table(data, settings["seeds"], settings["measure"]["test_share"], standardise=False)

    def networks(self, point: Point, data: Any, restarts: Restarts, context: Context) -> Networks:
        """Draw the parameters from the given posterior."""
        return networks.drawn(point, data, restarts)


def _counts(size: int, steps: int | None) -> list[int]:
    """How many parameters are removed after each step, from none to all but one and all."""
    counts = np.linspace(0, size, (steps or size) + 1).round().astype(int)
    return np.unique([*counts, size - 1]).tolist()


def _together(scores: Mapping[str, Score], restarts: int) -> Score:
    """All orders as one, on the restarts' networks as often as there are orders."""
    import torch

    def score(weights: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        parts = zip(scores.values(), weights.split(restarts), active.split(restarts), strict=True)
        return torch.cat([own(some, left).to(weights) for own, some, left in parts])

    return score


def _ties(point: Point, copies: int) -> list[torch.Generator]:
    """Generators that break ties, the same for every order."""
    from landscape_cli.rng import generator

    seeds = point.settings["seeds"]
    return [generator(seed, "ties", point.stream) for _ in range(copies) for seed in seeds]


def _surface(
    state: Networks, restarts: Restarts, x: torch.Tensor, counts: list[int], weights: torch.Tensor, point: Point
) -> pd.DataFrame:
    """Output noise, a row a method, share, seed and level; the noise of the input is the same for every order."""
    from landscape_cli.pruning.removal import output_noise
    from landscape_cli.rng import generator

    options, seeds, removed = point.settings["measure"], point.settings["seeds"], np.array(counts)
    levels, x = options["noise_levels"], x[:, : options["noise_objects"]]
    generators = [generator(seed, "noise", point.stream) for seed in seeds]
    wanted = np.linspace(0, removed[-1], options["noise_shares"] + 1)
    near = np.unique([int(np.abs(removed - value).argmin()) for value in wanted])
    given = {"copies": options["noise_copies"], "generators": generators, "classes": restarts.classes}
    deviations = output_noise(state.model, state.like, weights[near], x, levels, **given).cpu()
    if not restarts.classes:
        deviations = deviations * restarts.unit.sqrt()[:, None]
    axes = {"share": removed[near] / removed[-1], "method": options["methods"], "seed": seeds, "noise": levels}
    index = pd.MultiIndex.from_product(axes.values(), names=axes)
    return pd.DataFrame({"deviation": deviations.flatten().numpy()}, index=index).reset_index()


def _removed_at(steps: list[Step]) -> np.ndarray:
    """At which count each parameter was removed, (R, P)."""
    import torch

    removed = torch.zeros_like(steps[0].active, dtype=torch.int64)
    for before, step in itertools.pairwise(steps):
        removed[before.active & ~step.active] = step.removed
    return removed.cpu().numpy()
