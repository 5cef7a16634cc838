"""The loss of distillation and its gradients, beside closed forms, differences in float64 and ordinary modules."""

import math
from dataclasses import asdict

import pytest
import torch
from torch.nn import functional

from landscape_cli.config import MODELS
from landscape_cli.distillation.losses import Distilled, check_classes, distillation_losses, gradients_of, soft_labels
from landscape_cli.errors import BadInput
from landscape_cli.models import build_model
from landscape_cli.rng import generator
from landscape_cli.training import fit

OBJECTS, CLASSES, SEEDS = 7, 4, 2
SHAPE = (2, 8, 8)
CASES = [(0.0, 1.0), (0.3, 1.0), (0.5, 2.5), (0.0, 0.4), (1.0, 3.0)]
STUDENTS = {
    "lenet": {"kind": "lenet", "channels": [3, 4], "kernel_sizes": [3, 2], "hidden": [5]},
    "lenet in tasks": {"kind": "lenet", "channels": [3, 4], "kernel_sizes": [3, 2], "hidden": [5]},
    "mlp": {"kind": "mlp", "hidden_size": 6, "num_layers": 1, "bias": True},
    "feedforward": {"kind": "feedforward", "hidden": [6, 5], "activation": "tanh"},
    "vit": {"kind": "vit", "patch_size": 4, "hidden_size": 4, "num_layers": 1, "num_heads": 2, "bias": True},
    "conv2d": {"kind": "conv2d", "num_layers": 2, "channels": 3, "kernel_size": 3, "position": 1},
    "conv1d": {"kind": "conv1d", "num_layers": 2, "channels": 3, "kernel_size": 2, "head": [5]},
}


def drawn(seed=0, objects=OBJECTS):
    """Logits of a student and of a teacher, and classes."""
    draw = torch.Generator().manual_seed(seed)
    logits, teacher = (3 * torch.randn(objects, CLASSES, generator=draw, dtype=torch.float64) for _ in range(2))
    return logits, teacher, torch.randint(CLASSES, (objects,), generator=draw)


