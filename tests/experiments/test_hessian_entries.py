"""The measurement of Figs 2.1 to 2.8 against Hessians by autograd in float64."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.func import functional_call

from experiments.chapter2.hessian_entries import CELLS, HessianEntries, HessianEntriesOptions, cells
from experiments.chapter2.tensors import FAMILIES, family, grouped, label
from landscape_cli.config import Config, DatasetConfig, MLPConfig, TrainingConfig, TransformerConfig
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Point
from landscape_cli.models import build_model
from landscape_cli.training import fit

OBJECTS, USED, LAST = 24, 10, 6
MODEL = TransformerConfig(patch_size=2, hidden_size=4, ffn_size=6)
TRAINING = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.05)
OPTIONS = HessianEntriesOptions(
    hessian_objects=USED, norm_steps=[0, 1, 3, 50], entry_steps=[0, 2, 6, 1000], tolerance=1e-4
)
ROUNDING = 1e-4  # of float32, relative to the largest entry


def experiment(**changes) -> HessianEntries:
    nodes = {"dataset": DatasetConfig("mnist", max_size=50), "model": MODEL, "training": TRAINING, "measure": OPTIONS}
    return HessianEntries(Config(name="vit_hessian", title="", family="", **nodes | changes))


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(3, (OBJECTS,), generator=draw)
    x = torch.randn(OBJECTS, 1, 4, 4, generator=draw)
    source = SimpleNamespace(classes=3)
    return SimpleNamespace(x_train=x, y_train=y, x_test=x[:7] + 0.1, y_test=y[:7], shape=(1, 4, 4), source=source)


def measured(point, data, own=None):
    context = Context(torch.device("cpu"), data.source, lambda: data, lambda iterable, **_: iterable or Bar())
    return (own or experiment()).measure(point, context)


class Bar:
    def update(self, count): ...
    def close(self): ...


@pytest.fixture(scope="module")
def points():
    return experiment(seeds=2).points()


@pytest.fixture(scope="module")
def found(points, data):
    """Of the first seed."""
    return measured(points[0], data)


@pytest.fixture(scope="module")
def states(points, data):
    """Step -> the first seed's network in float64."""
    model, kept = build_model(asdict(MODEL), data.shape, 3), {}

    def watch(step, parameters):
        kept[step] = model.module({name: tensor.double() for name, tensor in parameters.items()}, 0)

    given = {"seeds": [0], "stream": points[0].stream, "watch": watch}
    fit(model, data.x_train, data.y_train, **given, **asdict(TRAINING))
    return kept


@pytest.fixture(scope="module")
def hessians(states, data):
    """Step -> the whole Hessian by autograd."""
    return {step: hessian(net, data.x_train[:USED].double(), data.y_train[:USED]) for step, net in states.items()}


def hessian(net, x, y):
    names, tensors = zip(*net.named_parameters(), strict=True)
    sizes = [tensor.numel() for tensor in tensors]

    def loss(vector):
        own = {n: part.view_as(t) for n, part, t in zip(names, vector.split(sizes), tensors, strict=True)}
        return torch.nn.functional.cross_entropy(functional_call(net, own, (x,)), y)

    return torch.autograd.functional.hessian(loss, torch.nn.utils.parameters_to_vector(tensors).detach())


def places(net) -> dict[str, slice]:
    found, begin = {}, 0
    for name, tensor in net.named_parameters():
        found[name] = slice(begin, begin + tensor.numel())
        begin += tensor.numel()
    return found


def test_points_are_one_a_seed_and_only_the_first_stores_entries():
    points = experiment(seed=3, seeds=3).points()
    assert [point.coordinates for point in points] == [{"dataset": "mnist", "seed": seed} for seed in (3, 4, 5)]
    assert [point.settings["seeds"] for point in points] == [[3], [4], [5]]
    assert [point.settings["measure"]["entries"] for point in points] == [True, False, False]
    assert len({point.settings_json for point in points}) == 3
    assert len({point.stream for point in points}) == 1
    without = experiment(measure=HessianEntriesOptions(entries=False)).points()
    assert not any(point.settings["measure"]["entries"] for point in without)


def test_the_key_of_a_later_seed_does_not_depend_on_how_many_there_are():
    assert experiment(seeds=5).points()[1] == experiment(seeds=2).points()[1]


def test_other_networks_are_refused():
    with pytest.raises(BadInput, match=r"model.kind: 'mlp'; allowed: vit"):
        experiment(model=MLPConfig()).points()


def test_steps_beyond_the_training_are_dropped_and_the_last_is_there(found):
    norms = found.frames["norms"]
    assert sorted(norms["step"].unique()) == [0, 1, 2, 3, LAST]
    assert norms.loc[norms["last"], "step"].unique().tolist() == [LAST]
    assert (norms["last"] == (norms["step"] == LAST)).all()
    wholes = sorted(name for name in found.arrays if name.startswith("whole"))
    assert wholes == ["whole_0", "whole_2", "whole_6"]


