"""All theorems in one table: every group run once at its smallest, the known counterexamples, figure and files."""

import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from experiments.beyond import trials
from experiments.beyond.statements import COUNTEREXAMPLES, SEQUENCES, STATEMENTS
from experiments.beyond.theorems import GROUPS, SYMBOLS, Theorems, TheoremsOptions, tried, verdicts
from landscape_cli.bounds import chains
from landscape_cli.config import Config
from landscape_cli.curvature.chain import Chain, object_norms
from landscape_cli.experiment import Context, Results
from landscape_cli.plotting.output import save_table
from landscape_cli.plotting.style import style

IDENTITIES, LIMITS = ("10", "18", "19", "20", "21", "24", "25"), ("27", "28", "29", "30")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment() -> Theorems:
    measure = TheoremsOptions(networks=2, ascent_steps=2, train_steps=2, identities=1)
    return Theorems(Config(name="theorems_test", title="", family="", measure=measure, seeds=1))


def found(frames) -> Results:
    return Results(tuple(experiment().points()), (), frames, {}, {}, "paper")


def measured() -> dict:
    own, parts = experiment(), {}
    context = Context(torch.device("cpu"), None, lambda: None, lambda iterable, **_: iterable)
    for point in own.points():
        for name, frame in own.measure(point, context).frames.items():
            parts.setdefault(name, []).append(frame.assign(group=point.coordinates["group"]))
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}


@pytest.fixture(scope="module")
def frames():
    return measured()


@pytest.fixture(scope="module")
def table(frames):
    return verdicts(found(frames))


def test_every_theorem_is_stated_and_judged(table, frames):
    stated = [statement.theorem for statement in STATEMENTS]
    assert stated == [str(n) for n in range(4, 31)]
    assert {s.theorem for s in STATEMENTS if s.kind == "Lemma"} == {"21", "22", "23"}
    assert table.drop_duplicates("theorem")["kind"].tolist() == [s.kind for s in STATEMENTS]
    for claim in experiment().claims(found(frames)):
        assert re.match(r"(Lemma 2[123]|Theorem (?!2[123])\d+), ", claim.claim)
        assert claim.source == f"thesis, {claim.claim.partition(',')[0]}"
    assert table["theorem"].unique().tolist() == stated
    assert table["verdict"].str.match("fails|holds").all()
    assert not table.duplicated(["theorem", "quantity"]).any()
    assert (table["corrected_violations"] == 0).all()
    assert set(table.loc[table["quantity"] == "identity", "theorem"]) == set(IDENTITIES)
    assert set(table.loc[table["quantity"] == "limit", "theorem"]) == set(LIMITS)
    bounds = table[~table["quantity"].isin(("identity", "limit"))]
    numbers = bounds[["printed_smallest", "printed_median", "corrected_smallest"]]
    assert (np.isfinite(numbers) & (numbers > 0)).all().all()
    assert (bounds["corrected_smallest"] >= 1 - 1e-9).all()


def test_what_is_known_to_fail_fails_and_the_rest_holds(table):
    failing = set(table.loc[table["verdict"].str.startswith("fails"), "theorem"])
    assert failing == {s.theorem for s in STATEMENTS} - {"10", "18", "20", "22", "30"}
    blocks = table[table["theorem"] == "26"].set_index("quantity")["verdict"]
    assert blocks["‖H‖"].startswith("holds")
    assert blocks["‖∂²Z‖"].startswith("fails")
    parts = table[table["quantity"] == "‖H_O‖"].set_index("theorem")["verdict"]
    assert parts[["11", "12", "13", "14", "15"]].str.startswith("holds").all()


def test_each_group_measures_its_own_theorems(frames):
    own = frames["networks"].groupby("group")["theorem"].unique().map(set)
    assert own["connected"] == {"8", "9", "11"}
    assert own["convolutional"] == {"12", "13", "16"}
    assert (own["pooled"], own["attention"], own["block"]) == ({"14", "15"}, {"17"}, {"26"})
    assert (own["norms"], own["losses"]) == ({"22", "23"}, {"4", "5", "6", "7"})
    assert (frames["identities"]["error"] < 1e-12).all()
    assert set(frames["identities"]["theorem"]) == set(IDENTITIES)
    assert [point.coordinates["group"] for point in experiment().points()] == list(GROUPS)


