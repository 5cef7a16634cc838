"""KL(k), S(k) and least eigenvalues along chains: frames by replay and by hand, verdicts, refusals and figures."""

import itertools
import math
import warnings
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.chapter3.posterior import Posterior, PosteriorOptions, _absolute, settled
from experiments.chapter3.schematic import SchematicPosteriorShift
from landscape_cli.composing import load
from landscape_cli.config import Config, TableConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Point, Results
from landscape_cli.plotting.style import style
from landscape_cli.rng import numpy_generator
from landscape_cli.samplesize.neighbours import chains

OBJECTS, SEEDS = 12, [3, 4]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def table():
    random = np.random.default_rng(1)
    X = random.normal(size=(OBJECTS, 2)) * [1, 5] + 3
    source = SimpleNamespace(task="regression")
    return SimpleNamespace(X=X, y=X @ [1.0, -0.2] + random.normal(size=OBJECTS), features=("a", "b"), source=source)


def experiment(thesis="figure 3.9", **given):
    options = PosteriorOptions(**{"chains": 5, "eigenvalues": 4} | given)
    config = Config(name="posterior_test", title="", family="", dataset=TableConfig("own"), measure=options)
    config.thesis = thesis
    return Posterior(config)


def measured(seeds=SEEDS, **given):
    own = experiment(**given)
    settings = {"dataset": {"name": "own", "checksum": "a table"}, "measure": asdict(own.config.measure)}
    context = SimpleNamespace(table=table, progress=lambda items, **_: items)
    return own.measure(Point.of({}, settings | {"seeds": seeds}), context).frames


@pytest.mark.parametrize("standardise", [False, True])
def test_frames_are_means_and_spread_of_the_chains(standardise):
    frames = measured(standardise=standardise, precision=0.5, noise=2.0)
    data = table()
    X = (data.X - data.X.mean(axis=0)) / data.X.std(axis=0) if standardise else data.X
    curves, least = frames["curves"], frames["eigenvalues"]
    assert list(curves[["seed", "k"]].itertuples(index=False, name=None)) == list(
        itertools.product(SEEDS, range(2, OBJECTS))
    )
    for seed in SEEDS:
        random = numpy_generator(seed, "chains", "a table")
        known = chains(X, data.y, 5, random, precision=0.5, noise=2.0, eigenvalues=4)
        own = curves[curves["seed"] == seed]
        for name, values in (("kl", known.kl), ("s_score", known.s_score)):
            np.testing.assert_allclose(own[name], values.mean(axis=0))
            np.testing.assert_allclose(own[f"{name}_low"], np.quantile(values, 0.025, axis=0))
            np.testing.assert_allclose(own[f"{name}_high"], np.quantile(values, 0.975, axis=0))
        own = least[least["seed"] == seed]
        assert own["k"].tolist() == known.eigenvalue_sizes.tolist() == [2, 5, 8, 11]
        for name, take in (("eigenvalue", np.mean), ("least", np.min), ("most", np.max)):
            np.testing.assert_allclose(own[name], take(known.eigenvalues, axis=0))
    assert curves.attrs["units"] == {"k": "objects", "kl": "nats"}


def test_frames_are_those_of_gaussian_posteriors_by_hand():
    """Whole posteriors of every order of the objects, in place of updates of rank one."""
    data, own = table(), measured(seeds=[3], precision=0.5, noise=2.0)
    orders = numpy_generator(3, "chains", "a table").permuted(np.tile(np.arange(OBJECTS), (5, 1)), axis=1)

    def posterior(rows):
        covariance = np.linalg.inv(data.X[rows].T @ data.X[rows] / 2 + 0.5 * np.eye(2))
        return covariance @ data.X[rows].T @ data.y[rows] / 2, covariance

    for row in own["curves"].itertuples():
        kl, score = [], []
        for order in orders:
            (mean, first), (other, second) = posterior(order[: row.k]), posterior(order[: row.k + 1])
            step, inverse = other - mean, np.linalg.inv(second)
            logs = math.log(np.linalg.det(second) / np.linalg.det(first))
            kl.append(0.5 * (np.trace(inverse @ first) + step @ inverse @ step - 2 + logs))
            score.append(math.exp(-0.5 * step @ np.linalg.inv(first + second) @ step))
        assert (row.kl, row.s_score) == pytest.approx((np.mean(kl), np.mean(score)))
    last = own["eigenvalues"].iloc[-1]
    grams = [data.X[order[:11]].T @ data.X[order[:11]] for order in orders]
    assert last["eigenvalue"] == pytest.approx(np.mean([np.linalg.eigvalsh(gram)[0] for gram in grams]))


