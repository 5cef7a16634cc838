"""Drawings of the Hessian of a vision transformer: Figs 2.1 to 2.8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from experiments.chapter1.loss_difference import title
from experiments.chapter2.tensors import ATTENTION, FAMILIES
from landscape_cli.experiment import Figure, Point, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from experiments.chapter2.hessian_entries import HessianEntries

TITLES = {
    "queries": "Queries",
    "keys": "Keys",
    "values": "Values",
    "layer_norm": "LayerNorm",
    "feed_forward": "FeedForward",
}
# Chosen to be told apart by colour-blind readers; the line style says it again.
LINES = {
    "Q": ("#0072b2", "-"),
    "K": ("#d55e00", "-"),
    "V": ("#009e73", "-"),
    "O": ("#cc79a7", "-"),
    "patches": ("0.15", (0, (5, 1.2))),
    "W1": ("0.45", (0, (3, 1, 1, 1))),
    "W2": ("0.45", (0, (1.2, 1.2))),
    "LN1": ("0.65", (0, (6, 1, 1, 1, 1, 1))),
    "LN2": ("0.65", (0, (2, 2))),
    "head": ("0.15", (0, (1.2, 1.2))),
}


def whole(experiment: HessianEntries, results: Results) -> Iterator[Figure]:
    """Figs 2.1 and 2.2: the whole Hessian and its attention part, both figures on one colour scale."""
    from landscape_cli.plotting.heat_maps import block_lines, log_heat_map, log_limits
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure

    point = _with_entries(results)
    if point is None:
        return
    arrays = results.arrays[point]
    steps = _steps(arrays, "whole")
    ends = {"initial": steps[0], "trained": steps[-1]}
    limits = log_limits([arrays[f"{what}_{step}"] for what in ("whole", "attention") for step in ends.values()])
    spans = _spans(results, point)
    size = max(end for _, end in spans.values())
    for number, (state, step) in zip(("2_1", "2_2"), ends.items(), strict=True):
        drawing, axes = new_figure(1, 2, FULL_WIDTH, 3.5)
        scale = len(arrays[f"whole_{step}"]) / size
        log_heat_map(axes[0, 0], arrays[f"whole_{step}"], limits)
        block_lines(axes[0, 0], {name: (begin * scale, end * scale) for name, (begin, end) in spans.items()}, 5.5)
        axes[0, 0].set_title(f"whole Hessian, $P={size}$")
        image = log_heat_map(axes[0, 1], arrays[f"attention_{step}"], limits)
        part = len(arrays[f"attention_{step}"])
        thirds = {name: (i * part / 3, (i + 1) * part / 3) for i, name in enumerate(ATTENTION)}
        block_lines(axes[0, 1], thirds, 7)
        axes[0, 1].set_title(f"self-attention, {part} x {part}")
        drawing.colorbar(image, ax=axes[0, :], label=r"$\log_{10}|H_{ij}|$", shrink=0.86, pad=0.015, extend="min")
        data = title(results, point.coordinates["dataset"])
        row = _network(results, point, state)
        drawing.suptitle(
            f"{data}, {'after ' + str(step) + ' steps' if step else 'initialised'}: "
            f"test accuracy {row['test_accuracy']:.1%}, " + rf"$\|H\|_2={_written(row['hessian_spectral'])}$",
            fontsize=8.5,
        )
        caption = f"Entries of the Hessian of the {state} transformer, and of its self-attention part."
        what = f"Left: {_pixels(size, len(arrays[f'whole_{step}']))}"
        yield Figure(f"fig_{number}_hessian_{state}", drawing, caption, _note(results, point, what))


def block_norms(experiment: HessianEntries, results: Results) -> Iterator[Figure]:
    """Fig 2.3: norms of the parameter tensors and of their diagonal Hessian blocks along training."""
    from landscape_cli.plotting.curves import band, end_labels
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure

    norms = results.frames["norms"]
    drawn = norms[norms["step"] <= max(experiment.config.measure.norm_steps)]
    drawing, axes = new_figure(1, 2, FULL_WIDTH, 3.6)
    labels = []
    for ax, column, what in (
        (axes[0, 0], "weight_norm", r"parameters, $\|W\|_2$"),
        (axes[0, 1], "hessian_spectral", r"diagonal Hessian block, $\|H_{WW}\|_2$"),
    ):
        ends, texts, colours = [], [], []
        for name in drawn["tensor"].unique():
            own = drawn[drawn["tensor"] == name].pivot(index="seed", columns="step", values=column)
            symbol = drawn.loc[drawn["tensor"] == name, "label"].iloc[0]
            colour, line_style = LINES.get(symbol.split(".")[0], ("0.5", "-"))
            band(ax, own.columns.to_numpy(), own.to_numpy(), colour, linestyle=line_style, linewidth=1)
            ends.append(float(own.iloc[:, -1].mean()))
            part = {"LN1.weight": r" $\gamma$", "LN1.bias": r" $\beta$"}.get(f"LN1.{name.rpartition('.')[2]}", "")
            texts.append(symbol + (part if symbol.startswith("LN") else ""))
            colours.append(colour)
        ax.set_xscale("symlog", linthresh=1, linscale=0.3)
        ax.set_yscale("log")
        last = int(drawn["step"].max())
        ax.set_xlim(0, last * 1.05)
        ax.set_xlabel("training step")
        ax.set_title(what)
        labels.append((ax, ends, texts, colours, last))
    axes[0, 0].set_ylabel("spectral norm (of vectors: length)")
    drawing.draw_without_rendering()
    for ax, ends, texts, colours, last in labels:
        end_labels(ax, ends, texts, colours, last)
    point = results.points[0]
    caption = "Norms of the parameter tensors and of their diagonal Hessian blocks along training."
    note = _note(results, point, "Lines and bands: mean and range over seeds.")
    yield Figure("fig_2_3_block_norms", drawing, caption, note)


def entries(experiment: HessianEntries, results: Results) -> Iterator[Figure]:
    """Figs 2.4 to 2.8: entries of parameters and of their Hessian block at several steps."""
    from landscape_cli.plotting.heat_maps import block_lines, log_heat_map, log_limits
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure

    point = _with_entries(results)
    if point is None:
        return
    arrays = results.arrays[point]
    for number, what in enumerate(FAMILIES, start=4):
        steps = _steps(arrays, what)
        drawing, axes = new_figure(2, len(steps), FULL_WIDTH, 1.75, pictures=True)
        hessians = [arrays[f"{what}_{step}"] for step in steps]
        weights = [arrays[f"{what}_weights_{step}"] for step in steps]
        limits = log_limits(hessians)
        parts = _parts(results, point, what)
        full = max(end for _, end in parts.values())
        largest = max(float(np.abs(w).max()) for w in weights)
        for column, step in enumerate(steps):
            above, below = axes[0, column], axes[1, column]
            tone = above.imshow(weights[column], cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
            above.set_box_aspect(1)
            above.grid(visible=False)
            above.set(xticks=[], yticks=[])
            above.set_title(f"{step} step{'s' if step > 1 else ''}" if step else "initial")
            image = log_heat_map(below, hessians[column], limits)
            if len(parts) > 1:
                scale = len(hessians[column]) / full
                block_lines(below, {name: (a * scale, b * scale) for name, (a, b) in parts.items()}, 5.5)
        _row_label(axes[0, 0], _weights_label(what))
        _row_label(axes[1, 0], r"Hessian block")
        drawing.colorbar(tone, ax=axes[0, :], label="entry", shrink=0.9, pad=0.01)
        drawing.colorbar(image, ax=axes[1, :], label=r"$\log_{10}|H_{ij}|$", shrink=0.9, pad=0.01, extend="min")
        drawing.suptitle(f"{title(results, point.coordinates['dataset'])}: {TITLES[what]}", fontsize=8.5)
        caption = f"Entries of the {TITLES[what]} parameters and of their Hessian block at several training steps."
        note = _note(results, point, _pixels(full, len(hessians[0])).capitalize())
        yield Figure(f"fig_2_{number}_entries_{what}", drawing, caption, note)


def _pixels(size: int, drawn: int) -> str:
    """What a pixel of a heat map shows."""
    side = -(-size // drawn)
    if side == 1:
        return "exact zeros are grey."
    return f"each pixel is the largest |entry| of {side} x {side}, grey where all are zero."


def _parts(results: Results, point: Point, what: str) -> dict[str, tuple[int, int]]:
    """Label -> (begin, end) among the tensors of one figure."""
    parts, begin = {}, 0
    for name, (first, last) in _spans(results, point).items():
        if name.partition(".")[0] in FAMILIES[what] and name.partition(".")[2] in ("", "1"):
            parts[name] = (begin, begin + last - first)
            begin += last - first
    return parts


def _weights_label(what: str) -> str:
    return {
        "layer_norm": r"$\gamma_1, \beta_1, \gamma_2, \beta_2$",
        "feed_forward": r"$W_1$ transposed, $W_2$",
    }.get(what, rf"$W_{what[0].upper()}$")


def _written(value: float) -> str:
    """Three digits; powers of ten as a paper writes them."""
    digits, _, power = f"{value:.3g}".partition("e")
    return rf"{digits}\times 10^{{{int(power)}}}" if power else digits


def _row_label(ax: Axes, text: str) -> None:
    ax.set_ylabel(text, fontsize=7.5)


def _with_entries(results: Results) -> Point | None:
    """The point whose entries are stored: the first seed's."""
    return next((point for point in results.points if any("whole" in name for name in results.arrays[point])), None)


