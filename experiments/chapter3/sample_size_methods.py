"""Figs 3.2, 3.3, Tables 3.1 to 3.3: the nine classical methods of sample size determination (thesis 3.1 to 3.3).

Each method is there as the thesis's text defines it and as its published numbers were computed: a shifted central χ²
for the non-central one, resamples of resamples, overlapping train and test halves, three times the radius in ACC and
ALC, half the Frobenius norm for the posterior's variance, the wrong prior in the utility, the first size at which a
rule holds for the one from which it holds, and m - 1 where it never does.

As defined, expectations over samples D_m are means over subsamples without replacement, which estimate them without
bias; the bootstrap's own interval is over resamples with replacement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.chapter3 import sample_size_claims, sample_size_tables
from experiments.chapter3.sample_size_figures import available_size, statistics
from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED, Thresholds

if TYPE_CHECKING:
    from landscape_cli.samplesize.design import Design
    from landscape_cli.samplesize.rules import Sufficient

UNITS = {"size": "objects", "m_star": "objects", "available": "objects"}


@dataclass
class SampleSizeOptions:
    """What is looked at, and Table 3.3."""

    variant: str = bounded(AS_DEFINED, choices=(AS_DEFINED, AS_PUBLISHED))
    resamples: int = bounded(100, minimum=2)  # B of every size, a seed
    step: int = bounded(5, minimum=1)  # sizes 2n, 2n + step, …
    sizes: int | None = bounded(None, minimum=2)  # at most so many, closer among the small ones; null: all
    available: int = bounded(6, minimum=1)  # available sizes at which m* is looked at; 1: all objects only
    available_sizes: list[int] = bounded(factory=list, minimum=1)  # these in their place
    copies: int = bounded(40, minimum=2)  # bootstrap copies of the table at each, for the interval of m*
    copy_resamples: int = bounded(100, minimum=2)  # B on a copy
    copy_sizes: int = bounded(40, minimum=2)  # sizes on a copy, at most
    shift: float = bounded(0.2, above=0)  # ε of the three tests
    alpha: float = bounded(0.05, above=0, below=0.5)
    beta: float = bounded(0.2, above=0, below=0.5)
    overfitting: float = bounded(0.05, above=0)  # ε of cross-validation, nats
    width: float = bounded(0.5, above=0)  # l of the bootstrap
    variance: float = bounded(0.5, above=0)  # l of APVC
    coverage_radius: float = bounded(0.25, above=0)  # l of ACC
    radius: float = bounded(0.5, above=0)  # l of ALC
    cost: float = bounded(0.005, above=0)  # c of the utility, nats an object
    ridge: float = bounded(0.01, above=0)  # α of both regressions
    part: float = bounded(0.5, above=0, below=1)  # ε of D and M, of their first value
    deviation: float = bounded(0.05, above=0, below=1)  # ε of KL and S, of their last value
    precision: float = bounded(1.0, above=0)  # α of the prior whose posteriors they compare


class SampleSizeMethods(Grid):
    """Statistics of the nine methods along the sample size, m* of each, and how it depends on what is available."""

    Options = SampleSizeOptions
    uses = frozenset({"dataset", "seeds"})
    data = "table"
    threads_run_tasks = True

    def points(self) -> list[Point]:
        """One point a data set and variant."""
        config = self.config
        unfit = [axis for axis in self.axes if axis != "variant"]
        if unfit:
            raise BadInput(f"grid.{unfit[0]}: figures and tables have no place for it; allowed axes: dataset, variant")
        return [
            Point.of({"dataset": name, "variant": variant}, self.settings(name, variant=variant))
            for name in config.grid.get("dataset", [config.dataset.name])
            for variant in config.grid.get("variant", [config.measure.variant])
        ]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``table`` (one row), ``curves`` (method, seed, size), ``sizes`` (method, seed), ``copies``.

        Of all methods, the thesis's own four too, so that comparisons and one's own table share the points.
        """
        from threadpoolctl import threadpool_limits

        from landscape_cli.parallel import each
        from landscape_cli.rng import numpy_generator
        from landscape_cli.samplesize.design import separable, standardised
        from landscape_cli.samplesize.methods import curves, sizes_of_tests
        from landscape_cli.samplesize.resamples import bootstrap_copy, size_grid
        from landscape_cli.samplesize.rules import METHODS, TESTS, sufficient

        options, data = point.settings["measure"], context.table()
        variant, stream = options["variant"], point.settings["dataset"]["checksum"]
        thresholds = Thresholds(**{name: options[name] for name in Thresholds.__dataclass_fields__})
        X, features = _reference_coded(data.X, data.features)
        design = standardised(X, data.y, data.source.task, features)
        published = variant == AS_PUBLISHED
        available = _available(design, options)  # refused before anything is computed
        sizes = size_grid(design, options["step"], published, options["sizes"])
        tested = sizes_of_tests(design, variant, thresholds)

        def answers(
            own: Design, own_sizes: np.ndarray, resamples: int, random: np.random.Generator, side_by_side: bool
        ) -> tuple[dict[str, Any], dict[str, Sufficient]]:
            found = curves(own, METHODS, variant, thresholds, own_sizes, resamples, random, side_by_side)
            own_tests = tested if own is design else sizes_of_tests(own, variant, thresholds)
            rest = {n: sufficient(c, variant) for n, c in found.items() if n not in TESTS}
            return found, own_tests | rest

        curve_rows, size_rows = [], []
        for seed in context.progress(point.settings["seeds"], desc="seeds"):
            random = numpy_generator(seed, "resamples", stream)
            found, sufficiently = answers(design, sizes, options["resamples"], random, True)
            for name, curve in found.items():
                columns = {"size": sizes, "value": curve.values, "error": curve.errors, "separable": curve.separable}
                curve_rows.append(pd.DataFrame({"method": name, "seed": seed, **columns, "threshold": curve.threshold}))
            size_rows += [_row(name, answer) | {"seed": seed} for name, answer in sufficiently.items()]
        frames = {
            "table": pd.DataFrame([_facts(data, design, separable(design))]),
            "curves": pd.concat(curve_rows, ignore_index=True),
            "sizes": pd.DataFrame(size_rows),
        }
        if not published:

            def copied(task: tuple[int, int]) -> list[dict[str, Any]]:
                available, number = task
                random = numpy_generator(number, f"copy of {available}", stream)
                copy = bootstrap_copy(design, available, random)
                grid = size_grid(copy, options["step"], most=options["copy_sizes"])
                rows = answers(copy, grid, options["copy_resamples"], random, False)[1]
                return [_row(name, answer) | {"available": available, "copy": number} for name, answer in rows.items()]

            tasks = [(size, number) for size in available for number in range(options["copies"])]
            rows = []
            with threadpool_limits(1, user_api="blas"):
                for start in context.progress(range(0, len(tasks), 8), desc="copies of the table"):
                    for group in each(copied, tasks[start : start + 8]):
                        rows += group
            frames["copies"] = pd.DataFrame(rows)
        return Measurement(with_units(frames, UNITS))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Figs 3.2 and 3.3 of every data set."""
        if "dataset" in self.config.grid:
            return
        name = self.config.name.removeprefix("sample_size_methods_")
        yield statistics(results, f"fig_3_2_statistics_{name}")
        if "copies" in results.frames:
            yield available_size(results, f"fig_3_3_available_size_{name}")

    def tables(self, results: Results) -> Iterator[Table]:
        """Sufficient sample sizes; over several data sets Tables 3.1 to 3.3."""
        if "dataset" in self.config.grid:
            yield sample_size_tables.datasets(results)
            yield sample_size_tables.sufficient_sizes(results, "table_3_2_sample_size_methods")
            yield sample_size_tables.hyperparameters(self.config.measure)
        else:
            yield sample_size_tables.sufficient_sizes(results, self.config.name)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Judge the text's sentences on one data set, or the rows of Table 3.2 on several."""
        if "dataset" in self.config.grid:
            yield from sample_size_claims.rows(results)
        else:
            yield from sample_size_claims.sentences(results)


