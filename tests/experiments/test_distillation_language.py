"""Students of translation and their teachers: small whole runs, what each reads and is told, and what is refused."""

import json
import shutil
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sacrebleu
import torch

from experiments.chapter4.distillation_language import STUDENTS, DistillationLanguage
from experiments.chapter4.distillation_results import LABELS
from experiments.chapter4.translation_lesson import Lesson
from landscape_cli.composing import load
from landscape_cli.data.corpora import load_corpus, locate_corpus
from landscape_cli.data.subwords import Subwords, normalised
from landscape_cli.data.toy_corpus import toy_sentences
from landscape_cli.distillation import translators
from landscape_cli.distillation.nllb import check_checkpoint, translate_with_checkpoint
from landscape_cli.distillation.word_translation import fit_word_translation
from landscape_cli.models.encoder_decoder import EncoderDecoder
from landscape_cli.rng import generator
from landscape_cli.runner import run
from landscape_cli.store import Store

LANGUAGES = ("de", "fr", "en")
SIZES = {"hidden_size": 8, "ffn_size": 8, "num_layers": 1, "num_heads": 2}
NETWORK = tuple(f"model.{name}={value}" for name, value in SIZES.items())
TEACHER, STUDENT, TEST, PAIRS, MOST, LONGEST = 40, 16, 5, 200, 250, 14
SENTENCES = (
    f"measure.teacher_objects={TEACHER}",
    f"measure.student_objects={STUDENT}",
    f"measure.test_objects={TEST}",
    f"measure.vocabulary={MOST}",
    f"measure.max_length={LONGEST}",
)
TOY = ("experiment=distillation_language_toy", *NETWORK)
TRAINING = ("training.epochs=2", "training.batch_size=4", "training.learning_rate=0.03")
PLAIN = (*TOY, *SENTENCES, *TRAINING)
TINY = (*PLAIN, f"mapping.pairs={PAIRS}")
RUN = ("measure.other_weights=[0.2]",)
PHI = "table of words (IBM model 1, 10 iterations)"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, small):
    """Two seeds of all students on a few sentences; not to be written to."""
    folder = tmp_path_factory.mktemp("distilled")
    overrides = [*TINY, *small, *RUN, f"output_dir={folder}"]
    assert run(load(overrides), overrides) == 0
    return folder


@pytest.fixture
def stored(outputs):
    return read(outputs)


def read(folder):
    (path,) = folder.glob("results/DistillationLanguage/*/point.json")
    return Store(folder).read("DistillationLanguage", path.parent.name)


def tables(folder):
    return {path.name: path.read_bytes() for path in folder.glob("tables/*/*") if path.suffix != ".json"}


def table(folder, name):
    (path,) = folder.glob(f"tables/*/{name}.csv")
    return pd.read_csv(path, keep_default_na=False)


def spread(values, digits=3):
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


