"""Disks that are full or can only be read: one line, nothing lost, and the same command goes on when there is room."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fault_toys import REAL, assert_same, assert_whole, documents_of, hidden, toy

NOBODY = 65534
TOY = toy(6, "+measure.size=5000")  # 40 kB a point
LARGE = toy(6, "+measure.size=20000")  # 160 kB a point
PAGE = 4096
LARGE_NETWORK = {
    **{"grid.hidden_size": "[64]", "grid.num_layers": "[10]"},
    **{"model.hidden_size": 64, "model.num_layers": 10},
}


def fill(filler, left=0):
    """Return the shell command that fills a disk with a file up to some last kilobytes."""
    return f"dd if=/dev/zero of={filler} bs=4k; truncate -s -{left}K {filler}"


def said_in_one_line(child, code, folder, *texts):
    """Check that a command ended with one line that says what is wrong and where."""
    shown = f"exit code {child.poll()}, {child.phase}, stderr:\n{child.err}"
    assert child.poll() in code, shown
    assert len(child.lines) == 1, shown
    assert "Traceback" not in child.err + child.out, shown
    assert "unexpected" not in child.err, shown
    assert str(folder) in child.err, shown
    assert any(text in child.err for text in texts), shown


@pytest.fixture
def reference(forks, tmp_path):
    """What undisturbed runs of the toy and of networks give."""
    made = {}

    def of(words):
        folder = made.setdefault(words, tmp_path / f"reference{len(made)}")
        if not folder.exists():
            code, child = forks.run(*words, f"output_dir={folder}")
            assert code == 0, child.err
        return folder

    return of


@pytest.fixture
def output(disk, monkeypatch):
    folder = disk / "outputs"
    monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(folder))
    return folder


class TestFull:
    def _goes_on(self, forks, words, output, reference, before):
        code, child = forks.run(*words)
        assert code == 0, child.err
        after = documents_of(output)
        assert all(after[key] == document for key, document in before.items())
        assert_same(output, reference(words))
        assert [path for path in hidden(output) if "draft" in path] == []

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
    def test_disk_of_a_size(self, forks, disk, remount, output, reference, share):
        """Large enough for more and more of the run: it is full at a point, at the figure or at the table."""
        sizes = [path.stat().st_size for path in reference(TOY).rglob("*") if path.is_file()]
        pages = sum(-(-size // PAGE) for size in sizes)
        remount(f"size={int(share * pages) * PAGE}")
        _, child = forks.run(*TOY)
        said_in_one_line(child, (1, 2), output, "No space left", "disk is full")
        before = documents_of(output)
        assert assert_whole(output) == before.keys()
        remount("size=16m")
        self._goes_on(forks, TOY, output, reference, before)

    def test_while_large_arrays_are_written(self, forks, disk, output):
        filler = disk / "filler"
        _, child = forks.run(*LARGE, at=("storing", 1, fill(filler, 120)))
        said_in_one_line(child, (1, 2), output, "No space left", "disk is full")

    @pytest.mark.parametrize("left", [100, 200])
    def test_while_parameters_are_written(self, forks, disk, output, left):
        filler = disk / "filler"
        words = ("run", *(word for word in REAL if word != "checkpoint=true"), "keep_parameters=true")
        _, child = forks.run(*words, at=("storing", 1, fill(filler, left)))
        said_in_one_line(child, (1, 2), output, "No space left", "disk is full")

    @pytest.mark.parametrize(
        ("phase", "count", "stored"),
        [
            ("opening the store", 1, 0),
            ("writing the list of points", 1, 0),
            ("making the run folder", 1, 0),
            ("claiming", 1, 0),
            ("claiming", 4, 3),
            ("storing", 1, 0),
            ("storing", 6, 5),
            ("writing a figure", 1, 6),
            ("writing a table", 1, 6),
        ],
    )
    @pytest.mark.parametrize("left", [0, 8])
    def test_at_a_phase(self, forks, disk, output, reference, phase, count, stored, left):
        """Something else fills the disk, to the last kilobytes, when the phase is entered."""
        filler = disk / "filler"
        code, child = forks.run(*TOY, at=(phase, count, fill(filler, left)))
        assert filler.exists(), "the phase was not entered"
        before = documents_of(output)
        if code or not left:  # a few kilobytes may do
            said_in_one_line(child, (1, 2), output, "No space left", "disk is full")
            assert len(before) >= stored
        assert assert_whole(output) == before.keys()
        status, told = forks.run("status")
        assert status == 0, told.err
        filler.unlink()
        self._goes_on(forks, TOY, output, reference, before)

    def test_while_a_failure_is_written(self, forks, disk, output, reference):
        filler = disk / "filler"
        _, child = forks.run(*TOY, "+measure.failing=[2]", at=("writing a failure", 1, fill(filler)))
        said_in_one_line(child, (1,), output, "No space left", "disk is full")
        before = documents_of(output)
        assert len(before) == 2
        filler.unlink()
        self._goes_on(forks, TOY, output, reference, before)

    @pytest.mark.parametrize("left", [0, 300])
    def test_while_a_checkpoint_is_written(self, forks, disk, output, reference, left):
        """With some kilobytes left a checkpoint does not fit, but a failure's log would: it is no failure."""
        # A single network, whose checkpoint takes a megabyte.
        sizes = [f"{group}={value}" for group, value in LARGE_NETWORK.items()]
        filler, words = disk / "filler", ("run", *REAL, *sizes)
        _, child = forks.run(*words, at=("writing a checkpoint", 1, fill(filler, left)))
        said_in_one_line(child, (1,), output, "No space left", "disk is full")
        filler.unlink()
        self._goes_on(forks, words, output, reference, {})

    def test_in_a_sweep(self, forks, disk, output):
        """Each job says it once; none has a traceback."""
        filler = disk / "filler"
        words = ("run", "-m", *TOY[1:], "seed=0,1")
        code, child = forks.run(*words, at=("storing", 2, fill(filler)))
        assert code in (1, 2)
        assert 1 <= len(child.lines) <= 2, child.err
        assert all("No space left" in line or "disk is full" in line for line in child.lines), child.err
        assert "Traceback" not in child.err


