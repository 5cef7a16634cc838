"""What a profile caps, and what an experiment puts in the place of its profile's caps."""

import pytest

from landscape_cli.composing import load
from landscape_cli.errors import BadInput
from landscape_cli.validation import load_class

HESSIAN = "experiment=landscape_measure_fc_mnist"  # hessian_objects: 200, hessian_samples: 50; no caps of its own
VIT = "experiment=vit_cifar100"  # 100 epochs, 3 seeds; of its own under quick and embedded: 1000 objects, 3 epochs, 2


def of_hessian(config):
    return config.measure.hessian_objects, config.measure.hessian_samples


def sizes(config):
    return config.dataset.max_size, config.training.epochs, config.seeds


@pytest.mark.parametrize(
    ("profile", "expected"), [("paper", (200, 50)), ("quick", (32, 16)), ("embedded", (32, 16)), ("smoke", (8, 4))]
)
def test_profiles_cap_the_objects_and_samples_of_hessians(profile, expected):
    config = load([HESSIAN, f"profile={profile}"])
    assert of_hessian(config) == expected
    settings = load_class(config.family)(config).points()[0].settings["measure"]
    assert (settings["hessian_objects"], settings["hessian_samples"]) == expected


def test_an_experiment_with_objects_alone_has_those_capped():
    measure = load(["experiment=hessian_spectrum_fc_mnist", "profile=quick"]).measure
    assert measure.hessian_objects == 32
    assert not hasattr(measure, "hessian_samples")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["profile.hessian_objects=1000", "profile.hessian_samples=1000"], (200, 50)),
        (["profile.hessian_objects=7"], (7, 16)),
        (["profile.hessian_samples=7"], (32, 7)),
        (["profile.hessian_objects=null"], (200, 16)),
        (["measure.hessian_objects=90"], (90, 16)),
        (["measure.hessian_samples=3"], (32, 3)),
        (["measure.hessian_objects=5", "profile.hessian_samples=90"], (5, 50)),
    ],
)
def test_hessian_caps_lower_and_never_raise_and_a_given_value_beats_them(overrides, expected):
    assert of_hessian(load([HESSIAN, "profile=quick", *overrides])) == expected


@pytest.mark.parametrize("cap", ["hessian_objects", "hessian_samples"])
@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_impossible_hessian_caps_are_refused(cap, value):
    with pytest.raises(BadInput, match=rf"^profile\.{cap}: .*{value}"):
        load([HESSIAN, "profile=quick", f"profile.{cap}={value}"])


def test_own_caps_stand_in_the_place_of_the_profiles():
    assert sizes(load([VIT, "profile=paper"])) == (None, 100, 3)
    assert sizes(load([VIT, "profile=quick"])) == (1000, 3, 2)
    assert sizes(load([VIT, "profile=embedded"])) == (1000, 3, 2)
    assert sizes(load([VIT, "profile=smoke"])) == (120, 1, 2)  # has none of its own there
    assert load([VIT, "profile=quick"]).measure.permutations == 20  # below the profile's own, which holds


def test_own_caps_may_be_wider_than_the_profiles_but_raise_nothing():
    config = load(["experiment=vit_hessian_mnist", "profile=quick"])  # own: 6000 objects, 15 epochs, 8 in a Hessian
    assert (*sizes(config), config.measure.hessian_objects) == (6000, 15, 3, 8)
    wide = "++caps.smoke={objects: 5000, epochs: 500, seeds: 50, hessian_objects: 900}"
    config = load(["experiment=vit_hessian_mnist", "profile=smoke", wide])
    assert (*sizes(config), config.measure.hessian_objects) == (5000, 15, 5, 128)
    assert (config.profile.objects, config.profile.name) == (5000, "smoke")
    assert load([HESSIAN, "profile=smoke", "+caps.smoke.objects=50"]).dataset.max_size == 50


def test_own_caps_hold_under_their_profile_alone():
    plain, other = (load([HESSIAN, "profile=smoke", *more]) for more in ([], ["+caps.quick={seeds: 1, epochs: 0}"]))
    other.caps = {}
    assert plain == other


def test_a_null_among_own_caps_lifts_the_profiles():
    config = load([HESSIAN, "profile=quick", "+caps.quick={epochs: null, hessian_samples: null}"])
    assert (config.training.epochs, *of_hessian(config)) == (load([HESSIAN]).training.epochs, 32, 50)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs=7", (1000, 7, 2)),
        ("seeds=4", (1000, 3, 4)),
        ("dataset.max_size=30", (30, 3, 2)),
        ("caps.quick.epochs=2", (1000, 2, 2)),
    ],
)
def test_a_value_given_on_the_command_line_beats_own_caps(override, expected):
    assert sizes(load([VIT, "profile=quick", override])) == expected


def test_a_cap_given_on_the_command_line_beats_own_caps():
    assert sizes(load([VIT, "profile=quick", "profile.epochs=1"])) == (1000, 1, 2)


def test_own_caps_of_an_unknown_profile_are_refused():
    with pytest.raises(BadInput, match=r"caps\.quik.*quick"):
        load([VIT, "profile=quick", "+caps.quik.epochs=1"])


def test_a_cap_below_what_the_measure_allows_does_not_get_through():
    try:
        config = load([HESSIAN, "profile=quick", "profile.hessian_samples=1"])
    except BadInput as refused:
        assert "hessian_samples" in str(refused)  # noqa: PT017 - either is right
    else:
        assert config.measure.hessian_samples >= 2  # a spread over samples needs two


@pytest.mark.parametrize("profile", ["quick", "paper"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+caps.smoke.epoch=1", r"unknown key 'caps\.smoke\.epoch'; did you mean 'caps\.smoke\.epochs'"),
        ("+caps.quick.tolerance=1", r"unknown key 'caps\.quick\.tolerance'.*caps\.quick\.hessian_objects"),
        ("+caps.smoke.epochs=-1", r"caps\.smoke\.epochs: -1; allowed: 0 or more"),
        ("+caps.quick.hessian_samples=0", r"caps\.quick\.hessian_samples: 0; allowed: 1 or more"),
        ("+caps.quick.smoothing=1", r"caps\.quick\.smoothing: 1"),
        ("+caps.smoke.epochs=many", r"caps\.smoke\.epochs: .*many"),
        ("+caps.smoke=3", r"caps\.smoke: 3; allowed: caps of a profile"),
        ("+caps.quick.name=own", r"caps\.quick\.name: no cap"),
        ("+caps.smoke.embedded=false", r"caps\.smoke\.embedded: no cap"),
    ],
)
def test_impossible_own_caps_are_refused_whatever_the_profile(profile, override, message):
    with pytest.raises(BadInput, match=message):
        load([VIT, f"profile={profile}", override])


def test_refused_caps_are_one_line_with_exit_code_2(landscape):
    refused = landscape("run", VIT, "profile=quick", "+caps.quick.epoch=1")
    refused.assert_refused(2, "caps.quick.epoch", "caps.quick.epochs")
