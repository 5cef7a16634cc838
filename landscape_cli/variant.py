"""The name of what a command draws, beside the experiment's own name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

# Overrides that cannot change a number: with these alone the output is the experiment's own, not a variant's.
_INDIFFERENT = (
    *("experiment", "device", "threads", "workers", "output_dir", "plot", "shard", "keep_parameters"),
    *("dry_run", "debug", "hydra", "checkpoint", "tracking", "submission", "allow_changes"),
)
# Of the node `plot`, what makes another picture, and what it is by default; formats and dpi do not.
_LOOKS = {"plot.language": "en", "plot.size": "own"}


def telling(overrides: Sequence[str]) -> list[str]:
    """Those of the overrides that somebody else needs to get the same output."""
    keys = [text.lstrip("+~").partition("=")[0].split(".")[0].split("/")[0] for text in overrides]
    return [text for key, text in zip(keys, overrides, strict=True) if key == "plot" or key not in _INDIFFERENT]


def variant_name(profile: str, overrides: Sequence[str]) -> str:
    """Subfolder for what is not the thesis's own setting, so that a small run never overwrites a paper figure."""
    parts = [] if profile == "paper" else [profile]
    for text in overrides:
        key, _, value = text.lstrip("+~").partition("=")
        other_look = key in _LOOKS and value.strip("'\"") != _LOOKS[key]
        whole_node = key == "plot" and any(name.split(".")[1] in value for name in _LOOKS)
        number = key not in ("profile", "data.download") and key.split(".")[0].split("/")[0] not in _INDIFFERENT
        if other_look or whole_node or number:
            parts.append(text.lstrip("+"))
    name = re.sub(r"[^A-Za-z0-9_.=,+-]+", "-", ",".join(parts))
    # Different commands stay apart where their names are cut, or differ in what was replaced.
    exact = name == ",".join(parts) and len(name) <= 100
    return name if exact else f"{name[:90]}-{hashlib.blake2b(','.join(parts).encode(), digest_size=4).hexdigest()}"
