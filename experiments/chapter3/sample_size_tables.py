"""Tables 3.1 to 3.3, and the sufficient sizes of one data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.reference import published_table
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.experiment import Results, Table
from landscape_cli.samplesize.rules import (
    AS_DEFINED,
    AS_PUBLISHED,
    CLASSICAL,
    METHODS,
    TESTS,
    Curve,
    Sufficient,
    sufficient,
)

if TYPE_CHECKING:
    from experiments.chapter3.sample_size_methods import SampleSizeOptions

COLUMNS = {  # name of a data set in Tables 3.1 and 3.2
    "boston": ("Boston Housing", "Boston Housing"),
    "diabetes": ("Diabets", "Diabetes"),
    "forest_fires": ("Forest Fires", "Forest Fires"),
    "servo": ("Servo", "Servo"),
    "nba": ("NBA", "NBA"),
}
ROWS = {  # name of a method in Table 3.2; in Table 3.3 the last one is written "Utility function"
    "lagrange": "Lagrange Multipliers Test",
    "likelihood_ratio": "Likelihood Ratio Test",
    "wald": "Wald Test",
    "cross_validation": "Cross Validation",
    "bootstrap": "Bootstrap",
    **{name: name.upper() for name in ("apvc", "acc", "alc")},
    "utility": "Utility Function",
    "kl": "KL",
    "s": "S",
}
OPTIONS = {  # of each method: what Table 3.3 calls a number -> the option that sets it
    **{name: {"ε": "shift", "α": "alpha", "β": "beta"} for name in ("lagrange", "likelihood_ratio", "wald")},
    "cross_validation": {"ε": "overfitting"},
    "bootstrap": {"l": "width", "α": "alpha"},
    "apvc": {"l": "variance"},
    "acc": {"l": "coverage_radius", "α": "alpha"},
    "alc": {"l": "radius", "α": "alpha"},
    "utility": {"ε": "cost"},
}
SYMBOLS = {"l": "l", "epsilon": "ε", "alpha": "α", "beta": "β"}
NOT_REACHED = "not reached"


def title(results: Results, name: str) -> str:
    """A data set as it is called in text: a known table by its title, a user's own by its file."""
    known = results.sources.get(name) or TABLE_SETS.get(name)
    return known.title if known else name


def own(frame: pd.DataFrame, dataset: str, variant: str) -> pd.DataFrame:
    """A data set's rows under one variant."""
    return frame[(frame["dataset"] == dataset) & (frame["variant"] == variant)]


def answers(results: Results, dataset: str, variant: str) -> dict[str, Sufficient]:
    """m* of every method: of the tests from the whole table, of the others from the mean curve of all seeds."""
    sizes, curves = (own(results.frames[name], dataset, variant) for name in ("sizes", "curves"))
    found = {}
    for name in METHODS:
        if name not in set(sizes["method"]):
            continue
        if name in TESTS:
            first = sizes[sizes["method"] == name].iloc[0]
            known = None if np.isnan(first["m_star"]) else int(first["m_star"])
            found[name] = Sufficient(known, reason=first["reason"])
            continue
        mine = curves[curves["method"] == name]
        means = mine.groupby("size")["value"].mean()
        curve = Curve(
            name,
            means.index.to_numpy(),
            means.to_numpy(),
            np.full(len(means), np.nan),
            float(mine["threshold"].mean()),
            np.zeros(len(means)),
        )
        found[name] = sufficient(curve, variant)
    return found


def interval(results: Results, dataset: str, method: str) -> tuple[float, float]:
    """95 % of m* over bootstrap copies of the table; infinite where a copy does not reach it."""
    copies = own(results.frames["copies"], dataset, AS_DEFINED)
    copies = copies[(copies["method"] == method) & (copies["available"] == copies["available"].max())]
    values = copies["m_star"].fillna(np.inf).to_numpy()
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def published_sizes(number: str = "3.2") -> dict[tuple[str, str], str]:
    """Cells of Table 3.2 or 3.6 by data set and method; a dash where the table has one."""
    names = {column.split()[0]: dataset for dataset, (_, column) in COLUMNS.items()}
    methods = {row.lower(): method for method, row in ROWS.items()}
    return {
        (names[cell["column"].split()[0]], methods[cell["row"].lower()]): cell["value"].replace("-", "–")
        for _, cell in published_table(number).iterrows()
    }


