import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from landscape_cli.descent import descend, distance, settle
from landscape_cli.errors import MeasurementFailed
from landscape_cli.models.mlp import MLP
from landscape_cli.rng import generator
from landscape_cli.training import fit

SEEDS = (0, 3, 4, 7, 11)
OBJECTS, BATCH, EPOCHS = 70, 16, 4  # the last of five minibatches has 6 objects
BIASES = pytest.mark.parametrize("bias", [False, True])
FLOAT32_ROUNDING = 2e-5  # in a parameter of order 0.1, after 20 steps of 1e-2
SETTINGS = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 1e-2, "stream": "point"}


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(5)
    y = torch.randint(3, (OBJECTS,), generator=draw)
    x = torch.randn(OBJECTS, 1, 3, 4, generator=draw)
    x[:, 0, 0, :3] += 2 * torch.nn.functional.one_hot(y, 3)
    return x, y


def network(bias=False):
    return MLP(in_features=12, classes=3, hidden_size=8, num_layers=2, bias=bias)


def mean_losses(model, parameters, x, y):
    seeds = len(next(iter(parameters.values())))
    return [cross_entropy(model.module(parameters, s)(x.flatten(1)), y).item() for s in range(seeds)]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def differ(first, second):
    return all(bool((first[name] != second[name]).any()) for name in first)


@BIASES
def test_each_seed_trains_as_it_would_alone(data, bias):
    model = network(bias)
    together = fit(model, *data, seeds=SEEDS, **SETTINGS)
    for s, seed in enumerate(SEEDS):
        alone = fit(model, *data, seeds=[seed], **SETTINGS)
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name][s], tensor[0], rtol=0, atol=FLOAT32_ROUNDING)


@BIASES
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32_ROUNDING), (torch.float64, 1e-11)])
def test_equals_a_plain_loop(data, bias, dtype, tolerance):
    (x, y), model, seed = data, network(bias), 3
    x = x.to(dtype)
    start = model.initialise([generator(seed, "initialisation", "point")])
    start = {name: tensor.to(dtype) for name, tensor in start.items()}
    net = model.module(start, 0)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    orders = generator(seed, "minibatches", "point")
    for _ in range(EPOCHS):
        order = torch.randperm(OBJECTS, generator=orders)
        for begin in range(0, OBJECTS, BATCH):
            index = order[begin : begin + BATCH]
            optimiser.zero_grad()
            cross_entropy(net(x[index].flatten(1)), y[index]).backward()
            optimiser.step()
    given = {"start": start} if dtype == torch.float64 else {}
    trained = fit(model, x, y, seeds=[seed], **given, **SETTINGS)
    for name, expected in net.named_parameters():
        assert (expected - start[name][0]).abs().max() > 0.01
        torch.testing.assert_close(trained[name][0], expected.detach(), rtol=0, atol=tolerance)


def test_every_object_is_used_once_an_epoch_and_each_seed_has_its_own_order(data):
    x, y = torch.arange(OBJECTS, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 3, 4), data[1]
    seen = []

    class Recorder(MLP):
        def gradients(self, parameters, x, y):
            seen.append((x[:, :, 0, 0, 0].long(), y.clone()))
            return super().gradients(parameters, x * 0, y)

    fit(Recorder(12, 3, 8, 2), x, y, seeds=SEEDS, **SETTINGS)
    assert [index.shape for index, _ in seen] == [(5, 16), (5, 16), (5, 16), (5, 16), (5, 6)] * EPOCHS
    orders = torch.cat([index for index, _ in seen], dim=1).view(len(SEEDS), EPOCHS, OBJECTS)
    assert torch.equal(orders.sort(dim=2).values, torch.arange(OBJECTS).expand(len(SEEDS), EPOCHS, -1))
    assert len({tuple(order.tolist()) for order in orders.flatten(0, 1)}) == len(SEEDS) * EPOCHS
    for index, labels in seen:
        assert torch.equal(labels, y[index])


@BIASES
def test_loss_decreases_for_every_seed(data, bias):
    model = network(bias)
    before = fit(model, *data, seeds=SEEDS, **SETTINGS | {"epochs": 0})
    after = fit(model, *data, seeds=SEEDS, **SETTINGS | {"epochs": 20})
    for first, last in zip(mean_losses(model, before, *data), mean_losses(model, after, *data), strict=True):
        assert last < 0.6 * first


