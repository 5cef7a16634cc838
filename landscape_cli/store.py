"""Content-addressed results: the only place that writes results.

``<output_dir>/results/<family>/<key>/`` holds ``point.json`` and one Parquet file a frame. A point is written to a
temporary folder beside it and renamed, so it is whole or absent under any kill, and the first of several concurrent
writers wins. ``point.json`` carries a checksum of every file and of itself. Beside the points lie ``.claims`` (who
measures what), ``.failed`` (the last error of every point that could not be measured) and ``.checkpoints``; a file
``format.json`` says which format the store is in.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape_cli import __version__
from landscape_cli.claims import Claims, clear_drafts, draft_name, make_folder
from landscape_cli.errors import CannotWrite, DamagedPoint, OtherFormat, out_of_space
from landscape_cli.experiment import Measurement

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FORMAT = 1
_BESIDE = (".claims", ".failed", ".checkpoints")


@dataclass(frozen=True)
class StoredPoint:
    """One point read back."""

    frames: dict[str, pd.DataFrame]
    arrays: dict[str, np.ndarray]
    document: dict[str, Any]  # point.json: settings, coordinates, provenance, checksums


def key_of(family: str, version: int, settings: Mapping[str, Any]) -> str:
    """Hash of everything that can change a point's numbers: 32 hex digits."""
    text = _canonical({"family": family, "version": version, "settings": settings})
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Store:
    """The results of one output folder, shared by any number of processes."""

    def __init__(self, output_dir: Path) -> None:
        self.root = output_dir / "results"

    def folder(self, family: str, key: str) -> Path:
        """Where a point is, whether or not it is there."""
        return self.root / family / key

    def has(self, family: str, key: str, parameters: bool = False) -> bool:
        """Whether the point is stored (not whether it is undamaged), with its trained parameters if asked."""
        folder = self.folder(family, key)
        return folder.is_dir() and (not parameters or (folder / "parameters.safetensors").is_file())

    def read(self, family: str, key: str) -> StoredPoint:
        """Read a point and check every byte of it.

        Raises
        ------
        DamagedPoint
            If a file is missing, altered or unreadable.
        OtherFormat
            If another version of this package wrote it.
        """
        document, contents = self._checked(family, key)
        frames, arrays = {}, {}
        try:
            for name, content in contents.items():
                stem, _, suffix = name.rpartition(".")
                if suffix == "parquet":
                    frames[stem] = _frame(content)
                elif suffix == "npy":
                    import numpy as np

                    arrays[stem] = np.load(io.BytesIO(content), allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(self.folder(family, key), error) from error
        return StoredPoint(frames, arrays, document)

    def check(self, family: str, key: str) -> dict[str, Any]:
        """Check every byte of a point as :meth:`read` does, and return its ``point.json`` alone."""
        return self._checked(family, key)[0]

    def _checked(self, family: str, key: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        folder = self.folder(family, key)
        try:
            document = json.loads((folder / "point.json").read_text())
            if document.pop("checksum") != _digest(_canonical(document).encode()):
                raise DamagedPoint(f"{folder / 'point.json'}: does not match its checksum")
            if document["format"] != FORMAT:
                versions = document.get("provenance", {}).get("versions", {})
                raise _other_format(folder, document["format"], versions.get("landscape-cli", "of another version"))
            if (document["family"], document["key"]) != (family, key):
                raise DamagedPoint(f"{folder}: holds the point {document['family']}/{document['key']}")
            contents = {}
            for name, digest in document["files"].items():
                contents[name] = (folder / name).read_bytes()
                if _digest(contents[name]) != digest:
                    raise DamagedPoint(f"{folder / name}: does not match its checksum")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(folder, error) from error
        return document, contents

    def write(self, family: str, key: str, measurement: Measurement, document: Mapping[str, Any]) -> None:
        """Write a point, whole or not at all; if another process has stored it meanwhile, theirs stays.

        Parameters
        ----------
        document
            Settings, coordinates and provenance, for ``point.json``.

        Raises
        ------
        CannotWrite
            If the disk is full or can only be read.
        """
        try:
            self._write(family, key, _contents(measurement), document, bool(measurement.parameters))
        except OSError as error:
            if out_of_space(error):
                raise CannotWrite(f"{self.root}: {error.strerror}") from error
            raise

    def _write(
        self, family: str, key: str, contents: Mapping[str, bytes], document: Mapping[str, Any], parameters: bool
    ) -> None:
        final = self.folder(family, key)
        draft = final.parent / draft_name()
        make_folder(draft)
        try:
            files = {name: _digest(content) for name, content in contents.items()}
            whole = {"format": FORMAT, "family": family, "key": key, **document, "files": files}
            whole["checksum"] = _digest(_canonical(whole).encode())
            about = json.dumps(whole, indent=1, ensure_ascii=False).encode()
            for name, content in {**contents, "point.json": about}.items():
                with (draft / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            while True:
                if final.exists() and self._superseded(family, key, parameters):
                    self.discard(family, key)
                try:
                    draft.rename(final)
                    break
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                # Another process was quicker: if its point is good it stays, else it goes and ours gets its turn.
                if final.exists() and not self._superseded(family, key, parameters):
                    break
        finally:
            if draft.exists():
                shutil.rmtree(draft, ignore_errors=True)

    def discard(self, family: str, key: str) -> None:
        """Remove a stored point, in one step as others see it."""
        grave = self.root / family / draft_name()
        try:
            self.folder(family, key).rename(grave)
        except FileNotFoundError:
            return
        shutil.rmtree(grave, ignore_errors=True)

    def tidy(self, family: str) -> None:
        """Remove what killed processes left behind: drafts, and what is only kept of a point until it is stored."""
        place = self.root / family
        for folder in (self.root, place, *(place / name for name in _BESIDE)):
            clear_drafts(folder)
        claims = self.claims(family)
        for folder in (place / name for name in _BESIDE):
            for name in os.listdir(folder) if folder.is_dir() else ():
                key = name.removesuffix(".json")
                if self.has(family, key) and claims.owner(key) is None and claims.take(key):
                    self.forget(family, key)
                    claims.release(key)
        claims.close()

    def claims(self, family: str) -> Claims:
        """Who measures which point of a family."""
        return Claims(self.root / family / ".claims")

    def checkpoints(self, family: str, key: str) -> Path:
        """Folder for the checkpoints of a point that is being measured."""
        return self.root / family / ".checkpoints" / key

    def write_failure(self, family: str, key: str, record: Mapping[str, Any]) -> None:
        """Keep the error of a point that could not be measured, in the place of an earlier one."""
        replace_text(self.root / family / ".failed" / f"{key}.json", json.dumps(record))

    def failure(self, family: str, key: str) -> dict[str, Any]:
        """What :meth:`write_failure` has kept of a point; nothing if there is none."""
        try:
            return dict(json.loads((self.root / family / ".failed" / f"{key}.json").read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def forget(self, family: str, key: str) -> None:
        """Drop what is only kept of a point until it is measured: its last error, its checkpoints."""
        failure, checkpoints = self.root / family / ".failed" / f"{key}.json", self.checkpoints(family, key)
        failure.unlink(missing_ok=True)
        shutil.rmtree(checkpoints, ignore_errors=True)
        for folder in (failure.parent, checkpoints.parent):
            with suppress(OSError):  # other points' are in it, or there is none
                folder.rmdir()

    def open(self) -> None:
        """Make the store where there is none yet.

        Raises
        ------
        OtherFormat
            If another version of this package wrote it.
        OSError
            If it cannot be written.
        """
        path = self.root / "format.json"
        own = {"format": FORMAT, "landscape": __version__}
        try:
            found = json.loads(path.read_text())
            if found.pop("checksum") == _digest(_canonical(found).encode()):
                if found["format"] != FORMAT:
                    raise _other_format(self.root, found["format"], found["landscape"])
                return
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # not there yet, or damaged
        replace_text(path, json.dumps({**own, "checksum": _digest(_canonical(own).encode())}))

    def seconds(self, family: str, key: str) -> float | None:
        """How long a stored point took; None if it is not there or does not say."""
        try:
            return float(json.loads((self.folder(family, key) / "point.json").read_text())["provenance"]["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def documents(self, family: str) -> Iterator[dict[str, Any]]:
        """Read the ``point.json`` of every stored point of a family; unreadable ones are passed over."""
        for path in sorted((self.root / family).glob("*/point.json")):
            try:
                document = json.loads(path.read_text())
                whole = isinstance(document["settings"], dict) and document["key"] == path.parent.name
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if whole:
                yield document

    def _superseded(self, family: str, key: str, parameters: bool) -> bool:
        """Whether the stored point is damaged, or lacks parameters that the new one has."""
        if parameters and not self.has(family, key, parameters=True):
            return True
        try:
            self.read(family, key)
        except DamagedPoint:
            return True
        return False


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    for last in (*[False] * 9, True):
        make_folder(path.parent)
        draft = path.with_name(draft_name())
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
            return
        except FileNotFoundError:  # another process removed the empty folder
            if last:
                raise
        finally:
            draft.unlink(missing_ok=True)


def _frame(content: bytes) -> pd.DataFrame:
    """Read a frame in this thread alone: waking pyarrow's other ones takes longer than reading a small one."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    return ParquetFile(pyarrow.BufferReader(content)).read(use_threads=False).to_pandas(use_threads=False)


def _contents(measurement: Measurement) -> dict[str, bytes]:
    """Return the files of a measurement; made in memory, since not every library says why it could not write."""
    import numpy as np

    found = {f"{name}.parquet": frame.to_parquet(index=False) for name, frame in measurement.frames.items()}
    for name, array in measurement.arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        found[f"{name}.npy"] = buffer.getvalue()
    if measurement.parameters:
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in measurement.parameters.items()}
        found["parameters.safetensors"] = save(tensors)
    return dict(sorted(found.items()))


def _unreadable(folder: Path, error: Exception) -> DamagedPoint:
    return DamagedPoint(f"{folder}: cannot be read ({type(error).__name__}: {error})")


def _other_format(place: Path, found: object, version: str) -> OtherFormat:
    return OtherFormat(
        f"{place}: written by landscape {version} in format {found}; this is landscape {__version__}, which reads "
        f"format {FORMAT}. Use that version, or another output_dir"
    )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
