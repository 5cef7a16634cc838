"""One epoch of a convolutional net of chapter 1 on CIFAR-10, the ways there are to train it, in one process.

The plain loop is what one writes with PyTorch: pictures in memory, one network, autograd. Grouped convolution and vmap
are the usual ways to train several seeds at once. Nothing here passes or fails.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable

import torch

from landscape_cli import parallel
from landscape_cli.memory import keep_freed_memory
from landscape_cli.models.conv import ConvNet
from landscape_cli.training import fit
from tests.benchmarks.report import pictures, write

OBJECTS, BATCH, SEEDS, REPEATS = 5000, 64, 4, 5
SETTINGS = {
    "kind": "conv2d",
    "num_layers": 5,
    "channels": int(sys.argv[1]) if len(sys.argv) > 1 else 6,
    "kernel_size": 3,
    "bias": True,
    "pooling": "max",
    "position": 0,
    "relu_after_last": False,
    "head": [],
}


class Grouped(ConvNet):
    """The same networks by grouped convolution, on a CPU too."""

    def gradients(self, parameters: dict, x: torch.Tensor, y: torch.Tensor) -> dict:
        """Take the way of the other devices."""
        return self.gradients_grouped(parameters, x, y)


class Vmapped(ConvNet):
    """The same networks by torch.func.vmap over ordinary modules."""

    def gradients(self, parameters: dict, x: torch.Tensor, y: torch.Tensor) -> dict:
        """Differentiate one network's loss for all seeds."""
        net = self.module(parameters, 0)

        def loss(own: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(torch.func.functional_call(net, own, (x,)), y)

        return torch.func.vmap(torch.func.grad(loss))(parameters, x, y)


def main() -> None:
    """Time every way, in turn and several times over, and print the table."""
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, y, name = pictures("cifar10", (3, 32, 32), OBJECTS, device, "standard")
    shape = tuple(x.shape[1:])

    def stacked(kind: type[ConvNet], seeds: int) -> Callable[[], object]:
        model = kind(SETTINGS, shape, 10)
        return lambda: fit(model, x, y, seeds=range(seeds), epochs=1, batch_size=BATCH, learning_rate=1e-3)

    threads = torch.get_num_threads()

    def ours(seeds: int) -> Callable[[], object]:
        work = stacked(ConvNet, seeds)

        def run() -> None:  # as the runner has it: one thread an operator, tasks side by side
            torch.set_num_threads(1)
            parallel.use_workers(threads)
            work()
            parallel.use_workers(1)
            torch.set_num_threads(threads)

        return run

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "plain loop, one seed": (lambda: _plain(x, y, torch.contiguous_format), 1),
        "plain loop, one seed, channels last": (lambda: _plain(x, y, torch.channels_last), 1),
        "ours, one seed": (ours(1), 1),
        f"ours, {SEEDS} seeds": (ours(SEEDS), SEEDS),
        f"grouped convolution, {SEEDS} seeds": (stacked(Grouped, SEEDS), SEEDS),
        f"vmap, {SEEDS} seeds": (stacked(Vmapped, SEEDS), SEEDS),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(REPEATS + 1):
        for way, (work, seeds) in ways.items():
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                times[way].append((time.perf_counter() - began) / seeds)
    sizes = f"C={SETTINGS['channels']}, L={SETTINGS['num_layers']}, k={SETTINGS['kernel_size']}"
    print(f"{sizes}; {name}, {OBJECTS} objects, batches of {BATCH}, {device}, {torch.get_num_threads()} threads")
    print(f"{'one epoch':<38} {'s a seed':>9} {'best':>7} {'to plain':>9}")
    plain = statistics.median(times["plain loop, one seed"])
    for way, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{way:<38} {median:>9.3f} {min(seconds):>7.3f} {median / plain:>9.2f}")
    write("convolutions", {"what": f"{sizes}; {name}", "device": str(device), "seconds_a_seed": times})


def _plain(x: torch.Tensor, y: torch.Tensor, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    channels = [x.shape[1], *[SETTINGS["channels"]] * SETTINGS["num_layers"]]
    for c_in, c_out in itertools.pairwise(channels):
        layers += [torch.nn.Conv2d(c_in, c_out, SETTINGS["kernel_size"]), torch.nn.ReLU()]
    side = x.shape[2] - SETTINGS["num_layers"] * (SETTINGS["kernel_size"] - 1)
    net = torch.nn.Sequential(*layers[:-1], torch.nn.Flatten(), torch.nn.Linear(channels[-1] * side**2, 10))
    net.to(x.device, memory_format=memory_format)
    x = x.contiguous(memory_format=memory_format)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for index in torch.randperm(len(x), device=x.device).split(BATCH):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x[index]), y[index]).backward()
        optimiser.step()


if __name__ == "__main__":
    main()
