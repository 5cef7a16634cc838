"""What stands in a point's key for a user's own network and loss, found while they are tried before any training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from landscape_cli.dataset_identity import AnySource
from landscape_cli.errors import NothingGiven
from landscape_cli.own.code import code_of
from landscape_cli.own.networks import AUTO, CROSS_ENTROPY, SQUARED_ERROR, Names, initial_network, state_digest, task_of
from landscape_cli.own.targets import targets

KNOWN_LOSSES = (AUTO, CROSS_ENTROPY, SQUARED_ERROR)
MISSING = (
    "experiment=own measures a network and data of your own: model._target_=my_pkg.Net dataset._target_=my_pkg.data, "
    "from the current folder or PYTHONPATH (profile=embedded shows it on a network and data that ship)"
)
SEED = 0  # of the network that is tried: the same for every point

_known: dict[str, dict[str, Any]] = {}  # what was found for a model, data and loss: points differ in their seed only


def check_given(settings: Mapping[str, Any]) -> None:
    """Refuse a user's own network or data whose target was not given.

    Raises
    ------
    NothingGiven
        Says what to give.
    """
    model = settings.get("model", {})
    lacking = ["model"] if model.get("kind") == "own" and not model["_target_"] else []
    if "arguments" in settings.get("dataset", {}) and not settings["dataset"]["name"]:
        lacking.append("dataset")
    if lacking:
        raise NothingGiven(f"{' and '.join(f'{node}._target_' for node in lacking)}: not given; {MISSING}")


def names_of(settings: Mapping[str, Any]) -> Names:
    """What messages call the network, the data and the loss of a point."""
    model = settings["model"]
    network = f"model._target_: {model['_target_']}" if model["kind"] == "own" else f"model: {model['kind']}"
    own = "arguments" in settings["dataset"]
    return Names(network, f"dataset{'._target_' if own else ''}: {settings['dataset']['name']}", "measure.loss")


def identified(settings: Mapping[str, Any], source: AnySource) -> dict[str, Any]:
    """Try a point's network on its objects, and return what tells its code and its weights from others.

    Parameters
    ----------
    settings
        With ``model``, ``dataset`` and ``measure.loss``.
    source
        Of the data set; a user's own has been read.

    Returns
    -------
    ``code``: of the network's and the loss's modules, see :func:`~landscape_cli.own.code.code_of`; ``initial``: hash of
    a user's network as it is built, with whatever weights it reads. Empty for what ships.

    Raises
    ------
    BadInput
        The network cannot be built, cannot take the objects, or does not suit the targets and the loss.
    """
    model, loss = settings["model"], settings["measure"]["loss"]
    label = json.dumps([model, settings["dataset"], loss, source.checksum], sort_keys=True)
    if label not in _known:
        x, y, outputs = _examples(source)
        names = names_of(settings)
        network = initial_network(model, x[:2], outputs, SEED)
        task_of(network, x, y, loss, names)
        found: dict[str, Any] = {}
        code = code_of(targets(model), "model._target_") if model["kind"] == "own" else {}
        if loss not in KNOWN_LOSSES:
            code |= code_of([loss], "measure.loss")
        if code:
            found["code"] = code
        if model["kind"] == "own":
            found["initial"] = state_digest(network)
        _known[label] = found
    return _known[label]


def _examples(source: AnySource) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Objects and targets that a network is tried on, and how many outputs a shipped one needs."""
    if source.layout == "function":
        from landscape_cli.own.data import load_own

        objects = load_own(source, "none")
        y = objects.y_train
        return objects.x_train, y, objects.classes or int(y[0].numel())
    shape = source.shape if hasattr(source, "shape") else (source.features,)
    classes = source.classes if isinstance(source.classes, int) else len(source.classes)
    y = torch.full((2,), classes - 1) if classes else torch.zeros(2)
    return torch.zeros(2, *shape), y, classes or 1
