"""The recursion of the gradients' covariance beside the mean that it is."""

import pytest
import torch

from landscape_cli.curvature.stacked import flatten
from landscape_cli.models.mlp import FeedForward
from landscape_cli.pruning.gradients import GradientCovariance
from landscape_cli.training import Trainer

SEEDS, OBJECTS, BATCH = (0, 4), 40, 8


@pytest.fixture
def trainer():
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(OBJECTS, 3, generator=draw, dtype=torch.float64)
    y = torch.randint(2, (OBJECTS,), generator=draw)
    model = FeedForward(3, 2, [4])
    start = {name: t.double() for name, t in model.initialise([draw, draw]).items()}
    return Trainer(model, x, y, seeds=SEEDS, epochs=3, batch_size=BATCH, learning_rate=1e-2, start=start)


def test_recursion_is_the_mean_of_the_outer_products(trainer):
    whole, diagonal = GradientCovariance(trainer.model, whole=True), GradientCovariance(trainer.model)
    seen = []

    def observe(parameters, x, y, gradients):
        whole.observe(parameters, x, y, gradients)
        diagonal.observe(parameters, x, y, gradients)
        own = {name: tensor.clone() for name, tensor in parameters.items()}
        first = flatten(trainer.model.gradients(own, x[:, :1], y[:, :1]))
        batch = flatten(trainer.model.gradients(own, x, y))
        seen.append(first - batch)

    for _ in range(3):
        trainer.epoch(observe=observe)
    assert len(seen) == whole.steps == 3 * OBJECTS // BATCH
    differences = torch.stack(seen)
    expected = torch.einsum("tri,trj->rij", differences, differences) / len(seen)
    torch.testing.assert_close(whole.value, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(whole.variances, diagonal.variances)
    torch.testing.assert_close(diagonal.variances, expected.diagonal(dim1=1, dim2=2), rtol=1e-10, atol=1e-14)


def test_at_fixed_parameters_it_tends_to_the_covariance_of_gradients(trainer):
    """(1 - 1/S) of it, since the first object is one of the minibatch's S."""
    trainer.free = {name: torch.zeros_like(t, dtype=torch.bool) for name, t in trainer.parameters.items()}
    model, gathered = trainer.model, GradientCovariance(trainer.model)
    for _ in range(1500):
        trainer.epoch(observe=gathered.observe)
    singles = torch.stack(
        [
            flatten(model.gradients(trainer.parameters, trainer.x[None, i : i + 1], trainer.y[i].expand(2, 1)))
            for i in range(OBJECTS)
        ]
    )
    # Minibatches are drawn without replacement from a finite set: (N/(N-1)) of the variance over objects.
    expected = (1 - 1 / BATCH) * singles.var(dim=0)
    torch.testing.assert_close(gathered.variances, expected, rtol=0.1, atol=1e-6)


def test_nothing_observed(trainer):
    with pytest.raises(ValueError, match="no minibatch"):
        GradientCovariance(trainer.model).variances  # noqa: B018
