"""Networks of pooled convolutions: beside ordinary modules, and the weights of Tables 4.3 and 4.4."""

import math
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.nn import functional

from experiments.chapter4.distillation_structures import layers
from experiments.reference import published_table
from landscape_cli import parallel
from landscape_cli.config import LeNetConfig
from landscape_cli.errors import ImpossibleModel
from landscape_cli.geometry import check_model, lenet_geometry
from landscape_cli.models import build_model, forward_operations
from landscape_cli.models.lenet import PART, LeNet
from landscape_cli.rng import generator

SEEDS, CLASSES = 3, 4
SHAPE = (2, 12, 11)  # under the kernels both poolings leave something out
GIVEN = {"channels": [3, 5], "kernel_sizes": [4, 2], "hidden": [6]}
VARIANTS = [
    ({}, SHAPE),
    ({"bias": False}, SHAPE),
    ({"channels": [4], "kernel_sizes": [1], "hidden": []}, (1, 5, 4)),
    ({"channels": [3, 2, 4], "kernel_sizes": [1, 3, 1], "hidden": [5, 3]}, (3, 13, 14)),
]
THESIS = (3, 200, 200)
TEACHER = {"channels": [24, 48, 96, 192, 384], "kernel_sizes": [5, 5, 8, 5, 7], "hidden": [120, 84]}
STUDENT = {"channels": [24, 48], "kernel_sizes": [5, 5], "hidden": [120]}
OUTPUTS = {  # of a picture of 200 x 200, reckoned by hand: minus kernel plus one, then half of it, rounded down
    "4.3": [
        *[(24, 196, 196), (24, 98, 98), (48, 94, 94), (48, 47, 47), (96, 40, 40), (96, 20, 20)],
        *[(192, 16, 16), (192, 8, 8), (384, 2, 2), (384, 1, 1), (384,), (120,), (84,), (10,)],
    ],
    "4.4": [(24, 196, 196), (24, 98, 98), (48, 94, 94), (48, 47, 47), (106032,), (120,), (10,)],
}


def settings(**given):
    return asdict(LeNetConfig(**{**GIVEN, **given}))


def network(given, shape=SHAPE, seeds=range(SEEDS)):
    model = LeNet(settings(**given), shape, CLASSES)
    parameters = model.initialise([generator(seed, "test") for seed in seeds])
    return model, {name: 2 * tensor.double() for name, tensor in parameters.items()}


def pictures(shape, inputs, number):
    draw = torch.Generator().manual_seed(number + inputs)
    x = torch.randn(inputs, number, *shape, generator=draw, dtype=torch.float64)
    return x, torch.randint(CLASSES, (SEEDS, number), generator=draw)


class Plain(nn.Module):
    """The network as the thesis describes it: convolution, ReLU, pooling; connected layers with ReLU between them."""

    def __init__(self, given, parameters, seed):
        super().__init__()
        self.stages, self.layers = len(given["channels"]), len(given["hidden"]) + 1
        self.own = nn.ParameterDict(
            {name.replace(".", "_"): tensor[seed].clone() for name, tensor in parameters.items()}
        )

    def forward(self, x):
        for n in range(1, self.stages + 1):
            bias = self.own.get(f"conv{n}_bias")
            x = functional.max_pool2d(functional.conv2d(x, self.own[f"conv{n}_weight"], bias).relu(), 2, stride=2)
        x = x.flatten(1)
        for n in range(1, self.layers + 1):
            x = x @ self.own[f"head{n}_weight"].T
            if f"head{n}_bias" in self.own:
                x = x + self.own[f"head{n}_bias"]
            x = x.relu() if n < self.layers else x
        return x


@pytest.fixture(params=[1, 3], ids=["one worker", "three workers"])
def workers(request):
    parallel.use_workers(request.param)
    yield request.param
    parallel.use_workers(1)


@pytest.fixture(params=[0, 10**9], ids=["in tasks", "grouped"])
def _way(request, monkeypatch):
    """Each seed and part by itself, as of large pictures, or all seeds in one convolution, as of small ones."""
    monkeypatch.setattr("landscape_cli.models.lenet.SMALL", request.param, raising=False)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(("given", "shape"), VARIANTS)
