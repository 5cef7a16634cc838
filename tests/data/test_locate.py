import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from landscape_cli.data.locate import check_train_size, data_roots, expand, known_names, locate
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.errors import BadInput, MissingData


def refusal(name, roots) -> str:
    with pytest.raises(MissingData) as raised:
        locate(name, roots)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_pins_are_those_of_torchvision():
    from landscape_cli.data.torchvision_import import torchvision

    for name in ("cifar10", "cifar100"):
        theirs = getattr(torchvision.datasets, IMAGE_SETS[name].layout.torchvision_class)
        pins = [(file.name, file.digest) for file in IMAGE_SETS[name].layout.files]
        assert pins[:-1] == [tuple(pin) for pin in theirs.train_list + theirs.test_list]
        assert pins[-1] == (theirs.meta["filename"], theirs.meta["md5"])
        assert IMAGE_SETS[name].layout.folder == theirs.base_folder
    for name in ("mnist", "fashion_mnist"):
        theirs = getattr(torchvision.datasets, IMAGE_SETS[name].layout.torchvision_class)
        names = [file.forms[0][0] for file in IMAGE_SETS[name].layout.files]
        assert names == [file for file, _ in theirs.resources]
        assert IMAGE_SETS[name].layout.folder == f"{theirs.__name__}/raw"


def test_layout_is_found_in_a_root_and_under_its_torchvision_folder(tiny_mnist, tmp_path):
    folder = tiny_mnist.write(tmp_path / "torchvision")
    source = locate("mnist", [tmp_path / "nothing", tmp_path])
    assert source == locate("mnist", [str(tmp_path / "torchvision")])
    assert source.place == str(folder)
    assert source.files[0] == folder / "train-images-idx3-ubyte.gz"
    assert (source.layout, source.whole, source.shape, source.classes) == ("torchvision", True, (1, 6, 5), 10)
    assert (source.train_objects, source.test_objects, source.max_value) == (7, 3, 255)


def test_checksum_does_not_depend_on_packing(tiny_mnist, tmp_path):
    sources = []
    for packed_files in (4, 2, 0):
        root = tmp_path / str(packed_files)
        tiny_mnist.write(root, packed_files)
        sources.append(locate("mnist", [root]))
    assert len({source.checksum for source in sources}) == 1
    assert len(sources[0].checksum) == 64
    assert [path.suffix for path in sources[1].files] == [".gz", ".gz", "", ""]


def test_checksums_tell_data_sets_apart(tiny_mnist, tiny_cifar, tmp_path):
    name, cifar = tiny_cifar
    tiny_mnist.write(tmp_path)
    cifar.write(tmp_path)
    assert len({locate(known, [tmp_path]).checksum for known in ("digits", "mnist", name)}) == 3


def test_cifar_layout_is_found(tiny_cifar, tmp_path):
    name, cifar = tiny_cifar
    folder = cifar.write(tmp_path)
    source = locate(name, [tmp_path])
    assert source.files == tuple(folder / file.name for file in IMAGE_SETS[name].layout.files)
    assert source.whole


@pytest.mark.parametrize("packed_files", [4, 0])
def test_flipped_byte_is_damage(tiny_mnist, tmp_path, packed_files):
    folder = tiny_mnist.write(tmp_path, packed_files)
    path = folder / ("train-images-idx3-ubyte" + (".gz" if packed_files else ""))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    flip(path, -1)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    message = refusal("mnist", [tmp_path])
    assert f"{path} is damaged" in message
    assert f"{expected[:12]} expected, {found[:12]} found" in message
    assert "delete it and run `landscape data fetch mnist`" in message


def test_cifar_damage_is_found(tiny_cifar, tmp_path):
    name, cifar = tiny_cifar
    folder = cifar.write(tmp_path)
    last = IMAGE_SETS[name].layout.files[-1].name
    flip(folder / last, 10)
    assert f"{folder / last} is damaged: md5" in refusal(name, [tmp_path])


def test_damaged_packed_file_is_passed_over_for_the_unpacked_one(tiny_mnist, tmp_path):
    folder = tiny_mnist.write(tmp_path)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(tiny_mnist.contents["t10k-labels-idx1-ubyte"])
    flip(folder / "t10k-labels-idx1-ubyte.gz", 20)
    assert locate("mnist", [tmp_path]).files[-1] == folder / "t10k-labels-idx1-ubyte"


def test_incomplete_layout_names_the_missing_file(tiny_mnist, tmp_path):
    folder = tiny_mnist.write(tmp_path)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    message = refusal("mnist", [tmp_path])
    assert f"{folder} is incomplete: t10k-labels-idx1-ubyte.gz is missing" in message
    assert "train-images" not in message


