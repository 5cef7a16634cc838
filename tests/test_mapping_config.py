"""The config node ``mapping``, models that differ by data set, the caps of distillation, and what is in a key."""

import dataclasses
import re

import pytest

from landscape_cli.composing import compose, load
from landscape_cli.config import MAPPINGS, StyleConfig, TranslationConfig
from landscape_cli.distillation.checkpoints import CYCLEGAN, find_mapping, mapping_name
from landscape_cli.errors import BadInput, MissingExtractor
from landscape_cli.experiment import mapping_settings
from landscape_cli.plan import make_plan
from landscape_cli.validation import load_class, prepare

VISION = "experiment=distillation_vision_digits"
COLOURS = "experiment=distillation_vision_cifar10"  # with networks of their own for digits
LANGUAGE = "experiment=distillation_language_toy"
OF_DIGITS = {"bias": True, "channels": [24, 48], "hidden": [120], "kernel_sizes": [3, 2], "kind": "lenet"}


def settings(*overrides):
    config = load(overrides)
    (point,) = load_class(config.family)(config).points()
    return point.settings


def key(*overrides):
    (located,) = make_plan(load(overrides)).located
    return located.key


class TestKinds:
    def test_shipped_nodes_are_the_defaults(self):
        assert load([VISION]).mapping == StyleConfig()
        assert load([LANGUAGE]).mapping == TranslationConfig()
        assert set(MAPPINGS) == {"style", "translation"}
        for kind, node in MAPPINGS.items():
            assert node().kind == kind

    @pytest.mark.parametrize(
        ("overrides", "says"),
        [
            ((VISION, "mapping.kind=stile"), r"^mapping\.kind: 'stile'; allowed: style, translation"),
            ((VISION, "mapping.level=5"), r"unknown key 'mapping\.level'; did you mean 'mapping\.levels'"),
            ((VISION, "+mapping.pairs=5"), r"unknown key 'mapping\.pairs'"),
            ((VISION, "mapping=stile"), r"stile.*style, translation"),
            ((VISION, "mapping.levels=2"), r"^mapping\.levels: 2; allowed: 3 or more"),
            ((VISION, "mapping.levels=65"), r"^mapping\.levels: 65; allowed: .*64 or less"),
            ((VISION, "mapping.levels=many"), r"^mapping\.levels: .*many"),
            ((VISION, "mapping.levels=null"), r"^mapping\.levels: "),
            ((VISION, "mapping.seed=-1"), r"^mapping\.seed: -1"),
            ((VISION, "~mapping"), r"^mapping: .*needs one"),
            ((LANGUAGE, "mapping.iterations=0"), r"^mapping\.iterations: 0"),
            ((LANGUAGE, "mapping.pairs=0"), r"^mapping\.pairs: 0"),
            ((LANGUAGE, "+mapping.levels=4"), r"unknown key 'mapping\.levels'"),
            (("experiment=quickstart", "mapping=style"), r"^mapping: .*quickstart.* has none"),
            (("experiment=quickstart", "+mapping.levels=4"), r"^mapping: .*quickstart.* has none"),
        ],
        ids=str,
    )
    def test_what_is_refused(self, overrides, says):
        with pytest.raises(BadInput, match=says):
            load(overrides)

    def test_an_experiment_without_one_has_none(self):
        assert load(["experiment=quickstart"]).mapping is None
        config = load(["experiment=quickstart"])
        points = load_class(config.family)(config).points()
        assert not any("mapping" in point.settings for point in points)

    @pytest.mark.parametrize(("experiment", "other"), [(VISION, "translation"), (LANGUAGE, "style")])
    def test_one_of_the_other_kind_is_refused_by_the_experiment(self, experiment, other):
        with pytest.raises(BadInput, match=rf"^mapping\.kind: '{other}'"):
            settings(experiment, f"mapping={other}")


