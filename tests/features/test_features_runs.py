"""Features through the command: what stands in for what, what is shared, what is refused, what is drawn again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from landscape_cli.composing import load
from landscape_cli.draw import describe, gather
from landscape_cli.plan import make_plan
from landscape_cli.runner import run
from landscape_cli.validation import load_class

FEW = ("grid.hidden_size=[4]", "grid.num_layers=[7]")  # two networks
EXPERIMENT = "experiment=fc_features_mnist"
OWN = (EXPERIMENT, *FEW, "dataset=mnist", "dataset.name=mine", "dataset.train_size=null")
TRAINED = ("features=small_cnn", "features.dataset=other")
DIGITS = "dataset=digits_32"


def points(output: Path) -> dict[str, dict]:
    """Settings of every stored point, by key."""
    paths = output.glob("results/*/[!.]*/point.json")
    return {path.parent.name: json.loads(path.read_text())["settings"] for path in paths}


def plan_of(words, **options):
    return make_plan(load(list(words)), **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_set) -> Path:
    """A data root with own archives."""
    folder = tmp_path_factory.mktemp("root")
    write_set(folder, "mine")
    write_set(folder, "other", train=30, seed=1)
    write_set(folder, "colour", (16, 16, 3))
    write_set(folder, "little", (6, 6))
    return folder


@pytest.fixture
def own(root, monkeypatch) -> None:
    """Own archives are found."""
    monkeypatch.setenv("LANDSCAPE_DATA", str(root))


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Print the small print, and draw nothing: that takes a second."""

    def note(plan, stored, overrides, code):
        print(describe(plan, gather(plan, stored)))
        return []

    monkeypatch.setattr("landscape_cli.draw.draw", note)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory, root, small) -> Path:
    """An output folder with networks on features that were learned on another data set; not to be written to."""
    output = tmp_path_factory.mktemp("trained")
    words = [*small, *OWN, *TRAINED, f"data.roots=[{root}]", f"output_dir={output}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("landscape_cli.draw.draw", lambda *given: [])
        assert run(load(words), words) == 0
    return output


@pytest.fixture
def trained(trained_once, tmp_path) -> Path:
    """A copy of :func:`trained_once`, where the commands of this test write."""
    return Path(shutil.copytree(trained_once, tmp_path / "outputs"))


def test_embedded_profile_takes_an_untrained_network_and_says_so(landscape, small, tmp_path):
    finished = landscape("run", EXPERIMENT, *small, *FEW)
    assert finished.code == 0, finished.err
    assert finished.err == ""
    (note,) = [line for line in finished.out.splitlines() if "profile smoke" in line]
    assert "Digits 32x32, the first 120 of 1437 train objects; in place of mnist" in note
    untrained = "features of an untrained convolutional net (L=4, C=12, k=3, max pooling after 2) in place of vit"
    assert f"; {untrained}; 2 seeds" in note
    kinds = [settings.get("features", {}).get("kind") for settings in points(tmp_path / "outputs").values()]
    assert sorted(map(str, kinds)) == ["None", "None", "random_conv", "random_conv"]
    assert len(list((tmp_path / "outputs/features").iterdir())) == 1

    # The same points, asked for by their own names: pixels of the experiment on pixels, features by their kind.
    again = (*small, *FEW, "dataset.embedded=digits_32", "--dry-run")
    assert "2 points, 0 to measure" in landscape("run", "experiment=fc_mnist", *again).out
    assert "4 points, 0 to measure" in landscape("run", EXPERIMENT, *again, "features=random_conv").out


def test_pixel_points_are_measured_on_pixels(landscape, small, tmp_path, undrawn):
    """To the byte what the experiment on pixels measures."""
    words = (*small, "grid.hidden_size=[4]", "~grid.num_layers", "dataset.embedded=digits_32")
    curves = []
    for name in ("fc_features_mnist", "fc_mnist"):
        output = tmp_path / name
        assert landscape("run", f"experiment={name}", *words, f"output_dir={output}").code == 0
        found = {key for key, settings in points(output).items() if "features" not in settings}
        curves.append({key: (output / "results/FullyConnected" / key / "curves.parquet").read_bytes() for key in found})
    assert len(curves[0]) == 1
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("features=vit_b_16", "vit"),
        ("features=small_cnn", "small_cnn"),
        ("features=random_conv", "random_conv"),
        ("features.checkpoint=/mine", "vit"),
    ],
)
def test_an_explicit_extractor_is_never_replaced(override, kind):
    config = load([EXPERIMENT, "profile=embedded", override])
    assert config.features.kind == kind
    assert getattr(config.features, "in_place_of", None) is None


