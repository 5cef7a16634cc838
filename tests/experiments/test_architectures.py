"""Table 2.1: what the vision transformers are, beside the published cells."""

import math
from dataclasses import asdict
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from experiments.chapter2.architectures import Architectures, ArchitecturesOptions
from experiments.reference import published_table
from landscape_cli.composing import load
from landscape_cli.config import Config, TransformerConfig
from landscape_cli.errors import BadInput
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.models import build_model
from landscape_cli.rng import generator

MODELS = {
    "mnist": asdict(TransformerConfig()),
    "cifar100": asdict(TransformerConfig(hidden_size=128, num_layers=8)),
}
PARAMETERS = {"mnist": 3552, "cifar100": 1595904}
PICTURES = {"mnist": ((1, 28, 28), 10), "cifar100": ((3, 32, 32), 100)}
CONTEXT = SimpleNamespace(device=torch.device("cpu"))


def experiment(models=MODELS) -> Architectures:
    return Architectures(Config(name="vit", title="", family="", measure=ArchitecturesOptions(models)))


def results(own: Architectures) -> Results:
    """What the runner would store."""
    points, frames = own.points(), {"architectures": [], "tensors": []}
    for point in points:
        for name, frame in own.measure(point, CONTEXT).frames.items():
            frames[name].append(frame.assign(**point.coordinates)[[*point.coordinates, *frame]])
    frames = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}
    return Results(tuple(points), (), frames, {}, {}, "paper")


@pytest.fixture(scope="module")
def found() -> Results:
    return results(experiment())


def test_the_experiment_lists_the_published_networks():
    assert load(["experiment=vit_architectures"]).measure == ArchitecturesOptions(MODELS)
    assert [point.coordinates for point in experiment().points()] == [{"dataset": name} for name in MODELS]


@pytest.mark.parametrize("name", list(MODELS))
def test_parameters_are_those_of_the_modules(found, name):
    model = build_model(MODELS[name], *PICTURES[name])
    net = model.module(model.initialise([generator(0, "test")]), 0)
    assert sum(tensor.numel() for tensor in net.parameters()) == PARAMETERS[name]
    row = found.frames["architectures"].set_index("dataset").loc[name]
    assert row["parameters"] == PARAMETERS[name]
    tensors = found.frames["tensors"]
    tensors = tensors[tensors["dataset"] == name].set_index("tensor")
    shapes = {n: [str(size) for size in tensor.shape] for n, tensor in net.named_parameters()}
    assert tensors["shape"].str.split(" x ").to_dict() == shapes
    assert tensors["parameters"].to_dict() == {n: math.prod(map(int, shape)) for n, shape in shapes.items()}


def test_twelve_tensors_make_up_the_mnist_network(found):
    tensors = found.frames["tensors"]
    sizes = sorted(tensors.loc[tensors["dataset"] == "mnist", "parameters"])
    assert sizes == [16] * 4 + [160] + [256] * 5 + [1024] * 2


def test_the_table_holds_the_published_cells_and_what_they_leave_out(found):
    table, tensors = experiment().tables(found)
    assert (table.name, tensors.name) == ("table_2_1_vit_architectures", "tensors_vit_architectures")
    assert table.frame.to_dict("list") == {
        "dataset": ["MNIST", "CIFAR100"],
        "patch_size": [4, 4],
        "hidden_size": [16, 128],
        "ffn_size": [64, 512],
        "num_layers": [1, 8],
        "num_heads": [1, 1],
        "tokens": [49, 64],
        "parameters": [3552, 1595904],
    }
    assert tensors.frame["dataset"].unique().tolist() == ["MNIST", "CIFAR100"]
    assert list(experiment().figures(found)) == []


def test_every_published_cell_is_compared(found):
    cells = published_table("2.1")
    assert len(cells) == 8
    verdicts = list(experiment().claims(found))
    assert [verdict.claim for verdict in verdicts] == [
        "MNIST: patch 4, hidden 16, ffn 64, blocks 1",
        "CIFAR100: patch 4, hidden 128, ffn 512, blocks 8",
    ]
    for verdict, parameters in zip(verdicts, PARAMETERS.values(), strict=True):
        assert (verdict.verdict, verdict.effect) == (REPRODUCED, 4)
        assert verdict.statistic == "cells that agree, of 4"
        assert verdict.note == f"{parameters} parameters"


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"patch_size": 7}, 3),
        ({"ffn_size": 32}, 3),
        ({"num_layers": 2}, 3),
        ({"hidden_size": 8}, 2),  # the network is four times as wide as that
        ({"hidden_size": 8, "ffn_size": 64}, 3),
    ],
)
def test_a_cell_that_differs_is_told(changes, same):
    own = experiment(MODELS | {"mnist": MODELS["mnist"] | changes})
    mnist, cifar = own.claims(results(own))
    assert (mnist.verdict, mnist.effect) == (NOT_REPRODUCED, same)
    assert (cifar.verdict, cifar.effect) == (REPRODUCED, 4)


def test_a_data_set_without_published_cells_is_listed_and_not_judged():
    own = experiment({"fashion_mnist": MODELS["mnist"]})
    found = results(own)
    assert found.frames["architectures"]["parameters"].tolist() == [3552]
    assert list(own.claims(found)) == []


@pytest.mark.parametrize(
    ("models", "texts"),
    [
        ({"mnits": {"kind": "vit"}}, ["measure.models.mnits", "no such data set", "'mnist'"]),
        ({"mnist": {"kind": "mlp"}}, ["measure.models.mnist.kind", "'mlp'", "allowed: vit"]),
        ({"mnist": {"kind": "vti"}}, ["measure.models.mnist.kind", "'vti'", "vit"]),
        ({"mnist": "vit"}, ["measure.models.mnist", "'vit'"]),
        ({"mnist": {"kind": "vit", "hiden_size": 8}}, ["measure.models.mnist.hiden_size", "hidden_size"]),
        ({"mnist": {"kind": "vit", "num_layers": 0}}, ["measure.models.mnist.num_layers", "0"]),
        ({"mnist": {"kind": "vit", "patch_size": 5}}, ["patch_size: 5 does not divide", "mnist", "1, 2, 4, 7, 14, 28"]),
        ({"mnist": {"kind": "vit", "num_heads": 3}}, ["num_heads: 3 does not divide", "hidden_size=16"]),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(models, texts):
    with pytest.raises(BadInput) as refused:
        experiment(models).points()
    for text in texts:
        assert text in str(refused.value)


@pytest.mark.parametrize("wrong", [{"patch_size": 5}, {"num_heads": 3}])
def test_an_impossible_network_is_refused_by_the_key_that_was_given(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(BadInput, match=rf"^measure\.models\.mnist\.{name}: "):
        experiment({"mnist": {"kind": "vit"} | wrong}).points()


def test_the_command_writes_the_table_without_any_data(landscape, tmp_path):
    finished = landscape("run", "experiment=vit_architectures")
    assert finished.code == 0, finished.err
    text = (tmp_path / "outputs/tables/table_2_1_vit_architectures.md").read_text(encoding="utf-8")
    assert "3552" in text
    assert "1595904" in text
