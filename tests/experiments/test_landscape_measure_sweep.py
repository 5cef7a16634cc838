"""The landscape measure along a grid of networks: against dense Hessians in float64, and from frames built by hand."""

import itertools
import math
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.func import functional_call

from experiments.beyond.landscape_measure import LandscapeMeasureOptions, LandscapeMeasureSweep, log10_rate
from landscape_cli.config import Config, ConvConfig, DatasetConfig, MLPConfig, TrainingConfig, TransformerConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Context, Results
from landscape_cli.models import build_model
from landscape_cli.plotting.style import style
from landscape_cli.training import fit

OBJECTS, USED, SAMPLED, SHAPE = 20, 6, 4, (1, 4, 4)
TRAINING = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.02)
NETWORKS = {
    "mlp": MLPConfig(hidden_size=4, num_layers=1),
    "conv2d": ConvConfig(num_layers=2, channels=2, kernel_size=2),
    "vit": TransformerConfig(patch_size=2, hidden_size=3, ffn_size=3),
}
GRID = {"hidden_size": [4, 8, 16], "num_layers": [1, 2, 3]}
DEEPER = "the landscape measure grows with layers"
WIDER = "the landscape measure grows with hidden size"
PROPORTIONAL = "the landscape measure has the asymptotics of Corollary 1"


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(**changes) -> LandscapeMeasureSweep:
    nodes = {"dataset": DatasetConfig("mnist"), "model": MLPConfig(hidden_size=8, num_layers=2), "training": TRAINING}
    nodes |= {"measure": LandscapeMeasureOptions(), "grid": GRID, "seeds": 3}
    return LandscapeMeasureSweep(Config(name="landscape_measure_test", title="", family="", **nodes | changes))


def images():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(OBJECTS, *SHAPE, generator=draw), torch.randint(3, (OBJECTS,), generator=draw)
    return SimpleNamespace(x_train=x, y_train=y, shape=SHAPE, source=SimpleNamespace(classes=3))


def measured(model, data):
    options = LandscapeMeasureOptions(hessian_objects=USED, hessian_samples=SAMPLED, tolerance=1e-4)
    own = experiment(model=model, grid={}, seeds=2, seed=3, measure=options)
    (point,) = own.points()
    context = Context(torch.device("cpu"), data.source, lambda: data, lambda iterable, **_: iterable)
    return point, own.measure(point, context)


def object_hessians(net, x, y) -> torch.Tensor:
    names, tensors = zip(*net.double().named_parameters(), strict=True)
    start, sizes = torch.nn.utils.parameters_to_vector(tensors).detach(), [tensor.numel() for tensor in tensors]

    def one(x, y):
        def loss(vector):
            pieces = zip(names, vector.split(sizes), tensors, strict=True)
            logits = functional_call(net, {n: part.view_as(t) for n, part, t in pieces}, (x[None].double(),))
            return torch.nn.functional.cross_entropy(logits, y[None])

        return torch.autograd.functional.hessian(loss, start)

    return torch.stack([one(*pair) for pair in zip(x, y, strict=True)])


@pytest.mark.parametrize("kind", list(NETWORKS))
def test_measured_numbers_are_those_of_dense_hessians(kind):
    data, settings = images(), NETWORKS[kind]
    point, found = measured(settings, data)
    model = build_model(asdict(settings), SHAPE, 3)
    trained = fit(model, data.x_train, data.y_train, seeds=[3, 4], stream=point.stream, **asdict(TRAINING))
    networks, norms = found.frames["networks"], found.frames["norms"]
    assert networks["seed"].tolist() == [3, 4]
    for s, row in enumerate(networks.itertuples()):
        net = model.module(trained, s)
        hessians = object_hessians(net, data.x_train[:USED], data.y_train[:USED])
        mean = hessians.mean(dim=0)
        distances = torch.linalg.matrix_norm(hessians - mean, 2).numpy()
        own = norms[norms["seed"] == row.seed]
        chosen = own["object"].to_numpy()
        assert len(set(chosen) & set(range(USED))) == len(chosen) == SAMPLED
        np.testing.assert_allclose(own["norm"], distances[chosen], rtol=1e-3)
        assert row.measure == pytest.approx(distances[chosen].mean(), rel=1e-3)
        assert row.maximum == pytest.approx(distances[chosen].max(), rel=1e-3)
        assert row.mean_hessian == pytest.approx(torch.linalg.matrix_norm(mean, 2).item(), rel=1e-3)
        error = distances[chosen].std(ddof=1) / math.sqrt(SAMPLED) * math.sqrt(1 - SAMPLED / USED)
        assert row.standard_error == pytest.approx(error, rel=1e-2)
        largest = max(p.abs().max().item() for p in net.parameters())
        assert row.log10_rate == pytest.approx(log10_rate(asdict(settings), SHAPE, largest), nan_ok=True)
        assert (row.parameters, row.hessian_objects, row.samples) == (len(mean), USED, SAMPLED)
        right = net(data.x_train.double()).argmax(1) == data.y_train
        assert row.train_accuracy == pytest.approx(right.double().mean().item())
    assert norms.groupby("seed")["object"].apply(tuple).nunique() == 2
    assert networks.attrs["units"]["measure"] == "nats per parameter²"


