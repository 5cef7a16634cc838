"""Figs 4.14 to 4.16 and Table 4.9 from stored accuracies, and what the text says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from experiments.chapter4.rivals import all_positive, level, nearest
from experiments.reference import published_table
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Figure, Results, Table, Verdict
from landscape_cli.statistics import Interval, mean_interval, sign_verdict

LABELS = {
    "xavier": "Xavier",
    "zero_pad": "zero pad",
    "uniform_pad": "uniform pad",
    "transfer_learning": "transfer learning",
    "net2net": "Net2Net",
    "data_noise": "with data noise",
    "anti_distillation_no_trace": r"anti-distillation, $\lambda_4=0$",
    "anti_distillation": "anti-distillation",
}
LOOKS = {
    "xavier": ("0.45", (0, (1.2, 1.2))),
    "zero_pad": ("#56b4e9", (0, (5, 1.2))),
    "uniform_pad": ("#0072b2", (0, (3, 1, 1, 1))),
    "transfer_learning": ("#cc79a7", (0, (1.2, 1.2))),
    "net2net": ("#009e73", (0, (8, 2))),
    "data_noise": ("#e69f00", (0, (6, 1, 1, 1, 1, 1))),
    "anti_distillation_no_trace": ("#d55e00", (0, (5, 1.2))),
    "anti_distillation": ("#7a0000", "-"),
}
PUBLISHED = {  # row of Table 4.9
    "xavier": "Xavier",
    "zero_pad": "Zero Pad",
    "uniform_pad": "Uniform Pad",
    "transfer_learning": "Transfer Learning",
    "net2net": "Net2Net",
    "data_noise": "With Data Noise",
    "anti_distillation_no_trace": "Anti-Distillation, lambda_4=0",
    "anti_distillation": "Anti-Distillation",
}
ANTI, FLAT, XAVIER = "anti_distillation", "anti_distillation_no_trace", "xavier"
COLUMNS = {"epochs": ("epoch", "accuracy"), "attack": ("strength", "FGSM"), "noise": ("strength", "parameter noise")}


def compared(results: Results, frame: str) -> pd.DataFrame:
    """The rows of the comparison, without the sizes that were searched."""
    found = results.frames[frame]
    return found[found["part"] == "comparison"]


def last(results: Results, frame: str, size: Any) -> pd.DataFrame:
    """Accuracy after the last epoch, or at the highest level: a row a seed, a column an initialisation."""
    rows = compared(results, frame)
    rows = rows[rows["train_size"] == size]
    axis = COLUMNS[frame][0]
    rows = rows[rows[axis] == rows[axis].max()]
    return rows.pivot(index="seed", columns="initialisation", values="accuracy")


def sizes(results: Results) -> list[Any]:
    """Train sizes that are compared, in the grid's order."""
    return list(dict.fromkeys(compared(results, "epochs")["train_size"]))


def about_size(results: Results, size: Any) -> str:
    """A train size in words."""
    teachers = compared(results, "teachers")
    row = teachers[teachers["train_size"] == size].iloc[0]
    return f"{row['train_objects']} train objects"


def figures(results: Results, config: Any) -> Iterator[Figure]:
    """Accuracy by epoch, against the attack's strength and against the parameters' noise."""
    name = config.name.removeprefix("anti_distillation_")
    about = next(iter(results.sources.values())).title if results.sources else name
    kinds = {
        "epochs": (14, "accuracy", "epoch", "Accuracy by epoch"),
        "attack": (15, "adversarial", "strength of the attack $\\varepsilon$", "Accuracy under attack (FGSM)"),
        "noise": (16, "parameter_noise", "strength of the noise $\\varepsilon$", "Accuracy with noisy parameters"),
    }
    for frame, (number, word, label, title) in kinds.items():
        file = f"{config.name}_{word}"
        if config.thesis:
            file = f"fig_4_{number}_anti_distillation_{word}"
        yield _figure(results, config, frame, file, label, f"{title}, {about}")


