"""Who measures what: a claim on a point while it is computed, so that no two processes compute the same one.

A claim is a folder ``<key>/`` with one file, named for its owner alone. Owners come in by renaming a folder of their
own onto it, which fails while anybody's file is in it, and a dead owner goes by the removal of its own file, which can
harm nobody else's: there is no moment at which two processes hold one claim.

An owner of this machine is dead when its process is; one of another machine when its file has not been touched for
:data:`STALE` seconds. Ages are taken against a file that was touched just now in the same place, so that clocks do not
have to agree.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

DRAFT = ".draft-"
DAY = 86400.0
STALE = 120.0  # seconds without a sign of life
BEAT = 15.0  # seconds between two of them


@dataclass(frozen=True)
class Owner:
    """A process that holds a claim."""

    host: str
    machine: str  # hash of host, boot and process namespace: where a process number means something
    pid: int
    started: str  # of the process, in the kernel's ticks: numbers are used again

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claims:
    """The claims in one folder, shared by any number of processes on any number of machines.

    Errors: ``OSError`` if the folder cannot be written.
    """

    def __init__(self, folder: Path, stale: float = STALE, beat: float = BEAT) -> None:
        self.folder, self.stale, self.beat = folder, stale, beat
        self._held: dict[str, Path] = {}  # key -> own file
        self._lock = threading.Lock()
        self._heart: threading.Thread | None = None
        self._done = threading.Event()

    def take(self, key: str) -> bool:
        """Claim a key; False if a living process has it. A dead process's claim is taken over."""
        for _ in range(2):  # once more after a dead owner has gone
            if self._enter(key):
                return True
            if self._bury(key):
                return False
        return False

    def release(self, key: str) -> None:
        """Give a claim back; nothing happens if it was lost to another process meanwhile."""
        with self._lock:
            own = self._held.pop(key, None)
        if own is not None:
            with suppress(OSError):
                own.unlink()
            with suppress(OSError):  # another owner may be in it already
                own.parent.rmdir()

    def owner(self, key: str) -> Owner | None:
        """The living process that has a key; None if nobody has."""
        return next((owner for _, owner in self._living(key)), None)

    def living(self) -> dict[str, Owner]:
        """Every key that a living process has."""
        owners = ((name, self.owner(name)) for name in _names(self.folder) if not name.startswith("."))
        return {key: owner for key, owner in owners if owner}

    def close(self) -> None:
        """Give every claim back and stop giving signs of life."""
        self._done.set()
        for key in list(self._held):
            self.release(key)
        with suppress(OSError):  # others' claims are in it
            self.folder.rmdir()

    def _enter(self, key: str) -> bool:
        draft, name = self.folder / draft_name(), uuid.uuid4().hex
        make_folder(draft)
        try:
            (draft / name).write_text(json.dumps(asdict(myself())))
            draft.rename(self.folder / key)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                return False
            raise
        finally:
            if draft.exists():
                shutil.rmtree(draft, ignore_errors=True)
        with self._lock:
            self._held[key] = self.folder / key / name
            if self._heart is None:
                self._heart = threading.Thread(target=self._give_signs, daemon=True, name="claims")
                self._heart.start()
        return True

    def _bury(self, key: str) -> list[Owner]:
        """Remove the files of dead owners; return the living ones."""
        if (self.folder / key).is_file():  # none of ours
            (self.folder / key).unlink(missing_ok=True)
        names = _names(self.folder / key)  # before: who comes in while these are looked at is alive
        living = dict(self._living(key))
        for name in names:
            if name not in living:
                with suppress(OSError):
                    (self.folder / key / name).unlink()
        return list(living.values())

    def _living(self, key: str) -> list[tuple[str, Owner]]:
        found = []
        for name in _names(self.folder / key):
            path = self.folder / key / name
            try:
                owner = Owner(**json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                owner = None  # gone meanwhile, or damaged: known by its age alone
            if owner is not None and owner.machine == myself().machine:
                alive = started_at(owner.pid) == owner.started
            else:
                alive = self._age(path) < self.stale
                owner = owner or Owner("an unknown machine", "", 0, "")
            if alive:
                found.append((name, owner))
        return found

    def _age(self, path: Path) -> float:
        """Seconds since a file was touched, by the clock of whoever keeps the files; infinite if it is not there."""
        probe = self.folder / draft_name()
        try:
            touched = path.stat().st_mtime
        except OSError:
            return float("inf")
        try:
            probe.touch()
            return probe.stat().st_mtime - touched
        except OSError:  # a store that can only be read: this machine's clock has to do
            return time.time() - touched
        finally:
            with suppress(OSError):
                probe.unlink()

    def _give_signs(self) -> None:
        while not self._done.wait(self.beat):
            with self._lock:
                held = list(self._held.values())
            for path in held:
                with suppress(OSError):
                    os.utime(path)


def clear_drafts(folder: Path) -> None:
    """Remove what killed processes left behind: this machine's at once, another's when it is a day old."""
    for name in _names(folder):
        if not name.startswith(DRAFT):
            continue
        pid, machine, *_ = [*name.removeprefix(DRAFT).split("-"), ""]
        path = folder / name
        with suppress(OSError):
            if machine == _machine() and pid.isdecimal():
                dead = started_at(int(pid)) is None
            else:
                dead = time.time() - path.stat().st_mtime > DAY
            if dead:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def draft_name() -> str:
    """A name that no other process gives, and that says whose it is."""
    return f"{DRAFT}{os.getpid()}-{_machine()}-{uuid.uuid4().hex[:8]}"


def make_folder(path: Path) -> None:
    """Make a folder below one that another process may be removing because it is empty.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    for last in (*[False] * 9, True):
        try:
            path.mkdir(parents=True, exist_ok=True)
            return
        except FileNotFoundError:
            if last:
                raise


def myself() -> Owner:
    """This process."""
    return _owner(os.getpid())


@cache  # by number: a fork is another process
def _owner(pid: int) -> Owner:
    return Owner(socket.gethostname(), _machine(), pid, started_at(pid) or "")


def _machine() -> str:
    return _hashed(socket.gethostname())


@cache
def _hashed(host: str) -> str:
    """Hash of where a process number means something: host, boot, process namespace."""
    places = [host]
    with suppress(OSError):
        places.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        places.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.blake2b(" ".join(places).encode(), digest_size=6).hexdigest()


def started_at(pid: int) -> str | None:
    """When a process of this machine started (empty where the system does not say); None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
