"""From a configuration to its points, their data and their keys; what is stored and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape_cli.config import Config
from landscape_cli.data.locate import Source, check_train_size, data_roots, locate
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.errors import BadInput, DamagedData, LandscapeError, MissingData
from landscape_cli.experiment import Experiment, Point
from landscape_cli.store import Store, key_of
from landscape_cli.validation import load_class


@dataclass(frozen=True)
class Located:
    """A point whose data has been found: the data set's checksum and size are in its settings, the key is theirs."""

    point: Point
    key: str
    position: int  # in the whole grid


@dataclass(frozen=True)
class Plan:
    """An experiment's grid, ready to measure or to draw."""

    config: Config
    experiment: Experiment
    family: str
    store: Store
    located: tuple[Located, ...]
    unlocated: Mapping[int, tuple[Point, LandscapeError]]  # by position; their data is missing, damaged or too small
    sources: Mapping[str, Source]

    @property
    def shard(self) -> tuple[Located, ...]:
        """This job's share of the points."""
        return tuple(item for item in self.located if self._mine(item.position))

    @property
    def unlocated_shard(self) -> tuple[tuple[Point, LandscapeError], ...]:
        """Those of this job's share whose data is not to be had."""
        return tuple((point, error) for position, (point, error) in self.unlocated.items() if self._mine(position))

    def _mine(self, position: int) -> bool:
        return position % self.config.shard.count == self.config.shard.index

    def stored(self, located: Located) -> bool:
        """Whether a point is in the store, with its parameters if they are to be kept."""
        return self.store.has(self.family, located.key, self.config.keep_parameters)


def make_plan(config: Config, download: bool = False, from_store: bool = False) -> Plan:
    """Build the grid of an experiment and find its data.

    Parameters
    ----------
    download
        Fetch a public data set that is missing (if ``data.download`` allows it too).
    from_store
        Where a data set is not there, take the key from the stored results of the same settings, if there are any.
    """
    experiment: Experiment = load_class(config.family)(config)
    family = type(experiment).__name__
    store = Store(Path(config.output_dir).expanduser())
    finder = _Finder(config, download, experiment.min_objects)
    located, unlocated = [], {}
    for position, point in enumerate(experiment.points()):
        try:
            settings = finder.resolve(point.settings)
        except LandscapeError as error:
            key = _stored_key(store, family, experiment.version, point.settings) if from_store else None
            if key is None:
                unlocated[position] = (point, error)
                continue
            settings = key[1]
        resolved = Point.of(point.coordinates, settings)
        located.append(Located(resolved, key_of(family, experiment.version, settings), position))
    return Plan(config, experiment, family, store, tuple(located), unlocated, finder.sources)


class _Finder:
    """Finds each data set once."""

    def __init__(self, config: Config, download: bool, min_objects: int) -> None:
        self.min_objects = min_objects
        self.roots = data_roots(config.data.roots)
        self.download = download and config.data.download
        self.sources: dict[str, Source] = {}
        self.errors: dict[str, LandscapeError] = {}

    def resolve(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Replace what was asked of a data set by what identifies the objects that are used."""
        if "dataset" not in settings:
            return settings
        wanted = settings["dataset"]
        source = self.find(wanted["name"])
        dataset = identity(wanted, source)
        if dataset["objects"] < self.min_objects:
            few = f"{dataset['objects']} of {source.train_objects} train objects of {source.title}"
            raise BadInput(f"dataset.train_size: {few}; allowed: {self.min_objects} or more")
        return {**settings, "dataset": dataset}

    def find(self, name: str) -> Source:
        if name in self.errors:
            raise self.errors[name]
        if name not in self.sources:
            try:
                self.sources[name] = self._locate(name)
            except LandscapeError as error:
                self.errors[name] = error
                raise
        return self.sources[name]

    def _locate(self, name: str) -> Source:
        try:
            return locate(name, self.roots)
        except DamagedData:  # a new download would hide it, and damaged files are the user's to delete
            raise
        except MissingData as missing:
            if not self.download or name not in IMAGE_SETS:
                raise
            from landscape_cli.data.fetch import fetch, writable_root

            try:
                return fetch(name, writable_root(self.roots))
            except MissingData as failed:
                reason = str(failed).partition(";")[0]
                raise MissingData(f"{missing} ({reason})") from failed


def identity(wanted: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Say which objects a point uses: name, number and checksum of the data set.

    Raises
    ------
    BadInput
        If more objects are asked for than there are.
    """
    cap, size = wanted["max_size"], wanted["train_size"]
    if size is not None and cap is not None:
        size = min(size, cap)
    if size is not None:
        check_train_size(source, size)
    else:
        size = min(source.train_objects, cap or source.train_objects)
    return {"name": wanted["name"], "objects": size, "checksum": source.checksum}


def _stored_key(store: Store, family: str, version: int, wanted: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Find the one stored point with these settings, whatever its data set's checksum and, unless asked, size."""
    dataset = wanted.get("dataset") or {}
    sizes = [s for s in (dataset.get("train_size"), dataset.get("max_size")) if s is not None]
    rest = {k: v for k, v in wanted.items() if k != "dataset"}
    found = []
    for document in store.documents(family):
        settings = document["settings"]
        same = settings.get("dataset", {}).get("name") == dataset.get("name")
        same = same and (not sizes or settings["dataset"]["objects"] == min(sizes))
        if same and {k: v for k, v in settings.items() if k != "dataset"} == rest:
            key = key_of(family, version, settings)
            if key == document["key"]:
                found.append((key, settings))
    return found[0] if len(found) == 1 else None
