"""Download a published image set with torchvision's own data set classes."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import os
import socket
import tarfile
import tempfile
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

from landscape_cli.data.locate import Source, expand, locate, missing_message
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.errors import BadInput, MissingData

TIMEOUT_SECONDS = 10.0  # for a server that does not answer, or stops answering


def writable_root(roots: Sequence[str | Path]) -> Path:
    """Return where a download goes: the first root that exists and can be written to, else the last one.

    The last one may not exist; :func:`fetch` makes it. By default it is ``~/.cache/landscape``.
    """
    expanded = [expand(root) for root in roots]
    return next((root for root in expanded if root.is_dir() and os.access(root, os.W_OK)), expanded[-1])


def fetch(name: str, root: str | Path, progress: bool = True) -> Source:
    """Download a data set into a root, unless it is there whole, and verify it.

    Parameters
    ----------
    name
        One of :data:`~landscape_cli.data.sets.IMAGE_SETS`.
    root
        Made when it does not exist.
    progress
        Show torchvision's bar on standard error.

    Returns
    -------
    Source
        As :func:`~landscape_cli.data.locate.locate` finds it in this root.

    Raises
    ------
    BadInput
        No published set has this name.
    MissingData
        The download failed, at most some tens of seconds after the network stopped answering. Nothing of it is left.
    """
    published = IMAGE_SETS.get(name)
    if published is None:
        nearest = difflib.get_close_matches(name, IMAGE_SETS, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise BadInput(f"data set '{name}' cannot be fetched: known are {', '.join(IMAGE_SETS)}{hint}")
    found = None
    with contextlib.suppress(MissingData):
        found = locate(name, [root])
    if found and found.whole:
        return found
    # Imported here because it brings torch along.
    from landscape_cli.data.torchvision_import import torchvision

    layout = published.layout
    download = getattr(torchvision.datasets, layout.torchvision_class)
    if layout.torchvision_size:
        download = functools.partial(download, size=layout.torchvision_size)
    root = expand(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Downloaded aside and moved when verified: a broken download never lies where data is looked for.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as aside:
            _run_download(download, aside, progress)
            downloaded = locate(name, [aside])
            if not downloaded.whole:
                objects = f"{downloaded.train_objects} + {downloaded.test_objects}"
                raise MissingData(f"a part of the published set, {objects} objects, was downloaded")
            folder = root / layout.folder
            folder.mkdir(parents=True, exist_ok=True)
            for file in downloaded.files:
                _move(file, folder / file.name)
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zlib.error, MissingData) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, width=200, placeholder=" …")
        rest = f"{found.place} still holds a part of it" if found else missing_message(name, [root])
        raise MissingData(f"download of '{name}' failed ({reason}); {rest}") from error
    return locate(name, [root])


def _move(path: Path, target: Path) -> None:
    """Move a file, or a folder into what is there of it already."""
    if path.is_dir() and target.is_dir():
        for child in list(path.iterdir()):
            _move(child, target / child.name)
    else:
        path.replace(target)


def _run_download(download: Callable[..., object], folder: str, progress: bool) -> None:
    silence = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())
    with silence, _socket_timeout(TIMEOUT_SECONDS), warnings.catch_warnings():
        # torchvision also reads what it downloaded; numpy 2.4.0 to 2.4.4 warn of how CIFAR's pickles spell a dtype.
        warnings.simplefilter("ignore")
        download(folder, download=True)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
