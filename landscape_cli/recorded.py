"""A training step recorded once and replayed: small networks wait for the launches of their operators on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


class RecordedStep:
    """A step as a CUDA graph: one launch in the place of one an operator.

    Parameters
    ----------
    step
        Changes its state in place, given indices (S, B) on the device; nothing else of it may differ between calls.
    index
        Of the shape that all calls will have.
    """

    def __init__(self, step: Callable[[torch.Tensor], None], index: torch.Tensor) -> None:
        self._index = index.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            step(self._index)

    def __call__(self, index: torch.Tensor) -> None:
        """Take the step for other indices."""
        self._index.copy_(index)
        self._graph.replay()


def recorded(
    step: Callable[[torch.Tensor], None],
    state: Sequence[torch.Tensor],
    index: torch.Tensor,
    record: Callable[..., Callable[[torch.Tensor], None]] = RecordedStep,
) -> Callable[[torch.Tensor], None]:
    """Take one step, and return what takes the next ones: the recording if it does the same, else the step itself.

    Parameters
    ----------
    state
        All tensors that the step changes.
    record
        Makes the recording.
    """
    before = [tensor.clone() for tensor in state]
    step(index)
    after = [tensor.clone() for tensor in state]
    try:
        again = record(step, index)
    except RuntimeError:  # an operator that cannot be recorded
        return step
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
    again(index)
    same = all(torch.equal(tensor, value) for tensor, value in zip(state, after, strict=True))
    for tensor, value in zip(state, after, strict=True):
        tensor.copy_(value)
    return again if same else step