class TestWholeRun:
    def test_students_by_epoch(self, stored):
        epochs = stored.frames["epochs"]
        assert sorted(epochs) == ["cross_entropy", "epoch", "seed", "student", "weight"]
        assert epochs.attrs["units"] == {"cross_entropy": "nats", "epoch": "epochs"}
        groups = epochs.groupby(["student", "weight"])
        assert set(groups.groups) == {(name, 0.5) for name in STUDENTS} | {("mapping", 0.2), ("same_domain", 0.2)}
        for _, group in groups:
            assert sorted(zip(group["seed"], group["epoch"], strict=True)) == [(s, e) for s in (0, 1) for e in range(3)]
        assert epochs["cross_entropy"].between(2, 10).all()

    def test_all_students_start_from_the_same_network_and_then_go_apart(self, stored):
        epochs = stored.frames["epochs"]
        values = epochs.groupby(["epoch", "seed"])["cross_entropy"]
        starts = epochs[epochs["epoch"] == 0].groupby("seed")["cross_entropy"]
        assert ((starts.max() - starts.min()) < 1e-5).all()
        assert abs(starts.mean()[0] - starts.mean()[1]) > 1e-3
        assert (values.nunique()[2] == 7).all()
        alone = epochs[epochs["student"] == "alone"].groupby("epoch")["cross_entropy"].mean()
        assert alone[2] < alone[1] < alone[0]

    def test_quality_at_the_end_is_that_of_what_is_said(self, stored):
        """All test sentences are among the examples, so that BLEU can be taken again."""
        final, examples = stored.frames["final"], stored.frames["examples"]
        assert sorted(final) == ["bleu", "seed", "student", "weight"]
        assert len(final) == 7 * 2
        assert not final.duplicated(["student", "weight", "seed"]).any()
        assert len(examples) == TEST
        first = final[(final["seed"] == 0) & (final["weight"] == 0.5)].set_index("student")["bleu"]
        references = [list(examples["reference"])]
        for name in STUDENTS:
            found = sacrebleu.corpus_bleu(list(examples[LABELS[name]]), references).score
            assert first[name] == pytest.approx(found / 100)
        assert first.max() > 0

    def test_examples_are_the_first_test_sentences(self, stored):
        examples = stored.frames["examples"]
        assert list(examples) == ["source", "φ", "reference", *(LABELS[name] for name in STUDENTS)]
        train, test = toy_sentences(4000, 500)
        assert list(examples["source"]) == [fr for _, fr, _ in test[:TEST]]
        assert list(examples["reference"]) == [en for _, _, en in test[:TEST]]
        rows = train[TEACHER + STUDENT : TEACHER + STUDENT + PAIRS]
        phi = fit_word_translation([fr for _, fr, _ in rows], [de for de, _, _ in rows], 10)
        assert list(examples["φ"]) == phi.translate(examples["source"])
        assert "eine königin" in examples["φ"][0]

    def test_teachers(self, stored):
        teachers = stored.frames["teachers"]
        assert sorted(teachers) == ["bleu", "cross_entropy", "seed", "teacher", "tested_on"]
        assert teachers.attrs["units"] == {"cross_entropy": "nats"}
        found = sorted(zip(teachers["teacher"], teachers["tested_on"], teachers["seed"], strict=True))
        assert found == [
            (*where, seed)
            for where in (
                ("mapping", "its own domain"),
                ("mapping", "the student's domain through φ"),
                ("same_domain", "its own domain"),
            )
            for seed in (0, 1)
        ]
        assert teachers["cross_entropy"].nunique() == 6
        assert teachers["bleu"].between(0, 1).all()

    def test_sizes(self, stored):
        sizes = stored.frames["sizes"].iloc[0].to_dict()
        train, _ = toy_sentences(4000, 500)
        subwords = len(Subwords.train([en for _, _, en in train[: TEACHER + STUDENT]], MOST))
        counts = {"teacher_objects": TEACHER, "student_objects": STUDENT, "test_objects": TEST, "pairs": PAIRS}
        cut = sizes.pop("cut")
        assert sizes == {**counts, "target_subwords": subwords}
        assert 0 < cut < 0.5

    def test_what_it_writes(self, outputs):
        names = {path.stem for path in outputs.glob("tables/*/*.csv")}
        own = {
            f"distillation_language_toy_{name}" for name in ("datasets", "quality", "teachers", "weights", "examples")
        }
        assert names == own | {"claims_distillation_language_toy"}
        drawn = {path.stem for path in outputs.glob("figures/*/*.png")}
        assert drawn == {"distillation_language_toy_cross_entropy"}
        quality = table(outputs, "*_quality").set_index("student")["φ"]
        assert quality["teacher through φ"] == PHI
        assert (quality.drop("teacher through φ") == "-").all()

    def test_tables_say_what_the_frames_hold(self, outputs, stored):
        epochs, final, teachers = (stored.frames[name] for name in ("epochs", "final", "teachers"))
        quality = table(outputs, "*_quality").set_index("student")
        last = epochs[(epochs["epoch"] == 2) & (epochs["weight"] == 0.5)]
        final = final[final["weight"] == 0.5]
        for name in STUDENTS:
            row = quality.loc[LABELS[name]]
            assert row["cross-entropy"] == spread(last.loc[last["student"] == name, "cross_entropy"])
            assert row["BLEU"] == spread(final.loc[final["student"] == name, "bleu"], 4)
        own = teachers[teachers["tested_on"] == "its own domain"].groupby("teacher")["bleu"]
        of = {"mapping": "mapping", "no_mapping": "mapping", "same_domain": "same_domain"}
        for name in STUDENTS:
            expected = spread(own.get_group(of[name]), 4) if name in of else "-"
            assert quality.loc[LABELS[name], "teacher's own BLEU"] == expected
        written = table(outputs, "*_teachers")
        assert list(written) == ["trained on", "tested on", "cross-entropy", "BLEU"]
        groups = teachers.groupby(["teacher", "tested_on"], sort=False)
        for row, (_, group) in zip(written.itertuples(index=False), groups, strict=True):
            assert row[2:] == (spread(group["cross_entropy"]), spread(group["bleu"], 4))
        other = table(outputs, "*_weights")
        assert sorted(other["λ"]) == [0.2, 0.2, 0.5, 0.5, 1.0]
        tried = stored.frames["final"].query("student == 'mapping' and weight == 0.2")["bleu"]
        (row,) = other[(other["student"] == LABELS["mapping"]) & (other["λ"] == 0.2)]["BLEU"]
        assert row == spread(tried, 4)

    def test_parts_and_examples(self, outputs, stored):
        parts = table(outputs, "*_datasets")
        assert parts.to_numpy().tolist() == [
            ["Teacher-Train", "de-en", TEACHER, "5000"],
            ["Student-Train", "fr-en", STUDENT, "2000"],
            ["Student-Test", "fr-en", TEST, "500"],
            ["aligned, for φ", "fr-de", PAIRS, "-"],
        ]
        (markdown,) = outputs.glob("tables/*/*_datasets.md")
        sizes = stored.frames["sizes"].iloc[0]
        assert f"{sizes['target_subwords']:.0f} subwords of en, {sizes['cut']:.1%} of" in markdown.read_text()
        examples = table(outputs, "*_examples")
        kept = stored.frames["examples"]
        assert list(examples) == ["sentence", "by", "text"]
        wide = examples.pivot(index="sentence", columns="by", values="text").reset_index(drop=True)
        pd.testing.assert_frame_equal(wide[list(kept)], kept, check_dtype=False, check_names=False)
        assert examples["by"][: kept.shape[1]].tolist() == list(kept)

    def test_the_same_command_again_measures_nothing(self, outputs, landscape, small, tmp_path):
        copy = shutil.copytree(outputs, tmp_path / "copy")
        (document,) = copy.glob("results/*/*/point.json")
        before = document.read_bytes(), document.stat().st_mtime_ns, tables(copy)
        finished = landscape("run", *TINY, *small, *RUN, f"output_dir={copy}")
        assert finished.code == 0, finished.err
        assert "1 stored, 0 to measure" in finished.out
        assert (document.read_bytes(), document.stat().st_mtime_ns, tables(copy)) == before

    def test_another_run_gives_the_same_tables_and_small_print(
        self, outputs, stored, landscape, small, tmp_path, printed
    ):
        finished = landscape("run", *TINY, *small, *RUN)
        assert finished.code == 0, finished.err
        assert tables(tmp_path / "outputs") == tables(outputs)
        again = read(tmp_path / "outputs")
        assert again.frames.keys() == stored.frames.keys()
        for name, frame in stored.frames.items():
            pd.testing.assert_frame_equal(again.frames[name], frame, check_exact=True)
        (note,) = printed
        told = f"the student's {STUDENT} sentences, the teachers' {TEACHER}, φ's {PAIRS}, {TEST} for tests"
        assert told in note
        assert PHI in note
        for (name, domain), group in stored.frames["teachers"].groupby(["teacher", "tested_on"]):
            domain_of = {"same_domain": "the student's domain", "mapping": "the other domain"}[name]
            assert f"of {domain_of} on {domain} {spread(group['bleu'], 4)}" in note

    def test_without_an_epoch(self, landscape, small):
        given = [word for word in TINY if "epochs" not in word]
        finished = landscape("run", *given, *small, "training.epochs=0")
        assert finished.code == 0, finished.err

    def test_thesis_names_and_published_values(self, landscape, small, tmp_path):
        words = ("measure.students=[alone,mapping,same_domain]", "seeds=1", *NETWORK)
        finished = landscape("run", "experiment=distillation_language_opus100", *words, *small, *SENTENCES)
        assert finished.code == 0, finished.err
        folder = tmp_path / "outputs"
        assert {path.stem for path in folder.glob("figures/*/*.png")} == {"fig_4_13_language_cross_entropy"}
        names = {path.stem for path in folder.glob("tables/*/*.csv")}
        assert {"table_4_6_language_datasets", "table_4_8_language_quality"} <= names
        parts = table(folder, "table_4_6_language_datasets").set_index("part")["published"]
        assert parts.to_dict() == {
            "Teacher-Train": "5000",
            "Student-Train": "2000",
            "Student-Test": "500",
            "aligned, for φ": "-",
        }
        quality = table(folder, "table_4_8_language_quality").set_index("student")
        published = quality[["published cross-entropy", "published BLEU"]]
        assert published.to_numpy().tolist() == [["5.367 ± 0.015", "0.0282"], ["5.233 ± 0.007", "0.0572"], ["-", "-"]]
        assert list(published.index) == [LABELS[name] for name in ("alone", "mapping", "same_domain")]
        assert "Toy translation" in finished.out
        assert "OPUS" not in (next(folder.glob("tables/*/table_4_6*.md"))).read_text()


