"""The fast gradient sign method and noise in the parameters."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from landscape_cli.distillation.attacks import fgsm, noisy_parameters
from landscape_cli.errors import BadInput
from landscape_cli.models.mlp import FeedForward
from landscape_cli.rng import generator

NETWORKS, OBJECTS, FEATURES, CLASSES = 3, 9, 5, 4


@pytest.fixture
def setting():
    model = FeedForward(FEATURES, CLASSES, [6], "tanh", bias=True)
    parameters = model.initialise([generator(seed, "start") for seed in range(NETWORKS)])
    parameters = {name: 2 * tensor.double() for name, tensor in parameters.items()}
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(NETWORKS, OBJECTS, FEATURES, generator=draw, dtype=torch.float64)
    return model, parameters, x, torch.randint(CLASSES, (NETWORKS, OBJECTS), generator=draw)


def losses(model, parameters, x, y):
    return cross_entropy(model.forward(parameters, x).transpose(1, 2), y, reduction="none")


def test_the_loss_grows_by_the_length_of_the_gradient_to_first_order(setting):
    model, parameters, x, y = setting
    before = losses(model, parameters, x, y)
    lengths = model.input_gradients(parameters, x, y).abs().sum(dim=2)
    errors = []
    for strength in (1e-2, 1e-3, 1e-4):
        growth = losses(model, parameters, fgsm(model, parameters, x, y, strength), y) - before
        errors.append((growth / strength - lengths).abs().max().item())
        assert (growth > 0).all()
    assert errors[1] < errors[0] / 9 < 9
    assert errors[2] < errors[1] / 9


def test_no_change_within_the_same_bounds_is_worse_to_first_order(setting):
    model, parameters, x, y = setting
    strength = 1e-4
    worst = losses(model, parameters, fgsm(model, parameters, x, y, strength), y)
    draw = torch.Generator().manual_seed(2)
    for _ in range(50):
        other = x + strength * (2 * torch.rand(x.shape, generator=draw, dtype=x.dtype) - 1)
        assert (losses(model, parameters, other, y) <= worst + 1e-7).all()


def test_moves_by_the_strength_and_within_limits(setting):
    model, parameters, x, y = setting
    moved = fgsm(model, parameters, x, y, 0.3)
    torch.testing.assert_close((moved - x).abs(), torch.full_like(x, 0.3))
    kept = fgsm(model, parameters, x, y, 0.3, limits=(-1.0, 1.0))
    torch.testing.assert_close(kept, moved.clamp(-1, 1))
    shared = fgsm(model, parameters, x[:1], y[:1].expand(NETWORKS, -1), 0.3)
    assert shared.shape == (NETWORKS, OBJECTS, FEATURES)
    torch.testing.assert_close(shared[0], moved[0])
    assert torch.equal(fgsm(model, parameters, x, y, 0.0), x)


def test_noise_of_the_parameters(setting):
    _, parameters, _, _ = setting

    def generators():
        return [generator(seed, "noise") for seed in range(NETWORKS)]

    small, large = (noisy_parameters(parameters, strength, generators()) for strength in (0.1, 0.2))
    shifts = []
    for name, tensor in parameters.items():
        torch.testing.assert_close(large[name] - tensor, 2 * (small[name] - tensor))
        shifts.append((small[name] - tensor).flatten())
    assert torch.cat(shifts).std().item() == pytest.approx(0.1, rel=0.15)
    assert all(torch.equal(noisy_parameters(parameters, 0.0, generators())[n], t) for n, t in parameters.items())
    other = noisy_parameters(parameters, 0.1, [generator(seed, "other") for seed in range(NETWORKS)])
    assert not torch.equal(other["0.weight"], small["0.weight"])


def test_negative_strengths_are_refused(setting):
    model, parameters, x, y = setting
    with pytest.raises(BadInput, match=r"attack: -0\.1; allowed: 0 or more"):
        fgsm(model, parameters, x, y, -0.1)
    with pytest.raises(BadInput, match=r"noise: -1; allowed: 0 or more"):
        noisy_parameters(parameters, -1, [])
