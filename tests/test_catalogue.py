"""The catalogue of the thesis's figures and tables, and that every shipped experiment makes what it promises."""

import re
from collections import Counter
from dataclasses import fields

import pytest

from landscape_cli.composing import compose, load
from landscape_cli.listing import catalogue, items_of, shipped
from landscape_cli.validation import load_class

FIGURES = {1: 11, 2: 8, 3: 12, 4: 16}  # chapter -> figures of the thesis
TABLES = {1: 1, 2: 1, 3: 6, 4: 9}
BEYOND = {  # shipped, and in no chapter
    "quickstart",
    *(f"landscape_measure_{net}_{data}" for net in ("fc", "conv") for data in ("mnist", "cifar10")),
    "landscape_measure_vit_mnist",
    *(f"hessian_spectrum_{net}_mnist" for net in ("fc", "conv", "vit")),
    *(f"bounds_{what}" for what in ("fc", "conv", "pooling", "attention", "transformer", "trend")),
    *(
        "radius_fc_mnist",
        "radius_fc_cifar10",
        "radius_conv_mnist",
        "sample_size_theorems",
        "theorems",
        "sample_size",
        "own",
        "likelihood_fc_mnist",
        "pruning_mnist",
        "pruning_table",
        "freezing_boston",
        "freezing_mnist",
        "freezing_wine",
        "anti_distillation_digits",
        "anti_distillation_mnist",
        "anti_distillation_search_fashion_mnist",
        "distillation_language_multi30k",
        "distillation_language_toy",
        "distillation_vision_cifar10",
        "distillation_vision_digits",
        "distillation_vision_fashion_mnist",
    ),
}


def numbers(kind):
    return [tuple(map(int, item.name.split()[1].split("."))) for item in catalogue() if item.name.startswith(kind)]


def test_every_figure_and_table_is_there_once():
    for kind, counts in (("figure", FIGURES), ("table", TABLES)):
        expected = [(chapter, n) for chapter, count in counts.items() for n in range(1, count + 1)]
        assert numbers(kind) == expected
    assert (len(numbers("figure")), len(numbers("table")), len(catalogue())) == (47, 17, 64)


def test_chapters():
    assert Counter(item.chapter for item in catalogue()) == {c: FIGURES[c] + TABLES[c] for c in FIGURES}


@pytest.mark.parametrize("item", catalogue(), ids=lambda item: item.name)
def test_file_names_match_item_numbers(item):
    kind, number = item.name.split()
    prefix = {"figure": "fig", "table": "table"}[kind] + "_" + number.replace(".", "_") + "_"
    assert item.experiments
    for name, file in item.experiments.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert re.fullmatch(prefix + r"[a-z0-9_]+", file)


def test_captions_are_english_sentences():
    for item in catalogue():
        assert re.match(r"[A-Z]", item.caption), item.name
        assert not re.search("[а-яА-Я]", item.caption), item.name
        assert item.caption == item.caption.strip()


def test_russian_captions_are_the_thesis_own():
    for item in catalogue():
        english = item.name in ("figure 4.2", "figure 4.3")
        assert bool(re.search("[а-я]", item.russian)) != english, item.name
        assert item.russian == " ".join(item.russian.split()), item.name
        assert not re.search(r"[$*\\]{2}|\$", item.russian), item.name
    russian = {item.name: item.russian for item in catalogue()}
    assert russian["table 3.1"] == "Описание выборок для анализа качества определения оптимального размера выборки"
    assert russian["figure 4.15"] == "Зависимость валидационной точности от адвверсарного шума в данных"  # as printed
    assert russian["figure 4.2"] == "Basic distillation"


def test_files_are_named_once():
    files = [file for item in catalogue() for file in item.experiments.values()]
    assert len(files) == len(set(files))


def test_every_built_experiment_is_in_the_catalogue_or_known_to_be_beyond():
    assert {name for name in shipped() if not items_of(name)} == BEYOND


@pytest.mark.parametrize("name", shipped())
def test_experiment_names_an_item_that_names_it(name):
    config = load([f"experiment={name}"])
    assert config.name == name
    assert config.title == shipped()[name]
    if name in BEYOND:
        assert config.thesis is None
    else:
        assert config.thesis in [item.name for item in items_of(name)]


