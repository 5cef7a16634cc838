"""What the tests of a real Slurm share; the fixtures are in ``conftest.py``."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TOY = (
    *("schematic_loss_change", "name=toy", "family=toys.Toy", "plot.formats=[png]", "plot.dpi=50", "device=cpu"),
    *("profile=smoke", "mem_gb=1"),
)


@dataclass(frozen=True)
class Jobs:
    """What one ``landscape submit`` handed to Slurm."""

    folder: Path

    @property
    def array(self) -> str:
        return (self.folder / "array").read_text().strip()

    def states(self) -> dict[int, str]:
        """Jobs that wait or run: number -> Slurm's word for it."""
        done = call("squeue", "-h", "-r", "-o", "%F_%K %T")
        pairs = (line.split() for line in done.splitlines())
        return {int(name.split("_")[1]): state for name, state in pairs if name.split("_")[0] == self.array}

    def log(self, number: int) -> str:
        path = self.folder / f"job_{number}.log"
        return path.read_text() if path.exists() else ""

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(self.folder.glob("job_*.log")))

    def wait(self, seconds: float = 120) -> None:
        """Until every job has left the queue."""
        until(lambda: not self.states(), seconds, lambda: f"{self.states()}\n{self.logs()}")

    def cancel(self, *flags: str) -> None:
        call("scancel", *flags, self.array)


def call(*words: str) -> str:
    """Run a command of Slurm and return what it prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def until(condition, seconds: float = 60, say=lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited too long: {say()}"
        time.sleep(0.3)


def diary(tmp_path: Path) -> list[int]:
    """Every x that was measured, or begun to be."""
    path = tmp_path / "diary"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def points(output: Path) -> list[Path]:
    return sorted(output.glob("results/*/[!.]*/point.json"))


def results(output: Path) -> dict[str, bytes]:
    """What must not depend on how it was computed: every frame, by its point, and every table."""
    frames = {str(path.relative_to(output)): path for path in output.glob("results/*/[!.]*/*.parquet")}
    tables = {path.name: path for path in (output / "tables").rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in (frames | tables).items()}


def figures(output: Path) -> set[str]:
    return {path.name for path in (output / "figures").rglob("*") if path.is_file()}


def same(output: Path, reference: Path) -> None:
    """Check that everything is there once, and to the byte what an undisturbed command leaves."""
    assert results(output) == results(reference)
    assert figures(output) == figures(reference)
    assert len(points(output)) == len(points(reference)) > 0
    assert not list((output / "results").rglob(".draft-*"))
    assert not list((output / "results").rglob("*.ckpt"))