class TestSettings:
    def test_hold_what_the_mapping_depends_on_and_nothing_else(self):
        style = StyleConfig(levels=5, seed=3)
        assert mapping_settings(style) == {"kind": "style", "levels": 5, "seed": 3}
        given = dataclasses.replace(style, checkpoint="a.pth")
        assert mapping_settings(given) == {"kind": "style", "checkpoint": "a.pth"}
        words = TranslationConfig(pairs=7, iterations=2)
        assert mapping_settings(words) == {"kind": "translation", "pairs": 7, "iterations": 2}
        given = dataclasses.replace(words, checkpoint="a", source_code="x", target_code="y")
        assert mapping_settings(given) == {
            "kind": "translation",
            "checkpoint": "a",
            "source_code": "x",
            "target_code": "y",
        }

    def test_of_a_point(self):
        assert settings(VISION, "mapping.levels=6")["mapping"] == {"kind": "style", "levels": 6, "seed": 0}
        found = settings(VISION, "mapping.checkpoint=a.pth")["mapping"]
        assert found == {"kind": "style", "checkpoint": "a.pth"}
        assert set(settings(LANGUAGE)["mapping"]) == {"kind", "pairs", "iterations"}

    @pytest.mark.parametrize(
        ("experiment", "words", "says"),
        [
            (VISION, ("mapping.checkpoint=a.pth", "mapping.levels=6"), "mapping.levels: it does nothing with"),
            (LANGUAGE, ("mapping.checkpoint=a", "mapping.pairs=6"), "mapping.pairs: it does nothing with"),
            (LANGUAGE, ("mapping.source_code=ita_Latn",), "mapping.source_code: it does nothing without"),
        ],
    )
    def test_what_would_do_nothing_is_refused(self, experiment, words, says):
        with pytest.raises(BadInput, match=re.escape(says)):
            load([experiment, *words])

    def test_names_of_languages_are_those_of_the_data_set(self):
        given = (LANGUAGE, "mapping.checkpoint=a")
        found = settings(*given)["mapping"]
        assert (found["source_code"], found["target_code"]) == ("fra_Latn", "deu_Latn")
        turned = settings(*given, "dataset.student_language=de", "dataset.teacher_language=fr")["mapping"]
        assert (turned["source_code"], turned["target_code"]) == ("deu_Latn", "fra_Latn")
        assert settings(*given, "mapping.source_code=x")["mapping"]["source_code"] == "x"
        with pytest.raises(BadInput, match=r"mapping\.source_code: null, and NLLB's name of 'eo' is not known"):
            settings(*given, "dataset.student_language=eo")

    def test_keys_without_a_checkpoint(self):
        keys = [key(VISION, *words) for words in ((), ("mapping.levels=5",), ("mapping.seed=1",))]
        assert len(set(keys)) == 3
        assert key(VISION, "mapping.levels=4", "mapping.seed=0") == keys[0]
        plain = key(LANGUAGE)
        assert key(LANGUAGE, "mapping.iterations=3") != plain
        assert key(LANGUAGE, "mapping.pairs=30") != plain

    def test_keys_with_a_checkpoint(self, tmp_path):
        first, second, copy = (tmp_path / name for name in ("a.pth", "b.pth", "c.pth"))
        for path, text in ((first, "one"), (second, "two"), (copy, "one")):
            path.write_text(text)
        keys = {path.name: key(VISION, f"mapping.checkpoint={path}") for path in (first, second, copy)}
        assert keys["a.pth"] == keys["c.pth"] != keys["b.pth"]
        assert key(VISION) not in keys.values()
        plan = make_plan(load([VISION, f"mapping.checkpoint={copy}"]))
        (located,) = plan.located
        assert plan.mappings == {located.point.settings["mapping"]["checksum"]: copy}
        assert str(tmp_path) not in located.point.settings_json

    def test_a_checkpoint_is_what_it_holds(self, tmp_path, monkeypatch):
        path = tmp_path / "net.pth"
        path.write_bytes(b"abc")
        known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of abc, FIPS 180-2
        found, where = find_mapping({"kind": "style", "checkpoint": str(path)})
        assert found == {"kind": CYCLEGAN, "checksum": known}
        assert where == path
        assert mapping_name(found) == "CycleGAN generator, checksum ba7816bf8f01"
        monkeypatch.setenv("HOME", str(tmp_path))
        assert find_mapping({"kind": "style", "checkpoint": "~/net.pth"})[0] == found

    @pytest.mark.parametrize(("kind", "says"), [("style", "no such file"), ("translation", "no such folder")])
    def test_a_checkpoint_that_is_not_there(self, tmp_path, kind, says):
        pytest.importorskip("transformers") if kind == "translation" else None
        with pytest.raises(MissingExtractor, match=rf"mapping\.checkpoint: .*gone.*{says}.*checkpoint=null"):
            find_mapping({"kind": kind, "checkpoint": str(tmp_path / "gone")})

    def test_names(self):
        assert mapping_name({"kind": "style", "levels": 5, "seed": 2}) == "fixed stylisation (5 levels, seed 2)"
        words = mapping_name({"kind": "translation", "pairs": 9, "iterations": 3})
        assert words == "table of words (IBM model 1, 3 iterations)"
        assert mapping_name({"kind": "nllb", "checksum": "f" * 64}) == "NLLB, checksum ffffffffffff"


