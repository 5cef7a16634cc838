"""Neighbouring posteriors: one point on few objects against densities, claims both ways, figure and table."""

import math
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.beyond.sample_size_theorems import SampleSizeTheorems, SampleSizeTheoremsOptions
from landscape_cli.config import Config
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.plotting.style import style

OBJECTS, SEEDS = 40, (3, 4)
NUMBERS = (27, 28, 29, 30, 30, 30, 30)  # theorems of the claims


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(**options) -> SampleSizeTheorems:
    measure = SampleSizeTheoremsOptions(**{"objects": OBJECTS, "features": 2, "precision": 2.0, "noise": 0.5} | options)
    return SampleSizeTheorems(Config(name="posteriors_test", title="", family="", measure=measure, seeds=2, seed=3))


@pytest.fixture(scope="module")
def frames():
    own = experiment()
    (point,) = own.points()
    return own.measure(point, SimpleNamespace()).frames


def test_counterexamples_meet_the_hypotheses_and_break_the_conclusions(frames):
    sequences = frames["sequences"].set_index(["theorem", "k"])
    drift, shrink = sequences.loc["27"], sequences.loc["28, 29"]
    assert drift.index.tolist() == shrink.index.tolist() == list(range(1, OBJECTS + 1))
    np.testing.assert_allclose(drift["M"], 0.5)
    assert drift["mean_step"].is_monotonic_decreasing
    k = np.arange(1, OBJECTS + 1)
    np.testing.assert_allclose(drift["mean_step"], [math.sqrt(n + 1) - math.sqrt(n) for n in k])
    np.testing.assert_allclose(shrink["covariance_step"], 1 / k - 1 / (k + 1))
    np.testing.assert_allclose(shrink["mean_step"] ** 2, 1 / k)
    kl = 0.5 * ((k + 1) / k - 1 - np.log((k + 1) / k) + (k + 1) / k)  # N(0, 1/k) against N(1/√k, 1/(k+1))
    np.testing.assert_allclose(shrink["KL"], kl)
    np.testing.assert_allclose(shrink["S"], np.exp(-0.5 / k / (1 / k + 1 / (k + 1))))


def test_the_regression_is_followed_object_by_object_for_every_seed(frames):
    regression = frames["regression"]
    assert regression.groupby("seed")["k"].apply(list).to_dict() == {s: list(range(1, OBJECTS + 1)) for s in SEEDS}
    for seed, own in regression.groupby("seed"):
        random = np.random.default_rng([seed, 2])
        truth, rows, targets = random.uniform(-1, 1, 2), [], []
        mean, covariance = np.zeros(2), np.eye(2) / 2
        for row in own.itertuples():
            rows.append(random.uniform(-1, 1, 2))
            targets.append(rows[-1] @ truth + random.uniform(-1, 1))
            x, y = np.array(rows), np.array(targets)
            after = np.linalg.inv(2 * np.eye(2) + x.T @ x / 0.5)  # of all objects at once
            new = after @ x.T @ y / 0.5
            step, total = new - mean, covariance + after
            kl = np.trace(np.linalg.solve(after, covariance)) - 2 + step @ np.linalg.solve(after, step)
            kl += np.linalg.slogdet(after)[1] - np.linalg.slogdet(covariance)[1]
            np.testing.assert_allclose(row.KL, kl / 2, rtol=1e-6)
            np.testing.assert_allclose(row.S, np.exp(-0.5 * step @ np.linalg.solve(total, step)), rtol=1e-9)
            assert row.mean_step == pytest.approx(np.linalg.norm(step), rel=1e-6)
            assert row.covariance_step == pytest.approx(np.linalg.norm(covariance - after), rel=1e-6)
            assert row.least_eigenvalue == pytest.approx(np.linalg.eigvalsh(x.T @ x)[0], rel=1e-6, abs=1e-12)
            mean, covariance = new, after
    assert frames["regression"].attrs["units"] == {"KL": "nats"}
    assert frames["sequences"].attrs["units"] == {"M": "nats", "KL": "nats"}