def test_no_epochs_return_the_initialisation(data):
    model = network()
    expected = model.initialise([generator(seed, "initialisation", "point") for seed in SEEDS])
    assert_same(fit(model, *data, seeds=SEEDS, **SETTINGS | {"epochs": 0}), expected)


def test_start_is_where_training_starts_and_is_left_alone(data):
    model = network()
    start = model.initialise([generator(seed, "elsewhere") for seed in SEEDS])
    kept = {name: tensor.clone() for name, tensor in start.items()}
    assert_same(fit(model, *data, seeds=SEEDS, start=start, **SETTINGS | {"epochs": 0}), start)
    moved = fit(model, *data, seeds=SEEDS, start=start, **SETTINGS)
    assert differ(moved, start)
    assert differ(moved, fit(model, *data, seeds=SEEDS, **SETTINGS))
    assert_same(start, kept)


def test_only_the_rows_given_count(data):
    (x, y), model = data, network()
    rows = torch.stack([torch.randperm(OBJECTS // 2, generator=generator(s, "rows"))[:20] for s in range(5)])
    first = fit(model, x, y, seeds=SEEDS, rows=rows, **SETTINGS)
    other_x, other_y = x.clone(), y.clone()
    other_x[OBJECTS // 2 :] = 1e3
    other_y[OBJECTS // 2 :] = 0
    assert_same(fit(model, other_x, other_y, seeds=SEEDS, rows=rows, **SETTINGS), first)
    other_x[rows[2, 0]] += 1
    changed = fit(model, other_x, other_y, seeds=SEEDS, rows=rows, **SETTINGS)
    for s in range(5):
        same = all(torch.equal(changed[name][s], first[name][s]) for name in first)
        assert same == (rows[2, 0] not in rows[s])


def test_rows_are_a_smaller_data_set(data):
    (x, y), model = data, network()
    rows = torch.randperm(OBJECTS, generator=generator(0, "rows"))[:20]
    alone = fit(model, x[rows], y[rows], seeds=[4], **SETTINGS)
    assert_same(fit(model, x, y, seeds=[4], rows=rows[None], **SETTINGS), alone)


def test_the_same_again_and_different_otherwise(data):
    model = network()
    first = fit(model, *data, seeds=[0], **SETTINGS)
    torch.manual_seed(99)
    assert_same(fit(model, *data, seeds=[0], **SETTINGS), first)
    assert differ(fit(model, *data, seeds=[1], **SETTINGS), first)
    assert differ(fit(model, *data, seeds=[0], **SETTINGS | {"stream": "other"}), first)


def test_progress_is_shown_over_epochs(data):
    calls = []

    def progress(epochs, desc):
        calls.append((list(epochs), desc))
        return epochs

    model = network()
    assert_same(fit(model, *data, seeds=[0], progress=progress, **SETTINGS), fit(model, *data, seeds=[0], **SETTINGS))
    assert calls == [([0, 1, 2, 3], "epochs")]


def test_no_gradients_are_left(data):
    for tensor in fit(network(), *data, seeds=[0], **SETTINGS).values():
        assert tensor.grad is None
        assert not tensor.requires_grad


def test_divergence_is_reported(data):
    with pytest.raises(MeasurementFailed, match=r"seeds \[.*learning_rate"):
        fit(network(), *data, seeds=SEEDS, **SETTINGS | {"learning_rate": 1e38})


def test_divergence_names_the_seed_and_no_other(data):
    model = network()
    start = model.initialise([generator(seed, "initialisation") for seed in SEEDS])
    start["2.weight"][3, 0, 0] = torch.inf
    with pytest.raises(MeasurementFailed, match=r"seeds \[7\];"):
        fit(model, *data, seeds=SEEDS, start=start, **SETTINGS)


def own_objects(model, seeds=3):
    """Float64 parameters and 20 objects a seed."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(seeds, 20, 12, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (seeds, 20), generator=draw)
    start = model.initialise([generator(s, "test") for s in range(seeds)])
    return {name: tensor.double() for name, tensor in start.items()}, x, y


def own_losses(model, parameters, x, y):
    return np.array([cross_entropy(model.module(parameters, s)(x[s]), y[s]).item() for s in range(len(y))])


def slices(parameters, s):
    return {name: tensor[s : s + 1] for name, tensor in parameters.items()}


def step(net, x, y, rate):
    gradients = torch.autograd.grad(cross_entropy(net(x), y), list(net.parameters()))
    with torch.no_grad():
        for tensor, gradient in zip(net.parameters(), gradients, strict=True):
            tensor -= rate * gradient


@BIASES
def test_descend_is_gradient_descent_by_autograd(bias):
    model, steps, rates = network(bias), 5, [0.3, 0.05, 0.8]
    start, x, y = own_objects(model)
    kept = {name: tensor.clone() for name, tensor in start.items()}
    end = descend(model, start, x, y, steps=steps, rates=torch.tensor(rates, dtype=torch.float64))
    assert_same(start, kept)
    for s, rate in enumerate(rates):
        net = model.module(start, s)
        for _ in range(steps):
            step(net, x[s], y[s], rate)
        for name, expected in net.named_parameters():
            torch.testing.assert_close(end[name][s], expected.detach(), rtol=0, atol=1e-12)


def test_descend_with_own_rates_is_each_seed_alone():
    model, rates = network(), torch.tensor([0.3, 0.05, 0.8], dtype=torch.float64)
    start, x, y = own_objects(model)
    together = descend(model, start, x, y, steps=5, rates=rates)
    for s in range(3):
        one = slice(s, s + 1)
        alone = descend(model, slices(start, s), x[one], y[one], steps=5, rates=rates[one])
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name][one], tensor, rtol=0, atol=1e-12)


def test_settle_takes_no_step_that_is_too_large_and_halves_that_rate_alone():
    model, rate = network(), 0.125
    start, x, y = own_objects(model)
    x[1] *= 1e3
    before, stepped = own_losses(model, start, x, y), []
    for s in range(3):
        net = model.module(start, s)
        step(net, x[s], y[s], rate)
        stepped.append(cross_entropy(net(x[s]), y[s]).item())
    assert (np.array(stepped) > before).tolist() == [False, True, False]
    end, rates = settle(model, start, x, y, steps=1, learning_rate=rate)
    assert rates.tolist() == [rate / 2, rate / 4, rate / 2]
    for name, tensor in start.items():
        assert [torch.equal(end[name][s], tensor[s]) for s in range(3)] == [False, True, False]


@pytest.mark.parametrize("rate", [1e30, 3e38])
def test_settle_takes_no_step_to_values_that_are_not_finite(data, rate):
    (x, y), model = data, network(bias=True)
    start = model.initialise([generator(0, "test")])
    end, rates = settle(model, start, x[None], y[None], steps=3, learning_rate=rate)
    assert_same(end, start)
    assert rates.tolist() == pytest.approx([rate / 16], rel=1e-6)


def test_settle_without_steps_returns_the_start_and_half_the_rate():
    model = network()
    start, x, y = own_objects(model)
    end, rates = settle(model, start, x, y, steps=0, learning_rate=0.5)
    assert_same(end, start)
    assert rates.tolist() == [0.25] * 3


@BIASES
def test_settle_is_gradient_descent_where_every_step_is_taken(bias):
    model, steps, first = network(bias), 6, 0.0625
    start, x, y = own_objects(model)
    kept = {name: tensor.clone() for name, tensor in start.items()}
    end, rates = settle(model, start, x, y, steps=steps, learning_rate=first)
    assert_same(start, kept)
    assert rates.tolist() == [first / 2] * 3
    for s in range(3):
        net, loss = model.module(start, s), np.inf
        for _ in range(steps):
            before, loss = loss, cross_entropy(net(x[s]), y[s]).item()
            assert loss < before  # every step is accepted
            step(net, x[s], y[s], first)
        for name, expected in net.named_parameters():
            assert (expected - start[name][s]).abs().max() > 1e-3
            torch.testing.assert_close(end[name][s], expected.detach(), rtol=0, atol=1e-12)


def test_settle_treats_each_seed_as_if_it_were_alone():
    model = network()
    start, x, y = own_objects(model)
    x *= torch.tensor([1, 5, 30]).view(-1, 1, 1)
    together, rates = settle(model, start, x, y, steps=15, learning_rate=2.0)
    assert len(set(rates.tolist())) == 3
    for s in range(3):
        one = slice(s, s + 1)
        alone, rate = settle(model, slices(start, s), x[one], y[one], steps=15, learning_rate=2.0)
        assert rate.item() == rates[s].item()
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name][one], tensor, rtol=0, atol=1e-10)


def test_descend_reports_divergence(data):
    (x, y), model = data, network(bias=True)
    start = model.initialise([generator(0, "test")])
    with pytest.raises(MeasurementFailed, match=r"learning rates up to 1e\+30"):
        descend(model, start, x[None], y[None], steps=20, rates=torch.tensor([1e30]))


def settled_by_hand(net, x, y, steps, largest):
    """The same in plain autograd, one seed: take a step if the loss does not grow, else halve the rate."""
    rate, losses = largest, [cross_entropy(net(x), y).item()]
    for _ in range(steps):
        gradients = torch.autograd.grad(cross_entropy(net(x), y), list(net.parameters()))
        before = [tensor.detach().clone() for tensor in net.parameters()]
        with torch.no_grad():
            for tensor, gradient in zip(net.parameters(), gradients, strict=True):
                tensor -= rate * gradient
            reached = cross_entropy(net(x), y).item()
            if reached <= losses[-1]:
                losses.append(reached)
                rate = min(rate * 1.1, largest)
            else:
                rate /= 2
                for tensor, kept in zip(net.parameters(), before, strict=True):
                    tensor.copy_(kept)
    return rate, losses


@BIASES
@pytest.mark.parametrize("largest", [0.1, 50.0])
def test_settle_never_goes_up_and_finds_each_seeds_rate(bias, largest):
    model, seeds, steps = network(bias), 3, 25
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(seeds, 20, 12, generator=draw, dtype=torch.float64)
    y = torch.randint(3, (seeds, 20), generator=draw)
    start = {n: t.double() for n, t in model.initialise([generator(s, "test") for s in range(seeds)]).items()}
    kept = {name: tensor.clone() for name, tensor in start.items()}
    end, rates = settle(model, start, x, y, steps=steps, learning_rate=largest)
    assert_same(start, kept)
    assert rates.shape == (seeds,)
    for s in range(seeds):
        net = model.module(start, s)
        rate, losses = settled_by_hand(net, x[s], y[s], steps, largest)
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0]
        assert float(rates[s]) == pytest.approx(rate / 2, rel=1e-12)
        for name, expected in net.named_parameters():
            torch.testing.assert_close(end[name][s], expected.detach(), rtol=0, atol=1e-10)
    halved = largest == 50
    assert bool((rates < largest / 2).any()) == halved


def test_settle_takes_no_step_that_is_too_large():
    model = network(bias=True)
    x = torch.randn(1, 20, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(20)[None] % 3
    start = {n: t.double() for n, t in model.initialise([generator(0, "test")]).items()}
    end, rates = settle(model, start, x, y, steps=3, learning_rate=1e9)
    assert_same(end, start)
    assert rates.item() == 1e9 / 2**4


def test_distance_is_of_the_whole_parameter_vector():
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (2, 3, 4), "0.bias": (2, 3), "2.weight": (2, 5, 3)}
    first, second = ({name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(2))
    vectors = [np.concatenate([part[name].reshape(2, -1) for name in shapes], axis=1) for part in (first, second)]
    tensors = [{name: torch.from_numpy(part[name]) for name in shapes} for part in (first, second)]
    found = distance(*tensors)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, np.linalg.norm(vectors[0] - vectors[1], axis=1), rtol=1e-14)


def test_distance_of_float32_parameters_is_summed_in_float64():
    first = {"a": torch.full((1, 10**6), 1.0)}
    second = {"a": torch.full((1, 10**6), 1 + 2**-20)}
    assert distance(first, second).item() == pytest.approx(2**-20 * 1e3, rel=1e-12)
