"""Neighbouring posteriors: rank-one steps against inversions of every posterior, one at a time."""

import warnings

import numpy as np
import pytest
from scipy.stats import linregress

from landscape_cli.bounds.sample_size import gaussian_kl, gaussian_s_score
from landscape_cli.errors import BadInput
from landscape_cli.samplesize.design import REGRESSION, Design, standardised
from landscape_cli.samplesize.fits import Fits, fit
from landscape_cli.samplesize.methods import curves
from landscape_cli.samplesize.neighbours import chains, expected_neighbours, neighbouring
from landscape_cli.samplesize.rules import AS_DEFINED, KL, Curve, Thresholds, sufficient

FULL_PRIOR = np.array([[2.0, 0.6, -0.3], [0.6, 0.5, 0.1], [-0.3, 0.1, 1.2]])


def table(m: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    X = random.normal(size=(m, n)) * np.linspace(0.5, 2, n) + 0.4
    return X, X @ random.normal(size=n) + 0.8 * random.standard_t(5, size=m)


def posterior(X: np.ndarray, y: np.ndarray, prior: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    covariance = np.linalg.inv(np.linalg.inv(prior) + X.T @ X / noise)
    return covariance @ X.T @ y / noise, covariance


def both(first: tuple, second: tuple) -> tuple[float, float]:
    return gaussian_kl(*first, *second), gaussian_s_score(*first, *second)


def orders(m: int, count: int, seed: int) -> np.ndarray:
    """The orders that a generator gives, drawn again."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(m), (count, 1)), axis=1)


class TestChains:
    @pytest.mark.parametrize(
        ("given", "prior", "noise"),
        [
            ({}, np.eye(3), 1.0),
            ({"precision": 4.0}, np.eye(3) / 4, 1.0),
            ({"noise": 0.3}, np.eye(3), 0.3),
            ({"precision": 0.2, "noise": 2.5}, 5 * np.eye(3), 2.5),
            ({"prior": FULL_PRIOR}, FULL_PRIOR, 1.0),
            ({"prior": FULL_PRIOR, "noise": 1.7, "precision": 9.0}, FULL_PRIOR, 1.7),
        ],
    )
    @pytest.mark.parametrize("count", [1, 3])
    def test_every_step_is_the_closed_form_of_two_gaussians(self, given, prior, noise, count):
        X, y = table(14, 3)
        found = chains(X, y, count, np.random.default_rng(6), **given)
        np.testing.assert_array_equal(found.sizes, np.arange(3, 14))
        assert found.kl.shape == found.s_score.shape == (count, 11)
        for b, order in enumerate(orders(14, count, 6)):
            for place, k in enumerate(found.sizes):
                pair = (posterior(X[order[:size]], y[order[:size]], prior, noise) for size in (k, k + 1))
                kl, s_score = both(*pair)
                assert found.kl[b, place] == pytest.approx(kl, abs=1e-10)
                assert found.s_score[b, place] == pytest.approx(s_score, abs=1e-10)
        assert found.kl.min() > 1e-4  # what was compared is far from rounding errors
        assert found.s_score.min() < 0.999

    def test_after_all_objects_nothing_has_been_lost(self):
        X, y = table(600, 5, seed=2)
        found = chains(X, y, 4, np.random.default_rng(1), noise=0.7)
        whole = posterior(X, y, np.eye(5), 0.7)
        for b, last in enumerate(orders(600, 4, 1)[:, -1]):
            rest = np.arange(600) != last
            kl, s_score = both(posterior(X[rest], y[rest], np.eye(5), 0.7), whole)
            assert found.kl[b, -1] == pytest.approx(kl, rel=1e-8)
            assert found.s_score[b, -1] == pytest.approx(s_score, rel=1e-10)

    def test_least_eigenvalues_along_the_same_orders(self):
        X, y = table(40, 4)
        found = chains(X, y, 5, np.random.default_rng(3), eigenvalues=7)
        np.testing.assert_array_equal(found.eigenvalue_sizes, np.linspace(4, 39, 7).round())
        assert found.eigenvalues.shape == (5, 7)
        for b, order in enumerate(orders(40, 5, 3)):
            for place, k in enumerate(found.eigenvalue_sizes):
                seen = X[order[:k]]
                least = np.linalg.eigvalsh(seen.T @ seen)[0]
                assert found.eigenvalues[b, place] == pytest.approx(least, rel=1e-9, abs=1e-10)

    def test_eigenvalues_are_not_asked_for(self):
        X, y = table(20, 3)
        none, some = (chains(X, y, 2, np.random.default_rng(3), eigenvalues=count) for count in (0, 100))
        assert none.eigenvalues.shape == (2, 0)
        assert none.eigenvalue_sizes.size == 0
        np.testing.assert_array_equal(some.eigenvalue_sizes, np.arange(3, 20))  # at most every size, once
        np.testing.assert_array_equal(none.kl, some.kl)

    def test_the_seed_decides(self):
        X, y = table(20, 3)
        one, same, other = (chains(X, y, 3, np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.kl, same.kl)
        assert (one.kl != other.kl).all()
        assert (one.kl[0] != one.kl[1]).all()

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"noise": 0.0}, "noise: σ² = 0;"),
            ({"noise": -1.5}, "noise: σ² = -1.5;"),
            ({"noise": np.nan}, "noise: σ² = nan;"),
            ({"noise": np.inf}, "noise: σ² = inf;"),
            ({"noise": 0.0, "prior": np.eye(3)}, "noise: σ² = 0;"),
            ({"precision": 0.0}, "precision: α = 0;"),
            ({"precision": -2.0}, "precision: α = -2;"),
            ({"precision": np.nan}, "precision: α = nan;"),
            ({"precision": np.inf}, "precision: α = inf;"),
            ({"prior": np.diag([1.0, 0.0, 2.0])}, r"prior: its covariance is singular \(least eigenvalue 0\)"),
            ({"prior": np.zeros((3, 3))}, "prior: its covariance is singular"),
            ({"prior": np.diag([1.0, -1.0, 2.0])}, r"prior: its covariance is singular \(least eigenvalue -1\)"),
            ({"prior": np.ones((3, 3))}, "prior: its covariance is singular"),
            ({"prior": np.eye(3) + np.eye(3, k=1)}, "prior: .*symmetric"),
            ({"prior": np.full((3, 3), np.nan)}, "prior: .*symmetric"),
            ({"prior": np.eye(4)}, r"prior: shape \(4, 4\); allowed: a symmetric matrix \(3, 3\)"),
            ({"prior": np.ones(3)}, r"prior: shape \(3,\)"),
        ],
    )
    def test_bad_input(self, given, named):
        with pytest.raises(BadInput, match=named):
            chains(*table(10, 3), 2, np.random.default_rng(0), **given)

    @pytest.mark.parametrize("m", [2, 3])
    def test_objects_are_more_than_features(self, m):
        with pytest.raises(BadInput, match=f"dataset: {m} objects for 3 features"):
            chains(*table(m, 3), 2, np.random.default_rng(0))
        assert chains(*table(4, 3), 2, np.random.default_rng(0)).kl.shape == (2, 1)


class TestNeighbouring:
    def fits(self, coefficients: np.ndarray, information: np.ndarray) -> Fits:
        count = len(coefficients)
        return Fits(coefficients, information, information, np.zeros(count), np.ones(count), np.zeros(count, bool))

    @pytest.mark.parametrize("noise", [1.0, 2.5])
    def test_known_answers(self, noise):
        # N(.3, .7) against N(-.4, 1.9), and the other way round.
        mean, variance = np.array([[0.3], [-0.4]]), np.array([[[0.7]], [[1.9]]])
        first, second = (self.fits(mean[way], noise / variance[way]) for way in ([0, 1], [1, 0]))
        kl, s_score = neighbouring(first, second, noise)
        assert kl[0] == pytest.approx(0.3124223097924057, abs=1e-14)
        np.testing.assert_allclose(s_score, 0.910072721224376, atol=1e-14)
        assert kl[1] == pytest.approx(0.5 * (1.9 / 0.7 + 0.49 / 0.7 - 1 + np.log(0.7 / 1.9)), abs=1e-14)

    @pytest.mark.parametrize("noise", [1.0, 0.4])
    def test_closed_form_of_many_pairs(self, noise):
        random = np.random.default_rng(4)
        roots = random.normal(size=(2, 6, 3, 5))
        informations = roots @ np.swapaxes(roots, 2, 3) + 0.2 * np.eye(3)
        means = random.normal(size=(2, 6, 3))
        kl, s_score = neighbouring(*map(self.fits, means, informations), noise)
        for pair in range(6):
            given = [(means[one, pair], noise * np.linalg.inv(informations[one, pair])) for one in (0, 1)]
            assert (kl[pair], s_score[pair]) == pytest.approx(both(*given), rel=1e-9)


def brute(design: Design, rows: np.ndarray, precision: float, noise: float) -> tuple[float, float]:
    """Means over which of the rows came last."""
    prior = np.eye(design.features) / precision
    whole = posterior(design.X[rows], design.y[rows], prior, noise)
    found = []
    for last in range(len(rows)):
        rest = np.delete(rows, last)
        found.append(both(posterior(design.X[rest], design.y[rest], prior, noise), whole))
    return tuple(np.mean(found, axis=0))


class TestExpectedNeighbours:
    @pytest.mark.parametrize(("precision", "noise"), [(1.0, 1.0), (0.3, 1.0), (2.0, 0.4)])
    def test_mean_over_every_object_that_may_have_come_last(self, drawn, precision, noise):
        design, random = drawn(REGRESSION, 30, 4, seed=1), np.random.default_rng(2)
        weights = np.zeros((5, 30))
        for row in weights:
            row[random.choice(30, size=12, replace=False)] = 1
        found = expected_neighbours(design, fit(design, weights, precision * noise), weights, noise)
        for b, row in enumerate(weights):
            expected = brute(design, np.flatnonzero(row), precision, noise)
            assert (found[0][b], found[1][b]) == pytest.approx(expected, rel=1e-9)

    def test_copies(self, drawn):
        design = drawn(REGRESSION, 30, 4, seed=1)
        random = np.random.default_rng(3)
        copied = design.take(random.integers(10, size=25))  # as a table drawn with replacement
        counts = random.multinomial(14, np.full(30, 1 / 30), size=4).astype(float)  # objects in a sample repeatedly
        ones = np.ones((1, 25))
        assert counts.max() > 1
        assert len(np.unique(copied.objects)) < 11
        for given, weights in ((copied, ones), (design, counts)):
            found = expected_neighbours(given, fit(given, weights, 1.0), weights)
            for b, row in enumerate(weights):
                rows = np.repeat(np.arange(given.size), row.astype(int))
                assert (found[0][b], found[1][b]) == pytest.approx(brute(given, rows, 1.0, 1.0), rel=1e-9)

    def test_one_object_came_last(self, drawn):
        design = drawn(REGRESSION, 20, 3, seed=1)
        weights = np.array([np.arange(20) < 9, np.arange(20) >= 8], dtype=float)
        last = np.zeros((2, 20))
        last[0, 4], last[1, 17] = 1, 3  # how heavy does not matter
        found = expected_neighbours(design, fit(design, weights, 1.0), last)
        for b, (one, row) in enumerate(zip((4, 17), weights, strict=True)):
            rows = np.flatnonzero(row)
            rest = rows[rows != one]
            pair = (posterior(design.X[own], design.y[own], np.eye(3), 1.0) for own in (rest, rows))
            assert (found[0][b], found[1][b]) == pytest.approx(both(*pair), rel=1e-9)

    def test_objects_outside_the_sample_do_not_matter(self, drawn):
        design = drawn(REGRESSION, 30, 4, seed=1)
        far = Design(
            np.vstack([design.X, [[1e8, -1e8, 1e8, 1], [5.0, 5.0, -5.0, 1]]]),
            np.append(design.y, [1e8, 3.0]),
            REGRESSION,
            np.arange(32),
        )
        weights = np.append(np.arange(30) < 20, [False, False])[None].astype(float)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = expected_neighbours(far, fit(far, weights, 1.0), weights)
        expected = brute(design, np.arange(20), 1.0, 1.0)
        assert (found[0][0], found[1][0]) == pytest.approx(expected, rel=1e-9)
        # One of them has h > 1 with the posterior of the others, for which nothing is defined.
        information = design.X[:20].T @ design.X[:20] + np.eye(4)
        assert (np.einsum("ij,ij->i", far.X @ np.linalg.inv(information), far.X) > 1).any()


class TestHowItFalls:
    def test_like_one_over_k_for_bounded_objects(self):
        """Theorem 30: objects of bounded norm, a least eigenvalue that grows like k."""
        random = np.random.default_rng(8)
        X = random.uniform(-1, 1, size=(1200, 3))
        y = X @ [1.0, -2.0, 0.5] + random.uniform(-1, 1, size=1200)
        found = chains(X, y, 200, np.random.default_rng(9), eigenvalues=3)
        late = found.sizes >= 100
        size = np.log(found.sizes[late])
        batches = found.kl[:, late].reshape(20, 10, -1).mean(axis=1)
        slopes = np.array([linregress(size, np.log(batch)).slope for batch in batches])
        error = slopes.std(ddof=1) / np.sqrt(len(slopes))
        assert error < 0.02
        assert slopes.mean() == pytest.approx(-1, abs=3 * error + 0.02)  # 0.02: of order n/k
        growth = found.eigenvalues.mean(axis=0)[1:] / found.eigenvalue_sizes[1:]
        np.testing.assert_allclose(growth, 1 / 3, rtol=0.15)  # of uniform coordinates

    @pytest.mark.parametrize("which", ["one feature, tame", "seven features, heavy tails"])
    def test_near_the_last_value_means_a_fixed_part_of_what_there_is(self, which):
        """KL(k) = c/k is within 5 % of KL(m) from m/1.05 on, whatever c, that is, whatever the data."""
        random = np.random.default_rng(12)
        if which == "one feature, tame":
            m = 200
            X = random.uniform(-1, 1, size=(m, 1))
            y = X[:, 0] + 0.5 * random.normal(size=m)
        else:
            m = 600
            X = random.exponential(size=(m, 7))
            y = X[:, 0] ** 2 - X[:, 1] * X[:, 2] + random.standard_t(3, size=m)
        design = standardised(X, y, REGRESSION)
        sizes = np.arange(2 * design.features, m)
        curve = curves(
            design, [KL], AS_DEFINED, Thresholds(deviation=0.05), sizes, 60, np.random.default_rng(0), False
        )[KL]
        found = sufficient(curve)
        assert found.size == pytest.approx(m / 1.05, rel=0.015)
        assert not found.first

    def test_the_rule_with_a_wider_share(self):
        sizes = np.arange(10, 1000)
        curve = Curve(KL, sizes, 3.7 / sizes, np.zeros(990), 0.25, np.zeros(990))
        assert sufficient(curve).size == np.ceil(999 / 1.25)
