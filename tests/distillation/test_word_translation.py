"""IBM model 1, beside the textbook's example and an EM written out in loops."""

import math
from collections import defaultdict

import numpy as np
import pytest

from landscape_cli.distillation.word_translation import fit_word_translation, tokenise
from landscape_cli.errors import BadInput

HOUSES = ["das Haus", "das Buch", "ein Buch"], ["the house", "the book", "a book"]


def plain_em(source, target, iterations):
    """EM as in Koehn's pseudo-code, with NULL (None).

    Returns
    -------
    t by (source word, target word), and the log-likelihoods.
    """
    pairs = [([*tokenise(f), None], tokenise(e)) for f, e in zip(source, target, strict=True)]
    words = {word for _, e in pairs for word in e}
    t, found = defaultdict(lambda: 1 / len(words)), []

    def log_likelihood():
        terms = (math.log(sum(t[a, b] for a in f) / len(f)) for f, e in pairs for b in e)
        return math.fsum(terms)

    for _ in range(iterations):
        found.append(log_likelihood())
        counts, totals = defaultdict(float), defaultdict(float)
        for f, e in pairs:
            for b in e:
                whole = sum(t[a, b] for a in f)
                for a in f:
                    counts[a, b] += t[a, b] / whole
                    totals[a] += t[a, b] / whole
        t = defaultdict(float, {(a, b): count / totals[a] for (a, b), count in counts.items()})
    return t, [*found, log_likelihood()]


def random_text(sentences=60, words=25, longest=9, seed=0):
    random = np.random.default_rng(seed)

    def side(letter):
        return [
            " ".join(f"{letter}{min(random.geometric(0.12), words)}" for _ in range(random.integers(0, longest)))
            for _ in range(sentences)
        ]

    return side("f"), side("e")


def test_against_loops():
    """With empty sentences, words that stand in one sentence twice, and words that are never across from any."""
    source, target = random_text()
    assert "" in source
    assert "" in target
    source, target = [*source, "lonely", "f1 f1 f2"], [*target, "", "e3 e3 e3"]
    model = fit_word_translation(source, target, iterations=7)
    t, log_likelihoods = plain_em(source, target, 7)
    for f in (None, *model.source_words):
        for e in model.target_words:
            assert model.probability(f, e) == pytest.approx(t[f, e], rel=1e-10, abs=1e-14)
    np.testing.assert_allclose(model.log_likelihoods, log_likelihoods, rtol=1e-12)
    assert model.probabilities.shape == (len(model.source_words) + 1, len(model.target_words))
    sums = dict(zip((*model.source_words, None), model.probabilities.sum(axis=1), strict=True))
    assert sums.pop("lonely") == 0
    np.testing.assert_allclose(list(sums.values()), 1, rtol=1e-12)
    assert model.translate(["Lonely f1"])[0].startswith("lonely e")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_likelihood_never_falls(seed):
    found = fit_word_translation(*random_text(seed=seed), iterations=60).log_likelihoods
    assert found.shape == (61,)
    assert (np.diff(found) >= -1e-9 * abs(found[0])).all()
    assert np.diff(found)[0] > 1


def test_the_textbooks_example():
    """Das Haus, das Buch, ein Buch: by hand, the first step, and the limit.

    From the uniform start every place of a sentence has the same share, 1/3 with NULL: das counts 1/3 for house and
    book, 2/3 for the.
    """
    first = fit_word_translation(*HOUSES, iterations=1)
    expected = {
        "das": {"the": 1 / 2, "house": 1 / 4, "book": 1 / 4},
        "haus": {"the": 1 / 2, "house": 1 / 2},
        "buch": {"the": 1 / 4, "book": 1 / 2, "a": 1 / 4},
        "ein": {"a": 1 / 2, "book": 1 / 2},
        None: {"the": 1 / 3, "book": 1 / 3, "house": 1 / 6, "a": 1 / 6},
    }
    for f, row in expected.items():
        for e in ("the", "house", "book", "a"):
            assert first.probability(f, e) == pytest.approx(row.get(e, 0), abs=1e-15)
    # Each of six target words has, at the start, 1/3 Σ 1/4 = 1/4; then the sums of the rows above.
    the_house = (1 / 2 + 1 / 2 + 1 / 3) * (1 / 4 + 1 / 2 + 1 / 6)
    the_book = (1 / 2 + 1 / 4 + 1 / 3) * (1 / 4 + 1 / 2 + 1 / 3)
    a_book = (1 / 2 + 1 / 4 + 1 / 6) * (1 / 2 + 1 / 2 + 1 / 3)
    after = math.log(the_house * the_book * a_book / 3**6)
    np.testing.assert_allclose(first.log_likelihoods, [6 * math.log(1 / 4), after], rtol=1e-13)
    model = fit_word_translation(*HOUSES, iterations=100)
    for pair in (("das", "the"), ("haus", "house"), ("buch", "book"), ("ein", "a")):
        assert model.probability(*pair) > 0.95
    assert model.translate(["Ein Haus!", "das buch"]) == ["a house !", "the book"]


