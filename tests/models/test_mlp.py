from dataclasses import asdict

import pytest
import torch
from scipy import stats
from torch.nn.functional import cross_entropy

from landscape_cli.config import ConvConfig
from landscape_cli.errors import BadInput
from landscape_cli.models import build_model
from landscape_cli.models.conv import ConvNet
from landscape_cli.models.mlp import MLP
from landscape_cli.rng import generator

SEEDS, OBJECTS, CLASSES = 3, 7, 4
BIASES = pytest.mark.parametrize("bias", [False, True])
DEPTHS = pytest.mark.parametrize("num_layers", [0, 1, 3])


def network(bias, num_layers=2, seeds=SEEDS):
    """A net on images (2, 3, 1), its parameters in float64."""
    model = MLP(in_features=6, classes=CLASSES, hidden_size=5, num_layers=num_layers, bias=bias)
    parameters = model.initialise([generator(seed, "test") for seed in range(seeds)])
    return model, {name: 2 * tensor.double() for name, tensor in parameters.items()}


def objects(seeds):
    draw = torch.Generator().manual_seed(seeds)
    x = torch.randn(seeds, OBJECTS, 2, 3, 1, generator=draw, dtype=torch.float64)
    return x, torch.randint(CLASSES, (SEEDS, OBJECTS), generator=draw)


def by_hand(parameters, seed, x, matrices):
    """Logits and every ReLU's output, as the thesis writes them."""
    z, hidden = x.flatten(1).numpy(), []
    for layer in range(matrices):
        z = z @ parameters[f"{2 * layer}.weight"][seed].numpy().T
        if f"{2 * layer}.bias" in parameters:
            z = z + parameters[f"{2 * layer}.bias"][seed].numpy()
        if layer < matrices - 1:
            z = z * (z > 0)
            hidden.append(z)
    return torch.from_numpy(z), hidden


@BIASES
@DEPTHS
@pytest.mark.parametrize("inputs", [1, SEEDS])
def test_forward_is_an_ordinary_net_for_each_seed(bias, num_layers, inputs):
    model, parameters = network(bias, num_layers)
    x, _ = objects(inputs)
    logits = model.forward(parameters, x)
    assert logits.shape == (SEEDS, OBJECTS, CLASSES)
    for seed in range(SEEDS):
        own = x[seed % inputs]
        expected, hidden = by_hand(parameters, seed, own, num_layers + 2)
        torch.testing.assert_close(logits[seed], expected, rtol=0, atol=1e-12)
        net = model.module(parameters, seed)
        torch.testing.assert_close(net(own.flatten(1)).detach(), expected, rtol=0, atol=1e-12)
        last = model.hidden(parameters, x)[seed]
        torch.testing.assert_close(last, torch.from_numpy(hidden[-1]), rtol=0, atol=1e-12)
        assert (last == 0).any()
        assert (last > 0).any()


@BIASES
@DEPTHS
@pytest.mark.parametrize("inputs", [1, SEEDS])
def test_gradients_are_autograds(bias, num_layers, inputs):
    model, parameters = network(bias, num_layers)
    x, y = objects(inputs)
    gradients = model.gradients(parameters, x, y)
    assert gradients.keys() == parameters.keys()
    for seed in range(SEEDS):
        net = model.module(parameters, seed)
        loss = cross_entropy(net(x[seed % inputs].flatten(1)), y[seed])
        names, tensors = zip(*net.named_parameters(), strict=True)
        for name, expected in zip(names, torch.autograd.grad(loss, tensors), strict=True):
            assert expected.abs().max() > 1e-4
            torch.testing.assert_close(gradients[name][seed], expected, rtol=0, atol=1e-12)


@BIASES
def test_gradients_do_not_touch_parameters_or_inputs(bias):
    model, parameters = network(bias)
    x, y = objects(1)
    before = {name: tensor.clone() for name, tensor in parameters.items()}
    kept = x.clone()
    model.gradients(parameters, x, y)
    model.forward(parameters, x)
    assert torch.equal(x, kept)
    assert all(torch.equal(parameters[name], before[name]) for name in before)