@pytest.fixture
def printed(monkeypatch):
    """The small print of the figures that a run draws."""
    from landscape_cli.plotting import output

    notes, save_figure = [], output.save_figure
    monkeypatch.setattr(
        output, "save_figure", lambda *given: notes.append(f"{given[0].note} {given[4]}") or save_figure(*given)
    )
    return notes


def prepared(*words, progress=lambda things, **_: things):
    """A lesson of the toy language, and what gave it."""
    experiment = DistillationLanguage(load([*TINY, "profile=smoke", *words]))
    (point,) = experiment.points()
    source = locate_corpus({"name": "toy_translation"}, [])
    context = SimpleNamespace(
        source=source, corpus=lambda **sizes: load_corpus(source, **sizes), mapping=None, device="cpu"
    )
    context.progress = lambda things=None, **_: things if things is not None else Bar()
    lesson = Lesson(point, context)
    lesson.tick = lambda _: None
    return lesson, experiment, context


class Bar:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, _):
        pass


@pytest.fixture(scope="module")
def text():
    """Lines of the toy language by purpose, each one's columns by language."""
    train, test = toy_sentences(4000, 500)
    ends = {"teacher": (0, TEACHER), "student": (TEACHER, TEACHER + STUDENT), "aligned": (TEACHER + STUDENT, None)}
    rows = {name: train[first:last] for name, (first, last) in ends.items()} | {"test": test[:TEST]}
    return {name: dict(zip(LANGUAGES, zip(*own, strict=True), strict=True)) for name, own in rows.items()}


