"""Expected errors: one line for the user (what, where, what to do) and an exit code."""


class LandscapeError(Exception):
    """An expected error, printed as one line; a traceback only with ``--debug``."""

    exit_code = 1


class BadInput(LandscapeError):
    """The command or the configuration asks for something impossible."""

    exit_code = 2


class MissingData(LandscapeError):
    """A data set is not where it was looked for."""

    exit_code = 3


class DamagedData(MissingData):
    """A file of a data set does not match its checksum, or cannot be read."""


class MeasurementFailed(LandscapeError):
    """A point could not be measured: a training diverged, a solver did not converge."""

    exit_code = 1


class DamagedPoint(LandscapeError):
    """A stored point does not match its checksums."""
