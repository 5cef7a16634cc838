"""The adversary that drives networks to where a bound is closest to failing, and the networks of convolutions alone."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from experiments.beyond import search
from experiments.beyond.bounds import searched, summary
from experiments.beyond.search import AttentionFamily, ChainFamily, Training, convolutions, driven
from landscape_cli.bounds.chains import of_network
from landscape_cli.errors import BadInput


def stream(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def connected(*widths, theorems=("8", "9", "11"), scales=(0.03, 10.0), length=1.0) -> ChainFamily:
    modules = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b, bias=False), nn.ReLU())]
    x = length * torch.randn(30, widths[0], generator=stream(7), dtype=torch.float64)
    data = x, torch.arange(30) % widths[-1]
    return ChainFamily(nn.Sequential(*modules[:-1]), widths[:1], theorems, data, Training(0, 4, 0.02), scales)


def gaps(family, state, goal):
    theorem, quantity, variant = goal
    (bound,) = (b for b in family.bounds(state) if (b.theorem, b.quantity) == (theorem, quantity))
    return getattr(bound, variant) / family.norms(state)[quantity]


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


GOALS = [(t, q, v) for t in ("8", "9", "11") for q in ("hessian", "gauss_newton") for v in ("printed", "corrected")]


@pytest.mark.parametrize("rate", [0.03, 3.0])
def test_the_adversary_never_ends_farther_from_its_goal_than_it_began(rate):
    family = connected(3, 4, 3)
    start = family.draw(6, stream())
    kept = {name: tensor.clone() for name, tensor in start.items()}
    ended = driven(family, start, GOALS, 15, rate)
    assert len(ended) == len(GOALS)
    assert same(start, kept)
    for goal, state in zip(GOALS, ended, strict=True):
        before, after = gaps(family, start, goal), gaps(family, state, goal)
        assert (after <= before * (1 + 1e-9)).all()
        assert torch.equal(state["y"], start["y"])
        if rate < 1:
            assert (after < before * 0.99).sum() >= 3


def test_states_come_in_the_order_of_the_goals_and_do_not_touch_each_other():
    family = connected(3, 4, 3)
    start, back = family.draw(4, stream()), list(reversed(GOALS))
    for one, other in zip(driven(family, start, GOALS, 5), reversed(driven(family, start, back, 5)), strict=True):
        for name in family.free:
            torch.testing.assert_close(one[name], other[name])
    for state in driven(family, start, GOALS, 0):
        assert same(state, start)


@pytest.mark.parametrize("quantity", ["gauss_newton", "hessian"])
def test_the_adversary_violates_printed_theorem_8_from_networks_that_do_not(quantity):
    family = connected(2, 3, 2, scales=(0.6, 1.5))
    start, goal = family.draw(40, stream()), ("8", quantity, "printed")
    start = {name: tensor[gaps(family, start, goal) > 1.5] for name, tensor in start.items()}
    assert len(start["y"]) > 10
    (ended,) = driven(family, start, [goal], 100)
    assert (gaps(family, ended, goal) < 0.9).sum() > 5
    assert (gaps(family, ended, ("8", quantity, "corrected")) > 1 - 1e-9).all()


@pytest.mark.parametrize("false", [False, True])
def test_a_false_bound_is_found_out_by_the_adversary_and_a_true_one_stands(false, monkeypatch):
    def halved(*given):
        return tuple(replace(bound, corrected=bound.corrected / 2) for bound in of_network(*given))

    monkeypatch.setattr(search, "LENGTHS", (2.0, 6.0))
    if false:
        monkeypatch.setattr(search.chains, "of_network", halved)
    family = connected(2, 2, theorems=("8",), scales=(4.0, 8.0), length=3.0)  # saturated: norms far below the bound
    table = summary(searched(family, 12, 60, lambda kind: stream(len(kind))))
    rows = table[table["quantity"] == "gauss_newton"].set_index("kind")["corrected_violations"]
    if false:
        assert rows["adversarial"] >= 6
        assert rows["random"] == 0
    else:
        assert rows.to_dict() == {"random": 0, "trained": 0, "adversarial": 0}


def test_a_dead_network_and_one_without_an_object_do_not_stop_the_others():
    family = connected(3, 4, 3)
    start = family.draw(4, stream())
    start["weight0"][0] = -start["weight0"][0].abs() * start["x"][0].sign()  # all ReLUs closed: no gradient
    start["x"][1] = 0.0
    alone = driven(family, {name: tensor[2:] for name, tensor in start.items()}, GOALS[:1], 5)[0]
    (ended,) = driven(family, start, GOALS[:1], 5)
    for name in family.free:
        assert ended[name].isfinite().all()
        torch.testing.assert_close(ended[name][2:], alone[name])


def test_the_adversary_moves_everything_that_a_layer_with_attention_has():
    family = AttentionFamily(2, 3, 2, 0)
    start, goals = family.draw(4, stream()), [("17", "hessian", "printed"), ("17", "hessian", "corrected")]
    for goal, state in zip(goals, driven(family, start, goals, 40), strict=True):
        assert (gaps(family, state, goal) < 0.95 * gaps(family, start, goal)).all()
        assert not any(torch.equal(state[name], start[name]) for name in ("X", "Q", "K", "V", "target"))


@pytest.mark.parametrize(
    ("given", "shapes", "gates"),
    [
        (((2, 5), 3, 2, 3, 7), [(3, 2, 2), (3, 3, 2), (4, 3, 2)], ["ReLU", "ReLU"]),
        (((1, 8, 8), 2, 3, 3, 10), [(2, 1, 3, 3), (2, 2, 3, 3), (3, 2, 3, 3)], ["ReLU", "ReLU"]),
        (((1, 8, 8), 4, 2, 3, 10, "max", 2), [(4, 1, 2, 2), (4, 4, 2, 2), (3, 4, 2, 2)], ["ReLU", "MaxPool2d"]),
        (((1, 8, 7), 4, 2, 3, 10, "average", 1), [(4, 1, 2, 2), (4, 4, 2, 2), (10, 4, 2, 2)], ["AvgPool2d", "ReLU"]),
    ],
)
def test_sizes_of_convolutions(given, shapes, gates):
    net = convolutions(*given)
    layers = [module for module in net if isinstance(module, nn.Conv1d | nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in layers] == shapes
    assert [type(module).__name__ for module in net[1:-1:2]] == gates
    assert all(layer.bias is None for layer in layers)
    outputs = net(torch.zeros(1, *given[0])).shape[1]
    assert given[4] <= outputs < given[4] + outputs // len(layers[-1].weight)


@pytest.mark.parametrize("given", [((1, 4, 4), 2, 3, 2, 3), ((1, 5, 5), 2, 2, 3, 3, "max", 1)])
def test_convolutions_that_do_not_fit(given):
    with pytest.raises(BadInput, match=f"{given[3]} convolutions of kernel {given[2]} do not fit"):
        convolutions(*given)
