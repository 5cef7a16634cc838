"""Download a known table from where it is published."""

from __future__ import annotations

import contextlib
import difflib
import logging
import tempfile
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

from landscape_cli.data.locate import expand
from landscape_cli.data.tables import TABLE_SETS, TableFile
from landscape_cli.data.tabular import TableSource, locate_table, table_missing_message
from landscape_cli.errors import BadInput, MissingData

TIMEOUT_SECONDS = 10.0  # for a server that does not answer, or stops answering


def fetch_table(name: str, root: str | Path, progress: bool = True) -> TableSource:
    """Download a table into a root, unless it is there, and verify its values.

    Parameters
    ----------
    name
        One of :data:`~landscape_cli.data.tables.TABLE_SETS`.
    root
        Made when it does not exist.
    progress
        Show a bar on standard error.

    Returns
    -------
    TableSource
        As :func:`~landscape_cli.data.tabular.locate_table` finds it in this root.

    Raises
    ------
    BadInput
        No known table has this name.
    MissingData
        The download failed. Nothing of it is left.
    """
    published = TABLE_SETS.get(name)
    if published is None:
        near = difflib.get_close_matches(name, TABLE_SETS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise BadInput(f"data set '{name}' cannot be fetched: known are {', '.join(TABLE_SETS)}{hint}")
    wanted, root = {"name": name}, expand(root)
    if not published.files:
        return locate_table(wanted, [])
    with contextlib.suppress(MissingData):
        return locate_table(wanted, [root])
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Downloaded aside and moved when verified: a broken download never lies where data is looked for.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as aside:
            for file in published.files:
                _download(file, Path(aside), progress)
            for path in locate_table(wanted, [aside]).files:
                place = root / path.relative_to(aside)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
    # What requests raises is an OSError, a digest that does not match is pooch's ValueError.
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MissingData) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, width=200, placeholder=" …")
        raise MissingData(
            f"download of '{name}' failed ({reason}); {table_missing_message(published, [root])}"
        ) from error
    return locate_table(wanted, [root])


def _download(file: TableFile, root: Path, progress: bool) -> None:
    """Bring a file below ``tabular/`` of a root."""
    place = root / "tabular" / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    fetched = root / "archive.zip" if file.member else place
    retrieve(file.url, file.sha256, fetched, progress)
    if file.member:
        with zipfile.ZipFile(fetched) as archive:
            place.write_bytes(archive.read(file.member))
        fetched.unlink()


def retrieve(url: str, sha256: str | None, path: Path, progress: bool) -> None:
    """Download a file.

    Parameters
    ----------
    sha256
        Hex digest that it must have; None: it is checked otherwise.

    Raises
    ------
    OSError
        No server answers, or not with the file.
    ValueError
        It has another digest.
    """
    import pooch  # takes a while to import, and most runs download nothing

    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS, progressbar=progress)
    known = f"sha256:{sha256}" if sha256 else None
    with _quiet(pooch.get_logger()):
        pooch.retrieve(url, known, path.name, path.parent, None, downloader)


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep what a download tells of itself, such as digests to copy, off the terminal."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
