from dataclasses import asdict
from functools import cache, partial

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call, jacrev

from landscape_cli.config import ConvConfig, MLPConfig
from landscape_cli.curvature import GaussNewton, Objective, dense
from landscape_cli.curvature.chain import Chain, factorise, object_hessians, object_norms
from landscape_cli.errors import BadInput
from landscape_cli.models import build_model

OBJECTS = 3
conv = partial(ConvConfig, bias=False, channels=2, kernel_size=2)
BUILT = {
    "mlp": (MLPConfig(hidden_size=4, num_layers=1), (1, 2, 3), 3),
    "conv2d": (conv(num_layers=2), (1, 4, 4), 3),
    "conv1d": (conv("conv1d", num_layers=3), (1, 5, 2), 3),
    "conv2d-max": (conv(num_layers=2, position=1), (2, 6, 5), 3),
    "conv2d-average": (conv(num_layers=2, position=1, pooling="average"), (1, 7, 6), 3),
    "conv1d-max": (conv("conv1d", num_layers=3, position=2), (1, 9, 2), 4),
    "conv1d-average": (conv("conv1d", num_layers=2, position=1, pooling="average"), (1, 8, 2), 3),
    "head": (conv(num_layers=2, head=[4, 3], relu_after_last=True), (1, 4, 5), 3),
}
OPTIONS = {"bias": False, "dtype": torch.float64}
PLAIN = {
    "linear": (lambda: [nn.Linear(5, 3, **OPTIONS)], (5,)),
    "two linear": (lambda: [nn.Flatten(), nn.Linear(4, 3, **OPTIONS), nn.Linear(3, 3, **OPTIONS)], (1, 2, 2)),
    "narrow": (lambda: [nn.Linear(4, 1, **OPTIONS), nn.Linear(1, 3, **OPTIONS)], (4,)),
    "convolutions alone": (
        lambda: [nn.Conv2d(2, 2, (2, 3), **OPTIONS), nn.ReLU(), nn.Conv2d(2, 3, (3, 1), **OPTIONS), nn.Flatten()],
        (2, 5, 4),
    ),
    "window of three": (
        lambda: [nn.Conv1d(2, 3, 2, **OPTIONS), nn.MaxPool1d(3), nn.Conv1d(3, 2, 2, **OPTIONS), nn.Flatten()],
        (2, 9),
    ),
    "oblong window": (
        lambda: [nn.Conv2d(1, 2, 2, **OPTIONS), nn.AvgPool2d((3, 2)), nn.Flatten(), nn.Linear(8, 2, **OPTIONS)],
        (1, 8, 6),
    ),
}


@cache
def network(name):
    """Chain, net in float64, objects and classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if name in PLAIN:
            modules, shape = PLAIN[name]
            net = nn.Sequential(*modules())
        else:
            settings, shape, classes = BUILT[name]
            model = build_model(asdict(settings), shape, classes)
            drawn = model.initialise([torch.Generator().manual_seed(seed) for seed in range(2)])
            net = model.module({key: 3 * tensor.double() for key, tensor in drawn.items()}, 1)
        x = torch.randn(OBJECTS, *shape, dtype=torch.float64)
        with torch.no_grad():
            classes = net(x).shape[1]
        return Chain.of(net, shape), net, x, torch.randint(classes, (OBJECTS,))


NETWORKS = pytest.mark.parametrize("name", [*BUILT, *PLAIN])


def outputs_at(net, point, x):
    names, tensors = zip(*net.named_parameters(), strict=True)
    pieces = point.split([tensor.numel() for tensor in tensors])
    own = {key: piece.view_as(t) for key, piece, t in zip(names, pieces, tensors, strict=True)}
    return functional_call(net, own, (x,))


def norm(matrix):
    return torch.linalg.matrix_norm(matrix, 2).item()


def hessian_at(net, point, x, y):
    """By all parameters, of one object's cross-entropy."""
    return hessian(lambda p: nn.functional.cross_entropy(outputs_at(net, p, x[None]), y[None]), point)


def exact(net, x, y):
    """Gauss-Newton part and Hessian."""
    point = nn.utils.parameters_to_vector(net.parameters()).detach()
    j = jacrev(lambda p: outputs_at(net, p, x[None])[0])(point)
    p = outputs_at(net, point, x[None])[0].softmax(0)
    return j.T @ (torch.diag(p) - torch.outer(p, p)) @ j, hessian_at(net, point, x, y)


