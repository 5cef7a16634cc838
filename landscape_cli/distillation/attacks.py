"""How networks stand an attack on their inputs and noise in their parameters (thesis 4.4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape_cli.errors import BadInput
from landscape_cli.models import Parameters
from landscape_cli.models.mlp import FeedForward


@torch.no_grad()
def fgsm(
    model: FeedForward,
    parameters: Parameters,
    x: torch.Tensor,
    y: torch.Tensor,
    strength: float,
    limits: tuple[float, float] | None = None,
) -> torch.Tensor:
    """Move objects to x + ε sign ∇ₓ l: the fast gradient sign method (Goodfellow, Shlens, Szegedy 2015).

    To first order an object's loss grows by ε ‖∇ₓ l‖₁, the most that a change of each coordinate by at most ε can do.

    Parameters
    ----------
    x, y
        Objects (R, N, …), or (1, N, …), and classes (R, N).
    strength
        ε, in the inputs' units.
    limits
        Values that an input can have; None: any.

    Returns
    -------
    Shape (R, N, …).
    """
    if strength < 0:
        raise BadInput(f"strength of the attack: {strength}; allowed: 0 or more")
    moved = x + strength * model.input_gradients(parameters, x, y).sign()
    return moved if limits is None else moved.clamp(*limits)


def noisy_parameters(parameters: Parameters, strength: float, generators: Sequence[torch.Generator]) -> Parameters:
    """Add noise: w + ε ξ with ξ ~ N(0, I), drawn for each network from its own generator.

    The same generators at another ε give the same ξ.
    """
    if strength < 0:
        raise BadInput(f"strength of the noise: {strength}; allowed: 0 or more")
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name in parameters}
    for generator in generators:
        for name, tensor in parameters.items():
            drawn[name].append(torch.randn(tensor.shape[1:], generator=generator))
    return {name: tensor + strength * torch.stack(drawn[name]).to(tensor) for name, tensor in parameters.items()}
