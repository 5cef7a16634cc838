"""D- and M-sufficiency of neural networks, which the thesis names as future work (3.7).

A network is trained on a bootstrap sample of k objects and its mean loss taken on all m. Networks of all sizes and
resamples are trained in one pass: a smaller sample is gone through more often, so that every network takes the same
steps. A resample keeps its initialisation and its minibatch positions at every size, and its larger samples hold its
smaller ones. What is left without any resampling, from initialisation and minibatches alone, is measured beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.samplesize.rules import settled_from
from landscape_cli.statistics import Interval, sign_verdict

INK, OTHER, LIMIT = "#0072b2", "#d55e00", "0.35"


@dataclass
class NetworkLikelihoodOptions:
    """How many samples of which sizes."""

    resamples: int = bounded(40, minimum=3)  # B: networks a size
    sizes: int = bounded(8, minimum=3)  # k, evenly spaced in log k
    first: int = bounded(100, minimum=2)  # the smallest k; at most a tenth of the objects is taken


class NetworkLikelihood(Grid):
    """Mean loss on all objects of networks trained on bootstrap samples, all sizes and resamples at once."""

    Options = NetworkLikelihoodOptions
    uses = frozenset({"dataset", "model", "training"})
    min_objects = 30

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frame ``losses``: a row a size and resample; k = 0 stands for all objects without resampling."""
        import torch

        from landscape_cli.convergence.losses import object_losses
        from landscape_cli.models import build_model
        from landscape_cli.rng import generator
        from landscape_cli.training import fit

        settings, data = point.settings, context.images()
        options, m = settings["measure"], len(data.x_train)
        model = build_model(settings["model"], data.shape, data.source.classes)
        first = min(options["first"], max(m // 10, 2))
        sizes = np.unique(np.geomspace(first, m, options["sizes"]).round().astype(int)).tolist()
        rows, seeds, kinds = [], [], []
        for number in range(options["resamples"]):
            drawn = torch.randint(m, (m,), generator=generator(number, "bootstrap", point.stream))
            rows += [drawn[:size].repeat(-(-m // size))[:m] for size in sizes]
            rows.append(torch.arange(m))
            seeds += [number] * (len(sizes) + 1)
            kinds += [*sizes, 0]
        x, y = data.x_train, data.y_train
        given = {"seeds": seeds, "stream": point.stream, "rows": torch.stack(rows).to(x.device)}
        trained = fit(model, x, y, progress=context.progress, **given, **settings["training"])
        found = object_losses(model, trained, x, y)
        columns = {"resample": seeds, "k": kinds, "loss": found.losses.mean(dim=1).cpu().numpy()}
        frame = pd.DataFrame({**columns, "accuracy": found.correct.cpu().numpy(), "dead": found.constant.cpu().numpy()})
        return Measurement(with_units({"losses": frame}, {"k": "objects", "loss": "nats"}))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Mean loss, D(k) and M(k) with their errors."""
        from matplotlib.ticker import LogLocator, NullFormatter

        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

        curves, floor = _moments(results.frames["losses"])
        drawing, axes = new_figure(1, 3, FULL_WIDTH, 2.7)
        for ax, column, label in zip(
            axes[0],
            ("mean", "variance", "rate"),
            ("mean loss on all objects, nats", "$D(k)$, nats²", "$M(k)$ an object, nats"),
            strict=True,
        ):
            error = 1.96 * curves[f"{column}_error"]
            values = curves[column]
            least = values[values > 0].min() / 3
            ax.plot(curves["k"], values, "o-", color=INK, markersize=3)
            ax.fill_between(curves["k"], np.maximum(values - error, least), values + error, color=INK, alpha=0.15)
            ax.set(
                xscale="log", yscale="log", xlabel="sample size $k$", ylabel=label, xlim=(curves["k"].min() * 0.9, None)
            )
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            ax.tick_params(which="minor", labelsize=6)
        for ax, value in ((axes[0, 0], floor["mean"]), (axes[0, 1], floor["variance"])):
            ax.axhline(value, color=OTHER, linestyle=(0, (5, 1.2)), linewidth=1)
        axes[0, 0].plot([], [], color=INK, marker="o", markersize=3, label="bootstrap samples of $k$")
        axes[0, 0].plot([], [], color=OTHER, linestyle=(0, (5, 1.2)), label="all objects, no resampling")
        titled_legend(drawing, "D- and M-sufficiency of a network", axes[0, 0], 2)
        note = (
            f"{results.frames['losses']['resample'].nunique()} resamples a size; every network takes the same number "
            "of steps. Bands: 95 % of the Monte-Carlo error. Dashed: networks that differ in initialisation and "
            "minibatches only. M: change of the mean loss to the next size, over the objects that came."
        )
        yield Figure(self.config.name, drawing, "D(k) and M(k) of a neural network.", note)

    def tables(self, results: Results) -> Iterator[Table]:
        """The curves, and from where each function is at most half of its first value."""
        curves, floor = _moments(results.frames["losses"])
        sizes = curves["k"].to_numpy()
        rates = curves["rate"].dropna().to_numpy()
        halves = {
            "D": settled_from(sizes, curves["variance"].to_numpy() <= curves["variance"].iloc[0] / 2),
            "M": settled_from(sizes[: len(rates)], rates <= rates[0] / 2),
        }
        words = ", ".join(f"{name}: {size or 'not reached'}" for name, size in halves.items())
        caption = (
            f"Loss on all objects of networks trained on k. Half of the first value is reached at {words}. Without "
            f"resampling the mean loss is {floor['mean']:.4g} nats and its variance {floor['variance']:.3g}."
        )
        yield Table(self.config.name, curves, caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Judge whether D and M fall for a network as they do for a regression."""
        curves, floor = _moments(results.frames["losses"])
        rates = curves.dropna()
        for symbol, column, frame in (("D", "variance", curves), ("M", "rate", rates)):
            first, last = frame.iloc[0], frame.iloc[-1]
            if min(first[column], last[column]) <= 0:
                continue  # networks that are all the same, dead ones: nothing to compare
            ratio = np.log(max(last[column], 1e-300) / max(first[column], 1e-300))
            error = np.hypot(last[f"{column}_error"] / last[column], first[f"{column}_error"] / first[column])
            interval = Interval(float(ratio), float(ratio - 1.96 * error), float(ratio + 1.96 * error))
            yield Verdict(
                claim=f"{symbol}(k) falls as the sample grows, for a network too",
                source="thesis 3.7, future work",
                statistic=f"log of its value at k = {last['k']:.0f} over that at {first['k']:.0f}; to be negative",
                verdict=sign_verdict(interval, -1),
                effect=interval.mean,
                low=interval.low,
                high=interval.high,
                note="interval: Monte-Carlo error"
                + (f"; without resampling D is {floor['variance']:.3g}" if symbol == "D" else ""),
            )


def _moments(losses: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Mean, variance and change an object by size, with standard errors; and those without resampling."""
    table = losses.pivot(index="resample", columns="k", values="loss")
    count = len(table)
    centred = table - table.mean()
    frame = pd.DataFrame(
        {
            "mean": table.mean(),
            "mean_error": table.std() / np.sqrt(count),
            "variance": table.var(),
            "variance_error": np.sqrt(((centred**4).mean() - table.var(ddof=0) ** 2).clip(lower=0) / count),
        }
    )
    floor, frame = frame.loc[0], frame.drop(index=0)
    sizes = frame.index.to_numpy()
    steps = table[sizes].diff(axis=1).iloc[:, 1:] / np.diff(sizes)  # paired: the same resample, grown
    frame["rate"] = np.append(steps.mean().abs().to_numpy(), np.nan)
    frame["rate_error"] = np.append((steps.std() / np.sqrt(count)).to_numpy(), np.nan)
    frame["accuracy"] = losses.groupby("k")["accuracy"].mean().loc[sizes]
    return frame.reset_index(), floor
