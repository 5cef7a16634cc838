"""Students of pictures and their teachers: small whole runs, what each is told, and what is refused."""

import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.chapter4.distillation_vision import STUDENTS, DistillationVision, Lesson
from landscape_cli.composing import load
from landscape_cli.distillation.cyclegan import Generator, load_generator, transform
from landscape_cli.distillation.style import stylise
from landscape_cli.errors import BadInput
from landscape_cli.models import build_model
from landscape_cli.plan import make_plan
from landscape_cli.runner import run
from landscape_cli.store import Store
from landscape_cli.training import fit

NETWORKS = (
    *("model.channels=[3,4]", "model.kernel_sizes=[3,2]", "model.hidden=[6]"),
    *("measure.teacher.channels=[4,4]", "measure.teacher.kernel_sizes=[3,2]", "measure.teacher.hidden=[6,5]"),
)
TINY = ("experiment=distillation_vision_digits", *NETWORKS)
RUN = ("training.epochs=2", "measure.other_weights=[0.2]", "measure.test_objects=50")
OWN = ("experiment=distillation_vision_cifar10", "dataset=cifar10", "dataset.name=own", *NETWORKS)
FEW = ("measure.student_objects=12", "measure.teacher_objects=20", "training.epochs=1")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, small):
    """Two seeds of all students on a few digits; not to be written to."""
    folder = tmp_path_factory.mktemp("distilled")
    overrides = [*TINY, *small, *RUN, f"output_dir={folder}"]
    assert run(load(overrides), overrides) == 0
    return folder


@pytest.fixture
def stored(outputs):
    (path,) = outputs.glob("results/DistillationVision/*/point.json")
    return Store(outputs).read("DistillationVision", path.parent.name)


def tables(folder):
    return {path.name: path.read_bytes() for path in folder.glob("tables/*/*") if path.suffix != ".json"}


