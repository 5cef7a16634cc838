from dataclasses import asdict
from functools import reduce

import pytest
import torch
from torch.nn import functional

from landscape_cli.config import ConvConfig
from landscape_cli.models.conv import ConvNet
from landscape_cli.models.toeplitz import average_pooling_matrix, convolution_matrix, factors, max_pooling_matrix
from landscape_cli.rng import generator

KINDS = pytest.mark.parametrize("kind", ["conv1d", "conv2d"])
WINDOWS = pytest.mark.parametrize("window", [(2, 2), (2, 1), (3, 2)], ids=str)
SHAPES = pytest.mark.parametrize("shape", [(1, 4, 6), (2, 7, 5), (3, 6, 1), (2, 5, 8)], ids=str)


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_matrix_of_three_taps_on_five_inputs():
    t1, t2, t3 = 2.0, -3.0, 5.0
    expected = torch.tensor([[t1, t2, t3, 0, 0], [0, t1, t2, t3, 0], [0, 0, t1, t2, t3]])
    assert torch.equal(convolution_matrix(torch.tensor([[[t1, t2, t3]]]), (1, 5, 1)), expected)
    assert torch.equal(convolution_matrix(torch.tensor([[[[t1, t2, t3]]]]), (1, 1, 5)), expected)


def test_the_matrix_of_two_channels_and_a_square_kernel():
    kernel = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]])
    expected = [[1, 2, 0, 3, 4, 0], [0, 1, 2, 0, 3, 4], [5, 6, 0, 7, 8, 0], [0, 5, 6, 0, 7, 8]]
    assert convolution_matrix(kernel, (1, 2, 3)).tolist() == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kernel_size", [(1, 1), (2, 2), (3, 3), (3, 2), (4,), (1,)], ids=str)
@pytest.mark.parametrize("channels", [(1, 1), (2, 3), (4, 1)], ids=str)
def test_convolution_matrix_is_pytorchs_convolution(dtype, tolerance, kernel_size, channels):
    c_in, c_out = channels
    weight = drawn(c_out, c_in, *kernel_size, dtype=dtype) / c_in**0.5 / kernel_size[0]
    x = drawn(6, c_in, *[7, 5][: len(kernel_size)], dtype=dtype, seed=1)
    expected = (functional.conv1d if len(kernel_size) == 1 else functional.conv2d)(x, weight).flatten(1)
    matrix = convolution_matrix(weight, (*x.shape[1:], 1)[:3])
    assert matrix.dtype == dtype
    torch.testing.assert_close(x.flatten(1) @ matrix.T, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [((1, 1, 3, 3), (1, 2, 5)), ((1, 1, 3, 3), (1, 5, 2)), ((1, 2, 3, 3), (1, 5, 5)), ((4, 2, 6), (2, 5, 1))],
)
def test_a_kernel_that_does_not_fit_has_no_matrix(kernel, shape):
    with pytest.raises(ValueError, match="does not fit on an input"):
        convolution_matrix(torch.ones(kernel), shape)


@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 4, 1)])
def test_a_window_that_does_not_fit_has_no_matrix(shape):
    for make in (lambda: average_pooling_matrix(shape, (2, 2)), lambda: max_pooling_matrix(torch.ones(shape), (2, 2))):
        with pytest.raises(ValueError, match="does not fit on an input"):
            make()


@SHAPES
@WINDOWS
def test_average_pooling_matrix_is_pytorchs_pooling(shape, window):
    if shape[2] < window[1]:
        window = (window[0], 1)
    x = drawn(4, *shape)
    expected = functional.avg_pool2d(x, window).flatten(1)
    matrix = average_pooling_matrix(shape, window)
    assert matrix.dtype == torch.float64
    torch.testing.assert_close(x.flatten(1) @ matrix.T, expected, rtol=0, atol=1e-12)


