import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from experiments.chapter1.minimum_drift import MinimumDrift, MinimumDriftOptions, _spaced
from landscape_cli import training
from landscape_cli.config import Config, DatasetConfig, MLPConfig, TrainingConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Context, Point, Results
from landscape_cli.models import build_model
from landscape_cli.plotting.style import style
from landscape_cli.rng import generator

OBJECTS, SEEDS, RATE = 60, [2, 5], 0.5


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
    source = SimpleNamespace(classes=3)
    return SimpleNamespace(x_train=x, y_train=y, x_test=x[:0], y_test=y[:0], shape=(1, 2, 3), source=source)


def point(epochs=2, **measure) -> Point:
    sizes = {"permutations": 4, "gradient_sizes": 6, "drift_sizes": 4}
    options = sizes | {"settle_steps": 3, "descent_steps": 1, "descent_rate": RATE}
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


def mean_loss(net, x, y) -> float:
    return cross_entropy(net(x.flatten(1)), y).item()


def typical_gradient(net, x, y) -> float:
    singles = [length(gradient(net, x[i : i + 1], y[i : i + 1])) ** 2 for i in range(len(y))]
    return np.mean(singles) ** 0.5


def test_the_only_point_holds_every_setting():
    (only,) = experiment().points()
    assert only.coordinates == {"dataset": "mnist"}
    assert only.settings == {
        "dataset": {"name": "mnist", "train_size": None, "max_size": 50, "normalisation": "symmetric"},
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
        typical = typical_gradient(net, x, y)
        assert expected[1] == pytest.approx(typical, rel=1e-4)
        assert found.frames["networks"].set_index("seed").loc[seed, "typical_gradient"] == pytest.approx(
            typical, rel=1e-4
        )
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
    """With one step and no training the displacements are norms of gradients, by autograd in float64."""
    found = measure(point(epochs=0, settle_steps=0), data).frames["drift"]
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
        for k in sizes:
            same, more = order[:k], order[: k + 1]
            without, extended = gradient(net, x[same], y[same]), gradient(net, x[more], y[more])
            row = found[(found["k"] == k) & (found["seed"] == seed)].iloc[0]
            singles = [length(gradient(net, x[i : i + 1], y[i : i + 1])) ** 2 for i in same]
            rate = RATE / 2  # settle gives half of the rate that it was stable at
            assert row["loss"] == pytest.approx(cross_entropy(net(x[same].flatten(1)), y[same]).item(), rel=1e-9)
            assert row["gradient_norm"] == pytest.approx(length(without), rel=1e-9)
            assert row["typical_gradient"] == pytest.approx(np.mean(singles) ** 0.5, rel=1e-9)
            assert row["own_motion"] == pytest.approx(rate * length(without), rel=1e-9)
            difference = [a - b for a, b in zip(extended, without, strict=True)]
            assert row["effect"] == pytest.approx(rate * length(difference), rel=1e-9)
            assert not row["dead"]


def test_each_sample_starts_where_the_one_before_settled(data):
    """Without training, settling at k = 6 and again at the next k is settling once along the chain."""
    found = measure(point(epochs=0, settle_steps=40), data).frames["drift"]
    losses = found.pivot(index="seed", columns="k", values="loss")
    untrained = (
        measure(point(epochs=0, settle_steps=0), data).frames["drift"].pivot(index="seed", columns="k", values="loss")
    )
    assert (losses < untrained).all().all()


def test_every_size_gets_the_same_number_of_steps(data, monkeypatch):
    import landscape_cli.training as training

    steps, fit = [], training.fit

    def spy(*words, rows=None, epochs, batch_size, **options):
        steps.append(epochs * -(-(OBJECTS if rows is None else rows.shape[1]) // batch_size))
        return fit(*words, rows=rows, epochs=epochs, batch_size=batch_size, **options)

    monkeypatch.setattr(training, "fit", spy)
    measure(point(epochs=30), data)
    assert len(steps) == 5
    assert all(abs(count - steps[0]) <= 4 for count in steps)  # whole epochs, of at most four steps here


def test_measurement_trains_and_can_be_repeated(data):
    first, second = measure(point(), data), measure(point(), data)
    for name in first.frames:
        pd.testing.assert_frame_equal(first.frames[name], second.frames[name], check_exact=True)
    untrained = measure(point(epochs=0), data)
    assert not any(torch.equal(first.parameters[name], untrained.parameters[name]) for name in first.parameters)
    assert not np.isclose(first.frames["drift"]["effect"], untrained.frames["drift"]["effect"]).any()


def test_a_network_whose_relus_died_is_told_from_living_ones(data, monkeypatch):
    original = training.fit

    def killing(*arguments, **options):
        trained = original(*arguments, **options)
        trained["0.weight"][1] = -trained["0.weight"][1].abs()  # on positive inputs no ReLU opens
        return trained

    monkeypatch.setattr(training, "fit", killing)
    data.x_train = data.x_train.abs() + 0.1
    frames = measure(point(), data).frames
    assert frames["networks"]["seed"].tolist() == SEEDS
    assert frames["networks"]["dead"].tolist() == [False, True]
    assert (frames["networks"]["typical_gradient"] > 0).tolist() == [True, False]
    drift = frames["drift"]
    assert (drift["dead"] == (drift["seed"] == SEEDS[1])).all()
    own = of_frames(frames)
    for verdict in experiment().claims(own):
        assert "gradients: seeds 5; displacements: seeds 5." in verdict.note
        assert math.isfinite(verdict.effect)
    (table,) = experiment().tables(own)
    assert table.frame["effect"].tolist() == drift.loc[drift["seed"] == SEEDS[0], "effect"].tolist()


def test_without_a_living_network_everything_is_still_written(data):
    data.x_train = torch.zeros_like(data.x_train)
    frames = measure(point(), data).frames
    assert frames["networks"]["dead"].all()
    assert frames["drift"]["dead"].all()
    own = of_frames(frames)
    assert list(experiment().claims(own)) == []
    (table,) = experiment().tables(own)
    assert table.frame.empty
    assert {"k", "loss", "effect"} <= set(table.frame)
    with style():
        (figure,) = experiment().figures(own)
        figure.drawing.draw_without_rendering()
    for ax in figure.drawing.axes:
        assert [text.get_text() for text in ax.texts] == ["no network is alive"]
    assert "left out of the gradients: seeds 2, 5; displacements: seeds 2, 5." in figure.note


def of_frames(frames) -> Results:
    joined = {name: frame.assign(dataset="mnist") for name, frame in frames.items()}
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    return Results(points=(), missing=(), frames=joined, arrays={}, sources=sources, profile="paper")


SCALES = (0.5, 1.0, 1.5)  # of the norms of three orderings
ROOT_MEAN_SQUARE = (3.5 / 3) ** 0.5


def results(exponents, stationary=True, dead=(), dead_drift=()) -> Results:
    """Power laws of k: a seed's gradient norms with its exponent, effect with -1 on average."""
    gradients, expected, drift = [], [], []
    k = np.array([1, 10, 100, 1000])
    for seed, exponent in enumerate(exponents):
        for ordering, scale in enumerate((3.0, 5.0)):  # root mean square sqrt(17)
            norms = scale * k**exponent
            gradients.append(pd.DataFrame({"seed": seed, "ordering": ordering, "k": k, "gradient_norm": norms}))
        expected.append(pd.DataFrame({"seed": seed, "k": k, "expected_norm": (3.0 + seed) * k**exponent}))
        own = {"loss": 0.5, "gradient_norm": 1.0 if stationary else 1.1, "typical_gradient": 10.0}
        own |= {"own_motion": 0.5 + seed * k, "effect": k ** (-0.9 - seed / 10), "dead": seed in dead_drift}
        drift.append(pd.DataFrame({"seed": seed, "k": k, **own}))
    seeds = list(range(len(exponents)))
    networks = pd.DataFrame({"seed": seeds, "dead": [s in dead for s in seeds], "typical_gradient": 20.0})
    frames = {"networks": [networks], "gradients": gradients, "expected": expected, "drift": drift}
    joined = {name: pd.concat(parts).assign(dataset="mnist") for name, parts in frames.items()}
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    return Results(points=(), missing=(), frames=joined, arrays={}, sources=sources, profile="paper")


def half_width(values) -> float:
    return 4.302652729749464 * np.std(values, ddof=1) / len(values) ** 0.5  # t(0.975, 2)


@pytest.mark.parametrize(
    ("exponents", "verdict"),
    [((-0.4, -0.5, -0.6), REPRODUCED), ((0.4, 0.5, 0.6), NOT_REPRODUCED), ((-0.4, 0.5, 0.1), INCONCLUSIVE)],
)
def test_claims_are_one_value_a_seed(exponents, verdict):
    minimum, norm, effect = experiment().claims(results(exponents))
    mean, half = np.mean(exponents), half_width(exponents)
    assert norm.verdict == verdict
    assert [norm.effect, norm.low, norm.high] == pytest.approx([mean, mean - half, mean + half], rel=1e-9)
    assert "any subsample" in norm.note
    ratios = [17**0.5 * 1000.0**exponent / 20 for exponent in exponents]
    assert minimum.effect == pytest.approx(np.mean(ratios), rel=1e-9)
    assert minimum.high - minimum.effect == pytest.approx(half_width(ratios), rel=1e-9)
    assert (minimum.verdict == REPRODUCED) == (minimum.high <= 0.1)
    assert (effect.verdict, effect.effect) == (REPRODUCED, pytest.approx(-1, rel=1e-9))


def test_no_verdict_on_the_effect_where_the_parameters_are_not_near_stationary():
    *_, effect = experiment().claims(results((-0.4, -0.5, -0.6), stationary=False))
    assert effect.verdict == INCONCLUSIVE
    assert effect.effect == pytest.approx(-1, rel=1e-9)
    assert "0.11 to 0.11 of a typical object's" in effect.note


def test_dead_seeds_are_left_out_and_named():
    found = results((-0.4, -0.5, -0.6, 5.0), dead={3}, dead_drift={0})
    minimum, norm, effect = experiment().claims(found)
    assert norm.effect == pytest.approx(-0.5, rel=1e-9)
    assert effect.effect == pytest.approx(-1.1, rel=1e-9)
    for claim in (minimum, norm, effect):
        assert "left out of the gradients: seeds 3; displacements: seeds 0" in claim.note
    with style():
        (figure,) = experiment().figures(found)
    assert "left out of the gradients: seeds 3; displacements: seeds 0" in figure.note


def test_all_dead_still_has_figure_table_and_no_claims():
    found = results((-0.4, -0.5), dead={0, 1}, dead_drift={0, 1})
    assert list(experiment().claims(found)) == []
    (table,) = experiment().tables(found)
    assert table.frame.empty
    with style():
        (figure,) = experiment().figures(found)
    texts = [text.get_text() for ax in figure.drawing.axes for text in ax.texts]
    assert texts == ["no network is alive"] * 2


def test_a_living_net_without_gradient_on_one_object_is_not_dead(data):
    found = measure(point(), data)
    assert not found.frames["networks"]["dead"].any()
    frame = found.frames["gradients"]
    frame.loc[frame["k"] == 1, "gradient_norm"] = 0.0
    joined = {name: part.assign(dataset="mnist") for name, part in found.frames.items()}
    given = Results((), (), joined, {}, {"mnist": SimpleNamespace(title="MNIST")}, "paper")
    with style():
        (figure,) = experiment().figures(given)
    assert "died" not in figure.note


def test_a_dead_network_is_found(data):
    """All inputs and first-layer weights of one sign: no ReLU ever opens."""
    data.x_train = -data.x_train.abs()
    import landscape_cli.models.mlp as mlp

    original = mlp.MLP.initialise

    def dying(self, generators):
        drawn = original(self, generators)
        drawn["0.weight"][1] = drawn["0.weight"][1].abs()
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp.MLP, "initialise", dying)
        found = measure(point(epochs=1), data).frames
    assert found["networks"]["dead"].tolist() == [False, True]
    assert found["drift"].groupby("seed")["dead"].all().tolist() == [False, True]


def test_table_holds_means_over_seeds():
    (table,) = experiment().tables(results((-0.5, -0.5)))
    frame = table.frame
    assert table.name == "drift_minimum_drift_mnist"
    assert frame["k"].tolist() == [1, 10, 100, 1000]
    np.testing.assert_allclose(frame["own_motion"], 0.5 + frame["k"] / 2)
    np.testing.assert_allclose(frame["effect"], (frame["k"] ** -0.9 + frame["k"] ** -1.0) / 2)
    assert frame["loss"].tolist() == [0.5] * 4


def test_figure_shows_root_mean_squares_closed_form_and_displacements():
    with style():
        (figure,) = experiment().figures(results((-0.5, -0.5)))
    assert figure.name == "fig_1_2_minimum_drift_mnist"
    left, right = figure.drawing.axes
    k = np.array([1, 10, 100, 1000])
    squares, closed = (drawn.get_xydata() for drawn in left.lines)
    np.testing.assert_allclose(squares, np.column_stack([k, 17**0.5 * k**-0.5]))
    np.testing.assert_allclose(closed, np.column_stack([k, 3.5 * k**-0.5]))
    drawn = [line.get_ydata() for line in right.lines]
    np.testing.assert_allclose(drawn, [0.5 + k / 2, (k**-0.9 + k**-1.0) / 2])
    assert left.get_title().startswith("MNIST, $h=16$, $L=5$")
    assert {left.get_xscale(), left.get_yscale(), right.get_xscale(), right.get_yscale()} == {"log"}
