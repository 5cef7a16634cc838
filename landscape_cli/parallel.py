"""Independent tasks on threads of this process.

PyTorch's operators release the interpreter's lock, so that tasks of a millisecond run side by side. Unlike the threads
inside an operator they do not wait for each other at every step, and so do not stall beside another process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Task, Outcome = TypeVar("Task"), TypeVar("Outcome")

_executor: ThreadPoolExecutor | None = None
_inside = threading.local()  # of a task


def use_workers(count: int) -> None:
    """Set how many tasks run at once from now on; 1, as at the start: one after the other, in the calling thread."""
    global _executor
    if _executor is not None:
        _executor.shutdown()
    _executor = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) if count > 1 else None


def workers() -> int:
    """How many tasks run at once."""
    return 1 if _executor is None else _executor._max_workers


def each(function: Callable[[Task], Outcome], tasks: Iterable[Task]) -> list[Outcome]:
    """Outcomes of the tasks, in their order, without gradients; they do not depend on the number of workers.

    Tasks of a task, and a single one, run in the thread that asks for them.
    """
    tasks = list(tasks)
    alone = _executor is None or len(tasks) < 2 or getattr(_inside, "task", False)

    def run(task: Task) -> Outcome:
        with torch.no_grad():  # holds for one thread only
            return function(task)

    def marked(task: Task) -> Outcome:
        _inside.task = True
        try:
            return run(task)
        finally:
            _inside.task = False

    if alone:
        return list(map(run, tasks))
    futures = [_executor.submit(marked, task) for task in tasks]
    for future in wait(futures, return_when=FIRST_EXCEPTION).not_done:
        future.cancel()
    wait(futures)  # none goes on when this has returned
    return [future.result() for future in futures]
