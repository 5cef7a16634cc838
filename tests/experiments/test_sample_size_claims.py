"""The sentences on the nine methods and the rows of Table 3.2, judged on frames built by hand."""

import math

import numpy as np
import pytest
from test_sample_size_tables import BOTH, FIVE, SIZES, cells, results

from experiments.chapter3 import sample_size_tables
from experiments.chapter3.sample_size_claims import rows, sentences
from landscape_cli.draw import summary
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Verdict
from landscape_cli.samplesize.rules import CLASSICAL, METHODS

TESTS = ("lagrange", "likelihood_ratio", "wald")
MONOTONE = "Wine: the function of APVC is monotone in the sample size"
LEVELLING = "Wine: the function of APVC tends to a constant"
INDEPENDENT = "Wine: m* of APVC does not depend on the available size in the limit"


def judged(**options) -> dict:
    found = list(sentences(results(**{"variants": BOTH[:1]} | options)))
    assert {verdict.source for verdict in found} == {"thesis 3.6.1"}
    assert len({verdict.claim for verdict in found}) == len(found)
    return {verdict.claim: verdict for verdict in found}


def falling(m):
    return 1 / m


def line(m):
    return -m


def hill(m):
    return -np.abs(m - 100)


def dented(depth):
    """Falls by 1 a size, but rises by `depth` once."""
    return lambda m: -np.cumsum(np.where(m == 100, -depth, 1.0))


@pytest.mark.parametrize(
    ("curve", "verdict", "effect"),
    [
        (line, REPRODUCED, -1 / 8),  # eight equal steps
        (lambda m: m, REPRODUCED, -1 / 8),
        (hill, NOT_REPRODUCED, 1),
        (dented(2), NOT_REPRODUCED, 2 / 5),  # -1, -2, -3, -4, -2, -3, -4, -5, -6
        ([line, line, hill], INCONCLUSIVE, (1 - 2 / 8) / 3),
        (lambda m: 0 * m, INCONCLUSIVE, 0),
    ],
)
def test_monotone_is_judged_by_the_smaller_of_largest_rise_and_fall(curve, verdict, effect):
    found = judged(curves={"apvc": curve})[MONOTONE]
    assert found.verdict == verdict
    assert found.effect == pytest.approx(effect)
    assert found.low <= found.effect <= found.high
    assert found.note == "at 9 sizes"


def test_seeds_are_judged_one_by_one_and_not_by_their_mean():
    # Each turns, and their mean is a line.
    found = judged(curves={"apvc": [lambda m: -m + 30 * np.sin(m), lambda m: -m - 30 * np.sin(m)]}, seeds=2)
    assert found[MONOTONE].effect > 0


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (falling, REPRODUCED),
        (lambda m: m**2, NOT_REPRODUCED),
        (lambda m: (m - 20) // 160, NOT_REPRODUCED),  # all of it in the last step
        (line, INCONCLUSIVE),
        ([falling, lambda m: m**2, line], INCONCLUSIVE),
    ],
)
def test_tending_to_a_constant_is_judged_by_the_last_quarter(curve, verdict):
    found = judged(curves={"apvc": curve})[LEVELLING]
    assert found.verdict == verdict
    if callable(curve):
        steps = np.abs(np.diff(curve(SIZES * 1.0)))
        assert found.effect == pytest.approx(steps[-2:].sum() / steps.sum() - 0.25)
        assert found.low == pytest.approx(found.high)


@pytest.mark.parametrize("last", [120, 181, 506])
def test_a_straight_line_does_not_level_wherever_its_sizes_are(last):
    sizes = np.unique([*range(20, last, 10), last])
    found = judged(curves={"apvc": line}, sizes=sizes)[LEVELLING]
    assert found.effect == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("claim", [MONOTONE, LEVELLING])
def test_one_seed_decides_nothing(claim):
    found = judged(curves={"apvc": falling}, seeds=1)[claim]
    assert (found.verdict, found.low, found.high) == (INCONCLUSIVE, -math.inf, math.inf)


def test_two_sizes_say_nothing_of_a_curve():
    assert set(judged(sizes=np.array([20, 180]))) == {
        f"Wine: m* of {METHODS[name].title} does not depend on the available size in the limit" for name in CLASSICAL
    }


