"""A network and data of one's own: how L_k settles, how sharp it is, how much data is enough."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.beyond import own_results
from landscape_cli.config import bounded
from landscape_cli.errors import out_of_space
from landscape_cli.experiment import Context, Experiment, Figure, Measurement, Point, Results, Table, with_units

if TYPE_CHECKING:
    import torch

    from landscape_cli.own.networks import Task


@dataclass
class OwnModelOptions:
    """What is measured at θ̂."""

    loss: str = bounded("auto", pattern=r".+", allowed="auto, cross_entropy, squared_error or the path of a function")
    permutations: int = bounded(100, minimum=2)  # orderings averaged over, a network
    smoothing: float | None = bounded(None, minimum=0, below=1)  # a of the moving average; null: as suits the objects
    threshold: float = bounded(1e-3, above=0)  # of the smoothed mean difference, in units of the loss
    curvature: bool = True
    hessian_objects: int = bounded(
        200, minimum=2
    )  # N: drawn at random from the train objects, over which H̄ is the mean
    hessian_samples: int = bounded(50, minimum=2)  # of them, whose own Hessians are compared with H̄
    eigenvalues: int = bounded(10, minimum=1)  # largest ones of H̄
    probes: int = bounded(8, minimum=2)  # of the spectral density
    steps: int = bounded(60, minimum=2)  # Lanczos steps of the density
    tolerance: float = bounded(1e-2, above=0, below=1)  # of norms and eigenvalues, relative to the largest


class OwnModel(Experiment):
    """Trains any torch module on any data and measures it at θ̂: losses along orderings, curvature, gradient.

    model._target_ names a class or function that returns a torch.nn.Module, dataset._target_ one that returns the data;
    what else stands in either node is its arguments. With training.epochs=0 the network is measured as it comes.
    """

    Options = OwnModelOptions
    uses = frozenset({"dataset", "model", "training", "seeds"})
    data = "objects"
    own_models = True
    min_objects = 2

    def points(self) -> list[Point]:
        """One point a seed."""
        config = self.config
        settings = self.settings()
        # It says from when on differences are small enough, and changes none of them.
        settings["measure"].pop("threshold")
        dataset, model = config.dataset.name, getattr(config.model, "_target_", None) or config.model.kind
        return [
            Point.of({"dataset": dataset, "model": model, "seed": seed}, {**settings, "seeds": [seed]})
            for seed in range(config.seed, config.seed + config.seeds)
        ]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``curves`` (a row a k), ``network`` (one row) and, with curvature, ``eigenvalues`` and ``density``."""
        from landscape_cli.api import loss_difference_curve
        from landscape_cli.convergence.differences import mean_absolute_deviation
        from landscape_cli.own.checking import names_of
        from landscape_cli.own.networks import gradient_norm, initial_network, judge, task_of
        from landscape_cli.own.training import fit_module

        settings, objects = point.settings, context.objects()
        options, (seed,) = settings["measure"], settings["seeds"]
        names, loss = names_of(settings), options["loss"]
        outputs = objects.classes or int(objects.y_train[0].numel())
        network = initial_network(settings["model"], objects.x_train[:2], outputs, seed, point.stream)
        network.to(context.device)
        task = task_of(network, objects.x_train, objects.y_train, loss, names)
        judge(network, task, names)  # a loss that is not finite is found before any training
        training = {"seed": seed, "stream": point.stream, "progress": context.progress, **settings["training"]}
        fit_module(network, task, **training)
        given = {"loss": loss, "seed": seed}
        curve = loss_difference_curve(
            network, task.x, task.y, permutations=options["permutations"], smoothing=options["smoothing"], **given
        )
        tested = None
        if len(objects.x_test):
            test = task_of(network, objects.x_test, objects.y_test, loss, names)
            tested = judge(network, test, names)
        losses = judge(network, task, names).losses
        row = {
            "objects": len(task.x),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "loss": task.name,
            "mean_loss": float(losses.mean()),
            "mad": float(mean_absolute_deviation(losses)),
            "accuracy": curve.accuracy,
            "test_objects": len(objects.x_test),
            "test_loss": float(tested.losses.mean()) if tested else math.nan,
            "test_accuracy": tested.accuracy if tested else math.nan,
            "exponent": curve.law.exponent,
            "coefficient": curve.law.coefficient,
            "gradient_norm": gradient_norm(network, task),
        }
        columns = {
            "k": curve.k,
            "difference": curve.mean,
            "standard_error": curve.standard_error,
            "ema": curve.smoothed,
        }
        frames = {"curves": pd.DataFrame(columns)}
        curvature = _none("not asked for")
        if options["curvature"]:
            curvature = _curvature(network, task, row["gradient_norm"], options, seed, context)
        frames["network"] = pd.DataFrame([row | curvature[0]])
        frames |= curvature[1]
        return Measurement(with_units(frames, own_results.units(task.name)), parameters=_stacked(network))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the differences with their law and threshold, and the spectrum where there is one."""
        yield own_results.difference_figure(results, self.config)
        if "density" in results.frames:
            yield own_results.spectrum_figure(results)

    def tables(self, results: Results) -> Iterator[Table]:
        """Everything that was measured, means over seeds with 95 % intervals."""
        yield own_results.summary_table(results, self.config)

    def answers(self, results: Results) -> Iterator[str]:
        """Say in lines what was asked."""
        return own_results.answers(results, self.config)


def _curvature(
    network: torch.nn.Module, task: Task, gradient: float, options: dict[str, Any], seed: int, context: Context
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Columns of ``network`` and frames; where a network's curvature cannot be had, why."""
    import torch

    from landscape_cli.api import hessian_spectrum, landscape_measure
    from landscape_cli.rng import generator

    chosen = torch.randperm(len(task.x), generator=generator(seed, "hessian objects"))[: options["hessian_objects"]]
    some = task.of_objects(chosen.to(task.x.device))
    given = {"loss": task.loss, "tolerance": options["tolerance"], "seed": seed}
    row, frames = _none("")
    row["hessian_objects"] = len(chosen)
    for what in context.progress(("measure", "spectrum"), desc="curvature"):
        try:
            if what == "measure":
                found = landscape_measure(network, some.x, some.y, objects=options["hessian_samples"], **given)
                row |= {"measure": found.mean, "standard_error": found.standard_error, "samples": len(found.norms)}
                continue
            sizes = {"top": options["eigenvalues"], "probes": options["probes"], "steps": options["steps"]}
            spectrum = hessian_spectrum(network, some.x, some.y, **sizes, **given)
        except Exception as error:  # of layers that nobody has tried: the losses are measured all the same
            if out_of_space(error):
                raise
            row[f"no_{what}"] = f"{type(error).__name__}: {' '.join(str(error).split()).partition('. ')[0][:400]}"
            continue
        row |= {
            "hessian_norm": spectrum.norm,
            "smallest": spectrum.smallest,
            "gradient_step": spectrum.gradient_step(gradient),
            "density_steps": spectrum.steps,
        }
        ranks = range(1, len(spectrum.eigenvalues) + 1)
        values = {"rank": ranks, "eigenvalue": spectrum.eigenvalues, "residual": spectrum.residuals}
        frames["eigenvalues"] = pd.DataFrame(values)
        if len(spectrum.grid):
            density = {"density": spectrum.density, "density_error": spectrum.standard_error}
            frames["density"] = pd.DataFrame({"eigenvalue": spectrum.grid, **density})
    return row, frames


def _none(reason: str) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    numbers = ("measure", "standard_error", "hessian_norm", "smallest", "gradient_step")
    counts = {"hessian_objects": 0, "samples": 0, "density_steps": 0}
    return {**dict.fromkeys(numbers, math.nan), **counts, "no_measure": reason, "no_spectrum": reason}, {}


def _stacked(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and statistics with a leading axis of one seed, as those of other families have."""
    return {name: tensor[None].clone() for name, tensor in network.state_dict().items() if hasattr(tensor, "numel")}
