"""Figures of a column, a page and a slide: inches, where the panels are, and whether the texts fit."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from landscape_cli.experiment import Figure
from landscape_cli.plotting.curves import end_labels
from landscape_cli.plotting.output import save_figure
from landscape_cli.plotting.sizes import COLUMN_WIDTH, FULL_WIDTH, PAGE_HEIGHT, SLIDE, arrange, of_size
from landscape_cli.plotting.style import SINGLE_WIDTH, new_figure, style, titled_legend
from landscape_cli.plotting.wrapping import wrap
from landscape_cli.variant import variant_name

SIZES = ("column", "page", "slide")
WIDTHS = {"column": COLUMN_WIDTH, "page": FULL_WIDTH, "slide": SLIDE[0]}
GRIDS = [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3), (2, 4)]  # of the shipped experiments


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def arranged(rows, columns, size, width=FULL_WIDTH, height=2.5, **options):
    with of_size(size):
        return arrange(rows, columns, width, height, **options)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_size_has_its_width_and_a_page_its_height(grid):
    own = arranged(*grid, "own")
    assert (own.inches, own.physical, own.moved) == ((FULL_WIDTH, 2.5 * grid[0]), grid, False)
    for size, width in WIDTHS.items():
        found = arranged(*grid, size)
        assert found.inches[0] == pytest.approx(width)
        assert found.inches[1] <= PAGE_HEIGHT + 1e-9
    assert arranged(*grid, "slide").inches == SLIDE
    assert SLIDE[0] / SLIDE[1] == pytest.approx(16 / 9)


@pytest.mark.parametrize("size", ["own", *SIZES])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_panel_has_a_place_of_its_own(grid, size):
    found = arranged(*grid, size)
    assert len(set(found.places)) == len(found.places) == grid[0] * grid[1]
    assert max(row for row, _ in found.places) < found.physical[0]
    assert max(column for _, column in found.places) < found.physical[1]


def test_panels_side_by_side_are_stacked_in_a_column_and_stay_on_a_page():
    assert arranged(1, 3, "column").physical == (3, 1)
    assert arranged(1, 3, "column").places == ((0, 0), (1, 0), (2, 0))
    assert arranged(3, 3, "column").physical == (5, 2)  # nine would be too low
    assert arranged(3, 3, "page").physical == arranged(3, 3, "slide", height=1.75).physical == (3, 3)
    assert arranged(3, 2, "slide", height=3.1).physical == (2, 3)
    assert arranged(2, 3, "column", width=COLUMN_WIDTH).physical == (2, 3)  # narrow already


def test_pictures_stand_in_pairs_that_belong_together():
    found = arranged(2, 3, "column", pictures=True)
    assert found.physical == (3, 2)
    assert found.places == ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1))  # the rows are columns now
    assert arranged(3, 3, "slide", height=1.75, pictures=True).places == tuple(itertools.product(range(3), range(3)))


def test_axes_that_are_not_used_take_no_room():
    assert arranged(3, 3, "column", panels=7).physical == (4, 2)
    assert len(arranged(3, 3, "column", panels=7).places) == 9


def test_a_drawing_is_scaled_and_nothing_moved():
    found = arranged(1, 1, "column", height=4.3, whole=True)
    assert found.inches == pytest.approx((COLUMN_WIDTH, 4.3 * COLUMN_WIDTH / FULL_WIDTH))
    assert found.scale == pytest.approx(COLUMN_WIDTH / FULL_WIDTH)


LABELS = [f"method number {number} of many" for number in range(6)]


def figure(rows=1, columns=2, note="") -> Figure:
    """A figure as the experiments make them: labels at the outer panels, titles on top, end labels, one legend."""
    drawing, axes = new_figure(rows, columns, FULL_WIDTH, 2.8)
    x = np.arange(1, 50)
    for ax in axes.flat:
        for number, label in enumerate(LABELS):
            ax.plot(x, x ** (0.1 * number + 0.5), label=label)
    for column in range(columns):
        axes[0, column].set_title(f"the quality of panel {column}: a title that says rather much", fontsize=8)
        axes[-1, column].set_xlabel("sample size $k$, objects", fontsize=6.5)
    for row in range(rows):
        axes[row, 0].set_ylabel(f"quantity {row}, nats")
    titled_legend(drawing, "Quality against the share of parameters removed, a data set of a long name", axes[0, 0], 3)
    drawing.draw_without_rendering()
    ends = [49 ** (0.1 * number + 0.5) for number in range(len(LABELS))]
    end_labels(axes[0, 0], ends, [f"$h={n}$" for n in range(6)], ["k"] * 6, 49)
    return Figure("f", drawing, "A caption.", note)


def saved(folder, size, *grid, note="", dpi=100, **options) -> Figure:
    with style(size):
        made = figure(*grid, note=note)
        save_figure(made, folder, ["png"], dpi, "Some data set, all objects; profile quick.", **options)
        made.drawing.draw_without_rendering()  # at the figure's own resolution again
    return made


def shown(drawing) -> list[Text]:
    """Texts that are seen: of the ticks those within the axes' limits."""
    texts = [drawing._suptitle, drawing._supxlabel, *(text for one in drawing.legends for text in one.get_texts())]
    for ax in drawing.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in texts if text.get_text().strip()]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [(1, 2), (2, 2), (1, 3)])
