"""Experiments on a grid of networks: data sets, and axes that are fields of the model or of the measure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from landscape_cli.experiment import Context, Experiment, Point

if TYPE_CHECKING:
    from landscape_cli.models import Parameters, StackedModel


class Grid(Experiment):
    """Trains a network at every point of a grid; all seeds of a point together."""

    uses = frozenset({"dataset", "model", "training", "seeds"})

    def points(self) -> list[Point]:
        """One point a data set and network; with ``sweep=cross`` one axis varies at a time."""
        points = []
        for name in self.config.grid.get("dataset", [self.config.dataset.name]):
            for change in self.changes():
                settings = self.settings(name, **change)
                values = settings["measure"] | settings.get("model", {})
                points.append(Point.of({"dataset": name, **{axis: values[axis] for axis in self.axes}}, settings))
        return list(dict.fromkeys(points))

    def changes(self) -> list[dict[str, Any]]:
        """What each network of the grid changes: one axis at a time, or all combinations with ``sweep=full``."""
        axes = {axis: self.config.grid[axis] for axis in self.axes}
        if self.config.sweep == "full":
            return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*axes.values())]
        return [{axis: value} for axis, values in axes.items() for value in values] or [{}]

    @property
    def axes(self) -> list[str]:
        """The grid's axes, data set apart."""
        return [axis for axis in self.config.grid if axis != "dataset"]

    def fixed(self, axis: str) -> Any:
        """The value of `axis` while another one varies: the model's own, or the grid's middle if it lacks that."""
        node = self.config.model if hasattr(self.config.model, axis) else self.config.measure
        own, values = getattr(node, axis), self.config.grid[axis]
        return own if self.config.sweep == "cross" or own in values else values[len(values) // 2]


def trained(point: Point, context: Context) -> tuple[StackedModel, Parameters]:
    """Build a point's network and train all its seeds on the train objects."""
    from landscape_cli.models import build_model
    from landscape_cli.training import fit

    settings, data = point.settings, context.images()
    model = build_model(settings["model"], data.shape, data.source.classes)
    given = {"seeds": settings["seeds"], "stream": point.stream, "progress": context.progress}
    return model, fit(model, data.x_train, data.y_train, **given, **settings["training"])


def trained_together(points: Sequence[Point], context: Context) -> list[tuple[StackedModel, Parameters]]:
    """Build and train the networks of points that differ in the network only, each as :func:`trained` would."""
    from landscape_cli.models import build_model
    from landscape_cli.training_together import fit_together

    settings, data = points[0].settings, context.images()
    models = [build_model(point.settings["model"], data.shape, data.source.classes) for point in points]
    streams = [point.stream for point in points]
    given = {"seeds": settings["seeds"], "streams": streams, "progress": context.progress}
    found = fit_together(models, data.x_train, data.y_train, **given, **settings["training"])
    return list(zip(models, found, strict=True))
