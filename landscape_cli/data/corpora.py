"""Where a parallel corpus is, how many lines it has, and its sentences as pairs for teacher and student (thesis 4.2).

Lines are taken from the front, so that a small run reads a part of what a large one reads; teacher, student and the
mapping get different lines. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape_cli.data.corpus_pairs import from_pairs, how_to_get, read_pairs
from landscape_cli.data.corpus_sets import (
    CORPUS_SETS,
    GENERATED,
    LANGUAGES,
    LINES,
    PAIRS,
    CorpusSet,
    check_corpus_name,
)
from landscape_cli.data.corpus_source import CorpusSource, source_of
from landscape_cli.data.corpus_text import from_lines, own_corpus, read_rows
from landscape_cli.data.locate import check_train_size, expand
from landscape_cli.data.own_tables import expand_path
from landscape_cli.data.toy_corpus import toy_sentences
from landscape_cli.errors import BadInput, MissingData


@dataclass(frozen=True)
class Bitext:
    """Sentences and their translations."""

    source: tuple[str, ...]  # (m,)
    target: tuple[str, ...]  # (m,)

    def __len__(self) -> int:
        return len(self.source)

    def first(self, count: int | None) -> Bitext:
        """The first so many, at most; None: all."""
        return Bitext(self.source[:count], self.target[:count])


@dataclass(frozen=True)
class Corpus:
    """What teacher and student learn from."""

    teacher: Bitext  # teacher's language -> target
    student: Bitext  # student's language -> target, of other lines than the teacher's
    relative: Bitext  # student's language -> target, for a teacher of the student's domain; as many as the teacher's
    test: Bitext  # student's language -> target
    teacher_test: Bitext  # teacher's language -> target
    aligned: Bitext  # student's language -> teacher's, for the mapping; of lines that neither of them uses
    source: CorpusSource


def locate_corpus(wanted: Mapping[str, Any], roots: Sequence[str | Path]) -> CorpusSource:
    """Find a parallel corpus and verify its files.

    Parameters
    ----------
    wanted
        Keys of :class:`~landscape_cli.config.CorpusConfig`: ``name``, and where they are not the default ``path`` and
        the three languages.
    roots
        Folders, searched in order: ``text/<name>/`` in each and then ``<name>/``. A damaged copy is passed over for a
        whole one and for nothing less.

    Raises
    ------
    MissingData
        It was not found, or what was found is incomplete or damaged.
    BadInput
        There is no such corpus, it has not these languages, or a user's own files do not fit together.
    """
    name, path = wanted["name"], wanted.get("path")
    check_corpus_name(name, path)
    languages = tuple(wanted.get(role, default) for role, default in LANGUAGES.items())
    if path is not None:
        return own_corpus(name, expand_path(path), languages)
    published = CORPUS_SETS[name]
    for role, language in zip(LANGUAGES, languages, strict=True):
        if published.languages and language not in published.languages:
            known = ", ".join(published.languages)
            raise BadInput(f"dataset.{role}: {language!r} with {published.title}; allowed: {known}")
    if published.layout == GENERATED:
        rows = _generated(published)
        checksum = hashlib.sha256("\n".join("\t".join(row) for part in rows for row in part).encode()).hexdigest()
        return source_of(published, (), checksum, *map(len, rows), languages)
    find = {LINES: from_lines, PAIRS: from_pairs}[published.layout]
    part, problems = None, []
    for folder in (place for root in map(expand, roots) for place in (root / "text" / name, root / name)):
        try:
            source = find(published, folder, languages)
        except MissingData as problem:
            problems.append(problem)
            continue
        if source and source.whole:
            return source
        part = part or source
    if problems:
        raise problems[0]
    if part is None:
        raise MissingData(corpus_missing_message(published, roots))
    return part


def load_corpus(
    source: CorpusSource,
    *,
    teacher_size: int,
    student_size: int,
    test_size: int,
    pairs: int | None = None,
    limit: int | None = None,
) -> Corpus:
    """Read the first so many sentences for each purpose.

    Parameters
    ----------
    source
        From :func:`locate_corpus`.
    teacher_size, student_size, test_size
        Numbers of sentences.
    pairs
        For the mapping; None: all that the others leave, of PAIRS all of their own file. 0: none is needed.
    limit
        Of the train lines only the first so many may be used; None: all.

    Raises
    ------
    BadInput
        There are fewer sentences.
    DamagedData
        The files are no longer those that were located.
    """
    limit = check_train_size(source, limit)
    most = f"{limit} of {source.train_objects}" if limit < source.train_objects else str(limit)
    lines = f"{source.title} has {most} train lines to use"
    _check_size("measure.teacher_objects", teacher_size, limit - 1, f"{lines}, of which the student needs some")
    left = limit - teacher_size
    _check_size("measure.student_objects", student_size, left, f"{lines}, of which the teacher's take {teacher_size}")
    _check_size("measure.test_objects", test_size, source.test_objects, f"{source.title} has so many test lines")
    rest = left - student_size if source.aligned_objects is None else source.aligned_objects
    about = f"so many lines of {source.title} are left for the mapping"
    # Asked for all of nothing, a mapping could not be estimated.
    _check_size("mapping.pairs", pairs, rest, about, minimum=int(pairs is None))
    pairs = rest if pairs is None else pairs
    if source.layout == PAIRS:
        counts = (teacher_size, student_size + teacher_size, test_size, pairs, test_size)
        teacher, own, test, aligned, teacher_test = (_bitext(rows, 0, 1) for rows in read_pairs(source, counts))
        student, relative = (
            Bitext(own.source[part], own.target[part]) for part in (slice(student_size), slice(student_size, None))
        )
        return Corpus(teacher, student, relative, test, teacher_test, aligned, source)
    train, test = _generated_rows(source) if source.layout == GENERATED else read_rows(source)
    ends = teacher_size, teacher_size + student_size
    return Corpus(
        teacher=_bitext(train[: ends[0]], 0, 2),
        student=_bitext(train[ends[0] : ends[1]], 1, 2),
        relative=_bitext(train[: ends[0]], 1, 2),
        test=_bitext(test[:test_size], 1, 2),
        teacher_test=_bitext(test[:test_size], 0, 2),
        aligned=_bitext(train[ends[1] : ends[1] + pairs], 1, 0),
        source=source,
    )


def corpus_missing_message(published: CorpusSet, roots: Sequence[str | Path]) -> str:
    """Return the line that says what was looked for, where, and what to do."""
    searched = ", ".join(str(expand(root)) for root in roots) or "no folder (data.roots is empty)"
    folder = f"text/{published.name}"
    if published.layout == LINES:
        files = ", ".join(f"{folder}/{file.name}" for file in published.files) + " (packed as .gz or plain)"
        remedy = f"`landscape data fetch {published.name}` downloads it"
    else:
        files = f"{folder}/{{de-en,en-fr}}/{{train,test}}-*.parquet, {folder}/de-fr/test-*.parquet"
        remedy = how_to_get(published)
    return (
        f"data set '{published.name}' ({published.title}) not found: looked for {files} in {searched}; {remedy}, "
        "profile=embedded needs no download"
    )


def _check_size(key: str, size: int | None, most: int, about: str, minimum: int = 1) -> None:
    if not minimum <= (most if size is None else size) <= most:
        given = "null (all)" if size is None else size
        allowed = f"{minimum} to {most}" if most >= minimum else "none, there are too few"
        raise BadInput(f"{key}: {given}; allowed: {allowed} ({about})")


def _bitext(rows: Sequence[tuple[str, ...]], source: int, target: int) -> Bitext:
    return Bitext(tuple(row[source] for row in rows), tuple(row[target] for row in rows))


def _generated(published: CorpusSet) -> tuple[Sequence[tuple[str, ...]], Sequence[tuple[str, ...]]]:
    return toy_sentences(published.train_lines, published.test_lines)


def _generated_rows(source: CorpusSource) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return train rows and test rows (teacher's language, student's, target)."""
    published = CORPUS_SETS[source.name]
    columns = [published.languages.index(language) for language in source.languages]
    train, test = ([tuple(row[k] for k in columns) for row in part] for part in _generated(published))
    return train, test
