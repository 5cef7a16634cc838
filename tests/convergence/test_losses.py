import pytest
import torch
from torch.nn.functional import cross_entropy

from landscape_cli.convergence.losses import object_losses
from landscape_cli.models.mlp import MLP
from landscape_cli.rng import generator

SEEDS, OBJECTS, CLASSES = 3, 50, 4
BIASES = pytest.mark.parametrize("bias", [False, True])


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(OBJECTS, 1, 2, 3, generator=draw, dtype=torch.float64)
    return x, torch.randint(CLASSES, (OBJECTS,), generator=draw)


def network(bias=False, scale=4.0, dtype=torch.float64):
    model = MLP(in_features=6, classes=CLASSES, hidden_size=5, num_layers=1, bias=bias)
    parameters = model.initialise([generator(seed, "test") for seed in range(SEEDS)])
    return model, {name: scale * tensor.to(dtype) for name, tensor in parameters.items()}


@BIASES
def test_losses_and_accuracy_object_by_object(data, bias):
    (x, y), (model, parameters) = data, network(bias)
    found = object_losses(model, parameters, x, y)
    assert found.losses.shape == (SEEDS, OBJECTS)
    for s in range(SEEDS):
        logits = model.module(parameters, s)(x.flatten(1)).detach()
        expected = cross_entropy(logits, y, reduction="none")
        torch.testing.assert_close(found.losses[s], expected, rtol=0, atol=1e-12)
        right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, y, strict=True))
        assert found.correct[s].item() == right / OBJECTS
        assert 0 < right < OBJECTS


def test_accuracies_at_both_ends(data):
    x, _ = data
    model, parameters = network()
    labels = model.forward(parameters, x[None])[1].argmax(dim=-1)
    assert object_losses(model, parameters, x, labels).correct[1] == 1
    assert object_losses(model, parameters, x, (labels + 1) % CLASSES).correct[1] == 0


def test_the_softmax_of_float32_logits_is_float64(data):
    x, y = data
    model, parameters = network(scale=1.0, dtype=torch.float32)
    x = x.float()
    logits = model.forward(parameters, x[None])
    assert logits.dtype == torch.float32
    found = object_losses(model, parameters, x, y)
    assert found.losses.dtype == found.correct.dtype == torch.float64
    for s in range(SEEDS):
        exact = cross_entropy(logits[s].double(), y, reduction="none")
        torch.testing.assert_close(found.losses[s], exact, rtol=0, atol=1e-14)
        narrow = cross_entropy(logits[s], y, reduction="none").double()
        assert (narrow - exact).abs().max() > 1e-9


def test_large_logits_neither_overflow_nor_vanish(data):
    x, y = data
    model, parameters = network(scale=100.0)
    found = object_losses(model, parameters, x, y).losses
    logits = model.forward(parameters, x[None])
    assert logits.abs().max() > 1e4
    assert found.isfinite().all()
    for s in range(SEEDS):
        torch.testing.assert_close(found[s], cross_entropy(logits[s], y, reduction="none"), rtol=1e-12, atol=0)


@BIASES
@pytest.mark.parametrize("chunk", [1, 7, 49, 50, 51])
def test_chunks_do_not_matter(data, monkeypatch, bias, chunk):
    model, parameters = network(bias)
    parameters["2.weight"][2] = 0
    if bias:
        parameters["2.bias"][2] = -1
    whole = object_losses(model, parameters, *data)
    monkeypatch.setattr(MLP, "chunk", chunk)
    chunked = object_losses(model, parameters, *data)
    torch.testing.assert_close(chunked.losses, whole.losses, rtol=0, atol=1e-12)
    assert torch.equal(chunked.correct, whole.correct)
    assert whole.constant.tolist() == chunked.constant.tolist() == [False, False, True]


def test_a_network_whose_first_relus_died_is_constant_whatever_the_chunks():
    model = MLP(in_features=64, classes=10, hidden_size=16, num_layers=5, bias=True)
    parameters = model.initialise([generator(seed, "test") for seed in range(5)])
    for name in ("0.weight", "0.bias"):
        parameters[name] = -parameters[name].abs()
    for objects in (2048, 2049, 2050, 2051, 2055, 3000):
        x = torch.rand(objects, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        assert object_losses(model, parameters, x, torch.arange(objects) % 10).constant.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("bias", "layer"), [(False, 0), (False, 2), (True, 0), (True, 2)])
def test_a_dead_network_is_constant_and_a_living_one_is_not(bias, layer, dtype):
    x = torch.rand(3000, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    y = torch.arange(3000) % CLASSES
    model, parameters = network(bias, scale=2.0, dtype=dtype)
    for name, tensor in parameters.items():
        if name.startswith(f"{layer}."):  # x and the ReLUs are not negative, so seed 1's ReLUs of this layer all die
            tensor[1] = -tensor[1].abs()
    found = object_losses(model, parameters, x, y)
    assert found.constant.tolist() == [False, True, False]
    assert found.constant.dtype == torch.bool
    same = found.losses[1].view(-1, CLASSES)
    assert torch.equal(same, same[:1].expand_as(same))
    if not bias:
        torch.testing.assert_close(same, torch.full_like(same, CLASSES).log(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("largest_first", [False, True])
def test_a_network_that_is_constant_in_each_chunk_only_is_alive(monkeypatch, largest_first):
    monkeypatch.setattr(MLP, "chunk", 5)
    model, parameters = network()
    parameters = {name: tensor.abs() for name, tensor in parameters.items()}  # so that every logit grows with x
    sizes = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat_interleave(5)
    x = (sizes.flip(0) if largest_first else sizes)[:, None, None, None].expand(-1, 1, 2, 3)
    assert not object_losses(model, parameters, x, torch.zeros(10, dtype=torch.long)).constant.any()


def test_a_network_with_one_constant_output_is_alive(data):
    model, parameters = network()
    parameters["4.weight"][:, 1] = 0
    assert not object_losses(model, parameters, *data).constant.any()


def test_losses_need_no_graph(data):
    model, parameters = network()
    tracked = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
    assert not object_losses(model, tracked, *data).losses.requires_grad
