"""The composite loss term by term, beside automatic differentiation and closed forms."""

import math

import pytest
import torch
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from landscape_cli.curvature.stacked import flatten, hessian_diagonal, unflatten
from landscape_cli.distillation.anti import Composite, Weights, grow
from landscape_cli.errors import BadInput
from landscape_cli.models.mlp import FeedForward
from landscape_cli.rng import generator

NETWORKS, OBJECTS, FEATURES, CLASSES = 2, 12, 4, 3


def generators(purpose="noise"):
    return [generator(seed, purpose) for seed in range(NETWORKS)]


@pytest.fixture
def setting():
    teacher = FeedForward(FEATURES, 2, [3, 2], bias=True)
    student = FeedForward(FEATURES, CLASSES, [5, 4], bias=True)
    u, w = ({n: t.double() for n, t in model.initialise(generators("start")).items()} for model in (teacher, student))
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(NETWORKS, OBJECTS, FEATURES, generator=draw, dtype=torch.float64)
    y = torch.randint(2, (NETWORKS, OBJECTS), generator=draw)
    return student, u, w, x, y


def by_autograd(loss, w, network):
    vector = flatten(w)[network].clone().requires_grad_()
    own = {name: tensor[0] for name, tensor in unflatten(vector[None], w).items()}
    loss(own).backward()
    return vector.grad


def only(**weights):
    return Weights(**{"loss": 0.0, "teacher": 0.0, "noise": 0.0, "trace": 0.0, **weights})


def test_each_term_has_its_own_gradient(setting):
    student, u, w, x, y = setting
    net = student.module(w, 0)
    for network in range(NETWORKS):

        def plain(own, network=network):
            return cross_entropy(functional_call(net, own, (x[network],)), y[network])

        def apart(own, network=network):
            parts = [
                (own[name][tuple(slice(size) for size in tensor.shape[1:])] - tensor[network]).square().sum()
                for name, tensor in u.items()
            ]
            return torch.stack(parts).sum()

        for weights, loss in ((only(loss=1.5), plain), (only(teacher=0.7), apart)):
            found = Composite(student, u, weights, generators()).gradients(w, x, y)
            scale = weights.loss + weights.teacher
            torch.testing.assert_close(flatten(found)[network], scale * by_autograd(loss, w, network))


def test_noise_is_uniform_around_the_objects(setting):
    student, u, w, x, y = setting
    weights = only(noise=1.0, radius=0.25)
    composite = Composite(student, u, weights, generators())
    shifts = torch.stack([composite.noisy(x) - x for _ in range(400)])
    assert shifts.abs().max() <= 0.25
    assert shifts.min() < -0.249
    assert shifts.max() > 0.249
    assert shifts.mean().abs() < 3 * 0.25 / math.sqrt(3 * shifts.numel())
    assert shifts.std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.01)
    # The term is the plain loss on such objects.
    one, other = (Composite(student, u, weights, generators()) for _ in range(2))
    expected = student.gradients(w, other.noisy(x), y)
    torch.testing.assert_close(flatten(one.gradients(w, x, y)), flatten(expected))


def test_the_trace_term_is_the_gradient_of_the_trace_on_average(setting):
    student, u, w, x, y = setting
    composite = Composite(student, u, only(trace=1.0), generators())
    found = torch.stack([flatten(composite.gradients(w, x, y)) for _ in range(600)])
    error = found.std(dim=0) / math.sqrt(len(found))
    net = student.module(w, 0)
    for network in range(NETWORKS):

        def trace(own, network=network):
            return hessian_trace(net, own, x[network], y[network])

        exact = by_autograd(trace, w, network)
        apart = (found.mean(dim=0)[network] - exact) / error[network].clamp(min=1e-12)
        assert apart.abs().max() < 5
        assert (error[network] < 0.5 * exact.abs().max()).all()


def hessian_trace(net, own, x, y):
    names, shapes = list(own), [tensor.shape for tensor in own.values()]

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        given = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return cross_entropy(functional_call(net, given, (x,)), y)

    return hessian(loss)(torch.cat([tensor.flatten() for tensor in own.values()])).trace()


def test_weights_add_up(setting):
    student, u, w, x, y = setting
    all_weights = Weights(loss=1.0, teacher=0.5, noise=2.0, trace=0.0, radius=0.1)
    found = flatten(Composite(student, u, all_weights, generators()).gradients(w, x, y))
    parts = [only(loss=1.0), only(teacher=0.5), only(noise=2.0, radius=0.1)]
    expected = sum(flatten(Composite(student, u, part, generators()).gradients(w, x, y)) for part in parts)
    torch.testing.assert_close(found, expected)


def test_growing_goes_where_the_weights_say(setting):
    student, u, w, x, y = setting
    given = {"seeds": range(NETWORKS), "epochs": 300, "batch_size": OBJECTS, "learning_rate": 1e-2}
    objects = (x[0], y[0])
    near = grow(student, w, u, only(teacher=1.0), *objects, generators=generators(), **given)
    for name, tensor in u.items():
        index = (slice(None), *(slice(size) for size in tensor.shape[1:]))
        torch.testing.assert_close(near[name][index], tensor, rtol=0, atol=1e-3)
        outside = torch.ones_like(w[name], dtype=torch.bool)
        outside[index] = False
        assert torch.equal(near[name][outside], w[name][outside])
    plain = grow(student, w, u, only(loss=1.0), *objects, generators=generators(), **given)
    flat = grow(student, w, u, only(loss=1.0, trace=0.3), *objects, generators=generators(), **given)
    shared = (x[:1], y[:1])
    assert (
        hessian_diagonal(student, flat, *shared).sum(dim=1) < hessian_diagonal(student, plain, *shared).sum(dim=1)
    ).all()


@pytest.mark.parametrize("name", ["loss", "teacher", "noise", "trace", "radius"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_impossible_weights(name, value):
    with pytest.raises(BadInput, match=rf"{name}: {value}; allowed: 0 or more"):
        only(**{name: value})
