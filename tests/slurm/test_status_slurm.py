"""``landscape status`` beside a real Slurm."""

import json
import os
import signal

from slurm_jobs import TOY, call, diary, until


def jobs_part(landscape) -> str:
    finished = landscape("status")
    assert (finished.code, finished.err) == (0, "")
    return "jobs:" + finished.out.partition("jobs:")[2]


def test_from_the_queue_to_the_end(submit, landscape, tmp_path):
    words = ("+grid.x=[1,2]", "+measure.seconds=3", "jobs=2", "array_parallelism=1")
    jobs = submit(*TOY, *words, "slurm.hold=true")
    assert jobs_part(landscape).startswith("jobs: 2 queued\n")
    assert "2 points: 2 queued\n" in landscape("status").out
    call("scontrol", "release", jobs.array)
    until(lambda: diary(tmp_path), 60, jobs.logs)
    text = jobs_part(landscape)
    assert text.startswith("jobs: 1 running, 1 queued\n")
    assert f"{jobs.array}_0  running as process" in text
    jobs.wait()
    assert jobs_part(landscape).strip() == "jobs: 2 done"
    assert "2 points: 2 stored" in landscape("status").out


def test_failed_jobs(submit, landscape):
    jobs = submit(*TOY, "+grid.x=[1,2]", "+measure.failing=[2]", "jobs=1")
    jobs.wait()
    finished = landscape("status")
    assert "2 points: 1 stored, 1 failed" in finished.out
    assert "ZeroDivisionError: x = 2" in finished.out.partition("jobs:")[0]
    text = finished.out.partition("jobs:")[2]
    assert "1 failed" in text
    assert f"{jobs.array}_0  failed ended with exit code 1 on " in text
    assert f"(log: {jobs.folder}/job_0.log)" in text
    assert "ZeroDivisionError: x = 2" in text


def test_killed_jobs(submit, landscape, tmp_path):
    jobs = submit(*TOY, "+grid.x=[1,2]", "+measure.seconds=100", "jobs=1")
    until(lambda: diary(tmp_path), 60, jobs.logs)
    os.kill(json.loads((jobs.folder / "job_0.state").read_text())["pid"], signal.SIGKILL)
    jobs.wait()
    text = jobs_part(landscape)
    assert text.startswith("jobs: 1 failed\n")
    assert f"{jobs.array}_0  failed died on " in text
    assert "2 missing" in landscape("status").out


def test_jobs_cancelled_while_they_wait(submit, landscape):
    jobs = submit(*TOY, "+grid.x=[1,2]", "jobs=1", "slurm.hold=true")
    jobs.cancel()
    jobs.wait()
    finished = landscape("status")
    assert "1 queued" not in finished.out.partition("jobs:")[2]
    assert "2 missing" in finished.out


def test_points_that_a_running_job_has_still_to_measure(submit, landscape, tmp_path):
    jobs = submit(*TOY, "+grid.x=[1,2,3]", "+measure.seconds=5", "jobs=1")
    until(lambda: diary(tmp_path), 60, jobs.logs)
    out = landscape("status").out
    assert "3 points: 1 running, 2 queued" in out
