"""What the benchmarks share: real pictures where there are some, this machine's rates, and a JSON file a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from landscape_cli import provenance
from landscape_cli.data.images import load_images
from landscape_cli.data.locate import data_roots, locate
from landscape_cli.errors import MissingData

REPEATS = 3


@dataclass(frozen=True)
class Rates:
    """What a device does at best, as large products and copies show."""

    operations: float  # a second, float32
    bytes: float  # read and written a second

    def floor(self, operations: float, moved: float) -> float:
        """Seconds that work cannot go below: its operations or the bytes it moves, whichever takes longer."""
        return max(operations / self.operations, moved / self.bytes)

    def __str__(self) -> str:
        return f"{self.operations / 1e9:.0f} GFLOP/s (product of 2048 x 2048), {self.bytes / 1e9:.1f} GB/s (copy)"


def rates(device: torch.device) -> Rates:
    """Measure a device, with the threads that torch has now."""
    size, count = 2048, 2**26
    matrix = torch.rand(size, size, device=device)
    product, _ = best_of(lambda: matrix @ matrix, device, repeats=5)
    source = torch.rand(count, device=device)
    target = torch.empty_like(source)
    copied, _ = best_of(lambda: target.copy_(source), device, repeats=5)
    return Rates(2 * size**3 / product, 2 * source.nbytes / copied)


def best_of(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> tuple[float, object]:
    """Shortest wall time of several runs, in seconds, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times), result


def pictures(
    name: str, shape: tuple[int, int, int], count: int, device: torch.device, normalisation: str
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """First train pictures and labels of a data set, or random ones of its shape (C, H, W); and what they are."""
    try:
        data = load_images(locate(name, data_roots(None)), count, 0, device, normalisation)
        return data.x_train, data.y_train, data.source.title
    except MissingData:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(count, *shape, generator=draw).to(device)
        y = torch.randint(10, (count,), generator=draw).to(device)
        return x, y, f"random pictures of the size of {name}'s (none found)"


def write(benchmark: str, found: dict[str, Any]) -> None:
    """Write what was found beside threads, cores, time, commit and versions, and print the path."""
    folder = Path(os.environ.get("LANDSCAPE_OUTPUTS") or "outputs") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}_{provenance.now().replace(':', '')}.json"
    about = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "time": provenance.now()}
    about |= {"commit": provenance.commit(), "versions": provenance.versions()}
    path.write_text(json.dumps({**about, **found}))
    print(path)
