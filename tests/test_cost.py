"""What is said of a long run before it starts, and which runs a CPU is spared."""

import re
from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from landscape_cli import cost
from landscape_cli.experiment import Experiment, Figure, Measurement, Point

RATE = 1e10  # pretended operations a second
HOUR = 3600 * RATE


@dataclass
class CostlyOptions:
    """What a point pretends to take; ``x`` is the grid's axis."""

    x: int = 0
    hours: float = 0.0


class Costly(Experiment):
    """Does nothing and says that it takes long."""

    Options = CostlyOptions
    uses = frozenset({"dataset"})

    def points(self):
        return [Point.of({"x": x}, self.settings(x=x)) for x in self.config.grid["x"]]

    def operations(self, point, source):
        assert source.name == "digits"
        assert point.settings["dataset"]["objects"] == 120  # a located point
        return self.config.measure.hours * HOUR

    def measure(self, point, context):
        print(f"measuring {point.settings['measure']['x']}")
        return Measurement({"squares": pd.DataFrame({"y": [point.settings["measure"]["x"] ** 2]})})

    def figures(self, results):
        from landscape_cli.plotting.style import new_figure

        yield Figure("costly", new_figure(1, 1, 3, 2)[0], "Nothing.")


COSTLY = (
    *("run", "experiment=schematic_loss_change", "name=costly", "family=test_cost.Costly", "dataset=digits"),
    *("+grid.x=[1,2,3]", "device=cpu"),
)


@pytest.fixture
def rated(monkeypatch):
    """The devices that were timed; no time passes."""
    timed = []
    monkeypatch.setattr(cost, "_matrix_rate", lambda device: timed.append(device) or RATE)
    return timed


def test_too_long_a_run_is_refused_before_anything_is_measured(landscape, small, rated, tmp_path):
    refused = landscape(*COSTLY, *small, "+measure.hours=2")
    refused.assert_refused(
        2, "costly: about 2.2e+14 floating-point operations, at least 6 h at the 10 GFLOP/s that cpu"
    )
    refused.assert_refused(2, "allowed on a CPU: max_cpu_hours=3")
    for advice in ("on a GPU", "profile=quick", "with a larger max_cpu_hours"):
        assert advice in refused.err
    assert "measuring" not in refused.out
    assert not (tmp_path / "outputs" / "runs").exists()
    assert not (tmp_path / "outputs" / "figures").exists()


def test_a_larger_limit_lets_it_through_and_the_estimate_comes_first(landscape, small, rated):
    finished = landscape(*COSTLY, *small, "+measure.hours=2", "max_cpu_hours=6.5")
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    (at,) = (i for i, line in enumerate(lines) if "floating-point operations" in line)
    assert lines[at].startswith("  about 2.2e+14 floating-point operations, at least 6 h at the 10 GFLOP/s that cpu")
    assert lines[at + 1 : at + 4] == ["measuring 1", "measuring 2", "measuring 3"]
    assert "3 points: 0 stored, 3 to measure" in lines[at - 1]


@pytest.mark.parametrize(("limit", "code"), [(5.99, 2), (6.01, 0), (0.01, 2), (1e6, 0)])
def test_the_limit_is_of_all_points_together(landscape, small, rated, limit, code):
    assert landscape(*COSTLY, *small, "+measure.hours=2", f"max_cpu_hours={limit}").code == code


def test_only_what_is_to_be_measured_counts(landscape, small, rated):
    costly = (*COSTLY, *small, "+measure.hours=2")
    assert landscape(*costly, "grid.x=[1,2]", "max_cpu_hours=5").code == 0
    assert landscape(*costly).code == 0  # two of three are stored, and one takes two hours
    rated.clear()
    stored = landscape(*costly, "max_cpu_hours=0.001")
    assert (stored.code, rated) == (0, [])
    assert "3 stored, 0 to measure" in stored.out
    assert "floating-point" not in stored.out


def test_a_shard_is_judged_by_its_own_points(landscape, small, rated):
    costly = (*COSTLY, *small, "+measure.hours=2", "shard.count=2")
    landscape(*costly, "shard.index=0").assert_refused(2, "at least 4 h")
    assert landscape(*costly, "shard.index=1").code == 0


def test_a_dry_run_is_not_refused(landscape, small, rated):
    finished = landscape(*COSTLY, *small, "+measure.hours=2", "--dry-run")
    assert (finished.code, rated) == (0, [])
    assert "3 points, 3 to measure" in finished.out


@pytest.mark.parametrize(("seconds", "told"), [(0, False), (333, False), (334, True)])
def test_minutes_are_told_and_less_is_not(landscape, small, rated, seconds, told):
    """From 1e13 operations on: three points of 333.3 s at 1e10 a second."""
    finished = landscape(*COSTLY, *small, f"+measure.hours={seconds / 3600}")
    assert finished.code == 0, finished.err
    assert ("floating-point operations, at least 17 min" in finished.out) == told
    assert bool(rated) == told
    assert "floating-point" not in finished.err


def test_a_gpu_may_take_as_long_as_it_takes(rated, capsys):
    gpu = torch.device("cuda")
    item = SimpleNamespace(point=Point.of({}, {"dataset": {"name": "digits"}}))
    experiment = SimpleNamespace(operations=lambda point, source: 500 * HOUR)
    plan = SimpleNamespace(experiment=experiment, sources={"digits": object()})
    operations = cost.worth_telling(plan, [item])
    cost.check_cost(SimpleNamespace(max_cpu_hours=3, name="costly"), operations, gpu, "cuda (a GPU)")
    assert "at least 5e+02 h at the 10 GFLOP/s that cuda (a GPU) reaches" in capsys.readouterr().out
    assert rated == [gpu]


def test_the_rate_is_that_of_matrix_products():
    assert 1e8 < cost._matrix_rate(torch.device("cpu")) < 1e13


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "long"])
def test_impossible_limits_are_refused(landscape, value):
    landscape("run", "profile=smoke", f"max_cpu_hours={value}").assert_refused(2, "max_cpu_hours")


def test_the_transformer_of_the_thesis_is_refused_on_a_cpu_as_it_is(landscape, monkeypatch):
    """With the rate that this CPU really has, on pictures of CIFAR's size."""
    monkeypatch.setattr("landscape_cli.runner.measure_all", lambda *_: pytest.fail("it was started"))
    finished = landscape(
        *("run", "experiment=vit_cifar100", "dataset=digits_32", "device=cpu", "max_cpu_hours=0.001"),
        "data.download=false",
    )
    finished.assert_refused(2, "vit_cifar100: about", "GFLOP/s that cpu reaches", "max_cpu_hours=0.001")
    said = float(re.search(r"about (\S+) floating-point", finished.err)[1])
    tokens, width, blocks = 64, 128, 8
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    expected = 2 * (blocks * block + tokens * 16 * width + width * 10) * 3 * 100 * 1437 * 3
    assert said == pytest.approx(expected, rel=0.05)


def test_small_experiments_say_nothing(landscape, small, rated):
    for words in (["experiment=quickstart", "grid.hidden_size=[4]"], ["experiment=vit_cifar100", "model=vit"]):
        finished = landscape("run", *words, *small, "max_cpu_hours=1e-9")
        assert finished.code == 0, finished.err
        assert "floating-point" not in finished.out + finished.err
    assert rated == []
