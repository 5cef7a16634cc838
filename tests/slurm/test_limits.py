"""The time limit of a real Slurm, and code and configurations that change while a job waits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from slurm_jobs import HERE, TOY, Jobs, call, diary, points, results, until

import landscape_cli

AGAIN = "the time limit is near: this job goes into the queue again"
STUCK = "the time limit came before one point was finished; give a longer time=…, or checkpoint=true"
# Slurm looks every 30 s whose time is nearly up: early enough to be told in time, late enough to have got somewhere.
LIMIT = ("time=1", "warning=5")


def test_more_work_than_time(submit, undisturbed, landscape, tmp_path):
    words = ("+grid.x=[" + ",".join(map(str, range(100))) + "]", "+measure.seconds=0.6")
    jobs = submit(*TOY, *words, *LIMIT, "jobs=1")
    until(lambda: AGAIN in jobs.log(0), 100, jobs.logs)
    assert "1 queued" in landscape("status").out.partition("jobs:")[2]
    jobs.wait(150)
    assert jobs.log(0).count(AGAIN) >= 1
    assert json.loads((jobs.folder / "job_0.state").read_text())["code"] == 0
    reference = undisturbed([TOY[0]], [*TOY[1:-1], words[0]])
    assert results(tmp_path / "outputs") == results(reference)
    assert len(points(tmp_path / "outputs")) == 100


def test_a_point_that_takes_longer_than_the_limit(submit, landscape, tmp_path):
    """Without checkpoints a job would go round for ever."""
    jobs = submit(*TOY, "+grid.x=[1]", "+measure.seconds=1000", *LIMIT, "jobs=1")
    jobs.wait(120)
    assert diary(tmp_path) == [1]
    assert STUCK in jobs.log(0).splitlines()[-1]
    assert AGAIN not in jobs.log(0)
    finished = landscape("status")
    assert "jobs: 1 failed" in finished.out
    assert STUCK in finished.out


def test_such_a_point_goes_on_with_checkpoints(submit, tmp_path):
    words = ("+grid.x=[1]", "+measure.rounds=100", "+measure.seconds=0.6", "checkpoint=true")
    jobs = submit(*TOY, *words, *LIMIT, "jobs=1")
    jobs.wait(200)
    assert AGAIN in jobs.log(0)
    assert len(diary(tmp_path)) == 1 + jobs.log(0).count(AGAIN)
    assert len(points(tmp_path / "outputs")) == 1, jobs.logs()
    assert not list((tmp_path / "outputs").rglob("*.ckpt"))


def test_code_that_changes_while_a_job_waits(tmp_path, monkeypatch):
    top = Path(landscape_cli.__file__).parents[1]
    for name in ("landscape_cli", "experiments", "conf"):
        shutil.copytree(top / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "code"), str(HERE)]))
    submitted = []
    for x, words in ((1, []), (2, ["allow_changes=true"])):
        command = ["submit", *TOY, f"+grid.x=[{x}]", "jobs=1", "slurm.hold=true", *words]
        before = set((tmp_path / "outputs").glob("jobs/*"))
        subprocess.run([sys.executable, "-m", "landscape_cli.cli", *command], check=True, capture_output=True)
        (folder,) = set((tmp_path / "outputs").glob("jobs/*")) - before
        submitted.append(Jobs(folder))
    with (tmp_path / "code" / "landscape_cli" / "geometry.py").open("a") as file:
        file.write("# changed\n")
    for jobs in submitted:
        call("scontrol", "release", jobs.array)
    for jobs in submitted:
        jobs.wait()
    refused, allowed = submitted
    (line,) = refused.log(0).splitlines()
    assert line.startswith("landscape: toy: the code has changed since it was submitted (")
    assert "landscape_cli/geometry.py. Submit again, or allow it with allow_changes=true" in line
    assert json.loads((refused.folder / "job_0.state").read_text())["code"] == 2
    assert "allowed: the code has changed since it was submitted" in allowed.log(0)
    assert json.loads((allowed.folder / "job_0.state").read_text())["code"] == 0
    assert diary(tmp_path) == [2]
