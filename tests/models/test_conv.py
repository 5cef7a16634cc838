import itertools
import math
from dataclasses import asdict

import pytest
import torch
from scipy import stats
from torch.nn import functional

from landscape_cli.config import ConvConfig
from landscape_cli.convergence.losses import object_losses
from landscape_cli.models.conv import ConvNet
from landscape_cli.rng import generator
from landscape_cli.training import fit

SEEDS, OBJECTS, CHANNELS, CLASSES, LAYERS = 3, 5, 4, 6, 3
TRAINING = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "stream": "point"}
SHAPE = (2, 13, 15)  # under each kernel one of the poolings drops a row and a column
KINDS = pytest.mark.parametrize("kind", ["conv1d", "conv2d"])
KERNELS = pytest.mark.parametrize("kernel_size", [1, 2, 3])
BIASES = pytest.mark.parametrize("bias", [False, True])
POOLINGS = pytest.mark.parametrize("pooling", ["max", "average"])
PLACES = pytest.mark.parametrize(
    "place", [{"pooling": pooling, "position": p} for pooling in ("max", "average") for p in range(LAYERS)], ids=str
)
OPTIONS = [  # and how many inputs: one for all seeds, or one each. Any two values occur together.
    ({"head": [], "bias": False, "relu_after_last": False}, 1),
    ({"head": [], "bias": True, "relu_after_last": True}, SEEDS),
    ({"head": [5], "bias": False, "relu_after_last": True}, 1),
    ({"head": [5], "bias": True, "relu_after_last": False}, SEEDS),
    ({"head": [4, 3], "bias": False, "relu_after_last": False}, SEEDS),
    ({"head": [4, 3], "bias": True, "relu_after_last": True}, 1),
]


@pytest.fixture(autouse=True)
def _nothing_left_unset():
    before = torch.are_deterministic_algorithms_enabled()  # new memory holds NaN then and not leftover zeros
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def network(shape=SHAPE, seeds=range(SEEDS), **given):
    """A net, its settings, and its parameters in float64."""
    settings = asdict(ConvConfig(**{"num_layers": LAYERS, "channels": CHANNELS, **given}))
    model = ConvNet(settings, shape, CLASSES)
    parameters = model.initialise([generator(seed, "test") for seed in seeds])
    return model, settings, {name: 2 * tensor.double() for name, tensor in parameters.items()}


def one(tensors, seed):
    return {name: tensor[seed] for name, tensor in tensors.items()}


def objects(inputs=1, shape=SHAPE, number=OBJECTS):
    draw = torch.Generator().manual_seed(inputs)
    x = torch.randn(inputs, number, *shape, generator=draw, dtype=torch.float64)
    return x, torch.randint(CLASSES, (SEEDS, number), generator=draw)


def plainly(settings, own, x):
    """What the head is given, and the logits, of one seed: the thesis's network in PyTorch's functions."""
    d = settings["kind"][-2:]
    convolve = getattr(functional, f"conv{d}")
    pool = getattr(functional, {"max": f"max_pool{d}", "average": f"avg_pool{d}"}[settings["pooling"]])
    if settings["kind"] == "conv1d":
        x = torch.stack([x[:, c, :, w] for c, w in itertools.product(range(x.shape[1]), range(x.shape[3]))], dim=1)
    for layer in range(1, settings["num_layers"] + 1):
        x = convolve(x, own[f"conv{layer}.weight"], own.get(f"conv{layer}.bias"))
        if layer == settings["position"]:
            x = pool(x, 2)
        elif layer < settings["num_layers"] or settings["relu_after_last"]:
            x = x.relu()
    features = x = x.flatten(1)
    for layer in range(1, len(settings["head"]) + 2):
        x = functional.linear(x, own[f"head{layer}.weight"], own.get(f"head{layer}.bias"))
        x = x.relu() if layer <= len(settings["head"]) else x
    return features, x


def assert_close(found, expected, tolerance=1e-12, where=""):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        about = f"{name} {where}\n"
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=lambda text, a=about: a + text)


