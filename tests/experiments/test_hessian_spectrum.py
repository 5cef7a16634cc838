"""Spectra of H, H_O and H - H_O: against dense matrices by autograd in float64, and from frames built by hand."""

import itertools
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from experiments.beyond.hessian_spectrum import PARTS, HessianSpectrum, SpectrumOptions
from landscape_cli.config import Config, DatasetConfig, MLPConfig, TrainingConfig
from landscape_cli.experiment import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Context, Results
from landscape_cli.models import build_model
from landscape_cli.plotting.style import style
from landscape_cli.training import fit

OBJECTS, USED, TOP, CLASSES, MODEL = 24, 10, 6, 4, MLPConfig(hidden_size=5, num_layers=1)
TRAINING = TrainingConfig(epochs=4, batch_size=8, learning_rate=0.02)
OPTIONS = SpectrumOptions(hessian_objects=USED, eigenvalues=TOP, probes=64, steps=50, tolerance=1e-4)
STATES = ("initial", "trained")


def experiment(**changes) -> HessianSpectrum:
    nodes = {"dataset": DatasetConfig("mnist"), "model": MODEL, "training": TRAINING, "measure": OPTIONS, "seeds": 3}
    return HessianSpectrum(Config(name="hessian_spectrum_test", title="", family="", **nodes | changes))


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(OBJECTS, 1, 3, 3, generator=draw), torch.randint(CLASSES, (OBJECTS,), generator=draw)
    return SimpleNamespace(x_train=x, y_train=y, shape=(1, 3, 3), source=SimpleNamespace(classes=CLASSES))


def measured(data, **changes):
    point = experiment(**changes).points()[1]
    context = Context(torch.device("cpu"), data.source, lambda: data, lambda iterable, **_: iterable)
    return experiment(**changes).measure(point, context).frames


@pytest.fixture(scope="module")
def frames(data):
    return measured(data)


@pytest.fixture(scope="module")
def nets(data):
    model, kept = build_model(asdict(MODEL), data.shape, CLASSES), {}

    def watch(step, parameters):
        double = {name: tensor.double() for name, tensor in parameters.items()}
        kept["trained" if step else "initial"] = model.module(double, 0)

    given = {"seeds": [1], "stream": experiment().points()[1].stream, "watch": watch}
    fit(model, data.x_train, data.y_train, **given, **asdict(TRAINING))
    return kept


@pytest.fixture(scope="module")
def matrices(nets, data):
    """State and part -> the dense matrix."""
    x, y, found = data.x_train[:USED].double(), data.y_train[:USED], {}
    for state, net in nets.items():
        names, tensors = zip(*net.named_parameters(), strict=True)
        sizes = [tensor.numel() for tensor in tensors]

        def outputs(vector, net=net, names=names, tensors=tensors, sizes=sizes):
            pieces = zip(names, vector.split(sizes), tensors, strict=True)
            return functional_call(net, {n: part.view_as(t) for n, part, t in pieces}, (x,))

        start = torch.nn.utils.parameters_to_vector(tensors).detach()
        p = outputs(start).softmax(dim=1).detach()
        jacobian = torch.autograd.functional.jacobian(outputs, start)
        hessian = torch.autograd.functional.hessian(lambda v, own=outputs: cross_entropy(own(v), y), start)
        curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        own = (jacobian.mT @ curvature @ jacobian).mean(dim=0)
        found |= {(state, "hessian"): hessian, (state, "gauss_newton"): own, (state, "rest"): hessian - own}
    return {key: matrix.numpy() for key, matrix in found.items()}


@pytest.fixture(params=list(itertools.product(STATES, PARTS)), ids="-".join)
def case(request, matrices, frames):
    state, part = request.param
    parts = {name: frame for name, frame in frames.items() if "part" in frame}
    own = {name: frame[(frame["state"] == state) & (frame["part"] == part)] for name, frame in parts.items()}
    row = frames["summary"].set_index("state").loc[state]
    return SimpleNamespace(part=part, exact=np.linalg.eigvalsh(matrices[request.param]), own=own, row=row)


def test_norms_are_those_of_the_dense_matrices(case):
    norm = np.abs(case.exact).max()
    assert case.row[f"{case.part}_norm"] == pytest.approx(norm, rel=1e-4)
    assert 0 <= case.row[f"{case.part}_residual"] <= 1e-4 * norm


