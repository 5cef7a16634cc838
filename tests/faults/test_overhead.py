"""Ten thousand trivial points: what the runner and the store take for each, in time, memory and open files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_toys import LOG, TOY, hidden

from landscape_cli.store import Store

POINTS = int(os.environ.get("LANDSCAPE_TEST_POINTS", "10000"))


def timed(forks, *words):
    began = time.monotonic()
    code, child = forks.run(*words, seconds=400)
    assert code == 0, child.err
    assert child.err == ""
    return time.monotonic() - began


def best_of_three(*words):
    """Seconds of a command in a process of its own, and what it printed."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        command = [sys.executable, "-m", "landscape_cli.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.monotonic() - began)
    return min(times), done.stdout


class TestManyPoints:
    @pytest.fixture
    def output(self):
        return Path(os.environ["LANDSCAPE_OUTPUTS"])

    def test_overhead(self, forks, output, capsys):
        def words(count):
            return ("run", *TOY, f"+measure.n={count}", "plot.dpi=50")

        start = min(timed(forks, *words(1)) for _ in range(3))
        os.environ[LOG] = str(Path(os.environ[LOG]).with_name("many.log"))
        seconds = timed(forks, *words(POINTS)) - start
        lines = [line.split() for line in Path(os.environ[LOG]).read_text().splitlines()]
        early, late = (int(lines[place * (POINTS // 10)][2]) for place in (1, 9))
        assert lines[-1][3] == lines[0][3], "files are left open"
        again = timed(forks, *words(POINTS)) - start
        reading = self._reading(output)
        status, told = best_of_three("status", f"output_dir={output}")
        with capsys.disabled():
            print(
                f"\n{POINTS} points, of each {1000 * (seconds - again + reading) / POINTS:.2f} ms to measure, store "
                f"and read, {1000 * (again - reading) / POINTS:.2f} ms to draw and tabulate; memory grew by "
                f"{(late - early) / 2**20:.1f} MiB while measuring; landscape status {status:.2f} s"
            )
        assert f"{POINTS} points: {POINTS} stored" in told
        assert hidden(output) == []
        assert (late - early) / 2**20 < 60
        assert status < 1.5

    def _reading(self, output):
        """Seconds in which every point is read and checked."""
        store = Store(output)
        folders = [path.parent for path in (output / "results").glob("*/*/point.json")]
        assert len(folders) >= POINTS
        began = time.monotonic()
        for folder in folders:
            store.read(folder.parent.name, folder.name)
        return time.monotonic() - began
