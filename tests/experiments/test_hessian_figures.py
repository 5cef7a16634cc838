"""Claims, tables and drawings of Figs 2.1 to 2.8 from results built by hand; what the parameter tensors are called."""

import itertools
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.chapter2.hessian_entries import HessianEntries, HessianEntriesOptions
from experiments.chapter2.tensors import FAMILIES, family, grouped, label, symbol
from landscape_cli.config import Config, DatasetConfig, TrainingConfig, TransformerConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Results
from landscape_cli.models import build_model
from landscape_cli.plotting.style import style
from landscape_cli.rng import generator

LABELS = ["patches", "Q", "K", "V", "O", "LN1", "W1", "W2", "LN2", "head"]
SIZES = dict(zip(LABELS, [2, 1, 1, 1, 1, 2, 2, 2, 2, 2], strict=True))  # parameters
P = sum(SIZES.values())
LAST = 300
GROWN = {"initial": 1.0, "trained": 5.0}
VALUES_LARGE, SPREAD, GROWS = "Values", "differ", "every block grows in magnitude by training"
KEYS_AND_VALUES = "Keys and Values have the largest Hessian norms, the other blocks much smaller ones"
ATTENTION = "trained: Values-Values has the largest entries of the attention part"
WHOLE = "trained: Values-Values has the largest entries of the whole Hessian"
INITIAL = "initial: the blocks of Values have larger entries"


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def experiment(**changes) -> HessianEntries:
    nodes = {
        "dataset": DatasetConfig("mnist"),
        "model": TransformerConfig(),
        "training": TrainingConfig(),
        "measure": HessianEntriesOptions(norm_steps=[0, 1, 100], entry_steps=[0, 10]),
    }
    return HessianEntries(Config(name="vit_hessian_mnist", title="", family="", seeds=3, **nodes | changes))


def tensor_names(**options) -> list[str]:
    model = build_model(asdict(TransformerConfig(**options)), (1, 8, 8), 10)
    return list(model.initialise([generator(0, "test")]))


NAMES = tensor_names()


def results(sizes=None, growth=None, norms=None, accuracy=0.9, spread=0.01, stored=True, points=None) -> Results:
    """Blocks of mean |entry| ``sizes[state, row, column]`` or 1, diagonal norms that grow by ``growth[label]`` or 5."""
    sizes, growth, norms = sizes or {}, growth or {}, norms or {}
    random = np.random.default_rng(0)
    frames = {"network": [], "norms": [], "blocks": [], "spans": []}
    points = experiment().points() if points is None else points
    for point in points:
        key = point.coordinates
        for state, step in (("initial", 0), ("trained", LAST)):
            reached = accuracy + random.normal(0, spread) if step else 0.1
            row = {"mean_loss": 1.0, "train_accuracy": 0.8, "test_accuracy": reached, "hessian_spectral": 1.5}
            frames["network"].append({**key, "step": step, "state": state, **row, "hessian_objects": 128})
            for a, b in itertools.combinations_with_replacement(LABELS, 2):
                size = sizes.get((state, a, b), 1.0) * np.exp(random.normal(0, spread))
                row = {"row": a, "column": b, "mean_abs": size, "max_abs": 3 * size, "frobenius": size, "zeros": 0.0}
                frames["blocks"].append({**key, "step": step, "state": state, **row})
        for name, step in itertools.product(NAMES, (0, 1, 100, LAST)):
            own = label(name, 1)
            noise = np.exp(random.normal(0, spread))
            frames["norms"].append(
                {
                    **key,
                    **{"step": step, "last": step == LAST, "tensor": name, "label": own, "weight_norm": 1.0},
                    **{"weight_frobenius": 2.0, "hessian_spectral": norms.get(own, 1.0) * noise, "residual": 0.0},
                    "hessian_frobenius": (growth.get(own, 5.0) if step == LAST else 1.0) * noise,
                    "frobenius_error": 0.0,
                }
            )
        ends = np.cumsum(list(SIZES.values()))
        for own, begin, end in zip(LABELS, [0, *ends[:-1]], ends, strict=True):
            frames["spans"].append({**key, "label": own, "begin": begin, "end": end})
    arrays = {point: entries() if point.settings["measure"]["entries"] and stored else {} for point in points}
    frames = {name: pd.DataFrame(rows) for name, rows in frames.items()}
    sources = {"mnist": SimpleNamespace(title="MNIST")}
    return Results(tuple(points), (), frames, arrays, sources, "paper")


