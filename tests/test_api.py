"""The functions of the package against closed forms, plain automatic differentiation and loops."""

import doctest
import importlib
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import trapezoid

import landscape_cli
from landscape_cli import (
    api,
    bound,
    hessian_spectrum,
    landscape_measure,
    loss_difference_curve,
    sufficient_sample_size,
)
from landscape_cli.errors import BadInput
from landscape_cli.rng import generator


@pytest.fixture
def net():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()


@pytest.fixture
def data():
    drawn = torch.Generator().manual_seed(6)
    return torch.randn(24, 4, generator=drawn).double(), torch.randint(3, (24,), generator=drawn)


def hessians(net, x, y) -> torch.Tensor:
    """Each object's own Hessian, (N, P, P), by plain double differentiation."""
    names, start = zip(*((n, p.detach()) for n, p in net.named_parameters()), strict=True)
    sizes = [p.numel() for p in start]

    def loss(flat, row):
        parts = {n: f.view_as(p) for n, f, p in zip(names, flat.split(sizes), start, strict=True)}
        outputs = torch.func.functional_call(net, parts, (x[row : row + 1],))
        return torch.nn.functional.cross_entropy(outputs, y[row : row + 1])

    flat = torch.cat([p.flatten() for p in start])
    return torch.stack([torch.autograd.functional.hessian(lambda f, r=r: loss(f, r), flat) for r in range(len(x))])


def test_examples_in_the_docstrings():
    results = doctest.testmod(importlib.import_module("landscape_cli.api"))
    assert (results.failed, results.attempted > 15) == (0, True)