class TestCaps:
    @pytest.mark.parametrize(
        ("overrides", "pairs"),
        [
            ((), None),
            (("profile=smoke",), 60),
            (("profile=quick",), 5000),
            (("profile=embedded",), 1000),
            (("profile=smoke", "mapping.pairs=70"), 70),
            (("profile=smoke", "mapping.pairs=null"), None),
            (("profile=smoke", "profile.pairs=7"), 7),
            (("profile=smoke", "profile.pairs=null"), None),
        ],
    )
    def test_pairs(self, overrides, pairs):
        assert load([LANGUAGE, *overrides]).mapping.pairs == pairs
        assert settings(LANGUAGE, *overrides)["mapping"]["pairs"] == pairs

    @pytest.mark.parametrize(("own", "pairs"), [(10, 10), (60, 60), (61, 60), (10**6, 60)])
    def test_pairs_that_a_file_names_are_lowered_and_never_raised(self, own, pairs):
        words = [LANGUAGE, "profile=smoke"]
        composed = compose(words)
        composed.mapping.pairs = own
        assert prepare(composed, words).mapping.pairs == pairs

    def test_pairs_do_not_matter_to_pictures(self):
        assert load([VISION, "profile=smoke", "profile.pairs=3"]).mapping == StyleConfig()
        with pytest.raises(BadInput, match=r"^profile\.pairs: 0"):
            load([VISION, "profile=smoke", "profile.pairs=0"])

    @pytest.mark.parametrize(
        ("overrides", "teacher", "student"),
        [
            ((), None, 200),
            (("profile=smoke",), 60, 30),
            (("profile=embedded",), 1000, 200),
            (("profile=quick",), 3000, 200),
            (("profile=smoke", "measure.teacher_objects=100"), 100, 30),
            (("profile=smoke", "measure.teacher_objects=null"), None, 30),
            (("profile=smoke", "measure.student_objects=40"), 60, 40),
            (("profile=smoke", "profile.teacher_objects=7"), 7, 30),
            (("profile=smoke", "profile.teacher_objects=null"), None, 30),
            (("profile=quick", "measure.teacher_objects=9000", "profile.student_objects=3"), 9000, 3),
        ],
    )
    def test_objects_of_the_teacher_and_the_student(self, overrides, teacher, student):
        measure = settings(VISION, *overrides)["measure"]
        assert (measure["teacher_objects"], measure["student_objects"]) == (teacher, student)

    def test_the_data_set_itself_is_not_capped(self):
        for profile in ("quick", "embedded", "smoke"):
            assert load([VISION, f"profile={profile}"]).dataset.max_size is None

    @pytest.mark.parametrize(
        ("overrides", "teacher", "student"),
        [
            (("profile=smoke",), 60, 30),
            (("profile=smoke", "by_dataset.digits.measure.student_objects=50"), 60, 50),
            (("profile=smoke", "+by_dataset.digits.measure.teacher_objects=70"), 70, 30),
            (("profile=embedded", "measure.student_objects=20"), 1000, 20),
        ],
    )
    def test_of_one_data_set(self, overrides, teacher, student):
        """What stands in has sizes of its own, capped too."""
        found = settings(COLOURS, *overrides)
        assert found["dataset"]["name"] in ("digits", "cifar10")
        measure = found["measure"]
        assert (measure["teacher_objects"], measure["student_objects"]) == (teacher, student)


