"""``landscape submit`` and ``landscape work``: the missing points of several experiments as jobs of a Slurm cluster.

A submission is a folder ``jobs/<time>/`` of the outputs: ``submission.json`` (code and configurations as they were),
``job_<n>.json`` (a job's points), ``job.sh`` (what sbatch was given), and of each job its log and where it stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape_cli import provenance, slurm
from landscape_cli.claims import Claims, myself
from landscape_cli.composing import load
from landscape_cli.config import Config
from landscape_cli.errors import INTERRUPTED, BadInput, LandscapeError, say
from landscape_cli.listing import shipped
from landscape_cli.plan import Located, Plan, make_plan
from landscape_cli.progress import write_grid
from landscape_cli.runner import grid_of, run
from landscape_cli.store import replace_text
from landscape_cli.submission import Submission, check_unchanged, read_submission
from landscape_cli.validation import nearest

OWN = ("jobs", "array_parallelism", "warning")
USAGE = "landscape submit EXPERIMENT… jobs=N [partition=… time=MINUTES …] [key=value …]"


@dataclass(frozen=True)
class Wish:
    """One missing point and what it is thought to cost."""

    experiment: str
    item: Located
    family: str
    seconds: float


def submit(words: Sequence[str]) -> int:
    """Share the missing points of experiments out among jobs, hand them to Slurm, print their numbers and return.

    Parameters
    ----------
    words
        Names of experiments, ``jobs=N``, options of Slurm (:data:`landscape_cli.slurm.OPTIONS`, ``slurm.NAME=VALUE``)
        and overrides of every experiment.
    """
    names, own, options, overrides = _parsed(words)
    count = _number("jobs", own.get("jobs"), 1)
    at_once = _number("array_parallelism", own["array_parallelism"], 1) if "array_parallelism" in own else None
    flags = slurm.flags(options)
    lead = _lead(own, options)
    slurm.check_slurm()
    configs = {name: load([f"experiment={name}", *overrides]) for name in names}
    output = Path(next(iter(configs.values())).output_dir).expanduser().resolve()
    waiting = _waiting(output)
    wishes, plans, taken = [], {}, set()
    for name, config in configs.items():
        plan = plans[name] = make_plan(config, download=True)
        wishes += _missing(name, plan, waiting, taken)
    if not wishes:
        print("nothing to submit")
        return 0
    if count > len(wishes):
        raise BadInput(f"jobs: {count}; only {len(wishes)} points are to be measured; allowed: {len(wishes)} or fewer")
    shares = shared_out(wishes, count)
    folder = output / "jobs" / f"{provenance.now().replace(':', '').replace('-', '')}_{uuid.uuid4().hex[:4]}"
    folder.mkdir(parents=True)
    Submission.of(configs).write(folder / "submission.json")
    about = {"experiments": names, "overrides": list(overrides)}
    for n, share in enumerate(shares):
        points = [[wish.experiment, wish.family, wish.item.key, wish.item.point.label] for wish in share]
        replace_text(folder / f"job_{n}.json", json.dumps({**about, "points": points}))
    # -P: what lies in the working directory must not be taken for a module.
    command = [sys.executable, "-P", "-m", "landscape_cli.cli", "work", str(folder)]
    try:
        (folder / "job.sh").write_text(slurm.script(command, folder, count, at_once, flags, lead))
        array = slurm.submit(folder / "job.sh")
    except BaseException:  # there is no such submission
        shutil.rmtree(folder)
        raise
    replace_text(folder / "array", array)
    for name, plan in plans.items():
        if any(wish.experiment == name for wish in wishes):
            write_grid(output, grid_of(plan, [f"experiment={name}", *overrides]))
    _announce(shares, array, folder)
    return 0


def work(folder: Path, number: int) -> int:
    """Measure the points of one job; what Slurm runs.

    Returns
    -------
    The exit code: 0 too if the job was put into the queue again because its time was up.
    """
    submission, job = read_submission(folder / "submission.json"), _read_job(folder / f"job_{number}.json")
    provenance.remember(submission.command)
    claims = Claims(folder / ".claims")
    if not claims.take(f"job_{number}"):
        raise BadInput(f"{folder}: job {number} is running already ({claims.owner(f'job_{number}')})")
    state = folder / f"job_{number}.state"
    life = {"host": myself().host, "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID"), "began": provenance.now()}
    before = _traces(folder, job)
    try:
        replace_text(state, json.dumps(life))
        with _told() as told:
            try:
                code = _measure(submission, job)
            except _Told:  # not while a point was measured
                code = INTERRUPTED
        if code == INTERRUPTED and told[:1] == ["USR2"]:
            claims.close()  # before another life of this job wants it
            return _again(state, life, _traces(folder, job) != before)
        replace_text(state, json.dumps({**life, "code": code, "ended": provenance.now()}))
        return code
    finally:
        claims.close()


def shared_out(wishes: Sequence[Wish], count: int) -> list[list[Wish]]:
    """Share points out among so many jobs, the longest first, each to the job with the least so far.

    Returns
    -------
    A list a job, in the order in which the experiments were named.
    """
    shares: list[list[Wish]] = [[] for _ in range(count)]
    loads = [(0.0, n) for n in range(count)]
    order = {id(wish): position for position, wish in enumerate(wishes)}
    for wish in sorted(wishes, key=lambda wish: -wish.seconds):
        load_, n = min(loads)
        shares[n].append(wish)
        loads[n] = (load_ + wish.seconds, n)
    return [sorted(share, key=lambda wish: order[id(wish)]) for share in shares]


def _parsed(words: Sequence[str]) -> tuple[list[str], dict[str, str], dict[str, str], list[str]]:
    names, own, options, overrides = [], {}, {}, []
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            raise BadInput(f"unknown option {word}; usage: {USAGE}")
        if not equals:
            if word not in shipped():
                raise BadInput(f"there is no experiment {word!r}{nearest(word, shipped())}; `landscape list` shows all")
            names.append(word)
        elif key in OWN:
            own[key] = value
        elif key in slurm.OPTIONS or key.startswith("slurm."):
            options[key] = value
        elif key in ("experiment", "shard.count", "shard.index", "dry_run", "submission") or key.startswith("hydra"):
            raise BadInput(f"{word}: jobs are given their points; usage: {USAGE}")
        elif key not in Config.__dataclass_fields__ and (hint := nearest(key, [*OWN, *slurm.OPTIONS])):
            raise BadInput(f"unknown option {key}{hint}; usage: {USAGE}")
        else:
            overrides.append(word)
    if not names:
        raise BadInput(f"no experiment is named; usage: {USAGE}")
    return list(dict.fromkeys(names)), own, options, overrides


def _number(name: str, value: str | None, least: int) -> int:
    if value is None:
        raise BadInput(f"{name} is not given; usage: {USAGE}")
    if not value.isdecimal() or int(value) < least:
        raise BadInput(f"{name}: {value!r}; allowed: a whole number, {least} or more")
    return int(value)


def _lead(own: dict[str, str], options: dict[str, str]) -> int:
    """Seconds before the time limit at which a job is told: a quarter of a short limit."""
    limit = 60 * int(options["time"]) if "time" in options else None
    if "warning" not in own:
        return slurm.WARNING if limit is None else min(slurm.WARNING, limit // 4)
    lead = _number("warning", own["warning"], 1)
    if limit is not None and lead >= limit:
        raise BadInput(f"warning: {lead} seconds, and a job has {limit}; allowed: fewer")
    return lead


def _missing(name: str, plan: Plan, waiting: frozenset[tuple[str, str]], taken: set) -> list[Wish]:
    from landscape_cli.cost import estimated_seconds

    for point, error in plan.unlocated.values():
        print(f"  {name}: {point.label}: {error}", file=sys.stderr)
    if plan.unlocated and not plan.located:
        raise next(iter(plan.unlocated.values()))[1]
    running = plan.store.claims(plan.family).living()
    stored = [item for item in plan.located if plan.stored(item)]
    missing = [item for item in plan.located if not plan.stored(item)]
    free = [item for item in missing if item.key not in running and (plan.family, item.key) not in waiting]
    new = []
    for item in free:  # of points that several experiments share the first one's is enough
        if (plan.family, item.key) not in taken:
            taken.add((plan.family, item.key))
            new.append(item)
    others = {
        "stored": len(stored),
        "running": sum(item.key in running for item in missing),
        "in the queue": sum(item.key not in running and (plan.family, item.key) in waiting for item in missing),
        "of an experiment named before": len(free) - len(new),
    }
    text = "".join(f"{number} {what}, " for what, number in others.items() if number)
    print(f"{name}: {len(plan.located)} points: {text}{len(new)} to measure", flush=True)
    seconds = estimated_seconds(plan, new)
    return [Wish(name, item, plan.family, cost) for item, cost in zip(new, seconds, strict=True)]


def _waiting(output: Path) -> frozenset[tuple[str, str]]:
    """Points that jobs in the queue are to measure: family and key."""
    found, arrays = set(), {}
    for path in (output / "jobs").glob("*/array"):
        with contextlib.suppress(OSError, ValueError):
            arrays[path.read_text().strip()] = path.parent
    there = slurm.in_queue(arrays) or set()
    for job in there:
        array, _, number = job.partition("_")
        with contextlib.suppress(BadInput):
            points = _read_job(arrays[array] / f"job_{number}.json")["points"]
            found |= {(family, key) for _, family, key, _ in points}
    return frozenset(found)


def _read_job(path: Path) -> dict[str, Any]:
    try:
        job = json.loads(path.read_text())
        return {"points": [tuple(p) for p in job["points"]], **{k: job[k] for k in ("experiments", "overrides")}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not the points of a job ({error}); submit again") from error


def _announce(shares: Sequence[Sequence[Wish]], array: str, folder: Path) -> None:
    from landscape_cli.cost import duration

    for n, share in enumerate(shares):
        points = "1 point" if len(share) == 1 else f"{len(share)} points"
        print(f"{array}_{n}: {points}, about {duration(sum(wish.seconds for wish in share))}")
    print(f"logs: {folder}/job_*.log; `landscape status` says how they stand")


def _measure(submission: Submission, job: dict[str, Any]) -> int:
    """Measure a job's points, experiment by experiment, and draw what is whole then."""
    codes = []
    for name in job["experiments"]:
        keys = frozenset(key for experiment, _, key, _ in job["points"] if experiment == name)
        overrides = [f"experiment={name}", *job["overrides"]]
        try:
            config = load(overrides)
            check_unchanged(submission, name, config)
            if not keys and not _whole(config):
                continue
            code = run(config, overrides, only=keys)
        except LandscapeError as error:  # the other experiments may do
            code = say(error)
        if code == INTERRUPTED:
            return code
        codes.append(code)
    failed = {code for code in codes if code}
    return failed.pop() if len(failed) == 1 else int(bool(failed))