def test_a_network_without_any_output_is_measured_and_told(monkeypatch):
    def killed(*given, **options):
        parameters = fit(*given, **options)
        parameters["0.weight"][1] = 0
        return parameters

    monkeypatch.setattr("landscape_cli.training.fit", killed)
    _, found = measured(NETWORKS["mlp"], images())
    assert found.frames["networks"]["dead"].tolist() == [False, True]
    assert (found.frames["networks"]["measure"] > 0).tolist() == [True, False]


@pytest.mark.parametrize(
    ("model", "shape", "largest", "rate"),
    [
        (MLPConfig(hidden_size=4, num_layers=1), (1, 8, 8), 0.5, 3 * (4 * 0.5) ** 6),
        (MLPConfig(hidden_size=8, num_layers=0), (3, 8, 8), 0.25, 2 * (8 * 0.25) ** 4),
        (ConvConfig("conv1d", 2, 3, 2), (1, 7, 5), 0.5, 2 * (3**2 * 0.5**2 * 2 * 7) ** 2),
        (ConvConfig("conv2d", 2, 2, 3), (3, 5, 4), 0.5, 2**2 * 3**2 * 2 * (2**2 * 3**2 * 0.5**2 * 5 * 4) ** 2),
        (TransformerConfig(), (1, 28, 28), 0.5, None),
    ],
)
def test_rates_are_those_of_the_corollaries(model, shape, largest, rate):
    expected = math.nan if rate is None else math.log10(rate)
    assert log10_rate(asdict(model), shape, largest) == pytest.approx(expected, nan_ok=True)


def results(measure, dead=(), names=("mnist",)) -> Results:
    """``measure(h, L, seed, log10_rate)`` on the whole grid; ``dead`` (h, L, seed) have a landscape of rubbish."""
    rows = []
    for name, h, layers, seed in itertools.product(names, *GRID.values(), range(3)):
        rate = math.log10(layers + 2) + 2 * (layers + 2) * math.log10(h * 0.3) + 0.01 * seed
        gone = (h, layers, seed) in dead
        row = {"dataset": name, "hidden_size": h, "num_layers": layers, "seed": seed, "parameters": 10 * h}
        value = 1e30 if gone else measure(h, layers, seed, rate)
        row |= {"measure": value, "standard_error": 0.0, "maximum": 2 * value, "mean_hessian": value / 2}
        row |= {"log10_rate": rate, "hessian_objects": 200, "samples": 50, "mean_loss": 0.5, "train_accuracy": 0.9}
        rows.append(row | {"dead": gone})
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    return Results(tuple(experiment().points()), (), {"networks": pd.DataFrame(rows)}, {}, sources, "paper")


def verdicts(found) -> dict:
    return {verdict.claim: verdict for verdict in experiment().claims(found)}


SIGNS = {1: REPRODUCED, 0: INCONCLUSIVE, -1: NOT_REPRODUCED}


@pytest.mark.parametrize(("wide", "deep"), list(itertools.product(SIGNS, SIGNS)))
def test_growth_is_judged_along_each_axis_by_itself(wide, deep):
    def measure(h, layers, s, _):
        return h ** (wide + 0.1 * (s - 1)) * layers ** (deep + 0.1 * (s - 1))

    found = verdicts(results(measure))
    assert (found[WIDER].verdict, found[DEEPER].verdict) == (SIGNS[wide], SIGNS[deep])
    assert (found[WIDER].effect, found[DEEPER].effect) == (pytest.approx(wide), pytest.approx(deep))


POWERS = {(1, 1.01, 0.99): REPRODUCED, (0.5, 0.51, 0.49): NOT_REPRODUCED, (2, 2.1, 1.9): NOT_REPRODUCED}


@pytest.mark.parametrize(("powers", "verdict"), [*POWERS.items(), ((0.7, 1, 1.3), INCONCLUSIVE)])
def test_proportional_to_the_rate_is_a_slope_near_one(powers, verdict):
    found = verdicts(results(lambda h, layers, s, rate: 3 * 10 ** (powers[s] * rate)))[PROPORTIONAL]
    assert (found.verdict, found.source) == (verdict, "thesis 1.3, Corollary 1")
    assert found.effect == pytest.approx(np.mean(powers))