@pytest.mark.parametrize(("step", "built"), [(0, True), (1, False), (2, True), (3, False), (LAST, True)])
def test_norms_are_those_of_autograd(found, states, hessians, step, built):
    net, matrix = states[step], hessians[step]
    norms = found.frames["norms"]
    own = norms[norms["step"] == step].set_index("tensor")
    assert own.index.tolist() == [name for name, _ in net.named_parameters()]
    for name, part in places(net).items():
        block, weights = matrix[part, part], net.get_parameter(name).detach()
        spectral = torch.linalg.eigvalsh(block).abs().max().item()
        row = own.loc[name]
        assert row["hessian_spectral"] == pytest.approx(spectral, rel=1e-3, abs=1e-6)
        expected = torch.linalg.matrix_norm(weights, 2) if weights.dim() == 2 else weights.norm()
        assert row["weight_norm"] == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
        assert row["weight_frobenius"] == pytest.approx(weights.norm().item(), rel=1e-5, abs=1e-7)
        assert row["label"] == label(name, 1)
        if built:
            assert row["hessian_frobenius"] == pytest.approx(block.norm().item(), rel=1e-3, abs=1e-6)
            assert (row["residual"], row["frobenius_error"]) == (0, 0)
        else:
            assert 0 < row["frobenius_error"] < 0.3 * row["hessian_frobenius"]
            assert abs(row["hessian_frobenius"] - block.norm().item()) < 4.5 * row["frobenius_error"]


def test_arrays_are_slices_of_the_hessian(found, states, hessians):
    where, names = places(states[0]), list(places(states[0]))
    attention = [f"blocks.0.attention.{part}.weight" for part in ("query", "key", "value")]
    index = {"whole": names, "attention": attention} | {what: family(names, what) for what in FAMILIES}
    for step in (0, 2, LAST):
        scale = hessians[step].abs().max().item()
        for what, tensors in index.items():
            rows = np.concatenate([np.arange(len(hessians[0]))[where[name]] for name in tensors])
            expected = hessians[step][rows][:, rows].numpy()
            np.testing.assert_allclose(found.arrays[f"{what}_{step}"], expected, rtol=0, atol=ROUNDING * scale)
    assert len(found.arrays) == 3 * (2 + 2 * len(FAMILIES))


def test_arrays_of_parameters_lie_side_by_side(found, states):
    net = states[2]
    own = {name.removeprefix("blocks.0."): tensor.detach().numpy() for name, tensor in net.named_parameters()}
    expected = {
        "queries": own["attention.query.weight"],
        "keys": own["attention.key.weight"],
        "values": own["attention.value.weight"],
        "layer_norm": np.stack([own[f"norm{i}.{part}"] for i in (1, 2) for part in ("weight", "bias")]),
        "feed_forward": np.concatenate([own["ffn.linear1.weight"], own["ffn.linear2.weight"].T], axis=1),
    }
    for what, weights in expected.items():
        np.testing.assert_allclose(found.arrays[f"{what}_weights_2"], weights, rtol=1e-6)


def test_blocks_hold_the_sizes_of_the_entries_of_every_pair_of_labels(found, states, hessians):
    blocks, groups = found.frames["blocks"], grouped(list(places(states[0])), 1)
    assert list(groups) == ["patches", "Q", "K", "V", "O", "LN1", "W1", "W2", "LN2", "head"]
    assert len(blocks) == 2 * 55
    assert set(zip(blocks["step"], blocks["state"], strict=True)) == {(0, "initial"), (LAST, "trained")}
    where = places(states[0])
    for row in blocks.itertuples():
        a, b = (
            np.concatenate([np.arange(len(hessians[0]))[where[n]] for n in groups[g]]) for g in (row.row, row.column)
        )
        size = hessians[row.step][a][:, b].abs().numpy()
        scale = hessians[row.step].abs().max().item()
        assert row.mean_abs == pytest.approx(size.mean(), rel=1e-3, abs=ROUNDING * scale)
        assert row.max_abs == pytest.approx(size.max(), rel=1e-3, abs=ROUNDING * scale)
        assert row.frobenius == pytest.approx((size**2).sum() ** 0.5, rel=1e-3, abs=ROUNDING * scale)
    spans = found.frames["spans"]
    assert spans["label"].tolist() == list(groups)
    assert spans["begin"].tolist() == [0, *spans["end"][:-1]]
    assert spans["end"].iloc[-1] == len(hessians[0])