@pytest.fixture(scope="module")
def subwords(text):
    """What each reader's vocabulary is estimated from, and both targets' one."""
    return {
        "target": Subwords.train(text["teacher"]["en"] + text["student"]["en"], MOST),
        "student": Subwords.train(text["student"]["fr"], MOST),
        "mapping": Subwords.train(text["teacher"]["de"], MOST),
        "same_domain": Subwords.train(text["teacher"]["fr"], MOST),
    }


@pytest.fixture(scope="module")
def phi(text):
    return fit_word_translation(text["aligned"]["fr"][:PAIRS], text["aligned"]["de"][:PAIRS], 10)


class TestSentences:
    def test_nobody_reads_anothers(self, text):
        corpus = prepared()[0].corpus
        assert (corpus.teacher.source, corpus.teacher.target) == (text["teacher"]["de"], text["teacher"]["en"])
        assert (corpus.relative.source, corpus.relative.target) == (text["teacher"]["fr"], text["teacher"]["en"])
        assert (corpus.student.source, corpus.student.target) == (text["student"]["fr"], text["student"]["en"])
        french = [corpus.relative.source, corpus.student.source, corpus.aligned.source, corpus.test.source]
        english = [corpus.teacher.target, corpus.student.target, corpus.test.target]
        german = [corpus.teacher.source, corpus.aligned.target, corpus.teacher_test.source]
        for parts in (french, english, german):
            assert len(set().union(*parts)) == sum(map(len, parts))

    def test_what_phi_is_estimated_from(self, text, phi):
        found = prepared()[0]
        assert found.translated["student"] == phi.translate(text["student"]["fr"])
        assert found.translated["test"] == phi.translate(text["test"]["fr"])
        assert found.sizes["pairs"] == PAIRS
        assert prepared("mapping.pairs=9999")[0].sizes["pairs"] == 4000 - TEACHER - STUDENT  # at most
        few = prepared("mapping.pairs=7", "mapping.iterations=2")[0]
        other = fit_word_translation(text["aligned"]["fr"][:7], text["aligned"]["de"][:7], 2)
        assert few.translated["student"] == other.translate(text["student"]["fr"]) != found.translated["student"]

    def test_subwords_are_estimated_from_train_sentences_alone(self, text, subwords):
        found = prepared()[0]
        assert found.subwords.keys() == subwords.keys()
        for name, own in subwords.items():
            lines = (*text["test"]["fr"], *text["test"]["en"])
            assert found.subwords[name].encode(lines, 99).ids.equal(own.encode(lines, 99).ids)
        assert found.student.source.equal(subwords["student"].encode(text["student"]["fr"], LONGEST).ids)
        assert found.test.target.equal(subwords["target"].encode(text["test"]["en"], LONGEST, begin=True).ids)

    @pytest.mark.parametrize("longest", [6, 14, 40])
    def test_share_of_sentences_that_are_cut(self, text, subwords, longest):
        found = prepared(f"measure.max_length={longest}")[0]
        lengths = []  # with end, and with begin in the target
        for part in ("student", "test"):
            for reader, language in (("student", "fr"), ("target", "en")):
                ids = subwords[reader].encode(text[part][language], 200, begin=language == "en").ids
                lengths += (ids != 0).sum(dim=1).tolist()
        assert found.sizes["cut"] == pytest.approx(np.mean(np.array(lengths) > longest))
        assert found.student.source.shape[1] <= longest
        assert (found.sizes["cut"] == 0) == (longest == 40)

    def test_at_most_as_many_test_sentences_as_there_are(self):
        assert prepared("measure.test_objects=600")[0].sizes["test_objects"] == 500


