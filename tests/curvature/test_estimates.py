import math

import pytest
import torch

from landscape_cli.curvature import (
    GaussNewton,
    Hessian,
    Rest,
    diagonal,
    hutchinson_diagonal,
    hutchinson_frobenius,
    hutchinson_trace,
    trace,
)
from landscape_cli.curvature.estimates import signs

ALL = (Hessian, GaussNewton, Rest)
OPERATORS = pytest.mark.parametrize("operator", ALL)
BOTH = pytest.mark.parametrize("estimate", [hutchinson_trace, hutchinson_diagonal])


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def spreads(matrix):
    """Standard deviations of vᵀ A v and of v ∘ A v over random signs, known in closed form."""
    off = matrix - matrix.diag().diag()
    return (2 * off.square().sum()).sqrt(), off.square().sum(dim=1).sqrt()


@OPERATORS
@pytest.mark.parametrize("name", ["mlp", "conv2d", "vit", "tiny"])
def test_the_exact_diagonal_is_the_matrix_s(request, name, operator):
    case = request.getfixturevalue(name)
    matrix = case.expected(operator).mean(dim=0)
    found = diagonal(operator(case.objective))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, matrix.diag(), rtol=0, atol=1e-10)


@OPERATORS
def test_the_diagonal_does_not_depend_on_the_chunks(tiny, operator, little_memory):
    matrix = tiny.expected(operator).mean(dim=0)
    torch.testing.assert_close(diagonal(operator(tiny.objective)), matrix.diag(), rtol=0, atol=1e-10)


@OPERATORS
def test_the_exact_trace_is_the_matrix_s(mlp, tiny, operator):
    for case in (mlp, tiny):
        expected = float(case.expected(operator).mean(dim=0).trace())
        assert trace(operator(case.objective)) == pytest.approx(expected, abs=1e-10)


@OPERATORS
def test_a_parts_diagonal_is_the_wholes(mlp, operator):
    part = diagonal(operator(mlp.objective).part(["2.*"]))
    torch.testing.assert_close(part, mlp.expected(operator).mean(dim=0).diag()[50:80], rtol=0, atol=1e-10)


@OPERATORS
def test_hutchinsons_estimates_are_within_their_standard_errors(case, operator):
    matrix = case.expected(operator).mean(dim=0)
    of_trace, of_diagonal = spreads(matrix)
    found = hutchinson_trace(operator(case.objective), 200, seeded())
    assert found.probes == 200
    assert abs(float(found.value - matrix.trace())) < 4 * float(found.standard_error)
    assert float(found.standard_error) == pytest.approx(float(of_trace) / math.sqrt(200), rel=0.25)
    found = hutchinson_diagonal(operator(case.objective), 200, seeded())
    assert found.value.shape == found.standard_error.shape == (case.size,)
    assert ((found.value - matrix.diag()).abs() <= 4 * found.standard_error + 1e-12).all()
    total = found.standard_error.square().sum().sqrt()
    assert float(total) == pytest.approx(float(of_diagonal.norm()) / math.sqrt(200), rel=0.1)


@OPERATORS
def test_standard_errors_fall_with_the_root_of_the_number_of_probes(mlp, operator):
    found = operator(mlp.objective)
    for estimate in (hutchinson_trace, hutchinson_diagonal):
        few, many = (estimate(found, probes, seeded()).standard_error.norm() for probes in (100, 1600))
        assert float(few / many) == pytest.approx(4, rel=0.2)


def test_the_two_estimates_see_the_same_probes(mlp):
    of_trace = hutchinson_trace(Hessian(mlp.objective), 9, seeded())
    of_diagonal = hutchinson_diagonal(Hessian(mlp.objective), 9, seeded())
    assert float(of_diagonal.value.sum()) == pytest.approx(float(of_trace.value), abs=1e-12)


@BOTH
def test_standard_errors_are_of_the_mean_of_the_probes(tiny, estimate):
    matrix = tiny.hessian
    v = signs((3, tiny.size), seeded()).double()
    each = v * (v @ matrix)
    values = each.sum(dim=1) if estimate is hutchinson_trace else each
    found = estimate(Hessian(tiny.objective), 3, seeded())
    torch.testing.assert_close(found.value, values.mean(dim=0), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.standard_error, values.std(dim=0) / math.sqrt(3), rtol=0, atol=1e-7)


@BOTH
def test_the_same_generator_gives_the_same_numbers(mlp, estimate):
    first, again, other = (estimate(Hessian(mlp.objective), 5, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.value, again.value)
    assert torch.equal(first.standard_error, again.standard_error)
    assert not torch.equal(first.value, other.value)


@BOTH
def test_estimates_do_not_depend_on_the_chunks(tiny, estimate, little_memory, monkeypatch):
    found = estimate(Hessian(tiny.objective), 13, seeded())
    monkeypatch.undo()
    expected = estimate(Hessian(tiny.objective), 13, seeded())
    torch.testing.assert_close(found.value, expected.value, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.standard_error, expected.standard_error, rtol=0, atol=1e-7)


@BOTH
@pytest.mark.parametrize("probes", [0, 1])
def test_fewer_than_two_probes_are_refused(mlp, estimate, probes):
    with pytest.raises(ValueError, match=f"a standard error takes at least 2 probes, not {probes}"):
        estimate(Hessian(mlp.objective), probes, seeded())


def test_signs_are_fair():
    drawn = signs((200, 50), seeded())
    assert drawn.dtype == torch.float32
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 4 / math.sqrt(drawn.numel())


@OPERATORS
def test_hutchinsons_frobenius_norm_is_within_its_standard_errors(mlp, operator):
    matrix = mlp.expected(operator).mean(dim=0)
    found = hutchinson_frobenius(operator(mlp.objective), 400, seeded())
    assert abs(float(found.value) - float(matrix.norm())) < 4.5 * float(found.standard_error)
    assert 0 < float(found.standard_error) < 0.1 * float(found.value)
    part = hutchinson_frobenius(operator(mlp.objective).part(["2.*"]), 400, seeded())
    assert abs(float(part.value) - float(matrix[50:80, 50:80].norm())) <= 4.5 * float(part.standard_error) + 1e-12
