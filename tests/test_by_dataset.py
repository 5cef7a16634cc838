"""What differs for one data set, the profiles' cap on channels, and networks that do not fit on the pictures."""

from functools import cache

import numpy as np
import pytest
from omegaconf import OmegaConf

from landscape_cli.composing import compose, load
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.draw import describe
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Results
from landscape_cli.plan import make_plan
from landscape_cli.validation import load_class, prepare

COMBINED = "experiment=conv_layers"
NAMES = ("mnist", "fashion_mnist", "cifar10")


@cache
def points(*overrides):
    config = load(overrides)
    return load_class(config.family)(config).points()


def settings_of(name, *overrides):
    """Settings of the combined experiment's points of one data set."""
    return [p.settings for p in points(COMBINED, *overrides) if p.settings["dataset"]["name"] == name]


def used(name, *overrides):
    """Normalisation and epochs of a data set in the combined experiment."""
    found = {(s["dataset"]["normalisation"], s["training"]["epochs"]) for s in settings_of(name, *overrides)}
    assert len(found) == 1
    return found.pop()


@pytest.fixture
def parts(isolated):
    """A few objects of each data set, as own archives in the data root."""
    folder = isolated / "no-data" / "images"
    folder.mkdir()
    for name in NAMES:
        channels, height, width = IMAGE_SETS[name].shape
        x = np.random.default_rng(0).integers(0, 256, (8, height, width, channels), dtype=np.uint8)
        y = np.arange(8) % 10
        np.savez(folder / f"{name}.npz", x_train=x[:6], y_train=y[:6], x_test=x[6:], y_test=y[6:])


@pytest.fixture(scope="module")
def composed():
    """What Hydra makes of the combined experiment; takes any key."""
    found = compose([COMBINED])
    OmegaConf.set_struct(found, False)
    return found


class TestPoints:
    def test_only_the_named_data_set_differs(self):
        assert used("cifar10") == ("standard", 15)
        assert used("mnist") == used("fashion_mnist") == ("symmetric", 10)

    @pytest.mark.parametrize(
        ("kind", "more"),
        [
            ("layers", ()),
            ("kernel", ("profile=quick",)),
            ("channels", ("training.epochs=3", "training.batch_size=32", "dataset.max_size=9")),
        ],
    )
    def test_have_the_settings_of_the_single_experiments(self, kind, more):
        combined = points(f"experiment=conv_{kind}", *more)
        single = [point for name in NAMES for point in points(f"experiment=conv_{kind}_{name}", *more)]
        assert [point.settings_json for point in combined] == [point.settings_json for point in single]
        assert [point.stream for point in combined] == [point.stream for point in single]
        assert [point.coordinates for point in combined] == [point.coordinates for point in single]

    def test_have_the_keys_of_the_single_experiments(self, parts):
        together = make_plan(load([COMBINED]))
        alone = [make_plan(load([f"experiment=conv_layers_{name}"])) for name in NAMES]
        assert not together.unlocated
        keys = [item.key for item in together.located]
        assert keys == [item.key for plan in alone for item in plan.located]
        assert len(set(keys)) == 18
        assert {plan.family for plan in alone} == {together.family}

    def test_normalisation_is_part_of_the_key(self, parts):
        plans = [make_plan(load([COMBINED, f"dataset.normalisation={name}"])) for name in ("symmetric", "standard")]
        first, second = ({item.key for item in plan.located} for plan in plans)
        assert len(first) == len(second) == 18
        assert not first & second
        assert {item.point.settings["dataset"]["normalisation"] for item in plans[1].located} == {"standard"}


