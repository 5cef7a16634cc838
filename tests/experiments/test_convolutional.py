import itertools
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.chapter1.convolutional import Convolutional
from experiments.chapter1.loss_difference import LossDifferenceOptions
from landscape_cli.composing import load
from landscape_cli.config import Config, ConvConfig, DatasetConfig, TrainingConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.plotting.style import style
from landscape_cli.validation import load_class

POOLING = {"pooling": ["max", "average"], "position": [0, 1, 2, 3, 4]}
K = np.unique(np.geomspace(1, 59999, 400).astype(int))


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(grid, **changes) -> Convolutional:
    settings = {
        "dataset": DatasetConfig("mnist"),
        "model": ConvConfig(num_layers=5),
        "training": TrainingConfig(),
        "measure": LossDifferenceOptions(),
        "thesis": "figure 1.7",
        **changes,
    }
    return Convolutional(Config(name="conv", title="", family="", grid=grid, **settings))


def results(points, ends, seeds=range(5), spread=0.01, datasets=("mnist",), k=K) -> Results:
    """Curves that end at ``ends(point)``, times e^noise, and fall as 1/k."""
    random, curves, networks = np.random.default_rng(0), [], []
    for dataset, point, seed in itertools.product(datasets, points, seeds):
        key = {"dataset": dataset, **point, "seed": seed}
        values = ends(point) * math.exp(random.normal(0, spread)) * (k[-1] + 1) / (k + 1)
        curves.append(pd.DataFrame({**key, "k": k, "ema": values, "difference": values, "closed_form": values}))
        networks.append({**key, "dead": False, "mean_loss": 1.0, "train_accuracy": 0.5, "test_accuracy": 0.5})
    frames = {"curves": pd.concat(curves, ignore_index=True), "networks": pd.DataFrame(networks)}
    sources = {name: SimpleNamespace(title=name.upper()) for name in datasets}
    return Results(points=(), missing=(), frames=frames, arrays={}, sources=sources, profile="paper")


def along(axis, values, ends, **options) -> tuple[Convolutional, Results]:
    heights = dict(zip(values, ends, strict=True))
    return experiment({axis: values}), results([{axis: v} for v in values], lambda p: heights[p[axis]], **options)


def verdicts(found) -> dict[str, str]:
    return {verdict.claim: verdict.verdict for verdict in found}


def test_pooling_points_are_nine_networks():
    points = experiment(POOLING, sweep="full").points()
    coordinates = [(point.coordinates["pooling"], point.coordinates["position"]) for point in points]
    assert coordinates == [("none", 0), *itertools.product(["max", "average"], [1, 2, 3, 4])]
    for point in points:
        model = point.settings["model"]
        assert model["position"] == point.coordinates["position"]
        assert model["pooling"] == (point.coordinates["pooling"] if model["position"] else "max")


def test_without_a_pooling_its_kind_is_not_in_the_settings():
    (own,) = experiment({}, model=ConvConfig(pooling="average", position=0)).points()
    (other,) = experiment({}, model=ConvConfig(pooling="max", position=0)).points()
    (pooled,) = experiment({}, model=ConvConfig(pooling="average", position=1)).points()
    assert own == other
    assert own != pooled


@pytest.mark.parametrize(
    ("name", "axis", "values", "model", "epochs"),
    [
        ("conv_layers_mnist", "num_layers", [2, 3, 4, 5, 6, 7], {"channels": 6, "kernel_size": 3}, 10),
        ("conv_layers_cifar10", "num_layers", [2, 3, 4, 5, 6, 7], {"channels": 6, "kernel_size": 3}, 15),
        ("conv_kernel_mnist", "kernel_size", [2, 3, 4, 5], {"channels": 6, "num_layers": 4}, 10),
        ("conv_kernel_cifar10", "kernel_size", [2, 3, 4, 5], {"channels": 6, "num_layers": 4}, 15),
        ("conv_channels_fashion_mnist", "channels", [*range(6, 43, 6)], {"num_layers": 5, "kernel_size": 3}, 10),
        ("conv_channels_cifar10", "channels", [*range(6, 43, 6)], {"num_layers": 5, "kernel_size": 3}, 15),
        ("conv_pooling_cifar10", "position", [0, 1, 2, 3, 4], {"num_layers": 5, "kernel_size": 3, "channels": 12}, 10),
    ],
)
def test_shipped_experiments_have_the_settings_of_the_thesis(name, axis, values, model, epochs):
    config = load([f"experiment={name}"])
    points = load_class(config.family)(config).points()
    assert list(dict.fromkeys(point.coordinates[axis] for point in points)) == values
    pooling = name.startswith("conv_pooling")
    for point in points:
        settings = point.settings
        assert settings["dataset"]["train_size"] is settings["dataset"]["max_size"] is None
        assert settings["dataset"]["normalisation"] == ("standard" if "cifar10" in name else "symmetric")
        assert settings["training"] == {"epochs": epochs, "batch_size": 64, "learning_rate": 1e-3}
        assert settings["measure"] == {"permutations": 500, "smoothing": 0.995}
        assert settings["model"] | model == settings["model"]
        assert settings["model"]["bias"]
        assert settings["model"]["relu_after_last"] is pooling
        assert settings["model"]["head"] == []
        assert pooling or settings["model"]["position"] == 0


