import hashlib
import io
import socket
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from landscape_cli.data.fetch import TIMEOUT_SECONDS, fetch, writable_root
from landscape_cli.data.images import read
from landscape_cli.data.locate import locate
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.torchvision_import import torchvision
from landscape_cli.errors import BadInput, MissingData

utils = torchvision.datasets.utils


@pytest.fixture
def network(monkeypatch):
    """Serve files by their name instead of from the network; what is not served breaks off half-way."""
    served, timeouts = {}, []

    def retrieve(url, filename):
        timeouts.append(socket.getdefaulttimeout())
        content = served.get(url.rsplit("/", 1)[1])
        Path(filename).write_bytes(content or b"half a fi")
        if content is None:
            raise URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(utils, "_urlretrieve", retrieve)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    served["timeouts"] = timeouts
    return served


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def files_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def refusal(*arguments) -> str:
    with pytest.raises(MissingData) as raised:
        fetch(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def served_mnist(tiny_mnist, network, monkeypatch):
    pins = [(name, md5(content)) for name, content in tiny_mnist.contents.items() if name.endswith(".gz")]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", pins)
    network.update(tiny_mnist.contents)
    return tiny_mnist


def test_fetch_brings_the_set_and_only_the_set(served_mnist, network, tmp_path):
    root = tmp_path / "new" / "root"
    socket.setdefaulttimeout(3.5)
    try:
        source = fetch("mnist", root)
        assert socket.getdefaulttimeout() == 3.5
    finally:
        socket.setdefaulttimeout(None)
    assert network["timeouts"] == [TIMEOUT_SECONDS] * 4
    assert source == locate("mnist", [root])
    np.testing.assert_array_equal(read(source).x_train, served_mnist.x_train)
    assert files_below(root) == [
        "MNIST",
        "MNIST/raw",
        *sorted(f"MNIST/raw/{name}" for name in served_mnist.contents if name.endswith(".gz")),
    ]


def test_fetch_of_cifar_unpacks_its_archive(tiny_cifar, network, tmp_path, monkeypatch):
    name, cifar = tiny_cifar
    layout = IMAGE_SETS[name].layout
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for file, content in cifar.contents.items():
            member = tarfile.TarInfo(f"{layout.folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    reader = getattr(torchvision.datasets, layout.torchvision_class)
    *train_pins, test_pin, meta_pin = ([file.name, file.digest] for file in layout.files)
    monkeypatch.setattr(reader, "train_list", train_pins)
    monkeypatch.setattr(reader, "test_list", [test_pin])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": meta_pin[1]})
    monkeypatch.setattr(reader, "tgz_md5", md5(packed.getvalue()))
    network[reader.filename] = packed.getvalue()
    images = read(fetch(name, tmp_path))
    np.testing.assert_array_equal(images.x_test, cifar.x_test)
    assert files_below(tmp_path) == [layout.folder, *sorted(f"{layout.folder}/{file}" for file in cifar.contents)]


def test_whole_set_is_not_downloaded_again(served_mnist, network, tmp_path):
    fetch("mnist", tmp_path)
    downloads = len(network["timeouts"])
    fetch("mnist", tmp_path)
    assert len(network["timeouts"]) == downloads == 4


def test_damaged_file_is_replaced(served_mnist, tmp_path):
    fetch("mnist", tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(b"damaged")
    fetch("mnist", tmp_path)
    assert path.read_bytes() == served_mnist.contents[path.name]


def test_without_a_network(tiny_mnist, network, tmp_path):
    message = refusal("mnist", tmp_path)
    assert message.startswith("download of 'mnist' failed (Error downloading train-images-idx3-ubyte.gz")
    assert "name resolution" in message
    for part in ("images/mnist.npz", str(tmp_path), "`landscape data fetch mnist`", "profile=embedded"):
        assert part in message
    assert files_below(tmp_path) == []
    assert socket.getdefaulttimeout() is None


def test_download_that_breaks_off_after_some_files(served_mnist, network, tmp_path):
    del network["t10k-labels-idx1-ubyte.gz"]
    assert "t10k-labels-idx1-ubyte.gz" in refusal("mnist", tmp_path)
    assert files_below(tmp_path) == []


def test_wrong_bytes_from_the_network(served_mnist, network, tmp_path):
    network["train-labels-idx1-ubyte.gz"] = network["train-labels-idx1-ubyte.gz"][:-1] + b"?"
    assert "corrupted" in refusal("mnist", tmp_path)
    assert files_below(tmp_path) == []


def test_files_that_are_not_the_pinned_ones(served_mnist, network, tmp_path, monkeypatch):
    # torchvision finds nothing wrong with them; the digests pinned here do.
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(n, None) for n in network if n.endswith(".gz")])
    network["train-labels-idx1-ubyte.gz"] = network["t10k-labels-idx1-ubyte.gz"]
    message = refusal("mnist", tmp_path)
    assert message.startswith("download of 'mnist' failed (")
    assert "train-labels-idx1-ubyte.gz is damaged" in message
    assert files_below(tmp_path) == []


def test_part_that_is_there_is_mentioned(tiny_mnist, network, write_archive, tmp_path):
    part = {"x_train": np.zeros((5, 6, 5), np.uint8), "x_test": np.zeros((2, 6, 5), np.uint8), "classes": None}
    path = write_archive("mnist", **part)
    message = refusal("mnist", tmp_path)
    assert message.endswith(f"{path} still holds a part of it")


def test_root_that_cannot_be_made(tiny_mnist, tmp_path):
    (tmp_path / "file").write_text("")
    assert "download of 'mnist' failed" in refusal("mnist", tmp_path / "file" / "root")


def test_progress_bar_on_demand(served_mnist, tmp_path, monkeypatch, capfd):
    retrieve = utils._urlretrieve

    def with_bar(url, filename):
        with utils.tqdm(total=1, desc="bar"):
            retrieve(url, filename)

    monkeypatch.setattr(utils, "_urlretrieve", with_bar)
    fetch("mnist", tmp_path / "silent", progress=False)
    assert capfd.readouterr().err == ""
    fetch("mnist", tmp_path / "shown")
    assert "bar" in capfd.readouterr().err


def test_digits_need_no_fetching(network, tmp_path):
    assert fetch("digits", tmp_path) == locate("digits", [])
    assert network["timeouts"] == []


def test_unknown_name(tmp_path):
    with pytest.raises(BadInput, match=r"known are digits, digits_32, mnist, .*did you mean 'cifar10'") as raised:
        fetch("cifar-10", tmp_path)
    assert "\n" not in str(raised.value)


def test_writable_root_is_an_existing_one_or_the_last(tmp_path):
    assert writable_root([tmp_path / "a", tmp_path, tmp_path / "b"]) == tmp_path
    assert writable_root([tmp_path / "a", str(tmp_path / "b")]) == tmp_path / "b"
