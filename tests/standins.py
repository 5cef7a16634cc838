"""Commands of Slurm as scripts on the PATH, for tests without a cluster."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Slurm:
    """A folder of stand-ins; each keeps the words it was called with, and the script."""

    folder: Path

    def says(self, command: str, out: str = "", err: str = "", code: int = 0) -> None:
        """Let a command print these and end with this code."""
        (self.folder / f"{command}.out").write_text(out)
        (self.folder / f"{command}.err").write_text(err)
        path = self.folder / command
        here = self.folder / command
        path.write_text(
            f'#!/bin/sh\necho "$@" >>"{here}.words"\nfor last; do :; done\n'
            f'[ -f "$last" ] && cp "$last" "{here}.script"\ncat "{here}.err" >&2\ncat "{here}.out"\nexit {code}\n'
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def words(self, command: str) -> list[str]:
        """With which words a command was called, call by call."""
        path = self.folder / f"{command}.words"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def script(self) -> str:
        """What sbatch was given last."""
        return (self.folder / "sbatch.script").read_text()


def install(folder: Path, monkeypatch) -> Slurm:
    """Put stand-ins before everything else on the PATH: an empty queue, and sbatch that numbers an array 4711."""
    folder.mkdir()
    slurm = Slurm(folder)
    slurm.says("sbatch", out="4711\n")
    slurm.says("squeue")
    slurm.says("scontrol")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return slurm


def hide(monkeypatch, folder: Path, *needed: str) -> None:
    """Leave nothing on the PATH but these commands."""
    folder.mkdir()
    for command in needed:
        (folder / command).symlink_to(shutil.which(command) or sys.executable)
    monkeypatch.setenv("PATH", str(folder))
