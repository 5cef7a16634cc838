"""Fig 1.11: how the mean loss of a transformer settles as batches are added one by one, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import alive, dead_networks, title
from experiments.grid import Grid, trained
from landscape_cli.config import bounded
from landscape_cli.data.locate import Source
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.statistics import equivalence_verdict, mean_interval, sign_verdict

UNITS = {"k": "objects", "difference": "nats", "ema": "nats", "mean_loss": "nats"}
PASS = 3  # times as many operations as a forward pass: a training step's


@dataclass
class BatchDifferenceOptions:
    """How batches are added."""

    permutations: int = bounded(20, minimum=1)  # orderings averaged over, a network
    passes: int = bounded(20, minimum=1)  # over the train objects, each in an order of its own
    batch_size: int = bounded(128, minimum=1)  # objects added at once
    smoothing: float = bounded(0.9, minimum=0, below=1)  # a of the moving average


class BatchDifference(Grid):
    """At θ̂, L_j = mean of the first j batches' mean losses; d_j = |L_{j+1} - L_j| against the objects seen.

    After the first pass the same objects come again in another order, so L_j goes on settling towards the mean over
    the train set and d_j goes on falling; nothing new is learned about other objects.
    """

    Options = BatchDifferenceOptions
    min_objects = 3  # a line needs two differences, these three batches

    def points(self) -> list[Point]:
        """One point a data set."""
        if self.axes:
            raise BadInput(f"grid.{self.axes[0]}: one network is drawn; allowed: grid.dataset")
        return super().points()

    def operations(self, point: Point, source: Source) -> float:
        """Floating-point operations of the training of all seeds."""
        from landscape_cli.models import build_model, forward_operations

        settings = point.settings
        model = build_model(settings["model"], source.shape, source.classes)
        shown = settings["training"]["epochs"] * settings["dataset"]["objects"] * len(settings["seeds"])
        return PASS * shown * forward_operations(model, source.shape)

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``curves`` (a row a seed and added batch; k: objects seen with it) and ``networks`` (a row a seed)."""
        import torch

        from landscape_cli.convergence.differences import DifferenceStream, exponential_moving_average
        from landscape_cli.convergence.losses import object_losses
        from landscape_cli.rng import generator

        settings, data = point.settings, context.images()
        seeds, options = settings["seeds"], settings["measure"]
        model, parameters = trained(point, context)
        x, y = data.x_train, data.y_train
        train = object_losses(model, parameters, x, y)
        test = object_losses(model, parameters, data.x_test, data.y_test) if len(data.x_test) else None
        size, curves = _batch(point), []
        for s, seed in enumerate(seeds):
            orders = generator(seed, "orderings", point.stream)
            losses, total = train.losses[s].cpu(), 0.0
            for _ in range(options["permutations"]):
                batches = [
                    batch
                    for _ in range(options["passes"])
                    for batch in losses[torch.randperm(len(losses), generator=orders)].split(size)
                ]
                means = torch.stack([batch.mean() for batch in batches])
                total = total + DifferenceStream(1).update(means[None])[0]
            difference = total / options["permutations"]
            seen = [len(batch) for batch in batches]
            average = exponential_moving_average(difference, options["smoothing"])
            columns = {
                "seed": seed,
                "k": np.cumsum(seen)[1:],
                "difference": difference.numpy(),
                "ema": average.numpy(),
            }
            curves.append(pd.DataFrame(columns))
        networks = pd.DataFrame(
            {
                "seed": seeds,
                "mean_loss": train.losses.mean(dim=1).cpu().numpy(),
                "train_accuracy": train.correct.cpu().numpy(),
                "test_accuracy": test.correct.cpu().numpy() if test else np.nan,
                "dead": train.constant.cpu().numpy(),
            }
        )
        frames = {"curves": pd.concat(curves, ignore_index=True), "networks": networks}
        return Measurement(with_units(frames, UNITS), parameters=parameters)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the curves with the fitted line and guides of slope -1."""
        from landscape_cli.plotting.curves import band
        from landscape_cli.plotting.style import SINGLE_WIDTH, new_figure, ordered_colours

        curves, networks = alive(results), results.frames["networks"]
        datasets = list(curves["dataset"].unique())
        if not datasets:
            return
        drawing, axes = new_figure(1, len(datasets), SINGLE_WIDTH * len(datasets), 3.3)
        for ax, dataset in zip(axes[0], datasets, strict=True):
            own = curves[curves["dataset"] == dataset]
            table = {name: own.pivot(index="seed", columns="k", values=name) for name in ("difference", "ema")}
            k, raw, average = table["ema"].columns.to_numpy(), table["difference"], table["ema"].to_numpy()
            colour = ordered_colours(3)[1]
            ax.plot(k, raw.iloc[0], color="0.75", linewidth=0.4, label=f"$\\bar d_j$, seed {raw.index[0]}", zorder=1)
            band(ax, k, average, colour, label=self._average_label(len(average)), zorder=3)
            slopes, height = fitted_lines(own)
            slope = mean_interval(slopes)
            ends = np.array([k[0], k[-1]])
            fitted = np.exp(height) * ends**slope.mean
            label = f"fitted line, slope {slope.mean:.3f} [{slope.low:.3f}, {slope.high:.3f}]"
            ax.plot(ends, fitted, color="0.35", linewidth=1, linestyle=(0, (5, 1.5)), label=label, zorder=4)
            for factor in (0.1, 10):
                guide = factor * fitted[0] * ends[0] / ends
                ax.plot(ends, guide, color="0.6", linewidth=0.6, linestyle=(0, (1, 2)), zorder=2)
            ax.plot([], [], color="0.6", linewidth=0.6, linestyle=(0, (1, 2)), label="slope -1")
            ax.set(xscale="log", yscale="log", xlabel="objects seen")
            ax.set_xlim(k[0], k[-1])
            low, high = own["ema"].min(), own["difference"].max()
            ax.set_ylim(low / 4, high * 2)
            reached = networks[networks["dataset"] == dataset]["test_accuracy"]
            objects = next(
                p.settings["dataset"]["objects"] for p in results.points if p.coordinates["dataset"] == dataset
            )
            ax.set_title(f"{title(results, dataset)}, {objects} objects: test accuracy {_range(reached)}")
            ax.legend(loc="lower left", fontsize=6.5, frameon=True, framealpha=1, edgecolor="none")
        axes[0, 0].set_ylabel(r"$|\mathcal{L}_{j+1}(\hat\theta)-\mathcal{L}_j(\hat\theta)|$, nats")
        number = (self.config.thesis or "").removeprefix("figure ").replace(".", "_")
        name = f"fig_{number}_{self.config.name}" if number else self.config.name
        caption = "Absolute loss difference of a transformer against the number of objects, on a log-log scale."
        yield Figure(name, drawing, caption, self._note(results))

    def tables(self, results: Results) -> Iterator[Table]:
        """One row a network."""
        caption = "Trained transformers: mean loss and accuracies."
        yield Table(f"networks_{self.config.name}", results.frames["networks"], caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test the accuracy that the thesis trains to, and the slope of its trend line."""
        networks = results.frames["networks"]
        several = networks["dataset"].nunique() > 1
        for dataset, own in networks.groupby("dataset", sort=False):
            prefix = f"{title(results, dataset)}: " if several else ""
            curves = alive(results)
            yield from self._claims_of(own, curves[curves["dataset"] == dataset], prefix)

    def _claims_of(self, networks: pd.DataFrame, curves: pd.DataFrame, prefix: str) -> Iterator[Verdict]:
        accuracy = mean_interval(networks["test_accuracy"])
        yield Verdict(
            claim=f"{prefix}the model is trained to more than 50 % validation accuracy",
            source="thesis 1.4.3",
            statistic="test accuracy less 0.5",
            verdict=sign_verdict(type(accuracy)(accuracy.mean - 0.5, accuracy.low - 0.5, accuracy.high - 0.5), 1),
            effect=accuracy.mean - 0.5,
            low=accuracy.low - 0.5,
            high=accuracy.high - 0.5,
            note=f"test accuracies {', '.join(format(value, '.3f') for value in networks['test_accuracy'])}",
        )
        if not curves.empty:
            slope = mean_interval(fitted_lines(curves)[0])
            yield Verdict(
                claim=f"{prefix}the loss difference falls along a line of slope -1 on the log-log scale",
                source="thesis 1.4.3, Fig 1.11",
                statistic="slope of log(mean difference) against log(objects), whole curve; to lie in [-1.05, -0.95]",
                verdict=equivalence_verdict(slope, -1.05, -0.95),
                effect=slope.mean,
                low=slope.low,
                high=slope.high,
                note="at a fixed θ this follows from (1.3) for any losses; it tests the computation, not the network",
            )

    def _average_label(self, seeds: int) -> str:
        what = "mean and range over seeds" if seeds > 1 else "one seed"
        return f"moving average, $a={self.config.measure.smoothing:g}$: {what}"

    def _note(self, results: Results) -> str:
        measure, model = self.config.measure, self.config.model
        dead = dead_networks(results, {})
        note = f"All outputs the same, left out: {'; '.join(dead)}. " if dead else ""
        sizes = f"patch {model.patch_size}, width {model.hidden_size}, {model.num_layers} blocks. "
        network = f"Transformer, {sizes}" if model.kind == "vit" else ""
        batches = " and ".join(dict.fromkeys(str(_batch(point)) for point in results.points))
        return (
            f"{note}{network}{measure.passes} passes over the objects, {batches} at a time, "
            f"mean over {measure.permutations} orderings a network."
        )


def _batch(point: Point) -> int:
    """Objects added at once: at least three batches a pass."""
    settings = point.settings
    return min(settings["measure"]["batch_size"], settings["dataset"]["objects"] // 3)


def fitted_lines(curves: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Least-squares lines through log(difference) against log(k) of one data set's curves.

    Values are first averaged in 40 bins equally wide in log k, so that the many large k do not outweigh the few small.

    Returns
    -------
    Slopes, one a seed, and the mean height at log k = 0.
    """
    edges = np.geomspace(curves["k"].min(), curves["k"].max() + 1, 41)
    lines = []
    for _, seed in curves.assign(bin=np.digitize(curves["k"], edges)).groupby("seed"):
        binned = seed.groupby("bin")[["k", "difference"]].mean()
        lines.append(np.polyfit(np.log(binned["k"]), np.log(binned["difference"]), 1))
    slopes, heights = np.array(lines).T
    return slopes, float(heights.mean())


def _range(values: pd.Series) -> str:
    return f"{values.min():.1%}" if len(values) == 1 else f"{values.min():.1%} to {values.max():.1%}"
