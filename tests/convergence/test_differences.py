import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import lfilter

from landscape_cli.convergence import differences as module
from landscape_cli.convergence.differences import (
    DifferenceStream,
    closed_form,
    exponential_moving_average,
    loss_differences,
    mean_absolute_deviation,
)
from landscape_cli.rng import generator

SMOOTHINGS = pytest.mark.parametrize("smoothing", [0, 0.5, 0.9, 0.99, 0.999])


def skewed(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).lognormal(-1, 2, shape))


def exact_differences(row) -> list[Fraction]:
    """|L_{k+1} - L_k| as the difference of two running means, in whole numbers."""
    sums = list(itertools.accumulate(map(Fraction, row.tolist())))
    means = [total / k for k, total in enumerate(sums, start=1)]
    return [abs(after - before) for before, after in itertools.pairwise(means)]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_differences_are_those_of_the_running_means(offset):
    losses = skewed(3, 400) + offset
    found = DifferenceStream(3).update(losses)
    assert found.shape == (3, 399)
    for own, row in zip(found.tolist(), losses, strict=True):
        exact = exact_differences(row)
        worst = max(abs(Fraction(value) - true) for value, true in zip(own, exact, strict=True))
        assert worst <= 1e-12 * float(max(row))
        assert min(exact) >= 0


