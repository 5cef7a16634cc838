"""Jobs of a real Slurm: only with LANDSCAPE_TEST_SLURM=1 and where ``sinfo`` answers (``cluster.sh up``)."""

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from slurm_jobs import HERE, Jobs
from toys import DIARY


def pytest_configure(config):
    config.addinivalue_line("markers", "slurm: needs a Slurm cluster (run by make test-slurm)")


def pytest_collection_modifyitems(items):
    reason = _why_not()
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.slurm)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@cache
def _why_not() -> str:
    if os.environ.get("LANDSCAPE_TEST_SLURM") != "1":
        return "LANDSCAPE_TEST_SLURM=1 is not set"
    try:
        subprocess.run(["sinfo"], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no Slurm: sinfo says {error}"
    return ""


@pytest.fixture(autouse=True)
def place(isolated, tmp_path, monkeypatch) -> Path:
    """Let jobs find the toys, and take the number of threads of the tests themselves."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(DIARY, str(tmp_path / "diary"))
    return tmp_path


@pytest.fixture
def submit(landscape, tmp_path):
    """``landscape submit WORDS`` in this process; what is in the queue at the end of the test is cancelled."""
    submitted = []

    def run(*words: str) -> Jobs:
        before = set((tmp_path / "outputs" / "jobs").glob("*"))
        finished = landscape("submit", *words)
        assert (finished.code, finished.err) == (0, "")
        (folder,) = set((tmp_path / "outputs" / "jobs").glob("*")) - before
        jobs = Jobs(folder)
        submitted.append(jobs)
        assert f"{jobs.array}_0: " in finished.out
        return jobs

    yield run
    for jobs in submitted:
        jobs.cancel()


@pytest.fixture
def undisturbed(landscape, tmp_path):
    """One ``landscape run`` of the same experiments and overrides into a folder of its own, which is returned."""

    def run(names: Sequence[str], overrides: Sequence[str]) -> Path:
        output = tmp_path / "undisturbed"
        for name in names:
            finished = landscape("run", f"experiment={name}", *overrides, f"output_dir={output}")
            assert finished.code == 0, finished.err
        return output

    return run
