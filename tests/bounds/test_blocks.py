import math

import pytest
import torch
from torch.func import jacfwd, jacrev

from landscape_cli.bounds.blocks import (
    attention_derivatives,
    block_derivatives,
    commutation,
    kronecker_derivative,
    layer_norm,
    layer_norm_derivatives,
    softmax_derivatives,
    transposed,
)

SHAPES = pytest.mark.parametrize(("tokens", "width"), [(1, 3), (2, 3), (3, 4), (4, 2), (2, 6)])
ATTENTION = pytest.mark.parametrize(("tokens", "width", "d_k"), [(1, 3, 2), (2, 3, 1), (3, 2, 2), (2, 4, 5), (4, 3, 2)])
BLOCKS = pytest.mark.parametrize(
    ("tokens", "width", "d_k", "hidden"),
    [
        (2, 3, 2, 4),
        (3, 3, 1, 2),
        (2, 4, 3, 2),
        (1, 3, 2, 2),
        (2, 4, 3, 1),
    ],
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention_weights(width, d_k):
    return {"Q": drawn(width, d_k, seed=1), "K": drawn(width, d_k, seed=2), "V": drawn(width, width, seed=3)}


def block_weights(width, d_k, hidden):
    return {**attention_weights(width, d_k), "1": drawn(width, hidden, seed=4), "2": drawn(hidden, width, seed=5)}


def attention(x, w):
    return (x @ w["Q"] @ w["K"].T @ x.T / math.sqrt(w["Q"].shape[1])).softmax(dim=1) @ x @ w["V"]


def plain_norm(x):
    centred = x - x.sum(dim=1, keepdim=True) / x.shape[1]
    return centred / (centred**2).sum(dim=1, keepdim=True).div(x.shape[1]).sqrt()


def block(x, w):
    y = plain_norm(x + attention(x, w))
    return plain_norm(y + (y @ w["1"]).relu() @ w["2"])


def by(function, weights, *names):
    """Derivative by the named weights, one after the other, as a matrix."""

    def at(index, own):
        if index == len(names):
            return function(own)
        derivative = jacrev if index else jacfwd
        return derivative(lambda value: at(index + 1, {**own, names[index]: value}))(own[names[index]])

    names = names[::-1]  # the outermost derivative's axes come last
    found = at(0, dict(weights))
    return found.reshape(-1, weights[names[0]].numel())


def assert_equal(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).norm() <= 1e-10 * max(expected.norm().item(), 1e-3)


def differ(found, expected):
    return (found - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (2, 3), (5, 2), (3, 3)])
def test_commutation_transposes(rows, columns):
    a, k = drawn(rows, columns), commutation(rows, columns)
    assert torch.equal(k @ a.flatten(), a.T.flatten())
    assert torch.equal(k.T, commutation(columns, rows))
    assert torch.equal(k @ k.T, torch.eye(rows * columns, dtype=torch.float64))


