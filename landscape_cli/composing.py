"""Hydra at arm's length: composing configurations, and its complaints in one line each. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from landscape_cli.config import Config
from landscape_cli.config_path import config_folder
from landscape_cli.errors import BadInput
from landscape_cli.validation import flat_keys, nearest, prepare, unknown_key

GROUPS = ("experiment", "dataset", "features", "model", "mapping", "training", "profile")

# Keys of a network and of data of one's own; others are arguments, which no file of the configuration has.
OWN = {
    "model": ("kind", "_target_"),
    "dataset": ("kind", "_target_", "train_size", "max_size", "normalisation"),
}
# What a user may set of Hydra's own configuration: how jobs are launched and swept. The rest (working folder, logging,
# output folders) is the runner's, and Hydra itself would take +hydra.anything in silence.
HYDRA_KEYS = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.verbose")


def load(overrides: Sequence[str]) -> Config:
    """Compose and validate the configuration that ``landscape run`` with these overrides would use.

    Raises
    ------
    BadInput
        In one line.
    """
    overrides = with_arguments_added(overrides)
    check_overrides(overrides)
    try:
        composed = compose(overrides)
    except HydraException as error:
        raise translated(error, overrides) from error
    return prepare(composed, overrides)


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose without validating; Hydra's own errors pass through."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"):
        return hydra_compose("config", overrides=list(overrides))


def with_arguments_added(overrides: Sequence[str]) -> list[str]:
    """Let ``model.width=32`` add a key where the network is the user's own, as ``+model.width=32`` does; so of data."""
    found = []
    for text in overrides:
        node, _, key = text.partition("=")[0].partition(".")
        own = any(other.startswith((f"{node}._target_=", f"{node}=own")) for other in overrides)
        free = node in OWN and own and key.split(".")[0] not in {*OWN.get(node, ()), ""}
        found.append(f"++{text}" if free else text)
    return found


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse what Hydra would accept in silence.

    Raises
    ------
    BadInput
        For an override that does not parse, or of a Hydra setting outside :data:`HYDRA_KEYS`.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise translated(error, overrides) from error
    for text, override in zip(overrides, parsed, strict=True):
        key = override.key_or_group
        if not key:
            raise BadInput(f"{text}: cannot be read as key=value (there is no key)")
        plain = not (override.is_delete() or override.is_sweep_override())
        if key in GROUPS and plain and not isinstance(override.value(), str):
            raise BadInput(f"{text}: there is none; valid: {', '.join(_options(key))}")
        allowed = any(key == k or key.startswith((k + ".", k + "/")) for k in HYDRA_KEYS)
        if key.split(".")[0].split("/")[0] == "hydra" and not allowed:
            raise BadInput(f"{text}: this setting of Hydra is fixed here; what can be set: {', '.join(HYDRA_KEYS)}")


def translated(error: Exception, overrides: Sequence[str]) -> BadInput:
    """Return one of Hydra's exceptions as one line: what is wrong, and the nearest valid name."""
    message = str(error).strip()
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = sorted(error.options)
        return BadInput(f"{group}={name}: there is none{nearest(name, options)}; valid: {', '.join(options)}")
    if isinstance(error, OverrideParseException):
        return BadInput(f"{error.override}: cannot be read as key=value ({_first_line(message)})")
    found = re.search(r"Could not override '([^']+)'", message)
    if isinstance(error, ConfigCompositionException) and found:
        key, known = found.group(1), _known_keys(overrides)
        if key in known:
            return BadInput(f"{key}: it lacks a key in the braces; `~{key} +{key}={{…}}` puts others in its place")
        return unknown_key(key, known)
    if message.startswith("Ambiguous value"):
        return BadInput(f"{_first_line(message)}: -m runs one job for each of several values")
    return BadInput(_first_line(message))


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Every key of the configuration that is left when only the choices of groups are kept."""
    try:
        composed = compose([text for text in overrides if text.split("=")[0] in GROUPS])
    except HydraException:
        composed = compose([])
    return [*flat_keys(OmegaConf.to_container(composed)), *GROUPS]


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def _first_line(message: str) -> str:
    return message.splitlines()[0] if message else "invalid configuration"
