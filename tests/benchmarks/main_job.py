"""Each stage of the main job beside the textbook way, in one process: ``make bench``.

The textbook way is what a tutorial teaches: a DataLoader over pictures with torchvision transforms, one network at a
time, the loss of one object at a time, differences and moving average in a Python loop. Nothing here passes or fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from experiments.chapter1.loss_difference import LossDifference
from landscape_cli.convergence.differences import exponential_moving_average, loss_differences
from landscape_cli.convergence.losses import object_losses
from landscape_cli.data.images import read
from landscape_cli.data.locate import data_roots, locate
from landscape_cli.data.torchvision_import import torchvision
from landscape_cli.errors import MissingData
from landscape_cli.models.mlp import MLP
from landscape_cli.training import fit
from tests.benchmarks.report import write

OBJECTS, EPOCHS, BATCH, SEEDS, ORDERINGS, SMOOTHING = 10000, 10, 64, 5, 100, 0.99
REPEATS = 3


def main() -> None:
    """Time every stage, print the table, write one JSON file."""
    torch.set_num_threads(LossDifference.threads)  # as the experiments that train these nets
    pictures, labels, name = _pictures()
    x = torch.tensor(pictures).float().div_(127.5).sub_(1)[:, None]
    y = torch.tensor(labels)
    model = MLP(in_features=784, classes=10, hidden_size=16, num_layers=5)
    training = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 1e-3}
    fit(model, x[:BATCH], y[:BATCH], seeds=[0], **{**training, "epochs": 1})  # torch imports the rest of its optimisers

    rows = []
    seconds, parameters = _best(lambda: fit(model, x, y, seeds=range(SEEDS), **training))
    alone, _ = _best(lambda: fit(model, x, y, seeds=[0], **training))
    textbook, net = _best(lambda: _textbook_training(pictures, labels))
    rows.append(("training, one seed of five together", seconds / SEEDS, textbook))
    rows.append(("training, one seed alone", alone, textbook))

    seconds, losses = _best(lambda: object_losses(model, parameters, x, y).losses)
    textbook, _ = _best(lambda: _textbook_losses(net, pictures, labels))
    rows.append((f"loss of {OBJECTS} objects, one seed of five", seconds / SEEDS, textbook))

    def differences() -> torch.Tensor:
        return loss_differences(losses[0], ORDERINGS, torch.Generator().manual_seed(0)).mean

    seconds, curve = _best(differences)
    textbook, _ = _best(lambda: _textbook_differences(losses[0].numpy()))
    rows.append((f"{ORDERINGS} orderings of {OBJECTS} objects", seconds, textbook))

    seconds, _ = _best(lambda: exponential_moving_average(curve, SMOOTHING))
    textbook, _ = _best(lambda: _textbook_average(curve.tolist()))
    rows.append(("moving average", seconds, textbook))
    _print(rows, name)
    stages = [{"stage": stage, "seconds": seconds, "textbook_seconds": textbook} for stage, seconds, textbook in rows]
    write("main_job", {"data": name, "stages": stages})


def _pictures() -> tuple[np.ndarray, np.ndarray, str]:
    try:
        images = read(locate("mnist", data_roots(None)))
        return images.x_train[:OBJECTS, 0], images.y_train[:OBJECTS], "MNIST"
    except MissingData:
        random = np.random.default_rng(0)
        pictures = random.integers(0, 256, (OBJECTS, 28, 28), dtype=np.uint8)
        return pictures, random.integers(0, 10, OBJECTS), "random pictures of MNIST's size (no MNIST found)"


def _textbook_training(pictures: np.ndarray, labels: np.ndarray) -> torch.nn.Module:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = [torch.nn.Flatten(), torch.nn.Linear(784, 16, bias=False), torch.nn.ReLU()]
    for _ in range(5):
        layers += [torch.nn.Linear(16, 16, bias=False), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(16, 10, bias=False))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for x, y in torch.utils.data.DataLoader(_Pictures(pictures, labels), batch_size=BATCH, shuffle=True):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    return net


class _Pictures(torch.utils.data.Dataset):
    def __init__(self, pictures: np.ndarray, labels: np.ndarray) -> None:
        self.pictures, self.labels = pictures, labels
        steps = [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize((0.5,), (0.5,))]
        self.transform = torchvision.transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pictures[index])), int(self.labels[index])


def _textbook_losses(net: torch.nn.Module, pictures: np.ndarray, labels: np.ndarray) -> list[float]:
    data = _Pictures(pictures, labels)
    with torch.no_grad():
        return [float(torch.nn.functional.cross_entropy(net(x[None]), torch.tensor([y]))) for x, y in data]


def _textbook_differences(losses: np.ndarray) -> np.ndarray:
    random, curves = np.random.default_rng(0), []
    for _ in range(ORDERINGS):
        total, previous, curve = 0.0, None, []
        for k, loss in enumerate(random.permutation(losses).tolist(), start=1):
            total += loss
            if previous is not None:
                curve.append(abs(total / k - previous))
            previous = total / k
        curves.append(curve)
    return np.mean(curves, axis=0)


def _textbook_average(values: list[float]) -> list[float]:
    smoothed = [values[0]]
    for value in values[1:]:
        smoothed.append(SMOOTHING * smoothed[-1] + (1 - SMOOTHING) * value)
    return smoothed


def _best(work: Callable[[], object], repeats: int = REPEATS) -> tuple[float, object]:
    """Shortest wall time of several runs, in seconds, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
    return min(times), result


def _print(rows: list[tuple[str, float, float]], name: str) -> None:
    print(f"{name}, {OBJECTS} objects, {EPOCHS} epochs, batches of {BATCH}, {torch.get_num_threads()} threads")
    print(f"{'stage':<42} {'seconds':>10} {'textbook':>10} {'times faster':>13}")
    for stage, seconds, textbook in rows:
        print(f"{stage:<42} {seconds:>10.4f} {textbook:>10.3f} {textbook / seconds:>13.0f}")


if __name__ == "__main__":
    main()
