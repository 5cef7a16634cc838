"""Features of convolutional nets, and the cache of all features."""

import shutil
from collections import OrderedDict
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from landscape_cli.config import RandomConvConfig, SmallCNNConfig
from landscape_cli.errors import DamagedData
from landscape_cli.features import extract
from landscape_cli.features.checkpoints import find_checkpoint
from landscape_cli.models.conv import ConvNet
from landscape_cli.rng import generator

HERE = {"name": "here", "objects": 10, "checksum": "1", "normalisation": "symmetric"}
THERE = {"name": "there", "objects": 40, "checksum": "2", "normalisation": "symmetric"}
NET = {"num_layers": 3, "channels": 4, "kernel_size": 3, "position": 1, "pooling": "max", "seed": 0}
RANDOM = {"kind": "random_conv", **NET}
SMALL = {"kind": "small_cnn", **NET, "dataset": THERE, "epochs": 10, "batch_size": 16, "learning_rate": 0.02}


@pytest.fixture
def features(tmp_path):
    """Features of an image set, cached below ``tmp_path``; ``features.loaded`` names what was read for them."""

    def compute(extractor, images, there=None, dataset=HERE, checkpoint=None, folder="features"):
        def load(wanted):
            compute.loaded.append(wanted["name"])
            return {HERE["name"]: images, THERE["name"]: there}[wanted["name"]]

        return extract.load_features(
            extractor, dataset, load, checkpoint, tmp_path / folder, lambda iterable, **options: iterable
        )

    compute.loaded = []
    return compute


@pytest.fixture
def files(tmp_path):
    """What is in the cache, drafts too."""
    return lambda: sorted(tmp_path.glob("features/*")) + sorted(tmp_path.glob("features/.*"))


@pytest.fixture
def there(pictures):
    return pictures("there", train=40, classes=4, seed=1)


def ordinary(settings, images, size, seed=0) -> nn.Sequential:
    """A plain module, initialised as the extractor of a seed is; a ReLU after every convolution but the pooled one."""
    steps, channels = OrderedDict(), images.shape[0]
    for layer in range(1, settings["num_layers"] + 1):
        steps[f"conv{layer}"] = nn.Conv2d(channels, settings["channels"], settings["kernel_size"])
        channels = settings["channels"]
        pooling = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}[settings["pooling"]](2)
        steps[f"after{layer}"] = pooling if layer == settings["position"] else nn.ReLU()
    steps["flatten"] = nn.Flatten()
    steps["head1"] = nn.Linear(size, images.source.classes)
    net = nn.Sequential(steps)
    settings = {**settings, "kind": "conv2d", "bias": True, "relu_after_last": True, "head": []}
    drawn = ConvNet(settings, images.shape, images.source.classes)
    tensors = drawn.initialise([generator(seed, "initialisation", "features")])
    net.load_state_dict({name: tensor[0] for name, tensor in tensors.items()})
    return net


def train(net, settings, images) -> None:
    """Train an ordinary module on an image set, with minibatches in the extractor's order."""
    optimiser = torch.optim.Adam(net.parameters(), lr=settings["learning_rate"])
    order = generator(settings["seed"], "minibatches", "features")
    for _ in range(settings["epochs"]):
        for index in torch.randperm(len(images.x_train), generator=order).split(settings["batch_size"]):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images.x_train[index]), images.y_train[index]).backward()
            optimiser.step()


def assert_outputs_of(convolutions, found, images) -> None:
    with torch.no_grad():
        for split in ("x_train", "x_test"):
            expected = convolutions(getattr(images, split))[..., None, None]
            assert getattr(found, split).dtype == torch.float32
            torch.testing.assert_close(getattr(found, split), expected, rtol=1e-4, atol=1e-5)


