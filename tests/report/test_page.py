"""The page: whole by itself, accessible, and true to what was drawn; the LaTeX file compiles."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from PIL import Image

from landscape_cli.drawn import read_records
from landscape_cli.report.gather import gather
from landscape_cli.report.latex import latex
from landscape_cli.report.page import page

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Reader(HTMLParser):
    """Checks that what is opened is closed, and gathers tags and text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.wrong, self.text = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def read(drawn):
    return Reader(page(gather(drawn, "smoke")))


def test_every_tag_is_closed(read):
    assert (read.wrong, read.open) == ([], [])


def test_needs_nothing_beside_it(read):
    assert not read.all("script")
    assert [one["href"] for one in read.all("link")] == ["data:,"]
    assert all(one["src"].startswith("data:image/png;base64,") for one in read.all("img"))
    assert not re.search(r"url\(|@import", "".join(read.text))
    assert all(one["href"].startswith("#") for one in read.all("a"))


def test_every_address_is_there_once(read):
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {one["href"][1:] for one in read.all("a")} <= set(ids)
    labels = {attributes["aria-labelledby"] for _, attributes in read.tags if "aria-labelledby" in attributes}
    assert labels <= set(ids)


def test_a_screen_reader_finds_its_way(read):
    assert read.all("html") == [{"lang": "en"}]
    assert [len(read.all(tag)) for tag in ("main", "nav", "h1", "title")] == [1, 1, 1, 1]
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(len(one["alt"]) > 20 for one in read.all("img"))
    assert all(one.get("scope") in ("col", "row") for one in read.all("th"))
    regions = [one for one in read.all("div") if one.get("class") == "scroll"]
    assert regions
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in regions)


def test_pictures_are_the_files(read, drawn):
    pictures = read.all("img")
    files = list((drawn / "figures" / "smoke").glob("*.png"))
    assert len(pictures) == len(files)
    inside = [Image.open(io.BytesIO(base64.b64decode(one["src"].partition(",")[2]))) for one in pictures]
    assert sorted(image.size for image in inside) == sorted(Image.open(path).size for path in files)
    original = Image.open(drawn / "figures" / "smoke" / "fig_1_1_schematic_loss_change.png").convert("RGB")
    nearest = min(
        sum(
            abs(a - b)
            for a, b in zip(
                image.convert("RGB").resize((40, 30)).tobytes(), original.resize((40, 30)).tobytes(), strict=True
            )
        )
        for image in inside
    )
    assert nearest / (40 * 30 * 3) < 1  # of 255, the mean difference that fewer colours make


def test_says_what_was_drawn_and_what_was_not(read):
    text = re.sub(r"\s+", " ", " ".join(read.text))
    assert "3 of 47 figures drawn" in text
    assert "Profile smoke." in text
    assert "landscape run experiment=fc_mnist profile=smoke" in text
    assert "Digits, the first 120 of 1437 train objects" in text
    assert "not measured yet" in text
    assert "Theorem 8" in text


def test_captions_may_be_the_thesiss_own(drawn):
    text = page(gather(drawn, "smoke", russian=True))
    assert 'lang="ru">Пример' in text


def test_text_is_no_markup(drawn):
    path = drawn / "runs" / "drawn" / "fc_mnist@smoke.json"
    path.write_text(path.read_text().replace("in place of mnist", "<script>alert(1)</script> & more"))
    text = page(gather(drawn, "smoke"))
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text


def test_svg_stands_in_for_png_and_a_lost_picture_is_told(drawn, landscape):
    words = ("experiment=schematic_loss_change", "profile=smoke", "plot.formats=[svg]")
    assert landscape("run", *words).code == 0
    assert "data:image/svg+xml;base64," in page(gather(drawn, "smoke"))
    assert landscape("run", *words[:2], "plot.formats=[pdf]").code == 0
    assert "No PNG or SVG of fig_1_1_schematic_loss_change is there" in page(gather(drawn, "smoke"))


def test_the_same_results_give_the_same_page(drawn):
    assert page(gather(drawn, "smoke")) == page(gather(drawn, "smoke"))


def test_latex_has_every_figure_and_table_that_was_drawn(drawn):
    text = latex(gather(drawn, "smoke"), drawn)
    pictures = re.findall(r"\\includegraphics\[[^]]*\]{\\landscapeoutputs/([^}]*)}", text)
    assert sorted(pictures) == [
        f"figures/smoke/{name}.pdf"
        for name in ("fig_1_1_schematic_loss_change", "fig_1_3_fc_mnist", "fig_4_1_belsley_illustration")
    ]
    assert all((drawn / name).is_file() for name in pictures)
    assert re.findall(r"\\label{(tab:[^}]*)}", text) == ["tab:2.1:vit_architectures", "tab:4.1:belsley_illustration"]
    assert "% figure 1.2, minimum_drift_mnist: not measured yet" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles_as_its_head_says(drawn, tmp_path):
    (drawn / "report").mkdir()
    (drawn / "report" / "thesis.tex").write_text(latex(gather(drawn, "smoke"), drawn), encoding="utf-8")
    paper = tmp_path / "paper"
    paper.mkdir()
    (paper / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{graphicx,booktabs}"
        rf"\newcommand{{\landscapeoutputs}}{{{drawn}}}\begin{{document}}\input{{{drawn}/report/thesis}}\end{{document}}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=paper,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (paper / "paper.pdf").stat().st_size > 10_000
    assert "Missing character" not in (paper / "paper.log").read_text(errors="replace")


def test_paths_are_read_back(drawn):
    record = next(one for one in read_records(drawn) if one.name == "fc_mnist")
    assert all(path.is_file() for piece in record.pieces for path in piece.files)
