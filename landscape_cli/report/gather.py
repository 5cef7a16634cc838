"""Everything that a report tells, read from what drawing left behind; nothing is measured or drawn."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from landscape_cli.drawn import Piece, Record, read_records
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED
from landscape_cli.listing import Item, Thesis, catalogue, items_of, shipped, thesis
from landscape_cli.reproduce import Result, command_of, read_results

VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE)
HOLDS, LOOSE, FAILS = STATES = ("holds", "holds loosely", "fails")
NUMBER = re.compile(r"[-−+]?[\d.,]+(e[-+]?\d+)?%?|–|[-−]?(inf|∞)|nan")
PROFILES = ("paper", "quick", "embedded", "smoke")  # the largest first


@dataclass(frozen=True)
class Claim:
    """A sentence of the thesis and what became of it."""

    experiment: str
    profile: str
    claim: str
    source: str
    statistic: str
    verdict: str
    effect: float
    low: float
    high: float
    published: float
    note: str


@dataclass(frozen=True)
class Grid:
    """A table as text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @cached_property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone."""
        return [all(map(NUMBER.fullmatch, column)) for column in zip(*self.rows, strict=True)] or [False] * len(
            self.header
        )


@dataclass(frozen=True)
class Part:
    """What one experiment gives to a figure or table of the thesis, or why it does not."""

    name: str  # of the experiment
    title: str
    command: str
    record: Record | None
    piece: Piece | None
    reasons: Sequence[str]  # why it is not there, or not whole

    @property
    def whole(self) -> bool:
        """Whether it was drawn from every point of its grid."""
        return self.piece is not None and self.record is not None and not self.record.missing


@dataclass(frozen=True)
class Entry:
    """A figure or table of the thesis."""

    item: Item
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """Its address in the page."""
        return re.sub(r"[ .]", "-", self.item.name)

    @property
    def state(self) -> str:
        """Whether it was drawn."""
        if all(part.whole for part in self.parts):
            return "drawn"
        return "drawn in part" if any(part.piece for part in self.parts) else "not drawn"


@dataclass(frozen=True)
class Theorem:
    """A theorem, tried in one quantity."""

    kind: str
    number: str
    statement: str
    quantity: str
    verdict: str
    smallest: float  # printed bound over exact value
    corrected_smallest: float
    counterexample: str
    corrected: str

    @property
    def name(self) -> str:
        """Kind and number."""
        return f"{self.kind} {self.number}"

    @property
    def state(self) -> str:
        """HOLDS, LOOSE or FAILS."""
        if self.verdict.startswith("fails"):
            return FAILS
        return LOOSE if "loose" in self.verdict else HOLDS


@dataclass(frozen=True)
class Report:
    """All that a report tells."""

    about: Thesis
    entries: Sequence[Entry]
    beyond: Sequence[Part]  # experiments that the thesis lacks; ``piece`` is None
    claims: Mapping[str, Sequence[Claim]]  # by experiment
    theorems: Sequence[Theorem]
    records: Mapping[str, Record]  # by experiment
    russian: bool = field(default=False)  # captions as the thesis prints them

    @cached_property
    def drawn(self) -> dict[str, tuple[int, int]]:
        """Figures and tables: how many are drawn, of how many."""
        found = {}
        for kind in ("figure", "table"):
            own = [entry for entry in self.entries if entry.item.name.startswith(kind)]
            found[kind] = (sum(entry.state == "drawn" for entry in own), len(own))
        return found

    @cached_property
    def tally(self) -> list[tuple[str, Counter[str]]]:
        """Verdicts by chapter, and those of experiments that the thesis lacks but for its theorems."""
        rows = []
        for number in self.about.chapters:
            names = {part.name for entry in self.entries if entry.item.chapter == number for part in entry.parts}
            rows.append((f"Chapter {number}", self._count(names)))
        beyond = {part.name for part in self.beyond} - {self.about.theorems}
        return [*rows, ("Beyond the thesis", self._count(beyond))]

    @cached_property
    def counts(self) -> Counter[str]:
        """Claims by verdict; theorems are counted by themselves."""
        return sum((row for _, row in self.tally), Counter())

    def _count(self, names: set[str]) -> Counter[str]:
        return Counter(claim.verdict for name in names for claim in self.claims.get(name, ()))

    @cached_property
    def theorem_tally(self) -> Counter[str]:
        """Theorems by what became of them; one that fails in any quantity fails."""
        worst: dict[str, str] = {}
        for theorem in self.theorems:
            states = [theorem.state, worst.get(theorem.name, HOLDS)]
            worst[theorem.name] = max(states, key=STATES.index)
        return Counter(worst.values())

    @cached_property
    def profiles(self) -> list[str]:
        """Those that the records were drawn with, the largest first."""
        return sorted({record.profile for record in self.records.values()}, key=_rank)

    @cached_property
    def first_places(self) -> dict[str, str]:
        """Where in the page the claims of each experiment are: its first figure or table, or its own place."""
        places = {part.name: f"experiment-{part.name}" for part in self.beyond}
        for entry in self.entries:
            for part in entry.parts:
                places.setdefault(part.name, entry.anchor)
        return places

    def all_claims(self) -> list[Claim]:
        """Every claim, in the order of the page."""
        names = dict.fromkeys(part.name for entry in self.entries for part in entry.parts)
        names |= dict.fromkeys(part.name for part in self.beyond)
        return [claim for name in names for claim in self.claims.get(name, ())]

    def not_reproduced(self) -> list[tuple[Claim, list[str]]]:
        """Claims that do not hold, each once, with the experiments that say so in the same words and numbers."""
        found: dict[tuple, tuple[Claim, list[str]]] = {}
        for claim in self.all_claims():
            if claim.verdict == NOT_REPRODUCED and claim.experiment != self.about.theorems:
                same = (claim.profile, claim.claim, claim.source, claim.statistic, str(claim.effect), claim.note)
                found.setdefault(same, (claim, []))[1].append(claim.experiment)
        return list(found.values())

    def others(self, name: str) -> list[Piece]:
        """What an experiment draws and tabulates beside the thesis's figures and tables and the claims."""
        known = {item.experiments[name] for item in items_of(name)}
        record = self.records.get(name)
        return [p for p in record.pieces if p.kind != "claims" and p.name not in known] if record else []