@pytest.mark.parametrize(("inputs", "number"), [(1, 5), (SEEDS, PART), (1, 2 * PART + 3), (SEEDS, PART + 1)])
def test_forward_is_an_ordinary_net_for_each_seed(given, shape, inputs, number):
    model, parameters = network(given, shape)
    x, _ = pictures(shape, inputs, number)
    full = settings(**given)
    expected = torch.stack([Plain(full, parameters, s)(x[s % inputs]).detach() for s in range(SEEDS)])
    assert expected.shape == (SEEDS, number, CLASSES)
    assert expected.std(dim=1).min() > 1e-3
    found = {
        "forward": model.forward(parameters, x),
        "grouped": model.forward_grouped(parameters, x),
        "module": torch.stack([model.module(parameters, s)(x[s % inputs]).detach() for s in range(SEEDS)]),
    }
    for name, logits in found.items():
        torch.testing.assert_close(
            logits, expected, rtol=0, atol=1e-11, msg=lambda text, n=name: f"{n} of {given}\n{text}"
        )


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(("given", "shape"), VARIANTS)
@pytest.mark.parametrize("number", [3, PART, PART + 7])
def test_gradients_are_those_of_ordinary_nets(given, shape, number, workers):
    model, parameters = network(given, shape)
    x, y = pictures(shape, SEEDS, number)
    found = model.gradients(parameters, x, y)
    assert found.keys() == parameters.keys()
    for seed in range(SEEDS):
        net = Plain(settings(**given), parameters, seed)
        functional.cross_entropy(net(x[seed]), y[seed]).backward()
        for name in parameters:
            expected = net.own[name.replace(".", "_")].grad
            assert expected.abs().max() > 1e-5
            torch.testing.assert_close(found[name][seed], expected, rtol=0, atol=1e-12)
        modules = dict(model.module(parameters, seed).named_parameters())
        assert modules.keys() == parameters.keys()


@pytest.mark.usefixtures("_way")
def test_pooling_before_the_relu_makes_no_difference_where_all_are_negative():
    """Where no value of a window is positive neither order passes a gradient on."""
    model, parameters = network({"channels": [3], "kernel_sizes": [1], "hidden": []}, (1, 4, 4))
    parameters["conv1.bias"] -= 100
    x, y = pictures((1, 4, 4), 1, 6)
    found = model.gradients(parameters, x.expand(SEEDS, *x.shape[1:]), y)
    assert (found["conv1.weight"] == 0).all()
    assert (found["conv1.bias"] == 0).all()
    assert found["head1.bias"].abs().max() > 1e-3


