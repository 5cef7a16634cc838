"""Figs 4.4 to 4.9: quality against the share removed, and surfaces of the output's noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from landscape_cli.experiment import Figure, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "random": "random",
    "magnitude": "magnitude",
    "optimal_brain_damage": "optimal brain damage",
    "variational": "variational",
    "belsley": "Belsley, covariance",
    "belsley_precision": "Belsley, precision",
    "gradient_covariance": "gradient covariance",
}
COLOURS = {
    "random": "0.45",
    "magnitude": "#cc79a7",
    "optimal_brain_damage": "#d55e00",
    "variational": "#009e73",
    "belsley": "#0072b2",
    "belsley_precision": "#56b4e9",
    "gradient_covariance": "#e69f00",
}
DASH = {
    "random": (0, (1.2, 1.2)),
    "magnitude": (0, (3, 1, 1, 1)),
    "optimal_brain_damage": (0, (5, 1.2)),
    "variational": (0, (3, 1, 1, 1)),
    "belsley": "-",
    "belsley_precision": (0, (8, 2)),
    "gradient_covariance": (0, (6, 1, 1, 1, 1, 1)),
}
LIMIT = "0.35"


def figures(results: Results, config: Any) -> Iterator[Figure]:
    """Draw all figures of one data set; those of the thesis bear its numbers."""
    name = config.name.removeprefix("pruning_")
    about = next(iter(results.sources.values())).title if results.sources else name
    first, second = config.name, f"{config.name}_noise"
    if config.thesis:
        chapter, number = map(int, config.thesis.removeprefix("figure ").split("."))
        first = f"fig_{chapter}_{number}_pruning_quality_{name}"
        second = f"fig_{chapter}_{number + 1}_pruning_noise_{name}"
    yield curves_figure(results, first, about, protocol(results, config))
    if "surface" not in results.frames:
        return
    surface = results.frames["surface"].groupby(["method", "share", "noise"])["deviation"].mean()
    yield surfaces_figure(surface, second, about, results)
    yield heat_maps_figure(surface, f"{second}_heat", about, results)


def protocol(results: Results, config: Any) -> str:
    """What the text leaves open, in a sentence for the figure's note."""
    options, training, curves = config.measure, config.training, results.frames["curves"]
    words = [f"{int(curves['removed'].max())} parameters, {curves['seed'].nunique()} restarts."]
    if hasattr(options, "test_share"):
        words.append(f"Each has a split of its own, {options.test_share:.0%} of the objects tested.")
    if training is None:
        words.append("Parameters drawn from the given posterior N(m, A), not trained; the variational order knows m.")
    if "belsley" in options.methods or "belsley_precision" in options.methods:
        words.append("Belsley: one parameter at a time; precision: given that the removed ones are zero.")
    if hasattr(options, "posterior_iterations"):
        words.append(
            f"Pruned at the mean of a variational posterior with a {options.covariance} covariance, "
            f"{options.posterior_iterations} iterations after the training."
        )
    if getattr(options, "retrain", 0):
        words.append(
            f"Retrained: {options.retrain} epoch{'s' * (options.retrain > 1)} after each of {options.retrain_steps} "
            "steps, from the network on the left; posterior and gradients are those of the whole network."
        )
    return " ".join(words)


def quality_label(results: Results) -> str:
    """What is measured on the test objects."""
    return "accuracy" if is_classification(results) else "mean squared error"


def is_classification(results: Results) -> bool:
    """Whether quality is an accuracy: then no quality is above one, and the first network's is better than none."""
    curves = results.frames["curves"]
    if results.sources:
        source = next(iter(results.sources.values()))
        return getattr(source, "task", "classification") == "classification"
    full, empty = (curves.loc[curves["share"] == share, "test"].mean() for share in (0, 1))
    return bool(curves["test"].max() <= 1 and full > empty)


def curves_figure(results: Results, name: str, about: str, note: str) -> Figure:
    """Quality on the test objects against the share removed, without and with retraining."""
    from landscape_cli.plotting.style import FULL_WIDTH, SINGLE_WIDTH, new_figure, titled_legend

    curves = results.frames["curves"]
    kinds = sorted(curves["retrained"].unique())
    accuracy = is_classification(results)
    compared = not accuracy and len(kinds) == 1 and "random" in set(curves["method"])
    panels = len(kinds) + compared
    drawing, axes = new_figure(1, panels, FULL_WIDTH if panels > 1 else SINGLE_WIDTH, 3.2)
    tables = {
        (method, retrained): mine.pivot(index="share", columns="seed", values="test")
        for (method, retrained), mine in curves.groupby(["method", "retrained"])
    }
    for ax, retrained in zip(axes[0], kinds, strict=False):
        if not accuracy:
            ax.set_yscale("log")
        for method in [method for method in LABELS if (method, retrained) in tables]:
            _band(ax, tables[method, retrained], method, shaded=not compared)
        empty = curves.loc[curves["share"] == 1, "test"].mean()
        ax.axhline(empty, color=LIMIT, linewidth=0.7, linestyle=(0, (4, 2)))
        ax.set(xlabel="parameters removed, %", xlim=(0, 100), ylabel=quality_label(results))
        if len(kinds) > 1:
            ax.set_title("retrained after every step" if retrained else "no retraining", fontsize=8)
    low, high = (f(ax.get_ylim()[i] for ax in axes[0][: len(kinds)]) for i, f in ((0, min), (1, max)))
    for ax in axes[0][: len(kinds)]:
        ax.set_ylim(max(low, 0), min(high, 1.02) if accuracy else high)
    shown = "Lines: means over restarts; bands: their 95 % intervals. Dashed grey: the empty network."
    if compared:
        ax, chance = axes[0, -1], np.log(tables["random", False])
        for method in [method for method in LABELS if (method, False) in tables]:
            _band(ax, np.log(tables[method, False]) - chance, method, shaded=True)
        ax.set(xlabel="parameters removed, %", xlim=(0, 100), ylabel="log of the error over random's")
        shown += " Right: each restart's error beside that of its own random order."
    titled_legend(
        drawing,
        f"Quality as parameters are removed, {about}",
        axes[0, 0],
        3 if len(curves["method"].unique()) > 4 else 4,
    )
    return Figure(name, drawing, f"Quality against the share of parameters removed, {about}.", f"{shown} {note}")


