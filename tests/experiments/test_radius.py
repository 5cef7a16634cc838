"""The loss difference at a distance from the minimum: one point against autograd and the definitions."""

import itertools
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from experiments.beyond import radius
from experiments.beyond.radius import Radius, RadiusOptions, curve_of, directional_derivatives, object_losses_of
from landscape_cli.config import Config, DatasetConfig, MLPConfig, TrainingConfig
from landscape_cli.curvature import Objective
from landscape_cli.curvature.objective import squared_error
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Context
from landscape_cli.models import build_model
from landscape_cli.training import fit

OBJECTS, CLASSES, SHAPE, RADII = 24, 3, (1, 3, 3), [0.0, 0.01, 2.0]
TRAINING, MODEL = TrainingConfig(epochs=2, batch_size=8, learning_rate=0.02), MLPConfig(hidden_size=4, num_layers=1)


def experiment(**changes) -> Radius:
    options = {"radii": RADII, "directions": 2, "permutations": 5, "hessian_objects": 10, "hessian_samples": 4}
    measure = RadiusOptions(**options | {"tolerance": 1e-4} | changes.pop("options", {}))
    nodes = {"dataset": DatasetConfig("mnist"), "model": MODEL, "training": TRAINING, "measure": measure, "seeds": 2}
    return Radius(Config(name="radius_test", title="", family="", **nodes | changes))


def small_net(objects=6) -> Objective:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    return Objective(net, torch.randn(objects, 4).double(), torch.arange(objects) % 3)


def direction(objective) -> torch.Tensor:
    u = torch.randn(objective.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return u / u.norm()


def test_directional_derivatives_are_those_of_autograd():
    objective = small_net()
    u, names, tensors = direction(objective), *zip(*objective.module.named_parameters(), strict=True)
    sizes = [tensor.numel() for tensor in tensors]
    first, second = directional_derivatives(objective, u)
    start = torch.cat([tensor.detach().flatten() for tensor in tensors])
    assert list(objective.names) == list(names)
    for i in range(6):

        def loss(vector, i=i):
            own = {n: p.view_as(t) for n, p, t in zip(names, vector.split(sizes), tensors, strict=True)}
            return cross_entropy(
                functional_call(objective.module, own, (objective.x[i : i + 1],)), objective.y[i : i + 1]
            )

        assert first[i].item() == pytest.approx((jacobian(loss, start) @ u).item(), rel=1e-9)
        assert second[i].item() == pytest.approx((u @ hessian(loss, start) @ u).item(), rel=1e-9)


def predicted(objective, u, radius):
    first, second = directional_derivatives(objective, u)
    return object_losses_of(objective, objective.parameters) + radius * first + radius**2 / 2 * second


@pytest.mark.parametrize("distance", [0.01, 1.0, 30.0])
def test_the_prediction_of_second_order_is_exact_for_quadratic_losses(distance):
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2).double()
    objective = Objective(net, torch.randn(2100, 3).double(), torch.randn(2100, 2).double(), squared_error)
    u = direction(objective)
    moved = experiment()._moved(objective, u, distance)
    torch.testing.assert_close(
        object_losses_of(objective, moved), predicted(objective, u, distance), rtol=1e-10, atol=0
    )
    assert torch.cat([(moved[n] - objective.parameters[n]).flatten() for n in moved]).norm() == pytest.approx(distance)


def test_the_error_of_the_prediction_falls_as_the_cube_of_the_distance():
    objective, errors = small_net(), []
    u = direction(objective)
    for distance in (0.1, 0.05):
        exact = object_losses_of(objective, experiment()._moved(objective, u, distance))
        errors.append((exact - predicted(objective, u, distance)).abs().max().item())
        assert errors[-1] < 1e-3 * distance
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


