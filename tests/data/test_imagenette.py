"""Imagenette: JPEGs of any size in class folders, of which nothing but the archive's md5 is published."""

import hashlib
import io
import shutil
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from landscape_cli.composing import load
from landscape_cli.data.fetch import fetch
from landscape_cli.data.images import load_images, read
from landscape_cli.data.locate import locate
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.torchvision_import import torchvision
from landscape_cli.errors import DamagedData, MissingData

LAYOUT = IMAGE_SETS["imagenette"].layout
TRAIN, TEST = 4, 2  # pictures in each class folder
# (width, height): landscape, portrait, odd differences to a square, exactly as wanted, and one that is enlarged.
SIZES = [(320, 213), (214, 320), (427, 320), (201, 200), (200, 200), (150, 133)]
GREY = "n01440764_1.JPEG"
# The first of numpy.random.default_rng(0).permutation(40); another order would disown all stored results.
FIRST = [11, 27, 4, 24, 23, 2, 3, 34, 18, 1, 10, 22]


def jpeg(number: int, size: tuple[int, int], mode: str = "RGB") -> bytes:
    """A picture of coloured blocks, another one for each number."""
    blocks = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(blocks).resize(size, Image.Resampling.BILINEAR).convert(mode).save(content, "JPEG")
    return content.getvalue()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Pictures by their names below the set's folder; each class folder holds both kinds of names."""
    found = {}
    for split, count in (("train", TRAIN), ("val", TEST)):
        for class_folder in LAYOUT.class_folders:
            for index in range(count):
                number = len(found)
                name = f"{class_folder}_{index}.JPEG" if index % 2 else f"ILSVRC2012_val_000{number:05d}.JPEG"
                mode = "L" if name == GREY else "RGB"
                found[f"{split}/{class_folder}/{name}"] = jpeg(number, SIZES[number % len(SIZES)], mode)
    return found


@dataclass(frozen=True)
class Copy:
    """A tiny copy below a root."""

    root: Path
    folder: Path
    contents: dict[str, bytes]

    def paths(self, split: str) -> list[Path]:
        """The split's pictures, sorted by class and name."""
        return [self.folder / name for name in sorted(self.contents) if name.startswith(split)]

    def locate(self):
        return locate("imagenette", [self.root])


