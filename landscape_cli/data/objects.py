"""Objects of whatever kind, pictures, rows of a table or a user's own, as tensors that any network can be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from landscape_cli.data.images import ImageData
    from landscape_cli.data.tabular import TableData


@dataclass(frozen=True, eq=False)
class Objects:
    """A data set on a device, in the order in which it came."""

    x_train: torch.Tensor  # (N, …), float32; int64 where objects are numbers of tokens
    y_train: torch.Tensor  # (N,) int64 classes, or real targets (N, …) float32
    x_test: torch.Tensor  # (M, …); M may be 0
    y_test: torch.Tensor  # (M, …)

    def to(self, device: torch.device | str) -> Objects:
        """Move all of it."""
        return Objects(*(tensor.to(device) for tensor in (self.x_train, self.y_train, self.x_test, self.y_test)))

    @property
    def classes(self) -> int | None:
        """One more than the largest label; None of real targets."""
        labels = torch.cat([self.y_train, self.y_test])
        return None if labels.is_floating_point() else int(labels.max()) + 1


def of_images(data: ImageData) -> Objects:
    """Pictures (N, C, H, W) and their classes."""
    return Objects(data.x_train, data.y_train, data.x_test, data.y_test)


def of_table(data: TableData) -> Objects:
    """Rows as vectors (N, n), features at mean 0 and deviation 1; so is a regression's target; no test objects."""
    x = standardised(torch.from_numpy(data.X).float(), torch.empty(0, data.X.shape[1]))[0]
    y = torch.from_numpy(data.y)
    y = y.long() if data.classes else ((y - y.mean()) / y.std(correction=0).clamp(min=1e-30)).float()
    return Objects(x, y, x[:0], y[:0])


def standardised(x: torch.Tensor, test: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring each feature or channel (axis 1) to mean 0 and deviation 1 over the train objects; constant ones to 0.

    Parameters
    ----------
    x, test
        Shapes (N, F, …) and (M, F, …).
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.double().mean(dim=axes, keepdim=True)
    deviation = x.double().var(dim=axes, keepdim=True, correction=0).sqrt()
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return tuple(((part.double() - mean) / deviation).float() for part in (x, test))
