"""The methods on small tables: frames, m* by hand, copies, caps of the profiles, and runs without a file."""

import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, ncx2

from experiments.chapter3.sample_size_methods import SampleSizeMethods, SampleSizeOptions
from landscape_cli.composing import load
from landscape_cli.config import Config, TableConfig
from landscape_cli.experiment import Point
from landscape_cli.parallel import use_workers
from landscape_cli.rng import numpy_generator

LEAST = ("seeds=1", "measure.sizes=3", "measure.resamples=2", "measure.copy_resamples=2", "measure.copy_sizes=3")
TESTS = ["lagrange", "likelihood_ratio", "wald"]
OTHERS = ["cross_validation", "bootstrap", "apvc", "acc", "alc", "utility", "d", "m", "kl", "s"]
SEEDS, OBJECTS, PARAMETERS, STEP = [3, 4], 70, 4, 9
SMALL = {
    **{"resamples": 6, "step": STEP, "available": 3, "copies": 4, "copy_resamples": 4, "copy_sizes": 5},
    # Where these curves are midway, so that some methods reach m* inside the sizes and some never do.
    **{"overfitting": 0.06, "width": 1.0, "variance": 0.15, "coverage_radius": 0.35, "radius": 0.1, "cost": 0.002},
}
# What Table 3.3's thresholds ask of a statistic, written out again.
HOLDS = {
    "cross_validation": lambda values: values <= SMALL["overfitting"],
    "bootstrap": lambda values: values <= SMALL["width"],
    "apvc": lambda values: values <= SMALL["variance"],
    "acc": lambda values: values >= 0.95,
    "alc": lambda values: values <= SMALL["radius"],
    **dict.fromkeys("dm", lambda values: values <= values.iloc[0] / 2),
    **dict.fromkeys(("kl", "s"), lambda values: abs(values - values.iloc[-1]) <= 0.05 * abs(values.iloc[-1])),
}


def table(task, objects=OBJECTS):
    random = np.random.default_rng(1)
    X = random.normal(size=(objects, PARAMETERS - 1)) * [1, 5, 0.1] + 3
    y = X @ [1.0, -0.2, 4.0] + random.normal(size=objects)
    y = y if task == "regression" else (y > np.median(y)).astype(float)
    return SimpleNamespace(X=X, y=y, features=("a", "b", "c"), source=SimpleNamespace(task=task, dropped=2))


def point(variant="as_defined", seeds=SEEDS, checksum="a table", **options) -> Point:
    measure = asdict(SampleSizeOptions(variant=variant, **SMALL | options))
    return Point.of({}, {"dataset": {"name": "own", "checksum": checksum}, "measure": measure, "seeds": seeds})


def measured(task="regression", data=None, configured=None, **given):
    own = point(**given)
    options = SampleSizeOptions(**own.settings["measure"] | (configured or {}))
    config = Config(name="methods_test", title="", family="", dataset=TableConfig("own"), measure=options)
    context = SimpleNamespace(table=lambda: data or table(task), progress=lambda items, **_: items)
    return SampleSizeMethods(config).measure(own, context).frames


