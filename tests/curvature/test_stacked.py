"""Hessians of stacked networks beside automatic differentiation, one network at a time."""

import pytest
import torch
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from landscape_cli.curvature import stacked
from landscape_cli.models.mlp import FeedForward
from landscape_cli.rng import generator

NETWORKS, OBJECTS, FEATURES, CLASSES = 3, 20, 6, 3


def drawn(hidden, activation, bias, regression):
    model = FeedForward(FEATURES, 1 if regression else CLASSES, hidden, activation, bias)
    parameters = model.initialise([generator(seed, "test") for seed in range(NETWORKS)])
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(NETWORKS, OBJECTS, FEATURES, generator=draw, dtype=torch.float64)
    y = torch.randn(NETWORKS, OBJECTS, generator=draw, dtype=torch.float64)
    y = y if regression else torch.randint(CLASSES, (NETWORKS, OBJECTS), generator=draw)
    return model, {name: 2 * tensor.double() for name, tensor in parameters.items()}, x, y


def by_autograd(model, parameters, x, y, network):
    net = model.module(parameters, network)

    def loss(vector):
        own = {name: tensor[0] for name, tensor in stacked.unflatten(vector[None], parameters).items()}
        outputs = functional_call(net, own, (x[network],))
        return (
            (outputs[:, 0] - y[network]).square().mean()
            if y.is_floating_point()
            else cross_entropy(outputs, y[network])
        )

    return hessian(loss)(stacked.flatten(parameters)[network])


@pytest.mark.parametrize("hidden", [[], [5], [4, 3], [5, 4, 3]], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("regression", [False, True])
def test_hessian_and_diagonal_are_autograds(hidden, activation, bias, regression):
    model, parameters, x, y = drawn(hidden, activation, bias, regression)
    whole, diagonal = (f(model, parameters, x, y) for f in (stacked.hessian, stacked.hessian_diagonal))
    assert torch.equal(whole, whole.mT)
    for network in range(NETWORKS):
        expected = by_autograd(model, parameters, x, y, network)
        torch.testing.assert_close(whole[network], expected, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(diagonal[network], expected.diagonal(), rtol=1e-11, atol=1e-12)


def test_objects_in_chunks_and_shared_by_all(monkeypatch):
    model, parameters, x, y = drawn([4, 3], "tanh", True, False)
    whole, diagonal = (f(model, parameters, x[:1], y[:1]) for f in (stacked.hessian, stacked.hessian_diagonal))
    monkeypatch.setattr(stacked, "BYTES", 2000)
    assert len(stacked._chunks(model, parameters, OBJECTS, whole=True)) > 2
    for network in range(NETWORKS):
        own = {name: tensor[network : network + 1] for name, tensor in parameters.items()}
        torch.testing.assert_close(stacked.hessian(model, own, x[:1], y[:1])[0], whole[network])
        torch.testing.assert_close(stacked.hessian_diagonal(model, own, x[:1], y[:1])[0], diagonal[network])


def test_vectors_and_parameters():
    _, parameters, _, _ = drawn([4], "tanh", True, False)
    vectors = stacked.flatten(parameters)
    assert vectors.shape == (NETWORKS, 4 * FEATURES + 4 + CLASSES * 4 + CLASSES)
    back = stacked.unflatten(vectors, parameters)
    assert list(back) == list(parameters)
    assert all(torch.equal(back[name], parameters[name]) for name in parameters)
    torch.testing.assert_close(vectors[1, : 4 * FEATURES], parameters["0.weight"][1].flatten())


@pytest.mark.parametrize("hidden", [[], [5], [4, 3]], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("regression", [False, True])
def test_quadratic_form_is_the_hessians(hidden, activation, bias, regression):
    model, parameters, x, y = drawn(hidden, activation, bias, regression)
    draw = torch.Generator().manual_seed(8)
    directions = {n: torch.randn(t.shape, generator=draw, dtype=t.dtype) for n, t in parameters.items()}
    v = stacked.flatten(directions)
    expected = (v * (stacked.hessian(model, parameters, x, y) @ v[..., None])[..., 0]).sum(dim=1)
    torch.testing.assert_close(stacked.quadratic_form(model, parameters, directions, x, y), expected)
    shared = stacked.quadratic_form(model, parameters, directions, x[:1], y[:1])
    torch.testing.assert_close(shared[0], expected[0])


def test_quadratic_form_can_be_differentiated():
    model, parameters, x, y = drawn([4, 3], "tanh", True, False)
    draw = torch.Generator().manual_seed(8)
    directions = {n: torch.randn(t.shape, generator=draw, dtype=t.dtype) for n, t in parameters.items()}
    names = list(parameters)

    def form(*tensors):
        return stacked.quadratic_form(model, dict(zip(names, tensors, strict=True)), directions, x, y)

    inputs = [tensor.requires_grad_() for tensor in parameters.values()]
    assert torch.autograd.gradcheck(form, inputs)


def test_random_signs_estimate_the_trace():
    model, parameters, x, y = drawn([5], "tanh", True, False)
    trace = stacked.hessian_diagonal(model, parameters, x, y).sum(dim=1)
    draw = torch.Generator().manual_seed(9)
    found = []
    for _ in range(1000):
        signs = {n: torch.randint(2, t.shape, generator=draw).double() * 2 - 1 for n, t in parameters.items()}
        found.append(stacked.quadratic_form(model, parameters, signs, x, y))
    estimates = torch.stack(found)
    error = estimates.std(dim=0) / len(found) ** 0.5
    assert ((estimates.mean(dim=0) - trace).abs() < 3 * error).all()
    assert (error < 0.15).all()
