"""Fig 4.13, Tables 4.6 and 4.8: distillation of translators across languages (thesis 4.2, 4.4.2).

The teacher translates German, the student French, both into English; φ turns the student's French into German for the
teacher. Teacher and student have the same subwords of English, without which their answers would not compare. Every
seed has teachers of its own, and all seeds of a network are trained at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from experiments.chapter4 import distillation_results
from experiments.chapter4.distillation_vision import STUDENTS, UNITS, check_students
from experiments.chapter4.translation_lesson import Lesson
from experiments.grid import Grid
from experiments.reference import published_table
from landscape_cli.config import bounded
from landscape_cli.data.corpus_sets import LANGUAGES
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Figure, Measurement, Point, Results, Table, Verdict, with_units

CODES = {  # NLLB's names of languages
    "de": "deu_Latn",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "fr": "fra_Latn",
    "it": "ita_Latn",
    "nl": "nld_Latn",
    "pl": "pol_Latn",
    "pt": "por_Latn",
    "ru": "rus_Cyrl",
    "cs": "ces_Latn",
}
GROUPS = 2  # of kinds of students, trained side by side; a group's networks are trained at once


@dataclass
class DistillationLanguageOptions:
    """How the sentences are shared out, the subwords, and the students that are compared."""

    students: list[str] = bounded(factory=lambda: list(STUDENTS), choices=STUDENTS)
    teacher_objects: int = bounded(5000, minimum=1)  # sentences
    student_objects: int = bounded(2000, minimum=1)
    test_objects: int = bounded(500, minimum=1)  # at most
    teacher_epochs: int | None = bounded(None, minimum=0)  # null: as many as the students'
    vocabulary: int = bounded(2000, minimum=50)  # subwords of each language, at most
    max_length: int = bounded(40, minimum=4)  # subwords of a sentence; longer ones are cut
    weight: float = bounded(0.5, minimum=0, maximum=1)  # λ, of the labels
    temperature: float = bounded(1.0, above=0)  # T of the soft labels
    other_weights: list[float] = bounded(factory=list, minimum=0, maximum=1)  # further λ, for the table of weights


class DistillationLanguage(Grid):
    """Cross-entropy by epoch and BLEU of students with and without a teacher, and through φ."""

    Options = DistillationLanguageOptions
    data = "corpus"
    uses = Grid.uses | {"mapping"}
    threads_run_tasks = True

    def points(self) -> list[Point]:
        """One point: the teachers are shared by all students."""
        config = self.config
        for node, allowed in (("mapping", "translation"), ("model", "encoder_decoder")):
            kind = getattr(config, node).kind
            if kind != allowed:
                raise BadInput(f"{node}.kind: {kind!r}; allowed: {allowed}")
        for axis, values in config.grid.items():
            if axis != "dataset" or len(values) > 1:
                raise BadInput(f"grid.{axis}: figures have no room for it; allowed: one run a value (-m)")
        if config.training.augmentation != "none":
            raise BadInput(f"training.augmentation: {config.training.augmentation!r} is for pictures; allowed: none")
        model = config.model
        if model.hidden_size % 2 or model.hidden_size % model.num_heads:
            allowed = f"even numbers that model.num_heads={model.num_heads} divides"
            raise BadInput(f"model.hidden_size: {model.hidden_size}; allowed: {allowed}")
        check_students(config.measure)
        settings = self.settings(config.dataset.name)
        if config.mapping.checkpoint is not None:
            settings["mapping"] |= language_codes(settings["mapping"], settings["dataset"])
        return [Point.of({"dataset": config.dataset.name}, settings)]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``epochs``, ``final``, ``teachers`` (student or teacher, seed), ``sizes`` and ``examples``."""
        from landscape_cli import parallel

        lesson = Lesson(point, context)
        teachers, students = lesson.needed(), lesson.students()
        epochs = len(teachers) * lesson.teacher_epochs + len(students) * lesson.training["epochs"]
        with context.progress(total=epochs, desc="epochs") as bar:
            lesson.tick = bar.update
            lesson.taught = dict(zip(teachers, parallel.each(lesson.train_teachers, teachers), strict=True))
            groups = [students[k::GROUPS] for k in range(min(GROUPS, len(students)))]
            trained = dict(kind for found in parallel.each(lesson.train_students, groups) for kind in found.items())
        learned = [trained[kind] for kind in students]
        rows = {
            "teachers": [row for teacher in lesson.taught.values() for row in teacher.quality],
            "epochs": [row for student in learned for row in student.losses],
            "final": [row for student in learned for row in student.quality],
            "examples": lesson.examples(learned),
            "sizes": [lesson.sizes],
        }
        return Measurement(with_units({name: pd.DataFrame(own) for name, own in rows.items() if own}, UNITS))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Fig 4.13."""
        yield from distillation_results.figures(results, self.config, ("cross_entropy",))

    def tables(self, results: Results) -> Iterator[Table]:
        """Tables 4.6 and 4.8, and some translations."""
        yield _parts(results, self.config)
        yield from distillation_results.tables(results, self.config)
        examples = results.frames["examples"].drop(columns=["dataset"])
        examples = examples.assign(sentence=range(1, len(examples) + 1)).melt(
            "sentence", var_name="by", value_name="text"
        )
        caption = "The first test sentences, what φ makes of them, and what the first seed's students say."
        yield Table(
            f"{self.config.name}_examples", examples.sort_values("sentence", kind="stable", ignore_index=True), caption
        )

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test the text's sentences."""
        yield from distillation_results.claims(results, self.config)

    def answers(self, results: Results) -> Iterator[str]:
        """What φ adds to a teacher's answers, and what answers add to soft labels without a teacher."""
        yield from distillation_results.answers(results, self.config)


def language_codes(mapping: dict[str, Any], dataset: dict[str, Any]) -> dict[str, str]:
    """NLLB's names of the student's and the teacher's language, unless they are given.

    Raises
    ------
    BadInput
        A language whose name there is not known.
    """
    found = {}
    for key, role in (("source_code", "student_language"), ("target_code", "teacher_language")):
        language = dataset[role]
        found[key] = mapping[key] or CODES.get(language)
        if found[key] is None:
            raise BadInput(
                f"mapping.{key}: null, and NLLB's name of {language!r} is not known here; allowed: such a name"
            )
    return found


def _parts(results: Results, config: Any) -> Table:
    sizes, rows = results.frames["sizes"].iloc[0], []
    printed = published_table("4.6").set_index("row")["value"]
    dataset = results.points[0].settings["dataset"]
    teacher, student, target = (dataset[role] for role in LANGUAGES)
    for name, pair, column in (
        ("Teacher-Train", (teacher, target), "teacher_objects"),
        ("Student-Train", (student, target), "student_objects"),
        ("Student-Test", (student, target), "test_objects"),
        ("aligned, for φ", (student, teacher), "pairs"),
    ):
        rows.append(
            {
                "part": name,
                "languages": "-".join(pair),
                "sentences": int(sizes[column]),
                "published": printed.get(name, "-"),
            }
        )
    name = dataset["name"]
    about = results.sources[name].title if name in results.sources else name
    caption = (
        f"Parts of the corpus ({about}), beside Table 4.6; {sizes['target_subwords']} subwords of {target}, "
        f"{sizes['cut']:.1%} of the student's and the test's sentences cut."
    )
    return Table(
        "table_4_6_language_datasets" if config.thesis else f"{config.name}_datasets", pd.DataFrame(rows), caption
    )