class TestWholeRun:
    def test_students_by_epoch(self, stored):
        epochs = stored.frames["epochs"]
        assert list(epochs) == ["epoch", "seed", "accuracy", "cross_entropy", "student", "weight"]
        assert epochs.attrs["units"] == {"cross_entropy": "nats", "epoch": "epochs"}
        expected = {(name, 0.5) for name in STUDENTS} | {("mapping", 0.2), ("same_domain", 0.2)}
        groups = epochs.groupby(["student", "weight"])
        assert set(groups.groups) == expected
        for _, group in groups:
            assert sorted(zip(group["seed"], group["epoch"], strict=True)) == [(s, e) for s in (0, 1) for e in range(3)]
        assert epochs["accuracy"].between(0, 1).all()
        assert (epochs["accuracy"] * 50 % 1).round(9).isin([0, 1]).all()  # shares of 50 test objects
        assert epochs["cross_entropy"].between(1, 5).all()

    def test_all_students_start_from_the_same_network_and_then_go_apart(self, stored):
        epochs = stored.frames["epochs"]
        values = epochs.groupby(["epoch", "seed"])["cross_entropy"].nunique()
        assert (values[0] == 1).all()
        assert (values[2] == 7).all()
        first = epochs[epochs["epoch"] == 0]
        assert first.groupby("seed")["cross_entropy"].first().nunique() == 2

    def test_teachers(self, stored):
        teachers = stored.frames["teachers"]
        assert list(teachers) == ["teacher", "tested_on", "seed", "accuracy", "cross_entropy"]
        assert list(zip(teachers["teacher"], teachers["tested_on"], teachers["seed"], strict=True)) == [
            (*where, seed)
            for where in (
                ("same_domain", "its own domain"),
                ("mapping", "its own domain"),
                ("mapping", "the student's domain"),
            )
            for seed in (0, 1)
        ]
        assert teachers.attrs["units"] == {"cross_entropy": "nats"}
        assert teachers["cross_entropy"].nunique() == 6

    def test_sizes_and_pictures(self, stored):
        sizes = stored.frames["sizes"].iloc[0].to_dict()
        assert sizes == {
            "train_objects": 1437,
            "teacher_objects": 60,
            "student_objects": 30,
            "test_objects": 50,
            "classes": 10,
        }
        before, after = stored.arrays["pictures"]
        assert before.shape == after.shape == (3, 1, 8, 8)
        assert before.min() >= -1
        assert not np.allclose(before, after)
        assert len(np.unique(after)) > 2

    def test_what_it_writes(self, outputs):
        names = {path.stem for path in outputs.glob("tables/*/*.csv")}
        own = {
            f"distillation_vision_digits_{name}" for name in ("teacher", "student", "quality", "teachers", "weights")
        }
        assert names == own | {"claims_distillation_vision_digits"}
        drawn = {path.stem for path in outputs.glob("figures/*/*.png")}
        assert drawn == {f"distillation_vision_digits_{name}" for name in ("mapping", "accuracy", "cross_entropy")}
        quality = pd.read_csv(next(outputs.glob("tables/*/*_quality.csv")))
        assert len(quality) == 5
        assert quality["φ"].tolist().count("fixed stylisation (4 levels, seed 0)") == 1

    def test_tables_say_what_the_frames_hold(self, outputs, stored):
        epochs = stored.frames["epochs"]
        last = epochs[(epochs["epoch"] == 2) & (epochs["weight"] == 0.5)].groupby("student")["accuracy"]
        quality = pd.read_csv(next(outputs.glob("tables/*/*_quality.csv"))).set_index("student")["accuracy"]
        assert quality["no teacher"] == f"{last.mean()['alone']:.3f} ± {last.std()['alone']:.3f}"
        other = pd.read_csv(next(outputs.glob("tables/*/*_weights.csv")))
        assert sorted(other["λ"]) == [0.2, 0.2, 0.5, 0.5, 1.0]

    def test_the_same_command_again_measures_nothing(self, outputs, landscape, small, tmp_path):
        copy = shutil.copytree(outputs, tmp_path / "copy")
        (document,) = copy.glob("results/*/*/point.json")
        before = document.read_bytes(), document.stat().st_mtime_ns, tables(copy)
        finished = landscape("run", *TINY, *small, *RUN, f"output_dir={copy}")
        assert finished.code == 0, finished.err
        assert "1 stored, 0 to measure" in finished.out
        assert (document.read_bytes(), document.stat().st_mtime_ns, tables(copy)) == before

    def test_another_run_gives_the_same_tables(self, outputs, stored, landscape, small, tmp_path):
        finished = landscape("run", *TINY, *small, *RUN)
        assert finished.code == 0, finished.err
        assert tables(tmp_path / "outputs") == tables(outputs)
        (path,) = tmp_path.glob("outputs/results/DistillationVision/*")
        again = Store(tmp_path / "outputs").read("DistillationVision", path.name)
        for name, frame in stored.frames.items():
            pd.testing.assert_frame_equal(again.frames[name], frame)
        assert np.array_equal(again.arrays["pictures"], stored.arrays["pictures"])


def settings(*words):
    config = load([*TINY, "profile=smoke", *words])
    (point,) = DistillationVision(config).points()
    return point


def lesson(x, y, *words, tested=8, mapping=None):
    """The parts of drawn pictures, and the context that gave them."""
    size = len(x) - tested
    source = SimpleNamespace(classes=int(y.max()) + 1, train_objects=size)
    data = SimpleNamespace(
        x_train=x[:size],
        y_train=y[:size],
        x_test=x[size:],
        y_test=y[size:],
        source=source,
        shape=tuple(x.shape[1:]),
    )
    context = SimpleNamespace(
        images=lambda: data, progress=lambda things, **options: things, mapping=mapping, device="cpu"
    )
    return Lesson(settings(*words), context), context


@pytest.fixture
def drawn():
    draw = torch.Generator().manual_seed(4)
    x = 2 * torch.rand(60, 1, 8, 8, generator=draw) - 1
    return x, torch.arange(60) % 4


