"""Figs 4.2, 4.3: who hands what to whom in distillation, in one domain and from one domain to another (thesis 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from landscape_cli.experiment import Context, Experiment, Figure, Measurement, Point, Results, with_units

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

BASIC, ADAPTED = "fig_4_2_basic_distillation", "fig_4_3_distillation_with_domain_adaptation"
SOURCE, TARGET, BOTH, NEITHER = "source", "target", "both", "neither"
TRAINING, DATA, SOFT = "training", "data", "soft labels"
SIZE = (6.8, 3.9)  # inches drawn on: the page's width less the margins
SMALL_PRINT = 0.4  # inches left below


@dataclass(frozen=True)
class Box:
    """A node of a diagram. Lengths are inches from the lower left corner of the drawing."""

    node: str
    role: str  # domain (a tinted ground behind the others), data, model, mapping or loss
    domain: str  # whose objects it holds or takes
    x: float  # of the centre
    y: float
    width: float
    height: float
    text: str
    text_at: tuple[float, float] | None = None  # the middle of the text, where it is not the box's

    def at(self, right: float, up: float) -> tuple[float, float]:
        """Return a place in the box: `right` and `up` go from -1 to 1."""
        return self.x + right * self.width / 2, self.y + up * self.height / 2


@dataclass(frozen=True)
class Arrow:
    """An edge of a diagram, drawn in straight pieces."""

    start: str
    end: str
    kind: str  # TRAINING, DATA or SOFT
    text: str  # what is handed over
    text_at: tuple[float, float]  # the middle of the text
    corners: tuple[tuple[float, float], ...]  # from the border of the first box to that of the second


# The boxes that both diagrams have, in three columns, and the map between the rows of Fig 4.3.
LARGE = Box("D_s", "data", SOURCE, 0.98, 3.16, 1.62, 0.74, "Source data, large\n$\\mathfrak{D}_s$: $n$ objects")
SMALL = Box("D_t", "data", TARGET, 0.98, 1.3, 1.62, 0.74, "Target data, small\n$\\mathfrak{D}_t$: $m\\ll n$ objects")
TEACHER = Box(
    "teacher", "model", SOURCE, 3.4, 3.16, 1.62, 0.74, "Teacher $\\mathbf{f}$\nsoftmax$(\\mathbf{v}(\\mathbf{x})/T)$"
)
STUDENT = Box("student", "model", TARGET, 3.4, 1.3, 1.62, 0.74, "Student $\\mathbf{g}$\n$\\mathbb{X}_t\\to\\mathbb{Y}$")
PHI = Box("phi", "mapping", BOTH, 2.0, 2.23, 1.2, 0.36, "$\\varphi:\\mathbb{X}_t\\to\\mathbb{X}_s$")
LOSS = Box("loss", "loss", NEITHER, 5.86, 1.5, 1.84, 1.34, "")
BASIC_LOSS = (
    "Loss $\\mathcal{L}$\ncross-entropy with $\\mathbf{y}$\nat $T=1$\n"
    "+ cross-entropy with\n$\\mathbf{f}(\\mathbf{x})$ at $T=T_0$"
)
ADAPTED_LOSS = (
    "Loss $\\mathcal{L}$\n$\\lambda$ cross-entropy with $\\mathbf{y}$\n"
    "+ $(1-\\lambda)$ cross-entropy\nwith $(\\mathbf{f}\\circ\\varphi)(\\mathbf{x})$"
)

BOXES = {
    BASIC: (
        Box(
            "X_s", "domain", SOURCE, 2.23, 2.235, 4.32, 3.23, "One domain: $\\mathbb{X}_t=\\mathbb{X}_s$", (0.98, 3.69)
        ),
        LARGE,
        TEACHER,
        replace(SMALL, domain=SOURCE, text="Target data, small\n$\\mathfrak{D}_t\\subset\\mathfrak{D}_s$: $m\\ll n$"),
        replace(STUDENT, domain=SOURCE),
        replace(LOSS, text=BASIC_LOSS),
    ),
    ADAPTED: (
        Box("X_s", "domain", SOURCE, 2.23, 3.275, 4.32, 1.15, "Source domain $\\mathbb{X}_s$", (0.98, 3.69)),
        Box("X_t", "domain", TARGET, 2.23, 1.19, 4.32, 1.14, "Target domain $\\mathbb{X}_t$", (3.4, 0.77)),
        LARGE,
        TEACHER,
        PHI,
        SMALL,
        STUDENT,
        replace(LOSS, text=ADAPTED_LOSS),
    ),
}


def _shared(soft: str) -> tuple[Arrow, ...]:
    """Return the arrows that both diagrams have; `soft` is what the teacher hands to the loss."""
    gap = (BOXES[BASIC][0].at(1, 0)[0] + LOSS.at(-1, 0)[0]) / 2  # between the domains and the loss
    answers, update = STUDENT.y + 0.14, STUDENT.y - 0.14
    below, above = 0.47, TEACHER.y
    return (
        Arrow(
            "D_s",
            "teacher",
            TRAINING,
            "$\\mathbf{x},\\,\\mathbf{y}$",
            (2.19, 3.29),
            (LARGE.at(1, 0), TEACHER.at(-1, 0)),
        ),
        Arrow("D_t", "student", DATA, "$\\mathbf{x}$", (2.19, 1.41), (SMALL.at(1, 0), STUDENT.at(-1, 0))),
        Arrow(
            "D_t",
            "loss",
            DATA,
            "labels $\\mathbf{y}$",
            (5.13, below + 0.13),
            (SMALL.at(0, -1), (SMALL.x, below), (LOSS.x, below), LOSS.at(0, -1)),
        ),
        Arrow("teacher", "loss", SOFT, soft, (5.13, above + 0.15), (TEACHER.at(1, 0), (LOSS.x, above), LOSS.at(0, 1))),
        Arrow(
            "student",
            "loss",
            DATA,
            "$\\mathbf{g}(\\mathbf{x})$",
            (gap, answers + 0.13),
            ((STUDENT.at(1, 0)[0], answers), (LOSS.at(-1, 0)[0], answers)),
        ),
        Arrow(
            "loss",
            "student",
            TRAINING,
            "$\\min_{\\mathbf{w}}\\,\\mathcal{L}$",
            (gap, update - 0.14),
            ((LOSS.at(-1, 0)[0], update), (STUDENT.at(1, 0)[0], update)),
        ),
    )


ARROWS = {
    BASIC: (
        *_shared("soft labels $\\mathbf{f}(\\mathbf{x})$"),
        Arrow(
            "D_t",
            "teacher",
            DATA,
            "$\\mathbf{x}$",
            (2.19, PHI.y + 0.11),
            (SMALL.at(0, 1), (SMALL.x, PHI.y), (TEACHER.x, PHI.y), TEACHER.at(0, -1)),
        ),
    ),
    ADAPTED: (
        *_shared("soft labels $(\\mathbf{f}\\circ\\varphi)(\\mathbf{x})$"),
        Arrow(
            "D_t", "phi", DATA, "$\\mathbf{x}$", (1.19, PHI.y + 0.11), (SMALL.at(0, 1), (SMALL.x, PHI.y), PHI.at(-1, 0))
        ),
        Arrow(
            "phi",
            "teacher",
            DATA,
            "$\\varphi(\\mathbf{x})$",
            (3.0, PHI.y + 0.14),
            (PHI.at(1, 0), (TEACHER.x, PHI.y), TEACHER.at(0, -1)),
        ),
    ),
}

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#00795a", "#8f3f79"
EDGE_OF = {SOURCE: BLUE, TARGET: ORANGE, BOTH: "0.25", NEITHER: "0.25"}
GROUND_OF = {SOURCE: "#e3eff8", TARGET: "#fdebdc"}
LOOK_OF = {  # colour, line style, width
    TRAINING: (GREEN, "-", 2.4),
    DATA: ("0.2", "-", 1.0),
    SOFT: (PURPLE, (0, (4, 1.6)), 1.5),
}
LEGEND = {TRAINING: "trains", DATA: "objects, labels, predictions", SOFT: "soft labels"}
ROUNDING = {"domain": 0.12, "mapping": 0.18}  # inches; 0.08 otherwise
HEAD = 0.1  # inches, the length of an arrow's head
FONT = 10  # points: half of it is left at column width


class SchematicDistillation(Experiment):
    """Diagrams of distillation: the teacher's soft labels, and the map that lets it answer for another domain."""

    def points(self) -> list[Point]:
        """One point: there is nothing to vary."""
        return [Point.of({}, self.settings())]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``nodes``, ``edges`` and ``corners`` (the ways of the edges), each with the figure's name."""
        nodes, edges, corners = [], [], []
        for figure, boxes in BOXES.items():
            nodes.extend(_row(figure, box, box.text_at or (box.x, box.y)) for box in boxes)
            for number, arrow in enumerate(ARROWS[figure]):
                edges.append({"edge": number} | _row(figure, arrow, arrow.text_at))
                corners.extend({"edge": number, "figure": figure, "x": x, "y": y} for x, y in arrow.corners)
        frames = {"nodes": pd.DataFrame(nodes), "edges": pd.DataFrame(edges), "corners": pd.DataFrame(corners)}
        lengths = ("x", "y", "width", "height", "text_x", "text_y")
        return Measurement(with_units(frames, dict.fromkeys(lengths, "in")))

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the boxes, the arrows and what the arrows' looks mean."""
        captions = {BASIC: "Basic distillation.", ADAPTED: "Distillation with domain adaptation."}
        notes = {
            BASIC: "Illustration. The teacher sees the target objects as they are: they belong to its own domain.",
            ADAPTED: "Illustration. The teacher sees the target objects only through the map φ into its own domain.",
        }
        for name, caption in captions.items():
            own = {kind: frame[frame["figure"] == name] for kind, frame in results.frames.items()}
            yield Figure(name, _draw(own), caption, notes[name])


