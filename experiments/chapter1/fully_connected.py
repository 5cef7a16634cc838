"""Figs 1.3 to 1.6: fully connected nets; left hidden size h at fixed L, right layers L at fixed h."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from experiments.chapter1.loss_difference import alive, end_values
from experiments.chapter1.sweep import Sweep
from experiments.reference import published_curves
from landscape_cli.experiment import Figure, Point, Results, Table, Verdict, without_unused
from landscape_cli.statistics import equivalence_verdict, log_log_slope, mean_interval, sign_verdict

SYMBOLS = {"hidden_size": "h", "num_layers": "L"}
TRENDS = (
    ("num_layers", 1, "adding more layers leads to a larger loss difference"),
    ("hidden_size", -1, "a larger hidden size leads to a smaller loss difference"),
)
PUBLISHED = {
    "dataset": "mnist",
    "objects": 10000,
    "normalisation": "symmetric",
    "bias": False,
    "smoothing": 0.99,
    "epochs": 10,
    "batch_size": 64,
    "learning_rate": 1e-3,
}
PUBLISHED_K = 9990  # where the published curves end
FEATURES, PIXELS = "features", "pixels"  # what a network was trained on
TOLERANCE = 0.3  # of an end value, for hidden sizes from 8 on


class FullyConnected(Sweep):
    """Curves of nets that differ in width and depth, on pixels or on features.

    On features the same nets are trained on the pixels too, to compare their order; those points are shared with the
    experiments on pixels.
    """

    optional = frozenset({"features"})
    symbols = SYMBOLS

    @property
    def what(self) -> str:
        """What is classified."""
        return "raw pixels" if self.config.features is None else "extracted image features"

    def points(self) -> list[Point]:
        """One point a data set and network, on features another one on pixels."""
        points = super().points()
        if self.config.features is None:
            return points
        both = {FEATURES: points, PIXELS: [_on_pixels(point) for point in points]}
        return [
            Point.of({"inputs": inputs, **point.coordinates}, point.settings)
            for inputs, points in both.items()
            for point in points
        ]

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw one row a data set, left hidden size, right layers."""
        return super().figures(_of(results, FEATURES))

    def tables(self, results: Results) -> Iterator[Table]:
        """End values of every point, and the published curves or those on pixels beside ours."""
        main, published = _of(results, FEATURES), self.published(results)
        keys = ["dataset", *self.axes]
        table, caption, formats = self.end_table(main, PUBLISHED_K if published is not None else None)
        if published is not None:
            end = published[published["k"] == PUBLISHED_K].drop(columns="k").rename(columns={"value": "published"})
            table = table.merge(end, on=self.axes, how="left")
            table["ratio"] = table["ema"] / table["published"]
            caption += " Beside it the published value (one seed)."
            formats |= {"published": ".3g", "ratio": ".3f"}
            yield self._curve_table(alive(main), published)
        if main is not results:
            pixels = self.end_table(_of(results, PIXELS))[0].rename(columns={"ema": "pixels"})
            table = table.merge(pixels[[*keys, "pixels"]], on=keys, how="left")
            caption += " Beside it the value on pixels."
            formats |= {"pixels": ".3g"}
        yield Table(f"end_values_{self.config.name}", table, caption, formats)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Trends in h and L, the 1/k decay, the agreement with the published end values, or with the pixels' order."""
        main, published = _of(results, FEATURES), self.published(results)
        curves = alive(main)
        several = curves["dataset"].nunique() > 1
        k = PUBLISHED_K if published is not None else None
        for dataset in curves["dataset"].unique():
            own = curves[curves["dataset"] == dataset]
            prefix = f"{dataset}: " if several else ""
            ends = end_values(own, self.axes, k)
            for axis, sign, sentence in TRENDS:
                if axis in self.axes:
                    panel = next(panel for panel in self.panels() if panel.axis == axis)
                    source = "thesis 1.4.1, " + ("Fig 1.3 and 1.5" if main is results else "Fig 1.4 and 1.6")
                    trend = self.trend_claim(main, ends, panel, dataset, sign, prefix + sentence, source)
                    yield from (replace(v, published=self._published_slope(published, axis)) for v in trend)
            if main is not results:
                yield from self._same_order(ends, alive(_of(results, PIXELS)), dataset, prefix)
            yield from self.decay_claim(own, prefix)
        if published is not None:
            yield from self._agreement(end_values(curves, self.axes, k), published)

    def _curve_table(self, curves: pd.DataFrame, published: pd.DataFrame) -> Table:
        means = curves.groupby([*self.axes, "k"])["ema"].agg(["mean", "min", "max"]).reset_index()
        table = published.merge(means, on=[*self.axes, "k"], how="inner").rename(columns={"value": "published"})
        table["ratio"] = table["mean"] / table["published"]
        caption = (
            "Published curves (one seed) beside ours: moving average of the loss difference, mean and range over seeds."
        )
        formats = dict.fromkeys(("published", "mean", "min", "max"), ".3g") | {"ratio": ".3f"}
        return Table(f"published_{self.config.name}", table, caption, formats)

    def _same_order(self, ends: pd.DataFrame, pixels: pd.DataFrame, dataset: str, prefix: str) -> Iterator[Verdict]:
        """Test that networks are in the same order on features and on pixels."""
        from scipy.stats import kendalltau

        pixel_ends = end_values(pixels[pixels["dataset"] == dataset], self.axes)
        paired = ends.merge(pixel_ends, on=["dataset", *self.axes, "seed"], suffixes=("", "_pixels"))
        groups = [group for _, group in paired.groupby("seed") if len(group) >= 3]
        if not groups:
            return
        tau = mean_interval([kendalltau(group["ema"], group["ema_pixels"]).statistic for group in groups])
        yield Verdict(
            claim=prefix + "the results on features agree with those on pixels",
            source="thesis 1.4.1, Fig 1.4",
            statistic="Kendall's tau between the end values on features and on pixels, over the networks",
            verdict=sign_verdict(tau, 1),
            effect=tau.mean,
            low=tau.low,
            high=tau.high,
            note=f"{paired.groupby(self.axes).ngroups} networks, one tau a seed of {len(groups)}; 1: the same order, "
            "-1: reversed",
        )

    def _agreement(self, ends: pd.DataFrame, published: pd.DataFrame) -> Iterator[Verdict]:
        end = published[published["k"] == PUBLISHED_K].drop(columns="k")
        paired = ends.merge(end, on=self.axes)
        left_out = paired[paired["hidden_size"] < 8]
        paired = paired[paired["hidden_size"] >= 8]
        if paired.empty:
            return
        ratios = {
            point: mean_interval(group["ema"] / group["value"])
            for point, group in paired.groupby(self.axes, sort=False)
        }
        worst = max(ratios, key=lambda point: abs(ratios[point].mean - 1))
        named = ", ".join(f"{self.symbol(a)}={v}" for a, v in zip(self.axes, worst, strict=True))
        interval = ratios[worst]
        within = sum(abs(ratio.mean - 1) <= TOLERANCE for ratio in ratios.values())
        others = [
            f"not judged: {', '.join(f'{self.symbol(a)}={v}' for a, v in zip(self.axes, point, strict=True))}, "
            f"ratio {(group['ema'] / group['value']).mean():.2f}"
            for point, group in left_out.groupby(self.axes, sort=False)
        ]
        yield Verdict(
            claim="end values of Fig 1.3, for h >= 8",
            source="the published curves (one seed each)",
            statistic=f"our mean over the published value, where it is farthest from 1; to lie within {TOLERANCE:.0%}",
            verdict=equivalence_verdict(interval, 1 - TOLERANCE, 1 + TOLERANCE),
            effect=interval.mean,
            low=interval.low,
            high=interval.high,
            published=1.0,
            note="; ".join([f"at {named}; {within} of {len(ratios)} means lie within {TOLERANCE:.0%}", *others]),
        )

    def published(self, results: Results) -> pd.DataFrame | None:
        """The published curves, if these results have their settings and axes."""
        if set(self.axes) != set(SYMBOLS) or self.config.features is not None:
            return None
        for settings in (point.settings for point in results.points):
            found = {
                "dataset": settings["dataset"]["name"],
                "objects": settings["dataset"]["objects"],
                "normalisation": settings["dataset"]["normalisation"],
                "bias": settings["model"]["bias"],
                "smoothing": settings["measure"]["smoothing"],
                **without_unused(settings["training"]),
            }
            if found != PUBLISHED:
                return None
        return published_curves(self.config.name)

    def _published_slope(self, published: pd.DataFrame | None, axis: str) -> float | None:
        if published is None:
            return None
        panel = next(panel for panel in self.panels() if panel.axis == axis)
        end = self.select(published[published["k"] == PUBLISHED_K].assign(dataset=""), panel, "")
        if end[axis].nunique() < 2:
            return None
        return float(log_log_slope(end[axis].to_numpy(), end["value"].to_numpy()))


def _on_pixels(point: Point) -> Point:
    """The same network, trained on the objects themselves."""
    settings = {name: node for name, node in point.settings.items() if name != "features"}
    return Point.of(point.coordinates, settings)


def _of(results: Results, inputs: str) -> Results:
    """Only the networks on features or on pixels, where there are both."""
    if "inputs" not in results.frames["networks"]:
        return results
    frames = {name: frame[frame["inputs"] == inputs].drop(columns="inputs") for name, frame in results.frames.items()}
    return replace(results, frames=frames)
