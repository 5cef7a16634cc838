"""Table 1.1: the image data sets, read from the loaders."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from experiments.reference import published_table
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


class Datasets(Experiment):
    """Opens every data set and reports what is in it, beside what the thesis says of it."""

    uses = frozenset({"dataset"})

    def points(self) -> list[Point]:
        """One point a data set; how much of it other experiments use does not matter here."""
        names = self.config.grid.get("dataset", [self.config.dataset.name])
        everything = {"train_size": None, "max_size": None}
        return [Point.of({"dataset": name}, {"dataset": {"name": name, **everything}}) for name in names]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frame ``datasets``: one row."""
        from landscape_cli.data.images import read

        source = context.source
        images = read(source)
        _, channels, height, width = images.x_train.shape
        row = {
            "name": source.title,
            "description": source.description,
            "format": "RGB" if channels == 3 else "grayscale",
            "resolution": f"{height}x{width}",
            "train_objects": len(images.x_train),
            "test_objects": len(images.x_test),
            "classes": len(set(images.y_train.tolist())),
            "smallest": int(images.x_train.min()),
            "largest": int(images.x_train.max()),
            "whole": source.whole,
            "checksum": source.checksum,
        }
        return Measurement({"datasets": pd.DataFrame([row])})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw nothing."""
        return iter(())

    def tables(self, results: Results) -> Iterator[Table]:
        """Table 1.1, with the columns that the thesis leaves out."""
        frame = results.frames["datasets"].drop(columns=["dataset"])
        frame = frame.assign(checksum=frame["checksum"].str[:12])
        yield Table("table_1_1_datasets", frame, "Data sets for the classification of images, as found.")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Compare what the thesis's table says of a data set with what the loader finds."""
        published = published_table("1.1")
        for _, row in results.frames["datasets"].iterrows():
            cells = published[published["row"] == row["name"]].set_index("column")["value"]
            if cells.empty:
                continue
            same = [row[column] == cells[column] for column in ("description", "format", "resolution")]
            yield Verdict(
                claim=f"{row['name']}: {cells['description']}, {cells['format']}, {cells['resolution']}",
                source="Table 1.1",
                statistic="cells that agree, of 3",
                verdict=REPRODUCED if all(same) else NOT_REPRODUCED,
                effect=float(sum(same)),
                low=float(sum(same)),
                high=float(sum(same)),
                note=f"found: {row['description']}, {row['format']}, {row['resolution']}",
            )
