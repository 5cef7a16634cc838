"""Figs 3.4 to 3.7, Table 3.4: D- and M-sufficiency, what the loss on all objects does when a fit sees k of them.

As defined, M(k) is the change from k to k + 1 objects, estimated with samples of k + 1 that hold those of k. As
published, it is the change to the next size of a grid, between independent samples, and so mostly their noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.chapter3 import likelihood_claims, likelihood_tables
from experiments.chapter3.likelihood_figures import functions, thresholds
from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED

if TYPE_CHECKING:
    from landscape_cli.samplesize.design import Design

RAW, STANDARDISED = "raw", "standardised"


@dataclass
class LikelihoodOptions:
    """Which loss of which fits."""

    variant: str = bounded(AS_DEFINED, choices=(AS_DEFINED, AS_PUBLISHED))
    resamples: int = bounded(1000, minimum=2)  # B of every size
    sizes: int = bounded(100, minimum=3)  # k, evenly spaced from one more than there are features to all objects
    first: int | None = bounded(None, minimum=1)  # columns, one less than the first size; null: those that there are
    loss: str = bounded("log_likelihood", choices=("log_likelihood", "mean_square"))  # of all objects; an object's
    features: str = bounded(STANDARDISED, choices=(RAW, STANDARDISED))  # raw ones get no constant
    noise: float = bounded(1.0, above=0)  # σ² of the likelihood
    ridge: float = bounded(0.01, above=0)  # of the logistic fits


class Likelihood(Grid):
    """D(k) and M(k) of linear and logistic regressions, by bootstrap."""

    Options = LikelihoodOptions
    uses = frozenset({"dataset", "seeds"})
    data = "table"
    threads_run_tasks = True

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``table`` (one row) and ``curves`` (seed, k)."""
        from threadpoolctl import threadpool_limits

        from landscape_cli.parallel import each
        from landscape_cli.rng import numpy_generator
        from landscape_cli.samplesize.likelihood import loss_curve

        options, data = point.settings["measure"], context.table()
        classes = len(np.unique(data.y))
        if data.source.task == "classification" and classes > 2:
            raise BadInput(f"dataset.target: {classes} classes; allowed: two, or numbers")
        design = _design(data, options["features"])
        first = (options["first"] or design.features - (options["features"] == STANDARDISED)) + 1
        if first >= design.size - 1:
            raise BadInput(
                f"dataset: {design.size} objects; allowed: more than {first + 1}, the first size and one more"
            )
        sizes = np.unique(np.linspace(first, design.size, options["sizes"]).astype(int))
        nested = options["variant"] == AS_DEFINED
        asked = {name: options[name] for name in ("resamples", "loss", "noise", "ridge")}

        def follow(seed: int) -> pd.DataFrame:
            random = numpy_generator(seed, "bootstrap", point.settings["dataset"]["checksum"])
            found = loss_curve(design, sizes, random=random, nested=nested, **asked)
            return pd.DataFrame({"k": sizes, **{n: v for n, v in vars(found).items() if n != "sizes"}}).assign(
                seed=seed
            )

        with threadpool_limits(1, user_api="blas"):
            curves = each(follow, point.settings["seeds"])
        facts = {"objects": design.size, "columns": len(data.features), "task": data.source.task, "first": first}
        loss = "nats" if options["loss"] == "log_likelihood" else "target²"
        squared = "nats²" if loss == "nats" else "target⁴"
        units = {"k": "objects", **dict.fromkeys(("variance", "variance_error"), squared)}
        units |= dict.fromkeys(("mean", "change", "change_error", "independent_error"), loss)
        frames = {"table": pd.DataFrame([facts]), "curves": pd.concat(curves, ignore_index=True)}
        return Measurement(with_units(frames, units))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Fig 3.4, 3.5 or 3.6."""
        number = self.config.thesis.removeprefix("figure ").replace(".", "_")
        yield functions(results, f"fig_{number}_{self.config.name}")

    def tables(self, results: Results) -> Iterator[Table]:
        """Sizes at which the functions are half their first value."""
        yield likelihood_tables.halving(results, self.config.name)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """The functions tend to zero."""
        yield from likelihood_claims.sentences(results)


class LikelihoodThresholds(Likelihood):
    """Fig 3.7: the sufficient size of several data sets against the threshold."""

    stored_as = "Likelihood"

    def figures(self, results: Results) -> Iterator[Figure]:
        """One picture of all."""
        yield thresholds(results, f"fig_3_7_{self.config.name}")


class LikelihoodTable(Likelihood):
    """Table 3.4: the sizes that halve D and M on many data sets."""

    stored_as = "Likelihood"

    def figures(self, results: Results) -> Iterator[Figure]:
        """None: it is a table."""
        return iter(())

    def tables(self, results: Results) -> Iterator[Table]:
        """Table 3.4."""
        yield likelihood_tables.halving(results, f"table_3_4_{self.config.name}")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """The columns of the table."""
        yield from likelihood_claims.rows(results)


def _design(data: Any, features: str) -> Design:
    """The table as it is, or with standardised numbers (0 and 1 of encoded text are left) and a constant."""
    from landscape_cli.samplesize.design import Design

    X, numbers = data.X, np.arange(len(data.y))
    if features == RAW:
        return Design(X, data.y, data.source.task, numbers)
    encoded = np.array(["=" in name for name in data.features])
    spread = X.std(axis=0)
    scaled = np.where(encoded, X, (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1))
    return Design(np.column_stack([scaled, np.ones(len(X))]), data.y, data.source.task, numbers)
