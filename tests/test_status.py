"""``landscape status``: every state of points and jobs, from records that may be damaged."""

import json
import time

import pytest
import standins

from landscape_cli.claims import Claims
from landscape_cli.progress import Grid, write_grid
from landscape_cli.store import Store

HERE = {"host": "here", "pid": 1, "job": "7", "began": "2026-01-01T00:00:00Z"}


@pytest.fixture(autouse=True)
def cluster(isolated, monkeypatch):
    """A Slurm that does not answer: nothing but our own files is left."""
    slurm = standins.install(isolated / "bin", monkeypatch)
    slurm.says("squeue", err="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    return slurm


@pytest.fixture
def output(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def submission(output):
    """Write a submission's folder: its array's number, and points, state and log of its jobs."""

    def make(array="4711", jobs=((("F", "k0"),),), name="20260101T000000Z_abcd"):
        folder = output / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "array").write_text(array)
        for number, points in enumerate(jobs):
            listed = [["quickstart", family, key, f"x={key}"] for family, key in points]
            job = {"experiments": ["quickstart"], "overrides": [], "points": listed}
            (folder / f"job_{number}.json").write_text(json.dumps(job))
        return folder

    return make


def grid(output, count=3, name="quickstart", **others):
    points = tuple((f"k{n}", f"x={n}") for n in range(count))
    fields = {"variant": "", "own": True, "profile": "paper", "family": "F", "parameters": False, "points": points}
    fields |= {"without_data": 0, "command": "landscape run experiment=quickstart", "time": "2026-01-01T00:00:00Z"}
    write_grid(output, Grid(name=name, **(fields | others)))


def store(output, *keys):
    for key in keys:
        (output / "results" / "F" / key).mkdir(parents=True)


def end(folder, number=0, log="", **life):
    (folder / f"job_{number}.state").write_text(json.dumps({**HERE, **life}))
    (folder / f"job_{number}.log").write_text(log)


def test_nothing_yet(landscape, output):
    finished = landscape("status")
    assert (finished.code, finished.out) == (0, f"nothing was run in {output} yet\n")
    assert not output.exists()


class TestPoints:
    def test_every_state(self, landscape, output, submission):
        grid(output, count=6, without_data=2)
        store(output, "k0", "k1")
        claims = Store(output).claims("F")
        assert claims.take("k2")
        submission(jobs=[[("F", "k3")]])
        record = {"label": "x=4", "error": "ZeroDivisionError: x = 4", "log": "/a/log"}
        Store(output).write_failure("F", "k4", record)
        out = landscape("status").out.splitlines()
        claims.close()
        assert out[0] == "quickstart  8 points: 2 stored, 1 running, 1 queued, 1 failed, 3 missing"
        assert out[1].startswith("  running  x=2: process ")
        assert out[2] == "  failed   x=4: ZeroDivisionError: x = 4 (log: /a/log)"
        assert out[3:] == ["jobs: 1 queued", "  4711_0  queued not started"]

    def test_missing_ones_name_the_command(self, landscape, output):
        grid(output)
        assert landscape("status").out.splitlines()[1] == "  to go on: landscape run experiment=quickstart"

    def test_long_lists_are_cut(self, landscape, output):
        grid(output, count=9)
        for n in range(9):
            Store(output).write_failure("F", f"k{n}", {"error": "E", "log": None})
        out = landscape("status").out.splitlines()
        assert out[1] == "  failed   x=0: E"
        assert out[6] == "  … and 4 more failed"
        assert len(out) == 7

    def test_names(self, landscape, output):
        grid(output, count=1)
        grid(output, count=1, name="toy")
        assert "toy" not in landscape("status", "quickstart").out
        assert landscape("status", "toy").out.startswith("toy  1 point: 1 missing\n")
        assert landscape("status", "fc_mnist").out.startswith("fc_mnist: not run here; `landscape show fc_mnist`")
        finished = landscape("status", "quickstrat")
        assert (finished.code, len(finished.lines)) == (2, 1)
        assert "did you mean 'quickstart'" in finished.err
        finished = landscape("status", "profile=smoke")
        assert (finished.code, len(finished.lines)) == (2, 1)

    def test_another_folder(self, landscape, output, tmp_path):
        grid(tmp_path / "other", count=1)
        assert "1 point: 1 missing" in landscape("status", f"output_dir={tmp_path / 'other'}").out
        assert landscape("status").out.startswith("nothing was run in")

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"null", b'{"points": [["a"]]}'])
    def test_damaged_grids_are_passed_over(self, landscape, output, content):
        grid(output, count=1, name="toy")
        grid(output)
        (output / "runs" / "grids" / "toy.json").write_bytes(content)
        finished = landscape("status")
        assert (finished.code, finished.err) == (0, "")
        assert finished.out.startswith("quickstart  3 points: 3 missing\n")

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"null"])
    def test_damaged_failures_are_passed_over(self, landscape, output, content):
        grid(output, count=1)
        Store(output).write_failure("F", "k0", {"error": "E", "log": None})
        (output / "results" / "F" / ".failed" / "k0.json").write_bytes(content)
        assert landscape("status").out.startswith("quickstart  1 point: 1 missing\n")


