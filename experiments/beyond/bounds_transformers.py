"""The bounds' networks with attention: a self-attention layer (Theorem 17), a transformer block (Theorem 26)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.beyond.bounds import Bounds, BoundsOptions
from landscape_cli.config import bounded
from landscape_cli.experiment import Context, Point, Results

if TYPE_CHECKING:
    from experiments.beyond.search import AttentionFamily


@dataclass
class AttentionBoundsOptions(BoundsOptions):
    """Sizes of the layer."""

    tokens: int = bounded(3, minimum=2)  # L
    width: int = bounded(3, minimum=3)  # d_V; with two channels a layer norm has no slope
    key_width: int = bounded(2, minimum=1)  # d_K
    ffn_size: int = bounded(4, minimum=1)  # d_ff, of a block


class AttentionBounds(Bounds):
    """Theorem 17: random X and Target; trained ones fit the outputs of another layer."""

    Options = AttentionBoundsOptions
    uses = frozenset({"seeds"})

    def points(self) -> list[Point]:
        """One point a size."""
        points = []
        for change in self.changes():
            settings = self.settings(**change)
            points.append(Point.of({axis: settings["measure"][axis] for axis in self.axes}, settings))
        return list(dict.fromkeys(points))

    def families(self, point: Point, context: Context) -> dict[str, AttentionFamily]:
        """One family."""
        from experiments.beyond.search import AttentionFamily

        options = point.settings["measure"]
        sizes = (options["tokens"], options["width"], options["key_width"])
        return {"17": AttentionFamily(*sizes, options["train_steps"])}

    def data_title(self, results: Results) -> str:
        """What the objects are."""
        return "random objects"


class TransformerBounds(AttentionBounds):
    """Theorem 26, a post-norm block with one head and layer norms without weights."""

    def families(self, point: Point, context: Context) -> dict[str, AttentionFamily]:
        """One family."""
        from experiments.beyond.search import BlockFamily

        options = point.settings["measure"]
        sizes = (options["tokens"], options["width"], options["key_width"], options["ffn_size"])
        return {"26": BlockFamily(*sizes, options["train_steps"])}