def _row(figure: str, part: Box | Arrow, text_at: tuple[float, float]) -> dict[str, object]:
    """Return a box or an arrow as a row of its frame."""
    plain = {name: value for name, value in asdict(part).items() if name not in ("text_at", "corners")}
    return {"figure": figure, **plain, "text_x": text_at[0], "text_y": text_at[1]}


def _draw(own: Mapping[str, pd.DataFrame]) -> Drawing:
    """Draw one diagram from its nodes, edges and corners."""
    from matplotlib.lines import Line2D

    from landscape_cli.plotting.style import FULL_WIDTH, new_figure

    drawing, axes = new_figure(1, 1, FULL_WIDTH, SIZE[1] + SMALL_PRINT, whole=True)
    ax = axes[0, 0]
    ax.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    ax.set_aspect("equal")
    ax.set_axis_off()
    for node in own["nodes"].itertuples():
        _box(ax, node)
    for edge in own["edges"].itertuples():
        way = own["corners"].loc[own["corners"]["edge"] == edge.edge, ["x", "y"]]
        _arrow(ax, way.to_numpy(), edge.kind)
        ax.text(
            edge.text_x, edge.text_y, edge.text, color=LOOK_OF[edge.kind][0], fontsize=FONT, ha="center", va="center"
        )
    handles = [
        Line2D([], [], color=colour, linestyle=line, linewidth=width, label=LEGEND[kind])
        for kind, (colour, line, width) in LOOK_OF.items()
    ]
    look = {"fontsize": 9.5, "handlelength": 3, "columnspacing": 3, "borderaxespad": 0}
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.0), ncols=len(handles), **look)
    return drawing


