"""All theorems of the thesis about losses, Hessians and sample sizes in one table: which hold, how loosely, which fail.

Each is tried on random, trained and adversarial networks of small sizes, on the counterexamples that are known, or, if
it is an identity, against automatic differentiation in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.beyond.bounds import (
    CLAIMED,
    PLAIN,
    ROUNDING,
    VARIANTS,
    BoundsOptions,
    judging,
    searched,
    with_ratios,
)
from experiments.beyond.statements import COUNTEREXAMPLES, SEQUENCES, STATEMENTS, Statement
from experiments.beyond.trials import families, identity_errors, layer_norms, loss_differences, sequences
from landscape_cli.config import bounded
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
)

LEANS = {"4": "8", "5": "12", "6": "13", "7": "17"}  # theorem -> the one that gives it M_H
GROUPS = ("connected", "convolutional", "pooled", "attention", "block", "identities", "norms", "losses", "posteriors")
EXACT = 1e-10  # relative error up to which an identity counts as one
LAYERS = 1e-12  # and Theorem 10, whose factors are zeros, ones and products
LIMIT = 0.1  # distance from its limit at which a sequence does not come


@dataclass
class TheoremsOptions(BoundsOptions):
    """How hard each theorem is tried."""

    networks: int = bounded(1000, minimum=2)  # of each kind and size
    identities: int = bounded(20, minimum=1)  # networks whose derivatives are built


class Theorems(Experiment):
    """Tries every theorem; no data is needed."""

    Options = TheoremsOptions
    uses = frozenset({"seeds"})
    threads = 1

    def points(self) -> list[Point]:
        """One point a group of theorems."""
        points = []
        for group in GROUPS:
            settings = self.settings()
            points.append(Point.of({"group": group}, {**settings, "seeds": settings["seeds"][:1], "group": group}))
        return points

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``networks`` (as of the bounds' experiments), ``identities``, ``sequences``, ``counterexamples``."""
        from landscape_cli.rng import generator

        options, group = point.settings["measure"], point.settings["group"]
        seed = point.settings["seeds"][0]

        def draw(kind: str) -> object:
            return generator(seed, f"{kind} {group}", point.stream)

        if group == "identities":
            return Measurement({"identities": identity_errors(options["identities"], draw("identities"))})
        if group == "posteriors":
            return Measurement({"sequences": sequences(seed)})
        if group == "norms":
            frames = [layer_norms(options["networks"], draw("norms"))]
        elif group == "losses":
            frames = [loss_differences(options["networks"], draw("losses"))]
        else:
            members = enumerate(context.progress(families(group, options, draw("pool")), desc=group))
            frames = [
                searched(family, options["networks"], options["ascent_steps"], lambda kind, n=n: draw(f"{kind} {n}"))
                for n, family in members
            ]
        found = {"networks": pd.concat(frames, ignore_index=True)}
        known = pd.DataFrame(
            [{"theorem": c.theorem, "quantity": c.quantity, **c.values()} for c in COUNTEREXAMPLES if c.group == group]
        )
        return Measurement(found | ({"counterexamples": known} if len(known) else {}))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the smallest ratio of bound and exact norm of every theorem."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

        table = tried(results)
        if table.empty:
            return
        table = table[table["printed_smallest"].notna() | table["corrected_smallest"].notna()]
        names = [f"{row.theorem}: {SYMBOLS[row.quantity]}" for row in table.itertuples()]
        drawing, ((ax,),) = new_figure(1, 1, FULL_WIDTH, 0.9 + 0.24 * len(names))
        height = np.arange(len(names))[::-1]
        for variant, colour, marker, text in (
            ("printed", "#d55e00", "X", "as printed, smallest"),
            ("corrected", "#0072b2", "o", "corrected, smallest"),
        ):
            ax.plot(table[f"{variant}_smallest"], height, marker, color=colour, markersize=4.5, label=text, zorder=3)
        ax.plot(table["printed_median"], height, "|", color="#d55e00", markersize=9, label="as printed, median")
        ax.axvspan(ax.get_xlim()[0], 1, color="0.9", zorder=0)
        ax.axvline(1, color="0.3", linewidth=0.7)
        ax.set_xscale("log")
        ax.set_yticks(height, names)
        ax.set_ylim(-0.7, len(names) - 0.3)
        ax.set_xlabel("bound over exact value; grey: violated")
        titled_legend(drawing, "Every bound of the thesis against exact values", ax, 3)
        note = (
            f"{self.config.measure.networks} random, as many trained networks, and adversarial ones from as many "
            "starts towards each bound, a size; and the known counterexamples."
        )
        yield Figure(self.config.name, drawing, "Smallest ratio of each theorem's bound and the exact value.", note)

    def tables(self, results: Results) -> Iterator[Table]:
        """The table of all theorems."""
        caption = "The theorems: as printed, and as they hold."
        formats = dict.fromkeys(("printed_smallest", "printed_median", "corrected_smallest"), ".3g")
        yield Table(self.config.name, verdicts(results), caption, formats)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """One verdict a theorem, as printed."""
        for row in verdicts(results).itertuples():
            smallest = row.printed_smallest
            yield Verdict(
                claim=f"{row.kind} {row.theorem}, {row.quantity}: {row.statement}",
                source=f"thesis, {row.kind} {row.theorem}",
                statistic="smallest printed bound over exact value; of identities and limits see the note",
                verdict=NOT_REPRODUCED if row.verdict.startswith("fails") else REPRODUCED,
                effect=smallest,
                low=smallest,
                high=math.inf,
                note=row.verdict,
            )


