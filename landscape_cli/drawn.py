"""What was drawn, and from what: the same command on the same results need not draw the same files again."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def keep_drawn(
    plan: Plan, overrides: Sequence[str], documents: Mapping[str, Mapping[str, Any]], drawn: Drawn, code: str
) -> None:
    """Record what was drawn of a whole grid, unless the code has changed meanwhile.

    Parameters
    ----------
    documents
        The points' ``point.json``, by key.
    code
        Digest of the family's code before the command began to work.
    """
    if code_digest(plan.config.family) != code:
        return
    output = Path(plan.config.output_dir).expanduser()
    record = {
        "inputs": _inputs(plan, overrides, documents),
        "modules": {str(path): _digest(path.read_bytes()) for path in _own_modules()},
        "lines": list(drawn.lines),
        "files": {path.relative_to(output).as_posix(): _digest(path.read_bytes()) for path in drawn.files},
    }
    replace_text(_place(plan, overrides), json.dumps(record, indent=1))


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


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
