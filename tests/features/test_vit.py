"""A vision transformer's features are what its library computes by hand on the same pictures."""

import json
import subprocess
import sys

import pytest
import torch

from landscape_cli.data.torchvision_import import torchvision
from landscape_cli.errors import DamagedData
from landscape_cli.features.checkpoints import find_checkpoint
from landscape_cli.features.vit import vision_transformer

SIZE = 32
MEAN, DEVIATION = [0.1, 0.5, 0.7], [0.3, 0.6, 0.9]
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # as torchvision documents its weights
SHAPES = [(1, 12, 12), (3, 12, 10), (1, 32, 32), (3, 70, 64)]


def extractor(path, images, output="class_token"):
    checkpoint = find_checkpoint(given=str(path), repository="", weights="", output=output, roots=[], download=False)
    return vision_transformer(checkpoint, output, images)


def refusal(path, images) -> str:
    with pytest.raises(DamagedData) as raised:
        extractor(path, images)
    assert "\n" not in str(raised.value)
    assert f"features.checkpoint: {path} " in str(raised.value)
    return str(raised.value)


def prepared(x, mean, deviation):
    """Pictures as torchvision's transforms prepare them."""
    transforms = torchvision.transforms.functional
    x = transforms.resize((x + 1) / 2, [SIZE, SIZE], antialias=True)
    return transforms.normalize(x.repeat(1, 3 // x.shape[1], 1, 1), mean, deviation)


@torch.no_grad()
def transformers_output(path, x):
    transformers = pytest.importorskip("transformers")
    found = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()(pixel_values=x)
    return {"class_token": found.last_hidden_state[:, 0], "pooled": found.pooler_output}


@torch.no_grad()
def torchvision_output(path, x):
    net = torchvision.models.VisionTransformer(
        image_size=SIZE, patch_size=8, num_layers=2, num_heads=1, hidden_dim=64, mlp_dim=96
    ).eval()
    net.load_state_dict(torch.load(path))
    tokens = torch.cat([net.class_token.expand(len(x), -1, -1), net._process_input(x)], dim=1)
    return net.encoder(tokens)[:, 0]


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert expected.std(dim=0).mean() > 1e-3  # pictures differ in their features, or this would show nothing
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("name", "output"), [("model", "class_token"), ("model", "pooled"), ("classifier", "class_token")]
)
def test_transformers(checkpoints, pictures, name, output, shape):
    path, images = checkpoints.copy(name), pictures(shape=shape)
    with torch.no_grad():
        found = extractor(path, images, output)(images.x_train)
    expected = transformers_output(path, prepared(images.x_train, [0.5] * 3, [0.5] * 3))
    assert_same(found, expected[output])


def test_mean_and_deviation_of_the_checkpoint(checkpoints, pictures):
    path, images = checkpoints.copy("model"), pictures(shape=(3, 12, 12))
    about = {"image_mean": MEAN, "image_std": DEVIATION, "size": {"height": 99, "width": 99}}
    (path / "preprocessor_config.json").write_text(json.dumps(about))
    with torch.no_grad():
        found = extractor(path, images)(images.x_train)
    assert_same(found, transformers_output(path, prepared(images.x_train, MEAN, DEVIATION))["class_token"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torchvision(checkpoints, pictures, shape):
    path, images = checkpoints.copy("torchvision"), pictures(shape=shape)
    with torch.no_grad():
        found = extractor(path, images)(images.x_train)
    assert_same(found, torchvision_output(path, prepared(images.x_train, *IMAGENET)))


def test_dropout_is_off(checkpoints, pictures):
    path, images = checkpoints.copy("model", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5), pictures()
    with torch.no_grad():
        function = extractor(path, images)
        assert torch.equal(function(images.x_train), function(images.x_train))


@pytest.mark.parametrize("name", ["model", "torchvision"])
def test_a_picture_does_not_depend_on_its_neighbours(checkpoints, pictures, name):
    images = pictures()
    with torch.no_grad():
        function = extractor(checkpoints.copy(name), images)
        torch.testing.assert_close(function(images.x_train)[2:4], function(images.x_train[2:4]))


@pytest.mark.parametrize("name", ["model", "classifier"])
def test_loading_prints_nothing(checkpoints, pictures, capfd, monkeypatch, name):
    """Neither a bar nor a table of the tensors that are not used; and transformers talks as before afterwards."""
    path, images = checkpoints.copy(name), pictures()
    import transformers
    from transformers.utils import logging

    loading, seen = transformers.ViTModel.from_pretrained, []

    def watched(*arguments, **options):
        seen.append((logging.get_verbosity(), logging.is_progress_bar_enabled()))
        return loading(*arguments, **options)

    monkeypatch.setattr(transformers.ViTModel, "from_pretrained", watched)
    before = logging.get_verbosity()
    logging.set_verbosity_info()
    try:
        capfd.readouterr()
        extractor(path, images)
        assert capfd.readouterr() == ("", "")
        assert seen == [(logging.ERROR, False)]
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, True)
    finally:
        logging.set_verbosity(before)


def test_tensors_that_the_configuration_does_not_know(checkpoints, pictures):
    path = checkpoints.copy("classifier", num_hidden_layers=1)
    assert "has 16 tensors that its config.json does not know" in refusal(path, pictures())


def test_tensors_that_are_not_there(checkpoints, pictures):
    path = checkpoints.copy("classifier", num_hidden_layers=3)
    assert "lacks 16 tensors" in refusal(path, pictures())


def test_the_last_norm_is_not_there(checkpoints, pictures):
    from safetensors.torch import load_file, save_file

    path = checkpoints.copy("model")
    tensors = load_file(path / "model.safetensors")
    del tensors["layernorm.weight"], tensors["pooler.dense.weight"], tensors["pooler.dense.bias"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 tensors, the first is layernorm.weight" in refusal(path, pictures())


@pytest.mark.parametrize("config", [{"intermediate_size": 96}, {"num_attention_heads": 3}], ids=str)
def test_shapes_beyond_the_embeddings(checkpoints, pictures, config):
    assert "cannot be loaded" in refusal(checkpoints.copy("model", **config), pictures())


class Script:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return open, ("was-here", "w")


def test_a_file_is_not_run(checkpoints, pictures, isolated):
    path = checkpoints.copy("torchvision")
    torch.save(torch.load(path) | {"more": Script()}, path)
    refusal(path, pictures())
    assert list((isolated / "work").iterdir()) == []


@pytest.fixture
def damaged_file(request, checkpoints):
    """A file that is no vision transformer of torchvision."""
    path = checkpoints.copy("torchvision")
    tensors = torch.load(path)
    contents = {
        "a list": [1, 2],
        "a module": torch.nn.Linear(2, 2),
        "another network": torch.nn.Linear(2, 2).state_dict(),
        "nothing": {},
        "a layer less": {k: v for k, v in tensors.items() if "encoder_layer_0" not in k},
        "another width": tensors | {"conv_proj.weight": torch.zeros(128, 3, 8, 8)},
        "a tensor more": tensors | {"heads.pre_logits.weight": torch.zeros(3, 64)},
    }
    if request.param in contents:
        torch.save(contents[request.param], path)
    else:
        path.write_bytes(
            {"cut": path.read_bytes()[:-500], "empty": b"", "text": b"<html>not found</html>"}[request.param]
        )
    return path


@pytest.mark.parametrize(
    "damaged_file",
    [
        *("a list", "a module", "another network", "nothing"),
        *("a layer less", "another width", "a tensor more", "cut", "empty", "text"),
    ],
    indirect=True,
)
def test_files_that_are_no_vision_transformer(damaged_file, pictures):
    assert "is not a vision transformer of torchvision" in refusal(damaged_file, pictures())


@pytest.mark.slow
def test_in_a_process_that_has_imported_nothing_else(checkpoints):
    """Transformers imports torchvision, and must find it already mended."""
    path = checkpoints.copy("classifier")
    script = f"""
from landscape_cli.features.checkpoints import find_checkpoint
from landscape_cli.features.vit import vision_transformer
from types import SimpleNamespace
import torch
images = SimpleNamespace(x_train=torch.zeros(2, 1, 8, 8))
found = dict(given={str(path)!r}, repository="", weights="", output="class_token", roots=[], download=False)
print(tuple(vision_transformer(find_checkpoint(**found), "class_token", images)(images.x_train).shape))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(2, 32)\n"