def _whole(config: Config) -> bool:
    plan = make_plan(config)
    return not plan.unlocated and all(plan.stored(item) for item in plan.located)


class _Told(KeyboardInterrupt):
    """Slurm says that the time is up, or that the job is to end."""


@contextlib.contextmanager
def _told() -> Iterator[list[str]]:
    """Stop like Ctrl-C when Slurm says so; the list says by which signal."""
    told: list[str] = []

    def stop(number: int, frame: object) -> None:
        told.append(signal.Signals(number).name.removeprefix("SIG"))
        if len(told) == 1:
            raise _Told

    before = {number: signal.signal(number, stop) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _again(state: Path, life: dict[str, Any], progress: bool) -> int:
    """Put this job into the queue again, unless it got nowhere: then it never would."""
    ended = json.dumps({**life, "code": INTERRUPTED, "ended": provenance.now()})
    if not progress:
        replace_text(state, ended)
        raise LandscapeError(
            "the time limit came before one point was finished; give a longer time=…, or checkpoint=true, with which a "
            "training goes on where it was"
        )
    print("the time limit is near: this job goes into the queue again, and on from here", flush=True)
    replace_text(state, json.dumps({**life, "requeued": provenance.now()}))  # before: Slurm ends this process at once
    try:
        slurm.requeue()
    except LandscapeError:
        replace_text(state, ended)
        raise
    return 0


def _traces(folder: Path, job: dict[str, Any]) -> dict[str, int]:
    """Return what a job has left in the store so far: points, and checkpoints of trainings, each with its time."""
    results, found = folder.parents[1] / "results", {}
    for _, family, key, _ in job["points"]:
        for path in (results / family / key / "point.json", *(results / family / ".checkpoints" / key).rglob("*.ckpt")):
            with contextlib.suppress(OSError):
                found[str(path)] = path.stat().st_mtime_ns
    return found
