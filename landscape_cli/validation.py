"""The only place that validates: from what Hydra composed to a :class:`~landscape_cli.config.Config`.

An unknown key, a wrong type or an impossible value is refused before anything is loaded. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from landscape_cli.config import (
    DATASETS,
    FEATURES,
    MAPPINGS,
    MODELS,
    Config,
    DataConfig,
    PlotConfig,
    ProfileConfig,
    ShardConfig,
    TrainingConfig,
)
from landscape_cli.config_path import config_folder
from landscape_cli.data.corpus_sets import CORPUS_SETS
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.dataset_node import check_grid, check_kind, check_names, demonstration, stand_in, with_arguments
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Experiment, mapping_settings

_MEASURE_CAPS = (
    *("resamples", "sizes", "copies", "hessian_objects", "hessian_samples"),
    *("networks", "ascent_steps", "train_steps", "removal_steps", "posterior_iterations"),
    *("teacher_objects", "student_objects", "test_objects"),
)
_OF_A_TABLE = ("target", "drop", "encoding", "task")
_NESTED = {c.__name__: c for c in (TrainingConfig, ProfileConfig, DataConfig, PlotConfig, ShardConfig)}


def prepare(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Validate a composed configuration and apply its profile.

    Parameters
    ----------
    composed
        What Hydra composed.
    overrides
        The overrides given on the command line; a value given there is not capped by the profile.

    Raises
    ------
    BadInput
        With the key, the value, what is allowed and the nearest valid name.
    """
    try:
        container = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise BadInput(f"{error.full_key or 'configuration'}: {_first_line(error)}") from error
    model, measure = container.pop("model", None), container.pop("measure", None) or {}
    features, dataset = container.pop("features", None), container.pop("dataset", None)
    mapping = container.pop("mapping", None)
    config: Config = _merge(Config, container, "")
    if isinstance(dataset, Mapping) and dataset.get("in_place_of"):
        raise BadInput("dataset.in_place_of: only profile=embedded sets it")
    if isinstance(features, Mapping) and features.get("in_place_of"):
        raise BadInput("features.in_place_of: only profile=embedded sets it")
    family = load_class(config.family)
    if not (isinstance(family, type) and issubclass(family, Experiment)):
        raise BadInput(
            f"family: {config.family!r} is not an experiment; allowed: a subclass of {Experiment.__module__}.Experiment"
        )
    _check_nodes(config, {"dataset": dataset, "model": model, "features": features, "mapping": mapping}, family)
    if config.profile.embedded:
        dataset, model = demonstration(dataset, "dataset"), demonstration(model, "model")
    dataset, model = with_arguments(dataset, "dataset"), with_arguments(model, "model")
    if isinstance(model, Mapping) and model.get("kind") == "own" and not family.own_models:
        raise BadInput(f"model: 'own' is a network of your own; {config.name} takes shipped ones (experiment=own: any)")
    if dataset is not None:
        check_kind(dataset, family.data, config.name)
        named = {"kind": "images", **dataset} if isinstance(dataset, Mapping) else {"kind": "images"}
        config.dataset = _merge(_schema("dataset", DATASETS, named), dataset, "dataset")
    if model is not None:
        config.model = _merge(_schema("model", MODELS, model), model, "model")
    if features is not None:
        config.features = _merge(_schema("features", FEATURES, features), features, "features")
    if mapping is not None:
        config.mapping = _merge(_schema("mapping", MAPPINGS, mapping), mapping, "mapping")
        _check_mapping(config.mapping, {text.lstrip("+~").split("=")[0] for text in overrides})
    config.measure = _merge(family.Options, measure, "measure")
    _check_limits(config, "")
    given = {text.lstrip("+~").split("=")[0] for text in overrides}
    if "profile.name" in given:
        raise BadInput("profile.name: it says what a figure was drawn from; allowed: profile=NAME")
    if "dataset" in config.grid and given & {"dataset", "dataset.name"} and "grid.dataset" not in given:
        config.grid["dataset"] = [config.dataset.name]
    _check_grid(config)
    if config.dataset:
        check_grid(config.grid, config.dataset, config.name)
        check_names(config.grid, config.dataset)
    _check_by_dataset(config, given)
    _apply_profile(config, given)
    _check_limits(config, "")
    return config


def model_node(node: Any, key: str) -> Any:
    """Validate a model node that stands outside of ``model``.

    Parameters
    ----------
    node
        A mapping with a ``kind``.
    key
        Where it stands, for messages.
    """
    if not isinstance(node, Mapping):
        raise BadInput(f"{key}: {node!r}; allowed: keys of a model")
    model = _merge(_schema(key, MODELS, node), node, key)
    _check_limits(model, key)
    return model