SYMBOLS = {
    **PLAIN,
    "layer_norm_jacobian": "‖J_LN‖",
    "layer_norm_hessian": "‖H_LN‖",
    "output_norm": "‖FFN(Y)‖",
    "difference": "|ΔL|",
}


def tried(results: Results) -> pd.DataFrame:
    """One row a theorem and quantity: networks, violations, smallest and median ratios, counterexamples among them."""
    networks = with_ratios(results.frames["networks"]) if "networks" in results.frames else pd.DataFrame()
    known = results.frames.get("counterexamples", pd.DataFrame(columns=["theorem", "quantity"]))
    rows = []
    for (theorem, quantity), own in networks.groupby(["theorem", "quantity"]) if len(networks) else []:
        row = {"theorem": theorem, "quantity": quantity}
        for kind in ("random", "trained", "adversarial"):
            row[kind] = int((judging(own, "corrected")["kind"] == kind).sum())
        examples = known[(known["theorem"] == theorem) & (known["quantity"] == quantity)]
        for variant in VARIANTS[:2]:
            ratios = judging(own, variant)[f"{variant}_ratio"].dropna()
            extra = (examples[variant] / examples["measured"]).dropna() if len(examples) else ratios.iloc[:0]
            every = pd.concat([ratios, extra])
            row[f"{variant}_violations"] = int((every < 1 - ROUNDING).sum())
            row[f"{variant}_smallest"] = every.min()
            row[f"{variant}_median"] = own.loc[own["kind"] != "adversarial", f"{variant}_ratio"].median()
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("theorem", key=lambda names: names.astype(int), kind="stable") if len(table) else table


def verdicts(results: Results) -> pd.DataFrame:
    """The table of all theorems, those whose group is stored."""
    table = tried(results)
    errors = results.frames.get("identities", pd.DataFrame(columns=["theorem"])).set_index("theorem")
    limits = results.frames.get("sequences", pd.DataFrame(columns=["theorem"])).set_index("theorem")
    known = {(c.theorem, c.quantity): c for c in reversed(COUNTEREXAMPLES)}
    rows = []
    for statement in STATEMENTS:
        number = statement.theorem
        own = table[table["theorem"] == number] if len(table) else table
        leant = (
            table[(table["theorem"] == LEANS.get(number)) & (table["quantity"] == "hessian")] if len(table) else table
        )
        rows += [_row(statement, _bound_verdict(row, leant), row, known) for row in own.to_dict("records")]
        if number in errors.index:
            error = float(errors.loc[number, "error"])
            rows.append(_row(statement, _identity_verdict(statement, error), {"quantity": "identity"}, known))
        if number in limits.index:
            value, limit = float(limits.loc[number, "value"]), float(limits.loc[number, "limit"])
            text = f"{limits.loc[number, 'what']} = {value:.4g}, promised {limit:g}"
            verdict = f"fails: {text}" if abs(value - limit) > LIMIT else f"holds: {text}"
            rows.append(_row(statement, verdict, {"quantity": "limit"}, known))
    return pd.DataFrame(rows)


def _bound_verdict(row: dict, leant: pd.DataFrame) -> str:
    count = row["printed_violations"]
    if count:
        return f"fails: violated {'once' if count == 1 else f'{count} times'}"
    loose = row["printed_median"]
    holds = f"holds, loose by a factor of {loose:.2g} at the median" if loose > 2 else "holds"
    if len(leant) and int(leant["printed_violations"].iloc[0]):
        return f"fails with the M_H of Theorem {leant['theorem'].iloc[0]}, which is violated; given M_H it {holds}"
    return holds


def _identity_verdict(statement: Statement, error: float) -> str:
    if error > (LAYERS if statement.theorem == "10" else EXACT):
        return f"fails: relative error {error:.2g}"
    exact = f"exact to {error:.1g}"
    return f"fails as printed, by derivation; corrected {exact}" if statement.misprinted else f"holds, {exact}"


def _row(statement: Statement, verdict: str, row: dict, known: dict) -> dict:
    example = known.get((statement.theorem, row["quantity"]))
    text = SEQUENCES.get(statement.theorem, "") if row["quantity"] == "limit" else example.text if example else ""
    asked = row["quantity"] == "hessian" and statement.theorem in CLAIMED  # as Theorems 5 and 6 do
    return {
        "kind": statement.kind,
        "theorem": statement.theorem,
        "statement": f"{statement.text}, asked of ‖H‖" if asked else statement.text,
        "quantity": SYMBOLS.get(row["quantity"], row["quantity"]),
        "verdict": verdict,
        **{kind: row.get(kind, 0) for kind in ("random", "trained", "adversarial")},
        "printed_smallest": row.get("printed_smallest", math.nan),
        "printed_median": row.get("printed_median", math.nan),
        "corrected_smallest": row.get("corrected_smallest", math.nan),
        "corrected_violations": row.get("corrected_violations", 0),
        "counterexample": text if verdict.startswith("fails") else "",
        "corrected": statement.corrected,
    }