def test_a_text_word_by_word_is_learnt_exactly():
    random = np.random.default_rng(0)
    order = random.permutation(40)
    numbers = [random.choice(40, random.integers(3, 8), replace=False) for _ in range(500)]
    source = [" ".join(f"f{n}" for n in row) for row in numbers]
    target = [" ".join(f"e{order[n]}" for n in random.permutation(row)) for row in numbers]
    model = fit_word_translation(source, target)
    assert model.dictionary == {f"f{n}": f"e{order[n]}" for n in range(40)}
    unseen = " ".join(f"f{n}" for n in range(40))
    assert model.translate([unseen]) == [" ".join(f"e{order[n]}" for n in range(40))]


def test_the_order_of_the_sentences_does_not_matter():
    source, target = random_text(seed=4)
    model = fit_word_translation(source, target)
    shuffled = np.random.default_rng(0).permutation(len(source))
    other = fit_word_translation([source[n] for n in shuffled], [target[n] for n in shuffled])
    assert other.source_words == model.source_words == tuple(sorted(model.source_words))
    assert other.target_words == model.target_words
    np.testing.assert_allclose(other.probabilities.toarray(), model.probabilities.toarray(), atol=1e-12)
    np.testing.assert_allclose(other.log_likelihoods, model.log_likelihoods, rtol=1e-12)
    assert other.dictionary == model.dictionary


def test_of_equally_likely_words_the_first():
    model = fit_word_translation(["x"], ["b a c"])
    assert [model.probability("x", word) for word in "abc"] == pytest.approx([1 / 3] * 3)
    assert model.dictionary == {"x": "a"}


def test_words_never_seen():
    model = fit_word_translation(*HOUSES)
    assert model.translate(["Das ZEBRA, das Haus.", "", "  "]) == ["the zebra , the house .", "", ""]
    assert model.probability("zebra", "the") == model.probability("das", "zebra") == model.probability("das", "a") == 0
    assert fit_word_translation(["", "x y"], ["a", ""]).translate(["x y"]) == ["x y"]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Ein Hund, zwei Katzen.", ["ein", "hund", ",", "zwei", "katzen", "."]),
        ("L'eau d’Évian", ["l'", "eau", "d’", "évian"]),
        ("e\u0301te\u0301 été", ["été", "été"]),
        ("Ein 'T-Shirt' für 5 €!?", ["ein", "'", "t-shirt", "'", "für", "5", "€", "!", "?"]),
        ("les chiens' -- a-t-il", ["les", "chiens", "'", "-", "-", "a-t-il"]),
        ("Straße GROẞ\tx\ny", ["straße", "groß", "x", "y"]),
        ("", []),
    ],
)
def test_words_and_punctuation(sentence, words):
    assert tokenise(sentence) == words


def test_texts_that_cannot_be_learnt_from():
    with pytest.raises(BadInput, match="2 source sentences and 3 target sentences; allowed: equally many"):
        fit_word_translation(["a", "b"], ["a", "b", "c"])
    with pytest.raises(BadInput, match="no words in 0 source sentences"):
        fit_word_translation([], [])
    with pytest.raises(BadInput, match="no words in 2 source sentences"):
        fit_word_translation(["", " "], ["a", "b"])
    with pytest.raises(BadInput, match="no words in 2 target sentences"):
        fit_word_translation(["a", "b"], ["", " "])
    with pytest.raises(BadInput, match="0 iterations; allowed: 1 or more"):
        fit_word_translation(*HOUSES, iterations=0)