def test_the_same_point_gives_the_same_frames_and_seeds_differ():
    first, again = measured(), measured()
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, again[name], check_exact=True)
    kl = first["curves"].groupby("seed")["kl"].apply(list)
    assert kl[3] != kl[4]


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ([9, 2.1, 1.9, 2], 20),
        ([9, 2.11, 1.9, 2], 30),
        ([2, 9, 2, 2], 30),
        ([2, 2, 2, 2], 10),
        ([9, 9, 9, 2], 40),
        ([-9, -2.1, -1.9, -2], 20),
        ([0, 1, 0, 0], 30),
    ],
)
def test_settled_is_within_a_share_of_the_last_value(values, size):
    assert settled(np.array([10, 20, 30, 40]), np.array(values, dtype=float), 0.05 + 1e-9) == size


@pytest.mark.parametrize(
    ("values", "size"),
    [([4, 2, 1, 1], 20), ([4, 1, 3, 2], 40), ([2, 1, 1, 1], 10), ([4, 4, 4, 3], math.inf), ([1, 1, 1, 3], math.inf)],
)
def test_absolute_is_at_most_the_threshold_from_there_on(values, size):
    assert _absolute(pd.Series(values, index=[10, 20, 30, 40]), 2.0) == size


def results(kl, s_score, eigenvalue, seeds=3, last=40) -> Results:
    """``kl`` and the others: functions of k and seed."""
    made = {"curves": [], "eigenvalues": []}
    for seed, k in itertools.product(range(seeds), range(3, last)):
        row = {"k": k, "seed": seed}
        for name, function in (("kl", kl), ("s_score", s_score)):
            value = float(function(k, seed))
            row |= {name: value, f"{name}_low": value * 0.9, f"{name}_high": value * 1.1}
        made["curves"].append(row)
        value = float(eigenvalue(k, seed))
        made["eigenvalues"].append({"k": k, "seed": seed, "eigenvalue": value, "least": value / 2, "most": value * 2})
    return Results((), (), {name: pd.DataFrame(rows) for name, rows in made.items()}, {}, {}, "paper")


def test_convergence_is_judged_by_slopes():
    found = list(
        experiment().claims(
            results(lambda k, s: (1 + s) / k, lambda k, s: 1 - (1 + s) / (9 * k**2), lambda k, s: (1 + s) * k)
        )
    )
    kl, score, eigenvalue, order = found
    assert [verdict.verdict for verdict in found] == [REPRODUCED] * 4
    assert (kl.effect, kl.low, kl.high) == pytest.approx((-1,) * 3)
    assert (score.effect, score.low, score.high) == pytest.approx((-2,) * 3)
    assert (eigenvalue.effect, eigenvalue.low, eigenvalue.high) == pytest.approx((0.5,) * 3)
    assert eigenvalue.note == f"at the last k it is {2 * math.sqrt(39):.3g} times √k"
    assert order.effect == 1


def test_what_does_not_converge_is_not_reproduced():
    # KL rises, 1 - S too and is above KL, the eigenvalue falls behind √k.
    kl, score, eigenvalue, order = experiment().claims(
        results(lambda k, s: 1e-3 * k, lambda k, s: 1 - 2e-3 * k, lambda k, s: k**0.25)
    )
    for verdict, effect in ((kl, 1), (score, 1), (eigenvalue, -0.25)):
        assert (verdict.verdict, verdict.effect) == (NOT_REPRODUCED, pytest.approx(effect))
    assert (order.verdict, order.low, order.high) == (NOT_REPRODUCED, order.effect, order.effect)
    assert order.effect < 1
    one = experiment().claims(results(lambda k, s: 1 / k, lambda k, s: 1 - 0.1 / k, lambda k, s: k, seeds=1))
    assert [verdict.verdict for verdict in one][:3] == [INCONCLUSIVE] * 3


def test_the_table_has_settled_sizes_and_end_values():
    own = results(lambda k, s: 1 / k, lambda k, s: 1 - 0.5 * (k < 20), lambda k, s: k)
    (shown,) = experiment(epsilon=0.1).tables(own)
    kl, score = shown.frame.to_dict("records")
    ends = {"epsilon": 0.1, "objects": 40}
    # 1/k ≤ 1.1/39 from 35.45… on.
    assert kl == {"criterion": "KL", "first_value": 1 / 3, "last_value": pytest.approx(1 / 39), "sufficient": 36} | ends
    assert score == {"criterion": "S", "first_value": 0.5, "last_value": 1, "sufficient": 20} | ends


