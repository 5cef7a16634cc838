"""Tasks shared out among processes of this machine; one that dies takes its own task with it and no other."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from tqdm import tqdm

from landscape_cli.memory import keep_freed_memory
from landscape_cli.workers import follow_parent

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

THREADS = "OMP_NUM_THREADS"


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_out(
    work: Callable[[Task], Iterable[Outcome]],
    tasks: Sequence[Task],
    processes: int,
    died: Callable[[Task, int], Iterable[Outcome]],
) -> Iterator[Outcome]:
    """Yield what becomes of the tasks as soon as it does; they begin in their order.

    Parameters
    ----------
    work
        A function of a module, so that a process can import it, from a task to its outcomes; an error that it raises is
        raised here.
    died
        What is yielded of a task whose process was killed when it had come to so many outcomes.
    """
    waiting = list(reversed(tasks))
    began: dict[Connection, tuple[multiprocessing.Process, Task | None]] = {}
    come: dict[Connection, int] = {}
    try:
        while waiting or any(task is not None for _, task in began.values()):
            while waiting and len(began) < processes:
                process, connection = _begin(work, processes)
                began[connection] = (process, None)
            for connection, (process, task) in began.items():
                if task is None and waiting:
                    began[connection] = (process, waiting.pop())
                    come[connection] = 0
                    connection.send(began[connection][1])
            for connection in wait([one for one, (_, task) in began.items() if task is not None]):
                process, task = began[connection]
                try:
                    ended, outcome = connection.recv()
                except EOFError:
                    process.join()
                    del began[connection]
                    yield from died(task, come[connection])
                    continue
                if ended:
                    began[connection] = (process, None)
                    if outcome is not None:
                        raise outcome
                    continue
                come[connection] += 1
                yield outcome
    finally:
        for process, _ in began.values():
            process.terminate()
        for process, _ in began.values():
            process.join()


def _begin(work: Callable, processes: int) -> tuple[multiprocessing.Process, Connection]:
    """Start a process that has its share of the cores. Ctrl-C is this one's to hear, which ends the others."""
    spawn = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # else it is begun with the first process, and lets Ctrl-C through
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(work, there))
    chosen, share = os.environ.get(THREADS), max(1, cores() // processes)
    os.environ[THREADS] = str(min(int(chosen), share) if chosen and chosen.isdecimal() else share)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        del os.environ[THREADS]
        if chosen is not None:
            os.environ[THREADS] = chosen
    there.close()
    return process, here


def _serve(work: Callable, connection: Connection) -> None:
    """Do one task after the other, until there are no more."""
    threading.Thread(target=follow_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and left behind by one that is ended
    keep_freed_memory()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        failure = None
        try:
            for outcome in work(task):
                connection.send((False, outcome))
        except Exception as error:
            failure = _portable(error)
        connection.send((True, failure))


def _portable(error: Exception) -> Exception:
    """An error that can be sent: the same, or its traceback where it holds what cannot be."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error of a library may hold anything
        return RuntimeError("".join(traceback.format_exception(error)))
    error.add_note(traceback.format_exc())  # which is not sent with it
    return error
