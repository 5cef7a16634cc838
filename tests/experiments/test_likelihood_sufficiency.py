"""D- and M-sufficiency: frames against fits by hand, sizes that halve a curve, Table 3.4, verdicts and figures."""

import csv
import itertools
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from experiments.chapter3 import likelihood_tables as tables
from experiments.chapter3.likelihood import Likelihood, LikelihoodOptions, _design
from experiments.chapter3.likelihood_claims import _agrees, rows, sentences
from experiments.chapter3.likelihood_figures import functions, thresholds
from landscape_cli.composing import load
from landscape_cli.config import Config, TableConfig
from landscape_cli.errors import BadInput
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Point, Results
from landscape_cli.parallel import use_workers
from landscape_cli.plotting.style import style
from landscape_cli.rng import numpy_generator

BOTH = ("as_defined", "as_published")
OBJECTS, RESAMPLES, SEEDS = 40, 6, [3, 4]
# Read here: tests have none of their own.
REAL = Path(os.environ.get("LANDSCAPE_DATA") or Path(__file__).parents[3] / "shared" / "data").absolute()
REFERENCE = Path(tables.__file__).parents[1] / "reference" / "thesis_tables.csv"


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def table(task="regression", objects=OBJECTS, features=("a", "b", "c")):
    random = np.random.default_rng(1)
    X = random.normal(size=(objects, 3)) * [1, 5, 0.1] + 3
    y = X @ [1.0, -0.2, 4.0] + random.normal(size=objects)
    y = y if task == "regression" else (y > np.median(y)).astype(float)
    return SimpleNamespace(X=X, y=y, features=features, source=SimpleNamespace(task=task))


def measured(task="regression", data=None, seeds=SEEDS, **given):
    options = LikelihoodOptions(**{"resamples": RESAMPLES, "sizes": 5} | given)
    config = Config(name="likelihood_test", title="", family="", dataset=TableConfig("own"), measure=options)
    settings = {"dataset": {"name": "own", "checksum": "a table"}, "measure": asdict(options), "seeds": seeds}
    context = SimpleNamespace(table=lambda: data or table(task))
    return Likelihood(config).measure(Point.of({}, settings), context).frames


def fitted(X, y, drawn, raw):
    """Least squares of least norm; with a constant, of centred columns."""
    if raw:
        return np.linalg.lstsq(X[drawn], y[drawn], rcond=1e-7)[0], 0.0
    centre = X[drawn].mean(axis=0)
    inside = X[drawn] - centre
    inside[:, np.ptp(X[drawn], axis=0) == 0] = 0  # one object only, up to rounding
    w = np.linalg.lstsq(inside, y[drawn] - y[drawn].mean(), rcond=1e-6)[0]
    return w, y[drawn].mean() - centre @ w


def by_hand(data, sizes, seed, variant, raw, noise=None):
    """Losses of fits to the samples that the seed draws and, as defined, to those with one more object."""
    X = data.X if raw else (data.X - data.X.mean(axis=0)) / data.X.std(axis=0)
    random = numpy_generator(seed, "bootstrap", "a table")

    def loss(drawn):
        w, constant = fitted(X, data.y, drawn, raw)
        squares = (data.y - X @ w - constant) ** 2
        return squares.mean() if noise is None else -0.5 * np.sum(squares / noise + np.log(2 * np.pi * noise))

    if variant == "as_defined":
        drawn = random.integers(OBJECTS, size=(RESAMPLES, sizes[-1] + 1))
        own, after = (np.array([[loss(row[: k + more]) for k in sizes] for row in drawn]) for more in (0, 1))
        return own, (after - own).mean(axis=0), (after - own).std(axis=0, ddof=1) / np.sqrt(RESAMPLES)
    columns = [[loss(row) for row in random.integers(OBJECTS, size=(RESAMPLES, k))] for k in reversed(sizes)]
    own = np.array(columns[::-1]).T
    spread = np.sqrt(own.var(axis=0, ddof=1)[1:] + own.var(axis=0, ddof=1)[:-1]) / np.sqrt(RESAMPLES)
    return own, np.append(np.diff(own.mean(axis=0)), np.nan), np.append(spread, np.nan)


