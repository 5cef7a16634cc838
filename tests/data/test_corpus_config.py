"""Parallel corpora in configurations: which experiments take them, stand-ins, settings, keys, small print, commands."""

import json

import pandas as pd
import pytest
from omegaconf import OmegaConf

import landscape_cli.plan as planning
from landscape_cli.composing import compose, load
from landscape_cli.data.corpus_sets import CORPUS_SETS
from landscape_cli.data.toy_corpus import toy_sentences
from landscape_cli.draw import describe, gather
from landscape_cli.errors import BadInput, MissingData
from landscape_cli.experiment import Experiment, Measurement, Point
from landscape_cli.plan import make_plan
from landscape_cli.runner import run
from landscape_cli.validation import load_class, prepare


class Translates(Experiment):
    """Counts what a corpus holds."""

    uses = frozenset({"dataset"})
    data = "corpus"
    teacher_objects = 20

    def points(self):
        names = self.config.grid.get("dataset", [self.config.dataset.name])
        return [Point.of({"dataset": name}, self.settings(dataset=name)) for name in names]

    def measure(self, point, context):
        sizes = {"teacher_size": self.teacher_objects, "student_size": 10, "test_size": 5, "pairs": None}
        corpus = context.corpus(**sizes)
        assert context.corpus(**sizes) is corpus
        assert corpus.source is context.source
        counts = {name: [len(getattr(corpus, name))] for name in ("teacher", "student", "relative", "test", "aligned")}
        return Measurement({"sizes": pd.DataFrame(counts | {"first": [corpus.teacher.source[0]]})})

    def figures(self, results):
        return ()


class TranslatesMuch(Translates):
    """Asks for more than there is."""

    teacher_objects = 5000


BARE = ("experiment=schematic_loss_change", "name=translates", "family=test_corpus_config.Translates")
BARE = (*BARE, "data.download=false")
TOY = "dataset=toy_translation"


@pytest.fixture
def mine(isolated):
    folder = isolated / "work" / "mine"
    folder.mkdir()
    for name in ("train.de", "train.fr", "train.en", "test.de", "test.fr", "test.en"):
        (folder / name).write_text("".join(f"{name} {k}\n" for k in range(40)))
    return folder


OWN = ("dataset=parallel", "dataset.path=mine")


def configured(*overrides):
    return load([*BARE, *overrides])


def keys(*overrides) -> list[str]:
    return [item.key for item in make_plan(configured(*overrides)).located]


@pytest.mark.parametrize("name", CORPUS_SETS)
def test_every_corpus_can_be_chosen(name):
    node = configured(f"dataset={name}").dataset
    assert (node.kind, node.name) == ("corpus", name)
    assert (node.teacher_language, node.student_language, node.target_language) == ("de", "fr", "en")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["dataset=mnist"], "dataset: 'mnist' is a set of images; translates takes parallel corpora, for example"),
        (["dataset=boston"], "dataset: 'boston' is a table; translates takes parallel corpora"),
        ([TOY, "+grid.dataset=[toy_translation,boston]"], "grid.dataset: 'boston' is a table"),
        ([TOY, "dataset.name=multi30"], "dataset.name: 'multi30' is no corpus; did you mean 'multi30k'?"),
        (["dataset=parallel"], "dataset.path: null; allowed: a folder with aligned files"),
        ([TOY, "dataset.path=x"], "dataset.path: 'x' with the corpus 'toy_translation'"),
        ([*OWN, "+grid.dataset=[toy_translation]"], "dataset.path: 'mine' is for 'parallel'"),
        ([TOY, "dataset.student_language=de"], "dataset.student_language: 'de' is the teacher_language too"),
        ([TOY, "dataset.target_language=fr"], "dataset.target_language: 'fr' is the student_language too"),
        ([TOY, "dataset.target_language=English"], "dataset.target_language: 'English'; allowed: a language code"),
        ([TOY, "dataset.train_size=0"], "dataset.train_size: 0; allowed: 1 or more"),
        ([TOY, "dataset.studentlanguage=de"], "did you mean 'dataset.student_language'"),
        ([TOY, "+dataset.in_place_of=[a]"], "only profile=embedded sets it"),
    ],
)
def test_refused(overrides, says):
    with pytest.raises(BadInput) as raised:
        configured(*overrides)
    assert says in str(raised.value)


@pytest.mark.parametrize(("experiment", "takes"), [("fc_mnist", "images"), ("sample_size", "tables")])
def test_refused_where_others_are_taken(experiment, takes):
    with pytest.raises(BadInput, match=f"dataset: 'multi30k' is a parallel corpus; {experiment} takes {takes}"):
        load([f"experiment={experiment}", "dataset=multi30k"])


def test_settings():
    config = configured(*OWN, "+grid.dataset=[parallel,toy_translation]", "dataset.train_size=35", "profile=quick")
    own, toy = (point.settings["dataset"] for point in load_class(config.family)(config).points())
    roles = {"teacher_language": "de", "student_language": "fr", "target_language": "en"}
    assert own == {"name": "parallel", "path": "mine", "train_size": 35, "max_size": None, **roles}
    assert toy == {**own, "name": "toy_translation", "path": None}


