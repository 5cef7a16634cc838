"""The contract of an experiment: points -> measure -> figures, tables, claims.

``measure`` never draws and never reads other points; ``figures``, ``tables`` and ``claims`` never train. A module
that defines an experiment imports torch inside ``measure`` only, so that drawing from stored results starts fast.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch
    from matplotlib.figure import Figure as Drawing

    from landscape_cli.config import Config
    from landscape_cli.data.corpora import Corpus, CorpusSource
    from landscape_cli.data.images import ImageData
    from landscape_cli.data.locate import Source
    from landscape_cli.data.objects import Objects
    from landscape_cli.data.tabular import TableData, TableSource


@dataclass(frozen=True)
class Point:
    """One point of the grid: frozen, hashable, whole.

    ``coordinates`` tell it from its neighbours and become columns of every frame. ``settings`` hold everything that
    can change its numbers: data set, model, training, measure, seeds; the key of the stored result is their hash.
    """

    coordinates_json: str
    settings_json: str

    @classmethod
    def of(cls, coordinates: Mapping[str, Any], settings: Mapping[str, Any]) -> Point:
        """Build a point from two nested mappings of plain values."""
        return cls(json.dumps(coordinates), json.dumps(settings, sort_keys=True))

    @cached_property
    def coordinates(self) -> dict[str, Any]:
        """What tells this point from its neighbours, in the grid's order."""
        return json.loads(self.coordinates_json)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that can change this point's numbers."""
        return json.loads(self.settings_json)

    @property
    def stream(self) -> str:
        """What the random streams of this point depend on, beside seed and purpose: data set, model, features."""
        settings = self.settings
        features = [settings["features"]["kind"]] if "features" in settings else []
        return json.dumps([settings.get("dataset", {}).get("name"), settings.get("model"), *features], sort_keys=True)

    @property
    def label(self) -> str:
        """Short name for messages: ``hidden_size=16, num_layers=5``."""
        return ", ".join(f"{name}={value}" for name, value in self.coordinates.items()) or "single"


UNUSED = {"weight_decay": 0.0, "schedule": "constant", "warmup": 0.0, "augmentation": "none"}


