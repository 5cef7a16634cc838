"""Fully connected networks with an activation and a loss of choice, beside automatic differentiation."""

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from landscape_cli.errors import BadInput
from landscape_cli.models import build_model
from landscape_cli.models.mlp import MLP, FeedForward
from landscape_cli.rng import generator

NETWORKS, OBJECTS, FEATURES = 2, 7, 5


def drawn(hidden, activation, bias, outputs):
    model = FeedForward(FEATURES, outputs, hidden, activation, bias)
    parameters = model.initialise([generator(seed, "test") for seed in range(NETWORKS)])
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(NETWORKS, OBJECTS, FEATURES, generator=draw, dtype=torch.float64)
    return model, {name: 2 * tensor.double() for name, tensor in parameters.items()}, x, draw


@pytest.mark.parametrize("hidden", [[], [4], [4, 3]], ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("target", ["classes", "real", "vectors"])
def test_gradients_are_autograds_in_the_order_of_the_parameters(hidden, activation, bias, target):
    model, parameters, x, draw = drawn(hidden, activation, bias, {"classes": 3, "real": 1, "vectors": 3}[target])
    y = {
        "classes": torch.randint(3, (NETWORKS, OBJECTS), generator=draw),
        "real": torch.randn(NETWORKS, OBJECTS, generator=draw, dtype=torch.float64),
        "vectors": torch.randn(NETWORKS, OBJECTS, 3, generator=draw, dtype=torch.float64),
    }[target]
    found = model.gradients(parameters, x, y)
    assert list(found) == list(parameters)
    for network in range(NETWORKS):
        net = model.module(parameters, network)
        outputs = net(x[network])
        torch.testing.assert_close(model.forward(parameters, x)[network], outputs.detach())
        if target == "classes":
            loss = cross_entropy(outputs, y[network])
        else:  # (y - f)² of an object, summed over outputs
            loss = mse_loss(outputs, y[network].view(outputs.shape), reduction="sum") / OBJECTS
        loss.backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(found[name][network], parameter.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("target", ["classes", "real"])
def test_gradients_by_the_objects(activation, target):
    model, parameters, x, draw = drawn([4, 3], activation, True, 3 if target == "classes" else 1)
    y = torch.randint(3, (NETWORKS, OBJECTS), generator=draw)
    y = y if target == "classes" else torch.randn(NETWORKS, OBJECTS, generator=draw, dtype=torch.float64)
    found = model.input_gradients(parameters, x.view(NETWORKS, OBJECTS, FEATURES, 1, 1), y)
    assert found.shape == (NETWORKS, OBJECTS, FEATURES, 1, 1)
    for network in range(NETWORKS):
        own = x[network].clone().requires_grad_()
        outputs = model.module(parameters, network)(own)
        if target == "classes":
            loss = cross_entropy(outputs, y[network], reduction="sum")
        else:
            loss = (outputs[:, 0] - y[network]).square().sum()
        loss.backward()
        torch.testing.assert_close(found[network].flatten(1), own.grad)


def test_the_net_of_chapter_1_is_one_of_them():
    own, plain = MLP(FEATURES, 3, hidden_size=4, num_layers=2), FeedForward(FEATURES, 3, [4, 4, 4])
    first, second = (model.initialise([generator(0, "test")]) for model in (own, plain))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert own.widths == plain.widths
    x = torch.randn(1, OBJECTS, FEATURES)
    assert torch.equal(own.forward(first, x), plain.forward(second, x))


def test_build():
    settings = {"kind": "feedforward", "hidden": [4, 2], "activation": "relu", "bias": True}
    model = build_model(settings, (FEATURES, 1, 1), 3)
    assert (model.widths, model.activation, model.bias) == ((FEATURES, 4, 2, 3), "relu", True)
    with pytest.raises(BadInput, match="allowed: mlp, feedforward"):
        build_model({"kind": "network"}, (FEATURES, 1, 1), 3)
