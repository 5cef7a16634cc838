import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.signal import lfilter
from torch.nn.functional import cross_entropy

import landscape_cli.training
from experiments.chapter1.loss_difference import (
    LossDifference,
    LossDifferenceOptions,
    alive,
    dead_networks,
    decay_slopes,
    end_values,
    summarise_ends,
    title,
    trend_slopes,
)
from landscape_cli.config import Config, DatasetConfig, MLPConfig, TrainingConfig
from landscape_cli.experiment import Context, Point, Results
from landscape_cli.models import build_model
from landscape_cli.rng import generator

GRID = {"hidden_size": [4, 8, 16, 32, 64], "num_layers": [1, 3, 5, 7, 10]}
AXES = list(GRID)


class Bare(LossDifference):
    def figures(self, results):
        return ()


def experiment(grid=GRID, **changes) -> LossDifference:
    settings = {
        "dataset": DatasetConfig("mnist", train_size=10000),
        "model": MLPConfig(),
        "training": TrainingConfig(),
        "measure": LossDifferenceOptions(),
        **changes,
    }
    return Bare(Config(name="test", title="", family="", grid=grid, **settings))


def results(frames, sources=None) -> Results:
    return Results(points=(), missing=(), frames=frames, arrays={}, sources=sources or {}, profile="paper")


def networks(points, seeds, dead=()) -> pd.DataFrame:
    rows = [
        {"dataset": d, "hidden_size": h, "num_layers": n, "seed": s, "dead": (d, h, n, s) in dead}
        for d, h, n in points
        for s in seeds
    ]
    return pd.DataFrame(rows)


def on_curves(nets, k, **columns) -> pd.DataFrame:
    """One row a network and k; each column is a function of (network, k)."""
    pieces = []
    for net in nets.itertuples():
        own = {name: function(net, k) for name, function in columns.items()}
        keys = {"dataset": net.dataset, "hidden_size": net.hidden_size, "num_layers": net.num_layers, "seed": net.seed}
        pieces.append(pd.DataFrame({**keys, "k": k, **own}))
    return pd.concat(pieces, ignore_index=True)


def test_the_figure_needs_nine_points_and_the_full_grid_has_25():
    cross = [tuple(point.coordinates.values()) for point in experiment().points()]
    assert cross == [("mnist", h, 5) for h in (4, 8, 16, 32, 64)] + [("mnist", 16, n) for n in (1, 3, 7, 10)]
    full = [tuple(point.coordinates.values()) for point in experiment(sweep="full").points()]
    assert full == [("mnist", h, n) for h in (4, 8, 16, 32, 64) for n in (1, 3, 5, 7, 10)]


def test_points_hold_everything_that_changes_the_numbers():
    config = {"seeds": 3, "seed": 5, "training": TrainingConfig(epochs=2), "model": MLPConfig(num_layers=2, bias=True)}
    point = experiment({"hidden_size": [9]}, **config).points()[0]
    assert point.coordinates == {"dataset": "mnist", "hidden_size": 9}
    assert point.settings == {
        "dataset": {"name": "mnist", "train_size": 10000, "max_size": None, "normalisation": "symmetric"},
        "model": {"kind": "mlp", "hidden_size": 9, "num_layers": 2, "bias": True},
        "training": {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3},
        "measure": {"permutations": 100, "smoothing": 0.99},
        "seeds": [5, 6, 7],
    }


def test_data_sets_are_an_axis_and_no_grid_is_one_point():
    points = experiment({"dataset": ["mnist", "cifar10"], "num_layers": [1, 5]}).points()
    assert [tuple(point.coordinates.values()) for point in points] == [
        ("mnist", 1),
        ("mnist", 5),
        ("cifar10", 1),
        ("cifar10", 5),
    ]
    assert [point.settings["dataset"]["name"] for point in points] == ["mnist", "mnist", "cifar10", "cifar10"]
    assert [point.coordinates for point in experiment({}).points()] == [{"dataset": "mnist"}]


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(3, (90,), generator=draw)
    x = torch.randn(90, 1, 2, 3, generator=draw)
    x[:, 0, 0] += torch.nn.functional.one_hot(y, 3)
    split = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    return SimpleNamespace(**split, shape=(1, 2, 3), source=SimpleNamespace(classes=3))


