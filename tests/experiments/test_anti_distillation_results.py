"""Figures, Table 4.9 and claims on accuracies that are known."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from experiments.chapter4 import anti_distillation_results as made
from experiments.chapter4.rivals import all_positive, all_within, level, nearest
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.plotting.style import style

SEEDS = 10
ACCURACY = {name: 0.5 + 0.02 * k for k, name in enumerate(made.LABELS)}  # anti-distillation, the last, is the best


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def config(thesis="figure 4.14"):
    measure = SimpleNamespace(
        lambdas=[1.0, 0.1, 1.0, 0.01],
        lambdas_no_trace=[1.0, 0.1, 1.0],
        teacher_hidden=[8],
        shared_classes=5,
        radius=0.1,
    )
    return SimpleNamespace(
        name="anti_distillation_mnist", thesis=thesis, measure=measure, model=SimpleNamespace(hidden=[16])
    )


def results(accuracy=ACCURACY, spread=0.001, sizes=(200, "all"), searched=()):
    """Accuracies of epoch 2 as given; half of that in epoch 1, under attack and with noise less by a tenth."""
    random, frames = np.random.default_rng(0), {"epochs": [], "attack": [], "noise": [], "teachers": []}
    counts = {size: 1000 if size == "all" else size for size in (*sizes, *searched)}
    for part, size in [("comparison", size) for size in sizes] + [("search", size) for size in searched]:
        where = {"dataset": "mnist", "part": part, "train_size": size}
        teacher = [
            where | {"seed": s, "accuracy": 0.9, "objects": 50, "train_objects": counts[size]} for s in range(SEEDS)
        ]
        frames["teachers"] += teacher
        for name, value in accuracy.items():
            if part == "search" and name != "xavier":
                continue
            own = value + (spread * random.normal(size=SEEDS) if np.isscalar(spread) else spread[name])
            for seed in range(SEEDS):
                row = where | {"seed": seed, "initialisation": name}
                for epoch, part_of in ((0, 0.1), (1, 0.5), (2, 1.0)):
                    frames["epochs"].append(row | {"epoch": epoch, "accuracy": part_of * own[seed]})
                for frame in ("attack", "noise"):
                    for strength in (0.0, 0.1):
                        frames[frame].append(row | {"strength": strength, "accuracy": own[seed] - strength})
    return Results((), (), {n: pd.DataFrame(rows) for n, rows in frames.items()}, {}, {}, "paper")


def test_claims_hold_where_they_do():
    accuracy = ACCURACY | {"anti_distillation_no_trace": 0.9}
    found = list(made.claims(results(accuracy), config()))
    assert len(found) == 2 * 6
    for verdicts in (found[:6], found[6:]):
        best, attacked, noisy, spread, scratch, early = verdicts
        assert best.verdict == attacked.verdict == NOT_REPRODUCED  # without the trace it is better
        assert noisy.verdict == scratch.verdict == early.verdict == REPRODUCED
        assert spread.verdict == INCONCLUSIVE  # all have one spread
        assert best.effect == pytest.approx(0.64 - 0.9, abs=0.002)
        assert scratch.effect == pytest.approx(0.14, abs=0.002)
        assert early.effect == pytest.approx(0.14 * 0.75, abs=0.002)
        assert "anti-distillation, λ4 = 0" in best.note
    assert "(200 train objects)" in found[0].claim
    assert "(1000 train objects)" in found[6].claim


def test_the_best_of_all_is_reproduced_and_the_interval_is_simultaneous():
    own = results(spread=0.005)
    first = next(made.claims(own, config()))
    assert first.verdict == REPRODUCED
    table = made.last(own, "epochs", 200)
    difference = (table["anti_distillation"] - table["anti_distillation_no_trace"]).to_numpy()
    half = t.ppf(1 - 0.05 / 7 / 2, SEEDS - 1) * difference.std(ddof=1) / np.sqrt(SEEDS)
    assert (first.effect, first.low, first.high) == pytest.approx(
        (difference.mean(), difference.mean() - half, difference.mean() + half)
    )


@pytest.mark.parametrize(("own", "others", "verdict"), [(0.001, 0.02, REPRODUCED), (0.05, 0.005, NOT_REPRODUCED)])
def test_spread_over_seeds(own, others, verdict):
    shape = np.random.default_rng(1).normal(size=(len(ACCURACY), SEEDS))
    spread = {name: shape[k] * (own if name == "anti_distillation" else others) for k, name in enumerate(ACCURACY)}
    found = next(v for v in made.claims(results(spread=spread), config()) if "variance" in v.claim)
    assert found.verdict == verdict
    table = made.last(results(spread=spread), "epochs", 200)
    expected = np.log(table["anti_distillation"].std() / table.drop(columns="anti_distillation").std().min())
    assert found.effect == pytest.approx(expected)


def test_interval_of_two_spreads_holds_what_pitmans_test_does_not_reject():
    """At the ends of the interval the correlation of sum and difference is just significant."""
    random = np.random.default_rng(5)
    x = random.normal(size=12)
    y = 0.6 * x + random.normal(size=12)
    found = made.spread_ratio(x, y, 0.95)
    for end in (found.low, found.high):
        scaled = y * np.exp(end)
        r = np.corrcoef(x + scaled, x - scaled)[0, 1]
        assert abs(r) * np.sqrt(10 / (1 - r * r)) == pytest.approx(t.ppf(0.975, 10))
    assert found.mean == pytest.approx(np.log(x.std() / y.std()))
    assert made.spread_ratio(x[:2], y[:2], 0.95).high == np.inf
    assert made.spread_ratio(x, np.ones(12), 0.95).low == -np.inf


def test_table_4_9_has_the_published_numbers_beside_ours():
    first, sizes = made.tables(results(searched=(100, 500)), config())
    assert first.name == "table_4_9_anti_distillation"
    assert len(first.frame) == 2 * 8
    row = first.frame.set_index(["train_objects", "initialisation"]).loc[("200", "zero pad")]
    assert row["accuracy"].startswith("0.52")
    assert row["FGSM"].startswith("0.42")
    assert (row["published accuracy"], row["published FGSM"]) == ("0.86 ± 0.02", "0.50 ± 0.01")
    assert row["published parameter noise"] == "0.71 ± 0.03"
    assert sizes.frame["train_objects"].tolist() == [100, 200, 500, 1000]
    assert sizes.frame["distance"].tolist() == pytest.approx((sizes.frame["accuracy"] - 0.68).abs().tolist())
    best = sizes.frame.loc[sizes.frame["distance"].idxmin(), "train_objects"]
    assert f"; {best} objects come closest" in sizes.caption
    assert [table.name for table in made.tables(results(), config(None))] == ["anti_distillation_mnist"]


def test_figures_show_every_initialisation_once():
    with style():
        figures = list(made.figures(results(), config()))
    assert [figure.name for figure in figures] == [
        "fig_4_14_anti_distillation_accuracy",
        "fig_4_15_anti_distillation_adversarial",
        "fig_4_16_anti_distillation_parameter_noise",
    ]
    for figure in figures:
        (legend,) = figure.drawing.legends
        assert [text.get_text() for text in legend.get_texts()] == list(made.LABELS.values())
        left, right = figure.drawing.axes
        assert [ax.get_title() for ax in (left, right)] == ["200 train objects", "1000 train objects"]
        assert all(len(ax.lines) == len(made.LABELS) for ax in (left, right))
        assert 0 <= left.get_ylim()[0] < left.get_ylim()[1] <= 1
    means = {line.get_label(): line.get_ydata()[-1] for line in figures[0].drawing.axes[0].lines}
    assert [means[label] for label in made.LABELS.values()] == pytest.approx(list(ACCURACY.values()), abs=0.002)
    with style():
        assert next(f.name for f in made.figures(results(), config(None))) == "anti_distillation_mnist_accuracy"


def test_rivals():
    random = np.random.default_rng(2)
    apart = pd.DataFrame({"near": 1 + 0.1 * random.normal(size=8), "far": 5 + 0.1 * random.normal(size=8)})
    assert level(apart) == pytest.approx(0.975)
    name, interval = nearest(apart)
    assert name == "near"
    half = t.ppf(0.9875, 7) * apart["near"].std() / np.sqrt(8)
    assert interval.high - interval.mean == pytest.approx(half)
    assert all_positive(apart) == REPRODUCED
    assert all_positive(apart.assign(near=-apart["near"])) == NOT_REPRODUCED
    assert all_positive(apart.assign(near=random.normal(size=8))) == INCONCLUSIVE
    assert all_within(apart, 6) == REPRODUCED
    assert all_within(apart, 2) == NOT_REPRODUCED
    assert all_within(apart.assign(far=10 * random.normal(size=8)), 6) == INCONCLUSIVE
    nothing = apart.iloc[:0]
    assert all_positive(nothing) == INCONCLUSIVE
    assert np.isnan(nearest(nothing)[1].mean)
