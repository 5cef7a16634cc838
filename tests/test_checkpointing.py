"""Trainings that are killed and go on: what they come to is, to the byte, what an undisturbed one comes to."""

import errno
import random
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from landscape_cli import checkpointing, parallel
from landscape_cli.checkpointing import Loop, checkpoints_in, resumed
from landscape_cli.composing import load
from landscape_cli.data.corpora import load_corpus
from landscape_cli.data.images import load_images
from landscape_cli.data.tabular import load_table
from landscape_cli.descent import descend, settle
from landscape_cli.distillation.anti import Composite, Weights, grow
from landscape_cli.distillation.translators import Sentences, train_translators, uniform
from landscape_cli.experiment import Context
from landscape_cli.features.extract import load_features
from landscape_cli.models.encoder_decoder import EncoderDecoder
from landscape_cli.models.mlp import FeedForward
from landscape_cli.plan import make_plan
from landscape_cli.pruning.gradients import GradientCovariance
from landscape_cli.pruning.posterior import fit_posterior
from landscape_cli.rng import generator
from landscape_cli.training import Trainer, fit

CPU = torch.device("cpu")
SEEDS, OBJECTS = (0, 5), 50
SETTINGS = {"seeds": SEEDS, "epochs": 4, "batch_size": 16, "learning_rate": 1e-2, "stream": "point"}


class Killed(BaseException):
    """In the place of a signal: nothing in the project catches it."""


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(3)
    return torch.randn(OBJECTS, 1, 8, 8, generator=draw), torch.randint(3, (OBJECTS,), generator=draw)


@pytest.fixture
def model():
    return FeedForward(64, 3, [6])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def dying(epochs):
    """A bar that dies after so many epochs, when they have been saved."""

    def progress(numbers, **_):
        for done, number in enumerate(numbers):
            if done == epochs:
                raise Killed
            yield number

    return progress


def killed(work, folder, epochs):
    with pytest.raises(Killed), checkpoints_in(folder, pause=0):
        work(dying(epochs))


def killed_after(monkeypatch, work, folder, *counts):
    """Start it as often as there are counts, and kill it when so many rounds have been saved."""
    write = Loop._write
    for count in counts:
        written = []

        def dies(loop, count=count, written=written):
            write(loop)
            written.append(loop)
            if len(written) == count:
                raise Killed

        monkeypatch.setattr(Loop, "_write", dies)
        with pytest.raises(Killed), checkpoints_in(folder, pause=0):
            work()
    monkeypatch.setattr(Loop, "_write", write)


def again(work, folder):
    """Results, and the epochs that were left."""
    left = []

    def progress(numbers, **_):
        for number in numbers:
            left.append(number)
            yield number

    with checkpoints_in(folder, pause=0):
        return work(progress), left


def assert_same(first, second):
    if isinstance(first, torch.Tensor | np.ndarray):
        assert type(first) is type(second)
        first, second = torch.as_tensor(first), torch.as_tensor(second)
        assert (first.dtype, first.shape) == (second.dtype, second.shape)
        assert first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert type(first) is type(second)
        assert first == second


def rows():
    return torch.stack([torch.randperm(OBJECTS, generator=generator(seed, "rows"))[:37] for seed in SEEDS])


OPTIONS = {
    "plain": {},
    "schedule": {"schedule": "cosine", "warmup": 0.25, "weight_decay": 0.3},
    "pictures": {"augmentation": "crop_flip"},
    "rows": {"rows": rows()},
    "all": {
        **{"schedule": "cosine", "warmup": 0.1, "weight_decay": 0.1},
        **{"augmentation": "crop_flip", "rows": rows()},
    },
}