def test_measuring_again_gives_the_same(frames):
    again = measured()
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(again[name], frame)


@pytest.mark.parametrize("example", COUNTEREXAMPLES, ids=lambda c: f"{c.theorem}-{c.quantity}")
def test_counterexamples_violate_what_is_printed_by_the_digits_of_their_text(example, frames):
    values = example.values()
    assert values["printed"] < 0.99 * values["measured"]
    assert values["measured"] <= values["corrected"] * (1 + 1e-9)
    symbol, exact, printed = re.search(r"(‖[^‖]+‖) = (\S+), printed (\S+)$", example.text).groups()
    assert symbol == ("‖∂²Z/∂W_V²‖" if example.quantity == "network" else SYMBOLS[example.quantity])
    for text, value in ((exact, values["measured"]), (printed, values["printed"])):
        digits = len(re.sub(r"e.*|\.", "", text).lstrip("0"))
        assert float(f"{value:.{digits - 1}e}") == float(text)
    known = frames["counterexamples"]
    row = known[(known["theorem"] == example.theorem) & (known["quantity"] == example.quantity)].iloc[0]
    assert row["group"] == example.group
    assert row[["measured", "printed", "corrected"]].to_dict() == pytest.approx(values)


def test_counterexamples_are_shown_where_a_theorem_fails(table):
    shown = table[table["counterexample"] != ""]
    assert shown["verdict"].str.startswith("fails").all()
    limits = shown["quantity"] == "limit"
    assert shown[limits].set_index("theorem")["counterexample"].to_dict() == SEQUENCES
    for theorem, own in shown[~limits].groupby("theorem"):
        assert set(own["counterexample"]) <= {c.text for c in COUNTEREXAMPLES if c.theorem == theorem}
    assert set(shown.loc[~limits, "theorem"]) == {c.theorem for c in COUNTEREXAMPLES}


def test_counterexamples_are_about_the_quantity_of_their_row(table):
    for row in table[table["counterexample"] != ""].itertuples():
        named = {"‖∂²Z‖": "‖∂²Z/∂W_V²‖ = ", "limit": {"27": "M(k)", "28": "KL(k)", "29": "S(k)"}.get(row.theorem)}
        assert named.get(row.quantity, f"{row.quantity} = ") in row.counterexample, (row.theorem, row.quantity)


def test_sequences_end_where_their_counterexamples_say(frames):
    for theorem, value in frames["sequences"].set_index("theorem").loc[list(SEQUENCES), "value"].items():
        assert value == pytest.approx(float(SEQUENCES[theorem].split()[-1]), abs=1e-3)
    assert trials.sequences(0).equals(trials.sequences(0))
    assert not trials.sequences(0).equals(trials.sequences(1))


def test_networks_are_counted_that_judged_the_corrected_bound(table, frames):
    networks = frames["networks"]
    own = networks[networks["against"].isin(("", "corrected")) & (networks["measured"] > 0)]
    counts = own.groupby(["theorem", "quantity", "kind"]).size()
    assert set(networks["kind"]) == {"random", "trained", "adversarial"}
    for (theorem, quantity, kind), count in counts.items():
        row = table[(table["theorem"] == theorem) & (table["quantity"] == SYMBOLS[quantity])].iloc[0]
        assert row[kind] == count
    assert table[["random", "trained", "adversarial"]].to_numpy().sum() == counts.sum()


def test_quadratic_losses_have_a_minimum_and_theorem_7_has_no_two_before_its_hessian(monkeypatch):
    asked, formula, seen, norm = [], chains.loss_difference, [], torch.linalg.matrix_norm
    monkeypatch.setattr(torch.linalg, "matrix_norm", lambda matrix, p: seen.append(matrix) or norm(matrix, p))
    monkeypatch.setattr(chains, "loss_difference", lambda *given: asked.append(given) or formula(*given))
    own = trials.loss_differences(50, torch.Generator().manual_seed(0)).set_index("theorem")
    assert (torch.linalg.eigvalsh(seen[0]) > -1e-9 * norm(seen[0], 2)[..., None]).all()
    k, loss, hessian, radius = asked[0][:4]
    for theorem, two in {"4": 2, "5": 2, "6": 2, "7": 1}.items():
        printed = (2 * loss + two * hessian * radius**2) / (k + 1)
        np.testing.assert_allclose(own.loc[theorem, "printed"], printed)
        np.testing.assert_allclose(own.loc[theorem, "corrected"], (loss + hessian * radius**2) / (k + 1))