class TestParts:
    @pytest.mark.parametrize(("given", "held"), [("null", 40), ("25", 25), ("500", 40)])
    def test_students_objects_are_the_first_and_teachers_the_next(self, given, held):
        numbers = torch.linspace(-1, 1, 60)
        x, y = numbers.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous(), torch.arange(60) % 3
        words = ("measure.student_objects=12", f"measure.teacher_objects={given}", "measure.test_objects=5")
        found, _ = lesson(x, y, *words)
        assert torch.equal(found.x[:, 0, 0, 0], numbers[:12])
        assert torch.equal(found.big[0][:, 0, 0, 0], numbers[12 : 12 + held])
        assert torch.equal(found.test[0][:, 0, 0, 0], numbers[52:57])
        assert torch.equal(found.y, y[:12])
        assert torch.equal(found.big[1], y[12 : 12 + held])
        assert torch.equal(found.test[1], y[52:57])
        assert found.sizes == {
            "train_objects": 52,
            "teacher_objects": held,
            "student_objects": 12,
            "test_objects": 5,
            "classes": 3,
        }

    def test_pictures_that_are_shown_are_of_different_classes(self, drawn):
        x, y = drawn
        y = torch.tensor([2, 2, 0, 2, 0, 1, 3, 0])[torch.arange(60) % 8]
        assert lesson(x, y, "measure.student_objects=12")[0].shown == [0, 2, 5]
        assert lesson(x, y, "measure.student_objects=2")[0].shown == [0]

    @pytest.mark.parametrize("number", [52, 53, 200])
    def test_nothing_left_for_the_teacher(self, drawn, number):
        with pytest.raises(BadInput, match=f"measure.student_objects: {number} of 52 train objects leave none"):
            lesson(*drawn, f"measure.student_objects={number}")
        assert lesson(*drawn, "measure.student_objects=51")[0].sizes["teacher_objects"] == 1


