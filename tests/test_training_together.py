"""Several networks trained in one pass or side by side: each as it would be alone, to the bit."""

import copy
import itertools
import threading

import pytest
import torch
from torch.nn.functional import cross_entropy

from landscape_cli import parallel
from landscape_cli.errors import MeasurementFailed
from landscape_cli.models.depth_stack import DepthStack
from landscape_cli.models.mlp import MLP, FeedForward
from landscape_cli.rng import generator
from landscape_cli.training import Trainer, fit
from landscape_cli.training_together import SIDE_BY_SIDE, fit_together

FEATURES, CLASSES, SEEDS, OBJECTS, EPOCHS = 6, 4, (0, 5, 7), 50, 3
PLAIN = {"batch_size": 16, "learning_rate": 1e-2}  # 50 objects: the last minibatch has two
DECAYED = {**PLAIN, "weight_decay": 0.3, "schedule": "cosine", "warmup": 0.25}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_workers():
    parallel.use_workers(2)
    yield
    parallel.use_workers(1)


@pytest.fixture
def data():
    return objects((FEATURES,))


def objects(shape, classes=CLASSES):
    draw = torch.Generator().manual_seed(3)
    return torch.randn(OBJECTS, *shape, generator=draw), torch.randint(classes, (OBJECTS,), generator=draw)


def networks(features=FEATURES, classes=CLASSES):
    """Two widths in several depths, one depth twice, and all that goes alone."""
    return [
        MLP(features, classes, 8, 2),
        MLP(features, classes, 16, 1),
        MLP(features, classes, 8, 0),
        FeedForward(features, classes, []),
        MLP(features, classes, 8, 4),
        MLP(features, classes, 8, 2, bias=True),
        MLP(features, classes, 16, 0),
        MLP(features, classes, 8, 2),
        FeedForward(features, classes, [8, 16]),
        MLP(features, classes, 16, 3),
        FeedForward(features, classes, [8, 8], activation="tanh"),
        MLP(features, classes, 8, 1),
    ]


def names_of(models):
    return [f"network {number}" for number in range(len(models))]


def assert_as_alone(models, x, y, streams=None, **options):
    """Every network is, to the bit, what a training of its own gives."""
    streams = streams or names_of(models)
    found = fit_together(models, x, y, seeds=SEEDS, streams=streams, epochs=EPOCHS, **options)
    assert len(found) == len(models)
    for model, stream, own in zip(models, streams, found, strict=True):
        alone = fit(model, x, y, seeds=SEEDS, stream=stream, epochs=EPOCHS, **options)
        assert list(own) == list(alone)
        for name, tensor in alone.items():
            assert torch.equal(own[name], tensor), f"{stream}: {name}"
            assert own[name].is_contiguous()
    return found


@pytest.mark.parametrize("options", [PLAIN, DECAYED], ids=["plain", "decayed"])
@pytest.mark.parametrize("count", [1, 2, None], ids=lambda count: f"{count or 'all'} of a kind")
def test_each_is_as_it_would_be_alone(data, options, count):
    assert_as_alone(networks()[:count], *data, **options)


def test_in_any_order_of_the_list(data):
    models = networks()
    streams = names_of(models)
    expected = assert_as_alone(models, *data, streams, **PLAIN)
    for order in (list(reversed(range(len(models)))), torch.randperm(len(models)).tolist()):
        found = fit_together(
            [models[m] for m in order],
            *data,
            seeds=SEEDS,
            streams=[streams[m] for m in order],
            epochs=EPOCHS,
            **PLAIN,
        )
        for m, own in zip(order, found, strict=True):
            assert all(torch.equal(own[name], tensor) for name, tensor in expected[m].items()), streams[m]


@pytest.mark.parametrize("depths", [*itertools.permutations([0, 1, 3]), (0, 0), (1, 1), (2,)], ids=str)
def test_every_order_of_depths(data, depths):
    assert_as_alone([MLP(FEATURES, CLASSES, 8, depth) for depth in depths], *data, **DECAYED)


@pytest.mark.parametrize("width", [5, 6])
def test_widths_that_are_no_multiple_of_a_vector(width):
    x, y = objects((64,), classes=10)
    assert_as_alone([MLP(64, 10, width, depth) for depth in (1, 0, 3)], x, y, **PLAIN)


def test_equal_networks_are_told_apart_by_their_streams(data):
    first, second = fit_together(
        [MLP(FEATURES, CLASSES, 8, 1)] * 2, *data, seeds=SEEDS, streams=["a", "b"], epochs=1, **PLAIN
    )
    assert all((first[name] != second[name]).any() for name in first)


def test_real_targets(data):
    x, _ = data
    models = [MLP(FEATURES, 1, 16, depth) for depth in (1, 0, 2)]
    assert_as_alone(models, x, x @ torch.arange(FEATURES, dtype=torch.float32), **PLAIN)


