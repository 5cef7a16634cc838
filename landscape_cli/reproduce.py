"""``landscape reproduce``: every shipped experiment in order of cost, then the report; goes on past failures."""

from __future__ import annotations

import io
import json
import shlex
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

from landscape_cli.composing import load
from landscape_cli.config import Config
from landscape_cli.cost import duration, estimated_seconds
from landscape_cli.errors import INTERRUPTED, BadInput, CannotWrite, LandscapeError, MissingData, NothingGiven
from landscape_cli.listing import catalogue, check_experiment, check_no_experiment, items_of, shipped, thesis
from landscape_cli.measuring import Failure
from landscape_cli.plan import make_plan
from landscape_cli.processes import cores, shared_out
from landscape_cli.provenance import moment, remember_command
from landscape_cli.runner import attempt
from landscape_cli.store import replace_text
from landscape_cli.variant import variant_name

DRAWN, IN_PART, NO_DATA, FAILED = "drawn", "drawn in part", "data missing", "failed"
MOST_JOBS = 8  # that are begun without being asked for


@dataclass(frozen=True)
class Task:
    """An experiment to run."""

    name: str
    config: Config
    overrides: Sequence[str]


@dataclass(frozen=True)
class Result:
    """What became of one experiment."""

    name: str
    state: str  # DRAWN, IN_PART, NO_DATA or FAILED
    reasons: Sequence[str]  # why it is not whole, and what to do
    only_data: bool  # whether all of the reasons are missing data
    seconds: float
    command: str
    time: str = ""  # when it ended


def reproduce(words: Sequence[str], jobs: int | None = None, beyond: bool = False) -> int:
    """Run experiments in order of cost, print a table of what became of them, and write the report.

    Parameters
    ----------
    words
        Names of experiments (none: all of the catalogue, and the one of the theorems) and overrides that hold for each,
        mixed.
    jobs
        Processes that share the experiments; None: one a core where there is no GPU, else one.
    beyond
        Also those that the thesis lacks.

    Returns
    -------
    0 if all were drawn; 3 if nothing but data is missing; 130 after Ctrl-C; 1 otherwise.
    """
    overrides = [word for word in words if "=" in word]
    check_no_experiment(overrides)
    names = [word for word in words if "=" not in word] or of_the_report(beyond)
    configs, results = _composed(names, overrides)
    first = next(iter(configs.values()))
    output, variant = Path(first.output_dir).expanduser(), variant_name(first.profile.name, overrides)
    began = time.perf_counter()
    groups = [[Task(name, configs[name], overrides) for name in group] for group in cheapest_first(configs)]
    if not groups:
        raise BadInput(f"{', '.join(names)}: nothing to run")
    total = len(results) + sum(map(len, groups))
    jobs = 1 if first.debug else min(jobs or _default_jobs(), len(groups))
    try:
        for result, text in _in_turn(groups) if jobs == 1 else shared_out(run_quietly, groups, jobs, died):
            results.append(result)
            print(text, end="")
            print(f"[{len(results)}/{total}] {result.name}: {result.state}", flush=True)
            write_results(output, variant, results)
    except KeyboardInterrupt:
        done = sum(result.state == DRAWN for result in results)
        print(f"\nstopped: {done} of {total} experiments are drawn; the same command goes on from there")
        return INTERRUPTED
    _print_table(results, time.perf_counter() - began)
    from landscape_cli.report.write import write_report

    remember_command(["report", *overrides])
    write_report(output, variant, overrides, first.plot.language == "ru")
    if all(result.state == DRAWN for result in results):
        return 0
    return MissingData.exit_code if all(result.only_data for result in results if result.reasons) else 1


def of_the_report(beyond: bool) -> list[str]:
    """The experiments of the catalogue in its order, that of the theorems, and those that the thesis lacks if asked."""
    wanted = dict.fromkeys(name for item in catalogue() for name in item.experiments)
    wanted |= {thesis().theorems: None} | (dict.fromkeys(shipped()) if beyond else {})
    return [name for name in wanted if name in shipped()]


def _default_jobs() -> int:
    import torch

    return 1 if torch.cuda.is_available() else min(cores(), MOST_JOBS)


def _composed(names: Sequence[str], overrides: Sequence[str]) -> tuple[dict[str, Config], list[Result]]:
    """Compose every experiment; those that an override does not fit are results already.

    Raises
    ------
    BadInput
        If a name is unknown, or none of the experiments takes the overrides.
    """
    configs, refused, errors = {}, [], []
    for name in names:
        check_experiment(name)
        try:
            configs[name] = load([f"experiment={name}", *overrides])
        except BadInput as error:
            errors.append(error)
            refused.append(Result(name, FAILED, (str(error),), False, 0.0, command_of(name, overrides)))
    if not configs:
        raise errors[0]
    if any(config.dry_run or config.shard.count > 1 for config in configs.values()):
        raise BadInput("dry_run and shard: allowed with landscape run")
    return configs, refused


