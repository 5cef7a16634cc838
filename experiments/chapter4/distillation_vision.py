"""Figs 4.10 to 4.12, Tables 4.3 to 4.5 and 4.7: distillation of pictures across domains (thesis 4.2, 4.4.2).

The train objects are split in a small part, the student's, and a big one, the teacher's. One teacher is trained on the
big part as it is, one on φ of it; students learn from the small part's labels and a teacher's answers. Every seed has
teachers of its own, and all seeds of a network are trained at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.chapter4 import distillation_results, distillation_structures
from experiments.chapter4.distillation_results import ALONE, MAPPED, SAME, UNIFORM, UNMAPPED
from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units
from landscape_cli.validation import model_node

if TYPE_CHECKING:
    import torch

    from landscape_cli.data.images import ImageData

STUDENTS = (ALONE, MAPPED, SAME, UNMAPPED, UNIFORM)
PICTURES = 3  # shown before and after φ
UNITS = {"cross_entropy": "nats", "epoch": "epochs"}


@dataclass
class DistillationVisionOptions:
    """The teacher, how the train objects are shared out, and the students that are compared."""

    teacher: dict[str, Any] = bounded(factory=lambda: {"kind": "lenet"})  # its network, the keys of a model
    students: list[str] = bounded(factory=lambda: list(STUDENTS), choices=STUDENTS)
    student_objects: int = bounded(1000, minimum=1)  # the first so many train objects
    teacher_objects: int | None = bounded(None, minimum=1)  # the next so many at most; null: all others
    teacher_epochs: int | None = bounded(None, minimum=0)  # null: as many as the students'
    weight: float = bounded(0.5, minimum=0, maximum=1)  # λ, of the labels
    temperature: float = bounded(1.0, above=0)  # T of the soft labels
    other_weights: list[float] = bounded(factory=list, minimum=0, maximum=1)  # further λ, for the table of weights
    test_objects: int = bounded(5000, minimum=1)  # at most


class DistillationVision(Grid):
    """Accuracy and cross-entropy by epoch of students with and without a teacher, and through φ."""

    Options = DistillationVisionOptions
    uses = Grid.uses | {"mapping"}
    threads_run_tasks = True
    min_objects = 2

    def points(self) -> list[Point]:
        """One point: the teachers are shared by all students."""
        options, config = self.config.measure, self.config
        if config.mapping.kind != "style":
            raise BadInput(f"mapping.kind: {config.mapping.kind!r}; allowed: style")
        for axis, values in config.grid.items():
            if axis != "dataset" or len(values) > 1:
                raise BadInput(f"grid.{axis}: figures have no room for it; allowed: one run a value (-m)")
        if config.training.augmentation != "none":
            raise BadInput(
                f"training.augmentation: {config.training.augmentation!r}, and a teacher answers to whole pictures; "
                "allowed: none"
            )
        check_students(options)
        settings = self.settings(config.dataset.name)
        scale = settings["dataset"]["normalisation"]
        if config.mapping.checkpoint is not None and scale != "symmetric":
            raise BadInput(
                f"dataset.normalisation: {scale!r} with mapping.checkpoint, whose generator takes pixels in [-1, 1]; "
                "allowed: symmetric"
            )
        settings["measure"]["teacher"] = asdict(model_node(settings["measure"]["teacher"], "measure.teacher"))
        return [Point.of({"dataset": config.dataset.name}, settings)]

    def operations(self, point: Point, source: Any) -> float:
        """Floating-point operations of training and testing."""
        from landscape_cli.models import build_model, forward_operations

        settings = point.settings
        options, seeds, epochs = settings["measure"], len(settings["seeds"]), settings["training"]["epochs"]
        taught = options["student_objects"]
        rest = settings["dataset"]["objects"] - taught
        tested = min(options["test_objects"], source.test_objects)
        cost = {
            name: forward_operations(build_model(node, source.shape, source.classes), source.shape)
            for name, node in (("student", settings["model"]), ("teacher", options["teacher"]))
        }
        teacher = min(options["teacher_objects"] or rest, rest) * (options["teacher_epochs"] or epochs)
        students = len(options["students"]) + 2 * len(options["other_weights"])
        trained = 3 * (2 * teacher * cost["teacher"] + students * taught * epochs * cost["student"])
        return seeds * (trained + tested * (students * (epochs + 1) * cost["student"] + 3 * cost["teacher"]))

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``epochs`` (student, weight, seed, epoch), ``teachers`` (teacher, seed), ``sizes``; some pictures."""
        import torch

        from landscape_cli.distillation.students import train_student

        settings = point.settings
        lesson, options, seeds = Lesson(point, context), settings["measure"], settings["seeds"]
        lesson.train_teachers(context)
        training = {**settings["training"], "seeds": seeds, "stream": f"{point.stream} student"}
        runs = [(name, options["weight"]) for name in options["students"]]
        runs += [(name, w) for w in options["other_weights"] for name in options["students"] if name in (MAPPED, SAME)]
        epochs = []
        for name, weight in context.progress(list(dict.fromkeys(runs)), desc="students"):
            given = {"weight": 1.0 if name == ALONE else weight, "temperature": options["temperature"]}
            _, history = train_student(
                lesson.student, lesson.x, lesson.y, lesson.labels(name), lesson.test, **given, **training
            )
            index = pd.MultiIndex.from_product([range(history.shape[1]), seeds], names=["epoch", "seed"])
            values = {"accuracy": history[0].flatten().numpy(), "cross_entropy": history[1].flatten().numpy()}
            frame = pd.DataFrame(values, index=index).reset_index().assign(student=name, weight=weight)
            epochs.append(frame)
        rows = [
            {"teacher": name, "tested_on": domain, "seed": seed, "accuracy": float(a), "cross_entropy": float(loss)}
            for (name, domain), found in lesson.teacher_quality.items()
            for seed, a, loss in zip(seeds, *found, strict=True)
        ]
        frames = {
            "epochs": pd.concat(epochs, ignore_index=True),
            "teachers": pd.DataFrame(rows),
            "sizes": pd.DataFrame([lesson.sizes]),
        }
        shown = torch.stack([lesson.x[lesson.shown], lesson.mapped[lesson.shown]]).cpu().numpy()
        return Measurement(with_units(frames, UNITS), {"pictures": shown.astype(np.float32)})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Figs 4.10, 4.11 and 4.12."""
        yield from distillation_structures.pictures(results, self.config)
        yield from distillation_results.figures(results, self.config, ("accuracy", "cross_entropy"))

    def tables(self, results: Results) -> Iterator[Table]:
        """Tables 4.3, 4.4, 4.5 and 4.7, and the weights λ that were tried."""
        yield from distillation_structures.tables(results, self.config)
        yield from distillation_results.tables(results, self.config)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test the text's sentences."""
        yield from distillation_results.claims(results, self.config)
        yield from distillation_structures.fewer_weights(results, self.config)

    def answers(self, results: Results) -> Iterator[str]:
        """What φ adds to a teacher's answers, and what answers add to soft labels without a teacher."""
        yield from distillation_results.answers(results, self.config)


