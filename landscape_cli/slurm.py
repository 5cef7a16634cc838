"""The few words of Slurm that are needed: a job array, what became of it, and a place in the queue again."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from landscape_cli.errors import BadInput, LandscapeError

PASSED = ("LANDSCAPE_DATA", "LANDSCAPE_OUTPUTS", "PYTHONPATH", "VIRTUAL_ENV", "PATH")  # whatever sbatch hands on itself
WARNING = 120  # seconds before the time limit


@dataclass(frozen=True)
class Option:
    """An option of ``landscape submit`` that goes to sbatch."""

    flag: str  # with {} for the value
    kind: str  # text, count or size
    help: str


OPTIONS = {
    "partition": Option("--partition={}", "text", "where the jobs go"),
    "time": Option("--time={}", "count", "minutes; a job that needs longer is put into the queue again"),
    "cpus_per_task": Option("--cpus-per-task={}", "count", "cores, and threads"),
    "mem_gb": Option("--mem={}G", "count", "memory in GB"),
    "gpus_per_node": Option("--gpus-per-node={}", "count", "0 or 1: a job uses one device"),
    "account": Option("--account={}", "text", "who pays"),
    "qos": Option("--qos={}", "text", "quality of service"),
    "constraint": Option("--constraint={}", "text", "features of the nodes"),
    "nodelist": Option("--nodelist={}", "text", "nodes to use"),
    "exclude": Option("--exclude={}", "text", "nodes to avoid"),
}


# Of sbatch's options those that a job script needs to be as they are.
FIXED = {f"--{name}" for name in ("array", "output", "error", "signal", "chdir", "open-mode", "job-name", "wrap")}
FIXED |= {"--parsable", "--requeue", "--no-requeue", "--input", "--test-only", "--wait"}


class SlurmRefused(BadInput):
    """Slurm did not take the jobs; the message is its own."""


def check_slurm(command: str = "sbatch") -> None:
    """Refuse to go on where Slurm is not.

    Raises
    ------
    BadInput
        Saying how to check, and what to use without it.
    """
    if shutil.which(command) is None:
        raise BadInput(
            f"no Slurm here: there is no {command} on the PATH. On a login node of the cluster `sinfo` answers; "
            "without a cluster: landscape run -m … hydra/launcher=local"
        )


def flags(options: Mapping[str, str]) -> list[str]:
    """Return sbatch's flags for options of ``landscape submit``, ``slurm.…`` among them.

    Raises
    ------
    BadInput
        For a value that cannot be.
    """
    found = []
    for name, value in options.items():
        if name.startswith("slurm."):
            flag = "--" + name.removeprefix("slurm.").replace("_", "-")
            if flag in FIXED:
                raise BadInput(f"{name}: jobs depend on {flag} as it is; allowed: other options of sbatch")
            found.append(flag if value in ("", "true") else f"{flag}={value}")
            continue
        option = OPTIONS[name]
        if not value or (
            option.kind == "count" and not (value.isdecimal() and (int(value) or name == "gpus_per_node"))
        ):
            raise BadInput(f"{name}: {value!r}; allowed: {'a whole number' if option.kind == 'count' else 'a name'}")
        if name == "gpus_per_node" and int(value) > 1:
            raise BadInput(f"gpus_per_node: {value}; a job uses one device: allowed 0 or 1, and more jobs instead")
        if not (name == "gpus_per_node" and value == "0"):
            found.append(option.flag.format(value))
    return found


def script(command: list[str], folder: Path, count: int, at_once: int | None, options: list[str], lead: int) -> str:
    """Write the batch script of a job array.

    Parameters
    ----------
    command
        What each job runs; the job's number is added to it.
    folder
        Where each job's log goes.
    at_once
        How many jobs may run at once; None: as many as Slurm likes.
    lead
        Seconds before the time limit at which a job is told of it.
    """
    limit = f"%{at_once}" if at_once else ""
    header = [
        "--job-name=landscape",
        f"--array=0-{count - 1}{limit}",
        f'--output="{_escaped(folder).replace("%", "%%")}/job_%a.log"',
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR2@{lead}",
        f'--chdir="{_escaped(Path.cwd())}"',
        *options,
    ]
    exports = [f"export {name}={shlex.quote(os.environ[name])}" for name in PASSED if name in os.environ]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in header),
            *exports,
            # Without it every job of a node would use all of the node's cores.
            'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_ON_NODE:-1}}"',
            f'exec {shlex.join(command)} "$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    )


def submit(path: Path) -> str:
    """Hand a script to sbatch and return the number of the job array.

    Raises
    ------
    SlurmRefused
        With Slurm's own message.
    """
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise SlurmRefused(f"Slurm refused the jobs: {' '.join(done.stderr.replace('sbatch: ', '').split())}")
    return done.stdout.strip().split(";")[0]


def in_queue(arrays: Iterable[str], seconds: float = 30.0) -> set[str] | None:
    """Return the jobs that wait or run, ``ARRAY_NUMBER``, or the number of one that is no array.

    None if Slurm does not answer in time.
    """
    arrays = sorted(set(arrays))
    if not arrays:
        return set()
    found = set()
    try:
        done = subprocess.run(["squeue", "-h", "-r", "-o", "%F_%K"], capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    for line in done.stdout.split():
        if line.split("_")[0] in arrays:
            found.add(line.removesuffix("_N/A"))  # of a job that is no array
    return found


def has_accounting() -> bool:
    """Whether Slurm keeps what became of jobs."""
    try:
        return not subprocess.run(["sacct", "-X", "-n"], capture_output=True, timeout=30).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def requeue() -> None:
    """Put the job that this process is into the queue again.

    Raises
    ------
    LandscapeError
        With Slurm's own message.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    # One task of an array has the array's own number as SLURM_JOB_ID, which would mean all of its tasks.
    number = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    done = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True)
    if done.returncode:
        raise LandscapeError(f"job {number} cannot be put into the queue again: {' '.join(done.stderr.split())}")


def _escaped(path: Path) -> str:
    text = str(path)
    if "\\" in text or "\n" in text:
        raise BadInput(f"{text!r}: Slurm takes no folder with a backslash or a line break in its name")
    return text.replace('"', '\\"')