def cheapest_first(configs: Mapping[str, Config]) -> list[list[str]]:
    """Groups of experiments by the estimated time of their points that are not stored, the cheapest first.

    Experiments that share points are one group, which one process runs: another would wait for it.
    """
    groups: list[tuple[float, list[str], set[tuple[str, str]]]] = []
    for name, config in configs.items():
        try:
            plan = make_plan(config)
        except NothingGiven as error:  # nobody has named a network of their own
            print(f"{name}: skipped: {error}")
            continue
        except Exception:  # told when its turn comes
            groups.append((0.0, [name], set()))
            continue
        missing = {(plan.family, item.key): item for item in plan.located if not plan.stored(item)}
        cost, members, points = sum(estimated_seconds(plan, missing.values())), [name], set(missing)
        for other in [one for one in groups if one[2] & points]:
            groups.remove(other)
            cost, members, points = max(cost, other[0]), other[1] + members, other[2] | points
        groups.append((cost, members, points))
    return [members for _, members, _ in sorted(groups, key=lambda group: group[0])]


def _in_turn(groups: Sequence[Sequence[Task]]) -> Iterator[tuple[Result, str]]:
    """Run experiments in this process, which prints what they print."""
    for task in (task for group in groups for task in group):
        yield run_one(task), ""


def run_quietly(group: Sequence[Task]) -> Iterator[tuple[Result, str]]:
    """Run experiments, and yield with each what it printed."""
    for task in group:
        text = io.StringIO()
        with redirect_stdout(text), redirect_stderr(text):
            result = run_one(task)
        yield result, text.getvalue()


def died(group: Sequence[Task], done: int) -> list[tuple[Result, str]]:
    """What is said of experiments whose process was killed, when so many had ended."""
    reason = "its process died (killed, or out of memory); --jobs 1 leaves it all the memory"
    return [
        (Result(task.name, FAILED, (reason,), False, 0.0, command_of(task.name, task.overrides), moment()), "")
        for task in group[done:]
    ]


def run_one(task: Task) -> Result:
    """Run one experiment, past every error.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C.
    """
    name, config, overrides = task.name, task.config, task.overrides
    words = [f"experiment={name}", *overrides]
    remember_command(["run", *words])
    began, drawn = time.perf_counter(), False
    try:
        ending = attempt(config, words)
        if ending.code == INTERRUPTED:
            raise KeyboardInterrupt
        failures, drawn = ending.failures, ending.drawn
    except CannotWrite:  # of a full disk the others would say the same
        raise
    except Exception as error:
        if config.debug:
            raise
        log = None
        if not isinstance(error, LandscapeError):
            log = Path(config.output_dir).expanduser() / "runs" / f"{name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(traceback.format_exc())
        failures = [Failure(name, error, log)]
        print(f"{name}: {_reason(failures[0])}")
    only_data = all(isinstance(failure.error, MissingData) for failure in failures)
    state = IN_PART if drawn else NO_DATA if only_data else FAILED
    reasons = tuple(dict.fromkeys(_reason(failure) for failure in failures))
    if not reasons and drawn and ending.missing:
        reasons = (f"{ending.missing} points are not stored: another process is measuring them, or they are damaged",)
        state, only_data = IN_PART, False
    seconds = round(time.perf_counter() - began, 1)
    state = state if reasons else DRAWN
    return Result(name, state, reasons, only_data, seconds, command_of(name, overrides), moment())


def _reason(failure: Failure) -> str:
    return f"{failure.reason} (log: {failure.log})" if failure.log else failure.reason


def command_of(name: str, overrides: Sequence[str]) -> str:
    """What one would type for an experiment alone."""
    return shlex.join(["landscape", "run", f"experiment={name}", *overrides])


def _print_table(results: Sequence[Result], seconds: float) -> None:
    """Print a line an experiment, what was drawn first, and below those that are not whole why."""
    width = max(len(result.name) for result in results)
    print()
    for state in (DRAWN, IN_PART, NO_DATA, FAILED):
        for result in (one for one in results if one.state == state):
            makes = ", ".join(item.name for item in items_of(result.name)) or "beyond the thesis"
            print(f"{state:<13}  {result.name:<{width}}  {duration(result.seconds):>7}  {makes}")
            for reason in result.reasons:
                print(f"{'':15}{reason}")
            if result.reasons:
                print(f"{'':15}then: {result.command}")
    counts = {state: sum(result.state == state for result in results) for state in (DRAWN, IN_PART, NO_DATA, FAILED)}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print(f"\n{told}; {duration(seconds)}", flush=True)


def _place(output: Path, variant: str) -> Path:
    return output / "runs" / "reproduced" / f"{variant or 'paper'}.json"


def write_results(output: Path, variant: str, results: Sequence[Result]) -> None:
    """Leave what became of the experiments for the report, beside those of earlier commands."""
    kept = read_results(output, variant) | {result.name: result for result in results}
    replace_text(_place(output, variant), json.dumps([asdict(result) for result in kept.values()], indent=1))


def read_results(output: Path, variant: str) -> dict[str, Result]:
    """Read what became of each experiment the last time; nothing if nothing readable is there."""
    try:
        return {one["name"]: Result(**one) for one in json.loads(_place(output, variant).read_text())}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
