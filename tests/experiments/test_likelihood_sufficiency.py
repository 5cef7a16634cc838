"""D- and M-sufficiency: frames against fits by hand, settings, refusals and files."""

import itertools
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from test_likelihood_results import power, results

from experiments.chapter3 import likelihood_tables as tables
from experiments.chapter3.likelihood import Likelihood, LikelihoodOptions, _design
from landscape_cli.composing import load
from landscape_cli.config import Config, TableConfig
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Point
from landscape_cli.parallel import use_workers
from landscape_cli.plotting.style import style
from landscape_cli.rng import numpy_generator

BOTH = ("as_defined", "as_published")
OBJECTS, RESAMPLES, SEEDS = 40, 6, [3, 4]
# Read here: tests have none of their own.
REAL = Path(os.environ.get("LANDSCAPE_DATA") or Path(__file__).parents[3] / "shared" / "data").absolute()


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
    named = {TABLE_SETS[name].title: cells[name, "D"] for name in ("servo", "heart_failure", "bone_marrow")}
    assert shown["D_thesis"].to_dict() == named