def test_keys(mine):
    assert keys(TOY) == keys(TOY, "dataset.train_size=4000")
    assert keys(TOY) != keys(TOY, "dataset.max_size=3000")
    assert keys(TOY) != keys(TOY, "dataset.teacher_language=fr", "dataset.student_language=de")
    before = keys(*OWN)
    mine.rename(mine.parent / "elsewhere")
    assert keys("dataset=parallel", "dataset.path=elsewhere") == before
    (mine.parent / "elsewhere" / "test.en").write_text("other\n" * 40)
    assert keys("dataset=parallel", "dataset.path=elsewhere") != before


def test_stand_in():
    composed = compose([*BARE, "dataset=parallel", "profile=embedded"])
    OmegaConf.set_struct(composed, False)
    changes = {"path": "mine", "teacher_language": "nl", "train_size": 9000}
    node = prepare(OmegaConf.merge(composed, {"dataset": changes}), []).dataset
    assert (node.name, node.in_place_of, node.path) == ("toy_translation", ["parallel"], None)
    assert (node.teacher_language, node.train_size, node.max_size) == ("de", None, 9000)
    asked = configured("dataset=multi30k", "profile=embedded").dataset
    assert (asked.name, asked.in_place_of) == ("multi30k", [])


def measured(*overrides):
    config = configured(*overrides)
    assert run(config, []) == 0
    plan = make_plan(config)
    results = gather(plan, {item.key: plan.store.read(plan.family, item.key) for item in plan.located})
    return describe(plan, results), results.frames["sizes"]


def test_run(mine, tmp_path, capsys):
    note, frame = measured(TOY, "dataset.train_size=50")
    assert "Toy translation (de-en, fr-en), the first 50 of 4000 aligned train lines; profile paper" in note
    train, _ = toy_sentences(4000, 500)
    assert frame.to_numpy().tolist() == [["toy_translation", 20, 10, 20, 5, 20, train[0][0]]]
    (document,) = (tmp_path / "outputs" / "results").glob("*/*/point.json")
    stored = json.loads(document.read_text())["settings"]["dataset"]
    roles = {"teacher_language": "de", "student_language": "fr", "target_language": "en"}
    assert {name: value for name, value in stored.items() if name != "checksum"} == {
        "name": "toy_translation",
        "objects": 50,
        **roles,
    }
    (mine / "train.en").write_text("".join(f"train.en {k}\n" for k in range(39)) + "\n")
    note, frame = measured(*OWN)
    assert "mine (de-en, fr-en), all 39 aligned train lines, 1 line with a blank left out" in note
    assert frame["aligned"].tolist() == [9]


def test_sizes_that_do_not_fit(landscape):
    much = [word.replace("Translates", "TranslatesMuch") for word in BARE]
    landscape("run", *much, TOY).assert_refused(2, "measure.teacher_objects: 5000; allowed: 1 to 3999")


def test_missing(landscape, mine):
    landscape("run", *BARE, "dataset=multi30k").assert_refused(3, "data set 'multi30k' (Multi30k) not found")
    gone = landscape("run", *BARE, "dataset=parallel", "dataset.path=gone")
    gone.assert_refused(3, "gone: there is no such folder")
    (mine / "train.fr").write_text("une\ndeux\n")
    landscape("run", *BARE, *OWN).assert_refused(2, "train.fr has 2 lines and train.en 40")


def test_drawing_from_stored_results_where_the_data_is_gone(monkeypatch, capsys):
    """The key is found by what was asked, and told from that of other questions."""
    assert run(configured(TOY), []) == 0
    (there,) = make_plan(configured(TOY)).located

    def gone(wanted, roots):
        raise MissingData("gone")

    monkeypatch.setattr(planning, "locate_corpus", gone)
    (found,) = make_plan(configured(TOY), from_store=True).located
    assert found.key == there.key
    swapped = ("dataset.teacher_language=fr", "dataset.student_language=de")
    for other in (("dataset.train_size=100",), swapped, ("dataset.name=multi30k",)):
        assert make_plan(configured(TOY, *other), from_store=True).located == ()


class TestData:
    @pytest.mark.parametrize("action", ["list", "fetch", "verify", "where"])
    def test_what_needs_no_file(self, landscape, action):
        finished = landscape("data", action, "toy_translation")
        assert (finished.code, finished.err) == (0, "")
        assert "4000 aligned train lines, 500 test, de fr en, whole, " in finished.out

    def test_what_is_not_there(self, landscape):
        finished = landscape("data", "verify", "multi30k", "opus100")
        assert finished.code == 3
        assert [line.split()[0] for line in finished.lines] == ["multi30k", "opus100"]
        finished = landscape("data", "fetch", "opus100")
        assert finished.code == 3
        assert "is not fetched from here; put the folders de-en, en-fr and de-fr of https://" in finished.err

    def test_real(self, landscape, real_data, monkeypatch):
        if not (real_data / "text" / "multi30k").is_dir():
            pytest.skip(f"no real corpus: {real_data} has no text/multi30k")
        monkeypatch.setenv("LANDSCAPE_DATA", str(real_data))
        finished = landscape("data", "verify", "multi30k")
        assert (finished.code, finished.err) == (0, "")
        assert "29000 aligned train lines, 1000 test, de fr en, whole" in finished.out
