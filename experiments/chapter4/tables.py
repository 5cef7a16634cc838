"""Table 4.2: the tables whose networks are pruned, read from the loaders."""

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
    dataset_settings,
)

CELLS = ("task", "objects", "features")


class PruningDatasets(Experiment):
    """Opens every table and reports what is in it, beside what the thesis says of it."""

    uses = frozenset({"dataset"})
    data = "table"

    def points(self) -> list[Point]:
        """One point a table; how much of it other experiments use does not matter here."""
        names = self.config.grid.get("dataset", [self.config.dataset.name])
        everything = {"train_size": None, "max_size": None}
        return [
            Point.of({"dataset": name}, {"dataset": {**dataset_settings(self.config.dataset, name), **everything}})
            for name in names
        ]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frame ``tables``: one row."""
        data = context.table()
        row = {
            "name": data.source.title,
            "task": data.source.task,
            "objects": len(data.y),
            "features": data.X.shape[1],
            "classes": len(data.classes),
            "target_variance": float(data.y.var()),
            "checksum": data.source.checksum,
        }
        return Measurement({"tables": pd.DataFrame([row])})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw nothing."""
        return iter(())

    def tables(self, results: Results) -> Iterator[Table]:
        """Table 4.2, with published values beside ours."""
        frame = results.frames["tables"].drop(columns=["dataset"])
        published = _published()
        for column in CELLS:
            frame[f"published_{column}"] = [published.get((name, column), "–") for name in frame["name"]]
        frame = frame.assign(checksum=frame["checksum"].str[:12])
        yield Table("table_4_2_pruning_datasets", frame, "Tables whose networks are pruned, as found.")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Compare what the thesis's table says of a data set with what the loader finds."""
        published = _published()
        for _, row in results.frames["tables"].iterrows():
            cells = {column: published[row["name"], column] for column in CELLS if (row["name"], column) in published}
            if not cells:
                continue
            same = float(sum(str(row[column]) == value for column, value in cells.items()))
            yield Verdict(
                claim=f"{row['name']}: {cells['task']}, {cells['objects']} objects, {cells['features']} features",
                source="Table 4.2",
                statistic=f"cells that agree, of {len(cells)}",
                verdict=REPRODUCED if same == len(cells) else NOT_REPRODUCED,
                effect=same,
                low=same,
                high=same,
                note=f"found: {row['task']}, {row['objects']}, {row['features']}",
            )


def _published() -> dict[tuple[str, str], str]:
    frame = published_table("4.2")
    return {(row["row"], row["column"]): row["value"] for _, row in frame.iterrows()}