def probabilities(logits, temperature=1.0):
    """Softmax by its definition."""
    powers = (logits / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def by_hand(logits, y, teacher, weight, temperature):
    """The sums over classes of thesis 4.2, object by object."""
    found = []
    for own, label, soft in zip(logits, y, teacher, strict=True):
        g, cooled = probabilities(own), probabilities(own, temperature)
        hard = sum((r == int(label)) * math.log(g[r]) for r in range(CLASSES))
        told = sum(float(soft[r]) * math.log(cooled[r]) for r in range(CLASSES))
        found.append(-weight * hard - (1 - weight) * told)
    return torch.tensor(found, dtype=torch.float64)


class TestLosses:
    @pytest.mark.parametrize(("weight", "temperature"), CASES)
    def test_are_the_sums_over_classes(self, weight, temperature):
        logits, teacher, y = drawn()
        soft = probabilities(teacher, temperature)
        found = distillation_losses(logits, y, soft, weight=weight, temperature=temperature)
        assert found.shape == (OBJECTS,)
        torch.testing.assert_close(found, by_hand(logits, y, soft, weight, temperature), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("temperature", [1.0, 0.5, 7.0])
    def test_with_labels_alone_are_cross_entropy_exactly(self, temperature):
        logits, teacher, y = drawn(1)
        expected = functional.cross_entropy(logits, y, reduction="none")
        unused = (soft_labels(teacher), torch.full_like(teacher, math.nan), teacher[:, :2])
        for soft in unused:
            assert torch.equal(distillation_losses(logits, y, soft, weight=1, temperature=temperature), expected)

    @pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
    def test_of_an_own_teacher_are_the_entropy(self, temperature):
        logits, _, y = drawn(2)
        given = {"weight": 0.0, "temperature": temperature}
        found = distillation_losses(logits, y, soft_labels(logits, temperature), **given)
        expected = torch.distributions.Categorical(logits=logits / temperature).entropy()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        soft = soft_labels(drawn(2)[1], temperature)  # another teacher's answers cost more than their entropy (Gibbs)
        entropy = torch.distributions.Categorical(probs=soft).entropy()
        assert (distillation_losses(logits, y, soft, **given) > entropy).all()

    def test_basic_loss_of_the_thesis_is_twice_that_at_one_half(self):
        logits, teacher, y = drawn(3)
        cold = 5.0
        basic = functional.cross_entropy(logits, y, reduction="none")
        basic = basic - (probabilities(teacher, cold) * probabilities(logits, cold).log()).sum(dim=1)
        half = distillation_losses(logits, y, soft_labels(teacher, cold), weight=0.5, temperature=cold)
        torch.testing.assert_close(2 * half, basic, rtol=1e-12, atol=1e-12)

    def test_a_teacher_that_is_certain_is_a_label(self):
        logits, _, y = drawn(4)
        certain = functional.one_hot(y, CLASSES).double()
        expected = functional.cross_entropy(logits, y, reduction="none")
        for weight in (0.0, 0.25, 0.8):
            torch.testing.assert_close(distillation_losses(logits, y, certain, weight=weight), expected)

    def test_a_class_without_probability_costs_nothing_however_small_the_students(self):
        logits = torch.tensor([[0.0, -300.0, 0.0]])
        soft = torch.tensor([[0.5, 0.0, 0.5]])
        found = distillation_losses(logits, torch.tensor([0]), soft, weight=0.0)
        torch.testing.assert_close(found, torch.tensor([math.log(2)]))


class TestGradients:
    @pytest.mark.parametrize(("weight", "temperature"), CASES)
    def test_are_those_of_differences(self, weight, temperature):
        logits, teacher, y = drawn(5, objects=3)
        soft, given = probabilities(teacher, temperature), {"weight": weight, "temperature": temperature}
        logits.requires_grad_()
        assert torch.autograd.gradcheck(lambda v: distillation_losses(v, y, soft, **given), (logits,))
        (found,) = torch.autograd.grad(distillation_losses(logits, y, soft, **given).sum(), logits)
        step, expected = 1e-5, torch.empty_like(logits)
        for place in torch.cartesian_prod(torch.arange(3), torch.arange(CLASSES)):
            moved = torch.zeros_like(logits)
            moved[tuple(place)] = step
            ends = [by_hand(logits.detach() + s * moved, y, soft, weight, temperature).sum() for s in (1, -1)]
            expected[tuple(place)] = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)

    @pytest.mark.parametrize(("weight", "temperature"), CASES)
    def test_are_the_closed_form(self, weight, temperature):
        """∂L/∂z = λ (g - 1[y]) + (1 - λ) (g_T - f) / T."""
        logits, teacher, y = drawn(6)
        soft = probabilities(teacher, temperature)
        logits.requires_grad_()
        loss = distillation_losses(logits, y, soft, weight=weight, temperature=temperature).sum()
        (found,) = torch.autograd.grad(loss, logits)
        hard = probabilities(logits) - functional.one_hot(y, CLASSES)
        told = (probabilities(logits, temperature) - soft) / temperature
        torch.testing.assert_close(found, weight * hard + (1 - weight) * told, rtol=1e-10, atol=1e-12)


class TestSoftLabels:
    def test_are_the_softmax_of_cooled_logits(self):
        _, teacher, _ = drawn(7)
        for temperature in (0.2, 1.0, 6.0):
            stacked = torch.stack([teacher, -teacher])
            found = soft_labels(stacked, temperature)
            torch.testing.assert_close(found, probabilities(stacked, temperature), rtol=1e-12, atol=1e-15)
        assert torch.equal(soft_labels(teacher), soft_labels(teacher, 1.0))

    def test_go_from_the_best_class_to_none(self):
        _, teacher, _ = drawn(8)
        cold, hot = soft_labels(teacher, 1e-3), soft_labels(teacher, 1e9)
        torch.testing.assert_close(cold, functional.one_hot(teacher.argmax(dim=1), CLASSES).double())
        torch.testing.assert_close(hot, torch.full_like(hot, 1 / CLASSES))

    def test_do_not_overflow(self):
        assert torch.equal(soft_labels(torch.tensor([1e4, 0.0])), torch.tensor([1.0, 0.0]))


class TestRefusals:
    def test_other_classes(self):
        logits, teacher, y = drawn()
        with pytest.raises(BadInput, match=r"teacher: 3 classes.* student has 4;"):
            distillation_losses(logits, y, teacher[:, :3], weight=0.5)
        with pytest.raises(BadInput, match=r"teacher: 10 classes.* student has 9;") as raised:
            check_classes(10, 9)
        assert raised.value.exit_code == 2

    @pytest.mark.parametrize("weight", [-0.1, 1.0000001, math.nan, math.inf, -math.inf])
    def test_weight(self, weight):
        logits, teacher, y = drawn()
        self.refused(f"weight: .*{weight}", lambda: distillation_losses(logits, y, teacher, weight=weight))
        self.refused(f"weight: .*{weight}", lambda: Distilled(self.student(), y, teacher[None], weight))

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, -math.inf])
    def test_temperature(self, temperature):
        logits, teacher, y = drawn()
        says = f"temperature: .*{temperature}"
        for weight in (0.5, 1.0):
            given = {"weight": weight, "temperature": temperature}
            self.refused(says, lambda given=given: distillation_losses(logits, y, teacher, **given))
        self.refused(says, lambda: soft_labels(teacher, temperature))
        self.refused(says, lambda: Distilled(self.student(), y, teacher[None], 0.5, temperature))

    @staticmethod
    def student():
        return built("feedforward")

    @staticmethod
    def refused(says, call):
        with pytest.raises(BadInput, match=f"^{says}") as raised:
            call()
        assert raised.value.exit_code == 2
        assert "\n" not in str(raised.value)


