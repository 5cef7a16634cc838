"""Download a known parallel corpus from where it is published."""

from __future__ import annotations

import contextlib
import tempfile
import textwrap
from pathlib import Path

from landscape_cli.data.corpora import corpus_missing_message, locate_corpus
from landscape_cli.data.corpus_pairs import how_to_get
from landscape_cli.data.corpus_sets import CORPUS_SETS, check_corpus_name
from landscape_cli.data.corpus_source import CorpusSource
from landscape_cli.data.fetch_tables import retrieve
from landscape_cli.data.locate import expand
from landscape_cli.errors import MissingData


def fetch_corpus(name: str, root: str | Path, progress: bool = True) -> CorpusSource:
    """Download a corpus into a root, unless it is there, and verify its files.

    Parameters
    ----------
    name
        One of :data:`~landscape_cli.data.corpus_sets.CORPUS_SETS`.
    root
        Made when it does not exist.
    progress
        Show a bar on standard error.

    Returns
    -------
    CorpusSource
        As :func:`~landscape_cli.data.corpora.locate_corpus` finds it in this root.

    Raises
    ------
    BadInput
        No known corpus has this name.
    MissingData
        It cannot be fetched, or the download failed. Nothing of it is left.
    """
    check_corpus_name(name, None)
    published, wanted, root = CORPUS_SETS[name], {"name": name}, expand(root)
    with contextlib.suppress(MissingData):
        return locate_corpus(wanted, [root])
    if published.url is None:
        raise MissingData(f"data set '{name}' ({published.title}) is not fetched from here; {how_to_get(published)}")
    folder = root / "text" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Downloaded aside and moved when verified: a broken download never lies where data is looked for.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as aside:
            for file in published.files:
                packed = f"{file.name}.gz"
                retrieve(f"{published.url}/{packed}", file.packed_sha256, Path(aside) / packed, progress)
            for path in Path(aside).iterdir():
                path.replace(folder / path.name)
    # What requests raises is an OSError, a digest that does not match is pooch's ValueError.
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        reason = textwrap.shorten(str(error) or type(error).__name__, width=200, placeholder=" …")
        raise MissingData(
            f"download of '{name}' failed ({reason}); {corpus_missing_message(published, [root])}"
        ) from error
    return locate_corpus(wanted, [root])
