import io
import os
import re
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from landscape_cli.experiment import Figure, Table
from landscape_cli.plotting.output import displayed, markdown, save_figure, save_table
from landscape_cli.plotting.style import new_figure, style

FORMATS = ("pdf", "png", "svg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    return folder


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def table(**changes) -> Table:
    frame = pd.DataFrame(
        {
            "net_name": ["a & b", "50 %", "x|y"],
            "value": [1 / 3, 12345678.9, np.nan],
            "ratio": [1.0, 2.5, -np.inf],
            "count": [1, 20000, 300],
            "kind": [True, None, "c"],
        }
    )
    values = {"name": "table_1_2", "frame": frame, "caption": "Cost_of $x$.", "formats": {"ratio": ".3f"}}
    return Table(**values | changes)


def test_csv_holds_every_digit(folder):
    paths = save_table(table(), folder, "")
    assert [path.name for path in paths] == ["table_1_2.csv", "table_1_2.md", "table_1_2.tex"]
    assert sorted(contents(folder)) == sorted(path.name for path in paths)
    assert (folder / "table_1_2.csv").read_text().splitlines() == [
        "net_name,value,ratio,count,kind",
        "a & b,0.3333333333333333,1.0,1,True",
        "50 %,12345678.9,2.5,20000,",
        "x|y,,-inf,300,c",
    ]
    numbers = pd.DataFrame({"v": np.random.default_rng(0).lognormal(sigma=20, size=100)})
    save_table(table(name="numbers", frame=numbers, formats={}), folder, "")
    back = (folder / "numbers.csv").read_text().splitlines()
    assert back[0] == "v"
    assert [float(line) for line in back[1:]] == numbers["v"].tolist()


def test_markdown(folder):
    save_table(table(), folder, "All 60 objects.")
    assert (folder / "table_1_2.md").read_text(encoding="utf-8") == (
        "Cost_of $x$. All 60 objects.\n"
        "\n"
        "| net_name | value     | ratio | count | kind |\n"
        "|----------|-----------|-------|-------|------|\n"
        "| a & b    | 0.3333    | 1.000 | 1     | True |\n"
        "| 50 %     | 1.235e+07 | 2.500 | 20000 | –    |\n"
        "| x\\|y     | –         | -inf  | 300   | c    |\n"
    )


def test_latex(folder):
    save_table(table(), folder, "100 % of 60.")
    lines = (folder / "table_1_2.tex").read_text(encoding="utf-8").splitlines()
    body = [line.strip() for line in lines]
    assert body[0] == r"\begin{table}"
    assert body[-1] == r"\end{table}"
    assert r"\caption{Cost\_of \$x\$. 100 \% of 60.}" in body
    assert r"\label{tab:table_1_2}" in body
    assert r"\centering" in body
    rules = [body.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert body[rules[0] + 1 : rules[1]] == [r"net\_name & value & ratio & count & kind \\"]
    assert body[rules[1] + 1 : rules[2]] == [
        r"a \& b & 0.3333 & 1.000 & 1 & True \\",
        r"50 \% & 1.235e+07 & 2.500 & 20000 & -- \\",
        r"x\textbar{}y & -- & -inf & 300 & c \\",
    ]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b", r"a\_b"),
        ("#1 & {2}", r"\#1 \& \{2\}"),
        ("\\alpha", r"\textbackslash{}alpha"),
        ("~x^2", r"\textasciitilde{}x\textasciicircum{}2"),
        ("p < 0.05 > q", r"p \textless{} 0.05 \textgreater{} q"),
        ("5 × 5 ≤ ∞", r"5 $\times$ 5 $\leq$ $\infty$"),
        ("‖θ‖₂ → −1", r"$\|$$\theta$$\|$$_2$ $\to$ $-$1"),
        ("θ\N{COMBINING CIRCUMFLEX ACCENT}", r"$\theta$"),
        ("plain (text), 1.5e-05.", "plain (text), 1.5e-05."),
    ],
)
def test_latex_escapes(folder, text, escaped):
    frame = pd.DataFrame({f"h {text}": [f"c {text}"]})
    save_table(Table("t", frame, f"l {text}"), folder, "")
    written = (folder / "t.tex").read_text(encoding="utf-8")
    assert f"h {escaped} \\\\\n" in written
    assert f"c {escaped} \\\\\n" in written
    assert f"\\caption{{l {escaped}}}\n" in written


