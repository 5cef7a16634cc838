"""Differences along orderings of up to 10^8 objects: seconds, peak memory, and the exponent of time in their number.

``python -m tests.benchmarks.streaming [largest]``; the losses are random numbers. Nothing here passes or fails.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from experiments.chapter1.loss_difference import stored_k
from landscape_cli.convergence.streamed import streamed_differences
from tests.benchmarks.report import write

ORDERINGS, SMOOTHING, STEP = 16, 0.99, 10**0.5


def main() -> None:
    """Time sizes from 10^5 on, print the table, write one JSON file."""
    largest = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**8
    sizes = [round(10**5 * STEP**power) for power in range(round(2 * np.log10(largest / 10**5)) + 1)]
    streamed_differences(torch.rand(1000), 2, torch.Generator(), torch.tensor([1]), SMOOTHING)  # torch gets ready
    rows = []
    print(f"{ORDERINGS} orderings, {torch.get_num_threads()} threads; last: the last value over its closed form")
    print(f"{'objects':>10} {'seconds':>9} {'MiB above the losses':>21} {'last':>6}")
    for size in sizes:
        losses = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        at = torch.from_numpy(stored_k(size - 1))
        before = _forget_peak()
        began = time.perf_counter()
        curve = streamed_differences(losses, ORDERINGS, torch.Generator().manual_seed(1), at, SMOOTHING)
        seconds, above = time.perf_counter() - began, (_peak() - before) / 2**20
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