class TestWhatIsTold:
    WORDS = ("measure.student_objects=20", "measure.teacher_objects=30", "training.epochs=3", "measure.temperature=2")

    @pytest.fixture
    def taught(self, drawn):
        found, context = lesson(*drawn, *self.WORDS)
        found.train_teachers(context)
        return found

    @pytest.fixture
    def teachers(self, drawn):
        """Both teachers and φ, made from their parts."""
        x, y = drawn
        point = settings(*self.WORDS)
        limits = float(x[:52].min()), float(x[:52].max())
        model = build_model(point.settings["measure"]["teacher"], (1, 8, 8), 4)
        given = {**point.settings["training"], "seeds": [0, 1]}

        def trained(pictures, name):
            return fit(model, pictures, y[20:50], stream=f"{point.stream} {name}", **given)

        phi = stylise(x, 4, 0, *limits)
        return model, phi, {"same_domain": trained(x[20:50], "teacher"), "phi": trained(phi[20:50], "mapped teacher")}

    def test_answers_to_pictures_and_to_mapped_ones(self, drawn, taught, teachers):
        (x, _), (model, phi, parameters) = drawn, teachers
        told = {"same_domain": ("same_domain", x), "mapping": ("phi", phi), "no_mapping": ("phi", x)}
        for student, (teacher, pictures) in told.items():
            labels = taught.labels(student)
            for seed in range(2):
                expected = (model.module(parameters[teacher], seed)(pictures[:20]).detach() / 2).softmax(dim=1)
                torch.testing.assert_close(labels[seed], expected, rtol=0, atol=1e-5)
        for one, other in (("mapping", "no_mapping"), ("mapping", "same_domain"), ("same_domain", "no_mapping")):
            assert (taught.labels(one) - taught.labels(other)).abs().max() > 1e-3
        uniform = taught.labels("uniform_labels")
        assert torch.equal(uniform, torch.full((1, 20, 4), 0.25))

    def test_quality_of_teachers(self, drawn, taught, teachers):
        (x, y), (model, phi, parameters) = drawn, teachers
        tested = {
            ("same_domain", "its own domain"): ("same_domain", x),
            ("mapping", "its own domain"): ("phi", phi),
            ("mapping", "the student's domain"): ("phi", x),
        }
        assert set(taught.teacher_quality) == set(tested)
        for key, (teacher, pictures) in tested.items():
            for seed in range(2):
                logits = model.module(parameters[teacher], seed)(pictures[52:]).detach()
                accuracy, loss = taught.teacher_quality[key][:, seed].tolist()
                assert accuracy == float((logits.argmax(dim=1) == y[52:]).double().mean())
                assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, y[52:])), abs=1e-5)

    def test_only_teachers_that_are_needed_are_trained(self, drawn):
        for students, known in (("[alone,same_domain]", {"same_domain"}), ("[alone,no_mapping]", {"mapping", "no"})):
            found, context = lesson(*drawn, *self.WORDS, f"measure.students={students}")
            found.train_teachers(context)
            assert {name.removesuffix("_mapping") for name in found.known} == known

    def test_teachers_can_have_epochs_of_their_own(self, drawn, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "landscape_cli.training.fit", lambda model, *_, **given: seen.append(given["epochs"]) or start(model)
        )

        def start(model):
            return model.initialise([torch.Generator(), torch.Generator()])

        for given in ("null", "0", "7"):
            found, context = lesson(*drawn, *self.WORDS, f"measure.teacher_epochs={given}")
            found.train_teachers(context)
        assert seen == [3, 3, 0, 0, 7, 7]

    def test_every_student_is_given_its_labels_and_weight(self, drawn, monkeypatch):
        seen = []

        def recorded(student, x, y, teacher, test, **given):
            seen.append((teacher, given, x))
            return {}, torch.zeros(2, 4, 2, dtype=torch.float64)

        monkeypatch.setattr("landscape_cli.distillation.students.train_student", recorded)
        words = (*self.WORDS, "measure.weight=0.3", "measure.other_weights=[0,0.3,0.9]")
        found, context = lesson(*drawn, *words)
        found.train_teachers(context)
        measured = DistillationVision(load([*TINY, "profile=smoke", *words])).measure(found.point, context)
        rows = measured.frames["epochs"].drop_duplicates(["student", "weight"])
        runs = list(zip(rows["student"], rows["weight"], strict=True))
        others = [(name, weight) for weight in (0.0, 0.9) for name in ("mapping", "same_domain")]
        assert runs == [(name, 0.3) for name in STUDENTS] + others
        assert len(seen) == len(runs)
        for (name, weight), (teacher, given, x) in zip(runs, seen, strict=True):
            assert torch.equal(x, drawn[0][:20])
            assert given["weight"] == (1.0 if name == "alone" else weight)
            assert given["temperature"] == 2
            assert given["seeds"] == [0, 1]
            assert given["stream"] == seen[0][1]["stream"]  # the same start and the same minibatches
            if name != "alone":
                torch.testing.assert_close(teacher, found.labels(name), rtol=0, atol=1e-6)


