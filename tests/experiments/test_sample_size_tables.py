"""Tables 3.1 to 3.3 and both figures from frames built by hand."""

import csv
import itertools
import math
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.chapter3 import sample_size_tables as tables
from experiments.chapter3.sample_size_figures import available_size, statistics
from experiments.chapter3.sample_size_methods import SampleSizeOptions
from landscape_cli.composing import load
from landscape_cli.experiment import Results
from landscape_cli.plotting.output import save_table
from landscape_cli.plotting.style import style
from landscape_cli.samplesize.rules import CLASSICAL, METHODS, Sufficient, Thresholds

TESTS = ("lagrange", "likelihood_ratio", "wald")
BOTH = ("as_defined", "as_published")
SIZES = np.arange(20, 181, 20)  # nine of them
THRESHOLDS = {**dict.fromkeys(TESTS, 5.0), "acc": 0.95, "utility": np.nan}  # the others have 2
# m*: 60 of the first five, 100 of ACC, 140 of the utility.
CURVES = {
    **dict.fromkeys(TESTS, lambda m: m / 10),
    "acc": lambda m: 1 - 4.9 / m,
    "utility": lambda m: -((m - 140.0) ** 2),
}
REFERENCE = Path(tables.__file__).parents[1] / "reference" / "thesis_tables.csv"


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def cells(number: str) -> list[tuple[str, str, str]]:
    with REFERENCE.open() as handle:
        return [(r["row"], r["column"], r["value"]) for r in csv.DictReader(handle) if r["table"] == number]


def results(
    objects=None,
    variants=BOTH,
    seeds=3,
    curves=None,
    m_star=None,
    copies=None,
    sizes=SIZES,
    separable=False,
    methods=tuple(METHODS),
) -> Results:
    """Results of some tables.

    ``curves``: a method's function of the sizes, or one a seed, in the place of the usual ones, under all variants;
    ``m_star``: what ``sizes`` has of a method, one a seed (None: not reached), usually 60; ``copies``: a method's
    values by available size, usually 50 to 89 from 120 and 51 to 90 from 180.
    """
    made = {"table": [], "curves": [], "sizes": [], "copies": []}
    usual = {120: range(50, 90), 180: range(51, 91)}
    for dataset, variant in itertools.product(objects or {"wine": 180}, variants):
        where = {"dataset": dataset, "variant": variant}
        facts = {"objects": (objects or {"wine": 180})[dataset], "features": 13, "dropped": 4, "task": "regression"}
        made["table"].append(where | facts | {"separable": separable})
        for method, seed in itertools.product(methods, range(seeds)):
            reached = (m_star or {}).get(method, [60] * seeds)[seed]
            known = (
                {"m_star": np.nan, "reason": "not reached"} if reached is None else {"m_star": reached, "reason": ""}
            )
            made["sizes"].append(where | {"method": method, "seed": seed, "first": False} | known)
            if variant == "as_published" and method in TESTS:
                continue
            function = (curves or {}).get(method) or CURVES.get(method) or (lambda m: 120 / m)
            function = function[seed] if isinstance(function, (list, tuple)) else function
            known = {"method": method, "seed": seed, "error": 0.1, "threshold": THRESHOLDS.get(method, 2.0)}
            pairs = zip(sizes.tolist(), np.broadcast_to(function(sizes * 1.0), sizes.shape).tolist(), strict=True)
            made["curves"] += [where | known | {"size": size, "value": value} for size, value in pairs]
        if variant == "as_defined":
            for method in methods:
                for available, values in (copies or {}).get(method, usual).items():
                    for number, value in enumerate(values):
                        row = {"method": method, "m_star": np.nan if value is None else float(value)}
                        made["copies"].append(where | row | {"available": available, "copy": number})
    frames = {name: pd.DataFrame(rows) for name, rows in made.items() if rows}
    return Results((), (), frames, {}, {}, "paper")


def test_m_star_is_that_of_the_mean_curve_and_not_a_mean_of_seeds():
    # Alone they reach 2 at 20, 20 and never, together, as 160/m, at 80.
    steep = [lambda m, c=c: c / m for c in (40, 40, 400)]
    found = tables.answers(results(curves={"apvc": steep}), "wine", "as_defined")
    assert found["apvc"] == Sufficient(80)
    assert found["acc"] == Sufficient(100)
    assert found["utility"] == Sufficient(140)
    assert list(found) == list(METHODS)