def _steps(arrays: dict[str, np.ndarray], what: str) -> list[int]:
    names = (name.rpartition("_") for name in arrays)
    return sorted(int(step) for begin, _, step in names if begin == what)


def _spans(results: Results, point: Point) -> dict[str, tuple[int, int]]:
    """Label -> (begin, end) in the Hessian."""
    blocks = results.frames["spans"]
    own = blocks[blocks["seed"] == point.coordinates["seed"]]
    return {row["label"]: (row["begin"], row["end"]) for _, row in own.iterrows()}


def _network(results: Results, point: Point, state: str) -> dict:
    network = results.frames["network"]
    own = network[(network["seed"] == point.coordinates["seed"]) & (network["state"] == state)]
    return own.iloc[0].to_dict()


def _note(results: Results, point: Point, what: str) -> str:
    network = results.frames["network"]
    trained = network[network["state"] == "trained"]
    accuracy = trained["test_accuracy"]
    reached = f"{accuracy.min():.1%}" if len(accuracy) == 1 else f"{accuracy.min():.1%} to {accuracy.max():.1%}"
    size = int(network["hessian_objects"].iloc[0])
    seed = point.coordinates["seed"]
    shown = "" if "seeds" in what else f" Seed {seed}."
    return (
        f"Exact Hessian of the mean cross-entropy on the first {size} train objects.{shown} {what} "
        f"Trained: test accuracy {reached}. Hessians in nats per parameter²."
    )
