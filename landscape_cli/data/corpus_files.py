"""Files of parallel corpora: aligned text, one sentence a line, and tables of translated pairs."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

_BATCH = 4096  # rows read at once


class BadCorpus(Exception):
    """What is wrong with a file, for a message that also names it."""


def forms(folder: Path, name: str) -> list[Path]:
    """Return the files that hold a text: plain, then packed; those that are there."""
    return [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def read_text(path: Path) -> bytes:
    """Return a text as it is unpacked.

    Raises
    ------
    BadCorpus
        It cannot be read or unpacked.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadCorpus(f"it cannot be read ({reason})") from error


def lines_of(content: bytes) -> list[str]:
    """Return the lines of a text in UTF-8, without blanks around them.

    Raises
    ------
    BadCorpus
        A line is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadCorpus(f"line {content[: error.start].count(10) + 1} is not text in UTF-8") from error
    # Only a line feed ends a sentence; str.splitlines would also break at separators inside of one.
    lines = text.split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def complete(texts: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return aligned lines side by side, without those that are blank in one of the languages."""
    return [row for row in zip(*texts, strict=True) if all(row)]


def find_split(folder: Path, split: str) -> tuple[Path, ...]:
    """Return the files of a split, in order; none where there is none.

    Raises
    ------
    BadCorpus
        Files are missing between those that are there.
    """
    paths = sorted(folder.glob(f"{split}*.parquet")) or sorted(folder.glob(f"{split}*.jsonl"))
    if paths:
        told = re.search(r"-of-(\d+)\.", paths[0].name)
        if told and len(paths) != int(told[1]):
            raise BadCorpus(f"it has {len(paths)} of the {int(told[1])} files of its {split} split")
    return tuple(paths)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as it lies there."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadCorpus(f"it cannot be read ({error.strerror})") from error


def count_rows(path: Path, pair: tuple[str, str]) -> int:
    """Return how many translated pairs a file holds, after a look at its columns.

    Raises
    ------
    BadCorpus
        It is no such file, or has not these languages.
    """
    if path.suffix == ".jsonl":
        return sum(1 for _ in _rows_of_json(path, pair))
    with _parquet(path, pair) as table:
        return table.metadata.num_rows


def first_rows(paths: Sequence[Path], pair: tuple[str, str], count: int | None) -> list[tuple[str, str]]:
    """Return the first translated pairs of several files; pairs with a blank sentence are passed over.

    Parameters
    ----------
    pair
        The languages, in the order wanted.
    count
        How many; None: all. What comes after them is not read.

    Raises
    ------
    BadCorpus
        A file is damaged.
    """
    rows = (row for path in paths for row in (_rows_of_json if path.suffix == ".jsonl" else _rows)(path, pair))
    stripped = ((first.strip(), second.strip()) for first, second in rows)
    return list(islice((row for row in stripped if all(row)), count))


def _parquet(path: Path, pair: tuple[str, str]):
    import pyarrow as pa  # takes a while to import, and most corpora are text
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise BadCorpus(f"it cannot be read ({' '.join(str(error).split())})") from error
    schema = table.schema_arrow
    column = schema.field("translation").type if "translation" in schema.names else None
    if column is None or not pa.types.is_struct(column) or any(column.get_field_index(name) < 0 for name in pair):
        table.close()
        raise BadCorpus(f"it has no column 'translation' with {pair[0]} and {pair[1]}")
    return table


def _rows(path: Path, pair: tuple[str, str]) -> Iterator[tuple[str, str]]:
    import pyarrow as pa

    with _parquet(path, pair) as table:
        try:
            for batch in table.iter_batches(_BATCH, columns=[f"translation.{name}" for name in pair]):
                for row in batch.column("translation").to_pylist():
                    yield tuple((row or {}).get(name) or "" for name in pair)
        except (OSError, pa.ArrowException) as error:
            raise BadCorpus(f"it cannot be read ({' '.join(str(error).split())})") from error


def _rows_of_json(path: Path, pair: tuple[str, str]) -> Iterator[tuple[str, str]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                translation = json.loads(line)["translation"]
                yield tuple((translation[name] or "") + "" for name in pair)  # refuses what is not text
    except OSError as error:
        raise BadCorpus(f"it cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        form = f'{{"translation": {{"{pair[0]}": …, "{pair[1]}": …}}}}'
        raise BadCorpus(f"line {number} is not of the form {form}") from error
