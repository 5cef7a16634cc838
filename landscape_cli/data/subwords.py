"""Sentences as subwords: byte-pair encoding (Sennrich et al., 2016), estimated from the sentences themselves."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from landscape_cli.errors import BadInput

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

PADDING, BEGIN, END, UNKNOWN = range(4)  # ids
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
SPACE = "▁"  # stands for the space before a word
UNREADABLE = "⁇"  # what an unknown character is decoded to


class Encoded(NamedTuple):
    """Sentences as ids."""

    ids: torch.Tensor  # int64 (N, L), padded with 0
    cut: int  # how many of the N sentences were longer than allowed


class Subwords:
    """A vocabulary of subwords of one language: special ids 0 to 3, then characters, then merges by rank.

    Text is lower-cased, brought to Unicode's composed form (NFC) and has one space between words: a few thousand
    sentences are too few to learn each word twice. References for BLEU go through :func:`normalised` as well. Words are
    cut before and after punctuation; the space before a word is part of it, so that decoding restores the text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
        # A text that holds a special id's name is text.
        tokenizer.encode_special_tokens = True

    @classmethod
    def train(cls, sentences: Iterable[str], vocabulary_size: int) -> Subwords:
        """Estimate a vocabulary; the same sentences in whatever order give the same one.

        Parameters
        ----------
        vocabulary_size
            Most ids, the special ones included. There are fewer when no pair is left that occurs twice.

        Raises
        ------
        BadInput
            There is no text, or it has more different characters than the vocabulary has room for.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        texts = [text for text in map(normalised, sentences) if text]
        if not texts:
            raise BadInput("no text to take subwords from")
        least = len(SPECIAL) + len({SPACE}.union(*texts) - {" "})
        if vocabulary_size < least:
            raise BadInput(f"vocabulary_size={vocabulary_size}: the text's characters alone take {least}")
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN], fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(SPACE, prepend_scheme="always"), pre_tokenizers.Punctuation()]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, sentences: Sequence[str], max_length: int, begin: bool = False, end: bool = True) -> Encoded:
        """Encode sentences as rows of ids.

        Parameters
        ----------
        max_length
            Most ids of a sentence, begin and end included. A longer one loses its last subwords, not its end id.
        begin, end
            Whether the rows begin with id 1, and end with id 2.

        Returns
        -------
        Encoded
            int64 (N, L), L the longest row's length, padded with 0; and how many sentences were cut.

        Raises
        ------
        BadInput
            ``max_length`` leaves no room for a subword.
        """
        import torch

        room = max_length - begin - end
        if room < 1:
            raise BadInput(f"max_length={max_length} leaves no room for a subword")
        # One at a time: a batch would start the library's threads, which children of this process would warn about.
        pieces = [self._tokenizer.encode(normalised(sentence)).ids for sentence in sentences]
        rows = [[BEGIN] * begin + row[:room] + [END] * end for row in pieces]
        ids = torch.full((len(rows), max(map(len, rows), default=0)), PADDING, dtype=torch.int64)
        for to, row in zip(ids, rows, strict=True):
            to[: len(row)] = torch.tensor(row, dtype=torch.int64)
        return Encoded(ids, sum(len(row) > room for row in pieces))

    def decode(self, ids: torch.Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Turn rows of ids (N, L) into plain text, each up to its first end id; unknown characters become ⁇."""
        rows = ids.tolist() if hasattr(ids, "tolist") else ids
        return [self._text(row) for row in rows]

    def _text(self, row: Sequence[int]) -> str:
        until = row.index(END) if END in row else len(row)
        names = {PADDING: "", BEGIN: "", UNKNOWN: UNREADABLE}
        text = "".join(names.get(number, self._pieces[number]) for number in row[:until])
        return " ".join(text.replace(SPACE, " ").split())

    def __getstate__(self) -> str:
        return self._tokenizer.to_str()

    def __setstate__(self, state: str) -> None:
        from tokenizers import Tokenizer

        self.__init__(Tokenizer.from_str(state))

    def __eq__(self, other: object) -> bool:
        """Whether both cut every text alike."""
        if not isinstance(other, Subwords):
            return NotImplemented
        return json.loads(self._tokenizer.to_str()) == json.loads(other._tokenizer.to_str())

    __hash__ = None


def normalised(sentence: str) -> str:
    """Lower-case, compose (NFC), and leave one space between words: what a decoded text is to be compared with."""
    return " ".join(unicodedata.normalize("NFC", sentence.lower()).split())
