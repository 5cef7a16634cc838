"""Fig 1.11: the differences batch by batch, the fitted line, the claims and the drawing."""

import itertools
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

from experiments.chapter1.transformer import BatchDifference, BatchDifferenceOptions, fitted_lines
from landscape_cli.config import Config, DatasetConfig, TrainingConfig, TransformerConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Context, Point, Results
from landscape_cli.models import build_model
from landscape_cli.plotting.style import style
from landscape_cli.rng import generator

OBJECTS, BATCH, PASSES, PERMUTATIONS, SMOOTHING = 50, 8, 3, 4, 0.7  # the last of seven batches has 2 objects
SEEDS = [2, 5]
MODEL = TransformerConfig(hidden_size=8)
ACCURACY = "the model is trained to more than 50 % validation accuracy"
SLOPE = "the loss difference falls along a line of slope -1 on the log-log scale"
KS = 128 * 2 ** np.arange(12)  # at most one in each of the bins


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(**changes) -> BatchDifference:
    nodes = {"dataset": DatasetConfig("cifar100"), "model": MODEL, "training": TrainingConfig(epochs=2)}
    settings = {"name": "vit_cifar100", "thesis": "figure 1.11", "seeds": 3, "measure": BatchDifferenceOptions()}
    return BatchDifference(Config(title="", family="", **nodes | settings | changes))


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(70, 1, 8, 8, generator=draw), torch.randint(3, (70,), generator=draw)
    split = dict(zip(("x_train", "x_test", "y_train", "y_test"), (*x.split(OBJECTS), *y.split(OBJECTS)), strict=True))
    return SimpleNamespace(**split, shape=(1, 8, 8), source=SimpleNamespace(classes=3))


def measured(data, batch_size):
    settings = {
        "dataset": {"name": "tiny", "objects": len(data.x_train), "checksum": "0"},
        "model": asdict(MODEL),
        "training": asdict(TrainingConfig(epochs=2, batch_size=16, learning_rate=0.01)),
        "measure": asdict(BatchDifferenceOptions(PERMUTATIONS, PASSES, batch_size, SMOOTHING)),
        "seeds": SEEDS,
    }
    context = Context(torch.device("cpu"), data.source, lambda: data, lambda iterable, **_: iterable)
    return experiment().measure(Point.of({"dataset": "tiny"}, settings), context)


def differences(losses, seed, size):
    """|L_{j+1} - L_j|, mean over orderings, by the definition; and the objects seen with batch j + 1."""
    draw = generator(seed, "orderings", json.dumps(["tiny", asdict(MODEL)], sort_keys=True))
    found = []
    for _ in range(PERMUTATIONS):
        orders = [torch.randperm(len(losses), generator=draw).numpy() for _ in range(PASSES)]
        batches = [losses[order[b : b + size]] for order in orders for b in range(0, len(losses), size)]
        running = [np.mean([batch.mean() for batch in batches[:j]]) for j in range(1, len(batches) + 1)]
        found.append([abs(after - before) for before, after in itertools.pairwise(running)])
    return np.mean(found, axis=0), np.cumsum([len(batch) for batch in batches])[1:]


@pytest.mark.parametrize(
    ("batch_size", "size", "first", "last"), [(BATCH, BATCH, [16, 24], [148, 150]), (128, 16, [32, 48], [148, 150])]
)
def test_differences_batch_by_batch_against_the_definition(data, batch_size, size, first, last):
    """Of few objects at least three batches are made."""
    found, model = measured(data, batch_size), build_model(asdict(MODEL), (1, 8, 8), 3)
    curves, networks = found.frames["curves"], found.frames["networks"]
    assert networks["seed"].tolist() == SEEDS
    for s, seed in enumerate(SEEDS):
        net, own, row = model.module(found.parameters, s), curves[curves["seed"] == seed], networks.iloc[s]
        losses = cross_entropy(net(data.x_train).detach().double(), data.y_train, reduction="none").numpy()
        expected, seen = differences(losses, seed, size)
        assert own["k"].tolist() == seen.tolist()
        assert own["k"].iloc[[0, 1, -2, -1]].tolist() == first + last
        np.testing.assert_allclose(own["difference"], expected, rtol=1e-4, atol=1e-9)
        average = [expected[0]]
        for value in expected[1:]:
            average.append(SMOOTHING * average[-1] + (1 - SMOOTHING) * value)
        np.testing.assert_allclose(own["ema"], average, rtol=1e-4)
        assert row["mean_loss"] == pytest.approx(losses.mean(), rel=1e-5)
        for part, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
            assert row[f"{part}_accuracy"] == pytest.approx((net(x).argmax(1) == y).double().mean().item())
    assert curves.attrs["units"] == {"k": "objects", "difference": "nats", "ema": "nats"}


