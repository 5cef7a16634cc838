"""Sizes for a wanted power: closed forms, the published table, and the power reached in simulated experiments."""

import numpy as np
import pytest
from scipy.stats import chi2, ncx2
from statsmodels.stats.power import GofChisquarePower

from landscape_cli.samplesize import power
from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION, standardised
from landscape_cli.samplesize.fits import fit
from landscape_cli.samplesize.methods import sizes_of_tests
from landscape_cli.samplesize.power import noncentrality, published_noncentrality, published_sizes, shifts
from landscape_cli.samplesize.rules import AS_DEFINED, LAGRANGE, LIKELIHOOD_RATIO, TESTS, WALD, Thresholds

ALPHA, BETA = 0.05, 0.2
REPLICATIONS = 2000


@pytest.mark.parametrize("degrees", [1, 2, 6, 10, 40])
@pytest.mark.parametrize(("alpha", "beta"), [(0.05, 0.2), (0.01, 0.05), (1e-4, 1e-3), (0.3, 0.6), (0.05, 0.94)])
def test_noncentrality_gives_the_power(degrees, alpha, beta):
    found = noncentrality(degrees, alpha, beta)
    reached = GofChisquarePower().power(np.sqrt(found / 1000), 1000, alpha, n_bins=degrees + 1)
    assert reached == pytest.approx(1 - beta, abs=1e-8)
    assert ncx2.sf(chi2.isf(alpha, degrees), degrees, found) == pytest.approx(1 - beta, abs=1e-8)


@pytest.mark.parametrize(("alpha", "beta"), [(0, 0.2), (0.05, 0), (1, 0.2), (0.05, 1), (0.5, 0.5), (-0.1, 0.2)])
def test_noncentrality_refuses_impossible_levels(alpha, beta):
    with pytest.raises(ValueError, match="inside"):
        noncentrality(3, alpha, beta)


@pytest.mark.parametrize("degrees", [1, 6, 10])
def test_published_noncentrality_is_a_moved_chi_square(degrees):
    found = published_noncentrality(degrees, ALPHA, BETA)
    assert chi2.sf(chi2.isf(ALPHA, degrees), degrees, loc=found) == pytest.approx(1 - BETA)
    assert found < noncentrality(degrees, ALPHA, BETA)  # and so promises too much


@pytest.mark.parametrize(("n", "count"), [(5, 2), (6, 3), (14, 7)])
def test_the_first_half_is_tested(drawn, n, count):
    np.testing.assert_array_equal(power.tested(drawn(REGRESSION, 60, n)), np.arange(n) < count)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("boston", (18, 17, 66)),
        ("diabetes", (25, 25, 51)),
        ("forest_fires", (44, 43, 46)),
        ("servo", (38, 18, 76)),
    ],
)
def test_published_table_of_regressions(real_table, name, expected):
    found = published_sizes(real_table(name), 0.01, 0.2, ALPHA, BETA)
    assert tuple(found[test] for test in (LAGRANGE, LIKELIHOOD_RATIO, WALD)) == expected


def test_published_table_of_nba(real_table):
    found = published_sizes(real_table("nba"), 0.01, 0.2, ALPHA, BETA)
    assert [found[test] for test in (LAGRANGE, LIKELIHOOD_RATIO, WALD)] == pytest.approx([218, 110, 200], rel=0.02)


@pytest.mark.parametrize(("ridge", "accuracy"), [(0.0, 1e-9), (0.01, 1e-3)])
@pytest.mark.parametrize("n", [5, 6, 14])
def test_tests_of_a_regression_agree_with_the_schur_complement(drawn, ridge, accuracy, n):
    design = drawn(REGRESSION, 400, n)
    weights = np.vstack([np.ones(400), np.random.default_rng(0).integers(0, 3, 400)])
    found = shifts(design, weights, fit(design, weights, ridge), ridge, 0.3, ALPHA)
    k = n // 2
    for row, own in enumerate(weights):
        rows = np.repeat(np.arange(400), own.astype(int))
        X, y = design.X[rows], design.y[rows]
        gram = X.T @ X
        schur = gram[:k, :k] - gram[:k, k:] @ np.linalg.solve(gram[k:, k:], gram[k:, :k])
        residuals = y - X @ np.linalg.lstsq(X, y)[0]
        expected = 0.09 * schur.sum() / (residuals @ residuals / (len(y) - n)) / len(y)
        for test in TESTS:
            assert found.per_object[test][row] == pytest.approx(expected, rel=accuracy), test
    np.testing.assert_array_equal(found.level, ALPHA)


