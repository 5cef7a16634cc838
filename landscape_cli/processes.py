"""Tasks shared out among processes of this machine; one that dies takes its own task with it and no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
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
    work: Callable[[Task], Outcome], tasks: Sequence[Task], processes: int, died: Callable[[Task], Outcome]
) -> Iterator[Outcome]:
    """Yield what becomes of the tasks as they end; they begin in their order.

    Parameters
    ----------
    work
        A function of a module, so that a process can import it; an error that it raises is raised here.
    died
        What is yielded for a task whose process was killed.
    """
    waiting = list(reversed(tasks))
    began: dict[Connection, tuple[multiprocessing.Process, Task | None]] = {}
    try:
        while waiting or any(task is not None for _, task in began.values()):
            while waiting and len(began) < processes:
                process, connection = _begin(work, processes)
                began[connection] = (process, None)
            for connection, (process, task) in began.items():
                if task is None and waiting:
                    began[connection] = (process, waiting.pop())
                    connection.send(began[connection][1])
            for connection in wait([one for one, (_, task) in began.items() if task is not None]):
                process, task = began[connection]
                try:
                    outcome = connection.recv()
                except EOFError:
                    process.join()
                    del began[connection]
                    yield died(task)
                    continue
                began[connection] = (process, None)
                if isinstance(outcome, BaseException):
                    raise outcome
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
    chosen = os.environ.get(THREADS)
    os.environ[THREADS] = chosen or str(max(1, cores() // processes))
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
        try:
            outcome = work(task)
        except Exception as error:
            outcome = error
        connection.send(outcome)
