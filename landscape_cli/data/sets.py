"""The image sets known by name: what they hold, and the published files with their pinned digests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PinnedFile:
    """A published file and its digest; ``.gz`` beside it when it is published compressed."""

    name: str
    digest: str
    gz_digest: str | None = None

    @property
    def forms(self) -> tuple[tuple[str, str], ...]:
        """File names and digests, either of which will do; the smaller, compressed one first."""
        unpacked = (self.name, self.digest)
        return (unpacked,) if self.gz_digest is None else ((f"{self.name}.gz", self.gz_digest), unpacked)


@dataclass(frozen=True)
class Layout:
    """Files as torchvision lays them out.

    The order of ``files`` is part of the format. ``idx``: train images, train labels, test images, test labels.
    ``cifar``: train batches, the test batch, the class names. ``folders``: none is pinned; a picture is a JPEG in
    ``<folder>/<split>/<class folder>``.
    """

    folder: str  # below a root, or below its torchvision/; where a download goes
    reader: str  # "idx", "cifar" or "folders"
    algorithm: str  # of the digests; md5 where that is all that is published
    files: tuple[PinnedFile, ...]
    torchvision_class: str  # in torchvision.datasets; downloads it
    torchvision_size: str | None = None  # which of its sizes is downloaded, if there are several
    larger_folders: tuple[str, ...] = ()  # the same pictures, larger; taken as well
    smaller_folders: tuple[str, ...] = ()  # the same pictures, smaller than ImageSet.shape; never taken
    splits: tuple[str, ...] = ()  # folders of the train and the test objects
    class_folders: tuple[str, ...] = ()  # (K,), sorted; a class's label is its place among them

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that are taken, in the order in which they are looked for."""
        return (self.folder, *self.larger_folders)


@dataclass(frozen=True)
class ImageSet:
    """A published set of images with class labels."""

    name: str
    title: str
    description: str
    shape: tuple[int, int, int]  # (C, H, W)
    classes: int
    max_value: int  # pixels lie in 0..max_value
    train_objects: int
    test_objects: int
    layout: Layout | None  # None: it ships with scikit-learn
    class_names: tuple[str, ...] = ()  # empty: the files name them
    related: str | None = None  # another set of the same kind, from which features can be learned
    channel_means: tuple[float, ...] = ()  # of pixels in 0..1, as published; empty: taken from the train objects
    channel_deviations: tuple[float, ...] = ()


_TEN_DIGITS = tuple(str(digit) for digit in range(10))

# SHA-256 of scikit-learn's digits, as they are and enlarged: the images as uint8, the labels as little-endian int64.
DIGITS_DIGESTS = {
    "digits": "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5",
    "digits_32": "2952ddb62ce053ee358cac9f64c6981d639722df5f92070f92a09138f6d84398",
}

