"""The thesis's measurements as functions, for any network and any data; what ``experiment=own`` computes with.

Networks are measured as they are: nothing is trained here, and each is in evaluation mode while it is measured and in
its own mode afterwards. Objects may be tensors, arrays or frames, on any device; they go to the network's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from landscape_cli.bounds.by_theorem import NUMBERS, of_networks, of_numbers
from landscape_cli.bounds.chains import Bound
from landscape_cli.convergence.laws import power_law, stored_k, suited_smoothing
from landscape_cli.curvature import Hessian, LandscapeMeasure, Objective, spectral_density, top_eigenpairs
from landscape_cli.curvature import landscape_measure as _measure
from landscape_cli.curvature.spectrum import BASIS_CAP
from landscape_cli.errors import BadInput
from landscape_cli.measured import HessianSpectrum, LossDifferenceCurve, SampleSizes
from landscape_cli.own.networks import AUTO, Task, evaluating, judge, task_of
from landscape_cli.own.reading import as_labels, as_objects
from landscape_cli.rng import generator, numpy_generator
from landscape_cli.samplesize.rules import METHODS, TESTS, Thresholds, sufficient

Loss = str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Array = Any  # torch.Tensor, numpy.ndarray, pandas.DataFrame or Series
WIDTHS = 150  # of the Gaussian that smooths a density, over the spectrum
LEAST_STEPS = 4  # of Lanczos, below which a density would say nothing


def loss_difference_curve(
    model: torch.nn.Module,
    x: Array,
    y: Array,
    *,
    loss: Loss = AUTO,
    permutations: int = 100,
    smoothing: float | None = 0.99,
    seed: int = 0,
) -> LossDifferenceCurve:
    """Follow |L_{k+1} - L_k| at a network's parameters along random orderings of objects (thesis 1.3).

    Parameters
    ----------
    model
        Any network, as trained.
    x
        Objects, (N, …), N >= 2.
    y
        Classes (N,), whole numbers or text; or real targets (N, …).
    loss
        ``"cross_entropy"``, ``"squared_error"``, the dotted path of a function, a function (outputs, targets) -> one
        loss an object, (B,); ``"auto"``: cross-entropy of classes, squared error of real targets.
    permutations
        Orderings, at least 2.
    smoothing
        a of the moving average e_k = a e_{k-1} + (1 - a) d_k, in [0, 1). A short curve hides behind the start-up of a
        long average; None: 0.99 from 2000 objects on, less below.
    seed
        Of the orderings.

    Returns
    -------
    LossDifferenceCurve
        In nats for the cross-entropy, else in units of the loss.

    Raises
    ------
    BadInput
        The network cannot take the objects, its outputs do not suit the targets, a value or a loss is not finite; says
        which.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(400, 5)
    >>> curve = loss_difference_curve(torch.nn.Linear(5, 2), x, (x[:, 0] > 0).long(), smoothing=0.9)
    >>> int(curve.k[-1]), curve.losses.shape
    (399, (400,))
    >>> 0.9 < curve.law.exponent < 1.1  # at fixed parameters the mean of k losses changes like 1/k
    True
    >>> 20 < curve.sufficient(0.01).size < 150
    True
    >>> curve.sufficient(1e-6)
    Sufficient(size=None, first=False, reason='not reached')
    """
    from landscape_cli.convergence.streamed import difference_curve

    _check(permutations >= 2, f"permutations: {permutations}; allowed: 2 or more")
    _check(smoothing is None or 0 <= smoothing < 1, f"smoothing: {smoothing}; allowed: 0 or more and less than 1")
    task = _task(model, x, y, loss)
    _check(len(task.x) >= 2, f"x, y: {len(task.x)} object; allowed: 2 or more, since a difference needs a second one")
    judged = judge(model, task)
    at = stored_k(len(judged.losses) - 1)
    smoothing = suited_smoothing(len(judged.losses)) if smoothing is None else smoothing
    found = difference_curve(judged.losses, permutations, generator(seed, "orderings"), torch.from_numpy(at), smoothing)
    mean, error, smoothed = (values.cpu().numpy() for values in (found.mean, found.standard_error, found.average))
    return LossDifferenceCurve(
        at, mean, error, smoothed, judged.losses.cpu().numpy(), judged.accuracy, power_law(at, mean)
    )


def landscape_measure(
    model: torch.nn.Module,
    x: Array,
    y: Array,
    *,
    loss: Loss = AUTO,
    objects: int | None = 50,
    seed: int = 0,
    tolerance: float = 1e-2,
) -> LandscapeMeasure:
    """Measure μ_f(f|D) = mean_i ‖H_i(θ) - H̄(θ)‖₂ at a network's parameters (Definition 10, thesis 1.3).

    H_i is the Hessian of object i's loss by all parameters, H̄ the mean over all N objects; none is ever built, and the
    norms are found by Lanczos iterations.

    Parameters
    ----------
    model, x, y, loss
        As of :func:`loss_difference_curve`.
    objects
        Whose norms are taken, drawn at random; None: all.
    seed
        Of that draw.
    tolerance
        Residual of each norm, relative to it.

    Returns
    -------
    LandscapeMeasure
        ``mean`` ± ``standard_error``, ``norms`` (n,) with ``residuals`` (n,), in units of the loss per parameter².

    Raises
    ------
    BadInput
        As of :func:`loss_difference_curve`; or a layer ties objects together or draws at random.
    MeasurementFailed
        A norm did not converge, or products of the network's Hessian cannot be batched.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(60, 3), torch.randn(60)
    >>> linear = torch.nn.Linear(3, 1, bias=False)
    >>> found = landscape_measure(linear, x, y, objects=None)
    >>> exact = 2 * x[:, :, None] * x[:, None, :]  # the Hessian of (y - wᵀx)² is 2xxᵀ
    >>> norms = torch.linalg.matrix_norm(exact - exact.mean(dim=0), 2)
    >>> abs(found.mean / float(norms.mean()) - 1) < 1e-2
    True
    """
    _check(objects is None or objects >= 1, f"objects: {objects}; allowed: 1 or more, or None for all")
    _check(0 < tolerance < 1, f"tolerance: {tolerance}; allowed: more than 0 and less than 1")
    task = _task(model, x, y, loss)
    with evaluating(model):
        objective = Objective(model, task.x, task.y, task.loss)
        Hessian(objective).verify()
        order = torch.randperm(len(task.x), generator=generator(seed, "sampled objects"))
        return _measure(objective, order[:objects], tolerance)


def hessian_spectrum(
    model: torch.nn.Module,
    x: Array,
    y: Array,
    *,
    loss: Loss = AUTO,
    top: int = 10,
    probes: int = 8,
    steps: int = 60,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> HessianSpectrum:
    """Spectrum of the Hessian of the mean loss at a network's parameters, from its products alone.

    Parameters
    ----------
    model, x, y, loss
        As of :func:`loss_difference_curve`.
    top
        Largest eigenvalues, at most as many as there are parameters.
    probes, steps
        Of the density: random start vectors, at least 2, and Lanczos steps (stochastic Lanczos quadrature).
    tolerance
        Residual of each eigenvalue, relative to the largest.
    seed
        Of the probes.

    Returns
    -------
    HessianSpectrum
        Eigenvalues with residuals, and the density.

    Raises
    ------
    BadInput
        As of :func:`landscape_measure`.
    MeasurementFailed
        An eigenvalue did not converge, or products of the network's Hessian cannot be batched.

    Examples
    --------
    >>> import torch
    >>> x, y = torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.zeros(3)
    >>> linear = torch.nn.Linear(3, 1, bias=False)
    >>> found = hessian_spectrum(linear, x, y, top=2, steps=3)
    >>> found.eigenvalues.round(4).tolist(), round(found.smallest, 4)  # of 2 xᵀx/3
    ([6.0, 2.6667], 0.6667)
    """
    _check(top >= 1, f"top: {top}; allowed: 1 or more")
    _check(probes >= 2, f"probes: {probes}; allowed: 2 or more, since a standard error is taken over them")
    _check(steps >= 2, f"steps: {steps}; allowed: 2 or more")
    _check(0 < tolerance < 1, f"tolerance: {tolerance}; allowed: more than 0 and less than 1")
    task = _task(model, x, y, loss)
    with evaluating(model):
        objective = Objective(model, task.x, task.y, task.loss)
        hessian = Hessian(objective)
        hessian.verify()
        largest = top_eigenpairs(hessian, min(top, objective.size), "largest", tolerance)
        least = top_eigenpairs(hessian, 1, "smallest", tolerance, norm=abs(float(largest.values[0])))
        low, high = float(least.values[0]), float(largest.values[0])
        scale = max(abs(low), abs(high)) or 1.0
        low, high = min(low, 0.0) - 0.05 * scale, max(high, 0.0) + 0.05 * scale
        grid = np.linspace(low, high, 1001)
        room = min(steps, objective.size, BASIS_CAP // (8 * objective.size))
        density = error = grid = grid if room >= min(LEAST_STEPS, objective.size) else grid[:0]
        if len(grid):
            drawn = generator(seed, "probes hessian")
            found = spectral_density(hessian, probes, room, drawn, grid, (high - low) / WIDTHS)
            density, error = found.density, found.standard_error
    return HessianSpectrum(
        largest.values,
        largest.residuals,
        float(least.values[0]),
        float(least.residuals[0]),
        grid,
        density,
        error,
        objective.size,
        objective.objects,
        room if len(grid) else 0,
    )


def sufficient_sample_size(
    X: Array,
    y: Array,
    *,
    task: str = "auto",
    methods: Sequence[str] | None = None,
    thresholds: Thresholds | None = None,
    resamples: int = 100,
    step: int = 5,
    seed: int = 0,
) -> SampleSizes:
    """Say how many objects of a table are enough, by the thesis's thirteen methods (chapter 3) as it defines them.

    Parameters
    ----------
    X
        Features (m, n) as numbers; they are brought to mean 0 and deviation 1, a constant is added.
    y
        Targets (m,): real numbers, or two classes of any names.
    task
        ``"regression"``, ``"classification"``; ``"auto"``: classification of text, truth values and two whole numbers.
    methods
        Names, of :data:`landscape_cli.samplesize.rules.METHODS`: ``lagrange``, ``likelihood_ratio``, ``wald``,
        ``cross_validation``, ``bootstrap``, ``apvc``, ``acc``, ``alc``, ``utility``, ``d``, ``m``, ``kl``, ``s``.
        None: all.
    thresholds
        Table 3.3 of the thesis where they are not given.
    resamples
        B of each size, at least 2.
    step
        Sizes are 2n, 2n + step, …, m.
    seed
        Of the resamples.

    Returns
    -------
    SampleSizes
        m* of each method in objects, or the reason why there is none.

    Raises
    ------
    BadInput
        Constant or collinear features, too few objects, not two classes, an unknown method.

    Examples
    --------
    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> X = random.normal(size=(200, 3))
    >>> found = sufficient_sample_size(X, X.sum(axis=1) + random.normal(size=200), methods=["apvc", "kl", "wald"])
    >>> sorted(found.sizes), found.available, found.task
    (['apvc', 'kl', 'wald'], 200, 'regression')
    >>> 8 <= found.sizes["apvc"].size <= 60
    True
    """
    from landscape_cli.samplesize.design import CLASSIFICATION, REGRESSION, standardised
    from landscape_cli.samplesize.methods import curves, sizes_of_tests
    from landscape_cli.samplesize.resamples import size_grid
    from landscape_cli.samplesize.rules import AS_DEFINED
    from landscape_cli.validation import nearest

    names = tuple(METHODS) if methods is None else tuple(methods)
    for name in names:
        _check(name in METHODS, f"methods: {name!r}{nearest(name, METHODS)}; allowed: {', '.join(METHODS)}")
    _check(resamples >= 2, f"resamples: {resamples}; allowed: 2 or more")
    _check(step >= 1, f"step: {step}; allowed: 1 or more")
    allowed = ("auto", REGRESSION, CLASSIFICATION)
    _check(task in allowed, f"task: {task!r}; allowed: {', '.join(allowed)}")
    features = tuple(map(str, X.columns)) if hasattr(X, "columns") else ()
    table = as_objects(X, "X").double().numpy()
    _check(table.ndim == 2, f"X: the shape {table.shape}; allowed: (m, n)")
    (labels,) = as_labels([y], "y")
    target = labels.double().numpy()
    _check(target.shape == (len(table),), f"y: the shape {target.shape}; allowed: ({len(table)},), as X has rows")
    bad = ~np.isfinite(table).all(axis=1)
    _check(not bad.any(), f"X: {int(bad.sum())} rows are not finite, the first is {int(bad.argmax())}; allowed: none")
    whole = not labels.is_floating_point()
    if task == "auto":
        task = CLASSIFICATION if whole and len(np.unique(target)) == 2 else REGRESSION
    if task == CLASSIFICATION:
        target = np.searchsorted(np.unique(target), target).astype(float)
    design = standardised(table, target, task, features)
    chosen = thresholds or Thresholds()
    sizes = size_grid(design, step)
    found = curves(design, names, AS_DEFINED, chosen, sizes, resamples, numpy_generator(seed, "resamples"))
    tested = sizes_of_tests(design, AS_DEFINED, chosen) if set(names) & set(TESTS) else {}
    answers = {name: tested[name] if name in TESTS else sufficient(found[name]) for name in names}
    return SampleSizes(answers, found, design.size, task)


def bound(
    theorem: str,
    model: torch.nn.Module | Mapping[str, torch.Tensor] | None = None,
    x: torch.Tensor | float | None = None,
    target: torch.Tensor | float | None = None,
    **numbers: Any,
) -> tuple[Bound, ...]:
    """Evaluate a theorem's bound as the thesis prints it and as it holds, for numbers or for a network and objects.

    Parameters
    ----------
    theorem
        ``"8"``, ``"9"`` (fully connected), ``"11"`` … ``"16"`` (convolutions, pooling, with a head): of one object's
        cross-entropy; ``"17"`` (self-attention), ``"26"`` (transformer block): of the squared error; ``"4"`` … ``"7"``:
        of |L_{k+1} - L_k|, numbers alone.
    model
        A network of linear and convolutional layers without biases, ReLUs and at most one pooling; of Theorems 17 and
        26 the matrices ``Q``, ``K``, ``V`` (``1``, ``2``) by name. None: the hyperparameters are given as numbers.
    x
        Objects (B, …) of the network; of Theorems 17 and 26 (…, L, d_V), or with numbers ‖X‖.
    target
        Of Theorems 17 and 26, (…, L, d_V), or with numbers its norm.
    numbers
        Of :func:`~landscape_cli.bounds.chains.fully_connected` (8), ``fully_connected_by_width`` (9), ``matrices``
        (11), ``convolutions`` (12, 13), ``pooling`` (14, 15), ``with_head`` (16), ``loss_difference`` (4 … 7);
        :class:`~landscape_cli.bounds.attention.AttentionNorms` (17), ``BlockNorms`` (26).

    Returns
    -------
    tuple of Bound
        Each with ``printed``, ``corrected`` and, of a network, ``tight``: numbers, or one value an object, (B,).

    Raises
    ------
    BadInput
        An unknown theorem, a missing or unknown number, a network that breaks a hypothesis; says which.

    Examples
    --------
    >>> gauss_newton, hessian = bound("8", layers=2, max_input=1.0, max_weight=1.0)
    >>> hessian.quantity, round(hessian.printed, 3), round(hessian.corrected, 3)
    ('hessian', 5.657, 2.414)
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.ReLU(), torch.nn.Linear(8, 3, bias=False))
    >>> [found.tight.shape for found in bound("8", net, torch.randn(5, 4))]
    [torch.Size([5]), torch.Size([5])]
    """
    theorem = str(theorem)
    _check(theorem in NUMBERS, f"theorem: {theorem!r}; allowed: {', '.join(NUMBERS)}")
    if model is None:
        named = {"x": x, "target": target}  # norms of Theorems 17 and 26 have these names too
        return of_numbers(theorem, numbers | {name: value for name, value in named.items() if value is not None})
    _check(not numbers, f"{next(iter(numbers), '')}: numbers and a network; allowed: one of them")
    return of_networks(theorem, model, x, target)


def _task(model: torch.nn.Module, x: Array, y: Array, loss: Loss) -> Task:
    _check(isinstance(model, torch.nn.Module), f"model: a {type(model).__name__}; allowed: a torch.nn.Module")
    x = x if isinstance(x, torch.Tensor) else as_objects(x, "x")
    y = y if isinstance(y, torch.Tensor) else as_labels([y], "y")[0]
    return task_of(model, x, y, loss)


def _check(right: bool, message: str) -> None:
    if not right:
        raise BadInput(message)
