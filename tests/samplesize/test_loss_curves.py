"""D and M, and the four own methods' curves, against refits of every sample with another library."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import bernoulli, norm
from sklearn.linear_model import LinearRegression, LogisticRegression

from landscape_cli.bounds.sample_size import gaussian_kl, gaussian_s_score
from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION, Design, standardised
from landscape_cli.samplesize.likelihood import LOG_LIKELIHOOD, MEAN_SQUARE, Losses, least_squares, loss_curve
from landscape_cli.samplesize.methods import curves
from landscape_cli.samplesize.resamples import Bootstrap, PublishedResamples, Subsamples
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED, KL, D, M, S, Thresholds

TASKS, BOTH = [REGRESSION, CLASSIFICATION], [LOG_LIKELIHOOD, MEAN_SQUARE]
SIZES = np.array([12, 20, 21, 45])


def without_intercept(design: Design) -> Design:
    return Design(design.X[:, :-1], design.y, design.task, design.objects)


def loss_of(design: Design, rows: np.ndarray, loss: str, noise: float = 1.0, ridge: float = 0.01) -> float:
    """Fit these rows, and look at all objects."""
    X, y, intercept = design.X, design.y, (design.X[:, -1] == 1).all()
    if design.linear:
        if intercept:
            predicted = LinearRegression().fit(X[rows, :-1], y[rows]).predict(X[:, :-1])
        else:
            predicted = X @ np.linalg.lstsq(X[rows], y[rows], rcond=1e-8)[0]
        if loss == MEAN_SQUARE:
            return np.mean((y - predicted) ** 2)
        return norm.logpdf(y, predicted, np.sqrt(noise)).sum()
    options = {"tol": 1e-12, "solver": "newton-cholesky", "max_iter": 1000}
    model = LogisticRegression(C=1 / ridge, fit_intercept=False, **options).fit(X[rows], y[rows])
    found = bernoulli.logpmf(y, expit(X @ model.coef_[0]))
    return -found.mean() if loss == MEAN_SQUARE else found.sum()


def replayed(design: Design, sizes: np.ndarray, count: int, seed: int, loss: str, nested: bool, **options):
    """Losses (S, B) of the samples that a generator gives, and of those with one object more."""
    random, m = np.random.default_rng(seed), design.size
    if nested:
        drawn = random.integers(m, size=(count, sizes[-1] + 1))
        own, after = (
            np.array([[loss_of(design, row[: k + more], loss, **options) for row in drawn] for k in sizes])
            for more in (0, 1)
        )
        return own, after
    fresh = {k: random.integers(m, size=(count, k)) for k in sizes[::-1]}
    return np.array([[loss_of(design, row, loss, **options) for row in fresh[k]] for k in sizes]), None


CASES = [
    *product([REGRESSION], BOTH, [True, False], [True, False]),
    (CLASSIFICATION, LOG_LIKELIHOOD, True, True),
    (CLASSIFICATION, LOG_LIKELIHOOD, False, False),
    (CLASSIFICATION, MEAN_SQUARE, True, True),
]


@pytest.mark.parametrize(("task", "loss", "nested", "intercept"), CASES)
def test_moments_are_those_of_a_loop_over_the_same_samples(drawn, task, loss, nested, intercept):
    design = drawn(task, 60, 5, seed=3)
    design = design if intercept else without_intercept(design)
    options = {"noise": 0.6} if task == REGRESSION else {"ridge": 0.2}
    found = loss_curve(design, SIZES, 12, np.random.default_rng(4), loss, nested=nested, **options)
    own, after = replayed(design, SIZES, 12, 4, loss, nested, **options)
    close = {"rtol": 1e-6}
    np.testing.assert_array_equal(found.sizes, SIZES)
    np.testing.assert_allclose(found.mean, own.mean(axis=1), **close)
    np.testing.assert_allclose(found.variance, own.var(axis=1, ddof=1), rtol=1e-5)
    fourth = np.mean((own - own.mean(axis=1, keepdims=True)) ** 4, axis=1)
    error = np.sqrt((fourth - own.var(axis=1, ddof=1) ** 2) / 12)
    np.testing.assert_allclose(found.variance_error, error, rtol=1e-4)
    variance = own.var(axis=1, ddof=1)
    if nested:
        np.testing.assert_allclose(found.change, (after - own).mean(axis=1), rtol=1e-4)
        np.testing.assert_allclose(found.change_error, (after - own).std(axis=1, ddof=1) / np.sqrt(12), rtol=1e-4)
        independent = np.sqrt((variance + after.var(axis=1, ddof=1)) / 12)
        np.testing.assert_allclose(found.independent_error, independent, rtol=1e-4)
    else:
        np.testing.assert_allclose(found.change[:-1], np.diff(own.mean(axis=1)), rtol=1e-4)
        error = np.sqrt((variance[1:] + variance[:-1]) / 12)
        np.testing.assert_allclose(found.change_error[:-1], error, rtol=1e-4)
        np.testing.assert_allclose(found.independent_error[:-1], error, rtol=1e-4)
        assert np.isnan([found.change[-1], found.change_error[-1], found.independent_error[-1]]).all()


@pytest.mark.parametrize("task", TASKS)
def test_mean_loss_and_likelihood_are_two_faces_of_the_same_fits(drawn, task):
    design, noise = drawn(task, 60, 4), 0.7
    if task == CLASSIFICATION:
        noise = 1.0
    log, mean = (loss_curve(design, SIZES, 8, np.random.default_rng(1), loss, noise) for loss in BOTH)
    scale, shift = (-30 / noise, -30 * np.log(2 * np.pi * noise)) if task == REGRESSION else (-60, 0)
    np.testing.assert_allclose(log.mean, scale * mean.mean + shift, rtol=1e-9)
    np.testing.assert_allclose(log.variance, scale**2 * mean.variance, rtol=1e-6)


class TestLeastSquares:
    @pytest.mark.parametrize("rows", [1, 3, 5, 9])
    @pytest.mark.parametrize("copies", [False, True])
    def test_least_norm(self, rows, copies):
        random = np.random.default_rng(5)
        X, y = random.normal(size=(7, rows, 5)), random.normal(size=(7, rows))
        if copies:
            X[:, :, 3] = 2 * X[:, :, 0] - X[:, :, 1]
            X[:3, :, 4] = 0  # never seen
        transposed = np.swapaxes(X, 1, 2)
        found = least_squares(transposed @ X, (transposed @ y[:, :, None])[:, :, 0])
        for one in range(7):
            expected = np.linalg.lstsq(X[one], y[one], rcond=1e-7)[0]
            np.testing.assert_allclose(found[one], expected, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(found[one], np.linalg.pinv(X[one], rcond=1e-7) @ y[one], rtol=1e-6, atol=1e-7)

    def test_with_many_objects_both_ways_agree_and_a_failed_factorisation_is_no_end(self):
        random = np.random.default_rng(5)
        X, y = random.normal(size=(4, 30, 3)), random.normal(size=(4, 30))
        expected = np.array([np.linalg.lstsq(*pair, rcond=None)[0] for pair in zip(X, y, strict=True)])
        gram, against = np.swapaxes(X, 1, 2) @ X, np.einsum("kij,ki->kj", X, y)
        for few in (True, False):
            np.testing.assert_allclose(least_squares(gram, against, few), expected, rtol=1e-9)
        X[2, :, 1] = 0
        gram, against = np.swapaxes(X, 1, 2) @ X, np.einsum("kij,ki->kj", X, y)
        expected[2] = np.linalg.lstsq(X[2], y[2], rcond=None)[0]
        np.testing.assert_allclose(least_squares(gram, against, few=False), expected, rtol=1e-9, atol=1e-12)


def encoded(deficient: bool, m: int = 80, scaled: bool = False) -> Design:
    """A number and two words, one column a value; the first value of each left out, or not."""
    random = np.random.default_rng(7)
    words = [np.eye(levels)[random.integers(levels, size=m)][:, 0 if deficient else 1 :] for levels in (6, 4)]
    X = np.column_stack([random.normal(size=m), *words])
    y = X @ random.normal(size=X.shape[1]) + 2 + random.normal(size=m)
    if scaled:
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    return Design(np.column_stack([X, np.ones(m)]), y, REGRESSION, np.arange(m))


class TestSamplesThatDoNotSettleAllParameters:
    @pytest.mark.parametrize("deficient", [False, True])
    @pytest.mark.parametrize("scaled", [False, True])
    @pytest.mark.parametrize("size", [2, 5, 11, 20, 60])
    @pytest.mark.parametrize("loss", BOTH)
    def test_losses_are_those_of_sklearn(self, deficient, scaled, size, loss):
        design = encoded(deficient, scaled=scaled)
        rank = np.linalg.matrix_rank(design.X)
        assert (rank < design.features) == deficient
        random = np.random.default_rng(size)
        drawn, extra = random.integers(80, size=(15, size)), random.integers(80, size=15)
        unsettled = np.array([np.linalg.matrix_rank(design.X[rows]) < rank for rows in drawn])
        assert unsettled.any() == (size < 60)
        own, after, start = Losses(design, loss).of(drawn, extra)
        assert start is None
        for b, rows in enumerate(drawn):
            assert own[b] == pytest.approx(loss_of(design, rows, loss), rel=1e-6)
            assert after[b] == pytest.approx(loss_of(design, np.append(rows, extra[b]), loss), rel=1e-6)
        alone, none, _ = Losses(design, loss).of(drawn, None)
        np.testing.assert_array_equal(alone, own)
        assert np.isnan(none).all()

    @pytest.mark.parametrize("scaled", [False, True])
    def test_a_rare_value_that_a_large_sample_lacks(self, scaled):
        random = np.random.default_rng(0)
        X = random.normal(size=(300, 5))
        X[:, 1] = np.arange(300) < 4
        y = X @ [1.0, 2.0, 0.0, 0.0, 1.0] + random.normal(size=300)
        if scaled:
            design = standardised(X, y, REGRESSION)
        else:
            design = Design(np.column_stack([X, np.ones(300)]), y, REGRESSION, np.arange(300))
        drawn = random.integers(300, size=(40, 40))
        assert 5 < (drawn >= 4).all(axis=1).sum() < 40
        own, _, _ = Losses(design).of(drawn, None)
        np.testing.assert_allclose(own, [loss_of(design, rows, LOG_LIKELIHOOD) for rows in drawn], rtol=1e-6)

    def test_a_rare_value_where_columns_are_open_whatever_the_sample(self):
        random = np.random.default_rng(0)
        X, rare = random.normal(size=(300, 5)), np.arange(300) < 4
        X[:, 1], X[:, 2] = rare, ~rare
        y = X @ [1.0, 2.0, 0.0, 0.0, 1.0] + random.normal(size=300)
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        design = Design(np.column_stack([scaled, np.ones(300)]), y, REGRESSION, np.arange(300))
        drawn = random.integers(300, size=(40, 40))
        # One at a time: a factorisation that fails would have all of them solved with care.
        own = [Losses(design).of(rows[None], None)[0][0] for rows in drawn]
        np.testing.assert_allclose(own, [loss_of(design, rows, LOG_LIKELIHOOD) for rows in drawn], rtol=1e-6)

    def test_days_without_rain(self, real_table):
        """Eight of the 517 days of the forest fires had rain."""
        design = real_table("forest_fires")
        drawn = np.random.default_rng(0).integers(517, size=(60, 4 * design.features))
        own, _, _ = Losses(design).of(drawn, None)
        np.testing.assert_allclose(own, [loss_of(design, rows, LOG_LIKELIHOOD) for rows in drawn], rtol=1e-6)


def one_feature(m: int) -> Design:
    random = np.random.default_rng(13)
    x = random.uniform(0.5, 2, size=m)
    return Design(x[:, None], 0.8 * x + random.normal(size=m), REGRESSION, np.arange(m))


def squares_of(design: Design, weights: np.ndarray) -> np.ndarray:
    """Mean squares of one-feature fits to weightings (K, m)."""
    x, y = design.X[:, 0], design.y
    slopes = weights @ (x * y) / (weights @ x**2)
    return np.mean((y - slopes[:, None] * x) ** 2, axis=1)


def all_samples(design: Design, k: int) -> np.ndarray:
    """The loss of each of the m^k samples, equally likely."""
    m = design.size
    drawn = np.stack(np.meshgrid(*[np.arange(m)] * k, indexing="ij"), axis=-1).reshape(-1, k)
    return squares_of(design, np.stack([(drawn == i).sum(axis=1) for i in range(m)], axis=1))


class TestExpectations:
    def test_every_sample_of_a_few_objects(self):
        """m^k samples are few enough to look at all: the moments are then known exactly."""
        design = one_feature(5)
        found = loss_curve(design, np.array([4, 5]), 20_000, np.random.default_rng(1), MEAN_SQUARE)
        exact = [all_samples(design, k) for k in (4, 5, 6)]
        for place in (0, 1):
            error = np.sqrt(found.variance[place] / 20_000)
            assert found.mean[place] == pytest.approx(exact[place].mean(), abs=4 * error)
            assert found.variance[place] == pytest.approx(exact[place].var(), abs=4 * found.variance_error[place])
            change = exact[place + 1].mean() - exact[place].mean()
            assert found.change[place] == pytest.approx(change, abs=4 * found.change_error[place])
            assert found.change_error[place] < 0.1 * abs(change)

    @pytest.mark.parametrize("nested", [True, False])
    def test_a_large_simulation(self, nested):
        design, sizes, random = one_feature(30), np.array([6, 15]), np.random.default_rng(2)
        found = loss_curve(design, sizes, 20_000, np.random.default_rng(3), MEAN_SQUARE, nested=nested)
        for place, k in enumerate(sizes):
            simulated = squares_of(design, random.multinomial(k, np.full(30, 1 / 30), size=100_000))
            error = np.sqrt(simulated.var() * (1 / 20_000 + 1 / 100_000))
            assert found.mean[place] == pytest.approx(simulated.mean(), abs=4 * error)
            assert found.variance[place] == pytest.approx(simulated.var(), abs=4.5 * found.variance_error[place])


@pytest.fixture(scope="module")
def repeats(drawn) -> dict[bool, list]:
    """The same curve with 200 generators, nested and not."""
    design, sizes = drawn(REGRESSION, 60, 3), np.array([50, 51])
    return {
        nested: [
            loss_curve(design, sizes, 400, np.random.default_rng([seed, nested]), nested=nested) for seed in range(200)
        ]
        for nested in (True, False)
    }


class TestStandardErrors:
    @pytest.mark.parametrize("nested", [True, False])
    @pytest.mark.parametrize("name", ["change", "variance"])
    def test_estimates_spread_as_much_as_is_said(self, repeats, nested, name):
        estimates = np.array([getattr(found, name)[0] for found in repeats[nested]])
        said = np.array([getattr(found, f"{name}_error")[0] for found in repeats[nested]])
        # Squares of standard errors are without bias; losses have heavy tails, where their roots are low on average.
        assert np.sqrt(np.mean(said**2)) == pytest.approx(estimates.std(ddof=1), rel=0.15)
        assert said.mean() == pytest.approx(estimates.std(ddof=1), rel=0.15 if name == "change" else 0.25)

    def test_independent_error_is_that_of_independent_samples(self, repeats):
        """Fresh samples of 50 and of 51 objects, beside what the nested run says they would give."""
        estimates = np.array([found.change[0] for found in repeats[False]])
        said = np.array([found.independent_error[0] for found in repeats[True]])
        assert said.mean() == pytest.approx(estimates.std(ddof=1), rel=0.15)
        # Both estimate the same change.
        nested = np.array([found.change[0] for found in repeats[True]])
        error = np.sqrt((estimates.var(ddof=1) + nested.var(ddof=1)) / 200)
        assert nested.mean() == pytest.approx(estimates.mean(), abs=4 * error)

    @pytest.mark.parametrize("task", TASKS)
    def test_common_random_numbers_make_it_several_times_smaller(self, drawn, task):
        design = drawn(task, 300, 6)
        sizes = np.unique(np.linspace(12, 300, 12).astype(int))
        found = loss_curve(design, sizes, 300, np.random.default_rng(2), ridge=1.0)
        gain = found.independent_error / found.change_error
        assert np.median(gain) >= 5
        assert gain[-1] > gain[0]


WATCHED, COUNT, SEED = np.array([24, 50, 79, 80]), 14, 11
CHOSEN = Thresholds(ridge=0.3, precision=1.7, part=0.4, deviation=0.07)


def sources(design: Design, variant: str) -> list[tuple]:
    """What D and M, and KL and S look at: two parts, each with its own generator."""
    found = []
    for part in np.random.default_rng(SEED).spawn(2):
        kinds = (Subsamples, Bootstrap) if variant == AS_DEFINED else (PublishedResamples, PublishedResamples)
        first, second = (kind(design, COUNT // 2, part) for kind in kinds)
        nested = first if variant == AS_DEFINED else Subsamples(design, COUNT // 2, part)
        found.append((second, nested))
    return found


def posterior(design: Design, rows: np.ndarray, precision: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance; for two classes by Laplace's approximation."""
    X, y, prior = design.X[rows], design.y[rows], precision * np.eye(design.features)
    if design.linear:
        covariance = np.linalg.inv(X.T @ X + prior)
        return covariance @ X.T @ y, covariance
    options = {"tol": 1e-12, "solver": "newton-cholesky", "max_iter": 1000}
    w = LogisticRegression(C=1 / precision, fit_intercept=False, **options).fit(X, y).coef_[0]
    p = expit(X @ w)
    return w, np.linalg.inv((X.T * (p * (1 - p))) @ X + prior)