class TestRandomConv:
    @pytest.mark.parametrize(
        ("changes", "shape", "size"),
        [
            ({}, (1, 12, 12), 4),
            ({"pooling": "average"}, (3, 12, 13), 4),
            ({"position": 2, "seed": 7}, (1, 13, 15), 4 * 2 * 3),
            ({"position": 0, "num_layers": 2, "kernel_size": 5, "channels": 3}, (3, 11, 10), 3 * 3 * 2),
        ],
        ids=str,
    )
    def test_is_an_ordinary_network_without_its_head(self, features, pictures, changes, shape, size):
        images, settings = pictures(shape=shape), {**RANDOM, **changes}
        found = features(settings, images)
        assert found.shape == (size, 1, 1)
        assert found.x_train.min() >= 0
        assert found.x_train.std() > 0
        assert_outputs_of(ordinary(settings, images, size, settings["seed"])[:-1], found, images)

    def test_of_a_28x28_picture_with_the_defaults(self, features, pictures):
        settings = {k: v for k, v in asdict(RandomConvConfig()).items() if k != "in_place_of"}
        images = pictures(shape=(1, 28, 28), train=3, test=1)
        found = features(settings, images)
        assert found.x_train.shape == (3, 768, 1, 1)
        assert found.x_test.shape == (1, 768, 1, 1)
        assert_outputs_of(ordinary(settings, images, 768)[:-1], found, images)

    def test_is_reproducible_and_depends_on_the_seed(self, features, pictures):
        images = pictures()
        first = features(RANDOM, images, folder="a")
        torch.manual_seed(5)
        assert torch.equal(features(RANDOM, images, folder="b").x_train, first.x_train)
        assert not torch.allclose(features({**RANDOM, "seed": 1}, images, folder="c").x_train, first.x_train)

    def test_leaves_the_labels_and_the_rest(self, features, pictures):
        images = pictures()
        found = features(RANDOM, images)
        assert torch.equal(found.y_train, images.y_train)
        assert torch.equal(found.y_test, images.y_test)
        assert (found.class_names, found.source) == (images.class_names, images.source)
        assert len(found.x_test) == len(images.x_test) == 3

    @pytest.mark.parametrize("count", [1, 7, 64, 65])
    def test_of_the_first_objects_whatever_their_number(self, features, pictures, monkeypatch, count):
        monkeypatch.setattr(ConvNet, "chunk", 64)
        many = pictures(train=150)
        whole = features(RANDOM, many)
        part = features(RANDOM, pictures(train=count), dataset={**HERE, "objects": count})
        assert len(part.x_train) == count
        torch.testing.assert_close(part.x_train, whole.x_train[:count])

    def test_without_test_objects(self, features, pictures):
        found = features(RANDOM, pictures(test=0))
        assert (len(found.x_train), len(found.x_test)) == (10, 0)


class TestSmallCNN:
    def test_is_an_ordinary_network_trained_on_the_other_data_set(self, features, pictures, there):
        images = pictures()
        found = features(SMALL, images, there)
        net = ordinary(SMALL, there, 4)
        before = nn.functional.cross_entropy(net(there.x_train), there.y_train)
        train(net, SMALL, there)
        after = nn.functional.cross_entropy(net(there.x_train), there.y_train)
        assert after < before - 0.1  # training matters
        assert_outputs_of(net[:-1], found, images)
        assert not torch.allclose(found.x_train, features(RANDOM, images).x_train, atol=0.05)

    def test_without_training_is_the_network_as_initialised(self, features, pictures, there):
        images = pictures()
        untrained = features({**SMALL, "epochs": 0}, images, there)
        torch.testing.assert_close(untrained.x_train, features(RANDOM, images).x_train)

    def test_sees_nothing_of_the_data_set_itself(self, features, pictures, there):
        """Neither its labels nor its other objects change the features of an object."""
        images = pictures()
        first = features(SMALL, images, there, folder="a").x_train
        images.y_train[:] = images.y_train.flip(0)
        images.x_train[5:] = -1
        second = features(SMALL, images, there, folder="b").x_train
        assert torch.equal(first[:5], second[:5])
        there.y_train[:] = there.y_train.flip(0)
        assert not torch.allclose(first[:5], features(SMALL, images, there, folder="c").x_train[:5], atol=1e-3)

    @pytest.mark.parametrize("name", ["seed", "epochs", "batch_size", "learning_rate"])
    def test_follows_its_settings(self, features, pictures, there, name):
        images = pictures()
        first = features(SMALL, images, there).x_train
        second = features({**SMALL, name: SMALL[name] * 2 or 1}, images, there).x_train
        assert not torch.allclose(first, second, atol=1e-4)

    def test_defaults_are_those_of_the_untrained_one(self):
        shared, trained = asdict(RandomConvConfig()), asdict(SmallCNNConfig())
        assert {k: v for k, v in trained.items() if k in shared} == {**shared, "kind": "small_cnn"}