def _figure(results: Results, config: Any, frame: str, name: str, label: str, title: str) -> Figure:
    from landscape_cli.plotting.curves import interval_band
    from landscape_cli.plotting.style import FULL_WIDTH, SINGLE_WIDTH, new_figure, titled_legend

    shown = sizes(results)
    drawing, axes = new_figure(1, len(shown), FULL_WIDTH if len(shown) > 1 else SINGLE_WIDTH, 3.3)
    rows = compared(results, frame)
    axis = COLUMNS[frame][0]
    for ax, size in zip(axes[0], shown, strict=True):
        for method in [method for method in LABELS if method in set(rows["initialisation"])]:
            mine = rows[(rows["train_size"] == size) & (rows["initialisation"] == method)]
            table = mine.pivot(index="seed", columns=axis, values="accuracy")
            colour, line = LOOKS[method]
            look = {"linestyle": line, "label": LABELS[method]}
            interval_band(ax, table.columns.to_numpy(), table.to_numpy(), colour, **look)
        ax.set(xlabel=label, ylabel="test accuracy", xlim=(table.columns.min(), table.columns.max()))
        ax.set_title(about_size(results, size), fontsize=8)
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0), min(high, 1))
    titled_legend(drawing, title, axes[0, 0], 4)
    return Figure(name, drawing, f"{title}, by initialisation of the student.", _note(results, config, frame))


def _note(results: Results, config: Any, frame: str) -> str:
    options = config.measure
    teachers = compared(results, "teachers")
    known = " and ".join(f"{group['accuracy'].mean():.2f}" for _, group in teachers.groupby("train_size", sort=False))
    lambdas = "; ".join(
        ", ".join(f"{value:.3g}" for value in values) for values in (options.lambdas_no_trace, options.lambdas)
    )
    what = {
        "epochs": "Epoch 0: before the student sees all classes.",
        "attack": "Strength in pixels' units, [-1, 1].",
        "noise": "w + ε ξ, the same ξ for every strength.",
    }[frame]
    return (
        f"{teachers['seed'].nunique()} seeds, a teacher each ({options.teacher_hidden}, classes 0 to "
        f"{options.shared_classes - 1}, accuracy {known}); students {config.model.hidden}. "
        f"Lines: means, bands: their 95 % intervals. λ without and with the trace: {lambdas}; δ = {options.radius:g}. "
        f"{what}"
    )


def tables(results: Results, config: Any) -> Iterator[Table]:
    """Table 4.9 beside the published one, and accuracy by train size."""
    published = published_table("4.9").set_index(["row", "column"])
    rows = []
    for size in sizes(results):
        found = {column: last(results, frame, size) for frame, (_, column) in COLUMNS.items()}
        for method in [method for method in LABELS if method in next(iter(found.values()))]:
            row = {"train_objects": about_size(results, size).split()[0], "initialisation": _plain(method)}
            for column, table in found.items():
                row[column] = f"{table[method].mean():.3f} ± {table[method].std():.3f}"
                cell = published.loc[(PUBLISHED[method], column)]
                row[f"published {column}"] = f"{float(cell['value']):.2f} ± {float(cell['error']):.2f}"
            rows.append(row)
    caption = (
        "Test accuracy after the last epoch, at the highest strength of the attack and of the parameters' noise: mean "
        "and standard deviation over seeds, beside Table 4.9. The thesis gives neither train size nor strengths."
    )
    name = "table_4_9_anti_distillation" if config.thesis else config.name
    yield Table(name, pd.DataFrame(rows), caption)
    searched = _searched(results)
    if searched is not None:
        own = published.loc[(PUBLISHED[XAVIER], "accuracy")]
        frame = searched.assign(
            published=float(own["value"]), distance=(searched["accuracy"] - float(own["value"])).abs()
        )
        best = int(frame.loc[frame["distance"].idxmin(), "train_objects"])
        caption = (
            f"Test accuracy of the Xavier student by train size; {best} objects come closest to the published one."
        )
        yield Table(f"{config.name}_train_sizes", frame, caption)


def _searched(results: Results) -> pd.DataFrame | None:
    rows = results.frames["epochs"]
    rows = rows[(rows["initialisation"] == XAVIER)]
    if not (rows["part"] == "search").any():
        return None
    rows = rows[rows["epoch"] == rows["epoch"].max()]
    teachers = results.frames["teachers"].drop_duplicates(["part", "train_size"]).set_index(["part", "train_size"])
    found = []
    for (part, size), group in rows.groupby(["part", "train_size"], sort=False):
        interval = mean_interval(group["accuracy"].to_numpy())
        count = teachers.loc[(part, size), "train_objects"]
        found.append(
            {"train_objects": int(count), "accuracy": interval.mean, "low": interval.low, "high": interval.high}
        )
    return pd.DataFrame(found).drop_duplicates("train_objects").sort_values("train_objects", ignore_index=True)


def _plain(method: str) -> str:
    return LABELS[method].replace(r"$\lambda_4=0$", "λ4 = 0")