def test_whole_set_comes_before_a_part_in_an_earlier_root(tiny_mnist, write_archive, tmp_path):
    part = {"x_train": np.zeros((5, 6, 5), np.uint8), "x_test": np.zeros((2, 6, 5), np.uint8), "classes": None}
    path = write_archive("mnist", root=tmp_path / "first", **part)
    source = locate("mnist", [tmp_path / "first", tmp_path / "second"])
    assert (source.files, source.whole, source.train_objects) == ((path,), False, 5)
    assert (source.classes, source.shape, source.title) == (10, (1, 6, 5), "MNIST")
    tiny_mnist.write(tmp_path / "second")
    source = locate("mnist", [tmp_path / "first", tmp_path / "second"])
    assert (source.layout, source.whole, source.train_objects) == ("torchvision", True, 7)


def test_archive_with_every_object_is_whole(tiny_mnist, write_archive, tmp_path):
    write_archive(
        "mnist",
        x_train=tiny_mnist.x_train[:, 0],
        y_train=tiny_mnist.y_train,
        x_test=tiny_mnist.x_test[:, 0],
        y_test=tiny_mnist.y_test,
        classes=None,
    )
    assert locate("mnist", [tmp_path]).whole


def test_damage_is_passed_over_for_a_whole_copy_and_for_nothing_less(tiny_mnist, write_archive, tmp_path):
    folder = tiny_mnist.write(tmp_path / "first")
    flip(folder / "train-labels-idx1-ubyte.gz", 12)
    part = {"x_train": np.zeros((5, 6, 5), np.uint8), "x_test": np.zeros((2, 6, 5), np.uint8), "classes": None}
    write_archive("mnist", root=tmp_path / "second", **part)
    assert "is damaged" in refusal("mnist", [tmp_path / "first", tmp_path / "second"])
    whole = tiny_mnist.write(tmp_path / "third")
    assert locate("mnist", [tmp_path / "first", tmp_path / "second", tmp_path / "third"]).place == str(whole)


def test_own_archive_of_any_name(write_archive, tmp_path):
    path = write_archive("mine")
    source = locate("mine", [tmp_path])
    assert (source.layout, source.files, source.title, source.whole) == ("archive", (path,), "mine", True)
    assert (source.train_objects, source.test_objects, source.shape, source.classes) == (5, 2, (3, 6, 4), 3)
    assert source.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.place == str(path)


def test_classes_are_counted_when_not_named(write_archive, tmp_path):
    write_archive("mine", classes=None, y_test=np.array([0, 7]))
    assert locate("mine", [tmp_path]).classes == 8


def test_damaged_own_archive_is_not_passed_over(write_archive, tmp_path):
    path = write_archive("mine", root=tmp_path / "first")
    write_archive("mine", root=tmp_path / "second")
    path.write_bytes(path.read_bytes()[:-100])
    message = refusal("mine", [tmp_path / "first", tmp_path / "second"])
    assert f"{path} is damaged: it cannot be read (BadZipFile" in message
    assert "write it again" in message
    assert "data fetch" not in message


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"y_test": None}, "it has no array y_test"),
        ({"x_train": np.zeros((5, 6, 4, 3))}, "x_train is float64 (5, 6, 4, 3), and must be uint8"),
        ({"x_train": np.zeros((5, 72), np.uint8)}, "x_train is uint8 (5, 72), and must be uint8 (N, H, W)"),
        ({"x_test": np.zeros((2, 6, 3, 3), np.uint8)}, "x_train is (5, 6, 4, 3) and x_test is (2, 6, 3, 3)"),
        ({"y_train": np.zeros(4, int)}, "y_train is (4,), and there are 5 images"),
        ({"y_test": np.array([0.0, 1.0])}, "y_test is float64 (2,), and must be integers"),
        ({"y_test": np.array([0, 3])}, "its labels are 0..3, and it has 3 classes"),
        ({"y_test": np.array([0, -1])}, "its labels are -1..2"),
        ({"classes": np.array(["cat", "dog", "eel"], dtype=object)}, "classes is object (3,), and must be names"),
        (
            {"x_train": np.zeros((0, 6, 4, 3), np.uint8), "y_train": np.zeros(0, int)},
            "x_train is (0, 6, 4, 3)",
        ),
    ],
)
def test_archive_whose_parts_do_not_agree(write_archive, tmp_path, changes, problem):
    path = write_archive("mine", **changes)
    message = refusal("mine", [tmp_path])
    assert f"{path} is damaged: " in message
    assert problem in message


@pytest.mark.parametrize(
    "changes",
    [
        {},  # 10 classes wanted, 3 found
        {"classes": None, "x_train": np.zeros((5, 8, 8, 3), np.uint8), "x_test": np.zeros((2, 8, 8, 3), np.uint8)},
        {
            "classes": None,
            "x_train": np.zeros((60001, 28, 28), np.uint8),
            "y_train": np.zeros(60001, np.uint8),
            "x_test": np.zeros((2, 28, 28), np.uint8),
        },
    ],
)
def test_archive_that_cannot_be_the_published_set(write_archive, tmp_path, changes):
    path = write_archive("mnist", **changes)
    message = refusal("mnist", [tmp_path])
    assert f"{path} is damaged: it holds" in message
    assert "MNIST has 60000 + 10000 objects of shape (1, 28, 28) in 10 classes" in message


