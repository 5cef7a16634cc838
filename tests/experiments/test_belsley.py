"""Table 4.1 against numpy, and Table 4.2 from the loaders."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.chapter4.belsley import FUNCTIONS, NOISE, BelsleyIllustration, BelsleyOptions, _cut
from experiments.chapter4.tables import PruningDatasets
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED, Point, Results
from landscape_cli.plotting.style import style

X = np.linspace(0, 20, 1001)
VALUES = np.stack([np.sin(X), np.cos(X), 2 + np.cos(X), 2 + np.sin(X), np.cos(X) + np.sin(X), X])
NAMES = ["sin x", "cos x", "2 + cos x", "2 + sin x", "cos x + sin x", "x"]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def illustrated(**options):
    """The experiment and its results with some options."""
    given = {"end": 20.0, "step": 0.02, "matrix": "correlation"} | options
    own = BelsleyIllustration(SimpleNamespace(measure=BelsleyOptions(**given)))
    point = Point.of({}, {"measure": given})
    found = own.measure(point, None)
    return own, Results((point,), (), found.frames, {}, {}, "paper")


def matrix_of(results):
    return results.frames["matrix"].pivot(index="row", columns="column", values="value").loc[NAMES, NAMES].to_numpy()


@pytest.mark.parametrize(("matrix", "by_numpy"), [("correlation", np.corrcoef), ("covariance", np.cov)])
def test_rows_that_are_no_noise_are_numpys(matrix, by_numpy):
    _, results = illustrated(matrix=matrix)
    known = by_numpy(VALUES)
    np.testing.assert_allclose(matrix_of(results), known, rtol=1e-12, atol=1e-14)
    u, singular, _ = np.linalg.svd(known)
    components = results.frames["components"].set_index("component")
    np.testing.assert_allclose(components["eigenvalue"][:3], singular[:3], rtol=1e-10)
    np.testing.assert_allclose(components["condition_index"][:3], singular[0] / singular[:3], rtol=1e-10)
    parts = u**2 / singular
    shares = results.frames["shares"].pivot(index="component", columns="parameter", values="share")[NAMES]
    own = (parts / parts.sum(axis=1, keepdims=True)).T
    # Of x alone: the others' sums are what rounding makes of eigenvalues that are zero.
    np.testing.assert_allclose(shares.loc[:3, "x"], own[:3, 5], rtol=1e-10)
    assert shares.loc[:3, "x"].sum() == pytest.approx(1, abs=1e-12)
    assert shares.loc[:3, NAMES[:5]].max(axis=None) < 1e-13
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-12)


def test_noise_is_marked():
    """Of the six functions three are independent, the constants apart."""
    own, results = illustrated()
    assert np.linalg.matrix_rank(np.corrcoef(VALUES)) == 3
    components = results.frames["components"]
    assert components["noise"].tolist() == [False] * 3 + [True] * 3
    assert components["eigenvalue"][3:].max() < 1e-13
    (table,) = own.tables(results)
    assert table.name == "table_4_1_belsley_illustration"
    assert table.frame["component"].tolist() == [*"123456", "null space"]
    assert (table.frame["what"] == NOISE).tolist() == [False] * 3 + [True] * 3 + [False]
    with style():
        (figure,) = own.figures(results)
        figure.drawing.draw_without_rendering()
    assert figure.name == "fig_4_1_belsley_illustration"
    left, right = figure.drawing.axes[:2]
    np.testing.assert_array_equal(left.images[0].get_array(), matrix_of(results))
    assert left.images[0].get_clim() == pytest.approx((-1, 1))
    assert [label.get_text() for label in right.get_xticklabels()] == list(FUNCTIONS.values())
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels[:3] == [r"$\eta_1=1.0$", r"$\eta_2=1.5$", r"$\eta_3=3.3$"]
    assert [label.endswith("noise") for label in labels] == [False] * 3 + [True] * 3 + [False]
    assert labels[6] == "null space"
    hatched = sorted(patch.get_y() for patch in right.patches if patch.get_hatch())
    assert hatched == [2.5, 3.5, 4.5]
    assert "rank 3" in figure.note


def null_space(scales):
    """Projection on what is written down at once: sin - (2 + sin), cos - (2 + cos), sin + cos - (cos + sin)."""
    dependent = np.array([[1, 0, 0, -1, 0, 0], [0, 1, -1, 0, 0, 0], [1, 1, 0, 0, -1, 0]], dtype=float)
    q, _ = np.linalg.qr((dependent * scales).T)
    return q @ q.T


@pytest.mark.parametrize("matrix", ["correlation", "covariance"])
def test_lengths_in_the_null_space(matrix):
    own, results = illustrated(matrix=matrix)
    projection = null_space(VALUES.std(axis=1) if matrix == "correlation" else np.ones(6))
    known = np.corrcoef(VALUES) if matrix == "correlation" else np.cov(VALUES)
    np.testing.assert_allclose(known @ projection, 0, atol=1e-12)
    np.testing.assert_allclose(np.eye(6) - np.linalg.pinv(known, rcond=1e-10) @ known, projection, atol=1e-10)
    parameters = results.frames["parameters"].set_index("parameter")
    assert parameters.index.tolist() == NAMES
    np.testing.assert_allclose(parameters["null_space"], projection.diagonal(), atol=1e-12)
    assert parameters["null_space"].sum() == pytest.approx(3, abs=1e-12)
    lengths = projection.diagonal()
    largest = NAMES[int(np.flatnonzero(lengths > lengths.max() - 1e-12)[0])]  # of equal ones the first
    assert parameters.index[parameters["removed_first"]].tolist() == [largest]
    (table,) = own.tables(results)
    last = table.frame.iloc[-1]
    assert [last[f"q_{k}"] for k in range(1, 7)] == [f"{parameters['null_space'].iloc[k]:.3g}" for k in range(6)]
    assert f"{largest} goes first" in table.caption


def test_the_printed_cells_agree_cut_off_and_the_last_row_says_other_than_printed():
    own, results = illustrated()
    known = np.corrcoef(VALUES)
    u, singular, _ = np.linalg.svd(known)
    parts = u[5] ** 2 / singular
    cells = [*(singular[0] / singular[:3]), *(parts / parts.sum())[:3]]
    printed = ["1.0", "1.5", "3.3", "3e-4", "3e-2", "9e-1"]
    steps = [0.1, 0.1, 0.1, 1e-4, 1e-2, 1e-1]
    for value, text, step in zip(cells, printed, steps, strict=True):
        assert float(text) - 1e-9 <= value < float(text) + step
    (table,) = own.tables(results)
    assert table.frame["published_eta"].tolist() == ["1.0", "1.5", "3.3", "2e15", "8e15", "1e16", "–"]
    assert table.frame["published_q_6"].tolist() == ["3e-4", "3e-2", "9e-1", "1e17", "2e17", "5e-21", "–"]
    agreement, largest = own.claims(results)
    assert (agreement.verdict, agreement.effect) == (REPRODUCED, 6)
    assert agreement.statistic.endswith("of 6")
    lengths = null_space(VALUES.std(axis=1)).diagonal()
    expected = (lengths[0] + lengths[3]) / 2 - lengths[[1, 2, 4]].max()
    assert expected < 0
    assert (largest.verdict, largest.effect) == (NOT_REPRODUCED, pytest.approx(expected, abs=1e-12))


def test_on_another_grid_nothing_is_compared_with_what_is_printed():
    own, results = illustrated(end=3.0)
    assert len(matrix_of(results)) == 6
    assert list(own.claims(results)) == []


@pytest.mark.parametrize(
    ("value", "text", "agrees"),
    [
        (1.0, "1.0", True),
        (1.0999, "1.0", True),
        (1.1001, "1.0", False),
        (0.999, "1.0", False),
        (1 - 1e-12, "1.0", True),  # rounding
        (3.99e-4, "3e-4", True),
        (4.01e-4, "3e-4", False),
        (2.99e-4, "3e-4", False),
        (0.99, "9e-1", True),
        (1.0, "9e-1", False),
        (1.9e16, "1e16", True),
        (2.1e16, "1e16", False),
        (0.0299, "0.02", True),
        (0.0301, "0.02", False),
        (178.9, "178", True),
        (179.1, "178", False),
    ],
)
def test_printed_digits_are_cut_off(value, text, agrees):
    assert _cut(value, text) is agrees


def found(*rows) -> Results:
    columns = ["name", "task", "objects", "features"]
    frame = pd.DataFrame(rows, columns=columns).assign(dataset="a", classes=0, target_variance=1.0, checksum="c" * 64)
    return Results((), (), {"tables": frame}, {}, {}, "paper")


def test_table_4_2_compares_cell_by_cell():
    results = found(
        ("Wine", "classification", 178, 13),
        ("Boston Housing", "regression", 500, 13),
        ("Synthetic data", "classification", 9, 9),
        ("A table", "regression", 20, 2),
    )
    own = PruningDatasets(SimpleNamespace())
    (table,) = own.tables(results)
    assert table.frame["published_task"].tolist() == ["classification", "regression", "regression", "–"]
    assert table.frame["published_objects"].tolist() == ["178", "506", "10000", "–"]
    assert table.frame["published_features"].tolist() == ["13", "13", "100", "–"]
    assert set(table.frame["checksum"]) == {"c" * 12}
    verdicts = [(verdict.verdict, verdict.effect) for verdict in own.claims(results)]
    assert verdicts == [(REPRODUCED, 3), (NOT_REPRODUCED, 2), (NOT_REPRODUCED, 0)]


def test_runs_write_both_tables(landscape, small, tmp_path):
    for name in ("belsley_illustration", "pruning_datasets"):
        finished = landscape("run", f"experiment={name}", *small)
        assert (finished.code, finished.err) == (0, "")
    (path,) = (tmp_path / "outputs" / "tables").glob("*/table_4_2_pruning_datasets.csv")
    table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("name")
    cells = ["task", "objects", "features", "classes"]
    assert table.loc["Wine", cells].tolist() == ["classification", "178", "13", "3"]
    assert table.loc["Synthetic data", cells].tolist() == ["regression", "10000", "100", "0"]
    assert float(table.loc["Wine", "target_variance"]) == pytest.approx(
        np.repeat([0, 1, 2], [59, 71, 48]).var(), rel=1e-12
    )
    for name in ("Wine", "Synthetic data"):
        ours, published = ([f"{before}{cell}" for cell in cells[:3]] for before in ("", "published_"))
        assert table.loc[name, ours].tolist() == table.loc[name, published].tolist()
    (path,) = (tmp_path / "outputs" / "tables").glob("*/table_4_1_belsley_illustration.csv")
    assert len(pd.read_csv(path)) == 7
