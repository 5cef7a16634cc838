"""Any network on any objects: the loss that is meant, one loss an object, the gradient's norm; refused in one line."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from landscape_cli.convergence.losses import wide
from landscape_cli.curvature.objective import Loss, cross_entropy, squared_error
from landscape_cli.errors import BadInput, MeasurementFailed
from landscape_cli.own.reading import check_finite_objects, which
from landscape_cli.own.targets import build, explained, find, seeded
from landscape_cli.rng import stream_number

AUTO, CROSS_ENTROPY, SQUARED_ERROR = "auto", "cross_entropy", "squared_error"
CHUNK_VALUES = 2**22  # of the objects that go through a network at a time
FEW = 2  # objects that a network is tried on


@dataclass(frozen=True)
class Names:
    """What messages call the parts: keys of a configuration, or arguments of a function."""

    model: str = "model"
    data: str = "x, y"
    loss: str = "loss"


@dataclass(frozen=True, eq=False)
class Task:
    """A network's objects and targets on its device, and the loss of each."""

    x: torch.Tensor  # (N, …) of the network's type where it is real
    y: torch.Tensor  # (N, …), shaped as the loss wants it
    loss: Loss  # outputs (B, …), targets (B, …) -> (B,)
    name: str  # of the loss

    @property
    def unit(self) -> str:
        """Of one object's loss."""
        return "nats" if self.name == CROSS_ENTROPY else "units of the loss"

    @property
    def classifies(self) -> bool:
        """Whether there is a share of objects that are classified rightly."""
        return self.name == CROSS_ENTROPY and not self.y.is_floating_point()

    def of_objects(self, index: torch.Tensor) -> Task:
        """The same with some of the objects."""
        return Task(self.x[index], self.y[index], self.loss, self.name)


def task_of(
    module: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    loss: str | Loss = AUTO,
    names: Names | None = None,
) -> Task:
    """Settle what a network's loss is, and try it on two objects.

    Parameters
    ----------
    module
        It is left in the mode in which it came, and tried in evaluation mode.
    x, y
        Objects (N, …) and targets (N, …), anywhere.
    loss
        ``cross_entropy``, ``squared_error``, the dotted path of a function, a function from outputs and targets to one
        loss an object; ``auto``: cross-entropy of classes (whole numbers), squared error of real targets.
    names
        For messages.

    Raises
    ------
    BadInput
        The network cannot take the objects, or its outputs do not suit the targets; says the shapes.
    """
    names = names or Names()
    if len(x) != len(y):
        raise BadInput(f"{names.data}: {len(x)} objects x and {len(y)} targets y; allowed: as many")
    if len(x) == 0:
        raise BadInput(f"{names.data}: no object; allowed: one or more")
    check_finite_objects(x, "x", names.data)
    check_finite_objects(y, "y", names.data)
    first = next(iter(module.parameters()), None)
    if first is not None:
        x, y = x.to(first.device), y.to(first.device)
        x = x.to(first.dtype) if x.is_floating_point() else x
    label, function = _loss(loss, y, names)
    with torch.no_grad(), evaluating(module):
        few = x[:FEW]
        shape = tuple(few.shape)
        with explained(f"{names.model}, given an input of the shape {shape} and the type {few.dtype},"):
            outputs = module(few)
    _check_outputs(outputs, y, label, shape, names)
    if label == SQUARED_ERROR or (label not in (CROSS_ENTROPY, SQUARED_ERROR) and y.is_floating_point()):
        y = _aligned(y.to(outputs.dtype), outputs)
    if label == SQUARED_ERROR and y.shape[1:] != outputs.shape[1:]:
        raise BadInput(
            f"{names.model} returned {tuple(outputs.shape)} for an input of {shape}; needed: "
            f"{(len(few), *y.shape[1:])}, the shape of the targets"
        )
    with torch.no_grad(), explained(names.loss):
        losses = function(outputs, y[:FEW])
    if not isinstance(losses, torch.Tensor) or losses.shape != (len(few),):
        shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else f"a {type(losses).__name__}"
        raise BadInput(
            f"{names.loss}: of {len(few)} objects it is {shape}; needed: ({len(few)},), one loss an object "
            "(reduction='none')"
        )
    return Task(x, y, function, label)