def test_commutation_exchanges_the_factors_of_a_kronecker_product():
    a, b = drawn(2, 3), drawn(4, 5, seed=1)
    exchanged = commutation(2, 4) @ torch.kron(a, b) @ commutation(5, 3)
    torch.testing.assert_close(exchanged, torch.kron(b, a), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shapes", [((2, 3), (4, 2)), ((1, 3), (2, 2)), ((3, 3), (3, 1))])
def test_kronecker_derivative_is_autograds(shapes):
    x, y = drawn(*shapes[0]), drawn(*shapes[1], seed=1)
    by_x, by_y = kronecker_derivative(x, y)
    assert_equal(by_x, jacrev(lambda value: torch.kron(value, y))(x).reshape(-1, x.numel()))
    assert_equal(by_y, jacrev(lambda value: torch.kron(x, value))(y).reshape(-1, y.numel()))


def test_transposed_exchanges_the_parameters_of_each_output():
    curvature = drawn(3, 4, 5)  # outputs, n_i, n_j
    expected = torch.stack([output.T for output in curvature]).reshape(15, 4)
    assert torch.equal(transposed(curvature.reshape(12, 5), 3), expected)
    assert torch.equal(transposed(expected, 3), curvature.reshape(12, 5))


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_softmax_derivatives_are_autograds(tokens):
    t = drawn(tokens, tokens)
    first, second = softmax_derivatives(t.softmax(dim=1))
    assert_equal(first, jacrev(lambda value: value.softmax(dim=1))(t).reshape(tokens**2, -1))
    assert_equal(second, jacfwd(jacrev(lambda value: value.softmax(dim=1)))(t).reshape(tokens**4, -1))


@pytest.mark.parametrize(("tokens", "width"), [(1, 3), (2, 3), (3, 4), (4, 2), (2, 6)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_layer_norm_derivatives_are_autograds(tokens, width, scale):
    x = scale * drawn(tokens, width) + scale
    assert_equal(layer_norm(x), plain_norm(x))
    jacobian, curvature = layer_norm_derivatives(x)
    size = tokens * width
    if width > 2:
        assert_equal(jacobian, jacrev(plain_norm)(x).reshape(size, size))
        assert_equal(curvature, jacfwd(jacrev(plain_norm))(x).reshape(size**2, size))
    else:  # two channels become ±1
        assert jacobian.norm() * scale < 1e-9
        assert curvature.norm() * scale**2 < 1e-9


@SHAPES
def test_layer_norm_is_pytorchs_and_takes_batches(tokens, width):
    x = drawn(5, tokens, width)
    torch.testing.assert_close(layer_norm(x), torch.nn.functional.layer_norm(x, (width,), eps=0.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer_norm(x)[2], layer_norm(x[2]), rtol=0, atol=0)


@ATTENTION
def test_attention_derivatives_are_autograds(tokens, width, d_k):
    x, weights = drawn(tokens, width), attention_weights(width, d_k)
    found = attention_derivatives(x, weights)
    assert_equal(found.output, attention(x, weights))
    assert set(found.jacobians) == set("QKV")
    assert set(found.curvatures) == {(i, j) for i in "QKV" for j in "QKV"}
    for i, jacobian in found.jacobians.items():
        assert_equal(jacobian, by(lambda w: attention(x, w), weights, i))
    for (i, j), curvature in found.curvatures.items():
        assert_equal(curvature, by(lambda w: attention(x, w), weights, i, j))


def test_attentions_printed_second_derivatives_are_not_autograds():
    x, weights = drawn(2, 3), attention_weights(3, 2)
    found = attention_derivatives(x, weights)
    for pair in (("Q", "Q"), ("Q", "K"), ("K", "K"), ("V", "Q"), ("V", "K")):
        printed = 2 / (2 * 3) * found.curvatures[pair]
        assert differ(printed, by(lambda w: attention(x, w), weights, *pair))


def test_the_other_commutation_gives_another_slope_by_the_keys():
    x, weights = drawn(2, 3), attention_weights(3, 2)
    other = attention_derivatives(x, weights).jacobians["K"] @ commutation(2, 3) @ commutation(2, 3)
    assert differ(other, by(lambda w: attention(x, w), weights, "K"))


@BLOCKS
def test_block_derivatives_are_autograds(tokens, width, d_k, hidden):
    x, weights = drawn(tokens, width), block_weights(width, d_k, hidden)
    found = block_derivatives(x, weights)
    assert_equal(found.output, block(x, weights))
    assert set(found.jacobians) == set("12QKV")
    assert set(found.curvatures) == {(i, j) for i in "12QKV" for j in "12QKV"}
    for i, jacobian in found.jacobians.items():
        assert_equal(jacobian, by(lambda w: block(x, w), weights, i))
    for (i, j), curvature in found.curvatures.items():
        assert_equal(curvature, by(lambda w: block(x, w), weights, i, j))


def test_the_blocks_mixed_second_derivatives_cannot_be_exchanged():
    x, weights = drawn(2, 3), block_weights(3, 2, 4)
    found = block_derivatives(x, weights).curvatures
    assert differ(found["2", "1"], by(lambda w: block(x, w), weights, "1", "2"))
    assert differ(found["1", "2"], by(lambda w: block(x, w), weights, "2", "1"))
    assert_equal(transposed(found["1", "2"], 6), found["2", "1"])


def test_the_masks_are_of_the_hidden_layer():
    """With every hidden unit off, the two matrices of the network have no slope but through the residual."""
    x, weights = drawn(2, 3), block_weights(3, 2, 4)
    y = layer_norm(x + attention(x, weights))
    weights["1"] = -torch.linalg.pinv(y) @ torch.ones(2, 4, dtype=torch.float64)
    assert (y @ weights["1"] < 0).all()
    found = block_derivatives(x, weights)
    assert found.jacobians["1"].norm() == found.jacobians["2"].norm() == 0
    assert_equal(found.jacobians["V"], by(lambda w: block(x, w), weights, "V"))
