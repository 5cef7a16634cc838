"""The loop: read what is stored, measure what is missing, store each point at once, then draw.

A point that fails does not stop the others; Ctrl-C and kill -9 lose at most the points being measured. Any number of
processes can run on one output folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from landscape_cli import provenance
from landscape_cli.claims import draft_name
from landscape_cli.config import Config
from landscape_cli.cost import check_cost, worth_telling
from landscape_cli.drawn import recall_drawn
from landscape_cli.errors import INTERRUPTED, BadInput, CannotWrite, DamagedPoint, LandscapeError, out_of_space
from landscape_cli.measuring import Failure, device_name, find_device, measure_all, use_threads
from landscape_cli.plan import Located, Plan, make_plan
from landscape_cli.progress import Grid, write_grid
from landscape_cli.store import StoredPoint
from landscape_cli.submission import code_digest
from landscape_cli.tracking import check_tracking
from landscape_cli.variant import variant_name
from landscape_cli.workers import measure_by_workers, worker_devices


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int  # 0; 2 or 3 if every failure is bad input or missing data; 1 otherwise; 130 after Ctrl-C
    failures: Sequence[Failure] = ()
    drawn: bool = False  # whatever could be
    missing: int = 0  # points of the grid that were not drawn


def run(config: Config, overrides: Sequence[str] = (), only: frozenset[str] | None = None) -> int:
    """As :func:`attempt`, for the exit code alone."""
    return attempt(config, overrides, only).code


def attempt(config: Config, overrides: Sequence[str] = (), only: frozenset[str] | None = None) -> Ending:
    """Measure an experiment's missing points, then draw its figures, tables and claims.

    Parameters
    ----------
    only
        Keys of the points that are this process's to measure; None: all, or those of ``shard``. A process that has
        only a share of the points does not wait for those that others are measuring.

    Raises
    ------
    LandscapeError
        Before anything is measured, or if nothing could be.
    """
    try:
        return _attempt(config, overrides, only)
    except (OSError, CannotWrite) as error:
        output = Path(config.output_dir).expanduser()
        if not out_of_space(error):
            raise
        what = f"{error.filename or output}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise CannotWrite(
            f"{what}; every point that was stored is whole. With room to write, the same command goes on from there"
        ) from error


def _attempt(config: Config, overrides: Sequence[str], only: frozenset[str] | None) -> Ending:
    plan = make_plan(config, download=not config.dry_run)
    if plan.unlocated and not plan.located:
        raise next(iter(plan.unlocated.values()))[1]
    if config.dry_run:
        return Ending(_dry_run(plan))
    if only is not None and (lost := only - {item.key for item in plan.located}):
        if plan.unlocated:
            raise next(iter(plan.unlocated.values()))[1]
        raise BadInput(
            f"{config.name}: {len(lost)} of the points that were submitted are other ones here: the data that "
            "`landscape data where` finds is not the same. Submit again"
        )
    check_tracking(config)
    _check_writable(plan)
    plan.store.tidy(plan.family)
    failures = [Failure(point.label, error, None) for point, error in plan.unlocated_shard] if only is None else []
    print(f"{config.name}: {config.title}", flush=True)
    whole_grid, code = only is None and config.shard.count == 1, code_digest(config.family)
    if whole_grid and not config.tracking and (drawn := recall_drawn(plan, overrides)):
        stored = len({item.key for item in plan.located})
        print(f"  {len(plan.located)} points: {stored} stored, 0 to measure", flush=True)
        write_grid(Path(config.output_dir).expanduser(), grid_of(plan, overrides))
        for line in [*drawn.lines, *drawn.files]:
            print(f"  {line}")
        return Ending(0, drawn=True)
    mine = plan.shard if only is None else tuple(item for item in plan.located if item.key in only)
    stored = _read_stored(plan, mine)
    todo = [located for located in mine if located.key not in stored]
    there = len(stored) if whole_grid else sum(plan.stored(item) for item in plan.located)
    share = f", shard {config.shard.index} of {config.shard.count}" if config.shard.count > 1 else ""
    share = f" of this job's {len(mine)}" if only is not None else share
    print(f"  {len(plan.located)} points: {there} stored, {len(todo)} to measure{share}", flush=True)
    if todo and (operations := worth_telling(plan, todo)):
        device = find_device(config.device)
        use_threads(plan)
        check_cost(config, operations, device, device_name(device))
    write_grid(Path(config.output_dir).expanduser(), grid_of(plan, overrides))
    if todo:
        try:
            devices = worker_devices(config, len(todo))
            if len(devices) > 1:
                outcome = measure_by_workers(plan, todo, whole_grid, devices)
            else:
                outcome = measure_all(plan, todo, whole_grid)
        except KeyboardInterrupt:
            done = sum(plan.stored(located) for located in plan.located)
            print(
                f"\nstopped: {done} of {len(plan.located)} points are stored; the same command goes on from there",
                file=sys.stderr,
            )
            return Ending(INTERRUPTED)
        failures += outcome.failures
        if outcome.left:
            print(f"  {len(outcome.left)} points are left to the processes that are measuring them")
    if whole_grid or all(plan.stored(item) for item in plan.located):
        stored = _read_stored(plan, plan.located, stored)
    refused = {str(failure.error) for failure in failures if isinstance(failure.error, BadInput)}
    if not stored and len(refused) == 1 and all(isinstance(failure.error, BadInput) for failure in failures):
        raise failures[0].error  # found only when the data was read, but the same for all: one line
    drawn = bool(stored) and (whole_grid or len(stored) == len(plan.located))
    if whole_grid or len(stored) == len(plan.located):
        from landscape_cli.draw import draw

        failures += [Failure(f"drawing {name}", error, log) for name, error, log in draw(plan, stored, overrides, code)]
    else:
        missing = sum(not plan.stored(item) for item in plan.located)
        print(f"  shard done; {missing} points of other shards are missing, nothing drawn yet")
    missing = len(plan.unlocated) + sum(item.key not in stored for item in plan.located)
    return Ending(_report(failures), tuple(failures), drawn, missing)


def grid_of(plan: Plan, overrides: Sequence[str]) -> Grid:
    """List the points of a plan for ``landscape status``."""
    config = plan.config
    variant = variant_name(config.profile.name, overrides)
    return Grid(
        name=config.name,
        variant=variant,
        own=variant in ("", config.profile.name),
        profile=config.profile.name,
        family=plan.family,
        parameters=config.keep_parameters,
        points=tuple((item.key, item.point.label) for item in plan.located),
        without_data=len(plan.unlocated),
        command=provenance.command(),
        time=provenance.now(),
    )


def _dry_run(plan: Plan) -> int:
    for located in plan.shard:
        state = "stored " if plan.stored(located) else "missing"
        print(f"{state}  {located.key[:12]}  {located.point.label}")
    for point, error in plan.unlocated_shard:
        print(f"no data  {'':12}  {point.label}: {error}")
    missing = sum(not plan.stored(located) for located in plan.shard)
    print(f"{plan.config.name}: {len(plan.shard)} points, {missing} to measure")
    return next((error.exit_code for _, error in plan.unlocated_shard), 0)


def _check_writable(plan: Plan) -> None:
    """Refuse an output folder that cannot be written before anything is trained."""
    probe = plan.store.root / draft_name()
    try:
        plan.store.root.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        plan.store.open()
    except OSError as error:
        raise BadInput(f"output_dir: {plan.config.output_dir}: cannot be written ({error.strerror})") from error


def _read_stored(plan: Plan, located: Sequence[Located], known: dict[str, StoredPoint] | None = None) -> dict:
    stored = dict(known or {})
    for item in located:
        if item.key in stored or not plan.store.has(plan.family, item.key):
            continue
        try:
            read = plan.store.read(plan.family, item.key)
            if plan.stored(item):  # with its parameters, if they are wanted
                stored[item.key] = read
        except DamagedPoint as error:
            print(f"damaged point {item.point.label}, it is measured again: {error}", file=sys.stderr)
    return stored


def _report(failures: Sequence[Failure]) -> int:
    if not failures:
        return 0
    print(f"{len(failures)} failed:", file=sys.stderr)
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        alike.setdefault(failure.reason, []).append(failure)
    for what, group in alike.items():
        more = f" and {len(group) - 1} more points" if len(group) > 1 else ""
        where = f" (log: {group[0].log})" if group[0].log else ""
        print(f"  {group[0].label}{more}: {what}{where}", file=sys.stderr)
    codes = {f.error.exit_code if isinstance(f.error, LandscapeError) else 1 for f in failures}
    return codes.pop() if len(codes) == 1 else 1
