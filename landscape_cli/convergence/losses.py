"""One loss an object, for all seeds, in one chunked pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from landscape_cli import parallel
from landscape_cli.models import Parameters, StackedModel


@dataclass(frozen=True)
class ObjectLosses:
    """What one pass over the objects yields."""

    losses: torch.Tensor  # (S, N) float64, cross-entropy of each object
    correct: torch.Tensor  # (S,) float64, share of objects classified rightly
    constant: torch.Tensor  # (S,) bool, whether the network gives every object the same output


@torch.no_grad()
def object_losses(model: StackedModel, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> ObjectLosses:
    """Cross-entropy of every object under every seed's parameters.

    The logits are float32; the softmax and all that follows are float64 (on MPS, which has none, they move to the CPU).
    A network whose ReLUs all died gives every object the same output: its losses say nothing about the data, and
    ``constant`` tells.

    Parameters
    ----------
    x, y
        Objects (N, …) and class indices (N,), at least one; objects may be :class:`~landscape_cli.data.pixels.Pixels`.
    """

    def measured(begin: int) -> tuple[torch.Tensor, ...]:
        labels = y[begin : begin + model.chunk]
        # Classes before objects: along a few contiguous classes every reduction is slow.
        logits = wide(model.forward(parameters, x[begin : begin + model.chunk][None]).transpose(1, 2).contiguous())
        index = labels.to(logits.device).expand(logits.shape[0], 1, -1)
        top, own = logits.amax(dim=1, keepdim=True), logits.gather(1, index)
        sums = (logits - top).exp_().sum(dim=1, keepdim=True)
        # Of classes that share the largest logit the first is the answer, as argmax has it.
        classes = torch.arange(logits.shape[1], device=logits.device)[:, None]
        sooner = ((logits == top) & (classes < index)).any(dim=1, keepdim=True)
        right = ((own == top) & ~sooner).sum(dim=(1, 2))
        return (sums.log_().add_(top) - own)[:, 0], right, logits.amin(dim=2), logits.amax(dim=2)

    begins = range(0, len(x), model.chunk)
    found = parallel.each(measured, begins) if x.device.type == "cpu" else map(measured, begins)
    losses, correct, low, high = zip(*found, strict=True)
    low, high = torch.stack(low).amin(dim=0), torch.stack(high).amax(dim=0)
    return ObjectLosses(
        losses=torch.cat(losses, dim=1),
        correct=torch.stack(correct).sum(dim=0).double() / len(x),
        # Compared up to rounding: a product may round differently in a chunk of another size.
        constant=(high - low <= 1e-6 * torch.maximum(low.abs(), high.abs()).amax(dim=-1, keepdim=True)).all(dim=-1),
    )


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float64, on the CPU if its device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
