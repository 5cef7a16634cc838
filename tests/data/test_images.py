import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch

from landscape_cli.data.images import load_images, read
from landscape_cli.data.locate import locate
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.errors import BadInput, MissingData


def refusal(source) -> str:
    with pytest.raises(MissingData) as raised:
        read(source)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("packed_files", [4, 2, 0])
def test_idx_files(tiny_mnist, tmp_path, packed_files):
    tiny_mnist.write(tmp_path, packed_files)
    images = read(locate("mnist", [tmp_path]))
    for key in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(images, key), getattr(tiny_mnist, key))
    assert (images.x_train.dtype, images.y_train.dtype) == (np.uint8, np.int64)
    assert images.class_names == tuple("0123456789")


def test_idx_files_as_torchvision_reads_them(tiny_mnist, tmp_path):
    from landscape_cli.data.torchvision_import import torchvision

    tiny_mnist.write(tmp_path, packed_files=0)
    images = read(locate("mnist", [tmp_path]))
    for train, x, y in ((True, images.x_train, images.y_train), (False, images.x_test, images.y_test)):
        theirs = torchvision.datasets.MNIST(tmp_path, train=train)
        np.testing.assert_array_equal(x[:, 0], theirs.data)
        np.testing.assert_array_equal(y, theirs.targets)


