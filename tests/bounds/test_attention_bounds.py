import math
from dataclasses import replace

import pytest
import torch
from torch.func import hessian, jacrev

from landscape_cli.bounds.attention import (
    SECOND,
    AttentionNorms,
    AttentionState,
    BlockNorms,
    check_positive,
    layer_norm_bounds,
    self_attention,
    transformer_block,
)
from landscape_cli.bounds.blocks import layer_norm, layer_norm_derivatives, softmax_derivatives

DOUBLE = {"dtype": torch.float64}


def norm(matrix):
    return torch.linalg.matrix_norm(matrix, 2)


def split(flat, shapes):
    parts = flat.split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def joined(*matrices):
    return torch.cat([matrix.flatten() for matrix in matrices]), [tuple(matrix.shape) for matrix in matrices]


def attention(x, q, k):
    return (x @ q @ k.mT @ x.mT / math.sqrt(q.shape[-1])).softmax(dim=-1)


def exact_and_bound(x, target, q, k, v):
    """The exact norm of the Hessian of the mean squared error, and Theorem 17."""
    flat, shapes = joined(v, q, k)

    def loss(flat):
        v, q, k = split(flat, shapes)
        return (attention(x, q, k) @ x @ v - target).square().mean()

    a = attention(x, q, k)
    residual = a @ x @ v - target
    slopes = torch.stack([torch.diag(row) - torch.outer(row, row) for row in a])
    norms = AttentionNorms(*x.shape, q.shape[1], *(norm(m) for m in (x, q, k, v, target)))
    state = AttentionState(norm(a), norm(slopes).max(), norm(residual), torch.linalg.matrix_norm(residual))
    return norm(hessian(loss)(flat)).item(), self_attention(norms, state)


@pytest.mark.parametrize(("c", "epsilon", "measured", "printed"), [(100, 0, 625.5, 9), (20, 0.01, 25.25, 19.95)])
def test_counterexamples_to_theorem_17(c, epsilon, measured, printed):
    one = torch.eye(2, **DOUBLE)
    target = attention(one, c * one, epsilon * one) @ one @ one
    exact, bound = exact_and_bound(one, target, c * one, epsilon * one, one)
    assert exact == pytest.approx(measured, rel=2e-4)  # as many digits as are given
    assert bound.printed.item() == pytest.approx(printed, rel=3e-4)
    assert exact > 1.2 * bound.printed
    assert exact <= bound.tight * (1 + 1e-12)  # attained: there is no residual
    assert bound.tight <= bound.corrected
    assert (bound.theorem, bound.quantity) == ("17", "hessian")


def random_scaled(generator, *shape, low=-2.0, high=2.0):
    power = low + (high - low) * torch.rand((), generator=generator, **DOUBLE)
    return torch.randn(*shape, generator=generator, **DOUBLE) * 10**power


@pytest.mark.parametrize("tokens", [2, 3, 4])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_theorem_17_as_corrected_holds_on_random_layers(tokens, width):
    generator = torch.Generator().manual_seed(10 * tokens + width)
    for i in range(24):
        d_k = 1 + i % 3
        x, target = (random_scaled(generator, tokens, width) for _ in range(2))
        q, k, v = (random_scaled(generator, width, size) for size in (d_k, d_k, width))
        if i % 4 == 0:
            target = attention(x, q, k) @ x @ v  # no residual
        if i % 6 == 0:
            x = x[:1].expand(tokens, width).contiguous()  # uniform attention
        exact, bound = exact_and_bound(x, target, q, k, v)
        assert exact <= bound.tight * (1 + 1e-9)
        assert bound.tight <= bound.corrected * (1 + 1e-9)


def test_numbers_and_tensors_give_the_same_and_can_be_differentiated():
    numbers = AttentionNorms(3, 4, 2, 1.5, 0.7, 0.3, 2.0, 0.9)
    names = ("x", "query", "key", "value", "target")
    leaves = [torch.tensor([getattr(numbers, n), 2.0], **DOUBLE).requires_grad_() for n in names]
    plain, bound = self_attention(numbers), self_attention(replace(numbers, **dict(zip(names, leaves, strict=True))))
    for variant in ("printed", "corrected"):
        value = getattr(bound, variant)
        assert isinstance(getattr(plain, variant), float)
        assert value[0].item() == pytest.approx(getattr(plain, variant), rel=1e-13)
        assert all(slope.isfinite().all() for slope in torch.autograd.grad(value.sum(), leaves, allow_unused=False))
    assert plain.tight is None


