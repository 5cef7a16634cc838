"""Tiny data sets, and tiny checkpoints in the libraries' own formats."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape_cli.data.images import ImageData
from landscape_cli.data.locate import ARCHIVE, Source

WIDTH, LAYERS, SIZE, PATCH = 32, 2, 32, 8  # of the transformers in transformers' format
TV_WIDTH = 64  # of the one in torchvision's


@pytest.fixture(autouse=True)
def _no_caches(monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pictures():
    """Make an image set in memory, pixels in [-1, 1]; the same seed gives the same first objects."""

    def make(name="here", shape=(1, 12, 12), train=10, test=3, classes=3, seed=0) -> ImageData:
        random = np.random.default_rng(seed)
        y = random.integers(0, classes, 1000)[: train + test]
        x = random.integers(0, 256, (train + test, *shape))
        x[:, :, : shape[1] // 2] = (x[:, :, : shape[1] // 2] + 200 * y[:, None, None, None] / classes) / 2
        pixels = torch.from_numpy(2 * x.astype(np.float32) / 255 - 1)
        labels = torch.from_numpy(y)
        source = Source(name, name, "own images", ARCHIVE, (), "0" * 64, train, test, shape, classes, 255, True)
        names = tuple(map(str, range(classes)))
        return ImageData(pixels[:train], labels[:train], pixels[train:], labels[train:], names, source)

    return make


@pytest.fixture(scope="session")
def write_set():
    """Write ``images/<name>.npz`` with random pictures below a root."""

    def write(root: Path, name: str, shape=(16, 16), train=24, test=6, classes=3, seed=0) -> Path:
        random = np.random.default_rng(seed)
        x = random.integers(0, 256, (train + test, *shape), dtype=np.uint8)
        y = np.arange(train + test) % classes
        path = root / "images" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, x_train=x[:train], y_train=y[:train], x_test=x[train:], y_test=y[train:])
        return path

    return write


@pytest.fixture(scope="session")
def saved_transformers(tmp_path_factory) -> Path:
    """A folder with ``model`` (with a pooling layer) and ``classifier`` (without), as transformers saves them."""
    from landscape_cli.data.torchvision_import import torchvision  # noqa: F401, so that transformers can import it

    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=SIZE,
        patch_size=PATCH,
    )
    root = tmp_path_factory.mktemp("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, kind in (("model", transformers.ViTModel), ("classifier", transformers.ViTForImageClassification)):
            net = kind(config)
            for parameter in net.parameters():  # as drawn, biases are 0 and every layer does next to nothing
                torch.nn.init.normal_(parameter, std=0.2)
            net.save_pretrained(root / name)
    return root


@pytest.fixture(scope="session")
def saved_torchvision(tmp_path_factory) -> Path:
    """A file as torchvision's weights are published: a state dict."""
    from landscape_cli.data.torchvision_import import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.VisionTransformer(
            image_size=SIZE, patch_size=PATCH, num_layers=LAYERS, num_heads=1, hidden_dim=TV_WIDTH, mlp_dim=96
        )
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path_factory.mktemp("torchvision") / "vit.pth"
    torch.save(net.state_dict(), path)
    return path


@dataclass(frozen=True)
class Checkpoints:
    """Copies of the saved checkpoints, to put anywhere and to damage."""

    request: pytest.FixtureRequest
    root: Path

    def copy(self, name: str, to: Path | None = None, **config) -> Path:
        """Copy ``model``, ``classifier`` or ``torchvision``; with changes of ``config.json``.

        Returns
        -------
        The folder or the file.
        """
        to = to or self.root / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if name == "torchvision":
            return Path(shutil.copy(self.request.getfixturevalue("saved_torchvision"), to))
        shutil.copytree(self.request.getfixturevalue("saved_transformers") / name, to)
        if config:
            path = to / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return to


@pytest.fixture
def checkpoints(request, tmp_path_factory) -> Checkpoints:
    return Checkpoints(request, tmp_path_factory.mktemp("checkpoints"))