@pytest.mark.parametrize("variant", BOTH)
@pytest.mark.parametrize(
    ("features", "loss", "noise"), [("raw", "log_likelihood", 2.0), ("standardised", "mean_square", 1.0)]
)
def test_moments_are_those_of_fits_to_the_samples_of_each_size(variant, features, loss, noise):
    frames = measured(variant=variant, features=features, loss=loss, noise=noise)
    assert frames["table"].to_dict("records") == [{"objects": 40, "columns": 3, "task": "regression", "first": 4}]
    curves = frames["curves"]
    sizes = [4, 13, 22, 31, 40]
    assert list(curves[["seed", "k"]].itertuples(index=False, name=None)) == list(itertools.product(SEEDS, sizes))
    given = None if loss == "mean_square" else noise
    for seed, own in curves.groupby("seed"):
        losses, change, error = by_hand(table(), sizes, seed, variant, features == "raw", given)
        np.testing.assert_allclose(own["mean"], losses.mean(axis=0), rtol=1e-5)  # normal equations square the condition
        np.testing.assert_allclose(
            own["variance"], losses.var(axis=0, ddof=1), rtol=1e-5
        )  # normal equations square the condition
        np.testing.assert_allclose(own["change"], change, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(own["change_error"], error, rtol=1e-5)
    unit = "target²" if loss == "mean_square" else "nats"
    squared = "target⁴" if loss == "mean_square" else "nats²"
    units = {
        **{"k": "objects", "variance": squared, "variance_error": squared},
        **dict.fromkeys(("mean", "change", "change_error", "independent_error"), unit),
    }
    assert curves.attrs["units"] == units


def test_two_classes_are_fitted_by_logistic_regression():
    data = table("classification")
    own = measured("classification", seeds=[3], sizes=3, first=19, features="raw", loss="mean_square", ridge=0.5)[
        "curves"
    ]
    assert own["k"].tolist() == [20, 30, 40]
    drawn = numpy_generator(3, "bootstrap", "a table").integers(OBJECTS, size=(RESAMPLES, 41))

    def loss(place):
        model = LogisticRegression(C=1 / 0.5, fit_intercept=False, tol=1e-10, max_iter=1000)
        margins = model.fit(data.X[place], data.y[place]).decision_function(data.X)
        return np.logaddexp(0, -(2 * data.y - 1) * margins).mean()

    losses = np.array([[loss(row[:k]) for k in (20, 30, 40)] for row in drawn])
    np.testing.assert_allclose(own["mean"], losses.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(own["variance"], losses.var(axis=0, ddof=1), rtol=1e-3)


def test_the_first_size_is_one_more_than_the_features_there_are_or_are_counted():
    for given, first in (({}, 4), ({"features": "raw"}, 4), ({"first": 8}, 9)):
        frames = measured(seeds=[3], **given)
        assert (frames["table"]["first"][0], frames["curves"]["k"].min()) == (first, first)
    random = np.random.default_rng(0)
    encoded = table(features=("a", "c=u", "c=v"))
    encoded.X[:, 1] = random.integers(2, size=OBJECTS)
    design = _design(encoded, "standardised")
    np.testing.assert_array_equal(design.X[:, 1], encoded.X[:, 1])  # not standardised
    np.testing.assert_allclose(design.X[:, 0].std(), 1)
    np.testing.assert_array_equal(design.X[:, 3], 1)
    np.testing.assert_array_equal(_design(encoded, "raw").X, encoded.X)


@pytest.mark.parametrize("variant", BOTH)
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_same_point_gives_the_same_frames_whatever_the_workers(task, variant):
    first = measured(task, variant=variant)
    use_workers(2)
    try:
        again = measured(task, variant=variant)
    finally:
        use_workers(1)
    for name, frame in first.items():
        pd.testing.assert_frame_equal(frame, again[name], check_exact=True)
    two = first["curves"].groupby("seed")["mean"].apply(list)
    assert two[3] != two[4]


def test_too_few_objects_are_refused():
    with pytest.raises(BadInput, match="dataset: 40 objects; allowed: more than 40"):
        measured(first=38)
    assert measured(first=37, seeds=[3], sizes=3)["curves"]["k"].tolist() == [38, 39, 40]


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ([4, 3, 1, 1], 30),
        ([4, 1, 3, 1], 40),  # not for all larger ones before
        ([4, 1, 1, 1], 20),
        ([4, 2, 2, 2], 20),  # at most
        ([4, 4, 4, 3], None),
        ([4, 1, 1, 3], None),
        ([1, 1, 2, 0], 10),
    ],
)
def test_the_sufficient_size_holds_for_all_larger_ones(values, size):
    assert tables.sufficient(np.array([10, 20, 30, 40]), np.array(values), 2.0) == size


