"""``landscape work``: the jobs of a submission, run by hand in this process as Slurm would run them."""

import itertools
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import standins

from landscape_cli import slurm

TOY = (
    *("schematic_loss_change", "name=toy", "family=test_runner.Toy", "plot.formats=[png]", "plot.dpi=50"),
    "profile=smoke",
)
FOUR = (*TOY, "+grid.x=[1,2,3,4]")


@pytest.fixture
def cluster(isolated, monkeypatch):
    return standins.install(isolated / "bin", monkeypatch)


@pytest.fixture
def folders(tmp_path):
    """The submissions so far."""
    return lambda: sorted((tmp_path / "outputs" / "jobs").glob("*"))


def state(folder: Path, number: int = 0) -> dict:
    return json.loads((folder / f"job_{number}.state").read_text())


def stored(tmp_path) -> int:
    return len(list(tmp_path.glob("outputs/results/*/[!.]*/point.json")))


class TestWork:
    @pytest.fixture
    def folder(self, cluster, landscape, folders, monkeypatch):
        assert landscape("submit", *FOUR, "jobs=2").code == 0
        monkeypatch.setenv("SLURM_JOB_ID", "4712")
        return folders()[0]

    def test_the_last_one_draws(self, landscape, folder, tmp_path):
        first = landscape("work", str(folder), "0")
        assert (first.code, first.err) == (0, "")
        assert "nothing drawn yet" in first.out
        second = landscape("work", str(folder), "1")
        assert (second.code, second.err) == (0, "")
        assert list((tmp_path / "outputs" / "figures").rglob("*.png"))
        assert stored(tmp_path) == 4
        assert state(folder)["code"] == state(folder, 1)["code"] == 0
        assert not (folder / ".claims").exists()

    def test_again_measures_nothing(self, landscape, folder, tmp_path):
        for _ in range(2):
            assert landscape("work", str(folder), "0").code == 0
        assert stored(tmp_path) == 2

    def test_that_runs_already(self, landscape, folder):
        from landscape_cli.claims import Claims

        claims = Claims(folder / ".claims")
        assert claims.take("job_0")
        landscape("work", str(folder), "0").assert_refused(2, "job 0 is running already (process ")
        claims.close()
        assert landscape("work", str(folder), "0").code == 0

    @pytest.mark.parametrize("number", [2, -1])
    def test_that_there_is_not(self, landscape, folder, number):
        landscape("work", str(folder), *(["--"] if number < 0 else []), str(number)).assert_refused(
            2, "not the points of a job"
        )

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"code": 1}'])
    def test_damaged_record(self, landscape, folder, content):
        (folder / "submission.json").write_text(content)
        landscape("work", str(folder), "0").assert_refused(2, "not a record of a submission", "submit again")

    def test_refused_jobs_end_as_failed(self, landscape, folder):
        record = json.loads((folder / "submission.json").read_text())
        record["code"]["landscape_cli/geometry.py"] = "another"
        del record["code"]["landscape_cli/rng.py"]
        (folder / "submission.json").write_text(json.dumps(record))
        finished = landscape("work", str(folder), "0")
        finished.assert_refused(2, "toy: the code has changed", "landscape_cli/geometry.py, landscape_cli/rng.py")
        assert state(folder)["code"] == 2

    def test_another_configuration(self, landscape, folder, monkeypatch, tmp_path):
        monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(tmp_path / "elsewhere"))
        finished = landscape("work", str(folder), "0")
        assert finished.code == 2
        (line,) = finished.lines
        assert f"output_dir was '{tmp_path}/outputs', is '{tmp_path}/elsewhere'" in line
        assert "allow_changes=true" in line
        assert not (tmp_path / "elsewhere" / "results").exists()

    def test_allowed_changes(self, cluster, landscape, folders, tmp_path):
        assert landscape("submit", *FOUR, "jobs=1", "allow_changes=true").code == 0
        (folder,) = folders()
        record = json.loads((folder / "submission.json").read_text())
        record["code"]["landscape_cli/geometry.py"] = "another"
        (folder / "submission.json").write_text(json.dumps(record))
        finished = landscape("work", str(folder), "0")
        assert finished.code == 0
        assert "allowed: the code has changed since it was submitted" in finished.out
        assert stored(tmp_path) == 4

    def test_other_data(self, cluster, landscape, folders, isolated):
        rows = "\n".join(f"{n},{n % 7},{n % 3}" for n in range(60))
        path = isolated / "work" / "own.csv"
        path.write_text(f"a,b,y\n{rows}\n")
        words = ("posterior_liver", "profile=smoke", "dataset=csv", f"dataset.path={path}", "dataset.target=y")
        submitted = landscape("submit", *words, "jobs=1")
        assert submitted.code == 0, submitted.err
        path.write_text(f"a,b,y\n{rows}\n1,1,1\n")
        landscape("work", str(folders()[0]), "0").assert_refused(
            2, "of the points that were submitted are other ones here", "Submit again"
        )

    def test_a_file_in_the_working_folder_is_not_imported(self, cluster, landscape, folders, isolated):
        """`landscape run` does not import it either."""
        (isolated / "work" / "statistics.py").write_text("raise SystemExit('the wrong statistics')")
        assert landscape("submit", *FOUR, "jobs=1").code == 0
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": "9", "PYTHONPATH": str(Path(__file__).parent)}
        job = subprocess.run(["bash", folders()[0] / "job.sh"], capture_output=True, text=True, env=environment)
        assert "not the points of a job" in job.stderr, job.stderr

    def test_a_configuration_that_cannot_be_composed_any_more(self, landscape, folder):
        path = folder / "job_0.json"
        path.write_text(path.read_text().replace('"name=toy"', '"nosuch=1"'))
        assert landscape("work", str(folder), "0").code == 2
        assert state(folder)["code"] == 2


