"""Bounds against exact norms, from frames built by hand: ratios, violations, table, claims and figures."""

import itertools
import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from experiments.beyond.bounds import BoundsOptions, summary, violations, with_ratios
from experiments.beyond.bounds_chains import FullyConnectedBounds
from landscape_cli.config import Config, DatasetConfig, MLPConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.plotting.style import style

GRID = {"hidden_size": [4, 8, 16], "num_layers": [0, 1, 2]}
KINDS = {"random": [""], "trained": [""], "adversarial": ["corrected", "printed"]}
VARIANTS = ("printed", "corrected", "tight")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(grid=None) -> FullyConnectedBounds:
    nodes = {"dataset": DatasetConfig("mnist"), "model": MLPConfig(hidden_size=8, num_layers=1)}
    options = BoundsOptions(networks=5, ascent_steps=7)
    return FullyConnectedBounds(
        Config(name="bounds_test", title="", family="", **nodes, grid=grid or GRID, measure=options)
    )


def networks(change=lambda row: {}, grid=None, theorems=("8", "9"), count=2) -> pd.DataFrame:
    """Norms of 2; printed 20, corrected 8, tight 4; `change` says what a row has instead. Adversaries each of a bound.

    A grid is measured as a cross of axes about (8, 1).
    """
    points = [(h, 1) for h in (grid or GRID)["hidden_size"]] + [(8, n) for n in (grid or GRID).get("num_layers", [])]
    rows = []
    for (h, layers), theorem in itertools.product(dict.fromkeys(points), theorems):
        for quantity, (kind, goals) in itertools.product(("gauss_newton", "hessian"), KINDS.items()):
            for against, n in itertools.product(goals, range(count)):
                row = {"dataset": "mnist", "hidden_size": h, "num_layers": layers, "kind": kind, "against": against}
                row |= {"theorem": theorem, "quantity": quantity, "network": n, "measured": 2.0}
                row |= {"printed": 20.0, "corrected": 8.0, "tight": 4.0}
                rows.append(row | change(row))
    return pd.DataFrame(rows)


def results(*given, **options) -> Results:
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    return Results(tuple(experiment().points()), (), {"networks": networks(*given, **options)}, {}, sources, "paper")


def at(**where):
    """A change of the rows that have these values."""
    change = where.pop("to")
    return lambda row: change if all(row[key] == value for key, value in where.items()) else {}


def test_ratios_are_bounds_over_norms_and_dead_networks_have_none():
    frame = networks(at(network=0, kind="random", to={"measured": 0.0}))
    found = with_ratios(frame)
    assert len(frame) - len(found) == (frame["measured"] == 0).sum() > 0
    for variant, ratio in zip(VARIANTS, (10, 4, 2), strict=True):
        assert found[f"{variant}_ratio"].unique().tolist() == [ratio]
    assert "printed_ratio" not in frame
    with pytest.raises(ValueError, match="an exact norm is not a number"):
        with_ratios(networks(at(network=0, kind="trained", theorem="9", hidden_size=16, to={"measured": math.nan})))


def tabled(*given, **options) -> pd.DataFrame:
    return summary(networks(*given, **options)).set_index(["theorem", "quantity", "kind"])


def test_the_table_has_counts_smallest_and_median_ratios_of_each_kind():
    table = tabled(at(network=1, hidden_size=16, to={"printed": 1.0, "corrected": 1.5}))
    assert len(table) == 2 * 2 * 3
    row = table.loc["8", "hessian", "trained"]
    assert (row["networks"], row["printed_violations"], row["corrected_violations"]) == (10, 1, 1)  # of five points
    assert (row["printed_smallest"], row["printed_median"]) == (0.5, 10)
    assert (row["corrected_smallest"], row["corrected_median"]) == (0.75, 4)
    assert (row["tight_violations"], row["tight_smallest"]) == (0, 2)


@pytest.mark.parametrize(("variant", "other"), [("printed", "corrected"), ("corrected", "printed")])
def test_a_bound_is_judged_by_random_and_trained_networks_and_adversaries_of_its_own(variant, other):
    cases = [("random", "", 5), ("trained", "", 5), ("adversarial", variant, 5), ("adversarial", other, 0)]
    for kind, against, failed in cases:
        table = tabled(at(kind=kind, against=against, network=0, theorem="9", quantity="hessian", to={variant: 0.5}))
        row = table.loc["9", "hessian", kind]
        assert table[f"{variant}_violations"].sum() == row[f"{variant}_violations"] == failed
        assert (row[f"{variant}_smallest"] == 0.25) == bool(failed)


