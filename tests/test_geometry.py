import itertools
from dataclasses import asdict

import pytest
import torch
from torch.nn import functional

from landscape_cli.config import ConvConfig, MLPConfig, TransformerConfig
from landscape_cli.errors import ImpossibleModel
from landscape_cli.geometry import ViTGeometry, check_model, conv_geometry, vit_geometry

KINDS = pytest.mark.parametrize("kind", ["conv1d", "conv2d"])


def settings(**given):
    return asdict(ConvConfig(**given))


def vit(**given):
    return asdict(TransformerConfig(**given))


@KINDS
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 21, 18), (2, 18, 23)], ids=str)
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_sizes_are_pytorchs(kind, shape, kernel_size):
    channels, dimensions = 5, int(kind[4])
    convolve = functional.conv1d if dimensions == 1 else functional.conv2d
    for layers, pooling in itertools.product([1, 2, 4], ["max", "average"]):
        for position in range(layers):
            given = {"num_layers": layers, "channels": channels, "kernel_size": kernel_size, "pooling": pooling}
            found = conv_geometry(settings(kind=kind, position=position, **given), shape)
            z = torch.zeros(1, shape[0] * shape[2], shape[1]) if dimensions == 1 else torch.zeros(1, *shape)
            assert found.input == (*z.shape[1:], 1)[:3]
            for layer, sizes in enumerate(zip(found.convolved, found.passed_on, strict=True), start=1):
                z = convolve(z, torch.zeros(channels, z.shape[1], *[kernel_size] * dimensions))
                assert sizes[0] == (*z.shape[1:], 1)[:3]
                if layer == position:
                    z = functional.max_pool1d(z, 2) if dimensions == 1 else functional.max_pool2d(z, 2)
                assert sizes[1] == (*z.shape[1:], 1)[:3]
            assert len(found.convolved) == layers
            assert found.features == z.numel()
            assert found.kernel == (kernel_size, kernel_size if dimensions == 2 else 1)
            assert found.window == (2, 2 if dimensions == 2 else 1)


def test_a_sequence_has_a_pictures_rows_and_its_columns_are_channels():
    found = conv_geometry(settings(kind="conv1d", num_layers=3, channels=7, kernel_size=3, position=2), (3, 11, 2))
    assert found.input == (6, 11, 1)
    assert found.convolved == ((7, 9, 1), (7, 7, 1), (7, 1, 1))
    assert found.passed_on == ((7, 9, 1), (7, 3, 1), (7, 1, 1))


@pytest.mark.parametrize(
    ("given", "shape", "smaller", "message"),
    [
        (
            {"num_layers": 3},
            (1, 7, 9),
            (1, 6, 9),
            "model.kernel_size: 3 is larger than what is left of pets at convolution 3 of 3: 2x5 "
            "(6x9 -> 4x7 -> 2x5; each convolution takes 3 - 1 = 2 off)",
        ),
        (
            {"num_layers": 3},
            (1, 9, 7),
            (1, 9, 6),
            "model.kernel_size: 3 is larger than what is left of pets at convolution 3 of 3: 5x2 "
            "(9x6 -> 7x4 -> 5x2; each convolution takes 3 - 1 = 2 off)",
        ),
        (
            {"num_layers": 3, "position": 1},
            (1, 12, 12),
            (1, 11, 12),
            "model.kernel_size: 3 is larger than what is left of pets at convolution 3 of 3: 2x3 "
            "(11x12 -> 9x10 -> 4x5 -> 2x3; each convolution takes 3 - 1 = 2 off, "
            "the pooling after convolution 1 halves)",
        ),
        (  # the pooling is not reached
            {"num_layers": 5, "position": 3, "kernel_size": 4},
            (1, 23, 23),
            (1, 8, 8),
            "model.kernel_size: 4 is larger than what is left of pets at convolution 3 of 5: 2x2 "
            "(8x8 -> 5x5 -> 2x2; each convolution takes 4 - 1 = 3 off)",
        ),
        (
            {"num_layers": 1, "kernel_size": 5},
            (3, 5, 5),
            (3, 4, 5),
            "model.kernel_size: 5 is larger than what is left of pets at convolution 1 of 1: 4x5 "
            "(4x5; each convolution takes 5 - 1 = 4 off)",
        ),
        (
            {"kind": "conv1d", "num_layers": 2, "kernel_size": 4},
            (2, 7, 1),
            (2, 6, 9),
            "model.kernel_size: 4 is larger than what is left of pets at convolution 2 of 2: 3 "
            "(6 -> 3; each convolution takes 4 - 1 = 3 off)",
        ),
        (
            {"num_layers": 2, "kernel_size": 1, "position": 1},
            (1, 2, 2),
            (1, 2, 1),
            "model.position: 1: what is left of pets after convolution 1 is 2x1 (2x1 -> 2x1), "
            "less than the pooling's window of 2",
        ),
        (
            {"num_layers": 3, "kernel_size": 2, "position": 2},
            (1, 6, 6),
            (1, 3, 6),
            "model.position: 2: what is left of pets after convolution 2 is 1x4 (3x6 -> 2x5 -> 1x4), "
            "less than the pooling's window of 2",
        ),
        (
            {"kind": "conv1d", "num_layers": 2, "kernel_size": 1, "position": 1},
            (1, 2, 1),
            (1, 1, 5),
            "model.position: 1: what is left of pets after convolution 1 is 1 (1 -> 1), "
            "less than the pooling's window of 2",
        ),
    ],
)
def test_a_picture_that_is_too_small_is_refused_with_the_arithmetic(given, shape, smaller, message):
    model = settings(**given)
    assert min(conv_geometry(model, shape).passed_on[-1]) == 1
    with pytest.raises(ImpossibleModel) as refused:
        conv_geometry(model, smaller, "pets")
    assert str(refused.value) == message
    with pytest.raises(ImpossibleModel) as refused:
        check_model(model, smaller, "pets")
    assert str(refused.value) == message
    with pytest.raises(ImpossibleModel) as refused:
        conv_geometry(model, smaller, "pets", node="features")
    assert str(refused.value) == message.replace("model.", "features.")