@pytest.mark.usefixtures("_way")
def test_gradients_by_differences():
    model, parameters = network({"channels": [2, 2], "kernel_sizes": [3, 2], "hidden": [3]}, (1, 8, 9), seeds=[5])
    x, _ = pictures((1, 8, 9), 1, 4)
    y = torch.tensor([[0, 1, 2, 3]])

    def loss(moved):
        return float(functional.cross_entropy(model.forward(moved, x)[0], y[0]))

    found, step = model.gradients(parameters, x, y), 1e-6
    for name, tensor in parameters.items():
        for place in range(tensor.numel()):
            ends = []
            for sign in (1, -1):
                moved = {n: t.clone() for n, t in parameters.items()}
                moved[name].view(-1)[place] += sign * step
                ends.append(loss(moved))
            assert float(found[name].reshape(-1)[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


@pytest.mark.usefixtures("_way")
def test_nothing_that_was_given_changes():
    model, parameters = network({})
    x, y = pictures(SHAPE, SEEDS, 40)
    before = {name: tensor.clone() for name, tensor in parameters.items()}, x.clone()
    gradients = model.gradients(parameters, x, y)
    model.forward(parameters, x)
    assert torch.equal(x, before[1])
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in parameters.items())
    assert not any(tensor.requires_grad for tensor in (*parameters.values(), *gradients.values()))


class TestInitialisation:
    def test_is_uniform_within_one_over_the_root_of_fan_in(self):
        model = LeNet(settings(channels=[16, 24], kernel_sizes=[4, 3], hidden=[60]), (3, 14, 14), 40)
        drawn = model.initialise([generator(seed, "test") for seed in range(4)])
        features = 24 * 1 * 1
        fans = {"conv1": 3 * 16, "conv2": 16 * 9, "head1": features, "head2": 60}
        assert drawn["head1.weight"].shape == (4, 60, features)
        for name, tensor in drawn.items():
            bound = 1 / math.sqrt(fans[name.partition(".")[0]])
            assert tensor.dtype == torch.float32
            assert tensor.abs().max() <= bound
            assert tensor.abs().max() > 0.9 * bound
            if tensor.numel() > 2000:  # a uniform one has mean 0 and variance bound²/3
                assert tensor.mean().abs() < 5 * bound / math.sqrt(3 * tensor.numel())
                assert tensor.var() == pytest.approx(bound**2 / 3, rel=0.1)

    def test_of_a_seed_does_not_depend_on_the_others(self):
        model = LeNet(settings(), SHAPE, CLASSES)
        together = model.initialise([generator(seed, "test") for seed in (0, 1, 2)])
        mixed = model.initialise([generator(seed, "test") for seed in (2, 7)])
        for name, tensor in together.items():
            assert torch.equal(tensor[2], mixed[name][0])
            assert not torch.equal(tensor[0], tensor[1])

    def test_without_bias_draws_none(self):
        model = LeNet(settings(bias=False), SHAPE, CLASSES)
        assert list(model.initialise([generator(0, "test")])) == [
            "conv1.weight",
            "conv2.weight",
            "head1.weight",
            "head2.weight",
        ]


@pytest.mark.parametrize(
    ("number", "given", "total"), [("4.3", TEACHER, 4455984), ("4.4", STUDENT, 12755640)], ids=["teacher", "student"]
)
class TestThesisNetworks:
    """Tables 4.3 and 4.4, whose numbers leave biases out."""

    def test_weights_are_the_published_ones_row_by_row(self, number, given, total):
        drawn = LeNet(asdict(LeNetConfig(**given)), THESIS, 10).initialise([torch.Generator()])
        printed = published_table(number).set_index("row")["value"].astype(int)
        names = [f"CONV{n}" for n in range(1, len(given["channels"]) + 1)] + [f"FC {w}" for w in (*given["hidden"], 10)]
        weights = {name: tensor[0].numel() for name, tensor in drawn.items() if name.endswith("weight")}
        assert dict(zip(names, weights.values(), strict=True)) == printed.drop("total").to_dict()
        assert sum(weights.values()) == printed["total"] == total
        biases = {name: tensor[0].numel() for name, tensor in drawn.items() if name.endswith("bias")}
        assert list(biases.values()) == [*given["channels"], *given["hidden"], 10]

    def test_the_table_of_layers_counts_what_is_drawn(self, number, given, total):
        model = asdict(LeNetConfig(**given))
        drawn = LeNet(model, THESIS, 10).initialise([torch.Generator()])
        table = layers(model, THESIS, 10)
        for kind in ("weight", "bias"):
            own = [tensor[0].numel() for name, tensor in drawn.items() if name.endswith(kind)]
            column = table["weights" if kind == "weight" else "biases"]
            assert column[column > 0].tolist() == own
        assert table["weights"].sum() == total
        assert layers({**model, "bias": False}, THESIS, 10)["biases"].sum() == 0
        printed = published_table(number).set_index("row")["value"].astype(int).drop("total")
        found = table[table["weights"] > 0].set_index("key")["weights"]
        assert found.to_dict() == printed.to_dict()

    def test_outputs(self, number, given, total):
        model = asdict(LeNetConfig(**given))
        geometry = lenet_geometry(model, THESIS)
        paired = [size for both in zip(geometry.convolved, geometry.pooled, strict=True) for size in both]
        stages = 2 * len(given["channels"])
        assert paired == OUTPUTS[number][:stages]
        assert geometry.features == OUTPUTS[number][stages][0]
        written = layers(model, THESIS, 10)["output"].tolist()
        assert written == ["(" + ", ".join(map(str, size)) + ")" for size in (THESIS, *OUTPUTS[number])]

    def test_outputs_are_those_of_the_module(self, number, given, total):
        """On memory that is not there: a picture goes through every layer by its shape alone."""
        model = LeNet(asdict(LeNetConfig(**given)), THESIS, 10)
        with torch.device("meta"):
            shapes = {
                name: torch.empty(1, *s)
                for name, weight in model._shapes()
                for name, s in ((f"{name}.weight", weight), (f"{name}.bias", weight[:1]))
            }
            x = torch.empty(1, *THESIS)
        seen = []
        for layer in model.module(shapes, 0).to("meta"):
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.Flatten | nn.Linear):
                seen.append(tuple(x.shape[1:]))
        assert seen == OUTPUTS[number]


