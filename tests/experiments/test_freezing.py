"""Training with part of the parameters frozen: against training by hand, and what is concluded."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

from experiments.chapter4.freezing import CHANCE, LEAST, MOST, Freezing, _freeze
from experiments.chapter4.restarts import of_images, of_table
from landscape_cli.composing import load
from landscape_cli.data.images import load_images
from landscape_cli.data.tabular import load_table
from landscape_cli.descent import mean_losses
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Context, Point, Results
from landscape_cli.models import build_model
from landscape_cli.plan import make_plan
from landscape_cli.plotting.style import style
from landscape_cli.rng import generator
from landscape_cli.training import Trainer

SMOKE = ("profile=smoke", "data.download=false")
ORDERS = [LEAST, CHANCE, MOST]
EPOCHS, FIRST = 5, 2


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def measured(name, *words, network="network", seeds=(0, 1)):
    """One point, measured without drawing, trained for five epochs of which two come before freezing."""
    plan = make_plan(load([f"experiment={name}", *SMOKE, *words]))
    (item,) = [each for each in plan.located if each.point.coordinates["network"] == network]
    settings = {**item.point.settings, "seeds": list(seeds)}
    settings["training"] = settings["training"] | {"epochs": EPOCHS}
    settings["measure"] = settings["measure"] | {"freeze_at": FIRST / EPOCHS, "steps": 4}
    point = Point.of(item.point.coordinates, settings)
    (source,) = plan.sources.values()
    size, cpu = settings["dataset"]["objects"], torch.device("cpu")
    images = plan.experiment.data == "images"
    asked = (None, cpu, settings["dataset"]["normalisation"]) if images else ()
    data = (load_images if images else load_table)(source, size, *asked)
    context = Context(cpu, source, lambda: data, lambda items, **_: items, lambda: data)
    return plan.experiment.measure(point, context).frames["curves"], data, point


class ByHand:
    """One seed's training, with variances of gradients as numpy has them."""

    def __init__(self, data, point, seed):
        settings = point.settings
        images = not hasattr(data, "X")
        row = settings["seeds"].index(seed)
        split = of_images(data, [seed]) if images else of_table(data, settings["seeds"], 0.2)
        shape, outputs = (data.shape, 10) if images else ((data.X.shape[1], 1, 1), len(data.classes) or 1)
        self.model = build_model(settings["model"], shape, outputs)
        start = self.model.initialise([generator(seed, "initialisation", point.stream)])
        rows = split.train[:1] if images else split.train[row : row + 1]
        given = {"seeds": [seed], "stream": point.stream, "rows": rows}
        given["start"] = {name: tensor.to(split.x) for name, tensor in start.items()}
        self.trainer = Trainer(self.model, split.x, split.y, **given, **settings["training"])
        self.objects = split.x[rows], split.y[rows]
        self.unit = 1.0 if split.classes else float(np.var(data.y[rows[0].numpy() - row * len(data.y)]))
        self.squares = []

    def train(self, epochs, frozen=None):
        if frozen is not None:
            sizes = {name: tensor[0].numel() for name, tensor in self.trainer.parameters.items()}
            parts = torch.from_numpy(~frozen).split(list(sizes.values()))
            self.trainer.free = {
                name: part.view(self.trainer.parameters[name].shape) for name, part in zip(sizes, parts, strict=True)
            }
        for _ in range(epochs):
            self.trainer.epoch(observe=self.observe)
        return self

    def observe(self, parameters, x, y, gradients):
        first = self.model.gradients(parameters, x[:, :1], y[:, :1])
        parts = [(first[name] - gradients[name]).flatten().double().numpy() for name in parameters]
        self.squares.append(np.concatenate(parts) ** 2)

    @property
    def loss(self):
        return float(mean_losses(self.model, self.trainer.parameters, *self.objects)) * self.unit


def cells(curves, share, value="loss"):
    return curves[curves["share"] == share].pivot(index="order", columns="seed", values=value).loc[ORDERS]


@pytest.mark.parametrize("name", ["freezing_wine", "freezing_boston", "freezing_mnist"])
def test_nothing_frozen_is_the_whole_training_and_all_frozen_that_up_to_t_0(name):
    small = ["model.hidden_size=4", "model.num_layers=1"] if name == "freezing_mnist" else ["model.hidden=[3]"]
    curves, data, point = measured(name, *small)
    near = {"rtol": 1e-5 if name == "freezing_mnist" else 1e-10}  # single precision of images
    for seed in (0, 1):
        for share, epochs in ((0, EPOCHS), (1, FIRST)):
            by_hand = ByHand(data, point, seed).train(epochs)
            np.testing.assert_allclose(cells(curves, share)[seed], by_hand.loss, **near)
            tested = cells(curves, share, "test")[seed]
            np.testing.assert_allclose(tested, tested[CHANCE], **near)
    before = curves["t_0"].unique().tolist()
    assert before == [len(ByHand(data, point, 0).train(FIRST).squares)]
    assert (cells(curves, 0) < cells(curves, 1)).all(axis=None)