def gather(output: Path, variants: Sequence[str] | None, russian: bool = False) -> Report:
    """Read what is to be reported.

    Parameters
    ----------
    variants
        Which variants' records are taken, the first that there is of each experiment; None: of each experiment the
        largest profile's, with no other setting changed.
    russian
        Whether captions are the thesis's own.
    """
    found = read_records(output)
    wanted = list(variants) if variants is not None else ["" if name == "paper" else name for name in PROFILES[:3]]
    chosen: dict[str, Record] = {}
    for variant in reversed(wanted):
        chosen |= {record.name: record for record in found if record.variant == variant}
    results: dict[str, Result] = {}
    for variant in reversed(wanted):
        results |= read_results(output, variant)
    entries = [
        Entry(item, [_part(name, file, chosen, results, wanted[0]) for name, file in item.experiments.items()])
        for item in catalogue()
    ]
    of_the_thesis = {name for item in catalogue() for name in item.experiments}
    others = [name for name in dict.fromkeys([*shipped(), *chosen]) if name not in of_the_thesis]
    beyond = [_part(name, None, chosen, results, wanted[0]) for name in others if name in chosen or name in results]
    claims = {name: _claims(record) for name, record in chosen.items()}
    about = thesis()
    theorems = _theorems(chosen.get(about.theorems))
    return Report(about, entries, beyond, claims, theorems, chosen, russian)


def _part(
    name: str, file: str | None, chosen: Mapping[str, Record], results: Mapping[str, Result], variant: str
) -> Part:
    record, result = chosen.get(name), results.get(name)
    piece = next((one for one in record.pieces if one.name == file), None) if record else None
    whole = record is not None and not record.missing and not record.failures
    reasons = list(result.reasons) if result and not whole else []
    if record:
        command = record.command
        missing = f"{len(record.missing)} of {record.points} points are missing: {', '.join(record.missing[:5])}"
        reasons += [] if reasons or not record.missing else [missing]
        reasons += [text for text in record.failures if not any(text in reason for reason in reasons)]
        if file and piece is None and not reasons:
            reasons.append(f"this run did not draw {file}")
    else:
        overrides = [f"profile={variant}"] if variant in PROFILES else []
        command = result.command if result else command_of(name, overrides)
        reasons = reasons or ["not measured yet"]
    return Part(name, record.title if record else shipped().get(name, ""), command, record, piece, reasons)


def _claims(record: Record) -> list[Claim]:
    """The verdicts of an experiment, from its CSV file."""
    path = next((_file(piece, ".csv") for piece in record.pieces if piece.kind == "claims"), None)
    if path is None:
        return []
    frame = pd.read_csv(path, dtype={"claim": str, "source": str, "statistic": str, "note": str})
    frame["note"] = frame["note"].fillna("")
    return [Claim(record.name, record.profile, **row) for row in frame.to_dict("records")]


def _theorems(record: Record | None) -> list[Theorem]:
    piece = (
        next((one for one in record.pieces if one.kind == "table" and one.name == record.name), None)
        if record
        else None
    )
    path = _file(piece, ".csv") if piece else None
    if path is None:
        return []
    text = ("kind", "theorem", "statement", "quantity", "verdict", "counterexample", "corrected")
    frame = pd.read_csv(
        path,
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values={"printed_smallest": [""], "corrected_smallest": [""]},
    )
    return [
        Theorem(
            *(row[name] for name in text[:5]),
            float(row["printed_smallest"]),
            float(row["corrected_smallest"]),
            row["counterexample"],
            row["corrected"],
        )
        for row in frame.to_dict("records")
    ]


def table_of(piece: Piece) -> Grid | None:
    """A table as its Markdown file shows it; None if the file is gone."""
    path = _file(piece, ".md")
    if path is None:
        return None
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip().replace("\\|", "|") for cell in _cells(line)] for line in lines)
    return Grid(header, rows)


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip())[1:-1]


def _file(piece: Piece, suffix: str) -> Path | None:
    return next((path for path in piece.files if path.suffix == suffix and path.is_file()), None)


def picture_of(piece: Piece) -> Path | None:
    """The file that a page can show: PNG, else SVG; None if there is neither."""
    return _file(piece, ".png") or _file(piece, ".svg")


def number(value: float) -> str:
    """A number with three digits; nothing for one that is missing."""
    if math.isnan(value):
        return "–"
    return f"{value:.3g}".replace("inf", "∞").replace("-", "−")


def _rank(profile: str) -> int:
    return PROFILES.index(profile) if profile in PROFILES else len(PROFILES)