def test_m_star_of_a_test_is_that_of_the_whole_table():
    given = {"wald": [71, 71, 71], "lagrange": [None] * 3, "apvc": [1, 1, 1]}
    found = tables.answers(results(m_star=given), "wine", "as_defined")
    assert found["wald"] == Sufficient(71)
    assert found["lagrange"] == Sufficient(None, reason="not reached")
    assert found["apvc"] == Sufficient(60)  # of its curve


def wave(m):
    """Holds at 40, not at 60 and 80, holds from 100 on."""
    return np.where((m == 40) | (m >= 100), 1.0, 3.0)


def test_the_first_size_where_a_rule_holds_is_the_published_answer_only():
    both = results(curves={"alc": wave, "utility": lambda m: m})
    found = {variant: tables.answers(both, "wine", variant) for variant in BOTH}
    assert [found[variant]["alc"].size for variant in BOTH] == [100, 40]
    assert [found[variant]["utility"].size for variant in BOTH] == [None, 180]


def test_an_interval_is_over_the_copies_of_all_objects():
    values = list(range(100, 140))
    own = results(copies={"apvc": {120: [1] * 40, 180: values[::-1]}, "acc": {180: [*values[:38], None, None]}})
    assert tables.interval(own, "wine", "apvc") == (100, 138)  # the 1st and the 39th of 40
    assert tables.interval(own, "wine", "acc") == (100, math.inf)
    # One copy of 40 beyond is less than 2.5 %.
    assert tables.interval(results(copies={"acc": {180: [*values[:39], None]}}), "wine", "acc") == (100, 138)
    assert tables.interval(results(copies={"acc": {180: [None] * 3}}), "wine", "acc") == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (50.0, 60.0, "50 to 60"),
        (50.0, 50.0, "50"),
        (50.0, math.inf, "50 to > 180"),
        (math.inf, math.inf, "> 180"),
        (220.0, 260.0, "220 to 260"),  # of a test
    ],
)
def test_text_of_an_interval(low, high, text):
    assert tables.interval_text(low, high, 180) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Sufficient(60), "60"),
        (Sufficient(20, first=True), "≤ 20"),
        (Sufficient(None), "not reached"),
        (Sufficient(None, reason="the classes are separable"), "the classes are separable"),
    ],
)
def test_text_of_an_answer(answer, text):
    assert tables.as_text(answer) == text


FIVE = {"boston": 506, "diabetes": 442, "forest_fires": 517, "servo": 167, "nba": 1340}
TITLES = {"Boston Housing": "boston", "Diabetes": "diabetes", "Forest Fires": "forest_fires", "Servo": "servo"}


def test_table_3_2_has_every_published_cell_and_says_which_are_none():
    frame = tables.sufficient_sizes(results(FIVE), "table").frame
    names = {tables.ROWS[name]: name for name in CLASSICAL}
    published = {((TITLES | {"NBA": "nba"})[c], names[row]): value for row, c, value in cells("3.2")}
    assert len(published) == len(frame) == 45
    order = list(itertools.product(FIVE, CLASSICAL))
    beyond = []
    for (dataset, method), row in zip(order, frame.to_dict("records"), strict=True):
        value = published[dataset, method]
        assert row["method"] == METHODS[method].title
        assert row["available"] == FIVE[dataset]
        if value == str(FIVE[dataset] - 1):
            assert row["thesis"] == f"{value} (m - 1: not reached)"
            beyond.append((dataset, method))
        else:
            assert row["thesis"] == value.replace("-", "–")
    assert beyond == [("diabetes", "cross_validation"), ("diabetes", "acc"), ("forest_fires", "alc")]


def test_table_3_2_in_words():
    curves = {"alc": lambda m: 3 + 0 * m, "apvc": lambda m: 20 / m, "utility": lambda m: m}
    copies = {"alc": {180: [None] * 40}, "apvc": {180: [20] * 40}, "acc": {180: [*range(100, 138), None, None]}}
    own = results(curves=curves, copies=copies, m_star={"wald": [None] * 3, "lagrange": [400] * 3})
    frame = tables.sufficient_sizes(own, "table").frame.set_index("method")
    shown = frame[["as_defined", "interval", "as_published"]].T.to_dict("list")
    assert shown["ALC"] == ["not reached", "> 180", "not reached"]
    assert shown["APVC"] == ["≤ 20", "20", "≤ 20"]
    assert shown["ACC"] == ["100", "100 to > 180", "100"]
    assert shown["Utility"] == ["still rising at the last size", "51 to 89", "180"]
    assert shown["Wald"] == ["not reached", "51 to 89", "not reached"]
    assert shown["Lagrange multipliers"] == ["400", "51 to 89", "400"]
    assert (frame["thesis"] == "–").all()
    assert (frame["available"] == 180).all()