def entries() -> dict[str, np.ndarray]:
    random, found = np.random.default_rng(1), {}
    for step in (0, 10, LAST):
        found[f"whole_{step}"] = random.normal(size=(P, P)) * (1 + step)
        found[f"attention_{step}"] = random.normal(size=(3, 3)) * (1 + step)
        for what in FAMILIES:
            found[f"{what}_{step}"] = random.normal(size=(4, 4))
            found[f"{what}_weights_{step}"] = random.normal(size=(2, 2))
    found["whole_0"][0, 5] = 0
    return found


def verdicts(found) -> dict[str, str]:
    return {verdict.claim: verdict.verdict for verdict in experiment().claims(found)}


def with_values(state, factor, partners=("V",)) -> dict:
    """Blocks of Values with the partners `factor` times as large."""
    return {(state, *sorted(("V", other), key=LABELS.index)): factor for other in partners}


def test_all_that_chapter_2_says_is_tested_and_its_sentences_may_contradict_each_other():
    claims = list(verdicts(results()))
    assert claims == [
        "the trained model has more than 50 % validation accuracy",
        "initial: the magnitudes differ between blocks",
        "trained: the magnitudes differ between blocks",
        INITIAL,
        ATTENTION,
        WHOLE,
        GROWS,
        KEYS_AND_VALUES,
    ]


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.9, REPRODUCED), (0.3, NOT_REPRODUCED), (0.5, INCONCLUSIVE)])
def test_accuracy_is_compared_with_a_half(accuracy, verdict):
    assert verdicts(results(accuracy=accuracy))["the trained model has more than 50 % validation accuracy"] == verdict


@pytest.mark.parametrize(("factor", "verdict"), [(30, REPRODUCED), (3, NOT_REPRODUCED)])
@pytest.mark.parametrize("state", ["initial", "trained"])
def test_magnitudes_differ_if_they_differ_by_a_power_of_ten(state, factor, verdict):
    found = verdicts(results({(state, "W1", "head"): factor}))
    assert found[f"{state}: the magnitudes differ between blocks"] == verdict
    other = "trained" if state == "initial" else "initial"
    assert found[f"{other}: the magnitudes differ between blocks"] == NOT_REPRODUCED


def test_blocks_of_exact_zeros_do_not_make_the_magnitudes_differ():
    found = verdicts(results({("initial", "W1", "head"): 0.0}))
    assert found["initial: the magnitudes differ between blocks"] == NOT_REPRODUCED


@pytest.mark.parametrize(("factor", "verdict"), [(4, REPRODUCED), (0.25, NOT_REPRODUCED)])
def test_initial_entries_of_values_are_compared_with_the_rest_of_the_attention(factor, verdict):
    """The blocks of Values are those with Queries and Keys too; entries outside of the attention do not count."""
    sizes = with_values("initial", factor, ("Q", "K", "V")) | {("initial", "head", "head"): 1e6}
    assert verdicts(results(sizes))[INITIAL] == verdict


@pytest.mark.parametrize(
    ("sizes", "attention", "whole"),
    [
        ({("trained", "V", "V"): 4}, REPRODUCED, REPRODUCED),
        ({("trained", "V", "V"): 4, ("trained", "patches", "head"): 9}, REPRODUCED, NOT_REPRODUCED),
        ({("trained", "V", "V"): 4, ("trained", "Q", "K"): 9}, NOT_REPRODUCED, NOT_REPRODUCED),
        ({("trained", "V", "V"): 4, ("trained", "K", "V"): 9}, NOT_REPRODUCED, NOT_REPRODUCED),
        ({("initial", "V", "V"): 4, ("trained", "V", "V"): 0.5}, NOT_REPRODUCED, NOT_REPRODUCED),
    ],
)
def test_trained_values_are_compared_within_the_attention_and_within_everything(sizes, attention, whole):
    found = verdicts(results(sizes))
    assert (found[ATTENTION], found[WHOLE]) == (attention, whole)


def test_the_largest_other_block_is_named():
    sizes = {("trained", "V", "V"): 4, ("trained", "patches", "head"): 9}
    note = next(v.note for v in experiment().claims(results(sizes)) if v.claim == WHOLE)
    assert "largest other block: patches-head (3 of 3 seeds)" in note
    assert "the single largest entry lies in patches-head (3 of 3 seeds)" in note


