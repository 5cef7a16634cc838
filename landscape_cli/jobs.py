"""``landscape run``: hands the overrides to Hydra, which composes the configuration and launches one job or a sweep."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from landscape_cli.composing import check_overrides, translated, with_arguments_added
from landscape_cli.config_path import config_folder
from landscape_cli.errors import INTERRUPTED, BadInput, NothingGiven, close_output, say
from landscape_cli.provenance import remember_command
from landscape_cli.validation import nearest, prepare

# Of Hydra's own flags those that make sense here, with the number of words that follow each.
HYDRA_FLAGS = {
    "-m": 0,
    "--multirun": 0,
    "-c": 1,
    "--cfg": 1,
    "-p": 1,
    "--package": 1,
    "--resolve": 0,
    "--hydra-help": 0,
}
FLAGS = {"--dry-run": "dry_run=true", "--debug": "debug=true"}

_codes: list[int] = []  # exit codes of this process's jobs: Hydra returns none


def run_jobs(words: list[str]) -> int:
    """Run ``landscape run`` with these words.

    Returns
    -------
    The job's exit code; of a sweep, 130 if a job was stopped, else that of the failed jobs if they agree, else 1.
    """
    remember_command(["run", *words])
    words = with_arguments_added([FLAGS.get(word, word) for word in words])
    overrides = _overrides(words)
    check_overrides(overrides)
    if "dry_run=true" in overrides:  # nothing is launched; Hydra makes a sweep's folder before any job could say no
        words = [word for word in words if not word.startswith(("hydra/launcher=", "hydra.launcher."))]
    elif any(text.startswith("hydra/launcher=") for text in overrides):
        _use_launchers()
    if "dry_run=true" in overrides:
        scratch = tempfile.TemporaryDirectory()
        words.append(f"hydra.sweep.dir={scratch.name}")
    sys.argv = ["landscape", *words]
    # Hydra then raises its errors instead of printing them and calling sys.exit.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _codes.clear()
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(_job)()
    except KeyboardInterrupt:
        if INTERRUPTED not in _codes:  # else the runner has said what is stored
            raise
    except (HydraException, OmegaConfBaseException) as error:
        raise translated(error, [o for o in overrides if "," not in o]) from error
    except OSError as error:
        if not error.filename:
            raise
        raise BadInput(f"output_dir: {error.filename}: cannot be written ({error.strerror})") from error
    failed = {code for code in _codes if code}
    if INTERRUPTED in failed:
        return INTERRUPTED
    return failed.pop() if len(failed) == 1 else int(bool(failed))


def _use_launchers() -> None:
    try:
        from landscape_cli.launchers import install
    except ImportError as error:
        raise BadInput(
            f"hydra/launcher: {error.name} is not installed here; pip install 'landscape-cli[cluster]'"
        ) from error
    install()


def _overrides(words: list[str]) -> list[str]:
    overrides, skip = [], 0
    for word in words:
        if skip:
            skip -= 1
        elif word.startswith("-"):
            if word not in HYDRA_FLAGS:
                known = [*FLAGS, *HYDRA_FLAGS]
                raise BadInput(f"unknown option {word}{nearest(word, known)}; known: {', '.join(known)}")
            skip = HYDRA_FLAGS[word]
        else:
            overrides.append(word)
    return overrides


def ended(code: int) -> None:
    """Tell the command the exit code of a job that was not of this process."""
    _codes.append(code)


def _job(composed: DictConfig) -> int:
    """Do one job and return its exit code.

    Errors end here: Hydra would print its own lines around them, and stop a sweep only at its end.
    """
    from landscape_cli.runner import run

    debug = composed.get("debug") is True
    # Unresolved: an override such as output_dir=${nosuch} is text here, and prepare's to refuse.
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    try:
        config = prepare(composed, overrides)
        if config.submission:
            from landscape_cli.submission import check_unchanged, job_name, read_submission

            check_unchanged(read_submission(Path(config.submission)), job_name(overrides), config)
        code = run(config, overrides)
    except BrokenPipeError:
        code = close_output()
    except NothingGiven as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # 'experiment=glob(*)' cannot name a user's network
            print(f"{config.name}: skipped: {error}", flush=True)
            code = 0
        else:
            code = say(error)
    except Exception as error:  # of any job of a sweep: the others are to go on
        if debug:
            raise
        code = say(error)
    _codes.append(code)
    if code == INTERRUPTED:  # the jobs that are left are not to be started
        raise KeyboardInterrupt
    return code
