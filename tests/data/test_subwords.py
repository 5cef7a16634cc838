import pickle
import subprocess
import sys
import unicodedata

import pytest
import torch

from landscape_cli.data.subwords import BEGIN, END, PADDING, UNKNOWN, Subwords, normalised
from landscape_cli.errors import BadInput

SENTENCES = [
    "Zwei junge weiße Männer sind im Freien, in der Nähe vieler Büsche.",
    "Ein Mann mit Schutzhelm bedient ein Gerät.",
    "Les hommes n'ont pas vu l'arbre d'été près de l'église : c'est où ?",
    "Don't stop — the dog's 3.5 metres (or so) away!",
    "Der Mann sieht die Männer; die Männer sehen den Mann.",
    "Öl, Ärger und Übermut",
] * 3


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train(SENTENCES, 150)


def test_sentences_come_back_as_they_were_but_lower_case(subwords):
    ids, cut = subwords.encode(SENTENCES, 200, begin=True)
    assert subwords.decode(ids) == [sentence.lower() for sentence in SENTENCES]
    assert cut == 0
    assert UNKNOWN not in ids


def test_merges_make_rows_shorter_than_the_characters(subwords):
    row = subwords.encode(["Die Männer sehen den Mann."], 99).ids
    assert row.shape[1] < 0.7 * len("Die Männer sehen den Mann.")
    assert len(subwords) == 150
    assert row.max() < len(subwords)


def test_merges_are_the_most_frequent_pairs():
    # The pair (▁, a) occurs 5 times, (a, b) 3 times, and then as (▁a, b).
    small = Subwords.train(["ab ab ab a a"], 4 + 3 + 2)
    assert small.encode(["ab a b", "bb"], 9, end=False).ids.tolist() == [
        [small.encode(["ab"], 9).ids[0, 0], small.encode(["a"], 9).ids[0, 0], *small.encode(["b"], 9).ids[0, :2]],
        [*small.encode(["b"], 9).ids[0, :2], small.encode(["b"], 9).ids[0, 1], PADDING],
    ]
    assert [len(row) for row in small.encode(["ab"], 9, end=False).ids] == [1]


def test_special_ids_stand_at_the_ends_and_padding_behind(subwords):
    bare = subwords.encode(["Öl", "ein Mann sieht"], 50, end=False).ids
    assert bare.dtype == torch.int64
    lengths = [int((row != PADDING).sum()) for row in bare]
    assert lengths[0] < lengths[1] == bare.shape[1]
    for begin, end in ((False, True), (True, False), (True, True)):
        ids = subwords.encode(["Öl", "ein Mann sieht"], 50, begin=begin, end=end).ids
        for row, own, length in zip(ids.tolist(), bare.tolist(), lengths, strict=True):
            expected = [BEGIN] * begin + own[:length] + [END] * end
            assert row == expected + [PADDING] * (ids.shape[1] - len(expected))


def test_a_long_sentence_loses_its_tail_but_not_its_end(subwords):
    whole, long = subwords.encode(["Öl", SENTENCES[0]], 99, begin=True).ids.tolist()
    ids, cut = subwords.encode(["Öl", SENTENCES[0]], 7, begin=True)
    assert cut == 1
    assert ids.tolist() == [whole[:7], [*long[:6], END]]
    exact = len(long)
    assert subwords.encode([SENTENCES[0]], exact, begin=True).cut == 0
    assert subwords.encode([SENTENCES[0]], exact - 1, begin=True).cut == 1


def test_no_sentences_and_empty_ones(subwords):
    assert subwords.encode([], 9).ids.shape == (0, 0)
    assert subwords.encode(["", "  "], 9).ids.tolist() == [[END], [END]]
    assert subwords.decode(torch.tensor([[END, PADDING]])) == [""]


def test_decoding_stops_at_the_first_end(subwords):
    (row,) = subwords.encode(["Öl"], 9, end=False).ids.tolist()
    assert subwords.decode([[BEGIN, *row, END, *row, END]]) == ["öl"]
    assert subwords.decode([[BEGIN, *row, PADDING]]) == ["öl"]


def test_unknown_characters_are_shown(subwords):
    ids = subwords.encode(["der 日本 Mann"], 50).ids
    assert (ids == UNKNOWN).sum() == 1
    assert subwords.decode(ids) == ["der ⁇ mann"]


def test_names_of_special_ids_are_text():
    named = Subwords.train(["a </s> b <pad> <unk> <s>"], 99)
    ids = named.encode(["a </s> b <s> <pad> <unk>"], 99, end=False).ids
    assert ids.min() > UNKNOWN
    assert named.decode(ids) == ["a </s> b <s> <pad> <unk>"]


def test_text_is_composed_and_spaced_alike(subwords):
    decomposed = unicodedata.normalize("NFD", "Der  Ärger\tüber\n Öl ")
    assert normalised(decomposed) == "der ärger über öl"
    assert subwords.encode([decomposed], 50).ids.equal(subwords.encode(["der ärger über öl"], 50).ids)


def test_training_is_the_same_in_another_process_and_order(subwords):
    # Hashes differ from process to process, and many of the pairs occur equally often.
    code = f"""
import pickle
from landscape_cli.data.subwords import Subwords
print(pickle.dumps(Subwords.train({SENTENCES[::-1]!r}, 150)).hex())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert pickle.loads(bytes.fromhex(done.stdout)) == subwords
    assert Subwords.train(iter(SENTENCES), 150) == subwords
    assert Subwords.train(SENTENCES, 149) != subwords


def test_a_pickle_encodes_alike(subwords):
    again = pickle.loads(pickle.dumps(subwords))
    assert again == subwords
    texts = [*SENTENCES, "日 <pad>"]
    assert again.encode(texts, 99).ids.equal(subwords.encode(texts, 99).ids)


def test_impossible_sizes_are_refused(subwords):
    with pytest.raises(BadInput, match="no text"):
        Subwords.train(["", " "], 99)
    with pytest.raises(BadInput, match="take 7"):
        Subwords.train(["a b"], 6)
    assert len(Subwords.train(["a b"], 7)) == 7
    with pytest.raises(BadInput, match="room"):
        subwords.encode(["a"], 2, begin=True)


def test_importing_it_imports_neither_torch_nor_tokenizers():
    code = "import sys, landscape_cli.data.subwords; print({'torch', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
