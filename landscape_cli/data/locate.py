"""Where a named data set is, how much of it is there, and whether its files are the published ones.

Nothing here imports torch: a command that only looks at stored results starts fast.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from landscape_cli.data.archive import damaged, inspect_archive, reading
from landscape_cli.data.sets import DIGITS_DIGESTS, IMAGE_SETS, ImageSet, Layout
from landscape_cli.errors import BadInput, MissingData

TORCHVISION, ARCHIVE, SCIKIT_LEARN = "torchvision", "archive", "scikit-learn"


@dataclass(frozen=True)
class Source:
    """A data set that was found, with its files verified."""

    name: str
    title: str
    description: str
    layout: str  # TORCHVISION, ARCHIVE or SCIKIT_LEARN
    files: tuple[Path, ...]  # in the layout's order; none for scikit-learn; for "folders" those of the two splits
    checksum: str  # SHA-256 hex digest; the same for packed and unpacked files
    train_objects: int
    test_objects: int
    shape: tuple[int, int, int]  # (C, H, W)
    classes: int
    max_value: int  # pixels lie in 0..max_value
    whole: bool  # every object of the published set; a user's own archive is whole

    @property
    def place(self) -> str:
        """The archive, the folder, or the library that holds it."""
        if self.layout == SCIKIT_LEARN:
            return SCIKIT_LEARN
        return str(self.files[0] if self.layout == ARCHIVE else self.files[0].parent)


def data_roots(configured: Sequence[str] | None) -> tuple[Path, ...]:
    """Return the folders in which data sets are looked for, in order, absolute.

    Parameters
    ----------
    configured
        ``data.roots``; when there are none, ``$LANDSCAPE_DATA`` (one folder or several, joined as in ``$PATH``),
        ``./data`` and ``~/.cache/landscape``.
    """
    if not configured:
        configured = [*os.environ.get("LANDSCAPE_DATA", "").split(os.pathsep), "data", "~/.cache/landscape"]
    return tuple(expand(root) for root in configured if root)


def expand(root: str | Path) -> Path:
    """Return a root as an absolute path, with ``~`` and environment variables filled in."""
    return Path(os.path.expanduser(os.path.expandvars(root))).absolute()


def locate(name: str, roots: Sequence[str | Path]) -> Source:
    """Find a data set and verify its files.

    In every root, torchvision's layout is looked for first and then the archive ``images/<name>.npz``. A part of a
    published set is taken only when no root holds it whole. A damaged or incomplete copy is passed over for a whole
    one and for nothing less, so that damage never swaps the data silently.

    Parameters
    ----------
    name
        One of :data:`~landscape_cli.data.sets.IMAGE_SETS`, or of a user's own archive.
    roots
        Folders, searched in order.

    Raises
    ------
    MissingData
        Nothing was found, or what was found is damaged or incomplete.
    """
    published = IMAGE_SETS.get(name)
    if published and published.layout is None:
        return _source(published, SCIKIT_LEARN, (), DIGITS_DIGESTS[name])
    part, problems = None, []
    for root in map(expand, roots):
        places = [(root / "images" / f"{name}.npz", _from_archive)]
        if published:
            find_layout = _from_folders if published.layout.reader == "folders" else _from_layout
            parents = (root, root / "torchvision")
            folders = [parent / folder for parent in parents for folder in published.layout.folders]
            places = [(folder, find_layout) for folder in folders] + places
        for place, find in places:
            try:
                source = find(name, place)
            except MissingData as problem:
                problems.append(problem)
                continue
            if source and source.whole and (published or not problems):
                return source
            part = part or source
    if problems:
        raise problems[0]
    if part is None:
        raise MissingData(missing_message(name, roots))
    return part


def missing_message(name: str, roots: Sequence[str | Path]) -> str:
    """Return the line that says what was looked for, where, and what to do."""
    searched = ", ".join(str(expand(root)) for root in roots) or "no folder (data.roots is empty)"
    archive = f"images/{name}.npz"
    published = IMAGE_SETS.get(name)
    if published and published.layout:
        layout = published.layout
        if layout.reader == "folders":
            folders = " or ".join(f"{folder}/{{{','.join(layout.splits)}}}" for folder in layout.folders)
            files = f"{folders} with folders {layout.class_folders[0]} to {layout.class_folders[-1]} of JPEGs"
        else:
            files = ", ".join(f"{layout.folder}/{file.forms[0][0]}" for file in layout.files)
        packing = "packed or unpacked, " if layout.files and layout.files[0].gz_digest else ""
        return (
            f"data set '{name}' ({published.title}) not found: looked for {files} ({packing}also under "
            f"torchvision/) or {archive} in {searched}{_too_small(published, roots)}; `landscape data fetch {name}` "
            f"downloads it, profile=embedded needs no download"
        )
    known = known_names(roots)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return (
        f"data set '{name}' not found: no {archive} in {searched}; known data sets: {', '.join(known)}{hint} "
        f"(profile=embedded needs no files)"
    )


def _too_small(published: ImageSet, roots: Sequence[str | Path]) -> str:
    """Say which copies were passed over because their pictures would have to be enlarged."""
    parents = [parent for root in map(expand, roots) for parent in (root, root / "torchvision")]
    small = [parent / folder for parent in parents for folder in published.layout.smaller_folders]
    found = ", ".join(str(folder) for folder in small if os.path.isdir(folder))
    height, width = published.shape[1:]
    return f"; too small for {height}x{width} pixels: {found}" if found else ""


def known_names(roots: Sequence[str | Path]) -> tuple[str, ...]:
    """Return the published sets, then a user's own archives in ``roots``, by name."""
    archives = {path.stem for root in roots for path in expand(root).glob("images/*.npz")}
    return (*IMAGE_SETS, *sorted(archives - IMAGE_SETS.keys()))


