"""Every bound of the Hessian's norm beside the exact norm: random, trained and adversarial networks (spec: theorems).

The thesis prints the bounds and never compares them with a norm. Here each network has its exact norm, what the theorem
prints, the corrected form and the form with the network's own matrices (`tight`), and every violation is counted. The
adversarial networks are random ones driven by gradient ascent to where the ratio of norm and bound is largest: a true
bound survives that.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import title
from experiments.chapter1.sweep import label
from experiments.grid import Grid
from landscape_cli.config import bounded
from landscape_cli.experiment import (
    INCONCLUSIVE,
    NOT_REPRODUCED,
    REPRODUCED,
    Context,
    Figure,
    Measurement,
    Point,
    Results,
    Table,
    Verdict,
    with_units,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes

    from experiments.beyond.search import Family, State

VARIANTS = ("printed", "corrected", "tight")
UNITS = dict.fromkeys(("measured", *VARIANTS), "nats per parameter²")
LOOKS = {  # colour, line style, marker, and what the legend says
    "printed": ("#d55e00", (0, (5, 1.5)), "X", "as printed"),
    "corrected": ("#0072b2", "-", "o", "corrected"),
    "tight": ("0.25", (0, (1.2, 1.2)), "^", "corrected, own norms"),
}
KINDS = ("random", "trained", "adversarial")
QUANTITIES = {
    "gauss_newton": r"\|H_O\|",
    "hessian": r"\|H\|",
    "network": r"\|\partial^2Z/\partial W_i\partial W_j\|",
}
PLAIN = {"gauss_newton": "‖H_O‖", "hessian": "‖H‖", "network": "‖∂²Z‖"}  # the same in tables
CLAIMED = dict.fromkeys(("11", "12", "13", "14", "15", "16"), "gauss_newton")  # the others bound ‖H‖ itself
ROUNDING = 1e-9  # relative; a bound may be attained
SYMBOLS = {
    "hidden_size": "h",
    "num_layers": "L",
    "channels": "C",
    "kernel_size": "k",
    "position": "l",
    "tokens": "L",
    "width": "d_V",
    "key_width": "d_K",
    "ffn_size": "d_{ff}",
    "head": "h_1",
}


@dataclass
class BoundsOptions:
    """How many networks are bounded."""

    networks: int = bounded(150, minimum=2)  # of each kind at each point of the grid
    ascent_steps: int = bounded(100, minimum=0)  # of the adversary
    train_steps: int = bounded(200, minimum=0)


class Bounds(Grid):
    """Draws, trains and drives networks of each point of the grid; compares their norms with the theorems' bounds."""

    uses = frozenset({"dataset", "model", "seeds"})
    Options = BoundsOptions
    threads = 1  # many small matrices
    shift: ClassVar[dict[str, int]] = {}  # axis -> what is added to its values to get the theorems' symbol
    named: ClassVar[dict[str, tuple[str, str]]] = {}  # axis -> its words and symbol, where they are not the usual ones

    @abstractmethod
    def families(self, point: Point, context: Context) -> dict[str, Family]:
        """Theorems, as text -> the networks that they are about."""

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frame ``networks``: one row a network, theorem and quantity, with its exact norm and bounds."""
        from landscape_cli.rng import generator

        options, seed, frames = point.settings["measure"], point.settings["seeds"][0], []
        for name, family in self.families(point, context).items():

            def draw(kind: str, name: str = name) -> torch.Generator:
                return generator(seed, f"{kind} {name}", point.stream)

            frames.append(searched(family, options["networks"], options["ascent_steps"], draw))
        return Measurement(with_units({"networks": pd.concat(frames, ignore_index=True)}, UNITS))

    def settings(self, dataset: str | None = None, **changes: Any) -> dict[str, Any]:
        """One stream of random networks; they are the replicates."""
        settings = super().settings(dataset, **changes)
        return {**settings, "seeds": settings["seeds"][:1]}

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw bound over exact norm along every axis: a row a quantity, a column a kind of network."""
        networks = with_ratios(results.frames["networks"])
        for theorem, own in networks.groupby("theorem", sort=False):
            for axis in self.axes:
                along = self._along(own, axis)
                if along[axis].nunique() >= 2 or len(self.axes) == 1:
                    yield self._figure(results, theorem, axis, along)

    def _figure(self, results: Results, theorem: str, axis: str, own: pd.DataFrame) -> Figure:
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, titled_legend

        quantities = [q for q in QUANTITIES if q in set(own["quantity"])]
        drawing, panels = new_figure(len(quantities), len(KINDS), FULL_WIDTH, 2.5 if len(quantities) > 1 else 3.1)
        for row, quantity in zip(panels, quantities, strict=True):
            for panel, kind in zip(row, KINDS, strict=True):
                part = own[(own["quantity"] == quantity) & (own["kind"] == kind)]
                self._panel(panel, part, axis)
                panel.set_title(f"{kind}\n{violations(part)}", fontsize=7.5)
            row[0].set_ylabel(rf"bound / ${QUANTITIES[quantity]}_2$")
        for panel in panels[-1]:
            word, symbol = self._name(axis)
            panel.set_xlabel(f"{word} ${symbol}$")
        titled_legend(drawing, self._title(results, theorem, axis), panels[0, 0], 3)
        caption = f"Bounds of the Hessian's norm over the exact norm, Theorem {theorem}."
        name = f"{self.config.name}_theorem_{theorem}"
        return Figure(f"{name}_{axis}" if len(self.axes) > 1 else name, drawing, caption, self._note(own))

    def _title(self, results: Results, theorem: str, axis: str) -> str:
        others = [other for other in self.axes if other != axis]
        fixed = ", ".join(f"${self._name(o)[1]}={self.fixed(o) + self.shift.get(o, 0)}$" for o in others)
        return f"Theorem {theorem} against exact norms, {self.data_title(results)}" + (f", at {fixed}" if fixed else "")

    def _name(self, axis: str) -> tuple[str, str]:
        return self.named.get(axis, (label(axis), SYMBOLS.get(axis, axis)))

    def data_title(self, results: Results) -> str:
        """Name the objects."""
        return ", ".join(title(results, name) for name in results.frames["networks"]["dataset"].unique())

    def _note(self, own: pd.DataFrame) -> str:
        measure = self.config.measure
        return (
            f"Lines and bands: median and range over {measure.networks} networks of each kind and point, one object "
            f"each; marks: the smallest ratio. Below 1 (grey) the bound is violated. Adversarial: random ones after "
            f"{measure.ascent_steps} steps of gradient ascent on norm/bound. Float64, exact Hessians."
        )

    def _panel(self, ax: Axes, own: pd.DataFrame, axis: str) -> None:
        own = own.assign(**{axis: own[axis] + self.shift.get(axis, 0)})
        for variant, (colour, line_style, marker, text) in LOOKS.items():
            ratios = judging(own, variant).groupby(axis)[f"{variant}_ratio"]
            low, middle, high = ratios.min(), ratios.median(), ratios.max()
            if not np.isfinite(low).any():
                continue
            x = low.index.to_numpy()
            ax.plot(x, middle, color=colour, linestyle=line_style, linewidth=1, label=text, zorder=3)
            ax.plot(x, low, color=colour, linestyle="none", marker=marker, markersize=3.5, zorder=4)
            ax.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
        if own.empty:
            ax.set(xticks=[], yticks=[])
            return
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 0.5), high)
        ax.axhspan(min(low, 0.5), 1, color="0.88", zorder=0)
        ax.axhline(1, color="0.3", linewidth=0.7, zorder=2)
        values = sorted(own[axis].unique())
        ax.set_xscale("log" if values[0] > 0 and values[-1] >= 4 * values[0] else "linear")
        ax.set_xticks(values, [str(value) for value in values])
        ax.minorticks_off()

    def tables(self, results: Results) -> Iterator[Table]:
        """How often each bound is violated, and how close it comes, by theorem, quantity and kind of network."""
        yield Table(
            self.config.name, summary(results.frames["networks"]), "Bounds of the Hessian's norm against exact norms."
        )

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Judge each theorem as printed: one violation is enough; and count what the corrected form leaves."""
        table = summary(results.frames["networks"])
        for (theorem, quantity), own in table.groupby(["theorem", "quantity"], sort=False):
            for variant in ("printed", "corrected"):
                failed, all_of = (int(own[f"{variant}_{what}"].sum()) for what in ("violations", "networks"))
                closest = float(own[f"{variant}_smallest"].min())
                yield Verdict(
                    claim=f"Theorem {theorem}, {variant}: a bound of {PLAIN[quantity]}",
                    source=_source(theorem, quantity) if variant == "printed" else "corrected form",
                    statistic="smallest bound over exact norm; to be at least 1",
                    verdict=NOT_REPRODUCED if failed else REPRODUCED if variant == "corrected" else INCONCLUSIVE,
                    effect=closest,
                    low=closest,
                    high=math.inf,
                    note=f"violated by {failed} of {all_of} networks"
                    + ("" if failed or variant == "corrected" else "; that does not prove it, see experiment=theorems"),
                )

    def _along(self, networks: pd.DataFrame, axis: str) -> pd.DataFrame:
        keep = pd.Series(True, index=networks.index)
        for other in self.axes:
            if other != axis and other in networks:
                keep &= networks[other] == self.fixed(other)
        return networks[keep]


def searched(family: Family, count: int, steps: int, draw: Callable[[str], torch.Generator]) -> pd.DataFrame:
    """Compare norms and bounds of random, trained and adversarial networks, `count` of each (adversaries: a bound).

    Parameters
    ----------
    steps
        Of the gradient ascent on exact norm over bound.
    draw
        Kind of network -> its random numbers.

    Returns
    -------
    One row a network, theorem and quantity: ``measured``, ``printed``, ``corrected``, ``tight``; ``against``: the
    variant that an adversary sought.
    """
    from experiments.beyond.search import driven

    frames = compared(family, family.draw(count, draw("random")), "random", "")
    frames += compared(family, family.train(count, draw("trained")), "trained", "")
    start = family.draw(count, draw("adversarial"))
    bounds = family.bounds(start, tight=False)
    goals = [(b.theorem, b.quantity, "corrected") for b in bounds]
    goals += [(b.theorem, b.quantity, "printed") for b in bounds]
    for (theorem, quantity, variant), found in zip(goals, driven(family, start, goals, steps), strict=True):
        own = compared(family, found, "adversarial", variant)
        frames += [frame[(frame["theorem"] == theorem) & (frame["quantity"] == quantity)] for frame in own]
    return pd.concat(frames, ignore_index=True)


def compared(family: Family, state: State, kind: str, against: str) -> list[pd.DataFrame]:
    """One frame a theorem and quantity."""
    import torch

    with torch.no_grad():
        norms, bounds = family.norms(state), family.bounds(state)
    frames = []
    for bound in bounds:
        columns = {"kind": kind, "against": against, "theorem": bound.theorem, "quantity": bound.quantity}
        columns["network"] = np.arange(len(norms[bound.quantity]))
        columns["measured"] = norms[bound.quantity].numpy()
        for variant in VARIANTS:
            value = getattr(bound, variant)
            columns[variant] = np.nan if value is None else value.detach().numpy()
        frames.append(pd.DataFrame(columns))
    return frames


def with_ratios(networks: pd.DataFrame) -> pd.DataFrame:
    """Add bound over exact norm; networks whose norm is zero have none."""
    if networks["measured"].isna().any():
        raise ValueError("an exact norm is not a number")
    living = networks[networks["measured"] > 0]
    return living.assign(**{f"{variant}_ratio": living[variant] / living["measured"] for variant in VARIANTS})


def judging(networks: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Networks that judge a variant: random, trained and its own adversaries; the tight one has the corrected one's."""
    against = "corrected" if variant == "tight" else variant
    return networks[networks["against"].isin(("", against))]


