"""Figs 4.11 to 4.13, Tables 4.7 and 4.8 from stored curves of students, and what the text says of them.

Pictures and sentences share it: a frame ``epochs`` with a row a student, seed and epoch, ``teachers`` with a row a
teacher, domain and seed, and of translators ``final`` with each student's BLEU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.chapter4.rivals import all_positive, nearest
from experiments.reference import published_table
from landscape_cli.distillation.checkpoints import mapping_name
from landscape_cli.experiment import INCONCLUSIVE, Figure, Results, Table, Verdict
from landscape_cli.statistics import Interval, mean_interval, sign_verdict

ALONE, MAPPED, SAME, UNMAPPED, UNIFORM = "alone", "mapping", "same_domain", "no_mapping", "uniform_labels"
LABELS = {
    ALONE: "no teacher",
    MAPPED: "teacher through φ",
    SAME: "teacher of the same domain",
    UNMAPPED: "the other domain's teacher without φ",
    UNIFORM: "uniform soft labels, no teacher",
}
LOOKS = {
    ALONE: ("#0072b2", (0, (3, 1, 1, 1))),
    MAPPED: ("#d55e00", (0, (5, 1.2))),
    SAME: ("#009e73", "-"),
    UNMAPPED: ("0.45", (0, (1.2, 1.2))),
    UNIFORM: ("0.65", (0, (6, 1, 1, 1, 1, 1))),
}
METRICS = {"accuracy": "test accuracy", "cross_entropy": "test cross-entropy in nats", "bleu": "BLEU"}
COLUMNS = {"accuracy": "accuracy", "cross_entropy": "cross-entropy", "integral": "integral criterion", "bleu": "BLEU"}
FIGURES = {  # of the thesis
    ("vision", "accuracy"): "fig_4_11_vision_accuracy",
    ("vision", "cross_entropy"): "fig_4_12_vision_cross_entropy",
    ("language", "cross_entropy"): "fig_4_13_language_cross_entropy",
}
PUBLISHED = {  # number and rows of the thesis's tables
    "vision": ("4.7", {ALONE: "no teacher", MAPPED: "ImageNet-Big, StyleTransfer", SAME: "ImageNet-Big"}),
    "language": ("4.8", {ALONE: "no teacher", MAPPED: "Teacher-Train, NLLB"}),
}
TRAINED = {SAME: "the student's domain", MAPPED: "the other domain"}  # teachers
TESTED = {"the student's domain": "the student's domain without φ"}
LEAST_BLEU = 0.005  # half a point, from which the ratio of two is looked at
OF_TABLE = 15  # epochs that the published areas belong to, by the losses beside them
TEXT = "thesis 4.4.2"


def kind_of(results: Results) -> str:
    """Vision or language."""
    return "language" if "final" in results.frames else "vision"


def main_rows(results: Results, config: Any) -> pd.DataFrame:
    """The rows of the comparison, without further λ that were tried."""
    rows = results.frames["epochs"]
    return rows[rows["weight"] == config.measure.weight]


def scores(results: Results, config: Any) -> dict[str, pd.DataFrame]:
    """Each measure of quality at the end: a row a seed, a column a student."""
    rows = main_rows(results, config)
    last = rows[rows["epoch"] == rows["epoch"].max()]
    names = [name for name in ("accuracy", "cross_entropy") if name in rows]
    found = {name: last.pivot(index="seed", columns="student", values=name) for name in names}
    if rows["epoch"].max() > 1:
        found["integral"] = integrals(rows)
    if "final" in results.frames:
        final = results.frames["final"]
        final = final[final["weight"] == config.measure.weight]
        found["bleu"] = final.pivot(index="seed", columns="student", values="bleu")
    return found


def integrals(rows: pd.DataFrame) -> pd.DataFrame:
    """Area under the cross-entropy over epochs, from the first to the last: a row a seed, a column a student."""
    curves = rows[rows["epoch"] > 0].pivot(index=["seed", "student"], columns="epoch", values="cross_entropy")
    areas = np.trapezoid(curves.to_numpy(), curves.columns.to_numpy(), axis=1)
    return pd.Series(areas, curves.index).unstack("student")


def mapping_of(results: Results) -> str:
    """What φ is, in words."""
    return mapping_name(results.points[0].settings["mapping"])


def figures(results: Results, config: Any, metrics: Sequence[str]) -> Iterator[Figure]:
    """Each measure of quality by epoch."""
    from landscape_cli.plotting.curves import interval_band
    from landscape_cli.plotting.style import SINGLE_WIDTH, new_figure, titled_legend

    rows, kind = main_rows(results, config), kind_of(results)
    if kind == "language" and rows["epoch"].max() > 2:  # from chance level down, the rest would look like one line
        rows = rows[rows["epoch"] > 0]
    about = next(iter(results.sources.values())).title if results.sources else config.name
    for metric in metrics:
        drawing, axes = new_figure(1, 1, SINGLE_WIDTH, 3.6)
        ax = axes[0, 0]
        for name in [name for name in reversed(LABELS) if name in set(rows["student"])]:
            own = rows[rows["student"] == name].pivot(index="seed", columns="epoch", values=metric)
            colour, line = LOOKS[name]
            look = {"linestyle": line, "label": LABELS[name]}
            if name in (UNMAPPED, UNIFORM):  # a band each would make all of them grey
                ax.plot(own.columns, own.mean(), color=colour, **look)
            else:
                interval_band(ax, own.columns.to_numpy(), own.to_numpy(), colour, **look)
        low, high = own.columns.min(), max(own.columns.max(), own.columns.min() + 1)
        ax.set(xlabel="epoch", ylabel=METRICS[metric], xlim=(low, high))
        ax.xaxis.get_major_locator().set_params(integer=True)
        if metric == "accuracy":
            ax.set_ylim(max(ax.get_ylim()[0], 0), min(ax.get_ylim()[1], 1))
        title = f"{'Accuracy' if metric == 'accuracy' else 'Cross-entropy'} of students by epoch, {about}"
        titled_legend(drawing, title, ax, 2)
        name = FIGURES[kind, metric] if config.thesis else f"{config.name}_{metric}"
        yield Figure(name, drawing, f"{title}, with and without a teacher.", note(results, config))


def note(results: Results, config: Any) -> str:
    """What a reader of a picture alone must know."""
    options, metric = config.measure, teacher_metric(results)
    known = "; ".join(
        f"of {TRAINED[name]} on {TESTED.get(domain, domain)} {_spread(group[metric], metric)}"
        for (name, domain), group in results.frames["teachers"].groupby(["teacher", "tested_on"], sort=False)
    )
    return (
        f"Lines: means, bands: their 95 % intervals. {used(results)} λ = {options.weight:g}, T = "
        f"{options.temperature:g}. Teachers' own {COLUMNS[metric]}: {known}."
    )


def used(results: Results) -> str:
    """How many objects of each part were used."""
    sizes = results.frames["sizes"].iloc[0]
    what = "sentences" if kind_of(results) == "language" else "objects"
    pairs = f", φ's {sizes['pairs']}" if sizes.get("pairs") else ""
    return (
        f"Used: the student's {sizes['student_objects']} {what}, the teachers' {sizes['teacher_objects']}"
        f"{pairs}, {sizes['test_objects']} for tests."
    )


def teacher_metric(results: Results) -> str:
    """The measure by which teachers are named: accuracy, or BLEU."""
    return "accuracy" if "accuracy" in results.frames["teachers"] else "bleu"


def _spread(values: pd.Series, metric: str = "") -> str:
    digits = 4 if metric == "bleu" else 3
    return f"{values.mean():.{digits}f}" + (f" ± {values.std():.{digits}f}" if len(values) > 1 else "")


def tables(results: Results, config: Any) -> Iterator[Table]:
    """Table 4.7 or 4.8 beside the published one; the teachers; the weights λ that were tried."""
    kind = kind_of(results)
    number, printed = PUBLISHED[kind]
    cells = published_table(number).set_index(["row", "column"])
    found, teachers = scores(results, config), results.frames["teachers"]
    best = teacher_metric(results)
    of_mapped = _of_teacher(teachers, MAPPED, best)
    columns = ("accuracy", "cross_entropy", "integral", "bleu")
    rows = []
    for name in [name for name in LABELS if name in next(iter(found.values()))]:
        row = {
            "student": LABELS[name],
            "φ": mapping_of(results) if name == MAPPED else "-",
            f"teacher's own {COLUMNS[best]}": {
                SAME: _of_teacher(teachers, SAME, best),
                MAPPED: of_mapped,
                UNMAPPED: of_mapped,
            }.get(name, "-"),
        }
        for metric in [metric for metric in columns if metric in found]:
            row[COLUMNS[metric]] = _spread(found[metric][name], metric)
            row[f"published {COLUMNS[metric]}"] = _cell(cells, printed.get(name), COLUMNS[metric])
        rows.append(row)
    caption = (
        f"Quality of the students on test objects after the last epoch, mean and standard deviation over seeds, beside "
        f"Table {number}. The integral criterion is the area under the test cross-entropy over epochs 1 to "
        f"{main_rows(results, config)['epoch'].max()}, by the trapezium rule. {used(results)} {_LEFT_OPEN[kind]}"
    )
    name = {"vision": "table_4_7_vision_quality", "language": "table_4_8_language_quality"}[kind]
    yield Table(name if config.thesis else f"{config.name}_quality", pd.DataFrame(rows), caption)
    yield _teachers(results, config)
    tried = results.frames["epochs"]
    if tried["weight"].nunique() > 1:
        yield _weights(results, config)


_LEFT_OPEN = {
    "vision": (
        "The thesis gives neither λ, temperature nor epochs; 28.08 and 28.30 beside losses of 2.03 and 2.01 belong to "
        "about 15 epochs."
    ),
    "language": (
        "The thesis gives neither λ, epochs, vocabulary nor the transformer's sizes: cross-entropies by subword do not "
        "compare with the published ones. BLEU is a share of 1, of greedy translations in lower case."
    ),
}


def _of_teacher(teachers: pd.DataFrame, name: str, metric: str) -> str:
    own = teachers[(teachers["teacher"] == name) & (teachers["tested_on"] == "its own domain")]
    return _spread(own[metric], metric) if len(own) else "-"


def _cell(cells: pd.DataFrame, row: str | None, column: str) -> str:
    if row is None or (row, column) not in cells.index:
        return "-"
    cell = cells.loc[(row, column)]
    return f"{cell['value']} ± {cell['error']}" if cell["error"] else str(cell["value"])


def _teachers(results: Results, config: Any) -> Table:
    metrics = [metric for metric in ("accuracy", "cross_entropy", "bleu") if metric in results.frames["teachers"]]
    rows = []
    for (name, domain), group in results.frames["teachers"].groupby(["teacher", "tested_on"], sort=False):
        row = {"trained on": TRAINED[name], "tested on": TESTED.get(domain, domain)}
        rows.append(row | {COLUMNS[metric]: _spread(group[metric], metric) for metric in metrics})
    caption = f"The teachers themselves on test objects, mean and standard deviation over seeds. {used(results)}"
    return Table(f"{config.name}_teachers", pd.DataFrame(rows), caption)


def _weights(results: Results, config: Any) -> Table:
    rows = results.frames["epochs"]
    last = rows[(rows["epoch"] == rows["epoch"].max()) & rows["student"].isin([MAPPED, SAME, ALONE])]
    if "final" in results.frames:
        last = last.merge(results.frames["final"], on=["dataset", "student", "weight", "seed"])
    metrics = [metric for metric in ("accuracy", "cross_entropy", "bleu") if metric in last]
    found = []
    for (name, weight), group in last.groupby(["student", "weight"]):
        row = {"student": LABELS[name], "λ": 1.0 if name == ALONE else weight}
        found.append(row | {COLUMNS[metric]: _spread(group[metric], metric) for metric in metrics})
    caption = "Students by the weight λ of the labels: mean and standard deviation over seeds after the last epoch."
    return Table(f"{config.name}_weights", pd.DataFrame(found), caption)


def claims(results: Results, config: Any) -> Iterator[Verdict]:
    """The text's sentences, seed by seed."""
    found, kind = scores(results, config), kind_of(results)
    number, printed = PUBLISHED[kind]
    cells = published_table(number).set_index(["row", "column"])
    known = {
        (name, metric): float(cells.loc[(row, column), "value"])
        for name, row in printed.items()
        for metric, column in COLUMNS.items()
        if (row, column) in cells.index
    }
    quality = "accuracy" if kind == "vision" else "bleu"
    word = COLUMNS[quality]
    last = main_rows(results, config)["epoch"].max()
    there = set(found[quality])
    about = f"φ: {mapping_of(results)}"

    def compare(claim: str, metric: str, better: str, others: Sequence[str], sign: int, remark: str = "") -> Verdict:
        table = found[metric]
        differences = sign * table[list(others)].rsub(table[better], axis=0)
        rival, interval = nearest(differences)
        printed = [
            sign * (known[better, metric] - known[other, metric])
            for other in others
            if {(better, metric), (other, metric)} <= known.keys() and (metric != "integral" or last == OF_TABLE)
        ]
        change = "gain" if sign > 0 else "fall"
        return Verdict(
            claim=claim,
            source=f"{TEXT}, Table {number}",
            statistic=f"smallest {change} in {COLUMNS[metric]} against another student, seed by seed; to be positive",
            verdict=all_positive(differences),
            effect=interval.mean,
            low=interval.low,
            high=interval.high,
            published=min(printed, default=None),
            note=f"nearest: {LABELS[rival]}; {_means(table)}; {about}{remark}",
        )

    if kind == "vision" and {SAME, MAPPED} <= there:
        claim = "a teacher of the same domain gives a higher accuracy than a teacher through φ, and than none"
        yield compare(claim, quality, SAME, (MAPPED, ALONE), 1)
        claim = "a teacher of the same domain gives the lowest cross-entropy"
        remark = "; the thesis's own table has it lower through φ"
        yield compare(claim, "cross_entropy", SAME, (MAPPED, ALONE), -1, remark)
    if MAPPED in there:
        yield compare(f"a teacher through φ gives a higher {word} than none", quality, MAPPED, (ALONE,), 1)
        yield compare("the cross-entropy is lower with a teacher through φ", "cross_entropy", MAPPED, (ALONE,), -1)
    if kind == "vision" and MAPPED in there and "integral" in found:
        yield compare("the integral criterion is lower with a teacher through φ", "integral", MAPPED, (ALONE,), -1)
    if kind == "vision" and SAME in there:
        claim = "the cross-entropy is lower with a teacher of the same domain"
        yield compare(claim, "cross_entropy", SAME, (ALONE,), -1)
    if kind == "language" and MAPPED in there:
        yield _doubled(found["bleu"], known, f"{TEXT}, Table {number}", about)


