"""From a configuration to its points, their data and their keys; what is stored and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape_cli.config import Config
from landscape_cli.data.corpora import locate_corpus
from landscape_cli.data.corpus_sets import CORPUS_SETS
from landscape_cli.data.locate import Source, data_roots, locate
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.data.tabular import locate_table
from landscape_cli.dataset_identity import AnySource, identity, kind_of, same_dataset
from landscape_cli.distillation.checkpoints import find_mapping
from landscape_cli.errors import BadInput, DamagedData, ImpossibleModel, LandscapeError, MissingData, MissingExtractor
from landscape_cli.experiment import Experiment, Point
from landscape_cli.features.checkpoints import Checkpoint, find_checkpoint
from landscape_cli.geometry import check_model, conv_geometry
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
    sources: Mapping[str, AnySource]
    checkpoints: Mapping[str, Checkpoint]  # of feature extractors, by checksum
    mappings: Mapping[str, Path]  # checkpoints of mappings φ, by checksum

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
    family = experiment.stored_as or type(experiment).__name__
    store = Store(Path(config.output_dir).expanduser())
    finder = _Finder(config, download, experiment)
    located, unlocated = [], {}
    for position, point in enumerate(experiment.points()):
        try:
            settings = finder.resolve(point.settings)
        except LandscapeError as error:
            key = _stored_key(store, family, experiment.version, point.settings) if from_store else None
            refused = isinstance(error, ImpossibleModel) or (isinstance(error, MissingExtractor) and not from_store)
            if key is None and refused:  # as a whole, before anything is loaded
                raise
            if key is None:
                unlocated[position] = (point, error)
                continue
            settings = key[1]
        resolved = Point.of(point.coordinates, settings)
        located.append(Located(resolved, key_of(family, experiment.version, settings), position))
    return Plan(
        config,
        experiment,
        family,
        store,
        tuple(located),
        unlocated,
        finder.sources,
        finder.checkpoints,
        finder.mappings,
    )


class _Finder:
    """Finds each data set once."""

    def __init__(self, config: Config, download: bool, experiment: Experiment) -> None:
        self.min_objects, self.own_models = experiment.min_objects, experiment.own_models
        self.roots = data_roots(config.data.roots)
        self.download = download and config.data.download
        self.sources: dict[str, AnySource] = {}
        self.errors: dict[str, LandscapeError] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        self.found: dict[tuple, Checkpoint] = {}
        self.mappings: dict[str, Path] = {}

    def resolve(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Replace what was asked of a data set by what identifies the objects that are used."""
        if "dataset" not in settings:
            return settings
        wanted = settings["dataset"]
        kind = kind_of(wanted)
        if self.own_models:
            from landscape_cli.own.checking import check_given

            check_given(settings)
        if kind != "images":
            source = self.find(wanted["name"], wanted)
        else:
            if wanted["name"] in IMAGE_SETS:
                self._check_models(settings, IMAGE_SETS[wanted["name"]].shape)
            source = self.find(wanted["name"])
            self._check_models(settings, source.shape)
        dataset = identity(wanted, source)
        if dataset["objects"] < self.min_objects:
            objects = {"table": "objects", "corpus": "train lines"}.get(kind, "train objects")
            few = f"{dataset['objects']} of {source.train_objects} {objects} of {source.title}"
            raise BadInput(f"dataset.train_size: {few}; allowed: {self.min_objects} or more")
        settings = {**settings, "dataset": dataset}
        if self.own_models:
            from landscape_cli.own.checking import identified

            settings |= identified(settings, source)
        if "features" in settings:
            settings["features"] = self._extractor(settings["features"], source, dataset["normalisation"])
        if "checkpoint" in settings.get("mapping", {}):
            settings["mapping"], path = find_mapping(settings["mapping"])
            self.mappings[settings["mapping"]["checksum"]] = path
        return settings

    def _check_models(self, settings: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
        """Refuse networks whose layers do not fit on the objects."""
        name, features = settings["dataset"]["name"], settings.get("features")
        if features and features["kind"] != "vit":
            conv_geometry({**features, "kind": "conv2d"}, shape, name, "features")
        if "model" in settings:
            check_model(settings["model"], None if features else shape, name)
        if "teacher" in settings.get("measure", {}):
            check_model(settings["measure"]["teacher"], None if features else shape, name, "measure.teacher")

    def _extractor(self, wanted: Mapping[str, Any], source: Source, normalisation: str) -> dict[str, Any]:
        """Replace what was asked of a feature extractor by what identifies it."""
        own = {name: value for name, value in wanted.items() if name not in ("in_place_of", "embedded")}
        if wanted.get("position") == 0:
            own["pooling"] = "max"  # there is none
        if wanted["kind"] == "vit":
            if normalisation != "symmetric":
                raise ImpossibleModel(
                    f"dataset.normalisation: {normalisation!r} with a vision transformer, which normalises pictures "
                    "itself; allowed: symmetric"
                )
            asked = (wanted["checkpoint"], wanted["repository"], wanted["weights"], wanted["output"])
            if asked not in self.found:
                try:
                    self.found[asked] = find_checkpoint(*asked, self.roots, self.download)
                except MissingData as error:
                    raise MissingExtractor(str(error)) from error
            checkpoint = self.found[asked]
            self.checkpoints[checkpoint.checksum] = checkpoint
            return {"kind": "vit", "output": wanted["output"], "checksum": checkpoint.checksum}
        if wanted["kind"] == "small_cnn":
            own["dataset"] = self._pretraining(wanted, source, normalisation)
            del own["train_size"]
        return own

    def _pretraining(self, wanted: Mapping[str, Any], source: Source, normalisation: str) -> dict[str, Any]:
        """Identify the objects that a small network is trained on to extract features of another data set."""
        known = IMAGE_SETS.get(source.name)
        name = wanted["dataset"] or (known.related if known else None)
        if name is None:
            raise ImpossibleModel(
                f"features.dataset: null, and no related data set is known of {source.name!r}; give a name"
            )
        if name == source.name:
            raise ImpossibleModel(f"features.dataset: {name!r} is the data set itself; allowed: another one")
        try:
            other = self.find(name)
        except MissingData as error:
            raise MissingExtractor(f"features.dataset: {error}") from error
        if other.shape[0] != source.shape[0]:
            raise ImpossibleModel(
                f"features.dataset: {name!r} has {other.shape[0]} channels and {source.name!r} {source.shape[0]}; "
                "allowed: a data set with as many"
            )
        conv_geometry({**wanted, "kind": "conv2d"}, other.shape, name, "features")
        asked = {"name": name, "train_size": None, "max_size": wanted["train_size"], "normalisation": normalisation}
        return identity(asked, other)

    def find(self, name: str, wanted: Mapping[str, Any] | None = None) -> AnySource:
        """Find a set of images by its name, or what is wanted of another kind of data set."""
        if name in self.errors:
            raise self.errors[name]
        if name not in self.sources:
            try:
                self.sources[name] = self._locate(wanted or {"name": name})
            except LandscapeError as error:
                self.errors[name] = error
                raise
        return self.sources[name]

    def _locate(self, wanted: Mapping[str, Any]) -> AnySource:
        name, kind = wanted["name"], kind_of(wanted)
        try:
            return _look(wanted, self.roots)
        except DamagedData:  # a new download would hide it, and damaged files are the user's to delete
            raise
        except MissingData as missing:
            can_be_fetched = {
                "images": name in IMAGE_SETS,
                "table": name in TABLE_SETS and TABLE_SETS[name].files,
                "corpus": name in CORPUS_SETS and CORPUS_SETS[name].url,
            }.get(kind, False)
            if not self.download or wanted.get("path") is not None or not can_be_fetched:
                raise
            try:
                return _fetch(wanted, self.roots)
            except MissingData as failed:
                reason = str(failed).partition(";")[0]
                raise MissingData(f"{missing} ({reason})") from failed


def _look(wanted: Mapping[str, Any], roots: Sequence[Path]) -> AnySource:
    """Find what is wanted of a data set."""
    kind = kind_of(wanted)
    if kind == "images":
        return locate(wanted["name"], roots)
    if kind == "own":
        from landscape_cli.own.data import locate_own

        return locate_own(wanted)
    return locate_table(wanted, roots) if kind == "table" else locate_corpus(wanted, roots)


def _fetch(wanted: Mapping[str, Any], roots: Sequence[Path]) -> AnySource:
    """Download a data set, and find what is wanted of it."""
    from landscape_cli.data.fetch import fetch, writable_root

    name, kind, root = wanted["name"], kind_of(wanted), writable_root(roots)
    if kind == "images":
        return fetch(name, root)
    if kind == "table":
        from landscape_cli.data.fetch_tables import fetch_table

        fetch_table(name, root)
    else:
        from landscape_cli.data.fetch_corpora import fetch_corpus

        fetch_corpus(name, root)
    return _look(wanted, [root])


def _stored_key(store: Store, family: str, version: int, wanted: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Find the one stored point with these settings, whatever its data set's checksum and, unless asked, size."""
    dataset = wanted.get("dataset") or {}
    rest = {k: v for k, v in wanted.items() if k not in ("dataset", "features")}
    found = []
    for document in store.documents(family):
        settings = document["settings"]
        stored = settings.get("dataset", {})
        same = same_dataset(stored, dataset) and _same_extractor(settings.get("features"), wanted.get("features"))
        if same and {k: v for k, v in settings.items() if k not in ("dataset", "features")} == rest:
            key = key_of(family, version, settings)
            if key == document["key"]:
                found.append((key, settings))
    return found[0] if len(found) == 1 else None


def _same_extractor(stored: Mapping[str, Any] | None, wanted: Mapping[str, Any] | None) -> bool:
    """Whether stored features can be those that are wanted, whatever the checksums."""
    if not (stored and wanted):
        return stored == wanted
    if wanted["kind"] == "vit":  # without the checkpoint there is no telling whether it is the same
        return False
    learned_on = stored.get("dataset", {})
    same = wanted.get("dataset") in (None, learned_on.get("name"))
    most = wanted.get("train_size")
    same = same and (most is None or not learned_on or learned_on["objects"] <= most)
    return same and all(wanted.get(k) == v for k, v in stored.items() if k != "dataset")