@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_show_the_frames_without_warnings(seeds):
    own = results(lambda k, s: 1 / k, lambda k, s: 1 - 0.1 / k, lambda k, s: 0 if k == 3 else k, seeds)
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        figures = list(experiment().figures(own))
        for figure in figures:
            figure.drawing.draw_without_rendering()
    names = ["fig_3_8_min_eigenvalue_test", "fig_3_9_posterior_test", "fig_3_11_threshold_test"]
    assert [figure.name for figure in figures] == names
    k = np.arange(3, 40)
    least, root, half = [line.get_ydata() for line in figures[0].drawing.axes[0].lines]
    np.testing.assert_allclose(least, np.where(k == 3, 0, k))
    np.testing.assert_allclose(root, np.sqrt(k))
    np.testing.assert_allclose(half, k / 2)
    np.testing.assert_allclose(figures[1].drawing.axes[0].lines[0].get_ydata(), 1 / k)
    np.testing.assert_allclose(figures[1].drawing.axes[1].lines[0].get_ydata(), 1 - 0.1 / k)
    kl, score = figures[2].drawing.axes[0].lines
    np.testing.assert_allclose(kl.get_xdata(), 1 / k)
    np.testing.assert_allclose(score.get_xdata(), 0.1 / k)
    np.testing.assert_array_equal(score.get_ydata(), k)


FEW = ("profile=smoke", "measure.chains=3", "measure.eigenvalues=4", "plot.formats=[png]", "plot.dpi=50")


def test_a_run_gives_three_figures_a_table_and_verdicts(landscape, tmp_path):
    finished = landscape("run", "experiment=posterior_synthetic", *FEW)
    assert finished.code == 0, finished.err
    written = {path.name for path in (tmp_path / "outputs").glob("*/smoke*/*")}
    assert {
        *("fig_3_8_min_eigenvalue_synthetic.png", "fig_3_9_posterior_synthetic.png"),
        *("fig_3_11_threshold_synthetic.png", "posterior_synthetic.csv", "claims_posterior_synthetic.csv"),
    } <= written


def test_classes_are_refused(landscape):
    refused = landscape("run", "experiment=posterior_synthetic", "dataset=breast_cancer", *FEW)
    refused.assert_refused(2, "dataset.target: classes", "allowed: a numeric target")


def test_a_constant_column_cannot_be_standardised(landscape, isolated):
    random = np.random.default_rng(0)
    pd.DataFrame({"a": random.normal(size=20), "b": 5, "y": random.normal(size=20)}).to_csv("own.csv", index=False)
    words = ("experiment=posterior_liver", "dataset=csv", "dataset.path=own.csv", "dataset.target=y", *FEW)
    landscape("run", *words).assert_refused(2, "column 'b' is constant", "dataset.drop=[b]")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("measure.noise=0", "measure.noise: 0.0; allowed: more than 0"),
        ("measure.precision=-1", "measure.precision: -1.0; allowed: more than 0"),
        ("measure.epsilon=2", "measure.epsilon: 2.0; allowed:"),
        ("measure.chains=1", "measure.chains: 1; allowed: 2 or more"),
    ],
)
def test_options_without_sense_are_refused_by_name(landscape, word, text):
    landscape("run", "experiment=posterior_synthetic", word).assert_refused(2, text)


def shift():
    return SchematicPosteriorShift(load(["experiment=schematic_posterior_shift"]))


def test_the_schematic_shows_posteriors_of_a_line():
    own = shift()
    (point,) = own.points()
    frames = own.measure(point, None).frames
    posteriors = frames["posteriors"].set_index("k")
    assert posteriors.index.tolist() == [5, 6, 40, 41]
    # x and noise by turns; prior N(0, 1), noise of variance 1.
    draws = np.random.default_rng(37).standard_normal((42, 2))
    x, y = draws[:, 0], draws.sum(axis=1)
    for k, row in posteriors.iterrows():
        precision = 1 + np.sum(x[:k] ** 2)
        assert row["mean"] == pytest.approx(np.sum(x[:k] * y[:k]) / precision)
        assert row["deviation"] == pytest.approx(precision**-0.5)
    for step in frames["steps"].itertuples():
        (a, s), (b, t) = posteriors.loc[[step.k, step.k + 1]].to_numpy()
        assert step.kl == pytest.approx(math.log(t / s) + (s**2 + (a - b) ** 2) / (2 * t**2) - 0.5)
        assert step.s_score == pytest.approx(math.exp(-0.5 * (a - b) ** 2 / (s**2 + t**2)))
    assert frames["steps"]["k"].tolist() == [5, 40]
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        (figure,) = own.figures(Results((), (), frames, {}, {}, "paper"))
        figure.drawing.draw_without_rendering()
    for ax, step in zip(figure.drawing.axes, frames["steps"].itertuples(), strict=True):
        assert ax.get_title() == f"KL = {step.kl:.2g} nats, s-score = {step.s_score:.3g}"
        line = ax.lines[0]
        mean, deviation = posteriors.loc[step.k]
        assert line.get_xdata()[line.get_ydata().argmax()] == pytest.approx(mean, abs=0.01)
        assert line.get_ydata().max() == pytest.approx(1 / (deviation * math.sqrt(2 * math.pi)), rel=1e-3)