def test_importing_the_package_loads_nothing_heavy():
    script = """
        import sys, landscape_cli
        assert landscape_cli.__version__ and "bound" in dir(landscape_cli)
        assert not {"torch", "numpy", "pandas", "landscape_cli.api"} & set(sys.modules)
        from landscape_cli import bound
        assert "landscape_cli.api" in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", "\n".join(map(str.strip, script.splitlines()))], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert all(callable(getattr(landscape_cli, name)) for name in landscape_cli.__all__)
    with pytest.raises(AttributeError, match="bounds_of"):
        landscape_cli.bounds_of  # noqa: B018


def test_the_package_says_that_it_is_typed():
    from importlib.resources import files

    assert files("landscape_cli").joinpath("py.typed").is_file()


class TestLossDifferenceCurve:
    def test_is_the_definition_written_out(self, net, data):
        x, y = data
        found = loss_difference_curve(net, x, y, permutations=7, smoothing=0.6, seed=3)
        losses = torch.nn.functional.cross_entropy(net(x), y, reduction="none").detach().numpy()
        np.testing.assert_allclose(found.losses, losses, rtol=1e-12)
        drawn, each = generator(3, "orderings"), []
        for _ in range(7):
            order = losses[torch.randperm(24, generator=drawn).numpy()]
            each.append([abs(order[: k + 1].mean() - order[:k].mean()) for k in range(1, 24)])
        np.testing.assert_allclose(found.mean, np.mean(each, axis=0), rtol=1e-9)
        np.testing.assert_allclose(found.standard_error, np.std(each, axis=0, ddof=1) / math.sqrt(7), rtol=1e-9)
        average = found.mean[0]
        for value, smoothed in zip(found.mean, found.smoothed, strict=True):
            average = 0.6 * average + 0.4 * value
            assert smoothed == pytest.approx(average)
        assert found.accuracy == float((net(x).argmax(dim=1) == y).double().mean())

    def test_sufficient_is_where_it_stays_below(self, net, data):
        found = loss_difference_curve(net, *data, smoothing=0.5)
        size = found.sufficient(0.02).size
        assert (found.smoothed[found.k >= size] <= 0.02).all()
        assert found.smoothed[found.k == size - 1][0] > 0.02
        assert found.sufficient(1e-9).size is None

    @pytest.mark.parametrize("make", [torch.as_tensor, np.asarray, lambda part: pd.DataFrame(part.numpy()).squeeze()])
    def test_takes_tensors_arrays_and_frames_and_leaves_the_network_alone(self, net, data, make):
        net = torch.nn.Sequential(net, torch.nn.Dropout(0.5))
        net.train()
        found = loss_difference_curve(net, *(make(part) for part in data))
        np.testing.assert_allclose(found.losses, loss_difference_curve(net[0], *data).losses, rtol=1e-5)
        assert net.training
        assert net[1].training

    def test_losses_of_real_targets_and_of_ones_own(self, net, data):
        x, real = data[0], torch.randn(24, 3).double()
        squares = ((net(x) - real) ** 2).sum(dim=1).detach()
        np.testing.assert_allclose(loss_difference_curve(net, x, real).losses, squares, rtol=1e-12)
        found = loss_difference_curve(net, x, real, loss=lambda z, t: (z - t).abs().sum(dim=1))
        np.testing.assert_allclose(found.losses, (net(x) - real).abs().sum(dim=1).detach(), rtol=1e-12)
        one = torch.nn.Linear(4, 1).double()
        expected = (one(x)[:, 0] - real[:, 0]).square().detach()
        np.testing.assert_allclose(loss_difference_curve(one, x, real[:, 0]).losses, expected, rtol=1e-12)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"permutations": 1}, "permutations: 1"),
            ({"smoothing": 1.0}, "smoothing: 1.0"),
            ({"model": "net"}, "model: a str"),
            ({"y": torch.arange(24)}, r"returned \(2, 3\).*at least 24"),
            ({"x": torch.full((24, 4), math.nan).double()}, "x is not finite for 24 of 24"),
            ({"y": torch.zeros(5)}, "24 objects x and 5 targets y"),
            ({"loss": "huber"}, "'huber'"),
        ],
    )
    def test_what_cannot_be_is_said(self, net, data, change, said):
        given = {"model": net, "x": data[0], "y": data[1], **change}
        with pytest.raises(BadInput, match=said):
            loss_difference_curve(given.pop("model"), given.pop("x"), given.pop("y"), **given)


def test_landscape_measure_is_that_of_plain_hessians(net, data):
    each = hessians(net, *data)
    norms = torch.linalg.matrix_norm(each - each.mean(dim=0), 2)
    found = landscape_measure(net, *data, objects=None, tolerance=1e-6)
    assert found.mean == pytest.approx(float(norms.mean()), rel=1e-5)
    assert found.standard_error == 0
    some = landscape_measure(net, *data, objects=6, seed=2, tolerance=1e-6)
    np.testing.assert_allclose(some.norms, norms[some.sampled], rtol=1e-5)
    assert len(some.norms) == 6
    assert not torch.equal(some.sampled, landscape_measure(net, *data, objects=6, seed=3).sampled)


def test_spectrum_is_that_of_a_plain_hessian(net, data):
    values = torch.linalg.eigvalsh(hessians(net, *data).mean(dim=0))
    found = hessian_spectrum(net, *data, top=4, probes=20, steps=51, tolerance=1e-6)
    np.testing.assert_allclose(found.eigenvalues, values.flip(0)[:4], rtol=1e-5)
    assert found.smallest == pytest.approx(float(values[0]), abs=1e-6)
    assert found.norm == pytest.approx(float(values.abs().max()), rel=1e-5)
    assert (found.parameters, found.objects, found.steps) == (51, 24, 51)
    assert (found.residuals < 1e-5).all()
    assert trapezoid(found.density, found.grid) == pytest.approx(1, abs=1e-3)
    mean = trapezoid(found.density * found.grid, found.grid) * 51
    assert mean == pytest.approx(float(values.sum()), rel=0.3)
    assert found.gradient_step(2.0) == pytest.approx(2 / found.norm)


def test_density_takes_fewer_steps_or_is_left_out_where_there_is_no_room(net, data, monkeypatch):
    monkeypatch.setattr(api, "BASIS_CAP", 51 * 8 * 7)
    assert hessian_spectrum(net, *data, top=1).steps == 7
    monkeypatch.setattr(api, "BASIS_CAP", 51 * 8)
    found = hessian_spectrum(net, *data, top=1)
    assert (found.steps, len(found.density)) == (0, 0)
    assert found.norm > 0


def test_density_is_the_same_whether_probes_go_together_or_not(net, data, monkeypatch):
    from landscape_cli.curvature import spectrum

    whole = hessian_spectrum(net, *data, top=1, probes=5, steps=10)
    monkeypatch.setattr(spectrum, "BASIS_CAP", 2 * 10 * 51 * 8)
    parts = hessian_spectrum(net, *data, top=1, probes=5, steps=10)
    np.testing.assert_allclose(parts.density, whole.density, atol=1e-9)


class TestSampleSize:
    def test_is_what_the_experiments_functions_give(self):
        from landscape_cli.rng import numpy_generator
        from landscape_cli.samplesize.design import standardised
        from landscape_cli.samplesize.methods import curves, sizes_of_tests
        from landscape_cli.samplesize.resamples import size_grid
        from landscape_cli.samplesize.rules import AS_DEFINED, METHODS, TESTS, Thresholds, sufficient

        random = np.random.default_rng(1)
        X = random.normal(size=(90, 3)) * [1, 5, 0.1] + 7
        y = X @ [1.0, 0.1, 3.0] + random.normal(size=90)
        found = sufficient_sample_size(pd.DataFrame(X, columns=list("abc")), pd.Series(y), resamples=10)
        assert list(found.sizes) == list(METHODS)
        X32, y32 = X.astype(np.float32), y.astype(np.float32)
        design = standardised(X32, y32, "regression")
        sizes = size_grid(design, 5)
        own = curves(design, METHODS, AS_DEFINED, Thresholds(), sizes, 10, numpy_generator(0, "resamples"))
        expected = sizes_of_tests(design, AS_DEFINED, Thresholds()) | {
            name: sufficient(curve) for name, curve in own.items() if name not in TESTS
        }
        assert {name: answer.size for name, answer in found.sizes.items()} == {
            name: expected[name].size for name in METHODS
        }
        frame = found.frame()
        assert len(frame) == 13
        assert frame["m_star"].isna().tolist() == [answer.size is None for answer in found.sizes.values()]

    def test_posterior_variance_against_its_closed_form(self):
        random = np.random.default_rng(2)
        X = random.normal(size=(300, 4))
        found = sufficient_sample_size(X, X[:, 0] + random.normal(size=300), methods=["apvc"], resamples=40)
        curve = found.curves["apvc"]
        # With standardised features the posterior covariance of m objects is nearly I/m: its trace is n/m.
        np.testing.assert_allclose(curve.values[-1], 5 / 300, rtol=0.05)

    def test_two_classes_by_any_name(self):
        random = np.random.default_rng(3)
        X = random.normal(size=(80, 2))
        y = np.where(X[:, 0] + random.normal(size=80) > 0, "yes", "no")
        found = sufficient_sample_size(X, y, methods=["wald", "alc"], resamples=5)
        assert (found.task, found.available) == ("classification", 80)
        given = {"methods": ["wald", "alc"], "resamples": 5}
        again = sufficient_sample_size(X, (y == "yes").astype(float), task="classification", **given)
        assert found.sizes == again.sizes

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"methods": ["apcv"]}, "did you mean 'apvc'"),
            ({"task": "ranking"}, "ranking"),
            ({"resamples": 1}, "resamples: 1"),
            ({"X": np.ones((40, 2))}, "constant"),
            ({"y": np.zeros(7)}, r"\(7,\)"),
        ],
    )
    def test_what_cannot_be_is_said(self, change, said):
        given = {"X": np.random.default_rng(0).normal(size=(40, 2)), "y": np.arange(40.0), **change}
        with pytest.raises(BadInput, match=said):
            sufficient_sample_size(given.pop("X"), given.pop("y"), **given)


class TestBound:
    def test_theorem_8_by_hand(self):
        gauss_newton, hessian = bound("8", layers=3, max_input=2.0, max_weight=0.5)
        assert gauss_newton.corrected == pytest.approx(0.5 * 3 * 4 * 0.5**4)
        assert hessian.corrected == pytest.approx(gauss_newton.corrected + math.sqrt(2) * 2 * 2 * 0.5)
        printed = math.sqrt(2) * (3 * 4 * 0.5**6 + 0.25 + 0.5**4 + 0.5**6)
        assert hessian.printed == pytest.approx(printed)

    def test_of_differences_by_hand(self):
        (found,) = bound("4", k=9, max_loss=2.0, max_hessian=3.0, radius=0.5)
        assert (found.printed, found.corrected) == (pytest.approx(0.2 * 2.75), pytest.approx(0.1 * 2.75))

    @pytest.mark.parametrize("theorem", ["8", "9", "11"])
    def test_of_a_network_holds_for_its_hessians(self, theorem):
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 5, bias=False), torch.nn.ReLU(), torch.nn.Linear(5, 3, bias=False)]
        net, x, y = torch.nn.Sequential(*layers).double(), torch.randn(6, 4).double(), torch.randint(3, (6,))
        norms = torch.linalg.matrix_norm(hessians(net, x, y), 2)
        _, found = bound(theorem, net, x)
        assert (norms <= found.tight).all()
        assert (found.tight <= found.corrected + 1e-9).all()

    def test_of_convolutions(self):
        torch.manual_seed(0)
        planes = [torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.ReLU(), torch.nn.Conv2d(2, 3, 2, bias=False)]
        net = torch.nn.Sequential(*planes, torch.nn.Flatten())
        x = torch.randn(4, 1, 4, 4)
        assert [found.theorem for found in bound("13", net, x)] == ["13", "13"]
        lines = [torch.nn.Conv1d(2, 2, 3, bias=False), torch.nn.ReLU(), torch.nn.Conv1d(2, 3, 2, bias=False)]
        line = torch.nn.Sequential(*lines, torch.nn.Flatten())
        assert bound("12", line, torch.randn(4, 2, 5))[0].tight.shape == (4,)

    def test_of_attention(self):
        from landscape_cli.bounds.attention import of_attention

        torch.manual_seed(0)
        weights = {"Q": torch.randn(4, 2), "K": torch.randn(4, 2), "V": torch.randn(4, 4)}
        x, target = torch.randn(3, 4), torch.randn(3, 4)
        (found,) = bound("17", weights, x, target)
        assert found.printed == of_attention(weights, x, target).printed
        matrices = {**weights, "x": x, "t": target}
        norms = {name: float(torch.linalg.matrix_norm(matrix, 2)) for name, matrix in matrices.items()}
        numbers = {"x": norms["x"], "query": norms["Q"], "key": norms["K"], "value": norms["V"], "target": norms["t"]}
        (again,) = bound("17", tokens=3, width=4, key_width=2, **numbers)
        assert again.corrected == pytest.approx(float(found.corrected), rel=1e-5)

    @pytest.mark.parametrize(
        ("arguments", "numbers", "said"),
        [
            (("10",), {}, "theorem: '10'; allowed: 4, 5"),
            (("8",), {"layers": 2, "max_input": 1.0}, "max_weight: needed by Theorem 8"),
            (("8",), {"layers": 2, "depth": 1.0}, "depth: unknown by Theorem 8, which takes layers"),
            (("13",), {"layers": 2, "norm": 1.0, "channels": 1, "kernel": 3, "size": (4,), "max_entry": 1.0}, "size"),
            (("8", torch.nn.Linear(2, 2)), {}, "x: None"),
            (("8", torch.nn.Linear(2, 2), torch.ones(1, 2)), {}, "Sequential"),
            (("4", torch.nn.Sequential(), torch.ones(1, 2)), {}, "takes numbers"),
            (("8", torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.ones(1, 2)), {"layers": 2}, "layers: numbers and"),
        ],
    )
    def test_what_cannot_be_is_said(self, arguments, numbers, said):
        with pytest.raises(BadInput, match=said):
            bound(*arguments, **numbers)
