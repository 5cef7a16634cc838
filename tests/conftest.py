"""Keeps every test away from the network and from the user's folders."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pytest

# Before torch is imported: with several threads small networks wait for each other, and for the other workers' ones.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Found before HOME is changed: without it every test's matplotlib would look through the fonts again.
os.environ.setdefault("MPLCONFIGDIR", matplotlib.get_cachedir())

NO_SERVER = "http://127.0.0.1:9"
TESTS = Path(__file__).parent
# A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
LAUNCH = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from landscape_cli.cli import main
main()
"""


@pytest.fixture(autouse=True)
def isolated(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """No data set but the embedded one, results below ``tmp_path``, no download, nothing left in this process.

    Returns
    -------
    The folder with ``home``, ``no-data`` (the first data root) and ``work`` (the working directory); ``tmp_path``
    itself stays empty.
    """
    around = tmp_path_factory.mktemp("around")
    for name in ("home", "no-data", "work"):
        (around / name).mkdir()
    monkeypatch.setenv("HOME", str(around / "home"))
    monkeypatch.setenv("LANDSCAPE_DATA", str(around / "no-data"))
    monkeypatch.setenv("LANDSCAPE_OUTPUTS", str(tmp_path / "outputs"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_SERVER)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # set by a run, and so taken back after the test
    monkeypatch.setenv("LANDSCAPE_COMMAND", "landscape (a test)")
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(around / "work")
    return around


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def assert_refused(self, code: int, *texts: str | Sequence[str]) -> None:
        """Check an expected error: one line on stderr, nothing measured.

        Parameters
        ----------
        texts
            What the line must contain; of several given as one sequence, any.
        """
        shown = f"exit code {self.code}, stderr:\n{self.err}"
        assert self.code == code, shown
        assert len(self.lines) == 1, shown
        assert "Traceback" not in self.err + self.out, shown
        assert "unexpected" not in self.err, shown
        for text in texts:
            several = [text] if isinstance(text, str) else text
            assert any(each in self.err for each in several), f"{several} not in {shown}"
        assert not list(Path(os.environ["LANDSCAPE_OUTPUTS"]).glob("results/*/*/point.json"))

    @property
    def lines(self) -> list[str]:
        """What it printed on stderr."""
        return self.err.splitlines()


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Overrides of a run that takes a second."""
    return ("profile=smoke", "data.download=false", "plot.formats=[png]", "plot.dpi=50")


@pytest.fixture
def landscape(capsys):
    """Run ``landscape WORDS`` in this process."""
    from landscape_cli.cli import dispatch

    def run(*words: str) -> Finished:
        capsys.readouterr()
        try:
            code = dispatch(words)
        except SystemExit as stop:  # argparse's way out
            code = stop.code
        return Finished(code, *capsys.readouterr())

    return run


@pytest.fixture
def start():
    """Start ``landscape WORDS`` in a process of its own; what still runs at the end of the test is killed."""
    started = []

    def run(*words: str, **options) -> subprocess.Popen:
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(TESTS)]))
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def measured_once(tmp_path_factory, small) -> Path:
    """An output folder in which the quickstart is stored under the smoke profile; not to be written to."""
    output = tmp_path_factory.mktemp("measured")
    from landscape_cli.composing import load
    from landscape_cli.runner import run

    overrides = [*small, f"output_dir={output}"]
    assert run(load(overrides), overrides) == 0
    return output


@pytest.fixture
def measured(measured_once, tmp_path) -> Path:
    """A copy of :func:`measured_once`, where the commands of this test write."""
    return Path(shutil.copytree(measured_once, tmp_path / "outputs"))
