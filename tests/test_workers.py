"""Several processes of one command: what they store, what each of them measures, and how they end."""

import collections
import json
import os
import signal
import time
from pathlib import Path

import pytest
from test_runner import contents, documents, stored_files, until

from landscape_cli.claims import started_at
from landscape_cli.composing import load
from landscape_cli.store import Store
from landscape_cli.workers import worker_devices

FAMILY = '''
"""A toy that logs every measurement, for processes that have to import it."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from test_runner import Toy as Squares

from landscape_cli.errors import BadInput, MeasurementFailed
from landscape_cli.experiment import Measurement


@dataclass
class Options:
    x: int = 0
    seconds: float = 0.0
    failing: list[int] = field(default_factory=list)
    odd: str = ""


class Awkward(Exception):
    """Can be pickled, but not be made again from its text alone."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


class Stubborn(Exception):
    """Holds what cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.where = lambda: None


class Toy(Squares):
    Options = Options

    def measure(self, point, context):
        x, odd = point.settings["x"], self.config.measure.odd
        with Path(os.environ["TOY_LOG"]).open("a") as log:
            log.write(f"{x} {os.getpid()}\\n")
        time.sleep(self.config.measure.seconds)
        if x in self.config.measure.failing:
            if odd == "killed once":
                mark = Path(os.environ["TOY_LOG"] + ".mark")
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            elif odd == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                errors = {"": MeasurementFailed(f"x = {x} diverged"), "bad": BadInput("measure.x: too odd")}
                errors |= {"awkward": Awkward(f"x = {x}", "sea"), "stubborn": Stubborn(f"x = {x} stayed")}
                raise errors[odd]
        return Measurement({"squares": pd.DataFrame({"y": [x * x]})})
'''
TOY = ("experiment=schematic_loss_change", "name=toy", "family=workers_toy.Toy", "plot.formats=[png]", "plot.dpi=50")
SIX = (*TOY, "+grid.x=[1,2,3,4,5,6]", "+measure.seconds=0.1")
DIED = "  a worker process: ended with code -9"


@pytest.fixture(autouse=True)
def log(isolated, monkeypatch):
    """Where the toy says which point it measures, and in which process."""
    folder = isolated / "modules"
    folder.mkdir()
    (folder / "workers_toy.py").write_text(FAMILY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("TOY_LOG", str(isolated / "toy.log"))
    return isolated / "toy.log"


def measured_by(log) -> list[tuple[int, int]]:
    """Point and process of every measurement, in their order."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [tuple(map(int, line.split())) for line in lines]


def end(process, seconds=60):
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def children(pid) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(process) -> list[int]:
    """Those of its children that have become workers, not the tracker of multiprocessing's."""
    found = []
    for child in children(process.pid):
        try:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
        except OSError:
            continue
    return found


def assert_squares(output, count):
    squares = {document["settings"]["x"] for document in documents(output).values()}
    assert squares == set(range(1, count + 1))
    (table,) = output.glob("tables/*/toy.csv")
    assert table.read_text().splitlines() == ["x,y", *(f"{x},{x * x}" for x in range(1, count + 1))]


def assert_nothing_is_left(output):
    assert not [path for path in (output / "results").rglob(".*") if path.name.startswith((".draft", ".claims"))]


def test_numbers_are_those_of_one_process(start, measured_once, tmp_path, small):
    code, out, err = end(start("run", *small, "workers=2"))
    assert (code, err) == (0, "")
    assert stored_files(tmp_path / "outputs") == stored_files(measured_once)
    for kind in ("tables", "figures"):
        assert contents(tmp_path / "outputs", kind) == contents(measured_once, kind)
    assert "4 points: 0 stored, 4 to measure" in out
    assert_nothing_is_left(tmp_path / "outputs")


def test_every_point_is_measured_once_and_by_a_worker(start, log, tmp_path):
    process = start("run", *SIX, "workers=2")
    code, _, err = end(process)
    assert (code, err) == (0, "")
    points, processes = zip(*measured_by(log), strict=True)
    assert sorted(points) == [1, 2, 3, 4, 5, 6]
    assert process.pid not in processes
    assert len(set(processes)) <= 2
    assert_squares(tmp_path / "outputs", 6)
    assert_nothing_is_left(tmp_path / "outputs")
    for document in documents(tmp_path / "outputs").values():
        assert document["provenance"]["command"].startswith("landscape run")
        assert document["provenance"]["command"].endswith("workers=2")


@pytest.mark.slow
def test_more_processes_than_points(start, log, tmp_path):
    code, _, err = end(start("run", *TOY, "+grid.x=[1,2]", "workers=5"))
    assert (code, err) == (0, "")
    assert sorted(x for x, _ in measured_by(log)) == [1, 2]
    assert_squares(tmp_path / "outputs", 2)


def test_one_point_needs_no_other_process(start, log):
    process = start("run", *TOY, "+grid.x=[1]", "workers=3")
    code, _, err = end(process)
    assert (code, err) == (0, "")
    assert measured_by(log) == [(1, process.pid)]


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        ("", "x = 2 diverged"),
        pytest.param("stubborn", "x = 2 stayed", marks=pytest.mark.slow),
        pytest.param("awkward", "x = 2 at sea", marks=pytest.mark.slow),
    ],
)
def test_a_point_that_fails_is_said_once(start, log, tmp_path, odd, text):
    code, out, err = end(start("run", *SIX, "+measure.failing=[2]", f"+measure.odd={odd}", "workers=2"))
    assert code == 1
    first, line, *others = err.splitlines()
    assert (first, others) == ("1 failed:", []), err
    assert "x=2: " in line
    assert text in line
    assert "Traceback" in Path(line.rpartition("(log: ")[2].rstrip(")")).read_text()
    assert collections.Counter(x for x, _ in measured_by(log)) == dict.fromkeys(range(1, 7), 1)
    assert "MISSING 1 of 6 points" in out
    assert {document["settings"]["x"] for document in documents(tmp_path / "outputs").values()} == {1, 3, 4, 5, 6}