def test_the_counterexample_to_theorem_16_counts_for_the_whole_hessian(frames):
    bodies = [nn.Conv2d(2, 2, 2, bias=False, dtype=torch.float64) for _ in range(2)]
    head = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    for module, value in zip([*bodies, head], (1.0, 1.0, 0.01), strict=True):
        module.weight.data.fill_(value)
    net = nn.Sequential(bodies[0], nn.ReLU(), bodies[1], nn.ReLU(), nn.Flatten(), head)
    chain, x = Chain.of(net, (2, 3, 3)), torch.ones(18, dtype=torch.float64)
    norm = object_norms(chain, chain.weights(net), x, torch.tensor(0))[1].item()
    assert norm > 2 * 1690
    row = tried(found(frames)).set_index(["theorem", "quantity"]).loc[("16", "hessian")]
    assert row["printed_violations"] > 0


def drawn(frames):
    with style():
        (figure,) = experiment().figures(found(frames))
        figure.drawing.draw_without_rendering()
    return figure


def test_the_figure_has_a_row_a_bound_and_a_grey_region_of_violations(frames, table):
    figure = drawn(frames)
    (ax,) = figure.drawing.axes
    bounds = table[~table["quantity"].isin(("identity", "limit"))]
    assert figure.name == "theorems_test"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        f"{r.theorem}: {r.quantity}" for r in bounds.itertuples()
    ]
    height = np.arange(len(bounds))[::-1]
    columns = ("printed_smallest", "corrected_smallest", "printed_median")
    for line, column in zip(ax.lines, columns, strict=False):
        np.testing.assert_allclose(line.get_xydata(), np.stack([bounds[column], height], axis=1))
        assert ax.get_xlim()[0] < bounds[column].min() <= bounds[column].max() < ax.get_xlim()[1]
    assert len({line.get_marker() for line in ax.lines[:3]}) == 3
    box = ax.patches[0].get_window_extent()
    assert box.x1 == pytest.approx(ax.transData.transform((1, 0))[0])
    assert box.x0 <= ax.transAxes.transform((0, 0))[0] + 1
    assert (ax.get_xscale(), "2 random" in figure.note) == ("log", True)


def test_a_run_whose_groups_with_bounds_are_missing_has_no_figure(frames):
    assert list(experiment().figures(found({"identities": frames["identities"]}))) == []


@pytest.fixture
def folder(landscape) -> Path:
    finished = landscape("run", "experiment=theorems", "profile=smoke", "plot.formats=[png]", "plot.dpi=50")
    assert finished.code == 0, finished.err
    return Path(os.environ["LANDSCAPE_OUTPUTS"]) / "tables" / "smoke"


def test_the_table_is_written_whole_as_markdown_and_latex(folder):
    frame = pd.read_csv(folder / "theorems.csv", dtype=str)
    assert frame["theorem"].nunique() == len(STATEMENTS)
    assert "|L_{k+1} - L_k|" in frame["statement"][0]
    lines = [line for line in (folder / "theorems.md").read_text("utf-8").splitlines() if line.startswith("|")]
    assert len(lines) == len(frame) + 2
    for line, row in zip([lines[0], *lines[2:]], [frame.columns, *frame.to_numpy()], strict=True):
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        assert len(cells) == len(frame.columns)
        assert (cells[0], cells[1], cells[-1]) == (row[0], row[1], row[-1])
    body = (folder / "theorems.tex").read_text("utf-8").partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip()
    rows = body.splitlines()
    assert len(rows) == len(frame)
    for row in rows:
        assert row.endswith(r"\\")
        assert len(re.findall(r"(?<!\\)&", row)) == len(frame.columns) - 1
        assert not re.search(r"(?<!\\)[_%#$]", re.sub(r"\$[^$]*\$", "", row))
    assert (folder / "claims_theorems.md").is_file()


def test_the_latex_table_has_no_sign_that_latex_does_not_know(frames, tmp_path):
    (table,) = experiment().tables(found(frames))
    (written,) = (path for path in save_table(table, tmp_path, "") if path.suffix == ".tex")
    assert written.read_text("utf-8").isascii()
