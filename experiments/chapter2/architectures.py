"""Table 2.1: the vision transformers of the experiments, with the parameters that they turn out to have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from experiments.reference import published_table
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.errors import BadInput
from landscape_cli.experiment import (
    NOT_REPRODUCED,
    REPRODUCED,
    Context,
    Experiment,
    Figure,
    Measurement,
    Point,
    Results,
    Table,
    Verdict,
)
from landscape_cli.geometry import vit_geometry
from landscape_cli.validation import model_node, nearest

PUBLISHED = {"patch": "patch_size", "hidden": "hidden_size", "ffn": "ffn_size", "blocks": "num_layers"}


@dataclass
class ArchitecturesOptions:
    """Which networks are listed."""

    models: dict[str, Any] = field(default_factory=dict)  # data set -> a model node


class Architectures(Experiment):
    """Builds each network and counts its parameters; no data is needed, nothing is trained."""

    Options = ArchitecturesOptions

    def points(self) -> list[Point]:
        """One point a data set and network."""
        points = []
        for name, node in self.config.measure.models.items():
            key = f"measure.models.{name}"
            if name not in IMAGE_SETS:
                raise BadInput(f"{key}: no such data set{nearest(name, IMAGE_SETS)}")
            model = asdict(model_node(node, key))
            if model["kind"] != "vit":
                raise BadInput(f"{key}.kind: {model['kind']!r}; allowed: vit")
            vit_geometry(model, IMAGE_SETS[name].shape, name, key)
            points.append(Point.of({"dataset": name}, {"model": model, "pictures": name}))
        return points

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``architectures`` (one row) and ``tensors`` (one row a parameter tensor)."""
        from landscape_cli.models import build_model
        from landscape_cli.rng import generator

        model, pictures = point.settings["model"], IMAGE_SETS[point.settings["pictures"]]
        geometry = vit_geometry(model, pictures.shape)
        parameters = build_model(model, pictures.shape, pictures.classes).initialise([generator(0, "initialisation")])
        tensors = [
            {"tensor": name, "shape": " x ".join(map(str, tensor.shape[1:])), "parameters": tensor[0].numel()}
            for name, tensor in parameters.items()
        ]
        row = {
            **{name: model[name] for name in ("patch_size", "hidden_size")},
            "ffn_size": geometry.ffn_size,
            **{name: model[name] for name in ("num_layers", "num_heads")},
            "tokens": geometry.tokens,
            "parameters": sum(tensor["parameters"] for tensor in tensors),
        }
        return Measurement({"architectures": pd.DataFrame([row]), "tensors": pd.DataFrame(tensors)})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw nothing."""
        return iter(())

    def tables(self, results: Results) -> Iterator[Table]:
        """Table 2.1, with what the thesis leaves out; and every tensor."""
        frame = results.frames["architectures"].assign(dataset=self._titles(results.frames["architectures"]))
        yield Table("table_2_1_vit_architectures", frame, "Hyperparameters of the vision transformers.")
        frame = results.frames["tensors"].assign(dataset=self._titles(results.frames["tensors"]))
        yield Table("tensors_vit_architectures", frame, "Parameter tensors of the vision transformers of Table 2.1.")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Compare with the published cells."""
        published = published_table("2.1")
        for _, row in results.frames["architectures"].iterrows():
            name = IMAGE_SETS[row["dataset"]].title
            own = published[published["row"].str.replace("-", "") == name]
            if own.empty:
                continue
            cells = own.set_index("column")["value"].astype(int)
            same = float(sum(row[PUBLISHED[column]] == value for column, value in cells.items()))
            yield Verdict(
                claim=f"{name}: " + ", ".join(f"{column} {value}" for column, value in cells.items()),
                source="Table 2.1",
                statistic=f"cells that agree, of {len(cells)}",
                verdict=REPRODUCED if same == len(cells) else NOT_REPRODUCED,
                effect=same,
                low=same,
                high=same,
                note=f"{row['parameters']} parameters",
            )

    def _titles(self, frame: pd.DataFrame) -> pd.Series:
        return frame["dataset"].map(lambda name: IMAGE_SETS[name].title)