def check_train_size(source: Source, train_size: int | None) -> int:
    """Return how many train objects are used: the first ``train_size``, or all when it is None.

    Raises
    ------
    BadInput
        Fewer than one, or more than the source holds.
    """
    return check_size(source, "dataset.train_size", train_size, source.train_objects, minimum=1)


def check_size(source: Source, key: str, size: int | None, available: int, minimum: int) -> int:
    """Return ``size`` (None: ``available``) if it lies in ``minimum..available``, else refuse it by its ``key``.

    Raises
    ------
    BadInput
        It lies outside.
    """
    if size is None:
        return available
    if minimum <= size <= available:
        return size
    part = "" if source.whole else ", a part of the published set"
    objects = getattr(source, "unit", None) or f"{key.rpartition('.')[2].removesuffix('_size')} objects"
    raise BadInput(
        f"{key}={size} is not possible: data set '{source.name}' has {available} {objects} in "
        f"{source.place}{part}; give {minimum}..{available}, as in {key}={available}, or {key}=null for all"
    )


def _source(published: ImageSet, layout: str, files: tuple[Path, ...], checksum: str) -> Source:
    return Source(
        name=published.name,
        title=published.title,
        description=published.description,
        layout=layout,
        files=files,
        checksum=checksum,
        train_objects=published.train_objects,
        test_objects=published.test_objects,
        shape=published.shape,
        classes=published.classes,
        max_value=published.max_value,
        whole=True,
    )


def _from_layout(name: str, folder: Path) -> Source | None:
    published = IMAGE_SETS[name]
    layout = published.layout
    present = [[folder / form for form, _ in file.forms if os.path.isfile(folder / form)] for file in layout.files]
    if not any(present):
        return None
    for file, paths in zip(layout.files, present, strict=True):
        if not paths:
            raise MissingData(
                f"data set '{name}': {folder} is incomplete: {file.forms[0][0]} is missing; "
                f"run `landscape data fetch {name}`"
            )
    files = tuple(_verified(name, layout, file.forms, paths) for file, paths in zip(layout.files, present, strict=True))
    return _source(published, TORCHVISION, files, _pinned_checksum(layout))