def assert_gradients(model, settings, parameters, x, y, where=""):
    """Compare both ways with autograd through :func:`plainly`."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    given = leaves | {"x": x.clone()}
    for seed, labels in enumerate(y):
        functional.cross_entropy(plainly(settings, one(leaves, seed), x[seed % len(x)])[1], labels).backward()
    expected = {name: tensor.grad for name, tensor in leaves.items()}
    assert all(tensor.abs().max() > 1e-4 for tensor in expected.values()), where
    assert_close(model.gradients(parameters, x, y), expected, where=where)
    assert_close(model.gradients_grouped(parameters, x, y), expected, where=f"grouped, {where}")
    assert_close({**parameters, "x": x}, {name: tensor.detach() for name, tensor in given.items()}, tolerance=0)


@KINDS
@KERNELS
@PLACES
def test_forward_is_an_ordinary_net_for_each_seed(kind, kernel_size, place):
    for options, inputs in OPTIONS:
        model, settings, parameters = network(kind=kind, kernel_size=kernel_size, **place, **options)
        x = objects(inputs)[0]
        found = {
            "forward": model.forward(parameters, x),
            "forward_grouped": model.forward_grouped(parameters, x),
            "module": torch.stack([model.module(parameters, s)(x[s % inputs]).detach() for s in range(SEEDS)]),
            "features": model.features(parameters, x),
        }
        plain = [plainly(settings, one(parameters, s), x[s % inputs]) for s in range(SEEDS)]
        features, logits = (torch.stack(each) for each in zip(*plain, strict=True))
        assert logits.shape == (SEEDS, OBJECTS, CLASSES)
        assert_close(found, dict.fromkeys(found, logits) | {"features": features}, where=f"with {options}")


@KINDS
@KERNELS
@PLACES
def test_gradients_are_autograds(kind, kernel_size, place):
    for options, inputs in OPTIONS:
        net = network(kind=kind, kernel_size=kernel_size, **place, **options)
        assert_gradients(*net, *objects(inputs), where=f"with {options}")


@KINDS
@POOLINGS
@pytest.mark.parametrize(
    ("shape", "num_layers", "position"),
    [
        ((1, 9, 9), 1, 0),
        ((3, 9, 11), 2, 1),  # a pooling's input of 7x9: a row and a column are dropped
        ((3, 8, 11), 2, 1),  # only a column
        ((1, 9, 8), 2, 1),  # only a row
        ((1, 16, 15), 5, 4),
        ((2, 5, 9), 2, 0),  # ends as 1x5
    ],
)
def test_pictures_of_other_sizes_and_other_depths(kind, pooling, shape, num_layers, position):
    net = network(shape, kind=kind, num_layers=num_layers, position=position, pooling=pooling)
    for number in (1, 2, 7):
        assert_gradients(*net, *objects(SEEDS, shape, number))


@KINDS
@pytest.mark.parametrize("position", [1, 2])
def test_of_equal_largest_elements_the_first_gets_the_gradient(kind, position):
    model, settings, parameters = network(kind=kind, position=position, kernel_size=2, bias=False)
    draw = torch.Generator().manual_seed(0)
    for name, tensor in parameters.items():  # whole numbers: equal patches give equal sums in any order of adding
        parameters[name] = torch.randint(-1, 2, tensor.shape, generator=draw).double()
    parameters["head1.weight"] /= 16
    x = torch.zeros(1, OBJECTS, *SHAPE, dtype=torch.float64)
    x[..., 4:9, 5:10] = torch.randint(0, 2, x[..., 4:9, 5:10].shape, generator=draw).double()
    net = model.module(parameters, 0)
    maps = net[: list(net._modules).index(f"pool{position}")](x[0])
    assert (maps[:, :, 0:10:2] == maps[:, :, 1:10:2]).double().mean() > 0.2
    assert maps.std() > 0
    assert_gradients(model, settings, parameters, x, objects()[1])


@KINDS
@PLACES
def test_a_seed_in_a_stack_is_the_seed_alone(kind, place):
    model, _, together = network(kind=kind, head=[5], **place)
    _, _, alone = network(seeds=[1], kind=kind, head=[5], **place)
    for x, y in (objects(1), objects(SEEDS)):
        own = x[1 % len(x)][None]
        for run in (model.forward, model.features):
            assert torch.equal(run(together, x)[1], run(alone, own)[0])
        gradients = one(model.gradients(alone, own, y[1:2]), 0)
        assert_close(one(model.gradients(together, x, y), 1), gradients, tolerance=0)


def data(dtype):
    x, y = objects(number=35)  # an epoch is 16, 16 and 3
    return x[0].to(dtype), y[0]


@KINDS
@POOLINGS
def test_each_seed_trains_as_it_would_alone(kind, pooling):
    model, _, _ = network(kind=kind, pooling=pooling, position=1)
    together = fit(model, *data(torch.float32), seeds=[0, 1, 2], **TRAINING)
    alone = fit(model, *data(torch.float32), seeds=[1], **TRAINING)
    assert_close(one(together, 1), one(alone, 0), tolerance=1e-6)
    assert all((tensor[0] != tensor[1]).any() for tensor in together.values())


@KINDS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
def test_training_equals_a_plain_loop(kind, dtype, tolerance):
    (x, y), seed = data(dtype), 3
    model, settings, _ = network(kind=kind, position=2, head=[5])
    start = model.initialise([generator(seed, "initialisation", "point")])
    start = {name: tensor.to(dtype) for name, tensor in start.items()}
    own = {name: tensor.clone().requires_grad_() for name, tensor in one(start, 0).items()}
    optimiser, orders = torch.optim.Adam(own.values(), lr=1e-2), generator(seed, "minibatches", "point")
    for _ in range(TRAINING["epochs"]):
        for index in torch.randperm(len(x), generator=orders).split(TRAINING["batch_size"]):
            optimiser.zero_grad()
            functional.cross_entropy(plainly(settings, own, x[index])[1], y[index]).backward()
            optimiser.step()
    given = {"start": start} if dtype == torch.float64 else {}
    trained = fit(model, x, y, seeds=[seed], **given, **TRAINING)
    assert all((trained[name] - start[name]).abs().max() > 0.02 for name in start)
    assert_close(one(trained, 0), {name: tensor.detach() for name, tensor in own.items()}, tolerance)


@KINDS
@BIASES
@pytest.mark.parametrize(("L", "k", "p"), [(1, 2, 0), (2, 3, 1), (3, 1, 0), (3, 3, 0), (3, 3, 2), (4, 2, 1)])
def test_number_of_parameters_and_of_features(kind, bias, L, k, p):
    (c_in, *sides), C = SHAPE, CHANNELS
    if kind == "conv1d":
        c_in, sides = c_in * sides[1], sides[:1]
    sides = [(side - p * (k - 1)) // 2 - (L - p) * (k - 1) if p else side - L * (k - 1) for side in sides]
    features, area = C * math.prod(sides), k ** len(sides)
    expected = c_in * C * area + (L - 1) * C**2 * area + features * CLASSES + (L * C + CLASSES if bias else 0)
    model, _, parameters = network(kind=kind, bias=bias, num_layers=L, kernel_size=k, position=p)
    assert sum(tensor[0].numel() for tensor in parameters.values()) == expected
    assert sum(tensor.numel() for tensor in model.module(parameters, 0).parameters()) == expected
    assert model.features(parameters, objects()[0]).shape == (SEEDS, OBJECTS, features)


def test_published_sizes():
    model = ConvNet(asdict(ConvConfig(num_layers=5, channels=6, kernel_size=3)), (3, 32, 32), 10)
    parameters = model.initialise([generator(0, "test")])
    assert model.geometry.passed_on[-1] == (6, 22, 22)
    assert parameters["head1.weight"].shape == (1, 10, 2904)
    assert sum(tensor.numel() for tensor in parameters.values()) == 30538


@KINDS
@BIASES
def test_initialisation_is_pytorchs_default(kind, bias):
    model, _, _ = network((3, 7, 5), kind=kind, bias=bias, num_layers=2, channels=8, head=[9])
    drawn = model.initialise([generator(seed, "initialisation") for seed in range(40)])
    layer, c_in, area = (torch.nn.Conv1d, 15, 3) if kind == "conv1d" else (torch.nn.Conv2d, 3, 9)
    layers = {"conv1": (layer, c_in, 8, 3), "conv2": (layer, 8, 8, 3)}
    layers |= {"head1": (torch.nn.Linear, 24, 9), "head2": (torch.nn.Linear, 9, CLASSES)}
    assert drawn.keys() == {f"{name}.{part}" for name in layers for part in ("weight", *["bias"] * bias)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, (build, fan_in, *sizes) in layers.items():
            bound = (fan_in * (area if build is layer else 1)) ** -0.5
            default = [dict(build(fan_in, *sizes, bias=bias).named_parameters()) for _ in range(40)]
            for part in default[0]:
                values, theirs = drawn[f"{name}.{part}"], torch.stack([each[part].detach() for each in default])
                assert values.shape == theirs.shape
                assert values.dtype == torch.float32
                assert stats.kstest(values.flatten(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
                assert stats.ks_2samp(values.flatten(), theirs.flatten()).pvalue > 1e-3


@KINDS
def test_each_seed_is_drawn_from_its_own_generator(kind):
    _, _, together = network(kind=kind, seeds=[4, 9])
    _, _, alone = network(kind=kind, seeds=[9])
    for name, tensor in alone.items():
        assert torch.equal(together[name][1], tensor[0])
        assert not (together[name][0] == tensor[0]).any()


@KINDS
def test_module_is_a_copy_made_of_ordinary_layers_that_takes_pictures(kind):
    model, _, parameters = network(kind=kind, position=2, pooling="average", head=[5])
    net = model.module(parameters, 1)
    assert net(objects()[0][0]).shape == (OBJECTS, CLASSES)
    names = ["conv1", "relu1", "conv2", "pool2", "conv3", "flatten", "head1", "head_relu1", "head2"]
    assert [name for name, _ in net.named_children() if name != "rows"] == names
    assert isinstance(net.conv1, torch.nn.Conv1d if kind == "conv1d" else torch.nn.Conv2d)
    assert net.state_dict().keys() == parameters.keys()
    before = {name: tensor.clone() for name, tensor in parameters.items()}
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.zero_()
    assert_close(parameters, before, tolerance=0)


@KINDS
def test_losses_of_objects_in_chunks_are_pytorchs(kind):
    model, settings, exact = network(kind=kind, position=1)
    parameters = {name: tensor.float() for name, tensor in exact.items()}
    x, y = (tensor[0] for tensor in objects(number=2 * model.chunk + 5))
    found = object_losses(model, parameters, x.float(), y)
    for seed in range(SEEDS):
        logits = plainly(settings, one(exact, seed), x)[1]
        expected = functional.cross_entropy(logits, y, reduction="none")
        torch.testing.assert_close(found.losses[seed], expected, rtol=0, atol=2e-6)
        assert found.correct[seed] == (logits.argmax(dim=1) == y).double().mean()
    assert not found.constant.any()
