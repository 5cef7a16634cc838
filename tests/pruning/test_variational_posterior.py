"""The variational posterior where it is known in closed form, and what its fit promises elsewhere."""

import numpy as np
import pytest
import torch
from scipy import integrate

from landscape_cli.errors import MeasurementFailed
from landscape_cli.models.mlp import FeedForward
from landscape_cli.pruning.posterior import fit_posterior
from landscape_cli.rng import generator

NETWORKS, OBJECTS, FEATURES = 3, 40, 5
ALPHA, NOISE = 2.0, 0.5


@pytest.fixture
def linear():
    """A linear model, correlated features, and a start away from the answer."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(NETWORKS, OBJECTS, FEATURES, generator=draw, dtype=torch.float64)
    x[..., 1] += 0.5 * x[..., 0]
    y = torch.randn(NETWORKS, OBJECTS, generator=draw, dtype=torch.float64)
    start = {"0.weight": torch.ones(NETWORKS, 1, FEATURES, dtype=torch.float64)}
    return FeedForward(FEATURES, 1, []), start, x, y


def generators(count=NETWORKS):
    return [generator(seed, "posterior") for seed in range(count)]


def exact(x, y, alpha=ALPHA, noise=NOISE):
    precision = x.mT @ x / noise + alpha * torch.eye(FEATURES, dtype=torch.float64)
    return torch.linalg.solve(precision, x.mT @ y[..., None] / noise)[..., 0], precision


def test_full_covariance_of_a_linear_model_is_the_exact_posterior(linear):
    model, start, x, y = linear
    fixed = {"prior_precision": ALPHA, "noise_variance": NOISE, "generators": generators()}
    found = fit_posterior(model, start, x, y, iterations=120, **fixed)
    mean, precision = exact(x, y)
    torch.testing.assert_close(found.mean, mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.precision, precision, rtol=1e-8, atol=1e-9)
    inverse = torch.stack([torch.linalg.inv(own) for own in precision])
    torch.testing.assert_close(found.covariance, inverse, rtol=1e-8, atol=1e-9)


def test_mean_field_of_a_linear_model_has_its_mean_and_the_precisions_diagonal(linear):
    model, start, x, y = linear
    fixed = {"prior_precision": ALPHA, "noise_variance": NOISE, "generators": generators()}
    found = fit_posterior(model, start, x, y, covariance="diagonal", iterations=400, **fixed)
    mean, precision = exact(x, y)
    torch.testing.assert_close(found.mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.precision, precision.diagonal(dim1=1, dim2=2), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.covariance, torch.diag_embed(1 / found.precision))


def test_the_bound_of_an_exact_posterior_is_the_evidence(linear):
    model, start, x, y = linear
    fixed = {"prior_precision": ALPHA, "noise_variance": NOISE, "generators": generators()}
    found = fit_posterior(model, start, x, y, iterations=200, samples=200, **fixed)
    for network in range(NETWORKS):
        own = x[network].numpy()
        covariance = own @ own.T / ALPHA + NOISE * np.eye(OBJECTS)
        target = y[network].numpy()
        sign, logarithm = np.linalg.slogdet(covariance)
        evidence = -0.5 * (target @ np.linalg.solve(covariance, target) + logarithm + OBJECTS * np.log(2 * np.pi))
        assert sign == 1
        assert found.bound[-50:, network].mean().item() == pytest.approx(evidence, abs=0.15)  # its own sampling error


def test_prior_and_noise_maximise_the_evidence(linear):
    """At the maximum MacKay's fixed point holds: α (‖m‖² + tr S⁻¹) = P, and the noise is the mean squared residual."""
    model, start, x, y = linear
    found = fit_posterior(model, start, x, y, iterations=400, samples=100, generators=generators())
    covariance = found.covariance
    spread = found.mean.square().sum(dim=1) + covariance.diagonal(dim1=1, dim2=2).sum(dim=1)
    torch.testing.assert_close(found.prior_precision, FEATURES / spread, rtol=0.05, atol=0)
    residual = (y - (x @ found.mean[..., None])[..., 0]).square().mean(dim=1)
    expected = residual + torch.einsum("rni,rij,rnj->rn", x, covariance, x).mean(dim=1)
    torch.testing.assert_close(found.noise_variance, expected, rtol=0.05, atol=0)


def test_one_logistic_weight_beside_quadrature():
    """The best Gaussian for one weight, found by minimising the divergence with numerical integrals."""
    from scipy.optimize import minimize

    x = torch.tensor([[[1.0], [2.0], [-1.5], [0.5]]], dtype=torch.float64)
    y = torch.tensor([[1, 1, 0, 0]])
    model = FeedForward(1, 2, [])
    start = {"0.weight": torch.zeros(1, 2, 1, dtype=torch.float64)}
    found = fit_posterior(
        model, start, x, y, generators=generators(1), prior_precision=1.0, iterations=400, samples=400, rate=0.2
    )
    # The loss depends on the difference of the two weights alone; their sum keeps its prior.
    both = torch.tensor([[1.0, 1.0]], dtype=torch.float64) / np.sqrt(2)
    across = torch.tensor([[-1.0, 1.0]], dtype=torch.float64) / np.sqrt(2)
    assert (both @ found.covariance[0] @ both.T).item() == pytest.approx(1, rel=0.02)
    sign = 2.0 * y[0].numpy() - 1

    def negative(values):
        mean, deviation = values[0], np.exp(values[1])

        def likelihood(t):
            w = mean + deviation * t
            return -np.logaddexp(0, -sign * np.sqrt(2) * w * x[0, :, 0].numpy()).sum() * np.exp(-t * t / 2)

        expected = integrate.quad(likelihood, -8, 8)[0] / np.sqrt(2 * np.pi)
        return -(expected - (mean**2 + deviation**2) / 2 + np.log(deviation))

    best = minimize(negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).x
    assert (across @ found.mean[0]).item() == pytest.approx(best[0], abs=0.02)
    assert (across @ found.covariance[0] @ across.T).item() ** 0.5 == pytest.approx(np.exp(best[1]), rel=0.03)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_fit_of_a_network_raises_the_bound_and_stays_definite(covariance):
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(2, 60, 4, generator=draw, dtype=torch.float64)
    y = (x[..., 0] > 0).long()
    model = FeedForward(4, 2, [3], "tanh")
    start = model.initialise([generator(seed, "test") for seed in range(2)])
    start = {name: tensor.double() for name, tensor in start.items()}
    given = {"generators": generators(2), "covariance": covariance, "iterations": 60, "samples": 8}
    found = fit_posterior(model, start, x, y, **given)
    assert (found.bound[-10:].mean(dim=0) > found.bound[:3].mean(dim=0)).all()
    assert (torch.linalg.eigvalsh(found.covariance) > 0).all()
    alone = {name: tensor[1:] for name, tensor in start.items()}
    single = fit_posterior(model, alone, x[1:], y[1:], **{**given, "generators": generators(2)[1:]})
    torch.testing.assert_close(single.mean, found.mean[1:], rtol=1e-6, atol=1e-8)


def test_a_posterior_that_is_not_finite_is_refused(linear):
    model, start, x, y = linear
    y = y.clone()
    y[0, 0] = torch.nan
    with pytest.raises(MeasurementFailed, match="posterior"):
        fit_posterior(model, start, x, y, generators=generators(), iterations=2, covariance="diagonal")
