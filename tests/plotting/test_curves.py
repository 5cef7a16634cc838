import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from landscape_cli.plotting.curves import band, end_labels, spread, thinned
from landscape_cli.plotting.style import FULL_WIDTH, new_figure, ordered_colours, style


@pytest.fixture(autouse=True)
def _drawing():
    with style():
        yield
    plt.close("all")


@pytest.mark.parametrize("n", [0, 1, 999, 1000])
def test_short_curves_are_drawn_whole(n):
    assert thinned(n).tolist() == list(range(n))


@pytest.mark.parametrize("n", [1001, 1002, 9999, 10**6])
def test_long_curves_are_thinned(n):
    chosen = thinned(n)
    assert chosen[:400].tolist() == list(range(400))
    assert chosen[-1] == n - 1
    steps = np.diff(chosen)
    assert steps.min() >= 1
    assert 990 <= len(chosen) <= 1000
    assert np.ptp(steps[400:]) <= 1


def test_thinning_as_told():
    assert thinned(100, dense=3, sparse=5).tolist() == [0, 1, 2, 3, 27, 51, 75, 99]


def test_band_is_mean_and_range():
    _, axes = new_figure(1, 1, FULL_WIDTH, 3)
    ax = axes[0, 0]
    x, values = np.array([1.0, 2.0, 4.0]), np.array([[1.0, 5.0, 2.0], [3.0, 1.0, 2.0]])
    band(ax, x, values, "red", linestyle="--", label="own")
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 2], [2, 3], [4, 2]])
    assert (line.get_color(), line.get_linestyle(), line.get_label()) == ("red", "--", "own")
    (area,) = ax.collections
    corners = {tuple(corner) for corner in area.get_paths()[0].vertices.tolist()}
    assert corners == {(1, 1), (2, 1), (4, 2), (1, 3), (2, 5)}


def test_band_of_one_curve_has_no_range():
    _, axes = new_figure(1, 1, FULL_WIDTH, 3)
    band(axes[0, 0], np.arange(3), np.ones((1, 3)), "red")
    assert len(axes[0, 0].lines) == 1
    assert len(axes[0, 0].collections) == 0


ENDS = [
    [4.7e-5, 7.5e-5, 5.4e-5, 3.9e-5, 2.7e-5],  # the published ones, along h
    [4.3e-5, 5.0e-5, 5.4e-5, 8.4e-5, 6.4e-5],
    [1e-5, 1e-5, 1e-5, 1e-5, 1e-5],
    [1e-5, 1e-4, 1e-3, 1e-2, 1e-1],
    [3e-4],
]


def labelled(ends, scale="log", bottom=None):
    drawing, axes = new_figure(1, 2, FULL_WIDTH, 3.1)
    ax = axes[0, 0]
    k = np.arange(1, 1000)
    for end in ends:
        ax.plot(k, end * (1000 / k))
    ax.set_yscale(scale)
    ax.set_ylim(bottom, None)
    drawing.draw_without_rendering()
    lines = len(ax.lines)
    names = [f"$h={i}$" for i in range(len(ends))]
    colours = ordered_colours(len(ends))
    end_labels(ax, ends, names, colours, 999)
    drawing.draw_without_rendering()
    assert [text.get_text() for text in ax.texts] == names
    assert [text.get_color() for text in ax.texts] == colours
    return ax, ax.lines[lines:]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("scale", ["log", "linear"])
def test_end_labels_do_not_overlap_and_keep_their_order(ends, scale):
    ax, _ = labelled(ends, scale)
    boxes = [ax.texts[i].get_window_extent() for i in np.argsort(ends, kind="stable")]
    for lower, upper in itertools.pairwise(boxes):
        assert upper.y0 >= lower.y1 - 0.5  # pixels


@pytest.mark.parametrize("ends", ENDS)
def test_end_labels_stand_right_of_the_axes_and_clear_of_its_foot(ends):
    ax, _ = labelled(ends)
    frame = ax.get_window_extent()
    for text in ax.texts:
        box = text.get_window_extent()
        assert box.x0 > ax.transData.transform((999, 1))[0]
        assert (box.y0 + box.y1) / 2 > frame.y0
        assert box.y0 < frame.y1


@pytest.mark.parametrize("ends", ENDS)
def test_each_label_is_led_to_from_its_own_end(ends):
    ax, leaders = labelled(ends)
    assert len(leaders) == len(ends)
    for leader, end, text in zip(leaders, ends, ax.texts, strict=True):
        (x0, y0), (x1, y1) = ax.transAxes.transform(leader.get_xydata())
        foot = ax.transData.transform((999, end))
        assert y0 == pytest.approx(foot[1], abs=0.1)
        assert foot[0] < x0 < x1 < text.get_window_extent().x0
        assert y1 == pytest.approx(ax.transAxes.transform(text.get_position())[1], abs=0.1)


def test_labels_with_room_stay_at_their_ends():
    _, leaders = labelled([1e-4, 1e-3, 1e-2])
    for leader in leaders:
        assert leader.get_ydata()[0] == pytest.approx(leader.get_ydata()[1], abs=1e-9)


def test_labels_with_room_below_are_spread_to_both_sides():
    _, leaders = labelled([1e-3] * 5, bottom=1e-5)
    moved = np.diff([leader.get_ydata() for leader in leaders], axis=1)[:, 0]
    assert moved.mean() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.sort(moved), -np.sort(-moved)[::-1], atol=1e-9)
    assert moved.min() < -0.03 < 0.03 < moved.max()


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_ordered_colours_are_ordered_in_grey(count):
    grey = [float(np.dot(colour[:3], [0.2126, 0.7152, 0.0722])) for colour in ordered_colours(count)]
    assert len(grey) == count
    assert all(after > before + 0.05 for before, after in itertools.pairwise(grey))
    assert max(grey) < 0.85  # still to be seen on white


def test_spread_moves_only_what_is_crowded():
    positions = np.array([0.5, 0.1, 0.52, 0.9])
    placed = spread(positions, 0.1)
    np.testing.assert_allclose(placed, [0.46, 0.1, 0.56, 0.9], atol=1e-12)


def test_spread_is_the_least_squares_answer():
    random = np.random.default_rng(0)
    for _ in range(20):
        positions, gap = random.random(6), 0.1
        order = np.argsort(positions)
        found = isotonic_regression(positions[order] - gap * np.arange(6)).x + gap * np.arange(6)
        np.testing.assert_allclose(spread(positions, gap)[order], found, atol=1e-12)
