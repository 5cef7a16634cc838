"""Figs 1.4 and 1.6: the same nets on features and on pixels."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.chapter1.fully_connected import FullyConnected
from landscape_cli.composing import load
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.plotting.style import style

WIDTHS = [4, 8, 16, 32, 64]
K = np.arange(1, 1001)


@pytest.fixture
def experiment() -> FullyConnected:
    return FullyConnected(load(["experiment=fc_features_mnist", "profile=quick", "grid.hidden_size=[4,8,16,32,64]"]))


def results(on_features, on_pixels, seeds=3) -> Results:
    """Nets of growing width at L = 5 whose curves end at the given values."""
    curves, networks = [], []
    for inputs, ends in {"features": on_features, "pixels": on_pixels}.items():
        for seed in range(seeds):
            for width, end in zip(WIDTHS, ends(seed), strict=True):
                key = {"inputs": inputs, "dataset": "mnist", "hidden_size": width, "num_layers": 5, "seed": seed}
                values = end * 1001 / (K + 1)
                curves.append(pd.DataFrame({**key, "k": K, "ema": values, "difference": values, "closed_form": values}))
                networks.append({**key, "dead": False, "mean_loss": 1.0, "train_accuracy": 0.5, "test_accuracy": 0.5})
    frames = {"curves": pd.concat(curves, ignore_index=True), "networks": pd.DataFrame(networks)}
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    return Results(points=(), missing=(), frames=frames, arrays={}, sources=sources, profile="quick")


def order(experiment, found):
    return next(v for v in experiment.claims(found) if "agree with those on pixels" in v.claim)


@pytest.mark.parametrize(
    ("on_pixels", "tau", "verdict"),
    [
        (lambda seed: [50, 40, 30, 20, 10], 1, REPRODUCED),
        (lambda seed: [10, 20, 30, 40, 50], -1, NOT_REPRODUCED),
        (lambda seed: [50, 40, 30, 20, 10] if seed else [10, 20, 30, 40, 50], 1 / 3, INCONCLUSIVE),
        (lambda seed: [50, 40, 30, 10, 20], 0.8, REPRODUCED),  # one of ten pairs is exchanged
    ],
)
def test_order_on_features_and_on_pixels(experiment, on_pixels, tau, verdict):
    found = order(experiment, results(lambda seed: [5, 4, 3, 2, 1], on_pixels))
    assert found.effect == pytest.approx(tau)
    assert found.verdict == verdict


def test_the_other_claims_and_the_figure_are_of_the_features_alone(experiment):
    found = results(lambda seed: [5, 4, 3, 2, 1 + seed / 10], lambda seed: [1, 2, 3, 4, 5 + seed / 10])
    width = next(v for v in experiment.claims(found) if "hidden size" in v.claim)
    assert (width.verdict, width.source) == (REPRODUCED, "thesis 1.4.1, Fig 1.4 and 1.6")
    with style():
        (figure,) = experiment.figures(found)
    assert "extracted image features" in figure.caption
    ends = [line.get_ydata()[-1] for line in figure.drawing.axes[0].lines]
    assert max(ends) == pytest.approx(5, rel=0.01)
    assert min(ends) < 1.2


def test_table_has_the_value_on_pixels_beside_the_features(experiment):
    (table,) = experiment.tables(results(lambda seed: [5, 4, 3, 2, 1], lambda seed: [50, 40, 30, 20, 10]))
    assert table.frame["pixels"].to_numpy() == pytest.approx(10 * table.frame["ema"].to_numpy())
    assert len(table.frame) == len(WIDTHS)


def test_every_network_has_a_point_on_features_and_one_on_pixels(experiment):
    points = experiment.points()
    on_features = [point for point in points if point.coordinates["inputs"] == "features"]
    on_pixels = [point for point in points if point.coordinates["inputs"] == "pixels"]
    assert len(on_features) == len(on_pixels) == len(points) / 2
    pixels = FullyConnected(load(["experiment=fc_mnist", "profile=quick", "grid.hidden_size=[4,8,16,32,64]"])).points()
    assert [point.settings for point in on_pixels] == [point.settings for point in pixels]
    assert all(point.settings["features"]["kind"] == "vit" for point in on_features)
    assert len({point.stream for point in points}) == len(points)
