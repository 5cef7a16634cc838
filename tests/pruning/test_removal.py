"""Removal step by step, and quality and noise of what is left."""

import numpy as np
import pytest
import torch

from landscape_cli.models.mlp import FeedForward
from landscape_cli.pruning import removal
from landscape_cli.pruning.removal import output_noise, quality, remove
from landscape_cli.rng import generator

NETWORKS, SIZE = 3, 11


@pytest.fixture
def weights():
    return torch.randn(NETWORKS, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def magnitude(weights, active):
    return weights.abs()


def test_every_step_removes_exactly_what_it_says(weights):
    counts = [0, 1, 2, 5, SIZE]
    steps = list(remove(weights, magnitude, counts))
    assert [step.removed for step in steps] == counts
    for step in steps:
        assert torch.equal((~step.active).sum(dim=1), torch.full((NETWORKS,), step.removed))
        assert torch.equal(step.weights, weights * step.active)
        smallest = weights.abs().sort(dim=1).values[:, : step.removed]
        gone = weights.abs().masked_select(~step.active).view(NETWORKS, -1)
        torch.testing.assert_close(gone.sort(dim=1).values, smallest)
    assert torch.equal(steps[0].weights, weights)
    assert (steps[-1].weights == 0).all()


def test_scores_are_taken_anew_and_removed_parameters_stay_away(weights):
    seen = []

    def score(now, active):
        seen.append((now.clone(), active.clone()))
        return torch.zeros_like(now)  # all equal: the lowest number goes

    steps = list(remove(weights, score, [0, 1, 2, 3]))
    assert len(seen) == 3
    for number, (now, active) in enumerate(seen):
        assert torch.equal(active, steps[number].active)
        assert torch.equal(now, steps[number].weights)
    assert torch.equal(steps[-1].active, (torch.arange(SIZE) >= 3).expand(NETWORKS, -1))


def test_of_equal_scores_one_at_random_goes_anew_at_every_step():
    """Of two parameters that tie until the end each is the last one in half of the networks."""
    networks = 400
    weights = torch.ones(networks, 6, dtype=torch.float64)

    def score(now, active):  # the first two tie at last
        return torch.tensor([0.0, 0.0, -1.0, -1.0, -1.0, -1.0]).expand(networks, -1)

    ties = [generator(seed, "ties") for seed in range(networks)]
    steps = list(remove(weights, score, range(6), ties=ties))
    assert not steps[4].active[:, 2:].any()
    assert (steps[4].active[:, :2]).all()
    assert 0.4 < steps[5].active[:, 0].double().mean() < 0.6
    first = torch.stack([(~steps[1].active[:, j]).double().mean() for j in range(2, 6)])
    assert (first - 0.25).abs().max() < 0.08
    again = list(remove(weights, score, range(6), ties=[generator(seed, "ties") for seed in range(networks)]))
    assert all(torch.equal(one.active, other.active) for one, other in zip(steps, again, strict=True))


def test_scores_come_before_chance(weights):
    ties = [generator(seed, "ties") for seed in range(NETWORKS)]
    found = list(remove(weights, magnitude, [0, 3], ties=ties))[-1]
    assert torch.equal(found.active, list(remove(weights, magnitude, [0, 3]))[-1].active)


def test_retraining_moves_what_is_left_only(weights):
    def retrain(now, active):
        return now + active * 1.5

    steps = list(remove(weights, magnitude, [0, 4, SIZE], retrain))
    assert torch.equal(steps[0].weights, weights)  # nothing removed, nothing trained
    assert (steps[1].weights[~steps[1].active] == 0).all()
    torch.testing.assert_close(steps[1].weights, (weights + 1.5) * steps[1].active)
    assert (steps[2].weights == 0).all()
    with pytest.raises(ValueError, match="moved a removed parameter"):
        list(remove(weights, magnitude, [0, 4], lambda now, active: now + 1))


@pytest.mark.parametrize("counts", [[0, 0], [3, 1], [-1, 2], [0, SIZE + 1]], ids=str)
def test_impossible_counts(weights, counts):
    with pytest.raises(ValueError, match=r"rise|to be removed"):
        list(remove(weights, magnitude, counts))


def network(outputs, hidden=(4,)):
    model = FeedForward(3, outputs, list(hidden), "tanh")
    parameters = model.initialise([generator(seed, "test") for seed in range(NETWORKS)])
    parameters = {name: tensor.double() for name, tensor in parameters.items()}
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(NETWORKS, 20, 3, generator=draw, dtype=torch.float64)
    return model, parameters, torch.cat([t.flatten(1) for t in parameters.values()], dim=1), x, draw


def test_accuracy_and_error(monkeypatch):
    model, like, weights, x, draw = network(3)
    y = torch.randint(3, (NETWORKS, 20), generator=draw)
    expected = (model.forward(like, x).argmax(dim=-1) == y).double().mean(dim=1)
    torch.testing.assert_close(quality(model, like, weights, x, y), expected)
    stacked = quality(model, like, torch.stack([weights, 0 * weights]), x, y)
    torch.testing.assert_close(stacked[0], expected)
    torch.testing.assert_close(stacked[1], torch.full((NETWORKS,), 1 / 3, dtype=torch.float64))  # it guesses
    monkeypatch.setattr(FeedForward, "chunk", 6)
    torch.testing.assert_close(quality(model, like, weights, x, y), expected)
    shared = quality(model, like, weights, x[:1], y[:1])
    torch.testing.assert_close(shared[0], expected[0])
    model, like, weights, x, draw = network(1)
    y = torch.randn(NETWORKS, 20, generator=draw, dtype=torch.float64)
    squares = (model.forward(like, x)[..., 0] - y).square().mean(dim=1)
    torch.testing.assert_close(quality(model, like, weights, x, y), squares)
    torch.testing.assert_close(quality(model, like, 0 * weights, x, y), y.square().mean(dim=1))


def generators():
    return [generator(seed, "noise") for seed in range(NETWORKS)]


@pytest.mark.parametrize("together", [1, NETWORKS])
def test_noise_of_a_linear_model_is_its_length(monkeypatch, together):
    model, like, weights, x, _ = network(1, ())
    monkeypatch.setattr(removal, "BYTES", together * 4000 * x[0].numel() * 8)
    given = {"copies": 4000, "generators": generators(), "classes": False}
    found = output_noise(model, like, torch.stack([weights, weights * 0]), x, [0.0, 0.5, 2.0], **given)
    assert found.shape == (2, NETWORKS, 3)
    lengths = weights.norm(dim=1)
    assert (found[:, :, 0] < 1e-12).all()
    torch.testing.assert_close(found[0, :, 1], 0.5 * lengths, rtol=0.02, atol=0)
    torch.testing.assert_close(found[0, :, 2], 4 * found[0, :, 1], rtol=1e-10, atol=0)  # the same noise at each level
    assert (found[1] == 0).all()


def test_noise_of_classes_is_that_of_the_softmax():
    model, like, weights, x, _ = network(3)
    given = {"copies": 5, "generators": generators(), "classes": True}
    found = output_noise(model, like, weights, x, [0.7], **given)
    for number, own in enumerate(generators()):
        net = model.module(like, number)
        noise = torch.randn(5, 20, 3, generator=own, dtype=torch.float64)
        with torch.no_grad():
            outputs = torch.stack([net(x[number] + 0.7 * each).softmax(dim=-1) for each in noise])
        expected = np.sqrt(outputs.numpy().var(axis=0, ddof=1).mean())
        assert found[number, 0].item() == pytest.approx(expected, rel=1e-10)