def stub(lesson, name):
    """A teacher that has learnt nothing."""
    sizes = (len(lesson.subwords[name]), len(lesson.subwords["target"]))
    model = EncoderDecoder(*sizes, **SIZES, max_length=LONGEST)
    return SimpleNamespace(model=model, parameters=model.initialise([generator(k, name) for k in (5, 6)]))


class TestWhatIsTold:
    def test_what_teachers_read(self, text, subwords, phi, monkeypatch):
        seen = []
        monkeypatch.setattr(translators, "teaching", lambda *given: seen.append(given))
        lesson = prepared("measure.temperature=3")[0]
        lesson.taught = {name: stub(lesson, name) for name in ("mapping", "same_domain")}
        french = text["student"]["fr"]
        mapped = phi.translate(french)
        told = {
            "mapping": ("mapping", mapped),
            "no_mapping": ("mapping", french),
            "same_domain": ("same_domain", french),
        }
        for student, (reader, sentences) in told.items():
            lesson.teaching(student)
            model, parameters, sources, count, temperature = seen.pop()
            assert model is lesson.taught[reader].model
            assert parameters is lesson.taught[reader].parameters
            assert sources.equal(subwords[reader].encode(sentences, LONGEST).ids)
            assert (count, temperature) == (len(subwords["target"]), 3)
            if student == "mapping":
                short = [row for row in range(STUDENT) if (sources[row] != 0).sum() < LONGEST]
                read = lesson.subwords["mapping"].decode(sources[short])
                # A character that the teacher has never seen is told to it as unknown.
                assert sum(said == normalised(mapped[row]) for row, said in zip(short, read, strict=True)) >= 3
        assert lesson.teaching("alone") is None
        assert not seen

    def test_soft_labels_without_a_teacher(self):
        lesson = prepared("measure.students=[alone,mapping,uniform_labels]")[0]
        count = lesson.sizes["target_subwords"]
        places = torch.zeros(2, 3, dtype=torch.int64)
        answer = lesson.teaching("uniform_labels")(places, places, places)
        assert torch.equal(answer, torch.full((2, 3, count), 1 / count))

    def test_what_teachers_and_students_are_trained_on(self, text, subwords, monkeypatch):
        seen = []

        def recorded(model, start, sentences, **given):
            seen.append((model, start, sentences, given))
            given["watch"](0, start)
            return start

        monkeypatch.setattr(translators, "train_translators", recorded)
        lesson = prepared("measure.teacher_epochs=7", "measure.weight=0.3")[0]
        lesson.taught = {name: lesson.train_teachers(name) for name in lesson.needed()}
        assert list(lesson.taught) == ["same_domain", "mapping"]
        lesson.train_students([("alone", 0.3), ("mapping", 0.3), ("same_domain", 0.9)])
        readers = (("same_domain", "teacher", "fr"), ("mapping", "teacher", "de"), ("student", "student", "fr"))
        for (reader, part, language), (model, start, sentences, given) in zip(readers, seen, strict=True):
            assert sentences.source.equal(subwords[reader].encode(text[part][language], LONGEST).ids)
            assert sentences.target.equal(subwords["target"].encode(text[part]["en"], LONGEST, begin=True).ids)
            assert model.target_vocabulary == len(subwords["target"])
            assert start["source_embedding.weight"].shape[1] == len(subwords[reader])
            assert given["epochs"] == (2 if reader == "student" else 7)
            assert given["seeds"] == [0, 1]
        assert len({given["stream"] for *_, given in seen}) == 3
        _, start, _, given = seen[-1]
        assert given["weights"] == [1.0, 0.3, 0.9]
        assert given["teachers"][0] is None
        assert None not in given["teachers"][1:]
        for tensor in start.values():  # each kind from the same networks
            assert tensor[:2].equal(tensor[2:4])
            assert tensor[:2].equal(tensor[4:])

    @pytest.mark.parametrize(
        ("students", "needed"),
        [
            ("[alone,same_domain]", ["same_domain"]),
            ("[alone,no_mapping]", ["mapping"]),
            ("[alone,mapping,uniform_labels]", ["mapping"]),
            ("[no_mapping,alone,same_domain,mapping]", ["same_domain", "mapping"]),
        ],
    )
    def test_only_teachers_that_are_needed_are_trained(self, students, needed):
        assert prepared(f"measure.students={students}")[0].needed() == needed

    def test_weights_that_are_tried(self):
        lesson = prepared("measure.other_weights=[0,0.5,0.9]")[0]
        others = [(name, weight) for weight in (0.0, 0.9) for name in ("mapping", "same_domain")]
        assert lesson.students() == [(name, 0.5) for name in STUDENTS] + others

    def test_teachers_are_tested_in_their_domain_and_through_phi(self, text, subwords, phi):
        lesson = prepared()[0]
        taught = {name: lesson.train_teachers(name) for name in ("same_domain", "mapping")}
        expected = {
            ("same_domain", "its own domain"): text["test"]["fr"],
            ("mapping", "its own domain"): text["test"]["de"],
            ("mapping", "the student's domain through φ"): phi.translate(text["test"]["fr"]),
        }
        references = [[normalised(line) for line in text["test"]["en"]]]
        target = subwords["target"].encode(text["test"]["en"], LONGEST, begin=True).ids
        rows = {(row["teacher"], row["tested_on"], row["seed"]): row for t in taught.values() for row in t.quality}
        assert len(rows) == 6
        for (name, domain), sentences in expected.items():
            model, parameters = taught[name].model, taught[name].parameters
            source = subwords[name].encode(sentences, LONGEST).ids
            said = translators.translate(model, parameters, source, subwords["target"], LONGEST)
            for network, seed in enumerate((0, 1)):
                own = {key: tensor[network, None] for key, tensor in parameters.items()}
                with torch.no_grad():
                    logits = model.forward(own, source[None], target[None, :, :-1])[0]
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0)
                assert rows[name, domain, seed]["cross_entropy"] == pytest.approx(float(loss), abs=1e-5)
                score = sacrebleu.corpus_bleu(said[network], references).score / 100
                assert rows[name, domain, seed]["bleu"] == pytest.approx(score)


