"""What was drawn, and from what: the same command on the same results need not draw the same files again."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from landscape_cli import provenance
from landscape_cli.errors import DamagedPoint
from landscape_cli.plan import Plan
from landscape_cli.store import replace_text
from landscape_cli.submission import code_digest, resolved
from landscape_cli.variant import variant_name


@dataclass(frozen=True)
class Drawn:
    """The output of an experiment."""

    lines: Sequence[str]  # that were printed, but for the files
    files: Sequence[Path]


@dataclass(frozen=True)
class Piece:
    """A figure, a table or the verdicts, as written."""

    kind: str  # figure, table or claims
    name: str  # file name without suffix
    caption: str
    note: str  # what the small print of this one alone says
    files: Sequence[Path]  # in a record: relative to the output folder
    lost: Sequence[str] = ()  # names of files that are gone or changed since


@dataclass(frozen=True)
class Origin:
    """Where an experiment's points come from."""

    commits: Sequence[str]  # of the code that measured them
    devices: Sequence[str]
    versions: Sequence[str]  # name and number of each package
    began: str  # the first
    ended: str  # the last
    seconds: Mapping[str, float]  # of measuring each, by key: experiments share points


@dataclass(frozen=True)
class Record:
    """What a report tells of an experiment."""

    name: str
    title: str
    profile: str
    variant: str  # subfolder of its figures and tables
    overrides: Sequence[str]  # but for its name
    note: str  # data sets, sizes, seeds, profile
    pieces: Sequence[Piece]
    failures: Sequence[str]  # what could not be drawn, and why
    points: int  # of its grid
    missing: Sequence[str]  # labels of those that are not stored
    origin: Origin
    time: str  # of drawing

    @property
    def changed(self) -> list[str]:
        """Settings that are not the experiment's own, beside its profile and how figures look."""
        return [text for text in self.overrides if not text.lstrip("+~").startswith(("profile=", "plot", "data."))]

    @property
    def command(self) -> str:
        """What makes it."""
        return shlex.join(["landscape", "run", f"experiment={self.name}", *self.overrides])


def origin_of(documents: Mapping[str, Mapping[str, Any]]) -> Origin:
    """Sum up the provenance of points, from each one's ``point.json``, by key."""
    found = sorted((document["provenance"] for document in documents.values()), key=lambda one: one["began"])
    ends = [datetime.fromisoformat(one["began"]) + timedelta(seconds=one["seconds"]) for one in found]
    return Origin(
        commits=list(dict.fromkeys(one["commit"] or "not a git checkout" for one in found)),
        devices=list(dict.fromkeys(one["device"] for one in found)),
        versions=list(dict.fromkeys(f"{name} {number}" for one in found for name, number in one["versions"].items())),
        began=found[0]["began"],
        ended=max(ends).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds={key: document["provenance"]["seconds"] for key, document in documents.items()},
    )


def keep_drawn(
    plan: Plan,
    overrides: Sequence[str],
    documents: Mapping[str, Mapping[str, Any]],
    drawn: Drawn,
    code: str,
    record: Record,
) -> None:
    """Keep what was drawn and from what; only all of a whole grid is not drawn again.

    Parameters
    ----------
    documents
        The points' ``point.json``, by key.
    code
        Digest of the family's code before the command began to work: if it is another one now, nobody knows which has
        drawn.
    """
    whole = not record.failures and not record.missing and code_digest(plan.config.family) == code
    output = Path(plan.config.output_dir).expanduser()
    told = asdict(record)
    for piece in told["pieces"]:
        piece["files"] = [path.relative_to(output).as_posix() for path in piece["files"]]
    kept = {
        "inputs": _inputs(plan, overrides, documents) if whole else None,
        "modules": {str(path): _digest(path.read_bytes()) for path in _own_modules()},
        "lines": list(drawn.lines),
        "files": {path.relative_to(output).as_posix(): _digest(path.read_bytes()) for path in drawn.files},
        "report": told,
    }
    replace_text(_place(plan, overrides), json.dumps(kept, indent=1))


def read_records(output: Path) -> list[Record]:
    """Read what every experiment left here of its last drawing; unreadable ones are passed over."""
    found = []
    for path in sorted((output / "runs" / "drawn").glob("[!.]*.json")):
        try:
            kept = json.loads(path.read_text())
            fields, digests = kept["report"], kept["files"]
            pieces = []
            for piece in fields["pieces"]:
                whole = [name for name in piece["files"] if _intact(output / name, digests[name])]
                lost = [name for name in piece["files"] if name not in whole]
                pieces.append(Piece(**{**piece, "files": [output / name for name in whole], "lost": lost}))
            found.append(Record(**{**fields, "pieces": pieces, "origin": Origin(**fields["origin"])}))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def recall_drawn(plan: Plan, overrides: Sequence[str]) -> Drawn | None:
    """What was drawn of these very results by this very code, if every point and every file is there undamaged."""
    output = Path(plan.config.output_dir).expanduser()
    if plan.unlocated or not all(plan.stored(item) for item in plan.located):
        return None
    try:
        record = json.loads(_place(plan, overrides).read_text())
        lines, files = list(record["lines"]), dict(record["files"])
        read = {output / name: digest for name, digest in files.items()}
        read |= {Path(name): digest for name, digest in record["modules"].items()}
        if any(_digest(path.read_bytes()) != digest for path, digest in read.items()):
            return None
        documents = {item.key: plan.store.check(plan.family, item.key) for item in plan.located}
        if record["inputs"] != _inputs(plan, overrides, documents):
            return None
    except (OSError, ValueError, KeyError, TypeError, DamagedPoint):
        return None
    return Drawn(lines, [output / name for name in files])


def _inputs(plan: Plan, overrides: Sequence[str], documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of everything that the output is made from."""
    made_from = {
        "points": [[item.key, item.point.coordinates_json, documents[item.key]["files"]] for item in plan.located],
        "config": {name: value for name, value in resolved(plan.config).items() if name != "output_dir"},
        "variant": variant_name(plan.config.profile.name, overrides),
        "data": repr([plan.sources, plan.checkpoints, plan.mappings]),
        "code": code_digest(plan.config.family),
        "versions": provenance.versions(),
        "style": [_digest(path.read_bytes()) for path in _style_files() if path.is_file()],
    }
    return _digest(json.dumps(made_from, sort_keys=True).encode())


def _own_modules() -> list[Path]:
    """Files of the loaded modules that belong to no package: a family of one's own, and what it imports."""
    found = set()
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or "")
        installed = {"site-packages", "dist-packages"} & set(path.parts) or path.is_relative_to(sys.base_prefix)
        if path.suffix == ".py" and path.is_file() and not installed:
            found.add(path.resolve())
    return sorted(found)


def _style_files() -> list[Path]:
    """Where matplotlib looks for what a user has set of its style."""
    folders = [Path(), Path.home() / ".config" / "matplotlib", Path.home() / ".matplotlib"]
    named = [Path(os.environ[name]) for name in ("MATPLOTLIBRC", "MPLCONFIGDIR") if os.environ.get(name)]
    return [*named, *(folder / "matplotlibrc" for folder in [*named, *folders])]


def _place(plan: Plan, overrides: Sequence[str]) -> Path:
    variant = variant_name(plan.config.profile.name, overrides)
    name = f"{plan.config.name}@{variant}" if variant else plan.config.name
    return Path(plan.config.output_dir).expanduser() / "runs" / "drawn" / f"{name}.json"


def _intact(path: Path, digest: str) -> bool:
    try:
        return _digest(path.read_bytes()) == digest
    except OSError:
        return False


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
