"""What a configuration becomes: profiles, embedded data, the grid and the points of every shipped experiment."""

import itertools

import pytest

from landscape_cli.composing import load
from landscape_cli.config import Config, TrainingConfig
from landscape_cli.config_path import config_folder
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.draw import describe, gather
from landscape_cli.errors import BadInput
from landscape_cli.listing import shipped
from landscape_cli.plan import make_plan
from landscape_cli.runner import run
from landscape_cli.validation import flat_keys, load_class, nearest, thin

PROFILES = sorted(path.stem for path in (config_folder() / "profile").glob("*.yaml"))


def points(config: Config):
    return load_class(config.family)(config).points()


def test_profiles_of_the_design_are_shipped():
    assert PROFILES == ["embedded", "paper", "quick", "smoke"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", shipped())
def test_every_experiment_validates_under_every_profile(name, profile):
    config = load([f"experiment={name}", f"profile={profile}"])
    grid = points(config)
    assert grid
    assert len(set(grid)) == len(grid)
    assert len({point.settings_json for point in grid}) == len(grid)
    assert len({point.label for point in grid}) == len(grid)
    assert config.name == name
    assert config.title
    caps = config.profile
    assert caps.name == profile
    for value, cap in [
        (config.seeds, caps.seeds),
        (config.training.epochs if config.training else None, caps.epochs),
        (getattr(config.measure, "permutations", None), caps.permutations),
        *((len(values), caps.grid_points) for axis, values in config.grid.items() if axis != "dataset"),
    ]:
        assert value is None or cap is None or value <= cap
    for point in grid:
        dataset = point.settings.get("dataset", {})
        if caps.embedded and dataset:
            shipped = ("digits", "digits_32", "toy_translation")
            assert dataset["name"] in shipped or not TABLE_SETS[dataset["name"]].files
        if name != "datasets" and dataset and caps.objects and "target_language" not in dataset:
            assert dataset["max_size"] == caps.objects


def test_paper_is_the_default_and_caps_nothing():
    config = load(["experiment=fc_mnist"])
    assert config == load(["experiment=fc_mnist", "profile=paper"])
    assert (config.seeds, config.profile.objects, config.profile.embedded) == (5, None, False)


def test_the_thesis_settings_of_fig_1_3():
    config = load(["experiment=fc_mnist"])
    assert config.grid == {"hidden_size": [4, 8, 16, 32, 64], "num_layers": [1, 3, 5, 7, 10]}
    assert config.dataset.train_size == 10000
    assert config.training == TrainingConfig(epochs=10, batch_size=64, learning_rate=1e-3)
    assert (config.training.schedule, config.training.weight_decay, config.training.augmentation) == (
        "constant",
        0,
        "none",
    )
    assert (config.measure.permutations, config.measure.smoothing) == (100, 0.99)
    assert config.model.bias is False
    chosen = [(p.coordinates["hidden_size"], p.coordinates["num_layers"]) for p in points(config)]
    assert len(chosen) == 9  # h = 16, L = 5 lies on both axes
    assert set(chosen) == {(h, 5) for h in (4, 8, 16, 32, 64)} | {(16, n) for n in (1, 3, 5, 7, 10)}


def test_caps_lower_and_never_raise():
    config = load(["profile=quick", "profile.seeds=50", "profile.epochs=500"])
    assert config.seeds == 5
    assert config.training.epochs == 40


def test_caps_are_applied():
    config = load(["experiment=fc_mnist", "profile=smoke"])
    assert (config.seeds, config.training.epochs, config.measure.permutations) == (2, 1, 4)
    assert config.grid == {"hidden_size": [4, 64], "num_layers": [1, 10]}
    assert config.dataset.max_size == 120


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("seeds=7", lambda c: c.seeds, 7),
        ("++seeds=7", lambda c: c.seeds, 7),
        ("training.epochs=30", lambda c: c.training.epochs, 30),
        ("measure.permutations=60", lambda c: c.measure.permutations, 60),
        ("grid.hidden_size=[2,3,5,7,11]", lambda c: c.grid["hidden_size"], [2, 3, 5, 7, 11]),
        ("dataset.train_size=700", lambda c: (c.dataset.train_size, c.dataset.max_size), (700, None)),
        ("dataset.max_size=700", lambda c: c.dataset.max_size, 700),
    ],
)
def test_an_explicit_value_beats_the_cap(override, read, expected):
    config = load(["experiment=fc_mnist", "profile=smoke", override])
    assert read(config) == expected
    assert config.seeds == (7 if "seeds" in override else 2)  # the other caps hold


def test_an_explicit_value_below_the_cap_stays():
    assert load(["profile=quick", "seeds=1", "training.epochs=0"]).seeds == 1


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("length", range(1, 8))
def test_thin(length, count):
    values = [10 * i for i in range(length)]
    chosen = thin(values, count)
    assert len(chosen) == min(length, count)
    assert chosen == sorted(set(chosen) & set(values))
    if count >= 2:
        assert (chosen[0], chosen[-1]) == (values[0], values[-1])
        gaps = [b - a for a, b in itertools.pairwise(chosen)]
        assert not gaps or max(gaps) - min(gaps) <= 10


def test_thin_to_one_takes_the_middle():
    assert thin([4, 8, 16, 32, 64], 1) == [16]


