import copy

import pytest
import torch
from torch import nn

from landscape_cli.curvature import GaussNewton, Hessian, Objective, Rest, cross_entropy, dense, squared_error
from landscape_cli.errors import MeasurementFailed

OPERATORS = pytest.mark.parametrize("operator", [Hessian, GaussNewton, Rest])
FLOAT64 = {"dtype": torch.float64}


class Formula(nn.Module):
    """Σ_ab M_ab p_a p_b times a weight of each object: its Hessian is M + Mᵀ times the weight."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.p = nn.Parameter(torch.linspace(-1, 2, len(matrix), **FLOAT64))

    def forward(self, x):
        return (self.p @ self.matrix @ self.p) * x


class Tied(nn.Module):
    """One weight in two places, and a layer that is not used."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False, **FLOAT64)
        self.unused = nn.Linear(2, 2, **FLOAT64)
        self.second = nn.Linear(3, 3, bias=False, **FLOAT64)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).tanh())


def itself(outputs, y):
    return outputs


def formula(matrix, weights=(1.0, 1.0, 1.0)):
    x = torch.tensor(weights, **FLOAT64)
    return Objective(Formula(torch.as_tensor(matrix, **FLOAT64)), x, torch.zeros(len(x)), itself)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **FLOAT64)


def assert_equal(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_the_reference_is_the_same_network(case):
    assert_equal(case.outputs(case.plain, case.point), case.outputs(case.net, case.point), 1e-14)
    assert case.expected(Rest).abs().amax(dim=(1, 2)).min() > 1e-3
    assert_equal(case.hessians, case.hessians.transpose(1, 2), 1e-12)


@OPERATORS
def test_products_are_torch_funcs(case, operator):
    matrix, found = case.expected(operator).mean(dim=0), operator(case.objective)
    assert found.shape == matrix.shape
    assert found.dtype == torch.float64
    vectors = draw(case.size, 7)
    assert_equal(found @ vectors, matrix @ vectors)
    assert_equal(found @ vectors[:, 0], matrix @ vectors[:, 0])
    assert_equal(found @ vectors[:, :1], matrix @ vectors[:, :1])


@OPERATORS
def test_each_object_has_a_product_of_its_own(case, operator):
    matrices, found = case.expected(operator), operator(case.objective)
    vectors = draw(len(case.x), case.size, 3)
    assert_equal(found.each(vectors), matrices @ vectors)
    assert_equal(found.each(vectors[:, :, 0]), (matrices @ vectors)[:, :, 0])


@OPERATORS
def test_columns_move_some_parameters_and_keep_some_rows(case, operator):
    found, slices, names = operator(case.objective), case.objective.slices, case.objective.names
    matrix = case.expected(operator).mean(dim=0)
    for moved, rows in ((names[:1], names[-1:]), (names[1:3], names[:2]), (names[-1:], names)):
        sizes = {name: dict(case.net.named_parameters())[name].shape for name in moved}
        tangents = {name: draw(4, *shape, seed=i) for i, (name, shape) in enumerate(sizes.items())}
        expected = sum(tangents[name].flatten(1) @ matrix[slices[name]] for name in moved)
        wanted = torch.cat([expected[:, slices[name]] for name in rows], dim=1)
        columns = found.columns(tangents, rows)
        assert columns.dtype == torch.float64
        assert_equal(columns, wanted)


@OPERATORS
def test_a_part_is_a_diagonal_block(case, operator):
    objective = case.objective
    names = [objective.names[0], objective.names[-1]]
    index = torch.cat([torch.arange(case.size)[objective.slices[name]] for name in names])
    block = case.expected(operator).mean(dim=0)[index][:, index]
    part = operator(objective).part(names)
    assert type(part) is operator
    assert part.shape == block.shape
    vectors = draw(len(index), 2)
    assert_equal(part @ vectors, block @ vectors)
    own = draw(len(case.x), len(index))
    expected = (case.expected(operator)[:, index][:, :, index] @ own[:, :, None]).squeeze(2)
    assert_equal(part.each(own), expected)


@OPERATORS
def test_products_do_not_depend_on_the_chunks(mlp, operator, little_memory):
    vectors, own = draw(mlp.size, 9), draw(len(mlp.x), mlp.size, 2)
    assert_equal(operator(mlp.objective) @ vectors, mlp.expected(operator).mean(dim=0) @ vectors)
    assert_equal(operator(mlp.objective).each(own), mlp.expected(operator) @ own)


def test_the_hessian_is_autograds_of_the_network_as_it_is(case):
    def mean_loss(point):
        return case.loss(case.outputs(case.net, point), case.y).mean()

    expected = torch.autograd.functional.hessian(mean_loss, case.point)
    assert_equal(Hessian(case.objective) @ torch.eye(case.size, **FLOAT64), expected)


def test_gauss_newton_and_the_rest_are_the_hessian(case):
    vectors = draw(case.size, 3)
    parts = GaussNewton(case.objective) @ vectors + Rest(case.objective) @ vectors
    assert_equal(parts, Hessian(case.objective) @ vectors)
    own = draw(len(case.x), case.size)
    parts = GaussNewton(case.objective).each(own) + Rest(case.objective).each(own)
    assert_equal(parts, Hessian(case.objective).each(own))


def test_gauss_newton_has_no_negative_eigenvalue(case):
    matrix = GaussNewton(case.objective) @ torch.eye(case.size, **FLOAT64)
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert values[-1] > 0.1
    assert values[0] > -1e-13 * values[-1]


@pytest.mark.parametrize(("theirs", "ours"), [("HessianLinearOperator", Hessian), ("GGNLinearOperator", GaussNewton)])
def test_curvlinops_finds_the_same(classifier, theirs, ours):
    curvlinops = pytest.importorskip("curvlinops")
    # As torch.func.hessian, its Hessian of PyTorch's layer norm is wrong; that of the layer norm written out is not.
    net = classifier.plain
    data = [(classifier.x[:3], classifier.y[:3]), (classifier.x[3:], classifier.y[3:])]
    operator = getattr(curvlinops, theirs)(net, nn.CrossEntropyLoss(), list(net.parameters()), data)
    assert_equal(
        ours(classifier.objective) @ torch.eye(classifier.size, **FLOAT64),
        operator @ torch.eye(classifier.size, **FLOAT64),
    )


def test_a_textbook_function_of_two_variables():
    objective = formula([[2, 3], [0, 1]])  # x (x + y) + (x + y)²
    objective.fixed["p"] = torch.tensor([0.7, -1.3], **FLOAT64)
    x, y = 0.7, -1.3
    assert float(objective.outputs({}, objective.x)[0]) == pytest.approx(x * (x + y) + (x + y) ** 2, abs=1e-15)
    matrix = dense(Hessian(objective))
    assert_equal(matrix, torch.tensor([[4, 3], [3, 2]], **FLOAT64), 1e-14)
    assert_equal(torch.linalg.eigvalsh(matrix), torch.tensor([-0.162278, 6.162278], **FLOAT64), 1e-6)
    assert_equal(Hessian(objective) @ torch.tensor([1.0, -1.0], **FLOAT64), torch.tensor([1, 1], **FLOAT64), 1e-14)


def test_a_quadratic_form_has_the_matrix_and_its_transpose_and_no_gauss_newton_part():
    matrix = draw(5, 5)
    objective = formula(matrix, weights=(1.0, -2.0, 4.0))
    vectors = draw(5, 2, seed=1)
    assert_equal(Hessian(objective) @ vectors, (matrix + matrix.T) @ vectors, 1e-13)  # the weights' mean is one
    assert_equal(Rest(objective) @ vectors, (matrix + matrix.T) @ vectors, 1e-13)
    assert torch.equal(GaussNewton(objective) @ vectors, torch.zeros(5, 2, **FLOAT64))
    own = draw(3, 5, seed=2)
    expected = objective.x[:, None] * (own @ (matrix + matrix.T))
    assert_equal(Hessian(objective).each(own), expected, 1e-13)


def test_least_squares_has_the_normal_equations_and_no_rest():
    x, y, outputs = draw(6, 4), draw(6, 3, seed=1), 3
    objective = Objective(nn.Linear(4, outputs, bias=False, **FLOAT64), x, y, squared_error)
    expected = torch.kron(torch.eye(outputs, **FLOAT64), 2 * x.T @ x / len(x))
    vectors = draw(12, 2, seed=2)
    for operator in (Hessian, GaussNewton):
        assert_equal(operator(objective) @ vectors, expected @ vectors, 1e-13)
        assert_equal(dense(operator(objective)), expected, 1e-13)
    assert torch.equal(Rest(objective) @ vectors, torch.zeros(12, 2, **FLOAT64))
    assert torch.equal(dense(Rest(objective)), torch.zeros(12, 12, **FLOAT64))
    assert max(operator(objective).verify() for operator in (Hessian, GaussNewton, Rest)) < 1e-13


def test_tied_weights_are_one_parameter_and_what_is_not_used_has_zeros():
    net, x, y = Tied(), draw(4, 3), torch.tensor([0, 2, 1, 1])
    objective = Objective(net, x, y)
    assert objective.names == ("first.weight", "unused.weight", "unused.bias")

    def mean_loss(weight):
        return nn.functional.cross_entropy((x @ weight.T).tanh() @ weight.T, y)

    expected = torch.zeros(15, 15, **FLOAT64)
    weight = net.first.weight.detach()
    expected[:9, :9] = torch.autograd.functional.hessian(mean_loss, weight).reshape(9, 9)
    assert_equal(dense(Hessian(objective)), expected, 1e-13)
    assert_equal(dense(GaussNewton(objective)) + dense(Rest(objective)), expected, 1e-13)


@pytest.mark.parametrize("operator", [Hessian, GaussNewton, Rest])
def test_a_network_with_a_layer_that_is_not_used_is_verified(operator):
    assert operator(Objective(Tied(), draw(4, 3), torch.tensor([0, 2, 1, 1]))).verify() < 1e-12


def test_vectors_of_another_size_are_refused(mlp):
    operator, (n, p) = Hessian(mlp.objective), (len(mlp.x), mlp.size)
    for shape in ((p + 1,), (2, p), (p, 2, 2), ()):
        with pytest.raises(ValueError, match=rf"\({p}, {p}\) times .*: allowed are \({p},\) and that by M"):
            operator @ torch.zeros(shape, **FLOAT64)
    for shape in ((p,), (n, p + 1), (n + 1, p), (p, n), (n, p, 1, 1)):
        with pytest.raises(ValueError, match=rf"allowed are \({n}, {p}\) and that by M"):
            operator.each(torch.zeros(shape, **FLOAT64))


def test_single_precision_is_close_to_double(case):
    y = case.y if case.loss is cross_entropy else case.y.float()
    objective = Objective(copy.deepcopy(case.net).float(), case.x.float(), y, case.loss)
    vectors = draw(case.size, 3)
    for operator in (Hessian, GaussNewton, Rest):
        expected = case.expected(operator).mean(dim=0) @ vectors
        found = operator(objective) @ vectors
        assert found.dtype == torch.float32
        assert (found.double() - expected).norm() < 4e-6 * expected.norm()  # 7e-7 was measured
        assert operator(objective).verify() < 1e-5


@OPERATORS
def test_a_wrong_product_is_found(monkeypatch, mlp, operator):
    assert operator(mlp.objective).verify() < 1e-12
    right = operator.products

    def off(self, x, y, tangents, rows):
        found = right(self, x, y, tangents, rows)
        return found | {"0.bias": found["0.bias"] * (1 + 1e-6)}

    monkeypatch.setattr(operator, "products", off)
    with pytest.raises(MeasurementFailed) as failed:
        operator(mlp.objective).verify()
    assert str(failed.value).startswith(
        f"{operator.__name__} products of Sequential differ from plain differentiation by "
    )
    assert str(failed.value).endswith("a layer cannot be batched; write it out in plain operations")


@pytest.mark.parametrize("path", ["_mean", "each"])
def test_both_ways_of_batching_are_verified(monkeypatch, mlp, path):
    right = getattr(Hessian, path)
    monkeypatch.setattr(Hessian, path, lambda self, vectors: right(self, vectors) * 1.001)
    with pytest.raises(MeasurementFailed, match=r"by 0\.001 of their length"):
        Hessian(mlp.objective).verify()


def test_products_that_are_not_finite_are_found(monkeypatch, mlp):
    right = Hessian.each
    monkeypatch.setattr(Hessian, "each", lambda self, vectors: right(self, vectors) * torch.nan)
    with pytest.raises(MeasurementFailed, match="by nan of their length"):
        Hessian(mlp.objective).verify()