@pytest.mark.parametrize("variants", [BOTH, BOTH[:1], BOTH[1:]])
def test_what_is_not_reached_is_never_a_number_in_the_file(variants, tmp_path):
    """For the published code it was m - 1."""
    never = {name: (lambda m: 3 + 0 * m) for name in ("cross_validation", "bootstrap", "apvc", "alc")}
    never["acc"] = lambda m: 0 * m
    nothing = {name: [None] * 3 for name in METHODS}
    own = results(
        {"boston": 180, "wine": 180},
        variants,
        curves=never,
        m_star=nothing,
        copies={name: {180: [None] * 3} for name in METHODS},
    )
    paths = save_table(tables.sufficient_sizes(own, "table"), tmp_path, "")
    rows = pd.read_csv(next(path for path in paths if path.suffix == ".csv"), dtype=str, keep_default_na=False)
    rows = rows[rows["method"] != "Utility"]  # always has a largest value
    assert len(rows) == 16
    assert [name for name in BOTH if name in rows] == list(variants)
    for name in variants:
        assert set(rows[name]) == {"not reached"}
    if "as_defined" in variants:
        assert set(rows["interval"]) == {"> 180"}


def test_table_3_1_has_the_files_beside_the_thesis():
    own = results(FIVE | {"wine": 178}, separable=True)
    frame = tables.datasets(own).frame
    published = {(row, column): value for row, column, value in cells("3.1")}
    names = {"boston": "Boston Housing", "diabetes": "Diabets", "forest_fires": "Forest Fires"}
    names |= {"servo": "Servo", "nba": "NBA"}
    assert len(frame) == 6  # once, however many variants
    assert len(published) == 2 * len(names)
    for (dataset, named), row in zip(names.items(), frame.to_dict("records"), strict=False):
        assert row["objects"] == FIVE[dataset]
        assert row["published_features"] == published[named, "features"]
        assert row["published_objects"] == published[named, "objects"]
        assert (row["features"], row["left_out"], row["task"], row["separable"]) == (13, 4, "regression", "yes")
    assert frame.iloc[-1][["published_features", "published_objects", "objects"]].tolist() == ["–", "–", 178]


EXPERIMENTS = ["sample_size", "sample_size_methods"]
EXPERIMENTS += [f"sample_size_methods_{name}" for name in ("boston", "diabetes", "forest_fires", "servo", "nba")]


@pytest.mark.parametrize("experiment", [None, *EXPERIMENTS])
def test_every_cell_of_table_3_3_is_the_default(experiment):
    options = load([f"experiment={experiment}"]).measure if experiment else SampleSizeOptions()
    frame = tables.hyperparameters(options).frame
    symbols = {"l": "l", "epsilon": "ε", "alpha": "α", "beta": "β"}
    names = {row.lower(): METHODS[name].title for name, row in tables.ROWS.items()}
    expected = {(names[row.lower()], symbols[c]): float(value) for row, c, value in cells("3.3") if value != "-"}
    shown = frame.set_index(["method", "parameter"])
    assert shown["thesis"].to_dict() == expected
    assert shown["here"].to_dict() == expected
    for row in frame.itertuples():  # the option named is the one whose value is shown
        assert row.here == getattr(options, row.option.removeprefix("measure."))


def test_table_3_3_shows_what_was_changed():
    frame = tables.hyperparameters(SampleSizeOptions(cost=0.25, beta=0.1)).frame
    apart = frame[frame["thesis"] != frame["here"]].set_index("option")
    assert apart["here"].to_dict() == {"measure.beta": 0.1, "measure.cost": 0.25}
    assert len(apart) == 4


def test_thresholds_and_options_have_the_same_defaults():
    for name in Thresholds.__dataclass_fields__:
        assert getattr(Thresholds(), name) == getattr(SampleSizeOptions(), name)


def drawn(make, own, laid_out=False):
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        figure = make(own, "figure")
        if laid_out:
            figure.drawing.draw_without_rendering()
    assert figure.name == "figure"
    assert len(figure.drawing.axes) == 9
    return figure


def seed_gone(own: Results) -> Results:
    """Take a seed's values of one method away."""
    frame = own.frames["curves"]
    frame.loc[(frame["method"] == "acc") & (frame["seed"] == 1) & (frame["size"] < 60), "value"] = np.nan
    return own