def test_each_order_freezes_what_it_says():
    """Half of the parameters: those of the smallest variance, of the largest, or drawn."""
    curves, data, point = measured("freezing_wine", "model.hidden=[3]")
    assert sorted(curves["frozen"].unique()) == [0, 12, 24, 36, 48]
    for seed in (0, 1):
        by_hand = ByHand(data, point, seed).train(FIRST)
        variances = np.mean(by_hand.squares, axis=0)
        assert variances.shape == (48,)
        drawn = torch.rand(48, generator=generator(seed, "order", point.stream)).numpy()
        for order, score in ((LEAST, variances), (CHANCE, drawn), (MOST, -variances)):
            frozen = np.zeros(48, dtype=bool)
            frozen[np.argsort(score)[:24]] = True
            expected = ByHand(data, point, seed).train(FIRST).train(EPOCHS - FIRST, frozen).loss
            assert cells(curves, 0.5).loc[order, seed] == pytest.approx(expected, rel=1e-10)
    assert cells(curves, 0.5)[0].nunique() == 3


@pytest.mark.parametrize(("steps", "counts"), [(2, [0, 4, 8]), (3, [0, 3, 5, 8]), (40, list(range(9)))])
def test_branches_of_a_trainer(steps, counts):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 3, 1, 1, generator=draw, dtype=torch.float64), torch.randint(2, (20,), generator=draw)
    model = build_model({"kind": "feedforward", "hidden": [], "activation": "tanh", "bias": True}, (3, 1, 1), 2)
    start = {name: v.double() for name, v in model.initialise([generator(s, "a") for s in (4, 5)]).items()}
    options = {"seeds": [4, 5], "epochs": 2, "batch_size": 7, "learning_rate": 0.1}
    trainer = Trainer(model, x, y, start=start, **options)
    trainer.epoch()
    before = torch.cat([tensor.flatten(1) for tensor in trainer.parameters.values()], dim=1)
    variances = torch.rand(2, 8, generator=draw, dtype=torch.float64)
    point = Point.of({}, {"seeds": [4, 5]})
    orders, found = _freeze(trainer, SimpleNamespace(variances=variances), steps, point)
    assert (orders, found.tolist(), trainer.copies) == (ORDERS, counts, 3 * len(counts))
    trainer.epoch()
    after = torch.cat([tensor.flatten(1) for tensor in trainer.finish().values()], dim=1)
    moved = (after != before.repeat_interleave(trainer.copies, dim=0)).view(2, 3, len(counts), 8)
    for number in range(2):
        for place, count in enumerate(counts):
            ranked = variances[number].argsort()
            for order, frozen in ((0, ranked[:count]), (2, ranked[8 - count :])):
                assert set((~moved[number, order, place]).nonzero()[:, 0].tolist()) == set(frozen.tolist())
            assert int((~moved[number, 1, place]).sum()) == count
    still = ~moved[:, 1]
    assert not bool((still[:, :-1] & ~still[:, 1:]).any())  # what is frozen at a share is so at larger ones


def test_a_seed_does_not_depend_on_the_others():
    both, alone = (measured("freezing_boston", "model.hidden=[3]", seeds=seeds)[0] for seeds in ((0, 1), (1,)))
    own = both[both["seed"] == 1].reset_index(drop=True)
    assert len(both) == 2 * len(alone)
    pd.testing.assert_frame_equal(own, alone, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("words", "networks"),
    [
        (("freezing_wine",), {"linear": [], "network": [13]}),
        (("freezing_wine", "model.hidden=[]"), {"linear": []}),
        (("freezing_wine", "measure.linear=false"), {"network": [13]}),
        (("freezing_mnist",), {"linear": [], "network": None}),
        (("freezing_mnist", "model.bias=true"), {"linear": [], "network": None}),
    ],
)
def test_a_linear_model_beside_the_network(words, networks):
    plan = make_plan(load([f"experiment={words[0]}", *SMOKE, *words[1:]]))
    models = {each.point.coordinates["network"]: each.point.settings["model"] for each in plan.located}
    assert {name: model.get("hidden") for name, model in models.items()} == networks
    assert list(models) == list(networks)
    assert {model["bias"] for model in models.values()} == {"model.bias=true" in words}


def test_a_linear_model_is_frozen_at_the_same_step():
    curves, data, point = measured("freezing_wine", network="linear")
    assert curves["frozen"].max() == 13 * 3
    assert cells(curves, 1).loc[CHANCE, 0] == pytest.approx(ByHand(data, point, 0).train(FIRST).loss, rel=1e-10)