def test_the_combined_experiments_trade_no_settings():
    for kind in ("layers", "kernel", "channels"):
        together = load([f"experiment=conv_{kind}"])
        alone = [load([f"experiment=conv_{kind}_{name}"]) for name in ("mnist", "fashion_mnist", "cifar10")]
        expected = [point for config in alone for point in load_class(config.family)(config).points()]
        assert load_class(together.family)(together).points() == expected


@pytest.mark.parametrize(
    ("ends", "spread", "shape", "grows"),
    [
        ([1, 2, 4, 8], 0.01, NOT_REPRODUCED, REPRODUCED),
        ([8, 4, 2, 1], 0.01, NOT_REPRODUCED, NOT_REPRODUCED),
        ([1, 4, 4.5, 2], 0.01, REPRODUCED, REPRODUCED),
        ([2, 2, 2, 2], 0.01, NOT_REPRODUCED, INCONCLUSIVE),  # a turn of 5 % would be seen
        ([2, 2, 2, 2], 0.2, INCONCLUSIVE, INCONCLUSIVE),
    ],
)
def test_the_captions_and_the_poster_are_both_tested(ends, spread, shape, grows):
    found = along("num_layers", [2, 3, 5, 7], [1e-5 * end for end in ends], spread=spread)
    claims = verdicts(found[0].claims(found[1]))
    assert claims == {
        "the dependence on the number of layers is non-monotone": shape,
        "with more layers the loss difference grows": grows,
        "the loss difference falls as 1/k": REPRODUCED,
    }


def test_channels_are_claimed_to_be_monotone_and_to_go_both_ways():
    found = along("channels", [6, 12, 18], [3e-5, 2e-5, 1e-5])
    claims = verdicts(found[0].claims(found[1]))
    assert claims["the dependence on the number of channels is monotone"] == REPRODUCED
    assert claims["with more filters the loss difference grows"] == NOT_REPRODUCED
    assert claims["with more channels the loss difference is smaller"] == REPRODUCED


def test_two_values_or_one_seed_show_no_shape():
    shape = shape_of(*along("kernel_size", [2, 3], [1e-5, 2e-5]))
    assert (shape.verdict, shape.note) == (INCONCLUSIVE, "it takes three values of k_conv, and there are 2")
    shape = shape_of(*along("kernel_size", [2, 3, 4], [1e-5, 2e-5, 1e-5], seeds=[0]))
    assert (shape.verdict, shape.low, shape.high) == (INCONCLUSIVE, -math.inf, math.inf)
    assert shape.effect == pytest.approx(math.log(2), abs=0.1)


def shape_of(exp, found):
    return next(verdict for verdict in exp.claims(found) if "monotone" in verdict.claim)


def test_a_place_with_one_living_network_is_left_out_and_named():
    exp, found = along("kernel_size", [2, 3, 4, 5], [1e-5, 4e-5, 2e-5, 9e-5])
    networks = found.frames["networks"]
    networks["dead"] = (networks["kernel_size"] == 5) & (networks["seed"] > 0)
    shape = shape_of(exp, found)
    assert shape.verdict == REPRODUCED
    assert shape.effect == pytest.approx(math.log(2), abs=0.05)
    assert "one living network at k_conv=5, left out" in shape.note


@pytest.mark.parametrize(("start_up", "judged"), [(1.03, True), (1.3, True), (3, False)])
def test_nothing_is_concluded_from_end_values_that_are_start_up(start_up, judged):
    exp, found = along("channels", [6, 12, 18], [3e-5, 2e-5, 1e-5])
    found.frames["curves"]["ema"] *= start_up
    claims = [verdict for verdict in exp.claims(found) if "1/k" not in verdict.claim]
    assert len(claims) == 3
    for verdict in claims:
        assert (verdict.verdict == INCONCLUSIVE) is not judged
        assert ("start-up" in verdict.note) is (start_up > 1.05)