def violations(networks: pd.DataFrame) -> str:
    """Tell how many networks violate each bound."""
    counts = []
    for variant in VARIANTS[:2]:
        own = judging(networks, variant)
        if len(own):
            failed = int((own[f"{variant}_ratio"] < 1 - ROUNDING).sum())
            counts.append(f"{variant} {failed} of {len(own)}")
    return f"violated: {', '.join(counts)}" if counts else "none living, or not sought"


def summary(networks: pd.DataFrame) -> pd.DataFrame:
    """One row a theorem, quantity and kind: networks, violations, smallest and median ratio of each variant.

    A bound is judged on random and trained networks and on the adversaries of its own.
    """
    rows = []
    living = with_ratios(networks)
    for (theorem, quantity, kind), own in living.groupby(["theorem", "quantity", "kind"], sort=False):
        row = {"theorem": theorem, "quantity": quantity, "kind": kind}
        for variant in VARIANTS:
            ratios = judging(own, variant)[f"{variant}_ratio"].dropna()
            row["networks"] = max(row.get("networks", 0), len(ratios))
            if len(ratios):
                row |= {
                    f"{variant}_networks": len(ratios),
                    f"{variant}_violations": int((ratios < 1 - ROUNDING).sum()),
                    f"{variant}_smallest": ratios.min(),
                    f"{variant}_median": ratios.median(),
                }
        rows.append(row)
    return pd.DataFrame(rows)


def _source(theorem: str, quantity: str) -> str:
    asked = quantity not in (CLAIMED.get(theorem, "hessian"), "network")
    return f"thesis, Theorem {theorem}" + (f", asked of {PLAIN[quantity]}" if asked else "")
