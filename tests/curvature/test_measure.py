import copy
import math

import pytest
import torch
from torch import nn

from landscape_cli.curvature import (
    Hessian,
    LandscapeMeasure,
    NotConverged,
    Objective,
    dense,
    landscape_measure,
    measure,
)

FLOAT64 = {"dtype": torch.float64}


class Weighted(nn.Module):
    """A quadratic form times a weight of each object: H_i is the weight times M + Mᵀ."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.p = nn.Parameter(torch.linspace(-1, 2, len(matrix), **FLOAT64))

    def forward(self, x):
        return (self.p @ self.matrix @ self.p) * x


def weighted(weights, size=6):
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0), **FLOAT64)
    x = torch.tensor(weights, **FLOAT64)
    return Objective(Weighted(matrix), x, x, lambda outputs, y: outputs), torch.linalg.matrix_norm(matrix + matrix.T, 2)


def exact(case):
    return torch.linalg.matrix_norm(case.hessians - case.hessian, 2)


def test_norms_are_those_of_the_matrices(case):
    found, expected = landscape_measure(case.objective), exact(case)
    torch.testing.assert_close(found.norms, expected, rtol=1e-3, atol=0)
    assert ((found.norms - expected).abs() <= found.residuals + 1e-12 * expected).all()
    assert (found.residuals <= 2e-3 * found.norms).all()
    assert found.mean == pytest.approx(float(expected.mean()), rel=1e-3)
    assert found.maximum == pytest.approx(float(expected.max()), rel=1e-3)
    assert found.standard_error == 0
    assert found.sampled.tolist() == list(range(len(case.x)))
    assert found.objects == len(case.x)


def test_objects_that_differ_by_a_factor_are_known_in_closed_form():
    objective, norm = weighted([1.0, -2.0, 4.0, 0.5, 1.5])
    found = landscape_measure(objective)
    expected = torch.tensor([0.0, 3.0, 3.0, 0.5, 0.5], **FLOAT64) * norm  # of what is left of their mean, one
    torch.testing.assert_close(found.norms, expected, rtol=1e-3, atol=1e-12)


def test_some_objects_are_compared_with_the_mean_of_all(mlp):
    for chosen in ([3, 0], [4], [1, 2, 3]):
        found = landscape_measure(mlp.objective, torch.tensor(chosen))
        torch.testing.assert_close(found.norms, exact(mlp)[chosen], rtol=1e-3, atol=0)
        assert found.sampled.tolist() == chosen
        assert found.objects == len(mlp.x)
        assert found.standard_error > 0 or len(chosen) == 1


def test_the_standard_error_is_of_a_sample_without_replacement():
    norms = torch.tensor([1.0, 4.0, 7.0, 8.0], **FLOAT64)
    found = LandscapeMeasure(norms, torch.zeros(4), torch.arange(4), objects=16)
    deviation = math.sqrt((16 + 1 + 4 + 9) / 3)
    assert (found.mean, found.maximum) == (5, 8)
    assert found.standard_error == pytest.approx(deviation / 2 * math.sqrt(3 / 4), abs=1e-15)
    assert LandscapeMeasure(norms, torch.zeros(4), torch.arange(4), objects=4).standard_error == 0
    assert LandscapeMeasure(norms[:1], torch.zeros(1), torch.arange(1), objects=1).standard_error == 0
    assert math.isnan(LandscapeMeasure(norms[:1], torch.zeros(1), torch.arange(1), objects=9).standard_error)


def built(monkeypatch):
    """Mean Hessians that were built from now on."""
    matrices = []

    def spy(*given, **options):
        matrices.append(dense(*given, **options))
        return matrices[-1]

    monkeypatch.setattr(measure, "dense", spy)
    return matrices


def test_a_mean_that_is_built_and_one_that_is_not_give_the_same(monkeypatch, conv1d, mlp):
    matrices = built(monkeypatch)
    monkeypatch.setattr(measure, "STEPS", 100)
    for count, case in enumerate((conv1d, mlp), start=1):
        needed = case.size**2 * 8
        with_matrix = landscape_measure(case.objective, tolerance=1e-9, byte_cap=needed)
        without = landscape_measure(case.objective, tolerance=1e-9, byte_cap=needed - 1)
        assert len(matrices) == count
        torch.testing.assert_close(with_matrix.norms, exact(case), rtol=1e-9, atol=0)
        torch.testing.assert_close(without.norms, exact(case), rtol=1e-9, atol=0)


def test_the_mean_is_built_where_that_is_cheaper(monkeypatch, conv1d, mlp):
    matrices = built(monkeypatch)
    landscape_measure(conv1d.objective)
    assert len(matrices) == 1
    landscape_measure(conv1d.objective, torch.tensor([0, 1]))  # as many products as one would take, and more
    landscape_measure(mlp.objective)
    assert len(matrices) == 1


def test_norms_do_not_depend_on_how_many_are_taken_together(monkeypatch, mlp):
    expected = landscape_measure(mlp.objective, tolerance=1e-6).norms
    monkeypatch.setattr(measure, "BASIS", 2 * 8 * 2 * measure.STEPS * mlp.size)
    batches = []
    right = measure.many_norms
    monkeypatch.setattr(
        measure, "many_norms", lambda p, start, *rest: batches.append(len(start)) or right(p, start, *rest)
    )
    chosen = torch.tensor([4, 2, 0, 1, 3])
    found = landscape_measure(mlp.objective, chosen, tolerance=1e-6)
    assert batches == [2, 2, 1]
    torch.testing.assert_close(found.norms, expected[chosen], rtol=1e-6, atol=0)


def test_norms_do_not_depend_on_the_chunks(tiny, little_memory):
    found = landscape_measure(tiny.objective, tolerance=1e-9)
    torch.testing.assert_close(found.norms, exact(tiny), rtol=1e-9, atol=0)


def test_many_objects_leave_at_different_steps_and_keep_their_places(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, **FLOAT64))
    x = torch.randn(60, 6, generator=generator, **FLOAT64) * torch.logspace(-3, 1, 60, **FLOAT64)[:, None]
    objective = Objective(net, x, torch.randint(4, (60,), generator=generator))
    matrices = torch.stack([dense(Hessian(objective.of_objects(slice(i, i + 1)))) for i in range(60)])
    expected = torch.linalg.matrix_norm(matrices - matrices.mean(dim=0), 2)
    batches, right = [], Hessian.each

    def each(self, vectors):
        batches.append(len(vectors))
        return right(self, vectors)

    monkeypatch.setattr(Hessian, "each", each)
    chosen = torch.randperm(60, generator=generator)
    found = landscape_measure(objective, chosen, tolerance=1e-6)
    torch.testing.assert_close(found.norms, expected[chosen], rtol=1e-6, atol=0)
    assert len(set(batches)) > 4
    assert (found.residuals <= 2e-6 * found.norms).all()


def test_one_object_has_no_distance_from_the_mean(mlp):
    alone = landscape_measure(mlp.objective.of_objects(slice(2, 3)))
    assert alone.mean < 1e-14
    assert alone.standard_error == 0


def test_single_precision_is_close_to_double(conv2d):
    objective = Objective(copy.deepcopy(conv2d.net).float(), conv2d.x.float(), conv2d.y)
    found = landscape_measure(objective)
    assert found.norms.dtype == torch.float64
    torch.testing.assert_close(found.norms, exact(conv2d), rtol=1e-3, atol=0)


@pytest.mark.parametrize("byte_cap", [0, 2**30])
def test_norms_that_have_not_converged_are_no_numbers(mlp, byte_cap):
    with pytest.raises(NotConverged, match=r"5 of 5 spectral norms have not converged to 1e-12 after 3 products"):
        landscape_measure(mlp.objective, tolerance=1e-12, max_steps=3, byte_cap=byte_cap)


def test_the_same_command_gives_the_same_digits(mlp):
    first, again = (landscape_measure(mlp.objective) for _ in range(2))
    assert torch.equal(first.norms, again.norms)
    assert torch.equal(first.residuals, again.residuals)
