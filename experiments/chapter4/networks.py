"""Networks to be pruned, with everything that the orders look at (thesis 4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from landscape_cli.errors import BadInput

if TYPE_CHECKING:
    import torch

    from experiments.chapter4.restarts import Restarts
    from landscape_cli.data.tabular import TableData
    from landscape_cli.experiment import Context, Point
    from landscape_cli.models.mlp import FeedForward
    from landscape_cli.pruning.posterior import Gaussian
    from landscape_cli.pruning.removal import Retrain, Score

LARGEST_FULL = 2000  # parameters of a posterior with a full covariance matrix


@dataclass(frozen=True)
class Networks:
    """R trained networks with P parameters."""

    model: FeedForward
    like: dict[str, torch.Tensor]  # parameters, for their names and shapes
    weights: torch.Tensor  # (R, P): what is pruned
    gradient_variances: torch.Tensor  # (R, P)
    trained: torch.Tensor  # (R, P): before a posterior was fitted
    posterior: Gaussian | None = None
    covariance: torch.Tensor | None = None  # (R, P, P): the posterior's


def trained(point: Point, shape: tuple[int, int, int], outputs: int, restarts: Restarts, context: Context) -> Networks:
    """Train by Adam, gathering the covariance of gradients."""
    from landscape_cli.curvature.stacked import flatten
    from landscape_cli.models import build_model
    from landscape_cli.pruning.gradients import GradientCovariance
    from landscape_cli.rng import generator
    from landscape_cli.training import Trainer

    settings = point.settings
    model = build_model(settings["model"], shape, outputs)
    start = model.initialise([generator(seed, "initialisation", point.stream) for seed in settings["seeds"]])
    start = {name: tensor.to(restarts.x) for name, tensor in start.items()}
    given = {"seeds": settings["seeds"], "stream": point.stream, "rows": restarts.train, "start": start}
    trainer = Trainer(model, restarts.x, restarts.y, **given, **settings["training"])
    gathered = GradientCovariance(model)
    for _ in trainer.epochs(context.progress, keep=gathered.kept):
        trainer.epoch(observe=gathered.observe)
    found = trainer.finish()
    return Networks(model, found, flatten(found), gathered.variances, flatten(found))


def fitted(point: Point, data: TableData, restarts: Restarts, context: Context) -> Networks:
    """Train, and fit the posterior from there."""
    from landscape_cli.parallel import each
    from landscape_cli.pruning.posterior import Gaussian, fit_posterior
    from landscape_cli.rng import generator

    options = point.settings["measure"]
    widths = (data.X.shape[1], *point.settings["model"]["hidden"], len(data.classes) or 1)
    size = sum((a + point.settings["model"]["bias"]) * b for a, b in itertools.pairwise(widths))
    if options["covariance"] == "full" and size > LARGEST_FULL:
        raise BadInput(
            f"measure.covariance: full, of {size} parameters; allowed up to {LARGEST_FULL}: "
            "measure.covariance=diagonal, or a smaller network (model.hidden)"
        )
    start = trained(point, (data.X.shape[1], 1, 1), len(data.classes) or 1, restarts, context)
    x, y = restarts.of(restarts.train)
    generators = [generator(seed, "posterior", point.stream) for seed in point.settings["seeds"]]
    fit = {
        "covariance": options["covariance"],
        "iterations": options["posterior_iterations"],
        "samples": options["posterior_samples"],
        "rate": options["posterior_rate"],
        "prior_precision": options["prior_precision"],
    }

    def one(number: int) -> Gaussian:  # restarts are independent, and small enough for a thread each
        own = slice(number, number + 1)
        given = {name: tensor[own] for name, tensor in start.like.items()}
        return fit_posterior(start.model, given, x[own], y[own], generators=generators[own], **fit)

    posterior = Gaussian.together(each(one, context.progress(range(len(generators)), desc="posteriors")))
    return replace(start, weights=posterior.mean, posterior=posterior, covariance=posterior.covariance)


def drawn(point: Point, data: TableData, restarts: Restarts) -> Networks:
    """Draw a linear model's parameters from a given posterior; gather the covariance of gradients in one pass."""
    import torch

    from landscape_cli.models import build_model
    from landscape_cli.pruning.gradients import GradientCovariance
    from landscape_cli.pruning.posterior import Gaussian
    from landscape_cli.rng import generator
    from landscape_cli.training import Trainer

    settings = point.settings
    seeds, features = settings["seeds"], data.X.shape[1]
    if settings["model"]["hidden"] or settings["model"]["bias"]:
        raise BadInput("model: these parameters are a linear model's; allowed: hidden=[] and bias=false")
    if data.source.task != "regression":
        raise BadInput("dataset.target: classes; allowed: a numeric target")
    model = build_model(settings["model"], (features, 1, 1), 1)
    mean, matrix = (tensor.to(restarts.x) for tensor in given_posterior(features))
    factor = torch.linalg.cholesky(matrix)
    normal = [torch.randn(features, generator=generator(s, "parameters"), dtype=torch.float64) for s in seeds]
    weights = mean + torch.stack(normal).to(mean) @ factor.mT
    like = {"0.weight": weights[:, None]}
    given = {"seeds": seeds, "stream": point.stream, "rows": restarts.train, "start": like}
    once = {"epochs": 1, "batch_size": settings["measure"]["batch_size"], "learning_rate": 0.0}
    gathered = GradientCovariance(model)
    Trainer(model, restarts.x, restarts.y, **given, **once).epoch(observe=gathered.observe)
    count, none = len(seeds), torch.full((len(seeds),), torch.nan, dtype=torch.float64)
    inverse = torch.cholesky_inverse(factor)
    posterior = Gaussian(mean.expand(count, -1), inverse.expand(count, -1, -1), none, none, none[:0, None])
    covariance = matrix.expand(count, -1, -1).contiguous()
    return Networks(model, like, weights, gathered.variances, weights, posterior, covariance)


