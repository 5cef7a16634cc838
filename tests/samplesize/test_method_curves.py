"""The methods' curves against loops that fit every resample with another library."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, log_expit
from scipy.stats import bernoulli, chi2, ncx2, norm
from sklearn.linear_model import LogisticRegression, Ridge

from landscape_cli import parallel
from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION, Design
from landscape_cli.samplesize.methods import curves, sizes_of_tests, threshold
from landscape_cli.samplesize.power import noncentrality, published_noncentrality
from landscape_cli.samplesize.resamples import Bootstrap, PublishedResamples, Subsamples
from landscape_cli.samplesize.rules import (
    ACC,
    ALC,
    APVC,
    AS_DEFINED,
    AS_PUBLISHED,
    BOOTSTRAP,
    CLASSICAL,
    CROSS_VALIDATION,
    KL,
    LAGRANGE,
    LIKELIHOOD_RATIO,
    METHODS,
    TESTS,
    UTILITY,
    WALD,
    D,
    M,
    S,
    Thresholds,
)

TASKS = [REGRESSION, CLASSIFICATION]
VARIANTS = [AS_DEFINED, AS_PUBLISHED]
SIZES = np.array([24, 50, 80])
RESAMPLES = 6
CHOSEN = Thresholds(ridge=0.3, alpha=0.1, coverage_radius=0.35, cost=0.02)
NORMALS = np.random.default_rng(0).standard_normal((100_000, 4))
NODES = np.linspace(-10, 10, 4001)


@pytest.fixture
def workers():
    yield parallel.use_workers
    parallel.use_workers(1)


def repeated(design: Design, weights: np.ndarray) -> Design:
    return design.take(np.repeat(np.arange(design.size), weights.astype(int)))


def fitted(design: Design, variant: str, ridge: float) -> np.ndarray:
    """Coefficients of the rows, each as heavy as the others."""
    if design.linear:
        return Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(design.X, design.y).coef_
    options = {"C": 1 / ridge, "tol": 1e-12, "solver": "newton-cholesky", "max_iter": 1000}
    if variant == AS_DEFINED:
        return LogisticRegression(fit_intercept=False, **options).fit(design.X, design.y).coef_[0]
    found = LogisticRegression(**options).fit(design.X[:, :-1], design.y)
    return np.append(found.coef_[0], found.intercept_ / 2)  # the constant has half of the intercept


def information(design: Design, w: np.ndarray, ridge: float = 0.0) -> np.ndarray:
    p = expit(design.X @ w)
    variance = np.ones(design.size) if design.linear else p * (1 - p)
    return (design.X.T * variance) @ design.X + ridge * np.eye(design.features)


def log_likelihoods(design: Design, w: np.ndarray) -> np.ndarray:
    predictor = design.X @ w
    return norm.logpdf(design.y, predictor) if design.linear else bernoulli.logpmf(design.y, expit(predictor))


def expected_log_likelihood(design: Design, w: np.ndarray, covariance: np.ndarray) -> float:
    """Integrated over each object's margin on a fine grid."""
    deviations = np.sqrt(np.einsum("ia,ab,ib->i", design.X, covariance, design.X))
    predictors = (design.X @ w)[:, None] + deviations[:, None] * NODES
    y = design.y[:, None]
    terms = norm.logpdf(y, predictors) if design.linear else log_expit(np.where(y == 1, predictors, -predictors))
    return float((terms @ norm.pdf(NODES)).sum() * (NODES[1] - NODES[0]))


def one_resample(design: Design, name: str, variant: str) -> float:
    """A method's statistic on these rows."""
    w = fitted(design, variant, CHOSEN.ridge)
    covariance = np.linalg.inv(information(design, w, CHOSEN.ridge))
    distances = np.linalg.norm(NORMALS @ np.linalg.cholesky(covariance).T, axis=1)
    published = variant == AS_PUBLISHED
    if name == APVC:
        return np.linalg.norm(covariance) / 2 if published else np.trace(covariance)
    if name == ACC:
        return np.mean(distances <= (3 if published else 1) * CHOSEN.coverage_radius)
    if name == ALC:
        return np.quantile(distances, 1 - CHOSEN.alpha) / (3 if published else 1)
    total = expected_log_likelihood(design, w, covariance)
    if published:
        draws = w + NORMALS @ np.linalg.cholesky(covariance).T
        total += norm.logpdf(draws, scale=np.sqrt(CHOSEN.ridge)).sum(axis=1).mean()
    return total / design.size - CHOSEN.cost * design.size


