"""Students of eight initialisations: small whole runs, and what the classes promise one by one."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from experiments.chapter4.anti_distillation import INITIALISATIONS, AntiDistillation, Students
from landscape_cli.composing import load
from landscape_cli.rng import generator

FEW = ("measure.teacher_epochs=2", "measure.teacher_early_epochs=1", "measure.grow_epochs=1", "training.epochs=2")
TINY = ("experiment=anti_distillation_digits", "model.hidden=[12,10]", "measure.teacher_hidden=[8,6]", *FEW)


@pytest.fixture
def run(landscape, small, tmp_path):
    def go(*words):
        finished = landscape("run", *TINY, *small, *words)
        return finished, tmp_path / "outputs"

    return go


def frames(outputs, name):
    return [pd.read_parquet(path) for path in sorted(outputs.glob(f"results/AntiDistillation/*/{name}.parquet"))]


def test_every_initialisation_is_followed_and_tried(run):
    finished, outputs = run("grid.train_size=[100]", "measure.search_sizes=[60]")
    assert finished.code == 0, finished.err
    epochs, attack, noise = (pd.concat(frames(outputs, name)) for name in ("epochs", "attack", "noise"))
    compared = epochs[epochs["initialisation"] != "xavier"]
    assert set(epochs["initialisation"]) == set(INITIALISATIONS)
    assert compared.groupby(["initialisation", "seed"])["epoch"].apply(list).map(lambda e: e == [0, 1, 2]).all()
    assert epochs["accuracy"].between(0, 1).all()
    last = epochs[epochs["epoch"] == 2].groupby(["initialisation", "seed"])["accuracy"].apply(sorted)
    for frame in (attack, noise):  # without any attack or noise it is the accuracy after the last epoch
        none = frame[frame["strength"] == 0].groupby(["initialisation", "seed"])["accuracy"].apply(sorted)
        assert none.equals(last)
    assert (attack.groupby("strength")["accuracy"].mean().diff().dropna() <= 0).all()
    sizes = pd.read_csv(next(outputs.glob("tables/*/*_train_sizes.csv")))
    assert sizes["train_objects"].tolist() == [60, 100]


def test_the_same_run_gives_the_same_numbers_and_seeds_are_independent(run, tmp_path):
    words = ("grid.train_size=[80]", "measure.search_sizes=[]", "measure.initialisations=[net2net,anti_distillation]")
    run(*words, "seeds=2")
    (first,) = frames(tmp_path / "outputs", "epochs")
    for path in tmp_path.glob("outputs/results/AntiDistillation/*"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    run(*words, "seeds=2")
    (again,) = frames(tmp_path / "outputs", "epochs")
    pd.testing.assert_frame_equal(first, again)
    run(*words, "seeds=1", "seed=1")
    alone = next(f for f in frames(tmp_path / "outputs", "epochs") if set(f["seed"]) == {1})
    both = first[first["seed"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.reset_index(drop=True), both, atol=0.03)  # a test object or two, by rounding


@pytest.fixture
def students():
    """Teachers and students on drawn pictures of six classes, and what they were made from."""
    config = load(
        [*TINY, "profile=smoke", "grid.train_size=[90]", "measure.search_sizes=[]", "measure.shared_classes=3"]
    )
    (point,) = AntiDistillation(config).points()
    draw = torch.Generator().manual_seed(3)
    y = torch.arange(120) % 6
    x = torch.rand(120, 1, 3, 3, generator=draw) + torch.nn.functional.one_hot(y, 9).view(120, 1, 3, 3)
    data = SimpleNamespace(
        x_train=x[:90], y_train=y[:90], x_test=x[90:], y_test=y[90:], source=SimpleNamespace(classes=6)
    )
    made = Students(point, data)
    made.u = made.initial(made.teacher, "teacher")
    return made


def test_transfer_learning_holds_all_but_the_head(students):
    from landscape_cli.training import Trainer

    start = students.grown("transfer_learning")
    head = [name for name in start if start[name].shape != students.u[name].shape]
    assert head == ["4.weight", "4.bias"]
    for name in set(start) - set(head):
        assert torch.equal(start[name], students.u[name])
    free = students.head_only(students.small)
    assert {name: bool(mask.all()) for name, mask in free.items()} == {name: name in head for name in start}
    assert not any(free[name].any() for name in set(start) - set(head))
    given = {"seeds": students.seeds, "epochs": 3, "batch_size": 32, "learning_rate": 1e-2, "start": start}
    trainer = Trainer(students.small, students.x, students.y, **given)
    trainer.free = free
    for _ in range(3):
        trainer.epoch()
    for name in set(start) - set(head):
        assert torch.equal(trainer.parameters[name], students.u[name])
    assert not torch.equal(trainer.parameters["4.weight"], start["4.weight"])


def test_transfer_learning_frees_all_after_the_frozen_epochs(students, monkeypatch):
    from landscape_cli.training import Trainer

    seen = []
    monkeypatch.setattr(Trainer, "epoch", lambda self: seen.append(self.free is None))
    students.options["frozen_epochs"], students.training["epochs"] = 3, 5
    students.train("transfer_learning")
    assert seen == [False, False, False, True, True]
    seen.clear()
    students.train("net2net")
    assert seen == [True] * 5


@pytest.mark.parametrize("name", ["zero_pad", "net2net"])
def test_the_teachers_function_is_kept_on_its_classes(students, name):
    students.u = {n: t.double() for n, t in students.u.items()}
    students.x = students.x.double()
    grown = students.grown(name)
    expected = students.teacher.forward(students.u, students.x[None])
    found = students.student.forward({n: t.double() for n, t in grown.items()}, students.x[None])
    torch.testing.assert_close(found[..., :3], expected, rtol=1e-10, atol=1e-10)


def test_students_of_other_initialisations(students):
    fresh = students.initial(students.student, "student")
    assert all(torch.equal(t, fresh[n]) for n, t in students.grown("xavier").items())
    uniform = students.grown("uniform_pad")
    assert torch.equal(uniform["0.weight"][:, :8], students.u["0.weight"])
    assert torch.equal(uniform["0.weight"][:, 8:], fresh["0.weight"][:, 8:])
    for name in ("data_noise", "anti_distillation_no_trace", "anti_distillation"):
        grown = students.grown(name)
        assert {n: t.shape for n, t in grown.items()} == {n: t.shape for n, t in fresh.items()}
        assert not torch.equal(grown["0.weight"], fresh["0.weight"])


def test_a_heavy_weight_on_the_teacher_brings_the_student_to_it(students):
    from landscape_cli.distillation.growing import project

    def apart(lambdas):
        students.options |= {"lambdas": lambdas, "grow_epochs": 40}
        students.training["learning_rate"] = 1e-2
        grown = project(students.grown("anti_distillation"), students.u)
        return sum(float((grown[n] - t).square().sum()) for n, t in students.u.items())

    assert apart([1.0, 10.0, 0.0, 0.0]) < 0.1 * apart([1.0, 0.0, 0.0, 0.0])


def test_attacks_and_noise_are_those_of_the_engine(students):
    from landscape_cli.distillation.attacks import fgsm, noisy_parameters

    trained, _ = students.train("xavier")
    x, y = students.shared_test
    labels = y.expand(len(students.seeds), -1)
    moved = fgsm(students.student, trained, x, labels, 0.2, students.limits)
    expected = (students.student.forward(trained, moved).argmax(dim=-1) == labels).double().mean(dim=1)
    torch.testing.assert_close(students.under_attack("xavier", trained, 0.2), expected)
    draw = [generator(seed, "parameter noise", students.point.stream) for seed in students.seeds]
    noisy = noisy_parameters(trained, 0.1, draw)
    expected = (students.student.forward(noisy, x).argmax(dim=-1) == labels).double().mean(dim=1)
    torch.testing.assert_close(students.under_noise("xavier", trained, 0.1), expected)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("model.hidden=[12,4]",), "model.hidden: 4 in hidden layer 2, the teacher has 6"),
        (("model.hidden=[12]",), "allowed: equally many layers"),
        (("measure.lambdas=[1,-0.1,1,0]",), "measure.lambdas: -0.1; allowed: 0 or more"),
        (("measure.lambdas=[1,1]",), "allowed: 4 numbers"),
        (("measure.attack=[0,-0.1]",), "measure.attack: -0.1; allowed: 0 or more"),
        (("measure.parameter_noise=[0.1,0.2]",), "allowed: numbers that rise from 0"),
        (("grid.train_size=[3]",), "lack class"),
        (("measure.shared_classes=10",), "allowed: fewer than all"),
        (("grid.train_size=[1000]", "dataset.train_size=200"), "allowed: up to"),
        (("measure.initialisations=[xavierr]",), "measure.initialisations: 'xavierr'"),
        (("+grid.radius=[0.1]",), "allowed axes: train_size"),
        (("measure.initialisations=[xavier,xavier]",), "xavier twice"),
    ],
)
def test_bad_input_is_refused_in_one_line(landscape, small, words, says):
    given = [word for word in TINY if not any(word.split("=")[0] == own.split("=")[0] for own in words)]
    landscape("run", *given, *small, *words).assert_refused(2, says)


def test_the_search_finds_weights_that_can_be_given(landscape, small, tmp_path):
    words = [word.replace("anti_distillation_digits", "anti_distillation_search_fashion_mnist") for word in TINY]
    words += ["measure.trials=4", "measure.train_size=60"]
    finished = landscape("run", *words, *small)
    assert finished.code == 0, finished.err
    found = {frame["study"].iloc[0]: frame for frame in map(_with_study, tmp_path.glob("outputs/results/*/*"))}
    assert set(found) == {"anti_distillation", "anti_distillation_no_trace"}
    for study, frame in found.items():
        assert frame["trial"].tolist() == [0, 1, 2, 3]
        assert (frame["trace"] > 0).all() == (study == "anti_distillation")
        assert frame[["loss", "teacher", "noise"]].stack().between(1e-4, 10).all()
        best = frame.loc[frame["accuracy"].idxmax()]
        option = "measure.lambdas" if study == "anti_distillation" else "measure.lambdas_no_trace"
        line = next(line for line in finished.out.splitlines() if f"{option}=[" in line)
        values = [float(value) for value in line.split("[")[1].split("]")[0].split(",")]
        names = ["loss", "teacher", "noise", "trace"][: len(values)]
        assert values == pytest.approx([best[name] for name in names], rel=0.01)


def _with_study(folder):
    import json

    coordinates = json.loads((folder / "point.json").read_text())["coordinates"]
    return pd.read_parquet(folder / "trials.parquet").assign(study=coordinates["study"])
