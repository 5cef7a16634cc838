"""What was submitted: the code and the configuration that a job must find unchanged when its turn comes."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from landscape_cli import provenance
from landscape_cli.config import Config
from landscape_cli.config_path import config_folder
from landscape_cli.errors import BadInput
from landscape_cli.store import replace_text
from landscape_cli.validation import flat_keys, load_class

# A job may differ in these: they say how it runs, not what.
_RUN = ("device", "threads", "workers")
_FREE = ("submission", "allow_changes", "debug", *_RUN)
_OWN = ("landscape_cli", "experiments", "conf")
SHOWN = 3  # differences named in a message


@dataclass(frozen=True)
class Submission:
    """The state of code and configuration when jobs were submitted."""

    commit: str | None
    code: Mapping[str, str]  # file -> digest, of everything that can change a number
    configs: Mapping[str, Mapping[str, Any]]  # job or experiment -> resolved configuration
    hashes: Mapping[str, str]  # the same -> hash of it
    command: str
    time: str

    @classmethod
    def of(cls, configs: Mapping[str, Config]) -> Submission:
        """Record the code as it is now and these configurations, by the name of their job."""
        values = {name: resolved(config) for name, config in configs.items()}
        hashes = {name: _hash(each) for name, each in values.items()}
        code = _code({config.family for config in configs.values()})
        return cls(provenance.commit(), code, values, hashes, provenance.command(), provenance.now())

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        replace_text(path, json.dumps(asdict(self), indent=1))


def read_submission(path: Path) -> Submission:
    """Read a record.

    Raises
    ------
    BadInput
        If it is not there or not whole.
    """
    try:
        return Submission(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: not a record of a submission ({error}); submit again") from error


def job_name(overrides: Sequence[str]) -> str:
    """Name a job of a sweep by its overrides."""
    return " ".join(text for text in overrides if text.split("=")[0] not in ("submission", *_RUN))


def check_unchanged(submission: Submission, name: str, config: Config) -> None:
    """Refuse to go on with another code or another configuration than those that were submitted.

    Parameters
    ----------
    name
        What the configuration was recorded under.

    Raises
    ------
    BadInput
        Naming what has changed, unless ``allow_changes`` is set; then that is printed.
    """
    if name not in submission.configs:
        raise BadInput(f"{name}: not among what was submitted; submit again")
    differences = []
    code = _code({config.family})
    changed = {file for file in {*submission.code, *code} if submission.code.get(file) != code.get(file)}
    # What is recorded of other jobs' own modules is not this one's.
    files = sorted(file for file in changed if file in code or file.split("/")[0] in _OWN)
    if files:
        then, now = submission.commit or "no commit", provenance.commit() or "no commit"
        commits = f"commit {then[:12]}" if then == now else f"commit {then[:12]}, now {_short(now)}"
        differences.append(f"the code has changed since it was submitted ({commits}): {_listed(files)}")
    values = resolved(config)
    if _hash(values) != submission.hashes[name]:
        before, after = _flat(submission.configs[name]), _flat(values)
        keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        values = [f"{key} was {before.get(key)!r}, is {after.get(key)!r}" for key in keys]
        differences.append(f"the configuration has changed since it was submitted: {_listed(values)}")
    if not differences:
        return
    text = "; ".join(differences)
    if not config.allow_changes:
        raise BadInput(f"{config.name}: {text}. Submit again, or allow it with allow_changes=true")
    print(f"  allowed: {text}", flush=True)


def code_digest(family: str) -> str:
    """Hash of all the code that a family's numbers depend on."""
    return _hash(_code({family}))


def _code(families: set[str]) -> dict[str, str]:
    """Digest of every file of the package, the experiments and ``conf``, and of the modules of other families."""
    package = Path(__file__).resolve().parent
    places = dict(zip(_OWN, (package, package.parent / "experiments", config_folder()), strict=True))
    found = {}
    for name, folder in places.items():
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".yaml", ".csv") and path.is_file():
                found[f"{name}/{path.relative_to(folder).as_posix()}"] = _digest(path)
    for family in families:
        module = family.rpartition(".")[0]
        if module.split(".")[0] not in places:
            load_class(family)
            file = getattr(sys.modules.get(module), "__file__", None)
            if file:
                found[f"{module} ({file})"] = _digest(Path(file))
    return found


def resolved(config: Config) -> dict[str, Any]:
    """Everything of a configuration but how it is run."""
    values = {name: value for name, value in asdict(config).items() if name not in _FREE}
    return json.loads(json.dumps(values))


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key in flat_keys(values):
        node: Any = values
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping):
            found[key] = node
    return found


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _short(commit: str) -> str:
    return commit[:12] + ("+" if commit.endswith("+") else "")


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
