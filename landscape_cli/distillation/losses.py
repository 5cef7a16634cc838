"""The losses of distillation, and students that follow them (thesis 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from landscape_cli.errors import BadInput
from landscape_cli.models import Parameters, StackedModel
from landscape_cli.models.conv import ConvNet
from landscape_cli.models.lenet import LeNet


def distillation_losses(
    logits: torch.Tensor, y: torch.Tensor, teacher: torch.Tensor, *, weight: float, temperature: float = 1.0
) -> torch.Tensor:
    """Each object's loss -λ log g^y(x) - (1 - λ) Σ_r f^r log g^r(x), where f and g of the sum are taken at T.

    With T = 1 it is the loss of distillation across domains, f being the teacher's answer to φ(x). The basic loss of
    the thesis has both parts with weight one and a temperature T₀ in the second: twice this one at λ = 1/2.

    Parameters
    ----------
    logits
        The student's, shape (B, K).
    y
        Class indices, shape (B,).
    teacher
        The teacher's probabilities at the temperature T (:func:`soft_labels`), shape (B, K); with λ = 1 not used.
    weight
        λ in [0, 1], of the labels.
    temperature
        T > 0.

    Returns
    -------
    Shape (B,), in nats.

    Raises
    ------
    BadInput
        λ or T lie outside, or teacher and student have different classes.
    """
    check_weights(weight, temperature)
    if weight < 1:
        check_classes(teacher.shape[-1], logits.shape[-1])
    logs = functional.log_softmax(logits, dim=-1)
    hard = functional.nll_loss(logs, y, reduction="none")
    if weight == 1:
        return hard
    cooled = logs if temperature == 1 else functional.log_softmax(logits / temperature, dim=-1)
    return weight * hard - (1 - weight) * (teacher * cooled).sum(dim=-1)


def soft_labels(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """A teacher's probabilities softmax(v/T), of its logits v (…, K)."""
    check_weights(1.0, temperature)
    return functional.softmax(logits / temperature, dim=-1)


def check_weights(weight: float, temperature: float) -> None:
    """Refuse a λ outside of [0, 1] and a temperature that is not positive."""
    if not 0 <= weight <= 1:
        raise BadInput(f"weight: λ = {weight}; allowed: 0 to 1")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise BadInput(f"temperature: T = {temperature}; allowed: more than 0")


def check_classes(teacher: int, student: int) -> None:
    """Refuse a teacher of other classes than its student's."""
    if teacher != student:
        raise BadInput(f"teacher: {teacher} classes, and the student has {student}; allowed: equally many")


class OwnLoss:
    """Students whose gradients are those of another loss; the rest is the networks' own."""

    def __init__(self, student: StackedModel) -> None:
        self.student, self.chunk = student, student.chunk

    def initialise(self, generators: Sequence[torch.Generator]) -> Parameters:
        """The student's."""
        return self.student.initialise(generators)

    def forward(self, parameters: Parameters, x: torch.Tensor) -> torch.Tensor:
        """The student's outputs."""
        return self.student.forward(parameters, x)

    def module(self, parameters: Parameters, seed: int) -> torch.nn.Module:
        """One student as an ordinary module."""
        return self.student.module(parameters, seed)


class Distilled(OwnLoss):
    """A student whose gradients are those of the distillation loss; its targets are numbers of train objects.

    Every seed has soft labels of its own, since every seed has a teacher of its own. A
    :class:`~landscape_cli.training.Trainer` is given ``arange(n)`` in the place of classes.

    Parameters
    ----------
    student
        Architecture of S networks.
    y
        Classes of the train objects, shape (n,).
    teacher
        Soft labels of the train objects, shape (S, n, K), or (1, n, K) shared by all seeds.
    weight, temperature
        λ and T.
    """

    def __init__(
        self, student: StackedModel, y: torch.Tensor, teacher: torch.Tensor, weight: float, temperature: float = 1.0
    ) -> None:
        check_weights(weight, temperature)
        super().__init__(student)
        self.y, self.teacher, self.weight, self.temperature = y, teacher, weight, temperature

    def gradients(self, parameters: Parameters, x: torch.Tensor, rows: torch.Tensor) -> Parameters:
        """Gradient of each seed's mean loss over its minibatch, x (S, B, …), rows (S, B)."""

        def loss(logits: torch.Tensor, seed: int, part: slice) -> torch.Tensor:
            own = rows[seed, part]
            teacher = self.teacher[seed % len(self.teacher), own]
            given: dict[str, Any] = {"weight": self.weight, "temperature": self.temperature}
            return distillation_losses(logits, self.y[own], teacher, **given).sum() / rows.shape[1]

        return gradients_of(self.student, parameters, x, loss)


def gradients_of(model: StackedModel, parameters: Parameters, x: torch.Tensor, loss: Any) -> Parameters:
    """Gradient of each seed's loss of its logits.

    Parameters
    ----------
    x
        Shape (S, B, …), or (1, B, …) shared by all seeds.
    loss
        A sum over objects: called with logits (B', K), the seed's number and which objects of its minibatch they are.
    """
    if isinstance(model, LeNet):
        return model.gradients_of(parameters, x, loss)
    forward = model.forward_grouped if isinstance(model, ConvNet) else model.forward
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
        logits = forward(leaves, x)
        total = sum(loss(logits[seed], seed, slice(0, logits.shape[1])) for seed in range(len(logits)))
        return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