def test_operations_of_a_forward_pass():
    """Twice a multiplication a weight and place of the output; what is added and compared is not counted."""
    model = build_model(settings(), SHAPE, CLASSES)
    assert isinstance(model, LeNet)
    first, second = 9 * 8, 3 * 3  # places: 12 - 4 + 1 by 11 - 4 + 1; halved 4 by 4, minus 1
    products = first * 3 * 2 * 16 + second * 5 * 3 * 4 + 5 * 6 + 6 * CLASSES
    assert forward_operations(model, SHAPE) == 2 * products


@pytest.mark.parametrize(
    ("side", "convolved", "pooled"),
    [((12, 11), [(9, 8), (3, 3)], [(4, 4), (1, 1)]), ((13, 15), [(10, 12), (4, 5)], [(5, 6), (2, 2)])],
)
def test_pooling_leaves_a_remainder_out(side, convolved, pooled):
    geometry = lenet_geometry(settings(), (2, *side))
    assert [shape[1:] for shape in geometry.convolved] == convolved
    assert [shape[1:] for shape in geometry.pooled] == pooled
    assert [shape[0] for shape in (*geometry.convolved, *geometry.pooled)] == [3, 5, 3, 5]
    assert geometry.features == 5 * math.prod(pooled[-1])
    x = torch.zeros(1, 1, 2, *side, requires_grad=True)
    model = LeNet(settings(), (2, *side), CLASSES)
    parameters = model.initialise([generator(0, "test")])
    assert model.forward_grouped(parameters, x).shape == (1, 1, CLASSES)


@pytest.mark.parametrize(
    ("given", "shape", "parts"),
    [
        ({}, (1, 8, 8), ("kernel_sizes: 2 and a pooling of 2", "3x3 pixels at stage 2", "2x2 is left", "8x8 -> 5x5")),
        ({}, (1, 4, 30), ("kernel_sizes: 4 and a pooling of 2", "5x5 pixels at stage 1", "4x30 is left of boxes")),
        ({}, (1, 30, 4), ("5x5 pixels at stage 1", "30x4 is left")),
        ({"kernel_sizes": [3, 99]}, (1, 28, 28), ("99 and a pooling of 2", "100x100", "28x28 -> 26x26 -> 13x13")),
        ({"kernel_sizes": [3]}, (1, 28, 28), ("kernel_sizes: 1 of them", "channels has 2", "allowed: one each")),
        ({"channels": [3]}, (1, 28, 28), ("kernel_sizes: 2 of them", "channels has 1")),
    ],
)
def test_what_does_not_fit_is_refused_with_the_arithmetic(given, shape, parts):
    messages = []
    for call in (lenet_geometry, check_model):
        with pytest.raises(ImpossibleModel) as raised:
            call(settings(**given), shape, "boxes", "measure.teacher")
        messages.append(str(raised.value))
    with pytest.raises(ImpossibleModel) as raised:
        LeNet(settings(**given), shape, CLASSES)
    assert (
        messages[0]
        == messages[1]
        == str(raised.value).replace("the data", "boxes").replace("model.", "measure.teacher.")
    )
    assert raised.value.exit_code == 2
    assert messages[0].startswith("measure.teacher.kernel_sizes: ")
    for part in parts:
        assert part in messages[0]


def test_the_smallest_picture_that_fits():
    """4 and 2 as kernels: 3 before the second stage, so 6 before the first pooling, so 9."""
    assert lenet_geometry(settings(), (1, 9, 9)).pooled[-1] == (5, 1, 1)
    with pytest.raises(ImpossibleModel):
        lenet_geometry(settings(), (1, 9, 8))


def test_features_are_no_pictures():
    with pytest.raises(ImpossibleModel, match=r"model\.kind: 'lenet' needs pictures"):
        check_model(settings(), None, "digits")
