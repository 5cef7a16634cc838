"""Covariance of single objects' gradients, accumulated while a network is trained (thesis 4.1; Li et al. 2016)."""

from __future__ import annotations

from typing import Any

import torch

from landscape_cli.curvature.stacked import flatten
from landscape_cli.models import Parameters, StackedModel


class GradientCovariance:
    """C_t = (1 - κ_t) C_{t-1} + κ_t (g_1 - g_S)(g_1 - g_S)ᵀ with κ_t = 1/t: the running mean of the outer products.

    g_1 is the gradient of a minibatch's first object, g_S that of the minibatch. κ_1 = 1, so that the random C_0 of the
    text has no effect. Since the object is one of the minibatch's S, the mean is (1 - 1/S) times the covariance.

    Parameters
    ----------
    model
        A stack of R networks with P parameters.
    whole
        The matrix (R, P, P) and not its diagonal (R, P) alone.

    Attributes
    ----------
    kept
        What it gathered, for a training that is to go on with it; see
        :meth:`~landscape_cli.training.Trainer.epochs`.
    """

    def __init__(self, model: StackedModel, *, whole: bool = False) -> None:
        self.model, self.whole = model, whole
        self.kept: dict[str, Any] = {"steps": 0, "value": None}

    def observe(self, parameters: Parameters, x: torch.Tensor, y: torch.Tensor, gradients: Parameters) -> None:
        """Take in one minibatch; for :meth:`landscape_cli.training.Trainer.epoch`.

        Parameters
        ----------
        x, y
            Minibatch (R, S, …) and its targets (R, S).
        gradients
            Of the minibatch's mean loss.
        """
        first = self.model.gradients(parameters, x[:, :1], y[:, :1])
        difference = flatten({name: first[name] - gradients[name] for name in parameters}).double()
        product = difference.unsqueeze(-1) * difference.unsqueeze(-2) if self.whole else difference.square()
        steps, value = self.steps + 1, self.value
        kappa = 1 / steps
        self.kept["steps"] = steps
        self.kept["value"] = product if value is None else (1 - kappa) * value + kappa * product

    @property
    def steps(self) -> int:
        """How many minibatches were taken in."""
        return self.kept["steps"]

    @property
    def value(self) -> torch.Tensor | None:
        """C, or its diagonal; None before the first minibatch."""
        return self.kept["value"]

    @property
    def variances(self) -> torch.Tensor:
        """Diagonal of C, (R, P), float64; as many as the parameters in the order of their vectors."""
        if self.value is None:
            raise ValueError("no minibatch was observed")
        return self.value.diagonal(dim1=-2, dim2=-1) if self.whole else self.value