@pytest.fixture
def write(contents, tmp_path):
    """Write a tiny copy in a folder below ``tmp_path``."""

    def write(folder: str = LAYOUT.folder, root: Path = tmp_path) -> Copy:
        for name, content in contents.items():
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (root / folder / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")
        return Copy(root, root / folder, contents)

    return write


@pytest.fixture
def whole(monkeypatch):
    """Pin the tiny copy's numbers of objects as the published ones."""
    tiny = replace(IMAGE_SETS["imagenette"], train_objects=10 * TRAIN, test_objects=10 * TEST)
    monkeypatch.setitem(IMAGE_SETS, "imagenette", tiny)


def by_torchvision(path: Path) -> np.ndarray:
    """The picture (3, 200, 200), uint8, as torchvision's transforms make it."""
    from torchvision.transforms import v2

    steps = [v2.Resize(200, v2.InterpolationMode.BICUBIC), v2.CenterCrop(200), v2.PILToTensor()]
    with Image.open(path) as stored:
        return v2.Compose(steps)(stored.convert("RGB")).numpy()


def refusal(call, kind=MissingData) -> str:
    with pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_pins_are_those_of_torchvision():
    theirs = torchvision.datasets.Imagenette
    assert list(LAYOUT.class_folders) == sorted(theirs._WNID_TO_CLASS)
    assert IMAGE_SETS["imagenette"].class_names == tuple(theirs._WNID_TO_CLASS[it][0] for it in LAYOUT.class_folders)
    sizes = {"full": LAYOUT.larger_folders[0], "320px": LAYOUT.folder, "160px": LAYOUT.smaller_folders[0]}
    assert {size: Path(url).stem for size, (url, _) in theirs._ARCHIVES.items()} == sizes
    assert LAYOUT.torchvision_size == "320px"


def test_its_configuration():
    dataset = load(["dataset=imagenette"]).dataset
    assert (dataset.name, dataset.train_size, dataset.embedded) == ("imagenette", None, "digits")


class TestLocating:
    @pytest.mark.parametrize("folder", ["imagenette2-320", "imagenette2"])
    @pytest.mark.parametrize("parent", ["", "torchvision/"])
    def test_in_a_root_and_under_its_torchvision_folder(self, write, parent, folder):
        copy = write(parent + folder)
        source = copy.locate()
        assert source.place == str(copy.folder) == str(source.files[0].parent)
        assert (source.layout, source.whole, source.shape, source.classes) == ("torchvision", False, (3, 200, 200), 10)
        assert (source.train_objects, source.test_objects, source.max_value) == (40, 20, 255)

    def test_whole_with_every_object(self, write, whole):
        assert write().locate().whole

    def test_whole_set_comes_before_a_part(self, write, whole, tmp_path):
        part = write(root=tmp_path / "first")
        part.paths("train")[0].unlink()
        other = write("imagenette2", root=tmp_path / "second")
        assert (part.locate().train_objects, part.locate().whole) == (39, False)
        assert locate("imagenette", [part.root, other.root]).place == str(other.folder)

    def test_more_than_was_published(self, write, whole):
        copy = write()
        shutil.copy(copy.paths("val")[0], copy.folder / "val" / "n02102040")
        message = refusal(copy.locate, DamagedData)
        assert f"{copy.folder} is damaged: it holds 40 + 21 pictures, and Imagenette has 40 + 20" in message

    def test_checksum_is_of_names_and_contents(self, write, contents, tmp_path):
        copy = write()
        before = copy.locate().checksum
        # The output of `sha256sum`, itself digested.
        lines = "".join(f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents))
        assert before == hashlib.sha256(lines.encode()).hexdigest()
        assert write("imagenette2", root=tmp_path / "other").locate().checksum == before
        path = copy.paths("val")[7]
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        changed = copy.locate().checksum
        path.write_bytes(content)
        assert copy.locate().checksum == before
        path.rename(path.with_name("renamed.JPEG"))
        assert len({before, changed, copy.locate().checksum}) == 3

    def test_other_files_do_not_matter(self, write):
        copy = write()
        before = copy.locate()
        for name in ("val/n01440764/.hidden.JPEG", "val/n01440764/notes.txt", "train/.DS_Store"):
            (copy.folder / name).write_bytes(b"?")
        assert copy.locate() == before

    @pytest.mark.parametrize("emptied", [False, True])
    def test_missing_split(self, write, emptied):
        copy = write()
        shutil.rmtree(copy.folder / "val")
        if emptied:
            (copy.folder / "val").mkdir()
        message = refusal(copy.locate)
        assert f"{copy.folder} is incomplete: no pictures in val;" in message
        assert "`landscape data fetch imagenette`" in message

    def test_missing_class_folders(self, write):
        copy = write()
        shutil.rmtree(copy.folder / "train" / "n03000684")
        for path in (copy.folder / "train" / "n03888257").iterdir():
            path.unlink()
        assert "is incomplete: no pictures in train/n03000684, train/n03888257;" in refusal(copy.locate)

    def test_incomplete_copy_is_passed_over_for_a_whole_one_and_for_nothing_less(self, write, tmp_path, monkeypatch):
        broken = write()
        shutil.rmtree(broken.folder / "train" / "n03000684")
        sound = write("imagenette2", root=tmp_path / "second")
        roots = [broken.root, sound.root]
        assert "is incomplete" in refusal(lambda: locate("imagenette", roots))
        published = replace(IMAGE_SETS["imagenette"], train_objects=40, test_objects=20)
        monkeypatch.setitem(IMAGE_SETS, "imagenette", published)
        assert locate("imagenette", roots).place == str(sound.folder)

    def test_small_pictures_alone_are_refused(self, write):
        copy = write("torchvision/imagenette2-160")
        message = refusal(copy.locate)
        assert "not found" in message
        assert f"too small for 200x200 pixels: {copy.folder};" in message

    def test_small_pictures_are_passed_over(self, write, tmp_path):
        small = write("imagenette2-160", root=tmp_path / "first")
        copy = write(root=tmp_path / "second")
        assert locate("imagenette", [small.root, copy.root]).place == str(copy.folder)

    def test_missing_set_says_what_where_and_what_to_do(self, tmp_path):
        (tmp_path / LAYOUT.folder).mkdir()
        message = refusal(lambda: locate("imagenette", [tmp_path]))
        for part in (
            "(Imagenette) not found: looked for imagenette2-320/{train,val} or imagenette2/{train,val}",
            "n01440764 to n03888257",
            "also under torchvision/",
            f"images/imagenette.npz in {tmp_path};",
            "`landscape data fetch imagenette`",
            "profile=embedded",
        ):
            assert part in message
        assert "too small" not in message


