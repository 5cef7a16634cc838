"""The nine sample size methods on 500 objects and 14 parameters, 100 resamples of every size, each method alone.

Beside them the plain way: one resample at a time, refitted with numpy or scikit-learn, posteriors by 1000 draws. It is
timed at every twelfth size and the rest extrapolated. Then the thesis's own criteria: D and M from 1000 bootstrap
samples of 345 objects, KL and S along 100 chains of 500 objects, beside refits and inversions one at a time. Nothing
here passes or fails.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression

from landscape_cli import parallel
from landscape_cli.memory import keep_freed_memory
from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION, Design, standardised
from landscape_cli.samplesize.likelihood import MEAN_SQUARE, loss_curve
from landscape_cli.samplesize.methods import curves, sizes_of_tests
from landscape_cli.samplesize.neighbours import chains
from landscape_cli.samplesize.power import tested
from landscape_cli.samplesize.resamples import size_grid
from landscape_cli.samplesize.rules import AS_DEFINED, AS_PUBLISHED, CLASSICAL, TESTS, Thresholds
from tests.benchmarks.report import write

OBJECTS, FEATURES, RESAMPLES, REPEATS, EVERY = 500, 13, 100, 3, 12
CHOSEN = Thresholds()
Found = TypeVar("Found")


def main() -> None:
    """Time every method, in turn and several times over, and print the table."""
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the runner has it: parts of the resamples side by side
    parallel.use_workers(threads)
    seconds = {}
    print(f"{OBJECTS} x {FEATURES + 1}, {RESAMPLES} resamples, {threads} threads; seconds, all sizes")
    print(f"{'':<15} {'method':<18} {'as defined':>10} {'published':>10} {'plain':>8} {'ratio':>6}")
    for task in (REGRESSION, CLASSIFICATION):
        design = _design(task)
        sizes = size_grid(design, 5)
        for name in CLASSICAL:
            own = {variant: _timed(design, name, variant, sizes) for variant in (AS_DEFINED, AS_PUBLISHED)}
            began = time.perf_counter()
            for size in sizes[::EVERY]:
                _plain(design, name, int(size))
            plain = (time.perf_counter() - began) * len(sizes) / len(sizes[::EVERY])
            defined, published = (statistics.median(own[variant]) for variant in (AS_DEFINED, AS_PUBLISHED))
            print(f"{task:<15} {name:<18} {defined:>10.3f} {published:>10.3f} {plain:>8.1f} {plain / defined:>6.0f}")
            seconds[f"{task} {name}"] = {**own, "plain": plain}
    seconds |= _own_criteria()
    write("sample_size", {"what": f"{OBJECTS} x {FEATURES + 1}, B = {RESAMPLES}", "seconds": seconds})


def _own_criteria() -> dict[str, dict[str, object]]:
    """D and M, KL and S beside the plain way, and what common random numbers are worth."""
    random = np.random.default_rng(0)
    X, w = random.normal(size=(345, 5)), random.normal(size=5)
    small = standardised(X, X @ w + random.normal(size=345), REGRESSION)
    sizes = np.unique(np.linspace(6, 345, 100).astype(int))
    ours, found = _repeated(lambda: loss_curve(small, sizes, 1000, np.random.default_rng(1), MEAN_SQUARE))
    began = time.perf_counter()
    for k in sizes[::EVERY]:
        for _ in range(1000):
            rows = random.integers(345, size=int(k))
            fitted = LinearRegression().fit(small.X[rows, :-1], small.y[rows])
            np.mean((small.y - fitted.predict(small.X[:, :-1])) ** 2)
    plain = (time.perf_counter() - began) * len(sizes) / len(sizes[::EVERY])
    gain = float(np.median(found.independent_error / found.change_error))
    took = f"{statistics.median(ours):.2f} s, plain {plain:.0f} s"
    print(f"D and M, 1000 samples of each of {len(sizes)} sizes, 345 x 5: {took}")
    print(f"standard error of M(k): {gain:.1f} times smaller with common random numbers (median over k)")
    X, w = random.normal(size=(500, 10)), random.normal(size=10)
    y = X @ w + random.normal(size=500)
    chained, _ = _repeated(lambda: chains(X, y, 100, np.random.default_rng(1), eigenvalues=100))
    began = time.perf_counter()
    for _ in range(5):
        order = random.permutation(500)
        for k in range(10, 500):
            own, after = X[order[:k]], X[order[: k + 1]]
            first, second = (np.linalg.inv(np.eye(10) + part.T @ part) for part in (own, after))
            np.trace(np.linalg.inv(second) @ first), np.linalg.slogdet(first), np.linalg.inv(first + second)
            np.linalg.eigvalsh(own.T @ own)
    plain_chains = (time.perf_counter() - began) * 20
    print(f"KL and S along 100 chains of 500 x 10: {statistics.median(chained):.2f} s, plain {plain_chains:.1f} s")
    return {
        "likelihood": {"ours": ours, "plain": plain, "error_ratio": gain},
        "chains": {"ours": chained, "plain": plain_chains},
    }


def _repeated(work: Callable[[], Found]) -> tuple[list[float], Found]:
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - began)
    return seconds, found


def _design(task: str) -> Design:
    random = np.random.default_rng(0)
    X, w = random.normal(size=(OBJECTS, FEATURES)), random.normal(size=FEATURES)
    if task == REGRESSION:
        return standardised(X, X @ w + random.normal(size=OBJECTS), task)
    return standardised(X, (random.random(OBJECTS) < 1 / (1 + np.exp(-0.5 * X @ w))).astype(float), task)


def _timed(design: Design, name: str, variant: str, sizes: np.ndarray) -> list[float]:
    found = []
    for turn in range(REPEATS + 1):
        began = time.perf_counter()
        curves(design, [name], variant, CHOSEN, sizes, RESAMPLES, np.random.default_rng(turn))
        if name in TESTS:
            sizes_of_tests(design, variant, CHOSEN)
        if turn:  # the first one warms up
            found.append(time.perf_counter() - began)
    return found


def _plain(design: Design, name: str, size: int) -> list[float]:
    """One size, resample by resample."""
    random, found = np.random.default_rng(size), []
    for _ in range(RESAMPLES):
        rows = random.permutation(OBJECTS)[:size]
        X, y = design.X[rows], design.y[rows]
        if name == "cross_validation":
            half = size // 2
            w = _plain_fit(design, X[:half], y[:half])
            found.append(
                _plain_likelihood(design, X[:half], y[:half], w) - _plain_likelihood(design, X[half:], y[half:], w)
            )
            continue
        w = _plain_fit(design, X, y)
        if name == "bootstrap":
            found.append(w.max())
            continue
        p = 1 / (1 + np.exp(-X @ w))
        information = (X.T * (1.0 if design.linear else p * (1 - p))) @ X + CHOSEN.ridge * np.eye(X.shape[1])
        covariance = np.linalg.inv(information)
        if name in TESTS:
            u = tested(design)
            found.append(CHOSEN.shift**2 * np.linalg.inv(covariance[np.ix_(u, u)]).sum())
        elif name == "apvc":
            found.append(np.trace(covariance))
        else:
            draws = random.multivariate_normal(w, covariance, size=1000 if name != "utility" else 100)
            distances = np.linalg.norm(draws - w, axis=1)
            if name == "acc":
                found.append(np.mean(distances <= CHOSEN.coverage_radius))
            elif name == "alc":
                found.append(np.quantile(distances, 1 - CHOSEN.alpha))
            else:
                found.append(np.mean([_plain_likelihood(design, X, y, draw) for draw in draws]))
    return found


def _plain_fit(design: Design, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    if design.linear:
        return np.linalg.solve(X.T @ X + CHOSEN.ridge * np.eye(X.shape[1]), X.T @ y)
    if y.min() == y.max():
        return np.zeros(X.shape[1])
    return LogisticRegression(C=1 / CHOSEN.ridge, fit_intercept=False).fit(X, y).coef_[0]


def _plain_likelihood(design: Design, X: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    if design.linear:
        return float(-0.5 * np.mean((y - X @ w) ** 2))
    return float(-np.mean(np.logaddexp(0, -(2 * y - 1) * (X @ w))))


if __name__ == "__main__":
    main()
