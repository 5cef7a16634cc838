"""What the statistics of a posterior are, against simulation, quadrature and closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, log_expit
from scipy.stats import bernoulli, chi2, multivariate_normal, norm

from landscape_cli.samplesize import criteria
from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION
from landscape_cli.samplesize.fits import fit
from landscape_cli.samplesize.resamples import Subsamples, size_grid

TASKS = [REGRESSION, CLASSIFICATION]
DRAWS = 100_000


def resampled(design, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).multinomial(60, np.full(design.size, 1 / design.size), size=count).astype(float)


def posterior_draws(fits, k: int) -> np.ndarray:
    covariance = np.linalg.inv(fits.information[k])
    return np.random.default_rng(k).multivariate_normal(fits.coefficients[k], covariance, size=DRAWS, method="cholesky")


@pytest.mark.parametrize("task", TASKS)
def test_ball_of_the_posterior_agrees_with_simulation(drawn, task):
    design = drawn(task, 80, 6)
    fits = fit(design, resampled(design), 0.01)
    variances = criteria.posterior_variances(fits)
    radii = criteria.credible_radius(variances, 0.1)
    for k, radius in enumerate(radii):
        distances = np.linalg.norm(posterior_draws(fits, k) - fits.coefficients[k], axis=1)
        assert np.mean(distances <= radius) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / DRAWS))
        for wanted in (0.6 * radius, 1.3 * radius):
            found = criteria.coverage(variances, wanted)[k]
            assert np.mean(distances <= wanted) == pytest.approx(found, abs=4 * np.sqrt(found * (1 - found) / DRAWS))
        squares = distances**2
        total = criteria.total_variance(variances)[k]
        assert squares.mean() == pytest.approx(total, abs=4 * squares.std() / np.sqrt(DRAWS))


@pytest.mark.parametrize("n", [1, 3, 14])
def test_ball_of_an_isotropic_posterior_is_chi_square(n):
    variances = np.array([[0.2], [3.0]]) * np.ones(n)
    radii = criteria.credible_radius(variances, 0.05)
    np.testing.assert_allclose(radii, np.sqrt(np.array([0.2, 3.0]) * chi2.isf(0.05, n)), rtol=1e-9)
    np.testing.assert_allclose(criteria.coverage(variances, 0.7), chi2.cdf(0.49 / np.array([0.2, 3.0]), n), atol=1e-11)


@pytest.mark.parametrize("noise", [1.0, 0.3])
def test_variances_of_the_posterior(drawn, noise):
    design = drawn(REGRESSION, 80, 6)
    weights = resampled(design)
    found = criteria.posterior_variances(fit(design, weights, 0.5), noise)
    for own, variances in zip(weights, found, strict=True):
        covariance = noise * np.linalg.inv((design.X.T * own) @ design.X + 0.5 * np.eye(6))
        np.testing.assert_allclose(np.sort(variances), np.linalg.eigvalsh(covariance), rtol=1e-10)
        assert criteria.total_variance(variances[None])[0] == pytest.approx(np.trace(covariance))
        assert criteria.published_variance(variances[None])[0] == pytest.approx(np.linalg.norm(covariance) / 2)


@pytest.mark.parametrize("task", TASKS)
def test_expected_log_likelihood_agrees_with_simulation(drawn, task):
    design = drawn(task, 80, 5)
    weights = resampled(design)
    fits = fit(design, weights, 0.01)
    found = criteria.expected_log_likelihood(design, weights, fits)
    for k, own in enumerate(weights):
        predictors = posterior_draws(fits, k) @ design.X.T
        if design.linear:
            terms = norm.logpdf(design.y, predictors)
        else:
            terms = log_expit(np.where(design.y == 1, predictors, -predictors))
        totals = terms @ own
        assert found[k] == pytest.approx(totals.mean(), abs=4.5 * totals.std() / np.sqrt(DRAWS))


def test_expected_log_likelihood_of_a_regression_in_closed_form(drawn):
    design = drawn(REGRESSION, 80, 5)
    weights = resampled(design)
    fits = fit(design, weights, 0.01)
    for k, own in enumerate(weights):
        covariance = np.linalg.inv((design.X.T * own) @ design.X + 0.01 * np.eye(5))
        spread = np.einsum("ia,ab,ib->i", design.X, covariance, design.X)
        expected = own @ (norm.logpdf(design.y, design.X @ fits.coefficients[k]) - spread / 2)
        assert criteria.expected_log_likelihood(design, weights, fits)[k] == pytest.approx(expected, rel=1e-10)


def test_expected_log_likelihood_of_two_classes_agrees_with_quadrature(drawn):
    design = drawn(CLASSIFICATION, 80, 4)
    weights = resampled(design)
    fits = fit(design, weights, 0.01)
    found = criteria.expected_log_likelihood(design, weights, fits)
    for k, own in enumerate(weights):
        covariance = np.linalg.inv(fits.information[k])
        margins = design.signed @ fits.coefficients[k]
        deviation = np.sqrt(np.einsum("ia,ab,ib->i", design.X, covariance, design.X))
        total = 0.0
        for i in np.flatnonzero(own):

            def term(z, i=i, margins=margins, deviation=deviation):
                return norm.pdf(z) * log_expit(margins[i] + deviation[i] * z)

            total += own[i] * quad(term, -12, 12, epsabs=1e-10, limit=200)[0]
        # Twelve nodes: an object's error is 2e-8 where its margin's deviation is 1, and 1e-3 where it is 3.
        assert deviation.max() < 1.5
        assert found[k] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_published_utility_adds_a_prior_whose_variance_is_the_ridge(drawn, task):
    design = drawn(task, 80, 4)
    weights = resampled(design, 2)
    fits = fit(design, weights, 0.2)
    plain = criteria.utility(design, weights, fits, 0.01)
    likelihood = criteria.expected_log_likelihood(design, weights, fits)
    np.testing.assert_allclose(plain, likelihood / 60 - 0.6)
    found = criteria.published_utility(design, weights, fits, 0.01, 0.2)
    for k in range(2):
        prior = multivariate_normal(np.zeros(4), 0.2 * np.eye(4)).logpdf(posterior_draws(fits, k)) / 60
        assert found[k] - plain[k] == pytest.approx(prior.mean(), abs=4.5 * prior.std() / np.sqrt(DRAWS))


@pytest.mark.parametrize("task", TASKS)
def test_sum_over_objects_is_largest_at_the_smallest_size(drawn, task):
    # Why the utility has the mean: without a cost, too, the sum only falls.
    design = drawn(task, 200, 5)
    subsamples = Subsamples(design, 20, np.random.default_rng(0))
    sums, means = [], []
    for size in size_grid(design, 10):
        weights = subsamples.weights(size)
        fits = fit(design, weights, 0.01)
        sums.append(criteria.expected_log_likelihood(design, weights, fits).mean())
        means.append(criteria.utility(design, weights, fits, 0.001).mean())
    assert (np.diff(sums) < 0).all()
    assert 0 < np.argmax(means) < len(means) - 1


@pytest.mark.parametrize("task", TASKS)
def test_overfitting_is_the_gap_of_an_objects_log_likelihood(drawn, task):
    design = drawn(task, 80, 4)
    train, test = (w[None].repeat(3, axis=0) for w in resampled(design, 2))
    coefficients = np.random.default_rng(2).normal(size=(3, 4))
    found = criteria.overfitting(design, train, test, coefficients)
    for k in range(3):
        predictor = design.X @ coefficients[k]
        terms = norm.logpdf(design.y, predictor) if design.linear else bernoulli.logpmf(design.y, expit(predictor))
        rows = [np.repeat(np.arange(80), half[k].astype(int)) for half in (train, test)]
        assert found[k] == pytest.approx(terms[rows[0]].mean() - terms[rows[1]].mean(), rel=1e-9)


def test_widest_interval_is_of_the_coefficient_that_varies_most():
    random = np.random.default_rng(0)
    coefficients = random.normal(size=(2, 50_000, 3)) * [0.1, 2.0, 0.5] + [5, 0, -90]
    found = criteria.widest_interval(coefficients, 0.1)
    # A sample quantile's deviation is sqrt(q (1 - q) / B) over the density; two of them.
    error = 2 * np.sqrt(2 * 0.05 * 0.95 / 50_000) / norm.pdf(norm.ppf(0.05))
    np.testing.assert_allclose(found, 2 * 2 * norm.ppf(0.95), atol=4 * error)
