"""The known parallel corpora: their files and digests."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from landscape_cli.errors import BadInput

GENERATED, LINES, PAIRS, OWN = "generated", "lines", "pairs", "own"
LANGUAGES = {"teacher_language": "de", "student_language": "fr", "target_language": "en"}  # thesis 4.2

_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"


@dataclass(frozen=True)
class CorpusFile:
    """A published text file, one sentence a line."""

    name: str  # without .gz
    sha256: str  # of the text
    packed_sha256: str  # of the published .gz


@dataclass(frozen=True)
class CorpusSet:
    """A known parallel corpus."""

    name: str
    title: str
    description: str
    layout: str  # GENERATED; LINES: one file a language, aligned by line; PAIRS: a folder a pair of languages
    languages: tuple[str, ...] | None = None  # that it has; None: many, the files say which
    train_lines: int | None = None  # of the whole set; of PAIRS in each pair
    test_lines: int | None = None
    url: str | None = None  # of the folder with the .gz files; None: not fetched from here
    files: tuple[CorpusFile, ...] = ()  # of LINES
    get: str = ""  # where to get it, where it is not fetched


CORPUS_SETS: dict[str, CorpusSet] = {
    corpus.name: corpus
    for corpus in (
        CorpusSet(
            name="toy_translation",
            title="Toy translation",
            description="sentences of a small grammar in German, French and English",
            layout=GENERATED,
            languages=("de", "fr", "en"),
            train_lines=4000,
            test_lines=500,
        ),
        CorpusSet(
            name="multi30k",
            title="Multi30k",
            description="descriptions of pictures in German, English and French",
            layout=LINES,
            languages=("de", "en", "fr"),
            train_lines=29000,
            test_lines=1000,
            url=_MULTI30K,
            files=(
                CorpusFile(
                    "train.de",
                    "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
                    "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
                ),
                CorpusFile(
                    "train.en",
                    "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
                    "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
                ),
                CorpusFile(
                    "train.fr",
                    "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
                    "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
                ),
                CorpusFile(
                    "test_2016_flickr.de",
                    "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
                    "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
                ),
                CorpusFile(
                    "test_2016_flickr.en",
                    "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
                    "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
                ),
                CorpusFile(
                    "test_2016_flickr.fr",
                    "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
                    "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
                ),
            ),
        ),
        CorpusSet(
            name="opus100",
            title="OPUS-100",
            description="sentences of many sources, each in English and one other language",
            layout=PAIRS,
            train_lines=1_000_000,
            test_lines=2000,
            get="https://huggingface.co/datasets/Helsinki-NLP/opus-100",
        ),
    )
}


def check_corpus_name(name: str, path: str | None, key: str = "dataset.name") -> None:
    """Refuse a name that is neither a known corpus nor that of a user's own folder.

    Parameters
    ----------
    path
        Of the user's own folder, which a known corpus has not.
    key
        Where the name stands, for messages.

    Raises
    ------
    BadInput
        With what is allowed.
    """
    if name in CORPUS_SETS:
        if path is not None:
            raise BadInput(
                f"dataset.path: {path!r} with the corpus {name!r}, which has its own place; allowed: dataset=parallel"
            )
    elif path is None and name == "parallel":
        raise BadInput("dataset.path: null; allowed: a folder with aligned files, as in dataset.path=FOLDER")
    elif path is None:
        near = difflib.get_close_matches(name, CORPUS_SETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(CORPUS_SETS)
        raise BadInput(
            f"{key}: {name!r} is no corpus{hint}; known: {known}; your own: dataset=parallel dataset.path=FOLDER"
        )
