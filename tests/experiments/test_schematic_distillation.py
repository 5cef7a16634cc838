"""The diagrams of distillation: what their arrows say, and that nothing drawn collides."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch

from experiments.chapter4.schematic import SchematicDistillation
from landscape_cli.composing import load
from landscape_cli.experiment import Results
from landscape_cli.plotting.output import save_figure
from landscape_cli.plotting.style import style

BASIC, ADAPTED = "fig_4_2_basic_distillation", "fig_4_3_distillation_with_domain_adaptation"
BOTH = pytest.mark.parametrize("name", [BASIC, ADAPTED])


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def own():
    return SchematicDistillation(load(["experiment=schematic_distillation"]))


@pytest.fixture
def frames(own):
    (point,) = own.points()
    return own.measure(point, None).frames


@pytest.fixture
def drawn(own, frames, tmp_path):
    """Both drawings as they are when saved, with small print of two lines below."""
    with style():
        figures = {figure.name: figure for figure in own.figures(Results((), (), frames, {}, {}, "paper"))}
        for figure in figures.values():
            save_figure(figure, tmp_path, ["png"], 100, "Something said of the run. " * 4)
            figure.drawing.canvas.draw()
    return figures


def arrows(frames, name):
    edges = frames["edges"]
    own = edges[edges["figure"] == name]
    return set(zip(own["start"], own["end"], own["kind"], strict=True))


def named(frames, kind, name):
    return frames[kind][frames[kind]["figure"] == name]


COMMON = {
    ("D_s", "teacher", "training"),
    ("D_t", "student", "data"),
    ("D_t", "loss", "data"),
    ("teacher", "loss", "soft labels"),
    ("student", "loss", "data"),
    ("loss", "student", "training"),
}


def test_the_teacher_sees_target_objects_directly_or_only_through_the_map(frames):
    assert arrows(frames, BASIC) == COMMON | {("D_t", "teacher", "data")}
    assert arrows(frames, ADAPTED) == COMMON | {("D_t", "phi", "data"), ("phi", "teacher", "data")}


@BOTH
def test_the_loss_gets_labels_and_soft_labels(frames, name):
    into = named(frames, "edges", name).query("end == 'loss'").set_index("start")["text"]
    assert into["D_t"] == r"labels $\mathbf{y}$"
    assert into["teacher"].startswith("soft labels")
    assert (r"\varphi" in into["teacher"]) == (name == ADAPTED)
    loss = named(frames, "nodes", name).set_index("node").loc["loss", "text"]
    assert (r"\lambda" in loss, "T_0" in loss) == ((True, False) if name == ADAPTED else (False, True))


def test_domains(frames):
    domains = {
        name: named(frames, "nodes", name).query("role != 'domain'").groupby("domain")["node"].apply(set).to_dict()
        for name in (BASIC, ADAPTED)
    }
    assert domains[BASIC] == {"source": {"D_s", "D_t", "teacher", "student"}, "neither": {"loss"}}
    apart = {"source": {"D_s", "teacher"}, "target": {"D_t", "student"}, "both": {"phi"}, "neither": {"loss"}}
    assert domains[ADAPTED] == apart


def inside(inner, outer):
    return outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1


def boxes_of(ax):
    return {patch.get_gid(): patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)}


@BOTH
def test_no_two_boxes_overlap_and_no_text_leaves_its_box(drawn, frames, name):
    (ax,) = drawn[name].drawing.axes
    extents = boxes_of(ax)
    nodes = named(frames, "nodes", name).set_index("node")
    assert set(extents) == set(nodes.index)
    grounds = [node for node in nodes.index if nodes.loc[node, "role"] == "domain"]
    others = [node for node in nodes.index if node not in grounds]
    for group in (grounds, others):
        for one, other in itertools.combinations(group, 2):
            assert not extents[one].overlaps(extents[other]), (one, other)
    texts = {text.get_gid(): text for text in ax.texts if text.get_gid()}
    assert set(texts) == set(nodes.index)
    for node, text in texts.items():
        assert text.get_text() == nodes.loc[node, "text"]
        assert inside(text.get_window_extent(), extents[node].padded(-3)), node
    place = {"source": ["X_s"], "target": ["X_t"]}
    for node in others:
        held = [ground for ground in grounds if extents[ground].overlaps(extents[node])]
        assert held == place.get(nodes.loc[node, "domain"], []), node
        assert all(inside(extents[node], extents[ground]) for ground in held)


@BOTH
def test_no_text_touches_another_a_box_an_arrow_or_the_margin(drawn, name):
    drawing = drawn[name].drawing
    (ax,) = drawing.axes
    page = drawing.bbox
    texts = [*ax.texts, *ax.get_legend().get_texts(), drawing._supxlabel]
    for text in texts:
        assert inside(text.get_window_extent(), page), text
    for one, other in itertools.combinations(texts, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)
    for text in ax.texts:
        extent = text.get_window_extent()
        for line in ax.lines:
            assert not line.get_transform().transform_path(line.get_path()).intersects_bbox(extent, filled=False), text
        for node, box in boxes_of(ax).items():
            crosses = extent.overlaps(box) and not inside(extent, box)
            assert not crosses, (text, node)


@BOTH
def test_arrows_go_from_border_to_border_around_the_other_boxes(frames, name):
    nodes = named(frames, "nodes", name).query("role != 'domain'").set_index("node")
    corners = named(frames, "corners", name)

    def depth(node, x, y):
        """How far inside the box a place is, in inches; 0 on the border."""
        box = nodes.loc[node]
        return min(box["width"] / 2 - abs(x - box["x"]), box["height"] / 2 - abs(y - box["y"]))

    for edge in named(frames, "edges", name).itertuples():
        way = corners.loc[corners["edge"] == edge.edge, ["x", "y"]].to_numpy()
        assert depth(edge.start, *way[0]) == pytest.approx(0, abs=1e-9)
        assert depth(edge.end, *way[-1]) == pytest.approx(0, abs=1e-9)
        for a, b in itertools.pairwise(way):
            assert np.isclose(a, b).any()  # level or upright
            for place in np.linspace(a, b, 200):
                assert max(depth(node, *place) for node in nodes.index) < 1e-9, edge


@BOTH
def test_drawn_without_axes_and_every_kind_of_arrow_looks_different(drawn, frames, name):
    assert list(drawn) == [BASIC, ADAPTED]
    (ax,) = drawn[name].drawing.axes
    assert not ax.axison
    assert len(ax.lines) == len(named(frames, "edges", name))
    # Not by colour alone: by dashes or by width.
    looks = {(line.get_linestyle(), line.get_linewidth()) for line in ax.lines}
    assert len(looks) == 3
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["trains", "objects, labels, predictions", "soft labels"]
    assert {(line.get_linestyle(), line.get_linewidth()) for line in legend.get_lines()} == looks
