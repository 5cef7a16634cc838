"""``experiment=own`` against definitions: the differences, the gradient, the Hessian and what is said of them."""

import math
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from scipy.integrate import trapezoid

from experiments.beyond import own_results
from landscape_cli.composing import load
from landscape_cli.measuring import measure_all
from landscape_cli.plan import make_plan

MODULE = """
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self, dropout=0.0, norm=False, twice=False):
            super().__init__()
            layers = [nn.Linear(3, 5), nn.BatchNorm1d(5) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout)]
            self.body = nn.Sequential(*layers, nn.Linear(5, 2))

        def forward(self, x):
            return self.body(x)


    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient


    class Unbatched(Net):
        def forward(self, x):
            return Square.apply(self.body(x))


    def data(count=65, test=0):
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(count + test, 3, generator=generator)
        y = (x[:, 0] * x[:, 1] > 0).long()
        return (x[:count], y[:count], x[count:], y[count:]) if test else (x, y)
"""
BASE = ("experiment=own", "model._target_=theirs.Net", "dataset._target_=theirs.data", "training.epochs=3", "seeds=2")
SIZES = ("measure.permutations=6", "measure.smoothing=0.8", "measure.hessian_objects=16", "measure.hessian_samples=5")


@pytest.fixture
def measured(isolated, monkeypatch, tmp_path):
    """Measure one's own network as the command does; frames and parameters of each seed, and the plan."""
    (isolated / "work" / "theirs.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*overrides, folder="outputs"):
        config = load([*BASE, *SIZES, f"output_dir={tmp_path / folder}", *overrides])
        config.keep_parameters = True
        plan = make_plan(config)
        outcome = measure_all(plan, plan.located, True)
        assert not outcome.failures, outcome.failures[0].error
        return plan, [plan.store.read(plan.family, item.key) for item in plan.located]

    sys.modules.pop("theirs", None)
    yield run
    sys.modules.pop("theirs", None)


def network(plan, seed: int):
    """One seed's trained network, in evaluation mode, float64, and its objects."""
    import theirs
    from safetensors.torch import load_file

    item = plan.located[seed]
    stored = load_file(plan.store.folder(plan.family, item.key) / "parameters.safetensors")
    net = theirs.Net(**item.point.settings["model"]["arguments"])
    net.load_state_dict({name: tensor[0] for name, tensor in stored.items()})
    return net.double().eval(), *theirs.data()


def losses_of(net, x, y) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(x.double()), y, reduction="none")


