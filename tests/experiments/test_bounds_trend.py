"""Growth of norms and bounds along an architecture: fitted exponents, claims and panels from power laws; one point."""

import itertools
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import hessian
from torch.nn.functional import conv2d, cross_entropy

from experiments.beyond.bounds_trend import FIXED, SWEEPS, BoundsTrend, BoundsTrendOptions, exponents
from landscape_cli.config import Config, DatasetConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Context, Results
from landscape_cli.plotting.style import style

SHAPE, CLASSES = (1, 8, 8), 3
AXES = {sweep.name: sweep for sweep in SWEEPS}


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(**options) -> BoundsTrend:
    measure = BoundsTrendOptions(**{"networks": 3, "hessian_samples": 2, "train_steps": 2} | options)
    nodes = {"dataset": DatasetConfig("digits"), "measure": measure, "seeds": 3, "seed": 4}
    return BoundsTrend(Config(name="trend_test", title="", family="", **nodes))


def results(power, shift=(0.9, 1.0, 1.1), bound=lambda sweep, value: value**2.0, change=lambda row: {}) -> Results:
    """Norms value ** power(sweep, network, state), times `shift` of each network; the part is a half of them."""
    rows = []
    for sweep, state in itertools.product(SWEEPS, ("initial", "trained")):
        for value, (n, factor) in itertools.product(sweep.values, enumerate(shift)):
            norm = factor * value ** power(sweep.name, n, state)
            row = {"dataset": "digits", "sweep": sweep.name, "value": value, "state": state, "network": n}
            row |= {"hessian": norm, "gauss_newton": norm / 2, "printed": 1e4 * factor * bound(sweep.name, value)}
            row |= {"accuracy": 0.1 if state == "initial" else 0.7 + n / 10}
            rows.append(row | change(row))
    sources = {"digits": SimpleNamespace(title="Digits")}
    return Results(tuple(experiment().points()), (), {"norms": pd.DataFrame(rows)}, {}, sources, "paper")


def test_exponents_are_those_of_power_laws():
    found = exponents(
        results(lambda sweep, n, state: len(sweep) / 10 * (1 if state == "trained" else -1)).frames["norms"]
    )
    assert len(found) == 2 * len(SWEEPS)
    for row in found.itertuples():
        expected = len(row.sweep) / 10 * (1 if row.state == "trained" else -1)
        for value in (row.norm, row.low, row.high, row.gauss_newton):
            assert value == pytest.approx(expected)
        assert row.bound == pytest.approx(2)
        assert (row.theorem, row.networks) == (AXES[row.sweep].theorem, 3)


def test_intervals_are_over_networks():
    found = exponents(results(lambda sweep, n, state: [1, 2, 6][n]).frames["norms"]).iloc[0]
    half = 4.302652729911275 * math.sqrt(7) / math.sqrt(3)  # Student's t with two degrees of freedom
    assert found[["norm", "low", "high"]].tolist() == pytest.approx([3, 3 - half, 3 + half])


def test_a_network_that_is_dead_at_one_size_is_left_out_of_its_sweep_alone():
    def dead(row):
        hit = row["sweep"] == "width" and row["value"] == 20 and row["network"] == 2 and row["state"] == "trained"
        return {"hessian": 0.0, "gauss_newton": 0.0} if hit else {}

    found = exponents(results(lambda sweep, n, state: [1, 1, 5][n], change=dead).frames["norms"])
    table = found.set_index(["sweep", "state"])
    assert table.loc[("width", "trained"), ["norm", "networks"]].tolist() == [pytest.approx(1), 2]
    assert table.loc[("width", "initial"), ["norm", "networks"]].tolist() == [pytest.approx(7 / 3), 3]
    assert table.loc[("channels", "trained"), "networks"] == 3


def verdicts(*given, **options) -> dict:
    return {verdict.claim: verdict for verdict in experiment().claims(results(*given, **options))}


GROWS, SAME = (
    "the norm grows with width, as the rate of Theorem 9 does",
    "the norm is proportional to the bound of Theorem 9 along width",
)
POWERS = [
    ((2, 2.01, 1.99), REPRODUCED, REPRODUCED),
    ((1, 1.01, 0.99), REPRODUCED, NOT_REPRODUCED),
    ((4, 4.1, 3.9), REPRODUCED, NOT_REPRODUCED),
    ((1, 2, 3), INCONCLUSIVE, INCONCLUSIVE),
    ((1.3, 1.6, 1.9), REPRODUCED, INCONCLUSIVE),
    ((-1, -1.01, -0.99), NOT_REPRODUCED, NOT_REPRODUCED),
]