@SHAPES
@WINDOWS
@pytest.mark.parametrize("values", ["distinct", "ties", "equal"])
def test_max_pooling_matrix_is_pytorchs_pooling_and_its_gradient(shape, window, values):
    if shape[2] < window[1]:
        window = (window[0], 1)
    x = {"distinct": drawn(*shape), "ties": drawn(*shape).round(), "equal": torch.full(shape, -2.0).double()}[values]
    x = x.requires_grad_()
    expected = functional.max_pool2d(x[None], window)[0].flatten()
    weights = drawn(len(expected), seed=1)
    matrix = max_pooling_matrix(x.detach(), window)
    assert matrix.dtype == torch.float64
    assert torch.equal(matrix @ x.detach().flatten(), expected.detach())
    assert torch.equal(matrix.sum(dim=1), torch.ones(len(expected), dtype=torch.float64))
    (gradient,) = torch.autograd.grad(expected @ weights, x)  # says which of several largest elements PyTorch takes
    torch.testing.assert_close(matrix.T @ weights, gradient.flatten(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("window", "expected"), [((2, 2), 1 / 2), ((3, 3), 1 / 3), ((2, 1), 2**-0.5)], ids=str)
def test_spectral_norms_of_pooling_matrices(window, expected):
    shape = (2, 7, 6)
    norm = torch.linalg.matrix_norm(average_pooling_matrix(shape, window), 2)
    assert norm.item() == pytest.approx(expected, abs=1e-12)
    for x in (drawn(*shape), torch.zeros(shape)):
        assert torch.linalg.matrix_norm(max_pooling_matrix(x, window), 2).item() == pytest.approx(1, abs=1e-12)


@KINDS
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"position": 0}, "conv1 relu1 conv2 relu2 conv3 head1"),
        ({"position": 1, "pooling": "max"}, "conv1 pool1 conv2 relu2 conv3 head1"),
        ({"position": 2, "pooling": "max", "relu_after_last": True}, "conv1 relu1 conv2 pool2 conv3 relu3 head1"),
        ({"position": 1, "pooling": "average", "head": [5]}, "conv1 pool1 conv2 relu2 conv3 head1 head_relu1 head2"),
        (
            {"position": 2, "pooling": "average", "kernel_size": 2, "head": [4, 3]},
            "conv1 relu1 conv2 pool2 conv3 head1 head_relu1 head2 head_relu2 head3",
        ),
    ],
    ids=["none", "max-1", "max-2", "average-1", "average-2"],
)
def test_the_product_of_the_factors_is_the_network(kind, bias, given, names):
    shape = (2, 13, 12)
    settings = asdict(ConvConfig(kind=kind, num_layers=3, channels=3, bias=bias, **given))
    model = ConvNet(settings, shape, 4)
    parameters = model.initialise([generator(seed, "test") for seed in (0, 1)])
    parameters = {name: 2 * tensor.double() for name, tensor in parameters.items()}
    x = drawn(2, *shape)
    logits = model.forward(parameters, x[None])
    for seed, at in [(0, 0), (1, 0), (1, 1)]:
        found = factors(model, parameters, seed, x[at])
        assert [factor.name for factor in found] == names.split()
        # conv1d reads the picture's rows: channels are the columns of each of its channels.
        value = (x[at].transpose(1, 2) if kind == "conv1d" else x[at]).flatten()
        if not bias:
            assert not any(factor.offset.any() for factor in found)
            product = reduce(lambda product, factor: factor.matrix @ product, found[1:], found[0].matrix)
            torch.testing.assert_close(product @ value, logits[seed, at], rtol=0, atol=1e-12)
        for factor in found:
            assert factor.matrix.dtype == factor.offset.dtype == torch.float64
            assert bool(factor.offset.any()) == (bias and factor.name[:5].rstrip("123") in ("conv", "head"))
            value = factor.matrix @ value + factor.offset
        torch.testing.assert_close(value, logits[seed, at], rtol=0, atol=1e-12)


@KINDS
def test_factors_follow_the_input(kind):
    """The matrices of ReLU and max pooling are those of the one input, the others of the network."""
    settings = asdict(ConvConfig(kind=kind, num_layers=3, channels=3, position=2))
    model = ConvNet(settings, (1, 12, 12), 4)
    parameters = model.initialise([generator(0, "test")])
    pairs = zip(*[factors(model, parameters, 0, drawn(1, 12, 12, seed=seed)) for seed in (1, 2)], strict=True)
    same = {first.name: torch.equal(first.matrix, second.matrix) for first, second in pairs}
    assert same == {"conv1": True, "relu1": False, "conv2": True, "pool2": False, "conv3": True, "head1": True}