def without_unused(training: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the options of a training that it does not use, so that plain trainings keep their keys."""
    return {name: value for name, value in training.items() if name not in UNUSED or value != UNUSED[name]}


def dataset_settings(config: Any, name: str) -> dict[str, Any]:
    """Return what is asked of a data set: of the configured one, or of another of the same kind.

    A path, a target and dropped columns are one table's and mean nothing for another.
    """
    if config.kind == "images":
        own = {field: getattr(config, field) for field in ("train_size", "max_size", "normalisation")}
        return {"name": name, **own}
    if config.kind == "own":
        fields = ("arguments", "train_size", "max_size", "normalisation")
        return {"name": name, **{field: getattr(config, field) for field in fields}}
    if config.kind == "corpus":
        fields, one = ("path", "teacher_language", "student_language", "target_language"), ("path",)
    else:
        fields, one = ("path", "target", "drop", "encoding", "task"), ("path", "target", "drop")
    settings = {"name": name, **{field: getattr(config, field) for field in (*fields, "train_size", "max_size")}}
    if name != config.name:
        settings |= dict.fromkeys(one)
    return settings


def mapping_settings(config: Any) -> dict[str, Any]:
    """Return what is asked of a mapping φ: of a checkpoint, or what the mapping without one depends on."""
    fields = asdict(config)
    own = {"style": ("seed", "levels"), "translation": ("pairs", "iterations")}[config.kind]
    if config.checkpoint is None:
        return {name: fields[name] for name in ("kind", *own)}
    return {name: value for name, value in fields.items() if name not in own}


@dataclass(frozen=True)
class Context:
    """What a measurement is given beside its point; none of it changes the numbers beyond rounding."""

    device: torch.device
    source: Source | TableSource | CorpusSource | None  # the point's data set, where it is
    images: Callable[[], ImageData]  # the point's data set or its features, on the device
    progress: Callable[..., Any]  # like tqdm, for a loop inside the point
    table: Callable[[], TableData] | None = None  # the point's data set, where the experiment takes tables
    # Where it takes parallel corpora: called with teacher_size, student_size, test_size and pairs.
    corpus: Callable[..., Corpus] | None = None
    mapping: Path | None = None  # the checkpoint of the point's mapping φ, if it has one
    objects: Callable[[], Objects] | None = None  # the point's data set of whatever kind, on the device


@dataclass(frozen=True)
class Measurement:
    """What one point yields."""

    frames: Mapping[str, pd.DataFrame]  # tidy, one row an observation; attrs["units"] names the columns' units
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    parameters: Mapping[str, torch.Tensor] = field(default_factory=dict)  # stored when keep_parameters=true


def with_units(frames: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> Mapping[str, pd.DataFrame]:
    """Name the units of the columns that have one, in place."""
    for frame in frames.values():
        frame.attrs["units"] = {name: unit for name, unit in units.items() if name in frame}
    return frames


@dataclass(frozen=True)
class Results:
    """Every stored point of the grid, concatenated."""

    points: tuple[Point, ...]  # stored ones
    missing: tuple[Point, ...]
    frames: Mapping[str, pd.DataFrame]  # with one column a coordinate, before the frame's own
    arrays: Mapping[Point, Mapping[str, np.ndarray]]
    sources: Mapping[
        str, Source | TableSource | CorpusSource
    ]  # by name; empty where they were not found and the results were
    profile: str


@dataclass(frozen=True)
class Figure:
    """A finished drawing and what belongs to it."""

    name: str  # file name without suffix
    drawing: Drawing
    caption: str  # goes into the file's metadata
    note: str = ""  # what a reader of the picture alone must know; goes into the small print


@dataclass(frozen=True)
class Table:
    """A finished table and what belongs to it."""

    name: str  # file name without suffix
    frame: pd.DataFrame
    caption: str
    formats: Mapping[str, str] = field(default_factory=dict)  # column -> format spec, for Markdown and LaTeX


REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """A sentence of the thesis, tested."""

    claim: str  # the sentence
    source: str  # where it stands
    statistic: str  # what was computed
    verdict: str  # REPRODUCED, NOT_REPRODUCED or INCONCLUSIVE
    effect: float  # the statistic's value
    low: float  # its 95 % interval over seeds
    high: float
    published: float | None = None  # the same statistic of the published numbers
    note: str = ""


@dataclass
class NoOptions:
    """For experiments whose config node ``measure`` is empty."""


class Experiment(ABC):
    """One family of experiments; a YAML file in ``conf/experiment`` makes one experiment of it."""

    Options: ClassVar[type] = NoOptions  # dataclass of the config node ``measure``
    uses: ClassVar[frozenset[str]] = frozenset()  # config nodes needed: dataset, model, training, seeds
    optional: ClassVar[frozenset[str]] = frozenset()  # config nodes that can be there too: features
    data: ClassVar[str] = "images"  # what its data sets are: images, table, corpus; objects: any but a corpus
    own_models: ClassVar[bool] = False  # whether it takes any network: model._target_=my_pkg.Net
    min_objects: ClassVar[int] = 1  # of a data set, below which there is nothing to measure
    streams: ClassVar[bool] = False  # whether ``measure`` takes pictures that stay in their file, as ``Pixels``
    threads: ClassVar[int | None] = None  # of the CPU where ``threads`` is not configured; None: torch's choice
    threads_run_tasks: ClassVar[bool] = False  # one thread an operator, the others for tasks side by side
    stored_as: ClassVar[str | None] = None  # the family whose points these are, where it measures for another class
    version: ClassVar[int] = 1  # raised when ``measure`` changes its numbers: stored points are then measured again

    def __init__(self, config: Config) -> None:
        self.config = config

    def settings(self, dataset: str | None = None, **changes: Any) -> dict[str, Any]:
        """Return a point's settings: every node of the configuration that can change its numbers.

        Parameters
        ----------
        dataset
            Name of another data set than the configured one; ``by_dataset`` says what differs for it.
        changes
            Fields of the model or of the measure that this point changes.
        """
        config = self.config
        settings = {"measure": asdict(config.measure)}
        own: dict[str, Any] = {}
        if "dataset" in self.uses:
            settings["dataset"] = dataset_settings(config.dataset, dataset or config.dataset.name)
            own = config.by_dataset.get(settings["dataset"]["name"], {})
            settings["dataset"].update(own.get("dataset", {}))
            settings["measure"].update(own.get("measure", {}))
        if config.features is not None:
            settings["features"] = asdict(config.features)
        if "model" in self.uses:
            settings["model"] = {**asdict(config.model), **own.get("model", {})}
        if config.mapping is not None:
            settings["mapping"] = mapping_settings(config.mapping)
        if "training" in self.uses:
            training = {**asdict(config.training), **own.get("training", {})}
            settings["training"] = without_unused(training)
        if "seeds" in self.uses:
            settings["seeds"] = list(range(config.seed, config.seed + config.seeds))
        for name, value in changes.items():
            settings["model" if name in settings.get("model", {}) else "measure"][name] = value
        return settings

    def operations(self, point: Point, source: Source | TableSource | CorpusSource) -> float:
        """Floating-point operations that a located point takes, roughly, where it can be long; 0 where it cannot.

        Before anything is measured the runner tells what it expects, and refuses what would take days on a CPU.
        """
        return 0.0

    @abstractmethod
    def points(self) -> list[Point]:
        """Return the grid, in drawing order, without duplicates."""

    @abstractmethod
    def measure(self, point: Point, context: Context) -> Measurement:
        """Measure one point; a pure function of ``point.settings``."""

    def together(self, points: Sequence[Point]) -> list[list[Point]]:
        """Divide points into those that are measured together because that is faster; by default each alone."""
        return [[point] for point in points]

    def measure_together(self, points: Sequence[Point], context: Context) -> list[Measurement]:
        """Measure points that :meth:`together` left together, each as :meth:`measure` would: to the bit on a CPU."""
        return [self.measure(point, context) for point in points]

    @abstractmethod
    def figures(self, results: Results) -> Iterable[Figure]:
        """Draw from stored results."""

    def tables(self, results: Results) -> Iterable[Table]:
        """Tabulate stored results."""
        return ()

    def claims(self, results: Results) -> Iterable[Verdict]:
        """Test the thesis's sentences on stored results."""
        return ()

    def answers(self, results: Results) -> Iterable[str]:
        """Lines for the terminal: what a user asked, answered from stored results."""
        return ()
