"""Translation with a tiny random NLLB checkpoint, as transformers saves one."""

import json
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from landscape_cli.distillation import nllb
from landscape_cli.distillation.nllb import check_checkpoint, file_checksum, translate_with_checkpoint
from landscape_cli.errors import BadInput, DamagedData, MissingData

SENTENCES = [
    "le chien court dans la rue",
    "un homme noir",
    "une femme rouge et un chien",
    "la maison est petite",
    "la rue",
]
CODES = ["deu_Latn", "eng_Latn", "fra_Latn", "zho_Hans"]
LENGTH = 14
needs_transformers = pytest.mark.skipif(not find_spec("transformers"), reason="transformers is not installed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a network whose translations are long and depend on what they translate."""
    from landscape_cli.data.torchvision_import import torchvision  # noqa: F401, so that transformers can import it

    transformers = pytest.importorskip("transformers")
    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=80, special_tokens=special, show_progress=False)
    )
    learnt = json.loads(pieces.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokeniser = transformers.NllbTokenizer(vocab=learnt["vocab"], merges=merges, additional_special_tokens=CODES)
    config = transformers.M2M100Config(
        vocab_size=len(tokeniser),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        init_std=0.5,
        decoder_start_token_id=2,
    )
    folder = tmp_path_factory.mktemp("nllb") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.M2M100ForConditionalGeneration(config).save_pretrained(folder)
    tokeniser.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """A copy to damage; and whoever asks for a connection fails."""

    def refuse(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return shutil.copytree(saved, tmp_path / "tiny")


def step_by_step(folder, sentence, source, target):
    """Translate without ``generate``: one argmax after the other."""
    import transformers

    tokeniser = transformers.NllbTokenizer.from_pretrained(folder, src_lang=source)
    net = transformers.M2M100ForConditionalGeneration.from_pretrained(folder).eval()
    tokens = tokeniser(sentence, return_tensors="pt").input_ids
    assert tokens[0, 0] == tokeniser.convert_tokens_to_ids(source)
    written = [tokeniser.eos_token_id, tokeniser.convert_tokens_to_ids(target)]
    while len(written) <= LENGTH and (len(written) == 2 or written[-1] != tokeniser.eos_token_id):
        with torch.no_grad():
            scores = net(input_ids=tokens, decoder_input_ids=torch.tensor([written])).logits
        written.append(int(scores[0, -1].argmax()))
    return tokeniser.decode(written, skip_special_tokens=True).strip()


@needs_transformers
@pytest.mark.parametrize(("source", "target"), [("fra_Latn", "deu_Latn"), ("eng_Latn", "zho_Hans")])
def test_every_word_is_the_likeliest(folder, source, target):
    found = translate_with_checkpoint(folder, SENTENCES, source, target, max_length=LENGTH)
    assert found == [step_by_step(folder, sentence, source, target) for sentence in SENTENCES]
    assert len(set(found)) > 2


@needs_transformers
def test_the_same_in_any_batch(folder):
    sentences = [*SENTENCES, "", *SENTENCES[:2], "  "]
    found = translate_with_checkpoint(folder, sentences, max_length=LENGTH)
    assert all(isinstance(text, str) for text in found)
    assert found[5] == ""
    assert found[8] == "  "
    assert found[6:8] == found[:2]
    for size in (1, 2, 5):
        assert translate_with_checkpoint(folder, sentences, batch_size=size, max_length=LENGTH) == found
    alone = [translate_with_checkpoint(folder, [sentence], max_length=LENGTH)[0] for sentence in SENTENCES]
    assert alone == found[:5]
    assert translate_with_checkpoint(folder, []) == []
    assert translate_with_checkpoint(folder, SENTENCES, target_code="eng_Latn", max_length=LENGTH) != found[:5]


@needs_transformers
def test_quietly_and_with_progress(folder, capfd):
    from transformers.utils import logging

    before, seen = logging.get_verbosity(), []

    def progress(batches, desc):
        seen.append((desc, [len(batch) for batch in batches]))
        return batches

    translate_with_checkpoint(folder, SENTENCES, batch_size=2, max_length=LENGTH, progress=progress)
    assert seen == [("translation", [2, 2, 1])]
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == before


@needs_transformers
def test_languages(folder):
    with pytest.raises(BadInput, match=r"'fre_Latn' is no language of .*, which has 4; the nearest: fra_Latn"):
        translate_with_checkpoint(folder, SENTENCES, source_code="fre_Latn")
    with pytest.raises(BadInput, match=r"'de' is no language of .* the nearest: deu_Latn"):
        translate_with_checkpoint(folder, SENTENCES, target_code="de")
    with pytest.raises(BadInput, match="'▁chien' is no language"):  # a token, and yet none of a language
        translate_with_checkpoint(folder, SENTENCES, target_code="▁chien")
    with pytest.raises(BadInput, match="batch_size 0; allowed: 1 or more"):
        translate_with_checkpoint(folder, SENTENCES, batch_size=0)
    with pytest.raises(BadInput, match="max_length 2; allowed: 3 or more"):
        translate_with_checkpoint(folder, SENTENCES, max_length=2)


@needs_transformers
def test_a_language_without_an_embedding(folder):
    """A tokeniser can know more languages than the network."""
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"extra_special_tokens": [*CODES, "spa_Latn"]}))
    with pytest.raises(BadInput, match=r"'spa_Latn' is no language of .*, which has 4"):
        translate_with_checkpoint(folder, SENTENCES, target_code="spa_Latn")


