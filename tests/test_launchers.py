"""``landscape run -m … hydra/launcher=local|slurm`` without a cluster."""

import json
import os
import shutil
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import standins
from hydra.core.utils import JobReturn, JobStatus
from test_runner import TOY, contents, documents, stored_files, until

from landscape_cli import slurm

SWEEP = ("run", "-m", *TOY, "profile=smoke")
LOCAL = ("hydra/launcher=local", "hydra.launcher.n_jobs=2")
SLURM = ("hydra/launcher=slurm",)


def sessions(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


class TestLocal:
    @pytest.mark.slow
    def test_side_by_side_gives_what_a_plain_sweep_gives(self, start, landscape, tmp_path, monkeypatch):
        """Without OMP_NUM_THREADS each of two jobs gets half of the cores."""
        monkeypatch.delenv("OMP_NUM_THREADS")
        words = (*SWEEP, "+grid.x=[1,2],[3,4]", "+measure.seconds=1.5")
        process = start(*words, *LOCAL)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.count("2 points: 0 stored, 2 to measure") == 2
        assert landscape(*words, f"output_dir={tmp_path / 'plain'}").code == 0
        assert stored_files(tmp_path / "outputs") == stored_files(tmp_path / "plain")
        plain = {path.relative_to("tables"): text for path, text in contents(tmp_path / "plain", "tables").items()}
        assert {p.relative_to("tables"): t for p, t in contents(tmp_path / "outputs", "tables").items()} == plain
        found = [document["provenance"] for document in documents(tmp_path / "outputs").values()]
        assert {about["threads"] for about in found} == {max(1, len(os.sched_getaffinity(0)) // 2)}
        begins = sorted(datetime.fromisoformat(about["began"]) for about in found)
        assert begins[-1] - begins[0] < timedelta(seconds=4)
        assert not list((tmp_path / "outputs").rglob(".hydra"))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("words", "code", "text"),
        [
            (["+grid.x=[1],[2]", "+measure.failing=[2]"], 1, "1 failed:"),
            (["+grid.x=[1]", "plot.dpi=50,1"], 2, "landscape: plot.dpi: 1; allowed"),
        ],
    )
    def test_exit_codes_come_back(self, start, tmp_path, words, code, text):
        sweep = [word for word in SWEEP if not word.startswith("plot.dpi")]
        process = start(*sweep, *words, *LOCAL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert err.count(text) == 1
        assert "Traceback" not in err
        assert len(documents(tmp_path / "outputs")) == 1

    @pytest.mark.slow
    def test_dry_run_writes_nothing(self, start, tmp_path):
        process = start(*SWEEP, "+grid.x=[1,2],[3]", *LOCAL, "--dry-run")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.count("missing  ") == 3
        assert not (tmp_path / "outputs").exists()

    @pytest.mark.slow
    def test_ctrl_c_ends_every_process(self, start, tmp_path, landscape):
        words = (*SWEEP, "+grid.x=[1,2,3],[4,5,6],[7],[8]", "+measure.seconds=0.4")
        process = start(*words, *LOCAL, start_new_session=True)
        until(lambda: process.poll() is not None or documents(tmp_path / "outputs"))
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells every process
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert "Traceback" not in err, err
        until(lambda: not sessions(process.pid), 10)
        assert len(documents(tmp_path / "outputs")) < 8
        assert landscape(*words).code == 0
        assert len(documents(tmp_path / "outputs")) == 8
        assert not list((tmp_path / "outputs" / "results").rglob(".draft-*"))

    @pytest.mark.parametrize(("count", "devices"), [(0, [[], []]), (1, [[], []]), (2, ["cuda:0", "cuda:1"])])
    def test_devices_are_used_in_turn(self, monkeypatch, count, devices):
        from landscape_cli import launchers

        monkeypatch.setattr(launchers, "_devices", lambda: count)
        given = []
        monkeypatch.setattr(launchers.JoblibLauncher, "launch", lambda self, jobs, first: given.extend(jobs) or [])
        launchers.LocalLauncher().launch([["a=1"], ["a=2"], ["a=3", "device=cpu"]], 0)
        named = [[text for text in job if text.startswith("device=")] for job in given]
        assert named == [[f"device={d}"] if d else [] for d in devices] + [["device=cpu"]]


@pytest.fixture
def cluster(isolated, monkeypatch):
    slurm = standins.install(isolated / "bin", monkeypatch)
    slurm.says("sbatch", err="sbatch: error: invalid partition specified: x\n", code=1)
    return slurm


class TestSlurm:
    def test_without_slurm(self, landscape, isolated, monkeypatch, tmp_path):
        standins.hide(monkeypatch, isolated / "empty")
        landscape(*SWEEP, "+grid.x=[1],[2]", *SLURM).assert_refused(2, "no Slurm here: there is no sbatch on the PATH")
        assert not list((tmp_path / "outputs").glob("runs/submissions/*"))

    def test_what_slurm_refuses(self, cluster, landscape, tmp_path):
        finished = landscape(*SWEEP, "+grid.x=[1],[2]", *SLURM, "hydra.launcher.partition=x")
        assert finished.code == 2
        assert finished.lines[-1] == "landscape: Slurm refused the jobs: error: invalid partition specified: x"

    def test_what_slurm_refuses_leaves_no_record(self, cluster, landscape, tmp_path):
        landscape(*SWEEP, "+grid.x=[1],[2]", *SLURM)
        assert not list((tmp_path / "outputs").glob("runs/submissions/*"))

    def test_a_job_that_is_not_valid_is_refused_first(self, cluster, landscape, tmp_path):
        words = [word for word in SWEEP if "dpi" not in word]
        landscape(*words, "+grid.x=[1]", "plot.dpi=50,1", *SLURM).assert_refused(2, "plot.dpi: 1; allowed")
        assert cluster.words("sbatch") == []
        assert not list((tmp_path / "outputs").glob("runs/submissions/*"))

    def test_dry_run_submits_nothing(self, cluster, landscape, tmp_path):
        finished = landscape(*SWEEP, "+grid.x=[1],[2]", *SLURM, "--dry-run")
        assert cluster.words("sbatch") == []
        assert finished.code == 0
        assert finished.out.count("missing  ") == 2
        assert not (tmp_path / "outputs").exists()

    @pytest.mark.parametrize(
        ("job", "code"),
        [
            (JobReturn(_return_value=0, status=JobStatus.COMPLETED), 0),
            (JobReturn(_return_value=3, status=JobStatus.COMPLETED), 3),
            (JobReturn(_return_value=ValueError("x"), status=JobStatus.FAILED), 1),
        ],
    )
    def test_exit_codes_come_back(self, monkeypatch, job, code):
        from landscape_cli import jobs, launchers

        codes = []
        monkeypatch.setattr(jobs, "_codes", codes)
        assert launchers._passed_on([job]) == [job]
        assert codes == [code]

    def test_a_job_of_another_code_is_refused(self, landscape, tmp_path):
        from landscape_cli.composing import load
        from landscape_cli.submission import Submission, job_name

        overrides = [*TOY, "profile=smoke", "+grid.x=[1]"]
        allowing = [*overrides, "allow_changes=true"]
        path = tmp_path / "record.json"
        Submission.of({job_name(words): load(words) for words in (overrides, allowing)}).write(path)
        assert landscape("run", *overrides, f"submission={path}").code == 0
        shutil.rmtree(tmp_path / "outputs" / "results")
        record = json.loads(path.read_text())
        record["code"]["landscape_cli/rng.py"] = "another"
        path.write_text(json.dumps(record))
        refused = landscape("run", *overrides, f"submission={path}")
        refused.assert_refused(2, "the code has changed since it was submitted", "landscape_cli/rng.py")
        assert landscape("run", *allowing, f"submission={path}").code == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["hydra/launcher=slrum"], "slrum"),
        (["hydra/launcher=slurm", "hydra.launcher.partion=x"], "partion"),
        (["hydra/launcher=local", "hydra.launcher.n_job=2"], "n_job"),
    ],
)
def test_what_there_is_not(landscape, words, text):
    landscape(*SWEEP, "+grid.x=[1],[2]", *words).assert_refused(2, text)


