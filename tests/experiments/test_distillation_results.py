"""Figures, Tables 4.3 to 4.5, 4.7 and 4.8, and claims on students whose quality is known."""

import math
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from experiments.chapter4 import distillation_results as made
from experiments.chapter4 import distillation_structures as structures
from landscape_cli.config import LeNetConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Point, Results
from landscape_cli.plotting.style import style

SEEDS = 5
TEACHER = {"kind": "lenet", "channels": [24, 48, 96, 192, 384], "kernel_sizes": [5, 5, 8, 5, 7], "hidden": [120, 84]}
STUDENT = {"kind": "lenet", "channels": [24, 48], "kernel_sizes": [5, 5], "hidden": [120]}
STYLE = {"kind": "style", "levels": 4, "seed": 0}
ACCURACY = {"alone": 0.5, "mapping": 0.6, "same_domain": 0.8, "no_mapping": 0.55, "uniform_labels": 0.52}
LOSS = {"alone": 2.5, "mapping": 2.0, "same_domain": 1.5, "no_mapping": 2.25, "uniform_labels": 2.4}
BLEU = {"alone": [0.02, 0.03, 0.025], "mapping": [0.05, 0.09, 0.07], "same_domain": [0.1, 0.12, 0.11]}
CLAIMS = {
    "best": "a teacher of the same domain gives a higher accuracy than a teacher through φ, and than none",
    "lowest": "a teacher of the same domain gives the lowest cross-entropy",
    "mapped": "a teacher through φ gives a higher accuracy than none",
    "mapped loss": "the cross-entropy is lower with a teacher through φ",
    "mapped area": "the integral criterion is lower with a teacher through φ",
    "same loss": "the cross-entropy is lower with a teacher of the same domain",
}


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def config(thesis="figure 4.11", teacher=TEACHER, student=STUDENT, weight=0.5):
    measure = SimpleNamespace(weight=weight, temperature=1.0, teacher=teacher)
    return SimpleNamespace(name="students", thesis=thesis, measure=measure, model=LeNetConfig(**student))


def noise(name, seeds, spread):
    """What each seed adds: independent between students."""
    return spread * np.random.default_rng(sum(map(ord, name))).normal(size=seeds)


def results(accuracy=ACCURACY, loss=LOSS, *, spread=0.01, seeds=SEEDS, epochs=4, others=(), bleu=None, mapping=STYLE):
    """Accuracy and loss rise and fall in a straight line from a half and from twice to what is given at the end."""
    rows, final = [], []
    runs = [(name, 0.5) for name in accuracy] + [(n, w) for w in others for n in ("mapping", "same_domain")]
    for name, weight in runs:
        first, second = noise(name, seeds, spread), noise(name[::-1] + "loss", seeds, spread)
        for seed, epoch in np.ndindex(seeds, epochs + 1):
            share = epoch / epochs if epochs else 1.0
            row = {"epoch": epoch, "seed": seed, "student": name, "weight": weight, "dataset": "imagenette"}
            row["accuracy"] = (accuracy[name] + first[seed]) * (0.5 + 0.5 * share)
            row["cross_entropy"] = (loss[name] + second[seed]) * (2 - share)
            rows.append(row if bleu is None else {k: v for k, v in row.items() if k != "accuracy"})
        final += [
            {"student": name, "weight": weight, "seed": s, "bleu": v} for s, v in enumerate((bleu or {}).get(name, []))
        ]
    teachers = [
        {"teacher": name, "tested_on": domain, "seed": seed, ("bleu" if bleu else "accuracy"): value + seed / 100}
        for name, domain, value in (
            ("same_domain", "its own domain", 0.9),
            ("mapping", "its own domain", 0.7),
            ("mapping", "the student's domain", 0.3),
        )
        for seed in range(seeds)
    ]
    sizes = {
        "train_objects": 9469,
        "teacher_objects": 8469,
        "student_objects": 1000,
        "test_objects": 3925,
        "classes": 10,
    }
    frames = {"epochs": pd.DataFrame(rows), "teachers": pd.DataFrame(teachers), "sizes": pd.DataFrame([sizes])}
    if bleu is not None:
        frames["final"] = pd.DataFrame(final)
    settings = {
        "dataset": {"name": "imagenette"},
        "mapping": mapping,
        "model": asdict(LeNetConfig(**STUDENT)),
        "measure": {"teacher": asdict(LeNetConfig(**TEACHER))},
    }
    point = Point.of({"dataset": "imagenette"}, settings)
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 3, 3, 16, 16)).astype(np.float32)
    return Results((point,), (), frames, {point: {"pictures": pictures}}, {}, "paper")


