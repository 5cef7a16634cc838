"""``landscape submit`` on a real Slurm: whole results whatever happens to the jobs."""

import json
import random
import time

import pytest
from slurm_jobs import TOY, Jobs, call, diary, points, same, until

from landscape_cli import slurm

SMALL = ("profile=smoke", "data.download=false", "plot.formats=[png]", "plot.dpi=50")
OWN = TOY[1:-1]  # overrides of the toy without the options of Slurm


def test_several_experiments_share_jobs(submit, undisturbed, landscape, tmp_path):
    names = ("quickstart", "posterior_synthetic")
    jobs = submit(*names, "jobs=3", "mem_gb=1", "device=cpu", *SMALL)
    assert len(jobs.states()) == 3  # it did not wait for them
    reference = undisturbed(names, [*SMALL, "device=cpu"])
    jobs.wait()
    same(tmp_path / "outputs", reference)
    assert "jobs: 3 done" in landscape("status").out


def test_twenty_cancelled_jobs(submit, undisturbed, landscape, tmp_path):
    """Every job is cancelled at a moment of its own: waiting, starting, measuring, storing."""
    chance = random.Random(5)
    overrides = (*OWN, f"+grid.x=[{','.join(map(str, range(60)))}]", "+measure.rounds=2", "+measure.seconds=0.4")
    overrides = (*overrides, "checkpoint=true")
    reference_overrides = [text.replace("seconds=0.4", "seconds=0") for text in overrides]
    reference = undisturbed([TOY[0]], reference_overrides)
    cancelled = 0
    while cancelled < 20:
        jobs = submit(TOY[0], *overrides, "jobs=4", "mem_gb=1", "cpus_per_task=2")
        moments = sorted((chance.uniform(0.2, 12), number) for number in range(4))
        began = time.monotonic()
        for moment, number in moments:
            time.sleep(max(0, began + moment - time.monotonic()))
            call("scancel", f"{jobs.array}_{number}")
            cancelled += 1
        jobs.wait()
    assert 0 < len(points(tmp_path / "outputs")) < 60, "cancelled too early or too late to test anything"
    assert "Traceback" not in jobs.logs()
    submit(TOY[0], *overrides, "jobs=4", "mem_gb=1").wait()
    same(tmp_path / "outputs", reference)
    assert "60 stored" in landscape("status").out


def test_submitted_twice_queues_no_point_twice(submit, landscape):
    jobs = submit(*TOY, "+grid.x=[1,2,3,4]", "jobs=2", "slurm.hold=true")
    finished = landscape("submit", *TOY, "+grid.x=[1,2,3,4]", "jobs=2")
    assert finished.code == 0
    assert "4 points: 4 in the queue, 0 to measure" in finished.out
    assert "nothing to submit" in finished.out
    more = submit(*TOY, "+grid.x=[1,2,3,4,5]", "jobs=1", "slurm.hold=true")
    assert [label for *_, label in json.loads((more.folder / "job_0.json").read_text())["points"]] == ["x=5"]
    assert list(jobs.states().values()) == ["PENDING"] * 2


def test_racing_submissions_measure_each_point_once(start, landscape, tmp_path):
    words = ("submit", *TOY, "+grid.x=[1,2,3,4,5,6]", "+measure.seconds=0.5", "jobs=2")
    racing = [start(*words) for _ in range(2)]
    for process in racing:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    arrays = {path.read_text() for path in (tmp_path / "outputs" / "jobs").glob("*/array")}
    until(lambda: not any(line.split("_")[0] in arrays for line in call("squeue", "-h", "-o", "%F_%K").split()), 120)
    assert sorted(diary(tmp_path)) == [1, 2, 3, 4, 5, 6]
    assert len(points(tmp_path / "outputs")) == 6
    assert "6 stored" in landscape("status").out


def test_each_job_sees_one_device_of_its_own(submit, tmp_path):
    import pandas as pd

    jobs = submit(*TOY, "+grid.x=[1,2]", "+measure.seconds=12", "+measure.visible=true", "jobs=2", "gpus_per_node=1")
    until(lambda: len(diary(tmp_path)) == 2, 60, jobs.logs)
    assert not points(tmp_path / "outputs")  # both at once
    jobs.wait()
    tables = (tmp_path / "outputs").glob("results/*/*/squares.parquet")
    assert sorted(str(pd.read_parquet(path)["visible"].item()) for path in tables) == ["0", "1"]


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "texts"),
        [
            (["partition=nosuch"], ["Slurm refused the jobs: ", "invalid partition specified: nosuch"]),
            (["slurm.nosuch=1"], ["Slurm refused the jobs: ", "unrecognized option '--nosuch=1'"]),
        ],
    )
    def test_by_slurm(self, landscape, tmp_path, words, texts):
        finished = landscape("submit", *TOY, "+grid.x=[1,2]", "jobs=2", *words)
        finished.assert_refused(2, *texts)
        assert not list((tmp_path / "outputs" / "jobs").glob("*"))

    def test_more_jobs_than_points(self, landscape, tmp_path):
        finished = landscape("submit", *TOY, "+grid.x=[1,2]", "jobs=3")
        finished.assert_refused(2, "jobs: 3; only 2 points are to be measured; allowed: 2 or fewer")
        assert not (tmp_path / "outputs" / "jobs").exists()


@pytest.mark.parametrize("name", ["plain", "with space", "with#hash", "100%a", "ä'quote", 'double"quote'])
def test_folders_of_any_name(tmp_path, monkeypatch, name):
    """The log and the working folder are below a folder whose name the script has to quote."""
    work = tmp_path / name
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "job.sh").write_text(slurm.script(["sh", "-c", "pwd"], work, 1, None, [], 60))
    jobs = Jobs(work)
    (work / "array").write_text(slurm.submit(work / "job.sh"))
    jobs.wait()
    assert jobs.log(0) == f"{work}\n"
