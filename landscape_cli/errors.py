"""Expected errors: one line for the user (what, where, what to do) and an exit code."""

from __future__ import annotations

import errno
import os
import sys

INTERRUPTED = 130  # exit code after Ctrl-C


class LandscapeError(Exception):
    """An expected error, printed as one line; a traceback only with ``--debug``."""

    exit_code = 1


class BadInput(LandscapeError):
    """The command or the configuration asks for something impossible."""

    exit_code = 2


class NothingGiven(BadInput):
    """An experiment on a user's own network or data, and none was named."""


class OtherFormat(BadInput):
    """A store that another version of this package wrote."""


class ImpossibleModel(BadInput):
    """A network that cannot be what is asked of it, or whose layers do not fit on the objects."""


class MissingData(LandscapeError):
    """A data set or a checkpoint is not where it was looked for."""

    exit_code = 3


class MissingExtractor(MissingData):
    """The features that every point needs cannot be computed."""


class DamagedData(MissingData):
    """A file of a data set does not match its checksum, or cannot be read."""


class MeasurementFailed(LandscapeError):
    """A point could not be measured: a training diverged, a solver did not converge."""

    exit_code = 1


class DamagedPoint(LandscapeError):
    """A stored point does not match its checksums."""


class CannotWrite(LandscapeError):
    """The disk with the outputs is full, or can only be read."""


def out_of_space(error: BaseException) -> bool:
    """Whether an error means that nothing more can be written there."""
    if isinstance(error, CannotWrite):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def say(error: Exception) -> int:
    """Print an error as one line on stderr and return its exit code."""
    if isinstance(error, LandscapeError):
        text, code = str(error), error.exit_code
    elif isinstance(error, OSError) and error.strerror:
        text, code = f"{error.filename or 'input or output'}: {error.strerror}", 1
    else:
        text, code = f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1
    print(f"landscape: {' '.join(text.split())}", file=sys.stderr)
    return code


def close_output() -> int:
    """Go quiet when the reader of our output has gone (``| head``), and return the exit code for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
