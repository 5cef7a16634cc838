"""Tasks shared out among processes: all of them, each once, past processes that die."""

import os
import signal
import time

import pytest

from landscape_cli.processes import cores, shared_out


def square(x):
    yield x * x


def slow_first(x):
    time.sleep(1.0 if x == 0 else 0.0)
    yield x


def deadly(x):
    yield x
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    yield -x


def wrong(x):
    yield from ()
    raise ValueError(f"{x} is wrong")


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def odd(x):
    yield from ()
    raise Odd(x, lambda: x)


def threads(_):
    import torch

    yield os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


def identity_of(x):
    yield os.getpid()


def lost(x, done):
    return [("lost", x, done)]


def test_every_task_is_done_once():
    assert sorted(shared_out(square, range(7), 2, lost)) == [0, 1, 4, 9, 16, 25, 36]


def test_what_ends_first_is_yielded_first():
    assert list(shared_out(slow_first, [0, 1, 2, 3], 2, lost)) == [1, 2, 3, 0]


def test_a_process_does_many_tasks():
    assert len(set(shared_out(identity_of, range(6), 2, lost))) <= 2


def test_a_process_that_is_killed_takes_its_own_task_only():
    outcomes = list(shared_out(deadly, range(6), 2, lost))
    expected = [0, 0, 1, -1, 2, ("lost", 2, 1), 3, -3, 4, -4, 5, -5]  # what it had come to before stays
    assert sorted(map(str, outcomes)) == sorted(map(str, expected))


def test_an_error_is_raised_here():
    with pytest.raises(ValueError, match="is wrong"):
        list(shared_out(wrong, [3], 1, lost))


def test_an_error_that_cannot_be_sent_is_told():
    with pytest.raises(RuntimeError, match="Odd: 3"):
        list(shared_out(odd, [3], 1, lost))


def test_processes_share_the_cores_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    share = max(1, cores() // 2)
    assert set(shared_out(threads, range(2), 2, lost)) == {(str(share), share)}
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set(shared_out(threads, [0], 1, lost)) == {("1", 1)}
    assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    assert set(shared_out(threads, [0], 1, lost)) == {(str(cores()), cores())}
