import copy
import re

import pytest
import torch
from torch import nn

from landscape_cli.curvature import BYTE_CAP, GaussNewton, Hessian, Objective, Rest, cross_entropy, dense, diagonal
from landscape_cli.curvature.dense import _mirror, jacobians, output_hessians
from landscape_cli.errors import BadInput

OPERATORS = pytest.mark.parametrize("operator", [Hessian, GaussNewton, Rest])
ALL = (Hessian, GaussNewton, Rest)


def assert_equal(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@OPERATORS
def test_the_matrix_is_torch_funcs_and_exactly_symmetric(case, operator):
    matrix = dense(operator(case.objective))
    assert matrix.dtype == torch.float64
    assert_equal(matrix, case.expected(operator).mean(dim=0))
    assert torch.equal(matrix, matrix.T)


def test_gauss_newton_and_the_rest_are_the_hessian(conv1d, vit):
    for case in (conv1d, vit):
        hessian, gauss_newton, rest = (dense(operator(case.objective)) for operator in ALL)
        assert_equal(gauss_newton + rest, hessian)


@OPERATORS
def test_blocks_are_slices_of_the_whole(vit, operator):
    whole, objective = dense(operator(vit.objective)), vit.objective
    index = torch.arange(vit.size)
    first, attention, norms, last = ["projection.weight"], ["*.query.*", "*.key.*"], ["*.norm?.*"], ["head.weight"]
    for rows, columns in (
        (first, last),
        (last, first),
        (attention, norms),
        (first, [*first, *last]),  # overlap, and are not the same
        (attention, attention),
        (None, last),
        (norms, None),
    ):
        down, across = (
            torch.cat([index[objective.slices[name]] for name in (objective.part(names) if names else objective).names])
            for names in (rows, columns)
        )
        block = dense(operator(objective), rows, columns)
        assert_equal(block, whole[down][:, across], 1e-12)
        if rows == columns:
            assert torch.equal(block, block.T)
    part = dense(operator(objective).part(attention))
    assert torch.equal(part, dense(operator(objective), attention, attention))


@OPERATORS
def test_the_matrix_does_not_depend_on_the_chunks(tiny, operator, little_memory):
    matrix, expected = dense(operator(tiny.objective)), tiny.expected(operator).mean(dim=0)
    assert_equal(matrix, expected)
    assert torch.equal(matrix, matrix.T)
    assert_equal(dense(operator(tiny.objective), ["right.weight"], ["left"]), expected[6:12, :6])


def test_mirroring_in_blocks_changes_nothing(monkeypatch, mlp):
    expected = dense(Hessian(mlp.objective))
    monkeypatch.setattr(_mirror, "__defaults__", (7,))
    assert torch.equal(dense(Hessian(mlp.objective)), expected)


@pytest.mark.parametrize("name", ["mlp", "conv2d", "vit", "conv1d"])
def test_single_precision_is_close_to_double(request, name):
    case = request.getfixturevalue(name)
    objective = Objective(copy.deepcopy(case.net).float(), case.x.float(), case.y)
    for operator in ALL:
        matrix, expected = dense(operator(objective)), case.expected(operator).mean(dim=0)
        assert matrix.dtype == torch.float32
        assert torch.equal(matrix, matrix.T)
        assert (matrix.double() - expected).norm() < 2e-6 * expected.norm()  # 4e-7 was measured
        diagonal_error = diagonal(operator(objective)) - expected.diag()
        assert diagonal_error.norm() < 2e-6 * expected.norm()


def test_the_jacobians_and_the_curvature_of_the_loss_are_exact(case):
    objective = case.objective
    j = jacobians(objective, case.x)
    curvature, outputs = output_hessians(objective, case.x, case.y)
    assert j.shape == (len(case.x), outputs.shape[1], case.size)
    assert_equal(outputs, case.outputs(case.net, case.point).flatten(1).detach(), 1e-13)
    assert_equal(j.transpose(1, 2) @ curvature @ j, case.gauss_newtons)
    if case.loss is cross_entropy:
        p = outputs.softmax(dim=1)
        assert_equal(curvature, torch.diag_embed(p) - p[:, :, None] * p[:, None, :], 1e-14)


def wide(parameters):
    net = nn.Linear(parameters, 1, bias=False)
    return Objective(net, torch.zeros(1, parameters), torch.zeros(1, dtype=torch.long))


@OPERATORS
def test_a_matrix_larger_than_the_cap_is_refused_before_it_is_built(operator):
    assert BYTE_CAP == 4 * 2**30
    with pytest.raises(BadInput) as refused:
        dense(operator(wide(50_000)))
    assert str(refused.value) == (
        "a dense matrix of 50000 x 50000 parameters takes 10 GB, the cap is 4.29 GB; take a block "
        "(operator.part(names), rows=…, columns=…), or products, eigenpairs, trace, diagonal and spectral density, "
        "which never build it"
    )


def test_the_cap_is_of_the_block_and_in_bytes(mlp):
    operator, needed = Hessian(mlp.objective), mlp.size**2 * 8
    assert dense(operator, byte_cap=needed).shape == (mlp.size, mlp.size)
    with pytest.raises(BadInput, match=re.escape("104 x 104 parameters takes 86.5 kB, the cap is 86.5 kB")):
        dense(operator, byte_cap=needed - 1)
    assert dense(operator, ["0.bias"], byte_cap=5 * mlp.size * 8).shape == (5, mlp.size)
    with pytest.raises(BadInput, match="5 x 104 parameters"):
        dense(operator, ["0.bias"], byte_cap=5 * mlp.size * 8 - 1)


def test_an_unknown_block_is_refused(mlp):
    with pytest.raises(BadInput, match=r"no parameter is named '1\.bias'"):
        dense(Hessian(mlp.objective), columns=["1.bias"])


def test_progress_is_counted_in_columns(tiny, little_memory):
    seen = []

    class Bar:
        def __init__(self, total, unit):
            assert unit == "column"
            self.total, self.done = total, 0
            seen.append(self)

        def update(self, count):
            self.done += count

        def close(self):
            assert self.done == self.total

    dense(Rest(tiny.objective), progress=Bar)
    dense(Hessian(tiny.objective), ["left"], ["right.*"], progress=Bar)
    assert [(bar.total, bar.done) for bar in seen] == [(14, 14), (8, 8)]
