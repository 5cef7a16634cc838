import math

import pytest
import torch
from torch import nn

from landscape_cli.bounds import chains
from landscape_cli.curvature.chain import Chain, object_norms

DOUBLE = {"bias": False, "dtype": torch.float64}
KEY = {"gauss_newton": 0, "hessian": 1}


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def linear_net(*matrices):
    """Chain and weights of fully connected layers with ReLUs between them."""
    modules = []
    for matrix in map(double, matrices):
        modules += [nn.Linear(matrix.shape[1], matrix.shape[0], **DOUBLE), nn.ReLU()]
        modules[-2].weight.data = matrix
    net = nn.Sequential(*modules[:-1])
    chain = Chain.of(net, (len(matrices[0][0]),))
    return chain, chain.weights(net)


def scaled_identity(scale):
    return [[scale, 0.0], [0.0, scale]]


def of_quantity(bounds, quantity):
    return next(bound for bound in bounds if bound.quantity == quantity)


@pytest.mark.parametrize(
    ("theorem", "scales", "x", "quantity", "measured", "printed", "fails"),
    [
        ("8", [0.1], [3, 4], "hessian", 12.47, 0.3677, True),
        ("9", [0.1], [3, 4], "hessian", 12.47, 1.471, True),
        ("8", [0.1, 0.1], [3, 4], "gauss_newton", 0.25, 0.02135, True),
        ("8", [0.1, 0.1], [3, 4], "hessian", 3.698, 0.02135, True),
        ("8", [0.5, 0.5], [0.6, 0.8], "gauss_newton", 0.2498, 0.6187, False),
        ("8", [0.5, 0.5], [0.6, 0.8], "hessian", 0.8776, 0.6187, True),
    ],
)
def test_counterexamples_to_the_connected_bounds(theorem, scales, x, quantity, measured, printed, fails):
    chain, weights = linear_net(*map(scaled_identity, scales))
    norms = object_norms(chain, weights, double(x), torch.tensor(0))
    bound = of_quantity(chains.of_network(theorem, chain, weights, double(x), ()), quantity)
    exact = norms[KEY[quantity]].item()
    assert exact == pytest.approx(measured, rel=5e-4)  # as many digits as are given
    assert bound.printed.item() == pytest.approx(printed, rel=5e-4)
    assert (exact > bound.printed) == fails
    assert exact <= bound.tight * (1 + 1e-12) <= bound.corrected * (1 + 2e-12)


@pytest.mark.parametrize(
    ("kind", "theorem", "shape", "measured", "printed"),
    [(nn.Conv1d, "12", (2, 3), 0.8165, 6.1e-4), (nn.Conv2d, "13", (2, 3, 3), 0.9429, 0.0587)],
)
def test_counterexamples_to_the_convolutions_bounds_of_the_full_hessian(kind, theorem, shape, measured, printed):
    net = nn.Sequential(kind(2, 2, 2, **DOUBLE), nn.ReLU(), kind(2, 2, 2, **DOUBLE), nn.Flatten())
    chain = Chain.of(net, shape)
    weights = [torch.full_like(weight, 1e-3) for weight in chain.weights(net)]
    weights[1][1] *= -1
    x = torch.ones(math.prod(shape), dtype=torch.float64) / math.sqrt(math.prod(shape))
    exact = object_norms(chain, weights, x, torch.tensor(1))
    gauss_newton, hessian = chains.of_network(theorem, chain, weights, x, shape)
    assert exact[1].item() == pytest.approx(measured, rel=1e-4)
    assert hessian.printed.item() == pytest.approx(printed, rel=5e-3)
    assert hessian.printed < exact[1] <= hessian.tight <= hessian.corrected
    assert exact[0] <= gauss_newton.tight <= gauss_newton.corrected <= gauss_newton.printed


def test_counterexample_to_the_heads_bound_whose_fraction_is_inverted():
    net = nn.Sequential(
        *(nn.Conv2d(2, 2, 2, **DOUBLE), nn.ReLU(), nn.Conv2d(2, 2, 2, **DOUBLE), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(2, 2, **DOUBLE)),
    )
    chain = Chain.of(net, (2, 3, 3))
    weights = [torch.full_like(w, value) for w, value in zip(chain.weights(net), (1, 1, 0.01), strict=True)]
    exact, _ = object_norms(chain, weights, torch.ones(18, dtype=torch.float64), torch.tensor(0))
    bound = chains.with_head(2, math.sqrt(18), 2, 2, (3, 3), 1.0, 1, 4, 0.01)[0]
    assert exact.item() == pytest.approx(4096, rel=1e-12)
    assert bound.printed == pytest.approx(1689, abs=0.5)
    # ½ ‖x‖² mn (h²w̃²)^P body^L (L + 1 + P body/(h²w̃²)), with the body's k²C²w²mn = 144
    assert bound.corrected == pytest.approx(0.5 * 18 * 9 * (16e-4) * 144 * (2 + 144 / 16e-4), rel=1e-12)
    assert exact <= bound.corrected