@pytest.fixture(scope="module")
def every():
    tasks, variants = ("regression", "classification"), ("as_defined", "as_published")
    return {(task, variant): measured(task, variant=variant) for task in tasks for variant in variants}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_there_is_one_row_a_method_seed_and_size_and_one_a_copy(every, task):
    frames = every[task, "as_defined"]
    assert set(frames) == {"table", "curves", "sizes", "copies"}
    (facts,) = frames["table"].to_dict("records")
    assert facts == {"objects": OBJECTS, "features": 3, "dropped": 2, "task": task, "separable": False}
    sizes = [*range(2 * PARAMETERS, OBJECTS, STEP), OBJECTS]
    curves = frames["curves"]
    assert list(curves) == ["method", "seed", "size", "value", "error", "separable", "threshold"]
    expected = [(name, seed, size) for seed in SEEDS for name in TESTS + OTHERS for size in sizes]
    assert list(curves[["method", "seed", "size"]].itertuples(index=False, name=None)) == expected
    assert np.isfinite(curves["value"]).all()
    assert curves.loc[curves["error"].isna(), "method"].unique().tolist() == ["bootstrap"]
    assert curves.loc[curves["threshold"].isna(), "method"].unique().tolist() == ["utility"]
    rows = frames["sizes"]
    assert list(rows[["method", "seed"]].itertuples(index=False, name=None)) == [
        (name, seed) for seed in SEEDS for name in TESTS + OTHERS
    ]
    assert frames["copies"].groupby(["method", "available"])["copy"].apply(list).tolist() == [[0, 1, 2, 3]] * 39


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_as_published_has_no_copies_and_no_curves_of_the_tests(every, task):
    frames = every[task, "as_published"]
    assert set(frames) == {"table", "curves", "sizes"}
    assert frames["curves"]["method"].unique().tolist() == [name for name in OTHERS if name not in ("d", "m")]
    # The published grid ends before m - 1.
    assert frames["curves"]["size"].unique().tolist() == list(range(2 * PARAMETERS, OBJECTS - 1, STEP))
    assert sorted(frames["sizes"]["method"].unique()) == sorted({*TESTS, *OTHERS} - {"d", "m"})
    assert not frames["curves"]["value"].equals(every[task, "as_defined"]["curves"]["value"])


def m_star(curve: pd.DataFrame, method: str, variant: str) -> tuple[float, bool]:
    """Size by size, from the words: from which it holds for all larger ones; as published, the first."""
    sizes, values = curve["size"].tolist(), curve["value"]
    if method == "utility":
        best = sizes[values.tolist().index(max(values))]
        lost = best == sizes[-1] and variant == "as_defined"
        return (np.nan, False) if lost else (best, best == sizes[0])
    holds = dict(zip(sizes, HOLDS[method](values), strict=True))
    if variant == "as_published" and method not in ("kl", "s"):
        good = [size for size in sizes if holds[size]]
    else:
        good = [size for size in sizes if all(holds[other] for other in sizes if other >= size)]
    return (good[0], good[0] == sizes[0]) if good else (np.nan, False)


@pytest.mark.parametrize("variant", ["as_defined", "as_published"])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_m_star_follows_from_the_curve_of_its_own_seed(every, task, variant):
    frames = every[task, variant]
    rows = frames["sizes"].set_index(["method", "seed"])
    for (method, seed), curve in frames["curves"].groupby(["method", "seed"]):
        if method in OTHERS:
            found = rows.loc[(method, seed)]
            np.testing.assert_equal((found["m_star"], found["first"]), m_star(curve, method, variant))
            assert (found["reason"] == "") == np.isfinite(found["m_star"])


def test_some_of_these_methods_reach_m_star_inside_the_sizes_and_some_do_not(every):
    """Else the test above would say little."""
    rows = pd.concat([frames["sizes"] for frames in every.values()])
    rows = rows[rows["method"].isin(OTHERS)]
    assert rows["m_star"].isna().sum() >= 4
    assert rows.loc[~rows["first"], "m_star"].nunique() >= 4
    assert rows["first"].any()


