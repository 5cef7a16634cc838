"""The statistic of each method along the sample size, and m* of the three tests."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from threadpoolctl import threadpool_limits

from landscape_cli.samplesize import criteria
from landscape_cli.samplesize.design import Design, separable
from landscape_cli.samplesize.fits import Fits, at, fit
from landscape_cli.samplesize.likelihood import Losses, variance_with_error
from landscape_cli.samplesize.neighbours import expected_neighbours, neighbouring
from landscape_cli.samplesize.power import (
    noncentrality,
    published_coefficients,
    published_noncentrality,
    published_sizes,
    shifts,
    tested,
)
from landscape_cli.samplesize.resamples import Bootstrap, PublishedResamples, Resamples, Subsamples
from landscape_cli.samplesize.rules import (
    ACC,
    ALC,
    APVC,
    AS_DEFINED,
    AS_PUBLISHED,
    BOOTSTRAP,
    CROSS_VALIDATION,
    KL,
    METHODS,
    TESTS,
    UTILITY,
    WALD,
    Curve,
    D,
    M,
    S,
    Sufficient,
    Thresholds,
)

PARTS = 2  # of the resamples, worked on side by side
_SEPARABLE = "separable"


def threshold(name: str, design: Design, thresholds: Thresholds, variant: str, level: float | None = None) -> float:
    """What a method's statistic is compared with; NaN for the utility, and for D and M, which the first value decides.

    Parameters
    ----------
    level
        α* of the Wald test; None: α.
    """
    if name in TESTS:
        needed = noncentrality if variant == AS_DEFINED else published_noncentrality
        return needed(int(tested(design).sum()), thresholds.alpha if level is None else level, thresholds.beta)
    known = {
        CROSS_VALIDATION: thresholds.overfitting,
        BOOTSTRAP: thresholds.width,
        APVC: thresholds.variance,
        ACC: 1 - thresholds.alpha,
        ALC: thresholds.radius,
        KL: thresholds.deviation,
        S: thresholds.deviation,
    }
    return known.get(name, float("nan"))


def curves(
    design: Design,
    names: Iterable[str],
    variant: str,
    thresholds: Thresholds,
    sizes: np.ndarray,
    resamples: int,
    random: np.random.Generator,
    side_by_side: bool = True,
) -> dict[str, Curve]:
    """Follow the methods' statistics along the sample size.

    Parameters
    ----------
    design
        What is available.
    names
        Of methods; under AS_PUBLISHED the tests have no curve, D and M no published setting, and are left out.
    sizes
        (S,), ascending, at most the design's size.
    resamples
        B a size, 2 or more.
    side_by_side
        Work on parts of the resamples side by side, by :func:`landscape_cli.parallel.each`; the outcome is the same.
    """
    left_out = () if variant == AS_DEFINED else (*TESTS, D, M)
    wanted = tuple(name for name in METHODS if name in set(names) and name not in left_out)
    watch = _Watch(design, wanted, variant, thresholds, sizes)
    parts = min(PARTS, resamples)
    counts = [resamples // parts + (part < resamples % parts) for part in range(parts)]
    shares = list(zip(counts, random.spawn(parts), strict=True))
    if side_by_side:
        from landscape_cli.parallel import each

        with threadpool_limits(1, user_api="blas"):  # the matrices are too small to be shared by threads
            found = each(watch, shares)
    else:
        found = [watch(share) for share in shares]
    limits = {name: threshold(name, design, thresholds, variant) for name in wanted}
    if WALD in wanted and not design.linear:
        limits[WALD] = threshold(WALD, design, thresholds, variant, _level(design, thresholds))
    apart = np.concatenate([part.pop(_SEPARABLE) for part in found], axis=1).mean(axis=1)
    curve = {}
    for name in wanted:
        each_value = np.concatenate([part[name] for part in found], axis=1)
        if name == BOOTSTRAP:
            values = criteria.widest_interval(each_value, thresholds.alpha)
            errors = np.full(len(sizes), np.nan)
        elif name == D:
            values, errors = variance_with_error(each_value.T)
        else:
            values = np.nanmean(each_value, axis=1)
            errors = np.nanstd(each_value, axis=1, ddof=1) / np.sqrt(resamples)
        if name == M:
            values = np.abs(values)
        if name in (D, M):
            limits[name] = thresholds.part * float(values[0])
        curve[name] = Curve(name, sizes, values, errors, limits[name], apart)
    return curve


def sizes_of_tests(design: Design, variant: str, thresholds: Thresholds) -> dict[str, Sufficient]:
    """m* = ⌈γ*/γ⁰⌉ of the three tests, from all that is available."""
    chosen = thresholds
    if variant == AS_PUBLISHED:
        sizes = published_sizes(design, chosen.ridge, chosen.shift, chosen.alpha, chosen.beta)
        return {name: Sufficient(size) for name, size in sizes.items()}
    if separable(design):
        return {name: Sufficient(None, reason="the classes are separable") for name in TESTS}
    whole = np.ones((1, design.size))
    seen = shifts(design, whole, fit(design, whole, chosen.ridge), chosen.ridge, chosen.shift, chosen.alpha)
    found = {}
    for name in TESTS:
        level = float(seen.level[0]) if name == WALD else None
        found[name] = Sufficient(
            int(np.ceil(threshold(name, design, chosen, variant, level) / seen.per_object[name][0]))
        )
    return found


class _Watch:
    """Follows some of the resamples from the largest size, whose fits start the next smaller ones', to the smallest."""

    def __init__(
        self, design: Design, names: tuple[str, ...], variant: str, thresholds: Thresholds, sizes: np.ndarray
    ) -> None:
        self.design, self.names, self.variant, self.chosen, self.sizes = design, names, variant, thresholds, sizes
        whole = np.ones((1, design.size))
        self.losses = Losses(design, ridge=thresholds.ridge)
        self.full = None if design.linear else _fit(design, whole, thresholds, variant, None).coefficients

    def __call__(self, share: tuple[int, np.random.Generator]) -> dict[str, np.ndarray]:
        """A method's value (the bootstrap's coefficients) by size and resample, (S, B) or (S, B, n)."""
        sources = _sources(self.design, self.names, self.variant, *share)
        found: dict[str, list[np.ndarray]] = {}
        start: dict[str, np.ndarray] = {}
        for size in self.sizes[::-1].tolist():
            apart = np.zeros(share[0], dtype=bool)
            for kind, (source, own) in sources.items():
                if kind == KL:
                    values = self._neighbours(source, own, size, start)
                elif kind == D:
                    values = self._losses(source, own, size, start)
                elif kind == CROSS_VALIDATION:
                    train, test = source.halves(size)
                    fits = self._fitted(train, kind, start, apart)
                    values = {kind: criteria.overfitting(self.design, train, test, fits.coefficients)}
                else:
                    weights = source.weights(size)
                    values = self._values(own, weights, self._fitted(weights, kind, start, apart))
                for name, value in values.items():
                    found.setdefault(name, []).append(value)
            found.setdefault(_SEPARABLE, []).append(apart)
        return {name: np.stack(values[::-1]) for name, values in found.items()}

    def _neighbours(
        self, source: Resamples, names: tuple[str, ...], size: int, start: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """KL and S to one object more, with a prior of their own; at all objects those of one less."""
        k, design = min(size, self.design.size - 1), self.design
        weights, last = source.weights(k + 1), source.next(k)
        after = fit(design, weights, self.chosen.precision, start.get(KL))
        if design.linear:
            kl, score = expected_neighbours(design, after, weights if self.variant == AS_DEFINED else last)
        else:
            start[KL] = after.coefficients
            kl, score = neighbouring(fit(design, weights - last, self.chosen.precision, after.coefficients), after)
        return {name: value for name, value in ((KL, kl), (S, score)) if name in names}

    def _losses(
        self, source: Bootstrap, names: tuple[str, ...], size: int, start: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The loss on all objects for D, its change with one object more for M."""
        losses, after, start[D] = self.losses.of(*source.draws(size), start.get(D))
        return {name: value for name, value in ((D, losses), (M, after - losses)) if name in names}

    def _fitted(self, weights: np.ndarray, kind: str, start: dict[str, np.ndarray], apart: np.ndarray) -> Fits:
        """Fits, which start the next size's, and say in `apart` whose classes a plane separates."""
        fits = _fit(self.design, weights, self.chosen, self.variant, start.get(kind, self.full))
        start[kind] = fits.coefficients
        apart |= fits.separable
        return fits

    def _values(self, names: tuple[str, ...], weights: np.ndarray, fits: Fits) -> dict[str, np.ndarray]:
        chosen, found, defined = self.chosen, {}, self.variant == AS_DEFINED
        if {APVC, ACC, ALC} & set(names):
            variances = criteria.posterior_variances(fits)
        if APVC in names:
            found[APVC] = (criteria.total_variance if defined else criteria.published_variance)(variances)
        times = 1 if defined else criteria.PUBLISHED_RADII
        if ACC in names:
            found[ACC] = criteria.coverage(variances, times * chosen.coverage_radius)
        if ALC in names:
            found[ALC] = criteria.credible_radius(variances, chosen.alpha) / times
        if UTILITY in names:
            given = (self.design, weights, fits, chosen.cost)
            found[UTILITY] = criteria.utility(*given) if defined else criteria.published_utility(*given, chosen.ridge)
        if BOOTSTRAP in names:
            found[BOOTSTRAP] = fits.coefficients
        if set(names) & set(TESTS):
            asked = [name for name in TESTS if name in names]
            seen = shifts(self.design, weights, fits, chosen.ridge, chosen.shift, chosen.alpha, asked)
            found |= {name: fits.count * seen.per_object[name] for name in asked}
        return found


def _sources(
    design: Design, names: tuple[str, ...], variant: str, resamples: int, random: np.random.Generator
) -> dict[str, tuple[Resamples, tuple[str, ...]]]:
    """Which resamples the methods look at: expectations over subsamples, the bootstrap over its own."""
    kinds = (Subsamples, Bootstrap) if variant == AS_DEFINED else (PublishedResamples, PublishedResamples)
    subsamples, bootstrap = (kind(design, resamples, random) for kind in kinds)
    nested = subsamples if variant == AS_DEFINED else Subsamples(design, resamples, random)
    expected = tuple(name for name in names if name not in (CROSS_VALIDATION, BOOTSTRAP, D, M, KL, S))
    groups = {
        "expectations": (subsamples, expected),
        CROSS_VALIDATION: (subsamples, (CROSS_VALIDATION,)),
        BOOTSTRAP: (bootstrap, (BOOTSTRAP,)),
        D: (bootstrap, (D, M)),
        KL: (nested, (KL, S)),
    }
    return {kind: (source, own) for kind, (source, own) in groups.items() if set(own) & set(names)}


def _fit(design: Design, weights: np.ndarray, thresholds: Thresholds, variant: str, start: np.ndarray | None) -> Fits:
    if start is not None and len(start) == 1:
        start = np.repeat(start, len(weights), axis=0)
    if variant == AS_DEFINED or design.linear:
        return fit(design, weights, thresholds.ridge, start)
    return at(design, weights, thresholds.ridge, published_coefficients(design, weights, thresholds.ridge, start))


def _level(design: Design, thresholds: Thresholds) -> float:
    whole = np.ones((1, design.size))
    fits = fit(design, whole, thresholds.ridge)
    return float(shifts(design, whole, fits, thresholds.ridge, thresholds.shift, thresholds.alpha).level[0])
