"""Networks to be held against bounds: how they are drawn and trained, and their exact norms by autograd in float64."""

import math
from itertools import pairwise, product

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.nn import functional

from experiments.beyond.search import AttentionFamily, BlockFamily, ChainFamily, Training, convolutions

CLASSES = 3


def stream(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pool(*shape, classes=CLASSES, count=48):
    x = torch.randn(count, *shape, generator=stream(7), dtype=torch.float64)
    return x, (x.flatten(1) @ torch.randn(math.prod(shape), classes, generator=stream(8)).double()).argmax(dim=1)


def connected(*widths, steps=0, theorems=("8",), **options) -> ChainFamily:
    modules = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b, bias=False), nn.ReLU())]
    data = pool(widths[0], classes=widths[-1])
    return ChainFamily(nn.Sequential(*modules[:-1]), widths[:1], theorems, data, Training(steps, 16, 0.02), **options)


def convolved(pooling="", theorem="13") -> ChainFamily:
    net = convolutions((1, 6, 6), 2, 2, 2, CLASSES, pooling, 1)
    return ChainFamily(net, (1, 6, 6), (theorem,), pool(1, 6, 6), Training(0, 16, 0.02))


FAMILIES = {
    "connected": lambda: connected(4, 3, CLASSES),
    "convolutional": convolved,
    "sequence": lambda: ChainFamily(
        convolutions((2, 5), 2, 2, 2, CLASSES), (2, 5), ("12",), pool(2, 5), Training(0, 16, 0.02)
    ),
    "pooled": lambda: convolved("max", "14"),
    "averaged": lambda: convolved("average", "15"),
    "attention": lambda: AttentionFamily(3, 3, 2, 0),
    "block": lambda: BlockFamily(2, 3, 2, 3, 0),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]()


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("how", ["draw", "train"])
def test_networks_are_those_of_the_seed_and_all_float64(family, how):
    first, again, other = (getattr(family, how)(3, stream(seed)) for seed in (0, 0, 1))
    assert same(first, again)
    free = set(family.free) - ({"x"} if how == "train" else set())  # a few objects of the pool
    assert not any(torch.equal(first[name], other[name]) for name in free)
    assert {first[name].dtype for name in family.free} == {torch.float64}
    assert {len(tensor) for tensor in first.values()} == {3}
    assert not any(torch.equal(first[name][0], first[name][1]) for name in free)


def test_networks_are_drawn_at_many_scales_each_part_at_its_own(family):
    state = family.draw(400, stream())
    parts = [name for name in family.free if name != "x"]
    sizes = torch.stack([state[name].flatten(1).square().mean(dim=1).sqrt().log10() for name in parts])
    assert (sizes.std(dim=1) > 0.95).all()  # uniform over 4 decades: 1.15
    assert ((sizes.amax(dim=1) - sizes.amin(dim=1)) > 3.5).all()
    apart = sizes.corrcoef() - torch.eye(len(sizes), dtype=torch.float64)
    assert apart.abs().max() < 0.25


def test_objects_of_chains_are_real_ones_at_many_lengths_and_all_classes_occur():
    family = connected(4, 3, CLASSES)
    state = family.draw(300, stream())
    lengths = state["x"].norm(dim=1)
    assert 0.1 <= lengths.min() < 0.15
    assert 7 < lengths.max() <= 10
    likeness = functional.normalize(state["x"]) @ functional.normalize(family.x).T
    torch.testing.assert_close(likeness.amax(dim=1), torch.ones(300, dtype=torch.float64))
    assert state["y"].unique().tolist() == [0, 1, 2]


def test_training_lowers_the_loss_and_raises_the_accuracy_of_every_chain():
    found = {steps: connected(4, 6, CLASSES, steps=steps) for steps in (0, 150)}
    states = {steps: family.train(6, stream()) for steps, family in found.items()}
    losses, rates = {}, {}
    for steps, state in states.items():
        x, y = found[steps].x, found[steps].y
        outputs = [(x @ a.T).relu() @ b.T for a, b in zip(state["weight0"], state["weight1"], strict=True)]
        losses[steps] = torch.stack([functional.cross_entropy(z, y) for z in outputs])
        rates[steps] = found[steps].accuracy(state)
        torch.testing.assert_close(rates[steps], torch.stack([(z.argmax(1) == y).double().mean() for z in outputs]))
    assert (losses[150] < 0.6 * losses[0]).all()
    assert (rates[150] > rates[0]).all()
    assert rates[150].min() > 0.8
    for state in states.values():
        place = [int((found[0].x == x).all(dim=1).nonzero()) for x in state["x"]]
        assert state["y"].tolist() == found[0].y[place].tolist()
        assert not any(tensor.requires_grad for tensor in state.values())


@pytest.mark.parametrize("make", [lambda n: AttentionFamily(3, 3, 2, n), lambda n: BlockFamily(2, 3, 2, 3, n)])
def test_training_brings_layers_with_attention_to_another_ones_outputs(make):
    errors = []
    for steps in (0, 100):
        family = make(steps)
        state = family.train(12, stream())
        errors.append((family.output(state, state["X"]) - state["target"]).square().mean())
    assert errors[1] < 0.6 * errors[0]


