import json
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from experiments.chapter1.minimum_drift import MinimumDrift, MinimumDriftOptions, _spaced
from landscape_cli.config import Config, DatasetConfig, MLPConfig, TrainingConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Context, Point, Results
from landscape_cli.models import build_model
from landscape_cli.plotting.style import style
from landscape_cli.rng import generator

OBJECTS, SEEDS, RATE = 60, [2, 5], 0.5


@pytest.fixture(autouse=True)
def _one_thread():
    # The fastest for nets as small as these, and it does not stall beside another process.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment() -> MinimumDrift:
    nodes = {"dataset": DatasetConfig("mnist", max_size=50), "model": MLPConfig(), "training": TrainingConfig()}
    return MinimumDrift(Config(name="minimum_drift_mnist", title="", family="", measure=MinimumDriftOptions(), **nodes))


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(3, (OBJECTS,), generator=draw)
    x = torch.randn(OBJECTS, 1, 2, 3, generator=draw)
    source = SimpleNamespace(shape=(1, 2, 3), classes=3)
    return SimpleNamespace(x_train=x, y_train=y, x_test=x[:0], y_test=y[:0], source=source)


def point(epochs=2, **measure) -> Point:
    options = {"permutations": 4, "gradient_sizes": 6, "drift_sizes": 4, "descent_steps": 1, "descent_rate": RATE}
    settings = {
        "dataset": {"name": "tiny", "objects": OBJECTS, "checksum": "0"},
        "model": asdict(MLPConfig(hidden_size=6, num_layers=1)),
        "training": {"epochs": epochs, "batch_size": 16, "learning_rate": 0.01},
        "measure": options | measure,
        "seeds": SEEDS,
    }
    return Point.of({"dataset": "tiny"}, settings)


def measure(own, data):
    context = Context(torch.device("cpu"), data.source, lambda: data, lambda iterable, **_: iterable)
    return experiment().measure(own, context)


def gradient(net, x, y) -> list[torch.Tensor]:
    return list(torch.autograd.grad(cross_entropy(net(x.flatten(1)), y), list(net.parameters())))


def length(parts) -> float:
    return torch.cat([part.flatten() for part in parts]).norm().item()


def test_the_only_point_holds_every_setting():
    (only,) = experiment().points()
    assert only.coordinates == {"dataset": "mnist"}
    assert only.settings == {
        "dataset": {"name": "mnist", "train_size": None, "max_size": 50},
        "model": asdict(MLPConfig()),
        "training": {"epochs": 10, "batch_size": 64, "learning_rate": 1e-3},
        "measure": asdict(MinimumDriftOptions()),
        "seeds": [0, 1, 2, 3, 4],
    }


@pytest.mark.parametrize(("first", "last", "count"), [(1, 10000, 40), (100, 9999, 8), (1, 5, 40), (0, 9, 3), (1, 2, 2)])
def test_sizes_are_evenly_spaced_in_their_logarithm(first, last, count):
    sizes = _spaced(first, last, count)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (max(first, 1), last)
    assert 2 <= len(sizes) <= count
    large = np.array([size for size in sizes if size >= 50], dtype=float)
    if len(large) > 2:
        step = (last / max(first, 1)) ** (1 / (count - 1))
        np.testing.assert_allclose(large[1:] / large[:-1], step, rtol=0.02)