def test_every_text_is_inside_the_figure(tmp_path, size, grid):
    drawing = saved(tmp_path, size, *grid).drawing
    page = drawing.bbox
    for text in shown(drawing):
        box = text.get_window_extent()
        assert page.x0 - 1 <= box.x0, text
        assert box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0, text
        assert box.y1 <= page.y1 + 1, text


# Six labels at line ends do not go into half the height of a slide.
@pytest.mark.parametrize(("size", "grid"), [*((size, (1, 2)) for size in SIZES), ("column", (2, 2)), ("page", (2, 2))])
def test_titles_and_labels_do_not_overlap(tmp_path, size, grid):
    drawing = saved(tmp_path, size, *grid).drawing
    written = [text for ax in drawing.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts)]
    boxes = [(text, text.get_window_extent().shrunk(0.98, 0.8)) for text in written if text.get_text()]
    boxes += [(legend, legend.get_window_extent().shrunk(0.99, 0.95)) for legend in drawing.legends]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one, other)


@pytest.mark.parametrize(("size", "least"), [("column", 7), ("page", 7), ("slide", 7.56)])
def test_letters_are_large_enough(tmp_path, size, least):
    drawing = saved(tmp_path, size).drawing
    small = [text for text in shown(drawing) if text.get_fontsize() < least - 1e-6]
    assert small == [drawing._supxlabel]
    assert 7.6 / SLIDE[0] + 1e-3 >= 16 / (40 / 3)  # of a slide's width, as 16 points are of 13.33 inches


def test_panels_that_moved_have_the_labels_of_their_old_neighbours(tmp_path):
    stacked = saved(tmp_path, "column", 2, 2).drawing
    labels = [(ax.get_ylabel().replace("\n", " "), ax.get_xlabel()) for ax in stacked.axes]
    assert [y for y, _ in labels] == ["quantity 0, nats"] * 2 + ["quantity 1, nats"] * 2
    assert [bool(x) for _, x in labels] == [False, False, False, True]  # one axis, labelled below
    titles = [ax.get_title().replace("\n", " ").split(":")[0] for ax in stacked.axes]
    assert titles == ["the quality of panel 0", "the quality of panel 1"] * 2
    own = saved(tmp_path, "own", 2, 2).drawing
    assert [bool(ax.get_ylabel()) for ax in own.axes] == [True, False, True, False]


def test_small_print_says_where_the_panels_are(tmp_path):
    note = "Left: each pixel. Right: others, from the network on the left. Lower row: tests."
    assert saved(tmp_path, "page", note=note).drawing.get_supxlabel().startswith("Left: each pixel. Right: others")
    stacked = saved(tmp_path, "column", note=note).drawing.get_supxlabel().replace("\n", " ")
    assert stacked.startswith("Top: each pixel. Bottom: others, from the network above. Lower half: tests.")


def test_a_slide_has_the_pixels_of_one_in_an_office_program(tmp_path):
    saved(tmp_path, "slide", dpi=100)
    height, width = plt.imread(tmp_path / "f.png").shape[:2]
    assert (width, height) == (pytest.approx(1333, abs=1), pytest.approx(750, abs=1))