def pictures(split: Path, class_folders: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the JPEGs of a split and their labels, class after class, sorted by name in each.

    Parameters
    ----------
    split
        The folder of the class folders; one that is not there has no pictures.
    class_folders
        Their names, in the order of the labels.
    """
    listed = []
    for label, class_folder in enumerate(class_folders):
        folder = split / class_folder
        names = os.listdir(folder) if os.path.isdir(folder) else []
        # Some systems leave hidden files of the same ending beside what they copy.
        kept = sorted(name for name in names if name.lower().endswith(".jpeg") and not name.startswith("."))
        listed += [(folder / name, label) for name in kept]
    return listed


def _from_folders(name: str, folder: Path) -> Source | None:
    published = IMAGE_SETS[name]
    layout = published.layout
    splits = tuple(folder / split for split in layout.splits)
    if not any(os.path.isdir(split) for split in splits):
        return None
    with reading(name, folder):
        found = [pictures(split, layout.class_folders) for split in splits]
    for split, listed in zip(layout.splits, found, strict=True):
        labels = {label for _, label in listed}
        lacking = [f"{split}/{it}" for label, it in enumerate(layout.class_folders) if label not in labels]
        if lacking:
            where = ", ".join(lacking) if listed else split
            raise MissingData(
                f"data set '{name}': {folder} is incomplete: no pictures in {where}; run `landscape data fetch {name}`"
            )
    objects, known = tuple(map(len, found)), (published.train_objects, published.test_objects)
    if any(held > most for held, most in zip(objects, known, strict=True)):
        held, most = (" + ".join(map(str, numbers)) for numbers in (objects, known))
        raise damaged(name, folder, f"it holds {held} pictures, and {published.title} has {most}")
    return replace(
        _source(published, TORCHVISION, splits, _listed_checksum(name, folder, layout, found)),
        train_objects=objects[0],
        test_objects=objects[1],
        whole=objects == known,
    )


def _listed_checksum(name: str, folder: Path, layout: Layout, found: list[list[tuple[Path, int]]]) -> str:
    """Digest of the lines ``<digest of a picture>  <its name below the folder>``, sorted by name."""
    listed = hashlib.sha256()
    for path, _ in (picture for listing in found for picture in listing):
        line = f"{_digest(name, path, layout.algorithm)}  {path.relative_to(folder).as_posix()}\n"
        listed.update(line.encode(errors="surrogateescape"))
    return listed.hexdigest()


def _verified(name: str, layout: Layout, forms: tuple[tuple[str, str], ...], paths: list[Path]) -> Path:
    """Return the first of the paths whose digest is the pinned one."""
    expected = dict(forms)
    found = {}
    for path in paths:
        found[path] = _digest(name, path, layout.algorithm)
        if found[path] == expected[path.name]:
            return path
    path, digest = next(iter(found.items()))
    raise damaged(name, path, f"{layout.algorithm} {expected[path.name][:12]} expected, {digest[:12]} found")


def _pinned_checksum(layout: Layout) -> str:
    lines = "\n".join(f"{layout.algorithm} {file.name} {file.digest}" for file in layout.files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _from_archive(name: str, path: Path) -> Source | None:
    if not os.path.isfile(path):
        return None
    contents = inspect_archive(name, path)
    published = IMAGE_SETS.get(name)
    objects = (contents.train_objects, contents.test_objects)
    return Source(
        name=name,
        title=published.title if published else name,
        description=published.description if published else "own images",
        layout=ARCHIVE,
        files=(path,),
        checksum=_digest(name, path, "sha256"),
        train_objects=contents.train_objects,
        test_objects=contents.test_objects,
        shape=contents.shape,
        classes=contents.classes,
        max_value=255,
        whole=published is None or objects == (published.train_objects, published.test_objects),
    )


def _digest(name: str, path: Path, algorithm: str) -> str:
    with reading(name, path), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
