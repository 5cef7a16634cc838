"""The text's sentences on the nine methods, and the rows of Table 3.2."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from experiments.chapter3.sample_size_tables import COLUMNS, ROWS, answers, own, published_sizes, title
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results, Verdict
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED, CLASSICAL, METHODS, TESTS
from landscape_cli.statistics import Interval, equivalence_verdict, mean_interval, sign_verdict

SOURCE = "thesis 3.6.1"
PLACES = 9  # of a curve, at which its course is judged
SAME = 0.1  # m* at two available sizes counts as the same up to this ratio less 1
ROUNDING = 0.02  # by which a deterministic cell may differ: the published optimiser's own stop


def sentences(results: Results) -> Iterator[Verdict]:
    """On one data set: functions monotone, levelling; m* independent of the available size."""
    dataset = results.frames["table"]["dataset"].iloc[0]
    curves, about = own(results.frames["curves"], dataset, AS_DEFINED), title(results, dataset)
    if curves.empty:
        return
    for method in CLASSICAL:
        if method not in TESTS:  # a test's statistic is the size times a constant
            table = curves[curves["method"] == method].pivot(index="seed", columns="size", values="value")
            places = np.unique(np.linspace(0, table.shape[1] - 1, PLACES).round().astype(int))
            if len(places) >= 3:
                values = table.to_numpy()[:, places]
                yield _monotone(about, method, values)
                yield _levelling(about, method, values, table.columns.to_numpy()[places])
    copies = own(results.frames["copies"], dataset, AS_DEFINED)
    for method in CLASSICAL:
        mine = copies[copies["method"] == method]
        if mine["available"].nunique() > 1:
            yield _independent(about, method, mine)


def _monotone(about: str, method: str, values: np.ndarray) -> Verdict:
    """A seed's resamples are nested, so that its own curve is smooth: judged seed by seed, not by their mean."""
    turns = []
    for curve in values:
        steps = (curve[None, :] - curve[:, None])[np.triu_indices(len(curve), 1)]  # all rises, earlier to later
        turns.append(min(steps.max(), (-steps).max()) / max(np.ptp(curve), 1e-300))
    interval = mean_interval(turns)
    return Verdict(
        claim=f"{about}: the function of {METHODS[method].title} is monotone in the sample size",
        source=SOURCE,
        statistic="the smaller of its largest rise and largest fall, of its range; to be negative",
        verdict=sign_verdict(interval, -1),
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
        note=f"at {values.shape[1]} sizes",
    )


def _levelling(about: str, method: str, values: np.ndarray, sizes: np.ndarray) -> Verdict:
    steps = np.abs(np.diff(values, axis=1))
    last = max(1, steps.shape[1] // 4)
    share = steps[:, -last:].sum(axis=1) / np.maximum(steps.sum(axis=1), 1e-300)
    interval = mean_interval(share - (sizes[-1] - sizes[-1 - last]) / (sizes[-1] - sizes[0]))
    return Verdict(
        claim=f"{about}: the function of {METHODS[method].title} tends to a constant",
        source=SOURCE,
        statistic="share of its changes in the last quarter of sizes, less a straight line's; to be negative",
        verdict=sign_verdict(interval, -1),
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
    )


def _independent(about: str, method: str, copies: pd.DataFrame) -> Verdict:
    less, most = sorted(copies["available"].unique())[-2:]
    logs = {size: np.log(group["m_star"]) for size, group in copies.groupby("available") if size in (less, most)}
    lacking = {size: int(values.isna().sum()) for size, values in logs.items()}
    claim = f"{about}: m* of {METHODS[method].title} does not depend on the available size in the limit"
    statistic = f"log of m* from {most} objects over m* from {less}; to lie in ±{SAME:.0%}"
    if sum(lacking.values()):
        note = f"not reached by {lacking[less]} and {lacking[most]} of {len(logs[most])} copies"
        nothing = float("nan")
        return Verdict(claim, SOURCE, statistic, INCONCLUSIVE, nothing, nothing, nothing, note=note)
    shift = logs[most].mean() - logs[less].mean()
    parts = np.array([values.var(ddof=1) / len(values) for values in logs.values()])
    error = np.sqrt(parts.sum())
    freedom = parts.sum() ** 2 / np.sum(parts**2 / (len(logs[most]) - 1)) if error else 1.0  # Welch
    half = float(stdtrit(freedom, 0.975) * error)
    interval = Interval(float(shift), float(shift) - half, float(shift) + half)
    return Verdict(
        claim=claim,
        source=SOURCE,
        statistic=statistic,
        verdict=equivalence_verdict(interval, np.log(1 - SAME), np.log(1 + SAME)),
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
        note="interval over bootstrap copies of the table",
    )


def rows(results: Results, number: str = "3.2", methods: tuple[str, ...] = CLASSICAL) -> Iterator[Verdict]:
    """Whether the published code's variants give Table 3.2, or 3.6, row by row."""
    published = published_sizes(number)
    table = results.frames["table"]
    there = [name for name in table.loc[table["variant"] == AS_PUBLISHED, "dataset"].unique() if name in COLUMNS]
    if not there:
        return
    for method in methods:
        agree, apart = 0, []
        for dataset in there:
            if _agrees(results, dataset, method, published[dataset, method]):
                agree += 1
            else:
                own_size = answers(results, dataset, AS_PUBLISHED)[method].size
                apart.append(
                    f"{title(results, dataset)} {own_size or 'not reached'}, thesis {published[dataset, method]}"
                )
        yield Verdict(
            claim=f"Table {number}, row {ROWS[method]}",
            source=f"Table {number}",
            statistic=f"cells that come out as published, of {len(there)}",
            verdict=REPRODUCED if agree == len(there) else NOT_REPRODUCED,
            effect=float(agree),
            low=float(agree),
            high=float(agree),
            published=float(len(there)),
            note="; ".join(apart),
        )


def _agrees(results: Results, dataset: str, method: str, cell: str) -> bool:
    """Within what the seeds and the grid leave open; a dash and m - 1 both mean that it is not reached."""
    sizes = own(results.frames["sizes"], dataset, AS_PUBLISHED)
    values = sizes.loc[sizes["method"] == method, "m_star"]
    available = results.frames["table"].set_index("dataset")["objects"].loc[[dataset]].iloc[0]
    if cell in ("–", str(available - 1)):
        return bool(values.isna().any())
    target = float(cell)
    if method in TESTS:
        return bool(abs(values.iloc[0] / target - 1) <= ROUNDING)
    curve = own(results.frames["curves"], dataset, AS_PUBLISHED)
    step = float(np.diff(np.sort(curve["size"].unique())).max())
    return bool(values.min() - step <= target <= values.max() + step)