@KINDS
@pytest.mark.parametrize("node", ["model", "features"])
@pytest.mark.parametrize(
    ("num_layers", "position", "allowed"),
    [(3, 3, "1 to 2, or 0"), (3, 7, "1 to 2, or 0"), (2, 2, "1, or 0"), (1, 1, "0")],
)
def test_a_pooling_after_the_last_convolution_is_refused(kind, node, num_layers, position, allowed):
    with pytest.raises(ImpossibleModel) as refused:
        conv_geometry(settings(kind=kind, num_layers=num_layers, position=position), (3, 32, 32), node=node)
    assert str(refused.value) == (
        f"{node}.position: {position} with {node}.num_layers={num_layers}: the pooling takes the place of the "
        f"nonlinearity between two convolutions; allowed: {allowed} for none"
    )


@KINDS
def test_one_layer_without_pooling_is_allowed(kind):
    found = conv_geometry(settings(kind=kind, num_layers=1, position=0, kernel_size=3, channels=2), (1, 3, 3))
    assert found.convolved == found.passed_on == ((2, 1, 1),)


@KINDS
def test_vectors_of_features_cannot_be_convolved(kind):
    with pytest.raises(ImpossibleModel) as refused:
        check_model(settings(kind=kind), None, "pets")
    assert (
        str(refused.value)
        == f"model.kind: '{kind}' needs pictures, and features are vectors; allowed: mlp, feedforward"
    )


@pytest.mark.parametrize("shape", [None, (1, 1, 1), (3, 32, 32)], ids=str)
def test_a_fully_connected_network_takes_everything(shape):
    check_model(asdict(MLPConfig()), shape, "pets")


def test_a_network_that_fits_is_allowed():
    check_model(settings(num_layers=3, position=2), (1, 12, 12), "pets")


@pytest.mark.parametrize(
    ("given", "shape", "patch_features", "tokens", "ffn_size"),
    [
        ({}, (1, 28, 28), 16, 49, 64),
        ({"class_token": True, "positions": True}, (1, 28, 28), 16, 50, 64),
        ({}, (3, 32, 32), 48, 64, 64),
        ({"patch_size": 2, "hidden_size": 6, "num_heads": 3}, (2, 6, 4), 8, 6, 24),
        ({"patch_size": 3, "ffn_size": 5}, (2, 3, 9), 18, 3, 5),
        ({"patch_size": 1}, (4, 1, 1), 4, 1, 64),
    ],
)
def test_a_picture_is_cut_into_patches(given, shape, patch_features, tokens, ffn_size):
    patch = given.get("patch_size", 4)
    assert vit_geometry(vit(**given), shape) == ViTGeometry(shape, patch, patch_features, tokens, ffn_size)
    unfolded = functional.unfold(torch.zeros(1, *shape), patch, stride=patch)
    assert unfolded.shape == (1, patch_features, tokens - given.get("class_token", False))
    check_model(vit(**given), shape, "pets")


@pytest.mark.parametrize(
    ("patch", "shape", "side", "allowed"),
    [
        (4, (1, 28, 30), "28x30", "1, 2"),
        (4, (1, 30, 28), "30x28", "1, 2"),
        (5, (3, 32, 32), "32x32", "1, 2, 4, 8, 16, 32"),
        (8, (1, 4, 4), "4x4", "1, 2, 4"),
        (2, (1, 7, 9), "7x9", "1"),
    ],
)
def test_patches_that_do_not_fill_the_picture_are_refused_with_those_that_do(patch, shape, side, allowed):
    expected = f"model.patch_size: {patch} does not divide the {side} pixels of pets; allowed: {allowed}"
    for check in (vit_geometry, check_model):
        with pytest.raises(ImpossibleModel) as refused:
            check(vit(patch_size=patch), shape, "pets")
        assert str(refused.value) == expected
    for size in map(int, allowed.split(", ")):
        check_model(vit(patch_size=size), shape, "pets")


def test_heads_that_do_not_share_the_hidden_size_are_refused():
    for check in (vit_geometry, check_model):
        with pytest.raises(ImpossibleModel) as refused:
            check(vit(hidden_size=16, num_heads=3), (1, 28, 28), "pets")
        assert str(refused.value) == "model.num_heads: 3 does not divide model.hidden_size=16"


def test_vectors_of_features_have_no_patches():
    with pytest.raises(ImpossibleModel) as refused:
        check_model(vit(), None, "pets")
    assert str(refused.value) == "model.kind: 'vit' needs pictures, and features are vectors; allowed: mlp, feedforward"
