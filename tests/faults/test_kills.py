"""``kill -9`` at any moment loses at most the points being measured, and leaves nothing to trip over."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from fault_toys import REAL, assert_same, assert_whole, documents_of, hidden, logged, toy

KILLS = int(os.environ.get("LANDSCAPE_TEST_KILLS", "200"))
ROUND = 20  # kills of runs into one folder, before it is completed and compared
AT_ONCE = 4
COMMANDS = {"toy": toy(40, "+measure.seconds=0.03"), "networks": ("run", *REAL)}
# The phases that a kill has to come in; others (starting, claiming, syncing …) are counted and shown too.
BEFORE = ("starting", "opening the store", "making the run folder", "writing the list of points")
MEASURING = (
    "measuring",
    "claiming",
    "releasing",
    "storing",
    "syncing",
    "forgetting",
    "writing a checkpoint",
    "waiting",
)
DRAWING = ("drawing", "writing a figure", "writing a table")


# Files that are replaced as a whole, and what a stored point no longer needs, stay after a kill: see TestLeftovers.
def _is_left(output):
    """What processes left in the results of families."""
    return [path for path in hidden(output) if path.startswith("results/") and path.count("/") > 1]


class TestRandomKills:
    def test_two_hundred(self, forks, tmp_path, monkeypatch, capsys):
        """Networks with checkpoints and a toy, four processes at once, killed at moments uniform over their lives."""
        chance, phases, lives = random.Random(0), Counter(), {}
        reference = tmp_path / "reference"
        monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(reference))
        for name, words in COMMANDS.items():
            began = time.monotonic()
            code, child = forks.run(*words)
            assert code == 0, child.err
            lives[name] = time.monotonic() - began
        began, rounds = time.monotonic(), 0
        while sum(phases.values()) < KILLS:
            rounds += 1
            output = tmp_path / f"round{rounds}"
            monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(output))
            phases += self._round(forks, chance, lives, min(ROUND, KILLS - sum(phases.values())))
            self._complete(forks, output, reference)
        with capsys.disabled():
            print(f"\n{sum(phases.values())} kills in {rounds} rounds, {time.monotonic() - began:.0f} s:", end=" ")
            print(", ".join(f"{count} {phase}" for phase, count in phases.most_common()))
        for group in (BEFORE, MEASURING, DRAWING):
            assert sum(phases[phase] for phase in group) >= KILLS // 20, f"no kill {group}: nothing was tested"
        # The toy sleeps while it measures, as a process does that waits; what is stored is synced most of the time.
        found = {
            "waiting": phases["waiting"],
            "storing": phases["storing"] + phases["syncing"],
            "drawing": phases["drawing"],
        }
        assert KILLS < 200 or all(found.values()), phases

    @staticmethod
    def _round(forks, chance, lives, kills):
        phases, living = Counter(), []
        while sum(phases.values()) < kills:
            while len(living) < AT_ONCE:
                name = chance.choice(("toy", "toy", "networks"))
                now = time.monotonic()
                living.append((name, now, now + chance.uniform(0, 1.2 * lives[name]), forks.start(*COMMANDS[name])))
            for one in list(living):
                name, began, due, child = one
                if child.poll() is not None:
                    assert child.poll() == 0, child.err
                    # Longer than alone, and shorter the more points are stored.
                    lives[name] = (lives[name] + time.monotonic() - began) / 2
                    living.remove(one)
                elif time.monotonic() > due:
                    if phase := child.kill():
                        phases[phase] += 1
                    living.remove(one)
                assert child.err == ""
            time.sleep(0.003)
        for *_, child in living:
            if phase := child.kill():
                phases[phase] += 1
        return phases

    @staticmethod
    def _complete(forks, output, reference):
        assert_whole(output)
        before = documents_of(output)
        for words in COMMANDS.values():
            code, child = forks.run(*words)
            assert code == 0, child.err
            assert child.err == ""
        after = documents_of(output)
        assert after.keys() == documents_of(reference).keys()
        assert all(after[key] == document for key, document in before.items())  # none was measured twice
        assert_same(output, reference)
        assert _is_left(output) == []
        assert not list(output.glob("results/*/.failed"))


class TestLeftovers:
    """A kill at the entry of a phase; then the same command completes and leaves nothing hidden behind."""

    def _kill_and_complete(self, forks, tmp_path, words, phase, count=1):
        output = Path(os.environ["LANDSCAPE_OUTPUTS"])
        code, child = forks.run(*words, at=(phase, count, "kill -9 $PPID"))
        assert code == -signal.SIGKILL, f"not killed: {child.out}{child.err}"
        assert_whole(output)
        code, child = forks.run(*words)
        assert code == 0, child.err
        assert child.err == ""
        code, child = forks.run("status")
        assert code == 0, child.err
        return output, child.out

    @pytest.mark.parametrize(
        ("phase", "count"),
        [
            ("opening the store", 1),
            ("making the run folder", 1),
            ("writing the list of points", 1),
            ("measuring", 1),
            ("claiming", 3),
            ("storing", 3),
            ("syncing", 2),
            ("forgetting", 3),  # the point is stored by then
            ("releasing", 3),
            ("writing a figure", 1),
            ("writing a table", 1),
        ],
    )
    def test_of_the_toy(self, forks, tmp_path, phase, count):
        output, status = self._kill_and_complete(forks, tmp_path, toy(4), phase, count)
        assert "4 points: 4 stored" in status
        assert _is_left(output) == []
        repeated = len(logged()) - len(set(logged()))
        assert repeated <= (phase in ("storing", "syncing"))  # the point that was being stored

    @pytest.mark.parametrize("phase", ["writing a checkpoint", "forgetting"])
    def test_of_networks(self, forks, tmp_path, phase):
        output, _ = self._kill_and_complete(forks, tmp_path, ("run", *REAL), phase, 3)
        assert _is_left(output) == []

    @pytest.mark.parametrize("place", ["the format", "the list", "in figures", "in tables"])
    def test_drafts_of_whole_files(self, forks, tmp_path, place):
        """Drafts of files that are replaced as a whole are nobody's after a kill."""
        output = Path(os.environ["LANDSCAPE_OUTPUTS"])
        code, child = forks.run(*toy(2), at=(f"replacing {place}", 1, "kill -9 $PPID"))
        if code != -signal.SIGKILL or not hidden(output):
            pytest.exit("the kill came where there is no draft: the test tests nothing")
        code, child = forks.run(*toy(2))
        assert code == 0, child.err
        assert hidden(output) == []