def sources(design: Design, variant: str, seed: int) -> list[tuple]:
    """What resamples are looked at: two parts, each with its own generator."""
    kinds = (Subsamples, Bootstrap) if variant == AS_DEFINED else (PublishedResamples, PublishedResamples)
    parts = np.random.default_rng(seed).spawn(2)
    return [tuple(kind(design, RESAMPLES // 2, part) for kind in kinds) for part in parts]


def loop(design: Design, name: str, variant: str, size: int, seed: int) -> np.ndarray | float:
    subsamples, bootstraps = zip(*sources(design, variant, seed), strict=True)
    if name == BOOTSTRAP:
        rows = np.concatenate([source.weights(size) for source in bootstraps])
        w = np.array([fitted(repeated(design, own), variant, CHOSEN.ridge) for own in rows])
        return max(np.quantile(w, 1 - CHOSEN.alpha / 2, axis=0) - np.quantile(w, CHOSEN.alpha / 2, axis=0))
    found = []
    for source in subsamples:
        if name == CROSS_VALIDATION:
            for halves in zip(*source.halves(size), strict=True):
                train, test = (repeated(design, half) for half in halves)
                w = fitted(train, variant, CHOSEN.ridge)
                found.append(log_likelihoods(train, w).mean() - log_likelihoods(test, w).mean())
        else:
            found += [one_resample(repeated(design, own), name, variant) for own in source.weights(size)]
    return np.array(found)


# Of what is simulated or depends on the simulated: several standard errors with 100 000 draws.
SIMULATED = {ACC: {"abs": 0.005}, ALC: {"rel": 0.01}}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [name for name in CLASSICAL if name not in TESTS])
def test_values_are_those_of_a_loop_over_resamples(drawn, task, variant, name):
    design = drawn(task, 80, 4, seed=2)
    curve = curves(design, CLASSICAL, variant, CHOSEN, SIZES, RESAMPLES, np.random.default_rng(11))[name]
    np.testing.assert_array_equal(curve.sizes, SIZES)
    accuracy = SIMULATED.get(name, {"rel": 1e-5, "abs": 1e-6})
    if name == UTILITY and variant == AS_PUBLISHED:
        accuracy = {"rel": 0.01}  # the prior's part is simulated
    for place, size in enumerate(SIZES):
        expected = loop(design, name, variant, size, 11)
        assert curve.values[place] == pytest.approx(np.mean(expected), **accuracy), size
        if name == BOOTSTRAP:
            assert np.isnan(curve.errors[place])
        elif name not in SIMULATED and accuracy.get("rel") == 1e-5:
            error = np.std(expected, ddof=1) / np.sqrt(RESAMPLES)
            assert curve.errors[place] == pytest.approx(error, rel=1e-3, abs=1e-6)


def expected_statistics(design: Design, shift: float) -> dict[str, float]:
    """m γ⁰ of the three tests on these rows, as in the text; the ridge is too small to matter."""
    X, k, m = design.X, design.features // 2, design.size
    w = fitted(design, AS_DEFINED, 1e-6)
    own = information(design, w)
    if design.linear:
        residuals = design.y - X @ w
        noise = residuals @ residuals / (m - design.features)
        null = w + np.append(np.full(k, shift), -shift * np.linalg.solve(own[k:, k:], own[k:, :k].sum(axis=1)))
        ratio = np.sum((X @ (w - null)) ** 2) / noise
        mean, null_mean, spread = X @ w, X @ null, np.full(m, noise)
    else:
        noise, mean = 1.0, expit(X @ w)
        offset = X[:, :k] @ (w[:k] + shift)
        model = sm.GLM(mean, X[:, k:], sm.families.Binomial(), offset=offset)
        null = np.append(w[:k] + shift, model.fit(tol=1e-13).params)
        null_mean, spread = expit(X @ null), mean * (1 - mean)
        divergence = mean * np.log(mean / null_mean) + (1 - mean) * np.log((1 - mean) / (1 - null_mean))
        ratio = 2 * divergence.sum()
    held = information(design, null)
    Z = X[:, :k] - X[:, k:] @ np.linalg.solve(held[k:, k:], held[k:, :k])
    xi = Z.T @ (mean - null_mean)
    variance = noise * np.linalg.inv(own)[:k, :k]
    return {
        LAGRANGE: xi @ np.linalg.solve((Z.T * spread) @ Z, xi),
        LIKELIHOOD_RATIO: ratio,
        WALD: np.linalg.solve(variance, np.full(k, shift)).sum() * shift,
    }


@pytest.mark.parametrize("task", TASKS)
def test_statistics_of_the_tests_are_those_of_a_loop(drawn, task):
    design, chosen = drawn(task, 80, 4, seed=2), Thresholds(ridge=1e-6)
    sizes = np.array([40, 60, 80])
    found = curves(design, TESTS, AS_DEFINED, chosen, sizes, RESAMPLES, np.random.default_rng(11))
    for place, size in enumerate(sizes):
        rows = np.concatenate([source.weights(size) for source, _ in sources(design, AS_DEFINED, 11)])
        each = [expected_statistics(repeated(design, own), chosen.shift) for own in rows]
        for name in TESTS:
            expected = np.mean([values[name] for values in each])
            assert found[name].values[place] == pytest.approx(expected, rel=2e-4), (name, size)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_seed_alone_decides(drawn, workers, task, variant):
    design = drawn(task, 80, 4, seed=2)

    def again(count: int = 1, seed: int = 3, names=METHODS, **options) -> dict:
        workers(count)
        found = curves(design, names, variant, CHOSEN, SIZES, 7, np.random.default_rng(seed), **options)
        workers(1)
        return found

    first = again()
    for other in (again(2), again(side_by_side=False)):
        assert list(other) == list(first)
        for name, curve in first.items():
            np.testing.assert_allclose(other[name].values, curve.values, rtol=1e-12, err_msg=name)
            np.testing.assert_allclose(other[name].errors, curve.errors, rtol=1e-6, atol=1e-12, err_msg=name)
    different = again(seed=4)
    assert all((different[name].values[:2] != curve.values[:2]).any() for name, curve in first.items())
    # A method's curve does not depend on which others are asked for.
    for name in (CROSS_VALIDATION, BOOTSTRAP, ALC, *({D, M, KL, S} & set(first))):
        np.testing.assert_allclose(again(names=[name])[name].values, first[name].values, rtol=1e-7)


@pytest.mark.parametrize("task", TASKS)
def test_everything_available_leaves_nothing_to_chance(drawn, task):
    found = curves(drawn(task, 80, 4, seed=2), METHODS, AS_DEFINED, CHOSEN, SIZES, RESAMPLES, np.random.default_rng(3))
    neighbours = (KL, S) if task == REGRESSION else ()  # of two classes one object is drawn to be the next
    for name in (*TESTS, APVC, ACC, ALC, UTILITY, *neighbours):
        errors = found[name].errors / np.abs(found[name].values)
        assert errors[-1] < 1e-10 < 1e-4 < errors[0], name
    assert found[CROSS_VALIDATION].errors[-1] > 1e-3  # its halves are still drawn


def test_the_tests_and_d_and_m_have_no_published_curves(drawn):
    design = drawn(REGRESSION, 80, 4)
    both = [
        curves(design, METHODS, variant, CHOSEN, SIZES, 2, np.random.default_rng(0), side_by_side=False)
        for variant in VARIANTS
    ]
    assert set(both[0]) == set(METHODS)
    assert set(both[1]) == set(METHODS) - {*TESTS, D, M}
    only = curves(design, [ALC, WALD, D], AS_PUBLISHED, CHOSEN, SIZES, 2, np.random.default_rng(0))
    assert set(only) == {ALC}


def test_share_of_separable_resamples(drawn):
    design = drawn(CLASSIFICATION, 80, 4, seed=2)
    chosen = Thresholds(ridge=1e-4)  # so small that separable classes are separated by the fit
    sizes = np.array([8, 12, 40])
    found = curves(design, [APVC], AS_DEFINED, chosen, sizes, 40, np.random.default_rng(5))[APVC].separable
    parts = np.random.default_rng(5).spawn(2)
    subsamples = [Subsamples(design, 20, part) for part in parts]
    for place, size in enumerate(sizes):
        rows = np.concatenate([source.weights(size) for source in subsamples])
        expected = []
        for own in rows:
            part = repeated(design, own)
            alone = len(np.unique(part.y)) == 1
            machine = LogisticRegression(C=1e8, fit_intercept=False, solver="newton-cholesky", max_iter=2000)
            expected.append(alone or machine.fit(part.X, part.y).score(part.X, part.y) == 1)
        assert found[place] == pytest.approx(np.mean(expected))
    assert found[0] > 0.1
    assert found[-1] == 0


def test_no_share_of_a_regression_is_separable(drawn):
    found = curves(drawn(REGRESSION, 80, 4), [APVC], AS_DEFINED, CHOSEN, SIZES, 3, np.random.default_rng(5))
    np.testing.assert_array_equal(found[APVC].separable, 0)


class TestSizesOfTests:
    def test_separable_classes_have_none(self, apart):
        found = sizes_of_tests(apart, AS_DEFINED, Thresholds())
        assert {name: (size.size, size.reason) for name, size in found.items()} == dict.fromkeys(
            TESTS, (None, "the classes are separable")
        )

    @pytest.mark.parametrize("task", TASKS)
    def test_a_size_gives_the_power_and_one_object_less_does_not(self, drawn, task):
        design, chosen = drawn(task, 300, 6), Thresholds(ridge=1e-6)
        per_object = {name: value / 300 for name, value in expected_statistics(design, chosen.shift).items()}
        found = sizes_of_tests(design, AS_DEFINED, chosen)
        for name in TESTS[:2] if task == CLASSIFICATION else TESTS:  # the Wald test has its own level

            def power(m, name=name):
                return ncx2.sf(chi2.isf(chosen.alpha, 3), 3, m * per_object[name])

            size = found[name].size
            assert power(size - 1) - 1e-4 < 1 - chosen.beta <= power(size) + 1e-4, name

    @pytest.mark.parametrize("task", TASKS)
    def test_they_are_where_the_curves_would_cross(self, drawn, task):
        design, chosen = drawn(task, 300, 6), Thresholds()
        found = sizes_of_tests(design, AS_DEFINED, chosen)
        curve = curves(design, TESTS, AS_DEFINED, chosen, np.array([300]), 2, np.random.default_rng(0))
        for name in TESTS:
            needed = curve[name].threshold / (curve[name].values[0] / 300)
            assert found[name].size == np.ceil(needed), name

    @pytest.mark.parametrize("task", TASKS)
    def test_the_level_of_the_wald_test_moves_its_threshold(self, drawn, task):
        design, chosen = drawn(task, 300, 6), Thresholds(shift=0.8)
        curve = curves(design, TESTS, AS_DEFINED, chosen, np.array([300]), 2, np.random.default_rng(0))
        plain = noncentrality(3, chosen.alpha, chosen.beta)
        assert curve[LAGRANGE].threshold == curve[LIKELIHOOD_RATIO].threshold == plain
        assert (abs(curve[WALD].threshold - plain) > 0.05) == (task == CLASSIFICATION)


def test_thresholds(drawn):
    design, chosen = drawn(REGRESSION, 80, 4), Thresholds()
    found = {name: threshold(name, design, chosen, AS_DEFINED) for name in METHODS}
    expected = {CROSS_VALIDATION: 0.05, BOOTSTRAP: 0.5, APVC: 0.5, ACC: 0.95, ALC: 0.5, KL: 0.05, S: 0.05}
    assert {name: found[name] for name in expected} == expected
    assert np.isnan([found[name] for name in (UTILITY, D, M)]).all()
    assert threshold(WALD, design, chosen, AS_DEFINED, 0.01) == noncentrality(2, 0.01, 0.2)
    assert threshold(WALD, design, chosen, AS_PUBLISHED) == published_noncentrality(2, 0.05, 0.2)