@pytest.mark.parametrize(
    "options", [(), ("model.norm=true", "model.dropout=0.3")], ids=["plain", "batch norm, dropout"]
)
def test_losses_gradient_and_hessian_are_those_of_the_trained_network(measured, options):
    plan, stored = measured(*options)
    for seed, point in enumerate(stored):
        net, x, y = network(plan, seed)
        row = point.frames["network"].iloc[0]
        losses = losses_of(net, x, y)
        mean = float(losses.detach().mean())
        assert row["mean_loss"] == pytest.approx(mean, rel=1e-5)
        assert row["accuracy"] == float((net(x.double()).argmax(dim=1) == y).double().mean())
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(losses.mean(), list(net.parameters()))])
        assert row["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-4)
        assert row["parameters"] == gradient.numel()


def test_curvature_is_that_of_the_objects_drawn(measured):
    from landscape_cli.rng import generator

    plan, stored = measured()
    for seed, point in enumerate(stored):
        net, x, y = network(plan, seed)
        chosen = torch.randperm(len(x), generator=generator(seed, "hessian objects"))[:16]
        names, start = [n for n, _ in net.named_parameters()], [p.detach() for p in net.parameters()]
        sizes = [p.numel() for p in start]

        def own(flat, row, net=net, x=x, y=y, names=names, start=start, sizes=sizes):
            parts = {n: f.view_as(p) for n, f, p in zip(names, flat.split(sizes), start, strict=True)}
            outputs = torch.func.functional_call(net, parts, (x[row : row + 1].double(),))
            return torch.nn.functional.cross_entropy(outputs, y[row : row + 1])

        flat = torch.cat([p.flatten() for p in start])
        rows = chosen.tolist()
        each = torch.stack([torch.autograd.functional.hessian(lambda f, r=r: own(f, r), flat) for r in rows])
        values = torch.linalg.eigvalsh(each.mean(dim=0))
        row, found = point.frames["network"].iloc[0], point.frames["eigenvalues"]
        np.testing.assert_allclose(found["eigenvalue"], values.flip(0)[:10], atol=0.011 * float(values[-1]))
        assert row["smallest"] == pytest.approx(float(values[0]), abs=0.011 * float(values[-1]))
        norms = torch.linalg.matrix_norm(each - each.mean(dim=0), 2)
        assert float(norms.min()) - 1e-3 <= row["measure"] <= float(norms.max()) + 1e-3
        assert row["gradient_step"] == pytest.approx(row["gradient_norm"] ** 2 / (2 * row["hessian_norm"]))
        density = point.frames["density"]
        assert trapezoid(density["density"], density["eigenvalue"]) == pytest.approx(1, abs=0.02)


def test_the_curve_is_the_definition_written_out(measured):
    from landscape_cli.rng import generator

    plan, stored = measured()
    net, x, y = network(plan, 1)
    losses = losses_of(net, x, y).detach().numpy()
    drawn, each = generator(1, "orderings"), []
    for _ in range(6):
        order = losses[torch.randperm(65, generator=drawn).numpy()]
        means = [order[: k + 1].mean() for k in range(65)]
        each.append([abs(means[k + 1] - means[k]) for k in range(64)])
    curves = stored[1].frames["curves"]
    np.testing.assert_allclose(curves["difference"], np.mean(each, axis=0), rtol=1e-3, atol=1e-7)
    average = np.mean(each, axis=0)[0]
    for value, found in zip(np.mean(each, axis=0), curves["ema"], strict=True):
        average = 0.8 * average + 0.2 * value
        assert found == pytest.approx(average, rel=1e-3)


def test_seeds_differ_and_each_is_the_same_again_whoever_is_beside_it(measured):
    _, two = measured()
    _, one = measured("seeds=1", "seed=1", folder="other")
    assert_frame_equal(two[1].frames["network"], one[0].frames["network"])
    assert two[0].frames["network"]["mean_loss"][0] != two[1].frames["network"]["mean_loss"][0]


def test_dropout_acts_while_training_only(measured):
    plain, dropped = (measured(f"model.dropout={share}", folder=str(share)) for share in (0.0, 0.6))
    assert plain[1][0].frames["network"]["mean_loss"][0] != dropped[1][0].frames["network"]["mean_loss"][0]
    net, x, y = network(dropped[0], 0)
    mean = float(losses_of(net, x, y).detach().mean())
    assert dropped[1][0].frames["network"]["mean_loss"][0] == pytest.approx(mean, rel=1e-5)


def test_no_epoch_measures_the_network_as_it_comes(measured):
    plan, _ = measured("training.epochs=0", "seeds=1")
    net, *_ = network(plan, 0)
    import theirs

    from landscape_cli.rng import stream_number

    torch.manual_seed(stream_number(0, "initialisation", plan.located[0].point.stream))
    built = theirs.Net()
    assert torch.equal(net.body[0].weight, built.body[0].weight.double())


def test_training_lowers_the_loss(measured):
    before = measured("training.epochs=0", folder="a")[1][0].frames["network"]["mean_loss"][0]
    after = measured("training.epochs=60", "training.learning_rate=0.01", folder="b")[1][0].frames["network"]
    assert after["mean_loss"][0] < 0.85 * before


def test_the_last_object_alone_joins_the_batch_before_it(measured):
    # 65 objects in batches of 64: batch norm refuses to train on one object.
    _, stored = measured("model.norm=true", "training.batch_size=64", "seeds=1")
    assert math.isfinite(stored[0].frames["network"]["mean_loss"][0])


def test_what_cannot_be_differentiated_twice_is_named_and_the_losses_are_there(landscape, measured, tmp_path):
    words = [text for text in (*BASE, *SIZES) if not text.startswith("model.")]
    done = landscape("run", *words, "model._target_=theirs.Unbatched", "plot.formats=[png]", "training.epochs=1")
    assert (done.code, done.err) == (0, "")
    assert "no landscape measure, no Hessian spectrum: RuntimeError" in done.out
    assert "setup_context" in done.out
    assert "there is no saying" in done.out
    written = {path.stem for path in tmp_path.rglob("own_*.png")}
    assert written == {"own_loss_difference"}


def test_a_training_that_was_killed_goes_on_to_the_byte(isolated, tmp_path):
    from landscape_cli.checkpointing import checkpoints_in
    from landscape_cli.own.networks import task_of
    from landscape_cli.own.training import fit_module

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(33, 4, generator=generator)
    y = (x[:, 0] > 0).long()

    class Stop(Exception):
        pass

    def stopping(numbers, desc, **_):
        for number in numbers:
            if number == 3:
                raise Stop
            yield number

    def trained(folder, progress=None):
        torch.manual_seed(1)
        net = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.4), torch.nn.Linear(6, 2)
        )
        with checkpoints_in(folder, pause=0):
            fit_module(net, task_of(net, x, y), seed=2, epochs=5, batch_size=8, learning_rate=0.01, progress=progress)
        return net.state_dict()

    whole = trained(None)
    with pytest.raises(Stop):
        trained(tmp_path / "c", stopping)
    assert list((tmp_path / "c").glob("*.ckpt"))
    again = trained(tmp_path / "c")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def networks(enough, unsmoothed, ahead):
    return pd.DataFrame({"objects": 100, "enough": enough, "enough_unsmoothed": unsmoothed, "extrapolated": ahead})


@pytest.mark.parametrize(
    ("found", "said", "unsaid"),
    [
        (networks([40.0, 44.0], [30.0] * 2, [35.0, 36.0]), ["from k = 42", "the mean itself from k = 30"], "reached"),
        (networks([40.0, np.nan], [30.0, 30.0], [35.0, 36.0]), ["not reached by 1 of 2 seeds", "hides"], "from k = 40"),
        (networks([np.nan] * 2, [np.nan] * 2, [150.0, 170.0]), ["not reached by any", "extrapolated", "160"], "hides"),
        (networks([np.nan] * 2, [np.nan] * 2, [np.inf, 170.0]), ["not reached", "no extrapolation"], "170"),
    ],
)
def test_what_is_not_reached_is_no_number(found, said, unsaid):
    lines = " ".join(own_results._enough(found, 0.001, "nats"))
    for text in said:
        assert text in lines
    assert unsaid not in lines


def test_the_law_is_a_power_fitted_to_the_last_decade():
    from landscape_cli.convergence.laws import power_law

    k = np.arange(1, 4000)
    law = power_law(k, 3.0 * k**-0.7 + np.where(k < 100, 5.0, 0.0))
    assert (law.coefficient, law.exponent) == (pytest.approx(3, rel=0.01), pytest.approx(0.7, abs=2e-3))
    assert law.reaches(law.at(1e5)) == pytest.approx(1e5)
    assert math.isnan(power_law(k, np.zeros(len(k))).reaches(1e-3))
    assert math.isinf(power_law(k, k * 1.0).reaches(1e-3))
