"""Designs: what standardising gives and refuses, and which classes a plane separates."""

import re

import numpy as np
import pytest

from landscape_cli.errors import BadInput
from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION, Design, separable, standardised


def table(m: int = 40, n: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of unlike scale, a target and classes."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(m, n)) * 10.0 ** np.arange(n) + 7
    return X, random.normal(size=m) * 3 + 100, (np.arange(m) % 3 == 0).astype(float)


def on_a_line(x: list[float] | np.ndarray, y: list[int] | np.ndarray) -> Design:
    """One feature and the constant, as they are."""
    x = np.asarray(x, dtype=float)
    return Design(np.column_stack([x, np.ones(len(x))]), np.asarray(y, float), CLASSIFICATION, np.arange(len(x)))


@pytest.mark.parametrize("task", [REGRESSION, CLASSIFICATION])
def test_features_have_mean_zero_and_deviation_one_and_the_constant_is_last(task):
    X, target, classes = table()
    design = standardised(X, target if task == REGRESSION else classes, task)
    assert (design.size, design.features, design.linear) == (40, 5, task == REGRESSION)
    np.testing.assert_allclose(design.X[:, :-1].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.mean(design.X[:, :-1] ** 2, axis=0), 1, rtol=1e-12)
    np.testing.assert_array_equal(design.X[:, -1], 1)
    np.testing.assert_allclose(np.corrcoef(design.X[:, :-1].T, X.T)[:4, 4:].diagonal(), 1)  # each its own column
    np.testing.assert_array_equal(design.objects, np.arange(40))
    if task == CLASSIFICATION:
        np.testing.assert_array_equal(design.y, classes)
    else:
        np.testing.assert_allclose([design.y.mean(), design.y.std()], [0, 1], atol=1e-12)


def test_weighted_gram_matrices_and_products(drawn):
    design = drawn(CLASSIFICATION, 30, 4)
    weights = np.random.default_rng(1).uniform(0, 3, size=(5, 30))
    np.testing.assert_allclose(design.gram(weights), np.einsum("ki,ia,ib->kab", weights, design.X, design.X))
    np.testing.assert_array_equal(design.signed[design.y == 0], -design.X[design.y == 0])
    np.testing.assert_array_equal(design.signed[design.y == 1], design.X[design.y == 1])


def test_repeated_rows_keep_their_values_and_numbers(drawn):
    design = drawn(REGRESSION, 30, 4)
    rows = np.array([3, 3, 0, 29])
    taken = design.take(rows)
    np.testing.assert_array_equal(taken.X, design.X[rows])  # not standardised again
    np.testing.assert_array_equal(taken.y, design.y[rows])
    np.testing.assert_array_equal(taken.take(np.array([1, 2])).objects, [3, 0])


class TestRefused:
    def refusal(self, X, y, task=REGRESSION, names=("a", "b", "c", "d")) -> str:
        with pytest.raises(BadInput) as raised:
            standardised(X, y, task, names)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def test_constant_column(self):
        X, y, _ = table()
        X[:, 2] = 4
        assert "'c' is constant" in self.refusal(X, y)
        assert "number 2" in self.refusal(X, y, names=())

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_collinear_columns_are_named_with_those_they_depend_on(self, scale):
        X, y, _ = table()
        X[:, 3] = scale * (X[:, 0] - 2 * X[:, 1] + 5)  # the constant may take part
        message = self.refusal(X, y)
        assert set(re.findall(r"'(\w)'", message)) == {"a", "b", "d"}
        advised = re.search(r"dataset\.drop=\[(\w)\]", message).group(1)
        kept = [j for j, name in enumerate("abcd") if name != advised]
        assert standardised(X[:, kept], y, REGRESSION).features == 4  # following the advice helps

    def test_copied_column(self):
        X, y, _ = table()
        X[:, 1] = -3 * X[:, 2] + 1
        assert set(re.findall(r"'(\w)'", self.refusal(X, y))) == {"b", "c"}

    def test_nearly_collinear_columns_are_allowed(self):
        X, y, _ = table()
        X[:, 3] = X[:, 0] + 1e-5 * np.random.default_rng(1).normal(size=40)
        assert standardised(X, y, REGRESSION).features == 5

    @pytest.mark.parametrize(("m", "fits"), [(9, False), (10, False), (11, True)])
    def test_fewer_objects_than_twice_the_parameters(self, m, fits):
        X, y, _ = table(m)
        if fits:
            assert standardised(X, y, REGRESSION).size == m
        else:
            message = self.refusal(X, y)
            assert f"{m} objects" in message
            assert "more than 10" in message

    @pytest.mark.parametrize("rare", [0.0, 1.0])
    def test_class_of_one_object(self, rare):
        X, _, _ = table()
        y = np.full(40, 1 - rare)
        y[17] = rare
        assert f"class {rare:g} has one object" in self.refusal(X, y, CLASSIFICATION)
        y[18] = rare
        assert standardised(X, y, CLASSIFICATION).size == 40

    @pytest.mark.parametrize("values", [(0, 1, 2), (1,), (1, 2)])
    def test_other_classes_than_zero_and_one(self, values):
        X, _, _ = table()
        message = self.refusal(X, np.resize(values, 40), CLASSIFICATION)
        assert f"{len(values)} classes" in message

    def test_constant_target(self):
        X, _, _ = table()
        assert "it is 2.5 for every object" in self.refusal(X, np.full(40, 2.5))


class TestSeparable:
    @pytest.mark.parametrize(
        ("x", "y", "expected"),
        [
            ([1, 2, 3, 4], [0, 0, 1, 1], True),
            ([4, 3, 2, 1], [0, 0, 1, 1], True),
            ([1, 2, 2, 4], [0, 0, 1, 1], True),  # a tie on the plane
            ([2, 2, 2, 4], [0, 1, 0, 1], True),  # all but one in the plane
            ([1, 3, 2, 4], [0, 0, 1, 1], False),
            ([1, 2, 2, 3], [0, 1, 0, 0], False),
            ([2, 2, 2, 2], [0, 1, 0, 1], False),  # no plane tells anything
        ],
    )
    def test_by_hand(self, x, y, expected):
        assert separable(on_a_line(x, y)) is expected

    def test_on_a_line_the_classes_ranges_decide(self):
        random = np.random.default_rng(0)
        seen = []
        for _ in range(60):
            x, y = random.integers(0, 8, 6), np.arange(6) % 2
            if np.ptp(x) == 0:
                continue
            one, other = x[y == 0], x[y == 1]
            expected = one.max() <= other.min() or other.max() <= one.min()
            assert separable(on_a_line(x, y)) == expected, (x, y)
            seen.append(expected)
        assert 5 < sum(seen) < len(seen) - 5  # both happen

    def test_planes_in_more_dimensions(self, apart, drawn):
        assert separable(apart)
        assert not separable(drawn(CLASSIFICATION, 120, 4))
        # A feature that is 0 but for some objects of one class: no maximum, though the rest overlaps.
        overlapping = drawn(CLASSIFICATION, 120, 4)
        rare = ((np.arange(120) < 12) & (overlapping.y == 1)).astype(float)[:, None]
        quasi = Design(np.hstack([rare, overlapping.X]), overlapping.y, CLASSIFICATION, overlapping.objects)
        assert separable(quasi)

    def test_a_regression_is_not(self, drawn):
        assert not separable(drawn(REGRESSION, 30, 4))
