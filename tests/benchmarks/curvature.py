"""The dense Hessian of the MNIST transformer on 128 objects and products with it, beside curvlinops and autograd.

The whole matrix is built first and its peak memory read before anything else is loaded; the other ways are timed on
columns spread over all parameters and stand in the table as if they had built the whole matrix. Errors are those of the
same columns, against reverse mode twice in float64. Nothing here passes or fails.
"""

from __future__ import annotations

import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from landscape_cli.config import TransformerConfig
from landscape_cli.curvature import Hessian, Objective, dense, spectral_norm
from landscape_cli.memory import keep_freed_memory
from landscape_cli.models import build_model
from landscape_cli.rng import generator
from tests.benchmarks.report import pictures, write

OBJECTS, COLUMNS, AT_ONCE, REPEATS = 128, 96, 32, 3
SETTINGS = {"kind": "vit", **dataclasses.asdict(TransformerConfig())}


def main() -> None:
    """Time every way and print the table."""
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, y, name = pictures("mnist", (1, 28, 28), OBJECTS, device, "symmetric")
    model = build_model(SETTINGS, tuple(x.shape[1:]), 10)
    start = model.initialise([generator(0, "initialisation")])
    net = model.module({key: tensor.to(device) for key, tensor in start.items()}, 0)
    hessian = Hessian(Objective(net, x, y))
    size = hessian.objective.size
    print(
        f"{name}, {OBJECTS} objects, {size} parameters, float32, {device}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}",
        flush=True,
    )
    times: dict[str, list[float]] = {"ours, whole": []}
    for _ in range(REPEATS):
        times["ours, whole"].append(_timed(lambda: dense(hessian), device))
    peak = _peak(device)
    times["ours, ‖H‖₂ to 1e-3 by products"] = [_timed(lambda: spectral_norm(hessian, 1e-3), device)]

    index = torch.linspace(0, size - 1, COLUMNS).long()
    unit = torch.zeros(size, COLUMNS, device=device)
    unit[index, range(COLUMNS)] = 1
    exact = _reverse_twice(net, x, y, unit, torch.float64)
    columns: dict[str, torch.Tensor] = {"ours, whole": dense(hessian)[:, index]}
    for way, work in _others(net, x, y, hessian, unit).items():
        columns[way] = work(COLUMNS)  # warms up
        times[way] = [_timed(lambda work=work: work(COLUMNS), device) * size / COLUMNS for _ in range(REPEATS)]

    own = statistics.median(times["ours, whole"])
    print(f"{'the whole matrix':<42} {'s':>8} {'best':>8} {'to ours':>8} {'error':>9}")
    errors = {}
    for way, seconds in times.items():
        error = ""
        if way in columns:
            errors[way] = float((columns[way].double() - exact).norm() / exact.norm())
            error = f"{errors[way]:.1e}"
        median = statistics.median(seconds)
        print(f"{way:<42} {median:>8.2f} {min(seconds):>8.2f} {median / own:>8.2f} {error:>9}")
    print(f"peak memory {'of the device' if device.type == 'cuda' else 'of the process'}, ours: {peak / 2**30:.2f} GiB")
    print(f"single products and the ways of others: {COLUMNS} of {size} columns, times {size / COLUMNS:.0f}")
    write("curvature", {"what": name, "device": str(device), "seconds": times, "errors": errors, "peak_bytes": peak})


def _others(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, hessian: Hessian, unit: torch.Tensor
) -> dict[str, Callable[[int], torch.Tensor]]:
    """Ways to build some columns one by one or several at a time."""
    ways: dict[str, Callable[[int], torch.Tensor]] = {
        "ours, products with single vectors": lambda n: torch.stack([hessian @ unit[:, j] for j in range(n)], 1),
        "autograd, reverse mode twice": lambda n: _reverse_twice(net, x, y, unit[:, :n], x.dtype),
    }
    try:
        from curvlinops import HessianLinearOperator
    except ImportError:
        print("curvlinops is not installed: left out", file=sys.stderr)
        return ways
    parameters = [p.requires_grad_() for p in net.parameters()]
    theirs = HessianLinearOperator(net, nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False)
    ways["curvlinops, column by column"] = lambda n: torch.stack([theirs @ unit[:, j] for j in range(n)], 1)
    ways[f"curvlinops, {AT_ONCE} columns at once"] = lambda n: torch.cat(
        [theirs @ part for part in unit[:, :n].split(AT_ONCE, 1)], 1
    )
    return ways


def _reverse_twice(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, unit: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    weights = {name: p.detach().to(dtype).requires_grad_() for name, p in net.named_parameters()}
    own, found = list(weights.values()), []
    for direction in unit.to(dtype).T:
        outputs = torch.func.functional_call(net, weights, (x.to(dtype),))
        slope = torch.autograd.grad(nn.functional.cross_entropy(outputs, y), own, create_graph=True)
        flat = torch.cat([part.flatten() for part in slope])
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(flat, own, direction)]))
    return torch.stack(found, 1)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
