"""AdamW, schedule, warm-up, augmentation and watch: what ``fit`` does beyond plain Adam, against plain loops."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from landscape_cli.config import TransformerConfig
from landscape_cli.models.mlp import MLP
from landscape_cli.models.vit import VisionTransformer
from landscape_cli.rng import generator
from landscape_cli.training import crop_flip, fit, scheduled

SEEDS = (0, 3, 7)
OBJECTS, BATCH, EPOCHS = 40, 16, 3  # the last of three minibatches has 8 objects
STEPS = 9
RATE = 1e-2
SETTINGS = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "stream": "point"}
RICH = {"num_heads": 2, "bias": True, "class_token": True, "positions": True, "pre_norm": True, "num_layers": 2}
OPTIONS = {"weight_decay": 0.3, "schedule": "cosine", "warmup": 0.25, "augmentation": "crop_flip"}


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(5)
    y = torch.randint(3, (OBJECTS,), generator=draw)
    return torch.randn(OBJECTS, 2, 8, 8, generator=draw), y


def transformer(**options):
    return VisionTransformer(asdict(TransformerConfig(hidden_size=8, **options)), (2, 8, 8), 3)


def initial(model, dtype):
    drawn = model.initialise([generator(seed, "initialisation", "point") for seed in SEEDS])
    return {name: tensor.to(dtype) for name, tensor in drawn.items()}


def rates(schedule="constant", warmup=0.0):
    """The learning rate of each step, by the formula."""
    rising, found = warmup * STEPS, []
    for step in range(STEPS):
        if step < rising:
            share = (step + 1) / (rising + 1)
        else:
            share = (1 + math.cos(math.pi * (step - rising) / (STEPS - rising))) / 2 if schedule == "cosine" else 1
        found.append(RATE * share)
    return found


def plain_loop(net, x, y, seed, weight_decay=0.0, augmentation="none", **schedule):
    """Train an ordinary module with an ordinary optimiser; its parameters before the first step and after each."""
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=weight_decay, foreach=False, fused=False)
    orders, moves = generator(seed, "minibatches", "point"), generator(seed, "augmentation", "point")
    learning_rates = iter(rates(**schedule))
    states = [{name: tensor.detach().clone() for name, tensor in net.named_parameters()}]
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x), generator=orders).split(BATCH):
            batch = crop_flip(x[index][None], [moves])[0] if augmentation == "crop_flip" else x[index]
            optimiser.param_groups[0]["lr"] = next(learning_rates)
            optimiser.zero_grad()
            cross_entropy(net(batch), y[index]).backward()
            optimiser.step()
            states.append({name: tensor.detach().clone() for name, tensor in net.named_parameters()})
    return states


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["adam", "all options"])
@pytest.mark.parametrize("network", [{}, RICH], ids=["plain", "rich"])
def test_stacked_transformers_train_as_in_a_plain_loop(data, network, options):
    """The fused optimiser reads gradients as they lie in memory: those of a transposed weight must be laid out anew."""
    x, y = data[0].double(), data[1]
    model = transformer(**network)
    start = initial(model, torch.float64)
    trained = fit(model, x, y, seeds=SEEDS, start=start, **SETTINGS, **options)
    for s, seed in enumerate(SEEDS):
        states = plain_loop(model.module(start, s), x, y, seed, **options)
        for name, expected in states[-1].items():
            assert (expected - states[0][name]).abs().max() > 1e-3 or "key.bias" in name  # which changes nothing
            torch.testing.assert_close(trained[name][s], expected, rtol=0, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_in_float32_too_up_to_rounding(data):
    model = transformer()
    start = initial(model, torch.float32)
    trained = fit(model, *data, seeds=SEEDS, **SETTINGS, weight_decay=0.3, schedule="cosine")
    for s, seed in enumerate(SEEDS):
        states = plain_loop(model.module(start, s), *data, seed, weight_decay=0.3, schedule="cosine")
        for name, expected in states[-1].items():
            torch.testing.assert_close(trained[name][s], expected, rtol=0, atol=2e-4)


def test_each_seed_trains_as_it_would_alone_with_every_option(data):
    model = transformer()
    x, start = data[0].double(), initial(model, torch.float64)
    together = fit(model, x, data[1], seeds=SEEDS, start=start, **SETTINGS, **OPTIONS)
    for s, seed in enumerate(SEEDS):
        own = {name: tensor[s : s + 1] for name, tensor in start.items()}
        alone = fit(model, x, data[1], seeds=[seed], start=own, **SETTINGS, **OPTIONS)
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name][s], tensor[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("option", "value"), OPTIONS.items())
def test_every_option_changes_the_result(data, option, value):
    model = transformer()
    plain, other = (fit(model, *data, seeds=[0], **SETTINGS, **more) for more in ({}, {option: value}))
    assert all(bool((plain[name] != other[name]).any()) for name in plain)


def test_weight_decay_shrinks_what_has_no_gradient(data):
    class Flat(MLP):
        def gradients(self, parameters, x, y):
            return {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}

    model = Flat(in_features=128, classes=3, hidden_size=4, num_layers=0, bias=False)
    start = model.initialise([generator(0, "test")])
    end = fit(model, *data, seeds=[0], start=start, weight_decay=0.3, schedule="cosine", warmup=0.25, **SETTINGS)
    shrunk = math.prod(1 - 0.3 * rate for rate in rates("cosine", 0.25))
    for name in start:
        torch.testing.assert_close(end[name], start[name] * shrunk)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (10, 0), (100, 0.05), (40, 0.3), (7, 0.5), (10, 0.99)])
def test_schedule_against_its_closed_form(steps, warmup):
    rising = warmup * steps
    step = np.arange(steps)
    up = (step + 1) / (rising + 1)
    down = np.cos(np.pi / 2 * (step - rising) / (steps - rising)) ** 2
    for schedule, after in (("constant", np.ones(steps)), ("cosine", down)):
        found = [scheduled(k, steps, schedule, warmup) for k in step]
        np.testing.assert_allclose(found, np.where(step < rising, up, after), rtol=1e-12)
        assert 0 < min(found) <= max(found) <= 1


def test_watch_is_given_every_step_and_the_parameters_after_it(data):
    model, seen = transformer(), []
    x, y = data[0].double(), data[1]
    start = initial(model, torch.float64)

    def watch(step, parameters):
        seen.append((step, {name: tensor.clone() for name, tensor in parameters.items()}))

    trained = fit(model, x, y, seeds=SEEDS, start=start, watch=watch, **SETTINGS)
    assert [step for step, _ in seen] == list(range(STEPS + 1))
    for name, tensor in trained.items():
        assert torch.equal(seen[0][1][name], start[name])
        assert torch.equal(seen[-1][1][name], tensor)
    for s, seed in enumerate(SEEDS):
        states = plain_loop(model.module(start, s), x, y, seed)
        for (_, parameters), state in zip(seen, states, strict=True):
            for name, expected in state.items():
                torch.testing.assert_close(parameters[name][s], expected, rtol=0, atol=1e-7)


def test_watching_changes_nothing_and_without_epochs_only_the_start_is_seen(data):
    model, seen = transformer(), []
    plain, watched = (fit(model, *data, seeds=[0], watch=w, **SETTINGS) for w in (None, lambda *_: None))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    fit(model, *data, seeds=[0], watch=lambda step, _: seen.append(step), **SETTINGS | {"epochs": 0})
    assert seen == [0]


def pictures(count, channels=2, height=16, width=24, seeds=1):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(seeds, count, channels, height, width, generator=draw)


def moved(batch, *seeds):
    return crop_flip(batch, [generator(seed, "augmentation") for seed in seeds])


def how_moved(source, picture):
    """(top, left, mirrored) of the one crop of the padded source that `picture` is."""
    (_, height, width), (down, across) = source.shape, (source.shape[1] // 8, source.shape[2] // 8)
    padded = np.pad(source, ((0, 0), (down, down), (across, across)))
    found = [
        (top, left, mirrored)
        for top in range(2 * down + 1)
        for left in range(2 * across + 1)
        for mirrored in (False, True)
        if np.array_equal(
            padded[:, top : top + height, left : left + width][:, :, :: -1 if mirrored else 1], picture, equal_nan=True
        )
    ]
    assert len(found) == 1
    return found[0]


def test_each_picture_is_a_moved_and_maybe_mirrored_copy_of_its_own_source():
    batch = pictures(600)
    result = moved(batch, 0)
    assert result.shape == batch.shape
    found = [how_moved(s, p) for s, p in zip(batch[0].numpy(), result[0].numpy(), strict=True)]
    tops, lefts, mirrored = (np.array(values) for values in zip(*found, strict=True))
    for values, outcomes in ((tops, 5), (lefts, 7), (mirrored, 2)):
        counts = np.bincount(values, minlength=outcomes)
        assert len(counts) == outcomes
        assert np.abs(counts - 600 / outcomes).max() < 5 * math.sqrt(600 / outcomes)
    for first, second in ((tops, lefts), (tops, mirrored), (lefts, mirrored)):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_moves_depend_on_the_seed_and_on_nothing_else():
    batch = pictures(20).expand(3, -1, -1, -1, -1)
    first = moved(batch, 0, 3, 0)
    torch.manual_seed(99)
    assert torch.equal(moved(batch, 0, 3, 0), first)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert torch.equal(moved(batch[:1], 3)[0], first[1])


def test_small_pictures_are_mirrored_only_and_the_source_is_left_alone():
    batch = pictures(50, height=7, width=5)
    kept = batch.clone()
    result = moved(batch, 0)[0]
    same = (result == batch[0]).flatten(1).all(1)
    mirrored = (result == batch[0].flip(-1)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 0 < same.sum() < 50
    assert torch.equal(batch, kept)


def test_every_step_moves_the_pictures_anew():
    """The network sees one object under several moves over the epochs, each of the seeds its own."""
    seen = []

    class Recorder(MLP):
        def gradients(self, parameters, x, y):
            seen.append(x.clone())
            return super().gradients(parameters, x, y)

    x, y = pictures(1, height=16, width=16)[0], torch.zeros(1, dtype=torch.long)
    fit(Recorder(512, 3, 4, 1), x, y, seeds=SEEDS, augmentation="crop_flip", **SETTINGS | {"epochs": 6})
    found = [[how_moved(x[0].numpy(), batch[s, 0].numpy()) for batch in seen] for s in range(len(SEEDS))]
    assert all(len(set(moves)) > 2 for moves in found)
    assert len({tuple(moves) for moves in found}) == len(SEEDS)