SIZES = (10, 20, 30, 40)


def results(curves, seeds=2, sizes=SIZES, loss="log_likelihood", task="regression") -> Results:
    """``curves``: by data set and variant two functions of k and seed, D and M with its sign."""
    made, facts, points = [], [], []
    for (dataset, variant), (variance, change) in curves.items():
        where = {"dataset": dataset, "variant": variant}
        facts.append(where | {"objects": max(sizes), "columns": 5, "task": task, "first": sizes[0]})
        points.append(Point.of(where, {"measure": {"resamples": 7, "loss": loss}}))
        for seed, (place, k) in itertools.product(range(seeds), enumerate(sizes)):
            last = variant == "as_published" and place == len(sizes) - 1
            value = np.nan if last else float(change(k, seed))
            row = {"seed": seed, "k": k, "mean": -1.0, "variance": float(variance(k, seed)), "variance_error": 0.01}
            made.append(
                where | row | {"change": value, "change_error": 0.01 if not last else np.nan, "independent_error": 0.04}
            )
    return Results(tuple(points), (), {"table": pd.DataFrame(facts), "curves": pd.DataFrame(made)}, {}, {}, "paper")


def steps(*values):
    """A function with these values at the sizes, one tuple a seed or one for all."""

    def at(k, seed):
        own = values[seed] if isinstance(values[0], tuple) else values
        return own[SIZES.index(k)]

    return at


def test_half_is_of_the_mean_and_of_each_seed_and_m_of_the_mean_change():
    # Alone they reach half at 20 and at 40, their mean (4, 2.5, 1.9, 1) at 30.
    apart = steps((4, 2, 1, 1), (4, 3, 2.8, 1))
    # Changes of both signs: the mean (1, 0, 0, 0) is at half at once, each seed never.
    signs = steps((4, 3, 3, 3), (-2, -3, -3, -3))
    curves = results({("wine", "as_defined"): (apart, signs)}).frames["curves"]
    assert tables.half(curves, "D") == (30, [20, 40])
    assert tables.half(curves, "M") == (20, [None, None])


def test_m_as_published_ends_a_size_earlier():
    fall = steps(8, -5, 3, 99)
    own = results({("wine", "as_published"): (fall, fall), ("wine", "as_defined"): (fall, fall)})
    assert tables.half(tables.own(own, "wine", "as_published"), "M") == (30, [30, 30])
    assert tables.half(tables.own(own, "wine", "as_defined"), "M") == (None, [None, None])


def test_table_3_4_in_words():
    one, never = steps(8, 4, 1, 1), steps(1, 1, 1, 1)
    apart = steps((4, 2, 1, 1), (4, 3, 2.8, 1))
    part = steps((4, 1, 1, 1), (4, 4, 4, 4))
    own = results(
        {
            ("auto_mpg", "as_defined"): (one, never),
            ("auto_mpg", "as_published"): (apart, one),
            ("mine.csv", "as_defined"): (part, part),
        }
    )
    shown = tables.halving(own, "name")
    assert shown.name == "name"
    first, second = shown.frame.to_dict("records")
    assert first["dataset"] == "Auto MPG"
    assert (first["objects"], first["columns"], first["grid_step"]) == (40, 5, 10)
    assert (first["D_as_defined"], first["M_as_defined"]) == ("20", "not reached")
    assert (first["D_as_published"], first["M_as_published"]) == ("30 (20-40)", "20")
    assert (first["D_thesis"], first["M_thesis"]) == ("15", "15")
    assert first["note"] == ""
    assert first["M_error_ratio"] == pytest.approx(4)
    assert second["dataset"] == "mine.csv"
    # The mean (4, 2.5, 2.5, 2.5) is never at half; a seed is.
    assert second["D_as_defined"] == second["M_as_defined"] == "not reached (20-20)"
    assert (second["D_thesis"], second["M_thesis"], second["note"]) == ("–", "–", "")


