"""Batched ridge fits against scikit-learn, statsmodels and automatic differentiation."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy.special import expit, log_expit
from scipy.stats import bernoulli, norm
from sklearn.linear_model import LogisticRegression, Ridge

from landscape_cli.errors import MeasurementFailed
from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION
from landscape_cli.samplesize.fits import at, fit, fit_logistic, log_likelihood, log_sigmoid, sigmoid

TASKS = [REGRESSION, CLASSIFICATION]


def weightings(m: int, kind: str, count: int = 4) -> np.ndarray:
    random = np.random.default_rng(3)
    if kind == "ones":
        return np.ones((count, m))
    if kind == "repeated":  # zeros, and objects several times
        return random.multinomial(m, np.full(m, 1 / m), size=count).astype(float)
    return random.uniform(0, 2, size=(count, m)) * (random.random((count, m)) < 0.8)  # fractions and zeros


def reference(design, weights, ridge) -> np.ndarray:
    """Coefficients by another library."""
    if design.linear:
        model = Ridge(alpha=ridge, fit_intercept=False, solver="svd")
        return model.fit(design.X, design.y, sample_weight=weights).coef_
    if ridge:
        model = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-12, solver="newton-cholesky", max_iter=1000)
        return model.fit(design.X, design.y, sample_weight=weights).coef_[0]
    given = weights > 0
    model = sm.GLM(design.y[given], design.X[given], sm.families.Binomial(), freq_weights=weights[given])
    return model.fit(tol=1e-13, maxiter=200).params


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["ones", "repeated", "fractions"])
@pytest.mark.parametrize("ridge", [0.0, 0.01, 20.0])
def test_coefficients_are_those_of_other_libraries(drawn, task, kind, ridge):
    design = drawn(task, 150, 5)
    weights = weightings(150, kind)
    fits = fit(design, weights, ridge)
    for coefficients, own in zip(fits.coefficients, weights, strict=True):
        np.testing.assert_allclose(coefficients, reference(design, own, ridge), rtol=0, atol=1e-6)
    np.testing.assert_allclose(fits.count, weights.sum(axis=1))
    assert not fits.separable.any()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_integer_weights_are_repeated_rows(drawn, task, ridge):
    design = drawn(task, 80, 4)
    weights = weightings(80, "repeated", 3)
    fits = fit(design, weights, ridge)
    for k, own in enumerate(weights):
        repeated = design.take(np.repeat(np.arange(80), own.astype(int)))
        if design.linear:
            # Least squares with the ridge as n more observations of 0.
            stacked = np.vstack([repeated.X, np.sqrt(ridge) * np.eye(4)])
            expected = np.linalg.lstsq(stacked, np.append(repeated.y, np.zeros(4)))[0]
            residuals = repeated.y - repeated.X @ expected
            assert fits.squares[k] == pytest.approx(residuals @ residuals, rel=1e-10)
        elif ridge == 0:
            expected = sm.Logit(repeated.y, repeated.X).fit(disp=0, tol=1e-13).params
            assert np.isnan(fits.squares[k])
        else:
            expected = reference(repeated, np.ones(repeated.size), ridge)
        np.testing.assert_allclose(fits.coefficients[k], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_many_at_once_are_as_one_at_a_time(drawn, task):
    design = drawn(task, 100, 5)
    # Some need many more steps than others: few objects, a strong signal.
    weights = np.vstack([weightings(100, "fractions", 20), np.arange(100) < 25, np.ones(100)])
    together = fit(design, weights, 0.01)
    for k, own in enumerate(weights):
        alone = fit(design, own[None], 0.01)
        # Newton's last step leaves about the square of 1e-4.
        np.testing.assert_allclose(design.X @ together.coefficients[k], design.X @ alone.coefficients[0], atol=1e-7)
        np.testing.assert_allclose(together.information[k], alone.information[0], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("ridge", "distance"), [(0.0, 1.0), (0.0, 4.0), (0.01, 4.0), (0.01, 30.0), (1.0, 30.0)])
def test_a_start_far_away_comes_to_the_same(drawn, ridge, distance):
    design = drawn(CLASSIFICATION, 150, 5)
    weights = weightings(150, "repeated", 6)
    start = distance * np.random.default_rng(0).choice([-1.0, 1.0], size=(6, 5))
    near, far = (fit(design, weights, ridge, begin).coefficients for begin in (None, start))
    np.testing.assert_allclose(far @ design.X.T, near @ design.X.T, rtol=0, atol=1e-7)


def test_separable_classes_need_a_ridge(apart, drawn):
    everything = np.ones((1, apart.size))
    with pytest.raises(MeasurementFailed, match="ridge"):
        fit(apart, everything, 0.0)
    fits = fit(apart, everything, 0.01)
    assert fits.separable.all()
    np.testing.assert_allclose(fits.coefficients[0], reference(apart, np.ones(apart.size), 0.01), rtol=0, atol=1e-6)


def test_only_the_objects_of_a_resample_decide_whether_it_is_separable(drawn):
    design = drawn(CLASSIFICATION, 150, 5)
    whole = fit(design, np.ones((1, 150)), 0.01).coefficients[0]
    right = (design.X @ whole > 0) == (design.y == 1)
    weights = np.array([np.ones(150), right])
    np.testing.assert_array_equal(fit(design, weights, 0.01).separable, [False, True])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["repeated", "fractions"])
def test_information_is_the_hessian(drawn, task, kind):
    design = drawn(task, 90, 4)
    weights = weightings(90, kind, 3)
    fits = fit(design, weights, 0.3)
    X, y = torch.tensor(design.X), torch.tensor(design.y)
    exact = fits if design.linear else at(design, weights, 0.3, fits.coefficients)
    for k in range(3):
        own = torch.tensor(weights[k])

        def loss(w, own=own):
            predictor = X @ w
            if design.linear:
                terms = 0.5 * (y - predictor) ** 2
            else:
                terms = torch.nn.functional.binary_cross_entropy_with_logits(predictor, y, reduction="none")
            return (own * terms).sum() + 0.15 * w @ w

        expected = torch.autograd.functional.hessian(loss, torch.tensor(fits.coefficients[k])).numpy()
        np.testing.assert_allclose(exact.information[k], expected, atol=1e-10)
        np.testing.assert_allclose(exact.information[k] - exact.gram[k], 0.3 * np.eye(4), atol=1e-12)
        # Of a logistic fit it is where the last step began: variances p (1 - p) off by a factor below exp(1e-4).
        ratios = np.linalg.eigvals(np.linalg.solve(expected, fits.information[k]))
        np.testing.assert_allclose(ratios, 1, rtol=0, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_log_likelihood_is_the_weighted_sum_of_the_objects(drawn, task):
    design = drawn(task, 60, 4)
    weights = weightings(60, "fractions", 3)
    coefficients = np.random.default_rng(2).normal(size=(3, 4))
    found = log_likelihood(design, weights, coefficients)
    for value, own, w in zip(found, weights, coefficients, strict=True):
        predictor = design.X @ w
        terms = norm.logpdf(design.y, predictor) if design.linear else bernoulli.logpmf(design.y, expit(predictor))
        assert value == pytest.approx(own @ terms, rel=1e-10)


def test_offsets_fractional_targets_and_a_ridge_of_each_coefficient(drawn):
    design = drawn(CLASSIFICATION, 120, 4)
    random = np.random.default_rng(4)
    targets, weights = random.random((3, 120)), random.integers(0, 3, size=(3, 120)).astype(float)
    offset, ridge = random.normal(size=(3, 120)), np.array([0.0, 5.0, 0.1, 0.0])
    found, _ = fit_logistic(design, targets, weights, ridge, offset=offset)
    free, _ = fit_logistic(design, targets, weights, 0.0, offset=offset)
    for k in range(3):
        # The objective is concave: where its gradient vanishes is its only maximum.
        residuals = weights[k] * (targets[k] - expit(design.X @ found[k] + offset[k]))
        np.testing.assert_allclose(design.X.T @ residuals, ridge * found[k], atol=1e-5)
        given = weights[k] > 0
        model = sm.GLM(
            targets[k][given],
            design.X[given],
            sm.families.Binomial(),
            offset=offset[k][given],
            freq_weights=weights[k][given],
        )
        np.testing.assert_allclose(free[k], model.fit(tol=1e-13).params, rtol=0, atol=1e-6)


def test_sigmoids_are_right_far_out():
    t = np.concatenate([np.linspace(-40, 40, 321), [-1e4, -800.0, -745.0, 745.0, 800.0, 1e4]])
    with np.errstate(all="raise", under="ignore"):
        found, logarithm = sigmoid(t), log_sigmoid(t)
    np.testing.assert_allclose(found, expit(t), rtol=1e-14, atol=1e-300)
    np.testing.assert_allclose(logarithm, log_expit(t), rtol=1e-14, atol=4e-16)