def test_every_block_grows_only_if_the_least_of_them_does():
    assert verdicts(results())[GROWS] == REPRODUCED
    shrunk = results(growth={"W2": 0.5})
    assert verdicts(shrunk)[GROWS] == NOT_REPRODUCED
    (verdict,) = [v for v in experiment().claims(shrunk) if v.claim == GROWS]
    assert verdict.effect == pytest.approx(np.log10(0.5), abs=0.02)
    assert verdict.note == "least: blocks.0.ffn.linear2.weight"


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [
        ({"K": 4, "V": 9}, REPRODUCED),
        ({"K": 4, "V": 9, "head": 6}, NOT_REPRODUCED),
        ({"K": 0.5, "V": 9}, NOT_REPRODUCED),
        ({"Q": 9}, NOT_REPRODUCED),
    ],
)
def test_both_keys_and_values_must_have_the_largest_norms(norms, verdict):
    assert verdicts(results(norms=norms))[KEYS_AND_VALUES] == verdict


def test_norms_after_the_drawn_steps_are_not_judged():
    found = results(norms={"K": 4, "V": 9})
    norms = found.frames["norms"]
    norms.loc[norms["step"] > 100, "hessian_spectral"] = 1.0
    assert verdicts(found)[KEYS_AND_VALUES] == REPRODUCED


def test_one_seed_is_inconclusive():
    found = results({("trained", "V", "V"): 4}, points=experiment().points()[:1])
    assert set(verdicts(found).values()) == {INCONCLUSIVE}


def test_tables_are_means_over_seeds():
    norms, steps, blocks = experiment().tables(results({("trained", "Q", "K"): 7.0}, spread=0))
    assert (norms.name, blocks.name) == ("block_norms_vit_hessian_mnist", "block_entries_vit_hessian_mnist")
    assert len(norms.frame) == 2 * len(NAMES)
    assert (steps.name, len(steps.frame)) == ("block_norms_by_step_vit_hessian_mnist", 4 * len(NAMES))
    assert norms.frame.groupby("state")["hessian_frobenius"].unique().to_dict() == {"initial": [1.0], "trained": [5.0]}
    own = blocks.frame.set_index(["state", "row", "column"])
    assert own.loc[("trained", "Q", "K"), "mean_abs"] == 7
    assert len(own) == 2 * 55


def drawn(found) -> dict:
    with style():
        figures = {figure.name: figure for figure in experiment().figures(found)}
        for figure in figures.values():
            figure.drawing.draw_without_rendering()
    return figures


def test_figures_have_their_names_titles_and_notes():
    figures = drawn(results(spread=0))
    assert list(figures) == [
        "fig_2_1_hessian_initial",
        "fig_2_2_hessian_trained",
        "fig_2_3_block_norms",
        "fig_2_4_entries_queries",
        "fig_2_5_entries_keys",
        "fig_2_6_entries_values",
        "fig_2_7_entries_layer_norm",
        "fig_2_8_entries_feed_forward",
    ]
    titles = [figures[name].drawing.get_suptitle() for name in list(figures)[:2]]
    assert titles[0].startswith("MNIST, initialised: test accuracy 10.0%")
    assert titles[1].startswith("MNIST, after 300 steps: test accuracy 90.0%")
    for name, figure in figures.items():
        assert "Exact Hessian of the mean cross-entropy on the first 128 train objects." in figure.note
        assert "Trained: test accuracy 90.0% to 90.0%." in figure.note
        assert ("Seed 0." in figure.note) is (name != "fig_2_3_block_norms")
        assert figure.caption


def test_both_whole_hessians_share_one_colour_scale():
    figures = drawn(results())
    limits = set()
    for name in ("fig_2_1_hessian_initial", "fig_2_2_hessian_trained"):
        left, right, bar = figures[name].drawing.axes
        limits |= {image.get_clim() for ax in (left, right) for image in ax.images}
        assert "H_{ij}" in bar.get_ylabel()
        assert [text.get_text() for text in left.get_xticklabels()] == LABELS
        assert [text.get_text() for text in right.get_yticklabels()] == ["Q", "K", "V"]
        assert "P=16" in left.get_title()
    assert len(limits) == 1
    ((low, high),) = limits
    largest = max(np.abs(entries()[f"{what}_{LAST}"]).max() for what in ("whole", "attention"))
    assert high == pytest.approx(np.log10(largest))
    assert low < high