class TestSignals:
    """USR2: the time is nearly up. TERM: the job is to end."""

    @pytest.fixture
    def job(self, cluster, landscape, folders, monkeypatch):
        def submit(*words):
            assert landscape("submit", *FOUR, "jobs=1", *words).code == 0
            return folders()[-1]

        monkeypatch.setenv("SLURM_JOB_ID", "4712")
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
        return submit

    @pytest.fixture
    def told_at(self, monkeypatch):
        """Send this process a signal when a toy's point is measured, in the place of its pause."""

        def at(number, which):
            pauses = itertools.count()
            monkeypatch.setattr(
                "test_runner.time.sleep",
                lambda _: os.kill(os.getpid(), which) if next(pauses) == number else None,
            )

        return at

    def test_time_is_up(self, cluster, job, landscape, told_at, tmp_path):
        folder = job()
        told_at(2, signal.SIGUSR2)
        finished = landscape("work", str(folder), "0")
        assert finished.code == 0
        assert "this job goes into the queue again" in finished.out
        assert cluster.words("scontrol") == ["requeue 4711_0"]
        assert "requeued" in state(folder)
        assert stored(tmp_path) == 2
        cluster.says("squeue", out="4711_0")
        assert "4711_0  queued again since" in landscape("status").out
        again = landscape("work", str(folder), "0")
        assert (again.code, stored(tmp_path)) == (0, 4)
        assert state(folder)["code"] == 0

    def test_time_is_up_before_anything_was_done(self, cluster, job, landscape, told_at):
        folder = job()
        told_at(0, signal.SIGUSR2)
        finished = landscape("work", str(folder), "0")
        assert finished.code == 1
        assert "the time limit came before one point was finished" in finished.lines[-1]
        assert cluster.words("scontrol") == []
        assert state(folder)["code"] == 130

    def test_cancelled(self, cluster, job, landscape, told_at, tmp_path):
        folder = job()
        told_at(1, signal.SIGTERM)
        finished = landscape("work", str(folder), "0")
        assert finished.code == 130
        assert cluster.words("scontrol") == []
        assert state(folder)["code"] == 130
        assert stored(tmp_path) == 1
        assert "4711_0  failed ended with exit code 130 on" in landscape("status").out

    def test_a_queue_that_does_not_take_it_again(self, cluster, job, landscape, told_at):
        folder = job()
        cluster.says("scontrol", err="Job is no longer pending execution", code=1)
        told_at(1, signal.SIGUSR2)
        finished = landscape("work", str(folder), "0")
        assert finished.code == 1
        assert "job 4711_0 cannot be put into the queue again" in finished.err
        assert "1 failed" in landscape("status").out

    def test_the_claim_is_given_back_before_the_job_goes_into_the_queue(self, job, landscape, told_at, monkeypatch):
        """Slurm ends the job from within: elsewhere, its next start would find it running for two minutes."""
        folder = job()
        held = []
        monkeypatch.setattr(slurm, "requeue", lambda: held.append((folder / ".claims" / "job_0").exists()))
        told_at(1, signal.SIGUSR2)
        assert landscape("work", str(folder), "0").code == 0
        assert held == [False]
