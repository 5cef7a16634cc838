"""The text's sentences on D(k) and M(k), and the rows of Table 3.4."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from experiments.chapter3.likelihood_tables import FUNCTIONS, ROWS, function, half, published_cells
from experiments.chapter3.sample_size_tables import own, title
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED, Results, Verdict
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED
from landscape_cli.statistics import log_log_slope, mean_interval, sign_verdict


def sentences(results: Results) -> Iterator[Verdict]:
    """D(k) and M(k) tend to zero: they fall as a power of k over the upper half of the sizes."""
    for dataset in results.frames["table"]["dataset"].unique():
        curves = own(results.frames["curves"], dataset, AS_DEFINED)
        for symbol in FUNCTIONS if len(curves) else ():
            table = function(curves, symbol)
            late = table.loc[:, table.columns >= np.median(table.columns)]
            slopes = [float(log_log_slope(late.columns.to_numpy(), row)) for row in late.to_numpy() if (row > 0).all()]
            interval = mean_interval(slopes)
            yield Verdict(
                claim=f"{title(results, dataset)}: {symbol}(k) tends to zero",
                source="thesis 3.6.2",
                statistic="slope of its logarithm against log k over the upper half of the sizes; to be negative",
                verdict=sign_verdict(interval, -1),
                effect=interval.mean,
                low=interval.low,
                high=interval.high,
                note="theory: -2 where the fit is consistent" if symbol == "D" else "",
            )


def rows(results: Results) -> Iterator[Verdict]:
    """Whether the published computation gives the numbers of Table 3.4, within a step of their grid."""
    cells = published_cells()
    for symbol in FUNCTIONS:
        agree, apart, there = 0, [], 0
        for dataset in results.frames["table"]["dataset"].unique():
            curves = own(results.frames["curves"], dataset, AS_PUBLISHED)
            if dataset not in ROWS or curves.empty:
                continue
            there += 1
            size, each = half(curves, symbol)
            cell = cells[dataset, symbol]
            if _agrees(cell, size, each, float(np.diff(np.sort(curves["k"].unique())).max())):
                agree += 1
            else:
                apart.append(f"{title(results, dataset)} {size or 'not reached'}, thesis {cell}")
        if there:
            yield Verdict(
                claim=f"Table 3.4, column {symbol}",
                source="Table 3.4",
                statistic=f"cells that come out as published, of {there}",
                verdict=REPRODUCED if agree == there else NOT_REPRODUCED,
                effect=float(agree),
                low=float(agree),
                high=float(agree),
                published=float(there),
                note="; ".join(apart),
            )


def _agrees(cell: str, size: int | None, each: list[int | None], step: float) -> bool:
    """Within a step of the grid of what the seeds give; a dash where some seed does not reach it."""
    if cell == "–":
        return size is None or any(value is None for value in each)
    reached = [value for value in each if value is not None]
    return bool(reached) and min(reached) - step <= float(cell) <= max(reached) + step