def test_the_tight_form_is_judged_by_the_adversaries_of_the_corrected_one():
    for against, expected in (("corrected", 5), ("printed", 0)):
        table = tabled(at(kind="adversarial", against=against, network=0, to={"tight": 0.5}))
        assert table.loc["8", "hessian", "adversarial"]["tight_violations"] == expected


@pytest.mark.parametrize(("share", "failed"), [(1.0, 0), (1 - 1e-10, 0), (1 - 1e-8, 10), (0.5, 10), (1 + 1e-12, 0)])
def test_a_bound_that_is_attained_up_to_rounding_is_not_violated(share, failed):
    change = at(kind="random", to={"printed": 2 * share})
    assert tabled(change).loc["8", "hessian", "random"]["printed_violations"] == failed
    own = with_ratios(networks(change)).query("theorem == '8' and quantity == 'hessian' and kind == 'random'")
    assert violations(own) == f"violated: printed {10 * bool(failed)} of 10, corrected 0 of 10"


def test_dead_networks_are_left_out_of_the_table():
    table = tabled(at(network=0, kind="trained", to={"measured": 0.0, "printed": 0.0, "corrected": 0.0, "tight": 0.0}))
    assert table.loc["8", "hessian", "trained"]["networks"] == 5
    assert table.loc["8", "hessian", "random"]["networks"] == 10
    assert table["printed_violations"].sum() == 0
    assert table["printed_smallest"].min() == 10


def verdicts(*given, **options) -> dict:
    return {verdict.claim: verdict for verdict in experiment().claims(results(*given, **options))}


CLAIMS = {
    f"Theorem {t}, {v}: a bound of {name}": (t, q, v)
    for t, (q, name), v in itertools.product(
        ("8", "9"), (("gauss_newton", "‖H_O‖"), ("hessian", "‖H‖")), ("printed", "corrected")
    )
}


UNPROVEN = "; that does not prove it, see experiment=theorems"


@pytest.mark.parametrize("claim", [None, *CLAIMS])
def test_one_violation_refutes_its_own_claim_and_no_other(claim):
    def change(row):
        hit = claim and (row["theorem"], row["quantity"]) == CLAIMS[claim][:2] and row["hidden_size"] == 16
        return {CLAIMS[claim][2]: 1.0} if hit and row["kind"] == "trained" and row["network"] == 1 else {}

    found = verdicts(change)
    assert list(found) == list(CLAIMS)
    for own, verdict in found.items():
        smallest = 0.5 if own == claim else 10 if "printed" in own else 4
        unviolated = INCONCLUSIVE if "printed" in own else REPRODUCED  # a search proves nothing
        assert verdict.verdict == (NOT_REPRODUCED if own == claim else unviolated)
        assert (verdict.effect, verdict.low, verdict.high) == (smallest, smallest, math.inf)
        note = UNPROVEN if verdict.verdict == INCONCLUSIVE else ""
        assert verdict.note == f"violated by {int(own == claim)} of 30 networks{note}"
        asked = ", asked of ‖H_O‖" if own.endswith("‖H_O‖") else ""
        assert verdict.source == (f"thesis, Theorem {own[8]}{asked}" if "printed" in own else "corrected form")


def test_a_claim_counts_the_networks_that_judged_it():
    own = Results((), (), {"networks": networks().query("kind != 'adversarial' or against == 'corrected'")}, {}, {}, "")
    found = {verdict.claim: verdict for verdict in experiment().claims(own)}
    assert found["Theorem 8, corrected: a bound of ‖H_O‖"].note == "violated by 0 of 30 networks"
    assert (
        found["Theorem 8, printed: a bound of ‖H_O‖"].note == f"violated by 0 of 20 networks{UNPROVEN}"
    )  # no adversary


def drawn(found, own=None) -> dict:
    with style():
        figures = {figure.name: figure for figure in (own or experiment()).figures(found)}
        for figure in figures.values():
            figure.drawing.draw_without_rendering()
    return figures


def test_there_is_a_figure_for_every_theorem_and_axis():
    figures = drawn(results())
    names = [f"bounds_test_theorem_{t}_{axis}" for t in ("8", "9") for axis in GRID]
    assert list(figures) == names
    wide = figures[names[0]]
    assert wide.drawing.get_suptitle().strip() == "Theorem 8 against exact norms, MNIST, at $L=3$"
    assert figures[names[3]].drawing.get_suptitle().strip() == "Theorem 9 against exact norms, MNIST, at $h=8$"
    assert wide.drawing.axes[3].get_xlabel() == "hidden size $h$"
    assert figures[names[1]].drawing.axes[3].get_xlabel() == "matrices $L$"
    assert "5 networks of each kind" in wide.note
    assert "7 steps of gradient ascent" in wide.note
    assert "Theorem 8" in wide.caption
    one = {"hidden_size": [4, 8]}
    (name, *others), figures = zip(*drawn(results(grid=one), experiment(one)).items(), strict=True)
    assert (name, others) == ("bounds_test_theorem_8", ["bounds_test_theorem_9"])
    assert "at" not in figures[0].drawing.get_suptitle().split()


