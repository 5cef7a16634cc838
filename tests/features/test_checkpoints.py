"""Where a vision transformer's checkpoint is found, what is said where it is not, and what is refused of it."""

import json
from importlib.util import find_spec

import pytest

from landscape_cli.data.locate import expand
from landscape_cli.errors import BadInput, DamagedData, MissingData
from landscape_cli.features import checkpoints as module
from landscape_cli.features.checkpoints import INSTALL, TORCHVISION, TRANSFORMERS, find_checkpoint

REPOSITORY, WEIGHTS = "someone/vit-tiny", "vit_tiny.pth"
SNAPSHOT = "models--someone--vit-tiny/snapshots/0123abcd"


def find(given=None, roots=(), output="class_token", download=False):
    return find_checkpoint(
        given=given if given is None else str(given),
        repository=REPOSITORY,
        weights=WEIGHTS,
        output=output,
        roots=roots,
        download=download,
    )


def refusal(given=None, kind=DamagedData, **options) -> str:
    with pytest.raises(kind) as raised:
        find(given, **options)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def without(monkeypatch):
    """Act as if some packages were not installed."""

    def hide(*names):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name in names else find_spec(name))

    return hide


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """Repositories that were asked of the network; none is there, unless a test says where."""
    asked = []

    def fetch(repository):
        asked.append(repository)
        raise MissingData("the download failed (ConnectError: no route)")

    monkeypatch.setattr(module, "_fetch", fetch)
    return asked


@pytest.mark.parametrize(("name", "library"), [("model", TRANSFORMERS), ("torchvision", TORCHVISION)])
def test_given_by_its_path(checkpoints, fetched, name, library):
    path = checkpoints.copy(name, checkpoints.root / "mine")
    found = find(path, download=True)
    assert (found.path, found.library, found.name) == (path, library, "mine")
    assert find(path.rename(path.with_name("moved"))).checksum == found.checksum
    assert fetched == []


def test_given_by_its_weights(checkpoints):
    path = checkpoints.copy("model")
    assert find(path / "model.safetensors").checksum == find(path).checksum
    assert find(path / "model.safetensors").path == path


@pytest.mark.parametrize("change", ["weights", "config", "preprocessor", "torchvision"])
def test_whatever_changes_the_features_changes_the_checksum(checkpoints, change):
    path = checkpoints.copy("torchvision" if change == "torchvision" else "model")
    before = find(path).checksum
    if change == "torchvision":
        path.write_bytes(path.read_bytes() + b" ")
    elif change == "config":
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4}))
    elif change == "preprocessor":
        (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
    else:
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "model.safetensors").write_bytes(content)
    assert find(path).checksum != before


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("config.json", "[]"),
        ("config.json", '{"model_type": "vit", "patch_size": 0}'),
        ("config.json", '{"model_type": "vit", "image_size": [32, 32]}'),
        ("config.json", '{"model_type": "vit", "num_channels": 1}'),
        ("preprocessor_config.json", "{"),
        ("preprocessor_config.json", "null"),
        ("preprocessor_config.json", '{"image_mean": [0.5, 0.5]}'),
        ("preprocessor_config.json", '{"image_std": [0.5, 0.5, 0]}'),
    ],
)
def test_damaged_settings(checkpoints, part, text):
    path = checkpoints.copy("model")
    (path / part).write_text(text)
    assert str(path) in refusal(path)


def test_given_in_the_home_folder(checkpoints):
    path = checkpoints.copy("torchvision", expand("~/mine.pth"))
    assert find("~/mine.pth").path == path


def test_given_and_not_there(fetched, isolated):
    message = refusal(isolated / "nowhere", MissingData, download=True)
    assert message.startswith(f"features.checkpoint: {isolated / 'nowhere'}: there is no such file or folder")
    assert "features=small_cnn" in message
    assert "features=random_conv" in message
    assert fetched == []


