"""The fixed stylisation, beside a plain one written here."""

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from landscape_cli.distillation import style
from landscape_cli.distillation.style import palette, stylise
from landscape_cli.errors import BadInput

REC_601 = np.array([0.299, 0.587, 0.114])


@pytest.fixture
def pictures():
    def draw(count=6, channels=3, height=11, width=9, seed=0):
        return 2 * torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed)) - 1

    return draw


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("levels", [3, 4, 7])
def test_the_same_as_a_plain_one(pictures, channels, levels):
    """In floating point, with scipy's Sobel filter; where a level's limit is near, either side may be meant."""
    x = pictures(channels=channels)
    x[:3] *= 0.2  # edges of every strength
    found = stylise(x, levels=levels).double().numpy()
    shares = (x.double().numpy() + 1) / 2
    weights = REC_601 if channels == 3 else np.full(channels, 1 / channels)
    grey = np.einsum("c,nchw->nhw", weights, shares)
    edges = np.stack([sum(abs(sobel(255 * one, axis=axis, mode="mirror")) for axis in (0, 1)) for one in grey])
    dark = np.minimum(edges / (2 * 255), 1)[:, None]
    colours = palette(channels, levels).double().numpy()[np.floor(levels * grey).astype(int)].transpose(0, 3, 1, 2)
    clear = abs(grey - np.round(levels * grey) / levels) > 4 / 255
    error = abs(found - (colours * (1 - dark) - dark)).max(axis=1)
    assert clear.mean() > 0.6
    assert (dark < 0.8).mean() > 0.3
    # Rounding moves shades by up to 0.75 about their mean, each derivative by 8 times as much, and an edge by 1/255.
    assert error[clear].max() < 2 * (2 * 8 * 0.75 / 510 + 1 / 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("lower", "upper"), [(-1.0, 1.0), (0.0, 1.0), (-2.5, 0.5)])
def test_keeps_shape_and_range(pictures, channels, lower, upper):
    x = lower + (upper - lower) * (pictures(channels=channels) + 1) / 2
    before = x.clone()
    found = stylise(x, lower=lower, upper=upper)
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert found.isfinite().all()
    assert lower <= found.min() < found.max() <= upper
    assert torch.equal(x, before)
    unit = stylise((x - lower) / (upper - lower) * 2 - 1)
    same = (found - (lower + (upper - lower) * (unit + 1) / 2)).abs() < 1e-5
    assert same.float().mean() > 0.99  # the limits' rounding may move a shade


def test_the_same_whenever_and_in_whatever_company(pictures, monkeypatch):
    x = pictures(20)
    found = stylise(x, seed=3)
    torch.rand(5)
    assert torch.equal(stylise(x, seed=3), found)
    assert torch.equal(stylise(x[7:8], seed=3), found[7:8])
    assert torch.equal(stylise(x.flip(0), seed=3).flip(0), found)
    assert torch.equal(stylise(x.to(memory_format=torch.channels_last), seed=3), found)
    monkeypatch.setattr(style, "CHUNK_PIXELS", 250)  # two pictures and a rest
    assert torch.equal(stylise(x, seed=3), found)
    assert not torch.equal(stylise(x, seed=4), found)
    assert stylise(x[:0]).shape == x[:0].shape


@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_picture_gets_its_levels_colour(channels):
    colours = palette(channels, levels=4, seed=5)
    for shade, level in ((0, 0), (63, 0), (64, 1), (127, 1), (128, 2), (191, 2), (192, 3), (255, 3)):
        x = torch.full((2, channels, 6, 5), 2 * shade / 255 - 1)
        assert torch.equal(stylise(x, seed=5), colours[level][:, None, None].expand(2, -1, 6, 5))


def test_edges_are_black_and_only_at_edges():
    x = torch.full((1, 3, 8, 10), -1.0)
    x[..., 5:] = 1
    found, colours = stylise(x), palette(3)
    assert (found[..., 4:6] == -1).all()
    assert torch.equal(found[0, :, :, :4], colours[0][:, None, None].expand(3, 8, 4))
    assert torch.equal(found[0, :, :, 6:], colours[3][:, None, None].expand(3, 8, 4))
    assert torch.equal(stylise(x.transpose(2, 3)), found.transpose(2, 3))


def test_shades_of_a_level_become_the_same():
    """It is not injective, as the module says."""
    dark, darker = torch.full((1, 1, 4, 4), -0.9), torch.full((1, 1, 4, 4), -0.7)
    assert torch.equal(stylise(dark), stylise(darker))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("levels", [3, 4, 9])
def test_palettes(channels, levels):
    drawn = [palette(channels, levels, seed) for seed in range(30)]
    weights = REC_601 if channels == 3 else np.ones(channels)
    for colours in drawn:
        assert colours.shape == (levels, channels)
        for values in colours.T:
            np.testing.assert_allclose(sorted(values), np.linspace(-1, 1, levels), atol=1e-6)
        luminance = colours.double().numpy() @ weights
        steps = np.diff(luminance)
        assert steps.min() < -1e-6
        assert steps.max() > 1e-6
        assert np.polyfit(np.arange(levels), luminance, 1)[0] < 1e-2
    assert len({tuple(colours.flatten().tolist()) for colours in drawn}) > 1


def test_a_classifier_of_plain_pictures_fails_and_one_of_stylised_does_not():
    digits = load_digits()
    x = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    styled = stylise(x)
    train, test = slice(0, 1200), slice(1200, None)
    accuracy = {}
    for taught, own in (("plain", x), ("stylised", styled)):
        model = LogisticRegression(C=0.1, max_iter=200).fit(own[train].flatten(1), digits.target[train])
        for name, shown in (("plain", x), ("stylised", styled)):
            accuracy[taught, name] = model.score(shown[test].flatten(1), digits.target[test])
    assert accuracy["plain", "plain"] > 0.88
    assert accuracy["stylised", "stylised"] > 0.75
    assert accuracy["plain", "stylised"] < 0.3
    assert accuracy["stylised", "plain"] < 0.3


def test_what_cannot_be_stylised(pictures):
    with pytest.raises(BadInput, match=r"shape \(3, 11, 9\); allowed: \(N, C, H, W\)"):
        stylise(pictures()[0])
    with pytest.raises(BadInput, match=r"shape \(6, 3, 1, 9\).* height and width of 2 or more"):
        stylise(pictures(height=1))
    with pytest.raises(BadInput, match="2 levels; allowed: 3 to 256"):
        stylise(pictures(), levels=2)
    with pytest.raises(BadInput, match="from 1 to 1; allowed: a lower limit below"):
        stylise(pictures(), lower=1, upper=1)
    for value in (float("nan"), float("inf")):
        x = pictures()
        x[2, 1, 3, 3] = value
        with pytest.raises(BadInput, match="not finite"):
            stylise(x)
