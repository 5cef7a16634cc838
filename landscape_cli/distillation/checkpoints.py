"""Which checkpoint a mapping φ is, by what it holds. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscape_cli.data.locate import expand
from landscape_cli.distillation.nllb import check_checkpoint, file_checksum
from landscape_cli.errors import MissingExtractor

CYCLEGAN, NLLB = "cyclegan", "nllb"


def find_mapping(wanted: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Replace what was asked of a mapping with a checkpoint by what identifies it.

    Parameters
    ----------
    wanted
        ``kind`` (style: a CycleGAN generator's file; translation: an NLLB checkpoint's folder), ``checkpoint``, and the
        translator's names of the languages.

    Returns
    -------
    The mapping's settings, with the SHA-256 of its weights, and where it is.

    Raises
    ------
    MissingExtractor
        There is no such file or folder.
    MissingData
        The package that reads it is not installed.
    DamagedData
        The folder is no checkpoint.
    """
    path = expand(wanted["checkpoint"])
    rest = {name: value for name, value in wanted.items() if name not in ("kind", "checkpoint")}
    if wanted["kind"] == "style":
        if not path.is_file():
            raise MissingExtractor(
                f"mapping.checkpoint: {wanted['checkpoint']}: there is no such file; mapping.checkpoint=null takes the "
                "fixed stylisation"
            )
        return {"kind": CYCLEGAN, "checksum": file_checksum(path), **rest}, path
    if not path.is_dir():
        raise MissingExtractor(
            f"mapping.checkpoint: {wanted['checkpoint']}: there is no such folder; mapping.checkpoint=null takes a "
            "table of words (IBM model 1)"
        )
    return {"kind": NLLB, "checksum": check_checkpoint(path), **rest}, path


def mapping_name(settings: Mapping[str, Any]) -> str:
    """What a mapping is called in captions and tables."""
    kind, checksum = settings["kind"], settings.get("checksum", "")[:12]
    return {
        "style": f"fixed stylisation ({settings.get('levels')} levels, seed {settings.get('seed')})",
        CYCLEGAN: f"CycleGAN generator, checksum {checksum}",
        "translation": f"table of words (IBM model 1, {settings.get('iterations')} iterations)",
        NLLB: f"NLLB, checksum {checksum}",
    }[kind]