def test_of_a_shrunk_hessian_the_blocks_are_where_they_belong():
    found = results()
    own = found.arrays[found.points[0]]
    own |= {f"whole_{step}": np.ones((P // 2, P // 2)) for step in (0, 10, LAST)}
    left = drawn(found)["fig_2_1_hessian_initial"].drawing.axes[0]
    ends = np.cumsum(list(SIZES.values())) / 2
    middles = (ends + np.array([0, *ends[:-1]])) / 2 - 0.5
    np.testing.assert_allclose(left.get_xticks(), middles)


def test_entries_are_drawn_at_every_stored_step_with_colour_bars():
    figure = drawn(results())["fig_2_7_entries_layer_norm"]
    axes = figure.drawing.axes
    assert [ax.get_title() for ax in axes[:3]] == ["initial", "10 steps", "300 steps"]
    assert [ax.get_ylabel() for ax in axes[-2:]] == ["entry", r"$\log_{10}|H_{ij}|$"]
    assert figure.drawing.get_suptitle() == "MNIST: LayerNorm"
    for row in (axes[:3], axes[3:6]):
        assert len({ax.images[0].get_clim() for ax in row}) == 1
    np.testing.assert_array_equal(axes[1].images[0].get_array(), entries()["layer_norm_weights_10"])


def test_norms_are_drawn_for_every_tensor_up_to_the_last_asked_step():
    left, right = drawn(results(norms={"V": 9.0}, spread=0))["fig_2_3_block_norms"].drawing.axes
    assert (left.get_yscale(), right.get_yscale(), right.get_xscale()) == ("log", "log", "symlog")
    curves = [line for line in right.lines if len(line.get_xdata()) == 3]
    assert len(curves) == len(NAMES)
    assert all(line.get_xdata().tolist() == [0, 1, 100] for line in curves)
    assert sorted(line.get_ydata()[-1] for line in curves) == [1.0] * (len(NAMES) - 1) + [9.0]
    texts = {text.get_text() for text in left.texts}
    assert {"Q", "K", "V", "O", "patches", "head", r"LN1 $\gamma$", r"LN2 $\beta$"} <= texts


@pytest.mark.parametrize("points", [slice(1, 3), slice(0, 3)])
def test_without_stored_entries_only_the_norms_are_drawn(points):
    found = results(stored=False, points=experiment().points()[points])
    assert list(drawn(found)) == ["fig_2_3_block_norms"]


def test_symbols_of_all_parameters():
    assert [symbol(name) for name in NAMES] == [
        *("patches", "Q", "K", "V", "O", "LN1", "LN1", "W1", "W2", "LN2", "LN2", "head")
    ]
    options = {"bias": True, "class_token": True, "positions": True, "pre_norm": True}
    more = [symbol(name) for name in tensor_names(num_layers=2, **options)]
    assert set(more) == {*LABELS, "class", "positions", "LN"}


def test_labels_number_the_blocks_where_there_are_several():
    assert list(grouped(NAMES, 1)) == LABELS
    names = tensor_names(num_layers=2, bias=True)
    groups = grouped(names, 2)
    inner = ("Q", "K", "V", "O", "LN1", "W1", "W2", "LN2")
    assert list(groups) == ["patches", *(f"{part}.{i}" for i in (1, 2) for part in inner), "head"]
    assert groups["V.2"] == ["blocks.1.attention.value.weight", "blocks.1.attention.value.bias"]
    assert [name for group in groups.values() for name in group] == names  # neighbours


def test_families_are_those_of_the_first_block():
    assert family(NAMES, "layer_norm") == [f"blocks.0.norm{i}.{part}" for i in (1, 2) for part in ("weight", "bias")]
    assert family(NAMES, "keys") == ["blocks.0.attention.key.weight"]
    names = tensor_names(num_layers=11, bias=True, pre_norm=True)
    assert family(names, "feed_forward") == [
        f"blocks.0.ffn.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")
    ]
    assert family(names, "queries") == [f"blocks.0.attention.query.{part}" for part in ("weight", "bias")]
    assert len(family(names, "layer_norm")) == 4
