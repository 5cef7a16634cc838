"""Tables, claims, answers and figures of removal, of curves whose answers are known."""

import warnings
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from scipy.stats import t

from experiments.chapter4 import pruning_claims as claims
from experiments.chapter4 import pruning_figures as figures
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.plotting.style import style

YES, NO, OPEN = REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE
SHARES = np.arange(11) / 10
APART = np.array([-0.3, 0.0, 0.3])  # of three seeds: half a 95 % interval is 0.745, half a 97.5 % one 1.075
THREE = ("optimal_brain_damage", "variational", "belsley")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def results(quality, noise=None, *, dataset="mine.csv", task="classification", retrained=(False,), seeds=3) -> Results:
    """Functions of share and seed by method, and heights of the noise's surface: a number a seed."""
    curves = [
        {"dataset": dataset, "seed": s, "removed": round(10 * share), "share": share, "method": m, "retrained": r}
        | {"test": float(value(share, s))}
        for m, value in quality.items()
        for r in retrained
        for share in SHARES
        for s in range(seeds)
    ]
    surface = [
        {"dataset": dataset, "method": m, "share": share, "seed": s, "noise": level}
        | {"deviation": height * level * 2 * (1 - share)}  # of mean `height` over shares and noise above zero
        for m, heights in (noise or {}).items()
        for share in SHARES
        for s, height in enumerate(np.broadcast_to(heights, seeds))
        for level in (0.0, 0.5, 1.5)
    ]
    frames = {"curves": pd.DataFrame(curves), "fits": pd.DataFrame({"test_objects": [24] * seeds})} | (
        {"surface": pd.DataFrame(surface)} if noise else {}
    )
    return Results((), (), frames, {}, {dataset: SimpleNamespace(title="A table", task=task)}, "paper")


def config(name="pruning_table", thesis=None):
    numbers = {"test_share": 0.2, "posterior_iterations": 7, "retrain": 2, "retrain_steps": 10}
    options = SimpleNamespace(tolerance=0.05, methods=["random"], covariance="full", **numbers)
    return SimpleNamespace(name=name, thesis=thesis, measure=options, training=SimpleNamespace(epochs=3))


def steps(*values):
    """A curve with these values at shares 0, 0.1, …; the last one is held until share 1, where `empty` is."""

    def at(share, seed, empty=0.3):
        place = round(10 * share)
        return empty if place == 10 else values[min(place, len(values) - 1)]

    return at


def until(share, full=0.9, empty=0.3):
    """A curve that keeps all up to a share and has nothing beyond."""
    return lambda now, seed: full if now <= np.broadcast_to(share, 3)[seed] + 1e-9 else empty


def test_what_is_lost_is_in_parts_of_what_the_network_has_over_the_empty_one():
    table = pd.DataFrame({0: [0.9, 0.75, 0.3], 1: [0.6, 0.7, 0.5], 2: [0.3, 0.4, 0.5]}, index=[0.0, 0.5, 1.0])
    lost = claims.losses(table, 1)
    assert list(lost) == [0, 1]  # the last network is worse than the empty one
    np.testing.assert_allclose(lost, [[0, 0], [0.25, -1], [1, 1]])
    errors = claims.losses(10 * (1 - table), -1)
    np.testing.assert_allclose(errors, lost)
    assert claims.losses(table, -1).columns.tolist() == [2]


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ((0.9, 0.9, 0.9, 0.5), 0.2),
        ((0.9, 0.871, 0.869, 0.9), 0.1),  # more than 0.03 lost once, and gained again
        ((0.9, 0.5), 0.0),
        ((0.9, 0.95, 0.9), 0.9),
    ],
)
@pytest.mark.parametrize("gains", [1, -1])
def test_removable_is_up_to_the_first_loss(values, share, gains):
    own = results({"random": steps(*values)}, seeds=2)
    table = claims.qualities(own, "random")
    assert claims.removable(table if gains == 1 else 5 - 3 * table, gains, 0.05).tolist() == [share] * 2


def test_a_network_worse_than_the_empty_one_has_nothing_to_lose():
    own = results({"random": lambda share, s: (0.9, 0.2, 0.9)[s] if share < 0.65 else 0.3})
    assert claims.removable(claims.qualities(own, "random"), 1, 0.05).tolist() == [0.6, 0.6]