class TestStudents:
    def test_alone_is_training_on_the_labels(self, text, subwords):
        """Whatever λ; and so is a student with a teacher whose labels weigh one."""
        lesson = prepared()[0]
        lesson.taught = {"same_domain": stub(lesson, "same_domain")}
        found = lesson.train_students([("alone", 0.5), ("same_domain", 1.0), ("same_domain", 0.5)])
        curves = {kind: [row["cross_entropy"] for row in own.losses] for kind, own in found.items()}
        assert curves["same_domain", 1.0] == pytest.approx(curves["alone", 0.5], abs=1e-5)
        assert curves["same_domain", 0.5] != pytest.approx(curves["alone", 0.5], abs=1e-4)
        model = EncoderDecoder(len(subwords["student"]), len(subwords["target"]), **SIZES, max_length=LONGEST)
        stream = lesson.point.stream
        start = model.initialise([generator(seed, "initialisation student", stream) for seed in (0, 1)])
        seen = []
        translators.train_translators(
            model,
            start,
            lesson.student,
            seeds=[0, 1],
            stream=f"{stream} student",
            epochs=2,
            batch_size=4,
            learning_rate=0.03,
            watch=lambda _, now: seen.append(translators.cross_entropy(model, now, lesson.test).tolist()),
        )
        expected = np.array(seen).T.flatten()  # seed by seed
        assert curves["alone", 0.5] == pytest.approx(expected, abs=1e-5)

    def test_examples_are_what_each_kinds_first_seed_says(self, monkeypatch):
        def marked(model, parameters, source, *_):
            networks = len(parameters["target_embedding.weight"])
            return [[f"network {network}, sentence {n}" for n in range(len(source))] for network in range(networks)]

        monkeypatch.setattr(translators, "translate", marked)
        lesson = prepared("measure.test_objects=9", "measure.weight=0.3", "training.epochs=0")[0]
        lesson.taught = {"same_domain": stub(lesson, "same_domain")}
        kinds = [("same_domain", 0.3), ("alone", 0.3), ("same_domain", 0.9)]
        learned = lesson.train_students(kinds)
        assert list(learned) == kinds
        for k, own in enumerate(learned.values()):
            assert own.said == [f"network {2 * k}, sentence {n}" for n in range(5)]
            assert [row["seed"] for row in own.quality] == [0, 1]
        rows = lesson.examples(list(learned.values()))
        assert [row[LABELS["same_domain"]] for row in rows] == learned[kinds[0]].said  # not of the λ that is tried
        assert [row[LABELS["alone"]] for row in rows] == learned[kinds[1]].said

    @pytest.mark.parametrize("students", [["alone", "mapping"], ["uniform_labels", "same_domain", "alone"]])
    def test_the_same_whichever_others_are_trained(self, stored, students):
        """Nor does their order matter."""
        _, experiment, context = prepared(f"measure.students=[{','.join(students)}]")
        (point,) = experiment.points()
        frames = experiment.measure(point, context).frames
        keys = ["student", "weight", "seed"]
        for name, index, tolerance in (("epochs", [*keys, "epoch"], 1e-4), ("final", keys, 0.02)):
            few, all_ = (where[name].set_index(index) for where in (frames, stored.frames))
            assert set(few.index.get_level_values("student")) == set(students)
            difference = (few - all_.loc[few.index]).abs()
            assert float(difference.max().max()) < tolerance
        assert list(frames["examples"])[3:] == [LABELS[name] for name in students]


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("measure.weight=1.2",), ("measure.weight: 1.2", "1 or less")),
            (("measure.other_weights=[0.1,1.5]",), ("measure.other_weights: 1.5",)),
            (("measure.temperature=0",), ("measure.temperature: 0.0", "more than 0")),
            (("measure.students=[alone,bogus]",), ("measure.students: 'bogus'", "same_domain")),
            (("measure.students=[alone,mapping,mapping]",), ("measure.students: mapping twice",)),
            (("measure.students=[mapping,same_domain]",), ("measure.students: without 'alone'",)),
            (("measure.students=[alone,uniform_labels]",), ("measure.students: none has a teacher",)),
            (("mapping=style", "~mapping.pairs"), ("mapping.kind: 'style'; allowed: translation",)),
            (("mapping=null", "~mapping.pairs"), ("mapping=null",)),
            (("model=lenet",), ("model.kind: 'lenet'; allowed: encoder_decoder",)),
            (("model.hidden_size=9",), ("model.hidden_size: 9", "even numbers that model.num_heads=2 divides")),
            (("model.hidden_size=10", "model.num_heads=4"), ("model.hidden_size: 10", "model.num_heads=4")),
            (("dataset=mnist",), ("dataset: 'mnist' is a set of images", "parallel corpora")),
            (("training.augmentation=crop_flip",), ("training.augmentation: 'crop_flip'", "allowed: none")),
            (("measure.max_length=3",), ("measure.max_length: 3; allowed: 4 or more",)),
            (("measure.vocabulary=49",), ("measure.vocabulary: 49; allowed: 50 or more",)),
            (("measure.student_objects=3961",), ("measure.student_objects: 3961; allowed: 1 to 3960",)),
            (("measure.teacher_objects=4000",), ("measure.teacher_objects: 4000; allowed: 1 to 3999",)),
            (("dataset.train_size=50",), ("measure.student_objects: 16; allowed: 1 to 10",)),
            (("dataset.student_language=de",), ("dataset.student_language: 'de' is the teacher_language",)),
            (("+grid.dataset=[toy_translation,multi30k]",), ("grid.dataset", "one run a value")),
        ],
        ids=str,
    )
    def test_bad_input_in_one_line(self, landscape, small, words, says):
        changed = {word.split("=")[0].lstrip("+~") for word in words}
        given = [word for word in TINY if word.split("=")[0] not in changed]
        if "model" in changed:
            given = [word for word in given if not word.startswith("model.")]
            words = (*words, "~model.hidden_size", "~model.ffn_size")
        words = [word for word in words if word != "~mapping.pairs"]
        landscape("run", *given, *small, *words).assert_refused(2, *says)

    def test_a_checkpoint_that_is_not_there(self, landscape, small):
        says = ("mapping.checkpoint: nowhere: there is no such folder", "mapping.checkpoint=null")
        landscape("run", *PLAIN, *small, "mapping.checkpoint=nowhere").assert_refused(3, *says)

    def test_a_folder_that_is_no_checkpoint(self, landscape, small, isolated):
        (isolated / "work" / "folder").mkdir()
        finished = landscape("run", *PLAIN, *small, "mapping.checkpoint=folder")
        finished.assert_refused(3, "folder is not an NLLB checkpoint of transformers: it has no config.json")


