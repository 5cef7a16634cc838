"""Training to θ̂: several seeds of one grid point at once, each as it would be alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from landscape_cli.errors import MeasurementFailed
from landscape_cli.models import Parameters, StackedModel
from landscape_cli.rng import generator


def fit(
    model: StackedModel,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    warmup: float = 0.0,
    augmentation: str = "none",
    stream: str = "",
    start: Parameters | None = None,
    rows: torch.Tensor | None = None,
    watch: Callable[[int, Parameters], None] | None = None,
    progress: Any = None,
) -> Parameters:
    """Minimise the mean cross-entropy with Adam on minibatches, all seeds in one pass.

    Every seed has its own initialisation and its own order of minibatches in every epoch, drawn from its own
    generators; the last, smaller minibatch of an epoch is used too.

    Parameters
    ----------
    x
        Objects, shape (N, …), shared by all seeds.
    y
        Class indices, shape (N,).
    weight_decay
        Of AdamW; with 0 it is Adam.
    schedule
        ``constant``, or ``cosine``: the rate falls to zero along half a cosine.
    warmup
        Share of all steps in which the rate first rises from zero, evenly.
    augmentation
        ``crop_flip``: each picture is moved by up to an eighth of its size (zeros come in) and mirrored half the time.
    stream
        The grid point's label: it separates the random streams of different points.
    start
        Parameters to start from, instead of an initialisation.
    rows
        Which objects each seed trains on, shape (S, n); None: all N.
    watch
        Called with 0 and the parameters before the first step, then with each step's number and the parameters after
        it; it must copy what it keeps.
    progress
        Like tqdm: called with the range of epochs.

    Returns
    -------
    Trained parameters, name -> (S, …).

    Raises
    ------
    MeasurementFailed
        If a parameter is not finite at the end.
    """
    device = x.device
    if start is None:
        start = model.initialise([generator(seed, "initialisation", stream) for seed in seeds])
    parameters = {name: tensor.detach().clone().to(device) for name, tensor in start.items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    orders = [generator(seed, "minibatches", stream) for seed in seeds]
    moves = [generator(seed, "augmentation", stream) for seed in seeds]
    flat, epoch_range, size = x.reshape(len(x), -1), range(epochs), len(x) if rows is None else rows.shape[1]
    step, steps = 0, epochs * -(-size // batch_size)
    with torch.no_grad():
        if watch:
            watch(0, parameters)
        for _ in progress(epoch_range, desc="epochs") if progress else epoch_range:
            order = torch.stack([torch.randperm(size, generator=g) for g in orders]).to(device)
            if rows is not None:
                order = rows.gather(1, order)
            for index in order.split(batch_size, dim=1):
                batch = flat.index_select(0, index.reshape(-1)).view(*index.shape, *x.shape[1:])
                if augmentation == "crop_flip":
                    batch = crop_flip(batch, moves)
                if warmup or schedule != "constant":
                    optimiser.param_groups[0]["lr"] = learning_rate * scheduled(step, steps, schedule, warmup)
                gradients = model.gradients(parameters, batch, y[index])
                for name, tensor in parameters.items():
                    tensor.grad = gradients[name].contiguous()  # the fused optimiser takes memory as it lies
                optimiser.step()
                step += 1
                if watch:
                    watch(step, parameters)
    for tensor in parameters.values():
        tensor.grad = None
    broken = [
        seed
        for s, seed in enumerate(seeds)
        if not all(bool(tensor[s].isfinite().all()) for tensor in parameters.values())
    ]
    if broken:
        raise MeasurementFailed(
            f"training diverged: parameters are not finite for seeds {broken}; try a smaller training.learning_rate"
        )
    return parameters


def scheduled(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Share of the learning rate at a step, counted from 0."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def crop_flip(batch: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Move each picture by up to an eighth of its size and mirror it half the time; zeros come in at the border.

    Parameters
    ----------
    batch
        Shape (S, B, C, H, W).
    generators
        One a seed, on the CPU.
    """
    count, channels, height, width = batch.shape[1:]
    down, across = height // 8, width // 8
    shape = (count, 3)
    drawn = torch.stack([torch.rand(shape, generator=g) for g in generators]).to(batch.device)
    top = (drawn[..., 0] * (2 * down + 1)).long()
    left = (drawn[..., 1] * (2 * across + 1)).long()
    rows = top[..., None] + torch.arange(height, device=batch.device)
    columns = left[..., None] + torch.arange(width, device=batch.device)
    columns = torch.where(drawn[..., 2, None] < 0.5, columns.flip(-1), columns)
    padded = torch.nn.functional.pad(batch, (across, across, down, down))
    picked = padded.gather(3, rows[:, :, None, :, None].expand(-1, -1, channels, -1, padded.shape[-1]))
    return picked.gather(4, columns[:, :, None, None, :].expand(-1, -1, channels, height, -1))


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
    loss = _mean_losses(model, parameters, x, y)
    rates = torch.full_like(loss, learning_rate)
    for _ in range(steps):
        gradients = model.gradients(parameters, x, y)
        trial = {name: tensor - _each(rates, tensor) * gradients[name] for name, tensor in parameters.items()}
        reached = _mean_losses(model, trial, x, y)
        better = reached <= loss  # not where it is NaN
        for name, tensor in parameters.items():
            parameters[name] = torch.where(_each(better, tensor), trial[name], tensor)
        loss = torch.where(better, reached, loss)
        rates = torch.where(better, (rates * 1.1).clamp(max=learning_rate), rates / 2)
    return parameters, rates / 2


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
    for _ in range(steps):
        for name, gradient in model.gradients(parameters, x, y).items():
            parameters[name] -= _each(rates, gradient) * gradient
    if not all(bool(tensor.isfinite().all()) for tensor in parameters.values()):
        raise MeasurementFailed(f"gradient descent diverged at learning rates up to {float(rates.max()):g}")
    return parameters


def _mean_losses(model: StackedModel, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    logits = model.forward(parameters, x)
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), y, reduction="none").mean(dim=1)


def _each(values: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """One value a seed, shaped to act on a stacked tensor."""
    return values.view(-1, *[1] * (tensor.dim() - 1))


def distance(first: Parameters, second: Parameters) -> torch.Tensor:
    """Euclidean distance of two parameter vectors, one a seed: shape (S,), float64."""
    squares = [(first[name].cpu().double() - second[name].cpu().double()).square().flatten(1).sum(1) for name in first]
    return torch.stack(squares).sum(dim=0).sqrt()
