import math
from dataclasses import astuple
from itertools import pairwise

import pytest
import torch
from torch import nn

from landscape_cli.bounds import chains
from landscape_cli.curvature.chain import Chain, object_norms
from landscape_cli.errors import BadInput

DOUBLE = {"bias": False, "dtype": torch.float64}
KEY = {"gauss_newton": 0, "hessian": 1}


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.05, 0.6, 3.0])
def test_the_corrected_bound_of_nets_with_biases(scale):
    torch.manual_seed(0)
    worst = 0.0
    for _ in range(20):
        ws = [scale * torch.linalg.qr(torch.randn(2, 2, dtype=torch.float64))[0] for _ in range(3)]
        x = torch.randn(2, dtype=torch.float64) * 0.3

        def outputs(*parameters, x=x):
            first, second, third, *biases = parameters
            hidden = (second @ (first @ x + biases[0]).relu() + biases[1]).relu()
            return third @ hidden + biases[2]

        zeros = [torch.zeros(2, dtype=torch.float64)] * 3
        j = torch.cat([part.flatten(1) for part in torch.func.jacrev(outputs, argnums=tuple(range(6)))(*ws, *zeros)], 1)
        p = outputs(*ws, *zeros).softmax(0)
        exact = torch.linalg.matrix_norm(j.T @ (torch.diag(p) - torch.outer(p, p)) @ j, 2).item()
        (bound,) = chains.fully_connected(3, x.norm().item(), scale, biases=True)
        assert bound.quantity == "gauss_newton"
        assert exact <= bound.corrected * (1 + 1e-12)
        worst = max(worst, exact / chains.fully_connected(3, x.norm().item(), scale)[0].corrected)
    assert worst > 1  # the bound of the weights alone does not do


def conv_net(dimensions, *gates, head=()):
    kind, steps, channels = (nn.Conv1d, nn.Conv2d)[dimensions - 1], [], 1
    for gate in (*gates, None):
        steps.append(kind(channels, 2, 2, **DOUBLE))
        steps += [gate] if gate else []
        channels = 2
    connected = [part for a, b in pairwise(head) for part in (nn.ReLU(), nn.Linear(a, b, **DOUBLE))]
    return nn.Sequential(*steps, *connected[:1], nn.Flatten(), *connected[1:])


RANDOM = {
    "8": (lambda: nn.Sequential(nn.Linear(5, 4, **DOUBLE), nn.ReLU(), nn.Linear(4, 3, **DOUBLE)), (5,)),
    "9": (
        lambda: nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(3, 3, **DOUBLE), nn.ReLU())))[:-1],
        (3,),
    ),
    "11": (lambda: conv_net(2, nn.ReLU(), nn.AvgPool2d(2)), (1, 7, 6)),
    "12": (lambda: conv_net(1, nn.ReLU(), nn.ReLU()), (1, 6)),
    "13": (lambda: conv_net(2, nn.ReLU()), (1, 4, 4)),
    "14": (lambda: conv_net(2, nn.MaxPool2d(2), nn.ReLU()), (1, 7, 7)),
    "15": (lambda: conv_net(2, nn.AvgPool2d(2)), (1, 6, 6)),
    "16": (lambda: conv_net(2, nn.ReLU(), head=(8, 3, 2)), (1, 4, 4)),
}