def test_only_the_tests_asked_for(drawn):
    design = drawn(CLASSIFICATION, 100, 5)
    weights = np.ones((1, 100))
    fits = fit(design, weights, 0.01)
    whole = shifts(design, weights, fits, 0.01, 0.2, ALPHA)
    for test in TESTS:
        some = shifts(design, weights, fits, 0.01, 0.2, ALPHA, [test])
        assert some.per_object == {test: whole.per_object[test]}


def test_level_of_the_wald_test_agrees_with_simulation(drawn):
    design = drawn(CLASSIFICATION, 300, 6)
    weights = np.ones((1, 300))
    fits = fit(design, weights, 0.0)
    found = shifts(design, weights, fits, 0.0, 1.0, ALPHA, [WALD]).level[0]
    null = fits.coefficients[0] + np.append(np.ones(3), restricted_logistic(design, fits.coefficients[0], 1.0))
    variance, null_variance = (np.linalg.inv(information(design.X, w))[:3, :3] for w in (fits.coefficients[0], null))
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(3), variance, size=400_000)
    statistics = np.sum(draws * np.linalg.solve(null_variance, draws.T).T, axis=1)
    expected = np.mean(statistics > chi2.isf(ALPHA, 3))
    assert abs(found - ALPHA) > 0.01  # there is something to correct
    assert found == pytest.approx(expected, abs=4 * np.sqrt(found * (1 - found) / 400_000))


def logistic(t: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-t))


def information(X: np.ndarray, w: np.ndarray) -> np.ndarray:
    p = logistic(X @ w)
    return (X.T * (p * (1 - p))) @ X


def restricted_logistic(design, truth: np.ndarray, shift: float) -> np.ndarray:
    """How far the free coefficients move when the first three are held at the truth plus the shift."""
    X, p = design.X, logistic(design.X @ truth)
    moved = np.zeros(design.features - 3)
    for _ in range(30):
        w = truth + np.append(np.full(3, shift), moved)
        score = X[:, 3:].T @ (p - logistic(X @ w))
        moved += np.linalg.solve(information(X, w)[3:, 3:], score)
    return moved


