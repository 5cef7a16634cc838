"""Fig 1.2: how far Assumption 1 holds, that one θ* is a local minimum of both L_k and L_{k+1}.

The thesis does not say which quantity its figure shows. Drawn here:

- left, ‖∇L_k(θ̂)‖₂ along random orderings, θ̂ trained on all objects. It would be zero under the assumption; beside it
  the closed form of its mean square under sampling without replacement;
- right, warm-started minima of growing samples. At each size k training goes on from the minimum of the size before and
  ends with gradient descent on all k objects: θ̂_k. From there gradient descent runs once on k + 1 objects and once
  more on the k: the first run's way, ‖θ̂_{k+1} - θ̂_k‖, contains what the optimiser would have moved anyway (nets that
  fit their sample have no finite minimum of the cross-entropy); the distance between the two ends is the new object's
  own effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.chapter1.loss_difference import title
from landscape_cli.config import bounded
from landscape_cli.experiment import Context, Experiment, Figure, Measurement, Point, Results, Table, Verdict
from landscape_cli.statistics import log_log_slope, mean_interval, sign_verdict

CLAIM = "Assumption 1 holds better the longer the sequence"


@dataclass
class MinimumDriftOptions:
    """What is measured around the minima; none of it is published."""

    permutations: int = bounded(50, minimum=2)  # orderings of the left panel, a network
    gradient_sizes: int = bounded(40, minimum=2)  # k of the left panel, evenly spaced in log k
    drift_sizes: int = bounded(8, minimum=2)  # k of the right panel, likewise, from 100 (or m/10) to m - 1
    descent_steps: int = bounded(100, minimum=1)  # of gradient descent, before and after the new object
    descent_rate: float = bounded(0.01, above=0)  # stable up to a sharpness of 200


class MinimumDrift(Experiment):
    """Gradient norms at the final minimum, and the way from minimum to minimum as the sample grows."""

    Options = MinimumDriftOptions
    uses = frozenset({"dataset", "model", "training", "seeds"})
    min_objects = 20

    def points(self) -> list[Point]:
        """One point: a data set and a network, all seeds together."""
        return [Point.of({"dataset": self.config.dataset.name}, self.settings())]

    def measure(self, point: Point, context: Context) -> Measurement:
        """Frames ``gradients`` (a row a seed, ordering and k), ``expected`` and ``drift`` (a row a seed and k)."""
        import torch

        from landscape_cli.convergence.gradients import gradient_moments, gradient_norms
        from landscape_cli.models import build_model
        from landscape_cli.rng import generator
        from landscape_cli.training import descend, distance, fit

        settings, data = point.settings, context.images()
        seeds, options = settings["seeds"], settings["measure"]
        stream = point.stream
        model = build_model(settings["model"], data.source.shape, data.source.classes)
        x, y, m = data.x_train, data.y_train, len(data.x_train)
        training = settings["training"]
        final = fit(model, x, y, seeds=seeds, stream=stream, **training)

        sizes = _spaced(1, m, options["gradient_sizes"])
        gradients, expected = [], []
        for s, seed in enumerate(context.progress(seeds, desc="gradients")):
            own = {name: tensor[s : s + 1] for name, tensor in final.items()}
            orders = generator(seed, "orderings", stream)
            orderings = torch.stack([torch.randperm(m, generator=orders) for _ in range(options["permutations"])])
            norms = gradient_norms(model, own, x, y, orderings.to(x.device), sizes).cpu().numpy()
            rows = pd.DataFrame(norms, columns=sizes).rename_axis("ordering").reset_index()
            gradients.append(rows.melt("ordering", var_name="k", value_name="gradient_norm").assign(seed=seed))
            mean_square = gradient_moments(model, own, x, y).expected_norm(torch.tensor(sizes, dtype=torch.float64))
            expected.append(pd.DataFrame({"k": sizes, "expected_norm": mean_square.numpy(), "seed": seed}))

        orders = [generator(seed, "growing sample", stream) for seed in seeds]
        order = torch.stack([torch.randperm(m, generator=g) for g in orders]).to(x.device)
        descent = {"steps": options["descent_steps"], "learning_rate": options["descent_rate"]}
        drift, start = [], None
        for k in context.progress(_spaced(min(100, m // 10), m - 1, options["drift_sizes"]), desc="minima"):
            sample, more = order[:, :k], order[:, : k + 1]
            fitted = fit(model, x, y, seeds=seeds, stream=f"{stream}, k={k}", start=start, rows=sample, **training)
            here = start = descend(model, fitted, x[sample], y[sample], **descent)
            there = descend(model, here, x[more], y[more], **descent)
            again = descend(model, here, x[sample], y[sample], **descent)
            columns = {
                "way": distance(there, here),
                "own_motion": distance(again, here),
                "effect": distance(there, again),
            }
            drift.append(pd.DataFrame({"k": k, "seed": seeds, **{name: v.numpy() for name, v in columns.items()}}))
        frames = {"gradients": pd.concat(gradients), "expected": pd.concat(expected), "drift": pd.concat(drift)}
        for frame in frames.values():
            frame["k"] = frame["k"].astype(int)
            frame.attrs["units"] = {"k": "objects", "gradient_norm": "nats", "expected_norm": "nats"}
        return Measurement({name: frame.reset_index(drop=True) for name, frame in frames.items()}, parameters=final)

    def figures(self, results: Results) -> Iterator[Figure]:
        """Left the gradient norms, right the drift of the minima, both axes logarithmic."""
        from landscape_cli.plotting.curves import band
        from landscape_cli.plotting.style import FULL_WIDTH, new_figure, ordered_colours

        dark, middle, bright = ordered_colours(3)
        drawing, axes = new_figure(1, 2, FULL_WIDTH, 2.9)
        left, right = axes[0]
        norms, drift, note = _living(results)
        k = np.sort(norms["k"].unique())
        wide = norms.pivot(index=["seed", "ordering"], columns="k", values="gradient_norm").to_numpy()
        band(left, k, wide, dark, label="mean and range over orderings and seeds")
        expected = results.frames["expected"]
        expected = expected[expected["seed"].isin(norms["seed"])]
        expected = expected.pivot(index="seed", columns="k", values="expected_norm")
        root = np.sqrt((expected**2).mean())
        closed_form = {"linestyle": (0, (2, 1.5)), "label": "closed form of the root mean square"}
        left.plot(root.index, root, color="0.25", linewidth=0.9, **closed_form)
        left.set_ylabel(r"$\|\nabla\mathcal{L}_k(\hat\theta)\|_2$, nats")
        network = self.config.model
        net = f"$h={network.hidden_size}$, $L={network.num_layers}$"
        left.set_title(f"{title(results, norms['dataset'].iloc[0])}, {net}: gradient at $\\hat\\theta$")
        k = np.sort(drift["k"].unique())
        looks = {
            "way": (r"$\|\hat\theta_{k+1}-\hat\theta_k\|_2$", dark, "-", "o"),
            "own_motion": ("the optimiser's own motion, without the object", middle, (0, (5, 1.2)), "s"),
            "effect": ("the new object's own effect", bright, (0, (1.2, 1.2)), "^"),
        }
        for column, (label, colour, line_style, marker) in looks.items():
            wide = drift.pivot(index="seed", columns="k", values=column).to_numpy()
            band(right, k, wide, colour, linestyle=line_style, marker=marker, markersize=3, label=label)
        right.set_ylabel("distance of minima")
        right.set_title("Warm-started minima of growing samples")
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xlabel("sample size $k$, objects")
        left.legend(loc="upper right")
        right.margins(y=0.3)
        right.legend(loc="lower left")
        caption = "Check of Assumption 1: gradient of L_k at the final minimum; drift of the minima of growing samples."
        yield Figure(f"fig_1_2_{self.config.name}", drawing, caption, note)

    def tables(self, results: Results) -> Iterator[Table]:
        """Mean over seeds of every quantity against k."""
        _, drift, _ = _living(results)
        drift = drift.groupby("k")[["way", "own_motion", "effect"]].mean().reset_index()
        yield Table(f"drift_{self.config.name}", drift, "Distances between warm-started minima, means over seeds.")

    def claims(self, results: Results) -> Iterator[Verdict]:
        """The trend of both quantities with k, one slope a seed."""
        gradients, drift, left_out = _living(results)
        norms = gradients.groupby(["seed", "k"])["gradient_norm"].mean().unstack("k")
        tested = {"gradient norm": norms}
        for column, name in (("way", "distance of minima"), ("effect", "effect of the new object")):
            tested[name] = drift.pivot(index="seed", columns="k", values=column)
        if gradients.empty or drift.empty:
            return
        at_end = norms.iloc[:, -1].mean()
        notes = {"gradient norm": f"at k = m it is {at_end:.2g} nats, where a minimum has 0"}
        for name, values in tested.items():
            slope = mean_interval(log_log_slope(values.columns.to_numpy(), values.to_numpy()))
            yield Verdict(
                claim=CLAIM,
                source="thesis 1.4, Fig 1.2",
                statistic=f"slope of log({name}) against log(k)",
                verdict=sign_verdict(slope, -1),
                effect=slope.mean,
                low=slope.low,
                high=slope.high,
                note=" ".join(text for text in (notes.get(name, ""), left_out) if text),
            )


def _living(results: Results) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Gradients and drift of the seeds whose networks live, and a sentence that names the others.

    Without biases a network whose ReLUs all died has no gradient at all: its norms, or its ways, are exactly zero.
    """
    kept, sentences = [], []
    for name, column in (("gradients", "gradient_norm"), ("drift", "effect")):
        frame = results.frames[name]
        dead = sorted(frame.loc[frame[column] == 0, "seed"].unique())
        kept.append(frame[~frame["seed"].isin(dead)])
        if dead:
            sentences.append(f"All ReLUs died, left out of the {name}: seeds {', '.join(map(str, dead))}.")
    return kept[0], kept[1], " ".join(sentences)


def _spaced(first: int, last: int, count: int) -> list[int]:
    """Different whole numbers, evenly spaced in their logarithm, both ends included."""
    return sorted({round(float(v)) for v in np.geomspace(max(first, 1), last, count)})
