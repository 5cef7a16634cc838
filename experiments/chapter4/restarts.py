"""Restarts of a network: each has an initialisation and, on a table, a split of its own; all are trained at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from landscape_cli.errors import BadInput

if TYPE_CHECKING:
    import torch

    from landscape_cli.data.images import ImageData
    from landscape_cli.data.tabular import TableData


CONSTANT = 1e-12  # relative deviation of a column below which it varies by rounding only


@dataclass(frozen=True)
class Restarts:
    """What R restarts are trained and tested on."""

    x: torch.Tensor  # objects of all restarts, one below the other (or shared), (N, …)
    y: torch.Tensor  # (N,): classes, or real targets of mean 0 and deviation 1 over the train objects
    train: torch.Tensor  # (R, n): rows of x
    test: torch.Tensor  # (R, t)
    shared: bool  # every restart has the same objects
    unit: torch.Tensor  # (R,): variance of the target, by which a mean squared error is in the target's own units

    @property
    def classes(self) -> bool:
        """Whether the targets are classes."""
        return not self.y.is_floating_point()

    def own(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows as they are needed by networks that are not trained: once where all restarts share them."""
        return rows[:1] if self.shared else rows

    def of(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Objects (R, n, …) and targets (R, n) of some rows."""
        return self.x[rows], self.y[rows]


def of_table(data: TableData, seeds: Sequence[int], test_share: float, *, standardise: bool = True) -> Restarts:
    """Split a table at random for each seed; standardise features and a real target by each split's train objects."""
    import torch

    from landscape_cli.rng import numpy_generator

    objects, count = len(data.y), max(1, round(test_share * len(data.y)))
    if objects - count < 2:
        raise BadInput(f"measure.test_share: {test_share} leaves {objects - count} of {objects} objects to train on")
    if not data.classes and not data.y.std() > CONSTANT * np.abs(data.y).max():
        raise BadInput(f"dataset.target: {data.source.target!r} is the same for all objects; allowed: one that varies")
    features, targets, train, test, units = [], [], [], [], []
    for number, seed in enumerate(seeds):
        order = numpy_generator(seed, "split", data.source.checksum).permutation(objects)
        kept, left = np.sort(order[count:]), np.sort(order[:count])
        train.append(kept + number * objects * standardise)
        test.append(left + number * objects * standardise)
        X, y, unit = data.X, data.y, 1.0
        if standardise:
            spread = X[kept].std(axis=0)
            varies = spread > CONSTANT * np.abs(X[kept]).max(axis=0)
            X = np.where(varies, (X - X[kept].mean(axis=0)) / np.where(varies, spread, 1), 0.0)
            if not data.classes:
                unit = float(y[kept].var()) or 1.0
                y = (y - y[kept].mean()) / np.sqrt(unit)
        units.append(unit)
        if standardise or not number:
            features.append(X)
            targets.append(y)
    y = torch.from_numpy(np.concatenate(targets))
    return Restarts(
        torch.from_numpy(np.concatenate(features)),
        y.long() if data.classes else y,
        torch.from_numpy(np.stack(train)),
        torch.from_numpy(np.stack(test)),
        False,
        torch.tensor(units, dtype=torch.float64),
    )


def of_images(data: ImageData, seeds: Sequence[int]) -> Restarts:
    """All restarts share a data set's own train and test objects."""
    import torch

    count, tested = len(data.x_train), len(data.x_test)
    train = torch.arange(count, device=data.x_train.device).expand(len(seeds), -1)
    test = count + torch.arange(tested, device=data.x_train.device).expand(len(seeds), -1)
    unit = torch.ones(len(seeds), dtype=torch.float64)
    x, y = torch.cat([data.x_train, data.x_test]), torch.cat([data.y_train, data.y_test])
    return Restarts(x, y, train, test, True, unit)