def test_the_nearest_share_is_read():
    table = pd.DataFrame({0: [1.0, 2.0, 3.0]}, index=[0.0, 0.74, 1.0])
    assert [claims.at(table, share)[0] for share in (0, 0.75, 0.99)] == [1, 2, 3]
    assert claims.at(table, 0.8) is None


def test_the_table_and_the_answers():
    quality = {"belsley": until([0.6, 0.7, 0.8]), "random": until(0.2)}
    own = results(quality, {"belsley": 2.0, "random": [1, 2, 6]}, retrained=(True, False))
    shown = claims.summary(own, config())
    assert shown.frame["method"].tolist() == ["random", "Belsley, covariance"] * 2
    assert shown.frame["retrained"].tolist() == ["no", "no", "yes", "yes"]
    row, half = shown.frame.iloc[1], t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert row[["removable", "low", "high"]].tolist() == pytest.approx([0.7, 0.7 - half, 0.7 + half])
    assert row[["whole", "at_50%", "at_80%", "at_90%", "empty"]].tolist() == pytest.approx([0.9, 0.9, 0.5, 0.3, 0.3])
    assert shown.frame["noise"].tolist()[:2] == pytest.approx([3, 2])
    assert shown.frame["noise"].isna().tolist() == [False, False, True, True]
    assert list(claims.answers(own, config())) == [
        f"removable {how} retraining, losing at most 5%: random 20%, Belsley, covariance 70%"
        for how in ("without", "with")
    ]


def test_there_is_no_answer_where_no_network_is_better_than_the_empty_one():
    own = results({"random": lambda share, s: 0.3 + 0.1 * share})
    assert list(claims.answers(own, config())) == []
    assert claims.summary(own, config()).frame[["removable", "low", "high"]].isna().all(axis=None)


def test_nothing_is_decided_where_no_network_is_better_than_the_empty_one():
    poor = {method: lambda share, s: 0.3 + 0.1 * share for method in ("random", "belsley")}
    found = list(claims.verdicts(results(poor, {"random": 2.0, "belsley": 1.0}), config()))
    assert found[-1].verdict == OPEN


def judged(own, word):
    (found,) = [verdict for verdict in claims.verdicts(own, config()) if word in verdict.claim]
    return found


@pytest.mark.parametrize(
    ("share", "keeps", "lost"),
    [(0.8, YES, YES), (0.7, NO, YES), (0.9, YES, NO), ([0.9, 0.7, 0.9], OPEN, OPEN)],
)
def test_wine_keeps_its_accuracy_at_80_and_has_lost_at_90(monkeypatch, share, keeps, lost):
    monkeypatch.setattr(claims, "FEW", 0)
    quality = dict.fromkeys(("random", *THREE), until(share))
    own = results(quality, dict.fromkeys(quality, 1.0), dataset="wine")
    found = list(claims.verdicts(own, config()))
    assert [verdict.verdict for verdict in found[:6]] == [keeps, lost] * 3
    assert {verdict.source for verdict in found[:6]} == {"thesis 4.4.1, of Fig 4.4"}
    seeds = np.array([float(each < 0.8) for each in np.broadcast_to(share, 3)]) - 0.05
    half = t.ppf(0.975, 2) * seeds.std(ddof=1) / np.sqrt(3)
    first = found[0]
    mean = seeds.mean()
    assert (first.effect, first.low, first.high) == pytest.approx((mean, mean - half, mean + half))
    assert [verdict.source for verdict in found[6:]] == ["thesis 4.4.1, of Fig 4.5", "thesis 4.4.1, of Boston Housing"]


def test_a_few_restarts_that_agree_say_nothing_of_their_spread():
    quality = dict.fromkeys(("random", *THREE), until(0.8))
    own = results(quality, dict.fromkeys(quality, 1.0), dataset="wine")
    found = list(claims.verdicts(own, config()))[:6]
    assert {verdict.verdict for verdict in found} == {"inconclusive"}
    assert all(verdict.low == pytest.approx(verdict.high) for verdict in found)


