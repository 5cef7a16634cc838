"""Fig 1.2: how far Assumption 1 holds, that one θ* is a local minimum of both L_k and L_{k+1}.

The thesis does not say which quantity its figure shows. Drawn here:

- left, ‖∇L_k(θ̂)‖₂ along random orderings, θ̂ trained on all objects as in Fig 1.3. It would be zero under the
  assumption. Its fall with k is that of any subsample's mean: beside it the closed form of its mean square;
- right, growing samples. At each size k training goes on from the parameters of the size before, with the same number
  of steps at every size, and ends with gradient descent on all k objects that never goes up: θ̂_k. From there gradient
  descent runs T steps on k + 1 objects and, as a control, T steps on the same k. The distance between the two ends is
  the new object's own effect; the control's way is what the optimiser would have moved anyway. Both would be zero under
  the assumption. Nets that fit their sample have no finite minimum of the cross-entropy, so loss and gradient norm at
  θ̂_k are stored beside the distances, and no verdict is given where θ̂_k is not near-stationary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import title
from landscape_cli.config import bounded
from landscape_cli.experiment import (
    INCONCLUSIVE,
    Context,
    Experiment,
    Figure,
    Measurement,
    Point,
    Results,
    Table,
    Verdict,
    with_units,
)
from landscape_cli.statistics import equivalence_verdict, log_log_slope, mean_interval, sign_verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {
    "k": "objects",
    "loss": "nats",
    **dict.fromkeys(("gradient_norm", "expected_norm", "typical_gradient"), "nats per unit of parameter"),
    **dict.fromkeys(("own_motion", "effect"), "parameter"),
}
STATIONARY = 0.1  # ‖∇L_k(θ̂)‖ over the root mean square of ‖∇ℓ_i(θ̂)‖, up to which θ̂ counts as near-stationary


@dataclass
class MinimumDriftOptions:
    """What is measured around the minima; none of it is published."""

    permutations: int = bounded(50, minimum=2)  # orderings of the left panel, a network
    gradient_sizes: int = bounded(40, minimum=2)  # k of the left panel, evenly spaced in log k
    drift_sizes: int = bounded(8, minimum=2)  # k of the right panel, likewise, from 100 (or m/10) to m - 1
    settle_steps: int = bounded(300, minimum=0)  # of monotone gradient descent, after training at each k
    descent_steps: int = bounded(100, minimum=1)  # T: of gradient descent with and without the new object
    descent_rate: float = bounded(0.01, above=0)  # the largest; a seed's own is lower where its loss is sharper


class MinimumDrift(Experiment):
    """Gradient norms at the trained parameters, and how far a new object moves those of growing samples."""

    Options = MinimumDriftOptions
    uses = frozenset({"dataset", "model", "training", "seeds"})
    min_objects = 20
    threads = 1  # two stall beside another process, as in LossDifference

    def points(self) -> list[Point]:
        """One point: a data set and a network, all seeds together."""
        return [Point.of({"dataset": self.config.dataset.name}, self.settings())]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``networks`` (a row a seed), ``gradients`` (seed, ordering, k), ``expected``, ``drift`` (seed, k)."""
        import torch

        from landscape_cli.convergence.gradients import gradient_moments, gradient_norms
        from landscape_cli.convergence.losses import object_losses, wide
        from landscape_cli.descent import descend, distance, settle
        from landscape_cli.models import build_model
        from landscape_cli.rng import generator
        from landscape_cli.training import fit

        settings, data = point.settings, context.images()
        seeds, options = settings["seeds"], settings["measure"]
        stream = point.stream
        model = build_model(settings["model"], data.shape, data.source.classes)
        x, y, m = data.x_train, data.y_train, len(data.x_train)
        training = settings["training"]
        final = fit(model, x, y, seeds=seeds, stream=stream, **training)

        sizes = _spaced(1, m, options["gradient_sizes"])
        gradients, expected, typical = [], [], []
        for s, seed in enumerate(context.progress(seeds, desc="gradients")):
            own = {name: tensor[s : s + 1] for name, tensor in final.items()}
            orders = generator(seed, "orderings", stream)
            orderings = torch.stack([torch.randperm(m, generator=orders) for _ in range(options["permutations"])])
            norms = gradient_norms(model, own, x, y, orderings.to(x.device), sizes).cpu().numpy()
            rows = pd.DataFrame(norms, columns=sizes).rename_axis("ordering").reset_index()
            gradients.append(rows.melt("ordering", var_name="k", value_name="gradient_norm").assign(seed=seed))
            moments = gradient_moments(model, own, x, y)
            typical.append(moments.mean_square**0.5)
            root_mean_square = moments.expected_norm(torch.tensor(sizes, dtype=torch.float64))
            expected.append(pd.DataFrame({"k": sizes, "expected_norm": root_mean_square.numpy(), "seed": seed}))
        dead = object_losses(model, final, x, y).constant.cpu().numpy()
        networks = pd.DataFrame({"seed": seeds, "dead": dead, "typical_gradient": typical})

        x64, y64 = wide(x), y.to(wide(x).device)
        orders = [generator(seed, "growing sample", stream) for seed in seeds]
        order = torch.stack([torch.randperm(m, generator=g) for g in orders]).to(x64.device)
        steps = training["epochs"] * -(-m // training["batch_size"])
        drift, start = [], None
        for k in context.progress(_spaced(min(100, m // 10), m - 1, options["drift_sizes"]), desc="growing samples"):
            sample, more = order[:, :k], order[:, : k + 1]
            equal = {**training, "epochs": round(steps / -(-k // training["batch_size"]))}
            fitted = fit(
                model, x, y, seeds=seeds, stream=f"{stream}, k={k}", start=start, rows=sample.to(x.device), **equal
            )
            # In float64 from here on: where the sample is fitted, the new object's effect is below float32's rounding.
            precise = {name: wide(tensor) for name, tensor in fitted.items()}
            here, rates = settle(
                model,
                precise,
                x64[sample],
                y64[sample],
                steps=options["settle_steps"],
                learning_rate=options["descent_rate"],
            )
            descent = {"steps": options["descent_steps"], "rates": rates}
            there = descend(model, here, x64[more], y64[more], **descent)
            again = descend(model, here, x64[sample], y64[sample], **descent)
            own = [{name: tensor[s : s + 1] for name, tensor in here.items()} for s in range(len(seeds))]
            moments = [gradient_moments(model, p, x64[rows], y64[rows]) for p, rows in zip(own, sample, strict=True)]
            passes = [object_losses(model, p, x64[rows], y64[rows]) for p, rows in zip(own, sample, strict=True)]
            start = {name: tensor.to(x) for name, tensor in here.items()}
            columns = {
                "loss": [one.losses.mean().item() for one in passes],
                "gradient_norm": [moment.square_of_mean**0.5 for moment in moments],
                "typical_gradient": [moment.mean_square**0.5 for moment in moments],
                "own_motion": distance(again, here).numpy(),
                "effect": distance(there, again).numpy(),
                "dead": object_losses(model, here, x64, y64).constant.cpu().numpy(),
            }
            drift.append(pd.DataFrame({"k": k, "seed": seeds, **columns}))
        frames = {
            "networks": networks,
            "gradients": pd.concat(gradients, ignore_index=True),
            "expected": pd.concat(expected, ignore_index=True),
            "drift": pd.concat(drift, ignore_index=True),
        }
        for name in ("gradients", "expected", "drift"):
            frames[name]["k"] = frames[name]["k"].astype(int)
        return Measurement(with_units(frames, UNITS), parameters=final)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Left the gradient norms, right the displacements, both axes logarithmic."""
        from landscape_cli.plotting.curves import band
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, ordered_colours

        dark, _, bright = ordered_colours(3)
        norms, drift, left_out = _living(results)
        drawing, (panels,) = new_figure(1, 2, FULL_WIDTH, 3.1)
        left, right = panels
        if not norms.empty:
            self._gradient_panel(left, norms, results.frames["expected"], dark)
        if not drift.empty:
            k = np.sort(drift["k"].unique())
            looks = {
                "own_motion": ("$T$ steps on the same $k$ objects", dark, "-", "s"),
                "effect": ("the new object's own effect on them", bright, (0, (5, 1.2)), "^"),
            }
            for column, (label, colour, line_style, marker) in looks.items():
                wide = drift.pivot(index="seed", columns="k", values=column).to_numpy()
                band(right, k, wide, colour, linestyle=line_style, marker=marker, markersize=3, label=label)
        network, measure = self.config.model, self.config.measure
        left.set_ylabel(r"$\|\nabla\mathcal{L}_k(\hat\theta)\|_2$, nats per unit of $\theta$")
        data = title(results, results.frames["networks"]["dataset"].iloc[0])
        left.set_title(f"{data}, $h={network.hidden_size}$, $L={network.num_layers}$: gradient at $\\hat\\theta$")
        right.set_ylabel("displacement of $\\theta$")
        right.set_title(f"From $\\hat\\theta_k$, $T={measure.descent_steps}$ steps of descent")
        for ax in panels:
            if ax.has_data():
                ax.set_xscale("log")
                ax.set_yscale("log")
                ax.legend(loc="upper right", fontsize=6.5)
            else:
                ax.text(0.5, 0.5, "no network is alive", transform=ax.transAxes, ha="center")
            ax.set_xlabel("sample size $k$, objects")
        note = f"{measure.permutations} orderings a seed. {_stationarity(drift)} {left_out}".strip()
        caption = "Check of Assumption 1: gradient of L_k at the trained parameters; displacement by a new object."
        yield Figure(f"fig_1_2_{self.config.name}", drawing, caption, note)

    def tables(self, results: Results) -> Iterator[Table]:
        """Means over seeds of all that belongs to θ̂_k."""
        _, drift, _ = _living(results)
        columns = ["loss", "gradient_norm", "typical_gradient", "own_motion", "effect"]
        means = drift.groupby("k")[columns].mean().reset_index()
        steps = self.config.measure.descent_steps
        caption = f"Loss, gradient norm and displacements ({steps} steps of descent) at θ̂_k, means over seeds."
        yield Table(f"drift_{self.config.name}", means, caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test what the assumption says at k = m, and both trends with k, one slope a seed."""
        gradients, drift, left_out = _living(results)
        source = "thesis 1.3 (Assumption 1) and 1.4, Fig 1.2"
        if not gradients.empty:
            norms = _root_mean_square(gradients)
            typical = results.frames["networks"].set_index("seed")["typical_gradient"].loc[norms.index]
            ratio = mean_interval(norms.iloc[:, -1] / typical)
            yield Verdict(
                claim="the trained parameters are a minimum of the loss on all objects",
                source=source,
                statistic=f"‖∇L_m(θ̂)‖ over the root mean square of ‖∇ℓ_i(θ̂)‖; to lie in [0, {STATIONARY}]",
                verdict=equivalence_verdict(ratio, -np.inf, STATIONARY),
                effect=ratio.mean,
                low=ratio.low,
                high=ratio.high,
                note=left_out,
            )
            subsampling = "any subsample's mean gradient falls like this"
            yield self._trend("gradient norm at θ̂", norms, source, f"{subsampling}. {left_out}".strip())
        if not drift.empty:
            effects = drift.pivot(index="seed", columns="k", values="effect")
            weight = "by (1.3) the new object enters with weight 1/(k+1)"
            verdict = self._trend("effect of the new object", effects, source, f"{weight}. {left_out}".strip())
            if not _near_stationary(drift):
                verdict = replace(verdict, verdict=INCONCLUSIVE, note=f"{_stationarity(drift)} {verdict.note}")
            yield verdict

    def _trend(self, name: str, values: pd.DataFrame, source: str, note: str) -> Verdict:
        positive = (values > 0).all(axis=1)  # zero has no logarithm
        if not positive.all():
            note = (
                f"{note} Without seeds {', '.join(map(str, values.index[~positive]))}: exactly zero somewhere.".strip()
            )
        values = values[positive]
        slope = mean_interval(log_log_slope(values.columns.to_numpy(), values.to_numpy()))
        return Verdict(
            claim="Assumption 1 holds better the longer the sequence",
            source=source,
            statistic=f"slope of log({name}) against log(k)",
            verdict=sign_verdict(slope, -1),
            effect=slope.mean,
            low=slope.low,
            high=slope.high,
            note=note,
        )

    def _gradient_panel(self, ax: Axes, norms: pd.DataFrame, expected: pd.DataFrame, colour: object) -> None:
        from landscape_cli.plotting.curves import band

        each = norms.groupby("k")["gradient_norm"]
        ax.fill_between(each.min().index, each.quantile(0.05), each.quantile(0.95), color="0.9", linewidth=0)
        by_seed = _root_mean_square(norms)
        band(
            ax,
            by_seed.columns.to_numpy(),
            by_seed.to_numpy(),
            colour,
            label="root mean square over orderings; band: seeds",
        )
        ax.fill_between([], [], color="0.9", label="5 to 95 % of orderings and seeds")
        closed = expected[expected["seed"].isin(norms["seed"])].groupby("k")["expected_norm"].mean()
        style = {"linewidth": 0.9, "linestyle": (0, (2, 1.5)), "label": "closed form, without replacement"}
        ax.plot(closed.index, closed, color="0.2", zorder=3, **style)


def _root_mean_square(norms: pd.DataFrame) -> pd.DataFrame:
    """Root mean square over orderings: one row a seed, one column a k."""
    return norms.assign(square=norms["gradient_norm"] ** 2).groupby(["seed", "k"])["square"].mean().unstack("k") ** 0.5


def _living(results: Results) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Gradients and drift of the seeds whose networks live, and a sentence that names the others."""
    gradients, drift = results.frames["gradients"], results.frames["drift"]
    networks = results.frames["networks"]
    dead = {"gradients": networks.loc[networks["dead"], "seed"], "displacements": drift.loc[drift["dead"], "seed"]}
    named = [f"{name}: seeds {', '.join(map(str, sorted(set(s))))}" for name, s in dead.items() if len(s)]
    sentence = f"All ReLUs died, left out of the {'; '.join(named)}." if named else ""
    living = gradients[~gradients["seed"].isin(dead["gradients"])], drift[~drift["seed"].isin(dead["displacements"])]
    return *living, sentence


def _near_stationary(drift: pd.DataFrame) -> bool:
    return bool((drift["gradient_norm"] <= STATIONARY * drift["typical_gradient"]).all())


def _stationarity(drift: pd.DataFrame) -> str:
    """Say how near the parameters of the growing samples are to stationary points."""
    ratio = drift["gradient_norm"] / drift["typical_gradient"]
    if ratio.empty:
        return ""
    span = f"{ratio.min():.2g} to {ratio.max():.2g}"
    return f"At the parameters of the growing samples the gradient is {span} of a typical object's."


def _spaced(first: int, last: int, count: int) -> list[int]:
    """Different whole numbers, evenly spaced in their logarithm, both ends included."""
    return sorted({round(float(v)) for v in np.geomspace(max(first, 1), last, count)})
