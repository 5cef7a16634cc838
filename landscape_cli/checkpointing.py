"""Loops that go on where a killed process left them, to the byte as if nothing had happened.

Inside of :func:`checkpoints_in` a :class:`Loop` writes its state to a file after a round and begins behind the last
round that a file holds. A file is found by what its loop depends on, and not by when the loop began: loops that run
side by side on threads may begin in any order. It is whole or absent under any kill; one that is damaged, or whose loop
saw other objects, is not read, and the loop begins afresh.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape_cli.claims import make_folder

FORMAT = 1  # raised when states are written otherwise
PAUSE = 0.5  # seconds of work that may be lost: rounds of milliseconds would take less time than their files
PART = 1 << 22  # numbers of a tensor that are hashed at a time
DIGEST = hashlib.sha256().digest_size
NUMPY = "__numpy__"  # the key that tells a numpy array from a tensor


class _Folder:
    """Where the loops of one measurement write."""

    def __init__(self, path: Path, pause: float) -> None:
        self.path, self.pause = path, pause
        self._begun: Counter[str] = Counter()
        self._lock = threading.Lock()

    def file(self, label: str) -> Path:
        """The next file of a label: equal loops of a measurement follow each other, each with a file of its own."""
        with self._lock:
            number = self._begun[label]
            self._begun[label] += 1
        return self.path / f"training_{label[:24]}_{number}.ckpt"


_folder: _Folder | None = None  # for all threads; a process measures one point at a time


@contextmanager
def checkpoints_in(folder: Path | None, *, pause: float = PAUSE) -> Iterator[None]:
    """Let the loops that begin in this block save their rounds, and go on where others with the same folder ended.

    Parameters
    ----------
    folder
        Of one measurement alone; it is made when there is something to write. None: nothing is saved or read.
    pause
        Seconds of work after which a round's end is saved; 0: after every round.
    """
    global _folder
    before, _folder = _folder, None if folder is None else _Folder(Path(folder), pause)
    try:
        yield
    finally:
        _folder = before


class Loop:
    """Some rounds of work whose whole state can be written down.

    Parameters
    ----------
    count
        Rounds in all.
    snapshot
        Returns the state after a round: nested dicts, lists and tuples of tensors, numpy arrays, numbers and text.
    restore
        Called with such a state, at once, if there is a file of this loop: tensors of the CPU are there again, others
        are on the device.
    label
        Returns everything that the rounds depend on, but for `data`; see :func:`described`. Loops that are equal in it
        must not run side by side.
    data
        Objects and the like: large tensors that are looked at only when there is a file to compare or to write.
    device
        Where the state's tensors belong.
    save
        False: of this loop nothing is written or read.

    Attributes
    ----------
    done
        Rounds that are behind it.
    """

    def __init__(
        self,
        count: int,
        *,
        snapshot: Callable[[], Mapping[str, Any]],
        restore: Callable[[Any], None],
        label: Callable[[], Mapping[str, Any]],
        data: Sequence[torch.Tensor | None] = (),
        device: torch.device,
        save: bool = True,
    ) -> None:
        self.count, self.done = count, 0
        self._snapshot, self._data, self._device = snapshot, data, device
        self._folder = _folder if save and count else None
        self._fingerprint = ""
        if self._folder is None:
            return
        own = {"format": FORMAT, "torch": torch.__version__, "device": device.type, "rounds": count, **label()}
        self._label = hashlib.sha256(json.dumps(described(own), sort_keys=True).encode()).hexdigest()
        self._path = self._folder.file(self._label)
        found = self._read()
        if found is not None:
            self.done = found["done"]
            restore(_decoded(found["state"]))
        self._saved = time.perf_counter()

    def rounds(self, progress: Any = None, desc: str = "epochs") -> Iterator[int]:
        """Yield the numbers of the rounds that are left, and save the state when the caller is through with one.

        Parameters
        ----------
        progress
            Like tqdm: called with the range of rounds.
        desc
            What it calls them.

        Raises
        ------
        OSError
            The state cannot be written.
        """
        left = range(self.done, self.count)
        if progress:
            behind = {"initial": self.done, "total": self.count} if self.done else {}
            left = progress(left, desc=desc, **behind)
        for number in left:
            yield number
            self.done = number + 1
            if self._folder is not None and time.perf_counter() - self._saved >= self._folder.pause:
                self._write()
                self._saved = time.perf_counter()

    @property
    def _identity(self) -> str:
        if not self._fingerprint:
            self._fingerprint = f"{self._label} {json.dumps(described(self._data))}"
        return self._fingerprint

    def _read(self) -> dict[str, Any] | None:
        try:
            stored = self._path.read_bytes()
        except OSError:
            return None
        payload = stored[DIGEST:]
        if hashlib.sha256(payload).digest() != stored[:DIGEST]:
            return None

        def place(storage: Any, location: str) -> Any:
            here = location if location == "cpu" else str(self._device)
            return torch.serialization.default_restore_location(storage, here)

        try:
            found = torch.load(io.BytesIO(payload), map_location=place, weights_only=True)
            own = found["fingerprint"] == self._identity
        except Exception:  # it is whole, and yet no file of ours: whatever torch says of it, the loop begins afresh
            return None
        return found if own else None

    def _write(self) -> None:
        buffer = io.BytesIO()
        state = {"fingerprint": self._identity, "done": self.done, "state": _encoded(self._snapshot())}
        torch.save(state, buffer)
        payload = buffer.getbuffer()
        make_folder(self._path.parent)
        # Two processes that measure the same point must not write to one draft.
        draft = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with draft.open("wb") as file:
                file.write(hashlib.sha256(payload).digest())
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)


def resumed(
    count: int,
    state: dict[str, Any],
    label: Mapping[str, Any],
    data: Sequence[torch.Tensor],
    *,
    generators: Sequence[torch.Generator] = (),
    progress: Any = None,
    desc: str = "steps",
) -> Iterator[int]:
    """Number the rounds of a loop that keeps all that it changes in one dict, which a file's state is put into.

    Parameters
    ----------
    state
        As it is before the first round; read after the first number was taken.
    label, data
        As of :class:`Loop`, without the state, which is added; the first tensor tells the device.
    generators
        Those that the rounds draw from.
    progress, desc
        As of :meth:`Loop.rounds`.
    """

    def restore(found: Any) -> None:
        restore_into(state, found["state"])
        set_states(generators, found["generators"])

    loop = Loop(
        count,
        snapshot=lambda: {"state": state, "generators": get_states(generators)},
        restore=restore,
        label=lambda: {**label, "start": state, "generators": generators},
        data=data,
        device=data[0].device,
    )
    return loop.rounds(progress, desc)


def training_state(
    parameters: Mapping[str, torch.Tensor], optimiser: torch.optim.Optimizer, generators: Sequence[torch.Generator]
) -> dict[str, Any]:
    """What a training by an optimiser changes; see :func:`set_training_state`."""
    return {
        "parameters": dict(parameters),
        "optimiser": optimiser.state_dict(),
        "generators": get_states(generators),
    }


@torch.no_grad()
def set_training_state(
    state: Mapping[str, Any],
    parameters: Mapping[str, torch.Tensor],
    optimiser: torch.optim.Optimizer,
    generators: Sequence[torch.Generator],
) -> None:
    """Put a training back to a state of :func:`training_state`; the parameters are changed in place."""
    for name, tensor in parameters.items():
        tensor.copy_(state["parameters"][name])
    optimiser.load_state_dict(state["optimiser"])
    set_states(generators, state["generators"])


def get_states(generators: Sequence[torch.Generator]) -> list[torch.Tensor]:
    """States of generators, in their order."""
    return [generator.get_state() for generator in generators]


def set_states(generators: Sequence[torch.Generator], states: Sequence[torch.Tensor]) -> None:
    """Let generators draw on from such states."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def restore_into(mine: dict[Any, Any], found: Mapping[Any, Any]) -> None:
    """Give a dict what another one holds; lists and dicts in it stay the same objects, for those that hold them."""
    for name in set(mine) - set(found):
        del mine[name]
    for name, value in found.items():
        if isinstance(value, dict) and isinstance(mine.get(name), dict):
            restore_into(mine[name], value)
        elif isinstance(value, list) and isinstance(mine.get(name), list):
            mine[name][:] = value
        else:
            mine[name] = value


def described(value: Any) -> Any:
    """Describe a value in JSON's types, so that equal ones have equal descriptions in every process.

    Of tensors the bytes count, of generators their states, of other objects the type and the public attributes.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), _digest(value)]
    if isinstance(value, torch.Generator):
        return _digest(value.get_state())
    if isinstance(value, Mapping):
        return {str(name): described(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [described(one) for one in value]
    own = {name: one for name, one in getattr(value, "__dict__", {}).items() if not name.startswith("_")}
    return [type(value).__qualname__, described(own)]


def _digest(tensor: torch.Tensor) -> str:
    digest, flat = hashlib.sha256(), tensor.detach().reshape(-1)
    for part in flat.split(PART):
        digest.update(part.contiguous().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def _encoded(value: Any) -> Any:
    """Replace what ``weights_only`` would refuse to read."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach()
        # A part of a tensor would be written with the whole of it.
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, np.ndarray):
        return {NUMPY: torch.from_numpy(value.copy())}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: _encoded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_encoded(one) for one in value)
    raise TypeError(f"a {type(value).__name__} cannot be kept")


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return value[NUMPY].numpy() if set(value) == {NUMPY} else {n: _decoded(one) for n, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_decoded(one) for one in value)
    return value