def claims(results: Results, config: Any) -> Iterator[Verdict]:
    """The text's sentences, at every train size."""
    for size in sizes(results):
        where = about_size(results, size)
        final, attacked, noisy = (last(results, frame, size) for frame in ("epochs", "attack", "noise"))
        for table, method, claim, source in (
            (final, ANTI, "has the highest accuracy", "thesis 4.4.3, of Fig 4.14"),
            (attacked, ANTI, "stands the strongest attack best", "thesis 4.4.3, of Fig 4.15"),
            (noisy, FLAT, "stands the strongest noise in the parameters best", "thesis 4.4.3, of Fig 4.16"),
        ):
            if method in table and table.shape[1] > 1:
                yield _best(table, method, f"{_plain(method)} {claim} ({where})", source)
        if ANTI in final and final.shape[1] > 1:
            yield _least_spread(final, f"{_plain(ANTI)} has the lowest variance over seeds ({where})")
        if {ANTI, XAVIER} <= set(final):
            yield from _from_scratch(results, size, final, where)


def _best(table: pd.DataFrame, method: str, claim: str, source: str) -> Verdict:
    differences = table.drop(columns=method).rsub(table[method], axis=0)
    rival, found = nearest(differences)
    means = ", ".join(f"{_plain(name)} {table[name].mean():.3f}" for name in LABELS if name in table)
    statistic = "smallest difference in accuracy to another initialisation, seed by seed; to be positive"
    given = {"effect": found.mean, "low": found.low, "high": found.high}
    return Verdict(
        claim, source, statistic, all_positive(differences), **given, note=f"nearest: {_plain(rival)}; {means}"
    )


def _least_spread(table: pd.DataFrame, claim: str) -> Verdict:
    """Standard deviations over seeds compared with each other initialisation's, by simultaneous intervals."""
    others = table.drop(columns=ANTI)
    share = level(others)
    found = {name: spread_ratio(table[ANTI].to_numpy(), others[name].to_numpy(), share) for name in others}
    verdicts = {sign_verdict(interval, -1) for interval in found.values()}
    verdict = INCONCLUSIVE
    if NOT_REPRODUCED in verdicts or verdicts == {REPRODUCED}:
        verdict = NOT_REPRODUCED if NOT_REPRODUCED in verdicts else REPRODUCED
    rival = max(found, key=lambda name: found[name].mean)
    statistic = "largest log of its standard deviation over another's; to be negative; interval simultaneous for all"
    given = {"effect": found[rival].mean, "low": found[rival].low, "high": found[rival].high}
    note = f"nearest: {_plain(rival)}; interval of two paired variances (Pitman, Morgan)"
    return Verdict(claim, "thesis 4.4.3, of Fig 4.14", statistic, verdict, **given, note=note)


def spread_ratio(x: np.ndarray, y: np.ndarray, coverage: float) -> Interval:
    """Log of the ratio of two standard deviations of paired normal values, and its interval (Pitman 1939).

    Parameters
    ----------
    x, y
        Shape (n,), one value a seed. With n < 3 the interval is infinite.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.log(x.std(ddof=1) / y.std(ddof=1))) if len(x) > 1 else math.nan
    if len(x) < 3 or not math.isfinite(ratio):
        return Interval(ratio, -math.inf, math.inf)
    correlation = float(np.corrcoef(x, y)[0, 1])
    k = 1 + 2 * (1 - correlation**2) * stdtrit(len(x) - 2, 0.5 + coverage / 2) ** 2 / (len(x) - 2)
    half = math.log(k + math.sqrt(k * k - 1)) / 2
    return Interval(ratio, ratio - half, ratio + half)


def _from_scratch(results: Results, size: Any, final: pd.DataFrame, where: str) -> Iterator[Verdict]:
    rows = compared(results, "epochs")
    rows = rows[(rows["train_size"] == size) & (rows["epoch"] > 0)]
    early = rows.groupby(["seed", "initialisation"])["accuracy"].mean().unstack()
    for table, claim, statistic in (
        (final, "training from scratch is not the best choice", "accuracy after the last epoch"),
        (early, "anti-distillation takes fewer iterations than training from scratch", "mean accuracy over epochs"),
    ):
        found = mean_interval((table[ANTI] - table[XAVIER]).to_numpy())
        yield Verdict(
            claim=f"{claim} ({where})",
            source="thesis 4.4.3",
            statistic=f"{statistic}, anti-distillation's less Xavier's; to be positive",
            verdict=sign_verdict(found, 1),
            effect=found.mean,
            low=found.low,
            high=found.high,
        )
