"""Fig 1.1: how the loss changes when an object is added, drawn from two quartics."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.polynomial import Polynomial

from landscape_cli.experiment import Context, Experiment, Figure, Measurement, Point, Results

W = Polynomial([0.0, 1.0])
L_K = 0.2 * ((W - 0.1) ** 4 - 5 * W**3 + 6 * W**2 - W) + 2
L_K1 = 0.2 * ((W - 0.1) ** 4 - 5 * (W - 0.02) ** 3 + 6 * (W - 0.02) ** 2 - W) + 1.8
SAMPLES = 1000
SHOWN = (-0.7, 4.05)
MARKED = 3.1  # where the thesis marks the shared minimum


class SchematicLossChange(Experiment):
    """Illustration of Assumption 1: L_k and L_{k+1} share a minimum, and differ by little."""

    def points(self) -> list[Point]:
        """One point: there is nothing to vary."""
        return [Point.of({}, self.settings())]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``curves`` and ``minima`` (the true ones, from the roots of the derivatives)."""
        w = np.linspace(*SHOWN, SAMPLES)
        rows = []
        for name, curve in (("L_k", L_K), ("L_k+1", L_K1)):
            roots = curve.deriv().roots()
            real = np.sort(roots[np.isreal(roots)].real)
            best = min(real, key=curve)
            rows.append({"curve": name, "w": float(best), "value": float(curve(best))})
        return Measurement(
            {"curves": pd.DataFrame({"w": w, "L_k": L_K(w), "L_k+1": L_K1(w)}), "minima": pd.DataFrame(rows)}
        )

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw both curves, the gap between them and the shared minimum."""
        from landscape_cli.plotting.style import COLUMN_WIDTH, new_figure, ordered_colours

        curves, minima = results.frames["curves"], results.frames["minima"].set_index("curve")
        dark, bright = ordered_colours(3)[:2]
        drawing, axes = new_figure(1, 1, COLUMN_WIDTH, 2.5)
        ax = axes[0, 0]
        ax.fill_between(curves["w"], curves["L_k"], curves["L_k+1"], color="0.88", label="change of the loss")
        ax.plot(curves["w"], curves["L_k"], color=dark, label=r"$\mathcal{L}_k(w)$")
        ax.plot(curves["w"], curves["L_k+1"], color=bright, linestyle=(0, (5, 1.2)), label=r"$\mathcal{L}_{k+1}(w)$")
        low = float(curves[["L_k", "L_k+1"]].min().min())
        ax.set_ylim(low - 0.35, None)
        ax.plot([MARKED, MARKED], [low - 0.35, L_K(MARKED)], color="0.4", linewidth=0.7, linestyle=":")
        ax.plot([MARKED, MARKED], [L_K(MARKED), L_K1(MARKED)], "o", color="0.2", markersize=3)
        ax.text(MARKED + 0.07, low - 0.3, "$w^*$", fontsize=8, va="bottom")
        ax.set_xlim(*SHOWN)
        ax.set_xlabel("parameter $w$")
        ax.set_ylabel("loss")
        ax.legend(loc="upper right")
        at = " and ".join(f"{w:.3f}" for w in minima["w"])
        note = f"Illustration. The minima of the curves drawn are at w = {at}; the thesis marks {MARKED} for both."
        yield Figure("fig_1_1_schematic_loss_change", drawing, "How the loss changes when an object is added.", note)
