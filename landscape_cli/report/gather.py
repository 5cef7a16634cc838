"""Everything that a report tells, read from what drawing left behind; nothing is measured or drawn."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from landscape_cli.drawn import Piece, Record, read_records
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED
from landscape_cli.listing import Item, Thesis, catalogue, items_of, shipped, thesis
from landscape_cli.reproduce import FAILED, NO_DATA, Result, command_of, read_results
from landscape_cli.variant import telling

VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE)
HOLDS, LOOSE, FAILS = STATES = ("holds", "holds loosely", "fails")
NUMBER = re.compile(r"[-−+]?[\d.,]+(e[-+]?\d+)?%?|–|[-−]?(inf|∞)|nan")
PROFILES = ("paper", "quick", "embedded", "smoke")  # the largest first
OTHER_NORM = ", asked of ‖H‖"  # ends the statement of a theorem that was tried on more than it says


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

    @property
    def identity(self) -> tuple:
        """The same for experiments that share points and say the same of them."""
        sentence = re.sub(r"^[a-z0-9_]+: ", "", self.claim)  # of several data sets each claim names its own
        own = self.experiment if math.isnan(self.effect) else ""
        return self.profile, sentence, self.statistic, str((self.effect, self.low, self.high)), self.verdict, own


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
        """Whether it was drawn from every point of its grid, is as it was drawn, and by the last command."""
        return self.piece is not None and not self.reasons


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
    as_printed: bool  # whether the thesis claims it of this quantity
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
    others_drawn: Mapping[str, int] = field(default_factory=dict)  # other variant -> experiments drawn
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
        distinct = {claim.identity: claim.verdict for name in names for claim in self.claims.get(name, ())}
        return Counter(distinct.values())

    @cached_property
    def theorem_tally(self) -> Counter[str]:
        """Theorems and lemmas by what became of them; one that fails in any quantity that it is about fails."""
        worst: dict[str, str] = {}
        for theorem in (one for one in self.theorems if one.as_printed):
            states = [theorem.state, worst.get(theorem.name, HOLDS)]
            worst[theorem.name] = max(states, key=STATES.index)
        return Counter(worst.values())

    @cached_property
    def profiles(self) -> list[str]:
        """Those that the records were drawn with, the largest first."""
        return sorted({record.profile for record in self.records.values()}, key=_rank)

    @cached_property
    def changed(self) -> Counter[str]:
        """Settings that are not the thesis's own, and how many experiments have them."""
        return Counter(" ".join(record.changed) for record in self.records.values() if record.changed)

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
                found.setdefault(claim.identity, (claim, []))[1].append(claim.experiment)
        return list(found.values())

    def others(self, name: str) -> list[Piece]:
        """What an experiment draws and tabulates beside the thesis's figures and tables and the claims."""
        known = {item.experiments[name] for item in items_of(name)}
        record = self.records.get(name)
        return [p for p in record.pieces if p.kind != "claims" and p.name not in known] if record else []


def default_variant(output: Path) -> str:
    """The largest profile that anything was drawn with, nothing else changed; the paper's if nothing was."""
    drawn = {record.variant for record in read_records(output)}
    names = ["" if profile == "paper" else profile for profile in PROFILES]
    return next((name for name in names if name in drawn), "")


def gather(output: Path, variant: str, overrides: Sequence[str] = (), russian: bool = False) -> Report:
    """Read what is to be reported.

    Parameters
    ----------
    variant
        Whose records are taken: of one profile, so that verdicts of different sizes and data are never added up.
    overrides
        That belong to the variant, for the commands of what is missing.
    russian
        Whether captions are the thesis's own.
    """
    found = read_records(output)
    chosen = {record.name: record for record in found if record.variant == variant}
    results = read_results(output, variant)
    asked = telling(overrides) or ([f"profile={variant}"] if variant in PROFILES else [])
    entries = [
        Entry(item, [_part(name, file, chosen, results, asked) for name, file in item.experiments.items()])
        for item in catalogue()
    ]
    of_the_thesis = {name for item in catalogue() for name in item.experiments}
    others = [name for name in dict.fromkeys([*shipped(), *chosen]) if name not in of_the_thesis]
    beyond = [_part(name, None, chosen, results, asked) for name in others if name in chosen or name in results]
    claims = {name: _claims(record) for name, record in chosen.items()}
    about = thesis()
    theorems = _theorems(chosen.get(about.theorems))
    drawn = Counter(record.variant or "paper" for record in found if record.variant != variant)
    return Report(about, entries, beyond, claims, theorems, chosen, dict(drawn), russian)


def _part(
    name: str, file: str | None, chosen: Mapping[str, Record], results: Mapping[str, Result], overrides: Sequence[str]
) -> Part:
    record, result = chosen.get(name), results.get(name)
    if record is None:
        command = result.command if result else command_of(name, overrides)
        reasons = (list(result.reasons) if result else []) or ["not measured yet"]
        return Part(name, shipped().get(name, ""), command, None, None, reasons)
    piece = next((one for one in record.pieces if one.name == file), None)
    reasons = []
    if result and result.reasons and result.time > record.time:
        later = result.state == FAILED or result.state == NO_DATA
        reasons += [f"the last run failed; this is what was drawn at {record.time[:16]}"] * later + list(result.reasons)
    elif record.missing:
        labels = ", ".join(record.missing[:5])
        reasons.append(f"{len(record.missing)} of {record.points} points are missing: {labels}")
    reasons += [text for text in record.failures if not any(text in reason for reason in reasons)]
    again = shlex.join(["landscape", "figures", name, *record.overrides])
    lost = [one for one in record.pieces if one.lost and (one is piece or one.kind == "claims")]
    reasons += [f"changed or gone since it was drawn: {', '.join(one.lost)}; again: {again}" for one in lost]
    if file and piece is None and not reasons:
        reasons.append(f"this run did not draw {file}")
    return Part(name, record.title, record.command, record, piece, reasons)


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
            not row["statement"].endswith(OTHER_NORM),
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