def results(
    drift=0.5, kl=0.5, score=0.78, powers=(-1.0, -1.1, -0.9), others=None, means=(-1, -1, -1), spreads=(-2, -2, -2)
):
    """A sequence's values whatever k; regressions whose KL, 1 - S and steps go as a power of k."""
    k = np.unique(np.geomspace(1, 1000, 40).astype(int))
    first = pd.DataFrame({"theorem": "27", "k": k, "M": drift, "mean_step": 1 / k})
    second = {"theorem": "28, 29", "k": k, "KL": kl, "S": score, "mean_step": k**-0.5, "covariance_step": k**-2.0}
    regressions = []
    for seed, (power, other) in enumerate(zip(powers, others or powers, strict=True)):
        values = {
            "k": k,
            "KL": 0.3 * k ** float(power),
            "S": 1 - 0.2 * k ** float(other),
            "mean_step": k ** float(means[seed]),
        }
        regressions.append(
            pd.DataFrame(
                {**values, "covariance_step": k ** float(spreads[seed]), "least_eigenvalue": 0.3 * k, "seed": seed}
            )
        )
    frames = {
        "sequences": pd.concat([first, pd.DataFrame(second)]),
        "regression": pd.concat(regressions, ignore_index=True),
    }
    frames = {name: frame.assign(prior="normal") for name, frame in frames.items()}
    return Results(tuple(experiment().points()), (), frames, {}, {}, "paper")


def verdicts(**options) -> list:
    return list(experiment().claims(results(**options)))


@pytest.mark.parametrize(
    ("place", "options", "verdict", "effect"),
    [
        (0, {"drift": 0.5}, NOT_REPRODUCED, 0.5),
        (0, {"drift": 0.05}, INCONCLUSIVE, 0.05),
        (1, {"kl": 0.3}, NOT_REPRODUCED, 0.3),
        (1, {"kl": 0.05}, INCONCLUSIVE, 0.05),
        (2, {"score": 0.78}, NOT_REPRODUCED, 0.78),
        (2, {"score": 0.97}, INCONCLUSIVE, 0.97),
        (3, {"means": (-1.5, -1.6, -1.4)}, REPRODUCED, -1.5),
        (3, {"means": (0.1, 0.11, 0.09)}, NOT_REPRODUCED, 0.1),
        (3, {"means": (-0.5, 0.1, 0.4)}, INCONCLUSIVE, 0),
        (4, {"spreads": (-1.5, -1.6, -1.4)}, REPRODUCED, -1.5),
        (4, {"spreads": (0.1, 0.11, 0.09)}, NOT_REPRODUCED, 0.1),
        (4, {"spreads": (-0.5, 0.1, 0.4)}, INCONCLUSIVE, 0),
        (5, {"powers": (-1.0, -1.1, -0.9)}, REPRODUCED, -1),
        (5, {"powers": (0.1, 0.11, 0.09), "others": (-1, -1.1, -0.9)}, NOT_REPRODUCED, 0.1),
        (5, {"powers": (-0.5, 0.1, 0.4), "others": (-1, -1.1, -0.9)}, INCONCLUSIVE, 0),
        (6, {"others": (-2, -2.1, -1.9)}, REPRODUCED, -2),
        (6, {"others": (0.1, 0.11, 0.09)}, NOT_REPRODUCED, 0.1),
        (6, {"others": (-0.5, 0.1, 0.1)}, INCONCLUSIVE, -0.1),
    ],
)
def test_each_theorem_is_judged_by_its_own_number(place, options, verdict, effect):
    found = verdicts(**options)
    assert [re.match(r"Theorem \d+", v.claim)[0] for v in found] == [f"Theorem {n}" for n in NUMBERS]
    steps = ("‖m_(k+1) - m_k‖ -> 0", "‖Σ_(k+1) - Σ_k‖ -> 0", "KL(k) -> 0", "S(k) -> 1")
    assert [v.claim for v in found[3:]] == [
        f"Theorem 30: {step} for linear regression with bounded features" for step in steps
    ]
    assert found[place].verdict == verdict
    assert found[place].effect == pytest.approx(effect, abs=1e-9)
    usual = [NOT_REPRODUCED] * 3 + [REPRODUCED] * 4
    assert [v.verdict for i, v in enumerate(found) if i != place] == usual[:place] + usual[place + 1 :]


