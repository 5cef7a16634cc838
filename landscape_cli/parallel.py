"""Independent tasks on threads of this process.

PyTorch's operators release the interpreter's lock, so that tasks of a millisecond run side by side. Unlike the threads
inside an operator they do not wait for each other at every step, and so do not stall beside another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Task, Outcome = TypeVar("Task"), TypeVar("Outcome")

_executor: ThreadPoolExecutor | None = None


def use_workers(count: int) -> None:
    """Set how many tasks run at once from now on; 1, as at the start: one after the other, in the calling thread."""
    global _executor
    if _executor is not None:
        _executor.shutdown()
    _executor = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) if count > 1 else None


def each(function: Callable[[Task], Outcome], tasks: Iterable[Task]) -> list[Outcome]:
    """Outcomes of the tasks, in their order, without gradients; they do not depend on the number of workers."""

    def run(task: Task) -> Outcome:
        with torch.no_grad():  # holds for one thread only
            return function(task)

    return list((map if _executor is None else _executor.map)(run, tasks))
