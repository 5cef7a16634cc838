"""D- and M-sufficiency of networks: which objects each network sees, moments by hand, verdicts."""

import itertools
import warnings
from dataclasses import asdict
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from experiments.chapter3.network_likelihood import NetworkLikelihood, NetworkLikelihoodOptions, _moments
from landscape_cli import training
from landscape_cli.config import Config, DatasetConfig, MLPConfig
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED, Point, Results
from landscape_cli.plotting.style import style

OBJECTS, RESAMPLES = 60, 3
SIZES = [6, 19, 60]  # from a tenth of the objects, evenly in log k


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def digits():
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x[:OBJECTS] / 8 - 1, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return SimpleNamespace(
        x_train=x, y_train=torch.tensor(y[:OBJECTS]), shape=(1, 8, 8), source=SimpleNamespace(classes=10)
    )


def experiment(**given):
    options = NetworkLikelihoodOptions(**{"resamples": RESAMPLES, "sizes": 3} | given)
    return NetworkLikelihood(
        Config(name="network_test", title="", family="", dataset=DatasetConfig("digits"), measure=options)
    )


def measured(**given):
    own = experiment(**given)
    node = {"epochs": 1, "batch_size": 20, "learning_rate": 0.01}
    settings = {"dataset": {"name": "digits"}, "model": asdict(MLPConfig(hidden_size=4, num_layers=0))}
    settings |= {"training": node, "measure": asdict(own.config.measure), "seeds": [0]}
    context = SimpleNamespace(images=digits, progress=None)
    return own.measure(Point.of({}, settings), context).frames["losses"]


@pytest.fixture(scope="module")
def watched():
    """A measurement, and what it asked of the training."""
    asked = []
    original = training.fit

    def fit(model, x, y, **given):
        found = original(model, x, y, **given)
        asked.append(given | {"model": model, "trained": found})
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit", fit)
        frame = measured()
    (given,) = asked
    return frame, given


def test_there_is_one_row_a_size_and_resample_and_one_without_resampling(watched):
    frame, _ = watched
    assert list(frame) == ["resample", "k", "loss", "accuracy", "dead"]
    expected = list(itertools.product(range(RESAMPLES), [*SIZES, 0]))
    assert list(frame[["resample", "k"]].itertuples(index=False, name=None)) == expected
    assert frame.attrs["units"] == {"k": "objects", "loss": "nats"}
    assert frame["loss"].nunique() == len(frame)


def test_larger_samples_hold_the_smaller_ones_of_a_resample_and_all_take_equal_steps(watched):
    _, given = watched
    rows = given["rows"]
    assert rows.shape == (RESAMPLES * 4, OBJECTS)  # of the same length, and so with the same steps
    assert given["seeds"] == [number for number in range(RESAMPLES) for _ in range(4)]
    for number in range(RESAMPLES):
        *samples, everything = rows[number * 4 : number * 4 + 4]
        assert everything.tolist() == list(range(OBJECTS))
        for size, row in zip(SIZES, samples, strict=True):
            own = row[:size]
            assert torch.equal(samples[-1][:size], own)  # the largest one begins with it
            assert torch.equal(row, own.repeat(OBJECTS)[:OBJECTS])  # gone through again and again
        assert len(set(samples[-1].tolist())) < OBJECTS  # with replacement
    assert not torch.equal(rows[2], rows[6])


def test_losses_are_means_over_all_objects(watched):
    """By torch's own cross-entropy, network by network."""
    frame, given = watched
    data = digits()
    with torch.no_grad():
        logits = given["model"].forward(given["trained"], data.x_train[None]).double()
    losses = [torch.nn.functional.cross_entropy(own, data.y_train).item() for own in logits]
    np.testing.assert_allclose(frame["loss"], losses, rtol=1e-6)
    right = (logits.argmax(dim=-1) == data.y_train).double().mean(dim=1)
    np.testing.assert_allclose(frame["accuracy"], right)


def test_the_same_point_gives_the_same_frame(watched):
    pd.testing.assert_frame_equal(watched[0], measured(), check_exact=True)


def test_the_smallest_size_is_the_given_one_or_a_tenth(watched):
    assert sorted(set(measured(first=3)["k"])) == [0, 3, 13, 60]
    assert measured(first=100)["k"].max() == OBJECTS