def test_nowhere_lists_the_places_and_the_remedies(isolated, fetched):
    roots = [isolated / "first", isolated / "second"]
    message = refusal(kind=MissingData, roots=roots)
    places = [root / "extractors" / name for root in roots for name in ("vit-tiny", WEIGHTS)]
    home = isolated / "home" / ".cache"
    places += [home / "huggingface/hub/models--someone--vit-tiny/snapshots", home / "torch/hub/checkpoints" / WEIGHTS]
    assert f"looked for {', '.join(map(str, places))};" in message
    for text in (REPOSITORY, "data.download=false", "features.checkpoint=PATH", "small_cnn", "random_conv"):
        assert text in message
    assert fetched == []


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        (None, "second/extractors/vit-tiny"),
        (None, f"second/extractors/{WEIGHTS}"),
        ("HF_HUB_CACHE", SNAPSHOT),
        ("HF_HOME", f"hub/{SNAPSHOT}"),
        (None, f"home/.cache/huggingface/hub/{SNAPSHOT}"),
        ("TORCH_HOME", f"hub/checkpoints/{WEIGHTS}"),
        (None, f"home/.cache/torch/hub/checkpoints/{WEIGHTS}"),
    ],
)
def test_places(checkpoints, isolated, monkeypatch, variable, place):
    if variable:
        place = f"cache/{place}"
        monkeypatch.setenv(variable, str(isolated / "cache"))
    file = place.endswith(".pth")
    path = checkpoints.copy("torchvision" if file else "classifier", isolated / place)
    found = find(roots=[isolated / "first", isolated / "second"])
    assert found.path == path
    assert (found.library, found.name) == ((TORCHVISION, WEIGHTS) if file else (TRANSFORMERS, REPOSITORY))


def test_order_of_the_places(checkpoints, isolated, monkeypatch):
    """What comes first wins: data roots, then the hub's cache, then torch's."""
    monkeypatch.setenv("HF_HOME", str(isolated / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(isolated / "hub"))
    places = [
        ("torchvision", f"home/.cache/torch/hub/checkpoints/{WEIGHTS}"),
        ("model", f"hub/{SNAPSHOT}"),
        ("torchvision", f"second/extractors/{WEIGHTS}"),
        ("model", "first/extractors/vit-tiny"),
    ]
    checkpoints.copy("model", isolated / "hf/hub" / SNAPSHOT)  # HF_HUB_CACHE says otherwise
    for name, place in places:
        path = checkpoints.copy(name, isolated / place)
        assert find(roots=[isolated / "first", isolated / "second"]).path == path


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_incomplete_folder(checkpoints, isolated, missing):
    """Given by its path it is refused; in a cache, where a download may have stopped, it is passed over."""
    path = checkpoints.copy("model", isolated / "extractors/vit-tiny")
    (path / missing).unlink()
    message = refusal(path)
    assert str(path) in message
    assert f"it has no {missing}" in message
    whole = checkpoints.copy("torchvision", isolated / "extractors" / WEIGHTS)
    assert find(roots=[isolated]).path == whole


@pytest.mark.parametrize("kept", [0, 5, 8, 200, -1])
def test_truncated_weights(checkpoints, kept):
    path = checkpoints.copy("model")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert f"{weights} cannot be read" in refusal(path)


@pytest.mark.parametrize("header", [b"{]", b"\xff\xfe", b'{"a": {"shape": [1]}}', b'{"a": 3}'])
def test_weights_with_another_header(checkpoints, header):
    path = checkpoints.copy("model")
    weights = path / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    assert f"{weights} cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("config", "tensor", "found", "expected"),
    [
        ({"hidden_size": 48}, "cls_token", "[1, 1, 32]", "[1, 1, 48]"),
        ({"patch_size": 16}, "position_embeddings", "[1, 17, 32]", "[1, 5, 32]"),
        ({"image_size": 64}, "position_embeddings", "[1, 17, 32]", "[1, 65, 32]"),
    ],
)
@pytest.mark.parametrize("name", ["model", "classifier"])
def test_wrong_shapes(checkpoints, name, config, tensor, found, expected):
    path = checkpoints.copy(name, **config)
    message = refusal(path)
    assert f"{path / 'model.safetensors'}: embeddings.{tensor} has shape {found}" in message
    assert f"by config.json must have {expected}" in message