class TestModelOfADataSet:
    def test_only_the_named_data_set_differs(self):
        assert settings(COLOURS)["model"] == OF_DIGITS | {"kernel_sizes": [5, 5]}
        for words in (("dataset=digits",), ("profile=embedded",), ("profile=smoke",)):
            found = settings(COLOURS, *words)
            assert found["model"] == OF_DIGITS
            assert found["measure"]["teacher"] == OF_DIGITS | {"hidden": [120, 84]}
            assert found["training"]["batch_size"] == 16

    def test_is_the_one_of_the_data_sets_own_experiment(self):
        assert key(COLOURS, "dataset=digits") == key(VISION)
        for profile in ("embedded", "smoke"):
            assert key(COLOURS, f"profile={profile}") == key(VISION, f"profile={profile}")

    @pytest.mark.parametrize(
        ("words", "changed"),
        [
            (("model.channels=[2,3]",), {"channels": [2, 3]}),
            (("by_dataset.digits.model.channels=[2,3]",), {"channels": [2, 3]}),
            (("+by_dataset.digits.model.bias=false",), {"bias": False}),
            (("~by_dataset.digits.model",), {"kernel_sizes": [5, 5]}),
        ],
        ids=str,
    )
    def test_merging(self, words, changed):
        """A value given for all data sets beats what a file says of one."""
        assert settings(COLOURS, "dataset=digits", *words)["model"] == OF_DIGITS | changed

    def test_a_key_of_the_teacher_that_is_given_beats_what_a_file_says_of_one(self):
        found = settings(COLOURS, "dataset=digits", "measure.teacher.channels=[2,3]")["measure"]["teacher"]
        assert found["channels"] == [2, 3]

    @pytest.mark.parametrize(
        ("word", "says"),
        [
            ("+by_dataset.digits.model.chanels=[2,3]", r"'by_dataset\.digits\.model\.chanels'; did you mean"),
            ("by_dataset.digits.model.channels=[0,3]", r"^by_dataset\.digits\.model\.channels: 0"),
            ("+by_dataset.digits.model.kind=mlp", r"^by_dataset\.digits\.model\.kind: 'mlp'; allowed: lenet"),
            ("+by_dataset.digits.mapping.levels=5", r"^by_dataset\.digits\.mapping: allowed: dataset, model, training"),
            ("+by_dataset.digitz.model.bias=false", r"^by_dataset\.digitz: no such data set.*digits"),
        ],
    )
    def test_what_is_refused(self, word, says):
        with pytest.raises(BadInput, match=says):
            load([COLOURS, word])

    def test_a_model_where_there_is_none(self):
        config = load(["experiment=distillation_vision_digits"])
        assert config.by_dataset == {}
        with pytest.raises(
            BadInput, match=r"^by_dataset\.digits\.features: allowed: dataset, model, training, measure"
        ):
            load([COLOURS, "+by_dataset.digits.features.kind=vit"])

    def test_axes_of_the_grid_are_the_grids(self):
        with pytest.raises(BadInput, match=r"^by_dataset\.digits\.model\.hidden_size: grid\.hidden_size varies it"):
            load(["experiment=quickstart", "+by_dataset.digits.model.hidden_size=7"])

    def test_other_kinds_of_networks(self):
        config = load(["experiment=quickstart", "+by_dataset.digits.model.bias=true"])
        assert {point.settings["model"]["bias"] for point in load_class(config.family)(config).points()} == {True}