@pytest.mark.parametrize(
    "own",
    [
        pytest.param(lambda: results(seeds=1, variants=BOTH[:1]), id="one seed, no published variant"),
        pytest.param(
            lambda: seed_gone(results({"nba": 180}, sizes=np.array([20, 180]))), id="missing values, two sizes, dashes"
        ),
    ],
)
def test_statistics_are_drawn_with_m_star_in_the_titles(own):
    figure = drawn(statistics, own(), laid_out=True)
    titles = [ax.get_title() for ax in figure.drawing.axes]
    assert [text.partition(":")[0] for text in titles] == [METHODS[name].title for name in CLASSICAL]
    assert all("m* " in text for text in titles)


def test_titles_say_m_star_or_that_it_is_not_reached():
    curves = {"alc": lambda m: 3 + 0 * m, "apvc": lambda m: 20 / m, "utility": lambda m: m}
    own = results(curves=curves, m_star={"wald": [None] * 3})
    found = dict(ax.get_title().split(": ") for ax in drawn(statistics, own).drawing.axes)
    reached = {"Lagrange multipliers": "m* = 60", "Likelihood ratio": "m* = 60", "ACC": "m* = 100", "APVC": "m* ≤ 20"}
    reached |= {"Cross-validation": "m* = 60", "Bootstrap": "m* = 60"}
    assert found == reached | dict.fromkeys(("Wald", "ALC", "Utility"), "m* not reached")


def test_curves_thresholds_and_dots_are_where_the_frames_say():
    own = results({"boston": 180})
    axes = dict(zip(CLASSICAL, drawn(statistics, own).drawing.axes, strict=True))
    for method, ax in axes.items():
        lines = [line for line in ax.lines if len(line.get_xdata()) == len(SIZES)]
        assert len(lines) == (1 if method in TESTS else 2)  # the tests are not followed as published
        expected = CURVES.get(method, lambda m: 120 / m)(SIZES * 1.0)
        for line in lines:
            np.testing.assert_allclose(line.get_ydata(), expected)
        limits = {line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1]}
        assert limits == (set() if method == "utility" else {THRESHOLDS.get(method, 2.0)})
        (dot,) = (line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()))
        size = {"acc": 100, "utility": 140}.get(method, 60)
        assert dot.get_xdata()[0] == size
        assert dot.get_ydata()[0] == pytest.approx(CURVES.get(method, lambda m: 120 / m)(size))
        (triangle,) = (line for line in ax.lines if line.get_marker() == "v" and len(line.get_xdata()))
        assert triangle.get_xdata()[0] == float(tables.published_sizes()["boston", method])


def test_a_utility_that_starts_far_below_is_cut():
    own = results(curves={"utility": lambda m: -1 - 1e6 * (m == 20) - 1e-4 * (m - 140) ** 2})
    low, high = drawn(statistics, own).drawing.axes[8].get_ylim()
    assert low > -1e6
    assert high > -1


NOT_REACHED = {name: {120: [None] * 4, 180: [None] * 4} for name in METHODS}
PART = {name: {120: [50, None, None, None], 180: [60, 70, 80, None]} for name in METHODS}


@pytest.mark.parametrize(
    ("copies", "variants"),
    [(PART, BOTH[:1]), (NOT_REACHED, BOTH), ({name: {180: [60, None]} for name in METHODS}, BOTH[:1])],
)
def test_available_sizes_are_drawn_whatever_is_reached(copies, variants):
    figure = drawn(available_size, results(variants=variants, copies=copies), laid_out=True)
    assert [ax.get_title() for ax in figure.drawing.axes] == [METHODS[name].title for name in CLASSICAL]
    assert figure.note.startswith(f"{len(copies['wald'][180])} bootstrap copies")


def test_medians_count_what_is_not_reached_as_beyond_and_say_how_many_reach_it():
    ax = drawn(available_size, results(copies=PART)).drawing.axes[0]
    middle, diagonal, *_ = [line for line in ax.lines if len(line.get_xdata()) == 2]
    np.testing.assert_array_equal(middle.get_xdata(), [120, 180])
    np.testing.assert_array_equal(middle.get_ydata(), [np.nan, 70])
    np.testing.assert_array_equal(diagonal.get_ydata(), [120, 180])
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("25%", (120, 120)), ("75%", (180, 180))]
    (area,) = (c for c in ax.collections if len(c.get_paths()) and len(c.get_paths()[0].vertices))
    corners = {tuple(corner) for corner in area.get_paths()[0].vertices.tolist()}
    assert {(120, 50), (120, 120), (180, 60), (180, 180)} <= corners
