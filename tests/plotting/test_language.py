"""Figures and tables in Russian: the phrases, how a text is taken apart, and what is written."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text

from landscape_cli.experiment import Figure, Table
from landscape_cli.plotting.language import Phrases, phrases_of, plural, translate_drawing, translated_frame
from landscape_cli.plotting.output import save_figure, save_table
from landscape_cli.plotting.style import SINGLE_WIDTH, new_figure, style, titled_legend


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def russian() -> Phrases:
    return phrases_of("ru")


@pytest.mark.parametrize(
    ("number", "word"),
    [
        *(
            ("1", "эпоха"),
            ("2", "эпохи"),
            ("4", "эпохи"),
            ("5", "эпох"),
            ("10", "эпох"),
            ("11", "эпох"),
            ("12", "эпох"),
        ),
        *(("14", "эпох"), ("21", "эпоха"), ("22", "эпохи"), ("100", "эпох"), ("101", "эпоха"), ("111", "эпох")),
        *(("112", "эпох"), ("0", "эпох"), ("1.5", "эпохи"), ("1e-3", "эпохи")),
    ],
)
def test_the_word_goes_with_its_number(number, word):
    assert plural(number, "эпоха", "эпохи", "эпох") == word


@pytest.mark.parametrize(
    ("english", "other"),
    [
        ("hidden size $h$", "размер скрытого слоя $h$"),
        ("Sample size $k$, objects", "Размер выборки $k$, объектов"),
        ("sample size $k$, objects.", "размер выборки $k$, объектов."),
        ("  epoch\n", "  эпоха\n"),
        ("MNIST: layers $L$, at $h=16$", "MNIST: количество слоев $L$, при $h=16$"),
        ("1 seed, 21 epochs of Adam 0.001, batches of 64", "1 запуск, 21 эпоха Adam с шагом 0.001, батчи по 64"),
        ("3 seeds; 2 epochs of AdamW 1e-05, warm-up 5%", "3 запуска; 2 эпохи AdamW с шагом 1e-05, разогрев 5%"),
        ("11 orderings a network.", "11 перестановок на сеть."),
        ("MNIST, the first 120 of 60000 train objects", "MNIST, первые 120 из 60000 объектов обучающей выборки"),
        ("Digits; in place of mnist, student; profile quick.", "Digits; вместо mnist, student; профиль quick."),
        ("Accuracy under attack (FGSM), Digits", "Точность при атаке (FGSM), Digits"),
        ("Wine (a part of Wine Quality)", "Wine (часть Wine Quality)"),
        (r"$\log_{10}|H_{ij}|$", r"$\log_{10}|H_{ij}|$"),
        ("$h=4$", "$h=4$"),
        ("-1.5e-03", "-1.5e-03"),
        (
            "random\nviolated: printed 1 of 6, corrected 0 of 6",
            "случайные\nнарушено: напечатано 1 из 6, исправлено 0 из 6",
        ),
        ("Boston Housing", "Boston Housing"),
        ("a sentence that nobody foresaw", "a sentence that nobody foresaw"),
        ("", ""),
    ],
)
def test_texts_in_russian(russian, english, other):
    assert russian(english) == other


def test_what_is_left_in_english_is_found(russian):
    assert russian.untranslated("точность unforeseen на MNIST, $\\mathrm{words}$, b-2 im") == ["unforeseen", "im"]
    assert russian.untranslated(russian("Accuracy of students by epoch, Imagenette")) == []


def test_a_text_is_taken_apart_outside_mathematics_and_brackets():
    known = Phrases({"a": "А", "b": "Б", "a, b": "АБ", "and": "и"}, {"see {x}": "см. {x}", "so {x}": "как {=x}"})
    assert known("a") == "А"
    assert known("$a, b$") == "$a, b$"
    assert known("b, a; [b, a]") == "Б, А; [b, a]"
    assert known("b, b") == "Б, Б"
    assert known("a, b") == "АБ"  # whole before its pieces
    assert known("a and b") == "А и Б"
    assert known("see a. So a") == "см. А. Как a"
    assert known("see (b)") == "см. (Б)"


def test_patterns_take_numbers_and_no_more_than_a_sentence():
    known = Phrases({}, {"{#n} net(s)": "{n} {n|сеть|сети|сетей}", "the {x}": "<{x}>"})
    assert [known(f"{n} net{'s' if n > 1 else ''}") for n in (1, 3, 11)] == ["1 сеть", "3 сети", "11 сетей"]
    assert known("many nets") == "many nets"
    assert known("the c. the d") == "<c>. <d>"


def test_every_phrase_is_well_formed():
    from importlib.util import find_spec
    from pathlib import Path

    path = Path(find_spec("experiments").submodule_search_locations[0]) / "russian.yaml"
    parts = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(parts) == {"phrases", "patterns", "kept", "verbatim"}
    for english, other in {**parts["phrases"], **parts["patterns"]}.items():
        assert isinstance(other, str), english
        assert "ё" not in other, other  # as the thesis writes
        assert [m.count("$") % 2 for m in (english, other)] == [0, 0], english
    for english, other in parts["phrases"].items():
        assert re.findall(r"\$[^$]*\$", other) or "$" not in english, english  # mathematics stays
    for english, other in parts["patterns"].items():
        taken = set(re.findall(r"\{#?([a-z])\}", english))
        given = set(re.findall(r"\{=?([a-z])[|}]", other))
        assert given <= taken, english
        assert taken - given <= set("s"), english
        for forms in re.findall(r"\{[a-z]((?:\|[^{}]*)+)\}", other):
            assert forms.count("|") == 3, english


def drawn() -> Figure:
    drawing, axes = new_figure(1, 2, 6.9, 3.0)
    for ax in axes[0]:
        ax.plot([1, 2, 3], [1, 4, 9], label="train loss")
        ax.set(xlabel="sample size $k$, objects", ylabel="least eigenvalue", title="no retraining")
    axes[0, 0].set_xticks([1, 2, 3], ["median", "unsure", "MNIST"])
    axes[0, 1].annotate("not enough", (2, 4))
    titled_legend(drawing, "Sufficient sample size against the threshold", axes[0, 0], 2)
    return Figure("f", drawing, "Sufficient sample size against the threshold.", "Bands: range over seeds.")


def texts(drawing) -> set[str]:
    return {text.get_text().strip() for text in drawing.findobj(Text)} - {""}


def test_every_text_of_a_drawing_is_translated(russian, tmp_path):
    with style():
        figure = drawn()
        save_figure(figure, tmp_path, ["svg"], 60, "Wine, all 178 objects; profile quick.", russian)
    words = texts(figure.drawing)
    assert words >= {"размер выборки $k$, объектов", "без дообучения", "медиана", "неясно", "MNIST", "недостаточно"}
    assert "минимальное собственное значение" in {word.replace("\n", " ") for word in words}
    assert "функция потерь при обучении" in words  # in the legend
    assert [text for text in words if russian.untranslated(text.replace("\n", " "))] == []
    description = (tmp_path / "f.svg").read_text(encoding="utf-8")
    assert (
        "Достаточный размер выборки в зависимости от порога. Полосы: размах по запускам. Wine, все 178" in description
    )


def test_labels_of_ticks_stay_translated_when_drawn_again(russian):
    with style():
        figure = drawn()
        translate_drawing(figure.drawing, russian)
        figure.drawing.draw_without_rendering()
        figure.drawing.draw_without_rendering()
    labels = [label.get_text() for label in figure.drawing.axes[0].get_xticklabels()]
    assert labels == ["медиана", "неясно", "MNIST"]


def test_russian_figures_are_the_same_again_and_stay_in_their_box(russian, tmp_path):
    with style():
        for folder in ("one", "two"):
            figure = drawn()
            save_figure(figure, tmp_path / folder, ["png", "pdf"], 100, "", russian)
    for name in ("f.png", "f.pdf"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    figure.drawing.draw_without_rendering()  # at its own resolution again, not that of a PDF
    page = figure.drawing.bbox
    for ax in figure.drawing.axes:
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label, figure.drawing._suptitle, figure.drawing._supxlabel):
            box = text.get_window_extent()
            assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1, text


def test_english_is_written_as_without_a_language(tmp_path):
    assert phrases_of("en") is None
    with style():
        save_figure(drawn(), tmp_path / "plain", ["png"], 60, "note")
        save_figure(drawn(), tmp_path / "english", ["png"], 60, "note", phrases_of("en"))
    assert (tmp_path / "plain/f.png").read_bytes() == (tmp_path / "english/f.png").read_bytes()


def table(**changes) -> Table:
    frame = pd.DataFrame(
        {"hidden_size": [4, 8], "kind": ["random", "trained"], "text": ["a loss", "no"], "x_1": ["50 %", None]}
    )
    return Table("t", **({"frame": frame, "caption": "Sufficient sample size by method."} | changes))


def test_tables_are_russian_but_for_the_csv(russian, tmp_path):
    save_table(table(), tmp_path / "en", "")
    save_table(table(), tmp_path / "ru", "Wine, all 178 objects.", russian)
    assert (tmp_path / "ru/t.csv").read_bytes() == (tmp_path / "en/t.csv").read_bytes()
    assert (tmp_path / "ru/t.md").read_text(encoding="utf-8").splitlines() == [
        "Достаточный размер выборки по методам. Wine, все 178 объектов.",
        "",
        "| размер скрытого слоя | вид            | текст  | x_1  |",
        "|----------------------|----------------|--------|------|",
        "| 4                    | случайный      | a loss | 50 % |",
        "| 8                    | после обучения | no     | –    |",
    ]


def test_latex_of_a_russian_table_is_escaped(russian, tmp_path):
    frame = pd.DataFrame(
        {"Теорема_1": ["50 % & $x$", "holds, exact to 7e-16"], "note": ["‖H‖ <= M, self-attention", "θ"]}
    )
    save_table(table(frame=frame), tmp_path, "profile smoke_2", russian)
    written = (tmp_path / "t.tex").read_text(encoding="utf-8")
    assert r"Теорема\_1 & примечание \\" in written
    assert r"50 \% \& \$x\$ & $\|$H$\|$ \textless{}= M, самовнимание \\" in written
    assert r"верно, с точностью до 7e-16 & $\theta$ \\" in written
    assert r"\caption{Достаточный размер выборки по методам. профиль smoke\_2}" in written
    bare = re.sub(r"\\[{}\\$&%#_|]", "", written)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0


def test_two_headers_never_become_one():
    same = Phrases({"size": "размер", "width": "размер"})
    shown = translated_frame(pd.DataFrame({"size": ["1"], "width": ["2"], "n": ["3"]}), same)
    assert list(shown.columns) == ["размер (size)", "размер (width)", "n"]
    assert shown.to_numpy().tolist() == [["1", "2", "3"]]


def test_long_legends_and_titles_are_broken_to_fit(russian, tmp_path):
    with style():
        drawing, axes = new_figure(1, 1, SINGLE_WIDTH, 3.0)
        ax = axes[0, 0]
        for name in ("uniform soft labels, no teacher", "the other domain's teacher without φ", "teacher through φ"):
            ax.plot(np.arange(3), np.arange(3), label=name)
        titled_legend(drawing, "Cross-entropy of students by epoch, Digits, with and without a teacher", ax, 3)
        save_figure(Figure("f", drawing, "c"), tmp_path, ["png"], 60, "", russian)
    (legend,), page = drawing.legends, drawing.bbox
    box, title = legend.get_window_extent(), drawing._suptitle.get_window_extent()
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.x0 <= title.x0 < title.x1 <= page.x1
    assert box.y0 >= ax.get_window_extent().y1  # above the curves
    assert legend.get_texts()[0].get_text() == "равномерные метки, без учителя"
