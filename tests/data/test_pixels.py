"""Archives of pictures that are mapped into memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape_cli.data import images
from landscape_cli.data.archive import map_array, read_arrays
from landscape_cli.data.images import load_images
from landscape_cli.data.locate import locate
from landscape_cli.data.pixels import Pixels
from landscape_cli.errors import DamagedData

TRAIN, TEST = 60, 20


@pytest.fixture(params=[(6, 5), (6, 5, 3)], ids=["grey", "colour"])
def archive(request, tmp_path):
    """A data root with an uncompressed archive of random pictures."""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (TRAIN, *request.param), dtype=np.uint8),
        "y_train": random.integers(0, 3, TRAIN),
        "x_test": random.integers(0, 256, (TEST, *request.param), dtype=np.uint8),
        "y_test": random.integers(0, 3, TEST),
    }
    path = tmp_path / "images" / "own.npz"
    path.parent.mkdir()
    np.savez(path, **arrays)
    return path


class TestMapArray:
    """An array of an archive, unread."""

    @pytest.mark.parametrize("key", ["x_train", "y_test"])
    def test_is_the_array(self, archive, key):
        mapped = map_array("own", archive, key)
        assert isinstance(mapped, np.memmap)
        assert np.array_equal(mapped, read_arrays("own", archive, (key,))[key])

    def test_of_columns_first(self, tmp_path):
        array = np.asfortranarray(np.arange(24).reshape(4, 6))
        np.savez(tmp_path / "a.npz", x=array)
        assert np.array_equal(map_array("own", tmp_path / "a.npz", "x"), array)

    def test_compressed_cannot_be_mapped(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", x=np.zeros(9))
        assert map_array("own", tmp_path / "a.npz", "x") is None

    def test_cut_off(self, archive):
        archive.write_bytes(archive.read_bytes()[:-200])
        with pytest.raises(DamagedData, match="cannot be read"):
            map_array("own", archive, "x_train")


class TestPixels:
    """What is read of them is what they are in memory."""

    @pytest.fixture
    def both(self, archive, monkeypatch):
        def load(normalisation="symmetric", train_size=None, limit=0):
            monkeypatch.setattr(images, "WHOLE_BYTES", limit)
            source = locate("own", [archive.parents[1]])
            return tuple(
                load_images(source, train_size, None, "cpu", normalisation, mapped) for mapped in (True, False)
            )

        return load

    @pytest.mark.parametrize("normalisation", ["symmetric", "standard"])
    @pytest.mark.parametrize("train_size", [None, 37])
    def test_same_numbers(self, both, normalisation, train_size):
        mapped, whole = both(normalisation, train_size)
        for split in ("x_train", "x_test"):
            pixels, tensor = getattr(mapped, split), getattr(whole, split)
            assert isinstance(pixels, Pixels)
            assert (pixels.shape, len(pixels), pixels.nbytes) == (tensor.shape, len(tensor), tensor.nbytes)
            assert torch.equal(pixels[5:9], tensor[5:9])
            index = torch.tensor([[3, 0], [7, 3]])
            assert torch.equal(pixels[index], tensor[index])
        assert torch.equal(mapped.y_train, whole.y_train)
        assert mapped.shape == whole.shape

    def test_small_ones_are_held_in_memory(self, both):
        mapped, _ = both(limit=10**9)
        assert isinstance(mapped.x_train, torch.Tensor)

    def test_only_the_pictures_asked_for_count(self, both, archive):
        one = 4 * int(np.prod(read_arrays("own", archive, ("x_train",))["x_train"].shape[1:]))
        mapped, _ = both(train_size=5, limit=10 * one)
        assert isinstance(mapped.x_train, torch.Tensor)
        assert isinstance(mapped.x_test, Pixels)


def test_a_run_on_mapped_pictures_gives_the_same_bytes(archive, landscape, monkeypatch, tmp_path):
    monkeypatch.setenv("LANDSCAPE_DATA", str(archive.parents[1]))
    given = ["experiment=fc_mnist", "profile=smoke", "dataset.name=own", "dataset.train_size=null"]
    stored = []
    for limit, checkpoint in ((10**9, "false"), (0, "false"), (0, "true")):
        monkeypatch.setattr(images, "WHOLE_BYTES", limit)
        output = tmp_path / f"{limit}{checkpoint}"
        assert landscape("run", *given, f"checkpoint={checkpoint}", f"output_dir={output}").code == 0
        files = sorted((output / "results").rglob("*.parquet"))
        stored.append({path.relative_to(output): path.read_bytes() for path in files})
    assert stored[0]
    assert stored[0] == stored[1] == stored[2]
