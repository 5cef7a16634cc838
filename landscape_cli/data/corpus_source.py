"""A parallel corpus that was found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from landscape_cli.data.corpus_sets import GENERATED, PAIRS, CorpusSet
from landscape_cli.errors import DamagedData


@dataclass(frozen=True)
class CorpusSource:
    """A parallel corpus that was found, with its files verified."""

    name: str
    title: str
    description: str
    layout: str  # GENERATED, LINES, PAIRS or OWN
    parts: tuple[tuple[Path, ...], ...]  # files: of each aligned text, or of each split of a pair of languages
    checksum: str  # SHA-256 hex digest; of text the same for packed and plain files
    train_objects: int  # aligned train lines; of PAIRS the smaller of the two train splits
    test_objects: int
    languages: tuple[str, str, str]  # teacher's, student's, target
    dropped: int = 0  # lines left out because one of the languages is blank
    aligned_objects: int | None = None  # lines for the mapping alone; None: train lines after the others serve
    whole: bool = True

    unit: ClassVar[str] = "aligned train lines"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(path for part in self.parts for path in part)

    @property
    def place(self) -> str:
        """The folder, or that it is generated."""
        if self.layout == GENERATED:
            return GENERATED
        return str(self.files[0].parent.parent if self.layout == PAIRS else self.files[0].parent)


def source_of(
    published: CorpusSet,
    parts: tuple[tuple[Path, ...], ...],
    checksum: str,
    train_objects: int,
    test_objects: int,
    languages: tuple[str, str, str],
    **others: Any,
) -> CorpusSource:
    """Return the source of a known corpus."""
    about = (published.name, published.title, published.description, published.layout)
    return CorpusSource(*about, parts, checksum, train_objects, test_objects, languages, **others)


def checksum_of(names: Sequence[str], digests: Sequence[str]) -> str:
    """Return the digest of a corpus from those of its files."""
    text = "\n".join(f"sha256 {name} {digest}" for name, digest in zip(names, digests, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def check_unchanged(source: CorpusSource, checksum: str) -> None:
    """Refuse files that are no longer those that were located."""
    if checksum != source.checksum:
        raise DamagedData(f"data set '{source.name}': {source.place} has changed since the run began; run again")