def _doubled(table: pd.DataFrame, known: Mapping[tuple[str, str], float], source: str, about: str) -> Verdict:
    """Judge "BLEU doubles": the logarithm of the ratio to the base 2 against one, seed by seed."""
    note = f"{_means(table)}; {about}"
    interval, verdict = Interval(math.nan, math.nan, math.nan), INCONCLUSIVE
    if (table[[ALONE, MAPPED]] > LEAST_BLEU).all(axis=None):
        logs = np.log2((table[MAPPED] / table[ALONE]).to_numpy())
        interval = mean_interval(logs)
        verdict = sign_verdict(Interval(interval.mean - 1, interval.low - 1, interval.high - 1), 1)
    else:
        note = f"a BLEU of {LEAST_BLEU} or less is no translation, and its ratio means nothing; {note}"
    return Verdict(
        claim="BLEU at least doubles with a teacher through φ",
        source=source,
        statistic="mean logarithm to the base 2 of the ratio of BLEU with φ's teacher to that without; to be above 1",
        verdict=verdict,
        effect=interval.mean,
        low=interval.low,
        high=interval.high,
        published=math.log2(known[MAPPED, "bleu"] / known[ALONE, "bleu"]),
        note=note,
    )


def _means(table: pd.DataFrame) -> str:
    return ", ".join(f"{LABELS[name]} {table[name].mean():.3g}" for name in LABELS if name in table)


def answers(results: Results, config: Any) -> Iterator[str]:
    """What φ adds to the other domain's teacher, and a teacher to soft labels without one.

    A negative change of the cross-entropy and of the integral criterion is a gain.
    """
    for metric, table in scores(results, config).items():
        for rival, words in (
            (UNMAPPED, "φ adds to the same teacher without it"),
            (UNIFORM, "a teacher through φ adds to uniform soft labels"),
        ):
            if {MAPPED, rival} <= set(table):
                found = mean_interval((table[MAPPED] - table[rival]).to_numpy())
                yield f"{words}: {COLUMNS[metric]} {found.mean:+.3g} [{found.low:.3g}, {found.high:.3g}]"