@pytest.mark.slow
def test_a_point_that_failed_is_measured_by_the_next_command(start, log, landscape, tmp_path):
    assert end(start("run", *SIX, "+measure.failing=[2]", "workers=2"))[0] == 1
    code, _, err = end(start("run", *SIX, "+measure.failing=[5,2]", "workers=2"))
    assert (code, err.count("\n"), err.count("x = 2 diverged")) == (1, 2, 1)
    assert [x for x, _ in measured_by(log)].count(2) == 2
    code, out, err = end(start("run", *SIX, "workers=2"))
    assert (code, err) == (0, "")
    assert "6 points: 5 stored, 1 to measure" in out


@pytest.mark.slow
def test_what_is_the_same_for_all_is_one_line(start):
    alone, together = (
        end(start("run", *TOY, "+grid.x=[1,2,3]", "+measure.failing=[1,2,3]", "+measure.odd=bad", workers))
        for workers in ("workers=1", "workers=2")
    )
    assert (alone[0], alone[2]) == (together[0], together[2]) == (2, "landscape: measure.x: too odd\n")


def test_a_worker_that_is_killed_leaves_its_points_to_the_others(start, log, tmp_path):
    words = ("run", *SIX, "+measure.failing=[4]", "+measure.odd='killed once'", "workers=2")
    code, _, err = end(start(*words))
    assert (code, err) == (0, "  a worker process ended with code -9; others took over what it left\n")
    points = [x for x, _ in measured_by(log)]
    assert sorted(points) == [1, 2, 3, 4, 4, 5, 6]
    assert len({pid for x, pid in measured_by(log) if x == 4}) == 2
    assert_squares(tmp_path / "outputs", 6)
    code, out, err = end(start(*words))
    assert (code, err) == (0, "")
    assert "6 points: 6 stored, 0 to measure" in out


def test_what_another_command_could_not_measure_is_tried(start, log, tmp_path):
    """Only what one of these processes could not measure is passed over by the others."""
    store = Store(tmp_path / "outputs")
    process = start("run", *SIX, "workers=2")
    until(lambda: measured_by(log))
    listed = json.loads(next((tmp_path / "outputs" / "runs" / "grids").glob("*.json")).read_text())
    for key, label in listed["points"]:
        if not store.has("Toy", key):
            store.write_failure("Toy", key, {"label": label, "error": "of another command", "log": None})
    assert end(process)[0] == 0
    assert_squares(tmp_path / "outputs", 6)