@pytest.mark.parametrize(
    ("sizes", "note"),
    [
        ((9, 15, 30, 60), "D: 15 is the second size of its grid; M: 15 is the second size of its grid"),
        ((9, 16, 30, 60), "D: 15 is the second size of its grid; M: 15 is the second size of its grid"),
        ((9, 17, 30, 60), ""),
        ((7, 9, 11, 15), "D: 15 is the last size of its grid; M: 15 is the last size of its grid"),
        ((7, 9, 15, 18), "D: 15 is the last but one size of its grid; M: 15 is the last but one size of its grid"),
    ],
)
def test_a_published_size_that_is_the_second_or_last_of_the_grid_is_said(sizes, note):
    own = results({("auto_mpg", "as_defined"): (lambda k, _: 1 / k, lambda k, _: 1 / k)}, sizes=sizes)
    assert tables.halving(own, "name").frame["note"].tolist() == [note]


def test_published_cells_are_those_of_table_3_4():
    cells = tables.published_cells()
    with REFERENCE.open() as handle:
        known = [(r["row"], r["column"], r["value"]) for r in csv.DictReader(handle) if r["table"] == "3.4"]
    names = {row: dataset for dataset, row in tables.ROWS.items()}
    assert cells == {(names[row], column): "–" if value == "-" else value for row, column, value in known}
    dashes = sorted(key for key, value in cells.items() if value == "–")
    assert dashes == [("bone_marrow", "D"), ("bone_marrow", "M"), ("forest_fires", "M"), ("servo", "M")]
    assert cells["energy", "M"] == "442"


def judged(variance, change, seeds=3, sizes=tuple(range(10, 101, 10))):
    found = list(sentences(results({("wine", "as_defined"): (variance, change)}, seeds, sizes)))
    assert [verdict.claim for verdict in found] == [f"Wine: {name}(k) tends to zero" for name in "DM"]
    return found


def test_slopes_of_power_laws_are_recovered():
    variance, change = judged(lambda k, s: (2 + s) * k**-2.0, lambda k, s: -(2 + s) * k**-1.0)
    for verdict, slope in ((variance, -2), (change, -1)):
        assert (verdict.effect, verdict.low, verdict.high) == pytest.approx((slope,) * 3)
        assert verdict.verdict == REPRODUCED
    assert (variance.note, change.note) == ("theory: -2 where the fit is consistent", "")
    rising, falling = judged(lambda k, s: k ** (0.4 + 0.1 * s), lambda k, s: k ** (-1.0 + 0.1 * s))
    assert rising.verdict == NOT_REPRODUCED
    assert (falling.effect, falling.verdict) == (pytest.approx(-0.9), REPRODUCED)
    # Student's t of three slopes.
    assert falling.high - falling.effect == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-5)


def test_only_the_upper_half_of_the_sizes_is_judged():
    late, _ = judged(lambda k, s: k**3.0 if k < 55 else k**-2.0, lambda k, s: 1 / k)
    assert late.effect == pytest.approx(-2)


def test_one_seed_and_zeros_decide_nothing():
    alone, _ = judged(lambda k, s: 1 / k, lambda k, s: 1 / k, seeds=1)
    assert alone.verdict == INCONCLUSIVE
    _, gone = judged(lambda k, s: 1 / k, lambda k, s: 0 if k == 90 and s < 2 else 1 / k)
    assert (gone.verdict, gone.effect) == (INCONCLUSIVE, pytest.approx(-1))  # of the one seed that is left


@pytest.mark.parametrize(
    ("cell", "size", "each", "agrees"),
    [
        ("15", 20, [20, 20], True),  # within a step of 10
        ("15", 30, [25, 35], True),
        ("15", 30, [26, 35], False),
        ("15", 10, [5, 5], True),
        ("15", 10, [4, 4], False),
        ("15", None, [20, None], True),
        ("15", None, [None, None], False),
        ("–", 20, [20, 20], False),
        ("–", 20, [20, None], True),
        ("–", None, [20, 20], True),
    ],
)
def test_a_cell_agrees_within_a_step_of_what_the_seeds_give(cell, size, each, agrees):
    assert _agrees(cell, size, each, 10.0) == agrees