def load_class(path: str) -> type:
    """Import ``package.module.Class``.

    Raises
    ------
    BadInput
        If there is no such class.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"family: there is no class {path!r} ({error})") from error


def unknown_key(key: str, known: Iterable[str]) -> BadInput:
    """Name an unknown key, the nearest valid ones and, inside a node, all that the node has."""
    known = list(dict.fromkeys(known))
    parent = key.rpartition(".")[0]
    level = [k for k in known if k.rpartition(".")[0] == parent] if parent else []
    return BadInput(
        f"unknown key {key!r}{nearest(key, known)}" + (f"; known: {', '.join(sorted(level))}" if level else "")
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the valid names closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def flat_keys(node: Any, prefix: str = "") -> list[str]:
    """List the dotted keys of a nested mapping, nodes and leaves."""
    if not isinstance(node, Mapping):
        return []
    keys = []
    for key, value in node.items():
        keys += [f"{prefix}{key}", *flat_keys(value, f"{prefix}{key}.")]
    return keys


def _merge(schema: type, values: Any, prefix: str) -> Any:
    if isinstance(values, Mapping):
        for entry in dataclasses.fields(schema):  # OmegaConf takes any number for a truth value
            value = values.get(entry.name)
            if entry.type == "bool" and isinstance(value, int | float) and not isinstance(value, bool):
                raise BadInput(f"{_join(prefix, entry.name)}: {value!r}; allowed: true or false (Bool)")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except ConfigKeyError as error:
        key = _join(prefix, error.full_key or str(error.key))
        raise unknown_key(key, [_join(prefix, name) for name in _schema_keys(schema)]) from error
    except OmegaConfBaseException as error:
        raise BadInput(_explained(error, values, prefix)) from error
    except (ValueError, TypeError) as error:  # a plain value where there must be keys
        raise BadInput(f"{prefix}: {values!r}; allowed: keys of its own, {', '.join(_schema_keys(schema))}") from error


def _explained(error: OmegaConfBaseException, values: Any, prefix: str) -> str:
    """Key, value and what OmegaConf says of them, in one line."""
    reason, value = _first_line(error), values
    for part in (error.full_key or "").split("."):
        value = value.get(part) if isinstance(value, Mapping) else value
    key = _join(prefix, error.full_key or "") or "configuration"
    return f"{key}: {reason}" if str(value) in reason else f"{key}: {value!r}: {reason}"


def _schema_keys(schema: type) -> list[str]:
    keys = []
    for entry in dataclasses.fields(schema):
        keys.append(entry.name)
        nested = _NESTED.get(str(entry.type).removesuffix(" | None"))
        if nested:
            keys += [f"{entry.name}.{key}" for key in _schema_keys(nested)]
    return keys


def _schema(node: str, kinds: Mapping[str, type], values: Mapping[str, Any]) -> type:
    kind = values.get("kind")
    if kind not in kinds:
        raise BadInput(f"{node}.kind: {kind!r}; allowed: {', '.join(kinds)}")
    return kinds[kind]


def _check_nodes(config: Config, kinds: Mapping[str, Any], family: type) -> None:
    for name, node in {"training": config.training, **kinds}.items():
        if node is not None and name not in family.uses | family.optional:
            raise BadInput(f"{name}: the experiment {config.name!r} has none")
        if node is None and name in family.uses:
            raise BadInput(f"{name}: the experiment {config.name!r} needs one, for example {name}=…")


def _check_limits(node: Any, prefix: str) -> None:
    for entry in dataclasses.fields(node):
        value, key = getattr(node, entry.name), _join(prefix, entry.name)
        if dataclasses.is_dataclass(value):
            _check_limits(value, key)
        else:
            _check_value(value, entry, key)
    if isinstance(node, ShardConfig) and node.index >= node.count:
        raise BadInput(f"shard.index: {node.index}; allowed: 0 to shard.count - 1 = {node.count - 1}")


def _check_value(value: Any, entry: dataclasses.Field, key: str) -> None:
    if value == [] and "choices" in entry.metadata:
        raise BadInput(f"{key}: empty; allowed: {', '.join(entry.metadata['choices'])}")
    for item in value if isinstance(value, list) else [value]:
        if item is None:
            continue
        limits = entry.metadata
        tests = {
            "minimum": (lambda v, m: v >= m, "{} or more"),
            "above": (lambda v, m: v > m, "more than {}"),
            "maximum": (lambda v, m: v <= m, "{} or less"),
            "below": (lambda v, m: v < m, "less than {}"),
            "choices": (lambda v, m: v in m, "{}"),
            "pattern": (lambda v, m: re.fullmatch(m, v), "{}"),
        }
        finite = not isinstance(item, float) or math.isfinite(item)
        if not finite or any(name in limits and not test(item, limits[name]) for name, (test, _) in tests.items()):
            allowed = limits.get("allowed") or " and ".join(
                text.format(", ".join(map(str, limits[n])) if n == "choices" else limits[n])
                for n, (_, text) in tests.items()
                if n in limits
            )
            allowed = f"{allowed} and finite" if allowed and not finite else allowed
            raise BadInput(f"{key}: {item!r}; allowed: {allowed or 'a finite number'}")


def _check_grid(config: Config) -> None:
    """Each axis is ``dataset`` or a field of the model or of the measure, each value one that the field allows."""
    nodes = {"model": config.model, "measure": config.measure}
    owners = {f.name: (place, f) for place, node in nodes.items() if node for f in dataclasses.fields(node)}
    for axis, values in config.grid.items():
        if not isinstance(values, list):
            raise BadInput(f"grid.{axis}: {values!r}; allowed: a list of values")
        if not values:
            raise BadInput(f"grid.{axis}: empty; allowed: a list of one value or more")
        if axis == "dataset":
            for value in values:
                if not isinstance(value, str):
                    raise BadInput(f"grid.dataset: {value!r}; allowed: names of data sets")
            continue
        if axis not in owners:
            raise BadInput(f"grid.{axis}: no such axis{nearest(axis, ['dataset', *owners])}")
        if any(isinstance(value, list | dict) for value in values):
            raise BadInput(f"grid.{axis}: {values!r}; allowed: plain values, one a network")
        place, entry = owners[axis]
        schema = type(nodes[place])
        for value in values:
            try:
                merged = _merge(schema, {**dataclasses.asdict(nodes[place]), axis: value}, place)
            except BadInput as error:
                raise BadInput(f"grid.{axis}: {value!r}: {str(error).partition(': ')[2]}") from error
            _check_value(getattr(merged, axis), entry, f"grid.{axis}")


def _check_by_dataset(config: Config, given: set[str]) -> None:
    """Check what differs for one data set, and let what was given on the command line hold for all."""
    for name, nodes in config.by_dataset.items():
        prefix = f"by_dataset.{name}"
        known = [
            *IMAGE_SETS,
            *TABLE_SETS,
            *CORPUS_SETS,
            config.dataset.name if config.dataset else "",
            *config.grid.get("dataset", []),
        ]
        if name not in known:
            raise BadInput(f"{prefix}: no such data set{nearest(name, known)}")
        if not isinstance(nodes, dict) or not all(isinstance(changes, dict) for changes in nodes.values()):
            raise BadInput(f"{prefix}: {nodes!r}; allowed: keys of dataset, model, training and measure")
        for node, changes in nodes.items():
            nodes_of = ("dataset", "model", "training", "measure")
            own = getattr(config, node) if node in nodes_of else None
            if own is None:
                raise BadInput(f"{prefix}.{node}: allowed: {', '.join(nodes_of)}")
            merged = _merge(type(own), {**dataclasses.asdict(own), **changes}, f"{prefix}.{node}")
            _check_limits(merged, f"{prefix}.{node}")
            varied = sorted(changes.keys() & config.grid.keys()) if node == "model" else []
            if varied:
                raise BadInput(f"{prefix}.model.{varied[0]}: grid.{varied[0]} varies it; allowed: other keys")
            nodes[node] = {
                key: _with_given(getattr(merged, key), getattr(own, key), f"{node}.{key}.", given)
                for key in changes
                if f"{node}.{key}" not in given
            }
            free = [key for key in ("train_size", "normalisation", *_OF_A_TABLE) if hasattr(own, key)]
            fixed = sorted(changes.keys() - free) if node == "dataset" else []
            if fixed:
                raise BadInput(f"{prefix}.dataset.{fixed[0]}: allowed here: {', '.join(free)}")


def _check_mapping(mapping: Any, given: set[str]) -> None:
    """Refuse what is said of the mapping that a checkpoint replaces, and of a checkpoint that is not there."""
    unused = [f"mapping.{name}" for name in dataclasses.asdict(mapping) if name not in ("kind", "checkpoint")]
    used = [f"mapping.{name}" for name in mapping_settings(mapping)]
    for key in (key for key in unused if key in given and key not in used):
        state = "without" if mapping.checkpoint is None else "with"
        raise BadInput(f"{key}: it does nothing {state} mapping.checkpoint; allowed: leave it out")


def _with_given(value: Any, general: Any, prefix: str, given: set[str]) -> Any:
    """A data set's own value; of a mapping with the keys that were given on the command line for all data sets."""
    if not isinstance(value, dict):
        return value
    return value | {key: general[key] for key in general if f"{prefix}{key}" in given}