def test_each_comparison_with_all_others_is_shared_out_between_them():
    """Differences of 1 ± 0.75 (95 %) decide against one rival, and against two (97.5 %) if they are 1.1."""
    for mean, rivals, verdict in (
        (1.0, ["random"], YES),
        (1.0, ["random", "variational"], OPEN),
        (1.1, ["random", "variational"], YES),
        (-1.1, ["random", "variational"], NO),
    ):
        quality = dict.fromkeys(["belsley", *rivals], until(0.5))
        noise = {"belsley": 2.0} | dict.fromkeys(rivals, 2 * (1 + mean + APART))
        found = judged(results(quality, noise), "noise surface lies lowest")
        assert (found.verdict, found.effect) == (verdict, pytest.approx(mean))
        assert found.high - found.effect == pytest.approx(t.ppf(1 - 0.025 / len(rivals), 2) * 0.3 / np.sqrt(3))
        assert found.source == "thesis 4.4.1, of its own data sets"


def test_one_rival_below_is_enough_and_the_nearest_is_named():
    quality = dict.fromkeys(("random", "variational", "gradient_covariance", "belsley_precision"), until(0.5))
    noise = {"belsley_precision": 2.0, "random": 9.0, "variational": [1.0, 1.1, 1.2], "gradient_covariance": 0.1}
    found = judged(results(quality, noise), "noise surface lies lowest")
    assert (found.verdict, found.effect) == (NO, pytest.approx(-0.45))
    assert found.note.startswith("nearest: variational; mean heights and accuracy: Belsley, precision 2 at 0.627")
    assert "gradient" not in found.note


def test_most_is_removed():
    for own, others, verdict, effect in (
        ([0.7, 0.8, 0.8], 0.3, YES, 0.8 - 0.1 / 3 - 0.3),
        (0.2, [0.4, 0.5, 0.4], NO, 0.2 - 1.3 / 3),
        (0.5, 0.5, OPEN, 0),
        ([0.1, 0.5, 0.9], 0.4, OPEN, 0.1),
    ):
        quality = {"belsley": until(own), "random": until(others), "variational": until(0.1)}
        quality |= {"gradient_covariance": until(0.9), "belsley_precision": until(0.9)}  # not the figures' rivals
        found = list(claims.verdicts(results(quality, dict.fromkeys(quality, 1.0)), config()))
        found = next(verdict for verdict in found if verdict.claim == "Belsley, covariance removes most without loss")
        assert (found.verdict, found.effect) == (verdict, pytest.approx(effect))


@pytest.mark.parametrize(
    ("noise", "verdict", "effect"),
    [([0.96, 0.95, 0.94], YES, -0.05), (1.2, NO, 0.2), ([1.3, 1.0, 1.0], OPEN, 0.1)],
)
def test_on_boston_all_noise_is_at_one_level(noise, verdict, effect):
    quality = dict.fromkeys(("random", "variational", "belsley"), until(0.5, full=10.0, empty=80.0))
    heights = {"belsley": 4.0, "random": 4.04, "variational": 4 * np.array(noise)}
    found = list(claims.verdicts(results(quality, heights, dataset="boston", task="regression"), config()))
    assert [(v.claim.split(": ")[-1], v.source[-7:]) for v in found] == [
        ("all noise surfaces lie at one level", "Fig 4.7"),
        ("Belsley, covariance removes most without loss", "Fig 4.6"),
    ]
    assert (found[0].verdict, found[0].note) == (verdict, "farthest: variational")
    assert found[0].effect == pytest.approx(effect)


@pytest.mark.parametrize(("sign", "verdict"), [(-1, YES), (1, NO)])
def test_on_the_synthetic_set_quality_improves(sign, verdict):
    """Errors exp(c (share + seed)): their mean logarithm over the shares with a parameter left is (0.45 + 1) c."""
    slopes = {"random": 0.5, "variational": -2.0 * sign, "belsley": 3.0 * sign}
    quality = {m: lambda share, s, c=c: np.exp(c * (share + s)) if share < 1 else 1e6 for m, c in slopes.items()}
    own = results(quality, dict.fromkeys(quality, 1.0), dataset="synthetic_relevance", task="regression")
    found = list(claims.verdicts(own, config()))
    assert [v.source[-7:] for v in found] == ["Fig 4.9", "Fig 4.8", "Fig 4.8"]
    assert (found[1].verdict, found[1].effect) == (verdict, pytest.approx(sign * 2.7))
    worst = min(slopes["random"], slopes["variational"]) - slopes["belsley"]
    assert found[2].effect == pytest.approx(1.45 * worst)


