"""Parallel corpora: found, verified and divided among teacher, student, test and mapping."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from landscape_cli.data import toy_corpus
from landscape_cli.data.corpora import load_corpus, locate_corpus
from landscape_cli.data.corpus_sets import CORPUS_SETS, CorpusFile
from landscape_cli.data.fetch_corpora import fetch_corpus
from landscape_cli.errors import BadInput, DamagedData, MissingData

SIZES = {"teacher_size": 5, "student_size": 3, "test_size": 2}
LANGUAGES = ("de", "fr", "en")


def located(root, name="mine", **wanted):
    return locate_corpus({"name": name, **wanted}, [root])


def refusal(kind, code, call, *arguments, **options) -> str:
    with pytest.raises(kind) as raised:
        call(*arguments, **options)
    assert raised.value.exit_code == code
    assert "\n" not in str(raised.value)
    return str(raised.value)


def as_pairs(bitext) -> list[tuple[str, str]]:
    return list(zip(bitext.source, bitext.target, strict=True))


def sentences(language, split, count=12) -> list[str]:
    return [f"{language} {split} {k}" for k in range(count)]


class TestToy:
    def test_pinned(self):
        source = locate_corpus({"name": "toy_translation"}, [])
        assert source.checksum == "4bcaa23a3fffe7b56e09090fcc5233dd2804cdcf7301e284ca19b0306b0e1711"
        assert (source.train_objects, source.test_objects, source.place) == (4000, 500, "generated")
        assert (source.files, source.languages, source.whole) == ((), LANGUAGES, True)

    def test_no_sentence_twice_in_any_language(self):
        train, test = toy_corpus.toy_sentences(4000, 500)
        assert (len(train), len(test)) == (4000, 500)
        for language in range(3):
            assert len({row[language] for row in (*train, *test)}) == 4500

    def test_words_have_one_translation(self):
        """Every word is one of the lists', and nouns, verbs, adverbs and places say the same in each language."""
        known = [set(), set(), set()]
        lists = (*toy_corpus.ADVERBS, *toy_corpus.PLACES, *toy_corpus.MODALS)
        for triple in lists:
            for words, phrase in zip(known, triple, strict=True):
                words.update(phrase.split())
        nouns = (*toy_corpus.LIVING, *toy_corpus.THINGS)
        for german, _, french, _, english in nouns:
            for words, word in zip(known, (german, french, english), strict=True):
                words.add(word)
        for verb in toy_corpus.VERBS:
            for language in range(3):
                known[language].update(verb[2 * language : 2 * language + 2])
        for stem, masculine, feminine, _, english in toy_corpus.ADJECTIVES:
            known[0].update(stem + ending for ending in ("e", "en", "er", "es"))
            known[1].update((masculine, feminine))
            known[2].add(english)
        known[0].update(["der", "die", "das", "den", "ein", "eine", "einen"])
        known[1].update(["le", "la", "un", "une"])
        known[2].update(["the", "a"])
        train, test = toy_corpus.toy_sentences(4000, 500)
        for row in (*train, *test):
            for words, sentence in zip(known, row, strict=True):
                assert set(sentence.split()) <= words
            for german, _, french, _, english in nouns:
                counts = [
                    sentence.split().count(word) for sentence, word in zip(row, (german, french, english), strict=True)
                ]
                assert len(set(counts)) == 1, (row, german)
            for triple in (*toy_corpus.ADVERBS, *toy_corpus.PLACES, *toy_corpus.MODALS):
                there = [f" {words} " in f" {sentence} " for sentence, words in zip(row, triple, strict=True)]
                assert len(set(there)) == 1, (row, triple)

    def test_order_of_words_differs(self):
        train, _ = toy_corpus.toy_sentences(4000, 500)
        (row,) = (row for row in train if row[2] == "the queen can show a fish")
        assert row == ("die königin kann einen fisch zeigen", "la reine peut montrer un poisson", row[2])
        (row,) = (row for row in train if row[2] == "a brother buys a white door")
        assert row == ("ein bruder kauft eine weiße tür", "un frère achète une porte blanche", row[2])

    def test_other_roles_of_the_languages(self):
        roles = {"teacher_language": "en", "student_language": "de", "target_language": "fr"}
        corpus = load_corpus(locate_corpus({"name": "toy_translation", **roles}, []), **SIZES, pairs=1)
        train, test = toy_corpus.toy_sentences(4000, 500)
        assert as_pairs(corpus.teacher) == [(en, fr) for _, fr, en in train[:5]]
        assert as_pairs(corpus.relative) == [(de, fr) for de, fr, _ in train[:5]]
        assert as_pairs(corpus.test) == [(de, fr) for de, fr, _ in test[:2]]
        assert as_pairs(corpus.aligned) == [(de, en) for de, _, en in train[8:9]]

    def test_language_that_it_has_not(self):
        told = refusal(BadInput, 2, locate_corpus, {"name": "toy_translation", "student_language": "ru"}, [])
        assert told == "dataset.student_language: 'ru' with Toy translation; allowed: de, fr, en"


