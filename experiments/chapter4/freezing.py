"""Parameters that are no longer updated after t_0 steps, those of least gradient variance first (thesis 4.1, essay 3).

The text gives the method and compares it with a random order, without a figure. Here every restart is trained up to
t_0 once and then goes on with each order and share frozen, side by side and on the same minibatches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from experiments.chapter4.restarts import Restarts, of_images, of_table
from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.statistics import mean_interval, sign_verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

LEAST, CHANCE, MOST = "least_variance", "random", "most_variance"
LABELS = {LEAST: "least gradient variance first", CHANCE: "random", MOST: "most gradient variance first"}
STYLES = {LEAST: ("#e69f00", "-"), CHANCE: ("0.45", (0, (1.2, 1.2))), MOST: ("#0072b2", (0, (5, 1.2)))}
LINEAR, NETWORK = "linear", "network"


@dataclass
class ImageFreezingOptions:
    """When how much is frozen."""

    freeze_at: float = bounded(0.2, above=0, below=1)  # t_0 as a share of the epochs; at least one
    steps: int = bounded(10, minimum=2)  # of the share frozen, from none to all
    linear: bool = True  # a linear model beside the network


@dataclass
class FreezingOptions(ImageFreezingOptions):
    """And how the table is split."""

    test_share: float = bounded(0.2, above=0, below=1)


class Freezing(Grid):
    """Loss and quality after training with part of the parameters frozen, every share and order at once."""

    Options = FreezingOptions
    data = "table"
    kinds: ClassVar[tuple[str, ...]] = ("feedforward", "mlp")
    min_objects = 10

    def points(self) -> list[Point]:
        """The network, and a linear model beside it."""
        config = self.config
        if config.grid:
            raise BadInput(f"grid.{next(iter(config.grid))}: one data set and network at a time; allowed: no grid")
        if config.model.kind not in self.kinds:
            raise BadInput(f"model.kind: {config.model.kind!r}; allowed: {', '.join(self.kinds)}")
        if config.training.batch_size < 2:
            raise BadInput(
                "training.batch_size: 1; allowed: 2 or more, since a gradient is compared with its minibatch's"
            )
        if config.training.epochs < 2:
            raise BadInput(f"training.epochs: {config.training.epochs}; allowed: 2 or more, some before and some after")
        name, own = config.dataset.name, self.settings(config.dataset.name)
        linear = getattr(config.model, "hidden", None) == []
        points = [Point.of({"dataset": name, "network": LINEAR if linear else NETWORK}, own)]
        if config.measure.linear and not linear:
            model = {"kind": "feedforward", "hidden": [], "activation": "tanh", "bias": own["model"]["bias"]}
            points.insert(0, Point.of({"dataset": name, "network": LINEAR}, {**own, "model": model}))
        return points

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frame ``curves``: a row a seed, order and share frozen."""
        import torch

        from landscape_cli.descent import mean_losses
        from landscape_cli.models import build_model
        from landscape_cli.pruning.gradients import GradientCovariance
        from landscape_cli.pruning.removal import quality
        from landscape_cli.rng import generator
        from landscape_cli.training import Trainer

        settings = point.settings
        options, seeds, training = settings["measure"], settings["seeds"], settings["training"]
        restarts, shape, outputs = self.restarts(settings, context)
        model = build_model(settings["model"], shape, outputs)
        start = model.initialise([generator(seed, "initialisation", point.stream) for seed in seeds])
        start = {name: tensor.to(restarts.x) for name, tensor in start.items()}
        given = {"seeds": seeds, "stream": point.stream, "rows": restarts.train, "start": start}
        trainer = Trainer(model, restarts.x, restarts.y, **given, **training)
        gathered, epochs = GradientCovariance(model), training["epochs"]
        first = min(max(1, round(options["freeze_at"] * epochs)), epochs - 1)
        with torch.no_grad():
            frozen: dict[str, Any] = {}
            for epoch in trainer.epochs(context.progress, keep={"gathered": gathered.kept, "frozen": frozen}):
                if epoch == first:
                    frozen["orders"], frozen["counts"] = _freeze(trainer, gathered, options["steps"], point)
                trainer.epoch(observe=gathered.observe if epoch < first else None)
            orders, counts = frozen["orders"], frozen["counts"]
            found = trainer.finish()
            copies = trainer.copies
            columns: dict[str, Any] = {"seed": np.repeat(seeds, copies)}
            columns["order"] = np.tile(np.repeat(orders, len(counts)), len(seeds))
            columns["frozen"] = np.tile(counts, len(seeds) * len(orders))
            columns["share"] = columns["frozen"] / counts[-1]
            unit = torch.ones_like(restarts.unit) if restarts.classes else restarts.unit
            unit = unit.repeat_interleave(copies)
            train, test = (
                restarts.of(restarts.own(rows if restarts.shared else rows.repeat_interleave(copies, dim=0)))
                for rows in (restarts.train, restarts.test)
            )
            columns["loss"] = (mean_losses(model, found, *train).cpu() * unit).numpy()
            flat = torch.cat([tensor.flatten(1) for tensor in found.values()], dim=1)
            columns["test"] = (quality(model, found, flat, *test).cpu() * unit).numpy()
        return Measurement(
            with_units(
                {"curves": pd.DataFrame(columns).assign(t_0=trainer.step // epochs * first, steps=trainer.step)}, {}
            )
        )

    def restarts(self, settings: Mapping[str, Any], context: Context) -> tuple[Restarts, tuple[int, int, int], int]:
        """Objects of every seed, the shape of one, and the number of outputs."""
        data = context.table()
        split = of_table(data, settings["seeds"], settings["measure"]["test_share"])
        return split, (data.X.shape[1], 1, 1), len(data.classes) or 1

    def figures(self, results: Results) -> Iterator[Figure]:
        """Train loss and quality on the test objects against the share frozen, a column a network."""
        from landscape_cli.plotting.curves import interval_band
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

        curves = results.frames["curves"]
        networks = [name for name in (LINEAR, NETWORK) if name in set(curves["network"])]
        name = self.config.name.removeprefix("freezing_")
        about = next(iter(results.sources.values())).title if results.sources else name
        drawing, axes = new_figure(2, len(networks), FULL_WIDTH, 2.2)
        for column, network in enumerate(networks):
            mine = curves[curves["network"] == network]
            for ax, value in zip(axes[:, column], ("loss", "test"), strict=True):
                for order in LABELS:
                    table = mine[mine["order"] == order].pivot(index="seed", columns="share", values=value)
                    look = {"linestyle": STYLES[order][1], "label": LABELS[order]}
                    interval_band(ax, 100 * table.columns.to_numpy(), table.to_numpy(), STYLES[order][0], **look)
                ax.set(xlim=(0, 100))
            axes[0, column].set(title="linear model" if network == LINEAR else _words(self.config.model))
            axes[1, column].set(xlabel="parameters frozen, %")
        for ax in axes[1] if self.classes(results) else ():
            low, high = ax.get_ylim()
            ax.set_ylim(max(low, 0), min(high, 1.02))
        axes[0, 0].set_ylabel("train loss")
        axes[1, 0].set_ylabel("accuracy" if self.classes(results) else "mean squared error")
        drawing.align_ylabels(axes[:, 0])
        titled_legend(drawing, f"Training with parameters frozen after $t_0$ steps, {about}", axes[0, 0], 3)
        steps = " and ".join(dict.fromkeys(f"{row.t_0} of {row.steps}" for row in curves.itertuples()))
        note = (
            f"$t_0$: {steps} steps, open in the text. "
            f"{curves['seed'].nunique()} restarts; lines: means, bands: 95 % intervals of the mean. At 100 % the loss "
            "is that of step $t_0$. Lower row: on the test objects."
        )
        yield Figure(self.config.name, drawing, f"Quality against the share of parameters frozen, {about}.", note)

    def tables(self, results: Results) -> Iterator[Table]:
        """Means over restarts at every share."""
        frame = results.frames["curves"].groupby(["network", "order", "share"], sort=False)[["loss", "test"]]
        rows = frame.agg(["mean", "std"])
        rows.columns = ["_".join(column) for column in rows.columns]
        kind = "accuracy" if self.classes(results) else "mean squared error"
        caption = f"Train loss and {kind} on the test objects after training with a share of the parameters frozen."
        yield Table(self.config.name, rows.reset_index(), caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Judge whether small gradient variance says which parameters can be frozen."""
        curves = results.frames["curves"]
        for network in (LINEAR, NETWORK):
            mine = curves[curves["network"] == network]
            if mine.empty:
                continue
            losses = mine[mine["share"].between(0, 1, inclusive="neither")]
            if losses.empty:
                continue  # too few parameters to freeze some
            means = losses.groupby(["seed", "order"])["loss"].mean().unstack()
            ends = mine[mine["order"] == CHANCE].pivot(index="seed", columns="share", values="loss")
            whole = ends[1.0] - ends[0.0]  # what training after t_0 gained
            if not whole.mean() > 0:
                continue
            for other, claim in (
                (CHANCE, "is frozen at a smaller price than a random choice"),
                (MOST, "is frozen at a smaller price than those of the largest variance"),
            ):
                found = mean_interval(((means[other] - means[LEAST]) / whole.mean()).to_numpy())
                yield Verdict(
                    claim=f"{network}: what has the smallest gradient variance {claim}",
                    source="thesis 4.1, essay 3.1" if other == CHANCE else "what the order means; not in the text",
                    statistic="mean over shares of the difference in train loss, in parts of what training after t_0 "
                    "gains; to be positive",
                    verdict=sign_verdict(found, 1),
                    effect=found.mean,
                    low=found.low,
                    high=found.high,
                )

    def classes(self, results: Results) -> bool:
        """Whether quality is an accuracy."""
        sources = list(results.sources.values())
        if sources:
            return getattr(sources[0], "task", "classification") == "classification"
        return bool(results.frames["curves"]["test"].max() <= 1)


class ImageFreezing(Freezing):
    """The same for a network on images."""

    Options = ImageFreezingOptions
    data = "images"

    def restarts(self, settings: Mapping[str, Any], context: Context) -> tuple[Restarts, tuple[int, int, int], int]:
        """The data set's own train and test objects, for every seed."""
        data = context.images()
        return of_images(data, settings["seeds"]), data.shape, data.source.classes


def _freeze(trainer: Any, gathered: Any, steps: int, point: Point) -> tuple[list[str], np.ndarray]:
    """Branch a trainer into every order and share; orders, and how many parameters are frozen."""
    import torch

    from landscape_cli.curvature.stacked import unflatten
    from landscape_cli.rng import generator

    variances: torch.Tensor = gathered.variances.cpu()
    networks, size = variances.shape
    counts = np.unique(np.linspace(0, size, steps + 1).round().astype(int))
    drawn = torch.stack(
        [torch.rand(size, generator=generator(s, "order", point.stream)) for s in point.settings["seeds"]]
    )
    orders = {LEAST: variances, CHANCE: drawn, MOST: -variances}
    free = torch.ones(networks, len(orders), len(counts), size, dtype=torch.bool)
    for number, scores in enumerate(orders.values()):
        places = scores.argsort(dim=1, stable=True).argsort(dim=1)
        free[:, number] = places[:, None] >= torch.from_numpy(counts)[:, None]
    trainer.branch(len(orders) * len(counts))
    masks = unflatten(free.view(-1, size), trainer.parameters)
    trainer.free = {name: mask.to(trainer.x.device) for name, mask in masks.items()}
    return list(orders), counts


def _words(model: Any) -> str:
    widths = getattr(model, "hidden", None)
    if widths is None:
        return f"$h={model.hidden_size}$, $L={model.num_layers}$"
    return f"network, {'-'.join(map(str, widths))} hidden neurons"