@pytest.mark.parametrize(("powers", "grows", "same"), POWERS)
def test_trained_networks_are_judged_by_sign_and_by_the_bounds_own_exponent(powers, grows, same):
    found = verdicts(lambda sweep, n, state: powers[n] if (sweep, state) == ("width", "trained") else 2)
    assert len(found) == 2 * len(SWEEPS)
    assert (found[GROWS].verdict, found[SAME].verdict) == (grows, same)
    assert found[GROWS].effect == found[SAME].effect == pytest.approx(np.mean(powers))
    assert found[GROWS].note == "slope of the printed bound with the networks' own largest weights: 2"
    assert "to lie in [1.6, 2.4]" in found[SAME].statistic
    others = {verdict.verdict for claim, verdict in found.items() if claim not in (GROWS, SAME)}
    assert others == {REPRODUCED}


@pytest.mark.parametrize(
    ("power", "grows", "same"),
    [(-1, NOT_REPRODUCED, REPRODUCED), (-2, NOT_REPRODUCED, NOT_REPRODUCED), (1, REPRODUCED, NOT_REPRODUCED)],
)
def test_a_bound_that_falls_still_asks_for_growth_but_for_its_own_slope(power, grows, same):
    found = verdicts(lambda *_: power, bound=lambda sweep, value: 1 / value)
    assert found["the norm grows with pooling position, as the rate of Theorem 14 does"].verdict == grows
    own = found["the norm is proportional to the bound of Theorem 14 along pooling position"]
    assert (own.verdict, "[-1.2, -0.8]" in own.statistic) == (same, True)


def drawn(found):
    with style():
        (figure,) = experiment().figures(found)
        figure.drawing.draw_without_rendering()
    return figure


def test_the_figure_has_a_panel_a_sweep_each_curve_over_its_first_size():
    found = results(lambda sweep, n, state: 3 if state == "trained" else 1)
    figure = drawn(found)
    axes = figure.drawing.axes
    assert figure.name == "trend_test"
    assert figure.drawing.get_suptitle().strip() == "Digits: growth of the Hessian's norm and of its printed bound"
    assert "over 2 objects" in figure.note
    assert "3 networks of each size" in figure.note
    assert figure.note.endswith("70% to 90%.")
    assert [ax.get_xlabel() for ax in axes] == [f"{sweep.name} ${sweep.symbol}$" for sweep in SWEEPS]
    assert [ax.get_title() for ax in axes] == [f"Theorem {sweep.theorem}" for sweep in SWEEPS]
    for ax, sweep in zip(axes, SWEEPS, strict=True):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        for line, power in zip(ax.lines, (3, 1, 2), strict=True):
            values = np.array(sweep.values, dtype=float)
            np.testing.assert_allclose(line.get_xydata(), np.stack([values, (values / values[0]) ** power], axis=1))
        assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(value) for value in sweep.values]
    lines = axes[0].lines
    assert len({(line.get_color()) for line in lines}) == len({line.get_marker() for line in lines}) == 3
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 3


def test_dead_networks_are_not_drawn():
    found = results(lambda *_: 2, change=lambda row: {"hessian": 0.0} if row["network"] == 0 else {})
    np.testing.assert_allclose(drawn(found).drawing.axes[0].lines[0].get_ydata(), [1, 4, 16, 64])


def test_the_table_holds_every_sweep_in_each_state():
    (table,) = experiment().tables(results(lambda *_: 2))
    assert table.name == "trend_test"
    expected = [[s.name, state] for s in SWEEPS for state in ("initial", "trained")]
    assert table.frame[["sweep", "state"]].to_numpy().tolist() == expected


def test_points_are_one_a_sweep_and_size_around_the_fixed_one():
    points = experiment().points()
    found = [(p.coordinates["sweep"], p.coordinates["value"]) for p in points]
    assert found == [(s.name, v) for s in SWEEPS for v in s.values]
    for point in points:
        sweep, network = AXES[point.coordinates["sweep"]], dict(point.settings["network"])
        assert network.pop("kind") == sweep.kind
        assert network == FIXED[sweep.kind] | {sweep.axis: point.coordinates["value"]}
        assert point.settings["seeds"] == [4]
        assert point.settings["sweep"] == sweep.name
    assert len({str(point.settings) for point in points}) == len(points)  # those of equal networks are no copies