def test_gradient_norms_are_of_the_trained_network_along_the_orderings(data):
    found = measure(point(), data)
    frame = found.frames["gradients"]
    assert sorted(frame["k"].unique()) == _spaced(1, OBJECTS, 6)
    assert len(frame) == 2 * 4 * 6
    stream = json.dumps(["tiny", point().settings["model"]], sort_keys=True)
    model = build_model(point().settings["model"], (1, 2, 3), 3)
    for s, seed in enumerate(SEEDS):
        net = model.module({name: tensor.double() for name, tensor in found.parameters.items()}, s)
        x, y = data.x_train.double(), data.y_train
        draw = generator(seed, "orderings", stream)
        orders = [torch.randperm(OBJECTS, generator=draw) for _ in range(4)]
        for row in frame[frame["seed"] == seed].itertuples():
            chosen = orders[row.ordering][: row.k]
            assert row.gradient_norm == pytest.approx(length(gradient(net, x[chosen], y[chosen])), rel=1e-4)
        expected = found.frames["expected"]
        expected = expected[expected["seed"] == seed].set_index("k")["expected_norm"]
        singles = [length(gradient(net, x[i : i + 1], y[i : i + 1])) ** 2 for i in range(OBJECTS)]
        assert expected[1] == pytest.approx(np.mean(singles) ** 0.5, rel=1e-4)
        assert expected[OBJECTS] == pytest.approx(length(gradient(net, x, y)), rel=1e-4)


def test_mean_square_of_the_norms_is_the_closed_form(data):
    found = measure(point(permutations=2000, drift_sizes=2), data).frames
    squares = found["gradients"].assign(square=found["gradients"]["gradient_norm"] ** 2)
    groups = squares.groupby(["seed", "k"])["square"].agg(["mean", "sem"]).reset_index()
    both = groups.merge(found["expected"], on=["seed", "k"], validate="one_to_one")
    inside = both[both["k"] < OBJECTS]
    assert len(inside) == 10
    assert (np.abs(inside["mean"] - inside["expected_norm"] ** 2) < 4 * inside["sem"]).all()


def test_drift_is_one_step_of_descent_with_and_without_the_new_object(data):
    """With one step and no training the three distances are norms of gradients, by autograd in float64."""
    found = measure(point(epochs=0), data).frames["drift"]
    sizes = _spaced(6, OBJECTS - 1, 4)
    assert found["k"].tolist() == [k for k in sizes for _ in SEEDS]
    assert found["seed"].tolist() == SEEDS * len(sizes)
    stream = json.dumps(["tiny", point().settings["model"]], sort_keys=True)
    model = build_model(point().settings["model"], (1, 2, 3), 3)
    x, y = data.x_train.double(), data.y_train
    for seed in SEEDS:
        order = torch.randperm(OBJECTS, generator=generator(seed, "growing sample", stream))
        start = model.initialise([generator(seed, "initialisation", f"{stream}, k={sizes[0]}")])
        net = model.module({name: tensor.double() for name, tensor in start.items()}, 0)
        for k in sizes:  # each minimum starts from the one before
            before = gradient(net, x[order[:k]], y[order[:k]])
            with torch.no_grad():
                for tensor, part in zip(net.parameters(), before, strict=True):
                    tensor -= RATE * part
            without = gradient(net, x[order[:k]], y[order[:k]])
            extended = gradient(net, x[order[: k + 1]], y[order[: k + 1]])
            row = found[(found["k"] == k) & (found["seed"] == seed)].iloc[0]
            assert row["way"] == pytest.approx(RATE * length(extended), rel=1e-4)
            assert row["own_motion"] == pytest.approx(RATE * length(without), rel=1e-4)
            difference = [a - b for a, b in zip(extended, without, strict=True)]
            assert row["effect"] == pytest.approx(RATE * length(difference), rel=1e-3)


def test_measurement_trains_and_can_be_repeated(data):
    first, second = measure(point(), data), measure(point(), data)
    for name in first.frames:
        pd.testing.assert_frame_equal(first.frames[name], second.frames[name], check_exact=True)
    untrained = measure(point(epochs=0), data)
    assert not any(torch.equal(first.parameters[name], untrained.parameters[name]) for name in first.parameters)
    assert not np.isclose(first.frames["drift"]["way"], untrained.frames["drift"]["way"]).any()


