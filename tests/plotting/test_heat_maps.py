import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from landscape_cli.plotting.heat_maps import NOTHING, block_lines, log_heat_map, log_limits
from landscape_cli.plotting.style import FULL_WIDTH, new_figure, style

MAGMA = mpl.colormaps["magma"]
MNIST = {"patches": 256, "Q": 256, "K": 256, "V": 256, "O": 256, "LN1": 32, "W1": 1024, "W2": 1024, "LN2": 32}
MNIST |= {"head": 160}  # parameters of Table 2.1


@pytest.fixture(autouse=True)
def _drawing():
    with style():
        yield
    plt.close("all")


def axes():
    """As in Figs 2.1 and 2.2."""
    drawing, panels = new_figure(1, 2, FULL_WIDTH, 3.5)
    return drawing, panels[0, 0]


def colours(matrix, limits, colourbar=False) -> np.ndarray:
    """The drawn colour in the middle of each entry, (rows, columns, 3)."""
    drawing, ax = axes()
    image = log_heat_map(ax, np.asarray(matrix, dtype=float), limits)
    if colourbar:
        drawing.colorbar(image, ax=ax)
    drawing.canvas.draw()
    pixels = np.asarray(drawing.canvas.buffer_rgba())[:, :, :3] / 255
    rows, columns = np.indices(np.shape(matrix))
    x, y = ax.transData.transform(np.stack([columns.ravel(), rows.ravel()], axis=1)).T
    found = pixels[len(pixels) - 1 - y.astype(int), x.astype(int)]
    return found.reshape(*np.shape(matrix), 3)


def expected(logarithms, limits) -> np.ndarray:
    low, high = limits
    return MAGMA((np.asarray(logarithms) - low) / (high - low))[..., :3]


def test_colours_are_those_of_the_logarithms_of_the_sizes():
    matrix = [[1e-4, -1e-3, 1e-1], [10.0, -1.0, 1e-2]]
    found = colours(matrix, (-4.0, 1.0))
    np.testing.assert_allclose(found, expected([[-4, -3, -1], [1, 0, -2]], (-4, 1)), atol=0.01)


def test_what_lies_beyond_the_limits_has_their_colours():
    found = colours([[1e-9, 1e-2], [1.0, -1e9]], (-2.0, 0.0))
    np.testing.assert_allclose(found, expected([[-2, -2], [0, 0]], (-2, 0)), atol=0.01)


def test_exact_zeros_are_grey_and_the_smallest_numbers_are_not():
    found = colours([[0.0, 5e-324], [-0.0, 1.0]], (-8.0, 0.0))
    grey = to_rgb(NOTHING)
    np.testing.assert_allclose(found[:, 0], [grey, grey], atol=0.01)
    np.testing.assert_allclose(found[:, 1], expected([-8, 0], (-8, 0)), atol=0.01)
    along = MAGMA(np.linspace(0, 1, 256))[:, :3]
    assert np.abs(along - grey).max(axis=1).min() > 0.1  # no colour of a number is that grey


def test_nothing_but_zeros_is_drawn_grey():
    limits = log_limits([np.zeros((3, 3))])
    assert limits[0] < limits[1]
    found = colours(np.zeros((3, 3)), limits, colourbar=True)
    np.testing.assert_allclose(found, np.broadcast_to(to_rgb(NOTHING), (3, 3, 3)), atol=0.01)


def test_a_constant_matrix_is_drawn():
    limits = log_limits([np.full((3, 3), 0.1)])
    found = colours(np.full((3, 3), 0.1), limits, colourbar=True)
    assert np.abs(found - to_rgb(NOTHING)).max(axis=2).min() > 0.1


def test_an_image_is_masked_at_zeros_only():
    matrix = np.random.default_rng(0).normal(size=(6, 5))
    matrix[2, 3] = matrix[0, 0] = 0
    _, ax = axes()
    found = log_heat_map(ax, matrix, (-3, 1)).get_array()
    np.testing.assert_array_equal(found.mask, matrix == 0)
    np.testing.assert_allclose(found[matrix != 0], np.log10(np.abs(matrix[matrix != 0])))
    assert ax.images[0].get_clim() == (-3, 1)


