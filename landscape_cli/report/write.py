"""``landscape report``: the page, the claims and the LaTeX file, from what was drawn; measures and draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from landscape_cli.composing import load
from landscape_cli.errors import BadInput
from landscape_cli.listing import items_of
from landscape_cli.report.gather import STATES, VERDICTS, Claim, Report, gather
from landscape_cli.report.latex import latex
from landscape_cli.report.page import page
from landscape_cli.store import replace_text
from landscape_cli.variant import variant_name


def report(words: Sequence[str]) -> int:
    """Write the report of what was drawn with these overrides; with none, of each experiment's largest profile.

    Returns
    -------
    0, or 1 if nothing was drawn with them.
    """
    if names := [word for word in words if "=" not in word]:
        raise BadInput(f"{names[0]}: allowed: overrides, such as profile=quick")
    config = load(["experiment=quickstart", *words])
    output = Path(config.output_dir).expanduser()
    chosen = [word for word in words if not word.startswith("output_dir=")]
    variants = [variant_name(config.profile.name, chosen)] if chosen else None
    return write_report(output, variants, config.plot.language == "ru")


def write_report(output: Path, variants: Sequence[str] | None, russian: bool = False) -> int:
    """Write ``report/index.html``, ``claims.csv`` and ``thesis.tex``, and print what they hold.

    Parameters
    ----------
    variants, russian
        As of :func:`~landscape_cli.report.gather.gather`.
    """
    found, folder = gather(output, variants, russian), output / "report"
    written = {"index.html": page(found), "claims.csv": claims_csv(found), "thesis.tex": latex(found, output)}
    for name, text in written.items():
        replace_text(folder / name, text)
    print(summary(found))
    for name in written:
        print(f"  {folder / name}")
    return 0 if found.records else 1


def summary(found: Report) -> str:
    """Figures and tables drawn, claims and theorems by verdict, in one line."""
    parts = [f"{done} of {every} {kind}s drawn" for kind, (done, every) in found.drawn.items()]
    parts += [f"{found.counts[verdict]} claims {verdict}" for verdict in VERDICTS]
    if found.theorems:
        states = ", ".join(f"{state} {found.theorem_tally[state]}" for state in STATES)
        parts.append(f"{sum(found.theorem_tally.values())} theorems ({states})")
    return "report: " + ", ".join(parts)


def claims_csv(found: Report) -> str:
    """Every claim, a row each, with the figures and tables that its experiment makes and the command that tests it."""
    rows = []
    for claim in found.all_claims():
        makes = ", ".join(item.name for item in items_of(claim.experiment))
        rows.append({**asdict(claim), "makes": makes, "command": found.records[claim.experiment].command})
    columns = [*Claim.__dataclass_fields__, "makes", "command"]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")
