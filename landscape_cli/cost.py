"""What points will cost: told before a long run, refused where it would keep a CPU busy, shared out among jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from functools import cache
from statistics import median

from landscape_cli.config import Config
from landscape_cli.errors import BadInput
from landscape_cli.plan import Located, Plan

WORTH_TELLING = 1e13  # floating-point operations, minutes on a CPU
PASSES = 3.0  # of one object through a network while it is trained: forward, and twice as much backward
START = 1.0  # seconds that any point takes
UNKNOWN = 10.0  # seconds taken for a point of which nothing is known
CPU_RATE = 1e10  # floating-point operations a second, where no stored point says better


def worth_telling(plan: Plan, todo: Sequence[Located]) -> float:
    """Floating-point operations that the points take at least, if they are many; else 0."""
    operations = sum(_declared(plan, item) for item in todo)
    return operations if operations >= WORTH_TELLING else 0.0


def check_cost(config: Config, operations: float, device: object, name: str) -> None:
    """Say how long so many operations take at least on a device, which is called `name`.

    Raises
    ------
    BadInput
        If that would keep a CPU busy for more than ``max_cpu_hours``.
    """
    rate = _matrix_rate(device)
    hours = operations / rate / 3600
    estimate = (
        f"about {operations:.2g} floating-point operations, at least {duration(hours * 3600)} at the {rate / 1e9:.3g} "
        f"GFLOP/s that {name} reaches in matrix products"
    )
    if device.type == "cpu" and hours > config.max_cpu_hours:
        raise BadInput(
            f"{config.name}: {estimate}; allowed on a CPU: max_cpu_hours={config.max_cpu_hours:g}. Run it on a GPU, "
            "smaller (profile=quick), or with a larger max_cpu_hours"
        )
    print(f"  {estimate}", flush=True)


def estimated_seconds(plan: Plan, todo: Iterable[Located]) -> list[float]:
    """Guess how long each point will take, from its networks' operations and from what stored points took.

    Only their proportions matter much: points are shared out among jobs by them.
    """
    points = list(todo)
    taken = _taken(plan)
    works = [_operations(plan, item) for item in points]
    if taken and all(works):
        rates = [work / seconds for work, seconds in taken if work]
        rate = median(rates) if rates else CPU_RATE
        return [START + work / rate for work in works]
    if taken:
        return [START + median(seconds for _, seconds in taken)] * len(points)
    return [START + work / CPU_RATE if work else UNKNOWN for work in works]


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 3600:.2g} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"


def _taken(plan: Plan) -> list[tuple[float, float]]:
    """Operations and seconds of the points of this grid that are stored."""
    found = []
    for item in plan.located:
        seconds = plan.store.seconds(plan.family, item.key)
        if seconds:
            found.append((_operations(plan, item), seconds))
    return found


def _declared(plan: Plan, item: Located) -> float:
    source = plan.sources.get(item.point.settings.get("dataset", {}).get("name"))
    return plan.experiment.operations(item.point, source) if source is not None else 0.0


def _operations(plan: Plan, item: Located) -> float:
    """Floating-point operations: as the experiment counts them, else those of training its networks; 0 if unknown."""
    declared, settings = _declared(plan, item), item.point.settings
    source = plan.sources.get(settings.get("dataset", {}).get("name"))
    if declared or "model" not in settings or "features" in settings or not hasattr(source, "shape"):
        return declared
    if settings["model"]["kind"] == "own":
        return 0.0
    epochs = settings.get("training", {}).get("epochs", 1)
    shown = epochs * settings["dataset"]["objects"] * len(settings.get("seeds", [0]))
    return PASSES * shown * _of_one_object(json.dumps(settings["model"]), tuple(source.shape), source.classes)


@cache
def _of_one_object(model: str, shape: tuple[int, ...], classes: int) -> float:
    from landscape_cli.models import build_model, forward_operations

    return forward_operations(build_model(json.loads(model), shape, classes), shape)


def _matrix_rate(device: object) -> float:
    """Floating-point operations a second in float32 matrix products, measured."""
    import torch

    size = 1024 if device.type == "cpu" else 8192
    left, rate = torch.rand(size, size, device=device), 0.0
    for _ in range(3):
        began = time.perf_counter()
        float((left @ left)[0, 0])  # waits for the device
        rate = max(rate, 2 * size**3 / (time.perf_counter() - began))
    return rate