@pytest.mark.parametrize(
    ("on_features", "on_pixels"),
    [(f"fc_features_{name}", f"fc_{name}") for name in ("mnist", "cifar100")] + [("fc_features", "fc_pixels")],
)
def test_pixel_points_are_those_of_the_experiment_on_pixels(on_features, on_pixels):
    configs = (load([f"experiment={name}"]) for name in (on_features, on_pixels))
    both, pixels = (load_class(config.family)(config).points() for config in configs)
    own = [point for point in both if "features" not in point.settings]
    assert {point.settings_json for point in own} == {point.settings_json for point in pixels}
    assert len(both) == 2 * len(pixels)
    assert {point.coordinates["inputs"] for point in own} == {"pixels"}
    for point in own:  # as before there were features
        assert json.loads(point.stream) == [point.settings["dataset"]["name"], point.settings["model"]]
    assert not {point.stream for point in own} & {point.stream for point in set(both) - set(own)}


def test_features_of_one_kind_have_their_own_keys(small):
    """What changes the numbers changes the keys of the points on features, and of no other."""
    words = (EXPERIMENT, *small, *FEW)

    def keys(*more):
        located = plan_of((*words, *more)).located
        return [{item.key for item in located if ("features" in item.point.settings) is kind} for kind in (True, False)]

    on_features, on_pixels = keys()
    assert len(on_features) == len(on_pixels) == 2
    for change in ("features.seed=1", "features.pooling=average"):
        others = keys("features=random_conv", change)
        assert others[1] == on_pixels
        assert not others[0] & on_features