MODEL_CONV = ("~model.kernel_sizes", "~model.hidden", "model.channels=3", "model=conv2d")


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("measure.weight=1.2",), ("measure.weight: 1.2", "1 or less")),
            (("measure.other_weights=[0.1,1.5]",), ("measure.other_weights: 1.5",)),
            (("measure.temperature=0",), ("measure.temperature: 0.0", "more than 0")),
            (("measure.students=[alone,bogus]",), ("measure.students: 'bogus'", "same_domain")),
            (("measure.students=[alone,mapping,mapping]",), ("measure.students: mapping twice",)),
            (("measure.students=[mapping,same_domain]",), ("measure.students: without 'alone'",)),
            (("measure.students=[alone,uniform_labels]",), ("measure.students: none has a teacher",)),
            (("dataset.train_size=30",), ("measure.student_objects: 30 of 30 train objects",)),
            (("measure.student_objects=1437",), ("measure.student_objects: 1437 of 1437",)),
            (("mapping.kind=translation",), ("unknown key 'mapping.levels'", "mapping.kind")),
            (("mapping=translation",), ("mapping.kind: 'translation'; allowed: style",)),
            ((*MODEL_CONV, "model.kernel_size=9"), ("model.kernel_size: 9", "8x8", "digits")),
            (("model.kernel_sizes=[9,2]",), ("model.kernel_sizes: 9", "8x8 is left of digits")),
            (("model.kernel_sizes=[3]",), ("model.kernel_sizes: 1 of them",)),
            (("+measure.teacher.kernel=3",), ("measure.teacher.kernel", "did you mean 'measure.teacher.kernel_sizes'")),
            (("measure.teacher.kernel_sizes=[3,4]",), ("measure.teacher.kernel_sizes: 4", "3x3 is left", "8x8 -> 6x6")),
            (("measure.teacher.channels=[0,3]",), ("measure.teacher.channels: 0",)),
            (("measure.teacher.kind=lenett",), ("measure.teacher.kind: 'lenett'",)),
            (("+grid.dataset=[digits,mnist]",), ("grid.dataset", "one run a value")),
        ],
        ids=str,
    )
    def test_bad_input_in_one_line(self, landscape, small, words, says):
        given = [word for word in TINY if not any(word.split("=")[0] == own.lstrip("~").split("=")[0] for own in words)]
        landscape("run", *given, *small, *words).assert_refused(2, *says)

    def test_a_checkpoint_that_is_not_there(self, landscape, small):
        says = ("mapping.checkpoint: missing.pth: there is no such file", "mapping.checkpoint=null")
        landscape("run", *TINY, *small, "mapping.checkpoint=missing.pth").assert_refused(3, *says)

    def test_a_data_set_without_test_objects(self, landscape, small, archive):
        archive(tested=0)
        landscape("run", *OWN, *small, *FEW).assert_refused(2, "it has no test objects")

    def test_no_mapping_at_all(self, landscape, small):
        landscape("run", *TINY, *small, "mapping=null").assert_refused(2, "mapping")

    def test_a_teacher_of_another_kind_in_one_word(self, landscape, small):
        word = "measure.teacher={kind:conv2d,kernel_size:9}"
        finished = landscape("run", *TINY[:1], *small, word)
        finished.assert_refused(2, "measure.teacher")
        assert "unknown key 'measure.teacher';" not in finished.err

    def test_a_teacher_of_another_kind(self, landscape, small):
        """Of any kind, with keys of its own."""
        words = ("~measure.teacher", "+measure.teacher={kind:mlp,hidden_size:3}", "training.epochs=1", "seeds=1")
        given = [word for word in TINY if "teacher" not in word]
        finished = landscape("run", *given, *small, *words)
        assert finished.code == 0, finished.err
        assert "fewer parameters" not in finished.out  # counted of these networks alone


@pytest.fixture
def archive(isolated):
    """Write drawn pictures as the data set ``own``."""

    def write(side=16, channels=3, train=40, tested=20):
        random, number = np.random.default_rng(0), train + tested
        x = random.integers(0, 256, (number, side, side, channels), dtype=np.uint8)
        y = np.arange(number) % 3
        folder = isolated / "no-data" / "images"
        folder.mkdir(exist_ok=True)
        np.savez(folder / "own.npz", x_train=x[:train], y_train=y[:train], x_test=x[train:], y_test=y[train:])
        return x, y

    return write


