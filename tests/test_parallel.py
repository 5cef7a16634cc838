"""Independent tasks on threads: their order, their errors, and tasks that have tasks of their own."""

import subprocess
import sys
import textwrap
import threading

import pytest
import torch

from landscape_cli import parallel


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def workers(request):
    parallel.use_workers(request.param)
    yield request.param
    parallel.use_workers(1)


@pytest.fixture
def two_workers():
    parallel.use_workers(2)
    yield
    parallel.use_workers(1)


def test_outcomes_are_in_the_order_of_the_tasks(workers):
    assert parallel.workers() == workers
    assert parallel.each(lambda task: task * task, iter(range(20))) == [task * task for task in range(20)]
    assert parallel.each(str, []) == []


def test_two_workers_run_two_tasks_at_once(two_workers):
    both = threading.Barrier(2)
    assert parallel.each(lambda task: both.wait(timeout=30) >= 0, range(2)) == [True, True]


def test_a_single_task_runs_in_the_calling_thread(workers):
    (ran,) = parallel.each(lambda _: threading.current_thread(), [0])
    assert ran is threading.current_thread()


def test_several_tasks_do_not_where_there_are_workers(workers):
    ran = parallel.each(lambda _: threading.current_thread(), range(4))
    assert (threading.current_thread() in ran) == (workers == 1)


@pytest.mark.parametrize("outer", [1, 2, 5])
def test_tasks_of_tasks_do_not_wait_for_each_other(outer):
    """In a process of its own: threads that wait for each other would never end."""
    script = textwrap.dedent(f"""
        import threading
        from landscape_cli import parallel

        def inner(task):
            return [task, threading.current_thread().name]

        def middle(task):
            return parallel.each(lambda own: parallel.each(inner, [(task, own, last) for last in range(3)]), range(3))

        parallel.use_workers(2)
        found = parallel.each(lambda task: (threading.current_thread().name, middle(task)), range({outer}))
        for task, (name, rows) in enumerate(found):
            assert [[own[0] for own in row] for row in rows] == [
                [(task, own, last) for last in range(3)] for own in range(3)
            ]
            if {outer} > 1:
                assert {{own[1] for row in rows for own in row}} == {{name}}  # a task's tasks are where it is
        assert parallel.each(lambda task: -task, range(4)) == [0, -1, -2, -3]  # the workers are still there
        parallel.use_workers(1)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tasks", [1, 4])
def test_an_error_comes_to_the_one_who_asked(workers, tasks):
    def failing(task):
        if task == tasks - 1:
            raise ZeroDivisionError(f"task {task}")
        return task

    with pytest.raises(ZeroDivisionError, match=f"task {tasks - 1}"):
        parallel.each(failing, range(tasks))
    threads = parallel.each(lambda _: threading.current_thread(), range(8))
    assert (threading.current_thread() in threads) == (workers == 1)  # no thread takes itself for busy


@pytest.mark.parametrize("tasks", [1, 3])
def test_tasks_record_no_graph(workers, tasks):
    weight = torch.ones(2, requires_grad=True)
    assert torch.is_grad_enabled()
    for product in parallel.each(lambda task: (task * weight).sum(), range(tasks)):
        assert not product.requires_grad
    assert torch.is_grad_enabled()


def test_operators_of_a_task_have_one_thread(two_workers):
    assert parallel.each(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
