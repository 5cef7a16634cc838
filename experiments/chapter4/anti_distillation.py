"""Figs 4.14 to 4.16, Table 4.9: eight ways to initialise a larger student from a smaller teacher (thesis 4.3, 4.4.3).

The teacher is trained on part of the classes (D₁), the student on all of them (D₂). Every seed has a teacher of its
own, and all seeds of an initialisation are grown, trained and tested at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.chapter4 import anti_distillation_results
from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from landscape_cli.data.images import ImageData
    from landscape_cli.models import Parameters
    from landscape_cli.models.mlp import FeedForward

XAVIER, ZERO, UNIFORM, TRANSFER, NET2NET, NOISE, FLAT, ANTI = INITIALISATIONS = (
    "xavier",
    "zero_pad",
    "uniform_pad",
    "transfer_learning",
    "net2net",
    "data_noise",
    "anti_distillation_no_trace",
    "anti_distillation",
)


@dataclass
class AntiDistillationOptions:
    """The teacher, how students are grown from it, and how they are tried."""

    initialisations: list[str] = bounded(factory=lambda: list(INITIALISATIONS), choices=INITIALISATIONS)
    train_size: int | None = bounded(None, minimum=1)  # of D₂; null: all train objects
    teacher_size: int | None = bounded(None, minimum=1)  # D₁ is of the first so many; null: of the student's objects
    search_sizes: list[int] = bounded(factory=list, minimum=1)  # train sizes tried with the first initialisation
    shared_classes: int = bounded(5, minimum=2)  # D₁: the first so many
    teacher_hidden: list[int] = bounded(factory=lambda: [128, 64, 32], minimum=1)
    teacher_epochs: int = bounded(30, minimum=0)
    teacher_early_epochs: int = bounded(10, minimum=0)  # at the first rate
    teacher_rates: list[float] = bounded(factory=lambda: [1e-2, 1e-3], above=0)
    frozen_epochs: int = bounded(3, minimum=0)  # of transfer learning: all but the head
    grow_epochs: int = bounded(10, minimum=0)  # of the composite loss on D₁
    radius: float = bounded(0.1, minimum=0)  # δ of U_δ, in pixels' units: [-1, 1]
    lambdas: list[float] = bounded(factory=lambda: [1.0, 0.1, 1.0, 0.01], minimum=0)  # λ₁ to λ₄
    lambdas_no_trace: list[float] = bounded(factory=lambda: [1.0, 0.1, 1.0], minimum=0)  # λ₁ to λ₃ where λ₄ = 0
    attack: list[float] = bounded(factory=lambda: [0.0, 0.02, 0.04, 0.06, 0.08, 0.1], minimum=0)  # ε of FGSM
    parameter_noise: list[float] = bounded(factory=lambda: [0.0, 0.01, 0.02, 0.03, 0.04, 0.05], minimum=0)  # w + ε ξ
    test_objects: int = bounded(5000, minimum=1)  # at most


class AntiDistillation(Grid):
    """Accuracy by epoch, under attack and under parameter noise, of every initialisation."""

    Options = AntiDistillationOptions
    min_objects = 20

    def points(self) -> list[Point]:
        """One point a train size; and one each of the sizes that are searched, with one initialisation."""
        options, config = self.config.measure, self.config
        if config.model.kind != "feedforward":
            raise BadInput(f"model.kind: {config.model.kind!r}; allowed: feedforward")
        unfit = [axis for axis in self.axes if axis != "train_size"]
        if unfit or len(config.grid.get("dataset", [])) > 1:
            axis = unfit[0] if unfit else "dataset"
            raise BadInput(f"grid.{axis}: figures have no room for it; allowed axes: train_size")
        repeated = [name for k, name in enumerate(options.initialisations) if name in options.initialisations[:k]]
        if repeated:
            raise BadInput(f"measure.initialisations: {repeated[0]} twice; allowed: each once")
        for name, count in (("lambdas", 4), ("lambdas_no_trace", 3), ("teacher_rates", 2)):
            if len(getattr(options, name)) != count:
                raise BadInput(f"measure.{name}: {getattr(options, name)}; allowed: {count} numbers")
        for name in ("attack", "parameter_noise"):
            levels = getattr(options, name)
            if sorted(set(levels)) != levels or len(levels) < 2 or levels[0] != 0:
                raise BadInput(f"measure.{name}: {levels}; allowed: numbers that rise from 0")
        check_widths(options.teacher_hidden, config.model.hidden)
        cap = config.dataset.max_size
        found = []
        for size in config.grid.get("train_size", [options.train_size]):
            own = size if size is None or cap is None else min(size, cap)
            found.append(self._point("comparison", own, {}))
        first = {"initialisations": options.initialisations[:1]}
        found += [self._point("search", size, first) for size in options.search_sizes if cap is None or size <= cap]
        return list(dict.fromkeys(found))

    def _point(self, part: str, size: int | None, changes: Mapping[str, Any]) -> Point:
        settings = self.settings(self.config.dataset.name, **changes)
        settings["measure"].update(train_size=size, search_sizes=[])
        shown = "all" if size is None else size
        return Point.of({"dataset": self.config.dataset.name, "part": part, "train_size": shown}, settings)

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``epochs`` (initialisation, seed, epoch), ``attack`` and ``noise`` (strength), ``teachers`` (seed)."""
        import torch

        data, settings = context.images(), point.settings
        options = settings["measure"]
        students = Students(point, data)
        epochs, attacked, noisy = [], [], []
        with torch.no_grad():
            students.train_teachers(context)
            for name in context.progress(options["initialisations"], desc="initialisations"):
                trained, history = students.train(name)
                epochs.append(_frame(history, settings["seeds"], "epoch", range(len(history)), name))
                for frames, strengths, accuracy in (
                    (attacked, options["attack"], students.under_attack),
                    (noisy, options["parameter_noise"], students.under_noise),
                ):
                    found = torch.stack([accuracy(name, trained, strength) for strength in strengths])
                    frames.append(_frame(found, settings["seeds"], "strength", strengths, name))
        teachers = pd.DataFrame({"seed": settings["seeds"], "accuracy": students.teacher_accuracy.numpy()})
        teachers = teachers.assign(objects=len(students.known[1]), train_objects=students.size)
        frames = {"epochs": epochs, "attack": attacked, "noise": noisy}
        return Measurement({**{n: pd.concat(f, ignore_index=True) for n, f in frames.items()}, "teachers": teachers})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Figs 4.14, 4.15 and 4.16."""
        yield from anti_distillation_results.figures(results, self.config)

    def tables(self, results: Results) -> Iterator[Table]:
        """Table 4.9, and the train sizes that were searched."""
        yield from anti_distillation_results.tables(results, self.config)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test the text's sentences."""
        yield from anti_distillation_results.claims(results, self.config)


