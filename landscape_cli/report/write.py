"""``landscape report``: the page, the claims and the LaTeX file, from what was drawn; measures and draws nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from landscape_cli.config_path import config_folder
from landscape_cli.errors import BadInput
from landscape_cli.listing import default_output, items_of
from landscape_cli.report.gather import STATES, VERDICTS, Claim, Report, default_variant, gather
from landscape_cli.report.latex import latex
from landscape_cli.report.page import page
from landscape_cli.store import replace_text
from landscape_cli.validation import nearest
from landscape_cli.variant import variant_name


def report(words: Sequence[str]) -> int:
    """Write the report of what was drawn with these overrides; with none, of the largest profile.

    Returns
    -------
    0, or 1 if nothing was drawn with them.
    """
    for word in words:
        key, equals, _ = word.lstrip("+~").partition("=")
        if not equals or key == "experiment":
            raise BadInput(f"{word}: allowed: overrides, such as profile=quick")
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    profile = given.get("profile", "paper")
    known = sorted(path.stem for path in (config_folder() / "profile").glob("*.yaml"))
    if profile not in known:
        raise BadInput(f"profile={profile}: there is none{nearest(profile, known)}; valid: {', '.join(known)}")
    output = Path(given.get("output_dir") or default_output()).expanduser()
    asked = [word for word in words if not word.startswith("output_dir=")]
    variant = variant_name(profile, asked) if asked else default_variant(output)
    return write_report(output, variant, asked, given.get("plot.language") == "ru")


def write_report(output: Path, variant: str, overrides: Sequence[str] = (), russian: bool = False) -> int:
    """Write ``index.html``, ``claims.csv`` and ``thesis.tex``, and print what they hold.

    They go to ``report/`` if nothing larger was drawn, else to a folder of the variant in it, and overwrite nothing.

    Parameters
    ----------
    variant, overrides, russian
        As of :func:`~landscape_cli.report.gather.gather`.
    """
    found, folder = gather(output, variant, overrides, russian), output / "report"
    if variant != default_variant(output):
        folder /= variant
    above = os.path.relpath(output, folder)
    written = {"index.html": page(found), "claims.csv": claims_csv(found), "thesis.tex": latex(found, output, above)}
    for name, text in written.items():
        replace_text(folder / name, text)
    print(summary(found))
    for name in written:
        print(f"  {folder / name}")
    if not found.records and found.others_drawn:
        print(f"  nothing was drawn with these settings; what was: {', '.join(found.others_drawn)}")
    return 0 if found.records else 1


def summary(found: Report) -> str:
    """Figures and tables drawn, claims and theorems by verdict, in one line."""
    parts = [f"{done} of {every} {kind}s drawn" for kind, (done, every) in found.drawn.items()]
    parts += [f"{found.counts[verdict]} claims {verdict}" for verdict in VERDICTS]
    if found.theorems:
        states = ", ".join(f"{state} {found.theorem_tally[state]}" for state in STATES)
        parts.append(f"{sum(found.theorem_tally.values())} theorems and lemmas ({states})")
    return "report: " + ", ".join(parts)


def claims_csv(found: Report) -> str:
    """Every claim, a row each, with the figures and tables that its experiment makes and the command that tests it."""
    rows = []
    for claim in found.all_claims():
        makes = ", ".join(item.name for item in items_of(claim.experiment))
        rows.append({**asdict(claim), "makes": makes, "command": found.records[claim.experiment].command})
    columns = [*Claim.__dataclass_fields__, "makes", "command"]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")
