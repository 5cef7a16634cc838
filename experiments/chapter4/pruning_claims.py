"""What each order removes without loss, and the text's sentences of it (thesis 4.4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from experiments.chapter4.pruning_figures import LABELS, is_classification, quality_label
from experiments.chapter4.rivals import all_positive, all_within, level, nearest
from landscape_cli.experiment import INCONCLUSIVE, Results, Table, Verdict
from landscape_cli.statistics import Interval, mean_interval, sign_verdict

BELSLEY = ("belsley", "belsley_precision")
SHARES = (0.5, 0.8, 0.9)
FEW = 5  # restarts
NEAR = 0.011  # shares that close are one
SAME_NOISE = 0.1  # by which surfaces at "one level" may differ, relative to Belsley's


def qualities(results: Results, method: str, *, retrained: bool = False) -> pd.DataFrame:
    """Quality on the test objects: a row a share, a column a seed."""
    curves = results.frames["curves"]
    mine = curves[(curves["method"] == method) & (curves["retrained"] == retrained)]
    return mine.pivot(index="share", columns="seed", values="test")


def losses(table: pd.DataFrame, gains: int) -> pd.DataFrame:
    """What is lost at each share, in parts of what the whole network has over the empty one, where that is more.

    Parameters
    ----------
    gains
        1 for an accuracy, -1 for an error.
    """
    full, empty = table.loc[0.0], table.loc[1.0]
    gained = full - empty
    sound = gained.index[gained * gains > 0]
    return (full[sound] - table[sound]) / gained[sound]


def removable(table: pd.DataFrame, gains: int, tolerance: float) -> np.ndarray:
    """The largest share up to which no more than `tolerance` is lost at any share, one a seed."""
    lost = losses(table, gains) > tolerance
    shares = table.index.to_numpy()
    return np.array([shares[max(int(lost[seed].to_numpy().argmax()) - 1, 0)] for seed in lost])


def gains(results: Results) -> int:
    """1 where more is better, an accuracy; -1 for an error."""
    return 1 if is_classification(results) else -1


def at(table: pd.DataFrame, share: float) -> pd.Series | None:
    """The row of a share, or of one next to it; None where there is none."""
    apart = np.abs(table.index.to_numpy() - share)
    return table.iloc[int(apart.argmin())] if apart.min() <= NEAR else None


def methods(results: Results) -> list[str]:
    """The orders that were measured, in the figures' order."""
    known = set(results.frames["curves"]["method"])
    return [method for method in LABELS if method in known]


def summary(results: Results, config: Any) -> Table:
    """A row a method: share removed without loss, with its interval, and quality on the way."""
    tolerance, rows = config.measure.tolerance, []
    curves = results.frames["curves"]
    surface = results.frames.get("surface")
    for retrained in sorted(curves["retrained"].unique()):
        for method in methods(results):
            table = qualities(results, method, retrained=retrained)
            found = removable(table, gains(results), tolerance)
            shares = mean_interval(found)
            row = {"method": LABELS[method], "retrained": "yes" if retrained else "no"}
            row |= {"removable": shares.mean, "low": shares.low, "high": shares.high, "restarts": len(found)}
            row["whole"] = table.loc[0.0].mean()
            rows_at = {share: at(table, share) for share in SHARES}
            row |= {f"at_{share:.0%}": np.nan if own is None else own.mean() for share, own in rows_at.items()}
            row["empty"] = table.loc[1.0].mean()
            if surface is not None and not retrained:
                row["noise"] = _volumes(results)[method].mean()
            rows.append(row)
    caption = (
        f"removable: share of the parameters up to which no more than {tolerance:.0%} is lost of what the network has "
        "over the empty one, of the shares that were measured; mean and 95 % interval over the restarts (counted "
        "beside it) whose network is better than the empty one. Retrained curves are measured at fewer shares. "
        f"whole, at, empty: {quality_label(results)} on {int(results.frames['fits']['test_objects'].iloc[0])} test "
        "objects. noise: mean height of the noise surface where there is noise."
    )
    return Table(config.name, pd.DataFrame(rows), caption, {"low": ".3f", "high": ".3f", "removable": ".3f"})


def answers(results: Results, config: Any) -> Iterator[str]:
    """What can go, a line an order."""
    for retrained in sorted(results.frames["curves"]["retrained"].unique()):
        words = []
        for method in methods(results):
            table = qualities(results, method, retrained=retrained)
            shares = mean_interval(removable(table, gains(results), config.measure.tolerance))
            if np.isfinite(shares.mean):
                words.append(f"{LABELS[method]} {shares.mean:.0%}")
        how = "with retraining" if retrained else "without retraining"
        if words:
            yield f"removable {how}, losing at most {config.measure.tolerance:.0%}: {', '.join(words)}"


def verdicts(results: Results, config: Any) -> Iterator[Verdict]:
    """The text's sentences on Wine, Boston and the synthetic set; of another table, Belsley's alone."""
    name = results.frames["curves"]["dataset"].iloc[0]
    tolerance = config.measure.tolerance
    known = methods(results)
    if name == "wine":
        for method in ("optimal_brain_damage", "variational", *BELSLEY):
            if method in known:
                yield from _keeps(results, method, tolerance)
    for method in [method for method in BELSLEY if method in known]:
        rivals = [rival for rival in known if rival not in (*BELSLEY, "gradient_covariance")]  # those of the figures
        if not rivals:
            continue
        if name == "boston":
            yield _same_noise(results, method, rivals)
        else:
            yield _least_noise(results, method, rivals, SOURCES.get(name, "thesis 4.4.1, of its own data sets"))
        if name == "synthetic_relevance":
            yield from _improves(results, method, rivals)
        else:
            yield _removes_most(results, method, rivals, tolerance, name)


