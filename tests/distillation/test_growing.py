"""Larger students that compute what their teachers do, and what is put beside the teachers."""

import pytest
import torch

from landscape_cli.distillation.growing import check_growth, net2net, padded, project, zero_padded
from landscape_cli.errors import BadInput
from landscape_cli.models.mlp import FeedForward
from landscape_cli.rng import generator

NETWORKS, FEATURES, SHARED, CLASSES = 3, 6, 2, 5


def drawn(hidden, classes, purpose, activation="relu", bias=True):
    model = FeedForward(FEATURES, classes, hidden, activation, bias)
    parameters = model.initialise([generator(seed, purpose) for seed in range(NETWORKS)])
    return model, {name: 2 * tensor.double() for name, tensor in parameters.items()}


@pytest.fixture(params=[("relu", True), ("tanh", False)], ids=["relu with biases", "tanh without"])
def pair(request):
    """A teacher and a larger student, with its initialisation."""
    teacher, u = drawn([4, 3], SHARED, "teacher", *request.param)
    student, w = drawn([9, 5], CLASSES, "student", *request.param)
    check_growth(teacher, student)
    return teacher, u, student, w


@pytest.fixture
def x():
    return torch.randn(1, 40, FEATURES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_zero_pad_is_the_teacher_on_its_classes(pair, x):
    teacher, u, student, w = pair
    outputs = student.forward(zero_padded(u, w), x)
    torch.testing.assert_close(outputs[..., :SHARED], teacher.forward(u, x), rtol=0, atol=1e-14)
    assert (outputs[..., SHARED:] == 0).all()


def test_net2net_is_the_teacher_on_its_classes(pair, x):
    teacher, u, student, w = pair
    grown = net2net(u, w, [generator(seed, "copies") for seed in range(NETWORKS)])
    assert {name: tensor.shape for name, tensor in grown.items()} == {name: tensor.shape for name, tensor in w.items()}
    outputs = student.forward(grown, x)
    torch.testing.assert_close(outputs[..., :SHARED], teacher.forward(u, x), rtol=1e-12, atol=1e-12)
    assert (outputs[..., SHARED:].std(dim=1) > 0.01).all()  # new classes see the teacher's neurons
    # Every new neuron of the first layer is a copy, and copies differ from network to network.
    rows = grown["0.weight"]
    for network in range(NETWORKS):
        for row in rows[network, 4:]:
            assert (row == u["0.weight"][network]).all(dim=1).any()
    again = net2net(u, w, [generator(seed, "copies") for seed in range(NETWORKS)])
    assert all(torch.equal(again[name], grown[name]) for name in grown)


def test_zero_padded_neurons_never_learn(x):
    _, u = drawn([4, 3], SHARED, "teacher")
    student, w = drawn([9, 5], CLASSES, "student")
    y = torch.randint(CLASSES, (NETWORKS, 40), generator=torch.Generator().manual_seed(2))
    found = student.gradients(zero_padded(u, w), x.expand(NETWORKS, -1, -1), y)
    assert (found["0.weight"][:, 4:] == 0).all()
    assert (found["2.weight"][:, 3:] == 0).all()
    assert (found["2.weight"][:, :, 4:] == 0).all()
    assert (found["4.weight"][:, SHARED:, :3] != 0).any()


def test_padded_keeps_both_in_their_places(pair):
    _, u, _, w = pair
    before = {name: tensor.clone() for name, tensor in w.items()}
    grown = padded(u, w)
    assert all(torch.equal(w[name], before[name]) for name in w)
    back = project(grown, u)
    for name, tensor in u.items():
        assert torch.equal(back[name], tensor)
        outside = torch.ones_like(w[name], dtype=torch.bool)
        outside[(slice(None), *(slice(size) for size in tensor.shape[1:]))] = False
        assert torch.equal(grown[name][outside], w[name][outside])


@pytest.mark.parametrize(
    ("hidden", "classes", "options", "says"),
    [
        ([9, 2], CLASSES, {}, "the student has 2 in hidden layer 2, the teacher 3"),
        ([9, 5], 1, {}, "the student has 1 in outputs, the teacher 2"),
        ([9], CLASSES, {}, "1 hidden layers, and the teacher has 2"),
        ([9, 5], CLASSES, {"bias": False}, "differ in activation or biases"),
        ([9, 5], CLASSES, {"activation": "tanh"}, "differ in activation or biases"),
    ],
)
def test_a_student_that_does_not_hold_the_teacher_is_refused(hidden, classes, options, says):
    teacher, _ = drawn([4, 3], SHARED, "teacher")
    student, _ = drawn(hidden, classes, "student", **options)
    with pytest.raises(BadInput, match=says):
        check_growth(teacher, student)


def test_other_inputs_are_refused():
    with pytest.raises(BadInput, match="takes 6 inputs, the student 7"):
        check_growth(FeedForward(6, 2, [3]), FeedForward(7, 2, [3]))