def random_networks(theorem, count, seed=0):
    """Networks of one shape: scales from 1e-3 to 10, some of rank one, some of one value, objects of 1e-2 to 1e2."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    make, shape = RANDOM[theorem]
    chain = Chain.of(make(), shape)
    weights = []
    for layer in chain.layers:
        drawn = draw(count, *layer.shape)
        drawn[::4] = drawn[::4].abs()
        drawn[::8] = 1.0
        drawn[::8, layer.shape[0] // 2 :] = -1.0
        power = 4 * torch.rand(count, generator=generator, dtype=torch.float64) - 3
        weights.append(drawn * (10**power).view(-1, *[1] * len(layer.shape)))
    x = draw(count, math.prod(shape))
    x[::4] = x[::4].abs()
    x = x * 10 ** (4 * torch.rand(count, 1, generator=generator, dtype=torch.float64) - 2)
    y = torch.randint(chain.layers[-1].index.shape[0], (count,), generator=generator)
    return chain, weights, x, y, shape


@pytest.mark.parametrize("theorem", RANDOM)
def test_corrected_bounds_hold_on_random_networks_and_tight_ones_are_smaller(theorem):
    chain, weights, x, y, shape = random_networks(theorem, 200)
    norms = object_norms(chain, weights, x, y)
    assert (norms[1] > 1e-9).sum() > 50
    for bound in chains.of_network(theorem, chain, weights, x, shape):
        exact = norms[KEY[bound.quantity]]
        assert bound.theorem == theorem
        assert (exact <= bound.tight * (1 + 1e-9)).all()
        assert (bound.tight <= bound.corrected * (1 + 1e-9)).all()
        if theorem in ("11", "12", "13", "14", "15") and bound.quantity == "gauss_newton":
            assert (exact <= bound.printed * (1 + 1e-9)).all()


@pytest.mark.parametrize("pooling", [nn.AvgPool2d, nn.MaxPool2d])
def test_the_tight_bound_is_the_smaller_one_of_wide_windows_and_narrow_kernels(pooling):
    net = nn.Sequential(nn.Conv2d(1, 1, 1, **DOUBLE), pooling(4), nn.Conv2d(1, 1, 1, **DOUBLE), nn.Flatten())
    chain, x = Chain.of(net, (1, 4, 8)), torch.ones(32, dtype=torch.float64)
    theorem = "14" if pooling is nn.MaxPool2d else "15"
    bound, _ = chains.of_network(theorem, chain, [torch.ones(1, 1, 1, 1).double()] * 2, x, (1, 4, 8))
    assert bound.tight <= bound.corrected


@pytest.mark.parametrize("theorem", RANDOM)
def test_bounds_can_be_differentiated(theorem):
    chain, weights, x, _, shape = random_networks(theorem, 3)
    leaves = [tensor.requires_grad_() for tensor in (*weights, x)]
    for variant in ("printed", "corrected", "tight"):
        bounds = chains.of_network(theorem, chain, leaves[:-1], leaves[-1], shape)
        slopes = torch.autograd.grad(sum(getattr(bound, variant).sum() for bound in bounds), leaves)
        assert all(slope.isfinite().all() for slope in slopes)
        if (theorem, variant) not in (("8", "printed"), ("9", "printed")):  # a multiple of ‖x‖²
            gauss_newton = getattr(chains.of_network(theorem, chain, leaves[:-1], leaves[-1], shape)[0], variant)
            (slope,) = torch.autograd.grad(gauss_newton.sum(), leaves[-1])
            torch.testing.assert_close((slope * leaves[-1]).sum(dim=1), 2 * gauss_newton, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (chains.fully_connected, (3, 1.5, 0.7)),
        (chains.fully_connected, (1, 1.5, 0.7)),
        (lambda *v: chains.fully_connected(*v, biases=True), (3, 1.5, 0.7)),
        (lambda n, x, m: chains.fully_connected_by_width(n, x, 3, m), (2, 1.5, 0.7)),
        (lambda n, x, m: chains.matrices(n, x, m, 4), (3, 1.5, 0.7)),
        (lambda n, x, m: chains.convolutions(n, x, 2, 3, (5, 4), m), (3, 1.5, 0.7)),
        (lambda n, x, m: chains.pooling(n, x, 2, 3, (5, 4), m, 2, 2), (3, 1.5, 0.7)),
        (lambda n, x, m, h: chains.with_head(n, x, 2, 3, (5, 4), m, 2, 4, h), (3, 1.5, 0.7, 0.2)),
    ],
)
def test_numbers_and_tensors_give_the_same(function, given):
    layers, *numbers = given
    tensors = [double([number, 2 * number]) for number in numbers]
    for of_numbers, of_tensors in zip(function(layers, *numbers), function(layers, *tensors), strict=True):
        assert of_numbers.quantity == of_tensors.quantity
        for number, tensor in zip(astuple(of_numbers)[2:4], (of_tensors.printed, of_tensors.corrected), strict=True):
            assert isinstance(number, float)
            assert tensor.shape == (2,)
            assert tensor[0].item() == pytest.approx(number, rel=1e-14)


@pytest.mark.parametrize(
    ("theorem", "other", "message"),
    [
        ("8", "13", "Theorem 8: every layer is fully connected; 0 is a convolution"),
        ("9", "16", "Theorem 9: every layer is fully connected; 0 is"),
        ("12", "13", "Theorem 12: every layer is a 1D convolution; 0 is not"),
        ("13", "12", "Theorem 13: every layer is a 2D convolution; 0 is not"),
        ("13", "16", "Theorem 13: every layer is a 2D convolution; 5 is not"),
        ("13", "14", "Theorem 13: there is no pooling"),
        ("14", "13", "Theorem 14: one max pooling .*; here: none"),
        ("14", "15", "Theorem 14: one max pooling .*; here: .*average"),
        ("15", "14", "Theorem 15: one average pooling .*; here: .*max"),
        ("16", "13", "Theorem 16: a fully connected layer comes last"),
        ("16", "8", "Theorem 16: 2D convolutions come first"),
        ("10", "8", "theorem: '10'; allowed: 8, 9, 11 to 16"),
    ],
)
def test_a_network_that_breaks_a_hypothesis_is_refused(theorem, other, message):
    chain, weights, x, _, shape = random_networks(other, 2)
    with pytest.raises(BadInput, match=message):
        chains.of_network(theorem, chain, weights, x, shape)


def test_hypotheses_about_gates_and_windows():
    bare = nn.Sequential(nn.Linear(2, 2, **DOUBLE), nn.Linear(2, 2, **DOUBLE))
    oblong, twice = conv_net(2, nn.MaxPool2d((2, 1))), conv_net(2, nn.MaxPool2d(2), nn.MaxPool2d(2))
    for theorem, net, shape, message in (
        ("8", bare, (2,), "Theorem 8: a ReLU stands between"),
        ("14", oblong, (1, 6, 6), "Theorem 14: the pooling's window is a square"),
        ("14", twice, (1, 12, 12), r"Theorem 14: one max pooling .*; here: \['max', 'max'\]"),
    ):
        chain = Chain.of(net, shape)
        with pytest.raises(BadInput, match=message):
            chains.of_network(theorem, chain, chain.weights(net), torch.ones(1, math.prod(shape)).double(), shape)
