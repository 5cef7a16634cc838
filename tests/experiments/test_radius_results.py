"""What is said of loss differences at a distance from the minimum: excess, Lemma 3, claims, figure and tables."""

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.beyond.radius import Radius, RadiusOptions, added, lemma_3
from landscape_cli.config import Config, DatasetConfig, MLPConfig, TrainingConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.plotting.style import style

RADII, LAST = [0.0, 0.1, 1.0, 3.0], 200
DECAY = "|L_(k+1) - L_k| -> 0 away from the minimum too"
SQUARE = "the difference grows as the square of the distance"
HALF, PRINTED = (f"the bound (1.5) {text} holds at every r > 0" for text in ("with its ½", "as printed"))
K = np.unique(np.geomspace(1, LAST, 60).astype(int))


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(**options) -> Radius:
    measure = RadiusOptions(**{"radii": RADII, "directions": 2, "permutations": 7, "hessian_samples": 30} | options)
    nodes = {"dataset": DatasetConfig("mnist"), "model": MLPConfig(), "training": TrainingConfig()}
    return Radius(Config(name="radius_test", title="", family="", **nodes, measure=measure, seeds=3))


def results(decay=(1, 1, 1), power=(2, 2, 2), bound=(1, 1, 1), printed=(2, 2, 2), dead=(), names=("mnist",), **given):
    """Difference (1 + s)(1 + d)(0.5 + r^power)/k^decay; bounds the same with a multiple of r^power, by seed."""
    curves, networks = [], []
    for name, s in itertools.product(names, range(3)):
        networks.append({"dataset": name, "seed": s, "largest_loss": 2.0 + s, "landscape_measure": 4.0 * (s + 1)})
        networks[-1] |= {"dead": s in dead}
        for d, r in itertools.product(range(2), given.get("radii", RADII)):
            scale, moved = (1 + s) * (1 + d) * K ** -float(decay[s]), (r ** power[s] if r else 0)
            values = {"difference": scale * (0.5 + moved), "predicted": scale * (0.5 + 1.1 * moved)}
            values |= {"quadratic": scale * 0.9 * moved, "bound": scale * (0.5 + bound[s] * moved)}
            values |= {"printed_bound": scale * (0.5 + printed[s] * moved), "k": K, "loss": 1.0}
            curves.append(pd.DataFrame(values).assign(dataset=name, seed=s, direction=d, radius=r))
    if dead:
        curves = [c.assign(difference=0.0) if c["seed"].iloc[0] in dead else c for c in curves]
    frames = {"curves": pd.concat(curves, ignore_index=True), "networks": pd.DataFrame(networks)}
    sources = {name: SimpleNamespace(title=name.upper()) for name in names}
    return Results(tuple(experiment().points()), (), frames, {}, sources, "paper")


def test_what_the_distance_adds_is_the_difference_to_the_same_network_and_direction_at_the_last_k():
    found = added(results().frames["curves"])
    assert found[["seed", "direction", "radius"]].to_numpy().tolist() == [
        list(row) for row in itertools.product(range(3), range(2), RADII[1:])
    ]
    scale = (1 + found["seed"]) * (1 + found["direction"]) / LAST * found["radius"] ** 2
    for name, factor in {"difference": 1, "predicted": 1.1, "quadratic": 0.9, "bound": 1, "printed_bound": 2}.items():
        np.testing.assert_allclose(found[name], factor * scale)


def test_lemma_3_has_the_objects_that_it_asks_for_beside_those_that_were_needed():
    frames = results().frames
    found = lemma_3(frames["curves"], frames["networks"], (0.1, 1e-5, 1e3)).set_index(["radius", "epsilon"])
    assert len(found) == 3 * len(RADII)
    assert (found["largest_loss"].unique(), found["landscape_measure"].unique()) == (3, 8)
    for (radius, epsilon), row in found.iterrows():
        assert row["lemma"] == pytest.approx((3 + 8 * radius**2) / epsilon)
    mean = 3 * 0.5 / K  # (1 + s)(1 + d) is 3 on the mean
    assert found.loc[(0.0, 0.1), "measured"] == K[mean > 0.1][-1] + 1
    assert np.isnan(found.loc[(0.0, 1e-5), "measured"])  # never so small
    assert found.loc[(0.0, 1e3), "measured"] == 1
    assert found.loc[(1.0, 0.1), "measured"] > found.loc[(0.0, 0.1), "measured"]


