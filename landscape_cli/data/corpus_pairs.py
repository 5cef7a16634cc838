"""Corpora with a folder a pair of languages, not aligned with each other, in the layout of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from landscape_cli.data.archive import damaged
from landscape_cli.data.corpus_files import BadCorpus, count_rows, file_digest, find_split, first_rows
from landscape_cli.data.corpus_sets import LANGUAGES, CorpusSet
from landscape_cli.data.corpus_source import CorpusSource, check_unchanged, checksum_of, source_of
from landscape_cli.errors import BadInput, MissingData


def _pairs(languages: tuple[str, str, str]) -> list[tuple[str, tuple[str, str]]]:
    """Split and languages of each part: teacher's, student's, its test, the mapping's, the teacher's test."""
    teacher, student, target = languages
    own = (student, target)
    return [
        ("train", (teacher, target)),
        ("train", own),
        ("test", own),
        ("test", (student, teacher)),
        ("test", (teacher, target)),
    ]


def from_pairs(published: CorpusSet, folder: Path, languages: tuple[str, str, str]) -> CorpusSource | None:
    """Find a known corpus that has a folder a pair of languages."""
    folders = [folder / "-".join(sorted(pair)) for _, pair in _pairs(languages)]
    if not any(place.is_dir() for place in folders):
        return None
    parts, counts, digests = [], [], []
    for place, (split, pair) in zip(folders, _pairs(languages), strict=True):
        try:
            files = find_split(place, split)
        except BadCorpus as problem:
            raise MissingData(f"data set '{published.name}': {place} is incomplete: {problem}") from problem
        if not files:
            raise MissingData(
                f"data set '{published.name}': {folder} is incomplete: {place.name}/{split}-*.parquet is missing; "
                + how_to_get(published)
            )
        rows = 0
        for path in files:
            try:
                rows += count_rows(path, pair)
                digests.append((f"{place.name}/{path.name}", file_digest(path)))
            except BadCorpus as problem:
                raise damaged(published.name, path, str(problem)) from problem
        if not rows:
            raise damaged(published.name, files[0], "it is empty")
        parts.append(files)
        counts.append(rows)
    train, test = min(counts[:2]), min(counts[2], counts[4])
    # How many lines other pairs have is not known, so that a part of them cannot be told.
    known = set(languages) == set(LANGUAGES.values())
    whole = not known or (train, test) == (published.train_lines, published.test_lines)
    checksum = checksum_of(*zip(*digests, strict=True))
    own = {"aligned_objects": counts[3], "whole": whole}
    return source_of(published, tuple(parts), checksum, train, test, languages, **own)


def read_pairs(source: CorpusSource, counts: Sequence[int]) -> list[list[tuple[str, str]]]:
    """Read the first so many pairs of sentences of each part (:func:`_pairs`).

    Raises
    ------
    BadInput
        Without those with a blank sentence there are fewer.
    DamagedData
        The files are no longer those that were located.
    """
    tested = "measure.test_objects"
    keys = ("measure.teacher_objects", "measure.student_objects", tested, "mapping.pairs", tested)
    found, digests = [], []
    for part, (_, pair), count, key in zip(source.parts, _pairs(source.languages), counts, keys, strict=True):
        path = part[0]
        try:
            for path in part:
                digests.append((f"{path.parent.name}/{path.name}", file_digest(path)))
            found.append(first_rows(part, pair, count))
        except BadCorpus as problem:
            raise damaged(source.name, path, str(problem)) from problem
        if len(found[-1]) < count:
            there = f"{path.parent} has {len(found[-1])} pairs without a blank sentence, {count} are needed"
            raise BadInput(f"{key}: {there}; allowed: fewer")
    check_unchanged(source, checksum_of(*zip(*digests, strict=True)))
    return found


def how_to_get(published: CorpusSet) -> str:
    """Return what to do for a corpus that is not fetched from here."""
    return f"put the folders de-en, en-fr and de-fr of {published.get} into text/{published.name}/ of a data root"