class TestJobs:
    def test_every_state(self, landscape, submission):
        folder = submission(jobs=[[("F", f"k{n}")] for n in range(6)])
        claims = Claims(folder / ".claims")
        assert claims.take("job_0")
        end(folder, 2, requeued="2026-01-01T00:05:00Z")
        end(folder, 3, code=0)
        end(folder, 4, code=2, log="first\n\nlandscape: a bar\rlandscape: why\n\n")
        end(folder, 5, log="half of a")
        lines = landscape("status").out.partition("jobs: ")[2].splitlines()
        claims.close()
        assert lines[0] == "1 running, 2 queued, 2 failed, 1 done"
        assert lines[1].startswith("  4711_0  running as process ")
        assert lines[2:] == [
            "  4711_1  queued not started",
            "  4711_2  queued again since 2026-01-01T00:05:00Z",
            f"  4711_4  failed ended with exit code 2 on here: landscape: why (log: {folder}/job_4.log)",
            f"  4711_5  failed died on here: half of a (log: {folder}/job_5.log)",
        ]

    def test_without_a_log(self, landscape, submission):
        folder = submission()
        end(folder, code=1)
        assert "exit code 1 on here: the log is empty (log: " in landscape("status").out
        (folder / "job_0.log").unlink()
        assert "exit code 1 on here: there is no log (log: " in landscape("status").out

    def test_a_long_log(self, landscape, submission):
        end(submission(), code=1, log="ä" * 10**6 + "\nthe end\n")
        assert ": the end (log: " in landscape("status").out

    @pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"null", b'"text"', b"7"])
    def test_damaged_states(self, landscape, submission, content):
        folder = submission()
        (folder / "job_0.state").write_bytes(content)
        finished = landscape("status")
        assert (finished.code, finished.err) == (0, "")
        assert "4711_0  failed died on an unknown host: there is no log" in finished.out

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"null", b'{"points": [1]}', b'{"points": 1}'])
    def test_damaged_jobs_are_passed_over(self, landscape, submission, content):
        folder = submission(jobs=[[("F", "k0")], [("F", "k1")]])
        (folder / "job_0.json").write_bytes(content)
        finished = landscape("status")
        assert (finished.code, finished.err) == (0, "")
        assert finished.out.endswith("jobs: 1 queued\n  4711_1  queued not started\n")

    @pytest.mark.parametrize(
        "content",
        [
            None,
            b"\xff",
        ],
    )
    def test_a_submission_without_its_number_is_passed_over(self, landscape, submission, output, content):
        """A submission was killed while it handed its jobs to Slurm, or its file is damaged."""
        folder = submission()
        submission("4712", name="20260102T000000Z_abcd")
        (folder / "array").unlink()
        if content:
            (folder / "array").write_bytes(content)
        (output / "jobs" / "a file").write_text("")
        finished = landscape("status")
        assert (finished.code, finished.err) == (0, "")
        assert finished.out.endswith("jobs: 1 queued\n  4712_0  queued not started\n")

    def test_more_than_ten_are_in_order(self, landscape, submission):
        submission(jobs=[[("F", f"k{n}")] for n in range(12)])
        lines = landscape("status").out.splitlines()
        assert [line.split()[0] for line in lines[2:7]] == [f"4711_{n}" for n in range(5)]
        assert lines[-1] == "  … and 7 more queued"

    def test_that_are_gone_from_the_queue_are_not_queued(self, landscape, output, submission, cluster):
        """Cancelled while they waited, or killed before they could write anything."""
        grid(output, count=2)
        folder = submission(jobs=[[("F", "k0")], [("F", "k1")]])
        end(folder, 1, requeued="2026-01-01T00:05:00Z")
        assert "jobs: 2 queued" in landscape("status").out
        cluster.says("squeue")
        out = landscape("status").out
        assert out.startswith("quickstart  2 points: 2 missing\n")
        assert "queued" not in out

    def test_that_slurm_put_into_the_queue_again_are_queued(self, landscape, output, submission, cluster):
        """After a node failed, a preemption, or by hand."""
        grid(output, count=2)
        folder = submission(jobs=[[("F", "k0")], [("F", "k1")]])
        end(folder, 0, code=130)
        end(folder, 1)
        cluster.says("squeue", out="4711_0\n4711_1\n")
        out = landscape("status").out
        assert out.startswith("quickstart  2 points: 2 queued\n")
        assert "jobs: 2 queued" in out

    def test_points_that_a_running_job_has_still_to_measure_are_queued(self, landscape, output, submission):
        grid(output)
        folder = submission(jobs=[[("F", "k0"), ("F", "k1"), ("F", "k2")]])
        job, point = Claims(folder / ".claims"), Store(output).claims("F")
        assert job.take("job_0")
        assert point.take("k0")
        out = landscape("status").out
        job.close()
        point.close()
        assert out.startswith("quickstart  3 points: 1 running, 2 queued\n")


def test_ten_thousand_points_take_less_than_a_second(landscape, output, submission):
    grid(output, count=10_000)
    store(output, *(f"k{n}" for n in range(0, 10_000, 2)))
    for n in range(1, 200, 2):
        Store(output).write_failure("F", f"k{n}", {"error": "E", "log": None})
    submission(jobs=[[("F", f"k{n}") for n in range(start, 10_000, 500)] for start in range(1, 200, 2)])
    landscape("status")
    began = time.perf_counter()
    out = landscape("status").out
    seconds = time.perf_counter() - began
    print(f"{seconds:.2f} s")
    assert seconds < 1
    assert out.startswith("quickstart  10000 points: 5000 stored, 2000 queued, 3000 missing\n")