def pooled(ends) -> tuple[Convolutional, Results]:
    exp = experiment(POOLING, sweep="full")
    return exp, results([{axis: point.coordinates[axis] for axis in POOLING} for point in exp.points()], ends)


def test_each_kind_of_pooling_has_its_claim_and_no_pooling_is_no_position():
    heights = {"none": lambda p: 1.0, "max": lambda p: 2.0**p, "average": lambda p: 2.0 ** abs(p - 2)}
    exp, found = pooled(lambda point: 1e-5 * heights[point["pooling"]](point["position"]))
    claims = verdicts(exp.claims(found))
    assert claims["max pooling: the dependence on the pooling position is monotone"] == REPRODUCED
    assert claims["average pooling: the dependence on the pooling position is monotone"] == NOT_REPRODUCED


def drawn(exp, found):
    with style():
        (figure,) = exp.figures(found)
        figure.drawing.draw_without_rendering()
        return figure


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_pooling_has_one_panel_a_kind_each_with_the_net_without_pooling():
    exp, found = pooled(lambda point: 1e-5 * (1 + point["position"]))
    axes = drawn(exp, found).drawing.axes
    assert [ax.get_title() for ax in axes] == [
        f"MNIST, $L=5$, $k_{{conv}}=3$, $C=6$: {kind} pooling" for kind in ("max", "average")
    ]
    for ax in axes:
        assert labels(ax) == ["no pooling", "after 1", "after 2", "after 3", "after 4"]
        assert ax.get_xlim()[0] == 10000


def test_several_data_sets_are_panels_of_one_row():
    values = [2, 3, 4]
    exp = experiment({"dataset": ["mnist", "cifar10"], "kernel_size": values})
    found = results(
        [{"kernel_size": v} for v in values], lambda p: 1e-5 * p["kernel_size"], datasets=("mnist", "cifar10")
    )
    figure = drawn(exp, found)
    assert figure.name == "fig_1_7_conv"
    assert [ax.get_title().split(",")[0] for ax in figure.drawing.axes] == ["MNIST", "CIFAR10"]
    assert len({ax.get_subplotspec().rowspan.start for ax in figure.drawing.axes}) == 1
    assert [labels(ax) for ax in figure.drawing.axes] == [["$k_{conv}=2$", "$k_{conv}=3$", "$k_{conv}=4$"]] * 2
    claims = verdicts(exp.claims(found))
    assert {claim.split(":")[0] for claim in claims} == {"mnist", "cifar10"}


@pytest.mark.parametrize(("last", "first"), [(59999, 10000), (19999, 10000), (9999, 1999), (999, 199), (3, 1)])
def test_where_the_figure_begins(last, first):
    assert experiment({}).first_k(last) == first


def test_two_axes_are_two_panels_with_the_other_one_fixed():
    grid = {"num_layers": [4, 5], "channels": [6, 12]}
    points = [{"num_layers": n, "channels": c} for n, c in [(4, 6), (5, 6), (5, 12)]]
    exp, found = experiment(grid), results(points, lambda p: 1e-6 * p["channels"])
    axes = drawn(exp, found).drawing.axes
    assert [labels(ax) for ax in axes] == [["$L=4$", "$L=5$"], ["$C=6$", "$C=12$"]]
    assert [ax.get_title().partition("at ")[2] for ax in axes] == ["$C=6$", "$L=5$"]


def test_the_small_print_says_what_the_titles_do_not():
    model = ConvConfig(kind="conv1d", num_layers=5, bias=False, position=2, relu_after_last=True, head=[30])
    exp, found = along("kernel_size", [2, 3], [1e-5, 2e-5])
    assert drawn(exp, found).note.startswith("Two-dimensional convolutions. ")
    exp = experiment({"kernel_size": [2, 3]}, model=model)
    said = "One-dimensional convolutions, no biases, ReLU after the last one too, head 30, max pooling after 2. "
    assert drawn(exp, found).note.startswith(said)


def test_the_table_says_how_many_objects_there_were():
    exp, found = along("kernel_size", [2, 3], [1e-5, 2e-5])
    (table,) = exp.tables(found)
    assert table.frame["objects"].tolist() == [60000, 60000]