@pytest.mark.parametrize("shape", [(1, 28, 28), (FEATURES,)], ids=["large", "small"])
def test_with_two_workers(two_workers, shape):
    x, y = objects(shape)
    models = networks(x[0].numel())
    assert (x[0].numel() >= SIDE_BY_SIDE) == (len(shape) == 3)
    assert_as_alone(models, x, y, **DECAYED)


def test_only_large_objects_are_worth_threads(two_workers, monkeypatch):
    threads = set()
    epoch = Trainer.epoch

    def noted(trainer, *given):
        threads.add(threading.current_thread())
        return epoch(trainer, *given)

    monkeypatch.setattr(Trainer, "epoch", noted)
    for features, here in ((SIDE_BY_SIDE - 1, True), (SIDE_BY_SIDE, False)):
        threads.clear()
        models = [MLP(features, CLASSES, 4, depth) for depth in (0, 1)]
        fit_together(models, *objects((features,)), seeds=SEEDS, streams=["a", "b"], epochs=1, **PLAIN)
        assert (threads == {threading.current_thread()}) == here


@pytest.mark.parametrize("depths", [(2,), (0,), (0, 0), (1, 0), (0, 3, 1, 3, 0)], ids=str)
def test_gradients_are_autograds(depths):
    models, seeds, batch = [MLP(4, CLASSES, 5, depth) for depth in depths], 2, 7
    draw = torch.Generator().manual_seed(1)
    parameters = [
        {
            name: 2 * tensor.double()
            for name, tensor in model.initialise([generator(seed, "test", str(m)) for seed in range(seeds)]).items()
        }
        for m, model in enumerate(models)
    ]
    stack = DepthStack(models, seeds)
    x = torch.randn(len(models) * seeds, batch, 2, 2, generator=draw, dtype=torch.float64)
    y = torch.randint(CLASSES, (len(models) * seeds, batch), generator=draw)
    found = stack.unpack(stack.gradients(stack.pack(parameters), x, y))
    for place, m in enumerate(stack.order):
        for seed in range(seeds):
            net = models[m].module(parameters[m], seed)
            own = place * seeds + seed
            loss = cross_entropy(net(x[own]), y[own])
            for name, gradient in zip(parameters[m], torch.autograd.grad(loss, list(net.parameters())), strict=True):
                assert gradient.abs().max() > 1e-6
                torch.testing.assert_close(found[m][name][seed], gradient, rtol=1e-11, atol=1e-14)


def test_unpacking_is_the_inverse_of_packing():
    models = [MLP(4, CLASSES, 5, depth) for depth in (1, 3, 0, 3, 2)]
    parameters = [
        model.initialise([generator(seed, "test", str(m)) for seed in range(2)]) for m, model in enumerate(models)
    ]
    stack = DepthStack(models, 2)
    packed = stack.pack(parameters)
    assert {name: len(tensor) for name, tensor in packed.items()} == {"first": 10, "0": 8, "1": 6, "2": 4, "last": 10}
    for own, expected in zip(stack.unpack(packed), parameters, strict=True):
        assert list(own) == list(expected)
        assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())


def test_what_is_unpacked_is_its_own():
    models = [MLP(4, CLASSES, 5, depth) for depth in (1, 1)]
    stack = DepthStack(models, 2)
    packed = stack.pack([model.initialise([generator(seed, "test") for seed in range(2)]) for model in models])
    first, second = stack.unpack(packed)
    before = copy.deepcopy(second)
    for tensor in (*first.values(), *packed.values()):
        tensor.zero_()
    assert all(torch.equal(second[name], tensor) and tensor.any() for name, tensor in before.items())


@pytest.mark.parametrize(
    "model",
    [
        FeedForward(4, CLASSES, []),
        FeedForward(4, CLASSES, [8, 12]),
        FeedForward(4, CLASSES, [8, 12, 8]),
        FeedForward(4, CLASSES, [8], activation="tanh"),
        MLP(4, CLASSES, 8, 1, bias=True),
        MLP(4, CLASSES, 6, 1),
        torch.nn.Linear(4, 3),
    ],
    ids=["linear", "two widths", "a narrow layer", "tanh", "bias", "no whole vectors", "module"],
)
def test_other_kinds_are_not_stacked(model):
    assert DepthStack.key(model) is None


def test_networks_that_differ_in_more_than_depth_are_not_stacked_together():
    keys = [DepthStack.key(model) for model in (MLP(4, 6, 8, 1), MLP(6, 6, 8, 1), MLP(4, 4, 8, 1), MLP(4, 6, 16, 1))]
    assert None not in keys
    assert len(set(keys)) == 4
    assert {DepthStack.key(MLP(4, 6, 8, depth)) for depth in range(4)} == {keys[0]}
    assert DepthStack.key(FeedForward(4, 6, [8, 8])) == keys[0]