@pytest.fixture
def point():
    settings = {
        "dataset": {"name": "tiny", "objects": 60, "checksum": "0"},
        "model": asdict(MLPConfig(hidden_size=6, num_layers=1)),
        "training": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01},
        "measure": {"permutations": 8, "smoothing": 0.9},
        "seeds": [2, 5, 6],
    }
    return Point.of({"dataset": "tiny"}, settings)


def measure(point, data):
    context = Context(torch.device("cpu"), data.source, lambda: data, lambda iterable, **_: iterable)
    return experiment().measure(point, context)


def test_measurement_against_the_trained_networks(data, point):
    found = measure(point, data)
    curves, nets = found.frames["curves"], found.frames["networks"]
    assert curves["seed"].tolist() == [seed for seed in (2, 5, 6) for _ in range(59)]
    assert curves["k"].tolist() == list(range(1, 60)) * 3
    assert nets["seed"].tolist() == [2, 5, 6]
    stream = json.dumps(["tiny", point.settings["model"]], sort_keys=True)
    model = build_model(point.settings["model"], (1, 2, 3), 3)
    for s, seed in enumerate((2, 5, 6)):
        net = model.module(found.parameters, s)
        logits = [net(x.flatten(1)).detach().double() for x in (data.x_train, data.x_test)]
        losses = cross_entropy(logits[0], data.y_train, reduction="none").numpy()
        row, own = nets.iloc[s], curves[curves["seed"] == seed]
        mad = np.abs(losses - losses.mean()).mean()
        assert row["mean_loss"] == pytest.approx(losses.mean(), rel=1e-6)
        assert row["mad"] == pytest.approx(mad, rel=1e-6)
        assert row["train_accuracy"] == (logits[0].argmax(1) == data.y_train).double().mean().item()
        assert row["test_accuracy"] == (logits[1].argmax(1) == data.y_test).double().mean().item()
        assert not row["dead"]
        draw = generator(seed, "orderings", stream)
        orders = np.array([torch.randperm(60, generator=draw).tolist() for _ in range(8)])
        means = np.cumsum(losses[orders], axis=1) / np.arange(1, 61)
        differences = np.abs(np.diff(means, axis=1))
        np.testing.assert_allclose(own["difference"], differences.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(own["standard_error"], differences.std(axis=0, ddof=1) / 8**0.5, rtol=1e-5)
        np.testing.assert_allclose(own["closed_form"], mad / np.arange(2, 61), rtol=1e-6)
        raw = own["difference"].to_numpy()
        np.testing.assert_allclose(own["ema"], lfilter([0.1], [1, -0.9], raw, zi=[0.9 * raw[0]])[0], rtol=1e-10)


def test_measurement_trains_and_can_be_repeated(data, point):
    first, second = measure(point, data), measure(point, data)
    for name in first.frames:
        pd.testing.assert_frame_equal(first.frames[name], second.frames[name], check_exact=True)
    untrained = {**point.settings, "training": {**point.settings["training"], "epochs": 0}}
    before = measure(Point.of({}, untrained), data).frames["networks"]
    assert (first.frames["networks"]["mean_loss"] < before["mean_loss"]).all()


def test_seeds_are_independent_of_each_other(data, point):
    all_seeds = measure(point, data).frames
    alone = measure(Point.of({}, {**point.settings, "seeds": [5]}), data).frames
    for name, frame in alone.items():
        together = all_seeds[name][all_seeds[name]["seed"] == 5].reset_index(drop=True)
        pd.testing.assert_frame_equal(frame, together, check_exact=False, rtol=1e-4)


def test_columns_have_units(data, point):
    frames = measure(point, data).frames
    assert frames["curves"].attrs["units"]["k"] == "objects"
    for column in ("difference", "standard_error", "ema", "closed_form"):
        assert frames["curves"].attrs["units"][column] == "nats"
    assert frames["networks"].attrs["units"] == {"mean_loss": "nats", "mad": "nats"}


def test_dead_networks_are_marked_and_have_no_differences(data, point, monkeypatch):
    train = landscape_cli.training.fit

    def killing(*arguments, **options):
        parameters = train(*arguments, **options)
        parameters["4.weight"][1] = 0
        return parameters

    monkeypatch.setattr(landscape_cli.training, "fit", killing)
    frames = measure(point, data).frames
    assert frames["networks"]["dead"].tolist() == [False, True, False]
    dead = frames["curves"][frames["curves"]["seed"] == 5]
    assert dead["closed_form"].max() < 1e-15
    assert dead["difference"].max() < 1e-15


def test_no_test_objects_no_test_accuracy(data, point):
    data.x_test, data.y_test = data.x_test[:0], data.y_test[:0]
    assert measure(point, data).frames["networks"]["test_accuracy"].isna().all()


def test_alive_leaves_out_the_dead_and_nothing_else():
    dead = {("a", 4, 5, 1), ("b", 8, 5, 0)}
    nets = networks([("a", 4, 5), ("a", 8, 5), ("b", 4, 5), ("b", 8, 5)], seeds=(0, 1), dead=dead)
    curves = on_curves(nets, np.arange(1, 4), ema=lambda net, k: 1.0 / k)
    kept = alive(results({"networks": nets, "curves": curves}))
    assert list(kept.columns) == list(curves.columns)
    found = {(row.dataset, row.hidden_size, row.num_layers, row.seed) for row in kept.itertuples()}
    everything = {(row.dataset, row.hidden_size, row.num_layers, row.seed) for row in nets.itertuples()}
    assert found == everything - dead
    assert len(kept) == 3 * len(found)


def test_dead_networks_are_named():
    dead = {("mnist", 4, 5, 1), ("mnist", 4, 5, 3), ("mnist", 16, 10, 0), ("cifar", 4, 5, 2)}
    nets = networks([("mnist", 4, 5), ("mnist", 16, 10), ("cifar", 4, 5)], seeds=range(4), dead=dead)
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    symbols = {"hidden_size": "h", "num_layers": "L"}
    assert dead_networks(results({"networks": nets}, sources), symbols) == [
        "MNIST h=4, L=5: seeds 1, 3",
        "MNIST h=16, L=10: seed 0",
        "cifar h=4, L=5: seed 2",
    ]
    assert dead_networks(results({"networks": nets.assign(dead=False)}, sources), symbols) == []
    assert title(results({}, sources), "mnist") == "MNIST"
    assert title(results({}, sources), "cifar") == "cifar"


def test_end_values_are_at_the_last_or_the_asked_k():
    nets = networks([("a", 4, 5), ("a", 8, 5)], seeds=(0, 1))
    k = np.arange(1, 101)
    columns = {"ema": lambda net, k: net.hidden_size / k, "closed_form": lambda net, k: net.seed + 1 / k}
    curves = on_curves(nets, k, difference=columns["ema"], **columns)
    ends = end_values(curves, AXES)
    assert ends["k"].tolist() == [100] * 4
    assert ends["ema"].tolist() == [0.04, 0.04, 0.08, 0.08]
    assert ends["closed_form"].tolist() == [0.01, 1.01, 0.01, 1.01]
    assert end_values(curves, AXES, 50)["ema"].tolist() == [0.08, 0.08, 0.16, 0.16]


def test_trend_slopes_are_one_a_seed_by_least_squares():
    nets = networks([("a", h, 5) for h in (4, 8, 16, 32)], seeds=(0, 1, 2))
    exponents = {0: -0.5, 1: -1.25, 2: 0.75}
    ends = nets.assign(ema=[3 * h ** exponents[s] for h, s in zip(nets["hidden_size"], nets["seed"], strict=True)])
    np.testing.assert_allclose(trend_slopes(ends, "hidden_size"), [-0.5, -1.25, 0.75], rtol=1e-10)
    noisy = ends.assign(ema=ends["ema"] * np.random.default_rng(0).lognormal(size=len(ends)))
    expected = [np.polyfit(np.log(own["hidden_size"]), np.log(own["ema"]), 1)[0] for _, own in noisy.groupby("seed")]
    np.testing.assert_allclose(trend_slopes(noisy, "hidden_size"), expected, rtol=1e-10)


def test_a_seed_with_one_living_network_has_no_trend():
    nets = networks([("a", 4, 5), ("a", 8, 5)], seeds=(0, 1))
    ends = nets.assign(ema=1.0 / nets["hidden_size"])
    kept = ends[~((ends["hidden_size"] == 4) & (ends["seed"] == 0))]
    np.testing.assert_allclose(trend_slopes(kept, "hidden_size"), [-1.0], rtol=1e-10)
    assert trend_slopes(kept[kept["seed"] == 0], "hidden_size").size == 0


@pytest.mark.parametrize("last", [59, 999, 9999])
def test_decay_of_power_laws_is_their_exponent(last):
    nets = networks([("a", 4, 5), ("a", 8, 5)], seeds=(0, 1, 2))
    exponents = {0: -1.0, 1: -0.5, 2: -2.0}
    k = np.arange(1, last + 1)
    curves = on_curves(nets, k, difference=lambda net, k: net.hidden_size * k ** exponents[net.seed])
    # Within a bin k varies by a factor of up to 1.12, which the means of 1/k and k see differently.
    np.testing.assert_allclose(decay_slopes(curves, AXES), [-1.0, -0.5, -2.0], atol=5e-3)


def test_decay_is_of_the_last_decade_and_a_mean_over_networks():
    nets = networks([("a", 4, 5), ("a", 8, 5)], seeds=(0,))
    exponents = {4: -1.0, 8: -1.5}

    def curve(net, k):
        return np.where(k < 1000, 1.0, 1e9 * (k / 1000.0) ** exponents[net.hidden_size])

    curves = on_curves(nets, np.arange(1, 10001), difference=curve)
    np.testing.assert_allclose(decay_slopes(curves, AXES), [-1.25], atol=2e-3)


def test_decay_gives_every_part_of_the_decade_the_same_weight():
    # Of 9000 objects 5000 lie beyond k = 5000: a bump there would weigh 5/9, and weighs log10(2) = 0.3.
    nets = networks([("a", 4, 5)], seeds=(0,))
    k = np.arange(1, 10001)
    bump = on_curves(nets, k, difference=lambda net, k: np.where(k > 5000, 2.0, 1.0) / k)
    u = np.linspace(-0.5, 0.5, 100001)
    expected = -1 + np.log10(2) * np.mean(u * (u > 0.5 - np.log10(2))) / np.mean(u**2)
    assert decay_slopes(bump, AXES)[0] == pytest.approx(expected, abs=0.02)


def test_summary_of_ends():
    nets = networks([("a", 4, 5), ("a", 8, 5)], seeds=(0, 1, 2))
    ends = nets.assign(k=99, ema=[1.0, 2.0, 3.0, 5.0, 5.0, 5.0], closed_form=[1.0, 1.0, 4.0, 0.0, 0.0, 3.0])
    found = summarise_ends(ends.drop(index=5), AXES)
    assert found[["dataset", "hidden_size", "num_layers"]].to_numpy().tolist() == [["a", 4, 5], ["a", 8, 5]]
    assert found["k"].tolist() == [99, 99]
    assert found["networks"].tolist() == [3, 2]
    np.testing.assert_allclose(found["ema"], [2, 5])
    half = 4.302652729749464 / 3**0.5  # t(0.975, 2), of a sample with deviation 1
    np.testing.assert_allclose(found["low"], [2 - half, 5])
    np.testing.assert_allclose(found["high"], [2 + half, 5])
    np.testing.assert_allclose(found["closed_form"], [2, 0])