def verdicts(*given, **options) -> dict:
    return {verdict.claim: verdict for verdict in experiment().claims(results(*given, **options))}


def judged(claim, **options) -> str:
    found = verdicts(**options)
    assert list(found) == [DECAY, SQUARE, HALF, PRINTED]
    return found[claim].verdict


@pytest.mark.parametrize(
    ("claim", "options", "verdict"),
    [
        (DECAY, {"decay": (1, 1, 1)}, REPRODUCED),
        (DECAY, {"decay": (0.99, 1, 1.01)}, REPRODUCED),
        (DECAY, {"decay": (0, 0.01, 0)}, NOT_REPRODUCED),
        (DECAY, {"decay": (0.5, 0.52, 0.5)}, NOT_REPRODUCED),
        (DECAY, {"decay": (0.5, 1, 1.5)}, INCONCLUSIVE),
        (SQUARE, {"power": (1.95, 2, 2.05)}, REPRODUCED),
        (SQUARE, {"power": (1, 1.01, 1)}, NOT_REPRODUCED),
        (SQUARE, {"power": (4, 4.1, 4)}, NOT_REPRODUCED),
        (SQUARE, {"power": (1, 2, 3)}, INCONCLUSIVE),
        (HALF, {"bound": (2, 2.1, 1.9)}, REPRODUCED),
        (HALF, {"bound": (0.5, 0.51, 0.5)}, NOT_REPRODUCED),
        (HALF, {"bound": (0.5, 1, 3)}, INCONCLUSIVE),
        (PRINTED, {"printed": (2, 2.1, 1.9)}, REPRODUCED),
        (PRINTED, {"printed": (0.5, 0.51, 0.5)}, NOT_REPRODUCED),
        (PRINTED, {"printed": (0.5, 1, 3)}, INCONCLUSIVE),
    ],
)
def test_each_sentence_is_judged_by_its_own_number(claim, options, verdict):
    assert judged(claim, **options) == verdict
    others = {"bound": (2, 2.1, 1.9)} | options if claim != HALF else options
    found = {own: v.verdict for own, v in verdicts(**others).items() if own != claim}
    assert set(found.values()) == {REPRODUCED} or verdict == INCONCLUSIVE


def test_effects_are_slopes_and_the_least_room():
    found = verdicts(bound=(2, 2, 2), decay=(0.9, 0.9, 0.9), power=(1.5, 1.5, 1.5))
    assert found[DECAY].effect == pytest.approx(-0.9)
    assert found[SQUARE].effect == pytest.approx(1.5)
    least = 0.1**1.5
    assert found[HALF].effect == pytest.approx(np.log((0.5 + 2 * least) / (0.5 + least)))
    assert "r = 3;" in found[DECAY].statistic


@pytest.mark.parametrize("claim", [DECAY, SQUARE])
def test_intervals_are_over_networks_not_over_their_directions(claim):
    found = verdicts(decay=(0.9, 1, 1.1), power=(1.9, 2, 2.1))[claim]
    half = 4.302652729911275 * 0.1 / np.sqrt(3)  # Student's t with two degrees of freedom
    assert (found.high - found.low) / 2 == pytest.approx(half)


def squared(own, directions) -> object:
    """Judge the growth where seed `own` has what r adds multiplied by one factor a direction, at every r > 0."""
    found = results(power=(2, 2.1, 1.9))
    curves = found.frames["curves"]
    for direction, factors in enumerate(directions):
        for radius, factor in zip(RADII[1:], factors, strict=True):
            at = (curves["seed"] == own) & (curves["direction"] == direction) & (curves["radius"] == radius)
            base = (1 + own) * (1 + direction) * 0.5 / curves.loc[at, "k"]
            curves.loc[at, "difference"] = base + factor / curves.loc[at, "k"]
    return next(v for v in experiment().claims(found) if v.claim == SQUARE)


def test_networks_whose_mean_difference_falls_are_left_out_of_the_slope_and_counted():
    found = squared(2, [[-1.0, 1.0, 9.0], [0.9, 1.0, 9.0]])  # -0.05 at r = 0.1 on the mean
    assert found.effect == pytest.approx(2.05)
    assert found.note.endswith("; 1 networks, whose difference falls somewhere, are left out")
    assert "left out" not in verdicts()[SQUARE].note