def check_widths(teacher: list[int], student: list[int]) -> None:
    """Refuse a student that does not hold its teacher, before anything is loaded."""
    if len(teacher) != len(student):
        raise BadInput(
            f"model.hidden: {student}, and measure.teacher_hidden is {teacher}; allowed: equally many layers"
        )
    for layer, (small, large) in enumerate(zip(teacher, student, strict=True), 1):
        if large < small:
            raise BadInput(
                f"model.hidden: {large} in hidden layer {layer}, the teacher has {small}; allowed: as many or more"
            )


class Students:
    """Teachers of all seeds, and the students that are grown from them."""

    def __init__(self, point: Point, data: ImageData) -> None:
        import torch

        from landscape_cli.models.mlp import FeedForward

        self.point, self.options, self.seeds = point, point.settings["measure"], point.settings["seeds"]
        self.training, model = point.settings["training"], point.settings["model"]
        total, classes, shared = len(data.x_train), data.source.classes, self.options["shared_classes"]
        self.size = total if self.options["train_size"] is None else self.options["train_size"]
        if self.size > total:
            raise BadInput(f"measure.train_size: {self.size}; allowed: up to {total}, all that there are")
        if shared >= classes:
            raise BadInput(f"measure.shared_classes: {shared} of {classes}; allowed: fewer than all")
        self.x, self.y = data.x_train[: self.size], data.y_train[: self.size]
        self.test = (data.x_test[: self.options["test_objects"]], data.y_test[: self.options["test_objects"]])
        missing = sorted(set(range(shared)) - set(data.y_train[: self.options["teacher_size"] or self.size].tolist()))
        if missing:
            raise BadInput(
                f"measure.train_size: the first {self.size} objects lack class {missing[0]} of D_1; allowed: more"
            )
        first = min(self.options["teacher_size"] or self.size, total)
        shared_rows = torch.nonzero(data.y_train[:first] < shared).flatten()
        self.known = (data.x_train[shared_rows], data.y_train[shared_rows])  # D₁
        self.limits = (float(data.x_train.min()), float(data.x_train.max()))
        inputs = self.x[0].numel()
        rest = {"activation": model["activation"], "bias": model["bias"]}
        self.teacher = FeedForward(inputs, shared, self.options["teacher_hidden"], **rest)
        self.student = FeedForward(inputs, classes, model["hidden"], **rest)
        self.small = FeedForward(inputs, classes, self.options["teacher_hidden"], **rest)  # of transfer learning

    def generators(self, purpose: str) -> list[torch.Generator]:
        """One a seed."""
        from landscape_cli.rng import generator

        return [generator(seed, purpose, self.point.stream) for seed in self.seeds]

    def initial(self, model: FeedForward, purpose: str) -> Parameters:
        """Draw an initialisation for every seed."""
        return {n: t.to(self.x) for n, t in model.initialise(self.generators(purpose)).items()}

    def train_teachers(self, context: Context) -> None:
        """Train a teacher a seed on D₁, with a smaller rate after the early epochs."""
        from landscape_cli.training import fit

        options, early = self.options, min(self.options["teacher_early_epochs"], self.options["teacher_epochs"])
        self.u = self.initial(self.teacher, "teacher")
        x, y = self.known
        phases = zip((early, options["teacher_epochs"] - early), options["teacher_rates"], strict=True)
        for phase, (epochs, rate) in enumerate(phases):
            given = {"seeds": self.seeds, "epochs": epochs, "batch_size": self.training["batch_size"]}
            stream = f"{self.point.stream} teacher {phase}"
            self.u = fit(
                self.teacher, x, y, start=self.u, learning_rate=rate, stream=stream, progress=context.progress, **given
            )
        kept = self.test[1] < self.options["shared_classes"]
        self.teacher_accuracy = self.accuracy(self.teacher, self.u, self.test[0][None, kept], self.test[1][None, kept])

    def grown(self, name: str) -> Parameters:
        """The student's parameters before it is trained on D₂."""
        from landscape_cli.distillation.anti import Weights, grow
        from landscape_cli.distillation.growing import net2net, padded, zero_padded

        if name == TRANSFER:
            start = self.initial(self.small, "student")
            head = list(start)[-2:] if self.small.bias else list(start)[-1:]
            return {n: t if n in head else self.u[n].clone() for n, t in start.items()}
        start = self.initial(self.student, "student")
        if name == XAVIER:
            return start
        if name == ZERO:
            return zero_padded(self.u, start)
        if name == UNIFORM:
            return padded(self.u, start)
        if name == NET2NET:
            return net2net(self.u, start, self.generators("copies"))
        options = self.options
        lambdas = {NOISE: [1.0, 0.0, 1.0, 0.0], FLAT: [*options["lambdas_no_trace"], 0.0], ANTI: options["lambdas"]}[
            name
        ]
        given = {"seeds": self.seeds, "epochs": options["grow_epochs"], "batch_size": self.training["batch_size"]}
        return grow(
            self.student,
            start,
            self.u,
            Weights(*lambdas, radius=options["radius"]),
            *self.known,
            generators=self.generators("growing"),
            stream=f"{self.point.stream} growing",
            learning_rate=self.training["learning_rate"],
            **given,
        )

    def model(self, name: str) -> FeedForward:
        """The architecture that an initialisation trains."""
        return self.small if name == TRANSFER else self.student

    def train(self, name: str) -> tuple[Parameters, torch.Tensor]:
        """Train on D₂; parameters, and accuracy before and after each epoch, (epochs + 1, R)."""
        import torch

        from landscape_cli.training import Trainer

        model, start = self.model(name), self.grown(name)
        given = {"seeds": self.seeds, "stream": f"{self.point.stream} student", "start": start}
        trainer = Trainer(model, self.x, self.y, **given, **self.training)
        history: list[torch.Tensor] = []
        left = trainer.epochs(keep={"history": history})
        if not trainer.done:
            history.append(self.accuracy(model, trainer.parameters, *self.shared_test))
        for epoch in left:
            trainer.free = self.head_only(model) if name == TRANSFER and epoch < self.options["frozen_epochs"] else None
            trainer.epoch()
            history.append(self.accuracy(model, trainer.parameters, *self.shared_test))
        return trainer.finish(), torch.stack(history)

    def head_only(self, model: FeedForward) -> dict[str, torch.Tensor]:
        """A mask that holds everything but the last layer."""
        import torch

        last = f"{2 * (len(model.widths) - 2)}."
        shapes = self.initial(model, "student")
        return {name: torch.full_like(t, name.startswith(last), dtype=torch.bool) for name, t in shapes.items()}

    @property
    def shared_test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Test objects, (1, N, …) and (1, N)."""
        return self.test[0][None], self.test[1][None]

    def accuracy(self, model: FeedForward, parameters: Parameters, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Share of objects classified rightly, (R,)."""
        from landscape_cli.curvature.stacked import flatten
        from landscape_cli.pruning.removal import quality

        return quality(model, parameters, flatten(parameters), x, y).cpu()

    def under_attack(self, name: str, parameters: Parameters, strength: float) -> torch.Tensor:
        """Accuracy on test objects moved by FGSM, (R,)."""
        from landscape_cli.distillation.attacks import fgsm

        model = self.model(name)
        right, (x, y) = 0.0, self.test
        for begin in range(0, len(x), model.chunk):
            part, labels = x[None, begin : begin + model.chunk], y[None, begin : begin + model.chunk]
            labels = labels.expand(len(self.seeds), -1)
            moved = fgsm(model, parameters, part, labels, strength, self.limits)
            right = right + self.accuracy(model, parameters, moved, labels) * labels.shape[1]
        return right / len(x)

    def under_noise(self, name: str, parameters: Parameters, strength: float) -> torch.Tensor:
        """Accuracy with noise in the parameters, (R,)."""
        from landscape_cli.distillation.attacks import noisy_parameters

        noisy = noisy_parameters(parameters, strength, self.generators("parameter noise"))
        return self.accuracy(self.model(name), noisy, *self.shared_test)


def _frame(values: torch.Tensor, seeds: list[int], axis: str, places: Any, name: str) -> pd.DataFrame:
    """A row a place and seed, from (places, R)."""
    index = pd.MultiIndex.from_product([list(places), seeds], names=[axis, "seed"])
    frame = pd.DataFrame({"accuracy": np.asarray(values).ravel()}, index=index).reset_index()
    return frame.assign(initialisation=name)