class TestCache:
    @pytest.mark.parametrize("kind", ["random_conv", "small_cnn", "vit", "classifier"])
    def test_second_call_runs_no_extractor(self, features, pictures, there, checkpoints, files, kind, monkeypatch):
        images, checkpoint, settings = pictures(), None, {"random_conv": RANDOM, "small_cnn": SMALL}.get(kind)
        if settings is None:
            path = checkpoints.copy({"vit": "torchvision"}.get(kind, kind))
            checkpoint = find_checkpoint(
                given=str(path), repository="", weights="", output="class_token", roots=[], download=False
            )
            settings = {"kind": "vit", "output": "class_token", "checksum": checkpoint.checksum}
        first = features(settings, images, there, checkpoint=checkpoint)
        written = {path: path.stat().st_mtime_ns for path in files()}
        assert len(written) == 1
        if checkpoint:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("fit", "ConvNet"):
            monkeypatch.setattr(extract, name, None)
        features.loaded.clear()
        second = features(settings, images, checkpoint=checkpoint)
        assert features.loaded == ["here"]  # for the labels
        assert torch.equal(first.x_train, second.x_train)
        assert torch.equal(first.x_test, second.x_test)
        assert {path: path.stat().st_mtime_ns for path in files()} == written

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            lambda content: content[:-1],
            lambda content: content[:5],
            lambda content: b"",
            lambda content: save(load(content)),
            lambda content: content.replace(b'"digest"', b'"tsegid"'),
            lambda content: content.replace(b'"x_test"', b'"y_test"'),
            lambda content: (2).to_bytes(8, "little") + b"{}",
        ],
        ids=[
            "a bit",
            "a byte less",
            "cut in its header",
            "empty",
            "no metadata",
            "no digest",
            "no test objects",
            "nothing in it",
        ],
    )
    def test_damage_is_said_and_mended(self, features, pictures, files, capsys, damage):
        images = pictures()
        first = features(RANDOM, images)
        (path,) = files()
        whole = path.read_bytes()
        assert damage(whole) != whole
        path.write_bytes(damage(whole))
        capsys.readouterr()
        second = features(RANDOM, images)
        assert capsys.readouterr().err == f"damaged features {path}, they are computed again\n"
        assert torch.equal(first.x_train, second.x_train)
        assert torch.equal(first.x_test, second.x_test)
        assert files() == [path]
        features(RANDOM, images)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("extractor", "dataset"),
        [
            (RANDOM, {**HERE, "name": "there"}),
            (RANDOM, {**HERE, "objects": 9}),
            (RANDOM, {**HERE, "checksum": "3"}),
            (RANDOM, {**HERE, "normalisation": "standard"}),
            ({**RANDOM, "seed": 1}, HERE),
            ({**RANDOM, "channels": 5}, HERE),
            ({**RANDOM, "pooling": "average"}, HERE),
            (SMALL, HERE),
        ],
    )
    def test_anything_else_has_a_file_of_its_own(self, features, pictures, there, files, extractor, dataset):
        features(RANDOM, pictures(), there)
        before = {path: path.read_bytes() for path in files()}
        features(extractor, pictures(), there, dataset)
        assert len(files()) == len(before) + 1
        assert all(path.read_bytes() == content for path, content in before.items())

    def test_another_pretraining_has_a_file_of_its_own(self, features, pictures, there, files):
        for changes in ({}, {"epochs": 2}, {"seed": 2}, {"dataset": {**THERE, "objects": 39}}):
            features({**SMALL, **changes}, pictures(), there)
        assert len(files()) == 4

    def test_another_version_has_a_file_of_its_own(self, features, pictures, files, monkeypatch):
        features(RANDOM, pictures())
        monkeypatch.setattr(extract, "VERSION", extract.VERSION + 1)
        features(RANDOM, pictures())
        assert len(files()) == 2

    def test_a_failed_write_leaves_nothing(self, features, pictures, files, monkeypatch):
        def fail(tensors, path, metadata):
            path.write_bytes(b"half")
            raise OSError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(extract, "save_file", fail)
            with pytest.raises(OSError, match="no space left"):
                features(RANDOM, pictures())
        assert files() == []
        features(RANDOM, pictures())
        assert len(files()) == 1


def test_learned_on_pictures_of_another_size(features, pictures):
    there = pictures("there", train=40, classes=4, seed=1, shape=(1, 14, 12))
    found = features(SMALL, pictures(), there=there)
    assert found.x_train.shape == features(RANDOM, pictures(), folder="other").x_train.shape


def test_values_that_are_not_finite_are_refused_and_not_cached(features, pictures, files):
    images = pictures()
    images.x_train[0] = torch.nan
    with pytest.raises(DamagedData, match="random_conv gives values that are not finite"):
        features(RANDOM, images)
    assert files() == []
