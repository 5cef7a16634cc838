"""What the bounds' experiments measure at one point: rows, exact norms by autograd; what they refuse."""

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.func import functional_call, hessian
from torch.nn.functional import cross_entropy

from experiments.beyond import search
from experiments.beyond.bounds import BoundsOptions
from experiments.beyond.bounds_chains import (
    ConvolutionBounds,
    ConvolutionBoundsOptions,
    FullyConnectedBounds,
    PoolingBounds,
    PoolingBoundsOptions,
)
from experiments.beyond.bounds_transformers import AttentionBounds, AttentionBoundsOptions, TransformerBounds
from landscape_cli.config import Config, ConvConfig, DatasetConfig, MLPConfig, TransformerConfig
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context, Results
from landscape_cli.plotting.style import style

FEW = {"networks": 2, "ascent_steps": 2, "train_steps": 2}
SHAPE, CLASSES, MLP = (1, 8, 8), 3, MLPConfig(hidden_size=3, num_layers=1)
CASES = {  # class, options, model, grid, theorems
    "connected": (FullyConnectedBounds, BoundsOptions, MLP, {"hidden_size": [3]}, ("8", "9", "11")),
    "convolutional": (ConvolutionBounds, ConvolutionBoundsOptions, None, {"channels": [2]}, ("12", "13", "16")),
    "pooled": (PoolingBounds, PoolingBoundsOptions, None, {"position": [1]}, ("14", "15")),
    "attention": (AttentionBounds, AttentionBoundsOptions, None, {"tokens": [2]}, ("17",)),
    "block": (TransformerBounds, AttentionBoundsOptions, None, {"tokens": [2]}, ("26",)),
}
OWN = {"17": ["hessian"], "26": ["hessian", "network"]}  # of squared errors, which have no ‖H_O‖ here


def experiment(name, model=None, grid=None, seed=0, **options):
    kind, chosen, own, axes, _ = CASES[name]
    nodes = {"dataset": DatasetConfig("digits"), "model": model or own, "grid": grid or axes}
    measure = chosen(**FEW | options)
    return kind(Config(name="bounds_test", title="", family="", **nodes, measure=measure, seeds=1, seed=seed))


def measured(own, point=None):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, *SHAPE, generator=draw), torch.arange(30) % CLASSES
    source = SimpleNamespace(classes=CLASSES)
    data = SimpleNamespace(x_train=x, y_train=y, shape=SHAPE, source=source)
    context = Context(torch.device("cpu"), source, lambda: data, lambda iterable, **_: iterable)
    return own.measure(point or own.points()[0], context).frames["networks"]