def test_rows_of_table_3_4_count_what_comes_out_as_published():
    fast, slow = steps(8, 1, 1, 1), steps(8, 8, 8, 8)
    own = results(
        {
            ("auto_mpg", "as_published"): (fast, slow),  # 15 and 15
            ("servo", "as_published"): (steps(8, 8, 8, 1), slow),  # 41 and a dash
            ("auto_mpg", "as_defined"): (slow, fast),
            ("mine.csv", "as_published"): (fast, fast),
        }
    )
    variance, change = rows(own)
    assert (variance.claim, variance.verdict, variance.effect, variance.published, variance.note) == (
        "Table 3.4, column D",
        REPRODUCED,
        2,
        2,
        "",
    )
    assert (change.verdict, change.effect, change.published) == (NOT_REPRODUCED, 1, 2)
    assert change.note == "Auto MPG not reached, thesis 15"
    assert list(rows(results({("auto_mpg", "as_defined"): (fast, fast)}))) == []


def drawn(make, own):
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        figure = make(own, "figure")
        figure.drawing.draw_without_rendering()
    assert figure.name == "figure"
    return figure


def power(k, seed):
    return (1 + seed) / k


def test_both_functions_are_drawn_with_what_the_frames_hold():
    own = results({("liver", variant): (power, lambda k, s: -power(k, s)) for variant in BOTH}, loss="mean_square")
    figure = drawn(functions, own)
    for ax, symbol in zip(figure.drawing.axes, "DM", strict=True):
        published, defined = [line for line in ax.lines if len(line.get_xdata())][:2]
        np.testing.assert_allclose(defined.get_ydata(), 1.5 / np.array(SIZES))
        np.testing.assert_array_equal(published.get_xdata(), SIZES if symbol == "D" else SIZES[:-1])
        assert ax.get_ylabel() == f"${symbol}(k)$, target" + ("⁴" if symbol == "D" else "²")
    assert "7 bootstrap samples a size and seed, 2 seeds" in figure.note


@pytest.mark.parametrize(
    ("variants", "seeds", "change"),
    [
        (BOTH[:1], 1, power),
        (BOTH[1:], 1, power),
        (BOTH, 2, lambda k, s: 0 if k == 20 else 1 / k),
        (BOTH[:1], 2, lambda k, s: 0),
    ],
    ids=["defined", "published", "a zero", "zeros"],
)
def test_functions_are_drawn_whatever_there_is(variants, seeds, change):
    figure = drawn(functions, results({("wine", variant): (power, change) for variant in variants}, seeds))
    assert figure.drawing.axes[0].get_ylabel() == "$D(k)$, nats²"


def test_thresholds_are_the_least_at_which_a_size_is_enough():
    wave = steps(8, 1, 4, 2)
    own = results({(name, "as_defined"): (wave, wave) for name in ("liver", "synthetic_regression", "wine")}, 1)
    figure = drawn(thresholds, own)
    for ax in figure.drawing.axes:
        lines = [line for line in ax.lines if len(line.get_xdata()) > 1]
        assert len(lines) == 3
        for line in lines:
            np.testing.assert_allclose(line.get_xdata(), [4, 2, 2, 1])
            np.testing.assert_array_equal(line.get_ydata(), SIZES)


def settings(experiment, *words):
    config = load([f"experiment={experiment}", *words])
    return {
        (s["dataset"]["name"], s["measure"]["variant"]): s
        for s in (point.settings for point in Likelihood(config).points())
    }


def test_three_data_sets_have_their_own_loss_and_features():
    found = settings("likelihood_threshold")
    assert {key: (s["measure"]["loss"], s["measure"]["features"]) for key, s in found.items()} == {
        ("synthetic_regression", "as_defined"): ("log_likelihood", "raw"),
        ("synthetic_classification", "as_defined"): ("log_likelihood", "raw"),
        ("liver", "as_defined"): ("mean_square", "standardised"),
    }
    # As in the experiments on one of them, whose points they are.
    for name, variant in found:
        alone = settings(f"likelihood_{name}")[name, variant]
        assert alone == found[name, variant]


def test_uci_tables_are_taken_as_published():
    found = settings("likelihood_uci")
    assert len(found) == 26
    first = {"servo": 19, "heart_failure": 17}  # of the published encoding
    for (name, _), own in found.items():
        assert own["measure"]["first"] == first.get(name)
        assert (own["measure"]["loss"], own["measure"]["features"]) == ("mean_square", "standardised")
    numbers = {name for (name, _), own in found.items() if own["dataset"]["task"] == "regression"}
    assert numbers == {"heart_failure", "bone_marrow"}
    student = found["student", "as_defined"]["dataset"]
    assert (student["target"], student["drop"], student["encoding"]) == ("G1", ["G2", "G3"], "one_hot")
    text = {name for (name, _), own in found.items() if own["dataset"]["encoding"] == "one_hot"}
    assert text == {"abalone", "automobile", "servo", "forest_fires", "student", "facebook", "bone_marrow"}
    assert found["wine_quality", "as_published"]["dataset"]["drop"] == ["color"]


