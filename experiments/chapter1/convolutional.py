"""Figs 1.7 to 1.10: convolutional nets that differ in layers, kernel, channels, or the place of a pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import alive, end_values
from experiments.chapter1.sweep import Panel, Sweep, hidden, start_up
from landscape_cli.experiment import INCONCLUSIVE, Point, Results, Verdict
from landscape_cli.statistics import Interval, sign_verdict, turning

SYMBOLS = {"num_layers": "L", "kernel_size": "k_{conv}", "channels": "C", "position": "p", "pooling": "pooling"}
TURN = 0.05  # a rise and a fall of 5 % each are the least that is called a turn
FIRST_K = 10000  # where the thesis's figures begin
NO_POOLING = "none"
# Axis, whether it is monotone, the sentence, its source.
SHAPES = (
    ("num_layers", False, "the dependence on the number of layers is non-monotone", "Fig 1.7"),
    ("kernel_size", False, "the dependence on the kernel size is non-monotone", "Fig 1.8"),
    ("channels", True, "the dependence on the number of channels is monotone", "Fig 1.9"),
    ("position", True, "the dependence on the pooling position is monotone", "Fig 1.10"),
)
# Axis, sign, the sentence, its source.
TRENDS = (
    ("num_layers", 1, "with more layers the loss difference grows", "poster, number of layers"),
    ("kernel_size", 1, "with a larger kernel the loss difference grows", "poster, kernel size"),
    ("channels", 1, "with more filters the loss difference grows", "poster, hypothesis"),
    ("channels", -1, "with more channels the loss difference is smaller", "poster, number of filters"),
)


class Convolutional(Sweep):
    """Curves of convolutional nets on pixels.

    The thesis's text says ReLU after every layer; the published code has none after the last convolution, but where
    the pooling's place varies. The captions of the thesis and the poster contradict each other: both are tested.
    """

    symbols = SYMBOLS
    threads = None
    threads_run_tasks = True  # side by side without waiting for each other, which stalls beside another process

    def points(self) -> list[Point]:
        """One point a data set and network; without a pooling its kind does not matter."""
        points = []
        for point in super().points():
            coordinates, settings = dict(point.coordinates), dict(point.settings)
            if settings["model"]["position"] == 0:
                settings["model"] = {**settings["model"], "pooling": "max"}
                if "pooling" in coordinates:
                    coordinates["pooling"] = NO_POOLING
            points.append(Point.of(coordinates, settings))
        return list(dict.fromkeys(points))

    def panels(self) -> list[Panel]:
        """One panel an axis; one a kind of pooling where both are there."""
        if set(self.axes) == {"pooling", "position"}:
            return [Panel("position", {"pooling": kind}) for kind in self.config.grid["pooling"]]
        return super().panels()

    def select(self, frame: pd.DataFrame, panel: Panel, dataset: str) -> pd.DataFrame:
        """Rows of a panel; the network without a pooling belongs to every kind."""
        if "pooling" not in panel.fixed:
            return super().select(frame, panel, dataset)
        others = {axis: value for axis, value in panel.fixed.items() if axis != "pooling"}
        frame = super().select(frame, Panel(panel.axis, others), dataset)
        return frame[frame["pooling"].isin([panel.fixed["pooling"], NO_POOLING])]

    def panel_title(self, panel: Panel, name: str) -> str:
        """Name the kind of pooling; elsewhere what the other panels of the sweep do."""
        pooling = panel.fixed.get("pooling")
        if panel.fixed.keys() - {"pooling"}:
            return super().panel_title(panel, name)
        model = self.config.model
        others = {"num_layers": model.num_layers, "kernel_size": model.kernel_size, "channels": model.channels}
        fixed = ", ".join(f"${self.symbol(axis)}={value}$" for axis, value in others.items() if axis != panel.axis)
        return f"{name}, {fixed}" + (f": {pooling} pooling" if pooling else "")

    def value_label(self, axis: str, value: Any) -> str:
        """Label of one curve."""
        if axis == "position":
            return "no pooling" if value == 0 else f"after {value}"
        return super().value_label(axis, value)

    def first_k(self, last: int) -> int:
        """Where the thesis's figures begin; of a curve that is too short for that, after a fifth."""
        return FIRST_K if last >= 1.5 * FIRST_K else max(1, last // 5)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Monotone or not (thesis), growing or falling (poster), and the 1/k decay."""
        curves = alive(results)
        several = curves["dataset"].nunique() > 1
        for dataset in curves["dataset"].unique():
            own = curves[curves["dataset"] == dataset]
            ends = end_values(own, self.axes)
            prefix = f"{dataset}: " if several else ""
            for panel in self.panels():
                kind = f"{panel.fixed['pooling']} pooling: " if panel.fixed.keys() == {"pooling"} else ""
                for axis, monotone, sentence, source in SHAPES:
                    if axis == panel.axis:
                        claim = prefix + kind + sentence
                        yield from self._shape_claim(ends, panel, dataset, monotone, claim, f"thesis, {source}")
                for axis, sign, sentence, source in TRENDS:
                    if axis == panel.axis:
                        claim = prefix + kind + sentence
                        yield from self.trend_claim(results, ends, panel, dataset, sign, claim, source)
            yield from self.decay_claim(own, prefix)

    def _shape_claim(
        self, ends: pd.DataFrame, panel: Panel, dataset: str, monotone: bool, sentence: str, source: str
    ) -> Iterator[Verdict]:
        values = self.select(ends, panel, dataset)
        values = values[values[panel.axis] > 0]
        groups = {value: np.log(group["ema"].to_numpy()) for value, group in values.groupby(panel.axis)}
        symbol = self.plain(panel.axis)
        if any(len(group) > 1 for group in groups.values()):
            single = [value for value, group in groups.items() if len(group) == 1]
            groups = {value: group for value, group in groups.items() if value not in single}
        else:
            single = []
        means = ", ".join(f"{value}: {np.exp(group.mean()):.3g}" for value, group in groups.items())
        notes = [f"simultaneous interval over all pairs; geometric means {means}", *start_up(values)]
        if single:
            notes.append(f"one living network at {symbol}={', '.join(map(str, single))}, left out")
        turn = Interval(math.nan, -math.inf, math.inf)
        if len(groups) >= 3:
            turn = turning(list(groups.values()))
        else:
            notes = [f"it takes three values of {symbol}, and there are {len(groups)}"]
        low, high = turn.low - TURN, turn.high - TURN
        verdict = sign_verdict(Interval(turn.mean - TURN, low, high), -1 if monotone else 1)
        yield Verdict(
            claim=sentence,
            source=source,
            statistic="the smaller of the largest rise and the largest fall of log(end value) between two values of "
            f"{symbol}; to lie {'below' if monotone else 'above'} {TURN:g}",
            verdict=INCONCLUSIVE if len(values) and hidden(values) else verdict,
            effect=turn.mean,
            low=turn.low,
            high=turn.high,
            note="; ".join(notes),
        )

    def _note(self, results: Results) -> str:
        """Add what the titles do not say of the networks."""
        model = self.config.model
        parts = [f"{'One' if model.kind == 'conv1d' else 'Two'}-dimensional convolutions"]
        parts += ["no biases"] if not model.bias else []
        parts += ["ReLU after the last one too"] if model.relu_after_last else []
        parts += [f"head {', '.join(map(str, model.head))}"] if model.head else []
        if "position" not in self.axes and model.position:
            parts.append(f"{model.pooling} pooling after {model.position}")
        return f"{', '.join(parts)}. {super()._note(results)}"