def test_network_frame_holds_norm_loss_and_accuracies_before_and_after(found, states, hessians, data):
    network = found.frames["network"].set_index("state")
    assert network["step"].to_dict() == {"initial": 0, "trained": LAST}
    assert (network["hessian_objects"] == USED).all()
    for state, row in network.iterrows():
        net = states[row["step"]]
        norm = torch.linalg.eigvalsh(hessians[row["step"]]).abs().max().item()
        assert row["hessian_spectral"] == pytest.approx(norm, rel=1e-3), state
        with torch.no_grad():
            logits, tested = net(data.x_train.double()), net(data.x_test.double())
        loss = torch.nn.functional.cross_entropy(logits, data.y_train).item()
        assert row["mean_loss"] == pytest.approx(loss, rel=1e-5)
        assert row["train_accuracy"] == pytest.approx((logits.argmax(1) == data.y_train).double().mean().item())
        assert row["test_accuracy"] == pytest.approx((tested.argmax(1) == data.y_test).double().mean().item())
    assert network.loc["trained", "mean_loss"] < network.loc["initial", "mean_loss"]


def test_a_later_seed_has_the_same_frames_and_no_entries(points, found, data):
    later = measured(points[1], data)
    assert not later.arrays
    assert {name: frame.columns.tolist() for name, frame in later.frames.items()} == {
        name: frame.columns.tolist() for name, frame in found.frames.items()
    }
    norms = later.frames["norms"].set_index("step")
    assert (norms.loc[[0, LAST], "frobenius_error"] == 0).all()
    assert (norms.loc[[1, 2, 3], "frobenius_error"] > 0).all()
    assert later.frames["blocks"].shape == found.frames["blocks"].shape
    assert not np.isclose(later.frames["blocks"]["mean_abs"], found.frames["blocks"]["mean_abs"]).all()


def test_two_blocks_with_biases_are_measured_too(data):
    model = TransformerConfig(patch_size=4, hidden_size=2, ffn_size=2, num_layers=2, bias=True)
    options = HessianEntriesOptions(hessian_objects=4, norm_steps=[0], entry_steps=[0])
    own = experiment(model=model, measure=options, training=TrainingConfig(epochs=1, batch_size=16))
    found = measured(own.points()[0], data, own)
    labels = found.frames["spans"]["label"].tolist()
    parts = ("Q", "K", "V", "O", "LN1", "W1", "W2", "LN2")
    assert labels == ["patches", *(f"{part}.{i}" for i in (1, 2) for part in parts), "head"]
    assert found.arrays["queries_0"].shape == (6, 6)
    assert found.arrays["attention_0"].shape == (18, 18)
    assert found.arrays["queries_weights_0"].shape == (2, 2)
    assert found.arrays["layer_norm_0"].shape == (8, 8)


def test_small_matrices_are_drawn_as_they_are():
    matrix = np.array([[1.0, -2.0], [-2.0, 0.5]])
    assert cells(matrix) is matrix
    assert cells(matrix, 2) is matrix
    assert cells(np.zeros((CELLS, CELLS))).shape == (CELLS, CELLS)


def test_of_large_matrices_the_largest_entry_of_each_cell_is_kept():
    matrix = np.random.default_rng(0).normal(size=(11, 11))
    shrunk = cells(matrix, 4)
    assert shrunk.shape == (4, 4)
    for i in range(4):
        for j in range(4):
            assert shrunk[i, j] == np.abs(matrix[3 * i : 3 * i + 3, 3 * j : 3 * j + 3]).max()


def test_large_hessians_are_stored_shrunk(points, data, monkeypatch):
    import experiments.chapter2.hessian_entries as module

    monkeypatch.setattr(module, "cells", lambda matrix: cells(matrix, 50))
    settings = points[0].settings
    settings = {**settings, "measure": settings["measure"] | {"entry_steps": [0], "norm_steps": [0]}}
    found = measured(Point.of({"dataset": "mnist", "seed": 0}, settings), data)
    size = found.frames["spans"]["end"].max()
    assert found.arrays["whole_0"].shape == (-(-size // 4),) * 2
    assert found.arrays["queries_0"].shape == (16, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": TrainingConfig(epochs=0)}, r"training\.epochs: 0; allowed: 1 or more"),
        ({"measure": HessianEntriesOptions(norm_steps=[])}, r"measure\.norm_steps: empty; allowed: one step or more"),
    ],
)
def test_settings_that_leave_nothing_to_compare_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        experiment(**changes).points()


def test_a_network_too_large_for_its_hessian_is_refused_before_it_is_trained(data, monkeypatch):
    (point,) = experiment(model=TransformerConfig(hidden_size=256, num_layers=8, patch_size=2), seeds=1).points()
    monkeypatch.setattr("landscape_cli.training.fit", lambda *given, **more: pytest.fail("trained"))
    with pytest.raises(
        BadInput, match=r"the Hessian of \d+ parameters takes .* TB, the cap is 4.29 GB; take a smaller"
    ):
        measured(point, data)