def test_panels_are_quantities_by_kinds_with_the_counts_in_their_titles():
    bad = {"kind": "adversarial", "against": "printed", "theorem": "8", "num_layers": 1, "quantity": "hessian"}
    found = results(at(**bad, network=0, to={"printed": 1.0}))
    found.frames["networks"] = found.frames["networks"].query("quantity == 'hessian' or against != 'printed'")
    axes = drawn(found)["bounds_test_theorem_8_hidden_size"].drawing.axes
    assert [ax.get_title().split("\n")[0] for ax in axes] == [*KINDS, *KINDS]
    assert axes[0].get_ylabel() == r"bound / $\|H_O\|_2$"
    assert axes[3].get_ylabel() == r"bound / $\|H\|_2$"
    assert [ax.get_title().split("\n")[1] for ax in axes[:2]] == ["violated: printed 0 of 6, corrected 0 of 6"] * 2
    assert axes[2].get_title().split("\n")[1] == "violated: corrected 0 of 6"  # none sought the printed one
    assert axes[5].get_title().split("\n")[1] == "violated: printed 3 of 6, corrected 0 of 6"


def test_panels_show_medians_smallest_ratios_and_the_region_of_violations():
    low = at(kind="random", quantity="hessian", theorem="8", network=0, hidden_size=16, to={"printed": 0.2})
    figure = drawn(results(low, count=3))["bounds_test_theorem_8_hidden_size"]
    for ax in figure.drawing.axes:
        assert (ax.get_yscale(), ax.get_xscale()) == ("log", "log")
        (grey,) = [patch for patch in ax.patches if patch.get_facecolor() == to_rgba("0.88")]
        box = grey.get_extents().transformed(ax.transData.inverted())
        assert box.y1 == pytest.approx(1)
        assert box.y0 <= ax.get_ylim()[0] * (1 + 1e-9) < 1
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["4", "8", "16"]
    random = figure.drawing.axes[3].lines
    middles, marks = ([line.get_ydata() for line in random[start:6:2]] for start in (0, 1))
    np.testing.assert_allclose(middles, [[10] * 3, [4] * 3, [2] * 3])
    np.testing.assert_allclose(marks, [[10, 10, 0.1], [4] * 3, [2] * 3])
    assert figure.drawing.axes[3].get_ylim()[0] < 0.1
    looks = [
        (str(random[i]._unscaled_dash_pattern), random[i + 1].get_marker(), random[i].get_color()) for i in (0, 2, 4)
    ]
    assert all(len(set(column)) == 3 for column in zip(*looks, strict=True))
    legend = [text.get_text() for text in figure.drawing.legends[0].get_texts()]
    assert legend == ["as printed", "corrected", "corrected, own norms"]


def test_a_figure_along_one_axis_shows_networks_at_the_fixed_value_of_the_other():
    def change(row):
        return {"printed": 2.0 * 10 ** (row["num_layers"] + 1)}

    figures = drawn(results(change))
    np.testing.assert_allclose(figures["bounds_test_theorem_8_hidden_size"].drawing.axes[0].lines[0].get_ydata(), 100)
    deep = figures["bounds_test_theorem_8_num_layers"].drawing.axes[0]
    np.testing.assert_allclose(deep.lines[0].get_ydata(), [10, 100, 1000])
    assert deep.lines[0].get_xdata().tolist() == [2, 3, 4]  # all matrices, not the hidden layers between them
    assert [tick.get_text() for tick in deep.get_xticklabels()] == ["2", "3", "4"]
    assert deep.get_xscale() == "linear"


def test_an_axis_that_begins_at_zero_is_linear():
    grid = {"hidden_size": [0, 4, 16]}
    figure = drawn(results(grid=grid), experiment(grid))["bounds_test_theorem_8"]
    assert {ax.get_xscale() for ax in figure.drawing.axes} == {"linear"}
    assert figure.drawing.axes[0].lines[0].get_xdata().tolist() == [0, 4, 16]


def test_a_kind_whose_networks_are_all_dead_is_an_empty_panel():
    assert drawn(results(at(kind="trained", theorem="8", to={"measured": 0.0})))
