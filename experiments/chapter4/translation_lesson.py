"""What translators of one point are taught: sentences as subwords, φ of them, teachers and students of all seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.chapter4.distillation_results import ALONE, LABELS, MAPPED, SAME, UNIFORM, UNMAPPED
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Point

if TYPE_CHECKING:
    from landscape_cli.data.corpora import Bitext
    from landscape_cli.distillation.translators import Sentences, Teaching
    from landscape_cli.models import Parameters
    from landscape_cli.models.encoder_decoder import EncoderDecoder

SHOWN = 5  # test sentences whose translations are kept


@dataclass(frozen=True)
class Teachers:
    """One domain's teachers, one a seed."""

    model: EncoderDecoder
    parameters: Parameters
    quality: list[dict[str, Any]]  # a row a seed and domain that they were tested on


@dataclass(frozen=True)
class Students:
    """What the students of one kind came to, one a seed."""

    losses: list[dict[str, Any]]  # a row a seed and epoch, from 0
    quality: list[dict[str, Any]]  # a row a seed
    said: list[str]  # by the first seed's, of the first test sentences


class Lesson:
    """The sentences as subwords, φ, and what each seed trains."""

    taught: dict[str, Teachers]  # by name, once they are trained
    tick: Any  # called after each epoch

    def __init__(self, point: Point, context: Context) -> None:
        from landscape_cli.data.subwords import Subwords

        settings = point.settings
        self.point, self.options, self.training = point, settings["measure"], settings["training"]
        self.seeds = settings["seeds"]
        self.model, self.device, mapping = settings["model"], context.device, settings["mapping"]
        sizes = {f"{part}_size": self.options[f"{part}_objects"] for part in ("teacher", "student")}
        sizes["test_size"] = min(self.options["test_objects"], context.source.test_objects)
        self.corpus = corpus = context.corpus(**sizes, pairs=None if "pairs" in mapping else 0)
        aligned = corpus.aligned.first(mapping.get("pairs"))
        self.translated = {
            name: translated(mapping, context, aligned, part.source)
            for name, part in (("student", corpus.student), ("test", corpus.test))
        }
        texts = {
            "target": corpus.teacher.target + corpus.student.target,
            "student": corpus.student.source,
            MAPPED: corpus.teacher.source,
            SAME: corpus.relative.source,
        }
        try:
            self.subwords = {name: Subwords.train(text, self.options["vocabulary"]) for name, text in texts.items()}
        except BadInput as error:
            raise BadInput(f"measure.vocabulary: {error}") from error
        self.lengths: list[tuple[int, int]] = []  # numbers of sentences, and how many of them were cut
        self.student = self.encoded(corpus.student, "student")
        self.test = self.encoded(corpus.test, "student")
        self.sizes = {
            "teacher_objects": len(corpus.teacher),
            "student_objects": len(corpus.student),
            "test_objects": len(corpus.test),
            "pairs": len(aligned),
            "target_subwords": len(self.subwords["target"]),
            "cut": sum(cut for _, cut in self.lengths) / sum(count for count, _ in self.lengths),
        }

    def encoded(self, pairs: Bitext, subwords: str, source: tuple[str, ...] | None = None) -> Sentences:
        """Sentences in the subwords of a reader; ``source`` in the place of their own."""
        from landscape_cli.distillation.translators import Sentences

        longest = self.options["max_length"]
        read = self.subwords[subwords].encode(pairs.source if source is None else source, longest)
        told = self.subwords["target"].encode(pairs.target, longest, begin=True)
        self.lengths += [(len(pairs), read.cut), (len(pairs), told.cut)]
        return Sentences(read.ids.to(self.device), told.ids.to(self.device))

    @property
    def teacher_epochs(self) -> int:
        """Of each teacher."""
        own = self.options["teacher_epochs"]
        return self.training["epochs"] if own is None else own

    def needed(self) -> list[str]:
        """Teachers that the students need."""
        names = set(self.options["students"])
        return [SAME] * (SAME in names) + [MAPPED] * bool({MAPPED, UNMAPPED} & names)

    def students(self) -> list[tuple[str, float]]:
        """Students and the weights λ of their labels."""
        names, options = self.options["students"], self.options
        runs = [(name, options["weight"]) for name in names]
        runs += [(name, w) for w in options["other_weights"] for name in names if name in (MAPPED, SAME)]
        return list(dict.fromkeys(runs))

    def train_teachers(self, name: str) -> Teachers:
        """Train a teacher a seed, and test it in its own domain and, through φ, in the student's."""
        pairs = self.corpus.relative if name == SAME else self.corpus.teacher
        options = {"purpose": f"teacher {name}", "epochs": self.teacher_epochs}
        model, parameters = self.fit(name, self.encoded(pairs, name), **options)
        tests = {"its own domain": (self.corpus.test if name == SAME else self.corpus.teacher_test, None)}
        if name == MAPPED:
            tests["the student's domain through φ"] = (self.corpus.test, self.translated["test"])
        found = {
            domain: self.quality(model, parameters, self.encoded(test, name, source), test)[0]
            for domain, (test, source) in tests.items()
        }
        rows = [
            {"teacher": name, "seed": seed, "tested_on": domain, **rows[network]}
            for network, seed in enumerate(self.seeds)
            for domain, rows in found.items()
        ]
        return Teachers(model, parameters, rows)

    def teaching(self, name: str) -> Teaching | None:
        """What students are told beside the labels."""
        from landscape_cli.distillation.translators import teaching, uniform

        count = len(self.subwords["target"])
        if name == ALONE:
            return None
        if name == UNIFORM:
            return uniform(count)
        reader = SAME if name == SAME else MAPPED
        given = self.translated["student"] if name == MAPPED else None
        sources, teachers = self.encoded(self.corpus.student, reader, given).source, self.taught[reader]
        return teaching(teachers.model, teachers.parameters, sources, count, self.options["temperature"])

    def train_students(self, kinds: list[tuple[str, float]]) -> dict[tuple[str, float], Students]:
        """Train a student a kind and seed, a kind being a name and the labels' weight; test all after each epoch."""
        from landscape_cli.distillation.translators import cross_entropy

        losses: list[list[float]] = []  # a row an epoch

        def watch(model: EncoderDecoder, parameters: Parameters) -> None:
            losses.append(cross_entropy(model, parameters, self.test).tolist())

        weights = [1.0 if name == ALONE else weight for name, weight in kinds]
        teachers = [self.teaching(name) for name, _ in kinds]
        options = {"purpose": "student", "teachers": teachers, "weights": weights, "watch": watch}
        options |= {"keep": {"losses": losses}, "names": [name for name, _ in kinds]}
        model, parameters = self.fit("student", self.student, **options)
        quality, said = self.quality(model, parameters, self.test, self.corpus.test)
        found = {}
        for first, (name, weight) in enumerate(kinds):
            own = range(first * len(self.seeds), (first + 1) * len(self.seeds))
            about = {
                network: {"student": name, "weight": weight, "seed": seed}
                for network, seed in zip(own, self.seeds, strict=True)
            }
            found[name, weight] = Students(
                [
                    {**about[network], "epoch": epoch, "cross_entropy": values[network]}
                    for network in own
                    for epoch, values in enumerate(losses)
                ],
                [{**about[network], "bleu": quality[network]["bleu"]} for network in own],
                said[own[0]][:SHOWN],
            )
        return found

    def quality(
        self, model: EncoderDecoder, parameters: Parameters, sentences: Sentences, pairs: Bitext
    ) -> tuple[list[dict[str, float]], list[list[str]]]:
        """Cross-entropy and BLEU, and what is said, by each network."""
        from landscape_cli.distillation.translators import bleu, cross_entropy, translate

        said = translate(model, parameters, sentences.source, self.subwords["target"], self.options["max_length"])
        losses, references = cross_entropy(model, parameters, sentences).tolist(), list(pairs.target)
        found = [
            {"cross_entropy": loss, "bleu": bleu(texts, references)} for loss, texts in zip(losses, said, strict=True)
        ]
        return found, said

    def examples(self, learned: list[Students]) -> list[dict[str, Any]]:
        """The first test sentences, φ of them, and what the first seed's students say."""
        said = {
            LABELS[students.quality[0]["student"]]: students.said
            for students in learned
            if students.quality[0]["weight"] == self.options["weight"]
        }
        test = self.corpus.test
        given = {"source": test.source, "φ": self.translated["test"], "reference": test.target, **said}
        return [{name: texts[n] for name, texts in given.items()} for n in range(min(SHOWN, len(test)))]

    def fit(
        self, reader: str, sentences: Sentences, *, purpose: str, watch: Any = None, keep: Any = None, **given: Any
    ) -> tuple[EncoderDecoder, Parameters]:
        """Train translators of a reader's subwords, one a seed; students see the same minibatches and dropout."""
        import torch

        from landscape_cli.distillation.translators import train_translators
        from landscape_cli.models.encoder_decoder import EncoderDecoder
        from landscape_cli.rng import generator

        sizes = {name: value for name, value in self.model.items() if name != "kind"}
        counts = (len(self.subwords[reader]), len(self.subwords["target"]))
        model = EncoderDecoder(*counts, **sizes, max_length=self.options["max_length"])
        stream = self.point.stream
        start = model.initialise([generator(seed, f"initialisation {purpose}", stream) for seed in self.seeds])
        kinds, options, told = len(given.get("weights", [1.0])), {**self.training, **given}, 0

        def tell(epoch: int) -> None:
            nonlocal told
            if epoch > told:  # by more than one where a killed training goes on
                self.tick(kinds * (epoch - told))
                told = epoch

        def count(epoch: int, parameters: Parameters) -> None:
            if watch:
                watch(model, parameters)
            tell(epoch)

        parameters = train_translators(
            model,
            {name: torch.cat([tensor.to(self.device)] * kinds) for name, tensor in start.items()},
            sentences,
            seeds=self.seeds,
            stream=f"{stream} {purpose}",
            temperature=self.options["temperature"],
            watch=count,
            keep={} if keep is None else keep,
            **options,
        )
        tell(options["epochs"])
        return model, parameters


def translated(mapping: dict[str, Any], context: Context, aligned: Bitext, sentences: tuple[str, ...]) -> list[str]:
    """φ of sentences."""
    if mapping["kind"] == "translation":
        from landscape_cli.distillation.word_translation import fit_word_translation

        return fit_word_translation(aligned.source, aligned.target, mapping["iterations"]).translate(sentences)
    from landscape_cli.distillation.nllb import translate_with_checkpoint

    codes = (mapping["source_code"], mapping["target_code"])
    return translate_with_checkpoint(context.mapping, sentences, *codes, context.device, progress=context.progress)
