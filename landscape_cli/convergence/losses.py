"""One loss an object, for all seeds, in one chunked pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
        Objects (N, …) and class indices (N,), at least one.
    """
    losses, correct, low, high = [], [], None, None
    for begin in range(0, len(x), model.chunk):
        labels = y[begin : begin + model.chunk]
        logits = wide(model.forward(parameters, x[None, begin : begin + model.chunk]))
        index = labels.to(logits.device).expand(logits.shape[0], -1).unsqueeze(-1)
        losses.append(logits.logsumexp(dim=-1) - logits.gather(2, index).squeeze(-1))
        correct.append((logits.argmax(dim=-1, keepdim=True) == index).sum(dim=(1, 2)))
        smallest, largest = logits.amin(dim=1), logits.amax(dim=1)
        low = smallest if low is None else torch.minimum(low, smallest)
        high = largest if high is None else torch.maximum(high, largest)
    return ObjectLosses(
        losses=torch.cat(losses, dim=1),
        correct=torch.stack(correct).sum(dim=0).double() / len(x),
        # Compared up to rounding: a product may round differently in a chunk of another size.
        constant=(high - low <= 1e-6 * torch.maximum(low.abs(), high.abs()).amax(dim=-1, keepdim=True)).all(dim=-1),
    )


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float64, on the CPU if its device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
