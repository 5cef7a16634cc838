import copy
import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torch import nn

from landscape_cli.curvature import (
    GaussNewton,
    Hessian,
    NotConverged,
    Objective,
    Rest,
    spectral_density,
    spectral_norm,
    squared_error,
    top_eigenpairs,
)
from landscape_cli.curvature.spectrum import SMALL, Lanczos, many_norms
from landscape_cli.errors import MeasurementFailed

ALL = (Hessian, GaussNewton, Rest)
KEYS = {"magnitude": lambda values: -abs(values), "largest": lambda values: -values, "smallest": lambda values: values}


def seeded(seed=11):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def symmetric(eigenvalues, seed=0):
    """A matrix with given eigenvalues and random eigenvectors."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    basis = torch.linalg.qr(draw(len(values), len(values), seed=seed))[0]
    return basis @ values.diag() @ basis.T


def nothing():
    """The rest of a least-squares problem with 80 parameters: the zero matrix."""
    net = nn.Linear(20, 4, bias=False, dtype=torch.float64)
    return Rest(Objective(net, draw(3, 20), draw(3, 4), squared_error))


@pytest.mark.parametrize("which", list(KEYS))
def test_extreme_eigenpairs_are_numpys(case, which):
    matrix = case.hessian.numpy()
    values = np.linalg.eigvalsh(matrix)
    found = top_eigenpairs(Hessian(case.objective), 3, which, tolerance=1e-6)
    residuals = np.linalg.norm(matrix @ found.vectors - found.vectors * found.values, axis=0)
    scale = abs(found.values).max()
    assert found.vectors.shape == (case.size, 3)
    assert (residuals <= 1e-6 * scale).all()
    np.testing.assert_allclose(found.residuals, residuals, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(found.values, values[KEYS[which](values).argsort()[:3]], rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(3), rtol=0, atol=1e-8)


def test_gauss_newtons_largest_eigenvalues_are_numpys(conv1d, vit):
    for case in (conv1d, vit):
        values = np.linalg.eigvalsh(case.gauss_newtons.mean(dim=0).numpy())[:-4:-1]
        found = top_eigenpairs(GaussNewton(case.objective), 3, tolerance=1e-6)
        np.testing.assert_allclose(found.values, values, rtol=0, atol=1e-6 * values[0])


@pytest.mark.parametrize("name", ["conv1d", "mlp"])  # dense, and ARPACK
def test_the_smallest_eigenvalue_of_gauss_newton_is_zero(request, name):
    found = top_eigenpairs(GaussNewton(request.getfixturevalue(name).objective), 1, "smallest")
    assert abs(found.values[0]) < 1e-8


def test_both_sides_of_the_dense_solvers_limit_are_met(tiny, mlp):
    assert tiny.size < SMALL < mlp.size


def test_all_eigenpairs_at_once(tiny, mlp):
    for case in (tiny, mlp):
        values = np.linalg.eigvalsh(case.hessian.numpy())
        found = top_eigenpairs(Hessian(case.objective), case.size, "smallest")
        np.testing.assert_allclose(found.values, values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize("name", ["mlp", "conv2d", "vit", "tiny"])
def test_the_spectral_norm_is_to_a_thousandth(request, name, operator):
    case = request.getfixturevalue(name)
    matrix = case.expected(operator).mean(dim=0)
    norm, residual = spectral_norm(operator(case.objective))
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert norm == pytest.approx(exact, rel=1e-3)
    assert abs(norm - exact) <= residual + 1e-12 * exact
    assert residual <= 1e-3 * norm


def test_the_same_command_gives_the_same_digits(mlp):
    first, again = (top_eigenpairs(Hessian(mlp.objective), 2) for _ in range(2))
    assert np.array_equal(first.values, again.values)
    assert np.array_equal(first.vectors, again.vectors)


def test_single_precision_has_eigenvalues_within_the_tolerance(vit):
    objective = Objective(copy.deepcopy(vit.net).float(), vit.x.float(), vit.y)
    norm, _ = spectral_norm(Hessian(objective))
    assert norm == pytest.approx(float(torch.linalg.matrix_norm(vit.hessian, 2)), rel=1e-3)


def test_the_zero_matrix_has_norm_zero():
    operator = nothing()
    assert operator.shape[0] > SMALL
    assert spectral_norm(operator) == (0.0, 0.0)
    assert spectral_norm(operator.part(["weight"])) == (0.0, 0.0)
    assert not top_eigenpairs(operator, 3).values.any()
    small = Objective(nn.Linear(2, 1, bias=False, dtype=torch.float64), draw(3, 2), draw(3, 1), squared_error)
    assert spectral_norm(Rest(small)) == (0.0, 0.0)


def test_what_has_not_converged_is_no_number(mlp, conv2d):
    assert issubclass(NotConverged, MeasurementFailed)
    for case, k, which in ((mlp, 1, "smallest"), (conv2d, 3, "largest")):
        with pytest.raises(NotConverged, match=rf"\d of {k} eigenpairs converged to 1e-12, 1 restarts"):
            top_eigenpairs(Hessian(case.objective), k, which, tolerance=1e-12, max_steps=1)


def test_a_residual_above_the_tolerance_is_no_number(monkeypatch, mlp):
    import scipy.sparse.linalg

    def careless(matrix, k, **options):
        values, vectors = np.linalg.eigh(mlp.hessian.numpy())
        return values[-k:] * 1.01, vectors[:, -k:]

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", careless)
    with pytest.raises(NotConverged, match=r"residual 0\.00\d+, the tolerance is 0\.001 of the norm"):
        spectral_norm(Hessian(mlp.objective))
    assert spectral_norm(Hessian(mlp.objective), tolerance=0.02)[0] > 0


@pytest.mark.parametrize("name", ["tiny", "mlp"])
def test_numbers_of_eigenpairs_out_of_range_are_refused(request, name):
    case = request.getfixturevalue(name)
    for k in (0, -1, case.size + 1):
        with pytest.raises(ValueError, match=f"k={k}; allowed: 1 to {case.size}"):
            top_eigenpairs(Hessian(case.objective), k)


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize("name", ["mlp", "conv2d", "vit", "tiny"])
def test_the_density_has_the_moments_of_the_spectrum(request, name, operator):
    case = request.getfixturevalue(name)
    matrix, probes = case.expected(operator).mean(dim=0), 30
    found = spectral_density(operator(case.objective), probes, 10, seeded())
    assert found.nodes.shape == found.weights.shape == (probes, 10)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=0, atol=1e-12)
    for power, expected in ((1, matrix.trace() / case.size), (2, matrix.square().sum() / case.size)):
        moments = (found.weights * found.nodes**power).sum(axis=1)
        standard_error = moments.std(ddof=1) / math.sqrt(probes)
        assert abs(moments.mean() - float(expected)) < 4 * standard_error
    assert trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-3)
    assert found.width == pytest.approx((found.nodes.max() - found.nodes.min()) / 100)
    assert found.grid[0] < found.nodes.min() < found.nodes.max() < found.grid[-1]
    assert (found.standard_error >= 0).all()


def test_the_density_is_that_of_the_smoothed_eigenvalues(tiny):
    values, width, probes = np.linalg.eigvalsh(tiny.hessian.numpy()), 0.3, 400
    grid = np.linspace(values[0] - 1, values[-1] + 1, 200)
    exact = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).mean(axis=1) / (width * math.sqrt(2 * math.pi))
    found = spectral_density(Hessian(tiny.objective), probes, tiny.size, seeded(), grid, width)
    assert np.array_equal(found.grid, grid)
    assert found.width == width
    assert (abs(found.density - exact) <= 4 * found.standard_error + 1e-12).all()
    assert abs(found.density - exact).max() < 0.1 * exact.max()
    few = spectral_density(Hessian(tiny.objective), 25, tiny.size, seeded(), grid, width)
    assert few.standard_error.mean() / found.standard_error.mean() == pytest.approx(4, rel=0.25)


def test_the_density_and_its_standard_error_are_over_probes(tiny):
    grid = np.array([-1.0, 0.5, 3.0])
    found = spectral_density(Hessian(tiny.objective), 3, 4, seeded(), grid, width=0.5)
    gaussians = np.exp(-2 * (grid[:, None, None] - found.nodes) ** 2) / (0.5 * math.sqrt(2 * math.pi))
    each = (gaussians * found.weights).sum(axis=2)
    np.testing.assert_allclose(found.density, each.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, each.std(axis=1, ddof=1) / math.sqrt(3), rtol=1e-10)


def test_more_lanczos_steps_than_parameters_are_as_many(tiny):
    found = spectral_density(Hessian(tiny.objective), 2, 1000, seeded())
    assert found.nodes.shape == (2, tiny.size)
    values = np.linalg.eigvalsh(tiny.hessian.numpy())
    np.testing.assert_allclose(found.nodes, np.stack([values, values]), rtol=0, atol=1e-9)


def test_densities_need_two_probes_and_keep_to_their_generator(tiny):
    with pytest.raises(ValueError, match="a standard error takes at least 2 probes, not 1"):
        spectral_density(Hessian(tiny.objective), 1, 5, seeded())
    first, again, other = (spectral_density(Hessian(tiny.objective), 3, 5, seeded(s)) for s in (1, 1, 2))
    assert np.array_equal(first.nodes, again.nodes)
    assert np.array_equal(first.density, again.density)
    assert not np.array_equal(first.nodes, other.nodes)


@pytest.mark.filterwarnings("error")
def test_the_density_of_the_zero_matrix_is_finite():
    found = spectral_density(nothing(), 3, 4, seeded())
    assert np.isfinite(found.density).all()
    assert np.isfinite(found.standard_error).all()


def lanczos(matrices, start, steps):
    run = Lanczos(start)
    for _ in range(steps):
        run.advance((matrices @ run.last[:, :, None]).squeeze(2))
    return run, torch.stack(run.basis[:-1], dim=1)


def test_lanczos_vectors_stay_orthonormal_on_ill_conditioned_matrices():
    matrices = torch.stack([torch.logspace(-12, 3, 60, dtype=torch.float64).diag(), symmetric(range(-30, 30))])
    run, basis = lanczos(matrices, draw(2, 60), 60)
    eye = torch.eye(60, dtype=torch.float64).expand(2, -1, -1)
    torch.testing.assert_close(basis @ basis.transpose(1, 2), eye, rtol=0, atol=1e-10)
    found = torch.linalg.eigvalsh(run.tridiagonal)
    torch.testing.assert_close(found, torch.linalg.eigvalsh(matrices), rtol=0, atol=1e-10)
    projected = basis @ matrices @ basis.transpose(1, 2)
    torch.testing.assert_close(run.tridiagonal, projected, rtol=0, atol=1e-10)


def test_lanczos_ends_in_an_invariant_subspace():
    values = torch.zeros(2, 20, dtype=torch.float64)
    values[0, :3] = torch.tensor([5.0, -2.0, 1.0])  # with a start outside the null space: four dimensions
    values[1] = torch.arange(20)
    matrices = torch.stack([symmetric(v, seed=i) for i, v in enumerate(values)])
    run, basis = lanczos(matrices, draw(2, 20), 12)
    assert (run.betas[3][0], run.betas[11][0]) == (0, 0)
    assert (run.betas[11][1]) > 0
    assert not basis[0, 4:].any()
    found = torch.linalg.eigvalsh(run.tridiagonal)
    assert run.tridiagonal.isfinite().all()
    torch.testing.assert_close(
        found[0, [0, -2, -1]], torch.tensor([-2.0, 1.0, 5.0], dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_a_row_of_zeros_stays_zero():
    start = draw(2, 5)
    start[0] = 0
    run, _ = lanczos(symmetric([1, 2, 3, 4, 5]).expand(2, -1, -1), start, 5)
    assert not run.tridiagonal[0].any()
    torch.testing.assert_close(
        torch.linalg.eigvalsh(run.tridiagonal[1]), torch.arange(1.0, 6).double(), atol=1e-12, rtol=0
    )


def clustered():
    """Matrices whose norms take different numbers of steps: first the slow ones, the quick ones among them."""
    size = 40
    flat = torch.linspace(-1, 1, size)
    slow, slower = flat.clone(), 3 * torch.cat([flat[:-1] ** 3, torch.tensor([1.0])])
    quick = torch.cat([torch.tensor([-7.0]), torch.zeros(size - 1)])
    quicker = torch.zeros(size)
    return torch.stack(
        [symmetric(v, seed=i) for i, v in enumerate((slow, quick, slower, quicker, 2 * quick, flat + 9))]
    )


def test_norms_of_many_matrices_come_in_their_order_although_they_leave_at_different_steps():
    matrices, seen = clustered(), []

    def product(which, vectors):
        seen.append(which.tolist())
        return (matrices[which] @ vectors[:, :, None]).squeeze(2)

    found = many_norms(product, draw(6, 40), 1e-6, 200)
    exact = torch.linalg.matrix_norm(matrices, 2)
    torch.testing.assert_close(found.values, exact, rtol=1e-6, atol=1e-15)
    assert (found.residuals <= 2e-6 * exact).all()
    assert ((found.values - exact).abs() <= found.residuals + 1e-12).all()
    assert [1, 3, 4] in seen  # three have converged, and their residuals are taken
    assert [0, 2, 5] in seen
    assert 8 < found.steps <= 40
    assert seen[0] == list(range(6))


def test_a_norm_waits_for_both_ends_of_the_spectrum():
    values = torch.cat([torch.tensor([5.0]), torch.linspace(-6, -4, 39)])  # one end is found long before the larger
    matrices = torch.stack([symmetric(values), symmetric(-values)])
    found = many_norms(lambda which, v: (matrices[which] @ v[:, :, None]).squeeze(2), draw(2, 40), 1e-6, 200)
    torch.testing.assert_close(found.values, torch.full((2,), 6.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_norms_that_have_not_converged_are_counted():
    matrices = clustered()
    with pytest.raises(NotConverged, match="3 of 6 spectral norms have not converged to 1e-06 after 6 products"):
        many_norms(lambda which, v: (matrices[which] @ v[:, :, None]).squeeze(2), draw(6, 40), 1e-6, 6)
