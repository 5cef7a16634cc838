"""Where a result comes from: command, commit, versions, device, duration. None of it is part of a point's key."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COMMAND = "LANDSCAPE_COMMAND"
PACKAGES = (
    *("torch", "torchvision", "transformers", "numpy", "scipy", "pandas", "pyarrow"),
    *("hydra-core", "omegaconf", "matplotlib"),
)


@cache
def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that the numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("landscape-cli", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Git commit of the checkout that this package runs from, with ``+`` for uncommitted changes; None outside one."""
    top = Path(__file__).resolve().parents[1]
    if not (top / ".git").exists():
        return None
    try:
        head = _git(top, "rev-parse", "HEAD")
        return head + ("+" if _git(top, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def command() -> str:
    """Return the command line, as one would type it; a job that Hydra launched elsewhere has its parent's."""
    return os.environ.get(COMMAND) or shlex.join(sys.argv)


def remember_command(words: Sequence[str]) -> None:
    """Keep what was typed, before Hydra sees its own version of it."""
    remember(shlex.join(["landscape", *words]))


def remember(text: str) -> None:
    """Keep the command that a job was submitted by."""
    os.environ[COMMAND] = text


def now() -> str:
    """Time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment() -> str:
    """Time in UTC, to the microsecond: what came after what."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _git(top: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(top), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