def test_operations_are_those_of_the_training_of_all_seeds():
    (point,) = experiment(model=TransformerConfig(hidden_size=8, num_layers=3)).points()
    point = Point.of({}, {**point.settings, "dataset": {"name": "tiny", "objects": 700}})
    tokens, width, classes = (12 // 4) * (8 // 4), 8, 7
    source = SimpleNamespace(shape=(2, 12, 8), classes=classes)
    block = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * 4 * width
    products = tokens * (2 * 4 * 4) * width + 3 * block + width * classes
    epochs, seeds, forward_and_backward = 2, 3, 3
    assert experiment().operations(point, source) == 2 * products * forward_and_backward * 700 * epochs * seeds


def curves(ks, **of_seeds) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"seed": int(s[1:]), "k": ks, "difference": d}) for s, d in of_seeds.items()])


def test_fitted_lines_of_power_laws_are_their_exponents():
    slopes, height = fitted_lines(curves(KS, s0=3.0 * KS**-1.0, s1=5.0 * KS**-0.5, s7=0.2 * KS**-2.0))
    np.testing.assert_allclose([*slopes, height], [-1, -0.5, -2, np.mean(np.log([3, 5, 0.2]))], rtol=1e-10)


def test_fitted_lines_are_least_squares():
    noisy = 3 / KS * np.random.default_rng(0).lognormal(size=(2, len(KS)))
    expected = np.array([np.polyfit(np.log(KS), np.log(values), 1) for values in noisy])
    slopes, height = fitted_lines(curves(KS, s0=noisy[0], s1=noisy[1]))
    np.testing.assert_allclose([*slopes, height], [*expected[:, 0], expected[:, 1].mean()], rtol=1e-10)


def test_many_large_k_do_not_outweigh_the_few_small_ones():
    ks = 128 * np.arange(1, 4001)
    bent = np.where(ks < ks[-1] / 3, 1.0, 4.0) / ks
    bins = np.floor(40 * np.log(ks / ks[0]) / np.log((ks[-1] + 1) / ks[0]))
    means = np.array([(ks[bins == b].mean(), bent[bins == b].mean()) for b in np.unique(bins)])
    expected = np.polyfit(*np.log(means.T), 1)[0]
    found = fitted_lines(curves(ks, s0=bent))[0][0]
    assert found == pytest.approx(expected, abs=1e-6)
    assert abs(found - np.polyfit(np.log(ks), np.log(bent), 1)[0]) > 0.1


def results(slopes=(-1, -1.01, -0.99), accuracies=(0.55, 0.56, 0.57), dead=(), objects=None) -> Results:
    objects = objects or {"cifar100": 500}
    curves, networks, points = [], [], []
    for name, size in objects.items():
        for seed, (slope, accuracy) in enumerate(zip(slopes, accuracies, strict=True)):
            values = 2.0 * (KS / KS[0]) ** slope
            curves.append(pd.DataFrame({"dataset": name, "seed": seed, "k": KS, "difference": values, "ema": values}))
            networks.append({"dataset": name, "seed": seed, "test_accuracy": accuracy, "dead": seed in dead})
        settings = {"dataset": {"name": name, "objects": size}, "measure": {"batch_size": 128}}
        points.append(Point.of({"dataset": name}, settings))
    frames = {"curves": pd.concat(curves, ignore_index=True), "networks": pd.DataFrame(networks)}
    sources = {name: SimpleNamespace(title=name.upper()) for name in objects}
    return Results(tuple(points), (), frames, {}, sources, "paper")


@pytest.mark.parametrize(
    ("position", "values", "verdict"),
    [
        *((0, (0.55, 0.56, 0.57), REPRODUCED), (1, (-1, -1.01, -0.99), REPRODUCED)),
        *((0, (0.41, 0.42, 0.43), NOT_REPRODUCED), (1, (-0.8, -0.81, -0.79), NOT_REPRODUCED)),
        *((0, (0.3, 0.55, 0.9), INCONCLUSIVE), (1, (-1.3, -1, -0.7), INCONCLUSIVE)),
    ],
)
def test_accuracy_is_compared_with_a_half_and_slope_with_minus_one(position, values, verdict):
    claims = list(experiment().claims(results(**{("accuracies", "slopes")[position]: values})))
    assert [claim.claim for claim in claims] == [ACCURACY, SLOPE]
    found, half = claims[position], 4.302652729749464 * np.std(values, ddof=1) / math.sqrt(3)  # t(0.975, 2)
    effect = np.mean(values) - (0.5, 0)[position]
    assert found.verdict == verdict
    assert (found.effect, found.low, found.high) == pytest.approx((effect, effect - half, effect + half))