@pytest.mark.parametrize("name", shipped())
def test_every_option_of_the_measure_can_be_set_as_it_is_named(name):
    composed = compose([f"experiment={name}"])
    options = {field.name for field in fields(load_class(composed.family).Options)}
    assert options <= set(composed.measure or {})


@pytest.fixture(scope="module")
def shared_output(tmp_path_factory):
    return tmp_path_factory.mktemp("catalogue")


@pytest.fixture
def english_left(monkeypatch) -> dict[str, list[str]]:
    """What a test draws -> the English words that would be left of it in Russian."""
    from matplotlib.text import Text

    from landscape_cli.plotting import output
    from landscape_cli.plotting.language import phrases_of, translated_frame

    found, phrases = {}, phrases_of("ru")
    save_figure, save_table = output.save_figure, output.save_table

    def look(what, *texts):
        for text in texts:
            if re.fullmatch(r"\w+(\.\w+)+|[0-9a-f]{12}", text):
                continue  # a tensor's or an option's name, a checksum
            # Data sets are named there as on a command line.
            if left := phrases.untranslated(re.sub(r"вместо [a-z0-9_]+(, [a-z0-9_]+)*", "", phrases(text))):
                found[f"{what}: {text}"] = left

    def figure_looked_at(figure, folder, formats, dpi, note, *more):
        paths = save_figure(figure, folder, formats, dpi, note, *more)
        small_print = figure.drawing._supxlabel  # broken into lines; its two parts are looked at whole
        texts = {text.get_text() for text in figure.drawing.findobj(Text) if text is not small_print}
        look(figure.name, *texts, figure.caption, figure.note, note)
        return paths

    def table_looked_at(table, folder, note, *more):
        if not table.name.startswith("claims_"):
            shown = translated_frame(output.displayed(table.frame, table.formats), phrases)
            spoken = [
                c for c, own in zip(shown.columns, table.frame.columns, strict=True) if own not in phrases.verbatim
            ]
            cells = {text for text in shown[spoken].to_numpy().ravel() if isinstance(text, str)}
            look(table.name, *shown.columns, *cells, table.caption, note)
        return save_table(table, folder, note, *more)

    monkeypatch.setattr(output, "save_figure", figure_looked_at)
    monkeypatch.setattr(output, "save_table", table_looked_at)
    return found


# The same points as another's under the smoke profile, whose digits stand in for the data sets of both.
TWINS = {
    *("landscape_measure_fc_cifar10", "landscape_measure_conv_cifar10", "radius_fc_cifar10"),
    *(f"conv_{axis}_{data}" for axis in ("layers", "kernel", "channels") for data in ("fashion_mnist", "cifar10")),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in TWINS)) for name in shipped()])
def test_every_experiment_runs_and_makes_its_files(landscape, shared_output, english_left, name, small):
    finished = landscape("run", f"experiment={name}", *small, f"output_dir={shared_output}")
    assert english_left == {}
    assert finished.code == 0, finished.err
    assert finished.err == ""
    written = {path.relative_to(shared_output).as_posix() for path in shared_output.rglob("smoke/*")}
    for item in items_of(name):
        file = item.experiments[name]
        if item.name.startswith("figure"):
            expected = {f"figures/smoke/{file}.png"}
        else:
            expected = {f"tables/smoke/{file}.{suffix}" for suffix in ("csv", "md", "tex")}
        assert expected <= written, item.name
        assert all((shared_output / path).stat().st_size > 100 for path in expected)
    if name in BEYOND:
        assert any(path.startswith(f"figures/smoke/{name}") and path.endswith(".png") for path in written)
    printed = [line.strip() for line in finished.out.splitlines() if line.strip().startswith(str(shared_output))]
    assert printed
    assert all((shared_output / path).is_file() for path in printed)


def test_default_formats_are_pdf_and_png(landscape, tmp_path):
    assert landscape("run", "experiment=schematic_loss_change").code == 0
    figures = sorted(path.name for path in (tmp_path / "outputs" / "figures").iterdir())
    assert figures == ["fig_1_1_schematic_loss_change.pdf", "fig_1_1_schematic_loss_change.png"]


def test_default_experiment_is_the_quickstart():
    assert load([]) == load(["experiment=quickstart"])
    assert load([]).name == "quickstart"
