"""Published numbers, as CSV, and their readers."""

from functools import cache
from importlib.resources import files

import pandas as pd


@cache
def published_curves(name: str) -> pd.DataFrame | None:
    """Points of the published curves of an experiment (one seed each), or None if there are none.

    Columns hidden_size, num_layers, k, value. The net that both panels show (h = 16, L = 5) was read off each of them,
    with values 13 % apart up to k = 200 and 2 % or less from k = 1000 on; their mean is taken.
    """
    path = files(__name__) / f"{name}_published.csv"
    if not path.is_file():
        return None
    with path.open() as handle:
        points = pd.read_csv(handle).rename(columns={"h": "hidden_size", "L": "num_layers"})
    return points.groupby(["hidden_size", "num_layers", "k"], as_index=False)["value"].mean()


def published_table(number: str) -> pd.DataFrame:
    """One table of the thesis, one row a cell: columns row, column, value, error (all text)."""
    with (files(__name__) / "thesis_tables.csv").open() as handle:
        cells = pd.read_csv(handle, dtype=str, keep_default_na=False)
    return cells[cells["table"] == number].drop(columns="table").reset_index(drop=True)