FEW = ("measure.resamples=3", "measure.sizes=4", "seeds=2", "plot.formats=[png]", "plot.dpi=50", "data.download=false")


def test_uci_tables_without_a_file_give_table_3_4(landscape, tmp_path):
    finished = landscape("run", "experiment=likelihood_uci", "profile=smoke", *FEW)
    assert finished.code == 0, finished.err
    (path,) = (tmp_path / "outputs").glob("tables/*/table_3_4_likelihood_uci.csv")
    assert {"D_as_defined", "M_as_published"} <= set(pd.read_csv(path))
    assert not list((tmp_path / "outputs").glob("figures/*/*"))


def test_figures_of_the_thesis_are_written(landscape, tmp_path):
    name = "likelihood_threshold"
    finished = landscape("run", f"experiment={name}", "profile=smoke", *FEW, "dataset=sklearn_diabetes")
    assert finished.code == 0, finished.err
    written = {path.name for path in (tmp_path / "outputs").glob("*/smoke*/*")}
    assert {f"fig_3_7_{name}.png", f"{name}.csv", f"claims_{name}.csv"} <= written
    own = results({("liver", "as_defined"): (power, power)})
    for name, number in (("liver", 6), ("synthetic_classification", 5), ("synthetic_regression", 4)):
        with style():
            (figure,) = Likelihood(load([f"experiment=likelihood_{name}"])).figures(own)
        assert figure.name == f"fig_3_{number}_likelihood_{name}"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (["u", "v", "w"] * 10, "dataset.target: 3 classes; allowed: two"),
        ([f"t{i}" for i in range(30)], "dataset.target"),
    ],
)
def test_other_targets_than_numbers_and_two_classes_are_refused(landscape, isolated, target, text):
    random = np.random.default_rng(0)
    pd.DataFrame({"a": random.normal(size=30), "b": random.normal(size=30), "y": target}).to_csv("own.csv", index=False)
    words = ("dataset=csv", "dataset.path=own.csv", "dataset.target=y")
    landscape("run", "experiment=likelihood_liver", *words, *FEW).assert_refused(2, text)


def test_too_few_objects_of_a_file_are_refused_in_one_line(landscape, isolated):
    pd.DataFrame({"a": [1, 2, 3.5], "b": [4, 2, 7], "y": [1, 3, 2]}).to_csv("own.csv", index=False)
    words = ("dataset=csv", "dataset.path=own.csv", "dataset.target=y", "grid.variant=[as_defined]")
    refused = landscape("run", "experiment=likelihood_liver", *words, *FEW)
    refused.assert_refused(2, "dataset: 3 objects; allowed: more than 4")


def test_by_dataset_reaches_the_real_tables(landscape, tmp_path):
    """A 0-1 target fitted as a number, text in columns, and the first size of the published count."""
    if not (REAL / "tabular" / "bone-marrow.arff").is_file():
        pytest.skip(f"no real tables: {REAL} has no tabular/bone-marrow.arff")
    words = (f"data.roots=[{REAL}]", "grid.dataset=[servo,heart_failure,bone_marrow]", "grid.variant=[as_published]")
    finished = landscape("run", "experiment=likelihood_uci", "dataset=servo", *words, *FEW)
    assert finished.code == 0, finished.err
    (path,) = (tmp_path / "outputs").glob("tables/*/table_3_4_likelihood_uci.csv")
    shown = pd.read_csv(path).set_index("dataset")
    facts = pd.concat(map(pd.read_parquet, (tmp_path / "outputs" / "results").glob("Likelihood/*/table.parquet")))
    assert set(facts["task"]) == {"regression"}
    found = facts.set_index("objects")
    assert found["first"].to_dict() == {167: 20, 299: 18, 142: found["columns"][142] + 1}
    assert found["columns"][142] > 36  # text of the published 36 features in columns
    cells = tables.published_cells()
    named = {tables.title(name): cells[name, "D"] for name in ("servo", "heart_failure", "bone_marrow")}
    assert shown["D_thesis"].to_dict() == named