def test_latex_of_everything_is_balanced_and_ascii(folder):
    special = "".join(map(chr, range(32, 127))) + "–−×≤≥∞→θε∇‖₂"
    save_table(Table("t", pd.DataFrame({"c": [special]}), special), folder, special)
    written = (folder / "t.tex").read_text(encoding="utf-8")
    assert written.isascii()
    bare = re.sub(r"\\[{}\\$&%#_|]", "", written)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[%#~^]", bare)


def test_numbers_are_shown_by_their_columns_format():
    frame = pd.DataFrame(
        {"a": [1 / 3, np.nan, np.inf], "b": [1 / 3, 2e-5, 3.0], "c": [7, 8, 9], "d": [None, "x", 2.0], "e": [1, 2, 3]}
    )
    frame["f"] = np.array([1 / 3, 2, 3], dtype=np.float32)
    shown = displayed(frame, {"b": ".2e", "e": "03d"})
    assert shown.to_dict("list") == {
        "a": ["0.3333", "–", "inf"],
        "b": ["3.33e-01", "2.00e-05", "3.00e+00"],
        "c": ["7", "8", "9"],
        "d": ["–", "x", "2"],
        "e": ["001", "002", "003"],
        "f": ["0.3333", "2", "3"],
    }


def test_markdown_of_no_rows_has_a_header():
    assert markdown(pd.DataFrame(columns=["a", "bc"], dtype=object)) == "| a | bc |\n|---|----|"


def test_tables_are_the_same_bytes_again(folder):
    save_table(table(), folder / "first", "note")
    save_table(table(), folder / "second", "note")
    assert contents(folder / "first") == contents(folder / "second")


def figure(name="fig_1_3", **changes) -> Figure:
    drawing, axes = new_figure(1, 2, 5.0, 2.0)
    x = np.linspace(0, 1, 50)
    for ax in axes[0]:
        ax.plot(x, np.exp(x), label=r"$\mathcal{L}_k$")
        ax.fill_between(x, x, np.exp(x), alpha=0.2)
        ax.legend()
    return Figure(name, drawing, "A caption.", **changes)


def saved(folder, dpi=60, note="Data note.", formats=FORMATS, **changes) -> dict[str, bytes]:
    with style():
        paths = save_figure(figure(**changes), folder, formats, dpi, note)
    assert [path.name for path in paths] == [f"fig_1_3.{suffix}" for suffix in formats]
    assert sorted(contents(folder)) == sorted(path.name for path in paths)
    return contents(folder)


def pixels(content) -> np.ndarray:
    return plt.imread(io.BytesIO(content), format="png")


def test_figures_are_what_their_suffix_says(folder):
    found = saved(folder)
    assert found["fig_1_3.pdf"].startswith(b"%PDF-")
    assert found["fig_1_3.png"].startswith(b"\x89PNG")
    assert b"<svg" in found["fig_1_3.svg"]
    assert pixels(found["fig_1_3.png"]).shape[:2] == (120, 300)
    assert pixels(found["fig_1_3.png"]).std() > 0.05
    assert saved(folder / "one", formats=("png",)).keys() == {"fig_1_3.png"}


def test_figures_are_the_same_again_whatever_the_time(folder, monkeypatch):
    first = saved(folder / "first")
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    second = saved(folder / "second")
    np.testing.assert_array_equal(pixels(first["fig_1_3.png"]), pixels(second["fig_1_3.png"]))
    assert first == second


def test_the_small_print_is_below_the_figure_and_in_its_metadata(folder):
    plain = saved(folder / "plain", note="", formats=("png",))
    found = saved(folder / "noted")
    assert not np.array_equal(pixels(plain["fig_1_3.png"]), pixels(found["fig_1_3.png"]))
    assert b"A caption. Data note." in found["fig_1_3.svg"]
    assert b"A caption. Data note." in found["fig_1_3.png"]
    assert b"A caption. Data note." in found["fig_1_3.pdf"]


def test_the_figures_own_note_comes_first_and_long_notes_are_wrapped(folder):
    own = figure(note="Dead: h=4.")
    with style():
        save_figure(own, folder, ["svg"], 60, "Data note. " * 30)
    small_print = own.drawing.get_supxlabel()
    assert small_print.startswith("Dead: h=4. Data note. Data note.")
    assert small_print.split() == ("Dead: h=4. " + "Data note. " * 30).split()
    own.drawing.draw_without_rendering()
    box, page = own.drawing._supxlabel.get_window_extent(), own.drawing.bbox
    assert small_print.count("\n") >= 2
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0
    foot = min(ax.get_tightbbox().y0 for ax in own.drawing.axes)
    assert box.y1 <= foot


def test_saved_figures_are_closed(folder):
    before = plt.get_fignums()
    saved(folder)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, b"the old figure"])
def test_a_figure_is_whole_or_not_there(folder, error, old):
    path = folder / "fig_1_3.png"
    if old:
        path.write_bytes(old)
    own = figure()

    def breaks_off(target, **_):
        Path(target).write_bytes(b"half")
        assert not path.exists() or path.read_bytes() == old
        raise error

    own.drawing.savefig = breaks_off
    with pytest.raises(type(error)):
        save_figure(own, folder, ["png"], 60, "")
    assert contents(folder) == ({"fig_1_3.png": old} if old else {})


def test_a_table_is_whole_or_not_there(folder, monkeypatch):
    save_table(table(), folder, "old")
    before = contents(folder)
    write = Path.write_text

    def breaks_off(self, text, **options):
        write(self, text[: len(text) // 2], **options)
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", breaks_off)
    with pytest.raises(OSError, match="disk full"):
        save_table(table(), folder, "new")
    assert contents(folder) == before


def test_an_older_file_is_replaced_and_never_seen_half(folder, monkeypatch):
    save_table(table(), folder, "old")
    replaced = []
    rename = Path.replace

    def watched(self, target):
        assert "old" in Path(target).read_text() or target.suffix == ".csv"
        assert self.parent == target.parent  # a rename on one file system
        replaced.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    save_table(table(), folder, "new")
    assert sorted(replaced) == ["table_1_2.csv", "table_1_2.md", "table_1_2.tex"]
    assert "new" in (folder / "table_1_2.md").read_text(encoding="utf-8")
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
