"""Classifiers that are taught: training epoch by epoch, and how good they are on test objects (thesis 4.4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from landscape_cli.distillation.losses import Distilled, soft_labels
from landscape_cli.models import Parameters, StackedModel
from landscape_cli.training import Trainer


@torch.no_grad()
def train_student(
    student: StackedModel,
    x: torch.Tensor,
    y: torch.Tensor,
    teacher: torch.Tensor,
    test: tuple[torch.Tensor, torch.Tensor],
    *,
    weight: float,
    temperature: float,
    seeds: Sequence[int],
    epochs: int,
    **options: Any,
) -> tuple[Parameters, torch.Tensor]:
    """Train with a teacher's soft labels, and test before the first epoch and after each.

    Parameters
    ----------
    x, y
        Train objects (n, …) and classes (n,).
    teacher
        Soft labels at the temperature, (S, n, K) or (1, n, K).
    test
        Test objects (M, …) and classes (M,).
    weight, temperature
        λ and T of :func:`~landscape_cli.distillation.losses.distillation_losses`.
    options
        As of :class:`~landscape_cli.training.Trainer`.

    Returns
    -------
    Parameters, and accuracy and mean cross-entropy in nats, (2, epochs + 1, S), float64.
    """
    model = Distilled(student, y, teacher, weight, temperature)
    rows = torch.arange(len(x), device=x.device)
    trainer = Trainer(model, x, rows, seeds=seeds, epochs=epochs, **options)
    history: list[torch.Tensor] = []
    left = trainer.epochs(keep={"history": history})
    if not trainer.done:
        history.append(evaluate(student, trainer.parameters, *test))
    for _ in left:
        trainer.epoch()
        history.append(evaluate(student, trainer.parameters, *test))
    return trainer.finish(), torch.stack(history, dim=1)


@torch.no_grad()
def evaluate(model: StackedModel, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each seed's accuracy and mean cross-entropy in nats on shared objects x (N, …), y (N,): shape (2, S), float64."""
    seeds = len(next(iter(parameters.values())))
    total = torch.zeros(2, seeds, dtype=torch.float64)
    for begin in range(0, len(x), model.chunk):
        logits = model.forward(parameters, x[None, begin : begin + model.chunk])
        own = y[begin : begin + model.chunk]
        losses = functional.cross_entropy(logits.transpose(1, 2), own.expand(seeds, -1), reduction="none")
        right = logits.argmax(dim=-1) == own
        total += torch.stack([right.sum(dim=1).cpu().double(), losses.cpu().double().sum(dim=1)])
    return total / len(x)


@torch.no_grad()
def taught(model: StackedModel, parameters: Parameters, x: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Each seed's soft labels of objects x (N, …): softmax(v/T), shape (S, N, K)."""
    chunks = x.split(model.chunk)
    return torch.cat([soft_labels(model.forward(parameters, part[None]), temperature) for part in chunks], dim=1)


def integral_criterion(losses: torch.Tensor) -> torch.Tensor:
    """Area under the curve of the test cross-entropy over epochs, by the trapezium rule (thesis 4.4.2).

    Parameters
    ----------
    losses
        After each epoch, shape (epochs, …); with one epoch the area is 0.

    Returns
    -------
    Shape (…), in nats times epochs.
    """
    return torch.trapezoid(losses, dim=0)
