"""Experiments that take as long as they are told to, and say what they saw; jobs find them on ``PYTHONPATH``."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from landscape_cli.experiment import Experiment, Figure, Measurement, Point, Table

DIARY = "LANDSCAPE_TEST_DIARY"  # a file to which every measurement adds a line


@dataclass
class ToyOptions:
    """How the toy behaves; ``x`` is the grid's axis."""

    x: int = 0
    seconds: float = 0.0
    rounds: int = 0  # of that many seconds each, with a checkpoint after each
    failing: list[int] = field(default_factory=list)
    visible: bool = False  # whether to measure which devices the job sees


class Toy(Experiment):
    """Squares x, slowly if asked, and fails where it is told to."""

    Options = ToyOptions

    def points(self):
        return [Point.of({"x": x}, {"x": x}) for x in self.config.grid["x"]]

    def measure(self, point, context):
        options, x = self.config.measure, point.settings["x"]
        if DIARY in os.environ:
            with Path(os.environ[DIARY]).open("a") as diary:
                diary.write(f"{x}\n")
        if x in options.failing:
            raise ZeroDivisionError(f"x = {x}")
        total = work_in_rounds(x, options) if options.rounds else x * x
        if not options.rounds:
            time.sleep(options.seconds)
        frame = {"y": [total]}
        if options.visible:
            frame["visible"] = [os.environ.get("CUDA_VISIBLE_DEVICES", "none")]
        return Measurement({"squares": pd.DataFrame(frame)})

    def figures(self, results):
        from landscape_cli.plotting.style import new_figure

        drawing, axes = new_figure(1, 1, 3, 2)
        axes[0, 0].plot(results.frames["squares"]["x"], results.frames["squares"]["y"])
        yield Figure("toy", drawing, "Squares.")

    def tables(self, results):
        yield Table("toy", results.frames["squares"], "Squares.")


def work_in_rounds(x, options):
    """Add x up in rounds that a killed process need not do again."""
    import torch

    from landscape_cli.checkpointing import Loop

    state = {"total": torch.zeros((), dtype=torch.int64)}
    loop = Loop(
        options.rounds,
        snapshot=lambda: state,
        restore=state.update,
        label=lambda: {"toy": x},
        device=torch.device("cpu"),
    )
    for _ in loop.rounds():
        time.sleep(options.seconds)
        state["total"] += x
    return int(state["total"])
