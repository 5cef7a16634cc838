"""Resamples: what is in them, how often, and what their halves share."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom

from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION, Design
from landscape_cli.samplesize.resamples import Bootstrap, PublishedResamples, Subsamples, bootstrap_copy, size_grid

KINDS = [Subsamples, Bootstrap, PublishedResamples]


def generator(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def close(values: np.ndarray, expected: float, errors: float = 4.5) -> None:
    """Check a mean of independent values within its standard errors."""
    assert np.mean(values) == pytest.approx(expected, abs=errors * np.std(values, ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [REGRESSION, CLASSIFICATION])
def test_counts_add_up_to_the_size(drawn, kind, task):
    design = drawn(task, 50, 4)
    source = kind(design, 30, generator())
    for size in (10, 15, 33, 50):
        weights = source.weights(size)
        assert weights.shape == (30, 50)
        np.testing.assert_array_equal(weights.sum(axis=1), size)
        np.testing.assert_array_equal(weights, np.round(weights))
        train, test = source.halves(size)
        np.testing.assert_array_equal(train.sum(axis=1), size - size // 2)
        np.testing.assert_array_equal(test.sum(axis=1), size // 2)
        assert weights.min() >= 0 <= min(train.min(), test.min())
        if kind is not PublishedResamples:
            np.testing.assert_array_equal(train + test, weights)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_determines_them_and_sizes_do_not_depend_on_what_was_asked_before(drawn, kind):
    design = drawn(CLASSIFICATION, 50, 4)
    one, other, different = (kind(design, 20, generator(seed)) for seed in (1, 1, 2))
    first = one.weights(20)
    one.halves(30)
    np.testing.assert_array_equal(one.weights(20), first)
    np.testing.assert_array_equal(other.weights(20), first)
    assert (different.weights(20) != first).any()
    for a, b, c in zip(one.halves(20), other.halves(20), different.halves(20), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    assert len(np.unique(first, axis=0)) > 15  # the resamples are not copies of each other


@pytest.mark.parametrize("kind", [Subsamples, Bootstrap])
def test_smaller_ones_are_inside_larger_ones(drawn, kind):
    source = kind(drawn(REGRESSION, 40, 4), 25, generator())
    sizes = (8, 9, 17, 32, 40)
    for smaller, larger in pairwise(sizes):
        assert (source.weights(smaller) <= source.weights(larger)).all()
        for small_half, large_half in zip(source.halves(smaller), source.halves(larger), strict=True):
            assert (small_half <= large_half).all()


class TestSubsamples:
    def test_no_object_is_repeated_and_the_largest_is_everything(self, drawn):
        source = Subsamples(drawn(REGRESSION, 40, 4), 25, generator())
        assert source.weights(20).max() == 1
        np.testing.assert_array_equal(source.weights(40), 1)

    def test_every_object_is_as_likely(self, drawn):
        weights = Subsamples(drawn(REGRESSION, 20, 4), 20_000, generator()).weights(8)
        # Without replacement: covariances of Cov(1_i, 1_j) = -(8/20)(12/20)/19.
        np.testing.assert_allclose(weights.mean(axis=0), 8 / 20, atol=4.5 * np.sqrt(0.24 / 20_000))
        close((weights[:, 0] - 0.4) * (weights[:, 1] - 0.4), -0.24 / 19)

    @pytest.mark.parametrize("task", [REGRESSION, CLASSIFICATION])
    def test_halves_have_no_object_in_common_when_there_are_copies(self, drawn, task):
        design = bootstrap_copy(drawn(task, 60, 4), 50, generator())
        assert len(np.unique(design.objects)) < 45  # there are copies
        source = Subsamples(design, 40, generator())
        for size in (10, 25, 50):
            train, test = source.halves(size)
            np.testing.assert_array_equal(train + test, source.weights(size))
            for own, other in zip(train, test, strict=True):
                assert own.any()
                assert other.any()
                assert not set(design.objects[own > 0]) & set(design.objects[other > 0])

    def test_objects_are_shared_out_evenly_when_there_are_copies(self, drawn):
        design = bootstrap_copy(drawn(REGRESSION, 60, 4), 60, generator())
        for own, other in zip(*Subsamples(design, 40, generator()).halves(60), strict=True):
            counts = [len(set(design.objects[half > 0])) for half in (own, other)]
            assert abs(counts[0] - counts[1]) <= 1


class TestBootstrap:
    def test_counts_are_multinomial(self, drawn):
        weights = Bootstrap(drawn(REGRESSION, 20, 4), 20_000, generator()).weights(15)
        for i in range(3):
            close(weights[:, i], 15 / 20)
            close((weights[:, i] - 0.75) ** 2, 15 / 20 * 19 / 20)
            close((weights[:, i] - 0.75) * (weights[:, i + 1] - 0.75), -15 / 400)
            assert np.mean(weights[:, i] == 2) == pytest.approx(binom.pmf(2, 15, 1 / 20), abs=0.01)

    def test_halves_are_independent_draws(self, drawn):
        train, test = Bootstrap(drawn(REGRESSION, 20, 4), 20_000, generator()).halves(15)
        close(np.sum(train * test, axis=1), 8 * 7 / 20)  # pairs of draws that are the same object


class TestPublished:
    @pytest.mark.parametrize("size", [8, 20, 40])
    def test_draws_from_draws_leave_the_expected_number_of_objects(self, drawn, size):
        weights = PublishedResamples(drawn(REGRESSION, 20, 4), 20_000, generator()).weights(size)
        # An object c times among the first draws is absent from the second with (1 - c/k)^k.
        copies = np.arange(size + 1)
        absent = binom.pmf(copies, size, 1 / 20) @ (1 - copies / size) ** size
        close((weights > 0).sum(axis=1), 20 * (1 - absent))
        once = 20 * (1 - (1 - 1 / 20) ** size)
        assert (weights > 0).sum(axis=1).mean() < once - 0.3  # and not what one draw leaves

    @pytest.mark.parametrize("size", [8, 15])
    def test_halves_of_the_same_draws_overlap(self, drawn, size):
        train, test = PublishedResamples(drawn(REGRESSION, 20, 4), 20_000, generator()).halves(size)
        # Independent halves share h (k - h) / k of the draws; other pairs are the same object once in 20.
        pairs = (size // 2) * (size - size // 2)
        close(np.sum(train * test, axis=1), pairs / size + pairs * (1 - 1 / size) / 20)

    def test_sizes_are_drawn_afresh(self, drawn):
        source = PublishedResamples(drawn(REGRESSION, 40, 4), 25, generator())
        assert (source.weights(10) > source.weights(12)).any(axis=1).mean() > 0.5

    def test_both_classes_are_in_every_resample_and_half(self, drawn):
        design = drawn(CLASSIFICATION, 100, 3)
        y = np.zeros(100)
        y[:30] = 1
        rare = Design(design.X, y, CLASSIFICATION, design.objects)
        source = PublishedResamples(rare, 20, generator())
        for size in (12, 40):
            ones = source.weights(size) @ y
            assert 2 <= ones.min() <= ones.max() <= size - 2
            for half in source.halves(size):
                ones = half @ y
                assert (ones >= 1).all()
                assert (ones < half.sum(axis=1)).all()

    @pytest.mark.parametrize("part", ["weights", "halves"])
    @pytest.mark.parametrize("share", [0.1, 0.2])
    def test_rare_classes_are_drawn_again(self, drawn, part, share):
        design = drawn(CLASSIFICATION, 300, 4)
        y = (np.arange(300) < share * 300).astype(float)
        rare = Design(design.X, y, CLASSIFICATION, design.objects)
        # Most resamples have both classes; no hundred at once do.
        found = np.stack(np.broadcast_arrays(getattr(PublishedResamples(rare, 100, generator()), part)(8)))
        least = 2 if part == "weights" else 1
        ones = found @ y
        assert least <= ones.min()
        assert (ones <= found.sum(axis=-1) - least).all()


@pytest.mark.parametrize("task", [REGRESSION, CLASSIFICATION])
def test_a_copy_has_rows_of_the_design_with_their_numbers(drawn, task):
    design = drawn(task, 60, 4)
    copy = bootstrap_copy(design, 45, generator())
    assert copy.size == 45
    np.testing.assert_array_equal(copy.X, design.X[copy.objects])
    np.testing.assert_array_equal(copy.y, design.y[copy.objects])
    np.testing.assert_array_equal(copy.objects, bootstrap_copy(design, 45, generator()).objects)
    distinct = [len(np.unique(bootstrap_copy(design, 45, generator(seed)).objects)) for seed in range(300)]
    close(np.array(distinct), 60 * (1 - (1 - 1 / 60) ** 45))


def test_a_copy_has_two_objects_of_each_class(drawn):
    design = drawn(CLASSIFICATION, 60, 3)
    y = np.zeros(60)
    y[:3] = 1  # ten draws have two of them once in twelve
    rare = Design(design.X, y, CLASSIFICATION, design.objects)
    assert min(bootstrap_copy(rare, 10, generator(seed)).y.sum() for seed in range(30)) >= 2


@pytest.mark.parametrize(
    ("m", "step", "published", "most", "expected"),
    [
        (30, 5, False, None, [8, 13, 18, 23, 28, 30]),
        (28, 5, False, None, [8, 13, 18, 23, 28]),  # m on the grid is there once
        (30, 5, True, None, [8, 13, 18, 23, 28]),
        (29, 5, True, None, [8, 13, 18, 23]),  # 28 = m - 1 is too many
        (20, 100, False, None, [8, 20]),
        (20, 1, False, 3, [8, 12, 20]),  # at 0.35 of the way: 0.5 to the power 1.5
        (20, 1, True, 3, [8, 12, 18]),
        (20, 1, False, 13, list(range(8, 21))),
    ],
)
def test_size_grid(drawn, m, step, published, most, expected):
    design = drawn(REGRESSION, 30, 4).take(np.arange(m))
    assert size_grid(design, step, published, most).tolist() == expected


def test_a_shortened_grid_keeps_its_ends_and_is_closer_among_small_sizes(drawn):
    sizes = size_grid(drawn(REGRESSION, 400, 4), 1, most=50)
    assert (sizes[0], sizes[-1]) == (8, 400)
    assert len(sizes) == 50
    steps = np.diff(sizes)
    assert steps[0] == 1
    assert np.diff(steps).min() >= -1  # they grow, but for rounding
    np.testing.assert_allclose(sizes, 8 + 392 * (np.arange(50) / 49) ** 1.5, atol=0.5)
