import math

import numpy as np
import pytest
from scipy import stats

from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED
from landscape_cli.statistics import Interval, equivalence_verdict, log_log_slope, mean_interval, sign_verdict, turning


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_interval_is_scipys(n, level):
    values = np.random.default_rng(n).normal(3, 2, n)
    low, high = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    found = mean_interval(values, level)
    np.testing.assert_allclose([found.mean, found.low, found.high], [values.mean(), low, high], rtol=1e-10)


def test_interval_is_of_95_percent_unless_told():
    low, high = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem([1, 2, 3, 4]))
    found = mean_interval([1, 2, 3, 4])
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-12)


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(1, 3, (4000, 5))
    covered = sum(found.low <= 1 <= found.high for found in map(mean_interval, draws))
    assert stats.binomtest(covered, 4000, 0.95).pvalue > 1e-3


def test_interval_of_one_value_is_infinite():
    assert mean_interval([2.5]) == Interval(2.5, -math.inf, math.inf)


def test_interval_of_nothing_is_not_a_number():
    found = mean_interval([])
    assert math.isnan(found.mean)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(
    ("low", "high", "positive"),
    [
        (0.1, 0.2, REPRODUCED),
        (-0.2, -0.1, NOT_REPRODUCED),
        (-0.1, 0.1, INCONCLUSIVE),
        (0.0, 0.1, INCONCLUSIVE),
        (-0.1, 0.0, INCONCLUSIVE),
        (0.0, 0.0, INCONCLUSIVE),
        (-math.inf, math.inf, INCONCLUSIVE),
        (math.nan, math.nan, INCONCLUSIVE),
    ],
)
def test_sign_verdict(low, high, positive):
    opposite = {REPRODUCED: NOT_REPRODUCED, NOT_REPRODUCED: REPRODUCED, INCONCLUSIVE: INCONCLUSIVE}
    interval = Interval((low + high) / 2, low, high)
    assert sign_verdict(interval, 1) == positive
    assert sign_verdict(interval, -1) == opposite[positive]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.02, -0.97, REPRODUCED),
        (-1.05, -0.95, REPRODUCED),
        (-1.051, -0.97, INCONCLUSIVE),
        (-1.02, -0.949, INCONCLUSIVE),
        (-2.0, 0.0, INCONCLUSIVE),
        (-0.95, -0.9, INCONCLUSIVE),
        (-1.2, -1.05, INCONCLUSIVE),
        (-0.949, -0.9, NOT_REPRODUCED),
        (-1.2, -1.051, NOT_REPRODUCED),
        (-math.inf, math.inf, INCONCLUSIVE),
        (math.nan, math.nan, INCONCLUSIVE),
    ],
)
def test_equivalence_verdict(low, high, expected):
    assert equivalence_verdict(Interval((low + high) / 2, low, high), -1.05, -0.95) == expected


def test_slope_of_a_power_law_is_its_exponent():
    x = [4, 8, 16, 32, 64]
    exponents = np.array([[-1.0, 0.0], [0.5, 2.25]])
    y = 7 * np.array(x, dtype=float) ** exponents[..., None]
    np.testing.assert_allclose(log_log_slope(x, y), exponents, atol=1e-12)


def test_slope_is_polyfits():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.1, 100, 20), rng.lognormal(size=(3, 20))
    expected = [np.polyfit(np.log(x), np.log(row), 1)[0] for row in y]
    np.testing.assert_allclose(log_log_slope(x, y), expected, rtol=1e-10)
    np.testing.assert_allclose(log_log_slope(x, y[0]), expected[0], rtol=1e-10)


def groups(*means, spread=0.02, size=5):
    random = np.random.default_rng(1)
    return [mean + random.normal(0, spread, size) for mean in means]


@pytest.mark.parametrize(
    ("means", "sign"),
    [((0, 1, 2), -1), ((2, 1, 0), -1), ((0, 1, 0.5), 1), ((1, 0, 0.7, 2), 1), ((0, 0, 0), 0), ((0, 1, 1), 0)],
)
def test_turning_tells_monotone_from_not(means, sign):
    found = turning(groups(*means))
    assert found.low <= found.mean <= found.high
    assert {1: found.low > 0, -1: found.high < 0, 0: found.low < 0 < found.high}[sign]


def test_turning_is_the_smaller_of_rise_and_fall():
    exact = [np.array([v - 1, v + 1]) for v in (0.0, 3.0, 1.0, 2.0)]
    assert turning(exact).mean == 2  # rise 3, fall 2
    assert turning([np.array([v - 1, v + 1]) for v in (0.0, 3.0, 4.5)]).mean == -1.5  # minus the smallest step
    assert turning([-group for group in exact]).mean == 2


def test_turning_of_three_places_is_tukeys_interval():
    values = groups(0, 1, 0.4, size=6)
    pairs = stats.tukey_hsd(*values).confidence_interval(0.95)
    found = turning(values)
    # The rise from 0 to 1 is far larger than the fall from 1 to 2, and so are its bounds.
    assert (found.low, found.high) == pytest.approx((pairs.low[1, 2], pairs.high[1, 2]), rel=1e-9)


def test_turning_covers_a_flat_sequence():
    random = np.random.default_rng(3)
    for _ in range(6):
        found = turning(list(random.normal(0, 1, (6, 5))))
        assert found.low < 0 < found.mean  # noise turns, and is not taken for a turn


def test_turning_of_one_seed_is_open():
    found = turning([np.array([v]) for v in (0.0, 1.0, 0.5)])
    assert (found.mean, found.low, found.high) == (0.5, -math.inf, math.inf)
