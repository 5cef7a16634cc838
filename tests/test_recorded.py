"""Steps that are recorded once and replayed."""

from __future__ import annotations

import pytest
import torch

from landscape_cli import recorded as module
from landscape_cli.models.mlp import MLP
from landscape_cli.recorded import RecordedStep, recorded
from landscape_cli.training import Trainer

BATCH = 8


class StandIn:
    """Records what a graph would: the operators of one step, on its own copy of the indices."""

    made = 0

    def __init__(self, step, index):
        type(self).made += 1
        self.step, self.index = step, index.clone()

    def __call__(self, index):
        self.index.copy_(index)
        self.step(self.index)


class Counter:
    """A step that adds what its indices say to a total."""

    def __init__(self):
        self.total = torch.zeros(1)

    def __call__(self, index):
        self.total += index.sum()


class TestRecorded:
    """The first step is taken once, and the recording is used only if it does the same."""

    def test_takes_the_step_once(self):
        step = Counter()
        again = recorded(step, [step.total], torch.tensor([[2]]), StandIn)
        assert isinstance(again, StandIn)
        assert step.total == 2
        again(torch.tensor([[5]]))
        assert step.total == 7

    def test_one_that_does_something_else_is_not_used(self):
        step = Counter()
        again = recorded(step, [step.total], torch.tensor([[2]]), lambda step, index: lambda index: step(index + 1))
        assert again is step
        assert step.total == 2

    def test_one_that_cannot_be_made_is_not_used(self):
        def refuse(step, index):
            raise RuntimeError("operation not permitted when stream is capturing")

        step = Counter()
        assert recorded(step, [step.total], torch.tensor([[2]]), refuse) is step
        assert step.total == 2


def train(objects=50, device="cpu", **options):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(objects, 6, generator=draw).to(device)
    y = torch.randint(3, (objects,), generator=draw).to(device)
    given = {"seeds": (0, 1), "epochs": 3, "batch_size": BATCH, "learning_rate": 0.01, **options}
    trainer = Trainer(MLP(6, 3, 8, 1), x, y, **given)
    for epoch in trainer.epochs():
        trainer.epoch()
        if epoch == 0:
            trainer.branch(2)
    return trainer.finish()


@pytest.fixture
def stand_in(monkeypatch):
    """Steps on the CPU are recorded, too."""
    monkeypatch.setattr(StandIn, "made", 0)
    monkeypatch.setattr(module.recorded, "__defaults__", (StandIn,))
    monkeypatch.setattr(Trainer, "recorded_on", frozenset({"cpu"}))


class TestTrainer:
    """A training whose steps are replayed is the same."""

    @pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}])
    def test_same_numbers(self, options, monkeypatch, request):
        expected = train(**options)
        request.getfixturevalue("stand_in")
        found = train(**options)
        assert StandIn.made == 2  # the tensors are others after the branch
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    @pytest.mark.parametrize("options", [{"schedule": "cosine"}, {"warmup": 0.5}, {"batch_size": 64}])
    def test_what_differs_from_step_to_step_is_not_recorded(self, stand_in, options):
        train(**options)
        assert StandIn.made == 0

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_a_gpu(self, monkeypatch):
        made = []
        monkeypatch.setattr(
            module.recorded, "__defaults__", (lambda *given: made.append(RecordedStep(*given)) or made[-1],)
        )
        found = train(device="cuda")
        assert len(made) == 2
        monkeypatch.setattr(Trainer, "recorded_on", frozenset())
        expected = train(device="cuda")
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
