"""A table as a design: standardised features and a constant, with what batched fits need of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import qr
from scipy.optimize import linprog

from landscape_cli.errors import BadInput

REGRESSION, CLASSIFICATION = "regression", "classification"
RANK_TOLERANCE = 1e-9  # of a column's part that the others leave, against its length


@dataclass(frozen=True, eq=False)
class Design:
    """Objects of a linear or logistic regression.

    ``objects`` numbers the rows by the object that they are: copies of one object, as a bootstrap makes them, share
    their number.
    """

    X: np.ndarray  # float64 (m, n), the constant last
    y: np.ndarray  # float64 (m,); 0 and 1 for classification
    task: str  # REGRESSION or CLASSIFICATION
    objects: np.ndarray  # int (m,)

    @property
    def size(self) -> int:
        """The number of objects m."""
        return len(self.y)

    @property
    def features(self) -> int:
        """The number of parameters n, the constant among them."""
        return self.X.shape[1]

    @property
    def linear(self) -> bool:
        """Whether it is a regression."""
        return self.task == REGRESSION

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of a symmetric matrix's upper triangle, (n(n+1)/2,) each."""
        return np.triu_indices(self.features)

    @cached_property
    def products(self) -> np.ndarray:
        """x_j x_k of every object, one column a pair: (m, n(n+1)/2). A weighted Gram matrix is a product with it."""
        rows, columns = self.pairs
        return self.X[:, rows] * self.X[:, columns]

    @cached_property
    def against(self) -> np.ndarray:
        """x_i y_i, (m, n)."""
        return self.X * self.y[:, None]

    @cached_property
    def signed(self) -> np.ndarray:
        """x_i times 1 for class 1 and -1 for class 0, (m, n): a margin is positive where the class is predicted."""
        return self.X * (2 * self.y - 1)[:, None]

    def gram(self, weights: np.ndarray) -> np.ndarray:
        """Σ_i weights_i x_i x_iᵀ for many weightings at once: (K, m) -> (K, n, n)."""
        rows, columns = self.pairs
        packed = weights @ self.products
        full = np.empty((len(weights), self.features, self.features))
        full[:, rows, columns] = packed
        full[:, columns, rows] = packed
        return full

    def take(self, rows: np.ndarray) -> Design:
        """The design of some rows, repeated ones too; nothing is standardised again."""
        return Design(self.X[rows], self.y[rows], self.task, self.objects[rows])


def separable(design: Design) -> bool:
    """Whether a plane has the objects of each class on its own side, some of them perhaps in it.

    Then the likelihood of a logistic regression has no maximum. A linear programme decides: maximise the sum of the
    margins, none of them negative.
    """
    if design.linear:
        return False
    solved = linprog(-design.signed.sum(axis=0), A_ub=-design.signed, b_ub=np.zeros(design.size), bounds=(-1, 1))
    return bool(solved.status == 0 and -solved.fun > 1e-6)


def standardised(X: np.ndarray, y: np.ndarray, task: str, features: tuple[str, ...] = ()) -> Design:
    """Bring features (and the target of a regression) to mean 0 and deviation 1, and add a constant as last column.

    Parameters
    ----------
    X
        (m, n), finite.
    y
        (m,); 0 and 1 for classification.
    task
        REGRESSION or CLASSIFICATION.
    features
        Names of the columns, for messages; none: their numbers.

    Raises
    ------
    BadInput
        Constant or collinear columns, no more objects than twice the parameters, a class with one object, a constant
        target.
    """
    X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
    m, n = X.shape
    names = features or tuple(f"number {j}" for j in range(n))
    if m <= 2 * (n + 1):
        raise BadInput(
            f"dataset: {m} objects for {n} features; allowed: more than {2 * (n + 1)} objects, twice the number of "
            "parameters (the constant is one); leave features out with dataset.drop=[…]"
        )
    if task == CLASSIFICATION:
        classes, counts = np.unique(y, return_counts=True)
        if set(classes) != {0.0, 1.0}:
            raise BadInput(f"dataset.target: {len(classes)} classes; allowed: two")
        if counts.min() < 2:
            rare = int(classes[counts.argmin()])
            raise BadInput(f"dataset.target: class {rare} has one object of {m}; allowed: two or more in each class")
    elif np.ptp(y) == 0:
        raise BadInput(f"dataset.target: it is {y[0]:g} for every object; there is nothing to predict")
    spread = np.ptp(X, axis=0)
    if (spread == 0).any():
        constant = names[int(np.argmin(spread))]
        raise BadInput(
            f"dataset: column {constant!r} is constant on the {m} objects used; leave it out: dataset.drop=[{constant}]"
        )
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    _check_rank(scaled, names)
    target = (y - y.mean()) / y.std() if task == REGRESSION else y
    return Design(np.column_stack([scaled, np.ones(m)]), target, task, np.arange(m))


def _check_rank(scaled: np.ndarray, names: tuple[str, ...]) -> None:
    """Refuse columns of which one is a combination of others, naming them."""
    R, order = qr(scaled, mode="r", pivoting=True)
    R = R[: len(order)]
    left = np.abs(np.diag(R))
    rank = int((left > RANK_TOLERANCE * left[0]).sum())
    if rank == len(order):
        return
    dependent = order[rank]
    parts = np.linalg.solve(R[:rank, :rank], R[:rank, rank])
    of = [names[order[j]] for j in np.flatnonzero(np.abs(parts) > 1e-6)]
    raise BadInput(
        f"dataset: column {names[dependent]!r} is a linear combination of {', '.join(map(repr, of))}; leave it out: "
        f"dataset.drop=[{names[dependent]}]"
    )