def test_differences_do_not_cancel():
    m = 20000
    losses = 1e4 + skewed(1, m)
    found = DifferenceStream(1).update(losses)[0].numpy()
    wide = losses[0].numpy().astype(np.longdouble)
    means = np.cumsum(wide) / np.arange(1, m + 1)
    exact = np.abs(wide[1:] - means[:-1]) / np.arange(2, m + 1)
    naive = np.abs(np.diff(np.cumsum(losses[0].numpy()) / np.arange(1, m + 1)))
    errors = {name: np.median((abs(d - exact) / exact)[m // 2 :]) for name, d in (("naive", naive), ("found", found))}
    assert errors["found"] < 1e-10
    assert errors["naive"] > 20 * errors["found"]


@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_any_size_are_one_block(seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(2, 200))
    losses = skewed(4, m, seed=seed)
    cuts = np.sort(rng.choice(np.arange(1, m), size=rng.integers(0, m), replace=False)).tolist()
    stream = DifferenceStream(4)
    pieces = [stream.update(losses[:, begin:end]) for begin, end in itertools.pairwise([0, *cuts, m])]
    assert [piece.shape[1] for piece in pieces[1:]] == np.diff([*cuts, m]).tolist()
    assert stream.count == m
    torch.testing.assert_close(stream.total[:, 0], losses.sum(dim=1), rtol=1e-12, atol=0)
    whole = DifferenceStream(4).update(losses)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-12)


def test_a_stream_leaves_its_input_alone():
    losses = skewed(2, 50)
    kept = losses.clone()
    stream = DifferenceStream(2)
    stream.update(losses[:, :20])
    stream.update(losses[:, 20:])
    assert torch.equal(losses, kept)


def naive_curves(losses, permutations, draw) -> np.ndarray:
    """|L_{k+1} - L_k| of each ordering, shape (P, m-1), by two loops."""
    m = len(losses)
    values = losses.tolist()
    curves = np.empty((permutations, m - 1))
    for p in range(permutations):
        order = torch.randperm(m, generator=draw).tolist()
        for k in range(1, m):
            before = np.longdouble(sum(values[i] for i in order[:k])) / k
            after = np.longdouble(sum(values[i] for i in order[: k + 1])) / (k + 1)
            curves[p, k - 1] = abs(after - before)
    return curves


@pytest.mark.parametrize(("m", "permutations"), [(2, 2), (3, 7), (60, 40)])
def test_loss_differences_are_a_double_loop(m, permutations):
    losses = skewed(m)
    expected = naive_curves(losses, permutations, generator(1, "orderings"))
    found = loss_differences(losses, permutations, generator(1, "orderings"))
    np.testing.assert_allclose(found.mean, expected.mean(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        found.standard_error, expected.std(axis=0, ddof=1) / permutations**0.5, rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("together", [1, 3, 7, 20, 1000])
@pytest.mark.parametrize("block", [1, 13, 4096])
def test_memory_limits_do_not_matter(monkeypatch, together, block):
    losses = skewed(100)
    whole = loss_differences(losses, 20, generator(1, "orderings"))
    monkeypatch.setattr(module, "BATCH_BYTES", together * 8 * len(losses))
    monkeypatch.setattr(module, "BLOCK", block)
    found = loss_differences(losses, 20, generator(1, "orderings"))
    torch.testing.assert_close(found.mean, whole.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.standard_error, whole.standard_error, rtol=0, atol=1e-12)


def test_one_ordering_at_a_time_when_memory_is_short(monkeypatch):
    losses = skewed(100)
    whole = loss_differences(losses, 5, generator(1, "orderings"))
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    found = loss_differences(losses, 5, generator(1, "orderings"))
    torch.testing.assert_close(found.mean, whole.mean, rtol=0, atol=1e-12)


def test_equal_losses_have_no_differences():
    found = loss_differences(torch.full((500,), 0.1, dtype=torch.float64), 10, generator(0, "orderings"))
    assert found.mean.max() < 1e-16
    assert found.standard_error.max() < 1e-16


@pytest.mark.parametrize(("m", "permutations"), [(0, 10), (1, 10), (10, 1)])
def test_too_few_objects_or_orderings_are_refused(m, permutations):
    with pytest.raises(ValueError, match=f"not {m} and {permutations}"):
        loss_differences(skewed(m), permutations, generator(0, "orderings"))


def expected_difference_of_two_values(m, ones, k) -> float:
    """E|L_{k+1} - L_k| when `ones` of the m losses are 1 and the others 0: L_k is hypergeometric."""
    drawn = np.arange(k + 1)
    probability = stats.hypergeom(m, ones, k).pmf(drawn)
    next_is_one = (ones - drawn) / (m - k)
    return float(probability @ (next_is_one * (1 - drawn / k) + (1 - next_is_one) * drawn / k)) / (k + 1)


def test_mean_over_orderings_is_the_exact_expectation():
    m, ones = 300, 60
    losses = torch.zeros(m, dtype=torch.float64)
    losses[:ones] = 1
    found = loss_differences(losses, 4000, generator(3, "orderings"))
    z = np.array(
        [
            (found.mean[k - 1] - expected_difference_of_two_values(m, ones, k)) / found.standard_error[k - 1]
            for k in range(1, m)
        ]
    )
    # Binomial bound at 1e-4 on the share beyond 3 of 299 standard normal values, and 4 deviations of their mean.
    assert (np.abs(z) > 3).sum() <= stats.binom.ppf(1 - 1e-4, m - 1, 2 * stats.norm.sf(3))
    assert abs(z.mean()) < 4 / (m - 1) ** 0.5
    assert 0.8 < z.std() < 1.2


def test_mean_over_orderings_tends_to_the_closed_form():
    # Of uniform losses |ℓ - L_m| is uniform, so that z has no skew; E|ℓ - L_k| is MAD (1 + 1/(3k)), within the bound.
    m, first = 3000, 100
    losses = torch.from_numpy(np.random.default_rng(0).uniform(size=m))
    found = loss_differences(losses, 400, generator(0, "orderings"))
    mad = np.abs(losses.numpy() - losses.numpy().mean()).mean()
    k = np.arange(1, m)
    z = ((found.mean.numpy() - mad / (k + 1)) / found.standard_error.numpy())[k >= first]
    assert (np.abs(z) > 3).sum() <= stats.binom.ppf(1 - 1e-4, len(z), 2 * stats.norm.sf(3))
    assert abs(z.mean()) < 4 / len(z) ** 0.5 + 0.02
    assert 0.9 < z.std() < 1.1


def test_mean_absolute_deviation_and_closed_form():
    losses = skewed(2, 3, 50)
    values = losses.numpy()
    mad = np.array([[np.mean([abs(v - row.mean()) for v in row]) for row in rows] for rows in values])
    np.testing.assert_allclose(mean_absolute_deviation(losses), mad, rtol=1e-12)
    found = closed_form(losses)
    assert found.shape == (2, 3, 49)
    for k in range(1, 50):
        np.testing.assert_allclose(found[..., k - 1], mad / (k + 1), rtol=1e-12)


def filtered(values, smoothing, before):
    """Direct-form filter of scipy: y_k = (1 - a) v_k + a y_{k-1}, y_0 = `before`."""
    shape = (*values.shape[:-1], 1)
    state = smoothing * np.broadcast_to(np.asarray(before), shape[:-1]).reshape(shape)
    return lfilter([1 - smoothing], [1, -smoothing], values, zi=state)[0]


@SMOOTHINGS
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 10000])
def test_moving_average_is_scipys_filter(smoothing, n):
    values = skewed(n).numpy()
    found = exponential_moving_average(torch.from_numpy(values), smoothing)
    assert found.shape == (n,)
    assert found[0].item() == pytest.approx(values[0], rel=1e-14)
    np.testing.assert_allclose(found, filtered(values, smoothing, values[0]), rtol=1e-12, atol=1e-12)


@SMOOTHINGS
def test_moving_average_of_a_batch(smoothing):
    values = skewed(2, 3, 600)
    found = exponential_moving_average(values, smoothing)
    assert found.shape == (2, 3, 600)
    expected = filtered(values.numpy(), smoothing, values[..., 0].numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@SMOOTHINGS
@pytest.mark.parametrize("cuts", [[1], [255], [256], [300, 301, 700]])
def test_moving_average_goes_on_where_it_stopped(smoothing, cuts):
    values, previous, pieces = skewed(2, 900), None, []
    for begin, end in itertools.pairwise([0, *cuts, 900]):
        pieces.append(exponential_moving_average(values[:, begin:end], smoothing, previous))
        previous = pieces[-1][:, -1]
    whole = exponential_moving_average(values, smoothing)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-12, atol=1e-12)


def test_moving_average_from_a_given_value():
    values = skewed(300)
    found = exponential_moving_average(values, 0.9, torch.tensor(5.0, dtype=torch.float64))
    np.testing.assert_allclose(found, filtered(values.numpy(), 0.9, 5.0), rtol=1e-12)


def test_moving_average_keeps_the_dtype_and_the_input():
    values = skewed(300).float()
    kept = values.clone()
    assert exponential_moving_average(values, 0.9).dtype == torch.float32
    assert torch.equal(values, kept)


@pytest.mark.parametrize("smoothing", [1, 1.5, -0.1, float("nan")])
def test_impossible_smoothing_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\)"):
        exponential_moving_average(skewed(3), smoothing)


@pytest.mark.parametrize(("k", "excess"), [(101, 20.5), (501, 3.10), (1001, 1.152), (5001, 1.0206)])
def test_start_up_of_the_moving_average(k, excess):
    # How far the figures' average (a = 0.99) lies above a curve 1/(k+1): once its sum over all earlier values, written
    # out, and once in numbers. Measured curves start higher, since E|ℓ_2 - ℓ_1| exceeds MAD.
    raw = 1 / torch.arange(2, 10001, dtype=torch.float64)
    found = (exponential_moving_average(raw, 0.99) / raw)[k - 1].item()
    weights = 0.01 * 0.99 ** np.arange(k)  # of v_k, v_{k-1}, … v_1
    weights[-1] = 0.99 ** (k - 1)
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert found == pytest.approx(weights @ (1 / np.arange(k + 1, 1, -1)) * (k + 1), rel=1e-12)
    assert found == pytest.approx(excess, rel=1e-2 if k < 1000 else 1e-3)
