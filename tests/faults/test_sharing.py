"""Several processes on one store: each point is measured once, the dead are replaced, and shards make up the whole."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from fault_toys import REAL, assert_same, documents_of, hidden, logged, tables_of, toy

from landscape_cli.claims import STALE, myself
from landscape_cli.store import Store

FAMILY = "Logged"


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


@pytest.fixture
def output():
    return Path(os.environ["LANDSCAPE_OUTPUTS"])


class TestAtOnce:
    def test_four_processes_measure_each_point_once(self, forks, output):
        words = toy(24, "+measure.seconds=0.02")
        children = [forks.start(*words) for _ in range(4)]
        assert [child.wait() for child in children] == [0] * 4, [child.err for child in children]
        assert sorted(logged()) == list(range(24))
        assert [child.err for child in children] == [""] * 4
        for child in children:
            assert child.out.count("logged.png") == 1, child.out
        assert len(documents_of(output)) == 24
        assert hidden(output) == []

    def test_work_is_shared(self, forks, output):
        """No process is left to do the work alone, or waits where there is something to do."""
        words = toy(24, "+measure.seconds=0.1")
        children = [forks.start(*words) for _ in range(2)]
        assert [child.wait() for child in children] == [0, 0]
        shares = [line.split()[1] for line in Path(os.environ["LANDSCAPE_TEST_LOG"]).read_text().splitlines()]
        assert min(shares.count(pid) for pid in {str(child.pid) for child in children}) >= 4, shares

    def test_a_failing_point_fails_for_each(self, forks, output):
        """A failure is no result: each process that wants the point tries it."""
        words = toy(8, "+measure.seconds=0.02", "+measure.failing=[3]")
        children = [forks.start(*words) for _ in range(3)]
        assert [child.wait() for child in children] == [1] * 3
        for child in children:
            assert child.lines[0] == "1 failed:", child.err
            assert len(child.lines) == 2, child.err
        others = [x for x in logged() if x != 3]
        assert sorted(others) == [0, 1, 2, 4, 5, 6, 7]
        code, child = forks.run(*toy(8))
        assert code == 0, child.err
        assert hidden(output) == []


class TestTakeover:
    def test_of_a_killed_process_at_once(self, forks, output):
        slow = forks.start(*toy(1, "+measure.seconds=300"))
        until(lambda: logged() == [0])
        waiting = forks.start(*toy(1))
        until(lambda: "waiting for 1 point" in waiting.out)
        assert f"process {slow.pid} on" in waiting.out
        assert slow.kill() is not None
        killed = time.monotonic()
        assert waiting.wait(20) == 0, waiting.err
        assert time.monotonic() - killed < 10  # two seconds between two looks; the rest is for drawing
        assert logged() == [0, 0]
        assert hidden(output) == []

    def test_of_a_stopped_process_never(self, forks, output):
        slow = forks.start(*toy(1, "+measure.seconds=3"))
        until(lambda: logged() == [0])
        slow.send(signal.SIGSTOP)
        waiting = forks.start(*toy(1))
        until(lambda: "waiting for 1 point" in waiting.out)
        time.sleep(3)
        assert waiting.poll() is None
        code, status = forks.run("status")
        assert code == 0
        assert f"running  x=0: process {slow.pid} on" in status.out
        slow.send(signal.SIGCONT)
        assert slow.wait() == 0, slow.err
        assert waiting.wait() == 0, waiting.err
        assert logged() == [0]
        assert hidden(output) == []

    def test_of_another_machine_when_it_gives_no_sign(self, forks, output):
        """A claim that says another machine's name is kept while it is fresh, and taken over when it is old."""
        code, child = forks.run(*toy(1), "--dry-run")
        assert code == 0
        code, child = forks.run(*toy(2, "shard.count=2"))  # makes the store
        assert code == 0, child.err
        (own,) = documents_of(output)
        code, child = forks.run(*toy(2, "shard.count=2", "shard.index=1"), at=("claiming", 1, "kill -9 $PPID"))
        assert code == -signal.SIGKILL
        listed = json.loads(next((output / "runs/grids").glob("*.json")).read_text())["points"]
        (key,) = {key for key, _ in listed} - {own}
        folder = Store(output).claims(FAMILY).folder / key
        folder.mkdir(parents=True)
        owner = folder / ("0" * 32)
        owner.write_text(json.dumps({**vars(myself()), "host": "elsewhere", "machine": "elsewhere boot"}))
        waiting = forks.start(*toy(2))
        until(lambda: "waiting for 1 point" in waiting.out)
        assert "on elsewhere" in waiting.out
        time.sleep(2)
        assert waiting.poll() is None
        os.utime(owner, (time.time() - STALE - 1,) * 2)
        assert waiting.wait(20) == 0, waiting.err
        assert logged() == [0, 1]
        assert hidden(output) == []


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """Networks measured by one process."""
    folder = tmp_path_factory.mktemp("whole")
    code, child = server.run("run", *REAL, f"output_dir={folder}", seconds=120)
    assert code == 0, child.err
    return folder


class TestShards:
    @pytest.mark.parametrize("together", [False, True], ids=["one after another", "at once"])
    def test_three_give_what_one_gives(self, forks, whole, output, together):
        children = []
        for index in range(3):
            children.append(forks.start("run", *REAL, "shard.count=3", f"shard.index={index}"))
            if not together:
                assert children[-1].wait() == 0, children[-1].err
        assert [child.wait(120) for child in children] == [0] * 3, [child.err for child in children]
        code, child = forks.run("run", *REAL)  # of shards at once none may have seen all the points
        assert code == 0, child.err
        assert "4 points: 4 stored, 0 to measure" in child.out
        assert_same(output, whole)
        assert tables_of(output)
        assert hidden(output) == []