class TestSizes:
    def test_lines_are_used_once(self):
        corpus = load_corpus(locate_corpus({"name": "toy_translation"}, []), **SIZES)
        train, test = toy_corpus.toy_sentences(4000, 500)
        assert as_pairs(corpus.teacher) == [(de, en) for de, _, en in train[:5]]
        assert as_pairs(corpus.relative) == [(fr, en) for _, fr, en in train[:5]]
        assert as_pairs(corpus.student) == [(fr, en) for _, fr, en in train[5:8]]
        assert as_pairs(corpus.aligned) == [(fr, de) for de, fr, _ in train[8:]]
        assert as_pairs(corpus.test) == [(fr, en) for _, fr, en in test[:2]]
        used = [set(corpus.relative.source), set(corpus.student.source), set(corpus.aligned.source)]
        assert sum(map(len, used)) == len(set.union(*used)) == 4000

    @pytest.mark.parametrize("pairs", [0, 1, 12])
    def test_as_many_pairs_as_asked_for(self, pairs):
        corpus = load_corpus(locate_corpus({"name": "toy_translation"}, []), **SIZES, pairs=pairs, limit=20)
        assert len(corpus.aligned) == pairs

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            (
                {"teacher_size": 20},
                "measure.teacher_objects: 20; allowed: 1 to 19 (Toy translation has 20 of 4000 train",
            ),
            ({"teacher_size": 0}, "measure.teacher_objects: 0; allowed: 1 to 19"),
            ({"student_size": 16}, "measure.student_objects: 16; allowed: 1 to 15"),
            ({"test_size": 501}, "measure.test_objects: 501; allowed: 1 to 500"),
            ({"pairs": 13}, "mapping.pairs: 13; allowed: 0 to 12"),
            ({"student_size": 15, "pairs": None}, "mapping.pairs: null (all); allowed: none, there are too few"),
            ({"limit": 4001}, "dataset.train_size=4001 is not possible: data set 'toy_translation' has 4000 aligned"),
        ],
    )
    def test_refused(self, changes, told):
        source = locate_corpus({"name": "toy_translation"}, [])
        asked = {**SIZES, "pairs": 1, "limit": 20, **changes}
        assert told in refusal(BadInput, 2, load_corpus, source, **asked)


