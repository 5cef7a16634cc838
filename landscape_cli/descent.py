"""Gradient descent on all objects at once, and what it is watched by: mean losses, distances."""

from __future__ import annotations

import torch

from landscape_cli.checkpointing import resumed
from landscape_cli.errors import MeasurementFailed
from landscape_cli.models import Parameters, StackedModel


@torch.no_grad()
def settle(
    model: StackedModel, parameters: Parameters, x: torch.Tensor, y: torch.Tensor, *, steps: int, learning_rate: float
) -> tuple[Parameters, torch.Tensor]:
    """Gradient descent on all objects that never goes up: a seed's step is halved when its loss would grow.

    Parameters
    ----------
    x, y
        Each seed's own objects, shape (S, N, …), and class indices, shape (S, N).
    learning_rate
        The first and largest one: after a step that is taken the rate grows by a tenth again, up to it. Without that
        limit the rate would run away where a sample is fitted and the loss is flat.

    Returns
    -------
    New parameters, name -> (S, …), and half of each seed's last rate, shape (S,): descent is stable there at that rate.
    """
    parameters = {name: tensor.clone() for name, tensor in parameters.items()}
    loss = mean_losses(model, parameters, x, y)
    state = {"parameters": parameters, "loss": loss, "rates": torch.full_like(loss, learning_rate)}
    label = {"kind": "settle", "model": model, "rate": learning_rate}
    for _ in resumed(steps, state, label, (x, y)):
        loss, rates = state["loss"], state["rates"]
        gradients = model.gradients(parameters, x, y)
        trial = {name: tensor - _each(rates, tensor) * gradients[name] for name, tensor in parameters.items()}
        reached = mean_losses(model, trial, x, y)
        better = reached <= loss  # not where it is NaN
        for name, tensor in parameters.items():
            parameters[name] = torch.where(_each(better, tensor), trial[name], tensor)
        state["loss"] = torch.where(better, reached, loss)
        state["rates"] = torch.where(better, (rates * 1.1).clamp(max=learning_rate), rates / 2)
    return parameters, state["rates"] / 2


@torch.no_grad()
def descend(
    model: StackedModel, parameters: Parameters, x: torch.Tensor, y: torch.Tensor, *, steps: int, rates: torch.Tensor
) -> Parameters:
    """Plain gradient descent on all objects: deterministic, and continuous in the data.

    Parameters
    ----------
    x, y
        Each seed's own objects, shape (S, N, …), and class indices, shape (S, N).
    rates
        Each seed's learning rate, shape (S,).

    Returns
    -------
    New parameters, name -> (S, …).

    Raises
    ------
    MeasurementFailed
        If a parameter is not finite at the end: a rate is too large for the sharpness.
    """
    parameters = {name: tensor.clone() for name, tensor in parameters.items()}
    label = {"kind": "descend", "model": model, "rates": rates}
    for _ in resumed(steps, {"parameters": parameters}, label, (x, y)):
        for name, gradient in model.gradients(parameters, x, y).items():
            parameters[name] -= _each(rates, gradient) * gradient
    if not all(bool(tensor.isfinite().all()) for tensor in parameters.values()):
        raise MeasurementFailed(f"gradient descent diverged at learning rates up to {float(rates.max()):g}")
    return parameters


@torch.no_grad()
def mean_losses(model: StackedModel, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each seed's mean loss, (S,), that of its gradients: cross-entropy of classes, squared error of real targets.

    Parameters
    ----------
    x, y
        Objects (S, N, …) and targets (S, N), or (1, N, …) and (1, N) shared by all seeds.
    """
    outputs = model.forward(parameters, x)
    y = y.expand(len(outputs), -1)
    if y.is_floating_point():
        return (outputs.squeeze(-1) - y).square().mean(dim=1)
    return torch.nn.functional.cross_entropy(outputs.transpose(1, 2), y, reduction="none").mean(dim=1)


def _each(values: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """One value a seed, shaped to act on a stacked tensor."""
    return values.view(-1, *[1] * (tensor.dim() - 1))


def distance(first: Parameters, second: Parameters) -> torch.Tensor:
    """Euclidean distance of two parameter vectors, one a seed: shape (S,), float64."""
    squares = [(first[name].cpu().double() - second[name].cpu().double()).square().flatten(1).sum(1) for name in first]
    return torch.stack(squares).sum(dim=0).sqrt()