def test_limits_span_all_entries_of_all_matrices_but_the_smallest_hundredth():
    small, large = np.logspace(-3, 0, 301), -np.logspace(0, 2, 200)
    low, high = log_limits([small.reshape(7, 43), large.reshape(10, 20)])
    assert high == pytest.approx(2)
    assert np.mean(np.concatenate([small, -large]) < 10**low) == pytest.approx(0.01, abs=2e-3)


def test_zeros_do_not_move_the_limits():
    matrix = np.logspace(-3, 0, 100).reshape(10, 10)
    padded = np.zeros((20, 20))
    padded[:10, :10] = matrix
    assert log_limits([padded, np.zeros((2, 2))]) == log_limits([matrix])


@pytest.mark.parametrize("decades", [2, 8])
def test_limits_span_no_more_than_told(decades):
    low, high = log_limits([np.logspace(-30, 3, 400)], decades)
    assert (low, high) == (pytest.approx(3 - decades), pytest.approx(3))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_entries_that_are_not_finite_are_refused_since_they_would_look_like_zeros(odd):
    with pytest.raises(ValueError, match="not finite"):
        log_limits([np.append(np.logspace(-3, 0, 100), odd)])


def test_the_first_row_is_on_top():
    _, ax = axes()
    log_heat_map(ax, np.ones((4, 4)), (0, 1))
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert (left, right, top, bottom) == (-0.5, 3.5, -0.5, 3.5)


def test_block_lines_lie_between_the_entries_of_neighbours():
    _, ax = axes()
    log_heat_map(ax, np.ones((10, 10)), (0, 1))
    block_lines(ax, {"a": (0, 4), "b": (4, 5), "c": (5, 10)})
    lines = [line.get_xydata().tolist() for line in ax.lines]
    across, down = lines[::2], lines[1::2]
    assert across == [[[0, at], [1, at]] for at in (3.5, 4.5)]
    assert down == [[[at, 0], [at, 1]] for at in (3.5, 4.5)]
    for ticks, labels in ((ax.get_xticks(), ax.get_xticklabels()), (ax.get_yticks(), ax.get_yticklabels())):
        assert ticks.tolist() == [1.5, 4, 7]
        assert [text.get_text() for text in labels] == ["a", "b", "c"]
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 9.5), (9.5, -0.5))


def overlaps(sizes: dict[str, int]) -> list[tuple[str, str]]:
    """Neighbouring names whose boxes overlap by a point or more along an axis, in a figure as Fig 2.1."""
    drawing, panels = new_figure(1, 2, FULL_WIDTH, 3.5)
    ax, total = panels[0, 0], sum(sizes.values())
    ends = [10 * end / total for end in itertools.accumulate(sizes.values())]
    image = log_heat_map(ax, np.ones((10, 10)), (0, 1))
    drawing.colorbar(image, ax=panels[0, :], label="entries", shrink=0.86, pad=0.015)
    block_lines(ax, dict(zip(sizes, itertools.pairwise([0, *ends]), strict=True)), 5.5)
    drawing.draw_without_rendering()
    point, found = drawing.dpi / 72, []
    for labels, side in ((ax.get_xticklabels(), 0), (ax.get_yticklabels(), 1)):
        boxes = {text.get_text(): text.get_window_extent().get_points()[:, side] for text in labels}
        for (a, one), (b, other) in itertools.pairwise(boxes.items()):
            if min(one[1], other[1]) - max(one[0], other[0]) > point:
                found.append((a, b))
    return found


def test_names_of_the_published_blocks_do_not_overlap():
    assert overlaps(MNIST) == []


TWO_BLOCKS = {"patches": 256} | {f"{name}.{i}": MNIST[name] for i in (1, 2) for name in list(MNIST)[1:-1]}
NARROW = [{"a": 100, "b": 1, "c": 1, "d": 1, "e": 100}, TWO_BLOCKS | {"head": 160}]


@pytest.mark.parametrize("sizes", NARROW, ids=["narrow", "two transformer blocks"])
def test_names_of_narrow_blocks_do_not_overlap(sizes):
    assert overlaps(sizes) == []