def solve(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.linalg.solve(matrices, vectors[:, :, None])[:, :, 0]


def quadratic(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ra,rab,rb->r", vectors, matrices, vectors)


def schur(matrices: np.ndarray, k: int) -> np.ndarray:
    """Information of the first k coefficients when the others are free."""
    return np.linalg.inv(np.linalg.inv(matrices)[:, :k, :k])


def regressions_tested(X: np.ndarray, y: np.ndarray, null: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of H0: the first coefficients are these, for many data sets (R, m, n) at once, from their texts."""
    k, (_, m, n) = len(null), X.shape

    def least_squares(X, y):
        turned = X.transpose(0, 2, 1)
        w = solve(turned @ X, (turned @ y[:, :, None])[:, :, 0])
        residuals = y - (X @ w[:, :, None])[:, :, 0]
        return w, residuals

    w, residuals = least_squares(X, y)
    _, held = least_squares(X[:, :, k:], y - X[:, :, :k] @ null)
    own, restricted = (np.sum(r**2, axis=1) for r in (residuals, held))
    gram = X.transpose(0, 2, 1) @ X
    return {
        LAGRANGE: m * (restricted - own) / restricted,
        LIKELIHOOD_RATIO: m * np.log(restricted / own),
        WALD: quadratic(schur(gram, k), w[:, :k] - null) / (own / (m - n)),
    }


def classes_tested(X: np.ndarray, y: np.ndarray, null: np.ndarray) -> dict[str, np.ndarray]:
    k = len(null)

    def maximum(X, y, offset):
        w = np.zeros((len(X), X.shape[2]))
        turned = X.transpose(0, 2, 1)
        for _ in range(10):
            p = logistic((X @ w[:, :, None])[:, :, 0] + offset)
            w += solve(turned @ (X * (p * (1 - p))[:, :, None]), (turned @ (y - p)[:, :, None])[:, :, 0])
        return w, logistic((X @ w[:, :, None])[:, :, 0] + offset)

    def likelihood(p):
        return np.sum(np.log(np.where(y == 1, p, 1 - p)), axis=1)

    turned = X.transpose(0, 2, 1)
    w, p = maximum(X, y, 0.0)
    _, q = maximum(X[:, :, k:], y, X[:, :, :k] @ null)
    own, restricted = (turned @ (X * (a * (1 - a))[:, :, None]) for a in (p, q))
    score = (turned @ (y - q)[:, :, None])[:, :k, 0]
    return {
        LAGRANGE: quadratic(np.linalg.inv(schur(restricted, k)), score),
        LIKELIHOOD_RATIO: 2 * (likelihood(p) - likelihood(q)),
        WALD: quadratic(schur(own, k), w[:, :k] - null),
    }


def rejected(design, test: str, size: int, shift: float, replications: int = REPLICATIONS, seed: int = 0) -> float:
    """Share of simulated data sets of that size, with the fitted model as the truth, on which the test rejects H0."""
    random = np.random.default_rng([seed, size])
    fits = fit(design, np.ones((1, design.size)), 0.01)
    truth, k = fits.coefficients[0], design.features // 2
    X = design.X[random.integers(design.size, size=(replications, size))]
    predictor = X @ truth
    if design.linear:
        noise = np.sqrt(fits.squares[0] / (design.size - design.features))
        statistics = regressions_tested(X, predictor + noise * random.normal(size=predictor.shape), truth[:k] + shift)
    else:
        y = (random.random(predictor.shape) < logistic(predictor)).astype(float)
        statistics = classes_tested(X, y, truth[:k] + shift)
    return float(np.mean(statistics[test] > chi2.isf(ALPHA, k)))


# Shifts at which m* is some hundreds of objects: the tests' distributions are asymptotic.
@pytest.mark.parametrize(
    ("task", "n", "shift"), [(REGRESSION, 6, 0.08), (REGRESSION, 9, 0.12), (CLASSIFICATION, 6, 0.2)]
)
@pytest.mark.parametrize("test", TESTS)
def test_the_size_reaches_the_power(drawn, task, n, shift, test):
    design = drawn(task, 600, n, seed=1)
    size = sizes_of_tests(design, AS_DEFINED, Thresholds(shift=shift))[test].size
    assert 200 < size < 1000
    # The level is the test's: without it a power would mean nothing.
    for distance, count, expected in ((0.0, size, ALPHA), (shift, size, 1 - BETA)):
        error = np.sqrt(expected * (1 - expected) / REPLICATIONS)
        assert rejected(design, test, count, distance) == pytest.approx(expected, abs=3.5 * error)
    k = n // 2
    half = ncx2.sf(chi2.isf(ALPHA, k), k, noncentrality(k, ALPHA, BETA) / 2)
    assert half < 0.6
    assert rejected(design, test, size // 2, shift) == pytest.approx(half, abs=3.5 * np.sqrt(0.25 / REPLICATIONS))


# At a large shift they differ: the score's variance is that of the truth, the Wald test has its own level.
@pytest.mark.parametrize("test", TESTS)
def test_the_size_reaches_the_power_where_the_tests_differ(drawn, test):
    design, shift = drawn(CLASSIFICATION, 600, 6, seed=1), 0.5
    sizes = {name: found.size for name, found in sizes_of_tests(design, AS_DEFINED, Thresholds(shift=shift)).items()}
    assert max(sizes.values()) - min(sizes.values()) >= 5
    error = np.sqrt(BETA * (1 - BETA) / REPLICATIONS)
    # With 130 objects the asymptotics are off by a hundredth or two.
    assert rejected(design, test, sizes[test], shift) == pytest.approx(1 - BETA, abs=0.02 + 3.5 * error)


@pytest.mark.parametrize("test", TESTS)
def test_published_sizes_of_a_regression_promise_too_much(drawn, test):
    design = drawn(REGRESSION, 600, 6, seed=1)
    size = published_sizes(design, 0.01, 0.12, ALPHA, BETA)[LIKELIHOOD_RATIO]
    assert rejected(design, test, size, 0.12) < 1 - BETA - 0.03


def test_copies_of_one_object_say_nothing_of_a_shift():
    design = standardised(
        np.array([[2.0], [1.0], [0.0], [0.0], [2.0]]), np.array([5.6, 5.9, 5.1, 3.3, 4.6]), "regression"
    )
    weights = 4 * np.eye(5)  # its features tell nothing of the two parameters: every matrix is singular
    seen = shifts(design, weights, fit(design, weights, 0.01), 0.01, 0.2, 0.05).per_object
    assert all(np.isfinite(values).all() for values in seen.values())
