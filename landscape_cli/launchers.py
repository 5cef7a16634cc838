"""Launchers of a sweep's jobs: on a Slurm cluster, or side by side on this machine.

Hydra's own plugins do the launching. Around them: what is submitted is recorded and checked, exit codes come back,
devices are used in turn, and errors are one line.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from hydra_plugins.hydra_submitit_launcher import submitit_launcher

from landscape_cli import jobs, provenance, slurm
from landscape_cli.composing import load
from landscape_cli.errors import LandscapeError
from landscape_cli.submission import Submission, job_name

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
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError

        configs = {job_name(overrides): load(overrides) for overrides in job_overrides}
        output = Path(next(iter(configs.values())).output_dir).expanduser().resolve()
        stamp = provenance.now().replace(":", "").replace("-", "")
        record = output / "runs" / "submissions" / f"{stamp}_{uuid.uuid4().hex[:4]}.json"
        Submission.of(configs).write(record)
        try:
            with_record = [[*overrides, f"submission={record}"] for overrides in job_overrides]
            returned = super().launch(with_record, initial_job_idx)
        except (FailedSubmissionError, UncompletedJobError) as error:
            if isinstance(error, UncompletedJobError) and not isinstance(error.__cause__, CalledProcessError):
                raise LandscapeError(f"a job did not come back: {_text(str(error))}") from error
            raise slurm.SlurmRefused(f"Slurm refused the jobs: {_text(str(error))}") from error
        return _passed_on(returned)


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