def results(losses, network="network", shares=(0.0, 0.25, 0.75, 1.0), quality=0.5) -> Results:
    """Losses by order: a function of share and seed."""
    rows = [
        {"dataset": "mine.csv", "network": network, "seed": s, "order": order, "share": share, "t_0": 4, "steps": 20}
        | {"loss": float(loss(share, s)), "test": quality * (1 - share / 2)}
        for order, loss in losses.items()
        for s in range(3)
        for share in shares
    ]
    sources = {"mine.csv": SimpleNamespace(title="A table", task="classification")}
    return Results((), (), {"curves": pd.DataFrame(rows)}, {}, sources, "paper")


def family(**model):
    options = SimpleNamespace(freeze_at=0.2, linear=True)
    return Freezing(SimpleNamespace(name="freezing_mine", measure=options, model=SimpleNamespace(**model)))


def price(more, spread=0.0, gain=2.0):
    """Losses that end at 1 + gain with everything frozen, and between lie higher by a number and the seeds' spread."""
    return lambda share, s: 1 + (gain if share == 1 else 0 if share == 0 else gain * (more + spread * (s - 1)))


@pytest.mark.parametrize("network", ["linear", "network"])
def test_verdicts_on_known_prices(network):
    losses = {LEAST: price(0.2), CHANCE: price(0.5, 0.1), MOST: price(0.3, 0.1)}
    chance, most = family().claims(results(losses, network))
    half = t.ppf(0.975, 2) * 0.1 / np.sqrt(3)  # 0.248
    assert (chance.effect, chance.low, chance.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    assert (chance.verdict, most.verdict) == (REPRODUCED, INCONCLUSIVE)
    assert most.effect == pytest.approx(0.1)
    assert [verdict.claim.split(":")[0] for verdict in (chance, most)] == [network] * 2
    assert [verdict.claim.split("than ")[1] for verdict in (chance, most)] == [
        "a random choice",
        "those of the largest variance",
    ]
    worse = {LEAST: price(0.9), CHANCE: price(0.5, 0.1), MOST: price(0.3, 0.1)}
    assert [verdict.verdict for verdict in family().claims(results(worse))] == [NOT_REPRODUCED] * 2


def test_nothing_is_concluded_where_training_after_t_0_does_harm():
    losses = {LEAST: price(0.4, gain=-2.0), CHANCE: price(0.1, 0.01, gain=-2.0), MOST: price(0.1, 0.01, gain=-2.0)}
    assert [losses[order](0.25, 1) for order in ORDERS] == pytest.approx([0.2, 0.8, 0.8])  # the least order is best
    assert list(family().claims(results(losses))) == []


def test_one_parameter_is_frozen_or_not():
    losses = dict.fromkeys(ORDERS, price(0.5))
    assert list(family().claims(results(losses, "linear", shares=(0.0, 1.0)))) == []


def test_the_table_and_the_figure():
    own = results({LEAST: price(0.2), CHANCE: price(0.5, 0.1), MOST: price(0.3)})
    (table,) = family().tables(own)
    row = table.frame.set_index(["order", "share"]).loc[(CHANCE, 0.25)]
    assert row[["loss_mean", "loss_std", "test_mean", "test_std"]].tolist() == pytest.approx([2, 0.2, 0.4375, 0])
    assert len(table.frame) == 12
    with style():
        (figure,) = family(hidden=[7, 5]).figures(own)
        figure.drawing.draw_without_rendering()
    loss, test = figure.drawing.axes
    (legend,) = figure.drawing.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["least gradient variance first", "random", "most gradient variance first"]
    assert (loss.get_title(), loss.get_ylabel(), test.get_ylabel()) == (
        "network, 7-5 hidden neurons",
        "train loss",
        "accuracy",
    )
    lines = {line.get_label(): line for line in loss.lines}
    np.testing.assert_allclose(lines["random"].get_xdata(), [0, 25, 75, 100])
    np.testing.assert_allclose(lines["random"].get_ydata(), [1, 2, 2, 3])
    assert 0 <= test.get_ylim()[0] < test.get_ylim()[1] <= 1.02
    assert figure.note.startswith("$t_0$: 4 of 20 steps")


def test_a_run_writes_a_figure_a_table_and_claims(landscape, small, tmp_path):
    finished = landscape("run", "experiment=freezing_wine", *small, "model.hidden=[2]")
    assert (finished.code, finished.err) == (0, "")
    assert "2 points: 0 stored, 2 to measure" in finished.out
    assert len(list((tmp_path / "outputs" / "figures").glob("*/freezing_wine.png"))) == 1
    (path,) = (tmp_path / "outputs" / "tables").glob("*/freezing_wine.csv")
    table = pd.read_csv(path)
    assert table.groupby("network", sort=False)["share"].nunique().to_dict() == {"linear": 11, "network": 11}
    (path,) = (tmp_path / "outputs" / "tables").glob("*/claims_freezing_wine.csv")
    assert len(pd.read_csv(path)) == 4