class TestMerging:
    @pytest.mark.parametrize(
        ("overrides", "mnist", "cifar10"),
        [
            (("training.epochs=7",), ("symmetric", 7), ("standard", 7)),
            (("++training.epochs=7",), ("symmetric", 7), ("standard", 7)),
            (("training.batch_size=7",), ("symmetric", 10), ("standard", 15)),
            (("dataset.normalisation=symmetric",), ("symmetric", 10), ("symmetric", 15)),
            (("by_dataset.cifar10.training.epochs=4",), ("symmetric", 10), ("standard", 4)),
            (("+by_dataset.mnist.training.epochs=4",), ("symmetric", 4), ("standard", 15)),
            (("~by_dataset.cifar10.training",), ("symmetric", 10), ("standard", 10)),
            (("~by_dataset.cifar10",), ("symmetric", 10), ("symmetric", 10)),
            (("profile=quick",), ("symmetric", 10), ("standard", 10)),
            (("profile=quick", "profile.epochs=12"), ("symmetric", 10), ("standard", 12)),
            (("profile=quick", "training.epochs=30"), ("symmetric", 30), ("standard", 30)),
            (("profile=quick", "by_dataset.cifar10.training.epochs=30"), ("symmetric", 10), ("standard", 30)),
        ],
        ids=str,
    )
    def test_what_holds(self, overrides, mnist, cifar10):
        """A value given for all data sets beats what a file says of one, a profile caps both."""
        assert (used("mnist", *overrides), used("cifar10", *overrides)) == (mnist, cifar10)

    def test_sizes(self):
        override = "+by_dataset.mnist.dataset.train_size=500"
        sizes = [settings_of(name, override)[0]["dataset"]["train_size"] for name in NAMES]
        assert sizes == [500, None, None]
        given = [settings_of(n, override, "dataset.train_size=300")[0]["dataset"]["train_size"] for n in NAMES]
        assert given == [300, 300, 300]

    @pytest.mark.parametrize(
        ("override", "text"),
        [
            ("by_dataset.mnist.training.epoch=3", "unknown key 'by_dataset.mnist.training.epoch'; did you mean"),
            ("by_dataset.mnist.dataset.size=3", "unknown key 'by_dataset.mnist.dataset.size'"),
            ("by_dataset.mnist.mapping.levels=3", "by_dataset.mnist.mapping: allowed: dataset, model, training"),
            ("by_dataset.mnist.sede.x=3", "by_dataset.mnist.sede: allowed: dataset, model, training"),
            (
                "by_dataset.mnist.seeds=3",
                "by_dataset.mnist: {'seeds': 3}; allowed: keys of dataset, model, training and measure",
            ),
            ("by_dataset.mnist=3", "by_dataset.mnist: 3; allowed: keys of dataset, model, training and measure"),
            ("by_dataset.cifar10.training=null", "allowed: keys of dataset, model, training and measure"),
            ("by_dataset=3", "by_dataset: 3"),
            ("by_dataset.cifar10.training.epochs=-1", "by_dataset.cifar10.training.epochs: -1; allowed: 0 or more"),
            ("by_dataset.cifar10.training.epochs=many", "by_dataset.cifar10.training.epochs: "),
            ("by_dataset.mnist.training.learning_rate=0", "learning_rate: 0.0; allowed: more than 0"),
            ("by_dataset.cifar10.dataset.normalisation=mean", "mean'; allowed: symmetric, standard"),
            ("by_dataset.mnist.dataset.train_size=0", "by_dataset.mnist.dataset.train_size: 0; allowed: 1 or more"),
            ("by_dataset.mnist.dataset.name=digits", "by_dataset.mnist.dataset.name: allowed here: train_size"),
            ("by_dataset.mnist.dataset.in_place_of=[a]", "allowed here: train_size, normalisation"),
            ("by_dataset.mnits.training.epochs=3", "by_dataset.mnits: no such data set; did you mean 'mnist'"),
        ],
    )
    def test_is_validated(self, composed, override, text):
        with pytest.raises(BadInput) as raised:
            prepare(OmegaConf.merge(composed, OmegaConf.from_dotlist([override])))
        assert text in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_refused_of_an_experiment_without_data(self):
        with pytest.raises(BadInput, match="by_dataset"):
            load(["experiment=schematic_loss_change", "+by_dataset.mnist.training.epochs=3"])

    @pytest.mark.parametrize(
        ("overrides", "text"),
        [
            ((), "10 epochs of Adam 0.001, batches of 64 (MNIST), 15 epochs of Adam 0.001, batches of 64 (CIFAR10); "),
            (("training.epochs=1",), "5 seeds, 1 epoch of Adam 0.001, batches of 64; "),
            (
                ("training.learning_rate=2e-4",),
                "10 epochs of Adam 0.0002, batches of 64 (MNIST), 15 epochs of Adam 0.0",
            ),
        ],
    )
    def test_note_tells_the_trainings_apart(self, parts, overrides, text):
        plan = make_plan(load([COMBINED, "grid.dataset=[mnist,cifar10]", *overrides]))
        points = tuple(item.point for item in plan.located)
        results = Results(points, missing=(), frames={}, arrays={}, sources=plan.sources, profile="paper")
        assert text in describe(plan, results)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("experiment=conv_channels_mnist", "profile=quick"), {6, 12}),
        (("experiment=conv_channels_mnist", "profile=quick", "profile.channels=18"), {6, 12, 18}),
        (("experiment=conv_channels_mnist", "profile=smoke"), {6, 12}),
        (("experiment=conv_channels_mnist", "profile=paper"), {6, 12, 18, 24, 30, 36, 42}),
        (("experiment=conv_channels_mnist", "profile=quick", "profile.channels=17"), {6, 12}),
        (("experiment=conv_channels_mnist", "profile=quick", "profile.channels=3", "sweep=full"), {3}),
        (("experiment=conv_channels_mnist", "profile=quick", "grid.channels=[42]"), {42}),
        (("experiment=conv_layers_mnist", "profile=quick", "profile.channels=5"), {5}),
        (("experiment=conv_layers_mnist", "profile=quick", "model.channels=99"), {99}),
        (("experiment=conv_layers_mnist", "profile=quick"), {6}),
    ],
    ids=str,
)
def test_cap_on_channels(overrides, expected):
    assert {point.settings["model"]["channels"] for point in points(*overrides)} == expected


