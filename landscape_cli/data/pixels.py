"""Pictures that stay bytes in a file: a few are read and normalised when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch


class Pixels:
    """Pictures of an archive that is mapped into memory, indexed like a tensor of normalised pixels (N, C, H, W).

    Parameters
    ----------
    stored
        uint8 (N, C, H, W); may be a view of a mapped file.
    normalise
        From uint8 (n, C, H, W) to float32 of the same shape.
    device
        Where the pictures that are asked for go.
    label
        What tells these pictures from others.

    Attributes
    ----------
    shape
        (N, C, H, W).
    """

    def __init__(
        self, stored: np.ndarray, normalise: Callable[[np.ndarray], np.ndarray], device: torch.device | str, label: str
    ) -> None:
        self._stored, self._normalise = stored, normalise
        self._device = torch.device(device)
        self.label, self.shape = label, tuple(stored.shape)

    @property
    def device(self) -> torch.device:
        """Where the pictures that are asked for go."""
        return self._device

    @property
    def nbytes(self) -> int:
        """Bytes that all of them would take as float32."""
        return 4 * math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """Read some pictures: float32 (n, C, H, W); the indices of a tensor may have any shape (…): (…, C, H, W)."""
        if isinstance(rows, slice):
            return self._read(self._stored[rows])
        return self._read(self._stored[rows.reshape(-1).cpu().numpy()]).view(*rows.shape, *self.shape[1:])

    def _read(self, pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._normalise(np.ascontiguousarray(pixels))).to(self._device)