def claims(own, given=None):
    return {verdict.claim: verdict for verdict in made.claims(own, given or config())}


def at_end(own, metric, name):
    rows = own.frames["epochs"]
    last = rows[(rows["student"] == name) & (rows["epoch"] == rows["epoch"].max()) & (rows["weight"] == 0.5)]
    return last.sort_values("seed")[metric].to_numpy()


def interval(values, rivals=1):
    """Mean and Student's interval, wide enough for so many at once."""
    half = t.ppf(1 - 0.05 / (2 * rivals), len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return np.mean(values), np.mean(values) - half, np.mean(values) + half


class TestClaims:
    def test_what_is_so_is_reproduced(self):
        found = claims(results())
        assert list(found) == list(CLAIMS.values())
        assert {verdict.verdict for verdict in found.values()} == {REPRODUCED}
        assert all(verdict.source == "thesis 4.4.2, Table 4.7" for verdict in found.values())
        assert all("φ: fixed stylisation (4 levels, seed 0)" in verdict.note for verdict in found.values())

    def test_the_contrary_is_not_reproduced(self):
        turned = dict(zip(ACCURACY, reversed(ACCURACY.values()), strict=True))
        worse = {"alone": 1.0, "mapping": 2.0, "same_domain": 3.0}
        found = claims(results(turned | {"alone": 0.9, "mapping": 0.6, "same_domain": 0.2}, LOSS | worse))
        assert {verdict.verdict for verdict in found.values()} == {NOT_REPRODUCED}
        assert all(verdict.effect < 0 for verdict in found.values())

    def test_what_lies_within_the_spread_is_inconclusive(self):
        same = dict.fromkeys(ACCURACY, 0.5)
        found = claims(results(same, dict.fromkeys(LOSS, 2.0), spread=0.05))
        assert {verdict.verdict for verdict in found.values()} == {INCONCLUSIVE}

    def test_one_seed_decides_nothing(self):
        found = claims(results(seeds=1))
        assert {verdict.verdict for verdict in found.values()} == {INCONCLUSIVE}
        assert all(verdict.low == -math.inf for verdict in found.values())
        assert found[CLAIMS["best"]].effect > 0

    def test_both_rivals_must_be_beaten(self):
        """The first is better than one of two: the other one decides."""
        for rival in ("alone", "mapping"):
            found = claims(results(ACCURACY | {rival: 0.9}))[CLAIMS["best"]]
            assert found.verdict == NOT_REPRODUCED
            assert found.note.startswith(f"nearest: {made.LABELS[rival]};")
            assert found.effect == pytest.approx(-0.1, abs=0.02)

    def test_a_rival_that_is_not_the_nearest_can_leave_it_open(self):
        own = results(spread=0.001)
        rows = own.frames["epochs"]
        alone = rows["student"] == "alone"
        rows.loc[alone, "accuracy"] += rows.loc[alone, "seed"].map(dict(enumerate((-1.2, 0.7, -0.9, 0.6, 0.5))))
        found = claims(own)[CLAIMS["best"]]
        assert found.note.startswith("nearest: teacher through φ;")
        assert found.low > 0
        assert found.verdict == INCONCLUSIVE

    @pytest.mark.parametrize(
        ("claim", "metric", "better", "rival", "sign", "rivals"),
        [
            ("best", "accuracy", "same_domain", "mapping", 1, 2),
            ("lowest", "cross_entropy", "same_domain", "mapping", -1, 2),
            ("mapped", "accuracy", "mapping", "alone", 1, 1),
            ("mapped loss", "cross_entropy", "mapping", "alone", -1, 1),
            ("same loss", "cross_entropy", "same_domain", "alone", -1, 1),
        ],
    )
    def test_effects_and_intervals(self, claim, metric, better, rival, sign, rivals):
        own = results(spread=0.02)
        found = claims(own)[CLAIMS[claim]]
        expected = interval(sign * (at_end(own, metric, better) - at_end(own, metric, rival)), rivals)
        assert (found.effect, found.low, found.high) == pytest.approx(expected)

    def test_effect_of_the_integral_criterion(self):
        """Four epochs of a straight line: three times the mean of the first and the last, (7/4 + 1)/2 of the end."""
        own = results(spread=0.02)
        found = claims(own)[CLAIMS["mapped area"]]
        gain = at_end(own, "cross_entropy", "alone") - at_end(own, "cross_entropy", "mapping")
        assert (found.effect, found.low, found.high) == pytest.approx(interval(3 * (1.75 + 1) / 2 * gain))

    def test_published_effects(self):
        found = claims(results(epochs=15))
        published = {name: round(found[claim].published, 3) for name, claim in CLAIMS.items()}
        assert published == {
            "best": 0.07,
            "lowest": -0.02,
            "mapped": 0.03,
            "mapped loss": 2.40,
            "mapped area": 25.59,
            "same loss": 2.38,
        }

    def test_published_effect_is_the_smallest_whichever_is_nearest_here(self):
        found = claims(results(ACCURACY | {"alone": 0.75}))[CLAIMS["best"]]
        assert found.published == pytest.approx(0.44 - 0.37)

    def test_published_area_is_of_other_epochs(self):
        assert claims(results(epochs=4))[CLAIMS["mapped area"]].published is None

    def test_the_thesis_contradicts_itself(self):
        assert "the thesis's own table has it lower through φ" in claims(results())[CLAIMS["lowest"]].note

    def test_other_weights_are_left_out(self):
        own = results(others=(0.1, 0.9))
        rows = own.frames["epochs"]
        rows.loc[rows["weight"] != 0.5, ["accuracy", "cross_entropy"]] = 99.0
        plain = claims(results())
        for claim, verdict in claims(own).items():
            assert verdict == plain[claim]

    @pytest.mark.parametrize(
        ("students", "wanted"),
        [
            (("alone", "mapping"), ("mapped", "mapped loss", "mapped area")),
            (("alone", "same_domain"), ("same loss",)),
            (("alone", "no_mapping"), ()),
        ],
    )
    def test_only_what_was_compared_is_claimed(self, students, wanted):
        own = results({name: ACCURACY[name] for name in students})
        assert list(claims(own)) == [CLAIMS[name] for name in wanted]


class TestLanguage:
    DOUBLED = "BLEU at least doubles with a teacher through φ"

    def own(self, bleu=BLEU, **given):
        loss = {name: LOSS[name] for name in bleu}
        return results(loss, loss, seeds=len(next(iter(bleu.values()))), bleu=bleu, **given)

    def test_claims_are_of_bleu(self):
        found = claims(self.own(), config("figure 4.13"))
        assert list(found)[-1] == self.DOUBLED
        assert len(found) == 3  # Table 4.8 has neither a teacher of the same domain nor the integral criterion
        assert all(verdict.source == "thesis 4.4.2, Table 4.8" for verdict in found.values())
        better = found["a teacher through φ gives a higher BLEU than none"]
        gains = np.array(BLEU["mapping"]) - BLEU["alone"]
        assert (better.effect, better.low, better.high) == pytest.approx(interval(gains))
        assert better.published == pytest.approx(0.029)
        assert found[CLAIMS["mapped loss"]].published == pytest.approx(0.134)

    def test_doubling(self):
        found = claims(self.own())[self.DOUBLED]
        expected = interval(np.log2(np.array(BLEU["mapping"]) / BLEU["alone"]))
        assert (found.effect, found.low, found.high) == pytest.approx(expected)
        assert found.published == pytest.approx(math.log2(0.0572 / 0.0282))

    @pytest.mark.parametrize(
        ("ratios", "verdict"),
        [
            ((3.0, 3.1, 2.9, 3.2), REPRODUCED),
            ((1.5, 1.6, 1.4, 1.5), NOT_REPRODUCED),
            ((0.5, 0.6, 0.4, 0.5), NOT_REPRODUCED),
            ((1.5, 3.0, 2.0, 2.5), INCONCLUSIVE),
        ],
    )
    def test_verdicts_on_doubling(self, ratios, verdict):
        bleu = {"alone": [0.02, 0.03, 0.04, 0.05]}
        bleu["mapping"] = [ratio * value for ratio, value in zip(ratios, bleu["alone"], strict=True)]
        assert claims(self.own(bleu))[self.DOUBLED].verdict == verdict

    @pytest.mark.parametrize("least", [0.0, 0.004])
    @pytest.mark.parametrize("which", ["alone", "mapping"])
    def test_next_to_no_bleu_has_no_ratio(self, which, least):
        bleu = {name: list(values) for name, values in BLEU.items()}
        bleu[which][1] = least
        found = claims(self.own(bleu))[self.DOUBLED]
        assert found.verdict == INCONCLUSIVE
        assert all(map(math.isnan, (found.effect, found.low, found.high)))
        assert found.note.startswith("a BLEU of 0.005 or less is no translation")
        assert found.published == pytest.approx(1.0203, abs=1e-4)

    def test_one_seed(self):
        found = claims(self.own({name: values[:1] for name, values in BLEU.items()}))[self.DOUBLED]
        assert found.verdict == INCONCLUSIVE
        assert found.effect == pytest.approx(math.log2(2.5))

    def test_table_4_8_and_figure_4_13(self):
        quality, teachers = made.tables(self.own(), config("figure 4.13"))
        assert quality.name == "table_4_8_language_quality"
        frame = quality.frame.set_index("student")
        assert list(frame["published BLEU"]) == ["0.0282", "0.0572", "-"]
        assert list(frame["published cross-entropy"]) == ["5.367 ± 0.015", "5.233 ± 0.007", "-"]
        assert set(frame["published integral criterion"]) == {"-"}
        assert frame.loc["teacher through φ", "BLEU"] == "0.0700 ± 0.0200"
        assert "accuracy" not in frame
        assert frame.loc["teacher of the same domain", "teacher's own BLEU"] == "0.9100 ± 0.0100"
        assert teachers.frame["BLEU"].tolist() == ["0.9100 ± 0.0100", "0.7100 ± 0.0100", "0.3100 ± 0.0100"]
        with style():
            (figure,) = made.figures(self.own(), config("figure 4.13"), ("cross_entropy",))
        assert figure.name == "fig_4_13_language_cross_entropy"


class TestIntegralCriterion:
    def test_is_the_trapezium_rule_from_epoch_1_on(self):
        own = results(spread=0.1, epochs=6)
        found = made.scores(own, config())["integral"]
        rows = own.frames["epochs"]
        for (name, seed), curve in rows[rows["epoch"] > 0].groupby(["student", "seed"]):
            assert found.loc[seed, name] == pytest.approx(np.trapezoid(curve.sort_values("epoch")["cross_entropy"]))

    def test_does_not_depend_on_the_order_of_rows(self):
        own = results(spread=0.1)
        mixed = {**own.frames, "epochs": own.frames["epochs"].sample(frac=1, random_state=3)}
        shuffled = Results(own.points, (), mixed, own.arrays, {}, "paper")
        for metric, table in made.scores(own, config()).items():
            pd.testing.assert_frame_equal(made.scores(shuffled, config())[metric], table)

    def test_of_one_epoch_is_none(self):
        assert "integral" not in made.scores(results(epochs=1), config())
        assert CLAIMS["mapped area"] not in claims(results(epochs=1))

    @pytest.mark.parametrize(("rate", "area"), [(2.0, 28.0), (2.01, 28.14)])
    def test_of_a_constant_loss_over_15_epochs(self, rate, area):
        """Published 28.3 and 28.08 beside 2.01 and 2.03."""
        own = results(epochs=15)
        own.frames["epochs"]["cross_entropy"] = rate
        assert made.scores(own, config())["integral"].to_numpy() == pytest.approx(area)


class TestTables:
    def test_table_4_7_has_the_published_numbers_beside_ours(self):
        quality, teachers = made.tables(results(), config())
        assert quality.name == "table_4_7_vision_quality"
        frame = quality.frame.set_index("student")
        assert list(frame.index) == list(made.LABELS.values())
        printed = frame[[f"published {name}" for name in ("accuracy", "cross-entropy", "integral criterion")]]
        assert printed.loc["no teacher"].tolist() == ["0.34 ± 0.01", "4.41 ± 1.1", "53.89 ± 14.99"]
        assert printed.loc["teacher through φ"].tolist() == ["0.37 ± 0.01", "2.01 ± 0.03", "28.3 ± 0.79"]
        assert printed.loc["teacher of the same domain"].tolist() == ["0.44 ± 0.01", "2.03 ± 0.02", "28.08 ± 1.22"]
        assert (printed.iloc[3:] == "-").all(axis=None)
        assert frame["φ"].tolist() == ["-", "fixed stylisation (4 levels, seed 0)", "-", "-", "-"]
        own = "teacher's own accuracy"
        assert frame[own].tolist() == ["-", "0.720 ± 0.016", "0.920 ± 0.016", "0.720 ± 0.016", "-"]
        assert teachers.name == "students_teachers"
        assert teachers.frame["trained on"].tolist() == ["the student's domain", "the other domain", "the other domain"]
        assert teachers.frame["accuracy"].tolist() == ["0.920 ± 0.016", "0.720 ± 0.016", "0.320 ± 0.016"]
        assert next(made.tables(results(), config(None))).name == "students_quality"

    def test_cells_are_means_and_deviations_at_the_end(self):
        own = results(spread=0.03)
        frame = next(made.tables(own, config())).frame.set_index("student")
        for name, label in made.LABELS.items():
            for metric, column in (("accuracy", "accuracy"), ("cross_entropy", "cross-entropy")):
                values = at_end(own, metric, name)
                assert frame.loc[label, column] == f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"
        areas = made.scores(own, config())["integral"]["alone"]
        assert frame.loc["no teacher", "integral criterion"] == f"{areas.mean():.3f} ± {areas.std():.3f}"
        one = next(made.tables(results(seeds=1), config())).frame
        assert not any("±" in cell for cell in one["accuracy"])

    def test_a_checkpoint_is_named(self):
        own = results(mapping={"kind": "cyclegan", "checksum": "0123456789abcdef" * 4})
        frame = next(made.tables(own, config())).frame.set_index("student")
        assert frame.loc["teacher through φ", "φ"] == "CycleGAN generator, checksum 0123456789ab"

    def test_weights_that_were_tried(self):
        own = results(others=(0.0, 0.9))
        *_, tried = made.tables(own, config())
        assert tried.name == "students_weights"
        found = list(zip(tried.frame["student"], tried.frame["λ"], strict=True))
        taught = [(made.LABELS[n], w) for n in ("mapping", "same_domain") for w in (0.0, 0.5, 0.9)]
        assert found == [("no teacher", 1.0), *taught]
        values = at_end(own, "accuracy", "mapping")
        assert set(tried.frame["accuracy"][1:4]) == {f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"}


class TestStructures:
    def test_tables_4_3_to_4_5(self):
        teacher, student, parts = structures.tables(results(), config())
        assert [table.name for table in (teacher, student, parts)] == [
            "table_4_3_vision_teacher",
            "table_4_4_vision_student",
            "table_4_5_vision_datasets",
        ]
        for table, total in ((teacher, 4455984), (student, 12755640)):
            rows = table.frame
            assert rows["weights"].iloc[-1] == rows["weights"].iloc[:-1].sum() == total
            assert rows["published"].astype(int).tolist() == rows["weights"].tolist()
        assert teacher.frame["biases"].iloc[-1] == 24 + 48 + 96 + 192 + 384 + 120 + 84 + 10
        assert student.frame["biases"].iloc[-1] == 24 + 48 + 120 + 10
        assert parts.frame["objects"].tolist() == parts.frame["published"].tolist() == [9469, 8469, 1000, 3925]

    def test_without_the_thesis_they_are_of_what_was_trained(self):
        own = list(structures.tables(results(), config(None)))
        assert [table.name for table in own] == ["students_teacher", "students_student"]
        assert "published" not in own[0].frame

    def test_the_thesis_student_has_more_weights_than_its_teacher(self):
        (found,) = structures.fewer_weights(results(), config())
        assert found.verdict == NOT_REPRODUCED
        assert found.effect == found.low == found.high == found.published == pytest.approx(12755640 / 4455984)
        assert found.effect == pytest.approx(2.8626, abs=1e-4)
        assert "student 12755640, teacher 4455984" in found.note

    def test_a_smaller_student(self):
        small = STUDENT | {"channels": [2, 3], "hidden": [8]}
        (found,) = structures.fewer_weights(results(), config(student=small))
        weights = 2 * 3 * 25 + 3 * 2 * 25 + 3 * 47 * 47 * 8 + 8 * 10
        assert found.effect == pytest.approx(weights / 4455984)
        assert found.verdict == REPRODUCED
        assert found.published == pytest.approx(2.8626, abs=1e-4)

    def test_other_networks_are_not_counted(self):
        given = config(teacher={"kind": "mlp"})
        assert not list(structures.fewer_weights(results(), given))
        names = [table.name for table in structures.tables(results(), given)]
        assert names == ["table_4_4_vision_student", "table_4_5_vision_datasets"]


class TestFigures:
    @pytest.mark.parametrize(("seeds", "epochs"), [(5, 4), (1, 1), (1, 0), (2, 1)])
    def test_curves(self, seeds, epochs):
        own = results(seeds=seeds, epochs=epochs)
        with style():
            figures = list(made.figures(own, config(), ("accuracy", "cross_entropy")))
            for figure in figures:
                figure.drawing.canvas.draw()
        assert [figure.name for figure in figures] == ["fig_4_11_vision_accuracy", "fig_4_12_vision_cross_entropy"]
        for figure, metric in zip(figures, ("accuracy", "cross_entropy"), strict=True):
            (ax,) = figure.drawing.axes
            (legend,) = figure.drawing.legends
            assert {text.get_text() for text in legend.get_texts()} == set(made.LABELS.values())
            lines = {line.get_label(): line for line in ax.lines}
            for name, label in made.LABELS.items():
                rows = own.frames["epochs"]
                means = rows[rows["student"] == name].groupby("epoch")[metric].mean()
                assert lines[label].get_xdata().tolist() == means.index.tolist()
                assert lines[label].get_ydata() == pytest.approx(means.to_numpy())
            assert ax.get_xlim()[0] < ax.get_xlim()[1]
            assert "of the student's domain on its own domain 0.9" in figure.note
            assert "the other domain on the student's domain without φ 0.3" in figure.note
            assert "the student's 1000 objects, the teachers' 8469, 3925 for tests. λ = 0.5, T = 1" in figure.note
        with style():
            assert next(made.figures(own, config(None), ("accuracy",))).name == "students_accuracy"

    def test_bands_are_intervals_over_seeds(self):
        own = results(spread=0.05)
        with style():
            (figure,) = made.figures(own, config(), ("accuracy",))
        (ax,) = figure.drawing.axes
        ends = [path.vertices[:, 1].max() for band in ax.collections for path in band.get_paths()]
        banded = ("alone", "mapping", "same_domain")  # those of the thesis
        assert len(ends) == len(banded)
        expected = [interval(at_end(own, "accuracy", name))[2] for name in banded]
        assert sorted(ends) == pytest.approx(sorted(expected))

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("shown", [1, 3])
    def test_pictures(self, channels, shown):
        own = results()
        (point,) = own.points
        drawn = own.arrays[point]["pictures"][:, :shown, :channels]
        given = Results(own.points, (), own.frames, {point: {"pictures": drawn}}, {}, "paper")
        with style():
            (figure,) = structures.pictures(given, config())
            figure.drawing.canvas.draw()
        assert figure.name == "fig_4_10_vision_mapping"
        axes = figure.drawing.axes
        assert len(axes) == 2 * shown
        low, high = drawn[0].min(), drawn[0].max()
        for ax, picture in zip(axes, drawn.reshape(-1, channels, 16, 16), strict=True):
            pixels = np.clip((picture.transpose(1, 2, 0) - low) / (high - low), 0, 1).squeeze()
            np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), pixels, atol=1e-6)

    def test_a_constant_picture(self):
        own = results()
        (point,) = own.points
        given = Results(own.points, (), own.frames, {point: {"pictures": np.zeros((2, 1, 1, 4, 4))}}, {}, "paper")
        with style():
            (figure,) = structures.pictures(given, config(None))
            figure.drawing.canvas.draw()
        assert figure.name == "students_mapping"


class TestAnswers:
    def test_what_the_mapping_adds(self):
        own = results(spread=0.02)
        found = list(made.answers(own, config()))
        assert len(found) == 6
        gain = interval(at_end(own, "accuracy", "mapping") - at_end(own, "accuracy", "no_mapping"))
        expected = f"φ adds to the same teacher without it: accuracy {gain[0]:+.3g} [{gain[1]:.3g}, {gain[2]:.3g}]"
        assert expected in found
        gain = interval(at_end(own, "cross_entropy", "mapping") - at_end(own, "cross_entropy", "uniform_labels"))
        assert any(f"uniform soft labels: cross-entropy {gain[0]:+.3g} [" in line for line in found)

    def test_without_those_students_there_is_none(self):
        assert not list(made.answers(results({n: ACCURACY[n] for n in ("alone", "mapping")}), config()))