@pytest.fixture(scope="module")
def frames():
    return {name: measured(experiment(name)) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_there_is_a_row_for_every_theorem_quantity_kind_and_network(frames, name):
    theorems, found = CASES[name][4], {}
    for key, own in frames[name].groupby(["theorem", "quantity", "kind", "against"]):
        found[key] = own["network"].tolist()
    expected = {}
    for theorem in theorems:
        quantities = OWN.get(theorem, ["gauss_newton", "hessian"])
        for quantity, kind in itertools.product(quantities, ("random", "trained")):
            expected[theorem, quantity, kind, ""] = [0, 1]
        for quantity, against in itertools.product(quantities, ("printed", "corrected")):
            if quantity != "network":  # no adversary seeks the blocks
                expected[theorem, quantity, "adversarial", against] = [0, 1]
    assert found == expected
    values = frames[name][["measured", "printed", "corrected"]]
    assert np.isfinite(values).all().all()
    assert (frames[name]["measured"] <= frames[name]["corrected"] * (1 + 1e-9)).all()
    assert frames[name]["tight"].isna().all() == (name == "block")
    assert frames[name].attrs["units"]["measured"] == "nats per parameter²"


@pytest.mark.parametrize("name", CASES)
def test_measuring_again_gives_the_same_and_another_seed_something_else(frames, name):
    again, other = measured(experiment(name)), measured(experiment(name, seed=1))
    assert again.equals(frames[name])
    assert not np.allclose(other["measured"], frames[name]["measured"])


@pytest.mark.parametrize("name", CASES)
def test_steps_of_training_change_the_trained_networks_and_steps_of_ascent_the_adversarial_ones(frames, name):
    for option, kind in (("train_steps", "trained"), ("ascent_steps", "adversarial")):
        other = measured(experiment(name, **{option: 0}))
        changed = other["measured"] != frames[name]["measured"]
        assert set(other.loc[changed, "kind"]) == {kind}


def test_kinds_are_networks_of_their_own_and_the_adversary_moves(frames):
    for frame in frames.values():
        own = frame[(frame["network"] == 0) & (frame["quantity"] == "hessian")]
        for _, rows in own.groupby("theorem"):
            assert rows.groupby(["kind", "against"])["measured"].first().nunique() >= 3


def whole_norms(state, outputs, s) -> tuple[float, float]:
    weights = {name: tensor[s] for name, tensor in state.items() if name.startswith("weight")}
    sizes = [weight.numel() for weight in weights.values()]

    def of(flat):
        parts = flat.split(sizes)
        return outputs({n: p.view_as(weights[n]) for n, p in zip(weights, parts, strict=True)}, state["x"][s])

    flat = torch.cat([weight.flatten() for weight in weights.values()])
    full = hessian(lambda v: cross_entropy(of(v)[None], state["y"][s : s + 1]))(flat)
    slope, p = torch.func.jacrev(of)(flat), of(flat).softmax(0)
    part = slope.T @ (torch.diag(p) - torch.outer(p, p)) @ slope
    return tuple(torch.linalg.eigvalsh(matrix).abs().max().item() for matrix in (part, full))


@pytest.mark.parametrize("name", ["connected", "convolutional", "pooled"])
def test_measured_are_the_norms_of_the_very_networks(monkeypatch, name):
    """Every state that was compared is kept, and its dense Hessian built from the family's network by autograd."""
    kept, nets, compare, build = [], {}, search.ChainFamily.norms, search.ChainFamily.__init__

    def remember(family, state):
        if not torch.is_grad_enabled():
            kept.append((family, {key: tensor.clone() for key, tensor in state.items()}))
        return compare(family, state)

    def started(family, net, *given, **options):
        build(family, net, *given, **options)
        nets[id(family)] = net.double()

    monkeypatch.setattr(search.ChainFamily, "norms", remember)
    monkeypatch.setattr(search.ChainFamily, "__init__", started)
    frame = measured(experiment(name))
    for family in {id(family): family for family, _ in kept}.values():
        net, chain = nets[id(family)], family.chain

        def outputs(weights, x, net=net, chain=chain, shape=family.shape):
            own = {f"{layer.name}.weight": w for layer, w in zip(chain.layers, weights.values(), strict=True)}
            return functional_call(net, own, (x.view(1, *((-1,) if name == "connected" else shape)),))[0]

        first = [state for other, state in kept if other is family][:2]  # the random ones, the trained ones
        norms = [whole_norms(state, outputs, s) for state in first for s in range(2)]
        for i, quantity in enumerate(("gauss_newton", "hessian")):
            own = frame[
                frame["theorem"].eq(family.theorems[0]) & frame["quantity"].eq(quantity) & frame["against"].eq("")
            ]
            assert own["kind"].tolist() == ["random", "random", "trained", "trained"]
            np.testing.assert_allclose(own["measured"], [norm[i] for norm in norms], rtol=1e-9, atol=1e-200)


def test_points_are_one_a_size_with_one_stream():
    own = experiment("attention", grid={"tokens": [2, 3, 4], "width": [3, 5]})
    assert [point.coordinates for point in own.points()] == [
        {"tokens": 2, "width": 3},
        {"tokens": 3, "width": 3},
        {"tokens": 4, "width": 3},
        {"tokens": 3, "width": 5},
    ]
    assert all(point.settings["seeds"] == [0] for point in own.points())
    sizes = {"channels": [1, 2], "num_layers": [2, 3]}
    settings = [point.settings["measure"] for point in experiment("convolutional", grid=sizes).points()]
    assert [(m["channels"], m["num_layers"]) for m in settings] == [(1, 3), (2, 3), (2, 2)]


def test_a_full_sweep_of_layers_with_attention_has_all_combinations():
    config = experiment("attention", grid={"tokens": [2, 4], "width": [4, 6]}).config
    config.sweep = "full"
    sizes = [tuple(point.coordinates.values()) for point in AttentionBounds(config).points()]
    assert sizes == list(itertools.product([2, 4], [4, 6]))


def test_sizes_reach_the_networks():
    own = experiment("convolutional", grid={"channels": [1, 3]})
    norms = [measured(own, point).query("theorem == '13'")["corrected"].to_numpy() for point in own.points()]
    assert not np.allclose(*norms)
    narrow, wide = (measured(experiment("block", ffn_size=size))["printed"].iloc[0] for size in (2, 5))
    assert narrow != wide


@pytest.mark.parametrize(
    "model",
    [MLPConfig(bias=True), ConvConfig(bias=False), TransformerConfig()],
    ids=["biases", "convolutions", "transformer"],
)
def test_networks_that_theorems_8_and_9_are_not_about_are_refused(model):
    with pytest.raises(BadInput, match="without biases; allowed: mlp"):
        experiment("connected", model=model, grid={"num_layers": [1]}).points()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("convolutional", {"kernel_size": 4}, BadInput, "3 convolutions of kernel 4 do not fit on"),
        ("pooled", {"position": 3}, BadInput, "the last layer is followed by a nonlinearity"),
        ("pooled", {"position": 7}, BadInput, "Theorem 14: one max pooling stands in the place of a ReLU; here: none"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name, options, error, message):
    with pytest.raises(error, match=message):
        measured(experiment(name, grid={next(iter(options)): list(options.values())}, **options))


@pytest.mark.parametrize("name", CASES)
def test_a_source_says_where_the_thesis_claims_the_other_quantity(frames, name):
    frame = frames[name].query("quantity != 'network'")
    found = experiment(name).claims(Results((), (), {"networks": frame}, {}, {}, "paper"))
    sources = {verdict.claim: verdict.source for verdict in found if ", printed: " in verdict.claim}
    expected = {}
    for theorem in CASES[name][4]:
        other = "‖H‖" if 11 <= int(theorem) <= 16 else "‖H_O‖"
        for symbol in ["‖H‖"] if theorem in OWN else ["‖H_O‖", "‖H‖"]:
            asked = f", asked of {symbol}" if symbol == other else ""
            expected[f"Theorem {theorem}, printed: a bound of {symbol}"] = f"thesis, Theorem {theorem}{asked}"
    assert sources == expected


@pytest.mark.parametrize(("name", "theorem"), [("attention", "17"), ("block", "26")])
def test_layers_with_attention_are_of_random_objects_and_can_lack_the_tight_form(frames, name, theorem):
    own, frame = experiment(name), frames[name].assign(tokens=2, tight=np.nan)
    found = Results((), (), {"networks": frame}, {}, {}, "paper")
    with style():
        (figure,) = own.figures(found)
        figure.drawing.draw_without_rendering()
    plt.close("all")
    assert figure.drawing.get_suptitle().strip() == f"Theorem {theorem} against exact norms, random objects"
    labels = [ax.get_ylabel() for ax in figure.drawing.axes[::3]]
    symbols = {"hessian": r"\|H\|", "network": r"\|\partial^2Z/\partial W_i\partial W_j\|"}
    assert labels == [f"bound / ${symbols[quantity]}_2$" for quantity in OWN[theorem]]
    assert len(figure.drawing.axes) == 3 * len(labels)
    assert "tight_smallest" not in next(iter(own.tables(found))).frame
