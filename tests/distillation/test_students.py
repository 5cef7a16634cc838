"""Students that are taught: what they are tested on, what they learn, and that seeds are independent."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch.nn import functional

from landscape_cli.config import MODELS
from landscape_cli.distillation.losses import soft_labels
from landscape_cli.distillation.students import evaluate, integral_criterion, taught, train_student
from landscape_cli.errors import BadInput, MeasurementFailed
from landscape_cli.models import build_model
from landscape_cli.rng import generator
from landscape_cli.training import fit

SHAPE, CLASSES, OBJECTS = (1, 6, 6), 3, 40
STUDENTS = {
    "lenet": {"channels": [4], "kernel_sizes": [3], "hidden": [8]},
    "feedforward": {"hidden": [8], "activation": "relu", "bias": True},
    "conv2d": {"num_layers": 2, "channels": 4, "kernel_size": 3},
}
TRAINING = {"epochs": 2, "batch_size": 12, "learning_rate": 1e-2, "stream": "here"}
KINDS = pytest.mark.parametrize("kind", STUDENTS)


def network(kind="lenet"):
    return build_model(asdict(MODELS[kind](**{"kind": kind, **STUDENTS[kind]})), SHAPE, CLASSES)


def initial(model, seeds, stream=""):
    return model.initialise([generator(seed, "initialisation", stream) for seed in seeds])


@pytest.fixture
def data():
    """Pictures, classes that a bright quarter gives away, soft labels of no sense, and test objects."""
    draw = torch.Generator().manual_seed(2)

    def some(number):
        y = torch.randint(CLASSES, (number,), generator=draw)
        x = torch.randn(number, *SHAPE, generator=draw)
        for n, label in enumerate(y.tolist()):
            x[n, 0, 2 * label : 2 * label + 2] += 1.5
        return x, y

    x, y = some(OBJECTS)
    teacher = torch.randn(2, OBJECTS, CLASSES, generator=draw).softmax(dim=-1)
    return x, y, teacher, some(25)


def directly(model, parameters, seed, x, y):
    """Accuracy and mean cross-entropy of one seed, object by object."""
    net = model.module({name: tensor.double() for name, tensor in parameters.items()}, seed)
    right, loss = 0, 0.0
    for picture, label in zip(x.double(), y, strict=True):
        logits = net(picture[None])[0].detach()
        right += int(logits.argmax()) == int(label)
        loss -= float(logits[label] - logits.exp().sum().log())
    return right / len(x), loss / len(x)


class TestEvaluate:
    @KINDS
    @pytest.mark.parametrize("chunk", [25, 7, 1, 1000])
    def test_is_the_mean_over_objects(self, data, monkeypatch, kind, chunk):
        x, y = data[-1]
        model = network(kind)
        monkeypatch.setattr(model, "chunk", chunk)
        parameters = {name: 3 * tensor for name, tensor in initial(model, (0, 1, 2)).items()}
        found = evaluate(model, parameters, x, y)
        assert found.shape == (2, 3)
        assert found.dtype == torch.float64
        for seed in range(3):
            assert found[:, seed].tolist() == pytest.approx(directly(model, parameters, seed, x, y), abs=1e-5)
        assert len(set(found[1].tolist())) == 3

    def test_of_known_answers(self):
        """Two of three right, with probability p each; the third wrong, with the rest."""

        class Known:
            chunk = 2

            def forward(self, parameters, x):
                return (torch.tensor([[0.8, 0.2]]).log() * x.flatten(2)[..., :1]) * parameters["a"][:, None, None]

        y, x = torch.tensor([0, 0, 1]), torch.ones(3, 1, 1, 1)
        found = evaluate(Known(), {"a": torch.tensor([1.0, 0.0])}, x, y)
        assert found[0, 0] == pytest.approx(2 / 3)
        expected = [-(2 * np.log(0.8) + np.log(0.2)) / 3, np.log(2)]
        assert found[1].tolist() == pytest.approx(expected, abs=1e-6)


class TestTaught:
    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    @pytest.mark.parametrize("chunk", [9, 100])
    def test_is_the_softmax_of_the_modules_logits(self, data, monkeypatch, temperature, chunk):
        x, model = data[0], network()
        monkeypatch.setattr(model, "chunk", chunk)
        parameters = {name: 3 * tensor for name, tensor in initial(model, (0, 1)).items()}
        found = taught(model, parameters, x, temperature)
        assert found.shape == (2, OBJECTS, CLASSES)
        for seed in range(2):
            expected = (model.module(parameters, seed)(x).detach() / temperature).softmax(dim=1)
            torch.testing.assert_close(found[seed], expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found[0], found[1], atol=1e-3)


class TestIntegralCriterion:
    def test_is_numpys_trapezoid(self):
        losses = torch.rand(9, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = integral_criterion(losses)
        assert found.shape == (2, 4)
        np.testing.assert_allclose(found.numpy(), np.trapezoid(losses.numpy(), axis=0), rtol=1e-14)

    def test_of_a_linear_decay_is_the_trapezium(self):
        losses = torch.linspace(5.0, 1.0, 15, dtype=torch.float64)[:, None]
        assert float(integral_criterion(losses)) == pytest.approx(14 * (5 + 1) / 2)
        assert float(integral_criterion(torch.full((15, 1), 2.0))) == pytest.approx(28.0)

    def test_of_one_epoch_is_none(self):
        assert integral_criterion(torch.tensor([[2.0, 3.0]])).tolist() == [0.0, 0.0]


class TestTraining:
    @KINDS
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_with_labels_alone_is_that_of_classes(self, data, kind, temperature):
        x, y, teacher, test = data
        given = {"weight": 1.0, "temperature": temperature, "seeds": [3, 5], **TRAINING}
        found, history = train_student(network(kind), x, y, teacher, test, **given)
        expected = fit(network(kind), x, y, seeds=[3, 5], **TRAINING)
        start = initial(network(kind), (3, 5), "here")
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)
            assert (tensor - start[name]).abs().max() > 1e-2
        torch.testing.assert_close(history[:, -1], evaluate(network(kind), expected, *test), rtol=0, atol=1e-4)

    @KINDS
    def test_is_tested_before_the_first_epoch_and_after_each(self, data, kind):
        x, y, teacher, test = data
        model, given = network(kind), {"weight": 0.5, "temperature": 2.0, "seeds": [0, 1]}
        found, history = train_student(model, x, y, teacher, test, **given, **TRAINING)
        assert history.shape == (2, 3, 2)
        assert history.dtype == torch.float64
        assert torch.equal(history[:, 0], evaluate(model, initial(model, (0, 1), "here"), *test))
        assert torch.equal(history[:, 2], evaluate(model, found, *test))
        once, shorter = train_student(model, x, y, teacher, test, **given, **{**TRAINING, "epochs": 1})
        torch.testing.assert_close(history[:, :2], shorter, rtol=0, atol=1e-12)
        assert torch.equal(history[:, 1], evaluate(model, once, *test))

    def test_without_epochs_leaves_the_student_as_it_was(self, data):
        x, y, teacher, test = data
        given = {"weight": 0.5, "temperature": 1.0, "seeds": [4], **TRAINING, "epochs": 0}
        found, history = train_student(network(), x, y, teacher, test, **given)
        start = initial(network(), [4], "here")
        assert all(torch.equal(tensor, start[name]) for name, tensor in found.items())
        assert history.shape == (2, 1, 1)

    @KINDS
    def test_each_seed_is_as_alone(self, data, kind):
        x, y, teacher, test = data
        given = {"weight": 0.4, "temperature": 2.0, **TRAINING}
        together, history = train_student(network(kind), x, y, teacher, test, seeds=[0, 1], **given)
        for place, seed in enumerate((0, 1)):
            own = teacher[place : place + 1]
            alone, curve = train_student(network(kind), x, y, own, test, seeds=[seed], **given)
            for name, tensor in alone.items():
                torch.testing.assert_close(together[name][place], tensor[0], rtol=0, atol=2e-5)
            torch.testing.assert_close(history[..., place], curve[..., 0], rtol=0, atol=1e-4)

    def test_every_object_keeps_its_own_soft_label_in_a_minibatch(self, data):
        """With a teacher certain of y the loss is that of y, whatever the λ: objects must not be mixed up."""
        x, y, _, test = data
        certain = functional.one_hot(y, CLASSES).float()[None]
        expected = fit(network(), x, y, seeds=[0, 1], **TRAINING)
        for weight in (0.0, 0.5):
            given = {"weight": weight, "temperature": 1.0, "seeds": [0, 1], **TRAINING}
            found, _ = train_student(network(), x, y, certain, test, **given)
            for name, tensor in expected.items():
                torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)

    def test_a_teachers_answers_are_learnt_without_labels(self):
        """Random pictures and labels of no sense: at λ = 0 the teacher alone is followed, each seed its own."""
        model = build_model(asdict(MODELS["feedforward"](hidden=[], bias=True)), (4, 1, 1), CLASSES)
        draw = torch.Generator().manual_seed(1)
        x, unseen = (torch.randn(n, 4, 1, 1, generator=draw) for n in (150, 300))
        noise = torch.randint(CLASSES, (150,), generator=draw)
        perfect = {name: 4 * tensor for name, tensor in initial(model, (8, 9), "a teacher").items()}
        soft = taught(model, perfect, x)
        labels = model.forward(perfect, unseen[None]).argmax(dim=-1)
        assert not torch.equal(labels[0], labels[1])
        given = {"weight": 0.0, "temperature": 1.0, "seeds": [0, 1], "batch_size": 30, "learning_rate": 0.1}
        found, history = train_student(model, x, noise, soft, (unseen, labels[0]), epochs=40, **given)
        answers = model.forward(found, unseen[None]).argmax(dim=-1)
        agreement = (answers == labels).double().mean(dim=1)
        assert (agreement > 0.97).all()
        assert history[0, -1, 0] == agreement[0]
        assert history[0, -1, 1] == (answers[1] == labels[0]).double().mean()
        cross = soft_labels(model.forward(found, x[None]))
        torch.testing.assert_close(cross, soft, rtol=0, atol=0.05)

    def test_a_teacher_of_other_classes_is_refused(self, data):
        x, y, teacher, test = data
        given = {"weight": 0.5, "temperature": 1.0, "seeds": [0, 1], **TRAINING}
        with pytest.raises(BadInput, match=r"teacher: 2 classes.* 3;"):
            train_student(network(), x, y, teacher[..., :2], test, **given)

    def test_one_that_diverges_is_an_error(self, data):
        x, y, teacher, test = data
        given = {"weight": 0.5, "temperature": 1.0, "seeds": [0, 1], **TRAINING, "learning_rate": 1e38}
        with pytest.raises(MeasurementFailed, match="diverged"):
            train_student(network(), x, y, teacher, test, **given)