def test_gradient_of_a_dead_network_is_zero():
    model, parameters = network(bias=False)
    parameters["0.weight"] = -parameters["0.weight"].abs()
    x, y = objects(1)
    for gradient in model.gradients(parameters, x.abs(), y).values():
        assert torch.equal(gradient, torch.zeros_like(gradient))


@BIASES
@DEPTHS
def test_number_of_parameters(bias, num_layers):
    features, hidden, classes = 784, 16, 10
    model = MLP(features, classes, hidden, num_layers, bias)
    parameters = model.initialise([generator(0, "test")])
    expected = features * hidden + num_layers * hidden**2 + hidden * classes
    if bias:
        expected += (num_layers + 1) * hidden + classes
    assert sum(tensor[0].numel() for tensor in parameters.values()) == expected
    assert sum(tensor.ndim == 3 for tensor in parameters.values()) == num_layers + 2
    assert sum(tensor.numel() for tensor in model.module(parameters, 0).parameters()) == expected


@BIASES
def test_initialisation_is_pytorchs_default(bias):
    model = MLP(in_features=50, classes=20, hidden_size=120, num_layers=1, bias=bias)
    drawn = model.initialise([generator(seed, "initialisation") for seed in range(60)])
    torch.manual_seed(0)
    for layer, (fan_in, fan_out) in enumerate([(50, 120), (120, 120), (120, 20)]):
        default = [torch.nn.Linear(fan_in, fan_out) for _ in range(60)]
        for part in ("weight", "bias") if bias else ("weight",):
            values = drawn[f"{2 * layer}.{part}"]
            theirs = torch.stack([getattr(linear, part).detach() for linear in default])
            assert values.shape == theirs.shape
            assert values.dtype == torch.float32
            bound = fan_in**-0.5
            assert stats.kstest(values.flatten(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
            assert stats.ks_2samp(values.flatten(), theirs.flatten()).pvalue > 1e-3


@BIASES
def test_each_seed_is_drawn_from_its_own_generator(bias):
    model, _ = network(bias)
    together = model.initialise([generator(seed, "test") for seed in (4, 9)])
    alone = model.initialise([generator(9, "test")])
    for name, tensor in alone.items():
        assert torch.equal(together[name][1], tensor[0])
        assert not (together[name][0] == tensor[0]).any()


def test_module_is_a_copy():
    model, parameters = network(bias=True)
    net = model.module(parameters, 1)
    before = parameters["2.weight"].clone()
    with torch.no_grad():
        net.get_submodule("2").weight.zero_()
    assert torch.equal(parameters["2.weight"], before)


def test_build_model_takes_features_from_the_pictures_shape():
    settings = {"kind": "mlp", "hidden_size": 8, "num_layers": 3, "bias": True}
    model = build_model(settings, (3, 4, 5), 11)
    assert model.widths == (60, 8, 8, 8, 8, 11)
    assert model.bias
    assert settings["kind"] == "mlp"
    logits = model.forward(model.initialise([generator(0, "test")]), torch.zeros(1, 2, 3, 4, 5))
    assert logits.shape == (1, 2, 11)


@pytest.mark.parametrize(("kind", "first"), [("conv1d", (6, 27, 3)), ("conv2d", (6, 3, 3, 3))])
def test_build_model_builds_convolutional_networks(kind, first):
    settings = asdict(ConvConfig(kind=kind, num_layers=2, position=1, head=[7]))
    model = build_model(settings, (3, 8, 9), 11)
    assert isinstance(model, ConvNet)
    parameters = model.initialise([generator(0, "test")])
    assert parameters["conv1.weight"].shape == (1, *first)
    assert parameters["head2.weight"].shape == (1, 11, 7)


def test_build_model_refuses_what_it_does_not_know():
    with pytest.raises(
        BadInput, match=r"model\.kind: 'transformer'; allowed: mlp, feedforward, conv1d, conv2d, lenet, vit$"
    ):
        build_model({"kind": "transformer"}, (1, 2, 2), 3)