def _own_caps(config: Config, given: set[str]) -> None:
    """Put the experiment's own caps in the place of its profile's, but for caps that were given."""
    profiles = sorted(path.stem for path in (config_folder() / "profile").glob("*.yaml"))
    for name, caps in config.caps.items():
        prefix = f"caps.{name}"
        if name not in profiles:
            raise BadInput(f"{prefix}: no such profile{nearest(name, profiles)}")
        if not isinstance(caps, dict):
            raise BadInput(f"{prefix}: {caps!r}; allowed: caps of a profile")
        merged = _merge(ProfileConfig, {**dataclasses.asdict(config.profile), **caps}, prefix)
        _check_limits(merged, prefix)
        unfit = sorted(caps.keys() & {"name", "embedded"})
        if unfit:
            raise BadInput(f"{prefix}.{unfit[0]}: no cap")
        if name == config.profile.name:
            for cap in caps:
                if f"profile.{cap}" not in given:
                    setattr(config.profile, cap, getattr(merged, cap))


def _apply_profile(config: Config, given: set[str]) -> None:
    _own_caps(config, given)
    profile = config.profile

    def cap(owner: Any, name: str, limit: int | None, key: str) -> None:
        value = getattr(owner, name, None)
        if isinstance(value, int | float) and limit is not None and key not in given:
            setattr(owner, name, min(value, limit))

    cap(config.training, "epochs", profile.epochs, "training.epochs")
    for name, nodes in config.by_dataset.items():
        changes = nodes.get("training", {})
        capped = profile.epochs is not None and f"by_dataset.{name}.training.epochs" not in given
        if "epochs" in changes and capped:
            changes["epochs"] = min(changes["epochs"], profile.epochs)
        own = nodes.get("model", {})
        if isinstance(own.get("channels"), int) and profile.channels:
            own["channels"] = min(own["channels"], profile.channels)
    cap(config.features, "epochs", profile.epochs, "features.epochs")
    cap(config.features, "train_size", profile.objects, "features.train_size")
    cap(config.model, "channels", profile.channels, "model.channels")
    if profile.channels and "channels" in config.grid and "grid.channels" not in given:
        narrow = [value for value in config.grid["channels"] if value <= profile.channels]
        config.grid["channels"] = narrow or [profile.channels]
    cap(config.measure, "permutations", profile.permutations, "measure.permutations")
    cap(config.measure, "smoothing", profile.smoothing, "measure.smoothing")
    for name in _MEASURE_CAPS:
        cap(config.measure, name, getattr(profile, name), f"measure.{name}")
    cap(config.measure, "copy_resamples", profile.resamples, "measure.copy_resamples")
    for name, nodes in config.by_dataset.items():
        own = nodes.get("measure", {})
        for option, limit in {
            **{n: getattr(profile, n) for n in _MEASURE_CAPS},
            "copy_resamples": profile.resamples,
        }.items():
            if own.get(option) is not None and limit is not None and f"by_dataset.{name}.measure.{option}" not in given:
                own[option] = min(own[option], limit)
    for name in ("sizes", "removal_steps", "teacher_objects"):
        limit = getattr(profile, name)
        if limit and getattr(config.measure, name, 0) is None and f"measure.{name}" not in given:
            setattr(config.measure, name, limit)  # null: all of them
    if profile.pairs and hasattr(config.mapping, "pairs") and "mapping.pairs" not in given:
        config.mapping.pairs = min(profile.pairs, config.mapping.pairs or profile.pairs)  # null: all of them
    cap(config, "seeds", profile.seeds, "seeds")
    for axis, values in config.grid.items():
        if profile.grid_points and f"grid.{axis}" not in given and axis != "dataset":
            config.grid[axis] = thin(values, profile.grid_points)
    if config.dataset:
        # Of a corpus the teacher, its students and the mapping use lines of their own, each under a cap of its own.
        capped = config.dataset.kind != "corpus" and not given & {"dataset.train_size", "dataset.max_size"}
        if profile.objects and capped:
            config.dataset.max_size = min(profile.objects, config.dataset.max_size or profile.objects)
        if profile.embedded and not given & {"dataset", "dataset.name", "dataset.path", "grid.dataset"}:
            stand_in(config.dataset, config.grid, given)
        instead = getattr(config.features, "embedded", None)
        chosen = any(key.split(".")[0] == "features" for key in given)
        if profile.embedded and instead and not chosen:
            config.features = FEATURES[instead](in_place_of=config.features.kind)


def thin(values: Sequence[Any], count: int) -> list[Any]:
    """Choose `count` of the values, evenly spaced, the first and the last among them when `count` allows."""
    if len(values) <= count:
        return list(values)
    if count == 1:
        return [values[len(values) // 2]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix and key else prefix or key


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
