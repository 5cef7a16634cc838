"""Corpora of aligned text, one sentence a line: known ones and a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from landscape_cli.data.archive import damaged
from landscape_cli.data.corpus_files import BadCorpus, complete, forms, lines_of, read_text
from landscape_cli.data.corpus_sets import LINES, OWN, CorpusSet
from landscape_cli.data.corpus_source import CorpusSource, check_unchanged, checksum_of, source_of
from landscape_cli.errors import BadInput, DamagedData, MissingData

_TEST = {LINES: "test_2016_flickr", OWN: "test"}


def from_lines(published: CorpusSet, folder: Path, languages: tuple[str, str, str]) -> CorpusSource | None:
    """Find a known corpus of aligned texts in a folder."""
    known = {file.name: file.sha256 for file in published.files}
    present = {name: forms(folder, name) for name in known}
    if not any(present.values()):
        return None
    roles = _roles(LINES, languages)
    for name in roles:
        if not present[name]:
            raise MissingData(
                f"data set '{published.name}': {folder} is incomplete: {name} is missing; "
                f"run `landscape data fetch {published.name}`"
            )
    files = tuple(_verified(published.name, known[name], present[name]) for name in roles)
    checksum = checksum_of(roles, [known[name] for name in roles])
    sizes = (published.train_lines, published.test_lines)
    return source_of(published, tuple((file,) for file in files), checksum, *sizes, languages)


def _verified(name: str, expected: str, paths: Sequence[Path]) -> Path:
    """Return the first of the files whose text is the published one."""
    problems = []
    for path in paths:
        try:
            found = hashlib.sha256(read_text(path)).hexdigest()
        except BadCorpus as problem:
            problems.append(damaged(name, path, str(problem)))
            continue
        if found == expected:
            return path
        problems.append(damaged(name, path, f"sha256 {expected[:12]} expected of its text, {found[:12]} found"))
    raise problems[0]


def own_corpus(name: str, folder: Path, languages: tuple[str, str, str]) -> CorpusSource:
    """Read a user's own aligned texts."""
    key = f"dataset.path: {folder}"
    if not folder.is_dir():
        raise MissingData(f"{key}: there is no such folder; allowed: a path, read from the current folder on")
    roles = _roles(OWN, languages)
    present = [forms(folder, role) for role in roles]
    gone = [role for role, paths in zip(roles, present, strict=True) if not paths]
    if gone:
        raise MissingData(f"{key}: {gone[0]} is missing; allowed: a folder with {', '.join(roles)}, plain or as .gz")
    parts = tuple(paths[:1] for paths in map(tuple, present))
    texts, checksum = _read_texts(parts, roles, key)
    counts = []
    for split in (slice(0, 3), slice(3, 6)):
        files = [part[0].name for part in parts[split]]
        lengths = [len(text) for text in texts[split]]
        other = next((k for k, length in enumerate(lengths) if length != lengths[-1]), None)
        if other is not None:
            told = f"{files[other]} has {lengths[other]} lines and {files[-1]} {lengths[-1]}"
            raise BadInput(f"{key}: {told}; allowed: files aligned line by line")
        rows = len(complete(texts[split]))
        if not rows:
            raise BadInput(f"{key}: {files[0]} and {files[-1]} have no line that is not blank; allowed: 1 or more")
        counts.append((rows, lengths[0] - rows))
    (train, train_dropped), (test, test_dropped) = counts
    return CorpusSource(
        name,
        folder.name,
        "own parallel corpus",
        OWN,
        parts,
        checksum,
        train,
        test,
        languages,
        dropped=train_dropped + test_dropped,
    )


def read_rows(source: CorpusSource) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Read train rows and test rows (teacher's language, student's, target).

    Raises
    ------
    DamagedData
        The files are no longer those that were located.
    """
    key = f"dataset.path: {source.place}" if source.layout == OWN else f"data set '{source.name}'"
    texts, checksum = _read_texts(source.parts, _roles(source.layout, source.languages), key)
    check_unchanged(source, checksum)
    return complete(texts[:3]), complete(texts[3:])


def _roles(layout: str, languages: tuple[str, str, str]) -> list[str]:
    """Names of the aligned texts: train and test in the three languages."""
    return [f"{split}.{language}" for split in ("train", _TEST[layout]) for language in languages]


def _read_texts(parts: Sequence[tuple[Path, ...]], names: Sequence[str], key: str) -> tuple[list[list[str]], str]:
    """Return the lines of aligned texts, and their checksum."""
    texts, digests = [], []
    for (path,) in parts:
        try:
            content = read_text(path)
            texts.append(lines_of(content))
        except BadCorpus as problem:
            raise DamagedData(f"{key}: {path.name} is damaged: {problem}; write it again") from problem
        digests.append(hashlib.sha256(content).hexdigest())
    return texts, checksum_of(names, digests)