def results(exponents, way=-1.0) -> Results:
    """Power laws of k: a seed's gradient norms with its exponent, way with `way`, effect always with -1 on average."""
    gradients, expected, drift = [], [], []
    k = np.array([1, 10, 100, 1000])
    for seed, exponent in enumerate(exponents):
        for ordering, scale in enumerate((0.5, 1.0, 1.5)):
            norms = scale * 4 * k**exponent
            gradients.append(pd.DataFrame({"seed": seed, "ordering": ordering, "k": k, "gradient_norm": norms}))
        expected.append(pd.DataFrame({"seed": seed, "k": k, "expected_norm": (3.0 + seed) * k**exponent}))
        own = {"way": (1.0 + seed) * k**way, "own_motion": 0.5 + seed * k, "effect": k ** (-0.9 - seed / 10)}
        drift.append(pd.DataFrame({"seed": seed, "k": k, **own}))
    frames = {"gradients": gradients, "expected": expected, "drift": drift}
    joined = {name: pd.concat(parts).assign(dataset="mnist") for name, parts in frames.items()}
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    return Results(points=(), missing=(), frames=joined, arrays={}, sources=sources, profile="paper")


@pytest.mark.parametrize(
    ("exponents", "verdict"),
    [((-0.4, -0.5, -0.6), REPRODUCED), ((0.4, 0.5, 0.6), NOT_REPRODUCED), ((-0.4, 0.5, 0.1), INCONCLUSIVE)],
)
def test_claims_are_slopes_one_a_seed(exponents, verdict):
    norm, way, effect = experiment().claims(results(exponents, way=0.25))
    half = 4.302652729749464 * np.std(exponents, ddof=1) / 3**0.5  # t(0.975, 2)
    mean = np.mean(exponents)
    assert norm.verdict == verdict
    assert [norm.effect, norm.low, norm.high] == pytest.approx([mean, mean - half, mean + half], rel=1e-9)
    assert (way.verdict, way.effect) == (NOT_REPRODUCED, pytest.approx(0.25, rel=1e-9))
    assert (effect.verdict, effect.effect) == (REPRODUCED, pytest.approx(-1, rel=1e-9))
    at_end = np.mean([4 * 1000.0**exponent for exponent in exponents])
    assert f"{at_end:.2g} nats" in norm.note


def test_table_holds_means_over_seeds():
    (table,) = experiment().tables(results((-0.5, -0.5)))
    frame = table.frame
    assert table.name == "drift_minimum_drift_mnist"
    assert frame["k"].tolist() == [1, 10, 100, 1000]
    np.testing.assert_allclose(frame["way"], 1.5 / frame["k"])
    np.testing.assert_allclose(frame["own_motion"], 0.5 + frame["k"] / 2)
    np.testing.assert_allclose(frame["effect"], (frame["k"] ** -0.9 + frame["k"] ** -1.0) / 2)


def test_figure_shows_means_closed_form_and_ranges():
    with style():
        (figure,) = experiment().figures(results((-0.5, -0.5)))
    assert figure.name == "fig_1_2_minimum_drift_mnist"
    left, right = figure.drawing.axes
    k = np.array([1, 10, 100, 1000])
    mean, closed = (drawn.get_xydata() for drawn in left.lines)
    np.testing.assert_allclose(mean, np.column_stack([k, 4 * k**-0.5]))
    np.testing.assert_allclose(closed, np.column_stack([k, ((3**2 + 4**2) / 2) ** 0.5 * k**-0.5]))
    (band,) = left.collections
    limits = band.get_datalim(left.transData).intervaly
    np.testing.assert_allclose(limits, [2 * 1000**-0.5, 6])
    drawn = [line.get_ydata() for line in right.lines]
    expected = [1.5 / k, 0.5 + k / 2, (k**-0.9 + k**-1.0) / 2]
    np.testing.assert_allclose(drawn, expected)
    assert left.get_title().startswith("MNIST, $h=16$, $L=5$")
    assert {left.get_xscale(), left.get_yscale(), right.get_xscale(), right.get_yscale()} == {"log"}
