"""Bayesian optimisation of the composite loss's weights (thesis 4.4.3), with and without the Hessian's trace.

A trial grows students with its weights, trains them on all classes and takes the accuracy on train objects that neither
teacher nor student has seen; test objects play no part. Its seeds are none of the comparison's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.chapter4.anti_distillation import ANTI, FLAT, AntiDistillation, AntiDistillationOptions, Students
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict

NAMES = {"loss": "λ1", "teacher": "λ2", "noise": "λ3", "trace": "λ4"}
KINDS = {FLAT: ("loss", "teacher", "noise"), ANTI: ("loss", "teacher", "noise", "trace")}
TITLES = {FLAT: r"$\lambda_4=0$", ANTI: r"all $\lambda$"}


@dataclass
class SearchOptions(AntiDistillationOptions):
    """How long and where the weights are looked for."""

    trials: int = bounded(60, minimum=2)
    limits: list[float] = bounded(factory=lambda: [1e-4, 10.0], above=0)  # of each λ, looked at on a logarithmic scale
    validation_objects: int = bounded(2000, minimum=10)  # train objects behind those of D₂, at most


class AntiDistillationSearch(AntiDistillation):
    """Trials of the tree-structured Parzen estimator, one study without and one with the trace."""

    Options = SearchOptions

    def points(self) -> list[Point]:
        """One point a study."""
        super().points()  # checks
        limits = self.config.measure.limits
        if len(limits) != 2 or limits[0] >= limits[1]:
            raise BadInput(f"measure.limits: {limits}; allowed: two numbers that rise")
        name = self.config.dataset.name
        settings = self.settings(name)
        unused = ("search_sizes", "lambdas", "lambdas_no_trace", "attack", "parameter_noise")
        measure = {key: value for key, value in settings["measure"].items() if key not in unused}
        size, cap = measure["train_size"], self.config.dataset.max_size
        if size is not None and cap is not None:  # the other half judges
            measure["train_size"] = min(size, cap // 2)
        return [
            Point.of({"dataset": name, "study": kind}, {**settings, "measure": {**measure, "initialisations": [kind]}})
            for kind in KINDS
        ]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frame ``trials``: a row a trial."""
        import optuna
        import torch

        options, data = point.settings["measure"], context.images()
        (kind,) = options["initialisations"]
        students = Students(point, data)
        behind = slice(students.size, students.size + options["validation_objects"])
        students.test = (data.x_train[behind], data.y_train[behind])
        if len(students.test[1]) < 10:
            raise BadInput(
                f"measure.train_size: {students.size} of {len(data.x_train)} train objects leave "
                f"{len(students.test[1])} to judge trials by; allowed: ten fewer or less"
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=point.settings["seeds"][0])
        study = optuna.create_study(direction="maximize", sampler=sampler)
        low, high = options["limits"]
        rows = []
        with torch.no_grad():
            students.train_teachers(context)
            for number in context.progress(range(options["trials"]), desc="trials"):
                trial = study.ask()
                asked = {name: trial.suggest_float(name, low, high, log=True) for name in KINDS[kind]}
                values = [asked.get(name, 0.0) for name in NAMES]
                students.options["lambdas"], students.options["lambdas_no_trace"] = values, values[:3]
                _, history = students.train(kind)
                accuracy = float(history[-1].mean())
                study.tell(trial, accuracy)
                rows.append({"trial": number, **dict(zip(NAMES, values, strict=True)), "accuracy": accuracy})
        return Measurement({"trials": pd.DataFrame(rows)})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Accuracy of every trial against each weight."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure

        trials = results.frames["trials"]
        drawing, axes = new_figure(2, 4, FULL_WIDTH, 1.9)
        low, high = trials["accuracy"].min(), trials["accuracy"].max()
        for row, kind in zip(axes, KINDS, strict=True):
            mine = trials[trials["study"] == kind]
            best = mine.loc[mine["accuracy"].idxmax()] if len(mine) else None
            for ax, name in zip(row, NAMES, strict=True):
                if name not in KINDS[kind] or best is None:
                    ax.remove()
                    continue
                ax.scatter(mine[name], mine["accuracy"], s=6, c=mine["trial"], cmap="viridis", linewidths=0)
                ax.plot(best[name], best["accuracy"], "o", markersize=7, markerfacecolor="none", color="#d55e00")
                ax.set(xscale="log", xlabel=f"$\\lambda_{NAMES[name][1]}$", ylim=(low - 0.01, high + 0.01))
            row[0].set_ylabel(f"accuracy, {TITLES[kind]}")
        drawing.suptitle("Weights of the composite loss by Bayesian optimisation", fontsize=8.5)
        note = (
            f"{len(trials) // max(trials['study'].nunique(), 1)} trials a study, dark to bright in their order; "
            "circles: the best. Mean accuracy over seeds on train objects that were not trained on."
        )
        yield Figure(self.config.name, drawing, "Trials of the composite loss's weights.", note)

    def tables(self, results: Results) -> Iterator[Table]:
        """Every trial, and the best one of each study."""
        trials = results.frames["trials"].rename(columns=NAMES)
        caption = "Trials of the composite loss's weights: accuracy on train objects that were not trained on."
        yield Table(f"{self.config.name}_trials", trials, caption)
        best = trials.loc[trials.groupby("study", sort=False)["accuracy"].idxmax()]
        yield Table(self.config.name, best, "The best trial of each study.")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """None: the comparison judges."""
        return iter(())

    def answers(self, results: Results) -> Iterator[str]:
        """The best weights, as options of the comparison."""
        trials: Any = results.frames["trials"]
        for kind, option in ((FLAT, "lambdas_no_trace"), (ANTI, "lambdas")):
            mine = trials[trials["study"] == kind]
            if len(mine):
                best = mine.loc[mine["accuracy"].idxmax()]
                values = ", ".join(f"{best[name]:.3g}" for name in KINDS[kind])
                spread = np.ptp(mine["accuracy"].to_numpy())
                yield f"measure.{option}=[{values}]: {best['accuracy']:.3f}, trials range over {spread:.3f}"