class TestReadOnly:
    def _can_be_looked_at(self, forks, output, before, **options):
        for words in (("status",), ("status", "logged"), ("show", "quickstart"), ("list",)):
            code, child = forks.run(*words, **options)
            assert code == 0, child.err
            assert child.err == ""
            if words[0] == "status":
                assert "6 points: 6 stored" in child.out
        assert assert_whole(output) == before.keys()
        assert documents_of(output) == before

    def test_disk(self, forks, disk, remount, output, reference):
        code, child = forks.run(*TOY)
        assert code == 0, child.err
        before = documents_of(output)
        remount("ro")
        for words in (TOY, (*TOY, "seed=1"), ("run", *REAL), ("figures", "quickstart", "profile=smoke")):
            _, child = forks.run(*words)
            if words[0] == "run":
                said_in_one_line(child, (1, 2), output, "Read-only")
            assert "Traceback" not in child.err
        self._can_be_looked_at(forks, output, before)
        remount("rw")
        code, child = forks.run(*TOY)
        assert code == 0, child.err
        assert "6 stored, 0 to measure" in child.out
        assert_same(output, reference(TOY))

    @pytest.mark.parametrize(
        ("phase", "count", "stored"),
        [("claiming", 2, 1), ("storing", 3, 2), ("writing a figure", 1, 6), ("writing a table", 1, 6)],
    )
    def test_disk_from_a_phase_on(self, forks, disk, remount, output, reference, phase, count, stored):
        """As kernels do it when a disk reports errors."""
        _, child = forks.run(*TOY, at=(phase, count, f"mount -o remount,ro {disk}"))
        said_in_one_line(child, (1, 2), output, "Read-only")
        before = documents_of(output)
        assert len(before) == stored
        remount("rw")
        code, child = forks.run(*TOY)
        assert code == 0, child.err
        assert_same(output, reference(TOY))
        assert len(documents_of(output)) == 6

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_folder_of_another_user(self, forks, tmp_path, monkeypatch):
        # Other users may not look into pytest's folders.
        made = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
        place = Path(made.stdout.strip())
        try:
            place.chmod(0o755)
            output = place / "outputs"
            monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(output))
            for name in ("home", "no-data"):
                (place / name).mkdir()
            monkeypatch.setenv("HOME", str(place / "home"))
            monkeypatch.setenv("LANDSCAPE_DATA", str(place / "no-data"))
            monkeypatch.chdir(place)
            code, child = forks.run(*TOY)
            assert code == 0, child.err
            before = documents_of(output)
            for words in (TOY, (*TOY, "seed=1"), ("run", *REAL)):
                _, child = forks.run(*words, uid=NOBODY)
                said_in_one_line(child, (1, 2), output, "Permission denied")
            self._can_be_looked_at(forks, output, before, uid=NOBODY)
        finally:
            shutil.rmtree(place)