def test_largest_eigenvalues_are_those_of_the_dense_matrices(case):
    own = case.own["eigenvalues"]
    ranks = [] if case.part == "rest" else list(range(1, TOP + 1))
    assert own["rank"].tolist() == ranks
    np.testing.assert_allclose(own["value"], case.exact[::-1][: len(ranks)], rtol=1e-3, atol=1e-4 * case.exact[-1])


def test_ritz_values_lie_in_the_spectrum_and_their_weights_sum_to_one(case):
    nodes = case.own["nodes"]
    rounding = 1e-5 * np.abs(case.exact).max()  # of float32
    assert nodes["weight"].sum() == pytest.approx(1, abs=1e-9)
    assert nodes["weight"].min() >= 0
    assert case.exact[0] - rounding <= nodes["node"].min()
    assert nodes["node"].max() <= case.exact[-1] + rounding


def test_densities_integrate_to_one_on_a_grid_that_holds_the_spectrum(case):
    curve = case.own["density"]
    assert curve["eigenvalue"].min() < case.exact[0]
    assert curve["eigenvalue"].max() > case.exact[-1]
    assert np.trapezoid(curve["density"], curve["eigenvalue"]) == pytest.approx(1, abs=5e-3)


def test_densities_are_those_of_the_smoothed_eigenvalues(case):
    curve = case.own["density"]
    x = curve["eigenvalue"].to_numpy()
    width = np.ptp(x) / 150
    exact = np.exp(-0.5 * ((x[:, None] - case.exact) / width) ** 2).mean(axis=1) / (width * np.sqrt(2 * np.pi))
    assert np.trapezoid(np.abs(curve["density"] - exact), x) < 0.1
    bulk = exact > 0.05 * exact.max()
    assert (np.abs(curve["density"] - exact) < 5 * curve["standard_error"])[bulk].all()


def test_summaries_hold_accuracies_of_the_whole_train_set(frames, nets, data):
    for row in frames["summary"].itertuples():
        right = nets[row.state](data.x_train.double()).argmax(1) == data.y_train
        assert row.train_accuracy == pytest.approx(right.double().mean().item())
        assert (row.parameters, row.hessian_objects) == (90, USED)


def test_no_more_eigenvalues_than_parameters_and_objects_than_there_are(data):
    many = SpectrumOptions(hessian_objects=1000, eigenvalues=1000, probes=2, steps=1000)
    found = measured(data, model=MLPConfig(hidden_size=2, num_layers=0), measure=many)
    assert found["eigenvalues"].groupby(["state", "part"])["rank"].max().unique().tolist() == [2 * 9 + 2 * CLASSES]
    assert (found["summary"]["hessian_objects"] == OBJECTS).all()


USUAL = {"rest": 0.02, "shift": 0.02, "bulk": 0.95, "last": 1.0}


def results(state="trained", **changes) -> Results:
    """What `state` has changes (a tuple: by seed). ‖H‖ = 10; for four classes the outliers are 10, 5.5 and 1."""
    found = {name: [] for name in ("summary", "eigenvalues", "nodes", "density")}
    for seed, own in itertools.product(range(3), STATES):
        key = {"dataset": "mnist", "seed": seed, "state": own}
        changed = {name: value[seed] if isinstance(value, tuple) else value for name, value in changes.items()}
        now = USUAL | (changed if own == state else {})
        norms = {"hessian_norm": 10.0, "gauss_newton_norm": 10.0, "rest_norm": now["rest"] * 10}
        row = {"parameters": 90, "hessian_objects": 1000, "train_accuracy": 0.9 if own == "trained" else 0.1}
        found["summary"].append({**key, **row, **norms})
        for rank, value in enumerate((10.0, 5.5, now["last"], 1e-3), start=1):
            other = {"hessian": value, "gauss_newton": value * (1 - now["shift"])}
            found["eigenvalues"] += [{**key, "part": p, "rank": rank, "value": v} for p, v in other.items()]
        for part in PARTS:
            weights = {0.4: now["bulk"], 0.6: 1 - now["bulk"]}
            found["nodes"] += [{**key, "part": part, "node": n, "weight": w} for n, w in weights.items()]
            x, look = np.linspace(-1, 11, 50), {"density": 0.1, "standard_error": 0.01}
            found["density"] += [{**key, "part": part, "eigenvalue": e, **look} for e in x]
    frames = {name: pd.DataFrame(rows) for name, rows in found.items()}
    sources = {"mnist": SimpleNamespace(title="MNIST", classes=CLASSES)}
    return Results(tuple(experiment().points()), (), frames, {}, sources, "paper")


