import math

import numpy as np
import pytest
from scipy.integrate import quad

from landscape_cli.bounds.sample_size import (
    Posterior,
    drifting_means,
    gaussian_kl,
    gaussian_s_score,
    shrinking_posteriors,
)

ONE = (0.3, 0.7, -0.4, 1.9)  # mean and variance of two distributions
KL, S_SCORE = 0.3124223097924057, 0.9100727212243762


def matrices(mean, variance, other, other_variance):
    return np.array([mean]), np.array([[variance]]), np.array([other]), np.array([[other_variance]])


def density(w, mean, variance):
    return math.exp(-0.5 * (w - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)


def random_gaussian(rng, size=3):
    root = rng.normal(size=(size, size))
    return rng.normal(size=size), root @ root.T + 0.1 * np.eye(size)


def test_known_answers():
    assert gaussian_kl(*matrices(*ONE)) == pytest.approx(KL, abs=1e-15)
    assert gaussian_s_score(*matrices(*ONE)) == pytest.approx(S_SCORE, abs=1e-15)


@pytest.mark.parametrize("given", [ONE, (1.0, 0.2, -1.0, 0.5), (0.0, 3.0, 0.1, 0.4)])
def test_kl_divergence_is_its_integral(given):
    mean, variance, other, other_variance = given
    found, _ = quad(
        lambda w: density(w, mean, variance) * math.log(density(w, mean, variance) / density(w, other, other_variance)),
        *(mean - 12 * math.sqrt(variance), mean + 12 * math.sqrt(variance)),
        epsabs=1e-12,
    )
    assert gaussian_kl(*matrices(*given)) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("given", [ONE, (1.0, 0.2, -1.0, 0.5), (0.0, 3.0, 0.1, 0.4)])
def test_s_score_is_the_overlap_over_the_largest_overlap_of_all_shifts(given):
    mean, variance, other, other_variance = given

    def overlap(shift):
        return quad(
            lambda w: density(w - shift, mean, variance) * density(w, other, other_variance), -30, 30, epsabs=1e-13
        )[0]

    largest = max(overlap(other - mean + shift) for shift in np.linspace(-0.5, 0.5, 11))
    assert gaussian_s_score(*matrices(*given)) == pytest.approx(overlap(0.0) / largest, abs=1e-9)


def test_several_dimensions_do_not_depend_on_the_coordinates_and_add_up():
    rng = np.random.default_rng(0)
    one, two, change = random_gaussian(rng), random_gaussian(rng), rng.normal(size=(3, 3))
    moved = [part for m, c in (one, two) for part in (change @ m, change @ c @ change.T)]
    for function in (gaussian_kl, gaussian_s_score):
        assert function(*moved) == pytest.approx(function(*one, *two), rel=1e-9)
        assert function(*one, *two) != pytest.approx(function(*two, *one), rel=1e-3) or function is gaussian_s_score
    means, spreads = np.array([[0.3, 1.0], [-0.4, -1.0]]), np.array([[0.7, 0.2], [1.9, 0.5]])
    joint = (means[0], np.diag(spreads[0]), means[1], np.diag(spreads[1]))
    parts = [matrices(means[0, i], spreads[0, i], means[1, i], spreads[1, i]) for i in range(2)]
    assert gaussian_kl(*joint) == pytest.approx(sum(gaussian_kl(*part) for part in parts), rel=1e-13)
    assert gaussian_s_score(*joint) == pytest.approx(math.prod(gaussian_s_score(*part) for part in parts), rel=1e-13)


def test_equal_distributions():
    mean, covariance = random_gaussian(np.random.default_rng(1))
    assert gaussian_kl(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-13)
    assert gaussian_s_score(mean, covariance, mean, covariance) == 1


@pytest.mark.parametrize(("precision", "noise"), [(1.0, 1.0), (0.01, 3.0), (50.0, 0.2)])
@pytest.mark.parametrize("features", [1, 4])
def test_an_added_object_is_the_direct_inversion(precision, noise, features):
    rng = np.random.default_rng(2)
    posterior = Posterior(features, precision, noise)
    xs, ys = rng.normal(size=(15, features)), rng.normal(size=15) * 3
    before = (np.zeros(features), np.eye(features) / precision)
    for k in range(1, len(xs) + 1):
        step = posterior.add(xs[k - 1], ys[k - 1])
        covariance = np.linalg.inv(precision * np.eye(features) + xs[:k].T @ xs[:k] / noise)
        after = (covariance @ xs[:k].T @ ys[:k] / noise, covariance)
        np.testing.assert_allclose(posterior.mean, after[0], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(posterior.covariance, after[1], rtol=1e-10, atol=1e-12)
        assert step.kl == pytest.approx(gaussian_kl(*before, *after), rel=1e-8, abs=1e-12)
        assert step.s_score == pytest.approx(gaussian_s_score(*before, *after), rel=1e-10)
        assert step.mean == pytest.approx(np.linalg.norm(after[0] - before[0]), rel=1e-8)
        assert step.covariance == pytest.approx(np.linalg.norm(after[1] - before[1]), rel=1e-8)
        before = after


def test_an_object_of_zeros_changes_nothing():
    posterior = Posterior(2, 1.0, 1.0)
    step = posterior.add(np.zeros(2), 5.0)
    assert (step.kl, step.s_score, step.mean, step.covariance) == (0, 1, 0, 0)


def test_posteriors_of_bounded_objects_come_together():
    rng = np.random.default_rng(3)
    posterior = Posterior(3, 1.0, 1.0)
    xs = rng.uniform(-1, 1, size=(4000, 3))
    steps = [posterior.add(x, x @ [1, -2, 0.5] + rng.normal()) for x in xs]
    early, late = steps[:40], steps[-400:]
    assert max(step.kl for step in late) < 0.02 < max(step.kl for step in early)
    assert min(step.s_score for step in late) > 0.99 > min(step.s_score for step in early)
    assert max(max(step.mean, step.covariance) for step in late) < 0.02


def test_shrinking_posteriors_never_come_together():
    k = np.array([1, 10, 1e4, 1e8])
    kl, s_score = shrinking_posteriors(k)
    for i, size in enumerate(k[:3]):
        pair = (0.0, 1 / size, size**-0.5, 1 / (size + 1))
        assert kl[i] == pytest.approx(gaussian_kl(*matrices(*pair)), rel=1e-10)
        assert s_score[i] == pytest.approx(gaussian_s_score(*matrices(*pair)), rel=1e-12)
    assert kl[-1] == pytest.approx(0.5, abs=1e-7)
    assert s_score[-1] == pytest.approx(math.exp(-0.25), abs=1e-7)


def test_drifting_means_differ_by_a_half_for_ever():
    k = np.arange(1, 10_000)
    np.testing.assert_allclose(drifting_means(k), 0.5, rtol=0, atol=1e-11)
    assert np.sqrt(k[-1] + 1) - np.sqrt(k[-1]) < 0.01  # though the means come together
    w = np.sqrt([7.0, 8.0])
    direct = [math.log(density(0.0, mean, 1.0)) for mean in w]
    assert drifting_means(np.array([7])) == pytest.approx([abs(direct[1] - direct[0])], rel=1e-12)


@pytest.mark.parametrize(("precision", "noise"), [(0, 1), (-1, 1), (1, 0), (1, -0.5)])
def test_a_posterior_needs_positive_precision_and_noise(precision, noise):
    with pytest.raises(ValueError, match=f"precision {precision}, noise {noise}; allowed: more than 0"):
        Posterior(2, precision, noise)
