"""Differences along orderings of up to 10^8 objects: seconds, peak memory, and the exponent of time in their number.

``python -m tests.benchmarks.streaming [largest]``; the losses are random numbers. Nothing here passes or fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from experiments.chapter1.loss_difference import stored_k
from landscape_cli import parallel
from landscape_cli.convergence.streamed import SampledCurve, streamed_differences
from landscape_cli.memory import keep_freed_memory
from tests.benchmarks.report import best_of, write

ORDERINGS, SMOOTHING, STEP = 16, 0.99, 10**0.5


def main() -> None:
    """Time sizes from 10^5 on, print the table, write one JSON file."""
    keep_freed_memory()
    workers = torch.get_num_threads()
    torch.set_num_threads(1)  # as the runner has it: orderings side by side
    parallel.use_workers(workers)
    largest = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**8
    sizes = [round(10**5 * STEP**power) for power in range(round(2 * np.log10(largest / 10**5)) + 1)]
    whole, at = torch.rand(2**18, dtype=torch.float64), torch.tensor([1])
    streamed_differences(whole, ORDERINGS, torch.Generator(), at, SMOOTHING)  # torch and its memory get ready
    rows = []
    print(f"{ORDERINGS} orderings, {workers} threads; last: the last value over its closed form")
    print(f"{'objects':>10} {'seconds':>9} {'MiB above the losses':>21} {'last':>6}")
    for size in sizes:
        losses = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        at = torch.from_numpy(stored_k(size - 1))
        before = _forget_peak()

        def follow(losses: torch.Tensor = losses, at: torch.Tensor = at) -> SampledCurve:
            return streamed_differences(losses, ORDERINGS, torch.Generator().manual_seed(1), at, SMOOTHING)

        seconds, curve = best_of(follow, losses.device, 3 if size <= 10**7 else 1)
        above = (_peak() - before) / 2**20
        expected = float((losses - losses.mean()).abs().mean()) / size
        last = float(curve.average[-1]) / expected
        print(f"{size:>10} {seconds:>9.2f} {above:>21.0f} {last:>6.3f}", flush=True)
        rows.append({"objects": size, "seconds": seconds, "mib_above_the_losses": above})
    slope = np.polyfit(np.log([row["objects"] for row in rows]), np.log([row["seconds"] for row in rows]), 1)[0]
    print(f"exponent of time in the number of objects: {slope:.3f}")
    write("streaming", {"orderings": ORDERINGS, "rows": rows, "exponent": slope})


def _forget_peak() -> int:
    """Begin a new peak of this process's memory, and return what it holds now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Most memory that this process held since then, bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
