"""``landscape status``: how experiments and submitted jobs stand, from our own files; composes and loads nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from landscape_cli import slurm
from landscape_cli.claims import Claims
from landscape_cli.errors import BadInput
from landscape_cli.listing import default_output, shipped
from landscape_cli.progress import Grid, Standing, read_grids, standing
from landscape_cli.validation import nearest

SHOWN = 5  # points of a kind that are named


@dataclass(frozen=True)
class Job:
    """A job of a submission."""

    name: str  # ARRAY_NUMBER
    state: str  # queued, running, done or failed
    text: str  # where, or the last line of its log
    points: frozenset[tuple[str, str]]  # family and key


def status(names: Sequence[str]) -> int:
    """Print how many points of each experiment are stored, running, queued, failed and missing.

    Parameters
    ----------
    names
        Experiments, or ``output_dir=…``; no name: all that were run or submitted here.
    """
    output = default_output()
    wanted = []
    for word in names:
        key, equals, value = word.partition("=")
        if key == "output_dir" and value:
            output = Path(value).expanduser()
        elif equals:
            raise BadInput(f"{word}: allowed: names of experiments and output_dir=…")
        else:
            wanted.append(word)
    grids = read_grids(output)
    known = {grid.name for grid in grids}
    for name in wanted:
        if name not in known and name not in shipped():
            raise BadInput(f"there is no experiment {name!r}{nearest(name, [*shipped(), *known])}; see landscape list")
    jobs = read_jobs(output)
    queued, ahead = (
        frozenset(point for job in jobs if job.state == state for point in job.points)
        for state in ("queued", "running")
    )
    grids = [grid for grid in grids if not wanted or grid.name in wanted]
    _print_standings(standing(output, grids, queued, ahead))
    for name in wanted:
        if name not in known:
            print(f"{name}: not run here; `landscape show {name}` lists its points")
    if not grids and not wanted:
        print(f"nothing was run in {output} yet")
    _print_jobs(jobs)
    return 0


def read_jobs(output: Path) -> list[Job]:
    """Read every job that was submitted here; damaged records are passed over.

    Where Slurm answers quickly it is asked about jobs that our own files leave open: they do not say that a job was
    cancelled before it began.
    """
    found = []
    for folder in sorted((output / "jobs").glob("[!.]*")):
        running = Claims(folder / ".claims").living()
        try:
            array = (folder / "array").read_text().strip()
        except (OSError, ValueError):  # Slurm did not take it
            continue
        for path in sorted(folder.glob("job_*.json"), key=lambda path: (len(path.name), path.name)):
            try:
                points = frozenset((family, key) for _, family, key, _ in json.loads(path.read_text())["points"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            owner = running.get(path.stem)
            state, text = ("running", f"as {owner}") if owner else _ended(path)
            found.append((path, Job(f"{array}_{path.stem.removeprefix('job_')}", state, text, points)))
    still = [job.name.split("_")[0] for _, job in found if job.state in ("queued", "failed")]
    there = slurm.in_queue(still, seconds=2.0) if still else None
    return [job if there is None else _corrected(job, path, there) for path, job in found]


def _corrected(job: Job, path: Path, there: set[str]) -> Job:
    """Say what Slurm's queue says of a job that is not running."""
    if job.state == "failed" and job.name in there:
        return replace(job, state="queued", text="again")
    if job.state == "queued" and job.name not in there:
        return replace(job, state="failed", text=f"left the queue: {_last_line(path.with_suffix('.log'))}")
    return job


def _ended(path: Path) -> tuple[str, str]:
    """State of a job that is not running, and what to say of it."""
    try:
        life = json.loads(path.with_suffix(".state").read_text())
        code = life.get("code")
    except FileNotFoundError:
        return "queued", "not started"
    except (OSError, ValueError, AttributeError):
        life, code = {}, None
    if "requeued" in life:
        return "queued", f"again since {life['requeued']}"
    if code == 0:
        return "done", ""
    log = path.with_suffix(".log")
    why = "died" if code is None else f"ended with exit code {code}"
    return "failed", f"{why} on {life.get('host', 'an unknown host')}: {_last_line(log)} (log: {log})"


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    except OSError:
        return "there is no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "the log is empty")


def _print_standings(standings: Sequence[Standing]) -> None:
    width = max((len(stands.grid.title) for stands in standings), default=0)
    for stands in standings:
        counts = {
            "stored": stands.stored,
            "running": len(stands.running),
            "queued": stands.queued,
            "failed": len(stands.failed),
            "missing": stands.missing,
        }
        text = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
        points = "1 point" if stands.total == 1 else f"{stands.total} points"
        print(f"{stands.grid.title:<{width}}  {points}: {text}")
        lines = [f"running  {label}: {owner}" for label, owner in stands.running.items()]
        _print_some(lines)
        failed = [
            f"failed   {label}: {record['error']}" + (f" (log: {record['log']})" if record["log"] else "")
            for label, record in stands.failed.items()
        ]
        _print_some(failed)
        if stands.missing and not (stands.running or stands.queued):
            print(f"  to go on: {_command(stands.grid)}")


def _command(grid: Grid) -> str:
    return grid.command if grid.command.startswith("landscape ") else f"landscape run experiment={grid.name}"


def _print_some(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  … and {len(lines) - SHOWN} more {lines[0].split()[0]}")


def _print_jobs(jobs: Sequence[Job]) -> None:
    if not jobs:
        return
    counts = {state: sum(job.state == state for job in jobs) for state in ("running", "queued", "failed", "done")}
    print("jobs: " + ", ".join(f"{number} {state}" for state, number in counts.items() if number))
    for state in ("running", "queued", "failed"):
        lines = [f"{job.name}  {state} {job.text}".rstrip() for job in jobs if job.state == state]
        for line in lines[:SHOWN]:
            print(f"  {line}", file=sys.stdout)
        if len(lines) > SHOWN:
            print(f"  … and {len(lines) - SHOWN} more {state}")