def check_students(options: Any) -> None:
    """Refuse students that are named twice, and none to compare with."""
    repeated = [name for k, name in enumerate(options.students) if name in options.students[:k]]
    if repeated:
        raise BadInput(f"measure.students: {repeated[0]} twice; allowed: each once")
    if not {MAPPED, SAME, UNMAPPED} & set(options.students):
        raise BadInput(f"measure.students: none has a teacher; allowed: with {MAPPED}, {SAME} or {UNMAPPED}")
    if options.other_weights and not {MAPPED, SAME} & set(options.students):
        raise BadInput(
            f"measure.other_weights: {options.other_weights} of no student; allowed: with {MAPPED} or {SAME}"
        )
    if ALONE not in options.students:
        raise BadInput(f"measure.students: without {ALONE!r}, with which the others are compared; allowed: with it")


class Lesson:
    """The parts of a data set, the teachers of all seeds, and what they tell students."""

    def __init__(self, point: Point, context: Context) -> None:
        from landscape_cli.models import build_model

        data, settings = context.images(), point.settings
        self.point, self.options, self.seeds = point, settings["measure"], settings["seeds"]
        self.training = settings["training"]
        own, others = _parts(len(data.x_train), self.options)
        self.x, self.y = data.x_train[:own], data.y_train[:own]
        self.big = (data.x_train[own : own + others], data.y_train[own : own + others])
        tested = self.options["test_objects"]
        self.test = (data.x_test[:tested], data.y_test[:tested])
        if not len(self.test[0]):
            raise BadInput("dataset: it has no test objects; allowed: one or more")
        self.classes = data.source.classes
        self.student = build_model(settings["model"], data.shape, self.classes)
        self.teacher = build_model(self.options["teacher"], data.shape, self.classes)
        self.mapping = mapping_of(settings["mapping"], context, data)
        self.mapped = self.mapping(self.x)
        self.shown = _of_different_classes(self.y)
        self.sizes = {
            "train_objects": data.source.train_objects,
            "teacher_objects": others,
            "student_objects": own,
            "test_objects": len(self.test[0]),
            "classes": self.classes,
        }

    def train_teachers(self, context: Context) -> None:
        """Train a teacher a seed on the big part, and one on φ of it, and keep what they say of the small part."""
        from landscape_cli.distillation.students import evaluate, taught
        from landscape_cli.training import fit

        names = set(self.options["students"])
        own, epochs = self.options["teacher_epochs"], self.training["epochs"]
        given = {**self.training, "seeds": self.seeds, "epochs": epochs if own is None else own}
        given["progress"] = context.progress
        temperature = self.options["temperature"]
        self.known: dict[str, torch.Tensor] = {}
        self.teacher_quality: dict[tuple[str, str], torch.Tensor] = {}
        x, y = self.big
        if SAME in names:
            u = fit(self.teacher, x, y, stream=f"{self.point.stream} teacher", **given)
            self.teacher_quality[SAME, "its own domain"] = evaluate(self.teacher, u, *self.test)
            self.known[SAME] = taught(self.teacher, u, self.x, temperature)
        if names & {MAPPED, UNMAPPED}:
            u = fit(self.teacher, self.mapping(x), y, stream=f"{self.point.stream} mapped teacher", **given)
            mapped = (self.mapping(self.test[0]), self.test[1])
            self.teacher_quality[MAPPED, "its own domain"] = evaluate(self.teacher, u, *mapped)
            self.teacher_quality[MAPPED, "the student's domain"] = evaluate(self.teacher, u, *self.test)
            self.known[MAPPED] = taught(self.teacher, u, self.mapped, temperature)
            self.known[UNMAPPED] = taught(self.teacher, u, self.x, temperature)

    def labels(self, name: str) -> torch.Tensor:
        """Soft labels that a student is given, (S, n, K) or (1, n, K)."""
        if name in self.known:
            return self.known[name]
        # Of a student alone they have no weight.
        return self.x.new_full((1, len(self.x), self.classes), 1 / self.classes)


def mapping_of(settings: dict[str, Any], context: Context, data: ImageData) -> Any:
    """φ as a function of pictures (N, C, H, W)."""
    if settings["kind"] == "style":
        from landscape_cli.distillation.style import stylise

        limits = (float(data.x_train.min()), float(data.x_train.max()))
        return lambda x: stylise(x, settings["levels"], settings["seed"], *limits)
    from landscape_cli.distillation.cyclegan import load_generator, transform

    generator = load_generator(context.mapping).to(data.x_train.device)
    return lambda x: transform(generator, x)


def _parts(total: int, options: dict[str, Any]) -> tuple[int, int]:
    """Numbers of the student's and of the teacher's objects."""
    own, others = options["student_objects"], options["teacher_objects"]
    if own >= total:
        raise BadInput(
            f"measure.student_objects: {own} of {total} train objects leave none for the teacher; allowed: fewer"
        )
    return own, min(total - own, others or total)


def _of_different_classes(y: torch.Tensor) -> list[int]:
    """Numbers of the first objects of as many classes as are shown."""
    first: dict[int, int] = {}
    for n, label in enumerate(y.tolist()):
        first.setdefault(label, n)
    return sorted(first.values())[:PICTURES]