class TestCurves:
    @pytest.mark.parametrize("task", TASKS)
    def test_d_and_m(self, drawn, task):
        design = drawn(task, 80, 4, seed=2)
        found = curves(design, [D, M], AS_DEFINED, CHOSEN, WATCHED, COUNT, np.random.default_rng(SEED), False)
        assert set(found) == {D, M}
        bootstraps = [bootstrap for bootstrap, _ in sources(design, AS_DEFINED)]
        for place, size in enumerate(WATCHED):
            rows, extra = (np.concatenate(parts) for parts in zip(*(b.draws(size) for b in bootstraps), strict=True))
            assert rows.shape == (COUNT, size)
            longer = np.column_stack([rows, extra])
            own, after = (
                np.array([loss_of(design, row, LOG_LIKELIHOOD, ridge=0.3) for row in each]) for each in (rows, longer)
            )
            variance = own.var(ddof=1)
            assert found[D].values[place] == pytest.approx(variance, rel=1e-4)
            fourth = np.mean((own - own.mean()) ** 4)
            assert found[D].errors[place] > 0
            assert found[D].errors[place] == pytest.approx(np.sqrt(max(fourth - variance**2, 0) / COUNT), rel=1e-3)
            change = after - own
            assert found[M].values[place] == pytest.approx(abs(change.mean()), rel=1e-4, abs=1e-5)
            assert found[M].errors[place] == pytest.approx(change.std(ddof=1) / np.sqrt(COUNT), rel=1e-3)
        for name in (D, M):
            assert found[name].threshold == 0.4 * found[name].values[0]
            np.testing.assert_array_equal(found[name].sizes, WATCHED)

    def test_they_are_moments_of_loss_curve(self, drawn):
        """Of other samples, so within their standard errors."""
        design, sizes = drawn(REGRESSION, 80, 4, seed=2), np.array([20, 40, 80])
        found = curves(design, [D, M], AS_DEFINED, CHOSEN, sizes, 3000, np.random.default_rng(1), False)
        other = loss_curve(design, sizes, 3000, np.random.default_rng(2))
        for name, values, errors in (
            (D, other.variance, other.variance_error),
            (M, np.abs(other.change), other.change_error),
        ):
            between = np.hypot(found[name].errors, errors)
            assert (np.abs(found[name].values - values) < 4 * between).all()
            assert (between < 0.3 * values).all()

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("variant", [AS_DEFINED, AS_PUBLISHED])
    def test_kl_and_s(self, drawn, task, variant):
        design = drawn(task, 80, 4, seed=2)
        found = curves(design, [KL, S], variant, CHOSEN, WATCHED, COUNT, np.random.default_rng(SEED), False)
        assert set(found) == {KL, S}
        nested = [source for _, source in sources(design, variant)]
        for place, size in enumerate(WATCHED):
            k = min(size, 79)
            with_it, last = (
                np.concatenate([getattr(source, name)(number) for source in nested])
                for name, number in (("weights", k + 1), ("next", k))
            )
            expected = []
            for row, one in zip(with_it, last, strict=True):
                rows = np.flatnonzero(row)
                assert len(rows) == k + 1
                whole = posterior(design, rows, 1.7)
                # A regression's may have come last in any order; else one object that is drawn.
                every = design.linear and variant == AS_DEFINED
                pairs = [
                    (posterior(design, rows[rows != left], 1.7), whole)
                    for left in (rows if every else np.flatnonzero(one))
                ]
                each = [(gaussian_kl(*a, *b), gaussian_s_score(*a, *b)) for a, b in pairs]
                expected.append(np.mean(each, axis=0))
            tolerance = 1e-9 if design.linear else 2e-4  # a logistic fit's curvature is known to about 1e-4
            for name, values in zip((KL, S), np.transpose(expected), strict=True):
                assert found[name].values[place] == pytest.approx(values.mean(), rel=tolerance), (name, size)
                error = values.std(ddof=1) / np.sqrt(COUNT)
                assert found[name].errors[place] == pytest.approx(error, rel=50 * tolerance, abs=1e-12), (name, size)
        assert found[KL].threshold == found[S].threshold == 0.07
        # All objects but one, both times.
        assert found[KL].values[-1] == pytest.approx(found[KL].values[-2], rel=tolerance)

    def test_the_mean_over_which_object_came_last_has_the_same_expectation_and_less_spread(self, drawn):
        design, sizes = drawn(REGRESSION, 80, 4, seed=2), np.array([20, 40, 60])
        defined, published = (
            curves(design, [KL, S], variant, CHOSEN, sizes, 1500, np.random.default_rng(3), False)
            for variant in (AS_DEFINED, AS_PUBLISHED)
        )
        for name in (KL, S):
            between = np.hypot(defined[name].errors, published[name].errors)
            assert (np.abs(defined[name].values - published[name].values) < 4 * between).all()
            assert (defined[name].errors < 0.5 * published[name].errors).all()