def test_cifar_files_as_torchvision_reads_them(tiny_cifar, tmp_path, monkeypatch):
    from landscape_cli.data.torchvision_import import torchvision

    name, cifar = tiny_cifar
    cifar.write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = read(locate(name, [tmp_path]))
    published = IMAGE_SETS[name]
    reader = getattr(torchvision.datasets, published.layout.torchvision_class)
    *train_pins, test_pin, meta_pin = ([file.name, file.digest] for file in published.layout.files)
    monkeypatch.setattr(reader, "train_list", train_pins)
    monkeypatch.setattr(reader, "test_list", [test_pin])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": meta_pin[1]})
    for train, x, y in ((True, images.x_train, images.y_train), (False, images.x_test, images.y_test)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how Python 2 spelt a dtype
            theirs = reader(tmp_path, train=train)
        np.testing.assert_array_equal(x.transpose(0, 2, 3, 1), theirs.data)
        np.testing.assert_array_equal(y, theirs.targets)
    assert images.class_names == tuple(theirs.classes)
    assert (images.x_train.dtype, images.y_train.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(images.x_train, cifar.x_train)


def test_archive(write_archive, tmp_path):
    path = write_archive("mine")
    images = read(locate("mine", [tmp_path]))
    with np.load(path) as stored:
        for channel in range(3):
            np.testing.assert_array_equal(images.x_train[:, channel], stored["x_train"][..., channel])
    assert images.x_test.shape == (2, 3, 6, 4)
    np.testing.assert_array_equal(images.y_train, [0, 1, 2, 1, 0])
    assert images.y_train.dtype == np.int64
    assert images.class_names == ("cat", "dog", "eel")


def test_grey_archive_without_names(write_archive, tmp_path):
    x = np.arange(5 * 6 * 4, dtype=np.uint8).reshape(5, 6, 4)
    write_archive("mine", x_train=x, x_test=x[:2], classes=None)
    images = read(locate("mine", [tmp_path]))
    np.testing.assert_array_equal(images.x_train, x[:, None])
    assert images.class_names == ("0", "1", "2")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_byte_in_an_archive(write_archive, tmp_path, save):
    random = np.random.default_rng(1)
    # Large enough that reading the header does not read, and check, the rest.
    x = random.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    path = write_archive("mine", save=save, x_train=x, x_test=x[:2])
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("x_train.npy")
    content = bytearray(path.read_bytes())
    content[member.header_offset + member.compress_size] ^= 0x10
    path.write_bytes(content)
    assert f"{path} is damaged: it cannot be read" in refusal(locate("mine", [tmp_path]))


def test_file_exchanged_after_it_was_located(tiny_mnist, tmp_path):
    folder = tiny_mnist.write(tmp_path, packed_files=0)
    source = locate("mnist", [tmp_path])
    path = folder / "train-labels-idx1-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert f"{path} is damaged: it cannot be read (ValueError" in refusal(source)
    path.write_bytes(struct.pack(">HBBI", 0, 8, 1, 6) + content[-6:])
    assert "train images are (7, 1, 6, 5) and labels (6,)" in refusal(source)
    path.write_bytes(content[:-1] + b"\x0b")
    assert "..11, not 0..9" in refusal(source)
    path.write_bytes(b"\x00\x00\x0d" + content[3:])
    assert "not an idx file of unsigned bytes" in refusal(source)
    path.unlink()
    assert "FileNotFoundError" in refusal(source)


def test_truncated_gzip(tiny_mnist, tmp_path):
    folder = tiny_mnist.write(tmp_path)
    source = locate("mnist", [tmp_path])
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path} is damaged: it cannot be read (EOFError" in refusal(source)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps([1, 2]), pickle.dumps({"data": b"short"})])
def test_broken_pickle(tiny_cifar, tmp_path, content):
    name, cifar = tiny_cifar
    folder = cifar.write(tmp_path)
    source = locate(name, [tmp_path])
    (folder / IMAGE_SETS[name].layout.files[0].name).write_bytes(content)
    assert f"data set '{name}'" in refusal(source)
    assert "is damaged" in refusal(source)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = read(locate("digits", []))
    assert images.x_train.shape == (1437, 1, 8, 8)
    assert (images.x_train.dtype, images.y_train.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(np.concatenate([images.x_train, images.x_test])[:, 0], digits.images)
    np.testing.assert_array_equal(np.concatenate([images.y_train, images.y_test]), digits.target)
    assert images.class_names == tuple(str(name) for name in digits.target_names)


def test_other_digits_are_refused(monkeypatch):
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    digits.images[3, 2, 2] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    assert "this scikit-learn ships other digits" in refusal(locate("digits", []))


def test_scaling_is_exact_at_both_ends(tiny_mnist, tmp_path):
    tiny_mnist.write(tmp_path)
    data = load_images(locate("mnist", [tmp_path]), None)
    assert (data.x_train.min().item(), data.x_train.max().item()) == (-1.0, 1.0)
    assert (data.x_train.dtype, data.y_train.dtype) == (torch.float32, torch.int64)
    expected = 2 * tiny_mnist.x_train.astype(np.float64) / 255 - 1
    np.testing.assert_allclose(data.x_train.numpy(), expected, rtol=0, atol=2**-23)
    np.testing.assert_array_equal(data.y_test, tiny_mnist.y_test)
    assert data.source.checksum == locate("mnist", [tmp_path]).checksum

    digits = load_images(locate("digits", []), 100, 20)
    assert (digits.x_train.min().item(), digits.x_train.max().item()) == (-1.0, 1.0)
    assert torch.equal((digits.x_train + 1) * 8, ((digits.x_train + 1) * 8).round())


def test_first_objects_of_each_split(tiny_mnist, tmp_path):
    tiny_mnist.write(tmp_path)
    source = locate("mnist", [tmp_path])
    whole, part = load_images(source, None), load_images(source, 4, 0)
    assert part.x_train.shape == (4, 1, 6, 5)
    assert torch.equal(part.x_train, whole.x_train[:4])
    assert torch.equal(part.y_train, whole.y_train[:4])
    assert (len(part.x_test), len(part.y_test), len(whole.x_test)) == (0, 0, 3)


def test_sizes_that_the_source_does_not_hold(tiny_mnist, tmp_path):
    tiny_mnist.write(tmp_path)
    source = locate("mnist", [tmp_path])
    for sizes in ((8, None), (0, None)):
        with pytest.raises(BadInput, match=r"dataset\.train_size=.* has 7 train objects"):
            load_images(source, *sizes)
    for sizes in ((1, 4), (1, -1)):
        with pytest.raises(BadInput, match=r"test_size=.* has 3 test objects"):
            load_images(source, *sizes)


def test_device(tiny_mnist, tmp_path):
    tiny_mnist.write(tmp_path)
    data = load_images(locate("mnist", [tmp_path]), 2, device="meta")
    assert {tensor.device.type for tensor in (data.x_train, data.y_train, data.x_test, data.y_test)} == {"meta"}


def test_real_mnist(real_data):
    try:
        source = locate("mnist", [real_data])
    except MissingData as error:
        pytest.skip(str(error))
    if not source.whole:
        pytest.skip(f"{source.place} holds a part of MNIST")
    images = read(source)
    # Class counts as commonly published for MNIST's train images.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(np.bincount(images.y_train), counts)
    # The mean and deviation that everyone normalises MNIST with.
    np.testing.assert_allclose(images.x_train.mean() / 255, 0.1307, atol=5e-5)
    np.testing.assert_allclose(images.x_train.std() / 255, 0.3081, atol=5e-5)