def test_dead_networks_have_an_accuracy_and_no_slope():
    (_, second) = experiment().claims(results((-1, -1.01, -5), dead=[2]))
    assert second.effect == pytest.approx(-1.005)
    assert [verdict.claim for verdict in experiment().claims(results(dead=[0, 1, 2]))] == [ACCURACY]
    assert list(experiment().figures(results(dead=[0, 1, 2]))) == []


def drawn(found, **changes):
    with style():
        (figure,) = experiment(**changes).figures(found)
        figure.drawing.draw_without_rendering()
    return figure


def test_figure_and_table_have_their_names_title_and_note():
    figure, (table,) = drawn(results()), experiment().tables(results())
    assert table.name == "networks_vit_cifar100"
    pd.testing.assert_frame_equal(table.frame, results().frames["networks"])
    (ax,) = figure.drawing.axes
    assert (figure.name, drawn(results(), thesis=None).name) == ("fig_1_11_vit_cifar100", "vit_cifar100")
    assert ax.get_title() == "CIFAR100, 500 objects: test accuracy 55.0% to 57.0%"
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_xlabel()) == ("log", "log", "objects seen")
    network, batches = "Transformer, patch 4, width 8, 1 blocks.", "20 passes over the objects, 128 at a time,"
    assert figure.note == f"{network} {batches} mean over 20 orderings a network."


def test_fitted_line_and_guides_are_drawn_where_they_belong():
    (ax,) = drawn(results()).drawing.axes
    lines = {line.get_label(): line for line in ax.lines}
    assert {"moving average, $a=0.9$: mean and range over seeds", "slope -1"} <= lines.keys()
    x, fitted = lines["fitted line, slope -1.000 [-1.025, -0.975]"].get_data()
    np.testing.assert_allclose([x, fitted], [KS[[0, -1]], [2, 2 * 2.0**-11]], rtol=1e-6)
    guides = [line.get_ydata() for line in ax.lines if line.get_color() == "0.6" and len(line.get_xdata())]
    np.testing.assert_allclose(guides, np.outer([0.1, 10], fitted), rtol=1e-6)


def test_of_one_seed_nothing_is_called_a_range():
    (ax,) = drawn(results((-1,), (0.55,))).drawing.axes
    assert ax.get_title().endswith("test accuracy 55.0%")
    assert "moving average, $a=0.9$: one seed" in [line.get_label() for line in ax.lines]


def test_each_panel_says_its_own_number_of_objects():
    axes = drawn(results(objects={"mnist": 60, "cifar100": 50})).drawing.axes
    assert [ax.get_title().partition(":")[0] for ax in axes] == ["MNIST, 60 objects", "CIFAR100, 50 objects"]


def test_note_names_the_dead():
    assert "All outputs the same, left out: CIFAR100: seed 1. " in drawn(results(dead=[1])).note


def test_note_says_how_many_objects_a_batch_really_had():
    assert "16 at a time" in drawn(results(objects={"cifar100": 50})).note


def test_slope_is_fitted_to_each_data_set_on_its_own():
    found = results((-1, -1, -1), objects={"cifar100": 50, "mnist": 60})
    own = found.frames["curves"].query("dataset == 'cifar100' or k < 3000")
    found.frames["curves"] = own.assign(difference=own["difference"].where(own["dataset"] == "mnist", 1000 / own["k"]))
    assert {round(v.effect, 6) for v in experiment().claims(found) if v.claim.endswith(SLOPE)} == {-1}


RUN = ("run", "experiment=vit_cifar100", "dataset=digits", "model=vit", "model.hidden_size=4", "training.batch_size=30")


def test_an_axis_beside_the_data_set_is_drawn_or_refused(landscape, small):
    assert landscape(*RUN, *small, "dataset.train_size=30", "+grid.hidden_size=[4,8]").code in (0, 2)


def test_one_object_is_refused(landscape, small):
    landscape(*RUN, *small, "dataset.train_size=1").assert_refused(2, "dataset.train_size")


@pytest.mark.parametrize("value", ["passes=0", "permutations=0", "batch_size=0", "smoothing=1", "batch=8"])
def test_impossible_options_are_refused(landscape, small, value):
    landscape(*RUN, *small, f"measure.{value}").assert_refused(2, f"measure.{value.partition('=')[0]}")
