"""Fig 3.1: how a posterior moves as objects come, drawn from real posteriors of a line through the origin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from landscape_cli.experiment import Context, Experiment, Figure, Measurement, Point, Results

SIZES = (5, 6, 40, 41)  # two neighbours with few objects, and two with many
GRID = np.linspace(-0.3, 2.5, 600)


class SchematicPosteriorShift(Experiment):
    """Illustration of KL- and S-sufficiency: neighbouring posteriors come together as objects are added."""

    def points(self) -> list[Point]:
        """One point: there is nothing to vary."""
        return [Point.of({}, self.settings())]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``posteriors`` (k, mean, deviation) and ``steps`` (k: KL and s-score to k + 1)."""
        from landscape_cli.bounds.sample_size import Posterior

        random = np.random.default_rng(37)
        posterior, rows, steps = Posterior(1, 1.0, 1.0), [], []
        for k in range(max(SIZES) + 1):
            if k in SIZES:
                rows.append({"k": k, "mean": posterior.mean[0], "deviation": np.sqrt(posterior.covariance[0, 0])})
            x = random.standard_normal(1)
            step = posterior.add(x, float(x[0] + random.standard_normal()))
            if k in SIZES and k + 1 in SIZES:
                steps.append({"k": k, "kl": step.kl, "s_score": step.s_score})
        return Measurement({"posteriors": pd.DataFrame(rows), "steps": pd.DataFrame(steps)})

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw the densities of both pairs."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure

        posteriors, steps = results.frames["posteriors"].set_index("k"), results.frames["steps"]
        drawing, axes = new_figure(1, 2, FULL_WIDTH, 2.4)
        for ax, step in zip(axes[0], steps.itertuples(), strict=True):
            for k, colour, line in ((step.k, "#0072b2", "-"), (step.k + 1, "#d55e00", (0, (5, 1.2)))):
                mean, deviation = posteriors.loc[k, "mean"], posteriors.loc[k, "deviation"]
                density = np.exp(-(((GRID - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
                ax.plot(GRID, density, color=colour, linestyle=line, label=f"$p_{{{k}}}(w)$")
                ax.fill_between(GRID, density, color=colour, alpha=0.08, linewidth=0)
            ax.set(xlabel="parameter $w$", ylabel="density of the posterior", xlim=(GRID[0], GRID[-1]), ylim=(0, None))
            ax.set_title(f"KL = {step.kl:.2g} nats, s-score = {step.s_score:.3g}", fontsize=8)
            ax.legend(loc="upper right")
        note = "Illustration: posteriors of y = w x + noise, w = 1, before and after one more object."
        caption = "Example of the shift of distributions as objects are added."
        yield Figure("fig_3_1_schematic_posterior_shift", drawing, caption, note)