def test_the_residual_reaches_the_block_of_queries_and_keys():
    x, v, zero = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], **DOUBLE), torch.eye(2, **DOUBLE), torch.zeros(2, 1, **DOUBLE)
    exact, bound = exact_and_bound(x, 100 * x, zero, zero, v)
    assert exact > 10 * norm(x) ** 2 / 2  # what the block of values alone is at most
    assert exact <= bound.tight * (1 + 1e-12)
    assert bound.corrected <= 3 * exact


def test_facts_about_softmax():
    half, _ = softmax_derivatives(torch.tensor([[0.5, 0.5, 0.0]] * 3, **DOUBLE))
    assert norm(half).item() == pytest.approx(0.5, rel=1e-14)
    uniform, _ = softmax_derivatives(torch.full((3, 3), 1 / 3, **DOUBLE))
    assert norm(uniform).item() == pytest.approx(1 / 3, rel=1e-14)  # where the thesis's 1/L is true
    generator = torch.Generator().manual_seed(0)
    for tokens in (2, 3, 4):
        largest = 0.0
        for _ in range(60):
            a = random_scaled(generator, tokens, tokens, low=-1.0, high=1.0).softmax(dim=1)
            first, second = softmax_derivatives(a)
            assert norm(first) <= 0.5 + 1e-12
            assert norm(second) < SECOND == 6
            assert norm(a) <= math.sqrt(tokens) + 1e-12
            largest = max(largest, norm(first).item())
        assert largest > 0.4
    assert norm(torch.eye(4, **DOUBLE)[[0, 0, 0, 0]]).item() == pytest.approx(2)


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (2, 3), (3, 5), (4, 4)])
def test_lemma_23_as_corrected_holds_where_the_printed_one_fails(rows, columns):
    generator = torch.Generator().manual_seed(0)
    failed = 0
    for _ in range(20):
        x = random_scaled(generator, rows, columns) + random_scaled(generator, rows, 1)
        deviation = x.std(dim=1, correction=0).min()
        jacobian = norm(jacrev(layer_norm)(x).reshape(x.numel(), -1))
        curvature = norm(hessian(layer_norm)(x).reshape(x.numel() ** 2, -1))
        assert jacobian.item() == pytest.approx(1 / deviation.item(), rel=1e-9)
        corrected = layer_norm_bounds(norm(x), deviation, rows, columns)
        assert corrected[0].item() == pytest.approx(1 / deviation.item(), rel=1e-14)
        assert curvature <= corrected[1] * (1 + 1e-9)
        failed += bool(jacobian > layer_norm_bounds(norm(x), deviation, rows, columns, printed=True)[0] * (1 + 1e-9))
    assert failed or rows > 1


def test_lemma_23_as_printed_fails_on_a_centred_row():
    x = torch.tensor([[1.0, -2.0, 1.0]], **DOUBLE)
    deviation = math.sqrt(2)
    exact = norm(jacrev(layer_norm)(x).reshape(3, 3)).item()
    printed, _ = layer_norm_bounds(norm(x).item(), deviation, 1, 3, printed=True)
    # σ_min as printed is √3 √2 = √6 = ‖x‖: 1/√6 + 6/(√3 6√6)
    assert printed == pytest.approx(1 / math.sqrt(6) + 1 / math.sqrt(18), rel=1e-12)
    assert printed < exact == pytest.approx(1 / math.sqrt(2), rel=1e-12)


def test_lemma_22():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        y = layer_norm(random_scaled(generator, 4, 3))
        w1, w2 = random_scaled(generator, 3, 2), random_scaled(generator, 2, 3)
        assert torch.linalg.matrix_norm(y).item() == pytest.approx(math.sqrt(12), rel=1e-10)
        assert norm((y @ w1).relu() @ w2) <= math.sqrt(2) * norm(y) * norm(w1) * norm(w2) * (1 + 1e-12)


TOKENS, WIDTH, KEY, HIDDEN = 2, 3, 2, 3
SHAPES = {"1": (WIDTH, HIDDEN), "2": (HIDDEN, WIDTH), "K": (WIDTH, KEY), "Q": (WIDTH, KEY), "V": (WIDTH, WIDTH)}


