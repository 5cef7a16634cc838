"""Removal on a network of chapter 1: the orders that need no posterior, and so scale (beyond the thesis)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.chapter4 import networks
from experiments.chapter4.networks import Networks
from experiments.chapter4.pruning import Pruning
from experiments.chapter4.restarts import Restarts, of_images
from landscape_cli.config import bounded
from landscape_cli.experiment import Context, Point

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS = ("random", "magnitude", "optimal_brain_damage", "gradient_covariance")


@dataclass
class ImagePruningOptions:
    """What is removed in which order."""

    methods: list[str] = bounded(factory=lambda: list(METHODS), choices=METHODS)
    removal_steps: int | None = bounded(50, minimum=1)  # null: one parameter at a time
    retrain: int = bounded(0, minimum=0)  # epochs after each of the retrained curves' steps; 0: no such curves
    retrain_steps: int = bounded(20, minimum=1)
    tolerance: float = bounded(0.05, above=0, below=1)  # of what the network gained over the empty one: "no loss"


class ImagePruning(Pruning):
    """Removal curves of a fully connected network on images, all restarts together."""

    Options = ImagePruningOptions
    data = "images"
    kinds = ("mlp", "feedforward")

    def restarts(self, data: Any, settings: Mapping[str, Any]) -> Restarts:
        """All restarts share the data set's own train and test objects."""
        return of_images(data, settings["seeds"])

    def networks(self, point: Point, data: Any, restarts: Restarts, context: Context) -> Networks:
        """Train by Adam, gathering the covariance of gradients."""
        return networks.trained(point, data.shape, data.source.classes, restarts, context)