@dataclass(frozen=True, eq=False)
class Judged:
    """What one pass over the objects yields."""

    losses: torch.Tensor  # (N,) float64
    accuracy: float  # share of objects classified rightly; NaN where there are no classes


@torch.no_grad()
def judge(module: torch.nn.Module, task: Task, names: Names | None = None) -> Judged:
    """One loss an object, the network in evaluation mode; losses are float64 from the outputs on.

    Raises
    ------
    BadInput
        Losses are not finite; says of which objects.
    """
    losses, right = [], 0
    with evaluating(module):
        for x, y in _chunks(task):
            outputs = wide(module(x))
            targets = y.to(outputs.device)
            losses.append(task.loss(outputs, targets.double() if y.is_floating_point() else targets))
            if task.classifies:
                right += int((outputs.argmax(dim=1) == targets).sum())
    found = torch.cat(losses).double()
    bad = (~found.isfinite()).nonzero().reshape(-1).cpu().numpy()
    if len(bad):
        loss = (names or Names()).loss
        raise BadInput(f"{loss}: the loss is not finite for {which(bad, len(found))}")
    return Judged(found, right / len(found) if task.classifies else math.nan)


def gradient_norm(module: torch.nn.Module, task: Task) -> float:
    """‖∇L_m(θ)‖₂ of the mean loss over all objects, the network in evaluation mode; NaN without parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return math.nan
    total: list[torch.Tensor | None] = [None] * len(parameters)
    with evaluating(module), torch.enable_grad():
        for x, y in _chunks(task):
            value = task.loss(module(x), y).sum()
            if not value.requires_grad:
                continue
            found = torch.autograd.grad(value, parameters, allow_unused=True)
            for place, part in enumerate(found):
                if part is not None:
                    total[place] = wide(part) if total[place] is None else total[place] + wide(part)
    return math.sqrt(sum(float(part.square().sum()) for part in total if part is not None)) / len(task.x)


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its layers back into its own mode afterwards."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def initial_network(
    settings: Mapping[str, Any], x: torch.Tensor, outputs: int, seed: int, stream: str = ""
) -> torch.nn.Module:
    """Build a network as a seed initialises it, float32, on the CPU.

    Parameters
    ----------
    settings
        The ``model`` node of a point's settings: a user's own network or a shipped one.
    x
        Some objects (B, …): lazy layers settle their shapes on them.
    outputs
        Of a shipped network: classes, or targets of an object.
    seed, stream
        Of the initialisation.

    Raises
    ------
    BadInput
        A user's own one cannot be built; a shipped one cannot take the objects.
    """
    if settings["kind"] != "own":
        return _shipped(settings, tuple(x.shape[1:]), outputs, seed, stream)
    target = settings["_target_"]
    with seeded(stream_number(seed, "initialisation", stream)):
        module = build(target, settings["arguments"], "model")
        if not isinstance(module, torch.nn.Module):
            raise BadInput(
                f"model._target_: {target} returned a {type(module).__name__}; allowed: a torch.nn.Module"
                + (", built: it returned the class" if isinstance(module, type) else "")
            )
        module = copy.deepcopy(module).float().cpu()  # a function may return the same module every time
        if any(isinstance(p, torch.nn.parameter.UninitializedParameter) for p in module.parameters()):
            with torch.no_grad(), evaluating(module), explained(f"model._target_: {target}"):
                module(x[:FEW].cpu())
    return module


def state_digest(module: torch.nn.Module) -> str:
    """Hash of a network's parameters and buffers: weights that it was given, and how it is initialised."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_parameters(module: torch.nn.Module, seed: int) -> None:
    """Refuse a network with a parameter or statistic that is not finite.

    Raises
    ------
    MeasurementFailed
        If there is one.
    """
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise MeasurementFailed(
                f"training diverged: {name} is not finite for seed {seed}; try a smaller training.learning_rate"
            )


