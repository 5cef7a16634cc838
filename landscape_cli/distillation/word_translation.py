"""A word-translation model estimated from aligned sentences: IBM model 1 (thesis 4.2.3, where no NLLB is given).

Brown, Della Pietra, Della Pietra and Mercer (The mathematics of statistical machine translation, Computational
Linguistics 19(2), 1993, section 4.1). A source sentence f_1 … f_l and f_0, the empty word NULL, have given the target
sentence e_1 … e_m with probability

    p(e | f) = ∏_j 1/(l+1) Σ_i t(e_j | f_i):

every target word comes from one place of the source, all equally likely, by the table t, whose rows sum to 1. The
factor ε for the length m is left out (1): it does not depend on t. The logarithm is concave in t, so that EM, which
never lowers it, goes to the maximum.

As a mapping φ it translates word by word, in the source's order. Imports no torch.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from landscape_cli.errors import BadInput

WORD = re.compile(r"\w+(?:-\w+)*(?:['’](?=\w))?|[^\w\s]")
TIE = 1e-9  # relative; closer probabilities differ by the order of the sentences


@dataclass(frozen=True)
class WordTranslation:
    """The table t of IBM model 1, of words that occur in aligned sentences together."""

    source_words: tuple[str, ...]  # (S,), sorted
    target_words: tuple[str, ...]  # (T,), sorted
    probabilities: csr_array  # (S + 1, T) float64, t(target | source); the last row is NULL's; rows sum to 1
    log_likelihoods: np.ndarray  # (iterations + 1,) nats of the whole text, before the first iteration and after each

    def translate(self, sentences: Iterable[str]) -> list[str]:
        """Replace each word by argmax_d t(d | word); one that was never seen stays as it is.

        Returns
        -------
        One for each sentence, its words and punctuation apart by single spaces.
        """
        return [" ".join(self.dictionary.get(word, word) for word in tokenise(sentence)) for sentence in sentences]

    def probability(self, source_word: str | None, target_word: str) -> float:
        """t(target | source), 0 of words that do not occur together; a source of None is NULL."""
        row = len(self.source_words) if source_word is None else self._rows.get(source_word)
        column = self._columns.get(target_word)
        return 0.0 if row is None or column is None else float(self.probabilities[row, column])

    @cached_property
    def dictionary(self) -> dict[str, str]:
        """The likeliest translation of each source word; of equally likely ones the first in the alphabet."""
        table = self.probabilities
        filled = np.flatnonzero(np.diff(table.indptr)[:-1])  # a word may have had empty sentences across only
        if not len(filled):
            return {}
        starts, stop = table.indptr[filled], table.indptr[-2]
        highest = np.zeros(len(self.source_words))
        highest[filled] = np.maximum.reduceat(table.data[:stop], starts)
        row = np.repeat(np.arange(len(self.source_words)), np.diff(table.indptr)[:-1])
        best = np.flatnonzero(table.data[:stop] >= (1 - TIE) * highest[row])
        rows, first = np.unique(row[best], return_index=True)  # columns rise within a row, words are sorted
        columns = table.indices[best[first]]
        return {self.source_words[r]: self.target_words[c] for r, c in zip(rows, columns, strict=True)}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.source_words)}

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {word: column for column, word in enumerate(self.target_words)}


def tokenise(sentence: str) -> list[str]:
    """Split a sentence into lower-case words and single punctuation marks.

    A word is letters, digits and underscores, with hyphens inside; an apostrophe before a letter ends a word and
    belongs to it, as in the French ``l'eau``: ``l'``, ``eau``. Accented letters are one character each (NFC).
    """
    return WORD.findall(unicodedata.normalize("NFC", sentence).lower())


def fit_word_translation(source: Sequence[str], target: Sequence[str], iterations: int = 10) -> WordTranslation:
    """Estimate t by EM from a uniform start.

    Time and memory go by the places where a source word or NULL and a target word stand across from each other,
    Σ (l+1) m of them in the text: about 60 bytes each while they are counted, half as much in an iteration.

    Parameters
    ----------
    source, target
        Sentences that are translations of each other, in the same order.

    Raises
    ------
    BadInput
        Unequal numbers of sentences, none, none with words on a side, or fewer than 1 iteration.
    """
    if len(source) != len(target):
        raise BadInput(
            f"word translation: {len(source)} source sentences and {len(target)} target sentences; allowed: equally "
            "many, each the translation of the other"
        )
    if iterations < 1:
        raise BadInput(f"word translation: {iterations} iterations; allowed: 1 or more")
    (sources, source_lengths, source_words), (targets, target_lengths, target_words) = map(_numbered, (source, target))
    for side, words in (("source", source_words), ("target", target_words)):
        if not words:
            raise BadInput(f"word translation: no words in {len(source)} {side} sentences; allowed: one or more")

    entry, starts, row, column = _across(sources, source_lengths, targets, target_lengths, len(source_words))
    places = np.repeat(source_lengths + 1, target_lengths)  # l + 1, for each target word in the text
    constant = np.log(places).sum()
    t, log_likelihoods = np.full(len(row), 1 / len(target_words)), []
    for _ in range(iterations):
        joint = t[entry]
        sums = np.add.reduceat(joint, starts)
        log_likelihoods.append(np.log(sums).sum() - constant)
        joint /= np.repeat(sums, places)  # probability that this source word gave this target word
        counts = np.bincount(entry, joint, minlength=len(row))
        t = counts / np.bincount(row, counts, minlength=len(source_words) + 1)[row]
    log_likelihoods.append(np.log(np.add.reduceat(t[entry], starts)).sum() - constant)
    table = csr_array((t, (row, column)), shape=(len(source_words) + 1, len(target_words)))
    return WordTranslation(source_words, target_words, table, np.array(log_likelihoods))


def _numbered(sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the words of all sentences in turn as numbers, the lengths (N,), and the sorted words."""
    split = [tokenise(sentence) for sentence in sentences]
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    text = [word for words in split for word in words]
    known = sorted(set(text))
    numbers = {word: number for number, word in enumerate(known)}
    return np.fromiter(map(numbers.__getitem__, text), np.int64, len(text)), lengths, tuple(known)


def _across(
    sources: np.ndarray, source_lengths: np.ndarray, targets: np.ndarray, target_lengths: np.ndarray, null: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List the places where a source word, or NULL, and a target word stand across from each other.

    Target word by target word, each with all words of its source sentence and then NULL.

    Returns
    -------
    entry
        Number of each place's pair of words in t, shape (Σ (l+1) m,).
    starts
        Where each target word's places begin, shape (Σ m,).
    row, column
        The words of each pair, both of shape (P,), sorted by row and then column.
    """
    ends = np.cumsum(source_lengths)
    with_null = np.insert(sources, ends, null)
    first = np.repeat(ends - source_lengths + np.arange(len(ends)), target_lengths)  # of each target word's sentence
    places = np.repeat(source_lengths + 1, target_lengths)
    starts = np.cumsum(places) - places
    where = np.repeat(first - starts, places)
    where += np.arange(len(where))
    width = int(targets.max()) + 1
    codes = with_null[where] * width + np.repeat(targets, places)
    pairs, entry = np.unique(codes, return_inverse=True)
    return entry, starts, *np.divmod(pairs, width)
