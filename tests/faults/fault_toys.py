"""A toy that logs every measurement, commands that run it, and what is compared of output folders."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from landscape_cli.errors import MeasurementFailed
from landscape_cli.experiment import Experiment, Figure, Measurement, Point, Table

LOG = "LANDSCAPE_TEST_LOG"  # the environment names the log: an override would be part of the figures' folder


@dataclass
class LoggedOptions:
    """How the toy behaves."""

    x: int = 0  # the axis of the grid
    n: int = 0  # points, if the grid does not list them
    seconds: float = 0.0
    size: int = 8  # numbers of each point's array
    failing: list[int] = field(default_factory=list)


class Logged(Experiment):
    """Squares x, and writes a line for each measurement to the log."""

    Options = LoggedOptions

    def points(self):
        axis = self.config.grid.get("x") or range(self.config.measure.n)
        return [Point.of({"x": x}, {"x": x}) for x in axis]

    def measure(self, point, context):
        options, x = self.config.measure, point.settings["x"]
        log(f"{x} {os.getpid()} {resident()} {len(os.listdir('/proc/self/fd'))}")
        time.sleep(options.seconds)
        if x in options.failing:
            raise MeasurementFailed(f"x = {x} diverged")
        numbers = np.random.default_rng(x).normal(size=options.size)
        return Measurement({"squares": pd.DataFrame({"y": [x * x]})}, {"numbers": numbers})

    def figures(self, results):
        from landscape_cli.plotting.style import new_figure

        squares = results.frames["squares"]
        drawing, axes = new_figure(1, 1, 2, 2)
        axes[0, 0].plot(squares["x"], squares["y"])
        yield Figure("logged", drawing, "Squares.")

    def tables(self, results):
        yield Table("logged", results.frames["squares"], "Squares.")


TOY = ("experiment=schematic_loss_change", "name=logged", "family=fault_toys.Logged", "plot.formats=[png]")
REAL = (
    *("experiment=quickstart", "profile=smoke", "data.download=false", "plot.formats=[png]", "plot.dpi=50"),
    *("checkpoint=true", "+caps.smoke={epochs:12}"),
)


def toy(count, *words):
    """Words of a run of the toy with so many points."""
    return ("run", *TOY, f"+grid.x=[{','.join(map(str, range(count)))}]", "plot.dpi=50", *words)


def log(line):
    handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def logged():
    """Every x that was measured, in order."""
    path = Path(os.environ[LOG])
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def resident():
    """Memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def results_of(output):
    """Every stored file but ``point.json``, which names times: path -> content."""
    return {
        path.relative_to(output): path.read_bytes()
        for path in (output / "results").glob("*/[!.]*/*")
        if path.name != "point.json"
    }


def tables_of(output):
    return {p.relative_to(output): p.read_bytes() for p in (output / "tables").rglob("*") if p.is_file() and _shown(p)}


def pixels_of(output):
    import matplotlib.image

    paths = [path for path in (output / "figures").rglob("*.png") if _shown(path)]
    return {path.relative_to(output): matplotlib.image.imread(path) for path in paths}


def assert_same(output, reference):
    """Check that numbers and tables are the same bytes and figures the same pixels."""
    assert results_of(reference)
    assert results_of(output) == results_of(reference)
    assert tables_of(reference)
    assert tables_of(output) == tables_of(reference)
    found, wanted = pixels_of(output), pixels_of(reference)
    assert wanted
    assert found.keys() == wanted.keys()
    for path, picture in wanted.items():
        assert np.array_equal(found[path], picture), path


def assert_whole(output):
    """Check every stored point against its checksums; return their keys."""
    from landscape_cli.store import Store

    folders = list((output / "results").glob("*/[!.]*"))
    for folder in folders:
        Store(output).read(folder.parent.name, folder.name)
    return {folder.name for folder in folders}


def hidden(output):
    """What is left of processes: drafts, claims, failures, checkpoints."""
    return sorted(str(path.relative_to(output)) for path in output.rglob(".*"))


def documents_of(output):
    paths = (output / "results").glob("*/[!.]*/point.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def _shown(path):
    return not path.name.startswith(".")