@pytest.fixture
def mine(tmp_path) -> Path:
    """A user's own corpus; some of it packed."""
    for language in LANGUAGES:
        text = "\n".join(sentences(language, "train")) + "\n"
        if language == "fr":
            (tmp_path / "train.fr.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (tmp_path / f"train.{language}").write_text(text)
    for language in LANGUAGES:
        (tmp_path / f"test.{language}").write_text("\n".join(sentences(language, "test", 4)))  # no line feed at the end
    return tmp_path


class TestOwn:
    def locate(self, folder, **wanted):
        return locate_corpus({"name": "mine", "path": str(folder), **wanted}, [])

    def test_read(self, mine):
        source = self.locate(mine)
        assert (source.train_objects, source.test_objects, source.dropped, source.whole) == (12, 4, 0, True)
        assert (source.title, source.place) == (mine.name, str(mine))
        corpus = load_corpus(source, **SIZES)
        assert as_pairs(corpus.student) == [(f"fr train {k}", f"en train {k}") for k in (5, 6, 7)]
        assert as_pairs(corpus.aligned) == [(f"fr train {k}", f"de train {k}") for k in range(8, 12)]
        assert as_pairs(corpus.aligned.first(2)) == [(f"fr train {k}", f"de train {k}") for k in (8, 9)]
        assert corpus.aligned.first(None) == corpus.aligned
        assert as_pairs(corpus.test) == [(f"fr test {k}", f"en test {k}") for k in range(2)]
        assert as_pairs(corpus.teacher_test) == [(f"de test {k}", f"en test {k}") for k in range(2)]

    def test_checksum_is_that_of_the_text(self, mine):
        before = self.locate(mine).checksum
        (mine / "train.de.gz").write_bytes(gzip.compress((mine / "train.de").read_bytes()))
        (mine / "train.de").unlink()
        assert self.locate(mine).checksum == before
        (mine / "test.en").write_text((mine / "test.en").read_text().replace("test 1", "test one"))
        assert self.locate(mine).checksum != before

    def test_blank_lines_go_with_their_translations(self, mine):
        lines = sentences("en", "train")
        lines[3] = "  "
        (mine / "train.en").write_text("\n".join(lines) + "\n")
        source = self.locate(mine)
        assert (source.train_objects, source.dropped) == (11, 1)
        corpus = load_corpus(source, **SIZES)
        assert corpus.teacher.source == tuple(f"de train {k}" for k in (0, 1, 2, 4, 5))
        assert corpus.relative.source == tuple(f"fr train {k}" for k in (0, 1, 2, 4, 5))

    def test_only_a_line_feed_ends_a_sentence(self, mine):
        lines = sentences("en", "train")
        lines[0] = "one\u2028sentence\x85still"
        (mine / "train.en").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
        corpus = load_corpus(self.locate(mine), **SIZES)
        assert corpus.teacher.target[:2] == ("one\u2028sentence\x85still", "en train 1")

    def test_misaligned(self, mine):
        (mine / "train.fr.gz").write_bytes(gzip.compress(b"un\n" * 11))
        told = refusal(BadInput, 2, self.locate, mine)
        assert "train.fr.gz has 11 lines and train.en 12" in told
        (mine / "train.fr.gz").write_bytes(gzip.compress(b"un\n" * 12 + b"\n"))
        assert "train.fr.gz has 13 lines and train.en 12" in refusal(BadInput, 2, self.locate, mine)

    @pytest.mark.parametrize("content", ["", "\n\n\n\n"])
    def test_empty_split(self, mine, content):
        for language in LANGUAGES:
            (mine / f"test.{language}").write_text(content)
        told = refusal(BadInput, 2, self.locate, mine)
        assert "test.de and test.en have no line that is not blank" in told

    def test_truncated(self, mine):
        packed = gzip.compress("".join(f"phrase {k * k}\n" for k in range(999)).encode())
        (mine / "train.fr.gz").write_bytes(packed[: len(packed) // 2])
        assert "train.fr.gz is damaged: it cannot be read" in refusal(DamagedData, 3, self.locate, mine)
        (mine / "train.fr.gz").write_bytes(b"un\ndeux\n")
        assert "train.fr.gz is damaged: it cannot be read" in refusal(DamagedData, 3, self.locate, mine)

    def test_not_text(self, mine):
        (mine / "train.en").write_bytes(b"one\ntw\xff\n")
        told = refusal(DamagedData, 3, self.locate, mine)
        assert "train.en is damaged: line 2 is not text in UTF-8" in told

    def test_missing(self, mine):
        assert "there is no such folder" in refusal(MissingData, 3, self.locate, mine / "gone")
        told = refusal(MissingData, 3, self.locate, mine, student_language="nl")
        assert "train.nl is missing" in told
        assert "train.de, train.nl, train.en, test.de, test.nl, test.en" in told

    def test_changed_since(self, mine):
        source = self.locate(mine)
        (mine / "test.en").write_text("\n".join(sentences("en", "other", 4)))
        assert "has changed since the run began" in refusal(DamagedData, 3, load_corpus, source, **SIZES)


@pytest.fixture
def tiny_multi30k(monkeypatch, tmp_path) -> Path:
    """A root with a tiny copy, its digests pinned instead of the real ones."""
    folder = tmp_path / "text" / "multi30k"
    folder.mkdir(parents=True)
    files = []
    for split, count in (("train", 12), ("test_2016_flickr", 4)):
        for language in LANGUAGES:
            text = "".join(f"{line}\n" for line in sentences(language, split, count)).encode()
            packed = gzip.compress(text, mtime=0)
            (folder / f"{split}.{language}.gz").write_bytes(packed)
            digests = (hashlib.sha256(it).hexdigest() for it in (text, packed))
            files.append(CorpusFile(f"{split}.{language}", *digests))
    tiny = replace(CORPUS_SETS["multi30k"], files=tuple(files), train_lines=12, test_lines=4)
    monkeypatch.setitem(CORPUS_SETS, "multi30k", tiny)
    return tmp_path


class TestMulti30k:
    def test_packed_and_plain(self, tiny_multi30k):
        packed = located(tiny_multi30k, "multi30k")
        assert (packed.train_objects, packed.test_objects, packed.whole) == (12, 4, True)
        path = tiny_multi30k / "text" / "multi30k" / "train.fr.gz"
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.write_bytes(b"damaged")
        plain = located(tiny_multi30k, "multi30k")
        assert plain.checksum == packed.checksum
        assert plain.parts[1] == (path.with_suffix(""),)
        corpus = load_corpus(plain, **SIZES)
        assert as_pairs(corpus.test) == [(f"fr test_2016_flickr {k}", f"en test_2016_flickr {k}") for k in (0, 1)]

    def test_other_content_is_damaged(self, tiny_multi30k):
        path = tiny_multi30k / "text" / "multi30k" / "train.en.gz"
        path.write_bytes(gzip.compress(b"other\n" * 12))
        told = refusal(DamagedData, 3, located, tiny_multi30k, "multi30k")
        assert "train.en.gz is damaged: sha256 " in told
        assert "run `landscape data fetch multi30k`" in told
        path.unlink()
        told = refusal(MissingData, 3, located, tiny_multi30k, "multi30k")
        assert "is incomplete: train.en is missing" in told

    def test_sound_copy_behind_a_damaged_one(self, tiny_multi30k, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        (other / "multi30k").mkdir()
        (other / "multi30k" / "train.de").write_text("x\n")
        source = locate_corpus({"name": "multi30k"}, [other, tiny_multi30k])
        assert source.place == str(tiny_multi30k / "text" / "multi30k")

    def test_not_found(self, tmp_path):
        told = refusal(MissingData, 3, located, tmp_path, "multi30k")
        assert "looked for text/multi30k/train.de, " in told
        assert "`landscape data fetch multi30k` downloads it, profile=embedded needs no download" in told

    def test_fetch(self, tiny_multi30k, server, monkeypatch, tmp_path_factory):
        published, root = CORPUS_SETS["multi30k"], tmp_path_factory.mktemp("new") / "root"
        monkeypatch.setitem(CORPUS_SETS, "multi30k", replace(published, url=server["url"]))
        folder = tiny_multi30k / "text" / "multi30k"
        for path in folder.iterdir():
            server[f"/{path.name}"] = path.read_bytes()
        server["/train.fr.gz"] = b"other"
        told = refusal(MissingData, 3, fetch_corpus, "multi30k", root, progress=False)
        assert told.startswith("download of 'multi30k' failed (")
        assert "hash" in told
        assert not list((root / "text").iterdir())
        server["/train.fr.gz"] = (folder / "train.fr.gz").read_bytes()
        source = fetch_corpus("multi30k", root, progress=False)
        assert source == located(root, "multi30k")
        assert source.checksum == located(tiny_multi30k, "multi30k").checksum
        assert len([path for path in root.rglob("*") if path.is_file()]) == 6
        asked = len(server["asked"])
        fetch_corpus("multi30k", root)
        assert len(server["asked"]) == asked

    def test_real(self, real_data):
        folder = real_data / "text" / "multi30k"
        if not folder.is_dir():
            pytest.skip(f"no real corpus: {folder} is not there")
        corpus = load_corpus(located(real_data, "multi30k"), teacher_size=5000, student_size=2000, test_size=500)
        lines = {}
        for language in LANGUAGES:
            text = gzip.decompress((folder / f"train.{language}.gz").read_bytes()).decode()
            lines[language] = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
            assert len(lines[language]) == 29000
        assert (corpus.teacher.source, corpus.teacher.target) == (lines["de"][:5000], lines["en"][:5000])
        assert (corpus.relative.source, corpus.relative.target) == (lines["fr"][:5000], lines["en"][:5000])
        assert (corpus.student.source, corpus.student.target) == (lines["fr"][5000:7000], lines["en"][5000:7000])
        assert (corpus.aligned.source, corpus.aligned.target) == (lines["fr"][7000:], lines["de"][7000:])
        assert len(corpus.test) == 500


def write_pairs(root: Path, pair: str, split: str, count: int, shards: int = 1, blank: int | None = None) -> None:
    """Write a split as the Hugging Face hub has it."""
    folder = root / "text" / "opus100" / pair
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{name: f"{pair} {split} {name} {k}" for name in pair.split("-")} for k in range(count)]
    if blank is not None:
        rows[blank][pair.split("-")[0]] = " "
    for shard in range(shards):
        part = rows[shard * count // shards : (shard + 1) * count // shards]
        path = folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
        pq.write_table(pa.table({"translation": part}), path)


@pytest.fixture
def opus(tmp_path) -> Path:
    for pair, split, count in (
        ("de-en", "train", 9),
        ("en-fr", "train", 11),
        ("en-fr", "test", 4),
        ("de-fr", "test", 6),
        ("de-en", "test", 4),
    ):
        write_pairs(tmp_path, pair, split, count)
    return tmp_path


class TestOpus:
    def test_read(self, opus):
        source = located(opus, "opus100")
        assert (source.train_objects, source.test_objects, source.aligned_objects, source.whole) == (9, 4, 6, False)
        assert source.place == str(opus / "text" / "opus100")
        corpus = load_corpus(source, **SIZES)
        assert as_pairs(corpus.teacher) == [(f"de-en train de {k}", f"de-en train en {k}") for k in range(5)]
        assert as_pairs(corpus.student) == [(f"en-fr train fr {k}", f"en-fr train en {k}") for k in range(3)]
        assert as_pairs(corpus.relative) == [(f"en-fr train fr {k}", f"en-fr train en {k}") for k in range(3, 8)]
        assert as_pairs(corpus.test) == [(f"en-fr test fr {k}", f"en-fr test en {k}") for k in range(2)]
        assert as_pairs(corpus.teacher_test) == [(f"de-en test de {k}", f"de-en test en {k}") for k in range(2)]
        assert as_pairs(corpus.aligned) == [(f"de-fr test fr {k}", f"de-fr test de {k}") for k in range(6)]
        assert len(load_corpus(source, **SIZES, pairs=4).aligned) == 4

    def test_shards_in_order(self, opus):
        whole = load_corpus(located(opus, "opus100"), **SIZES)
        (opus / "text" / "opus100" / "de-en" / "train-00000-of-00001.parquet").unlink()
        write_pairs(opus, "de-en", "train", 9, shards=3)
        assert load_corpus(located(opus, "opus100"), **SIZES).teacher == whole.teacher
        (opus / "text" / "opus100" / "de-en" / "train-00001-of-00003.parquet").unlink()
        told = refusal(MissingData, 3, located, opus, "opus100")
        assert "it has 2 of the 3 files of its train split" in told

    def test_lines_of_json(self, opus):
        before = load_corpus(located(opus, "opus100"), **SIZES)
        folder = opus / "text" / "opus100" / "en-fr"
        rows = pq.read_table(folder / "train-00000-of-00001.parquet").to_pylist()
        (folder / "train-00000-of-00001.parquet").unlink()
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        after = load_corpus(located(opus, "opus100"), **SIZES)
        assert (after.student, after.relative) == (before.student, before.relative)
        (folder / "train.jsonl").write_text('{"translation": {"en": "a", "fr": "b"}}\n{"translation": "c"}\n')
        told = refusal(DamagedData, 3, located, opus, "opus100")
        assert "line 2 is not of the form" in told
        assert "get it again from https://huggingface.co/" in told

    def test_blank_sentences_are_passed_over(self, opus):
        write_pairs(opus, "de-en", "train", 9, blank=1)
        corpus = load_corpus(located(opus, "opus100"), **SIZES)
        assert corpus.teacher.source == tuple(f"de-en train de {k}" for k in (0, 2, 3, 4, 5))
        write_pairs(opus, "en-fr", "test", 4, blank=1)
        told = refusal(BadInput, 2, load_corpus, located(opus, "opus100"), **{**SIZES, "test_size": 4})
        assert told.startswith("measure.test_objects: ")
        assert "3 pairs without a blank sentence, 4 are needed" in told

    def test_sizes(self, opus):
        source = located(opus, "opus100")
        told = refusal(BadInput, 2, load_corpus, source, **{**SIZES, "student_size": 5})
        assert "measure.student_objects: 5; allowed: 1 to 4" in told
        assert "mapping.pairs: 7; allowed: 0 to 6" in refusal(BadInput, 2, load_corpus, source, **SIZES, pairs=7)

    def test_damaged(self, opus):
        path = opus / "text" / "opus100" / "en-fr" / "test-00000-of-00001.parquet"
        path.write_bytes(path.read_bytes()[:-20])
        assert "is damaged: it cannot be read" in refusal(DamagedData, 3, located, opus, "opus100")
        pq.write_table(pa.table({"text": ["a"]}), path)
        told = refusal(DamagedData, 3, located, opus, "opus100")
        assert "it has no column 'translation' with fr and en" in told
        pq.write_table(
            pa.table({"translation": pa.array([], pa.struct([("en", pa.string()), ("fr", pa.string())]))}), path
        )
        assert "is damaged: it is empty" in refusal(DamagedData, 3, located, opus, "opus100")

    def test_is_not_fetched(self, tmp_path):
        told = refusal(MissingData, 3, fetch_corpus, "opus100", tmp_path)
        assert "put the folders de-en, en-fr and de-fr of https://huggingface.co/datasets/Helsinki-NLP/opus-100" in told
        with pytest.raises(BadInput, match="'opus10' is no corpus; did you mean 'opus100'"):
            fetch_corpus("opus10", tmp_path)

    def test_incomplete(self, opus):
        (opus / "text" / "opus100" / "de-fr" / "test-00000-of-00001.parquet").unlink()
        told = refusal(MissingData, 3, located, opus, "opus100")
        assert "is incomplete: de-fr/test-*.parquet is missing" in told

    def test_only_what_is_needed_is_read(self, opus, monkeypatch):
        """The first row group holds enough; the second is never decoded."""
        path = opus / "text" / "opus100" / "de-en" / "train-00000-of-00001.parquet"
        rows = pq.read_table(path)
        large = pa.concat_tables([rows] * 2000)
        pq.write_table(large, path, row_group_size=9000)
        read = []
        batches = pq.ParquetFile.iter_batches

        def counted(self, *arguments, **options):
            for batch in batches(self, *arguments, **options):
                read.append(batch.num_rows)
                yield batch

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
        source = located(opus, "opus100")
        assert read == []
        load_corpus(source, **SIZES)
        assert sum(read) < large.num_rows / 2
