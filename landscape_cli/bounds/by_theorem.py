"""Every theorem's bound by its number, for hyperparameters or for a network and its objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from landscape_cli.bounds import attention, chains
from landscape_cli.bounds.chains import Bound
from landscape_cli.curvature.chain import Chain
from landscape_cli.errors import BadInput

NUMBERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("4", "5", "6", "7"), chains.loss_difference),
    "8": chains.fully_connected,
    "9": chains.fully_connected_by_width,
    "11": chains.matrices,
    **dict.fromkeys(("12", "13"), chains.convolutions),
    **dict.fromkeys(("14", "15"), chains.pooling),
    "16": chains.with_head,
    "17": attention.AttentionNorms,
    "26": attention.BlockNorms,
}


def of_numbers(theorem: str, numbers: Mapping[str, Any]) -> tuple[Bound, ...]:
    """Evaluate a theorem for hyperparameters by name.

    Raises
    ------
    BadInput
        One is missing, unknown or of a wrong length.
    """
    function = NUMBERS[theorem]
    own = {"theorem", "printed", "average"}  # decided by the theorem
    known = {name: p for name, p in inspect.signature(function).parameters.items() if name not in own}
    needed = [name for name, p in known.items() if p.default is p.empty]
    for name in [*numbers, *needed]:
        wrong = "needed" if name not in numbers else "unknown" if name not in known else ""
        if wrong:
            raise BadInput(f"{name}: {wrong} by Theorem {theorem}, which takes {', '.join(known)}")
    if theorem in ("12", "13"):
        directions = 1 if theorem == "12" else 2
        size = numbers["size"]
        if len(size) != directions:
            raise BadInput(f"size: {size}; allowed: as many lengths as Theorem {theorem}'s inputs have, {directions}")
    if theorem in ("4", "5", "6", "7"):
        values = [chains.loss_difference(**numbers, printed=printed, theorem=theorem) for printed in (True, False)]
        return (Bound(theorem, "difference", *values),)
    if theorem in ("14", "15"):
        return chains.pooling(**numbers, average=theorem == "15")
    if theorem == "17":
        return (attention.self_attention(attention.AttentionNorms(**numbers)),)
    if theorem == "26":
        return attention.transformer_block(attention.BlockNorms(**numbers))
    return function(**numbers)


def of_networks(
    theorem: str,
    model: torch.nn.Module | Mapping[str, torch.Tensor],
    x: torch.Tensor | None,
    target: torch.Tensor | None = None,
) -> tuple[Bound, ...]:
    """Evaluate a theorem for a network and objects; arguments and errors as of :func:`landscape_cli.api.bound`."""
    if x is None:
        raise BadInput("x: None; allowed: the network's objects")
    if theorem in ("17", "26"):
        if not isinstance(model, Mapping):
            raise BadInput("model: allowed: a mapping of the matrices Q, K, V (and 1, 2)")
        if target is None:
            raise BadInput("target: None; allowed: what the outputs are compared with")
        found = (attention.of_attention if theorem == "17" else attention.of_block)(model, x, target)
        return found if isinstance(found, tuple) else (found,)
    if theorem in ("4", "5", "6", "7"):
        raise BadInput(f"theorem: {theorem!r} takes numbers: k, max_loss, max_hessian, radius")
    if not isinstance(model, torch.nn.Sequential):
        raise BadInput("model: allowed: a torch.nn.Sequential")
    shape = tuple(x.shape[1:])
    chain = Chain.of(model, shape)
    weights = [weight.to(x.device) for weight in chain.weights(model)]
    return chains.of_network(theorem, chain, weights, chain.vector(x), shape)
