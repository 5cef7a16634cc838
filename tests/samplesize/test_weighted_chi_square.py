"""Weighted sums of squared normals against closed forms, and against Imhof's integral."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, expon

from landscape_cli.samplesize.weighted_chi_square import cdf, quantile

PROBABILITIES = [0.001, 0.05, 0.5, 0.8, 0.95, 0.999]


def hypoexponential(x: float, rates: np.ndarray) -> float:
    factors = [np.prod([other / (other - rate) for other in rates if other != rate]) for rate in rates]
    return float(sum(factor * expon.cdf(rate * x) for factor, rate in zip(factors, rates, strict=True)))


def imhof(x: float, eigenvalues: np.ndarray) -> float:
    """Imhof (1961): the distribution function as a real integral, split where its oscillation takes over."""

    def parts(u):
        angle = 0.5 * np.arctan(eigenvalues * u).sum()
        return angle, 1 / (u * np.prod(1 + (eigenvalues * u) ** 2) ** 0.25)

    def whole(u):
        angle, size = parts(u)
        return np.sin(angle - x * u / 2) * size

    split = 20 / x
    near = quad(whole, 0, split, epsabs=1e-12, epsrel=0, limit=2000)[0]
    rules = {"weight": "cos", "epsabs": 1e-12, "limit": 2000, "limlst": 2000}
    cosine = quad(lambda u: np.sin(parts(u)[0]) * parts(u)[1], split, np.inf, wvar=x / 2, **rules)[0]
    rules["weight"] = "sin"
    sine = quad(lambda u: np.cos(parts(u)[0]) * parts(u)[1], split, np.inf, wvar=x / 2, **rules)[0]
    return 0.5 - (near + cosine - sine) / np.pi


@pytest.mark.parametrize("n", [1, 2, 5, 14, 20, 40])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_equal_eigenvalues_give_chi_square(n, scale):
    x = chi2.ppf([1e-8, *PROBABILITIES, 1 - 1e-8], n)
    spectra = np.full((len(x), n), scale)
    np.testing.assert_allclose(cdf(scale * x, spectra), chi2.cdf(x, n), rtol=0, atol=1e-11)
    for probability in PROBABILITIES:  # its lowest: below
        np.testing.assert_allclose(quantile(probability, spectra[0]), scale * chi2.ppf(probability, n), rtol=1e-9)


@pytest.mark.parametrize(("probability", "n"), [(1e-6, 25), (1e-4, 40), (1e-3, 40)])
def test_low_quantiles_of_many_equal_eigenvalues(probability, n):
    np.testing.assert_allclose(quantile(probability, np.ones(n)), chi2.ppf(probability, n), rtol=1e-9)


@pytest.mark.parametrize("pairs", [[1.0], [1.0, 2.0], [0.01, 0.4, 3.0], [1e-3, 0.05, 0.3, 1.0, 10.0]])
def test_pairs_of_equal_eigenvalues_give_sums_of_exponentials(pairs):
    # λ (z₁² + z₂²) is exponential with the mean 2 λ.
    pairs = np.array(pairs)
    for x in pairs.sum() * np.array([0.02, 0.3, 2.0, 6.0, 20.0]):
        assert cdf(x, np.repeat(pairs, 2)) == pytest.approx(hypoexponential(x, 1 / (2 * pairs)), abs=1e-11)


@pytest.mark.parametrize("n", [6, 14, 40])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0, 3.0])
def test_spread_spectrum_agrees_with_imhof(n, share):
    spectrum = np.logspace(-4, 0, n)
    x = share * spectrum.sum()
    assert cdf(x, spectrum) == pytest.approx(imhof(x, spectrum), abs=1e-9)


def test_spread_spectrum_agrees_with_simulation():
    spectrum = np.logspace(-4, 0, 9)
    squares = np.random.default_rng(0).standard_normal((200_000, 9)) ** 2 @ spectrum
    for x in spectrum.sum() * np.array([0.2, 1.0, 2.5]):
        expected = cdf(x, spectrum)
        assert np.mean(squares <= x) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 200_000))


@pytest.mark.parametrize("x", [0.0, -1e-300, -3.0, -np.inf])
def test_nothing_lies_at_or_below_zero(x):
    assert cdf(x, np.array([1.0, 2.0])) == 0
    np.testing.assert_array_equal(cdf(x, np.ones((3, 2))), np.zeros(3))


def test_each_spectrum_has_its_own_x():
    spectra, x = np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([-1.0, 3.0])
    np.testing.assert_allclose(cdf(x, spectra), [0, -np.expm1(-3 / 4)], atol=1e-12)


@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("n", [2, 7, 20, 21, 40])
def test_quantile_is_the_inverse(probability, n):
    spectra = 10 ** np.random.default_rng(n).uniform(-4, 2, size=(3, 5, n))
    x = quantile(probability, spectra)
    assert x.shape == (3, 5)
    np.testing.assert_allclose(cdf(x, spectra), probability, rtol=0, atol=1e-10)
    np.testing.assert_allclose(quantile(probability, spectra[1, 2]), x[1, 2], rtol=1e-9)  # alone as among others


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_quantile_refuses_what_is_no_probability(probability):
    with pytest.raises(ValueError, match="inside"):
        quantile(probability, np.ones(3))
