"""Ways of training the small nets of Fig 1.3: which one the experiments use is what this shows, on this machine.

Microseconds a step and network, the median of several turns; what compiling takes is told apart. ``python -m
tests.benchmarks.training [device]``. Nothing here passes or fails.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from landscape_cli import parallel
from landscape_cli.measuring import device_name, find_device
from landscape_cli.memory import keep_freed_memory
from landscape_cli.models.mlp import MLP
from landscape_cli.training import Trainer
from landscape_cli.training_together import fit_together
from tests.benchmarks.report import pictures, write

OBJECTS, BATCH, SEEDS, EPOCHS, TURNS = 10000, 64, 5, 2, 5
STEPS = EPOCHS * -(-OBJECTS // BATCH)
DEPTHS = (1, 3, 5, 7, 10)
WIDTHS = (4, 8, 32, 64)


def main() -> None:
    """Time every way, in turn and several times over, and print the table."""
    keep_freed_memory()
    device = find_device(sys.argv[1] if len(sys.argv) > 1 else "auto")
    threads = torch.get_num_threads()
    x, y, name = pictures("mnist", (1, 28, 28), OBJECTS, device, "symmetric")
    small = torch.nn.functional.avg_pool2d(x, 4, 3).contiguous()  # 9 x 9 pixels
    print(f"{name}, {OBJECTS} objects, batches of {BATCH}; {device_name(device)}, {threads} threads")
    ways: dict[str, Callable[[], float]] = {}
    for number in sorted({1, threads}):
        for seeds in (1, SEEDS):
            ways[f"h = 16, L = 5, seeds {seeds}, threads {number}"] = _alone(x, y, seeds, number)
    compiled = MLP(784, 10, 16, 5)
    compiled.gradients = torch.compile(compiled.gradients)
    began = time.perf_counter()
    try:
        _alone(x, y, SEEDS, 1, compiled)()
        compiling = time.perf_counter() - began
        ways[f"the same, seeds {SEEDS}, threads 1, gradients compiled"] = _alone(x, y, SEEDS, 1, compiled)
    except Exception as error:  # there may be no compiler
        compiling = None
        print(f"torch.compile does not work here: {type(error).__name__}")
    deep = [(16, layers) for layers in DEPTHS]
    if device.type == "cuda":
        ways[f"the same, seeds {SEEDS}, threads 1, every operator launched by itself"] = _unrecorded(
            _alone(x, y, SEEDS, 1)
        )
    for features, objects in (("784 pixels", x), ("81 pixels", small)):
        for what, grid in (("5 depths", deep), ("5 depths, 4 other widths", [*deep, *((h, 5) for h in WIDTHS)])):
            text = f"{what}, {features}"
            ways[f"{text}: one after the other"] = _grid(objects, y, grid, 1, together=False)
            for workers in sorted({1, threads}):
                ways[f"{text}: together, workers {workers}"] = _grid(objects, y, grid, workers, together=True)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(TURNS):
        for way, run in ways.items():
            found[way].append(run() * 1e6)
    torch.set_num_threads(threads)
    rows = [{"way": way, "microseconds": statistics.median(times), "all": times} for way, times in found.items()]
    for row in rows:
        print(f"{row['way']:<58} {row['microseconds']:>8.0f} µs a step and network")
    if compiling:
        print(f"compiling took {compiling:.1f} s")
    write("training", {"data": name, "device": device_name(device), "rows": rows, "compiling_seconds": compiling})


def _alone(x: torch.Tensor, y: torch.Tensor, seeds: int, threads: int, model: MLP | None = None) -> Callable[[], float]:
    def run() -> float:
        torch.set_num_threads(threads)
        trainer = _trainer(model or MLP(784, 10, 16, 5), x, y, seeds)
        trainer.epoch()
        return _seconds(lambda: [trainer.epoch() for _ in range(EPOCHS)], x.device) / (STEPS * seeds)

    return run


def _unrecorded(run: Callable[[], float]) -> Callable[[], float]:
    def alone() -> float:
        before, Trainer.recorded_on = Trainer.recorded_on, frozenset()
        try:
            return run()
        finally:
            Trainer.recorded_on = before

    return alone


def _grid(
    x: torch.Tensor, y: torch.Tensor, grid: list[tuple[int, int]], workers: int, together: bool
) -> Callable[[], float]:
    options = {"batch_size": BATCH, "learning_rate": 1e-3, "seeds": range(SEEDS)}
    models = [MLP(x[0].numel(), 10, width, layers) for width, layers in grid]
    streams = [str(point) for point in grid]

    def run() -> float:
        torch.set_num_threads(1)
        parallel.use_workers(workers)
        groups = [slice(None)] if together else [slice(m, m + 1) for m in range(len(models))]

        def train() -> None:
            for group in groups:
                fit_together(models[group], x, y, streams=streams[group], epochs=EPOCHS, **options)

        seconds = _seconds(train, x.device)
        parallel.use_workers(1)
        return seconds / (STEPS * SEEDS * len(models))

    return run


def _trainer(model: MLP, x: torch.Tensor, y: torch.Tensor, seeds: int) -> Trainer:
    return Trainer(model, x, y, seeds=range(seeds), epochs=EPOCHS + 1, batch_size=BATCH, learning_rate=1e-3)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