@pytest.mark.parametrize("broken", [0, 1, 2, 3])
def test_a_network_that_diverges_names_its_seeds(data, broken):
    """Three networks of one pass and one by itself; in one of them seeds 0 and 7 are lost."""
    models = [MLP(FEATURES, CLASSES, 8, depth) for depth in (0, 2, 1)] + [FeedForward(FEATURES, CLASSES, [])]
    draw = models[broken].initialise

    def infinite(generators):
        drawn = draw(generators)
        drawn["0.weight"][0::2] = float("inf")
        return drawn

    models[broken].initialise = infinite
    with pytest.raises(MeasurementFailed, match=r"diverged.*for seeds \[0, 7\]; try a smaller training.learning_rate"):
        fit_together(models, *data, seeds=SEEDS, streams=names_of(models), epochs=1, **PLAIN)


def test_the_operator_alone_is_the_optimisers_step(data):
    trainer = Trainer(MLP(FEATURES, CLASSES, 8, 1), *data, seeds=SEEDS, epochs=1, weight_decay=0.2, **PLAIN)
    own = list(trainer.parameters.values())
    others = [tensor.clone() for tensor in own]
    optimiser = torch.optim.AdamW(others, lr=PLAIN["learning_rate"], weight_decay=0.2, fused=True)
    draw = torch.Generator().manual_seed(2)
    for step in range(6):
        rate = 1e-2 / (1 + step)
        trainer._optimiser.param_groups[0]["lr"] = optimiser.param_groups[0]["lr"] = rate
        for tensor, other in zip(own, others, strict=True):
            tensor.grad = torch.randn(tensor.shape, generator=draw)
            other.grad = tensor.grad.clone()
        before = [tensor.clone() for tensor in own]
        with torch.no_grad():
            trainer._update()
        optimiser.step()
        for tensor, other, was in zip(own, others, before, strict=True):
            assert torch.equal(tensor, other), step
            assert (tensor != was).any()
            state, expected = trainer._optimiser.state[tensor], optimiser.state[other]
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[name], value) for name, value in expected.items())
            assert state["step"] == step + 1


def test_a_list_of_streams_is_one_a_seed(data):
    model = MLP(FEATURES, CLASSES, 8, 1)
    mixed = Trainer(model, *data, seeds=[4, 4, 9], stream=["a", "b", "a"], epochs=1, **PLAIN)
    mixed.epoch()
    for place, (seed, stream) in enumerate([(4, "a"), (4, "b"), (9, "a")]):
        alone = Trainer(model, *data, seeds=[seed], stream=stream, epochs=1, **PLAIN)
        alone.epoch()
        for name, tensor in alone.finish().items():
            torch.testing.assert_close(mixed.parameters[name][place], tensor[0], rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="shorter"):
        Trainer(model, *data, seeds=[4, 9], stream=["a"], epochs=1, **PLAIN)


class Bar:
    """Notes what is said to it, in whichever thread."""

    def __init__(self):
        self.announced, self.updates, self.closed = [], [], 0

    def __call__(self, *given, total, desc):
        assert not given
        self.announced.append(total)
        return self

    def update(self, by=1):
        assert not self.closed
        self.updates.append(by)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("shape", [(1, 28, 28), (FEATURES,)], ids=["large", "small"])
def test_progress_is_as_announced(two_workers, shape):
    x, y = objects(shape)
    models, bar = networks(x[0].numel()), Bar()
    fit_together(models, x, y, seeds=SEEDS, streams=names_of(models), epochs=EPOCHS, progress=bar, **PLAIN)
    assert bar.announced == [sum(bar.updates)]
    assert sum(bar.updates) >= 2 * EPOCHS
    assert bar.closed == 1


def test_progress_is_closed_after_an_error(data):
    models, bar = [MLP(FEATURES, CLASSES, 8, depth) for depth in (0, 1)], Bar()
    with pytest.raises(MeasurementFailed):
        fit_together(
            *(models, *data),
            **{**PLAIN, "learning_rate": 1e38, "seeds": SEEDS, "streams": ["a", "b"], "epochs": 2, "progress": bar},
        )
    assert bar.closed == 1


@pytest.mark.parametrize("streams", [["a"], ["a", "b", "c"]])
def test_a_stream_a_network(data, streams):
    models = [MLP(FEATURES, CLASSES, 8, depth) for depth in (0, 1)]
    with pytest.raises(ValueError, match="argument 2"):
        fit_together(models, *data, seeds=SEEDS, streams=streams, epochs=1, **PLAIN)
