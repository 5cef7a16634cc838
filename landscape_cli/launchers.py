"""Launchers of a sweep's jobs: on a Slurm cluster, or side by side on this machine.

Hydra's own plugins do the launching. Around them: what is submitted is recorded and checked, exit codes come back,
devices are used in turn, and errors are one line.
"""

from __future__ import annotations

import io
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from subprocess import CalledProcessError
from typing import TextIO

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from hydra_plugins.hydra_submitit_launcher import submitit_launcher

from landscape_cli import jobs, provenance, slurm
from landscape_cli.composing import load
from landscape_cli.errors import LandscapeError
from landscape_cli.submission import Submission, job_name

LOOK = 10.0  # seconds between two looks at the queue
Overrides = Sequence[Sequence[str]]


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """Each job of the sweep is a job of a cluster; waits for them all."""

    def launch(self, job_overrides: Overrides, initial_job_idx: int) -> Sequence[JobReturn]:
        """Record what is submitted, hand the jobs to Slurm and wait.

        Raises
        ------
        BadInput
            If there is no Slurm, if it does not take the jobs, or if a job is not valid.
        LandscapeError
            If a job did not come back.
        """
        slurm.check_slurm()
        from submitit import SlurmJob
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError

        configs = {job_name(overrides): load(overrides) for overrides in job_overrides}
        output = Path(next(iter(configs.values())).output_dir).expanduser().resolve()
        stamp = provenance.now().replace(":", "").replace("-", "")
        record = output / "runs" / "submissions" / f"{stamp}_{uuid.uuid4().hex[:4]}.json"
        Submission.of(configs).write(record)
        watcher = SlurmJob.watcher = _queue_watcher()
        try:
            with_record = [[*overrides, f"submission={record}"] for overrides in job_overrides]
            with redirect_stderr(_WithoutSbatch(sys.stderr)):
                returned = super().launch(with_record, initial_job_idx)
        except (FailedSubmissionError, UncompletedJobError) as error:
            if isinstance(error, UncompletedJobError) and not isinstance(error.__cause__, CalledProcessError):
                raise LandscapeError(
                    f"a job did not come back: {_text(str(error))}. The others go on; the same command measures what "
                    "is missing then"
                ) from error
            record.unlink()
            raise slurm.SlurmRefused(f"Slurm refused the jobs: {_text(str(error))}") from error
        except KeyboardInterrupt:
            arrays = ", ".join(sorted({job.split("_")[0] for job in watcher.known}))
            if arrays:
                print(f"the jobs go on; `scancel {arrays}` stops them", file=sys.stderr)
            raise
        return _passed_on(returned)


class _WithoutSbatch(io.TextIOBase):
    """Passes on what is printed but for sbatch's own lines, which submitit repeats and the one line of ours holds."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.told = stream, True

    def write(self, text: str) -> int:
        if text.startswith("sbatch: "):
            self.told = False
        elif self.told or text != "\n":
            self.told = True
            self.stream.write(text)
        return len(text)


class LocalLauncher(JoblibLauncher):
    """The jobs of the sweep side by side on this machine; joblib shares the cores out among them."""

    def launch(self, job_overrides: Overrides, initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, each on the next device."""
        count = _devices()
        if count > 1:
            job_overrides = [
                [*overrides, f"device=cuda:{n % count}"] if not _names_device(overrides) else list(overrides)
                for n, overrides in enumerate(job_overrides)
            ]
        return _passed_on(super().launch(job_overrides, initial_job_idx))


def _queue_watcher() -> object:
    """Return what tells submitit of jobs that have ended without a result.

    Its own asks the accounting; without one it would wait for a job that was cancelled for ever. This one also looks
    whether the job is still in the queue.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher

    class Watcher(SlurmInfoWatcher):
        def __init__(self) -> None:
            super().__init__(delay_s=60)
            self.accounting = slurm.has_accounting()
            self.looked, self.there = -LOOK, set()
            self.known: set[str] = set()
            self.gone: dict[str, float] = {}  # job -> when it was first missed

        def register_job(self, job_id: str) -> None:
            super().register_job(job_id)
            self.known.add(job_id)

        def get_state(self, job_id: str, mode: str = "standard") -> str:
            state = super().get_state(job_id, mode) if self.accounting else "UNKNOWN"
            if state != "UNKNOWN":
                return state
            now = time.monotonic()
            if now - self.looked > LOOK:
                self.looked, self.there = now, slurm.in_queue([job_id.split("_")[0]])
            if self.there is None or job_id in self.there:
                self.gone.pop(job_id, None)
            elif now - self.gone.setdefault(job_id, now) > 2 * LOOK:  # its result may be on the way
                return "CANCELLED"
            return state

    return Watcher()


def install() -> None:
    """Put these launchers in the place of the plugins' own: Hydra takes none from outside of ``hydra_plugins``."""
    known = Plugins.instance().class_name_to_class
    for own in (SlurmLauncher, LocalLauncher):
        plugin = own.__base__
        known[f"{plugin.__module__}.{plugin.__name__}"] = own


def _passed_on(returned: Sequence[JobReturn]) -> Sequence[JobReturn]:
    """Tell the command its jobs' exit codes, which were processes of their own."""
    for job in returned:
        jobs.ended(job.return_value if job.status is JobStatus.COMPLETED else 1)
    return returned


def _devices() -> int:
    import torch

    return torch.cuda.device_count()


def _names_device(overrides: Sequence[str]) -> bool:
    return any(text.startswith("device=") for text in overrides)


def _text(message: str) -> str:
    return " ".join(message.replace("sbatch: ", "").split())