SOURCES = {"wine": "thesis 4.4.1, of Fig 4.5", "synthetic_relevance": "thesis 4.4.1, of Fig 4.9"}


def _judged(claim: str, source: str, statistic: str, verdict: str, found: Interval, note: str = "") -> Verdict:
    return Verdict(claim, source, statistic, verdict, found.mean, found.low, found.high, note=note)


def _keeps(results: Results, method: str, tolerance: float) -> Iterator[Verdict]:
    lost = losses(qualities(results, method), gains(results))
    for share, claim, sign in ((0.8, "keeps its accuracy with 80 % removed", -1), (0.9, "has lost at 90 %", 1)):
        row = at(lost, share)
        if row is None or row.empty:
            continue
        found = mean_interval(row.to_numpy() - tolerance)
        statistic = f"what is lost at {share:.0%} of what the network has over the empty one, less {tolerance:g}"
        yield _judged(
            f"{LABELS[method]} {claim}",
            "thesis 4.4.1, of Fig 4.4",
            f"{statistic}; to be {'negative' if sign < 0 else 'positive'}",
            # Accuracies are counts of few objects: that a handful of them agree says nothing of their spread.
            INCONCLUSIVE if np.isclose(found.low, found.high) and len(row) < FEW else sign_verdict(found, sign),
            found,
        )


def _volumes(results: Results) -> pd.DataFrame:
    """Mean height of each surface: a row a seed, a column a method. Noise 0, where all are zero, is left out."""
    surface = results.frames["surface"]
    noisy = surface[surface["noise"] > 0]
    return noisy.groupby(["seed", "method"])["deviation"].mean().unstack()


def _least_noise(results: Results, method: str, rivals: list[str], source: str) -> Verdict:
    volumes = _volumes(results)
    differences = (volumes[rivals].sub(volumes[method], axis=0)).div(volumes[method].mean())
    rival, found = nearest(differences)
    means = volumes.mean()
    quality = {name: qualities(results, name).to_numpy().mean() for name in [method, *rivals]}
    return _judged(
        f"{LABELS[method]}: its noise surface lies lowest",
        source,
        "smallest of the volumes between its surface and another's, relative to its own; to be positive; interval "
        "simultaneous for all orders",
        all_positive(differences),
        found,
        f"nearest: {LABELS[rival]}; mean heights and {quality_label(results)}: "
        + ", ".join(f"{LABELS[name]} {means[name]:.3g} at {quality[name]:.3g}" for name in [method, *rivals]),
    )


def _same_noise(results: Results, method: str, rivals: list[str]) -> Verdict:
    volumes = _volumes(results)
    differences = (volumes[rivals].sub(volumes[method], axis=0)).div(volumes[method].mean())
    rival = differences.mean().abs().idxmax()
    found = mean_interval(differences[rival].to_numpy(), level(differences))
    return _judged(
        f"{LABELS[method]}: all noise surfaces lie at one level",
        "thesis 4.4.1, of Fig 4.7",
        f"largest volume between its surface and another's, relative to its own; to lie within ±{SAME_NOISE:g}; "
        "interval simultaneous for all orders",
        all_within(differences, SAME_NOISE),
        found,
        f"farthest: {LABELS[rival]}",
    )


def _removes_most(results: Results, method: str, rivals: list[str], tolerance: float, name: str) -> Verdict:
    tables = {each: qualities(results, each) for each in [method, *rivals]}
    shares = pd.DataFrame({each: removable(table, gains(results), tolerance) for each, table in tables.items()})
    differences = shares[rivals].rsub(shares[method], axis=0)
    _, found = nearest(differences)
    means = shares.mean()
    return _judged(
        f"{LABELS[method]} removes most without loss",
        "thesis 4.4.1, of Fig 4.6" if name == "boston" else "thesis 4.4.1, of Boston Housing",
        f"smallest difference of the share removed while at most {tolerance:g} is lost to another order's; to be "
        "positive; interval simultaneous for all orders",
        all_positive(differences),
        found,
        "; ".join(f"{LABELS[each]} {means[each]:.0%}" for each in [method, *rivals]),
    )


def _improves(results: Results, method: str, rivals: list[str]) -> Iterator[Verdict]:
    table = qualities(results, method)
    last = table.index[-2]  # one parameter is left
    found = mean_interval(np.log(table.loc[last] / table.loc[0.0]).to_numpy())
    yield _judged(
        f"{LABELS[method]}: quality improves as noise parameters go",
        "thesis 4.4.1, of Fig 4.8",
        "log of the error with one parameter left over that of all; to be negative",
        sign_verdict(found, -1),
        found,
    )
    areas = pd.DataFrame({each: np.log(qualities(results, each).iloc[:-1]).mean() for each in [method, *rivals]})
    differences = areas[rivals].sub(areas[method], axis=0)
    rival, found = nearest(differences)
    yield _judged(
        f"{LABELS[method]} is more effective than the other orders",
        "thesis 4.4.1, of Fig 4.8",
        "smallest difference of the mean log error over all shares, another order's less its own; to be positive; "
        "interval simultaneous for all orders",
        all_positive(differences),
        found,
        f"nearest: {LABELS[rival]}",
    )
