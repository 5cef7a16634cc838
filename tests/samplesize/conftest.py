"""Random designs, and real tables where there are some."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from landscape_cli.data.tabular import load_table, locate_table
from landscape_cli.samplesize.design import REGRESSION, Design, standardised


def draw_design(task: str, m: int, n: int, seed: int = 0, noise: float = 1.0) -> Design:
    random = np.random.default_rng(seed)
    X = random.normal(size=(m, n - 1)) @ (np.eye(n - 1) + 0.3 * random.normal(size=(n - 1, n - 1)))
    signal = X @ random.uniform(-1, 1, size=n - 1) / np.sqrt(n)
    if task == REGRESSION:
        return standardised(X, signal + noise * random.normal(size=m), task)
    return standardised(X, (signal + 0.5 + noise * random.logistic(size=m) > 0).astype(float), task)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Design]:
    """A design of m objects and n parameters: correlated features, and a target that depends on them."""
    return draw_design


@pytest.fixture(scope="session")
def apart() -> Design:
    """Two classes that a plane separates."""
    random = np.random.default_rng(5)
    X = random.normal(size=(60, 3))
    y = (X @ [1.0, -2.0, 0.5] > 0).astype(float)
    X[:, 0] += 0.3 * (2 * y - 1)
    return standardised(X, y, "classification")


@pytest.fixture(scope="session")
def real_table() -> Callable[[str], Design]:
    """A real table as a design, or a skip."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = Path(os.environ.get("LANDSCAPE_DATA") or beside).absolute()
    if not (root / "tabular").is_dir():
        pytest.skip(f"no real tables: {root} has no tabular/")

    def load(name: str) -> Design:
        data = load_table(locate_table({"name": name}, [root]))
        return standardised(data.X, data.y, data.source.task, data.features)

    return load
