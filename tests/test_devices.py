"""For given parameters another device's result differs by rounding only; random draws do not differ at all."""

from dataclasses import asdict

import pytest
import torch

from landscape_cli.config import ConvConfig
from landscape_cli.convergence.differences import exponential_moving_average, loss_differences
from landscape_cli.convergence.losses import object_losses
from landscape_cli.models.conv import ConvNet
from landscape_cli.models.mlp import MLP
from landscape_cli.rng import generator
from landscape_cli.training import fit

DEVICES = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")),
]


@pytest.fixture
def problem():
    draws = generator(0, "test problem")
    x = torch.rand(500, 1, 8, 8, generator=draws) * 2 - 1
    y = torch.randint(0, 10, (500,), generator=draws)
    model = MLP(in_features=64, classes=10, hidden_size=16, num_layers=3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the fastest for nets as small as these
    yield model, x, y
    torch.set_num_threads(threads)


@pytest.mark.parametrize("device", DEVICES)
def test_losses_and_differences_agree_for_given_parameters(problem, device):
    model, x, y = problem
    parameters = fit(model, x, y, seeds=[0, 1], epochs=3, batch_size=64, learning_rate=1e-3)
    here = object_losses(model, parameters, x, y).losses
    moved = {name: tensor.to(device) for name, tensor in parameters.items()}
    there = object_losses(model, moved, x.to(device), y.to(device)).losses
    # The logits are float32 (2^-24 relative a product, a few products in a row); the rest is float64.
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)
    curves = [loss_differences(losses[0], 20, generator(0, "orderings")).mean.cpu() for losses in (here, there)]
    torch.testing.assert_close(curves[1], curves[0], rtol=1e-4, atol=1e-9)
    averages = [exponential_moving_average(curve, 0.9) for curve in curves]
    torch.testing.assert_close(averages[1], averages[0], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_one_step_of_training_agrees(problem, device):
    model, x, y = problem
    training = {"seeds": [0, 1], "epochs": 1, "batch_size": 500, "learning_rate": 1e-3}
    here, there = fit(model, x, y, **training), fit(model, x.to(device), y.to(device), **training)
    for name, tensor in here.items():
        # Adam's first step is ±learning rate: a gradient that is zero up to rounding may take either sign.
        assert (there[name].cpu() - tensor).abs().max() <= 2.1e-3
        assert ((there[name].cpu() - tensor).abs() < 1e-6).double().mean() > 0.99


class Elsewhere(ConvNet):
    """Does on the CPU what other devices do."""

    forward, gradients = ConvNet.forward_grouped, ConvNet.gradients_grouped


@pytest.mark.parametrize("device", ["cpu", *DEVICES])
@pytest.mark.parametrize("kind", ["conv1d", "conv2d"])
@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolutional_networks_losses_and_gradients_agree(problem, device, kind, pooling, bias, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # ten bits of a float32's mantissa are not rounding
    _, x, y = problem
    settings = asdict(ConvConfig(kind=kind, num_layers=3, kernel_size=2, bias=bias, pooling=pooling, position=1))
    model = ConvNet(settings, (1, 8, 8), 10)
    other = Elsewhere(settings, (1, 8, 8), 10) if device == "cpu" else model
    parameters = fit(model, x, y, seeds=[0, 1], epochs=2, batch_size=64, learning_rate=1e-3)
    moved = {name: tensor.to(device) for name, tensor in parameters.items()}
    here = object_losses(model, parameters, x, y)
    there = object_losses(other, moved, x.to(device), y.to(device))
    torch.testing.assert_close(there.losses.cpu(), here.losses, rtol=1e-5, atol=1e-6)
    assert torch.equal(there.constant.cpu(), here.constant)
    batch, labels = x[:64].unflatten(0, (2, 32)), y[:64].unflatten(0, (2, 32))
    expected = model.gradients(parameters, batch, labels)
    found = other.gradients(moved, batch.to(device), labels.to(device))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.abs().max() > 1e-3
        torch.testing.assert_close(found[name].cpu(), tensor, rtol=1e-4, atol=1e-6)