def wald(X, y, options=SMALL):
    """m γ⁰ of a regression of y on features and a constant, the first half shifted by 0.2."""
    n = X.shape[1]
    information = X.T @ X + 0.01 * np.eye(n)
    residuals = y - X @ np.linalg.solve(information, X.T @ y)
    covariance = residuals @ residuals / (len(y) - n) * np.linalg.inv(information)
    shift = np.full(n // 2, 0.2)
    return shift @ np.linalg.solve(covariance[: n // 2, : n // 2], shift)


def scaled():
    data = table("regression")
    X = (data.X - data.X.mean(axis=0)) / data.X.std(axis=0)
    return np.column_stack([X, np.ones(OBJECTS)]), (data.y - data.y.mean()) / data.y.std()


def test_m_star_of_the_wald_test_is_the_least_size_with_power(every):
    X, y = scaled()
    rows = every["regression", "as_defined"]["sizes"]
    found = rows.loc[rows["method"] == "wald", "m_star"].unique()
    assert len(found) == 1  # from all objects, whatever the seed
    per_object, critical = wald(X, y) / OBJECTS, chi2.isf(0.05, 2)
    assert ncx2.sf(critical, 2, found[0] * per_object) >= 0.8 > ncx2.sf(critical, 2, (found[0] - 1) * per_object)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_curves_of_the_tests_end_where_their_m_star_comes_from(every, task):
    frames = every[task, "as_defined"]
    curves, rows = frames["curves"], frames["sizes"]
    for name in TESTS:
        last = curves[(curves["method"] == name) & (curves["size"] == OBJECTS)]
        needed = np.ceil(last["threshold"] * OBJECTS / last["value"])
        assert needed.tolist() == rows.loc[rows["method"] == name, "m_star"].tolist()


def test_copies_are_bootstrap_tables_of_each_available_size(every):
    copies = every["regression", "as_defined"]["copies"]
    # Evenly from four times the number of parameters to all objects.
    assert copies["available"].unique().tolist() == [16, 43, OBJECTS]
    X, y = scaled()
    own = copies[copies["method"] == "wald"].set_index(["available", "copy"])["m_star"]
    needed = 9.634486  # of χ² with 2 degrees of freedom, level 0.05, power 0.8
    assert ncx2.sf(chi2.isf(0.05, 2), 2, needed) == pytest.approx(0.8, abs=1e-5)
    for (available, number), size in own.items():
        rows = numpy_generator(number, f"copy of {available}", "a table").integers(OBJECTS, size=available)
        assert size == np.ceil(needed * available / wald(X[rows], y[rows]))
    rest = copies[copies["method"].isin(OTHERS)]
    assert (rest["m_star"].isna() | (rest["m_star"] <= rest["available"])).all()


def test_one_available_size_is_all_objects():
    copies = measured(seeds=[3], available=1, copies=2)["copies"]
    assert copies["available"].unique().tolist() == [OBJECTS]
    assert len(copies) == 13 * 2


def test_units_are_named(every):
    for frames in every.values():
        for name, columns in {"curves": ["size"], "sizes": ["m_star"], "copies": ["m_star", "available"]}.items():
            if name in frames:
                assert frames[name].attrs["units"] == dict.fromkeys(columns, "objects")


@pytest.mark.parametrize("variant", ["as_defined", "as_published"])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_same_point_gives_the_same_frames_whatever_the_workers(every, task, variant):
    use_workers(3)
    try:
        again = measured(task, variant=variant)
    finally:
        use_workers(1)
    for name, frame in every[task, variant].items():
        pd.testing.assert_frame_equal(frame, again[name], check_exact=True)


def test_seeds_and_tables_have_their_own_resamples(every):
    both = every["regression", "as_defined"]["curves"]
    alone = measured(seeds=[4], available=1, copies=2)["curves"]
    four = both[both["seed"] == 4].reset_index(drop=True)
    pd.testing.assert_frame_equal(four, alone, check_exact=True)
    three = both[(both["seed"] == 3) & (both["method"] == "apvc") & (both["size"] < OBJECTS)]["value"]
    assert (three.to_numpy() != four[(four["method"] == "apvc") & (four["size"] < OBJECTS)]["value"].to_numpy()).all()
    other = measured(seeds=[4], checksum="another table", available=1, copies=2)["curves"]
    assert not other["value"].equals(alone["value"])


def test_sizes_are_thinned_with_both_ends():
    for variant, last in (("as_defined", OBJECTS), ("as_published", 62)):
        sizes = measured(variant=variant, seeds=[3], sizes=3, available=1, copies=2)["curves"]["size"].unique()
        assert (len(sizes), sizes[0], sizes[-1]) == (3, 2 * PARAMETERS, last)


def test_separable_classes_are_a_fact_of_the_table():
    data = table("classification")
    data.y = (data.X[:, 0] > 3).astype(float)
    frames = measured(data=data, seeds=[3], available=1, copies=2)
    assert frames["table"]["separable"].tolist() == [True]
    rows = frames["sizes"].set_index("method")
    assert rows.loc[TESTS, "m_star"].isna().all()
    assert set(rows.loc[TESTS, "reason"]) == {"the classes are separable"}
    assert (frames["curves"]["separable"] == 1).all()


def test_a_measurement_is_a_function_of_the_point_alone(every):
    copies = measured(configured={"available": 1})["copies"]
    pd.testing.assert_frame_equal(copies, every["regression", "as_defined"]["copies"])


def test_the_fewest_objects_that_are_allowed_can_be_measured():
    data = table("regression", 2 * PARAMETERS + 1)
    for variant in ("as_defined", "as_published"):
        assert not measured(data=data, variant=variant, seeds=[3], available=1, copies=2)["curves"].empty


def test_a_rare_class_can_be_measured_as_published():
    data = table("classification", 100)
    data.y = (np.arange(100) % 20 == 0).astype(float)
    frames = measured(data=data, variant="as_published", seeds=[3], resamples=40, sizes=2)
    assert np.isfinite(frames["curves"]["value"]).all()


def test_points_are_the_variants_of_each_table():
    config = load(["experiment=sample_size_methods", "seeds=2", "seed=7"])
    points = SampleSizeMethods(config).points()
    names = ["boston", "diabetes", "forest_fires", "servo", "nba"]
    variants = ["as_defined", "as_published"]
    assert [tuple(p.coordinates.values()) for p in points] == [(name, v) for name in names for v in variants]
    for own in points:
        assert own.settings["measure"]["variant"] == own.coordinates["variant"]
        assert own.settings["dataset"]["name"] == own.coordinates["dataset"]
        assert own.settings["seeds"] == [7, 8]


CAPS = ("resamples", "sizes", "copies", "copy_resamples", "copy_sizes")


@pytest.mark.parametrize(
    ("words", "caps", "seeds"),
    [
        (["profile=paper"], (100, None, 40, 100, 40), 5),
        (["profile=quick"], (50, 40, 12, 50, 40), 3),
        (["profile=embedded"], (20, 10, 3, 20, 40), 3),
        (["profile=smoke"], (4, 5, 2, 4, 40), 2),
        (["profile=quick", "measure.resamples=70"], (70, 40, 12, 50, 40), 3),
        (["profile=quick", "measure.sizes=60"], (50, 60, 12, 50, 40), 3),
        (["profile=quick", "measure.sizes=null"], (50, None, 12, 50, 40), 3),
        (["profile=quick", "measure.copies=30"], (50, 40, 30, 50, 40), 3),
        (["profile=quick", "measure.copy_resamples=80", "seeds=4"], (50, 40, 12, 80, 40), 4),
        (["profile=quick", "measure.resamples=9"], (9, 40, 12, 50, 40), 3),
    ],
)
def test_profiles_cap_what_was_not_given(words, caps, seeds):
    config = load(["experiment=sample_size_methods", *words])
    assert tuple(getattr(config.measure, name) for name in CAPS) == caps
    assert config.seeds == seeds
    # Tables are small: only tests cut them.
    assert config.dataset.max_size == (120 if words == ["profile=smoke"] else None)
    assert config.grid["variant"] == ["as_defined", "as_published"]


@pytest.mark.parametrize(
    ("words", "caps"), [(["profile=quick"], (50, 40, 12, 50, 40)), (["profile=embedded"], (20, 10, 3, 20, 40))]
)
def test_profiles_cap_the_experiment_on_a_table_of_ones_own_alike(words, caps):
    config = load(["experiment=sample_size", *words])
    assert tuple(getattr(config.measure, name) for name in CAPS) == caps
    assert (config.grid, config.measure.variant, config.measure.available) == ({}, "as_defined", 1)


@pytest.mark.parametrize("experiment", ["sample_size", "sample_size_methods", "sample_size_methods_boston"])
def test_images_are_refused(landscape, experiment):
    refused = landscape("run", f"experiment={experiment}", "dataset=mnist")
    refused.assert_refused(2, f"dataset: 'mnist' is a set of images; {experiment} takes tables")


def test_tables_are_refused_where_images_are_taken(landscape):
    refused = landscape("run", "experiment=fc_mnist", "dataset=boston")
    refused.assert_refused(2, "dataset: 'boston' is a table; fc_mnist takes images")


def test_all_five_run_without_a_file_and_say_what_stands_in(landscape, small, tmp_path):
    words = ("run", "experiment=sample_size_methods", *small, *LEAST)
    finished = landscape(*words)
    assert finished.code == 0, finished.err
    note = (
        "Diabetes (scikit-learn), a random 120 of 442 objects; Breast Cancer, a random 120 of 569 objects; "
        "in place of boston, diabetes, forest_fires, servo, nba; profile smoke."
    )
    assert note in finished.out
    tables = {path.stem: path for path in (tmp_path / "outputs").glob("tables/*/*.csv")}
    assert sorted(tables) == [
        "table_3_1_sample_size_datasets",
        "table_3_2_sample_size_methods",
        "table_3_3_hyperparameters",
    ]
    for path in tables.values():
        assert note in path.with_suffix(".md").read_text()
    sizes = pd.read_csv(tables["table_3_2_sample_size_methods"])
    assert sizes.groupby("dataset").size().to_dict() == {"Breast Cancer": 9, "Diabetes (scikit-learn)": 9}
    assert (sizes["available"] == 120).all()
    assert (sizes["thesis"] == "–").all()
    again = landscape(*words)
    assert "4 points: 4 stored, 0 to measure" in again.out


def test_one_data_set_gives_two_figures_a_table_and_verdicts(landscape, small, tmp_path):
    finished = landscape("run", "experiment=sample_size_methods_servo", *small, "measure.available=3", *LEAST)
    assert finished.code == 0, finished.err
    assert "in place of servo" in finished.out
    assert "m* of APVC does not depend on the available size" in finished.out
    written = {path.name for path in (tmp_path / "outputs").glob("*/smoke*/*")}
    for name in (
        "fig_3_2_statistics_servo.png",
        "fig_3_3_available_size_servo.png",
        "sample_size_methods_servo.csv",
        "claims_sample_size_methods_servo.csv",
    ):
        assert name in written
    claims = pd.read_csv(next((tmp_path / "outputs").glob("tables/*/claims_*.csv")))
    # Two sentences on each function of the classical methods that is no test's, one on each method's m*.
    assert len(claims) == 2 * 6 + 9


def test_the_published_variant_alone_is_drawn_and_judged(landscape, small, real_tables):
    words = ("dataset=servo", f"data.roots=[{real_tables}]", "grid.variant=[as_published]", *LEAST)
    finished = landscape("run", "experiment=sample_size_methods_servo", *small, *words)
    assert finished.code == 0, finished.err


@pytest.fixture(scope="session")
def real_tables() -> Path:
    """A folder with the thesis's tables, or a skip."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("LANDSCAPE_DATA") or beside).absolute()
    if not (root / "tabular" / "sample_size_paper").is_dir():
        pytest.skip(f"no real tables: {root} has no tabular/sample_size_paper")
    return root


def test_table_3_2_of_the_tests_comes_out_on_servo(landscape, small, real_tables, tmp_path):
    words = (f"data.roots=[{real_tables}]", "grid.dataset=[servo]", "dataset=servo", "profile.objects=null", *LEAST)
    finished = landscape("run", "experiment=sample_size_methods", *small, *words)
    assert finished.code == 0, finished.err
    (path,) = (tmp_path / "outputs").glob("tables/*/table_3_2*.csv")
    rows = pd.read_csv(path).set_index("method")
    assert (rows["available"] == 167).all()
    assert rows.loc[["Lagrange multipliers", "Likelihood ratio", "Wald"], "thesis"].tolist() == [38, 18, 76]
    published = rows.loc[["Lagrange multipliers", "Likelihood ratio", "Wald"], "as_published"].astype(int)
    assert published.tolist() == pytest.approx([38, 18, 76], rel=0.02)