@pytest.mark.slow
def test_in_the_jobs_of_a_local_sweep(start, tmp_path):
    """Whose processes have another way of beginning processes as their default."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = ("+measure.seconds=0.1,0.2", "hydra/launcher=local", "hydra.launcher.n_jobs=2", "workers=2")
    code, _, err = end(start("run", "-m", *TOY, "+grid.x=[1,2,3]", *sweep))
    assert code == 0, err
    stored = documents(tmp_path / "outputs").values()
    assert {document["settings"]["x"] for document in stored} == {1, 2, 3}


@pytest.mark.slow
def test_all_workers_are_killed(start, log, tmp_path):
    words = ("run", *SIX, "+measure.failing=[4]", "workers=2")
    code, out, err = end(start(*words, "+measure.odd=killed"))
    assert code == 1
    assert "a worker process" in err
    assert "Traceback" not in err
    stored = documents(tmp_path / "outputs")
    assert 4 not in {document["settings"]["x"] for document in stored.values()}
    assert f"MISSING {6 - len(stored)} of 6 points" in out or not stored
    code, _, err = end(start("run", *SIX, "workers=2"))
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_debug_stops_at_the_first_failure(start, tmp_path):
    process = start("run", *SIX, "+measure.failing=[1,2,3,4,5,6]", "workers=2", "--debug")
    code, _, err = end(process)
    assert code == 1
    assert "MeasurementFailed: x = " in err
    assert not documents(tmp_path / "outputs")


class TestEnds:
    def _measuring(self, start, log, *words, workers=2, **options):
        grid = "+grid.x=[1,2,3,4,5,6,7,8]"
        process = start("run", *TOY, grid, "+measure.seconds=1", f"workers={workers}", *words, **options)
        until(lambda: process.poll() is not None or len({pid for _, pid in measured_by(log)}) == workers)
        until(lambda: process.poll() is not None or len(measured_by(log)) > workers)
        assert process.poll() is None, process.communicate()
        return process, {pid for _, pid in measured_by(log)}

    def _goes_on(self, start, log, tmp_path):
        stored = len(documents(tmp_path / "outputs"))
        assert 0 < stored < 8
        code, out, err = end(start("run", *TOY, "+grid.x=[1,2,3,4,5,6,7,8]", "workers=2"))
        assert (code, err) == (0, "")
        assert f"8 points: {stored} stored, {8 - stored} to measure" in out
        assert_squares(tmp_path / "outputs", 8)
        assert_nothing_is_left(tmp_path / "outputs")

    @pytest.mark.slow
    def test_killed_parent(self, start, log, tmp_path):
        process, workers = self._measuring(start, log)
        assert workers == set(workers_of(process))
        process.kill()
        until(lambda: not any(started_at(pid) for pid in workers), seconds=10)
        self._goes_on(start, log, tmp_path)

    @pytest.mark.parametrize("whom", ["the group", "the parent"])
    def test_ctrl_c(self, start, log, tmp_path, whom):
        process, workers = self._measuring(start, log, start_new_session=True)
        (os.killpg if whom == "the group" else os.kill)(process.pid, signal.SIGINT)
        code, out, err = end(process, 20)
        assert code == 130, err
        assert "Traceback" not in out + err
        assert f"stopped: {len(documents(tmp_path / 'outputs'))} of 8 points are stored; the same command" in err
        assert not any(started_at(pid) for pid in workers)
        self._goes_on(start, log, tmp_path)

    def test_ctrl_c_says_one_line(self, start, log):
        process, _ = self._measuring(start, log, start_new_session=True)
        os.killpg(process.pid, signal.SIGINT)
        assert len(end(process, 20)[2].strip().splitlines()) == 1

    def test_ctrl_c_while_they_begin(self, start):
        process = start("run", *SIX, "workers=2", start_new_session=True)
        until(lambda: process.poll() is not None or workers_of(process))
        time.sleep(0.2)  # they are at their imports
        os.killpg(process.pid, signal.SIGINT)
        code, out, err = end(process, 20)
        assert code == 130, err
        assert "Traceback" not in out + err, err

    @pytest.mark.slow
    def test_terminated_parent(self, start, log, tmp_path):
        process, workers = self._measuring(start, log)
        process.terminate()
        end(process, 20)
        until(lambda: not any(started_at(pid) for pid in workers), seconds=10)
        self._goes_on(start, log, tmp_path)


@pytest.mark.parametrize("workers", ["0", "-1", "x", "1.5"])
def test_what_is_no_number_of_processes(landscape, workers):
    landscape("run", *TOY, "+grid.x=[1,2]", f"workers={workers}").assert_refused(2, "workers")


class TestDevices:
    @pytest.fixture
    def gpus(self, monkeypatch):
        """So many GPUs."""

        def there(count):
            monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
            monkeypatch.setattr("torch.cuda.device_count", lambda: count)

        return there

    @pytest.mark.parametrize(
        ("count", "words", "points", "expected"),
        [
            (3, [], 8, ["cuda:0", "cuda:1", "cuda:2"]),
            (3, ["device=cuda"], 8, ["cuda:0", "cuda:1", "cuda:2"]),
            (3, [], 2, ["cuda:0", "cuda:1"]),
            (3, ["workers=5"], 8, ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]),
            (3, ["workers=5"], 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]),
            (3, ["workers=2"], 8, ["cuda:0", "cuda:1"]),
            (3, ["device=cuda:1"], 8, ["cuda:1"]),
            (3, ["device=cuda:1", "workers=2"], 8, ["cuda:1", "cuda:1"]),
            (3, ["device=cpu"], 8, ["cpu"]),
            (3, ["device=cpu", "workers=2"], 8, ["cpu", "cpu"]),
            (1, ["device=auto"], 8, ["auto"]),
            (1, ["device=cuda", "workers=2"], 8, ["cuda", "cuda"]),
            (0, ["device=auto"], 8, ["auto"]),
            (0, ["device=cpu", "workers=4"], 3, ["cpu"] * 3),
        ],
    )
    def test_of_so_many_points(self, gpus, count, words, points, expected):
        gpus(count)
        assert worker_devices(load(["experiment=quickstart", "profile=smoke", *words]), points) == expected

    def test_one_of_several_is_one_process(self, gpus):
        """A process that has a GPU to itself begins no others."""
        gpus(3)
        assert len(worker_devices(load(["profile=smoke", "workers=1"]), 8)) == 1