@pytest.mark.parametrize("size", SIZES)
def test_the_same_again(tmp_path, size):
    for folder in ("one", "two"):
        saved(tmp_path / folder, size)
    assert (tmp_path / "one/f.png").read_bytes() == (tmp_path / "two/f.png").read_bytes()


def test_own_size_is_what_it_was(tmp_path):
    """Against the plain call that figures were made with before there were sizes."""

    def plain(rows, columns, width, row_height):
        return plt.subplots(rows, columns, figsize=(width, rows * row_height), squeeze=False)

    def content(make, folder):
        with style():
            drawing, axes = make(2, 2, SINGLE_WIDTH, 2.0)
            for ax in axes.flat:
                ax.plot([1, 2], [1, 4], label="a")
                ax.set(xlabel="x", ylabel="y")
            titled_legend(drawing, "title", axes[0, 0], 1)
            save_figure(Figure("f", drawing, "c", "Left: note."), folder, ["png", "pdf"], 80, "data")
        return [(folder / f"f.{suffix}").read_bytes() for suffix in ("png", "pdf")]

    assert content(new_figure, tmp_path / "new") == content(plain, tmp_path / "plain")


def test_a_size_ends_with_its_context():
    with style("column"), style("slide"):
        assert new_figure(1, 1, 5, 3)[0].get_size_inches() == pytest.approx(SLIDE)
    assert new_figure(1, 1, 5, 3)[0].get_size_inches() == pytest.approx((5, 3))
    with pytest.raises(KeyError), style("poster"):
        pass


def test_wrapped_lines_keep_words_mathematics_and_room():
    drawing = plt.figure(figsize=(3, 2))
    words = "a title with $x = 1, y$ and, of course, more words than fit"
    text = drawing.text(0, 0, words, fontsize=8)
    assert wrap(text, 0.5 * drawing.bbox.width)
    assert text.get_window_extent().width <= 0.5 * drawing.bbox.width
    assert text.get_text().replace("\n", " ") == words
    assert "$x = 1, y$" in text.get_text()
    assert not wrap(text, drawing.bbox.width)


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        (["plot.language=ru"], "quick,plot.language=ru"),
        (["plot.size=slide"], "quick,plot.size=slide"),
        (["plot.language=ru", "plot.size=page"], "quick,plot.language=ru,plot.size=page"),
        (["plot.language=en", "plot.size=own"], "quick"),
        (["plot.language='en'", "++plot.size=own"], "quick"),
        (["plot.formats=[png]", "plot.dpi=50"], "quick"),
        (["seeds=2", "plot.language=ru"], "quick,seeds=2,plot.language=ru"),
    ],
)
def test_other_looks_have_a_folder_of_their_own(overrides, folder):
    assert variant_name("quick", overrides) == folder


def test_a_whole_node_that_changes_the_looks_has_one_too():
    assert variant_name("paper", ["plot={language:ru}"]) not in ("", "plot")
    assert variant_name("paper", ["plot={dpi:50}"]) == ""


def test_another_language_or_size_measures_nothing_and_overwrites_nothing(landscape, measured, small):
    before = {path: path.read_bytes() for path in measured.rglob("*/smoke/*") if path.is_file()}
    for look in ("plot.language=ru", "plot.size=slide"):
        finished = landscape("run", *small, look, f"output_dir={measured}")
        assert (finished.code, finished.err) == (0, "")
        assert "0 to measure" in finished.out
        assert (measured / f"figures/smoke,{look}/quickstart.png").is_file()
        again = landscape("figures", "quickstart", *small, look, f"output_dir={measured}")
        assert again.code == 0
    assert {path: path.read_bytes() for path in before} == before
    russian = measured / "tables/smoke,plot.language=ru"
    assert "скользящее среднее" in (russian / "end_values_quickstart.md").read_text(encoding="utf-8").lower()
    claims = (russian / "claims_quickstart.md").read_text(encoding="utf-8")
    assert not any("а" <= letter <= "я" for letter in claims.lower())


@pytest.mark.parametrize(("look", "allowed"), [("plot.language=de", "en, ru"), ("plot.size=poster", "own, column")])
def test_what_there_is_not_is_refused(landscape, look, allowed):
    landscape("run", look).assert_refused(2, look.split("=")[0], look.split("=")[1], allowed)
