"""Tiny copies of the published layouts, with their digests pinned instead of the real ones."""

import gzip
import hashlib
import os
import pickle
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from landscape_cli.data.sets import IMAGE_SETS, PinnedFile


@dataclass(frozen=True)
class Tiny:
    """What a tiny set holds, its published files as bytes, and how to write them below a root."""

    x_train: np.ndarray  # uint8 (N, C, H, W)
    y_train: np.ndarray  # int64 (N,)
    x_test: np.ndarray
    y_test: np.ndarray
    contents: dict[str, bytes]
    write: Callable[..., Path]


def arrays(train: int, test: int, shape: tuple[int, ...], classes: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    parts = {}
    for split, objects in (("train", train), ("test", test)):
        parts[f"x_{split}"] = random.integers(0, 256, (objects, *shape), dtype=np.uint8)
        parts[f"y_{split}"] = random.integers(0, classes, objects)
    parts["x_train"].flat[:2] = 0, 255
    return parts


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


class PythonTwoArray:
    """Pickles as the published CIFAR files spell an array, which numpy 2.4.0 to 2.4.4 warn of."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        dtype = PythonTwoDtype()
        state = (1, self.array.shape, dtype, False, self.array.tobytes().decode("latin1"))
        return np.empty(0).__reduce__()[0], (np.ndarray, (0,), "b"), state


class PythonTwoDtype:
    def __reduce__(self):
        return np.dtype, ("u1", 0, 1), (3, "|", None, None, None, -1, -1, 0)


def python_two_pickle(value: dict) -> bytes:
    return pickle.dumps(value, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def pin(monkeypatch, name: str, parts: dict[str, np.ndarray], files: tuple[PinnedFile, ...]) -> None:
    published = IMAGE_SETS[name]
    tiny = replace(
        published,
        shape=parts["x_train"].shape[1:],
        train_objects=len(parts["x_train"]),
        test_objects=len(parts["x_test"]),
        layout=replace(published.layout, files=files),
    )
    monkeypatch.setitem(IMAGE_SETS, name, tiny)


@pytest.fixture
def tiny_mnist(monkeypatch) -> Tiny:
    parts = arrays(7, 3, (1, 6, 5), classes=10)  # not square: an exchange of the axes shows
    keys = ("x_train", "y_train", "x_test", "y_test")
    names = [file.name for file in IMAGE_SETS["mnist"].layout.files]
    unpacked = {
        name: idx(parts[key][:, 0] if key[0] == "x" else parts[key]) for name, key in zip(names, keys, strict=True)
    }
    packed = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in unpacked.items()}
    pins = tuple(
        PinnedFile(name, hashlib.sha256(unpacked[name]).hexdigest(), hashlib.sha256(packed[f"{name}.gz"]).hexdigest())
        for name in names
    )
    pin(monkeypatch, "mnist", parts, pins)

    def write(root: Path, packed_files: int = 4) -> Path:
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for index, name in enumerate(names):
            file = f"{name}.gz" if index < packed_files else name
            (folder / file).write_bytes((packed | unpacked)[file])
        return folder

    return Tiny(**parts, contents=packed | unpacked, write=write)


@pytest.fixture(params=["cifar10", "cifar100"])
def tiny_cifar(request, monkeypatch) -> tuple[str, Tiny]:
    name = request.param
    published = IMAGE_SETS[name]
    layout = published.layout
    parts = arrays(10, 3, (3, 32, 32), published.classes)
    labels, label_names = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
    *train_files, test_file, names_file = (file.name for file in layout.files)
    batches = dict(
        zip(
            train_files,
            zip(
                np.split(parts["x_train"], len(train_files)), np.split(parts["y_train"], len(train_files)), strict=True
            ),
            strict=True,
        )
    )
    batches[test_file] = (parts["x_test"], parts["y_test"])
    contents = {
        file: python_two_pickle({"data": PythonTwoArray(x.reshape(len(x), -1)), labels: y.tolist()})
        for file, (x, y) in batches.items()
    }
    contents[names_file] = python_two_pickle({label_names: [f"class {k}" for k in range(published.classes)]})
    pins = tuple(PinnedFile(file.name, hashlib.md5(contents[file.name]).hexdigest()) for file in layout.files)
    pin(monkeypatch, name, parts, pins)

    def write(root: Path) -> Path:
        folder = root / layout.folder
        folder.mkdir(parents=True)
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        return folder

    return name, Tiny(**parts, contents=contents, write=write)


@pytest.fixture
def write_archive(tmp_path):
    """Write ``images/<name>.npz`` below ``tmp_path``; a part given as None is left out."""

    def write(name="mine", save=np.savez_compressed, root=tmp_path, **changes) -> Path:
        parts = {
            "x_train": np.arange(5 * 6 * 4 * 3, dtype=np.uint8).reshape(5, 6, 4, 3),
            "y_train": np.array([0, 1, 2, 1, 0], dtype=np.uint8),
            "x_test": np.full((2, 6, 4, 3), 7, dtype=np.uint8),
            "y_test": np.array([2, 1], dtype=np.uint8),
            "classes": np.array(["cat", "dog", "eel"]),
        }
        kept = {key: value for key, value in (parts | changes).items() if value is not None}
        (root / "images").mkdir(parents=True, exist_ok=True)
        path = root / "images" / f"{name}.npz"
        save(path, **kept)
        return path

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with real data sets, or a skip."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("LANDSCAPE_DATA") or beside).absolute()
    if not root.is_dir():
        pytest.skip(f"no real data: LANDSCAPE_DATA is not set and there is no {beside}")
    return root


@pytest.fixture
def server(monkeypatch):
    """Serve what is put into a mapping from path to content; None never ends."""
    served, asked, stop = {}, [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = served.get(self.path, b"")
            self.send_response(404 if content == b"" else 200)
            self.send_header("Content-Length", str(10**6 if content is None else len(content)))
            self.end_headers()
            if content is None:
                self.wfile.write(b"half")
                self.wfile.flush()
                stop.wait(10)
            else:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    served["url"], served["asked"] = f"http://127.0.0.1:{running.server_port}", asked
    yield served
    stop.set()
    running.shutdown()
    running.server_close()
    thread.join()
