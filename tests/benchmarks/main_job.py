"""Each stage of the main job beside the textbook way and beside its floor, in one process: ``make bench``.

The textbook way is what a tutorial teaches: a DataLoader over pictures with torchvision transforms, one network at a
time, the loss of one object at a time, differences and moving average in a Python loop. The floor is what this machine
could not go below: the stage's multiplications at the rate of a large product, or the bytes it cannot avoid at the rate
of a large copy, whichever takes longer; both rates are measured first. Nothing here passes or fails.

``python -m tests.benchmarks.main_job [device]``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch

from experiments.chapter1.loss_difference import LossDifference
from landscape_cli import parallel
from landscape_cli.convergence.differences import exponential_moving_average, loss_differences
from landscape_cli.convergence.losses import object_losses
from landscape_cli.data.images import read
from landscape_cli.data.locate import data_roots, locate
from landscape_cli.data.torchvision_import import torchvision
from landscape_cli.errors import MissingData
from landscape_cli.measuring import device_name, find_device
from landscape_cli.memory import keep_freed_memory
from landscape_cli.models.mlp import MLP
from landscape_cli.training import fit
from landscape_cli.training_together import fit_together
from tests.benchmarks.report import Rates, best_of, rates, write

OBJECTS, EPOCHS, BATCH, SEEDS, ORDERINGS, SMOOTHING = 10000, 10, 64, 5, 100, 0.99
FIGURE = [*((16, depth) for depth in (1, 3, 5, 7, 10)), *((width, 5) for width in (4, 8, 32, 64))]
SHORT = 10  # turns of a stage that takes milliseconds
LONG = 10**7  # values of the longest moving average


@dataclass(frozen=True)
class Stage:
    """What a stage took, seconds."""

    stage: str
    seconds: float
    textbook: float
    floor: float


def main() -> None:
    """Time every stage, print the table, write one JSON file."""
    keep_freed_memory()
    device = find_device(sys.argv[1] if len(sys.argv) > 1 else "auto")
    workers = torch.get_num_threads()
    rate = rates(device)
    torch.set_num_threads(LossDifference.threads)  # as the experiments that train these nets
    parallel.use_workers(workers)
    pictures, labels, name = _pictures()
    x = torch.tensor(pictures).float().div_(127.5).sub_(1)[:, None].to(device)
    y = torch.tensor(labels).to(device)
    model = MLP(in_features=784, classes=10, hidden_size=16, num_layers=5)
    training = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 1e-3}
    fit(model, x[:BATCH], y[:BATCH], seeds=[0], **{**training, "epochs": 1})  # torch imports the rest of its optimisers
    stages = list(_stages(model, x, y, pictures, labels, training, rate))
    _print(stages, f"{name}, {OBJECTS} objects, {EPOCHS} epochs, batches of {BATCH}", rate, device_name(device))
    write(
        "main_job",
        {
            "data": name,
            "device": device_name(device),
            "rates": asdict(rate),
            "stages": [asdict(stage) for stage in stages],
        },
    )


def _stages(
    model: MLP,
    x: torch.Tensor,
    y: torch.Tensor,
    pictures: np.ndarray,
    labels: np.ndarray,
    training: dict[str, float],
    rate: Rates,
) -> Iterator[Stage]:
    products = [wide * narrow for wide, narrow in zip(model.widths, model.widths[1:], strict=False)]
    forward = 2.0 * OBJECTS * sum(products)
    # Backward: as much for the weights, and for the layers' inputs but the first's.
    learning = EPOCHS * (2 * forward + forward - 2.0 * OBJECTS * products[0])
    objects = float(x.nbytes)

    nine = [MLP(784, 10, width, depth) for width, depth in FIGURE]
    given = {"seeds": range(SEEDS), "streams": list(map(str, FIGURE)), **training}
    figure, _ = best_of(lambda: fit_together(nine, x, y, **given), x.device)
    trained, parameters = best_of(lambda: fit(model, x, y, seeds=range(SEEDS), **training), x.device)
    alone, _ = best_of(lambda: fit(model, x, y, seeds=[0], **training), x.device)
    by_hand, net = best_of(lambda: _textbook_training(pictures, labels), x.device, repeats=2)
    # Every seed has its own order: it reads every object in every epoch, whatever the others read.
    floor = rate.floor(learning, EPOCHS * objects)
    measured, losses = best_of(lambda: object_losses(model, parameters, x, y).losses, x.device, SHORT)
    measured_by_hand, _ = best_of(lambda: _textbook_losses(net, pictures, labels), x.device, repeats=2)
    floor_of_losses = rate.floor(forward, objects / SEEDS)
    yield Stage("training, one network of Fig 1.3's 9 x 5", figure / SEEDS / len(nine), by_hand, floor)
    yield Stage("training, one seed of five together", trained / SEEDS, by_hand, floor)
    yield Stage("training, one seed alone", alone, by_hand, floor)
    yield Stage(f"loss of {OBJECTS} objects, one seed of five", measured / SEEDS, measured_by_hand, floor_of_losses)
    together = (trained + measured) / SEEDS
    yield Stage("one network: training and losses", together, by_hand + measured_by_hand, floor + floor_of_losses)

    def differences() -> torch.Tensor:
        return loss_differences(losses[0], ORDERINGS, torch.Generator().manual_seed(0)).mean

    seconds, curve = best_of(differences, x.device, SHORT)
    textbook, _ = best_of(lambda: _textbook_differences(losses[0].cpu().numpy()), x.device, repeats=2)
    # As long as a copy of the losses in all their orders.
    yield Stage(
        f"{ORDERINGS} orderings of {OBJECTS} objects", seconds, textbook, rate.floor(0, 16.0 * ORDERINGS * OBJECTS)
    )
    for values in (curve, torch.rand(LONG, dtype=curve.dtype, device=x.device)):
        seconds, _ = best_of(lambda values=values: exponential_moving_average(values, SMOOTHING), x.device, SHORT)
        textbook, _ = best_of(lambda values=values: _textbook_average(values.tolist()), x.device, repeats=2)
        yield Stage(f"moving average of {len(values)}", seconds, textbook, rate.floor(0, 16.0 * len(values)))


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


def _print(stages: list[Stage], what: str, rate: Rates, device: str) -> None:
    print(f"{what}; {device}, {torch.get_num_threads()} thread: {rate}")
    print(f"{'stage':<40} {'seconds':>10} {'textbook':>10} {'times faster':>13} {'floor':>10} {'times the floor':>16}")
    for stage in stages:
        print(
            f"{stage.stage:<40} {stage.seconds:>10.4f} {stage.textbook:>10.3f} {stage.textbook / stage.seconds:>13.0f} "
            f"{stage.floor:>10.5f} {stage.seconds / stage.floor:>16.1f}"
        )


if __name__ == "__main__":
    main()