def _available(design: Design, options: dict[str, Any]) -> list[int]:
    """Available sizes: of those asked for what is there, or evenly spaced from four times the parameters to all."""
    least, count, asked = 2 * design.features + 1, options["available"], options["available_sizes"]
    there = sorted({size for size in asked if size <= design.size})
    if asked and (not there or min(asked) < least):
        raise BadInput(f"measure.available_sizes: {asked}; allowed: {least} to {design.size}")
    if there:
        return there
    if count == 1:
        return [design.size]
    first = min(4 * design.features, design.size - 1)
    return np.unique(np.linspace(first, design.size, count).round().astype(int)).tolist()


def _reference_coded(X: np.ndarray, features: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Leave out the first value of each text column that was encoded one column a value: the constant stands for it."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(features):
        groups.setdefault(name.rpartition("=")[0] or name, []).append(place)
    first = {places[0] for places in groups.values() if len(places) > 1 and (X[:, places].sum(axis=1) == 1).all()}
    kept = [place for place in range(len(features)) if place not in first]
    return X[:, kept], tuple(features[place] for place in kept)


def _row(name: str, answer: Sufficient) -> dict[str, Any]:
    size = float("nan") if answer.size is None else float(answer.size)
    return {"method": name, "m_star": size, "first": answer.first, "reason": answer.reason}


def _facts(data: Any, design: Design, apart: bool) -> dict[str, Any]:
    return {
        "objects": design.size,
        "features": design.features - 1,
        "dropped": data.source.dropped,
        "task": data.source.task,
        "separable": apart,
    }