_MNIST = Layout(
    folder="MNIST/raw",
    reader="idx",
    algorithm="sha256",
    files=(
        PinnedFile(
            "train-images-idx3-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        PinnedFile(
            "train-labels-idx1-ubyte",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        PinnedFile(
            "t10k-images-idx3-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        PinnedFile(
            "t10k-labels-idx1-ubyte",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    torchvision_class="MNIST",
)

_FASHION_MNIST = Layout(
    folder="FashionMNIST/raw",
    reader="idx",
    algorithm="sha256",
    files=(
        PinnedFile(
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        PinnedFile(
            "train-labels-idx1-ubyte",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        PinnedFile(
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        PinnedFile(
            "t10k-labels-idx1-ubyte",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    torchvision_class="FashionMNIST",
)

# For CIFAR the md5s are the published ones, which torchvision pins as well.
_CIFAR10 = Layout(
    folder="cifar-10-batches-py",
    reader="cifar",
    algorithm="md5",
    files=(
        PinnedFile("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        PinnedFile("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        PinnedFile("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        PinnedFile("data_batch_4", "634d18415352ddfa80567beed471001a"),
        PinnedFile("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        PinnedFile("test_batch", "40351d587109b95175f43aff81a1287e"),
        PinnedFile("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
    ),
    torchvision_class="CIFAR10",
)

_CIFAR100 = Layout(
    folder="cifar-100-python",
    reader="cifar",
    algorithm="md5",
    files=(
        PinnedFile("train", "16019d7e3df5f24257cddd939b257f8d"),
        PinnedFile("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        PinnedFile("meta", "7973b15100ade9c7d40fb424638fde48"),
    ),
    torchvision_class="CIFAR100",
)

# The archive's md5 is published, which torchvision checks after the download, and no digest of what is in it.
_IMAGENETTE = Layout(
    folder="imagenette2-320",
    reader="folders",
    algorithm="sha256",
    files=(),
    torchvision_class="Imagenette",
    torchvision_size="320px",
    larger_folders=("imagenette2",),
    smaller_folders=("imagenette2-160",),
    splits=("train", "val"),
    class_folders=(
        "n01440764",
        "n02102040",
        "n02979186",
        "n03000684",
        "n03028079",
        "n03394916",
        "n03417042",
        "n03425413",
        "n03445777",
        "n03888257",
    ),
)

IMAGE_SETS: dict[str, ImageSet] = {
    image_set.name: image_set
    for image_set in (
        ImageSet(
            name="digits",
            title="Digits",
            description="handwritten digits",
            shape=(1, 8, 8),
            classes=10,
            max_value=16,
            train_objects=1437,
            test_objects=360,
            layout=None,
            class_names=_TEN_DIGITS,
        ),
        ImageSet(
            name="digits_32",
            title="Digits 32x32",
            description="handwritten digits, enlarged four times",
            shape=(1, 32, 32),
            classes=10,
            max_value=255,
            train_objects=1437,
            test_objects=360,
            layout=None,
            class_names=_TEN_DIGITS,
        ),
        ImageSet(
            name="mnist",
            title="MNIST",
            description="handwritten digits",
            shape=(1, 28, 28),
            classes=10,
            max_value=255,
            train_objects=60000,
            test_objects=10000,
            layout=_MNIST,
            class_names=_TEN_DIGITS,
            related="fashion_mnist",
        ),
        ImageSet(
            name="fashion_mnist",
            title="FashionMNIST",
            description="clothing",
            shape=(1, 28, 28),
            classes=10,
            max_value=255,
            train_objects=60000,
            test_objects=10000,
            layout=_FASHION_MNIST,
            class_names=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            related="mnist",
        ),
        ImageSet(
            name="cifar10",
            title="CIFAR10",
            description="objects",
            shape=(3, 32, 32),
            classes=10,
            max_value=255,
            train_objects=50000,
            test_objects=10000,
            layout=_CIFAR10,
            related="cifar100",
            channel_means=(0.4914, 0.4822, 0.4465),
            channel_deviations=(0.2470, 0.2435, 0.2616),
        ),
        ImageSet(
            name="cifar100",
            title="CIFAR100",
            description="objects",
            shape=(3, 32, 32),
            classes=100,
            max_value=255,
            train_objects=50000,
            test_objects=10000,
            layout=_CIFAR100,
            related="cifar10",
        ),
        ImageSet(
            name="imagenette",
            title="Imagenette",
            description="objects and scenes, ten classes of ImageNet",
            shape=(3, 200, 200),
            classes=10,
            max_value=255,
            train_objects=9469,
            test_objects=3925,
            layout=_IMAGENETTE,
            class_names=(
                "tench",
                "English springer",
                "cassette player",
                "chain saw",
                "church",
                "French horn",
                "garbage truck",
                "gas pump",
                "golf ball",
                "parachute",
            ),
            channel_means=(0.485, 0.456, 0.406),  # ImageNet's
            channel_deviations=(0.229, 0.224, 0.225),
        ),
    )
}
