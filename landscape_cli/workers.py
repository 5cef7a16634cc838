"""Several processes of one machine for one experiment's points: one a GPU, or as many as are asked for.

They share the points as any processes on one output folder do, by claims; where they wait for each other, the others
take over what one that dies leaves.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as ready
from multiprocessing.process import BaseProcess

from tqdm import tqdm

from landscape_cli.config import Config
from landscape_cli.errors import BadInput, MeasurementFailed
from landscape_cli.measuring import Crew, Failure, Outcome, find_device, measure_all
from landscape_cli.memory import keep_freed_memory
from landscape_cli.plan import Located, Plan, make_plan
from landscape_cli.provenance import command, remember

Readers = dict[Connection, BaseProcess]  # where a process reports, and the process
LOOK = 0.5  # seconds between two counts of what is stored


def worker_devices(config: Config, points: int) -> list[str]:
    """Devices of the processes that are to share so many points; one device: no other process is needed."""
    import torch

    device = find_device(config.device)
    gpus = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    count = min(config.workers or gpus, points)
    if gpus < 2:
        return [config.device] * count
    return [f"cuda:{number % gpus}" for number in range(count)]


def measure_by_workers(plan: Plan, todo: Sequence[Located], wait: bool, devices: Sequence[str]) -> Outcome:
    """Measure points as :func:`~landscape_cli.measuring.measure_all` does, by as many processes as devices are named.

    A point's numbers do not depend on how many there are, except where an experiment gives an operator all the threads:
    each process has its share of these, or as many as ``threads`` says.
    """
    spawn = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # else it is begun with the first process, and lets Ctrl-C through
    keys = [item.key for item in todo]
    crew = Crew(uuid.uuid4().hex, len(devices))
    readers: Readers = {}
    try:
        for number, device in enumerate(devices):
            # Each begins elsewhere, so that they do not meet at every point.
            begin = number * len(keys) // len(devices)
            config = replace(plan.config, device=device, workers=1)
            reader, writer = spawn.Pipe(duplex=False)
            job = (config, keys[begin:] + keys[:begin], wait, crew, command(), writer)
            process = spawn.Process(target=_work, args=job)
            # Ctrl-C is this process's to hear, which ends the others; they inherit that it is blocked. They inherit the
            # default way of beginning processes, too, which a launcher may have changed to one that is only its own.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            usual = multiprocessing.get_start_method(allow_none=True)
            multiprocessing.set_start_method("spawn", force=True)
            try:
                process.start()
            finally:
                multiprocessing.set_start_method(usual, force=True)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            writer.close()
            readers[reader] = process
        failures = _gather(plan, todo, readers)
    finally:
        for process in readers.values():
            process.terminate()
            process.join()
    missing = [item for item in todo if not plan.stored(item)]
    if not missing:
        if failures:
            print(f"  {failures[0].label} {failures[0].error}; others took over what it left", file=sys.stderr)
        return Outcome()
    failed, claims = {failure.label for failure in failures}, plan.store.claims(plan.family)
    left = [item for item in missing if item.point.label not in failed and claims.owner(item.key)]
    claims.close()
    return Outcome(failures, left)


def _gather(plan: Plan, todo: Sequence[Located], readers: Readers) -> list[Failure]:
    """Show what is stored meanwhile, and put together the failures that the processes report."""
    left, failures = set(readers), []
    with tqdm(total=len(todo), desc=plan.config.name, unit="point", disable=None, dynamic_ncols=True) as bar:
        while left:
            for reader in ready(left, timeout=LOOK):
                left.discard(reader)
                try:
                    found = reader.recv()
                except EOFError:
                    readers[reader].join()
                    code = readers[reader].exitcode
                    died = MeasurementFailed(f"ended with code {code}")
                    failures.append(Failure("a worker process", died, None))
                    continue
                if isinstance(found, BaseException):
                    raise found
                known = {failure.label for failure in failures}
                failures += [failure for failure in found if failure.label not in known]
            bar.update(sum(plan.stored(item) for item in todo) - bar.n)
    return failures


def _work(config: Config, keys: Sequence[str], wait: bool, crew: Crew, typed: str, writer: Connection) -> None:
    """Measure what others have not claimed, then what they leave; report failures, or the error that stopped this."""
    threading.Thread(target=follow_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and left behind by one that is ended
    keep_freed_memory()
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // crew.size))
    remember(typed)
    try:
        plan = make_plan(config)
        located = {item.key: item for item in plan.located}
        if lost := set(keys) - set(located):
            raise BadInput(f"{config.name}: the data of {len(lost)} points is no longer what it was")
        found = measure_all(plan, [located[key] for key in keys], wait, crew).failures
    except Exception as error:
        error.add_note(traceback.format_exc())  # which is not sent with it
        found = error
    try:
        pickle.loads(pickle.dumps(found))
    except Exception:  # an error of a library may hold anything
        found = (
            MeasurementFailed(str(found))
            if isinstance(found, Exception)
            else [replace(failure, error=MeasurementFailed(str(failure.error))) for failure in found]
        )
    writer.send(found)
    writer.close()


def follow_parent() -> None:
    """End with the process that began this one, however it ends."""
    ready([multiprocessing.parent_process().sentinel])
    os._exit(1)
