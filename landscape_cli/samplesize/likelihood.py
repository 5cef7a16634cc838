"""D- and M-sufficiency (Definitions 11, 12): what a loss on all objects does when the fit sees only k of them.

D(k) is the variance, over bootstrap samples of k objects, of the loss of the fit on the full sample; M(k) is how much
the mean of that loss changes from k to k + 1 objects. With samples of k + 1 that hold those of k (common random
numbers) the change of each sample is seen, instead of the difference of two means that each vary by much more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape_cli.samplesize.design import Design
from landscape_cli.samplesize.fits import LOG_2_PI, fit_logistic, log_sigmoid

LOG_LIKELIHOOD, MEAN_SQUARE = "log_likelihood", "mean_square"
SETTLED = 1e-9  # least determinant of a sample's correlations for plain elimination
EPSILON = 1e-14  # relative error of a sum of squares
RANK = 1e-10  # of an eigenvalue against the largest one, below which a direction is not seen by a sample


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Moments of the loss over bootstrap samples."""

    sizes: np.ndarray  # k, (S,)
    mean: np.ndarray  # E l(D_m, ŵ_k), (S,)
    variance: np.ndarray  # D(k), (S,)
    variance_error: np.ndarray  # its standard error, (S,)
    change: np.ndarray  # E l(D_m, ŵ_{k+1}) - E l(D_m, ŵ_k), (S,); M(k) is its size. As published: to the next size
    change_error: np.ndarray  # its standard error, (S,)
    independent_error: np.ndarray  # what it would be with independent samples of k and of k + 1, (S,)


def loss_curve(
    design: Design,
    sizes: np.ndarray,
    resamples: int,
    random: np.random.Generator,
    loss: str = LOG_LIKELIHOOD,
    noise: float = 1.0,
    ridge: float = 0.01,
    nested: bool = True,
) -> LossCurve:
    """Follow D(k) and M(k).

    Parameters
    ----------
    design
        m objects: for a regression fitted by least squares (of least norm where a sample does not settle it), for two
        classes by logistic regression.
    sizes
        k, (S,), ascending.
    resamples
        B.
    loss
        LOG_LIKELIHOOD: of all objects together, in nats, with variance `noise`; MEAN_SQUARE: of an object.
    noise
        σ² of a regression.
    ridge
        Of the logistic fits.
    nested
        Samples of every size hold those of the smaller ones. False: as published, fresh samples at every size, and
        the change is that to the next size of the grid; its last one is NaN.
    """
    losses = Losses(design, loss, noise, ridge)
    start: np.ndarray | None = None
    own, after = np.empty((resamples, len(sizes))), np.full((resamples, len(sizes)), np.nan)
    if nested:
        drawn = random.integers(design.size, size=(resamples, int(sizes[-1]) + 1))
        for place in range(len(sizes) - 1, -1, -1):
            k = int(sizes[place])
            own[:, place], after[:, place], start = losses.of(drawn[:, :k], drawn[:, k], start)
        differences = after - own
        change, spread = differences.mean(axis=0), differences.std(axis=0, ddof=1)
    else:
        for place in range(len(sizes) - 1, -1, -1):
            fresh = random.integers(design.size, size=(resamples, int(sizes[place])))
            own[:, place], _, start = losses.of(fresh, None, start)
        change = np.append(np.diff(own.mean(axis=0)), np.nan)
        variances = own.var(axis=0, ddof=1)
        spread = np.append(np.sqrt(variances[1:] + variances[:-1]), np.nan)
    variance, variance_error = variance_with_error(own)
    independent = variance + after.var(axis=0, ddof=1) if nested else spread**2
    return LossCurve(
        sizes=np.asarray(sizes),
        mean=own.mean(axis=0),
        variance=variance,
        variance_error=variance_error,
        change=change,
        change_error=spread / np.sqrt(resamples),
        independent_error=np.sqrt(independent / resamples),
    )


