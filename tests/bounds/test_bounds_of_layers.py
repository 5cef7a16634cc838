"""Theorems 17 and 26 asked of weights and objects, and 4 to 7 from the theorems that give them M_H."""

import math

import pytest
import torch

from landscape_cli.bounds.attention import AttentionNorms, of_attention, of_block, self_attention
from landscape_cli.bounds.blocks import block_derivatives
from landscape_cli.bounds.chains import Bound, fully_connected, loss_difference_by
from landscape_cli.errors import BadInput

L, D, K, FF = 3, 4, 2, 5


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def weights():
    shapes = {"Q": (D, K), "K": (D, K), "V": (D, D), "1": (D, FF), "2": (FF, D)}
    return {name: drawn(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def spectral(matrix):
    return torch.linalg.matrix_norm(matrix, 2)


def test_a_layers_bound_is_that_of_its_norms(weights):
    x, target = drawn(L, D, seed=7), drawn(L, D, seed=8)
    norms = (spectral(m) for m in (x, weights["Q"], weights["K"], weights["V"], target))
    expected = self_attention(AttentionNorms(L, D, K, *norms))
    found = of_attention(weights, x, target)
    assert (float(found.printed), float(found.corrected)) == (float(expected.printed), float(expected.corrected))
    assert found.tight < found.corrected
    assert of_attention(weights, x, target, tight=False).tight is None


def test_several_networks_are_bounded_at_once(weights):
    x, target = drawn(2, L, D, seed=7), drawn(2, L, D, seed=8)
    many = {name: torch.stack([w, 2 * w]) for name, w in weights.items()}
    together = of_block(many, x, target)
    for i, factor in enumerate((1, 2)):
        alone = of_block({name: factor * w for name, w in weights.items()}, x[i], target[i])
        for one, all_of in zip(alone, together, strict=True):
            torch.testing.assert_close(all_of.corrected[i], torch.as_tensor(one.corrected))


def test_a_blocks_derivatives_are_below_its_corrected_bound(weights):
    x, target = drawn(L, D, seed=7), drawn(L, D, seed=8)
    network, _ = of_block(weights, x, target)
    exact = max(float(spectral(block)) for block in block_derivatives(x, weights).curvatures.values())
    assert 0 < exact <= float(network.corrected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"V": (D, K)}, r"Theorem 17: W_V is \(4, 2\); allowed: \(4, 4\), one head"),
        ({"K": (D, 3)}, r"Theorem 17: W_K is \(4, 3\); allowed: \(4, 2\), one head"),
    ],
)
def test_a_layer_of_other_shapes_is_refused(weights, change, message):
    ((name, shape),) = change.items()
    with pytest.raises(BadInput, match=message):
        of_attention({**weights, name: drawn(*shape)}, drawn(L, D), drawn(L, D))
    with pytest.raises(BadInput, match=r"Theorem 17: Target is \(2, 4\); allowed: \(3, 4\), as X"):
        of_attention(weights, drawn(L, D), drawn(2, D))


def test_a_block_without_variance_breaks_assumption_2(weights):
    silent = {**weights, "V": 0 * weights["V"]}
    with pytest.raises(BadInput, match=r"Theorem 26, Assumption 2: a row of X \+ F\(X\) has no variance"):
        of_block(silent, torch.ones(L, D, dtype=torch.float64), drawn(L, D))


def test_loss_differences_take_their_hessians_from_the_other_theorems():
    _, hessian = fully_connected(2, 5.0, 0.1)
    found = loss_difference_by(hessian, 9, 2.0, 0.5)
    assert found.theorem == "4"
    assert found.printed == pytest.approx(2 / 10 * (2.0 + hessian.printed * 0.25))
    assert found.corrected == pytest.approx((2.0 + hessian.corrected * 0.25) / 10)
    seventh = loss_difference_by(Bound("17", "hessian", 3.0, 4.0), 9, 2.0, 0.5)
    assert (seventh.theorem, seventh.printed) == ("7", pytest.approx((2 * 2.0 + 3.0 * 0.25) / 10))
    for wrong in (fully_connected(2, 5.0, 0.1)[0], Bound("11", "hessian", 1.0, 1.0)):
        with pytest.raises(BadInput, match="allowed: of hessian, by 8, 9, 12, 13, 17, 26"):
            loss_difference_by(wrong, 9, 2.0, 0.5)
    assert math.isfinite(found.corrected)