def _band(ax: Axes, table: pd.DataFrame, method: str, *, shaded: bool) -> None:
    """A method's quality over restarts (columns) against the share removed (rows), with or without its interval."""
    from landscape_cli.plotting.curves import interval_band

    look = {"linestyle": DASH[method], "label": LABELS[method]}
    values = table.to_numpy().T
    interval_band(
        ax, 100 * table.index.to_numpy(), values if shaded else values.mean(axis=0)[None], COLOURS[method], **look
    )


def _grids(surface: pd.Series) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Each method's surface (noise, share) and the two axes, which all methods share."""
    grids = {m: surface[m].unstack("share") for m in LABELS if m in surface.index.get_level_values("method")}
    first = next(iter(grids.values()))
    shares, noise = 100 * first.columns.to_numpy(), first.index.to_numpy()
    return {method: grid.to_numpy() for method, grid in grids.items()}, shares, noise


def surfaces_figure(surface: pd.Series, name: str, about: str, results: Results) -> Figure:
    """Each method's surface in three dimensions, on the same axes and colour scale."""
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure

    grids, shares, noise = _grids(surface)
    columns = 3 if len(grids) > 4 else len(grids)
    rows = -(-len(grids) // columns)
    width, space = FULL_WIDTH * max(columns, 1.5) / 3, {"projection": "3d"}
    drawing, axes = new_figure(rows, columns, width, 2.4, extra=0.5, panels=len(grids), pictures=True, axes=space)
    top = max(grid.max() for grid in grids.values())
    for ax in axes.flat[len(grids) :]:
        ax.remove()
    for ax, (method, grid) in zip(axes.flat, grids.items(), strict=False):
        x, y = np.meshgrid(shares, noise)
        drawn = ax.plot_surface(x, y, grid, cmap="viridis", vmin=0, vmax=top, linewidth=0.2, edgecolor="0.3")
        ax.set(xlim=(0, 100), ylim=(noise[0], noise[-1]), zlim=(0, top))
        ax.set_title(LABELS[method], fontsize=8, y=0.98)
        ax.set_xlabel("removed, %", fontsize=6.5, labelpad=-7)
        ax.set_ylabel("input noise", fontsize=6.5, labelpad=-7)
        ax.tick_params(labelsize=5.5, pad=-3)
        ax.set_box_aspect((1, 1, 0.75), zoom=0.92)
        ax.view_init(elev=24, azim=-128)
    drawing.colorbar(
        drawn, ax=list(axes.flat[: len(grids)]), shrink=0.6, pad=0.03, label=f"output noise{_output(results)}"
    )
    drawing.suptitle(f"Noise of the output as parameters are removed, {about}", fontsize=8.5)
    return Figure(name, drawing, f"Output noise against input noise and share removed, {about}.", _noise_note(results))


def heat_maps_figure(surface: pd.Series, name: str, about: str, results: Results) -> Figure:
    """The same surfaces from above."""
    from landscape_cli.plotting.style import FULL_WIDTH, new_figure

    grids, shares, noise = _grids(surface)
    columns = 3 if len(grids) > 4 else len(grids)
    rows = -(-len(grids) // columns)
    drawing, axes = new_figure(rows, columns, FULL_WIDTH * max(columns, 1.5) / 3, 1.9, panels=len(grids), pictures=True)
    top = max(grid.max() for grid in grids.values())
    for ax in axes.flat[len(grids) :]:
        ax.remove()
    levels = np.linspace(0, top, 9)[1:-1]
    for number, (ax, (method, grid)) in enumerate(zip(axes.flat, grids.items(), strict=False)):
        drawn = ax.pcolormesh(shares, noise, grid, cmap="viridis", vmin=0, vmax=top, shading="gouraud", rasterized=True)
        ax.contour(shares, noise, grid, levels=levels, colors="w", linewidths=0.5)
        ax.grid(visible=False)
        ax.set_title(LABELS[method], fontsize=8)
        ax.set(xlim=(0, 100), ylim=(noise[0], noise[-1]))
        if number % columns == 0:
            ax.set_ylabel("input noise")
        if number + columns >= len(grids):
            ax.set_xlabel("parameters removed, %")
    drawing.colorbar(drawn, ax=list(axes.flat[: len(grids)]), shrink=0.8, label=f"output noise{_output(results)}")
    drawing.suptitle(f"Noise of the output as parameters are removed, {about}", fontsize=8.5)
    note = f"{_noise_note(results)} White: eight equal parts of the scale."
    return Figure(name, drawing, f"Output noise against input noise and share removed, {about}.", note)


def _output(results: Results) -> str:
    return " (probabilities)" if is_classification(results) else " (units of the target)"


def _noise_note(results: Results) -> str:
    seeds = results.frames["surface"]["seed"].nunique()
    return (
        "Standard deviation of the output over noisy copies of a test object, root mean square over objects and "
        f"outputs, mean over {seeds} restarts; input noise in standard deviations of a feature. All methods on one "
        "scale. A network that gives every object the same output has no noise either: see the figure of the quality."
    )