def drawn(found, own=None) -> list:
    with style():
        figures = list((own or experiment()).figures(found))
        for figure in figures:
            figure.drawing.draw_without_rendering()
    return figures


def test_dead_networks_are_left_out_everywhere_and_counted():
    gone = {(16, 2, 0), (8, 1, 1), (4, 3, 2)}
    with_dead, without = (results(lambda h, layers, *_: h * layers, dead) for dead in (gone, ()))
    found = verdicts(with_dead)
    assert (found[WIDER].effect, found[DEEPER].effect) == (pytest.approx(1), pytest.approx(1))
    assert verdicts(results(lambda h, layers, s, rate: 10**rate, gone))[PROPORTIONAL].effect == pytest.approx(1)
    (table,) = experiment().tables(with_dead)
    assert table.frame["networks"].sum() == 27 - 3
    assert table.frame["maximum"].max() < 1e30
    (figure,), (whole,) = drawn(with_dead), drawn(without)
    assert "3 networks of 27 died and are left out" in figure.note
    assert "died" not in whole.note
    assert figure.drawing.axes[0].get_ylim()[1] < 1e30
    nothing = results(lambda *_: 1, dead=set(itertools.product(*GRID.values(), range(3))))
    assert (drawn(nothing), verdicts(nothing)) == ([], {})


def test_living_networks_are_drawn_where_another_of_their_seed_died():
    (figure,) = drawn(results(lambda h, *_: h, dead={(16, 2, 0), (8, 2, 1), (4, 2, 2)}))
    np.testing.assert_allclose(figure.drawing.axes[0].lines[0].get_xydata(), [[4, 4], [8, 8], [16, 16]])


def test_figures_have_a_column_an_axis_and_the_rate_below():
    (figure,) = drawn(results(lambda h, layers, s, rate: (s + 1) * h * 10.0**layers))
    above, below = figure.drawing.axes[:2], figure.drawing.axes[2:]
    assert (figure.name, len(above), len(below)) == ("landscape_measure_test", 2, 2)
    assert figure.drawing.get_suptitle().strip() == r"MNIST: landscape measure $\mu_f(f|D)$"
    assert [ax.get_title() for ax in above] == ["hidden size, at $L=2$", "layers, at $h=8$"]
    assert [ax.get_xlabel() for ax in below] == ["hidden size $h$", "layers $L$"]
    assert below[0].get_ylabel().startswith("Corollary 1")
    assert "first 200 train objects; 50 of them sampled" in figure.note
    wide, deep = ([line.get_xydata() for line in ax.lines] for ax in above)
    for factor, line in zip((1, 2, 0.5), wide, strict=True):
        np.testing.assert_allclose(line, [[h, factor * 2 * h * 100] for h in (4, 8, 16)])
    np.testing.assert_allclose(deep[0], [[layers, 2 * 8 * 10**layers] for layers in (1, 2, 3)])
    rates = [math.log10(layers + 2) + 2 * (layers + 2) * math.log10(2.4) + 0.01 for layers in (1, 2, 3)]
    np.testing.assert_allclose(below[1].lines[0].get_ydata(), rates)


def test_transformers_have_no_rate():
    own, found = experiment(model=TransformerConfig(hidden_size=8, num_layers=2)), results(lambda h, *_: h)
    assert {verdict.claim for verdict in own.claims(found)} == {WIDER, DEEPER}
    assert {verdict.source for verdict in own.claims(found)} == {"thesis 2.3.5, Theorem 26"}
    (figure,) = drawn(found, own)
    assert [ax.get_xlabel() for ax in figure.drawing.axes] == ["hidden size $h$", "layers $L$"]


def test_every_data_set_has_its_figure_and_its_claims():
    found = results(lambda h, *_: h, names=("mnist", "digits"))
    assert [figure.name for figure in drawn(found)] == ["landscape_measure_test_mnist", "landscape_measure_test_digits"]
    sentences = [f"{name}: {claim}" for name in ("mnist", "digits") for claim in (WIDER, DEEPER, PROPORTIONAL)]
    assert list(verdicts(found)) == sentences


def test_tables_hold_means_and_intervals_over_seeds():
    (table,) = experiment().tables(results(lambda h, layers, s, rate: h * layers * [1, 2, 6][s]))
    assert table.name == "landscape_measure_test"
    own = table.frame.set_index(["dataset", "hidden_size", "num_layers"]).loc[("mnist", 4, 3)]
    values = np.array([12, 24, 72])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert own["measure"] == pytest.approx(36)
    assert (own["low"], own["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (own["maximum"], own["mean_hessian"]) == (pytest.approx(144), pytest.approx(18))
    assert (own["networks"], own["parameters"], len(table.frame)) == (3, 40, 9)
