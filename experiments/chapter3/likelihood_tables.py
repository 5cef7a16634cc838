"""Table 3.4: the size from which D(k), or M(k), is at most half of its first value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from experiments.chapter3.sample_size_tables import own, title
from experiments.reference import published_table
from landscape_cli.experiment import Results, Table
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED, settled_from

ROWS = {  # of Table 3.4
    "abalone": "Abalone",
    "auto_mpg": "Auto MPG",
    "automobile": "Automobile",
    "liver": "Liver Disorders",
    "servo": "Servo",
    "forest_fires": "Forest fires",
    "wine_quality": "Wine Quality",
    "energy": "Energy Efficiency",
    "student": "Student Performance",
    "facebook": "Facebook Metrics",
    "real_estate": "Real Estate Valuation",
    "heart_failure": "Heart Failure Clinical Records",
    "bone_marrow": "Bone marrow transplant: children",
}
FUNCTIONS = {"D": "variance", "M": "change"}


def function(curves: pd.DataFrame, name: str) -> pd.DataFrame:
    """D(k) or M(k), a row a seed and a column a size; M's last size has none as published."""
    table = curves.pivot(index="seed", columns="k", values=FUNCTIONS[name]).dropna(axis=1)
    return table.abs() if name == "M" else table


def half(curves: pd.DataFrame, name: str) -> tuple[int | None, list[int | None]]:
    """m* at half of the first value: of the mean over seeds, and of each seed."""
    table = function(curves, name)
    # M of the mean is the mean change's size, not the mean of sizes.
    mean = curves.pivot(index="seed", columns="k", values=FUNCTIONS[name]).dropna(axis=1).mean(axis=0).abs()
    sizes = table.columns.to_numpy()
    each = [settled_from(sizes, row <= row[0] / 2) for row in table.to_numpy()]
    return settled_from(sizes, mean.to_numpy() <= mean.iloc[0] / 2), each


def published_cells() -> dict[tuple[str, str], str]:
    """Cells of Table 3.4 by data set and column: objects, features, D, M; a dash where the table has one."""
    cells = published_table("3.4").set_index(["row", "column"])["value"]
    columns = ("objects", "features", "D", "M")
    return {
        (dataset, column): cells[row, column].replace("-", "–") for dataset, row in ROWS.items() for column in columns
    }


def halving(results: Results, name: str) -> Table:
    """A row a data set: m* of D and M as defined and as published, beside the thesis's numbers."""
    cells, curves, rows = published_cells(), results.frames["curves"], []
    facts = results.frames["table"].drop_duplicates("dataset").set_index("dataset")
    for dataset, fact in facts.iterrows():
        there = [v for v in (AS_DEFINED, AS_PUBLISHED) if not own(curves, dataset, v).empty]
        sizes = np.sort(own(curves, dataset, there[0])["k"].unique())
        row: dict[str, Any] = {
            "dataset": title(results, dataset),
            "objects": fact["objects"],
            "columns": fact["columns"],
        }
        row["grid_step"] = round(float(np.median(np.diff(sizes))), 1)
        for symbol in FUNCTIONS:
            for variant in there:
                size, each = half(own(curves, dataset, variant), symbol)
                reached = [value for value in each if value is not None]
                text = "not reached" if size is None else str(size)
                if reached and (min(reached), max(reached)) != (size, size):
                    text += f" ({min(reached)}-{max(reached)})"
                row[f"{symbol}_{variant}"] = text
            row[f"{symbol}_thesis"] = cells.get((dataset, symbol), "–")
        if AS_DEFINED in there:
            defined = own(curves, dataset, AS_DEFINED)
            row["M_error_ratio"] = float((defined["independent_error"] / defined["change_error"]).median())
        row["note"] = "; ".join(_places(dataset, sizes, cells))
        rows.append(row)
    caption = (
        "Size from which D(k) and M(k) are at most half of their first value. In brackets the range over seeds. "
        "grid_step: the sizes between which m* cannot tell. as_published: independent samples, M from one size of the "
        "grid to the next. M_error_ratio: how many times smaller the standard error of M(k) is than with independent "
        "samples, median over k. 'not reached': the function is above half of its first value at the last size."
    )
    return Table(name, pd.DataFrame(rows), caption, {"M_error_ratio": ".1f"})


def _places(dataset: str, sizes: np.ndarray, cells: dict[tuple[str, str], str]) -> list[str]:
    """Which of the thesis's numbers are the second, or the last, of the sizes that were looked at."""
    found = []
    for symbol in FUNCTIONS:
        cell = cells.get((dataset, symbol), "–")
        for place, words in ((1, "the second"), (-1, "the last"), (-2, "the last but one")):
            if cell != "–" and abs(float(cell) - sizes[place]) <= 1:
                found.append(f"{symbol}: {cell} is {words} size of its grid")
    return found