def test_curves_are_means_over_orderings_of_the_steps_of_running_means():
    losses = torch.rand(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    running = losses.cumsum(dim=1) / torch.arange(1, 8)
    np.testing.assert_allclose(curve_of(losses), running.diff(dim=1).abs().mean(dim=0), rtol=1e-12)


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(OBJECTS, *SHAPE, generator=draw), torch.arange(OBJECTS) % CLASSES
    return SimpleNamespace(x_train=x, y_train=y, shape=SHAPE, source=SimpleNamespace(classes=CLASSES))


def measured(data, **changes):
    own = experiment(**changes)
    context = Context(torch.device("cpu"), data.source, lambda: data, lambda iterable, **_: iterable)
    return own.measure(own.points()[0], context).frames


@pytest.fixture(scope="module")
def frames(data):
    return measured(data)


@pytest.fixture(scope="module")
def nets(data):
    model, stream = build_model(asdict(MODEL), SHAPE, CLASSES), experiment().points()[0].stream
    parameters = fit(model, data.x_train, data.y_train, seeds=[0, 1], stream=stream, **asdict(TRAINING))
    return [model.module(parameters, s).double() for s in range(2)]


def test_there_is_a_row_for_every_network_direction_radius_and_number_of_objects(frames):
    curves = frames["curves"]
    rows = curves[["seed", "direction", "radius", "k"]].to_numpy().tolist()
    assert rows == [list(row) for row in itertools.product((0, 1), (0, 1), RADII, range(1, OBJECTS))]
    assert np.isfinite(curves.drop(columns=["seed", "direction", "k"])).all().all()
    assert frames["curves"].attrs["units"]["difference"] == "nats"
    assert frames["networks"]["seed"].tolist() == [0, 1]


def test_networks_are_described_at_the_trained_parameters(frames, nets, data):
    for row, net in zip(frames["networks"].itertuples(), nets, strict=True):
        outputs = net(data.x_train.double())
        losses = cross_entropy(outputs, data.y_train, reduction="none")
        assert row.mean_loss == pytest.approx(losses.mean().item(), rel=1e-5)
        assert row.largest_loss == pytest.approx(losses.max().item(), rel=1e-5)
        assert row.train_accuracy == pytest.approx((outputs.argmax(1) == data.y_train).double().mean().item())
        assert row.length == pytest.approx(
            torch.nn.utils.parameters_to_vector(net.parameters()).norm().item(), rel=1e-5
        )
        assert not row.dead


def test_at_the_minimum_all_curves_are_the_one_of_the_losses_and_far_away_they_differ(frames):
    curves = frames["curves"]
    names = ["predicted", "bound", "printed_bound"]
    start = curves[curves["radius"] == 0]
    assert (start["quadratic"] == 0).all()  # a term, not a curve
    for name in names:
        np.testing.assert_allclose(start[name], start["difference"], rtol=1e-5)
    by_direction = start.pivot(index=["seed", "k"], columns="direction", values="difference")
    np.testing.assert_allclose(by_direction[0], by_direction[1], rtol=1e-12)
    far = curves[curves["radius"] == 2]
    assert far.groupby(["seed", "direction"])["loss"].first().nunique() == 4
    for name in [*names, "quadratic"]:
        assert (far[name] - far["difference"]).abs().max() > 1e-3


def test_near_the_minimum_the_prediction_is_closer_than_the_quadratic_term_and_the_start(frames):
    curves = frames["curves"].set_index(["seed", "direction", "radius", "k"]).sort_index()
    near, start = curves.xs(0.01, level="radius"), curves.xs(0.0, level="radius")
    error = (near["predicted"] - near["difference"]).abs().mean()
    assert error < 0.05 * (start["difference"] + near["quadratic"] - near["difference"]).abs().mean()
    assert error < 0.05 * (near["difference"] - start["difference"]).abs().mean()


def test_predictions_are_made_of_losses_slopes_and_half_the_bends(data, monkeypatch):
    def multiples(objective, u):
        losses = object_losses_of(objective, objective.parameters).double()
        return 3 * losses, 2 * losses

    monkeypatch.setattr(radius, "directional_derivatives", multiples)
    curves = measured(data)["curves"]
    base = np.tile(
        curves.loc[curves["radius"] == 0, "difference"].to_numpy().reshape(4, 1, -1), (1, len(RADII), 1)
    ).ravel()
    r = curves["radius"]
    np.testing.assert_allclose(curves["predicted"], (1 + 3 * r + r**2) * base, rtol=1e-5)
    np.testing.assert_allclose(curves["quadratic"], r**2 * base, rtol=1e-5)


def test_the_quadratic_term_is_of_bends_before_and_at_the_next_object(data, monkeypatch):
    bends, orders = torch.arange(OBJECTS, dtype=torch.float64) ** 2, []
    monkeypatch.setattr(radius, "directional_derivatives", lambda *_: (torch.zeros(OBJECTS).double(), bends))
    monkeypatch.setattr(radius, "curve_of", lambda values: orders.append(values) or curve_of(values))
    curves = measured(data)["curves"].set_index(["seed", "direction", "radius"]).sort_index()
    h = next(values for values in orders if torch.equal(values.sort(dim=1).values, bends.expand(5, -1))).numpy()
    for r in RADII:
        term = [np.abs(h[:, k] - h[:, :k].mean(axis=1)).mean() / (k + 1) for k in range(1, OBJECTS)]
        np.testing.assert_allclose(curves.loc[(0, 0, r), "quadratic"], r**2 / 2 * np.array(term), rtol=1e-9)


def test_bounds_add_the_landscape_measure_times_the_square_of_the_distance(frames):
    curves = frames["curves"].merge(frames["networks"][["seed", "landscape_measure"]], on="seed")
    start = curves[curves["radius"] == 0].set_index(["seed", "direction", "k"])["difference"]
    keys = list(zip(curves["seed"], curves["direction"], curves["k"], strict=True))
    base = start.loc[keys].to_numpy()
    term = curves["radius"] ** 2 * curves["landscape_measure"] / (curves["k"] + 1)
    np.testing.assert_allclose(curves["printed_bound"], base + term, rtol=1e-5)
    np.testing.assert_allclose(curves["bound"], base + term / 2, rtol=1e-5)


def test_the_landscape_measure_is_the_mean_distance_of_dense_hessians(nets, data, frames):
    everything = measured(data, options={"hessian_samples": 10})["networks"]["landscape_measure"]
    for net, found in zip(nets, everything, strict=True):
        names, tensors = zip(*net.named_parameters(), strict=True)
        sizes, start = [t.numel() for t in tensors], torch.nn.utils.parameters_to_vector(tensors).detach()

        def loss(vector, i, net=net, names=names, tensors=tensors, sizes=sizes):
            own = {n: p.view_as(t) for n, p, t in zip(names, vector.split(sizes), tensors, strict=True)}
            return cross_entropy(
                functional_call(net, own, (data.x_train[i : i + 1].double(),)), data.y_train[i : i + 1]
            )

        every = torch.stack([hessian(lambda v, i=i, f=loss: f(v, i), start) for i in range(10)])
        norms = torch.linalg.matrix_norm(every - every.mean(dim=0), 2)
        assert found == pytest.approx(norms.mean().item(), rel=1e-3)
    assert not np.allclose(everything, frames["networks"]["landscape_measure"], rtol=1e-3)


def test_measuring_again_gives_the_same(data, frames):
    assert measured(data)["curves"].equals(frames["curves"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"radii": [0.1, 1.0]}}, r"measure.radii: \[0.1, 1.0\]; allowed: a list with 0 among its values"),
        (
            {"options": {"radii": [0.0]}},
            r"measure.radii: \[0.0\]; allowed: a list with 0 among its values, and at least",
        ),
        ({"grid": {"hidden_size": [4, 8]}}, "grid.hidden_size: one network is moved; allowed: grid.dataset"),
    ],
)
def test_radii_without_a_start_and_several_networks_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        experiment(**changes).points()


def test_several_data_sets_are_allowed():
    points = experiment(grid={"dataset": ["mnist", "digits"]}).points()
    assert [point.coordinates for point in points] == [{"dataset": "mnist"}, {"dataset": "digits"}]