class TestTrained:
    def test_note_names_what_it_was_trained_on(self, landscape, small, trained, own, undrawn):
        finished = landscape("run", *OWN, *small, *TRAINED)
        assert finished.code == 0, finished.err
        assert "4 points: 4 stored, 0 to measure" in finished.out
        net = "features of a convolutional net (L=4, C=12, k=3, max pooling after 2) trained 1 epoch on other, all 30"
        assert f"mine, all 24 train objects; {net} train objects; 2 seeds" in finished.out

    def test_points_say_what_identifies_the_extractor(self, trained_once):
        learned = [settings["features"] for settings in points(trained_once).values() if "features" in settings]
        assert len(learned) == 2
        for extractor in learned:
            assert extractor["dataset"].keys() == {"name", "objects", "checksum", "normalisation"}
            assert (extractor["dataset"]["name"], extractor["dataset"]["objects"]) == ("other", 30)
            assert (extractor["kind"], extractor["epochs"], extractor["channels"]) == ("small_cnn", 1, 12)
            assert not {"train_size", "in_place_of"} & extractor.keys()

    def test_features_are_computed_once(self, landscape, small, trained, own, undrawn):
        (file,) = (trained / "features").iterdir()
        before, keys = file.stat().st_mtime_ns, points(trained).keys()
        shutil.rmtree(trained / "results")
        assert landscape("run", *OWN, *small, *TRAINED, "measure.smoothing=0.5").code == 0
        assert [path.stat().st_mtime_ns for path in (trained / "features").iterdir()] == [before]
        assert not points(trained).keys() & keys
        assert landscape("run", *OWN, *small, *TRAINED, "features.seed=3").code == 0
        assert len(list((trained / "features").iterdir())) == 2

    def test_drawn_again_without_data_and_without_torch(self, small, trained, isolated):
        words = ["figures", "fc_features_mnist", *small, *OWN[1:], *TRAINED]
        script = f"""
import sys
from landscape_cli.cli import dispatch
assert dispatch({words!r}) == 0
print(sorted({{"torch", "torchvision", "transformers", "safetensors"}} & set(sys.modules)))
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"
        assert "trained 1 epoch on other, 30 objects" in done.stdout
        assert "MISSING" not in done.stdout

    @pytest.mark.parametrize(
        ("change", "stored"),
        [
            ("features.kernel_size=3", 4),
            ("features.dataset=null", 4),
            ("features.dataset=mnist", 2),
            ("features.epochs=2", 2),
            ("features.seed=1", 2),
            ("dataset.name=other", 0),
        ],
    )
    def test_without_data_only_the_same_settings_are_taken(self, small, trained, change, stored):
        plan = plan_of((*OWN, *small, *TRAINED, change), from_store=True)
        assert sum(plan.stored(item) for item in plan.located) == stored
        assert len(plan.located) + len(plan.unlocated) == 4


class TestVisionTransformer:
    @pytest.mark.parametrize("name", ["model", "torchvision"])
    def test_run(self, landscape, small, tmp_path, checkpoints, name, undrawn):
        path = checkpoints.copy(name)
        words = (EXPERIMENT, *small, DIGITS, *FEW[:1], "grid.num_layers=[5]", "model.hidden_size=4")
        finished = landscape("run", *words, "features=vit_b_16", f"features.checkpoint={path}")
        assert finished.code == 0, finished.err
        assert finished.err == ""
        (extractor,) = [s["features"] for s in points(tmp_path / "outputs").values() if "features" in s]
        assert extractor.keys() == {"kind", "output", "checksum"}
        named = f"features: class token of the vision transformer {path.name}, checksum {extractor['checksum'][:12]};"
        assert named in finished.out
        # Wherever the checkpoint lies; without it there is no telling whose features are stored.
        moved = path.rename(path.with_name("moved"))
        finished = landscape("run", *words, "features=vit_b_16", f"features.checkpoint={moved}")
        assert "2 points: 2 stored, 0 to measure" in finished.out
        plan = plan_of((*words, "features=vit_b_16"), from_store=True)
        assert [plan.stored(item) for item in plan.located] == [True]
        assert len(plan.unlocated) == 1
        pooled = plan_of((*words, "features=vit_b_16", "features.output=pooled"), from_store=True)
        assert [plan.stored(item) for item in pooled.located] == [True]

    def test_not_in_minus_one_to_one(self, landscape, small, checkpoints, undrawn):
        path = checkpoints.copy("torchvision")
        words = (EXPERIMENT, *small, DIGITS, *FEW[:1], "~grid.num_layers", "features=vit_b_16")
        finished = landscape("run", *words, f"features.checkpoint={path}", "dataset.normalisation=standard")
        finished.assert_refused(2, "dataset.normalisation: 'standard' with a vision transformer")


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (("experiment=conv_layers_mnist", "features=random_conv"), "'conv_layers_mnist' has none"),
            ((EXPERIMENT, "features.kind=vit_b_16"), "features.kind: 'vit_b_16'; allowed: random_conv, small_cnn, vit"),
            ((EXPERIMENT, "features=vit"), "did you mean 'vit_b_16'"),
            ((EXPERIMENT, "+features.in_place_of=x", "features=random_conv"), "only profile=embedded sets it"),
            ((EXPERIMENT, "features=random_conv", "features.sede=1"), "did you mean 'features.seed'"),
            ((EXPERIMENT, "features.output=all"), "allowed: class_token, pooled"),
            ((EXPERIMENT, "features=random_conv", "features.position=4"), "features.position: 4 with features.num"),
            ((EXPERIMENT, "features=random_conv", "features.kernel_size=12"), "features.kernel_size: 12 is larger"),
            (("experiment=fc_mnist", "features=random_conv", "model=conv2d", "~grid.hidden_size"), "needs pictures"),
        ],
    )
    def test_of_what_cannot_be(self, landscape, words, text):
        """Though the data sets are not there either."""
        landscape("run", *words, "data.download=false").assert_refused(2, text)

    @pytest.mark.parametrize(
        ("words", "code", "text"),
        [
            (("features.dataset=colour",), 2, "'colour' has 3 channels and 'mine' 1"),
            (("features.dataset=mine",), 2, "'mine' is the data set itself"),
            ((), 2, "no related data set is known of 'mine'"),
            (("features.dataset=othre",), 3, "did you mean 'other'?"),
            (("features.dataset=little",), 2, "larger than what is left of little at convolution 3 of 4: 1x1"),
        ],
    )
    def test_of_a_data_set_to_learn_from(self, landscape, small, own, words, code, text):
        """Before the networks on pixels are trained."""
        landscape("run", *OWN, *small, "features=small_cnn", *words).assert_refused(code, text)

    def test_of_a_missing_checkpoint(self, landscape, small, isolated):
        """Before the networks on pixels are trained."""
        words = ("run", EXPERIMENT, *small, DIGITS, "features=vit_b_16")
        place = str(isolated / "no-data" / "extractors")
        landscape(*words).assert_refused(3, "google/vit-base-patch16-224", place, "data.download=false", "small_cnn")
        landscape(*words, "features.checkpoint=/nowhere").assert_refused(3, "/nowhere", "features=random_conv")

    @pytest.mark.parametrize(
        ("name", "config", "override", "code", "text"),
        [
            ("model", {"hidden_size": 48}, "features.output=pooled", 3, "[1, 1, 32], and by config.json must have"),
            ("classifier", {"patch_size": 4}, "features.output=class_token", 3, "must have [1, 65, 32]"),
            ("classifier", {"model_type": "deit"}, "features.output=class_token", 3, "holds a model of type 'deit'"),
            ("classifier", {}, "features.output=pooled", 2, "has no pooling layer"),
            ("torchvision", {}, "features.output=pooled", 2, "has no pooling layer"),
        ],
    )
    def test_of_a_checkpoint(self, landscape, small, checkpoints, name, config, override, code, text):
        path = checkpoints.copy(name, **config)
        words = (EXPERIMENT, *small, DIGITS, "features=vit_b_16", f"features.checkpoint={path}", override)
        landscape("run", *words).assert_refused(code, str(path), text)
