"""What chapter 2 says of the Hessian of its transformer, tested over seeds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.chapter2.tensors import ATTENTION
from landscape_cli.experiment import Results, Verdict
from landscape_cli.statistics import mean_interval, sign_verdict

EMPTY = 1e-6  # share of the largest block's Frobenius norm below which a block is rounding: no output depends on it


def claims(norm_steps: list[int], results: Results) -> Iterator[Verdict]:
    """Test every sentence about the Hessian, those that contradict each other too.

    Parameters
    ----------
    norm_steps
        Steps up to which Fig 2.3 is drawn.
    """
    blocks, norms = results.frames["blocks"], results.frames["norms"]
    network = results.frames["network"]
    trained = network[network["state"] == "trained"]
    yield _verdict(
        "the trained model has more than 50 % validation accuracy",
        "thesis 2.4, before Fig 2.2",
        "test accuracy less 0.5",
        trained["test_accuracy"] - 0.5,
        f"test accuracies {_listed(trained['test_accuracy'], '.3f')}",
    )
    for state, source in (("initial", "Fig 2.1"), ("trained", "Fig 2.2")):
        own = _entry_sizes(blocks[blocks["state"] == state])
        spread = np.log10(own.max(axis=1) / own[own > 0].min(axis=1))
        yield _verdict(
            f"{state}: the magnitudes differ between blocks",
            f"thesis 2.4, {source}",
            "log10(largest over smallest mean |entry| of a block) less 1: more than a power of ten",
            spread - 1,
            "",
        )
    yield _values_first(blocks, "initial", ATTENTION, "the blocks of Values have larger entries", "Fig 2.1")
    yield _values_first(
        blocks, "trained", ATTENTION, "Values-Values has the largest entries of the attention part", "Fig 2.2"
    )
    yield _values_first(
        blocks, "trained", None, "Values-Values has the largest entries of the whole Hessian", "Fig 2.2"
    )
    ratio = norms[(norms["step"] == 0) | norms["last"]].pivot(
        index="seed", columns=["tensor", "last"], values="hessian_frobenius"
    )
    after, before = (ratio.xs(last, axis=1, level="last") for last in (True, False))
    live = (after > EMPTY * after.max(axis=1).max()).all() & (before > EMPTY * before.max(axis=1).max()).all()
    growth = np.log10(after.loc[:, live] / before.loc[:, live])
    left = "" if live.all() else f"; left out, since no output depends on them: {', '.join(live.index[~live])}"
    yield _verdict(
        "every block grows in magnitude by training",
        "thesis 2.4, before Fig 2.2",
        "log10(Frobenius norm of the trained over the initial block), the least of all diagonal blocks",
        growth.min(axis=1),
        f"least: {', '.join(sorted(set(growth.idxmin(axis=1))))}{left}",
    )
    yield _keys_and_values(norms, max(norm_steps))


def _values_first(blocks: pd.DataFrame, state: str, among: tuple[str, ...] | None, claim: str, source: str) -> Verdict:
    own = blocks[blocks["state"] == state]
    values = [name for name in own["row"].unique() if name.startswith("V")]
    if among:
        members = [name for name in own["row"].unique() if name.split(".")[0] in among]
        own = own[own["row"].isin(members) & own["column"].isin(members)]
    sizes = _entry_sizes(own)
    ours = sizes[[pair for pair in sizes if pair[0] == pair[1] and pair[0] in values]].max(axis=1)
    others = sizes[[pair for pair in sizes if not (pair[0] in values and pair[1] in values)]]
    statistic = "log10(mean |entry| of Values-Values over that of the largest other block)"
    if state == "initial":  # all that Values have a part in
        statistic = "log10(mean over all blocks with Values of mean |entry|, over the largest block without)"
        ours = sizes[[pair for pair in sizes if set(pair) & set(values)]].mean(axis=1)
        others = sizes[[pair for pair in sizes if not set(pair) & set(values)]]
    best = others.max(axis=1)
    winners = ["-".join(pair) for pair in others.idxmax(axis=1)]
    largest = own.loc[own.groupby("seed")["max_abs"].idxmax()]
    return _verdict(
        f"{state}: {claim}",
        f"thesis 2.4, {source}",
        statistic,
        np.log10(ours / best),
        f"largest other block: {_counted(winners)}; the single largest entry lies in "
        f"{_counted(largest['row'] + '-' + largest['column'])}",
    )


def _keys_and_values(norms: pd.DataFrame, last: int) -> Verdict:
    drawn = norms[norms["step"] <= last]
    largest = drawn.groupby(["seed", "step", "label"])["hessian_spectral"].max().unstack("label")
    named = [name for name in largest if name.split(".")[0] in ("K", "V")]
    least = largest[named].min(axis=1)
    others = largest.drop(columns=named)
    ratio = np.log10(least / others.max(axis=1)).groupby("seed").mean()
    order = np.log10(largest).mean().sort_values()
    end = largest.xs(drawn["step"].max(), level="step").mean().sort_values()
    return _verdict(
        "Keys and Values have the largest Hessian norms, the other blocks much smaller ones",
        "thesis 2.4, Fig 2.3",
        "log10(spectral norm of the smaller of the two over that of the largest other), mean over recorded steps",
        ratio,
        f"blocks by norm, largest first: {', '.join(order.index[::-1])}; at the last of them: "
        f"{', '.join(end.index[::-1])}",
    )


def _entry_sizes(blocks: pd.DataFrame) -> pd.DataFrame:
    """Mean |entry|: one row a seed, one column a pair of labels."""
    return blocks.pivot(index="seed", columns=["row", "column"], values="mean_abs")


def _verdict(claim: str, source: str, statistic: str, values: pd.Series, note: str) -> Verdict:
    interval = mean_interval(values.to_numpy())
    return Verdict(
        claim=claim,
        source=source,
        statistic=statistic,
        verdict=sign_verdict(interval, 1),
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
        note=note,
    )


def _listed(values: pd.Series, spec: str) -> str:
    return ", ".join(format(value, spec) for value in values)


def _counted(names: pd.Series | list[str]) -> str:
    counts = pd.Series(list(names)).value_counts()
    return ", ".join(f"{name} ({count} of {counts.sum()} seeds)" for name, count in counts.items())