def test_the_librarys_defaults_where_the_configuration_is_silent(checkpoints):
    path = checkpoints.copy("model")
    (path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert "cls_token has shape [1, 1, 32], and by config.json must have [1, 1, 768]" in refusal(path)
    config = {"model_type": "vit", "hidden_size": 32, "patch_size": 8}
    (path / "config.json").write_text(json.dumps(config))
    assert "must have [1, 785, 32]" in refusal(path)  # pictures of 224x224


def test_weights_without_the_embeddings(checkpoints):
    from safetensors.torch import load_file, save_file

    path = checkpoints.copy("model")
    tensors = load_file(path / "model.safetensors")
    del tensors["embeddings.position_embeddings"]
    save_file(tensors, path / "model.safetensors")
    assert "embeddings.position_embeddings is missing, and by config.json must have [1, 17, 32]" in refusal(path)


def test_another_model(checkpoints):
    assert "holds a model of type 'deit', and must hold a 'vit'" in refusal(
        checkpoints.copy("model", model_type="deit")
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00{"])
def test_broken_configuration(checkpoints, content):
    path = checkpoints.copy("model")
    (path / "config.json").write_bytes(content)
    assert f"{path / 'config.json'} cannot be read" in refusal(path)


def test_transformers_is_not_installed(checkpoints, without):
    without("transformers")
    path = checkpoints.copy("model")
    message = refusal(path, MissingData)
    assert f"{path} needs the package transformers: {INSTALL}" in message
    assert "landscape-cli[features]" in INSTALL
    assert "features=small_cnn" in message
    assert find(checkpoints.copy("torchvision")).library == TORCHVISION


@pytest.mark.parametrize(("name", "pools"), [("model", True), ("classifier", False), ("torchvision", False)])
def test_pooling_layer(checkpoints, name, pools):
    path = checkpoints.copy(name)
    if pools:
        assert find(path, output="pooled").path == path
    else:
        with pytest.raises(BadInput, match=r"features\.output: 'pooled', and .*allowed: class_token"):
            find(path, output="pooled")


class TestDownload:
    def test_is_the_last_resort(self, checkpoints, isolated, fetched):
        checkpoints.copy("torchvision", isolated / "extractors" / WEIGHTS)
        find(roots=[isolated], download=True)
        assert fetched == []

    def test_brings_the_checkpoint(self, checkpoints, monkeypatch):
        path = checkpoints.copy("classifier")
        monkeypatch.setattr(module, "_fetch", lambda repository: path if repository == REPOSITORY else None)
        found = find(download=True)
        assert (found.path, found.library, found.name) == (path, TRANSFORMERS, REPOSITORY)

    def test_fails(self, fetched):
        pytest.importorskip("huggingface_hub")
        message = refusal(kind=MissingData, download=True)
        assert fetched == [REPOSITORY]
        for text in ("ConnectError: no route", "looked for", "features.checkpoint=PATH", "features=random_conv"):
            assert text in message

    def test_brings_no_weights(self, checkpoints, monkeypatch):
        path = checkpoints.copy("classifier")
        (path / "model.safetensors").unlink()
        monkeypatch.setattr(module, "_fetch", lambda repository: path)
        message = refusal(kind=MissingData, download=True)
        assert "it has no model.safetensors" in message
        assert "features.checkpoint=PATH" in message

    def test_needs_the_hubs_client(self, fetched, without):
        without("transformers", "huggingface_hub")
        assert INSTALL in refusal(kind=MissingData, download=True)
        assert fetched == []

    def test_asks_for_no_other_file(self, monkeypatch, isolated):
        hub = pytest.importorskip("huggingface_hub")
        asked = {}

        def snapshot_download(repository, **options):
            asked.update(options, repository=repository)
            return str(isolated)

        monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
        assert module._fetch(REPOSITORY) == isolated
        assert asked["repository"] == REPOSITORY
        assert sorted(asked["allow_patterns"]) == ["config.json", "model.safetensors", "preprocessor_config.json"]

    def test_failure_is_one_line(self, monkeypatch):
        hub = pytest.importorskip("huggingface_hub")

        def snapshot_download(repository, **options):
            raise TimeoutError("slow\n  network " + 500 * "x")

        monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
        with pytest.raises(MissingData) as raised:
            module._fetch(REPOSITORY)
        assert str(raised.value).startswith("the download failed (TimeoutError: slow network xxx")
        assert len(str(raised.value)) < 250