@needs_transformers
def test_the_checksum_is_of_all_that_matters(folder):
    whole = check_checkpoint(folder)
    assert len(whole) == 64
    assert check_checkpoint(str(folder)) == whole
    (folder / "README.md").write_text("of no matter")
    assert check_checkpoint(folder) == whole
    for name in ("model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        assert check_checkpoint(folder) != whole
        (folder / name).write_bytes(content)
    assert check_checkpoint(folder) == whole
    (folder / "generation_config.json").unlink()
    assert check_checkpoint(folder) != whole


@needs_transformers
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_incomplete_folders(folder, name):
    (folder / name).unlink()
    for use in (check_checkpoint, lambda path: translate_with_checkpoint(path, SENTENCES)):
        with pytest.raises(DamagedData, match=rf"mapping.checkpoint: {folder} is not .*: it has no .*{name}"):
            use(folder)


@needs_transformers
def test_weights_as_first_published(folder):
    from safetensors.torch import load_file

    found = translate_with_checkpoint(folder, SENTENCES, max_length=LENGTH)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    whole = check_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    assert check_checkpoint(folder) != whole
    assert translate_with_checkpoint(folder, SENTENCES, max_length=LENGTH) == found


@needs_transformers
def test_damaged_folders(folder, tmp_path):
    with pytest.raises(MissingData, match=r"mapping.checkpoint: .*none: there is no such folder") as caught:
        check_checkpoint(tmp_path / "none")
    assert not isinstance(caught.value, DamagedData)
    config = json.loads((folder / "config.json").read_text())
    for content, reason in (("{", "cannot be read"), ("[]", "cannot be read"), ('{"model_type": "bert"}', "'bert'")):
        (folder / "config.json").write_text(content)
        with pytest.raises(DamagedData, match=reason):
            check_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(config | {"encoder_layers": 3}))
    with pytest.raises(DamagedData, match=r"lacks 1\d tensors, the first is model.encoder.layers.2"):
        translate_with_checkpoint(folder, SENTENCES)
    (folder / "config.json").write_text(json.dumps(config))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DamagedData, match="cannot be loaded") as caught:
        translate_with_checkpoint(folder, SENTENCES)
    assert "\n" not in str(caught.value)


@needs_transformers
def test_a_tokeniser_of_another_kind(folder):
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    tokens = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokens | {"post_processor": None}))
    with pytest.raises(DamagedData, match="does not mark the language"):
        translate_with_checkpoint(folder, SENTENCES)


@needs_transformers
def test_transformers_is_not_installed(folder, monkeypatch):
    monkeypatch.setattr(nllb, "find_spec", lambda _: None)
    for use in (check_checkpoint, lambda path: translate_with_checkpoint(path, SENTENCES)):
        with pytest.raises(MissingData, match=r"transformers: pip install 'landscape-cli\[features\]'") as caught:
            use(folder)
        assert not isinstance(caught.value, DamagedData)


@needs_transformers
def test_checking_imports_nothing_heavy(folder):
    code = f"""
import sys
from landscape_cli.distillation.nllb import check_checkpoint
check_checkpoint({str(folder)!r})
print(sorted({{"torch", "torchvision", "transformers", "safetensors"}} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_checksum_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_checksum(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