CLOSE = "the Hessian is approximated by its G component, H ≈ H_O"
OUTLIERS = "the outliers come from the G component"
BULK = "most eigenvalues are concentrated near zero"
REST = "the rest makes the bulk and no outlier"


BROKEN = [({}, (), None), ({"rest": 0.5}, (CLOSE, REST), 0.5), ({"shift": 0.4}, (OUTLIERS,), 0.4)]
BROKEN += [({"bulk": 0.6}, (BULK,), 0.6), ({"last": 0.1}, (REST,), 2)]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("changes", "broken", "effect"), BROKEN)
def test_each_sentence_is_judged_by_its_own_number_in_each_state(changes, broken, effect, state):
    found = {verdict.claim: verdict for verdict in experiment().claims(results(**changes, state=state))}
    assert list(found) == [f"{own}: {claim}" for own in STATES for claim in (CLOSE, OUTLIERS, BULK, REST)]
    expected = dict.fromkeys(found, REPRODUCED) | {f"{state}: {claim}": NOT_REPRODUCED for claim in broken}
    assert {claim: verdict.verdict for claim, verdict in found.items()} == expected
    if broken:
        assert found[f"{state}: {broken[0]}"].effect == pytest.approx(effect)


MIXED = {"rest": (CLOSE, (0.0, 0.02, 0.3)), "shift": (OUTLIERS, (0.0, 0.02, 0.3)), "bulk": (BULK, (0.99, 0.9, 0.7))}
RIGHT = {"rest": (CLOSE, (0.0, 0.001, 0.01)), "shift": (OUTLIERS, (0.0, 0.001, 0.01)), "bulk": (BULK, (0.97, 1, 0.98))}


def judged(name, claim, values) -> str:
    found = experiment().claims(results(**{name: values}))
    return next(verdict.verdict for verdict in found if verdict.claim == f"trained: {claim}")


@pytest.mark.parametrize("name", list(MIXED))
def test_seeds_that_disagree_are_inconclusive(name):
    assert judged(name, *MIXED[name]) == INCONCLUSIVE


@pytest.mark.parametrize("name", list(RIGHT))
def test_numbers_far_on_the_right_side_reproduce_a_sentence_though_they_vary(name):
    assert judged(name, *RIGHT[name]) == REPRODUCED


def test_a_dead_network_is_left_out_of_the_claims():
    found = results()
    for frame, columns in (("summary", ["hessian_norm", "rest_norm"]), ("eigenvalues", ["value"])):
        own = found.frames[frame]
        own.loc[(own["seed"] == 0) & (own["state"] == "trained"), columns] = 0.0
    assert {verdict.verdict for verdict in experiment().claims(found)} == {REPRODUCED}


def test_the_figure_shows_three_densities_before_and_after_training():
    with style():
        (figure,) = experiment().figures(results(rest=0.25))
        figure.drawing.draw_without_rendering()
    plt.close(figure.drawing)
    assert figure.name == "hessian_spectrum_test"
    assert figure.drawing.get_suptitle() == "MNIST, $P=90$: spectrum on 1000 train objects"
    assert "64 probes of 50 steps" in figure.note
    titles = [ax.get_title().partition(", $") for ax in figure.drawing.axes]
    assert [title[0] for title in titles] == ["initial: train accuracy 10%", "trained: train accuracy 90%"]
    assert [title[2].rpartition("=")[2] for title in titles] == ["0.02$", "0.25$"]
    for ax in figure.drawing.axes:
        curves = [line for line in ax.lines if len(line.get_xdata()) == 50]
        assert [line.get_label() for line in curves] == list(PARTS.values())
        ticks = [line.get_xdata() for line in ax.lines if line.get_marker() == "|"]
        np.testing.assert_allclose(ticks[0], [10, 5.5, 1, 1e-3])
        np.testing.assert_allclose(ticks[1], ticks[0] * 0.98)
        assert len(ticks[2]) == 0


def test_the_table_has_the_relative_error_of_every_seed_and_state():
    (table,) = experiment().tables(results(rest=(0.1, 0.2, 0.3)))
    errors = table.frame.set_index(["state", "seed"])["relative_error"]
    assert errors["trained"].to_dict() == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
