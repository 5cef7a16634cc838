import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from landscape_cli.convergence import gradients as module
from landscape_cli.convergence.gradients import GradientMoments, gradient_moments, gradient_norms
from landscape_cli.models.mlp import MLP
from landscape_cli.rng import generator

CHUNKS = pytest.mark.parametrize("chunk", [1, 4, 256])
BIASES = pytest.mark.parametrize("bias", [False, True])


def network(bias, dtype=torch.float64):
    model = MLP(in_features=6, classes=3, hidden_size=5, num_layers=1, bias=bias)
    parameters = model.initialise([generator(0, "test")])
    return model, {name: 2 * tensor.to(dtype) for name, tensor in parameters.items()}


def objects(count):
    draw = torch.Generator().manual_seed(count)
    x = torch.randn(count, 1, 2, 3, generator=draw, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=draw)


def gradient(model, parameters, x, y):
    """Autograd's gradient of the mean loss, as one vector."""
    net = model.module(parameters, 0)
    parts = torch.autograd.grad(cross_entropy(net(x.flatten(1)), y), list(net.parameters()))
    return torch.cat([part.flatten() for part in parts])


@CHUNKS
@BIASES
def test_norms_along_orderings_are_autograds(monkeypatch, bias, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    (model, parameters), (x, y) = network(bias), objects(11)
    orderings = torch.stack([torch.randperm(11, generator=generator(p, "orderings")) for p in range(4)])
    sizes = [1, 2, 4, 5, 10, 11]
    found = gradient_norms(model, parameters, x, y, orderings, sizes)
    assert found.shape == (4, 6)
    for row, order in zip(found, orderings, strict=True):
        for norm, k in zip(row, sizes, strict=True):
            expected = gradient(model, parameters, x[order[:k]], y[order[:k]]).norm()
            assert norm.item() == pytest.approx(expected.item(), rel=1e-12)


def test_sizes_need_not_reach_every_object():
    (model, parameters), (x, y) = network(bias=True), objects(300)
    order = torch.randperm(300, generator=generator(0, "orderings"))
    found = gradient_norms(model, parameters, x, y, order[None], [258, 270])
    for norm, k in zip(found[0], [258, 270], strict=True):
        expected = gradient(model, parameters, x[order[:k]], y[order[:k]]).norm()
        assert norm.item() == pytest.approx(expected.item(), rel=1e-12)


def test_float32_networks_are_summed_in_float64():
    (model, parameters), (x, y) = network(bias=True, dtype=torch.float32), objects(40)
    found = gradient_norms(model, parameters, x.float(), y, torch.arange(40)[None], [40])
    assert found.dtype == torch.float64
    wide = {name: tensor.double() for name, tensor in parameters.items()}
    assert found.item() == pytest.approx(gradient(model, wide, x, y).norm().item(), rel=1e-5)


@CHUNKS
@BIASES
def test_moments_are_autograds(monkeypatch, bias, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    (model, parameters), (x, y) = network(bias), objects(11)
    found = gradient_moments(model, parameters, x, y)
    each = [gradient(model, parameters, x[i : i + 1], y[i : i + 1]).square().sum().item() for i in range(11)]
    assert found.mean_square == pytest.approx(np.mean(each), rel=1e-12)
    assert found.square_of_mean == pytest.approx(gradient(model, parameters, x, y).square().sum().item(), rel=1e-12)
    assert found.objects == 11


def test_expected_norm_is_the_average_over_all_orderings():
    m = 6
    (model, parameters), (x, y) = network(bias=True), objects(m)
    each = torch.stack([gradient(model, parameters, x[i : i + 1], y[i : i + 1]) for i in range(m)])
    found = gradient_moments(model, parameters, x, y).expected_norm(torch.arange(1, m + 1, dtype=torch.float64))
    for k in range(1, m + 1):
        # The first k objects of all m! orderings are all subsets of size k, equally often.
        subsets = map(list, itertools.combinations(range(m), k))
        squares = [each[subset].mean(dim=0).square().sum().item() for subset in subsets]
        assert found[k - 1].item() == pytest.approx(np.mean(squares) ** 0.5, rel=1e-12)
    assert found[-1].item() == pytest.approx(gradient(model, parameters, x, y).norm().item(), rel=1e-12)


def test_expected_norm_of_one_object():
    assert GradientMoments(4.0, 4.0, 1).expected_norm(torch.tensor([1.0])).tolist() == [2.0]