class TestTrainings:
    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    @pytest.mark.parametrize("done", [1, 3])
    def test_goes_on_to_the_same_bytes(self, model, data, folder, options, done):
        def work(progress=None):
            kept = {"steps": [], "means": {}}

            def watch(step, parameters):
                kept["steps"].append(step)
                kept["means"][step] = parameters["0.weight"].mean(dim=(1, 2))

            found = fit(model, *data, **SETTINGS, **options, watch=watch, keep=kept, progress=progress)
            return found, kept

        expected = work()
        assert len(expected[1]["steps"]) == 1 + 4 * -(-(37 if "rows" in options else OBJECTS) // 16)
        killed(work, folder, done)
        found, left = again(work, folder)
        assert left == list(range(done, 4))
        assert_same(found, expected)
        found, left = again(work, folder)
        assert not left
        assert_same(found, expected)

    def test_killed_in_the_middle_of_an_epoch(self, model, data, folder):
        def work(last=None):
            kept = {"steps": []}

            def watch(step, parameters):
                if step == last:
                    raise Killed
                kept["steps"].append(step)

            return fit(model, *data, **SETTINGS, watch=watch, keep=kept), kept

        expected = work()
        for last in (6, 11, 15):
            with pytest.raises(Killed), checkpoints_in(folder, pause=0):
                work(last)
        assert_same(again(lambda _: work(), folder)[0], expected)

    def test_generators_of_the_model(self, model, data, folder):
        x, y = data[0].flatten(1), data[1]
        teacher = FeedForward(64, 3, [4]).initialise([generator(seed, "teacher") for seed in SEEDS])
        start = model.initialise([generator(seed, "start") for seed in SEEDS])
        weights = Weights(1.0, 0.1, 1.0, 0.01)

        def work(progress=None):
            own = [generator(seed, "growing") for seed in SEEDS]
            found = grow(model, start, teacher, weights, x, y, generators=own, progress=progress, **SETTINGS)
            return found, [g.get_state() for g in own]

        expected = work()
        killed(work, folder, 2)
        assert_same(again(work, folder)[0], expected)
        other = Composite(model, teacher, Weights(1.0, 0.1, 1.0, 0.02), [generator(s, "growing") for s in SEEDS])
        with checkpoints_in(folder, pause=0):
            trainer = Trainer(other, x, y, start=start, **SETTINGS)
            trainer.epochs()
        assert trainer.done == 0

    @pytest.mark.parametrize("done", [1, 2, 3])
    def test_branches_and_what_they_hold(self, model, data, folder, done):
        def work(progress=None):
            trainer = Trainer(model, *data, **SETTINGS, rows=rows())
            gathered, kept = GradientCovariance(model), {"counts": None}
            for epoch in trainer.epochs(progress, keep={"gathered": gathered.kept, "own": kept}):
                if epoch == 2:
                    trainer.branch(3)
                    kept["counts"] = np.arange(3)
                    masks = {name: tensor.clone() > 0 for name, tensor in trainer.parameters.items()}
                    trainer.free = masks
                trainer.epoch(observe=gathered.observe if epoch < 2 else None)
            return trainer.finish(), gathered.variances, gathered.steps, kept, trainer.step, trainer.rows

        expected = work()
        killed(work, folder, done)
        assert_same(again(work, folder)[0], expected)
        assert_same(again(work, folder)[0], expected)

    def test_several_trainings_of_one_measurement(self, model, data, folder):
        def work(progress=None):
            first = fit(model, *data, **SETTINGS, progress=progress)
            # The same start, stream and seeds twice: told apart by their order alone.
            plain = [fit(model, *data, **SETTINGS | {"stream": "again"}, progress=progress) for _ in range(2)]
            return first, plain, fit(model, *data, **SETTINGS, start=first, progress=progress)

        expected, total = work(), 0
        while True:
            budget = iter(range(3))

            def progress(numbers, budget=budget, **_):
                for number in numbers:
                    if next(budget, None) is None:
                        raise Killed
                    yield number

            try:
                with checkpoints_in(folder, pause=0):
                    found = work(progress)
                break
            except Killed:
                total += 1
        assert total == 5  # sixteen epochs, three at a time
        assert_same(found, expected)
        assert len(list(folder.iterdir())) == 4

    def test_settling_and_descent(self, model, data, folder, monkeypatch):
        x, y = data[0].flatten(1).double()[None].repeat(2, 1, 1), data[1][None].repeat(2, 1)
        start = model.initialise([generator(seed, "start") for seed in SEEDS])
        start = {name: tensor.double() for name, tensor in start.items()}

        def work():
            here, rates = settle(model, start, x, y, steps=7, learning_rate=8.0)
            return here, rates, descend(model, here, x, y, steps=5, rates=rates)

        expected = work()
        killed_after(monkeypatch, work, folder, 3, 5, 4)
        with checkpoints_in(folder, pause=0):
            assert_same(work(), expected)

    @pytest.mark.parametrize("done", [1, 2])
    def test_translators(self, folder, monkeypatch, done):
        sizes = {"hidden_size": 8, "ffn_size": 12, "num_layers": 1, "num_heads": 2, "max_length": 12}
        model, draw = EncoderDecoder(17, 17, **sizes, dropout=0.2), generator(0, "sentences")
        sentences = Sentences(*(torch.randint(4, 17, (22, 5), generator=draw) for _ in range(2)))
        start = model.initialise([generator(seed, "start") for seed in SEEDS])
        start = {name: torch.cat([tensor] * 2) for name, tensor in start.items()}
        options = {"seeds": SEEDS, "stream": "s", "epochs": 3, "batch_size": 4, "learning_rate": 1e-2}
        options |= {"weights": (1.0, 0.5), "schedule": "cosine", "warmup": 0.2, "weight_decay": 0.1}

        def work():
            kept = {"epochs": [], "sums": []}

            def watch(epoch, parameters):
                kept["epochs"].append(epoch)
                kept["sums"].append({name: tensor.sum() for name, tensor in parameters.items()})

            teachers = (None, uniform(17))
            found = train_translators(model, start, sentences, teachers, **options, watch=watch, keep=kept)
            return found, kept

        expected = work()
        assert expected[1]["epochs"] == [0, 1, 2, 3]
        killed_after(monkeypatch, work, folder, done)
        with checkpoints_in(folder, pause=0):
            assert_same(work(), expected)
            train_translators(model, start, sentences, (None, None), **options, watch=lambda *_: None)
        assert len(list(folder.iterdir())) == 1

    @pytest.mark.parametrize("covariance", ["full", "diagonal"])
    def test_posteriors(self, folder, monkeypatch, covariance):
        draw = generator(0, "objects")
        x, y = (torch.randn(2, 12, *shape, generator=draw, dtype=torch.float64) for shape in ((3,), ()))
        start = {"0.weight": torch.zeros(2, 1, 3, dtype=torch.float64)}
        network = FeedForward(3, 1, [], bias=False)

        def work():
            own = [generator(seed, "posterior") for seed in SEEDS]
            return vars(fit_posterior(network, start, x, y, generators=own, covariance=covariance, iterations=9))

        expected = work()
        killed_after(monkeypatch, work, folder, 2, 4)
        with checkpoints_in(folder, pause=0):
            assert_same(work(), expected)

    def test_without_a_place_for_what_a_watch_gathers_nothing_is_saved(self, model, data, folder):
        with checkpoints_in(folder, pause=0):
            fit(model, *data, **SETTINGS, watch=lambda *_: None)
        assert not folder.exists()

    def test_nothing_is_saved_outside_or_in_no_folder_or_sooner_than_it_took(self, model, data, folder):
        fit(model, *data, **SETTINGS)
        with checkpoints_in(folder, pause=0):
            with checkpoints_in(None):
                fit(model, *data, **SETTINGS)
            fit(model, *data, **SETTINGS | {"epochs": 0})
        with checkpoints_in(folder, pause=60):
            fit(model, *data, **SETTINGS)
        assert not folder.exists()


class TestFiles:
    @pytest.fixture
    def file(self, model, data, folder):
        killed(lambda progress: fit(model, *data, **SETTINGS, progress=progress), folder, 2)
        (file,) = folder.iterdir()
        return file

    def done(self, model, data, folder, **changes):
        trainer = Trainer(model, *data, **SETTINGS | changes)
        with checkpoints_in(folder, pause=0):
            trainer.epochs()
        fresh = Trainer(model, *data, **SETTINGS | changes)
        if not trainer.done:
            assert_same(trainer.parameters, fresh.parameters)
        return trainer.done

    def test_any_damage_is_seen(self, model, data, folder, file):
        whole = file.read_bytes()
        assert self.done(model, data, folder) == 2
        places = sorted({0, 31, 32, len(whole) - 1, *range(0, len(whole), len(whole) // 150)})
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << (place % 8)
            file.write_bytes(damaged)
            assert self.done(model, data, folder) == 0, place
        for length in (0, 1, 32, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:length])
            assert self.done(model, data, folder) == 0
        file.write_bytes(whole)
        assert self.done(model, data, folder) == 2

    def test_what_is_whole_and_of_no_training_is_not_read(self, model, data, folder, file):
        for payload in (b"", b"text", b"PK\x03\x04"):
            file.write_bytes(checkpointing.hashlib.sha256(payload).digest() + payload)
            assert self.done(model, data, folder) == 0
        file.unlink()
        file.mkdir()
        assert self.done(model, data, folder) == 0

    @pytest.mark.parametrize(
        "changes",
        [
            {"seeds": (0, 6)},
            {"epochs": 5},
            {"batch_size": 15},
            {"learning_rate": 2e-2},
            {"stream": "other"},
            {"weight_decay": 0.1},
            {"schedule": "cosine"},
            {"warmup": 0.1},
            {"augmentation": "crop_flip"},
            {"rows": rows()},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_other_settings_are_another_training(self, model, data, folder, file, changes):
        assert self.done(model, data, folder, **changes) == 0
        assert self.done(model, data, folder) == 2

    def test_other_networks_and_objects_are_another_training(self, model, data, folder, file):
        x, y = data
        assert self.done(FeedForward(64, 3, [7]), data, folder) == 0
        assert self.done(FeedForward(64, 3, [6], activation="tanh"), data, folder) == 0
        assert self.done(model, (x[:-1], y[:-1]), folder) == 0
        assert self.done(model, (x + 1e-6, y), folder) == 0
        assert self.done(model, (x, (y + 1) % 3), folder) == 0
        start = {name: t + 1e-6 for name, t in Trainer(model, x, y, **SETTINGS).parameters.items()}
        assert self.done(model, data, folder, start=start) == 0
        assert self.done(model, data, folder) == 2

    def test_another_training_under_this_ones_name(self, model, data, folder, file):
        killed(lambda bar: fit(model, data[0] * 2, data[1], **SETTINGS, progress=bar), folder, 3)
        assert [path.name for path in folder.iterdir()] == [file.name]  # objects do not count in a name
        assert self.done(model, data, folder) == 0
        assert self.done(model, (data[0] * 2, data[1]), folder) == 3

    def test_a_full_disk_is_told_and_leaves_what_was_written(self, model, data, folder, file, monkeypatch):
        before = file.read_bytes()

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpointing.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"), checkpoints_in(folder, pause=0):
            fit(model, *data, **SETTINGS)
        assert [path.name for path in folder.iterdir()] == [file.name]
        assert file.read_bytes() == before

    def test_what_cannot_be_kept_is_refused(self, model, data, folder):
        with pytest.raises(TypeError, match="a set cannot be kept"), checkpoints_in(folder, pause=0):
            fit(model, *data, **SETTINGS, keep={"names": {1, 2}})

    def test_kinds_of_what_is_kept(self, folder):
        def work(rounds):
            same = []
            state = {"list": same, "inner": {}, "array": None, "part": None, "fixed": (1, 2.5, "a", None, True)}
            for number in resumed(4, state, {}, (torch.zeros(1),)):
                if number == rounds:
                    raise Killed
                same.append(torch.full((2,), number))
                state["inner"][number] = np.float64(number)
                state["array"] = np.arange(number, dtype=np.int16)
                state["part"] = torch.arange(1_000_000.0)[number : number + 2]
            assert state["list"] is same
            return state

        expected = work(None)
        with pytest.raises(Killed), checkpoints_in(folder, pause=0):
            work(3)
        assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000
        with checkpoints_in(folder, pause=0):
            found = work(None)
        assert float(expected["inner"].pop(3)) == found["inner"].pop(3)
        assert expected["inner"] == found["inner"]
        assert_same({**found, "inner": 0}, {**expected, "inner": 0})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_state_is_there_again(model, data, folder):
    x, y = (tensor.cuda() for tensor in data)

    def work(progress=None, x=x, y=y):
        kept = {"here": [], "there": []}

        def watch(step, parameters):
            kept["there"].append(parameters["0.weight"].clone())
            kept["here"].append(parameters["0.weight"].cpu())

        return fit(model, x, y, **SETTINGS, watch=watch, keep=kept, progress=progress), kept

    expected = work()
    killed(work, folder, 2)
    (found, kept), left = again(work, folder)
    assert left == [2, 3]
    assert all(tensor.is_cuda for tensor in [*found.values(), *kept["there"]])
    assert not any(tensor.is_cuda for tensor in kept["here"])
    for one, other in ((found, expected[0]), (kept, expected[1])):
        for name, value in one.items():
            assert all(torch.equal(a, b) for a, b in zip(value, other[name], strict=True))
    assert again(lambda bar: work(bar, *data), folder)[1] == [0, 1, 2, 3]  # a processor rounds otherwise


def test_side_by_side_each_finds_its_own_file_whenever_it_begins(folder):
    def work(name, barrier=None, last=None):
        state = {"sum": torch.zeros(3)}
        own = [generator(0, name)]
        if barrier:
            barrier.wait()
        for number in resumed(5, state, {"name": name}, (torch.ones(2),), generators=own):
            if number == last:
                return None
            state["sum"] = state["sum"] + torch.rand(3, generator=own[0])
        return state["sum"]

    names = [str(n) for n in range(6)]
    expected = {name: work(name) for name in names}
    barrier, threads = threading.Barrier(len(names)), []
    with checkpoints_in(folder, pause=0):
        for name in names:
            threads.append(threading.Thread(target=work, args=(name, barrier, 3)))
            threads[-1].start()
        for thread in threads:
            thread.join()
    assert len(list(folder.iterdir())) == len(names)
    with checkpoints_in(folder, pause=0):
        assert_same({name: work(name) for name in reversed(names)}, dict(reversed(expected.items())))


SMOKE = ("profile=smoke", "data.download=false", "seeds=2")
NETWORKS = ("model.channels=[3,4]", "model.kernel_sizes=[3,2]", "model.hidden=[6]")
TEACHERS = ("measure.teacher.channels=[4,4]", "measure.teacher.kernel_sizes=[3,2]", "measure.teacher.hidden=[6,5]")
TRANSLATORS = (
    *("model.hidden_size=8", "model.ffn_size=8", "model.num_layers=1", "model.num_heads=2"),
    *("measure.teacher_objects=40", "measure.student_objects=16", "measure.test_objects=5", "measure.vocabulary=250"),
    *("measure.max_length=14", "training.batch_size=4", "mapping.pairs=50", "training.epochs=2"),
)
GROWN = ("measure.teacher_epochs=2", "measure.teacher_early_epochs=1", "measure.grow_epochs=2", "training.epochs=2")
FAMILIES = {
    "fc_mnist": ("training.epochs=4",),
    "fc_features_mnist": (
        *("features=small_cnn", "features.dataset=digits", "features.num_layers=2", "features.position=1"),
        *("features.epochs=3", "training.epochs=2"),
    ),
    "minimum_drift_mnist": (
        *("measure.settle_steps=3", "measure.descent_steps=2", "measure.drift_sizes=2", "measure.gradient_sizes=2"),
        *("model.num_layers=1", "training.epochs=2"),
    ),
    "vit_hessian_mnist": (
        *("model.hidden_size=4", "model.num_layers=1", "training.epochs=3"),
        *("measure.hessian_objects=4", "measure.norm_steps=[1,3]", "measure.entry_steps=[1]"),
    ),
    "likelihood_fc_mnist": ("training.epochs=3",),
    "anti_distillation_digits": ("model.hidden=[12,10]", "measure.teacher_hidden=[8,6]", *GROWN),
    "anti_distillation_search_fashion_mnist": (
        *("model.hidden=[12,10]", "measure.teacher_hidden=[8,6]", "measure.trials=3"),
        *GROWN,
    ),
    "freezing_wine": ("model.hidden=[3]", "measure.linear=false", "training.epochs=4"),
    "pruning_wine": (
        *("model.hidden=[2]", "measure.noise_shares=2", "measure.noise_copies=3", "training.epochs=2"),
        *("measure.retrain=2", "measure.retrain_steps=2"),
    ),
    "distillation_vision_digits": (*NETWORKS, *TEACHERS, "training.epochs=2", "measure.test_objects=20"),
    "distillation_language_toy": TRANSLATORS,
}


class Bar:
    """Like tqdm, with or without a loop."""

    def __init__(self, items=None, **_):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        pass

    def close(self):
        pass


def measurement(name, words, features):
    """One measurement of an experiment's first point, whenever it is called."""
    plan = make_plan(load([f"experiment={name}", *SMOKE, *words]))
    item = plan.located[0]
    settings = item.point.settings
    source = plan.sources[settings["dataset"]["name"]]

    def pictures(wanted):
        own = plan.sources[wanted["name"]]
        tested = min(wanted["objects"], own.test_objects)
        return load_images(own, wanted["objects"], tested, CPU, wanted["normalisation"])

    def images():
        if "features" in settings:
            return load_features(settings["features"], settings["dataset"], pictures, None, features, Bar)
        return pictures(settings["dataset"])

    def corpus(**sizes):
        return load_corpus(source, limit=settings["dataset"]["objects"], **sizes)

    def table():
        return load_table(source, settings["dataset"]["objects"])

    return lambda: plan.experiment.measure(item.point, Context(CPU, source, images, Bar, table, corpus))


def assert_same_measurement(first, second):
    assert list(first.frames) == list(second.frames)
    for name, frame in first.frames.items():
        pd.testing.assert_frame_equal(frame, second.frames[name], check_exact=True)
        assert frame.attrs == second.frames[name].attrs
    assert_same(dict(first.arrays), dict(second.arrays))
    assert_same(dict(first.parameters), dict(second.parameters))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_killed_measurement_goes_on_to_the_same_numbers(name, tmp_path, monkeypatch):
    """Killed twice, right after a round was saved and right before."""
    write, written = Loop._write, []

    def counted(loop):
        written.append(loop)
        write(loop)

    def fresh(number):
        return measurement(name, FAMILIES[name], tmp_path / f"features {number}")

    expected = fresh(0)()
    monkeypatch.setattr(Loop, "_write", counted)
    with checkpoints_in(tmp_path / "whole", pause=0):
        assert_same_measurement(fresh(1)(), expected)
    rounds = len(written)
    assert rounds >= 3
    first = random.Random(name).randrange(1, rounds)
    dies_at = [first, random.Random(f"{name} again").randrange(1, rounds - first + 1)]
    for number, last in enumerate(dies_at):

        def dies(loop, last=last, late=number == 0):
            written.append(loop)
            if len(written) == last and not late:
                raise Killed
            write(loop)
            if len(written) == last:
                raise Killed

        written.clear()
        monkeypatch.setattr(Loop, "_write", dies)
        with pytest.raises(Killed), checkpoints_in(tmp_path / "killed", pause=0):
            fresh(2)()
    written.clear()
    monkeypatch.setattr(Loop, "_write", counted)
    with checkpoints_in(tmp_path / "killed", pause=0):
        assert_same_measurement(fresh(2)(), expected)
    assert len(written) == rounds - first - (dies_at[1] - 1)


def test_students_side_by_side_on_threads(tmp_path, monkeypatch):
    """Groups that are trained at once find their own files, whichever begins first."""
    measure, folder = measurement("distillation_language_toy", TRANSLATORS, tmp_path), tmp_path / "checkpoints"
    expected, write, lock, written = measure(), Loop._write, threading.Lock(), []

    def dies(loop):
        write(loop)
        with lock:
            written.append(loop)
            if len(written) == 6:  # the teachers' four epochs are behind
                raise Killed

    parallel.use_workers(2)
    try:
        monkeypatch.setattr(Loop, "_write", dies)
        with pytest.raises(Killed), checkpoints_in(folder, pause=0):
            measure()
        monkeypatch.setattr(Loop, "_write", write)
        parallel.use_workers(2)  # waits for the group that was not killed
        files = {path.name for path in folder.iterdir()}
        assert len(files) in (3, 4)
        with checkpoints_in(folder, pause=0):
            assert_same_measurement(measure(), expected)
        assert files <= {path.name for path in folder.iterdir()}
        assert len(list(folder.iterdir())) == 4
    finally:
        parallel.use_workers(1)