def test_the_printed_quotient_at_one_is_the_sum():
    bounds = chains.fully_connected(3, 2.0, 1.0)
    assert [bound.printed for bound in bounds] == [pytest.approx(math.sqrt(2) * (3 * 4 + 3))] * 2
    q = 1 + 1e-6
    near = math.sqrt(2) * (3 * 4 * q**6 + q**2 * (q**6 - 1) / (q**2 - 1))
    assert chains.fully_connected(3, 2.0, q)[0].printed == pytest.approx(near, rel=1e-9)


def test_the_corrected_bound_of_the_gauss_newton_part_is_attained():
    chain, weights = linear_net([[0.0, 0.0], [0.0, 0.0]])
    x = double([3.0, 4.0])
    exact, _ = object_norms(chain, weights, x, torch.tensor(0))
    bound = chains.of_network("8", chain, weights, x, ())[0]
    assert exact.item() == bound.corrected.item() == pytest.approx(12.5, rel=1e-15)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize(("scale", "quantity"), [(0.595, "gauss_newton"), (1.0, "hessian")])
def test_the_printed_connected_bound_is_safe_from_a_scale_on(layers, scale, quantity):
    torch.manual_seed(0)
    for length in (0.1, 1.0, 10.0):
        for _ in range(20):
            matrices = [scale * torch.linalg.qr(torch.randn(2, 2).double())[0] for _ in range(layers)]
            x = length * torch.nn.functional.normalize(torch.randn(2).double(), dim=0)
            chain, weights = linear_net(*(matrix.tolist() for matrix in matrices))
            exact = object_norms(chain, weights, x, torch.tensor(0))[KEY[quantity]]
            assert exact <= of_quantity(chains.of_network("8", chain, weights, x, ()), quantity).printed


def quadratics(seed, k=4, n=3, radius=0.7):
    """|L_{k+1} - L_k| at a point of distance R, and M_ℓ, M_H, of losses ℓ_i + ½ dᵀH_i d."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(k + 1, n, n, generator=generator, dtype=torch.float64)
    h, least = h + h.mT, torch.rand(k + 1, generator=generator, dtype=torch.float64)
    step = torch.randn(n, generator=generator, dtype=torch.float64)
    step *= radius / step.norm()
    losses = least + 0.5 * (h @ step @ step)
    difference = losses.mean() - losses[:k].mean()
    assert difference.item() == pytest.approx(((losses[k] - losses[:k].mean()) / (k + 1)).item())  # (1.3)
    return abs(difference.item()), k, least.max().item(), torch.linalg.matrix_norm(h, 2).max().item(), radius


def test_bounds_of_the_difference_of_losses():
    for seed in range(100):
        difference, *given = quadratics(seed)
        assert difference <= chains.loss_difference(*given)
        assert chains.loss_difference(*given, printed=True) == pytest.approx(2 * chains.loss_difference(*given))
    # attained: L_k = -½ M_H R², ℓ_{k+1} = M_ℓ + ½ M_H R²
    k, high, curvature, radius = 3, 0.4, 2.0, 1.5
    last, mean = high + 0.5 * curvature * radius**2, -0.5 * curvature * radius**2
    assert abs(last - mean) / (k + 1) == pytest.approx(chains.loss_difference(k, high, curvature, radius))


def test_the_mean_over_objects_does_not_bound_the_difference_but_the_largest_does():
    second = torch.tensor([1.0, 1.0, 1.0, 5.0])  # ℓ_i = c_i θ²/2, θ* = 0, θ = 1, k = 3
    losses, apart = second / 2, (second - second.mean()).abs()
    difference = abs(losses.mean() - losses[:3].mean()).item()
    assert difference == 0.5
    assert chains.loss_difference(3, 0.0, apart.mean().item(), 1.0) == 0.375
    assert chains.loss_difference(3, 0.0, apart.max().item(), 1.0) >= difference
