"""Fig 4.1, Table 4.1: the Belsley method on six functions of which three say what the others do (thesis 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.reference import published_table
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import (
    INCONCLUSIVE,
    NOT_REPRODUCED,
    REPRODUCED,
    Context,
    Experiment,
    Figure,
    Measurement,
    Point,
    Results,
    Table,
    Verdict,
)

FUNCTIONS = {  # symbol -> how it is written in a figure
    "sin x": r"$\sin x$",
    "cos x": r"$\cos x$",
    "2 + cos x": r"$2+\cos x$",
    "2 + sin x": r"$2+\sin x$",
    "cos x + sin x": r"$\cos x+\sin x$",
    "x": r"$x$",
}
NOISE = "rounding noise"


@dataclass
class BelsleyOptions:
    """Where the functions are taken, and which of their matrices is decomposed."""

    end: float = bounded(20.0, above=0)  # of x, from 0, the end included
    step: float = bounded(0.02, above=0)
    matrix: str = bounded("correlation", choices=("correlation", "covariance"))


class BelsleyIllustration(Experiment):
    """Condition indices and variance shares of the functions' correlation matrix."""

    Options = BelsleyOptions

    def points(self) -> list[Point]:
        """One point."""
        options = self.config.measure
        if round(options.end / options.step) < 10:
            raise BadInput(f"measure.step: {options.step:g}; allowed: at most a tenth of measure.end={options.end:g}")
        return [Point.of({}, self.settings())]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``matrix`` (row, column), ``components`` (component) and ``shares`` (component, parameter)."""
        import torch

        from landscape_cli.pruning.orders import belsley, belsley_scores

        options = point.settings["measure"]
        x = np.linspace(0, options["end"], round(options["end"] / options["step"]) + 1)
        values = np.stack([np.sin(x), np.cos(x), 2 + np.cos(x), 2 + np.sin(x), np.cos(x) + np.sin(x), x])
        matrix = np.corrcoef(values) if options["matrix"] == "correlation" else np.cov(values)
        found = belsley(torch.from_numpy(matrix)[None])
        names, size = list(FUNCTIONS), len(FUNCTIONS)
        rank = int(found.rank[0])
        components = pd.DataFrame(
            {
                "component": np.arange(1, size + 1),
                "eigenvalue": found.eigenvalues[0].numpy(),
                "condition_index": found.condition_indices[0].numpy(),
                "noise": np.arange(size) >= rank,
            }
        )
        shares = pd.DataFrame(found.shares[0].mT.numpy(), columns=names)
        shares = shares.assign(component=components["component"]).melt("component", names, "parameter", "share")
        entries = pd.DataFrame(matrix, columns=names).assign(row=names).melt("row", names, "column", "value")
        removed = int(belsley_scores(torch.from_numpy(matrix)[None])[0].argmin())
        parameters = pd.DataFrame({"parameter": names, "null_space": found.null_space[0].numpy()})
        parameters["removed_first"] = np.arange(size) == removed
        frames = {"matrix": entries, "components": components, "shares": shares, "parameters": parameters}
        return Measurement(frames)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Fig 4.1: the matrix, and the shares; where they are rounding noise they are crossed out."""
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure

        names, labels = list(FUNCTIONS), list(FUNCTIONS.values())
        entries = results.frames["matrix"].pivot(index="row", columns="column", values="value").loc[names, names]
        shares = _shares(results)
        components = results.frames["components"]
        drawing, axes = new_figure(1, 2, FULL_WIDTH, 3.1)
        left, right = axes[0]
        largest = float(np.abs(entries.to_numpy()).max())
        drawn = left.imshow(entries.to_numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
        drawing.colorbar(drawn, ax=left, shrink=0.85)
        left.set_title(f"(a) {self.config.measure.matrix} matrix", fontsize=8)
        left.set_yticks(range(len(names)), labels)
        null = results.frames["parameters"].set_index("parameter")["null_space"][names]
        drawn = right.imshow(np.vstack([shares.to_numpy(), null.to_numpy()]), cmap="viridis", vmin=0, vmax=1)
        drawing.colorbar(drawn, ax=right, shrink=0.85)
        right.set_title("(b) variance shares; length in the null space", fontsize=8)
        indices = [
            rf"$\eta_{row.component}={row.condition_index:.1f}$" if not row.noise else rf"$\eta_{row.component}$: noise"
            for row in components.itertuples()
        ]
        right.set_yticks(range(len(names) + 1), [*indices, "null space"])
        right.axhline(len(names) - 0.5, color="w", linewidth=2.5)
        for row in components.itertuples():
            if row.noise:
                right.axhspan(row.component - 1.5, row.component - 0.5, fill=False, hatch="////", edgecolor="w", lw=0)
        for ax in (left, right):
            ax.set_xticks(range(len(names)), labels, rotation=40, ha="right")
            ax.grid(visible=False)
        drawing.suptitle("Functions of which three say what the others do", fontsize=8.5)
        note = (
            "Rows of (b) are components of falling eigenvalue. The matrix has rank "
            f"{int((~components['noise']).sum())}: in the hatched rows eigenvalues and shares are rounding noise. Last "
            "row: squared length of each parameter's axis in the null space, which is not."
        )
        yield Figure("fig_4_1_belsley_illustration", drawing, "Illustration of the Belsley method.", note)

    def tables(self, results: Results) -> Iterator[Table]:
        """Table 4.1, rows of noise marked; and what takes their place, the length in the null space."""
        components, shares = results.frames["components"], _shares(results)
        published = published_table("4.1").set_index(["row", "column"])["value"]
        rows = []
        for row in components.itertuples():
            number = str(row.component)
            own = shares.loc[row.component]
            rows.append(
                {
                    "component": number,
                    "eta": f"{row.condition_index:.3g}",
                    **{f"q_{k + 1}": f"{share:.3g}" for k, share in enumerate(own)},
                    "published_eta": published.get((number, "eta"), "–"),
                    **{f"published_q_{k + 1}": published.get((number, f"q_{k + 1}"), "–") for k in range(len(own))},
                    "what": NOISE if row.noise else "exact; shares below 1e-15 are zero",
                }
            )
        null = results.frames["parameters"]
        lengths = {f"q_{k + 1}": f"{value:.3g}" for k, value in enumerate(null["null_space"])}
        rows.append({"component": "null space", "eta": "∞", **lengths, "what": "exact: squared length in it"})
        frame = pd.DataFrame(rows).fillna("–")
        first = null.loc[null["removed_first"], "parameter"].iloc[0]
        caption = (
            "Condition indices and variance shares q_k of the parameters sin x, cos x, 2 + cos x, 2 + sin x, "
            "cos x + sin x and x. Published digits are cut off, not rounded. The matrix has rank "
            f"{int((~components['noise']).sum())}: the other rows hang on rounding errors; the null space as a whole "
            f"does not, and {first} goes first: none lies in it more. Printed shares of 1e17 and 2e17 have lost "
            "a minus sign."
        )
        yield Table("table_4_1_belsley_illustration", frame, caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Compare the rows that are no noise with the printed ones, and what the text reads off the last one."""
        if self.config.measure != BelsleyOptions():
            return  # the printed numbers are of these functions on this grid
        components, shares = results.frames["components"].set_index("component"), _shares(results)
        published = published_table("4.1").set_index(["row", "column"])["value"]
        cells = []
        for number in components.index[~components["noise"]]:
            cells.append((components.loc[number, "condition_index"], published.get((str(number), "eta"))))
            cells.append((shares.loc[number].iloc[-1], published.get((str(number), "q_6"))))
        cells = [(value, text) for value, text in cells if text is not None]
        agree = sum(_cut(value, text) for value, text in cells)
        yield Verdict(
            claim="η of 1.0, 1.5, 3.3, and the shares of x in them",
            source="Table 4.1",
            statistic=f"cells that agree to the printed digits, cut off, of {len(cells)}",
            verdict=REPRODUCED if agree == len(cells) else NOT_REPRODUCED,
            effect=float(agree),
            low=float(agree),
            high=float(agree),
        )
        null = results.frames["parameters"].set_index("parameter")["null_space"]
        difference = float(null[["sin x", "2 + sin x"]].mean() - null[["cos x", "2 + cos x", "cos x + sin x"]].max())
        yield Verdict(
            claim="The largest condition index belongs to parameters 1 and 4, sin x and 2 + sin x",
            source="thesis 4.1, of Table 4.1",
            statistic="squared length of their axes in the null space, less the longest of the others'; to be positive",
            verdict=INCONCLUSIVE if abs(difference) < 1e-9 else REPRODUCED if difference > 0 else NOT_REPRODUCED,
            effect=difference,
            low=difference,
            high=difference,
            note="the printed index, 1.2e16, is rounding noise: five of six parameters depend on each other",
        )


def _shares(results: Results) -> pd.DataFrame:
    """Shares by component (row) and parameter (column)."""
    frame = results.frames["shares"]
    return frame.pivot(index="component", columns="parameter", values="share")[list(FUNCTIONS)]


def _cut(value: float, text: str) -> bool:
    """Whether a number agrees with printed digits that were cut off."""
    printed = float(text)
    digits = len(text.partition("e")[0].replace(".", "").lstrip("0"))
    unit = 10.0 ** (np.floor(np.log10(printed)) - digits + 1)
    return bool(-1e-9 * unit <= value - printed < (1 - 1e-9) * unit)