def losses(function, resamples=4, sizes=(10, 20, 40, 80)) -> pd.DataFrame:
    rows = [
        {
            "resample": number,
            "k": k,
            "loss": float(function(k, number)),
            "accuracy": 0.01 * k + 0.1 * number,
            "dead": False,
        }
        for number, k in itertools.product(range(resamples), [*sizes, 0])
    ]
    return pd.DataFrame(rows)


def uneven(k, number):
    return 3.0 + 0.1 * number if k == 0 else 2 + (5 + [-1, 0, 2, 4][number]) / k


def test_moments_by_hand():
    frame, floor = _moments(losses(uneven))
    offsets = np.array([-1, 0, 2, 4.0])
    variance, mean = np.var(offsets, ddof=1), 5 + offsets.mean()
    k = np.array([10, 20, 40, 80])
    assert frame["k"].tolist() == k.tolist()
    np.testing.assert_allclose(frame["mean"], 2 + mean / k)
    np.testing.assert_allclose(frame["mean_error"], np.sqrt(variance) / k / 2)
    np.testing.assert_allclose(frame["variance"], variance / k**2)
    fourth = np.mean((offsets - offsets.mean()) ** 4)
    np.testing.assert_allclose(frame["variance_error"], np.sqrt((fourth - np.var(offsets) ** 2) / 4) / k**2)
    # From k to 2k the loss falls by half of what is above 2, over k objects.
    np.testing.assert_allclose(frame["rate"], [*(mean / (2 * k[:3]) / k[:3]), np.nan])
    np.testing.assert_allclose(frame["rate_error"], [*(np.sqrt(variance) / (2 * k[:3]) / k[:3] / 2), np.nan])
    np.testing.assert_allclose(frame["accuracy"], 0.01 * k + 0.15)
    assert floor["mean"] == pytest.approx(3.15)
    assert floor["variance"] == pytest.approx(np.var([0, 0.1, 0.2, 0.3], ddof=1))


def results(frame) -> Results:
    return Results((), (), {"losses": frame}, {}, {}, "paper")


def judged(function):
    return list(experiment().claims(results(losses(function, 40))))


def test_falling_functions_are_judged_by_their_ends():
    variance, change = judged(lambda k, n: n / 10 if k == 0 else 2 + (5 + 0.1 * (n % 2)) / k)
    assert (variance.verdict, change.verdict) == (REPRODUCED, REPRODUCED)
    assert variance.effect == pytest.approx(np.log((10 / 80) ** 2))
    assert change.effect == pytest.approx(np.log((10 / 40) ** 2))
    assert variance.low <= variance.effect <= variance.high
    floor = np.var(np.arange(40) / 10, ddof=1)
    assert variance.note.endswith(f"without resampling D is {floor:.3g}")
    assert "k = 80 over that at 10" in variance.statistic
    assert "k = 40 over that at 10" in change.statistic


def test_rising_functions_are_not_reproduced():
    variance, change = judged(lambda k, n: k**2 / 100 * (1 + 0.01 * (n % 3)))
    assert (variance.verdict, change.verdict) == (NOT_REPRODUCED, NOT_REPRODUCED)
    assert variance.effect == pytest.approx(np.log(8**4))
    assert change.effect == pytest.approx(np.log(120 / 30))


def test_figure_and_table_show_the_moments():
    own = results(losses(uneven))
    frame, floor = _moments(own.frames["losses"])
    with warnings.catch_warnings(), style():
        warnings.simplefilter("error")
        (figure,) = experiment().figures(own)
        figure.drawing.draw_without_rendering()
    for ax, name in zip(figure.drawing.axes, ("mean", "variance", "rate"), strict=True):
        np.testing.assert_allclose(ax.lines[0].get_ydata(), frame[name])
    (table,) = experiment().tables(own)
    pd.testing.assert_frame_equal(table.frame, frame)
    # Variances fall fourfold, changes an object too.
    assert "reached at D: 20, M: 20." in table.caption
    assert f"the mean loss is {floor['mean']:.4g} nats" in table.caption


def test_a_run_on_digits_is_drawn_and_judged(landscape, small, tmp_path):
    words = ("measure.resamples=3", "measure.sizes=3", "model.hidden_size=4", "seeds=1", "dataset=digits")
    finished = landscape("run", "experiment=likelihood_fc_mnist", *small, *words)
    assert finished.code == 0, finished.err
    written = {path.name for path in (tmp_path / "outputs").glob("*/smoke*/*")}
    names = {"likelihood_fc_mnist.png", "likelihood_fc_mnist.csv", "claims_likelihood_fc_mnist.csv"}
    assert names <= written
