"""Resamples of a design as weightings: how often each object is in each of B resamples of a given size."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from landscape_cli.errors import MeasurementFailed
from landscape_cli.samplesize.design import Design

MAX_REDRAWS = 1000


class Resamples(ABC):
    """B resamples of every size."""

    @abstractmethod
    def weights(self, size: int) -> np.ndarray:
        """Weightings (B, m) of the resamples of one size."""

    @abstractmethod
    def halves(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Weightings (B, m) of a train and a test half of them."""


class Subsamples(Resamples):
    """Objects without replacement, smaller resamples inside larger ones.

    The mean over them estimates the expectation over samples of that size without bias, which that over resamples with
    repeated objects does not; nested, it is smooth in the size. Train and test halves have no object in common, copies
    of one object in a design count as that object.
    """

    def __init__(self, design: Design, count: int, random: np.random.Generator) -> None:
        order = random.permuted(np.broadcast_to(np.arange(design.size), (count, design.size)), axis=1)
        self._ranks = np.argsort(order, axis=1)
        self._in_train = np.take_along_axis(_alternating(design.objects[order]), self._ranks, axis=1)

    def weights(self, size: int) -> np.ndarray:
        """The first objects of each order."""
        return (self._ranks < size).astype(float)

    def next(self, size: int) -> np.ndarray:
        """Which object comes next, as weightings (B, m) with a single one."""
        return (self._ranks == size).astype(float)

    def halves(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Every other object."""
        inside = self._ranks < size
        return (inside & self._in_train).astype(float), (inside & ~self._in_train).astype(float)


class Bootstrap(Resamples):
    """Objects with replacement, smaller resamples inside larger ones."""

    def __init__(self, design: Design, count: int, random: np.random.Generator) -> None:
        self._drawn, self._size = random.integers(design.size, size=(count, design.size + 1)), design.size

    def weights(self, size: int) -> np.ndarray:
        """How often each object is among the first draws."""
        return _counts(self._drawn[:, :size], self._size)

    def halves(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws in turn; an object can be in both."""
        return _counts(self._drawn[:, :size:2], self._size), _counts(self._drawn[:, 1:size:2], self._size)

    def draws(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The first draws, (B, size), and the one that comes next, (B,)."""
        return self._drawn[:, :size], self._drawn[:, size]


class PublishedResamples(Resamples):
    """As the published code has them: drawn with replacement, and drawn with replacement from these once more.

    Its train and test halves are two independent random halves of a resample, which overlap. Resamples in which a class
    has fewer than two objects are drawn again.
    """

    def __init__(self, design: Design, count: int, random: np.random.Generator) -> None:
        self._design, self._count = design, count
        self._seed = int(random.integers(2**62))

    def weights(self, size: int) -> np.ndarray:
        """Fresh draws for every size."""
        first = self._draw(size, np.random.default_rng([self._seed, size]))
        return self._again(first, np.random.default_rng([self._seed, size, 1]))

    def halves(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Two independent halves of the first draws."""
        random = np.random.default_rng([self._seed, size])
        drawn = self._draw(size, random)
        half = size // 2
        train, test = np.empty((self._count, size - half), dtype=int), np.empty((self._count, half), dtype=int)
        poor = np.ones(self._count, dtype=bool)
        for _ in range(MAX_REDRAWS):
            fresh = drawn[poor]
            test[poor] = np.take_along_axis(fresh, _orders(fresh.shape, random)[:, :half], axis=1)
            train[poor] = np.take_along_axis(fresh, _orders(fresh.shape, random)[:, half:], axis=1)
            poor = self._poor(train, 0) | self._poor(test, 0)
            if not poor.any():
                return _counts(train, self._design.size), _counts(test, self._design.size)
            drawn[poor] = self._draw(size, random)[poor]
        raise MeasurementFailed(f"no two halves of {size} objects with both classes were drawn in {MAX_REDRAWS} trials")

    def _draw(self, size: int, random: np.random.Generator) -> np.ndarray:
        shape = (self._count, size)
        drawn = random.integers(self._design.size, size=shape)
        for _ in range(MAX_REDRAWS):
            poor = self._poor(drawn, 1)
            if not poor.any():
                return drawn
            drawn[poor] = random.integers(self._design.size, size=shape)[poor]
        raise MeasurementFailed(f"no {size} objects with two of each class were drawn in {MAX_REDRAWS} trials")

    def _again(self, first: np.ndarray, random: np.random.Generator) -> np.ndarray:
        second, poor = np.empty_like(first), np.ones(len(first), dtype=bool)
        for _ in range(MAX_REDRAWS):
            fresh = first[poor]
            second[poor] = np.take_along_axis(fresh, random.integers(fresh.shape[1], size=fresh.shape), axis=1)
            poor = self._poor(second, 1)
            if not poor.any():
                return _counts(second, self._design.size)
        raise MeasurementFailed(
            f"no {first.shape[1]} objects with two of each class were drawn in {MAX_REDRAWS} trials"
        )

    def _poor(self, drawn: np.ndarray, least: int) -> np.ndarray:
        """Which resamples have no more than `least` objects of a class."""
        if self._design.linear:
            return np.zeros(len(drawn), dtype=bool)
        ones = self._design.y[drawn].sum(axis=1)
        return np.minimum(ones, drawn.shape[1] - ones) <= least


def bootstrap_copy(design: Design, size: int, random: np.random.Generator) -> Design:
    """A table of `size` objects drawn with replacement, as if it were what is available."""
    for _ in range(MAX_REDRAWS):
        copy = design.take(random.integers(design.size, size=size))
        if design.linear or 2 <= copy.y.sum() <= size - 2:
            return copy
    raise MeasurementFailed(f"no {size} objects with two of each class were drawn in {MAX_REDRAWS} trials")


def size_grid(design: Design, step: int, published: bool = False, most: int | None = None) -> np.ndarray:
    """Sizes 2n, 2n + step, … up to m, m among them; as published, up to m - 2.

    Parameters
    ----------
    most
        At most so many, closer to each other among the small ones, where statistics change fast; None: all.
    """
    begin = 2 * design.features
    if published:
        sizes = np.arange(begin, max(design.size - 1, begin + 1), step)
    else:
        sizes = np.unique(np.append(np.arange(begin, design.size, step), design.size))
    if most is not None and len(sizes) > most:
        sizes = sizes[np.unique(np.round(np.linspace(0, 1, most) ** 1.5 * (len(sizes) - 1)).astype(int))]
    return sizes


def _counts(drawn: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` objects is in each row of draws: (B, k) -> (B, size)."""
    rows = np.arange(len(drawn))[:, None] * size
    return np.bincount((drawn + rows).ravel(), minlength=len(drawn) * size).reshape(len(drawn), size).astype(float)


def _orders(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    return np.argsort(random.random(shape), axis=1)


def _alternating(objects: np.ndarray) -> np.ndarray:
    """Give the distinct objects of each row to one half and the other in turn, copies with the first: (B, m)."""
    inside = np.empty(objects.shape, dtype=bool)
    for row, numbers in enumerate(objects):
        _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
        turn = np.empty(len(first), dtype=int)
        turn[np.argsort(first)] = np.arange(len(first))
        inside[row] = turn[which] % 2 == 0
    return inside