def _shipped(settings: Mapping[str, Any], shape: tuple[int, ...], outputs: int, seed: int, stream: str) -> Any:
    from landscape_cli.geometry import check_model
    from landscape_cli.models import build_model
    from landscape_cli.rng import generator

    pictures = len(shape) == 3
    check_model(settings, shape if pictures else None, "the data")
    model = build_model(settings, shape if pictures else (math.prod(shape), 1, 1), outputs)
    return model.module(model.initialise([generator(seed, "initialisation", stream)]), 0)


def _loss(loss: str | Loss, y: torch.Tensor, names: Names) -> tuple[str, Loss]:
    if loss == AUTO:
        loss = SQUARED_ERROR if y.is_floating_point() else CROSS_ENTROPY
    if loss == CROSS_ENTROPY:
        return CROSS_ENTROPY, cross_entropy
    if loss == SQUARED_ERROR:
        return SQUARED_ERROR, squared_error
    if isinstance(loss, str):
        known = f"{AUTO}, {CROSS_ENTROPY}, {SQUARED_ERROR}"
        if "." not in loss:
            raise BadInput(f"{names.loss}: {loss!r}; allowed: {known}, or the dotted path of a function")
        path, loss = loss, find(loss, names.loss)
    else:
        path = getattr(loss, "__qualname__", type(loss).__name__)
    if isinstance(loss, type) or not callable(loss):
        raise BadInput(f"{names.loss}: {path} is no function from outputs and targets to one loss an object")
    return path, loss


def _check_outputs(outputs: Any, y: torch.Tensor, label: str, shape: tuple[int, ...], names: Names) -> None:
    """Refuse outputs that are no tensor with one row an object, or of which there are too few for the classes."""
    count = shape[0]
    if not isinstance(outputs, torch.Tensor):
        raise BadInput(
            f"{names.model} returned a {type(outputs).__name__} for an input of {shape}; needed: a tensor "
            f"({count}, …), one row an object"
        )
    returned = f"{names.model} returned {tuple(outputs.shape)} for an input of {shape}"
    if outputs.dim() == 0 or len(outputs) != count:
        raise BadInput(f"{returned}; needed: ({count}, …), one row an object")
    if label != CROSS_ENTROPY:
        return
    if y.is_floating_point():
        if outputs.shape[1:] != y.shape[1:] or outputs.dim() != 2:
            raise BadInput(f"{returned}; needed: {(count, *y.shape[1:])}, one output a class, as the targets have")
        return
    if y.dim() != 1:
        raise BadInput(f"{names.data}: classes y have the shape {tuple(y.shape)}; needed: ({len(y)},), one an object")
    low, high = int(y.min()), int(y.max())
    if low < 0:
        raise BadInput(f"{names.data}: class {low} among the targets; allowed: 0 to K - 1, K the network's outputs")
    if outputs.dim() != 2 or outputs.shape[1] <= max(high, 1):
        classes = max(high + 1, 2)
        raise BadInput(
            f"{returned}; needed: ({count}, K) with K of at least {classes}, one output a class, since the targets are "
            f"classes up to {high}"
        )


def _aligned(y: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Targets (N,) and (N, 1) are the same where a network's outputs are the other of the two."""
    if y.shape[1:] != outputs.shape[1:] and math.prod(y.shape[1:]) == math.prod(outputs.shape[1:]) == 1:
        return y.reshape(len(y), *outputs.shape[1:])
    return y


def chunk_of(x: torch.Tensor) -> int:
    """How many objects to pass through a network at a time."""
    return max(1, min(1024, CHUNK_VALUES // max(1, math.prod(x.shape[1:]))))


def _chunks(task: Task) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    size = chunk_of(task.x)
    return zip(task.x.split(size), task.y.split(size), strict=True)