def variance_with_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance over resamples and its standard error, NaN for fewer than four: (B, S) -> (S,), (S,)."""
    variance = values.var(axis=0, ddof=1)
    fourth = np.mean((values - values.mean(axis=0)) ** 4, axis=0)
    error = np.sqrt(np.maximum(fourth - variance**2, 0) / len(values))
    return variance, error if len(values) > 3 else np.full_like(error, np.nan)


class Losses:
    """Losses on all objects of fits to samples, and to the samples with one more object."""

    def __init__(self, design: Design, loss: str = LOG_LIKELIHOOD, noise: float = 1.0, ridge: float = 0.01) -> None:
        self.design, self.loss, self.noise, self.ridge = design, loss, noise, ridge
        self.intercept = design.linear and bool((design.X[:, -1] == 1).all())
        if design.linear:
            whole = np.ones((1, design.size))
            self.gram, self.against = design.gram(whole)[0], design.against.sum(axis=0)
            self.squares = float(design.y @ design.y)
            # Encoded text and sums of columns leave parameters open whatever the sample.
            self.open = bool(np.linalg.matrix_rank(design.X) < design.features)

    def of(
        self, drawn: np.ndarray, extra: np.ndarray | None, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Losses of fits to samples, and to the samples with one more object.

        Parameters
        ----------
        drawn
            Objects (B, k).
        extra
            The one more of each, (B,), or None.
        start
            From where logistic fits start, (B, n).

        Returns
        -------
        Losses (B,) of the samples, of the larger ones (NaN without `extra`), and the logistic fits (B, n) or None.
        """
        design = self.design
        rows = np.arange(len(drawn))[:, None] * design.size
        weights = np.bincount((drawn + rows).ravel(), minlength=len(drawn) * design.size)
        weights = weights.reshape(len(drawn), design.size).astype(float)
        nothing = np.full(len(drawn), np.nan)
        if design.linear:
            gram, against = design.gram(weights), weights @ design.against
            few = self.open or drawn.shape[1] < 3 * design.features
            own = self._linear(gram, against, few)
            if extra is None:
                return own, nothing, None
            x = design.X[extra]
            after = self._linear(gram + x[:, :, None] * x[:, None, :], against + design.against[extra], few)
            return own, after, None
        fitted, _ = fit_logistic(design, design.y, weights, self.ridge, start)
        if extra is None:
            return self._logistic(fitted), nothing, fitted
        weights[np.arange(len(drawn)), extra] += 1
        after, _ = fit_logistic(design, design.y, weights, self.ridge, fitted)
        return self._logistic(fitted), self._logistic(after), fitted

    def _linear(self, gram: np.ndarray, against: np.ndarray, few: bool) -> np.ndarray:
        w = self._coefficients(gram, against, few)
        squares = self.squares + np.sum(w * (w @ self.gram - 2 * self.against), axis=1)
        if self.loss == MEAN_SQUARE:
            return squares / self.design.size
        return -0.5 * (squares / self.noise + self.design.size * (LOG_2_PI + np.log(self.noise)))

    def _coefficients(self, gram: np.ndarray, against: np.ndarray, few: bool) -> np.ndarray:
        """Least squares; an intercept is fitted apart, so that the norm of what is left open is not its own."""
        if not self.intercept:
            return least_squares(gram, against, few)
        count, sums = gram[:, -1:, -1], gram[:, :-1, -1]
        means = sums / count
        inside = gram[:, :-1, :-1] - means[:, :, None] * sums[:, None, :]
        squares, about_mean = (np.diagonal(part, axis1=1, axis2=2) for part in (gram[:, :-1, :-1], inside))
        with np.errstate(divide="ignore", invalid="ignore"):
            rounding = EPSILON * np.max(squares / np.maximum(about_mean, 0), axis=1, initial=0.0, where=squares > 0)
        w = least_squares(inside, against[:, :-1] - means * against[:, -1:], few, rounding)
        offset = against[:, -1:] / count - np.sum(means * w, axis=1, keepdims=True)
        return np.concatenate([w, offset], axis=1)

    def _logistic(self, w: np.ndarray) -> np.ndarray:
        total = log_sigmoid(w @ self.design.signed.T).sum(axis=1)
        return -total / self.design.size if self.loss == MEAN_SQUARE else total


def least_squares(
    gram: np.ndarray, against: np.ndarray, few: bool = True, rounding: np.ndarray | None = None
) -> np.ndarray:
    """Solve the normal equations of K samples; of all solutions that of least norm: (K, n, n), (K, n) -> (K, n).

    Parameters
    ----------
    few
        Many samples may not settle all parameters. False: those that may not are told from the others by their
        determinant, which is that of their correlations times the diagonal.
    rounding
        Relative error of the matrices' smallest diagonal, (K,); None: that of single numbers.
    """
    if rounding is None:
        rounding = np.full(len(gram), EPSILON)
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    rounding = np.where((diagonal > 0).all(axis=1), np.minimum(rounding, 1.0), 1.0)
    if few:
        return _least_norm(gram, against, rounding)
    with np.errstate(divide="ignore", invalid="ignore"):
        sign, log_determinant = np.linalg.slogdet(gram)
        correlations = log_determinant - np.log(diagonal).sum(axis=1)
        settled = (sign > 0) & (correlations > np.log(SETTLED)) & (rounding < SETTLED)
    w = np.empty_like(against)
    w[settled] = np.linalg.solve(gram[settled], against[settled][:, :, None])[:, :, 0]
    w[~settled] = _least_norm(gram[~settled], against[~settled], rounding[~settled])
    return w


def _least_norm(gram: np.ndarray, against: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    # Whether parameters are settled must not depend on units; which of many solutions is the least one does.
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = gram / (scale[:, :, None] * scale[:, None, :])
    w, whole = _from_spectrum(scaled, against / scale, np.maximum(RANK, rounding))
    w /= scale
    if not whole.all():
        w[~whole] = _from_spectrum(gram[~whole], against[~whole], np.full((~whole).sum(), RANK))[0]
    return w


def _from_spectrum(gram: np.ndarray, against: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The solution along the directions that are seen, and whether that is all of them: (K, n), (K,)."""
    values, vectors = np.linalg.eigh(gram)
    seen = values > least[:, None] * values[:, -1:]
    inverse = np.where(seen, 1 / np.where(seen, values, 1), 0)
    along = (np.swapaxes(vectors, 1, 2) @ against[:, :, None])[:, :, 0]
    return (vectors @ (inverse * along)[:, :, None])[:, :, 0], seen.all(axis=1)
