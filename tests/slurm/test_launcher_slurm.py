"""``landscape run -m … hydra/launcher=slurm`` on a real Slurm."""

import json
import re

from slurm_jobs import TOY, call, diary, points, results, until

WORDS = ("run", "-m", f"experiment={TOY[0]}", *TOY[1:-1])
LAUNCHER = ("hydra/launcher=slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1")


def wait_for(process) -> tuple[str, str]:
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out, err


def logs(output) -> str:
    return "\n".join(path.read_text() for path in output.glob("runs/slurm/*/*.out"))


def test_gives_what_a_plain_sweep_gives(start, landscape, tmp_path):
    grids = "+grid.x=[1,2],[3,4]"
    process = start(*WORDS, grids, *LAUNCHER)
    assert landscape(*WORDS, grids, f"output_dir={tmp_path / 'plain'}").code == 0
    wait_for(process)
    output = tmp_path / "outputs"
    assert results(output) == results(tmp_path / "plain")
    assert len(points(output)) == 4
    (record,) = (output / "runs" / "submissions").glob("*.json")
    assert len(json.loads(record.read_text())["configs"]) == 2
    assert {"runs", "results", "figures", "tables"} == {path.name for path in output.iterdir()}


def test_goes_on_after_it_was_told_to_make_room(start, tmp_path):
    """A signal long before the limit is a preemption for submitit: like a time limit, it is not an end."""
    process = start(*WORDS, "+grid.x=[1,2,3,4,5,6]", "+measure.seconds=2", *LAUNCHER)
    until(lambda: points(tmp_path / "outputs"), 60, lambda: logs(tmp_path / "outputs"))
    (number,) = [path.name for path in (tmp_path / "outputs" / "runs" / "slurm").iterdir() if path.is_dir()]
    call("scancel", "--signal=USR2", number)
    wait_for(process)
    assert len(points(tmp_path / "outputs")) == 6
    assert 6 <= len(diary(tmp_path)) <= 7  # none but the one that was being measured again


def test_refused_by_slurm(start):
    process = start(*WORDS, "+grid.x=[1],[2]", *LAUNCHER, "hydra.launcher.partition=nosuch")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert len(err.splitlines()) == 1, err
    assert re.search("Slurm refused the jobs: .*invalid partition", err)


def test_a_failed_job_has_the_sweeps_exit_code(start, tmp_path):
    process = start(*WORDS, "+grid.x=[1],[2]", "+measure.failing=[2]", *LAUNCHER)
    process.communicate(timeout=100)
    assert process.returncode == 1
    assert len(points(tmp_path / "outputs")) == 1


def test_a_cancelled_job_is_an_error(start, tmp_path):
    process = start(*WORDS, "+grid.x=[1],[2]", "+measure.seconds=20", *LAUNCHER)
    until(lambda: len(diary(tmp_path)) == 2, 60, lambda: logs(tmp_path / "outputs"))
    (number,) = [path.name for path in (tmp_path / "outputs" / "runs" / "slurm").iterdir() if path.name.isdigit()]
    call("scancel", f"{number}_0")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a job did not come back" in err.splitlines()[-1]
