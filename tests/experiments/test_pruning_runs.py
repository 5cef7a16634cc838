"""Removal of parameters, measured: where curves begin and end, what a seed depends on, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2

from experiments.chapter4 import networks
from experiments.chapter4.restarts import of_table
from landscape_cli.composing import load
from landscape_cli.data.images import load_images
from landscape_cli.data.tabular import load_table
from landscape_cli.experiment import Context, Point
from landscape_cli.plan import make_plan
from landscape_cli.rng import generator

TINY = ("model.hidden=[2]", "measure.noise_shares=2", "measure.noise_copies=3", "training.epochs=2")
SMOKE = ("profile=smoke", "data.download=false")
ONE_BY_ONE = {"removal_steps": None, "retrain": 0}


def measured(name, *words, seeds=(0, 1), **measure):
    """A point of an experiment, measured without drawing: frames and arrays, the objects, the point."""
    plan = make_plan(load([f"experiment={name}", *SMOKE, *words]))
    (item,) = plan.located
    settings = {**item.point.settings, "seeds": list(seeds)}
    settings["measure"] = settings["measure"] | measure
    point = Point.of(item.point.coordinates, settings)
    (source,) = plan.sources.values()
    size, cpu = settings["dataset"].get("objects"), torch.device("cpu")
    if plan.experiment.data == "images":
        data = load_images(source, size, None, cpu, settings["dataset"]["normalisation"])
    else:
        data = load_table(source, size)
    context = Context(cpu, source, lambda: data, lambda items, **_: items, lambda: data)
    return plan.experiment.measure(point, context), data, point


@pytest.fixture(scope="module")
def wine():
    return measured("pruning_wine", *TINY, retrain=1, retrain_steps=3, removal_steps=None, seeds=(0, 1, 2))


def ends(curves, share):
    """Quality at a share: a row a method and kind of curve, a column a seed."""
    return curves[curves["share"] == share].pivot(index=["method", "retrained"], columns="seed", values="test")


def test_curves_go_from_the_whole_network_to_a_guess(wine):
    found, data, _ = wine
    curves, fits = found.frames["curves"], found.frames["fits"].set_index("seed")
    first, last = ends(curves, 0), ends(curves, 1)
    assert first.shape == last.shape == (12, 3)  # six orders, without and with retraining
    for seed in range(3):
        assert set(first[seed]) == {fits.loc[seed, "posterior_test"]}
    np.testing.assert_allclose(last, 1 / 3, rtol=1e-12)
    assert len(data.classes) == 3
    assert fits["posterior_test"].nunique() > 1  # the seeds are different networks


def test_retrained_curves_have_steps_of_their_own(wine):
    curves = wine[0].frames["curves"]
    size = 13 * 2 + 2 * 3
    for method, own in curves.groupby("method"):
        once = own[(own["seed"] == 0) & own["retrained"]]
        assert once["removed"].tolist() == [0, 11, 21, size - 1, size], method
        left = own[(own["seed"] == 0) & ~own["retrained"]]
        assert left["removed"].tolist() == list(range(size + 1))
        np.testing.assert_array_equal(own["share"], own["removed"] / size)


def test_every_parameter_is_removed_once(wine):
    arrays = wine[0].arrays
    assert len(arrays) == 6
    for name, removed in arrays.items():
        assert name.startswith("removed_at_")
        np.testing.assert_array_equal(np.sort(removed, axis=1), np.tile(np.arange(1, 33), (3, 1)), err_msg=name)
    assert not np.array_equal(arrays["removed_at_random"][0], arrays["removed_at_random"][1])


def test_steps_remove_several_at_once_and_the_last_but_one_leaves_one():
    found, *_ = measured("pruning_wine", *TINY, removal_steps=4, retrain=0, methods=["random"], seeds=[5])
    values, counts = np.unique(found.arrays["removed_at_random"], return_counts=True)
    assert (values.tolist(), counts.tolist()) == ([8, 16, 24, 31, 32], [8, 8, 8, 7, 1])
    assert found.frames["curves"]["removed"].tolist() == [0, 8, 16, 24, 31, 32]
    assert set(found.frames["curves"]["seed"]) == {5}


def test_noise_is_none_without_noise_and_without_parameters(wine):
    surface = wine[0].frames["surface"]
    assert len(surface) == 6 * 3 * 3 * 5
    assert sorted(set(surface["share"])) == [0, 0.5, 1]
    assert surface.loc[(surface["noise"] == 0) | (surface["share"] == 1), "deviation"].max() < 1e-12
    whole = surface[surface["share"] == 0].groupby(["seed", "noise"])["deviation"]
    assert (whole.nunique() == 1).all()  # nothing is removed: the same network under the same noise
    assert (whole.first().unstack().diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


def test_errors_of_a_regression_are_in_the_targets_own_units():
    found, data, point = measured("pruning_boston", *TINY, removal_steps=2, retrain=0)
    curves, fits = found.frames["curves"], found.frames["fits"].set_index("seed")
    restarts = of_table(data, [0, 1], point.settings["measure"]["test_share"])
    for seed in (0, 1):
        train, test = (rows[seed].numpy() - seed * len(data.y) for rows in (restarts.train, restarts.test))
        assert sorted([*train, *test]) == list(range(len(data.y)))
        assert len(test) == round(0.2 * len(data.y))
        empty = np.square(data.y[test] - data.y[train].mean()).mean()
        np.testing.assert_allclose(ends(curves, 1)[seed], empty, rtol=1e-12)
        assert set(ends(curves, 0)[seed]) == {fits.loc[seed, "posterior_test"]}
        # An empty network is off by the train objects' own variance on them; a trained one by less.
        assert 0 < fits.loc[seed, "trained_train"] < data.y[train].var() * 2
        x = (data.X[test] - data.X[train].mean(axis=0)) / data.X[train].std(axis=0)
        np.testing.assert_allclose(restarts.x[restarts.test[seed]], x, rtol=1e-12)


@pytest.mark.parametrize("name", ["pruning_wine", "pruning_boston"])
def test_a_seed_does_not_depend_on_the_others(name):
    given = {"retrain": 1, "retrain_steps": 2, "removal_steps": 5, "methods": ["optimal_brain_damage", "belsley"]}
    alone, both = (measured(name, *TINY, seeds=seeds, **given)[0].frames for seeds in ([0], [0, 1]))
    for frame in ("curves", "surface", "fits"):
        own = both[frame][both[frame]["seed"] == 0].reset_index(drop=True)
        assert len(both[frame]) == 2 * len(own)
        pd.testing.assert_frame_equal(alone[frame], own, rtol=1e-7, atol=1e-12)


def test_of_a_mean_field_the_two_readings_of_belsley_are_each_others_reverse():
    """Of independent parameters the largest condition index is the smallest variance's, or precision's."""
    given = ONE_BY_ONE | {"covariance": "diagonal", "methods": ["belsley", "belsley_precision"]}
    found, *_ = measured("pruning_wine", *TINY, **given)
    first, second = (found.arrays[f"removed_at_{method}"] for method in given["methods"])
    np.testing.assert_array_equal(first + second, 33)
    np.testing.assert_allclose(ends(found.frames["curves"], 1), 1 / 3, rtol=1e-12)


def synthetic_parameters(seed, size=100):
    """Mean m, covariance A and a draw from N(m, A), by hand."""
    mean, matrix = np.full(size, 0.0025), np.full((size, size), 0.95)
    mean[0], matrix[0], matrix[:, 0] = 1, 1e-3, 1e-3
    np.fill_diagonal(matrix, 1)
    normal = torch.randn(size, generator=generator(seed, "parameters"), dtype=torch.float64).numpy()
    return mean, matrix, mean + np.linalg.cholesky(matrix) @ normal


@pytest.fixture(scope="module")
def synthetic():
    methods = ["random", "belsley", "belsley_precision"]
    return measured("pruning_synthetic", methods=methods, removal_steps=None, seeds=(0, 3))


def test_the_given_posterior_is_drawn_from(synthetic):
    _, data, point = synthetic
    mean, matrix, _ = synthetic_parameters(0)
    for found, known in zip(networks.given_posterior(100), (mean, matrix), strict=True):
        np.testing.assert_array_equal(found, known)
    seeds = list(range(40))
    many = Point.of(point.coordinates, point.settings | {"seeds": seeds})
    drawn = networks.drawn(many, data, of_table(data, seeds, 0.2, standardise=False))
    for seed in seeds:
        np.testing.assert_allclose(drawn.weights[seed], synthetic_parameters(seed)[2], rtol=1e-9, atol=1e-12)
    away = drawn.weights.numpy() - mean
    distance = (away * np.linalg.solve(matrix, away.T).T).sum()  # of 40 draws: chi squared of 4000
    assert 0.01 < chi2.cdf(distance, away.size) < 0.99
    np.testing.assert_allclose(drawn.posterior.precision[7], np.linalg.inv(matrix), rtol=1e-9, atol=1e-12)


def test_the_synthetic_set_is_tested_as_it_stands(synthetic):
    found, data, point = synthetic
    curves = found.frames["curves"]
    restarts = of_table(data, [0, 3], point.settings["measure"]["test_share"], standardise=False)
    for row, seed in enumerate((0, 3)):
        test = restarts.test[row].numpy()
        x, y, w = data.X[test], data.y[test], synthetic_parameters(seed)[2]
        np.testing.assert_allclose(ends(curves, 0)[seed], np.square(x @ w - y).mean(), rtol=1e-9)
        np.testing.assert_allclose(ends(curves, 1)[seed], np.square(y).mean(), rtol=1e-12)
        removed = found.arrays["removed_at_random"][row]
        own = curves[(curves["method"] == "random") & (curves["seed"] == seed)].set_index("removed")["test"]
        for count in (1, 50, 99):
            assert own[count] == pytest.approx(np.square(x @ (w * (removed > count)) - y).mean(), rel=1e-9)


def test_belsley_on_the_covariance_leaves_the_first_parameter_until_two_are_tied(synthetic):
    removed = synthetic[0].arrays["removed_at_belsley"]
    assert (removed[:, 0] >= 99).all()


def test_belsley_on_the_precision_removes_the_first_parameter_when_its_direction_is_the_loosest(synthetic):
    """By numpy: the dependent parameters are exchangeable, so it does not matter which of them goes."""
    precision = np.linalg.inv(synthetic_parameters(0)[1])
    for left in range(99, 0, -1):  # dependent parameters that are left, beside the first
        values, vectors = np.linalg.eigh(precision[: left + 1, : left + 1])
        parts = vectors**2 / values
        shares = parts[:, 0] / parts.sum(axis=1)
        if shares[0] > shares[1]:
            break
    assert 0 < 99 - left < 98
    assert synthetic[0].arrays["removed_at_belsley_precision"][:, 0].tolist() == [100 - left] * 2


def test_orders_without_a_posterior_prune_networks_on_images():
    found, data, _ = measured("pruning_mnist", "model.hidden_size=3", "model.num_layers=1", retrain=1, retrain_steps=2)
    curves, fits = found.frames["curves"], found.frames["fits"].set_index("seed")
    assert set(found.frames) == {"curves", "fits"}
    assert set(curves["method"]) == {"random", "magnitude", "optimal_brain_damage", "gradient_covariance"}
    assert list(fits) == ["test_objects", "trained_test", "trained_train"]
    for seed in (0, 1):
        assert set(ends(curves, 0)[seed]) == {fits.loc[seed, "trained_test"]}
    np.testing.assert_allclose(ends(curves, 1), 1 / data.source.classes, rtol=1e-12)


@pytest.fixture
def table(isolated):
    """Write a table of 40 objects, with a constant column; the words that prune a network on it."""
    a, b, e = np.random.default_rng(0).normal(size=(3, 40)).round(3)
    targets = {"regression": a + 0.1 * e, "classification": np.where(a + 0.3 * e > 0, "up", "down")}

    def words(task="regression", constant=5):
        path = isolated / "work" / f"{task}.csv"
        pd.DataFrame({"a": a, "b": b, "same": constant, "y": targets[task]}).to_csv(path, index=False)
        return ("experiment=pruning_table", "dataset=csv", f"dataset.path={path.name}", "dataset.target=y", *TINY)

    return words


FEW = ("measure.methods=[random,belsley]", "measure.retrain=1", "measure.retrain_steps=2")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_networks_on_a_table_of_ones_own(landscape, small, table, tmp_path, task):
    frames = {}
    for folder in ("first", "second"):
        finished = landscape("run", *table(task), *FEW, *small, f"output_dir={tmp_path / folder}")
        assert (finished.code, finished.err) == (0, "")
        assert f"{task}.csv, all 40 objects" in finished.out
        assert "removable without retraining, losing at most 5%: random " in finished.out
        for name in ("curves", "surface", "fits"):
            (path,) = (tmp_path / folder / "results").glob(f"Pruning/*/{name}.parquet")
            frames[folder, name] = pd.read_parquet(path)
    for name in ("curves", "surface", "fits"):
        pd.testing.assert_frame_equal(frames["first", name], frames["second", name], check_exact=True)
    curves = frames["first", "curves"]
    assert set(curves["retrained"]) == {False, True}
    if task == "classification":
        assert set(ends(curves, 1).to_numpy().flat) == {0.5}
        assert curves["test"].between(0, 1).all()
    names = {path.name for path in (tmp_path / "first" / "figures").glob("*/*.png")}
    assert names == {"pruning_table.png", "pruning_table_noise.png", "pruning_table_noise_heat.png"}


def test_a_constant_column_says_nothing(table):
    data = measured(*[word.removeprefix("experiment=") for word in table(constant=0.1)], **ONE_BY_ONE)[1]
    assert set(data.X[:, 2]) == {0.1}
    restarts = of_table(data, range(5), 0.05)
    assert restarts.x[:, 2].abs().max() < 1e-9


REFUSED = [
    ("pruning_wine", ("model=mlp",), "model.hidden"),
    ("pruning_wine", ("+grid.dataset=[wine]",), "grid.dataset: one data set and network at a time"),
    ("pruning_wine", ("measure.noise_levels=[0,1,0.5]",), "measure.noise_levels: [0.0, 1.0, 0.5]; allowed: two"),
    ("pruning_wine", ("measure.noise_levels=[0,0]",), "allowed: two numbers or more that rise"),
    ("pruning_wine", ("measure.methods=[best]",), "measure.methods: 'best'; allowed: random,"),
    ("pruning_wine", ("measure.methods=[random,random]",), "measure.methods: random twice; allowed: each once"),
    ("pruning_wine", ("measure.posterior_samples=3",), "measure.posterior_samples: 3; allowed: an even number"),
    ("pruning_mnist", ("measure.methods=[belsley]",), "measure.methods: 'belsley'; allowed: random, magnitude"),
    ("pruning_wine", ("measure.test_share=0.999",), "measure.test_share: 0.999 leaves 0 of 120 objects"),
    ("pruning_wine", ("measure.test_share=1",), "measure.test_share: 1.0; allowed:"),
    ("pruning_wine", ("model.hidden=[200]",), "measure.covariance: full, of 3200 parameters; allowed up to 2000"),
    ("pruning_synthetic", ("model.hidden=[5]",), "allowed: hidden=[] and bias=false"),
    ("pruning_synthetic", ("model.bias=true",), "allowed: hidden=[] and bias=false"),
    ("pruning_synthetic", ("dataset=wine",), "dataset.name: 'wine'; allowed: synthetic_relevance"),
    ("freezing_wine", ("training.epochs=1",), "training.epochs: 1; allowed: 2 or more"),
]


@pytest.mark.parametrize(("name", "words", "text"), REFUSED, ids=[f"{n} {w[0]}" for n, w, _ in REFUSED])
def test_what_is_not_allowed_is_refused_in_one_line(landscape, small, name, words, text):
    landscape("run", f"experiment={name}", *small, *words).assert_refused(2, text)