def drawn(own, name="pruning_table", thesis=None):
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        made = list(figures.figures(own, config(name, thesis)))
        for figure in made:
            figure.drawing.draw_without_rendering()
    return made


def test_curves_are_means_with_each_order_once_in_the_legend():
    quality = {"random": lambda share, s: 1 - 0.7 * share**2 - 0.01 * s * share, "belsley": until([0.5, 0.6, 0.7], 1.0)}
    (figure,) = drawn(results(quality, retrained=(False, True)), "pruning_wine", "figure 4.4")
    assert figure.name == "fig_4_4_pruning_quality_wine"
    (legend,) = figure.drawing.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "Belsley, covariance"]
    assert [ax.get_title() for ax in figure.drawing.axes] == ["no retraining", "retrained after every step"]
    for ax in figure.drawing.axes:
        assert ax.get_ylabel() == "accuracy"
        assert 0 <= ax.get_ylim()[0] < ax.get_ylim()[1] <= 1.02
        lines = {line.get_label(): line for line in ax.lines}
        np.testing.assert_allclose(lines["random"].get_xdata(), 100 * SHARES)
        np.testing.assert_allclose(lines["random"].get_ydata(), 1 - 0.7 * SHARES**2 - 0.01 * SHARES)
        assert lines["Belsley, covariance"].get_ydata()[6] == pytest.approx((2 + 0.3) / 3)
    assert "10 parameters, 3 restarts" in figure.note
    assert "Retrained: 2 epochs" in figure.note


def test_errors_have_a_logarithmic_axis_and_are_compared_with_random():
    quality = {"random": lambda share, s: (1 + share) * 10.0**s, "belsley": lambda share, s: (1 + share) ** 3 * 10.0**s}
    (figure,) = drawn(results(quality, task="regression"))
    left, right = figure.drawing.axes
    assert (left.get_ylabel(), left.get_yscale()) == ("mean squared error", "log")
    lines = {line.get_label(): line.get_ydata() for line in right.lines}
    assert np.abs(lines["random"]).max() < 1e-12
    np.testing.assert_allclose(lines["Belsley, covariance"], 2 * np.log(1 + SHARES))
    assert len(figure.drawing.legends[0].get_texts()) == 2


HEIGHTS = {"random": 1.0, "variational": 2.0, "belsley": [1, 3, 5], "belsley_precision": 0.5}


def test_surfaces_and_heat_maps_have_one_scale_and_equal_axes():
    made = drawn(results(dict.fromkeys(HEIGHTS, until(0.5)), HEIGHTS), "pruning_boston", "figure 4.6")
    names = [figure.name.removeprefix("fig_4_").removesuffix("_boston") for figure in made[:2]]
    assert (names, made[2].name) == (["6_pruning_quality", "7_pruning_noise"], f"{made[1].name}_heat")
    top = 3 * 1.5 * 2  # Belsley's mean at the strongest noise with nothing removed
    for figure in made[1:]:
        panels = [ax for ax in figure.drawing.axes if ax.get_title()]
        assert [ax.get_title() for ax in panels] == [figures.LABELS[method] for method in HEIGHTS]
        for ax, height in zip(panels, HEIGHTS.values(), strict=True):
            assert (ax.get_xlim(), ax.get_ylim()) == ((0, 100), (0, 1.5))
            (shown,) = [one for one in ax.collections if isinstance(one, (Poly3DCollection, QuadMesh))]
            assert shown.get_clim() == pytest.approx((0, top))
            if figure is made[1]:
                assert ax.get_zlim() == pytest.approx((0, top))
            else:
                expected = np.mean(height) * 2 * np.outer([0, 0.5, 1.5], 1 - SHARES)
                np.testing.assert_allclose(np.reshape(shown.get_array(), expected.shape), expected, atol=1e-12)


def test_five_surfaces_leave_a_place_empty():
    heights = HEIGHTS | {"optimal_brain_damage": 1.0}
    made = drawn(results(dict.fromkeys(heights, until(0.5)), heights))
    for figure in made[1:]:
        titles = [ax.get_title() for ax in figure.drawing.axes if ax.get_title()]
        assert titles == [figures.LABELS[method] for method in figures.LABELS if method in heights]