def assert_same_spectrum(found, expected, tolerance=1e-12):
    """Eigenvalues agree, but for zeros."""
    size = max(len(found), len(expected))
    ends = [torch.linalg.eigvalsh(m) for m in (found, (expected + expected.T) / 2)]
    ends = [torch.cat([e, e.new_zeros(size - len(e))]).sort().values for e in ends]
    torch.testing.assert_close(*ends, rtol=0, atol=tolerance * max(1.0, norm(expected)))


@NETWORKS
def test_the_product_of_the_matrices_is_the_network(name):
    chain, net, x, _ = network(name)
    weights, vectors = chain.weights(net), chain.vector(x)
    expected = net(x).detach()
    assert expected.abs().max() > 1e-3
    run = chain.run(weights, vectors)
    torch.testing.assert_close(run.outputs, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(chain.outputs(weights, vectors), expected, rtol=1e-12, atol=1e-13)
    many = [torch.stack([weight, -2 * weight]) for weight in weights]
    negated = chain.outputs([-2 * weight for weight in weights], vectors)
    torch.testing.assert_close(chain.outputs(many, vectors.expand(2, *vectors.shape)), torch.stack([expected, negated]))


@NETWORKS
def test_theorem_10_is_the_gauss_newton_part(name):
    chain, net, x, y = network(name)
    for i in range(OBJECTS):
        parts = factorise(chain, chain.weights(net), chain.vector(x)[i])
        expected = dense(GaussNewton(Objective(net, x[i : i + 1], y[i : i + 1])))
        assert expected.norm() > 1e-6
        assert (parts.product() - expected).norm() <= 1e-12 * expected.norm()
        assert parts.F.shape == (len(parts.A), sum(layer.index.numel() for layer in chain.layers))


@NETWORKS
def test_hessians_have_the_spectrum_of_those_by_the_parameters(name):
    chain, net, x, y = network(name)
    weights, vectors = chain.weights(net), chain.vector(x)
    found = object_hessians(chain, weights, vectors, y)
    norms = object_norms(chain, weights, vectors, y)
    for i in range(OBJECTS):
        for matrices, found_norm, expected in zip(found, norms, exact(net, x[i], y[i]), strict=True):
            assert_same_spectrum(matrices[i], expected)
            assert found_norm[i].item() == pytest.approx(norm(expected), rel=1e-11)


@NETWORKS
def test_several_networks_with_an_object_each(name):
    chain, net, x, y = network(name)
    scales = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    weights = [scales.view(-1, *[1] * w.dim()) * w for w in chain.weights(net)]
    vectors = chain.vector(x)
    found = torch.stack(object_norms(chain, weights, vectors, y), dim=1)
    alone = [object_norms(chain, [w[i] for w in weights], vectors[i], y[i]) for i in range(OBJECTS)]
    torch.testing.assert_close(found, torch.tensor(alone, dtype=torch.float64), rtol=1e-11, atol=0)
    for i, scale in enumerate(scales):
        point = scale * nn.utils.parameters_to_vector(net.parameters()).detach()
        assert found[i, 1].item() == pytest.approx(norm(hessian_at(net, point, x[i], y[i])), rel=1e-11)


@NETWORKS
def test_slopes_take_every_layer_to_the_outputs_and_to_each_other(name):
    chain, net, x, _ = network(name)
    run = chain.run(chain.weights(net), chain.vector(x))
    for p, slope in enumerate(run.to_output):
        z = run.matrices[p] @ run.inputs[p].unsqueeze(-1)
        torch.testing.assert_close((slope @ z).squeeze(-1), run.outputs, rtol=1e-12, atol=1e-13)
        for q in range(p + 1, len(chain.layers)):
            torch.testing.assert_close((run.between(q, p) @ z).squeeze(-1), run.inputs[q], rtol=1e-12, atol=1e-13)


@NETWORKS
def test_every_parameter_stands_as_often_as_there_are_positions(name):
    chain, net, _, _ = network(name)
    for layer, weight in zip(chain.layers, chain.weights(net), strict=True):
        q = layer.derivative()
        torch.testing.assert_close(q @ weight.flatten(), layer.matrix(weight).flatten(), rtol=0, atol=0)
        assert torch.equal(q.T @ q, layer.positions * torch.eye(layer.parameters, dtype=torch.float64))
    expected = {"conv2d-max": [20, 1, 1], "conv1d-average": [7, 2, 1], "convolutions alone": [8, 4]}
    if name in expected:
        assert [layer.positions for layer in chain.layers] == expected[name]


@pytest.mark.parametrize("name", ["mlp", "conv2d", "conv1d", "head"])
@pytest.mark.parametrize("alive", [0, 1], ids=["all dead", "last layer alive"])
def test_dead_networks_have_hessians_of_zeros(name, alive):
    chain, net, x, y = network(name)
    own = chain.weights(net)
    weights = [torch.zeros_like(weight) for weight in own[: len(own) - alive]] + own[len(own) - alive :]
    for norms in object_norms(chain, weights, chain.vector(x), y):
        assert torch.equal(norms, torch.zeros(OBJECTS, dtype=torch.float64))


@pytest.mark.parametrize("name", ["two linear", "conv2d-average", "conv1d-max", "narrow"])
def test_networks_and_objects_of_zeros_have_their_autograd_hessian(name):
    chain, net, x, y = network(name)
    for weight, value in ((0.0, 1.0), (1.0, 0.0)):
        point = weight * nn.utils.parameters_to_vector(net.parameters()).detach()
        weights = [weight * w for w in chain.weights(net)]
        _, found = object_hessians(chain, weights, value * chain.vector(x)[0], y[0])
        assert_same_spectrum(found, hessian_at(net, point, value * x[0], y[0]))


def test_networks_of_tiny_weights_have_a_tiny_hessian():
    chain, net, _, y = network("mlp")
    weights = [1e-100 * weight.abs() for weight in chain.weights(net)]
    assert object_norms(chain, weights, torch.ones(6, dtype=torch.float64), y[0])[1] < 1e-90


def layer(kind, *sizes, bias=False, **options):
    return lambda: kind(*sizes, bias=bias, **options)


conv2d = partial(layer, nn.Conv2d, 2, 2, 2)


def pool(kind, *sizes, **options):
    return [conv2d(), lambda: kind(*sizes, **options), conv2d()]


C1, LINEAR, MAPS = layer(nn.Conv1d, 2, 2, 2), layer(nn.Linear, 2, 2), (2, 8, 8)


@pytest.mark.parametrize(
    ("modules", "shape", "message"),
    [
        ([conv2d(), nn.ReLU, conv2d(bias=True)], MAPS, r"^2: biases"),
        ([layer(nn.Linear, 2, 2, bias=True)], (2,), r"^0: biases"),
        ([conv2d(padding=1)], MAPS, r"^0: padding \(1, 1\)"),
        ([C1, nn.ReLU, layer(nn.Conv1d, 2, 2, 2, padding=1)], (2, 8), r"^2: padding"),
        ([conv2d(padding="same")], MAPS, r"^0: padding same"),
        ([conv2d(), nn.ReLU, conv2d(stride=(1, 2))], MAPS, r"^2: stride \(1, 2\)"),
        ([conv2d(groups=2)], MAPS, r"^0: groups 2"),
        ([conv2d(dilation=2)], MAPS, r"^0: dilation \(2, 2\)"),
        (pool(nn.MaxPool2d, 2, 1), MAPS, r"^1: a pooling whose window is not its stride"),
        ([C1, lambda: nn.AvgPool1d(1, 2), C1], (2, 8), r"^1: a pooling whose window is not its stride"),
        (pool(nn.AvgPool2d, 2, padding=1), MAPS, r"^1: a pooling .* with padding"),
        ([LINEAR, nn.Tanh, LINEAR], (2,), r"^1: Tanh; allowed .* ReLU, max and average pooling"),
        ([LINEAR, nn.ReLU, nn.ReLU, LINEAR], (2,), r"^2: ReLU does not fit"),
        ([LINEAR, nn.ReLU], (2,), "the last layer is followed by a nonlinearity"),
        ([conv2d(), lambda: nn.MaxPool2d(2), nn.Flatten], MAPS, "the last layer is followed by a nonlinearity"),
        ([nn.Flatten], (2,), "no linear layer"),
        ([lambda: nn.LayerNorm(2), LINEAR], (2,), r"^0: LayerNorm does not fit"),
        (pool(nn.MaxPool2d, 2, ceil_mode=True), MAPS, "^1: "),
        (pool(nn.MaxPool2d, 2, dilation=2), MAPS, "^1: "),
        (pool(nn.AvgPool2d, 2, divisor_override=3), MAPS, "^1: "),
        ([conv2d(), nn.ReLU, layer(nn.Linear, 7, 2)], MAPS, "^2: "),
        ([LINEAR, lambda: nn.AvgPool1d(2), layer(nn.Linear, 1, 2)], (2,), "^1: "),
    ],
)
def test_a_network_that_is_not_such_a_product_is_refused_with_layer_and_reason(modules, shape, message):
    net = nn.Sequential(*(make() for make in modules))
    with pytest.raises(BadInput, match=message):
        Chain.of(net, shape)