def given_posterior(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (P,) and covariance (P, P) of the synthetic set's parameters: the first is relevant, the others depend."""
    import torch

    mean = torch.full((size,), 0.0025, dtype=torch.float64)
    mean[0] = 1
    matrix = torch.full((size, size), 0.95, dtype=torch.float64)
    matrix[0], matrix[:, 0] = 1e-3, 1e-3
    return mean, matrix.fill_diagonal_(1.0)


def scores(networks: Networks, restarts: Restarts, point: Point, methods: Sequence[str]) -> dict[str, Score]:
    """Orders as functions of the weights and of what is still active."""
    import torch

    from landscape_cli.curvature.stacked import hessian_diagonal, unflatten
    from landscape_cli.pruning import orders
    from landscape_cli.rng import generator

    seeds = point.settings["seeds"]
    train = restarts.of(restarts.own(restarts.train))
    posterior = networks.posterior

    def damage(weights: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        found = hessian_diagonal(networks.model, unflatten(weights, networks.like), *train)
        return orders.optimal_brain_damage(found, weights)

    def fixed(values: torch.Tensor) -> Score:
        return lambda weights, active: values

    known: dict[str, Score] = {"optimal_brain_damage": damage, "magnitude": lambda weights, active: weights.abs()}
    if "random" in methods:
        drawn = [generator(seed, "order", point.stream) for seed in seeds]
        chance = torch.stack([torch.rand(networks.weights.shape[1:], generator=g) for g in drawn])
        known["random"] = fixed(chance.to(networks.weights.device))
    if "gradient_covariance" in methods:
        known["gradient_covariance"] = fixed(networks.gradient_variances)
    if "variational" in methods:
        # The mean field q' that is nearest in KL(q' || q) has the variances 1/S_jj.
        precision = posterior.precision
        diagonal = precision if precision.dim() == 2 else precision.diagonal(dim1=1, dim2=2)
        if posterior.fitted:
            known["variational"] = lambda weights, active: orders.signal_to_noise(weights, diagonal.rsqrt())
        else:  # the given posterior's own mean, and not the parameters that were drawn from it
            known["variational"] = fixed(orders.signal_to_noise(posterior.mean, diagonal.rsqrt()))
    for method in [method for method in methods if method.startswith("belsley")]:
        ties = [generator(seed, "ties", f"{point.stream} {method}") for seed in seeds]
        matrices = networks.covariance if method == "belsley" else posterior.matrix
        known[method] = fixed(_belsley(matrices, ties))
    return {method: known[method] for method in methods}


def _belsley(matrices: torch.Tensor, ties: list[torch.Generator]) -> torch.Tensor:
    """When each parameter goes, (R, P); a task a restart."""
    import torch
    from threadpoolctl import threadpool_limits

    from landscape_cli.parallel import each
    from landscape_cli.pruning.orders import belsley_order

    with threadpool_limits(limits=1, user_api="blas"):  # scipy's: threads inside of threads wait for each other
        found = each(lambda number: belsley_order(matrices[number, None], [ties[number]]), range(len(ties)))
    return torch.cat(found)


def retraining(networks: Networks, restarts: Restarts, point: Point) -> Retrain:
    """Training of what is left, some epochs with Adam; of several copies of all restarts, one below the other."""
    from landscape_cli.curvature.stacked import flatten, unflatten
    from landscape_cli.training import Trainer

    settings = point.settings
    options: Mapping[str, Any] = {**settings["training"], "epochs": settings["measure"]["retrain"]}

    def trained(weights: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        copies, left = len(weights) // len(settings["seeds"]), int(active[0].sum())
        given = {"seeds": settings["seeds"] * copies, "rows": restarts.train.repeat(copies, 1)}
        start, stream = unflatten(weights, networks.like), f"{point.stream} {left}"
        trainer = Trainer(networks.model, restarts.x, restarts.y, start=start, stream=stream, **given, **options)
        trainer.free = unflatten(active, networks.like)
        for _ in trainer.epochs():
            trainer.epoch()
        return flatten(trainer.finish())

    return trained