def test_each_method_has_its_own_sentences():
    found = judged()
    titles = {name: METHODS[name].title for name in CLASSICAL}
    expected = [f"Wine: m* of {title} does not depend on the available size in the limit" for title in titles.values()]
    for name, title in titles.items():
        if name not in TESTS:
            expected += [
                f"Wine: the function of {title} {text}"
                for text in ("is monotone in the sample size", "tends to a constant")
            ]
    assert sorted(found) == sorted(expected)
    # Of the usual curves all fall or rise but the utility.
    turning = [claim for claim, verdict in found.items() if verdict.verdict == NOT_REPRODUCED]
    assert "Wine: the function of Utility is monotone in the sample size" in turning


def test_as_published_is_not_judged():
    own = results(curves={"apvc": hill})
    frame = own.frames["curves"]
    frame.loc[frame["variant"] == "as_published", "value"] = -frame["size"].astype(float)
    found = {verdict.claim: verdict for verdict in sentences(own)}
    assert found == judged(curves={"apvc": hill})
    assert found[MONOTONE].verdict == NOT_REPRODUCED


def copies(first, last, spread=1.01, number=40) -> dict:
    """m* about two values, by a factor more or less."""
    return {
        "apvc": {
            120: [first * spread, first / spread] * (number // 2),
            180: [last * spread, last / spread] * (number // 2),
        }
    }


@pytest.mark.parametrize(
    ("first", "last", "spread", "verdict"),
    [
        (60, 60, 1.01, REPRODUCED),
        (60, 64, 1.01, REPRODUCED),
        (60, 56, 1.01, REPRODUCED),
        (60, 72, 1.01, NOT_REPRODUCED),
        (60, 50, 1.01, NOT_REPRODUCED),
        (60, 60, 1.5, INCONCLUSIVE),
        (60, 66, 1.05, INCONCLUSIVE),  # just at the limit
    ],
)
def test_independence_of_the_available_size_is_judged_by_the_last_two(first, last, spread, verdict):
    given = copies(first, last, spread)
    given["apvc"][60] = [5] * 40  # not looked at
    found = judged(copies=given)[INDEPENDENT]
    assert found.verdict == verdict
    assert found.effect == pytest.approx(math.log(last / first))
    half = 1.96 * math.sqrt(2 * math.log(spread) ** 2 * 40 / 39 / 40)
    # Student's t with some 78 degrees of freedom, or the normal distribution.
    assert found.high - found.effect == pytest.approx(half, rel=0.03)
    assert found.effect - found.low == pytest.approx(half, rel=0.03)
    assert found.statistic == "log of m* from 180 objects over m* from 120; to lie in ±10%"


def test_two_copies_say_less_than_many():
    """Of the smoke profile; Student's t with at most two degrees of freedom."""
    found = judged(copies=copies(60, 66, 1.02, 2))[INDEPENDENT]
    half = found.high - found.effect
    assert half >= 4.3 * math.sqrt(2 * (2 * math.log(1.02) ** 2) / 2)


@pytest.mark.parametrize(("less", "most"), [(1, 0), (0, 3), (2, 40)])
def test_copies_that_do_not_reach_it_leave_it_open_and_are_counted(less, most):
    given = {"apvc": {120: [None] * less + [60] * (40 - less), 180: [None] * most + [60] * (40 - most)}}
    found = judged(copies=given)[INDEPENDENT]
    assert found.verdict == INCONCLUSIVE
    assert found.note == f"not reached by {less} and {most} of 40 copies"
    assert all(math.isnan(value) for value in (found.effect, found.low, found.high))


def test_one_available_size_says_nothing_of_the_others():
    assert INDEPENDENT not in judged(copies={"apvc": {180: [60] * 40}})


PUBLISHED = {(row, column): value for row, column, value in cells("3.2")}
TITLES = {
    "boston": "Boston Housing",
    "diabetes": "Diabetes",
    "forest_fires": "Forest Fires",
    "servo": "Servo",
    "nba": "NBA",
}


def rows_of(m_star, names=("boston",), **options) -> dict:
    """Verdicts by method; sizes in steps of 20."""
    own = results({name: FIVE[name] for name in names}, m_star=m_star, variants=BOTH[1:], **options)
    found = list(rows(own))
    assert [verdict.claim for verdict in found] == [
        f"Table 3.2, row {sample_size_tables.ROWS[name]}" for name in CLASSICAL
    ]
    for verdict in found:
        assert verdict.published == len(names)
        assert verdict.low == verdict.effect == verdict.high
        assert (verdict.verdict == REPRODUCED) == (verdict.effect == len(names)) == (verdict.note == "")
        assert verdict.verdict in (REPRODUCED, NOT_REPRODUCED)
    return dict(zip(CLASSICAL, found, strict=True))


@pytest.mark.parametrize(
    ("name", "method", "seeds", "agrees"),
    [
        # Published 66: within 2 %.
        ("boston", "wald", [66] * 3, True),
        ("boston", "wald", [67] * 3, True),
        ("boston", "wald", [65] * 3, True),
        ("boston", "wald", [68] * 3, False),
        ("boston", "wald", [64] * 3, False),
        # 218: within 4.
        ("nba", "lagrange", [222] * 3, True),
        ("nba", "lagrange", [223] * 3, False),
        # 113: a step, 20, beside what the seeds have.
        ("boston", "bootstrap", [120, 140, 160], True),
        ("boston", "bootstrap", [60, 80, 93], True),
        ("boston", "bootstrap", [133, 140, 160], True),
        ("boston", "bootstrap", [60, 160, 100], True),
        ("boston", "bootstrap", [134, 140, 160], False),
        ("boston", "bootstrap", [60, 80, 92], False),
        ("boston", "bootstrap", [None] * 3, False),
        ("boston", "utility", [148] * 3, True),
        ("boston", "utility", [169] * 3, False),
        # A dash.
        ("nba", "cross_validation", [None] * 3, True),
        ("nba", "cross_validation", [100, 120, None], True),
        ("nba", "cross_validation", [100, 120, 140], False),
        ("nba", "alc", [100, 120, 140], False),
        # m - 1 of 442 and of 517, where it is not reached either.
        ("diabetes", "acc", [None] * 3, True),
        ("diabetes", "acc", [441] * 3, False),
        ("forest_fires", "alc", [500, None, 500], True),
        ("forest_fires", "alc", [516] * 3, False),
    ],
)
def test_a_cell_agrees_within_what_seeds_and_grid_leave_open(name, method, seeds, agrees):
    own = results({name: FIVE[name]}, m_star={method: seeds}, variants=BOTH[1:], methods=sorted({method, "apvc"}))
    (found,) = rows(own, methods=(method,))
    assert (found.verdict == REPRODUCED) == agrees
    if not agrees:
        published = PUBLISHED[sample_size_tables.ROWS[method], TITLES[name]].replace("-", "–")
        assert found.note.endswith(f", thesis {published}")


def test_a_row_counts_its_cells_and_names_those_apart():
    found = rows_of({"wald": [66] * 3}, ["boston", "servo", "nba"])["wald"]
    assert (found.verdict, found.effect) == (NOT_REPRODUCED, 1)
    assert found.note == "Servo 66, thesis 76; NBA 66, thesis 200"
    assert found.statistic == "cells that come out as published, of 3"


def test_what_is_apart_and_not_reached_has_no_number():
    found = rows_of({"bootstrap": [None] * 3}, curves={"bootstrap": lambda m: 3 + 0 * m})["bootstrap"]
    assert found.note == "Boston Housing not reached, thesis 113"


def test_rows_are_judged_by_what_was_published_only():
    own = results({"boston": 506, "wine": 178})
    frame = own.frames["sizes"]
    frame.loc[frame["variant"] == "as_defined", "m_star"] = 66
    assert [verdict.effect for verdict in rows(own)][2] == 0
    frame.loc[(frame["variant"] == "as_published") & (frame["dataset"] == "boston"), "m_star"] = 66
    assert [verdict.effect for verdict in rows(own)][2] == 1


def test_tables_that_the_thesis_does_not_have_give_no_rows():
    assert list(rows(results({"wine": 178, "breast_cancer": 569}))) == []


def test_a_verdict_without_a_value_says_so_instead_of_nan():
    nothing = Verdict("a claim", "", "a statistic", INCONCLUSIVE, np.nan, np.nan, np.nan, note="not reached")
    assert summary(nothing) == "inconclusive: a claim - a statistic: no value (not reached)"