def test_missing_set_says_what_where_and_what_to_do(tmp_path):
    message = refusal("mnist", [tmp_path / "a", tmp_path / "b"])
    for part in (
        "MNIST/raw/train-images-idx3-ubyte.gz, MNIST/raw/train-labels-idx1-ubyte.gz",
        "MNIST/raw/t10k-labels-idx1-ubyte.gz",
        "images/mnist.npz",
        f"in {tmp_path / 'a'}, {tmp_path / 'b'};",
        "`landscape data fetch mnist`",
        "profile=embedded",
    ):
        assert part in message


def test_unknown_name_lists_the_known_ones_and_the_nearest(write_archive, tmp_path):
    write_archive("moons")
    message = refusal("fashion-mnist", [tmp_path])
    assert f"no images/fashion-mnist.npz in {tmp_path}" in message
    assert "known data sets: digits, digits_32, mnist, fashion_mnist, cifar10, cifar100, imagenette, moons" in message
    assert "did you mean 'fashion_mnist'?" in message
    assert "did you mean 'moons'?" in refusal("moon", [tmp_path])
    assert "did you mean" not in refusal("zzz", [tmp_path])
    assert known_names([tmp_path])[-1] == "moons"


def test_digits_need_no_root():
    source = locate("digits", [])
    assert (source.layout, source.place, source.files) == ("scikit-learn", "scikit-learn", ())
    assert (source.train_objects, source.test_objects, source.max_value) == (1437, 360, 16)


def test_train_size_is_refused_with_what_to_give_instead(write_archive, tmp_path):
    path = write_archive("mine")
    source = locate("mine", [tmp_path])
    assert (check_train_size(source, None), check_train_size(source, 5), check_train_size(source, 1)) == (5, 5, 1)
    for size in (6, 0, -1):
        with pytest.raises(BadInput) as raised:
            check_train_size(source, size)
        message = str(raised.value)
        assert message.startswith(f"dataset.train_size={size} is not possible")
        assert f"has 5 train objects in {path};" in message
        assert message.endswith("dataset.train_size=5, or dataset.train_size=null for all")


def test_train_size_says_when_the_source_is_a_part(tiny_mnist, write_archive, tmp_path):
    part = {"x_train": np.zeros((5, 6, 5), np.uint8), "x_test": np.zeros((2, 6, 5), np.uint8), "classes": None}
    write_archive("mnist", **part)
    with pytest.raises(BadInput, match="a part of the published set"):
        check_train_size(locate("mnist", [tmp_path]), 6)


def test_roots_by_default_and_configured(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LANDSCAPE_DATA", os.pathsep.join([str(tmp_path / "a"), "b"]))
    cache = tmp_path / "home" / ".cache" / "landscape"
    assert data_roots(None) == (tmp_path / "a", tmp_path / "b", tmp_path / "data", cache)
    monkeypatch.delenv("LANDSCAPE_DATA")
    assert data_roots(None) == (tmp_path / "data", cache)
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert data_roots(["$SCRATCH/sets", "~/x"]) == (tmp_path / "scratch" / "sets", tmp_path / "home" / "x")
    assert expand("here") == tmp_path / "here"


def test_locate_imports_nothing_heavy(write_archive, tmp_path):
    write_archive("mine")
    program = (
        "import sys; from landscape_cli.data.locate import locate; import landscape_cli.data.fetch; "
        f"locate('digits', []); print(locate('mine', [{str(tmp_path)!r}]).classes); "
        "print([m for m in ('torch', 'torchvision', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["3", "[]"]


# Stored results are keyed by the checksum: another one would disown them all.
CHECKSUMS = {
    "mnist": "49dc12bdde491641d90ee8ee4704d72c6582b1b6642bb9f0ea443612247ceeb6",
    "fashion_mnist": "92367914c0aaf86f4efaf08fb8839c28f7e1093c6a1798a1bca0a4900c2ea4f7",
}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_real_data(real_data, name):
    try:
        source = locate(name, [real_data])
    except MissingData as error:
        if "not found" not in str(error):
            raise
        pytest.skip(str(error))
    published = IMAGE_SETS[name]
    assert (source.shape, source.classes) == (published.shape, published.classes)
    if source.layout == "torchvision" and name in CHECKSUMS:
        assert source.checksum == CHECKSUMS[name]
    assert source.whole == ((source.train_objects, source.test_objects) == (published.train_objects, 10000))
