"""Faults on purpose: kills, full and read-only disks, damage. Long, so only when asked for (``make test-faults``)."""

import os
import subprocess
from pathlib import Path

import pytest
from fault_toys import LOG
from fork_server import Forks

HERE = Path(__file__).parent


def pytest_configure(config):
    config.addinivalue_line("markers", "faults: breaks processes, disks and files on purpose (run by make test-faults)")


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="takes minutes: LANDSCAPE_TEST_FAULTS=1 or make test-faults")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("faults")
            if os.environ.get("LANDSCAPE_TEST_FAULTS") != "1":
                item.add_marker(skip)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One process that has imported torch and forks every command of these tests."""
    with Forks(tmp_path_factory.mktemp("forks")) as forks:
        yield forks


@pytest.fixture
def forks(server, monkeypatch, tmp_path):
    """Start commands, each with this test's environment; none is alive after the test."""
    monkeypatch.setenv(LOG, str(tmp_path / "measured.log"))
    yield server
    server.kill_all()


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, of 16 MB until it is mounted again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def remount(disk):
    """Mount the disk again with other options."""

    def again(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)

    return again