def test_counterexamples_are_named_in_their_verdicts():
    found = verdicts()
    assert [verdict.source for verdict in found] == [f"thesis, Theorem {n}" for n in NUMBERS]
    assert r"$m_k=\sqrt{k}$" in found[0].note
    assert r"$\Sigma_k=1/k$" in found[1].note
    assert found[1].note == found[2].note
    assert "k = 1000" in found[0].statistic


def test_measured_counterexamples_refute_and_the_regression_comes_together():
    own = experiment(objects=2000)
    (point,) = own.points()
    found = Results((point,), (), own.measure(point, SimpleNamespace()).frames, {}, {}, "paper")
    assert [v.verdict for v in own.claims(found)][:3] == [NOT_REPRODUCED] * 3
    assert [v.effect for v in own.claims(found)][:3] == pytest.approx([0.5, 0.5, math.exp(-0.25)], abs=1e-3)
    regression = found.frames["regression"].groupby("k").mean()
    assert regression["KL"].iloc[-1] < 0.05 * regression["KL"].iloc[:10].max()
    mean, covariance, *slopes = [v.effect for v in own.claims(found)][3:]
    assert all(-2 < slope < -0.4 for slope in (mean, *slopes))
    assert -2.4 < covariance < -1.6  # Σ_k goes as 1/k


def test_the_figure_has_hypotheses_thin_and_conclusions_thick():
    with style():
        (figure,) = experiment().figures(results())
        figure.drawing.draw_without_rendering()
    assert figure.name == "posteriors_test"
    assert "3 designs of 2 bounded features" in figure.note
    axes = figure.drawing.axes
    assert [ax.get_title().partition(":")[0] for ax in axes] == ["Theorem 27", "Theorems 28, 29", "Theorem 30"]
    asked = [r"$\|m_{k+1}-m_k\|$", r"$\|\Sigma_{k+1}-\Sigma_k\|_F$", r"$\sqrt{k}/\lambda_{\min}$"]
    promised = ["$M(k)$", "$KL(k)$", "$1-S(k)$"]
    shown = [[asked[0], promised[0]], [*asked[:2], *promised[1:]], [*asked[:2], *promised[1:], asked[2]]]
    for ax, labels in zip(axes, shown, strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert list(lines) == labels
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        widths = {name: line.get_linewidth() for name, line in lines.items()}
        assert max(widths[name] for name in labels if name in asked) < min(widths[n] for n in labels if n in promised)
        assert len({(str(line._unscaled_dash_pattern), line.get_color()) for line in lines.values()}) == len(labels)
    middle, last = ({line.get_label(): line.get_ydata() for line in ax.lines} for ax in axes[1:])
    np.testing.assert_allclose(middle["$1-S(k)$"], 0.22)
    k = axes[2].lines[0].get_xdata()
    np.testing.assert_allclose(last[r"$\sqrt{k}/\lambda_{\min}$"], np.sqrt(k) / (0.3 * k))
    np.testing.assert_allclose(last["$KL(k)$"], 0.3 * np.mean([k**p for p in (-1.0, -1.1, -0.9)], axis=0))


def test_the_table_holds_the_last_values():
    (table,) = experiment().tables(results())
    rows = table.frame.set_index("theorem")
    assert rows.index.tolist() == ["27", "28, 29", "30"]
    assert rows["k"].tolist() == [1000] * 3
    assert (rows.loc["27", "M"], rows.loc["28, 29", "S"]) == (0.5, 0.78)
    assert rows.loc["30", "KL"] == pytest.approx(0.3 * np.mean([1000**p for p in (-1.0, -1.1, -0.9)]))
    assert "seed" not in rows


def test_there_is_one_point_with_all_seeds():
    (point,) = experiment().points()
    assert point.settings["seeds"] == list(SEEDS)
    assert point.settings["measure"] == {"objects": OBJECTS, "features": 2, "precision": 2.0, "noise": 0.5}