def test_embedded_replaces_the_data_set_and_remembers_it():
    config = load(["experiment=fc_mnist", "profile=embedded"])
    assert (config.dataset.name, config.dataset.in_place_of) == ("digits", ["mnist"])
    several = load(["experiment=fc_pixels", "profile=embedded"])
    assert several.grid["dataset"] == ["digits"]
    assert several.dataset.in_place_of == ["fashion_mnist", "cifar10", "cifar100"]


@pytest.mark.parametrize("overrides", [["profile=quick"], ["profile=paper"], ["profile=embedded", "dataset=cifar10"]])
def test_data_is_not_replaced_otherwise(overrides):
    config = load(["experiment=fc_mnist", *overrides])
    assert config.dataset.name == ("cifar10" if "dataset=cifar10" in overrides else "mnist")
    assert config.dataset.in_place_of == []


def test_embedded_data_in_its_own_place_is_no_replacement():
    assert load(["experiment=quickstart", "profile=embedded"]).dataset.in_place_of == []


@pytest.mark.parametrize("name", ["fc_pixels", "datasets"])
@pytest.mark.parametrize("override", ["dataset=digits", "dataset.name=digits"])
def test_an_explicit_data_set_is_never_ignored(name, override):
    """An experiment with the data set as an axis measures the one that was asked for, or refuses."""
    try:
        config = load([f"experiment={name}", override])
    except BadInput as refused:
        assert "grid.dataset" in str(refused)  # noqa: PT017 - either is right
    else:
        assert {point.settings["dataset"]["name"] for point in points(config)} == {"digits"}


def _note(overrides):
    overrides = [*overrides, "data.download=false"]
    config = load(overrides)
    plan = make_plan(config)
    run(config, overrides)
    stored = {item.key: plan.store.read(plan.family, item.key) for item in plan.located}
    return describe(plan, gather(plan, stored))


def test_note_names_data_objects_profile_and_replacement(capsys):
    small = ["grid.hidden_size=[4]", "grid.num_layers=[1]", "plot.formats=[png]", "plot.dpi=50"]
    note = _note(["experiment=fc_mnist", "profile=smoke", *small])
    assert "Digits, the first 120 of 1437 train objects; in place of mnist" in note
    assert "2 seeds" in note
    assert "profile smoke" in note
    own = _note(["experiment=quickstart", "profile=smoke", "training.epochs=2", *small])
    assert "in place of" not in own
    assert "2 epochs" in own
    asked = _note(["experiment=fc_mnist", "profile=smoke", "dataset=digits", "dataset.train_size=null", *small])
    assert "in place of" not in asked
    assert "Digits, all 1437 train objects" in asked


def test_replacement_cannot_be_claimed_from_outside():
    try:
        config = load(["+dataset.in_place_of=[mnist]"])
    except BadInput:
        return
    assert config.dataset.in_place_of == []


def test_sweep_full_takes_every_combination():
    config = load(["sweep=full", "grid.hidden_size=[2,3]", "grid.num_layers=[0,1,2]"])
    chosen = [(p.coordinates["hidden_size"], p.coordinates["num_layers"]) for p in points(config)]
    assert chosen == [(h, n) for h in (2, 3) for n in (0, 1, 2)]


def test_repeated_grid_values_make_one_point():
    config = load(["grid.hidden_size=[4,4]", "grid.num_layers=[5]", "model.hidden_size=4"])
    assert len(points(config)) == 1


def test_seeds_start_at_seed():
    (point,) = points(load(["seed=3", "seeds=2", "grid.hidden_size=[4]", "grid.num_layers=[5]", "model.hidden_size=4"]))
    assert point.settings["seeds"] == [3, 4]


def test_nodes_that_an_experiment_does_not_use_are_refused():
    with pytest.raises(BadInput, match="model: the experiment 'schematic_loss_change' has none"):
        load(["experiment=schematic_loss_change", "model=mlp"])
    with pytest.raises(BadInput, match="model: the experiment 'quickstart' needs one"):
        load(["~model"])


def test_a_measure_field_may_be_an_axis_only_where_it_changes_the_point():
    """An axis that the points do not follow would draw the same curve under several names."""
    try:
        config = load(["+grid.smoothing=[0.5,0.9]", "~grid.hidden_size", "~grid.num_layers"])
        grid = points(config)
    except (BadInput, KeyError) as refused:
        assert isinstance(refused, BadInput), repr(refused)  # noqa: PT017 - either is right
    else:
        assert [point.settings["measure"]["smoothing"] for point in grid] == [0.5, 0.9]
        assert all("smoothing" not in point.settings["model"] for point in grid)


def test_nearest():
    assert nearest("sede", ["seed", "title"]) == "; did you mean 'seed'?"
    assert nearest("zzz", ["seed", "title"]) == ""


def test_flat_keys():
    assert flat_keys({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == ["a", "a.b", "a.c", "a.c.d", "e"]


def test_load_class():
    assert load_class("landscape_cli.config.TrainingConfig") is TrainingConfig
    for path in ("landscape_cli.config.Nothing", "landscape_cli.nothing.Class", "Nothing", ""):
        with pytest.raises(BadInput, match="there is no class"):
            load_class(path)