def test_without_the_plugins(landscape, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("hydra_plugins.", "landscape_cli.launchers"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_joblib_launcher.joblib_launcher", None)
    finished = landscape(*SWEEP, "+grid.x=[1],[2]", *LOCAL)
    finished.assert_refused(2, "hydra/launcher: hydra_plugins", "is not installed here; pip install")


class TestQueue:
    """What is said of jobs that have left no result, where Slurm keeps no accounts."""

    @pytest.fixture
    def watched(self, cluster, monkeypatch):
        """States of a job, a look at the queue after the other, ten seconds apart."""
        from landscape_cli import launchers

        cluster.says("sacct", err="Slurm accounting storage is disabled", code=1)
        now = [0.0]
        monkeypatch.setattr(launchers.time, "monotonic", lambda: now[0])
        watcher = launchers._queue_watcher()

        def look(job, queue):
            now[0] += launchers.LOOK + 0.1
            cluster.says("squeue", out=queue)
            return watcher.get_state(job)

        return look

    def test_of_arrays_and_of_single_jobs(self, cluster):
        cluster.says("squeue", out="12_0\n12_3\n379_N/A\n99_1\n")
        assert slurm.in_queue(["12", "379"]) == {"12_0", "12_3", "379"}
        cluster.says("squeue", code=1)
        assert slurm.in_queue(["12"]) is None

    @pytest.mark.parametrize(("job", "line"), [("12_0", "12_0"), ("379", "379_N/A")])
    def test_a_job_in_the_queue_is_waited_for(self, watched, job, line):
        assert [watched(job, line) for _ in range(5)] == ["UNKNOWN"] * 5

    def test_a_job_that_is_gone_is_given_time_to_hand_in_its_result(self, watched):
        assert [watched("12_0", "12_1") for _ in range(4)] == ["UNKNOWN", "UNKNOWN", "CANCELLED", "CANCELLED"]

    def test_a_job_that_comes_back_is_waited_for(self, watched):
        states = [watched("12_0", line) for line in ("12_1", "12_1", "12_0", "12_1", "12_1")]
        assert states == ["UNKNOWN"] * 5
