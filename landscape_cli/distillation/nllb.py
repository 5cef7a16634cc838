"""A pretrained NLLB translator as the mapping φ between languages (thesis 4.2.3), through the extra ``transformers``.

NLLB Team (No language left behind: scaling human-centered machine translation, arXiv 2207.04672, 2022). The
files are the user's, read where they are; nothing is fetched. Imports no torch before it translates.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape_cli.data.locate import expand
from landscape_cli.errors import BadInput, DamagedData, LandscapeError, MissingData
from landscape_cli.features.checkpoints import INSTALL

if TYPE_CHECKING:
    import torch

CONFIG, TOKENISER_CONFIG = "config.json", "tokenizer_config.json"
MODEL_TYPE = "m2m_100"  # NLLB's architecture, but for its mixtures of experts
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first there is counts
TOKENISERS = ("tokenizer.json", "sentencepiece.bpe.model")
OPTIONAL = ("special_tokens_map.json", "generation_config.json")
CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")  # language and script


def file_checksum(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_checkpoint(folder: str | Path) -> str:
    """Check that a folder holds an NLLB checkpoint in the layout of transformers, without loading it.

    Returns
    -------
    SHA-256 over the names and contents of the files that a translation depends on.

    Raises
    ------
    MissingData
        There is no such folder, or transformers is not installed.
    DamagedData
        A file is not there, or the model is of another kind.
    """
    lines = [f"{file.name} {file_checksum(file)}" for file in _files(expand(folder))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def translate_with_checkpoint(
    folder: str | Path,
    sentences: Sequence[str],
    source_code: str = "fra_Latn",
    target_code: str = "deu_Latn",
    device: str | torch.device = "cpu",
    batch_size: int = 32,
    max_length: int = 128,
    progress: Callable[..., Any] | None = None,
) -> list[str]:
    """Translate sentences, each word the likeliest after the ones before it (greedily), in float32.

    The same sentences give the same translations. They are sorted by length so that little is padded; what else is in
    a sentence's batch changes its numbers by rounding only.

    Parameters
    ----------
    source_code, target_code
        NLLB's names of language and script.
    max_length
        Tokens, of a sentence (the rest is cut off) and of a translation; 3 or more: the language, a word, the end.
    progress
        Like tqdm, for the batches; None: silent.

    Returns
    -------
    As many as sentences; one without words stays as it is.

    Raises
    ------
    MissingData
        There is no such folder, or transformers is not installed.
    DamagedData
        It cannot be loaded.
    BadInput
        A language that the model has no code for, or a size below 1.
    """
    folder = expand(folder)
    _files(folder)
    for name, value, least in (("batch_size", batch_size, 1), ("max_length", max_length, 3)):
        if value < least:
            raise BadInput(f"mapping: {name} {value}; allowed: {least} or more")
    translations = list(sentences)
    wordy = [number for number, sentence in enumerate(sentences) if sentence.strip()]
    wordy.sort(key=lambda number: -len(sentences[number]))  # the largest batch first: it fits or fails at once
    batches = [wordy[start : start + batch_size] for start in range(0, len(wordy), batch_size)]
    with _quiet():
        tokeniser, model = _loaded(folder, source_code, target_code)
        model = model.to(device)
        for batch in progress(batches, desc="translation") if progress else batches:
            texts = [sentences[number] for number in batch]
            tokens = tokeniser(texts, return_tensors="pt", padding=True, truncation=True, max_length=max_length)
            found = model.generate(
                input_ids=tokens.input_ids.to(device),
                attention_mask=tokens.attention_mask.to(device),
                forced_bos_token_id=tokeniser.convert_tokens_to_ids(target_code),
                num_beams=1,
                do_sample=False,
                max_length=None,
                max_new_tokens=max_length,
            )
            for number, text in zip(batch, tokeniser.batch_decode(found, skip_special_tokens=True), strict=True):
                translations[number] = text.strip()
    return translations


def _files(folder: Path) -> list[Path]:
    """Return the files that a translation depends on, after a check that they are there."""
    if not folder.is_dir():
        raise MissingData(
            f"mapping.checkpoint: {folder}: there is no such folder; name one with an NLLB checkpoint, as transformers "
            "saves it"
        )
    found = []
    for choices in ((CONFIG,), WEIGHTS, (TOKENISER_CONFIG,), TOKENISERS):
        there = [folder / name for name in choices if (folder / name).is_file()]
        if not there:
            missing = " or ".join(choices)
            raise DamagedData(
                f"mapping.checkpoint: {folder} is not an NLLB checkpoint of transformers: it has no {missing}"
            )
        found += there if choices is TOKENISERS else there[:1]
    try:
        kind = json.loads(found[0].read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise DamagedData(f"mapping.checkpoint: {found[0]} cannot be read ({error})") from error
    if kind != MODEL_TYPE:
        raise DamagedData(f"mapping.checkpoint: {folder} holds a model of type {kind!r}, and must hold {MODEL_TYPE!r}")
    if not find_spec("transformers"):
        raise MissingData(f"mapping.checkpoint: {folder} needs the package transformers: {INSTALL}")
    return found + [folder / name for name in OPTIONAL if (folder / name).is_file()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from bars, tables of tensors, and advice."""
    from landscape_cli.data.torchvision_import import torchvision  # noqa: F401, before transformers imports it

    from transformers.utils import logging  # isort: skip

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _loaded(folder: Path, source_code: str, target_code: str) -> tuple[Any, Any]:
    """Return the tokeniser of the source language, and the model in float32 and ``eval()``."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        tokeniser = AutoTokenizer.from_pretrained(folder, **local)
        _check_codes(folder, tokeniser, config.vocab_size, source_code, target_code)
        tokeniser.src_lang = source_code
        if tokeniser.convert_tokens_to_ids(source_code) not in tokeniser("a").input_ids:
            kind = type(tokeniser).__name__
            raise DamagedData(
                f"mapping.checkpoint: {folder}: {kind} does not mark the language, as NLLB's tokeniser does"
            )
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, **local
        )
    except LandscapeError:
        raise
    except Exception as error:  # it raises a dozen classes on damaged files
        reason = " ".join(str(error).split())[:200]
        raise DamagedData(f"mapping.checkpoint: {folder} cannot be loaded ({reason})") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise DamagedData(
            f"mapping.checkpoint: {folder} lacks {len(missing)} tensors, the first is {missing[0]}: it is incomplete"
        )
    return tokeniser, model.eval()


def _check_codes(folder: Path, tokeniser: Any, vocabulary: int, *codes: str) -> None:
    """Refuse a language that the tokeniser has no token for, or the model no embedding of it."""
    tokens = tokeniser.get_vocab()
    known = sorted(token for token, number in tokens.items() if CODE.fullmatch(token) and number < vocabulary)
    for code in codes:
        if code not in known:
            near = difflib.get_close_matches(code, known, n=3, cutoff=0.0)
            raise BadInput(
                f"mapping: {code!r} is no language of {folder}, which has {len(known)}; the nearest: {', '.join(near)}"
                if near
                else f"mapping: {code!r} is no language of {folder}, which has none by name; name an NLLB checkpoint"
            )