def test_directions_are_averaged_before_the_slope():
    found = squared(2, [[-0.001, -0.1, -0.9], [0.003, 0.3, 2.7]])  # a direction falls, their mean rises as r²
    assert found.effect == pytest.approx((2 + 2.1 + 2) / 3)
    assert "left out" not in found.note
    mixed = squared(2, [[0.0002, 0.1, 2.7], [0.0018, 0.1, -0.9]])  # 0.001, 0.1 and 0.9 on the mean
    assert mixed.effect == pytest.approx((2 + 2.1 + 2) / 3)


def test_the_bounds_are_named_by_their_equations():
    found = verdicts()
    assert {found[name].source for name in (HALF, PRINTED)} == {"thesis 1.3, (1.5), (1.9)"}


def test_dead_networks_are_left_out_everywhere():
    gone = results(dead=(2,))
    assert {v.verdict for v in experiment().claims(gone)} <= {REPRODUCED, INCONCLUSIVE}
    excess, lemma = (table.frame for table in experiment().tables(gone))
    np.testing.assert_allclose(excess["difference"], 2.25 / LAST * np.array(RADII[1:]) ** 2)  # 1.5 by 1.5 on the mean
    assert lemma["largest_loss"].unique().tolist() == [2.5]
    (figure,) = drawn(gone)
    left = figure.drawing.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(left, np.mean([1.5, 3]) * 0.5 / K)


def drawn(found, **options) -> list:
    with style():
        figures = list(experiment(**options).figures(found))
        for figure in figures:
            figure.drawing.draw_without_rendering()
    return figures


def test_the_figure_has_curves_by_radius_and_what_the_radius_adds():
    (figure,) = drawn(results())
    left, right = figure.drawing.axes
    assert figure.name == "radius_test"
    assert figure.drawing.get_suptitle().strip() == "MNIST: the loss difference away from the minimum"
    assert "2 random unit directions a network, 7 orderings" in figure.note
    assert "μ_f from 30 objects" in figure.note
    assert [text.get_text() for text in left.texts] == [f"$r={radius:g}$" for radius in RADII]
    for line, radius in zip(left.lines, RADII, strict=False):
        np.testing.assert_allclose(line.get_xdata(), K)
        np.testing.assert_allclose(line.get_ydata(), 3 * (0.5 + radius**2) / K)
    assert right.get_title() == f"what $r$ adds at $k={LAST}$"
    lines = {line.get_label(): line for line in right.lines}
    factors = {
        "(1.5) with its ½": 1,
        "(1.5) as printed": 2,
        "second order": 1.1,
        r"$\frac{r^2}{2}|u^\top(H_{k+1}-H^{(k)})u|/(k+1)$": 0.9,
        "measured": 1,
    }
    assert list(lines) == list(factors)
    squares = np.array(RADII[1:]) ** 2
    for name, factor in factors.items():
        np.testing.assert_allclose(lines[name].get_xydata(), np.stack([squares, factor * 3 * squares / LAST], axis=1))
    looks = {(str(line._unscaled_dash_pattern), line.get_color()) for line in list(lines.values())[:4]}
    assert len(looks) == 4
    assert {ax.get_xscale() for ax in (left, right)} == {ax.get_yscale() for ax in (left, right)} == {"log"}


def test_every_data_set_has_its_figure_its_rows_and_its_claims():
    found = results(names=("mnist", "digits"))
    assert [figure.name for figure in drawn(found)] == ["radius_test_mnist", "radius_test_digits"]
    assert [verdict.claim.partition(": ")[0] for verdict in experiment().claims(found)] == ["MNIST"] * 4 + [
        "DIGITS"
    ] * 4
    excess, lemma = experiment().tables(found)
    assert excess.name == "radius_test"
    assert lemma.name == "lemma_3_radius_test"
    assert (len(excess.frame), len(lemma.frame)) == (2 * 3, 2 * 2 * len(RADII))
    assert list(excess.frame.columns[:2]) == ["dataset", "radius"]


def test_radii_that_hold_only_the_start_are_refused_or_drawn():
    drawn(results(radii=[0.0]), radii=[0.0])
