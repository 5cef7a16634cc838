"""Training of an arbitrary network: Adam on minibatches that are indices into one tensor on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from landscape_cli.checkpointing import Loop
from landscape_cli.errors import BadInput
from landscape_cli.own.networks import Task, check_parameters
from landscape_cli.own.targets import seeded
from landscape_cli.rng import generator, stream_number
from landscape_cli.training import crop_flip, scheduled


def fit_module(
    module: torch.nn.Module,
    task: Task,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    warmup: float = 0.0,
    augmentation: str = "none",
    stream: str = "",
    progress: Any = None,
) -> None:
    """Minimise a network's mean loss over its objects, in training mode; it is changed and left in evaluation mode.

    Inside of :func:`~landscape_cli.checkpointing.checkpoints_in` a training whose process was killed goes on.

    Parameters
    ----------
    module
        Of parameters on the objects' device; those with ``requires_grad=False`` stay.
    seed, stream
        Of the order of minibatches, of augmentation and of what the network draws (dropout).
    epochs, batch_size, learning_rate, weight_decay, schedule, warmup, augmentation
        As of :class:`~landscape_cli.training.Trainer`; with no epoch the network stays as it came.

    Raises
    ------
    BadInput
        There is nothing to train, or no picture to augment.
    MeasurementFailed
        A parameter is not finite at the end.
    """
    free = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if epochs and not free:
        raise BadInput("training.epochs: the model has no parameter to train; allowed: 0")
    if augmentation != "none" and task.x.dim() != 4:
        raise BadInput(f"training.augmentation: {augmentation!r} needs pictures (C, H, W); allowed: none")
    if not epochs:
        module.eval()
        return
    fused = task.x.device.type in ("cpu", "cuda")
    optimiser = torch.optim.AdamW(free, lr=learning_rate, weight_decay=weight_decay, fused=fused)
    orders, moves = (generator(seed, purpose, stream) for purpose in ("minibatches", "augmentation"))
    size = len(task.x)
    steps = epochs * len(_batches(torch.arange(size), batch_size))
    with seeded(stream_number(seed, "dropout", stream)):
        loop = _loop(module, task, optimiser, [orders, moves], epochs, [batch_size, learning_rate, schedule, warmup])
        done = loop.done * (steps // epochs)
        module.train()
        for _ in loop.rounds(progress, "epochs"):
            order = torch.randperm(size, generator=orders).to(task.x.device)
            for index in _batches(order, batch_size):
                batch = task.x[index]
                if augmentation == "crop_flip":
                    batch = crop_flip(batch[None], [moves])[0]
                if warmup or schedule != "constant":
                    optimiser.param_groups[0]["lr"] = learning_rate * scheduled(done, steps, schedule, warmup)
                optimiser.zero_grad(set_to_none=True)
                task.loss(module(batch), task.y[index]).mean().backward()
                optimiser.step()
                done += 1
    optimiser.zero_grad(set_to_none=True)
    module.eval()
    check_parameters(module, seed)


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Cut an order into minibatches; a single object that is left joins the last, since batch norm cannot take one."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _loop(
    module: torch.nn.Module,
    task: Task,
    optimiser: torch.optim.Optimizer,
    generators: list[torch.Generator],
    epochs: int,
    rates: list[Any],
) -> Loop:
    """Epochs that can be gone on with after a kill."""

    def states() -> Iterator[torch.Tensor]:
        yield from (drawn.get_state() for drawn in generators)
        yield torch.get_rng_state()
        if task.x.device.type == "cuda":
            yield torch.cuda.get_rng_state(task.x.device)

    def snapshot() -> dict[str, Any]:
        return {
            "module": dict(module.state_dict()),
            "optimiser": optimiser.state_dict(),
            "generators": [state.cpu() for state in states()],
        }

    def restore(state: dict[str, Any]) -> None:
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        drawn = state["generators"]
        for own, found in zip(generators, drawn, strict=False):
            own.set_state(found.cpu())
        torch.set_rng_state(drawn[len(generators)].cpu())
        if task.x.device.type == "cuda":
            torch.cuda.set_rng_state(drawn[-1].cpu(), task.x.device)

    return Loop(
        epochs,
        snapshot=snapshot,
        restore=restore,
        label=lambda: {
            "kind": "fit_module",
            "start": dict(module.state_dict()),
            "layers": str(module),
            "loss": task.name,
            "rates": [*rates, optimiser.param_groups[0]["weight_decay"]],
            "generators": generators,
        },
        data=(task.x, task.y),
        device=task.x.device,
    )