def built(kind):
    given = STUDENTS[kind]
    student = build_model(asdict(MODELS[given["kind"]](**given)), SHAPE, CLASSES)
    if kind == "lenet in tasks":
        student.small = False  # as of larger pictures, each seed's and part's gradient by itself
    return student


def problem(kind, shared):
    """A student of float64, train objects, classes, soft labels, and a minibatch of its own a seed."""
    student = built(kind)
    generators = [generator(seed, "test") for seed in range(SEEDS)]
    parameters = {name: 2 * tensor.double() for name, tensor in student.initialise(generators).items()}
    draw = torch.Generator().manual_seed(11)
    x = torch.randn(40, *SHAPE, generator=draw, dtype=torch.float64)
    y = torch.randint(CLASSES, (40,), generator=draw)
    teachers = torch.randn(1 if shared else SEEDS, 40, CLASSES, generator=draw, dtype=torch.float64)
    rows = torch.stack([torch.randperm(40, generator=draw)[:35] for _ in range(SEEDS)])  # more than a task's 32
    return student, parameters, x, y, teachers.mul(2), rows


@pytest.mark.parametrize("kind", STUDENTS)
@pytest.mark.parametrize(("shared", "weight", "temperature"), [(True, 0.3, 2.0), (False, 0.6, 1.0), (False, 0.0, 0.5)])
def test_distilled_gradients_are_those_of_ordinary_modules(kind, shared, weight, temperature):
    student, parameters, x, y, teachers, rows = problem(kind, shared)
    model = Distilled(student, y, probabilities(teachers, temperature), weight, temperature)
    found = model.gradients(parameters, x[rows], rows)
    assert found.keys() == parameters.keys()
    for seed, own in enumerate(rows):
        net = model.module(parameters, seed)
        logits = net(x[own])
        soft = probabilities(teachers[0 if shared else seed, own], temperature)
        hard = functional.cross_entropy(logits, y[own])
        told = -(soft * (logits / temperature).log_softmax(dim=1)).sum(dim=1).mean()
        (weight * hard + (1 - weight) * told).backward()
        for name, parameter in net.named_parameters():
            assert name.endswith("key.bias") or parameter.grad.abs().max() > 1e-6, name  # one that moves no softmax
            message = f"{name}, seed {seed}"
            torch.testing.assert_close(
                found[name][seed], parameter.grad, rtol=0, atol=1e-12, msg=lambda text, m=message: f"{m}\n{text}"
            )
    assert not any(tensor.requires_grad for tensor in (*found.values(), *parameters.values()))


@pytest.mark.parametrize("kind", STUDENTS)
def test_with_labels_alone_gradients_are_the_students(kind):
    student, parameters, x, y, teachers, rows = problem(kind, shared=False)
    model = Distilled(student, y, teachers, 1.0)
    expected = student.gradients(parameters, x[rows], y[rows])
    for name, tensor in model.gradients(parameters, x[rows], rows).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", STUDENTS)
def test_gradients_of_shared_objects(kind):
    """One minibatch for all seeds, and a loss that differs between them and between objects."""
    student, parameters, x, y, _, _ = problem(kind, shared=True)
    factor = torch.linspace(-1, 2, len(x), dtype=torch.float64)

    def loss(logits, seed, part):
        return ((seed + 1) * factor[part] * functional.cross_entropy(logits, y[part], reduction="none")).sum()

    found = gradients_of(student, parameters, x[None], loss)
    for seed in range(SEEDS):
        net = student.module(parameters, seed)
        loss(net(x), seed, slice(0, len(x))).backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(found[name][seed], parameter.grad, rtol=1e-10, atol=1e-11)


def test_initialises_and_runs_as_the_student():
    student, parameters, x, y, teachers, _ = problem("lenet", shared=True)
    model = Distilled(student, y, teachers, 0.5)
    drawn_twice = [it.initialise([generator(seed, "again") for seed in (4, 9)]) for it in (model, student)]
    assert all(torch.equal(tensor, drawn_twice[1][name]) for name, tensor in drawn_twice[0].items())
    assert torch.equal(model.forward(parameters, x[None]), student.forward(parameters, x[None]))
    assert model.chunk == student.chunk


def test_training_minimises_the_loss():
    """A linear student with soft labels alone: the stationary point has the teacher's mean features."""
    student = build_model(asdict(MODELS["feedforward"](hidden=[], bias=True)), (3, 1, 1), CLASSES)
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 3, 1, 1, generator=draw), torch.zeros(60, dtype=torch.long)
    truth = torch.randn(CLASSES, 3, generator=draw)
    soft = (x.flatten(1) @ truth.T).softmax(dim=1)
    model = Distilled(student, y, soft[None], 0.0)
    options = {"epochs": 300, "batch_size": 60, "learning_rate": 0.1}
    trained = fit(model, x, torch.arange(60), seeds=[0, 1], **options)
    for answers in student.forward(trained, x[None]).softmax(dim=2):
        torch.testing.assert_close(answers, soft, rtol=0, atol=0.01)