@pytest.fixture
def checkpoint(isolated):
    """Save a drawn generator as its authors' program does, and return where."""

    def save(name="latest_net_G_A.pth", seed=0, ins=3, outs=3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            generator = Generator(ins, outs, width=4, blocks=2)
            for parameter in generator.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
        path = isolated / "home" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        torch.save(generator.state_dict(), path)
        return path

    return save


class TestCheckpoint:
    def test_whole_run(self, landscape, small, archive, checkpoint, tmp_path, monkeypatch):
        from landscape_cli.plotting import output

        notes, save_figure = [], output.save_figure
        monkeypatch.setattr(output, "save_figure", lambda *given: notes.append(given[4]) or save_figure(*given))
        x, _ = archive()
        path = checkpoint()
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        finished = landscape("run", *OWN, *small, *FEW, f"mapping.checkpoint={path}")
        assert finished.code == 0, finished.err
        name = f"CycleGAN generator, checksum {checksum[:12]}"
        assert name in finished.out
        assert "stylisation" not in finished.out
        quality = pd.read_csv(next(tmp_path.glob("outputs/tables/*/*_quality.csv"))).set_index("student")["φ"]
        assert quality["teacher through φ"] == name
        assert (quality.drop("teacher through φ") == "-").all()
        for table in tmp_path.glob("outputs/tables/*/*_quality.md"):
            assert name in table.read_text()
        assert len(notes) == 3
        assert all(name in note for note in notes)
        (document,) = tmp_path.glob("outputs/results/*/*/point.json")
        stored = Store(tmp_path / "outputs").read("DistillationVision", document.parent.name)
        assert stored.document["settings"]["mapping"] == {"kind": "cyclegan", "checksum": checksum}
        before, after = stored.arrays["pictures"]
        pixels = torch.from_numpy(x[:3]).permute(0, 3, 1, 2).float() / 127.5 - 1
        np.testing.assert_allclose(before, pixels, atol=1e-6)
        np.testing.assert_allclose(after, transform(load_generator(path), pixels), atol=1e-5)

    def test_is_known_by_what_it_holds(self, archive, checkpoint):
        archive()

        def key(*words):
            (located,) = make_plan(load([*OWN, "profile=smoke", *FEW, *words])).located
            return located.key

        first, second = checkpoint("a.pth"), checkpoint("b.pth", seed=1)
        one = key(f"mapping.checkpoint={first}")
        with pytest.raises(BadInput, match=r"mapping\.levels: it does nothing with mapping\.checkpoint"):
            key(f"mapping.checkpoint={first}", "mapping.levels=9")
        assert one != key(f"mapping.checkpoint={second}")
        assert one != key()
        moved = first.parent / "elsewhere" / "c.pth"
        moved.parent.mkdir()
        first.rename(moved)
        assert one == key(f"mapping.checkpoint={moved}")
        shutil.copy(second, moved)
        assert one != key(f"mapping.checkpoint={moved}")
        assert len({key(), key("mapping.levels=5"), key("mapping.seed=1")}) == 3

    def test_for_other_channels(self, landscape, small, checkpoint):
        finished = landscape("run", *TINY, *small, f"mapping.checkpoint={checkpoint()}")
        finished.assert_refused(2, "mapping.checkpoint: pictures of shape (30, 1, 8, 8)", "takes (N, 3, H, W)")

    def test_with_output_of_other_channels(self, landscape, small, archive, checkpoint):
        archive()
        finished = landscape("run", *OWN, *small, *FEW, f"mapping.checkpoint={checkpoint(outs=1)}")
        finished.assert_refused(2, "(12, 3, 16, 16) become (12, 1, 16, 16)", "3 output channels")

    @pytest.mark.parametrize(("side", "says"), [(14, "(12, 3, 14, 14) become (12, 3, 16, 16)"), (4, "4 × 4")])
    def test_with_output_of_another_size(self, landscape, small, archive, checkpoint, side, says):
        archive(side=side)
        kernels = ("model.kernel_sizes=[1,1]", "measure.teacher.kernel_sizes=[1,1]")
        words = [word for word in OWN if "kernel_sizes" not in word]
        finished = landscape("run", *words, *kernels, *small, *FEW, f"mapping.checkpoint={checkpoint()}")
        finished.assert_refused(2, says)

    def test_of_another_network(self, landscape, small, archive, checkpoint):
        archive()
        path = checkpoint()
        path.write_bytes(b"not a network")
        finished = landscape("run", *OWN, *small, *FEW, f"mapping.checkpoint={path}")
        assert finished.code == 3
        assert "is not a generator of pytorch-CycleGAN-and-pix2pix" in finished.err
        assert "Traceback" not in finished.err

    @pytest.mark.parametrize(
        "word",
        [
            "dataset.normalisation=standard",
            "+by_dataset.own.dataset.normalisation=standard",
        ],
    )
    def test_of_standardised_pictures(self, landscape, small, archive, checkpoint, word):
        """A generator takes and gives pixels in [-1, 1]."""
        archive()
        finished = landscape("run", *OWN, *small, *FEW, word, f"mapping.checkpoint={checkpoint()}")
        finished.assert_refused(2, "normalisation: 'standard' with mapping.checkpoint", "symmetric")