class TestReading:
    def test_pictures_labels_and_order(self, write):
        copy = write()
        images = read(copy.locate())
        assert (images.x_train.shape, images.x_test.shape) == ((40, 3, 200, 200), (20, 3, 200, 200))
        assert (images.x_train.dtype, images.y_train.dtype, images.y_test.dtype) == (np.uint8, np.int64, np.int64)
        assert images.class_names[:2] == ("tench", "English springer")
        assert np.random.default_rng(0).permutation(40)[: len(FIRST)].tolist() == FIRST
        for split, x, y in (("train", images.x_train, images.y_train), ("val", images.x_test, images.y_test)):
            paths = copy.paths(split)
            for index, place in enumerate(np.random.default_rng(0).permutation(len(paths))):
                np.testing.assert_array_equal(x[index], by_torchvision(paths[place]), err_msg=str(paths[place]))
                assert LAYOUT.class_folders[y[index]] == paths[place].parent.name

    def test_as_torchvision_labels_them(self, write):
        copy = write()
        images = read(copy.locate())
        for split, y in (("train", images.y_train), ("val", images.y_test)):
            theirs = torchvision.datasets.Imagenette(copy.root, split=split, size="320px")
            labels = np.array([label for _, label in theirs._samples])
            np.testing.assert_array_equal(y, labels[np.random.default_rng(0).permutation(len(labels))])

    def test_grey_picture_has_equal_channels(self, write):
        copy = write()
        place = [path.name for path in copy.paths("train")].index(GREY)
        index = np.random.default_rng(0).permutation(40).tolist().index(place)
        picture = read(copy.locate()).x_train[index]
        np.testing.assert_array_equal(picture[0], picture[1])
        np.testing.assert_array_equal(picture[0], picture[2])
        assert picture.std() > 10

    def test_first_objects_are_of_most_classes(self, write):
        y = read(write().locate(), 20, 10).y_train
        assert len(set(y.tolist())) >= 8  # 5, class by class

    def test_first_objects_are_those_of_the_whole(self, write):
        source = write().locate()
        everything, part = read(source), read(source, 7, 0)
        np.testing.assert_array_equal(part.x_train, everything.x_train[:7])
        np.testing.assert_array_equal(part.y_train, everything.y_train[:7])
        assert (part.x_test.shape, part.y_test.shape) == ((0, 3, 200, 200), (0,))

    @pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "cut"])
    def test_damaged_picture_matters_when_it_is_asked_for(self, write, content):
        copy = write()
        path = copy.paths("train")[FIRST[5]]
        path.write_bytes(path.read_bytes()[:-400] if content is None else content)
        source = copy.locate()
        assert load_images(source, 5, 0).x_train.shape == (5, 3, 200, 200)
        for call in (lambda: load_images(source, 6, 0), lambda: read(source)):
            message = refusal(call, DamagedData)
            assert f"data set 'imagenette': {path} is damaged: it cannot be read (" in message
            assert message.endswith("delete it and run `landscape data fetch imagenette`")

    def test_picture_removed_after_it_was_located(self, write):
        copy = write()
        source = copy.locate()
        copy.paths("val")[0].unlink()
        message = refusal(lambda: read(source, 1, 1), DamagedData)
        assert f"{copy.folder / 'val'} is damaged: it holds 19 pictures, and 20 were found at first" in message

    @pytest.mark.parametrize("normalisation", ["symmetric", "standard"])
    def test_normalised(self, write, normalisation):
        source = write().locate()
        stored = read(source, 3, 2)
        data = load_images(source, 3, 2, normalisation=normalisation)
        # ImageNet's published means and deviations of pixels in 0..1.
        means, deviations = (
            (0.5, 0.5) if normalisation == "symmetric" else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        means, deviations = (np.broadcast_to(it, 3)[:, None, None] for it in (means, deviations))
        for found, x in ((data.x_train, stored.x_train), (data.x_test, stored.x_test)):
            np.testing.assert_allclose(found.numpy(), (x / 255 - means) / deviations, rtol=0, atol=2e-6)
        assert data.shape == (3, 200, 200)


class TestFetching:
    @pytest.fixture
    def served(self, contents, whole, monkeypatch):
        """Serve the tiny copy as the published archive of pictures of 320 pixels; return what was asked for."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(f"imagenette2-320/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        asked = []

        def retrieve(url, filename):
            asked.append(url.rsplit("/", 1)[1])
            if asked[-1] != "imagenette2-320.tgz":
                raise URLError("not served")
            Path(filename).write_bytes(packed.getvalue())

        utils = torchvision.datasets.utils
        monkeypatch.setattr(utils, "_urlretrieve", retrieve)
        monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
        archives = torchvision.datasets.Imagenette._ARCHIVES
        pinned = (archives["320px"][0], hashlib.md5(packed.getvalue()).hexdigest())
        monkeypatch.setattr(torchvision.datasets.Imagenette, "_ARCHIVES", archives | {"320px": pinned})
        return asked

    def test_brings_the_set_and_only_the_set_once(self, served, contents, tmp_path):
        root = tmp_path / "new" / "root"
        source = fetch("imagenette", root)
        assert source == locate("imagenette", [root])
        assert source.whole
        assert source.place == str(root / "imagenette2-320")
        files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        assert sorted(files) == sorted(f"imagenette2-320/{name}" for name in contents)
        assert fetch("imagenette", root) == source
        assert served == ["imagenette2-320.tgz"]

    def test_completes_a_part(self, served, write, tmp_path):
        copy = write()
        copy.paths("train")[3].unlink()
        shutil.rmtree(copy.folder / "val" / "n03000684")
        assert fetch("imagenette", tmp_path).whole
        assert (copy.folder / "noisy_imagenette.csv").exists()

    def test_download_that_is_not_the_whole_set(self, served, tmp_path, monkeypatch):
        monkeypatch.setitem(IMAGE_SETS, "imagenette", replace(IMAGE_SETS["imagenette"], test_objects=21))
        message = refusal(lambda: fetch("imagenette", tmp_path))
        assert "failed (a part of the published set, 40 + 20 objects, was downloaded)" in message
        assert list(tmp_path.iterdir()) == []

    def test_wrong_bytes_from_the_network(self, served, tmp_path, monkeypatch):
        archives = torchvision.datasets.Imagenette._ARCHIVES
        pinned = {"320px": (archives["320px"][0], "0" * 32)}
        monkeypatch.setattr(torchvision.datasets.Imagenette, "_ARCHIVES", archives | pinned)
        assert "corrupted" in refusal(lambda: fetch("imagenette", tmp_path))
        assert list(tmp_path.iterdir()) == []