def measured(point, own):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, *SHAPE, generator=draw), torch.arange(40) % CLASSES
    source = SimpleNamespace(classes=CLASSES)
    data = SimpleNamespace(x_train=x, y_train=y, shape=SHAPE, source=source)
    context = Context(torch.device("cpu"), source, lambda: data, lambda iterable, **_: iterable)
    return own.measure(point, context).frames["norms"]


def point_of(own, sweep, value):
    return next(p for p in own.points() if p.coordinates["sweep"] == sweep and p.coordinates["value"] == value)


@pytest.mark.parametrize(("sweep", "value"), [("width", 10), ("kernel", 2), ("pooling position", 2)])
def test_a_point_has_every_network_before_and_after_training(sweep, value):
    own = experiment()
    frame = measured(point_of(own, sweep, value), own)
    assert frame[["state", "network"]].to_numpy().tolist() == [[s, n] for s in ("initial", "trained") for n in range(3)]
    numbers = frame[["hessian", "gauss_newton", "printed", "accuracy"]]
    assert np.isfinite(numbers).all().all()
    assert (numbers >= 0).all().all()
    assert (frame["hessian"] > 0).any()
    assert frame.attrs["units"]["hessian"] == "nats per parameter²"
    assert frame.equals(measured(point_of(own, sweep, value), own))
    assert frame["hessian"].nunique() >= 4


def test_training_makes_the_accuracy_better_and_other_steps_leave_the_initial_networks_alone():
    found = {
        steps: measured(point_of(own, "width", 40), own) for steps in (0, 60) for own in [experiment(train_steps=steps)]
    }
    before, after = ({state: own["accuracy"].to_numpy() for state, own in f.groupby("state")} for f in found.values())
    assert after["initial"].tolist() == before["initial"].tolist()
    assert (after["trained"] > before["trained"] + 0.3).all()


def test_norms_and_bounds_are_means_over_objects(monkeypatch):
    """Two convolutions: the states that the family was asked about, each dense Hessian by autograd."""
    from experiments.beyond.search import ChainFamily

    kept, printed, norms = [], [], ChainFamily.norms

    def remember(family, state):
        kept.append(dict(state))
        printed.append(family.bounds(state)[0].printed.numpy())
        return norms(family, state)

    monkeypatch.setattr(ChainFamily, "norms", remember)
    own = experiment(networks=2)
    frame = measured(point_of(own, "convolutions", 2), own)
    expected = np.zeros((4, 2))
    for call, state in enumerate(kept):
        for s in range(2):
            first, second, x, y = (state[name][s] for name in ("weight0", "weight1", "x", "y"))
            sizes = [first.numel(), second.numel()]

            def loss(flat, first=first, second=second, x=x, y=y, sizes=sizes):
                a, b = (p.view_as(w) for p, w in zip(flat.split(sizes), (first, second), strict=True))
                return cross_entropy(conv2d(conv2d(x.view(1, *SHAPE), a).relu(), b).flatten(1), y[None])

            matrix = hessian(loss)(torch.cat([first.flatten(), second.flatten()]))
            expected[call // 2 * 2 + s, call % 2] = torch.linalg.eigvalsh(matrix).abs().max()
    assert len(kept) == 4  # two states, two objects
    np.testing.assert_allclose(frame["hessian"], expected.mean(axis=1), rtol=1e-9)
    values = np.stack(printed).reshape(2, 2, 2)  # state, object, network
    assert not np.allclose(values[:, 0], values[:, 1])
    np.testing.assert_allclose(frame["printed"], values.mean(axis=1).ravel())


def test_connected_networks_see_means_of_four_blocks():
    own, x = experiment(), torch.randn(5, *SHAPE, dtype=torch.float64)
    family = own._family(point_of(own, "width", 10), x, torch.arange(5) % CLASSES, CLASSES)
    torch.testing.assert_close(family.x, x.view(5, 2, 4, 2, 4).mean(dim=(2, 4)).flatten(1))
    assert [tuple(layer.shape) for layer in family.chain.layers] == [(10, 4), (10, 10), (CLASSES, 10)]
