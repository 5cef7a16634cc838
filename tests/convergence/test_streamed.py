"""Orderings that are never written down, and curves of one pass: as those of whole orderings in memory."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from landscape_cli import parallel
from landscape_cli.convergence import streamed as module
from landscape_cli.convergence.differences import exponential_moving_average, mean_absolute_deviation
from landscape_cli.convergence.streamed import Ordering, difference_curve, streamed_differences
from landscape_cli.rng import generator


def skewed(m, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).lognormal(-1, 2, m))


class TestOrdering:
    @pytest.mark.parametrize("m", [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 100, 127, 128, 129, 1000, 4097, 65537])
    def test_each_object_has_one_place(self, m):
        found = Ordering(m, generator(0, "orderings")).at(torch.arange(m))
        assert torch.equal(found.sort().values, torch.arange(m))

    def test_any_places_at_any_time(self):
        ordering = Ordering(1000, generator(0, "orderings"))
        whole = ordering.at(torch.arange(1000))
        places = torch.randint(1000, (7, 30))
        assert torch.equal(ordering.at(places), whole[places])

    def test_the_same_generator_gives_the_same_ordering(self):
        first, second, other = (Ordering(500, generator(seed, "orderings")).at(torch.arange(500)) for seed in (1, 1, 2))
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize("m", [-1, 0, 1])
    def test_too_few_objects_are_refused(self, m):
        with pytest.raises(ValueError, match=f"not {m}"):
            Ordering(m, generator(0, "orderings"))

    @pytest.mark.parametrize("m", [50, 64, 97])
    def test_every_object_comes_to_every_place_as_often(self, m):
        draw, trials = generator(3, "orderings"), 4000
        counts = np.zeros((m, m))
        for _ in range(trials):
            counts[np.arange(m), Ordering(m, draw).at(torch.arange(m)).numpy()] += 1
        # Rows and columns have fixed sums: (m - 1)² degrees of freedom.
        statistic = ((counts - trials / m) ** 2 / (trials / m)).sum()
        assert 1e-4 < stats.chi2.sf(statistic, (m - 1) ** 2) < 1 - 1e-4

    def test_pairs_of_neighbours_are_those_of_chance(self):
        """Objects at places 0 and 1, and 10 and 11, over many orderings: every ordered pair as often."""
        m, draw, trials = 40, generator(4, "orderings"), 20000
        for places in (torch.tensor([0, 1]), torch.tensor([10, 11])):
            counts = np.zeros((m, m))
            for _ in range(trials):
                first, second = Ordering(m, draw).at(places).tolist()
                counts[first, second] += 1
            assert np.diag(counts).sum() == 0
            observed = counts[~np.eye(m, dtype=bool)]
            assert stats.chisquare(observed).pvalue > 1e-4

    def test_inside_one_ordering_there_is_no_trend(self):
        m = 200_000
        found = Ordering(m, generator(5, "orderings")).at(torch.arange(m)).double()
        for lag in (1, 2, 256, 447, 448):
            product = torch.corrcoef(torch.stack([found[lag:], found[:-lag]]))[0, 1]
            assert abs(float(product)) < 4.5 / math.sqrt(m)


def in_memory(losses, permutations, draw, smoothing):
    """Mean and standard error of each difference, and the moving average, from orderings written down as a whole."""
    orders = [Ordering(len(losses), draw).at(torch.arange(len(losses))) for _ in range(permutations)]
    permuted = torch.stack([losses[order] for order in orders]).double().numpy()
    means = np.cumsum(permuted, axis=1) / np.arange(1, len(losses) + 1)
    differences = np.abs(np.diff(means, axis=1))
    mean = differences.mean(axis=0)
    average = [mean[0]]
    for value in mean[1:]:
        average.append(smoothing * average[-1] + (1 - smoothing) * value)
    return mean, differences.std(axis=0, ddof=1) / math.sqrt(permutations), np.array(average)


@pytest.mark.parametrize("block", [2, 7, 64, 10**6])
@pytest.mark.parametrize("m", [2, 3, 64, 65, 500])
def test_one_pass_is_the_whole(monkeypatch, block, m):
    monkeypatch.setattr(module, "BLOCK", block)
    losses, at = skewed(m), torch.arange(1, m)
    found = streamed_differences(losses, 5, generator(1, "orderings"), at, 0.9)
    mean, error, average = in_memory(losses, 5, generator(1, "orderings"), 0.9)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.standard_error, error, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.average, average, rtol=0, atol=1e-12)
    assert torch.equal(found.k, at)


def test_at_any_k_it_is_the_same(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 100)
    losses = skewed(3000)
    whole = streamed_differences(losses, 4, generator(1, "orderings"), torch.arange(1, 3000), 0.99)
    for at in ([], [1], [2999], [1, 99, 100, 101, 2999], list(range(5, 3000, 17))):
        place = torch.tensor(at, dtype=torch.int64) - 1
        found = streamed_differences(losses, 4, generator(1, "orderings"), place + 1, 0.99)
        for name in ("mean", "standard_error", "average"):
            torch.testing.assert_close(getattr(found, name), getattr(whole, name)[place], rtol=1e-12, atol=0)


def test_losses_in_a_file(tmp_path):
    losses = skewed(5000)
    losses.numpy().tofile(tmp_path / "losses")
    mapped = torch.from_file(str(tmp_path / "losses"), size=5000, dtype=torch.float64)
    at = torch.arange(1, 5000, 50)
    curves = [streamed_differences(each, 3, generator(2, "orderings"), at, 0.9) for each in (losses, mapped)]
    assert torch.equal(curves[0].average, curves[1].average)


def test_orderings_side_by_side_give_the_same(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    losses, at = skewed(1000), torch.arange(1, 1000, 7)
    alone = streamed_differences(losses, 5, generator(0, "orderings"), at, 0.9)
    parallel.use_workers(2)
    try:
        found = streamed_differences(losses, 5, generator(0, "orderings"), at, 0.9)
    finally:
        parallel.use_workers(1)
    assert torch.equal(found.mean, alone.mean)
    assert torch.equal(found.average, alone.average)


def test_it_follows_its_closed_form():
    losses = torch.rand(200_000, generator=generator(0, "losses"), dtype=torch.float64)
    at = torch.tensor([1000, 10_000, 199_999])
    found = streamed_differences(losses, 50, generator(0, "orderings"), at, 0.999)
    expected = mean_absolute_deviation(losses) / (at + 1)
    for value, error, own in zip(found.mean, found.standard_error, expected, strict=True):
        assert abs(float(value - own)) < 5 * float(error)


@pytest.mark.parametrize("at", [[0], [10], [3, 3], [4, 2]])
def test_impossible_k_are_refused(at):
    with pytest.raises(ValueError, match=r"ascend within 1 … 9"):
        streamed_differences(skewed(10), 2, generator(0, "orderings"), torch.tensor(at), 0.9)


@pytest.mark.parametrize(("m", "permutations"), [(0, 10), (1, 10), (10, 1)])
def test_too_few_are_refused(m, permutations):
    with pytest.raises(ValueError, match=f"not {m} and {permutations}"):
        streamed_differences(skewed(m), permutations, generator(0, "orderings"), torch.tensor([1]), 0.9)


def test_few_objects_take_whole_orderings_and_many_one_pass(monkeypatch):
    losses, at = skewed(300), torch.tensor([1, 50, 299])
    whole = module.loss_differences(losses, 6, generator(1, "orderings"))
    few = difference_curve(losses, 6, generator(1, "orderings"), at, 0.9)
    assert torch.equal(few.mean, whole.mean[at - 1])
    assert torch.equal(few.average, exponential_moving_average(whole.mean, 0.9)[at - 1])
    monkeypatch.setattr(module, "WHOLE", 299)
    many = difference_curve(losses, 6, generator(1, "orderings"), at, 0.9)
    assert torch.equal(many.mean, streamed_differences(losses, 6, generator(1, "orderings"), at, 0.9).mean)
