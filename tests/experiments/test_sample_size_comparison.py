"""Table 3.6 and Fig 3.12: the published cells, medians over copies, verdicts, and points shared between experiments."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_sample_size_tables import BOTH, FIVE, cells, results

from experiments.chapter3 import comparison
from experiments.chapter3 import sample_size_tables as tables
from experiments.chapter3.comparison import SampleSizeComparison, _medians
from landscape_cli.composing import load
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED
from landscape_cli.plan import make_plan
from landscape_cli.plotting.style import style
from landscape_cli.samplesize.rules import CLASSICAL, COMPARED, METHODS

FOUR = {name: size for name, size in FIVE.items() if name != "nba"}
TITLES = {"boston": "Boston", "diabetes": "Diabetes", "forest_fires": "Forest Fires", "servo": "Servo"}
PUBLISHED = {(column, row): value for row, column, value in cells("3.6")}


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(*words, name="sample_size_comparison_boston"):
    return SampleSizeComparison(load([f"experiment={name}", *words]))


def test_the_methods_are_nine_and_two_and_four():
    assert len(CLASSICAL) == 9
    assert (*CLASSICAL, "kl", "s") == COMPARED
    assert [*CLASSICAL, "d", "m", "kl", "s"] == list(METHODS)


def test_table_3_6_has_eleven_methods_and_every_published_cell():
    # KL, as defined, is within 5 % of its last value from 180/1.05 on; S from the first size on.
    given = {"kl": lambda m: 1 / m, "s": lambda m: 1 - 1e-4 / m}
    own = results(FOUR, curves=given)
    own.frames["curves"].loc[own.frames["curves"]["method"].isin(["kl", "s"]), "threshold"] = 0.05
    datasets, shown = experiment(name="posterior_table").tables(own)
    assert (datasets.name, shown.name) == ("table_3_5_posterior_datasets", "table_3_6_posterior_table")
    frame = shown.frame
    assert len(frame) == 4 * 11
    names = {METHODS[method].title: tables.ROWS[method] for method in COMPARED}
    for place, dataset in enumerate(FOUR):
        group = frame.iloc[11 * place : 11 * place + 11]
        assert group["method"].tolist() == list(names)
        for row in group.itertuples():
            value = PUBLISHED[TITLES[dataset], names[row.method]]
            beyond = value == str(FOUR[dataset] - 1)
            assert row.thesis == (f"{value} (m - 1: not reached)" if beyond else value)
        last = group.set_index("method")
        assert last.loc["KL-sufficiency", "as_defined"] == "180"  # of sizes in steps of 20
        assert last.loc["S-sufficiency", "as_defined"] == "≤ 20"
    assert shown.caption.endswith(comparison.LAW)
    # Table 3.5 beside the files.
    known = {(row, column): value for row, column, value in cells("3.5")}
    found = datasets.frame.set_index("dataset")[["published_features", "published_objects"]]
    for row in found.itertuples():
        assert (row.published_features, row.published_objects) == (
            known[row.Index, "features"],
            known[row.Index, "objects"],
        )


def test_rows_of_table_3_6_are_judged():
    m_star = {"kl": [493] * 3, "s": [28] * 3}
    own = results(
        {"boston": 506}, m_star=m_star, variants=BOTH[1:], curves={"kl": lambda m: 1 / m, "s": lambda m: 0 * m}
    )
    found = {verdict.claim: verdict for verdict in experiment(name="posterior_table").claims(own)}
    assert list(found) == [f"Table 3.6, row {tables.ROWS[name]}" for name in COMPARED]
    for row in ("KL", "S"):
        assert (found[f"Table 3.6, row {row}"].verdict, found[f"Table 3.6, row {row}"].source) == (
            REPRODUCED,
            "Table 3.6",
        )
    assert found["Table 3.6, row Bootstrap"].verdict == NOT_REPRODUCED  # 113, and the seeds have 60


COPIES = {name: {120: [50, 60, 70, 80], 180: [60, 70, 80, 90]} for name in METHODS}


def copies(kl=None, s=None, **more):
    first, last = [110, 114, 115, 116], [170, 171, 172, 173]
    own = COPIES | {"kl": kl or {120: first, 180: last}, "s": s or {120: [20] * 4, 180: [20] * 4}}
    return results(copies=own | more, variants=BOTH[:1])


def test_medians_are_over_copies_and_missing_where_half_do_not_reach_it():
    given = {
        "apvc": {120: [50, None, None, None], 180: [60, 70, None, None]},
        "wald": {120: [None] * 4, 180: [9, 1, 5, 3]},
    }
    shown = _medians(copies(**given))
    assert list(shown) == [METHODS[name].title for name in COMPARED]
    assert shown.index.tolist() == [120, 180]
    np.testing.assert_array_equal(shown["APVC"], [np.nan, 70])
    np.testing.assert_array_equal(shown["Wald"], [np.nan, 3])
    np.testing.assert_array_equal(shown["KL-sufficiency"], [114, 171])
    np.testing.assert_array_equal(shown["ACC"], [60, 70])
    (table,) = experiment().tables(copies(**given))
    pd.testing.assert_frame_equal(table.frame, shown.reset_index())


@pytest.mark.parametrize(
    ("given", "largest", "smallest"),
    [
        ({}, 1, 1),
        ({"kl": {120: [55] * 4, 180: [170] * 4}}, 0.5, 1),
        ({"kl": {120: [None] * 4, 180: [None] * 4}}, 0, 1),
        ({"s": {120: [20] * 4, 180: [21, 25, 30, 40]}}, 1, 0.5),
        ({"s": {120: [None] * 4, 180: [None] * 4}}, 1, 0),
        ({"apvc": {120: [None] * 4, 180: [None] * 4}}, 1, 1),  # beyond, and not among those that are reached
    ],
)
def test_what_fig_3_12_says_is_judged_at_each_available_size(given, largest, smallest):
    kl, s = experiment().claims(copies(**given))
    assert (kl.effect, s.effect) == (largest, smallest)
    for verdict in (kl, s):
        assert verdict.verdict == (REPRODUCED if verdict.effect == 1 else NOT_REPRODUCED)
    assert "the first one looked at, 20" in s.statistic


@pytest.mark.parametrize("given", [{}, {"apvc": {120: [None] * 4, 180: [None] * 4}}])
def test_fig_3_12_shows_the_medians(given):
    own = copies(**given)
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        (figure,) = experiment().figures(own)
        figure.drawing.draw_without_rendering()
    assert figure.name == "fig_3_12_sample_size_comparison_boston"
    lines = [
        line for line in figure.drawing.axes[0].lines if line.get_linestyle() != "None" and len(line.get_xdata()) == 2
    ]
    medians = _medians(own)
    for line, column in zip(lines, medians, strict=False):
        expected = medians[column].to_numpy()
        shown = np.where(np.isnan(expected), [120, 180], expected)  # at least what is available
        np.testing.assert_array_equal(line.get_ydata(), shown)


LEAST = (
    *("profile=smoke", "plot.formats=[png]", "plot.dpi=50", "data.download=false", "dataset=sklearn_diabetes"),
    *("measure.sizes=3", "measure.resamples=2", "measure.copy_resamples=2", "measure.copy_sizes=3", "seeds=1"),
)


def test_points_are_shared_by_all_that_look_at_the_same_methods(landscape):
    alone = ("measure.available_sizes=[]", "measure.available=1")
    one = ("grid.dataset=[sklearn_diabetes]", "grid.variant=[as_defined]")
    first = landscape("run", "experiment=sample_size_methods", *one, *LEAST, *alone)
    assert first.code == 0, first.err
    assert "1 points: 0 stored, 1 to measure" in first.out
    for name in ("sample_size_comparison_boston", "sample_size"):
        finished = landscape("run", f"experiment={name}", *LEAST, *alone)
        assert finished.code == 0, finished.err
        assert "1 points: 1 stored, 0 to measure" in finished.out
    keys = [
        {point.key for point in make_plan(load(["experiment=sample_size", *LEAST, *alone, *more])).located}
        for more in ((), ("measure.part=0.4",))
    ]
    assert len(keys[0] | keys[1]) == 2


def test_available_sizes_are_those_asked_for(landscape, tmp_path):
    words = ("run", "experiment=sample_size_comparison_boston", *LEAST)
    # Twice the eleven parameters and one more, to the 120 objects of the smoke profile.
    for sizes in ("[22,60]", "[121]"):
        refused = landscape(*words, f"measure.available_sizes={sizes}")
        refused.assert_refused(2, f"measure.available_sizes: {sizes.replace(',', ', ')}; allowed: 23 to 120")
    finished = landscape(*words, "measure.available_sizes=[120,23,60,60,400]")  # 400 are not there to be looked at
    assert finished.code == 0, finished.err
    (path,) = (tmp_path / "outputs" / "results").glob("SampleSizeMethods/*/copies.parquet")
    copies = pd.read_parquet(path)
    assert copies["available"].unique().tolist() == [23, 60, 120]
    assert set(copies["method"]) == set(METHODS)
    (path,) = (tmp_path / "outputs").glob("tables/*/sample_size_comparison_boston.csv")
    assert pd.read_csv(path)["available"].tolist() == [23, 60, 120]