def chain_outputs(net, parameters, x):
    now, left = x, list(parameters)
    for module in net:
        if isinstance(module, nn.Linear):
            now = functional.linear(now, left.pop(0))
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            now = (functional.conv1d if isinstance(module, nn.Conv1d) else functional.conv2d)(now, left.pop(0))
        else:
            now = module(now)
    return now


def dense(function, tensors):
    """The Hessian by all tensors, as a matrix."""
    sizes = [tensor.numel() for tensor in tensors]

    def of_vector(vector):
        return function(*(p.view_as(t) for p, t in zip(vector.split(sizes), tensors, strict=True)))

    start = torch.cat([tensor.flatten() for tensor in tensors])
    return of_vector, start


def norm_of(matrix) -> float:
    return torch.linalg.eigvalsh((matrix + matrix.mT) / 2).abs().max().item()


NETS = {
    "connected": (nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, CLASSES, bias=False)), (4,)),
    "sequence": (convolutions((2, 5), 2, 2, 2, CLASSES), (2, 5)),
    "convolutional": (convolutions((1, 6, 6), 2, 2, 2, CLASSES), (1, 6, 6)),
    "pooled": (convolutions((1, 6, 6), 2, 2, 2, CLASSES, "max", 1), (1, 6, 6)),
    "averaged": (convolutions((1, 6, 6), 2, 2, 2, CLASSES, "average", 1), (1, 6, 6)),
}


@pytest.mark.parametrize("name", NETS)
def test_norms_of_chains_are_those_of_dense_matrices(name):
    net, shape = NETS[name]
    family = ChainFamily(net, shape, (), pool(*shape), Training(0, 1, 1.0))
    state = family.draw(4, stream(3))
    norms = family.norms(state)
    for s in range(4):
        x, y = state["x"][s].view(1, *shape), state["y"][s : s + 1]
        outputs, start = dense(
            lambda *own, x=x: chain_outputs(net, own, x), [weight[s] for weight in family.weights(state)]
        )
        whole = hessian(lambda v, f=outputs, y=y: functional.cross_entropy(f(v), y), start)
        slope, p = jacobian(outputs, start)[0], outputs(start)[0].softmax(dim=0)
        part = slope.T @ (torch.diag(p) - torch.outer(p, p)) @ slope
        assert norms["hessian"][s].item() == pytest.approx(norm_of(whole), rel=1e-9, abs=1e-200)
        assert norms["gauss_newton"][s].item() == pytest.approx(norm_of(part), rel=1e-9, abs=1e-200)
    assert (norms["hessian"] > 1e-12).sum() >= 2


def attended(x, query, key, value):
    return functional.softmax(x @ query @ (x @ key).T / math.sqrt(query.shape[1]), dim=1) @ (x @ value)


def blocked(x, query, key, value, first, second):
    y = functional.layer_norm(x + attended(x, query, key, value), x.shape[1:], eps=0.0)
    return functional.layer_norm(y + functional.relu(y @ first) @ second, x.shape[1:], eps=0.0)


@pytest.mark.parametrize(
    ("family", "names", "output"),
    [(AttentionFamily(3, 3, 2, 0), "QKV", attended), (BlockFamily(2, 3, 2, 3, 0), "QKV12", blocked)],
)
def test_norms_of_attention_and_of_blocks_are_those_of_dense_matrices(family, names, output):
    state = family.draw(3, stream(5)) | family.train(3, stream(5))
    norms = family.norms(state)
    for s in range(3):
        x, target = state["X"][s], state["target"][s]
        loss, start = dense(
            lambda *own, x=x, target=target: functional.mse_loss(output(x, *own), target),
            [state[name][s] for name in names],
        )
        assert norms["hessian"][s].item() == pytest.approx(norm_of(hessian(loss, start)), rel=1e-8)


def test_bounds_without_the_tight_form_are_the_same_bounds(family):
    state = family.draw(5, stream())
    sought, found = family.bounds(state, tight=False), family.bounds(state)
    if isinstance(family, BlockFamily):
        assert [bound.quantity for bound in found] == ["network", "hessian"]
        found = found[1:]  # no adversary seeks the blocks
    for plain, whole in zip(sought, found, strict=True):
        assert (plain.theorem, plain.quantity) == (whole.theorem, whole.quantity)
        assert torch.equal(plain.printed, whole.printed)
        assert torch.equal(plain.corrected, whole.corrected)
        assert plain.tight is None
        assert (whole.tight is None) == isinstance(family, BlockFamily)


def test_without_gradients_blocks_have_the_largest_second_derivative_of_their_outputs():
    family, names = BlockFamily(2, 3, 2, 3, 0), "QKV12"
    state = family.draw(3, stream(5)) | family.train(3, stream(5))
    assert set(family.norms(state)) == {"hessian"}
    with torch.no_grad():
        norms = family.norms(state)
    torch.testing.assert_close(norms["hessian"], family.norms(state)["hessian"])
    for s in range(3):
        weights = tuple(state[name][s] for name in names)
        wholes = [hessian(lambda *own, x=state["X"][s], z=z: blocked(x, *own).flatten()[z], weights) for z in range(6)]
        largest = max(
            torch.linalg.matrix_norm(torch.cat([whole[i][j].reshape(weights[i].numel(), -1) for whole in wholes]), 2)
            for i, j in product(range(5), repeat=2)
        )
        assert norms["network"][s].item() == pytest.approx(largest.item(), rel=1e-8)
