"""Figs 2.1 to 2.8: the exact Hessian of a small vision transformer, entry by entry, while it is trained.

The mean cross-entropy over one batch of train objects; the batch is not published, so the first objects are taken.
Norms of the parameter tensors and of their diagonal Hessian blocks are followed along the first steps of training; the
whole Hessian is built at a few steps of the first seed, and before and after training of every other one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.chapter2.tensors import FAMILIES, family, grouped, label
from landscape_cli.config import bounded
from landscape_cli.errors import BadInput
from landscape_cli.experiment import (
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

if TYPE_CHECKING:
    import torch

    from landscape_cli.curvature import Objective

UNITS = {
    "mean_loss": "nats",
    **dict.fromkeys(
        ("hessian_spectral", "hessian_frobenius", "frobenius_error", "residual", "frobenius", "mean_abs", "max_abs"),
        "nats per parameter²",
    ),
}
FROBENIUS_PROBES = 32  # of the Frobenius norms at the steps whose matrix is not built
CELLS = 1200  # of a heat map in each direction, at most: more than a page can show


@dataclass
class HessianEntriesOptions:
    """What is measured of the Hessian."""

    hessian_objects: int = bounded(128, minimum=1)  # the first so many train objects, one batch
    norm_steps: list[int] = bounded(factory=lambda: [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], minimum=0)
    entry_steps: list[int] = bounded(factory=lambda: [0, 10, 100, 1000], minimum=0)
    tolerance: float = bounded(1e-3, above=0, below=1)  # of the norms, relative
    entries: bool = True  # store the entries; only the first seed's are


class HessianEntries(Experiment):
    """Trains a transformer and takes its Hessian apart by parameter tensors."""

    Options = HessianEntriesOptions
    threads = 1  # with two threads many times slower beside another process, and no faster alone
    uses = frozenset({"dataset", "model", "training", "seeds"})

    def points(self) -> list[Point]:
        """One point a seed."""
        if self.config.model.kind != "vit":
            raise BadInput(f"model.kind: {self.config.model.kind!r}; allowed: vit, whose tensors the figures name")
        if not self.config.training.epochs:
            raise BadInput("training.epochs: 0; allowed: 1 or more, since two states are compared")
        if not self.config.measure.norm_steps:
            raise BadInput("measure.norm_steps: empty; allowed: one step or more")
        name, points = self.config.dataset.name, []
        for seed in range(self.config.seed, self.config.seed + self.config.seeds):
            entries = self.config.measure.entries and seed == self.config.seed
            settings = {**self.settings(entries=entries), "seeds": [seed]}
            points.append(Point.of({"dataset": name, "seed": seed}, settings))
        return points

    def measure(self, point: Point, context: Context) -> Measurement:
        """Measure one seed.

        Frames ``network`` (a row a state), ``norms`` (a step and tensor), ``blocks`` (a state and pair of labels),
        ``spans`` (where the tensors of each label lie).

        Arrays of the first seed: ``whole_N``, ``attention_N``, ``queries_N``, … entries of the Hessian after N steps
        (of large ones the largest |entry| of each square cell), ``queries_weights_N``, … entries of the parameters.
        """
        from landscape_cli.convergence.losses import object_losses
        from landscape_cli.curvature import BYTE_CAP, Hessian, Objective, spectral_norm
        from landscape_cli.curvature.objective import in_words
        from landscape_cli.models import build_model
        from landscape_cli.rng import generator
        from landscape_cli.training import fit

        settings, data = point.settings, context.images()
        options, seeds = settings["measure"], settings["seeds"]
        model = build_model(settings["model"], data.shape, data.source.classes)
        batch, epochs = settings["training"]["batch_size"], settings["training"]["epochs"]
        last = epochs * -(-len(data.x_train) // batch)
        wanted = {s for s in (*options["norm_steps"], *options["entry_steps"]) if s < last} | {0, last}
        states: dict[int, dict[str, torch.Tensor]] = {}
        parameters = sum(tensor.numel() for tensor in model.initialise([generator(0, "size")]).values())
        if 4 * parameters**2 > BYTE_CAP:
            raise BadInput(
                f"model: the Hessian of {parameters} parameters takes {in_words(4 * parameters**2)}, the cap is "
                f"{in_words(BYTE_CAP)}; take a smaller network (model.hidden_size, model.num_layers), or look at its "
                "spectrum (experiment=hessian_spectrum_vit_mnist), which never builds it"
            )

        def watch(step: int, parameters: dict[str, torch.Tensor]) -> None:
            if step in wanted:
                states[step] = {name: tensor.clone() for name, tensor in parameters.items()}

        fit(
            model,
            data.x_train,
            data.y_train,
            seeds=seeds,
            stream=point.stream,
            watch=watch,
            keep=states,
            progress=context.progress,
            **settings["training"],
        )
        size = min(options["hessian_objects"], len(data.x_train))
        x, y = data.x_train[:size], data.y_train[:size]
        whole = {0, last} | {step for step in options["entry_steps"] if step < last and options["entries"]}
        network, norms, blocks, arrays = [], [], [], {}
        for step in context.progress(sorted(states), desc="Hessians"):
            objective = Objective(model.module(states[step], 0), x, y)
            hessian = Hessian(objective)
            matrix = self._dense(hessian, context) if step in whole else None
            norms += self._norms(hessian, matrix, step, last, options["tolerance"])
            if step in (0, last):
                hessian.verify()
                norm, residual = spectral_norm(hessian, options["tolerance"])
                train, test = (
                    object_losses(model, states[step], images, labels) if len(images) else None
                    for images, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test))
                )
                network.append(
                    {
                        "step": step,
                        "state": "trained" if step else "initial",
                        "mean_loss": float(train.losses.mean()),
                        "train_accuracy": float(train.correct),
                        "test_accuracy": float(test.correct) if test else np.nan,
                        "hessian_spectral": norm,
                        "residual": residual,
                        "hessian_objects": size,
                    }
                )
                blocks += self._blocks(objective, matrix, step)
            if options["entries"] and matrix is not None:
                arrays |= self._arrays(objective, matrix, step)
        spans = [{"label": n, "begin": span.start, "end": span.stop} for n, span in self._spans(objective).items()]
        rows = {"network": network, "norms": norms, "blocks": blocks, "spans": spans}
        frames = {name: pd.DataFrame(own) for name, own in rows.items()}
        return Measurement(with_units(frames, UNITS), arrays, states[last])

    def _dense(self, hessian: Any, context: Context) -> torch.Tensor:
        from landscape_cli.curvature import dense

        return dense(hessian, progress=lambda **options: context.progress(None, desc="columns", **options))

    @property
    def layers(self) -> int:
        """Transformer blocks."""
        return self.config.model.num_layers

    def _norms(
        self, hessian: Any, matrix: torch.Tensor | None, step: int, last: int, tolerance: float
    ) -> list[dict[str, Any]]:
        import torch

        from landscape_cli.curvature import block_norms, hutchinson_frobenius
        from landscape_cli.rng import generator

        objective, rows = hessian.objective, []
        found = block_norms(hessian, {name: [name] for name in objective.names}, tolerance) if matrix is None else {}
        for name, part in objective.slices.items():
            weights = objective.fixed[name]
            if matrix is None:
                norm, residual = found[name]
                draws = generator(0, f"probes {name}")
                estimate = hutchinson_frobenius(hessian.part([name]), FROBENIUS_PROBES, draws)
                frobenius, error = float(estimate.value), float(estimate.standard_error)
            else:
                block = matrix[part, part].double()
                norm, residual = float(torch.linalg.eigvalsh(block).abs().max()), 0.0
                frobenius, error = float(block.norm()), 0.0
            rows.append(
                {
                    "step": step,
                    "last": step == last,
                    "tensor": name,
                    "label": label(name, self.layers),
                    "weight_norm": float(
                        torch.linalg.matrix_norm(weights, 2) if weights.dim() == 2 else weights.norm()
                    ),
                    "weight_frobenius": float(weights.norm()),
                    "hessian_spectral": norm,
                    "residual": residual,
                    "hessian_frobenius": frobenius,
                    "frobenius_error": error,
                }
            )
        return rows

    def _blocks(self, objective: Objective, matrix: torch.Tensor, step: int) -> list[dict[str, Any]]:
        groups = self._spans(objective)
        rows = []
        for (first, a), (second, b) in itertools.combinations_with_replacement(groups.items(), 2):
            size = matrix[a, b].abs()
            rows.append(
                {
                    "step": step,
                    "state": "trained" if step else "initial",
                    "row": first,
                    "column": second,
                    "mean_abs": float(size.double().mean()),
                    "max_abs": float(size.max()),
                    "frobenius": float(size.double().norm()),
                    "zeros": float((size == 0).double().mean()),
                }
            )
        return rows

    def _spans(self, objective: Objective) -> dict[str, slice]:
        """Where the tensors of each label lie; they are neighbours in the network's order."""
        return {
            name: slice(objective.slices[tensors[0]].start, objective.slices[tensors[-1]].stop)
            for name, tensors in grouped(objective.names, self.layers).items()
        }

    def _arrays(self, objective: Objective, matrix: torch.Tensor, step: int) -> dict[str, np.ndarray]:
        found = {f"whole_{step}": matrix}
        attention = [n for what in ("queries", "keys", "values") for n in family(objective.names, what)]
        index = {
            "attention": attention,
            **{what: family(objective.names, what) for what in FAMILIES},
        }
        for what, names in index.items():
            rows = np.concatenate([np.arange(objective.size)[objective.slices[name]] for name in names])
            found[f"{what}_{step}"] = matrix[rows][:, rows]
            if what in FAMILIES:
                found[f"{what}_weights_{step}"] = _side_by_side([objective.fixed[name] for name in names])
        return {
            name: cells(tensor.cpu().numpy()) if "weights" not in name else tensor.cpu().numpy()
            for name, tensor in found.items()
        }

    def figures(self, results: Results) -> Iterator[Figure]:
        """Draw Figs 2.1 to 2.8."""
        from experiments.chapter2.hessian_figures import block_norms, entries, whole

        yield from whole(self, results)
        yield from block_norms(self, results)
        yield from entries(self, results)

    def tables(self, results: Results) -> Iterator[Table]:
        """Norms before and after training, and the sizes of the blocks' entries; means over seeds."""
        norms = results.frames["norms"]
        ends = norms[(norms["step"] == 0) | norms["last"]]
        ends = ends.assign(state=np.where(ends["last"], "trained", "initial"))
        columns = ["weight_norm", "hessian_spectral", "hessian_frobenius"]
        means = ends.groupby(["tensor", "state"], sort=False)[columns].mean().reset_index()
        caption = (
            "Norms of the parameter tensors (spectral; of vectors Euclidean) and of their diagonal Hessian blocks."
        )
        yield Table(f"block_norms_{self.config.name}", means, f"{caption} Means over seeds.")
        columns = ["weight_norm", "weight_frobenius", "hessian_spectral", "hessian_frobenius", "frobenius_error"]
        means = norms.groupby(["step", "tensor"], sort=False)[columns].mean().reset_index()
        caption = (
            f"Spectral and Frobenius norms along training, means over seeds; estimated Frobenius norms "
            f"({FROBENIUS_PROBES} probes) with their standard errors."
        )
        yield Table(f"block_norms_by_step_{self.config.name}", means, caption)
        blocks = results.frames["blocks"]
        means = blocks.groupby(["state", "row", "column"], sort=False)[["mean_abs", "max_abs", "frobenius"]].mean()
        caption = "Sizes of the Hessian's entries by pairs of parameter tensors, means over seeds."
        yield Table(f"block_entries_{self.config.name}", means.reset_index(), caption)

    def claims(self, results: Results) -> Iterator[Verdict]:
        """Test what captions and text of chapter 2 say."""
        from experiments.chapter2.hessian_claims import claims

        yield from claims(self.config.measure.norm_steps, results)


def cells(matrix: np.ndarray, most: int = CELLS) -> np.ndarray:
    """Shrink a square matrix for drawing: the largest |entry| of each square cell; small ones stay as they are."""
    side = -(-len(matrix) // most)
    if side == 1:
        return matrix
    size = -(-len(matrix) // side) * side
    padded = np.zeros((size, size), dtype=matrix.dtype)
    padded[: len(matrix), : len(matrix)] = np.abs(matrix)
    return padded.reshape(size // side, side, size // side, side).max(axis=(1, 3))


def _side_by_side(tensors: list[torch.Tensor]) -> torch.Tensor:
    """One picture of several parameter tensors: vectors as rows, matrices upright beside each other."""
    import torch

    matrices = [tensor for tensor in tensors if tensor.dim() == 2]
    if not matrices:
        return torch.stack(tensors)
    return torch.cat([tensor if len(tensor) >= tensor.shape[1] else tensor.T for tensor in matrices], dim=1)