@pytest.fixture
def own(isolated):
    """Write lines of the toy language as a user's own corpus, and return the words that name it."""

    def write(lines=300, tested=20, change=str):
        folder = isolated / "work" / "mine"
        folder.mkdir()
        train, test = toy_sentences(4000, 500)
        for split, rows in (("train", train[:lines]), ("test", test[:tested])):
            for k, language in enumerate(LANGUAGES):
                (folder / f"{split}.{language}").write_text("".join(f"{change(row[k])}\n" for row in rows))
        return folder, ("dataset=parallel", "dataset.path=mine")

    return write


class TestOwnCorpus:
    def test_whole_run(self, landscape, small, own, tmp_path):
        """Nothing but the data set and the network's size is given."""
        _, words = own()
        finished = landscape("run", *TOY, *small, *words)
        assert finished.code == 0, finished.err
        assert "mine (de-en, fr-en), all 300 aligned train lines" in finished.out
        assert table(tmp_path / "outputs", "*_datasets")["sentences"].tolist() == [60, 30, 20, 60]
        sizes = read(tmp_path / "outputs").frames["sizes"].iloc[0]
        assert (sizes["test_objects"], sizes["pairs"]) == (20, 60)

    def test_misaligned(self, landscape, small, own):
        folder, words = own()
        (folder / "train.fr").write_text("un mot\n" * 299)
        says = ("dataset.path", "train.fr has 299 lines and train.en 300")
        landscape("run", *TINY, *small, *words).assert_refused(2, *says)

    def test_empty_split(self, landscape, small, own):
        _, words = own(tested=0)
        landscape("run", *TINY, *small, *words).assert_refused(2, "test.de and test.en have no line")

    @pytest.mark.parametrize(
        ("lines", "says"),
        [
            (30, "measure.teacher_objects: 40; allowed: 1 to 29 (mine has 30 train lines"),
            (50, "measure.student_objects: 16; allowed: 1 to 10 (mine has 50 train lines"),
            (56, "mapping.pairs: null (all); allowed: none, there are too few"),
        ],
    )
    def test_too_few_lines(self, landscape, small, own, lines, says):
        _, words = own(lines)
        landscape("run", *TINY, *small, *words).assert_refused(2, says)

    def many_characters(self, landscape, small, own):
        _, words = own(change=lambda line: line + " " + "".join(chr(0x4E00 + ord(c) % 97) for c in line))
        given = [word for word in TINY if "vocabulary" not in word]
        return landscape("run", *given, *small, *words, "measure.vocabulary=50")

    def test_more_characters_than_subwords(self, landscape, small, own):
        finished = self.many_characters(landscape, small, own)
        finished.assert_refused(2, "50: the text's characters alone take 5")

    def test_more_characters_than_subwords_names_the_key(self, landscape, small, own):
        self.many_characters(landscape, small, own).assert_refused(2, "measure.vocabulary")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random NLLB checkpoint as transformers saves one, that reads the toy language."""
    from landscape_cli.data.torchvision_import import torchvision  # noqa: F401, so that transformers can import it

    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False)
    train, _ = toy_sentences(4000, 500)
    pieces.train_from_iterator([line for row in train[:200] for line in row[:2]], trainer)
    learnt = json.loads(pieces.to_str())["model"]
    tokeniser = transformers.NllbTokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        additional_special_tokens=["deu_Latn", "fra_Latn"],
    )
    config = transformers.M2M100Config(
        vocab_size=len(tokeniser),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=300,
        init_std=0.5,
        decoder_start_token_id=2,
    )
    folder = tmp_path_factory.mktemp("nllb") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.M2M100ForConditionalGeneration(config).save_pretrained(folder)
    tokeniser.save_pretrained(folder)
    return folder


@pytest.mark.skipif(not find_spec("transformers"), reason="transformers is not installed")
class TestCheckpoint:
    def test_whole_run(self, landscape, small, own, checkpoint, printed, tmp_path):
        """No line is left for a table of words, and none is needed."""
        _, words = own(TEACHER + STUDENT)
        given = list(PLAIN)
        words = (*words, "measure.students=[alone,mapping]", f"mapping.checkpoint={checkpoint}")
        finished = landscape("run", *given, *small, *words)
        assert finished.code == 0, finished.err
        checksum = check_checkpoint(checkpoint)
        name = f"NLLB, checksum {checksum[:12]}"
        assert name in finished.out
        assert "table of words" not in finished.out
        (note,) = printed
        assert name in note
        folder = tmp_path / "outputs"
        assert table(folder, "*_quality").set_index("student").loc["teacher through φ", "φ"] == name
        for path in folder.glob("tables/*/*.md"):
            assert name in path.read_text()
        assert table(folder, "*_datasets").set_index("part").loc["aligned, for φ", "sentences"] == 0
        found = read(folder)
        mapping = found.document["settings"]["mapping"]
        codes = {"source_code": "fra_Latn", "target_code": "deu_Latn"}
        assert mapping == {"kind": "nllb", "checksum": checksum, **codes}
        examples = found.frames["examples"]
        expected = translate_with_checkpoint(checkpoint, list(examples["source"]), **codes)
        assert list(examples["φ"]) == expected

    def test_a_language_that_it_has_not(self, landscape, small, checkpoint):
        words = (f"mapping.checkpoint={checkpoint}", "mapping.source_code=fre_Latn")
        finished = landscape("run", *PLAIN, *small, *words)
        finished.assert_refused(2, "'fre_Latn' is no language of", "fra_Latn")
