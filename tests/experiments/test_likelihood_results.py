"""Figures, tables and claims of D- and M-sufficiency on curves that are known."""

import csv
import itertools
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.chapter3 import likelihood_tables as tables
from experiments.chapter3.likelihood_claims import _agrees, rows, sentences
from experiments.chapter3.likelihood_figures import functions, thresholds
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Point, Results
from landscape_cli.plotting.style import style
from landscape_cli.samplesize.rules import settled_from

BOTH = ("as_defined", "as_published")
SIZES = (10, 20, 30, 40)
REFERENCE = Path(tables.__file__).parents[1] / "reference" / "thesis_tables.csv"


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


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
    assert settled_from(np.array([10, 20, 30, 40]), np.array(values) <= 2.0) == size


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
    assert tables.half(tables.own(own.frames["curves"], "wine", "as_published"), "M") == (30, [30, 30])
    assert tables.half(tables.own(own.frames["curves"], "wine", "as_defined"), "M") == (None, [None, None])


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
