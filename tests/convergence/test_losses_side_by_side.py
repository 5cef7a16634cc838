"""Losses of chunks of objects side by side: the same to the bit, and what PyTorch makes of the same logits."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from landscape_cli import parallel
from landscape_cli.convergence.losses import object_losses
from landscape_cli.models.mlp import MLP
from landscape_cli.rng import generator

SEEDS, OBJECTS, CLASSES, FEATURES, CHUNK = 3, 1000, 5, 12, 64


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setattr(MLP, "chunk", CHUNK)  # 16 chunks, the last one smaller
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    parallel.use_workers(1)
    torch.set_num_threads(before)


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(OBJECTS, 1, 3, 4, generator=draw), torch.randint(CLASSES, (OBJECTS,), generator=draw)


def network():
    """Seed 0 is as drawn; seed 1 has two equal classes, which share many a largest logit; seed 2 is dead."""
    model = MLP(FEATURES, CLASSES, 16, 1)
    parameters = model.initialise([generator(seed, "test") for seed in range(SEEDS)])
    parameters["4.weight"] *= 3
    parameters["4.weight"][1, 3] = parameters["4.weight"][1, 1]
    parameters["2.weight"][2] = -1  # behind a ReLU nothing is negative
    return model, parameters


def logits_of(model, parameters, seed, x):
    """By the ordinary module, in the chunks that are measured: a product may round otherwise in another size."""
    return torch.cat([model.module(parameters, seed)(part).detach() for part in x.split(CHUNK)])


def test_the_same_with_any_number_of_workers(one_thread, data):
    found = []
    for workers in (1, 2, 3):
        parallel.use_workers(workers)
        found.append(object_losses(*network(), *data))
    for other in found[1:]:
        for name in ("losses", "correct", "constant"):
            assert torch.equal(getattr(found[0], name), getattr(other, name)), name


def test_chunks_are_measured_side_by_side(one_thread, data, monkeypatch):
    tasks = []
    each = parallel.each

    def noted(function, todo):
        tasks.extend(todo)
        return each(function, todo)

    monkeypatch.setattr(parallel, "each", noted)
    object_losses(*network(), *data)
    assert tasks == list(range(0, OBJECTS, CHUNK))


@pytest.mark.parametrize("workers", [1, 2])
def test_losses_are_those_of_the_modules_float32_logits(one_thread, data, workers):
    (x, y), (model, parameters) = data, network()
    parallel.use_workers(workers)
    found = object_losses(model, parameters, x, y)
    assert found.losses.dtype == torch.float64
    rows = torch.cat([model.forward(parameters, part[None]) for part in x.split(CHUNK)], dim=1)
    for s in range(SEEDS):
        logits = logits_of(model, parameters, s, x)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(rows[s], logits, rtol=1e-5, atol=1e-5)
        exact = cross_entropy(rows[s].double(), y, reduction="none")
        torch.testing.assert_close(found.losses[s], exact, rtol=1e-12, atol=1e-12)
    narrow = cross_entropy(rows[0], y, reduction="none").double()
    assert (narrow - cross_entropy(rows[0].double(), y, reduction="none")).abs().max() > 1e-9  # that would be seen


def test_correct_is_argmax_also_where_logits_tie(one_thread, data):
    (x, y), (model, parameters) = data, network()
    found = object_losses(model, parameters, x, y)
    rows = torch.cat([model.forward(parameters, part[None]) for part in x.split(CHUNK)], dim=1).numpy()
    answers = rows.argmax(axis=-1)  # NumPy's is the first of equal ones
    ties = (rows == rows.max(axis=-1, keepdims=True)).sum(axis=-1) > 1
    for s, tied in enumerate(["none", "many", "all"]):
        share = ties[s].mean()
        assert {"none": share == 0, "many": 0.1 < share < 0.9, "all": share == 1}[tied]
        assert found.correct[s].item() == (answers[s] == y.numpy()).sum() / OBJECTS
    last = CLASSES - 1 - rows[1, :, ::-1].argmax(axis=-1)
    assert (last == y.numpy()).sum() != (answers[1] == y.numpy()).sum()  # it matters which of them is the answer
    assert found.correct[2].item() == (y == 0).double().mean().item()


def test_a_dead_network_answers_the_first_class(one_thread, data):
    x, _ = data
    model, parameters = network()
    for label in range(CLASSES):
        found = object_losses(model, parameters, x, torch.full((OBJECTS,), label))
        assert found.correct[2].item() == (label == 0)
        np.testing.assert_allclose(found.losses[2], np.log(CLASSES), rtol=1e-15)


@pytest.mark.parametrize("workers", [1, 2])
def test_only_the_dead_network_is_constant(one_thread, data, workers):
    parallel.use_workers(workers)
    found = object_losses(*network(), *data)
    assert found.constant.tolist() == [False, False, True]


def test_one_object_in_the_last_chunk_makes_a_network_alive(one_thread):
    """All other chunks are the same to it."""
    model, parameters = network()
    x = torch.zeros(4 * CHUNK + 1, FEATURES)
    assert object_losses(model, parameters, x, torch.zeros(len(x), dtype=torch.long)).constant.all()
    x[-1] = 1
    found = object_losses(model, parameters, x, torch.zeros(len(x), dtype=torch.long))
    assert found.constant.tolist() == [False, False, True]
