"""Training epoch by epoch, with held parameters, and side by side from one point on."""

import pytest
import torch

from landscape_cli.descent import mean_losses
from landscape_cli.models.mlp import FeedForward
from landscape_cli.training import Trainer, fit

SEEDS, OBJECTS = (0, 5), 50
SETTINGS = {"batch_size": 16, "learning_rate": 1e-2, "stream": "point"}


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(3)
    return torch.randn(OBJECTS, 4, generator=draw), torch.randint(3, (OBJECTS,), generator=draw)


@pytest.fixture
def model():
    return FeedForward(4, 3, [6])


def trained(trainer, epochs):
    for _ in range(epochs):
        trainer.epoch()
    return trainer.finish()


def test_epochs_one_by_one_are_a_fit(model, data):
    whole = fit(model, *data, seeds=SEEDS, epochs=4, **SETTINGS)
    steps = trained(Trainer(model, *data, seeds=SEEDS, epochs=4, **SETTINGS), 4)
    assert all(torch.equal(whole[name], steps[name]) for name in whole)


def test_held_parameters_stay_and_the_others_move(model, data):
    trainer = Trainer(model, *data, seeds=SEEDS, epochs=5, **SETTINGS)
    trainer.epoch()  # the optimiser has moments by now, which would move them on
    before = {name: tensor.clone() for name, tensor in trainer.parameters.items()}
    draw = torch.Generator().manual_seed(0)
    trainer.free = {name: torch.rand(tensor.shape, generator=draw) < 0.5 for name, tensor in before.items()}
    after = trained(trainer, 4)
    for name, free in trainer.free.items():
        assert torch.equal(after[name][~free], before[name][~free])
        assert (after[name][free] != before[name][free]).all()


def test_branches_go_on_as_the_whole_does(model, data):
    """Copies with nothing held are the training that was not branched; a copy held in full stays where it was."""
    whole = trained(Trainer(model, *data, seeds=SEEDS, epochs=5, **SETTINGS), 5)
    trainer = Trainer(model, *data, seeds=SEEDS, epochs=5, **SETTINGS)
    trainer.epoch()
    trainer.epoch()
    middle = {name: tensor.clone() for name, tensor in trainer.parameters.items()}
    trainer.branch(3)
    trainer.free = {}
    for name, tensor in trainer.parameters.items():
        free = torch.ones_like(tensor, dtype=torch.bool)
        free[1::3] = False
        trainer.free[name] = free
    after = trained(trainer, 3)
    for name in whole:
        assert after[name].shape[0] == 6
        for copy in (0, 2):
            torch.testing.assert_close(after[name][copy::3], whole[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(after[name][1::3], middle[name])


def test_branches_keep_their_own_rows(model, data):
    rows = torch.stack([torch.arange(30), torch.arange(20, 50)])
    whole = trained(Trainer(model, *data, seeds=SEEDS, epochs=3, rows=rows, **SETTINGS), 3)
    trainer = Trainer(model, *data, seeds=SEEDS, epochs=3, rows=rows, **SETTINGS)
    trainer.epoch()
    trainer.branch(2)
    after = trained(trainer, 2)
    for name in whole:
        torch.testing.assert_close(after[name][::2], whole[name], rtol=1e-5, atol=1e-7)


def test_augmented_training_cannot_branch(model):
    pictures = torch.randn(OBJECTS, 1, 2, 2)
    options = {"seeds": SEEDS, "epochs": 1, "augmentation": "crop_flip", **SETTINGS}
    with pytest.raises(ValueError, match="different pictures"):
        Trainer(model, pictures, torch.zeros(OBJECTS, dtype=torch.long), **options).branch(2)


def test_regression_is_trained_on_squared_errors(data):
    x, _ = data
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0])
    model = FeedForward(4, 1, [])
    found = fit(model, x, y, seeds=SEEDS, epochs=400, batch_size=OBJECTS, learning_rate=2e-2)
    expected = torch.tensor([1.0, -2.0, 0.5, 0.0]).expand(2, 1, -1)
    torch.testing.assert_close(found["0.weight"], expected, rtol=0, atol=1e-3)
    losses = mean_losses(model, {"0.weight": torch.zeros(2, 1, 4)}, x[None], y[None])
    torch.testing.assert_close(losses, y.square().mean().expand(2))