def _box(ax: Axes, node: object) -> None:
    """Draw a box and its text; a domain is a tinted ground without a border."""
    from matplotlib.patches import FancyBboxPatch

    ground = node.role == "domain"
    patch = FancyBboxPatch(
        (node.x - node.width / 2, node.y - node.height / 2),
        node.width,
        node.height,
        boxstyle=f"round,pad=0,rounding_size={ROUNDING.get(node.role, 0.08)}",
        facecolor=GROUND_OF[node.domain] if ground else "white",
        edgecolor="none" if ground else EDGE_OF[node.domain],
        linewidth=1.1,
        zorder=0 if ground else 2,
        gid=node.node,
    )
    ax.add_patch(patch)
    colour = EDGE_OF[node.domain] if ground else "0.1"
    weight = "bold" if ground else "normal"
    where = {"ha": "center", "va": "center", "linespacing": 1.35, "zorder": 3}
    ax.text(node.text_x, node.text_y, node.text, fontsize=FONT, color=colour, weight=weight, gid=node.node, **where)


def _arrow(ax: Axes, way: object, kind: str) -> None:
    """Draw an arrow along its corners; the head is a filled triangle, whatever the line's style."""
    import numpy as np

    colour, line, width = LOOK_OF[kind]
    tip = way[-1]
    along = (tip - way[-2]) / np.linalg.norm(tip - way[-2])
    across = np.array([-along[1], along[0]])
    base = tip - HEAD * along
    shaft = np.vstack([way[:-1], base + 0.2 * HEAD * along])
    ax.plot(
        *shaft.T,
        color=colour,
        linestyle=line,
        linewidth=width,
        solid_capstyle="butt",
        solid_joinstyle="round",
        zorder=1,
    )
    ax.fill(
        *np.array([tip, base + 0.5 * HEAD * across, base - 0.5 * HEAD * across]).T,
        color=colour,
        linewidth=0,
        zorder=2.5,
    )
