"""How many objects of one's own table are enough: whole runs on small files, and what is refused."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.beyond.sample_size import _enough
from landscape_cli.composing import load
from landscape_cli.plan import make_plan
from landscape_cli.samplesize.rules import METHODS

FEW = ("measure.resamples=6", "measure.copies=3", "measure.copy_resamples=4", "measure.copy_sizes=4", "measure.sizes=6")
RUN = ("experiment=sample_size", *FEW, "seeds=2", "data.download=false", "plot.formats=[png]", "plot.dpi=50")
REASONS = {"not reached", "still rising at the last size", "the classes are separable"}
ROWS = 40


def own(name: str, target="y") -> tuple[str, ...]:
    return (*RUN, "dataset=csv", f"dataset.path={name}", f"dataset.target={target}")


@pytest.fixture
def write(isolated):
    """Write columns into a file of the working directory."""

    def to(name: str, separator=",", **columns) -> Path:
        path = isolated / "work" / name
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(columns).to_csv(path, sep=separator, index=False)
        return path

    return to


def columns(**more) -> dict:
    """Two features and a target that depends on the first."""
    random = np.random.default_rng(0)
    a, b, noise = random.normal(size=(3, ROWS)).round(3)
    return {"a": a, "b": 10 + 5 * b, "y": a + noise} | more


def stored(tmp_path, name: str) -> pd.DataFrame:
    (path,) = (tmp_path / "outputs" / "results").glob(f"SampleSizeMethods/*/{name}.parquet")
    return pd.read_parquet(path)


def written(tmp_path) -> pd.DataFrame:
    (path,) = (tmp_path / "outputs" / "tables").glob("*/sample_size.csv")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_a_run_answers_in_words_a_table_and_a_figure(landscape, write, tmp_path):
    write("mine.csv", **columns())
    finished = landscape("run", *own("mine.csv"))
    assert (finished.code, finished.err) == (0, "")
    assert "mine.csv, all 40 objects; profile paper." in finished.out
    table = written(tmp_path)
    assert list(table) == ["method", "asks", "sufficient", "interval", "enough"]
    assert table["method"].tolist() == [about.title for about in METHODS.values()]
    for row in table.itertuples():
        line = f"{row.method}: {row.sufficient} [{row.interval}] of 40; enough: {row.enough} ({row.asks})"
        assert f"  {line}\n" in finished.out
    (picture,) = (tmp_path / "outputs" / "figures").glob("*/sample_size.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    check_against_what_was_measured(table, tmp_path)


def check_against_what_was_measured(table, tmp_path):
    """Each cell from the stored frames: m* of the mean curve, quantiles of three copies, which are their ends."""
    curves, sizes, copies = (stored(tmp_path, name) for name in ("curves", "sizes", "copies"))
    reached = 0
    for name, row in zip(METHODS, table.itertuples(), strict=True):
        means = curves[curves["method"] == name].groupby("size")["value"].mean()
        limit = curves.loc[curves["method"] == name, "threshold"].iloc[0]
        if name in ("lagrange", "likelihood_ratio", "wald"):
            known = sizes.loc[sizes["method"] == name, "m_star"].iloc[0]
            text = str(int(known))
        elif name == "utility":
            known = np.nan if means.idxmax() == ROWS else means.idxmax()
            text = f"≤ {known}" if known == means.index[0] else str(known)
        elif name in ("kl", "s"):
            bad = means.index[abs(means - means.iloc[-1]) > 0.05 * abs(means.iloc[-1])]
            known = means.index[means.index > max(bad, default=0)][0]
            text = f"≤ {known}" if known == means.index[0] else str(known)
        else:
            limit = means.iloc[0] / 2 if name in ("d", "m") else limit
            bad = means[(means < limit) if name == "acc" else (means > limit)].index
            after = means.index if bad.empty else means.index[means.index > bad.max()]
            known = after[0] if len(after) else np.nan
            text = f"≤ {known}" if known == means.index[0] else str(known)
        assert row.sufficient == text if known == known else row.sufficient in REASONS
        reached += known == known
        ends = copies.loc[copies["method"] == name, "m_star"].fillna(math.inf)
        assert len(ends) == 3
        low, high = (f"{end:.0f}" if np.isfinite(end) else "> 40" for end in (ends.min(), ends.max()))
        assert row.interval == (low if low == high else f"{low} to {high}")
        assert row.enough == enough_of([known, *ends])
    assert 3 < reached < 13


def enough_of(sizes) -> str:
    there = [size <= ROWS for size in sizes]
    return "yes" if all(there) else "unsure" if any(there) else "no"


@pytest.mark.parametrize(
    ("size", "low", "high", "answer"),
    [
        (30, 20, 40, "yes"),
        (40, 40, 40, "yes"),
        (30, 20, 41, "unsure"),
        (30, 20, math.inf, "unsure"),
        (30, 41, 50, "unsure"),
        (30, math.inf, math.inf, "unsure"),
        (41, 30, 40, "unsure"),
        (41, 40, 50, "unsure"),
        (41, 41, 50, "no"),
        (100, 90, 120, "no"),
        (math.nan, 41, 50, "no"),
        (math.nan, math.inf, math.inf, "no"),
        (math.nan, 30, 40, "unsure"),
        (math.nan, 40, math.inf, "unsure"),
    ],
)
def test_enough_is_said_where_m_star_and_the_whole_interval_agree(size, low, high, answer):
    assert _enough(size, low, high, 40) == answer


def test_what_is_not_reached_is_never_a_number(landscape, write, tmp_path):
    write("mine.csv", **columns(y=np.random.default_rng(1).normal(size=ROWS)))
    hard = ("overfitting=1e-9", "width=1e-6", "variance=1e-6", "coverage_radius=1e-6", "radius=1e-6", "cost=1e-9")
    finished = landscape("run", *own("mine.csv"), *(f"measure.{word}" for word in hard))
    assert finished.code == 0, finished.err
    table = written(tmp_path).set_index("method")
    never = table.loc[["Cross-validation", "Bootstrap", "APVC", "ACC", "ALC"]]
    assert set(never["sufficient"]) <= {"not reached"}
    assert set(never["interval"]) == {"> 40"}
    assert set(never["enough"]) == {"no"}
    assert stored(tmp_path, "sizes").set_index("method").loc[["apvc", "acc", "alc"], "m_star"].isna().all()
    classical = table.iloc[:9]  # M, KL and S may well be reached at the last size
    assert not (classical == "40").any(axis=None)
    assert not (classical == "39").any(axis=None)


def test_answers_name_what_was_asked(landscape, write, tmp_path):
    write("mine.csv", **columns())
    asked = ("beta=0.1", "shift=0.3", "overfitting=0.07", "alpha=0.1", "width=0.6", "variance=0.8", "cost=0.004")
    asked += ("coverage_radius=0.35", "radius=0.45", "part=0.4", "deviation=0.1")
    finished = landscape("run", *own("mine.csv"), *(f"measure.{word}" for word in asked))
    assert finished.code == 0, finished.err
    assert written(tmp_path)["asks"].tolist() == [
        *["power 0.9 to tell half of the coefficients from ones larger by 0.3"] * 3,
        "test objects at most 0.07 nats less likely than train objects",
        "90% bootstrap intervals of coefficients narrower than 0.6",
        "posterior variance of all coefficients together at most 0.8",
        "posterior mass within 0.35 of the estimate at least 0.9",
        "posterior mass 0.9 within a radius of at most 0.45",
        "one more object no longer worth 0.004 nats",
        "variance of the log-likelihood at most 0.4 of its value at the first size",
        "change of the mean log-likelihood by an object at most 0.4 of the first one",
        "KL to one object more within 10% of its last value (it falls like 1/k)",
        "s-score to one object more within 10% of its last value",
    ]


def test_the_same_values_elsewhere_are_not_measured_again(landscape, write, tmp_path):
    write("mine.csv", **columns())
    first = landscape("run", *own("mine.csv"))
    assert "1 points: 0 stored, 1 to measure" in first.out
    write("elsewhere/other.txt", ";", **columns())
    keys = [make_plan(load([*own(name)])).located[0].key for name in ("mine.csv", "elsewhere/other.txt")]
    assert keys[0] == keys[1]
    again = landscape("run", *own("elsewhere/other.txt"))
    assert (again.code, again.err) == (0, "")
    assert "1 points: 1 stored, 0 to measure" in again.out
    assert "other.txt, all 40 objects" in again.out
    rows = [[line for line in run.out.splitlines() if "; enough: " in line] for run in (first, again)]
    assert len(rows[0]) == 13
    assert rows[0] == rows[1]


def test_rows_with_missing_values_are_left_out_and_counted_and_text_is_numbered(landscape, write, tmp_path):
    gaps = columns(c=np.random.default_rng(2).choice(["u", "v", "w"], ROWS))
    gaps["b"][[4, 7]] = np.nan
    write("gaps.csv", **gaps)
    finished = landscape("run", *own("gaps.csv"), "dataset.encoding=ordinal")
    assert (finished.code, finished.err) == (0, "")
    assert "gaps.csv, all 38 objects, 2 rows with missing values left out" in finished.out
    assert stored(tmp_path, "table")[["objects", "dropped", "features"]].to_numpy().tolist() == [[38, 2, 3]]
    assert stored(tmp_path, "curves")["size"].max() == 38


def test_two_values_of_the_target_make_it_logistic(landscape, write, tmp_path):
    """Numbers; text is that of the next test."""
    given = columns()
    random = np.random.default_rng(3)
    where = (given["a"] + 2 * random.normal(size=ROWS) > 0).astype(int)
    write("two.csv", **given | {"y": where})
    finished = landscape("run", *own("two.csv"))
    assert finished.code == 0, finished.err
    assert stored(tmp_path, "table")[["task", "separable"]].to_numpy().tolist() == [["classification", False]]
    assert "a plane separates the classes" not in finished.out
    # The tests of two classes are three different ones, those of a regression two.
    assert written(tmp_path)["sufficient"].iloc[:3].nunique() == 3


def test_separable_classes_are_said(landscape, write, tmp_path):
    given = columns()
    write("apart.csv", **given | {"y": np.where(given["a"] > 0, "up", "down")})
    finished = landscape("run", *own("apart.csv"))
    assert finished.code == 0, finished.err
    assert "a plane separates the classes: the likelihood has no maximum" in finished.out
    table = written(tmp_path)
    assert table["sufficient"].iloc[:3].tolist() == ["the classes are separable"] * 3
    assert table["interval"].iloc[:3].tolist() == ["> 40"] * 3
    assert table["enough"].iloc[:3].tolist() == ["no"] * 3


def test_text_can_be_columns_of_zeros_and_ones(landscape, write, tmp_path):
    three, two = (np.random.default_rng(2).choice(list(values), ROWS) for values in ("uvw", "uv"))
    write("text.csv", **columns(b=three, c=two))
    finished = landscape("run", *own("text.csv"), "dataset.encoding=one_hot")
    assert finished.code == 0, finished.err


CLASSES = np.array(["u", "v", "w"])[np.arange(ROWS) % 3]
ONE = (np.arange(ROWS) == 3).astype(int)
UNFIT = [
    pytest.param(
        {"a": [1, 2, 3], "b": [2, 1, 5], "c": [0, 1, 1], "d": [5, 3, 1], "y": [1, 4, 3]},
        ("3 objects for 4 features", "more than 10 objects"),
        id="fewer objects than features",
    ),
    pytest.param(columns(b=5), ("column 'b' is constant", "dataset.drop=[b]"), id="constant"),
    pytest.param(
        columns(c=2 * columns()["a"] + 1), ("'a'", "'c'", "is a linear combination of"), id="a multiple of another"
    ),
    pytest.param(
        columns(c=columns()["a"] - 3 * columns()["b"]),
        ("'a'", "'b'", "'c'", "linear combination"),
        id="a sum of others",
    ),
    pytest.param(columns(y=CLASSES), ("dataset.target: 3 classes; allowed: two",), id="three classes"),
]


def refused(landscape, write, given):
    write("mine.csv", **given)
    return landscape("run", *own("mine.csv"))


@pytest.mark.parametrize(("given", "texts"), UNFIT)
def test_unfit_tables_are_refused_with_what_is_wrong(landscape, write, tmp_path, given, texts):
    finished = refused(landscape, write, given)
    assert finished.code == 2, finished.err
    (line,) = (line for line in finished.lines if line != "1 failed:")
    for text in texts:
        assert text in line
    assert "1 failed:" in finished.lines or len(finished.lines) == 1
    assert "Traceback" not in finished.err
    assert not list((tmp_path / "outputs").glob("results/*/*/point.json"))
    assert not list((tmp_path / "outputs").glob("tables/*"))


@pytest.mark.parametrize(("given", "texts"), UNFIT[:2])
def test_unfit_tables_are_refused_in_one_line(landscape, write, given, texts):
    refused(landscape, write, given).assert_refused(2, *texts)


@pytest.mark.parametrize(
    ("given", "words", "texts"),
    [
        (columns(b=CLASSES), (), ("dataset.encoding", "column 'b'", "is text", "one_hot")),
        (columns(y=ONE), (), ("class '1'", "has 1 object")),
        (columns(), ("dataset.target=z",), ("dataset.target: 'z' is no column of mine.csv", "columns: a, b, y")),
        (columns(), ("dataset.target=null",), ("dataset.target: null", "a, b, y")),
        (columns(), ("dataset.drop=[a,b]",), ("nothing is left of mine.csv",)),
        (columns(), ("measure.copies=1",), ("measure.copies: 1; allowed: 2 or more",)),
        (columns(), ("measure.width=0",), ("measure.width: 0.0; allowed: more than 0",)),
        (columns(), ("measure.alpha=0.5",), ("measure.alpha: 0.5; allowed:",)),
    ],
)
def test_what_is_asked_of_a_table_that_it_does_not_have_is_refused(landscape, write, given, words, texts):
    write("mine.csv", **given)
    landscape("run", *own("mine.csv"), *words).assert_refused(2, *texts)


def test_a_missing_file_is_missing_data(landscape):
    landscape("run", *own("gone.csv")).assert_refused(3, "gone.csv: there is no such file")


def test_without_a_file_the_embedded_set_is_answered_in_a_figure(landscape, small, tmp_path, monkeypatch):
    """The default of the experiment, drawn with every method's row and what is available."""
    drawn = []
    from landscape_cli.plotting import output

    original = output.save_figure
    monkeypatch.setattr(
        output,
        "save_figure",
        lambda figure, *given: drawn.append(figure) or describe(figure) or original(figure, *given),
    )
    finished = landscape("run", "experiment=sample_size", *small)
    assert finished.code == 0, finished.err
    assert "Diabetes (scikit-learn), a random 120 of 442 objects; profile smoke." in finished.out
    (figure,) = drawn
    assert "2 bootstrap copies" in figure.note


def describe(figure) -> None:
    (ax,) = figure.drawing.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [about.title for about in METHODS.values()]
    assert "120 available" in [text.get_text().strip() for text in ax.texts]
    assert ax.get_xscale() == "log"
    cells = [text.get_text() for text in ax.texts][-1 - len(METHODS) :]
    assert sum(bool(re.fullmatch(r"(≤ )?\d+", cell)) or cell in REASONS for cell in cells) == len(METHODS)
    for line in ax.lines:  # a dot is no m* that was not reached
        if line.get_marker() in ("o", "s", "D") and len(line.get_xdata()):
            assert f"{line.get_xdata()[0]:.0f}" in {cell.removeprefix("≤ ") for cell in cells}


def test_copies_of_a_few_objects_leave_nothing_singular(landscape, write):
    write("few.csv", x=[0.1, 2.3, 1.2, 4.1, 3.3], y=[1.0, 2.5, 1.1, 3.9, 3.6])
    finished = landscape("run", *own("few.csv"), "measure.copies=40", "measure.copy_resamples=20", "seeds=1")
    assert (finished.code, finished.err) == (0, "")
    assert "of 5; enough: " in finished.out
