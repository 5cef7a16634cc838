"""From a statistic's curve to a sufficient sample size."""

import numpy as np
import pytest

from landscape_cli.samplesize.rules import (
    AS_DEFINED,
    AS_PUBLISHED,
    AT_LEAST,
    AT_MOST,
    METHODS,
    NEAR_LAST,
    Curve,
    sufficient,
)

SIZES = np.array([10, 15, 20, 25, 30])


def curve(method: str, values: list[float], threshold: float = 1.0) -> Curve:
    values = np.array(values, dtype=float)
    return Curve(method, SIZES, values, np.zeros(5), threshold, np.zeros(5))


def outcome(found) -> tuple:
    return found.size, found.first


NAMES = [name for name, method in METHODS.items() if method.rule in (AT_MOST, AT_LEAST)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("holds", "defined", "published"),
    [
        ("11111", (10, True), (10, True)),
        ("00000", (None, False), (None, False)),
        ("00011", (25, False), (25, False)),
        ("00001", (30, False), (30, False)),
        ("11011", (25, False), (10, True)),  # holds, fails, holds
        ("01101", (30, False), (15, False)),
        ("10111", (20, False), (10, True)),
        ("01111", (15, False), (15, False)),
        ("11110", (None, False), (10, True)),  # lost at the end: reached only as published
        ("00100", (None, False), (20, False)),
    ],
)
def test_first_size_from_which_the_rule_holds(name, holds, defined, published):
    # Values on the threshold itself hold, for both directions.
    beyond = {"1": 1.0, "0": 1.5 if METHODS[name].rule == AT_MOST else 0.5}
    given = curve(name, [beyond[held] for held in holds])
    assert outcome(sufficient(given)) == outcome(sufficient(given, AS_DEFINED)) == defined
    assert outcome(sufficient(given, AS_PUBLISHED)) == published
    for variant, expected in ((AS_DEFINED, defined), (AS_PUBLISHED, published)):
        assert sufficient(given, variant).reason == ("not reached" if expected[0] is None else "")


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("lagrange", False),
        ("likelihood_ratio", False),
        ("wald", False),
        ("cross_validation", True),
        ("bootstrap", True),
        ("apvc", True),
        ("acc", False),
        ("alc", True),
        ("d", True),
        ("m", True),
    ],
)
def test_which_side_of_the_threshold_is_enough(name, below):
    rising = curve(name, [0.1, 0.2, 0.3, 0.4, 0.5], threshold=0.35)
    falling = curve(name, [0.5, 0.4, 0.3, 0.2, 0.1], threshold=0.35)
    assert sufficient(rising).size == (None if below else 25)
    assert sufficient(falling).size == (20 if below else None)


@pytest.mark.parametrize(
    ("values", "defined", "published"),
    [
        ([1, 2, 5, 4, 3], (20, False), (20, False)),
        ([5, 4, 3, 2, 1], (10, True), (10, True)),
        ([1, 2, 3, 4, 5], (None, False), (30, False)),
        ([1, 5, 2, 5, 1], (15, False), (15, False)),  # the smaller of two
        ([-9, -5, -2, -3, -9], (20, False), (20, False)),
    ],
)
def test_size_of_the_largest_utility(values, defined, published):
    given = curve("utility", values, float("nan"))
    assert outcome(sufficient(given)) == defined
    assert outcome(sufficient(given, AS_PUBLISHED)) == published
    assert sufficient(given).reason == ("still rising at the last size" if defined[0] is None else "")


NEAR = [name for name, method in METHODS.items() if method.rule == NEAR_LAST]


@pytest.mark.parametrize("name", NEAR)
@pytest.mark.parametrize("variant", [AS_DEFINED, AS_PUBLISHED])
@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.01, 0.99, 1.04, 0.96, 1.0], (10, True)),  # near from the start
        ([1.75, 1.25, 1.0, 1.25, 1.0], (30, False)),  # near only at the last, though once before
        ([3.0, 2.5, 2.0, 1.5, 1.0], (30, False)),
        ([1.0, 1.0, 0.5, 1.0, 1.0], (25, False)),  # leaves below and comes back
        ([1.0, 1.5, 1.0, 1.0, 1.0], (20, False)),  # leaves above and comes back
        ([-2.0, -1.0, -1.04, -0.96, -1.0], (15, False)),  # a share of the size of a negative value
        ([104.0, 94.0, 106.0, 105.0, 100.0], (25, False)),  # a share, not a distance; on the threshold is near
    ],
)
def test_first_size_from_which_values_are_near_the_last(name, variant, values, found):
    assert outcome(sufficient(curve(name, values, 0.05), variant)) == found
    wide = sufficient(curve(name, values, 10.0), variant)
    assert outcome(wide) == (10, True)


def test_kl_and_s_are_near_their_last_value():
    assert NEAR == ["kl", "s"]


@pytest.mark.parametrize("name", [*NAMES, *NEAR])
def test_a_single_size(name):
    one = Curve(name, np.array([12]), np.array([1.0]), np.zeros(1), 1.0, np.zeros(1))
    assert outcome(sufficient(one)) == (12, True)