def test_cap_on_channels_leaves_other_models_alone():
    first, second = points("profile=quick", "profile.channels=1"), points("profile=quick")
    assert [point.settings for point in first] == [point.settings for point in second]


class TestImpossible:
    @pytest.mark.parametrize(
        ("experiment", "words", "texts"),
        [
            (
                "conv_kernel_mnist",
                ("grid.kernel_size=[2,12]",),
                ("model.kernel_size: 12", "mnist at convolution 3 of 4: 6x6", "28x28 -> 17x17 -> 6x6"),
            ),
            (
                "conv_kernel",
                ("grid.kernel_size=[10]",),
                ("kernel_size: 10", "convolution 4 of 4: 1x1", "28x28 -> 19x19"),
            ),
            (
                "conv_kernel_cifar10",
                ("grid.kernel_size=[17]",),
                ("cifar10 at convolution 2 of 4: 16x16", "32x32 -> 16x16"),
            ),
            ("conv_kernel_mnist", ("model.position=4", "model.num_layers=4"), ("model.position: 4", "1 to 3, or 0")),
            ("conv_layers_mnist", ("model.position=4", "model.num_layers=4"), ("model.position: 4", "num_layers=2")),
            ("conv_layers_mnist", ("grid.num_layers=[2,14]",), ("at convolution 14 of 14: 2x2", "28x28 -> 26x26")),
            (
                "conv_layers_mnist",
                ("grid.num_layers=[9]", "model.num_layers=9", "model.position=2"),
                ("at convolution 8 of 9: 2x2", "26x26 -> 24x24 -> 12x12 -> 10x10", "after convolution 2 halves"),
            ),
            (
                "conv_kernel_mnist",
                ("grid.kernel_size=[28]", "model.num_layers=2", "model.position=1"),
                ("model.position: 1", "mnist after convolution 1 is 1x1", "less than the pooling's window of 2"),
            ),
            ("conv_layers_mnist", ("model=conv1d", "grid.num_layers=[14]"), ("at convolution 14 of 14: 2 (28 -> 26",)),
            ("conv_kernel_mnist", ("model.channels=0",), ("model.channels: 0; allowed: 1 or more",)),
            ("conv_kernel_mnist", ("model.kernel_size=0",), ("model.kernel_size: 0; allowed: 1 or more",)),
        ],
    )
    def test_is_refused_though_the_data_is_not_there(self, landscape, experiment, words, texts):
        landscape("run", f"experiment={experiment}", *words, "data.download=false").assert_refused(2, *texts)


def test_profiles_cap_what_is_said_of_the_measure_too():
    paper, quick = (load(["experiment=sample_size_methods", f"profile={name}"]) for name in ("paper", "quick"))
    assert [c.by_dataset["nba"]["measure"]["copies"] for c in (paper, quick)] == [20, 12]
    given = load(["experiment=sample_size_methods", "profile=quick", "by_dataset.nba.measure.copies=15"])
    assert given.by_dataset["nba"]["measure"]["copies"] == 15


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_a_table_over_data_sets_has_the_points_of_the_single_ones(profile):
    def points(name):
        config = load([f"experiment={name}", f"profile={profile}"])
        return {point.settings_json for point in load_class(config.family)(config).points()}

    sets = ("boston", "diabetes", "forest_fires", "servo", "nba")
    assert points("sample_size_methods") == set().union(*(points(f"sample_size_methods_{name}") for name in sets))
    assert points("posterior_table") < points("sample_size_methods")