def transformer(x, w1, w2, k, q, v):
    """X + F(X), Y + FFN(Y), Z."""
    inner = x + attention(x, q, k) @ x @ v
    y = layer_norm(inner)
    outer = y + (y @ w1).relu() @ w2
    return inner, outer, layer_norm(outer)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 0.3), (-3.0, 1.5), (-0.3, 0.3)])
def test_theorem_26_as_corrected_holds_on_random_blocks(low, high):
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        x, target = (random_scaled(generator, TOKENS, WIDTH, low=low, high=high) for _ in range(2))
        weights = [random_scaled(generator, *shape, low=low, high=high) for shape in SHAPES.values()]
        flat, shapes = joined(*weights)
        inner, outer, z = transformer(x, *weights)
        curvature = hessian(lambda flat, s=shapes, x=x: transformer(x, *split(flat, s))[2].flatten())(flat)
        rows = curvature.split([math.prod(shape) for shape in shapes], dim=1)
        blocks = [part for row in rows for part in row.split([math.prod(shape) for shape in shapes], dim=2)]
        largest = max(norm(part.reshape(-1, part.shape[2])).item() for part in blocks)
        slopes = jacrev(lambda flat, s=shapes, x=x: transformer(x, *split(flat, s))[2].flatten())(flat)
        residual = (z - target).flatten()
        full = 2 / residual.numel() * (slopes.T @ slopes + torch.einsum("o,opq->pq", residual, curvature))
        w1, w2, k, q, v = map(norm, weights)
        norms = BlockNorms(
            *(TOKENS, WIDTH, KEY, HIDDEN, norm(x), q, k, v, w1, w2, torch.linalg.matrix_norm(target)),
            *(part.std(dim=1, correction=0).min() for part in (inner, outer)),
        )
        check_positive(norms)
        network, loss = transformer_block(norms)
        assert (network.quantity, loss.quantity) == ("network", "hessian")
        assert largest <= network.corrected * (1 + 1e-9)
        assert norm(full) <= loss.corrected * (1 + 1e-9)


def test_the_blocks_bounds_of_numbers_are_those_of_tensors():
    numbers = [1.5, 0.7, 0.3, 2.0, 0.9, 0.4, 1.1, 0.6, 0.8]
    tensors = [torch.tensor([number, 1.0], **DOUBLE) for number in numbers]
    of_numbers = transformer_block(BlockNorms(2, 3, 2, 4, *numbers))
    for plain, bound in zip(of_numbers, transformer_block(BlockNorms(2, 3, 2, 4, *tensors)), strict=True):
        for variant in ("printed", "corrected"):
            assert getattr(bound, variant).shape == (2,)
            assert getattr(bound, variant)[0].item() == pytest.approx(getattr(plain, variant), rel=1e-12)


def test_the_blocks_largest_bound_without_scores_and_network_is_the_residual_slope_of_queries_and_keys():
    """∂²Z/∂W_Q ∂W_K: √d_V ½/√d_K a³ v, through the layer norms 1/σ; as printed with 1/L, 2/(L d_V) and √d_V σ."""
    a, v, sigma = 1e3, 0.8, 1e6
    bound, _ = transformer_block(BlockNorms(4, 3, 2, 5, a, 0.0, 0.0, v, 0.0, 0.0, 1.0, sigma, sigma))
    assert bound.corrected == pytest.approx(math.sqrt(3 / 2) / 2 * a**3 * v / sigma**2, rel=1e-5, abs=0)
    printed = 2 / (4 * 3) * math.sqrt(3 / 2) / 4 * a**3 * v / (math.sqrt(3) * sigma) ** 2
    assert bound.printed == pytest.approx(printed, rel=1e-4, abs=0)


def test_layer_norm_bounds_are_those_of_the_explicit_matrices():
    x = torch.tensor([[1.0, 2.0, 4.0, -1.0], [0.0, 0.1, 0.0, 0.3]], **DOUBLE)
    bounds = layer_norm_bounds(norm(x), x.std(dim=1, correction=0).min(), 2, 4)
    jacobian, curvature = map(norm, layer_norm_derivatives(x))
    assert jacobian.item() == pytest.approx(bounds[0].item(), rel=1e-10)
    assert curvature <= bounds[1]


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, torch.tensor([1.0, -1e-9])])
def test_what_is_not_a_norm_is_refused(value):
    fine = AttentionNorms(2, 2, 2, 1.0, 1.0, 1.0, 1.0, 0.0)
    check_positive(fine)
    with pytest.raises(ValueError, match="key: not a norm"):
        check_positive(replace(fine, key=value))
