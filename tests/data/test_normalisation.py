"""Pixels in [-1, 1], or with mean 0 and deviation 1 in each channel; and the enlarged digits."""

import hashlib

import numpy as np
import pytest
import torch

from landscape_cli.composing import load
from landscape_cli.data.images import load_images, read
from landscape_cli.data.locate import locate
from landscape_cli.errors import BadInput, MissingData

# As published with CIFAR10's usual preprocessing, of pixels in 0..1.
CIFAR10_MEANS, CIFAR10_DEVIATIONS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
DIGITS_32 = "2952ddb62ce053ee358cac9f64c6981d639722df5f92070f92a09138f6d84398"


def each_channel(values) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)[:, None, None]


@pytest.fixture
def archive(write_archive, tmp_path):
    """Write own pictures (N, H, W, C) or (N, H, W), bright ones at the end; return their source and the pictures."""

    def write(channels=3, train=9, test=4):
        random = np.random.default_rng(0)
        shape = (train + test, 6, 4, channels)[: 3 if channels == 0 else 4]
        x = random.integers(0, 40, shape)
        x += np.linspace(0, 200, train + test).astype(int).reshape(-1, *[1] * (x.ndim - 1))
        x = x.astype(np.uint8)
        y = np.arange(train + test) % 3
        write_archive("mine", x_train=x[:train], y_train=y[:train], x_test=x[train:], y_test=y[train:])
        source = locate("mine", [tmp_path])
        return source, read(source)

    return write


def test_cifar(tiny_cifar, tmp_path):
    """The published mean and deviation where there are some, else those of the train objects."""
    name, cifar = tiny_cifar
    cifar.write(tmp_path)
    data = load_images(locate(name, [tmp_path]), 6, normalisation="standard")
    if name == "cifar10":
        means, deviations = CIFAR10_MEANS, CIFAR10_DEVIATIONS
    else:
        used = cifar.x_train[:6] / 255
        means, deviations = used.mean(axis=(0, 2, 3)), used.std(axis=(0, 2, 3))
    for found, stored in ((data.x_train, cifar.x_train[:6]), (data.x_test, cifar.x_test)):
        expected = (stored / 255 - each_channel(means)) / each_channel(deviations)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-6)
        assert found.dtype == torch.float32


@pytest.mark.parametrize("size", [9, 4, 1])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_own_archive(archive, channels, size):
    """Mean 0 and deviation 1 of the train objects that are used; the others and the test objects follow them."""
    source, stored = archive(channels)
    data = load_images(source, size, normalisation="standard")
    assert data.x_train.shape == (size, channels or 1, 6, 4)
    x = data.x_train.double()
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(channels or 1).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        x.std(dim=(0, 2, 3), correction=0), torch.ones(channels or 1).double(), rtol=1e-6, atol=0
    )
    used = stored.x_train[:size] / 255
    means, deviations = used.mean(axis=(0, 2, 3)), used.std(axis=(0, 2, 3))
    expected = (stored.x_test / 255 - each_channel(means)) / each_channel(deviations)
    np.testing.assert_allclose(data.x_test.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert data.x_test.mean() > 1  # brighter than what was trained on


def test_constant_channel(write_archive, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)
    x[..., 1] = 100
    write_archive("mine", x_train=x, x_test=x[:2] + (x[:2] == 100).astype(np.uint8))
    data = load_images(locate("mine", [tmp_path]), None, normalisation="standard")
    assert data.x_train.isfinite().all()
    assert data.x_train[:, 1].abs().max() < 1e-6
    torch.testing.assert_close(data.x_test[:, 1], torch.full((2, 6, 4), 1 / 255), rtol=0, atol=1e-6)
    assert data.x_train[:, 0].std() > 0.9


@pytest.mark.parametrize("name", ["digits", "digits_32", "mine"])
def test_symmetric_is_the_default(archive, name):
    source = archive()[0] if name == "mine" else locate(name, [])
    stored = read(source).x_train[:5]
    expected = 2 * stored.astype(np.float64) / source.max_value - 1
    for options in ({}, {"normalisation": "symmetric"}):
        found = load_images(source, 5, 2, **options).x_train
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2**-23)
        assert found.abs().max() <= 1
    standard = load_images(source, 5, 2, normalisation="standard").x_train
    assert not np.allclose(standard, expected, atol=0.1)


@pytest.mark.parametrize("override", ["dataset.normalisation=std", "dataset.normalisation=[standard]"])
def test_another_normalisation_is_refused(override):
    with pytest.raises(BadInput, match=r"^dataset\.normalisation: "):
        load([override])


@pytest.fixture(scope="module")
def enlarged():
    return read(locate("digits_32", []))


def test_enlarged_digits_are_bilinear(enlarged):
    """To half a grey level what torch makes of scikit-learn's digits, in 0..255 instead of 0..16."""
    digits = read(locate("digits", []))
    for split, objects in (("train", 1437), ("test", 360)):
        small, large = getattr(digits, f"x_{split}"), getattr(enlarged, f"x_{split}")
        assert large.shape == (objects, 1, 32, 32)
        assert large.dtype == np.uint8
        x = torch.from_numpy(small).double() * 255 / 16
        expected = torch.nn.functional.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
        assert np.abs(large - expected.numpy()).max() <= 0.5
        np.testing.assert_array_equal(getattr(enlarged, f"y_{split}"), getattr(digits, f"y_{split}"))
    assert enlarged.class_names == digits.class_names == tuple("0123456789")


def test_enlarged_digits_have_their_pinned_checksum(enlarged):
    x = np.concatenate([enlarged.x_train, enlarged.x_test])
    y = np.concatenate([enlarged.y_train, enlarged.y_test])
    assert hashlib.sha256(x.tobytes() + y.astype("<i8").tobytes()).hexdigest() == DIGITS_32
    source = locate("digits_32", [])
    assert source.checksum == DIGITS_32
    assert (source.train_objects, source.test_objects, source.shape) == (1437, 360, (1, 32, 32))
    assert (source.classes, source.max_value) == (10, 255)


def test_other_digits_are_not_enlarged(monkeypatch):
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    digits.images[3, 2, 2] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    with pytest.raises(MissingData, match="'digits_32': this scikit-learn ships other digits"):
        read(locate("digits_32", []))