def as_text(answer: Sufficient) -> str:
    """m* with a sign where it can be smaller, or why there is none."""
    if answer.size is None:
        return answer.reason or NOT_REACHED
    return f"≤ {answer.size}" if answer.first else str(answer.size)


def interval_text(low: float, high: float, available: int) -> str:
    """An interval of m*; an end that was not reached lies beyond what is available."""
    low_text, high_text = (f"{value:.0f}" if np.isfinite(value) else f"> {available}" for value in (low, high))
    return low_text if low_text == high_text else f"{low_text} to {high_text}"


def datasets(results: Results, number: str = "3.1", name: str = "table_3_1_sample_size_datasets") -> Table:
    """Table 3.1 or 3.5, with what the thesis's own files hold."""
    published = published_table(number).set_index(["row", "column"])["value"]
    rows = []
    for _, row in results.frames["table"].drop_duplicates("dataset").iterrows():
        named = COLUMNS.get(row["dataset"], ("", ""))[number != "3.1"]
        rows.append(
            {
                "dataset": title(results, row["dataset"]),
                "task": row["task"],
                "features": row["features"],
                "objects": row["objects"],
                "left_out": row["dropped"],
                "published_features": published.get((named, "features"), "–"),
                "published_objects": published.get((named, "objects"), "–"),
                "separable": "yes" if row["separable"] else "no",
            }
        )
    caption = (
        "Data sets of the sample size methods: what the files hold and what the thesis says. left_out: rows with "
        "missing values. The files are those kept with the published code."
    )
    return Table(name, pd.DataFrame(rows), caption)


def sufficient_sizes(
    results: Results, name: str, number: str = "3.2", methods: tuple[str, ...] = CLASSICAL, more: str = ""
) -> Table:
    """Table 3.2 or 3.6, a row a data set and method: as defined with its interval, as published, and published."""
    published, rows = published_sizes(number), []
    for dataset in results.frames["table"]["dataset"].unique():
        available = int(results.frames["table"].set_index("dataset")["objects"].loc[[dataset]].iloc[0])
        variants = set(results.frames["sizes"].loc[results.frames["sizes"]["dataset"] == dataset, "variant"])
        found = {
            variant: answers(results, dataset, variant) for variant in (AS_DEFINED, AS_PUBLISHED) if variant in variants
        }
        for method in methods:
            row = {"dataset": title(results, dataset), "method": METHODS[method].title}
            if AS_DEFINED in found:
                low, high = interval(results, dataset, method)
                row["as_defined"] = as_text(found[AS_DEFINED][method])
                row["interval"] = interval_text(low, high, available)
            if AS_PUBLISHED in found:
                row["as_published"] = as_text(found[AS_PUBLISHED][method])
            row["thesis"] = published.get((dataset, method), "–")
            if row["thesis"] == str(available - 1):
                row["thesis"] = f"{row['thesis']} (m - 1: {NOT_REACHED})"
            row["available"] = available
            rows.append(row)
    caption = (
        "Sufficient sample size by method. as_defined: the thesis's text; interval: 95 % over bootstrap copies of the "
        "table, in which objects repeat: that moves it up a little. as_published: with what the published code does "
        "differently. ≤: the rule holds at the smallest size that was looked at."
    )
    return Table(name, pd.DataFrame(rows), f"{caption} {more}".strip())


def hyperparameters(options: SampleSizeOptions) -> Table:
    """Table 3.3, with the value used here and the option that sets it."""
    cells = published_table("3.3")
    known: Mapping[tuple[str, str], str] = {
        (row["row"].lower(), SYMBOLS[row["column"]]): row["value"] for _, row in cells.iterrows()
    }
    rows = [
        {
            "method": METHODS[method].title,
            "parameter": symbol,
            "thesis": float(known[ROWS[method].lower(), symbol]),
            "here": getattr(options, option),
            "option": f"measure.{option}",
        }
        for method, own_options in OPTIONS.items()
        for symbol, option in own_options.items()
    ]
    caption = "Hyperparameters of the sample size methods. The utility's ε is the cost c of an object."
    return Table("table_3_3_hyperparameters", pd.DataFrame(rows), caption)
