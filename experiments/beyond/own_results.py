"""What ``experiment=own`` shows and says: two figures, a table and the answers to what was asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from landscape_cli.convergence.laws import PowerLaw
from landscape_cli.experiment import Figure, Results, Table
from landscape_cli.samplesize.rules import settled_from
from landscape_cli.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from landscape_cli.config import Config

CLOSE = 0.01  # share of the mean loss that a gradient step may still gain, and of ‖H‖ that λ_min may be below zero
DECADES = 4  # of the density's height that are drawn


def units(loss: str) -> dict[str, str]:
    """Units of the columns."""
    unit = _unit(loss)
    curved = f"{unit} per parameter²"
    return {
        **dict.fromkeys(("k", "objects", "test_objects", "hessian_objects"), "objects"),
        **dict.fromkeys(("difference", "standard_error", "ema", "mean_loss", "mad", "test_loss", "coefficient"), unit),
        **dict.fromkeys(("eigenvalue", "residual", "measure", "hessian_norm", "smallest"), curved),
        **dict.fromkeys(("density", "density_error"), f"1/({curved})"),
        "gradient_norm": f"{unit} per parameter",
    }


def _unit(loss: str) -> str:
    return "nats" if loss == "cross_entropy" else "units of the loss"


def networks_of(results: Results, threshold: float) -> pd.DataFrame:
    """The networks, a row a seed, with the k that is enough: of the moving average, and of the mean itself; NaN: none.

    ``extrapolated`` is where the fitted law falls to the threshold.
    """
    networks, found = results.frames["network"].copy(), []
    for _, row in networks.iterrows():
        own = results.frames["curves"].query("seed == @row.seed")
        k = own["k"].to_numpy()
        enough = [settled_from(k, own[column].to_numpy() <= threshold) for column in ("ema", "difference")]
        law = PowerLaw(row["coefficient"], row["exponent"])
        found.append([math.nan if size is None else size for size in enough] + [law.reaches(threshold)])
    networks[["enough", "enough_unsmoothed", "extrapolated"]] = np.array(found, dtype=float)
    return networks


def difference_figure(results: Results, config: Config) -> Figure:
    """Draw the mean differences, their moving average, the fitted law beyond what is available, the threshold."""
    from landscape_cli.plotting.curves import band, thinned
    from landscape_cli.plotting.style import SINGLE_WIDTH, new_figure, titled_legend

    threshold = config.measure.threshold
    networks, curves = networks_of(results, threshold), results.frames["curves"]
    available = int(networks["objects"].max())
    drawing, axes = new_figure(1, 1, SINGLE_WIDTH, 3.5)
    ax = axes[0, 0]
    ax.set_xscale("log")
    ax.set_yscale("log")
    looks = {
        "difference": ("#009e73", (0, (1.2, 1.2)), "mean over orderings"),
        "ema": ("#0072b2", "-", "its moving average"),
    }
    for column, (colour, line, label) in looks.items():
        table = curves.pivot(index="seed", columns="k", values=column)
        keep = thinned(table.shape[1])
        x, values = table.columns.to_numpy()[keep], table.to_numpy()[:, keep]
        band(ax, x, np.where(values > 0, values, np.nan), colour, linestyle=line, label=label)
    laws = [PowerLaw(row.coefficient, row.exponent) for row in networks.itertuples() if row.exponent > 0]
    if laws:
        ahead = [law.reaches(threshold) for law in laws]
        end = min(max(1.3 * max(ahead), 1.3 * available), 100 * available)
        x = np.geomspace(available / 10, end, 50)
        mean = np.exp(np.mean([[math.log(law.at(k)) for k in x] for law in laws], axis=0))
        exponent = np.mean([law.exponent for law in laws])
        label = f"fitted law, $\\propto k^{{-{exponent:.2f}}}$"
        ax.plot(x, mean, color="#d55e00", linestyle=(0, (5, 1.2)), label=label)
    ax.axhline(threshold, color="0.3", linewidth=0.9, linestyle=(0, (3, 1, 1, 1)), label=f"threshold {threshold:g}")
    ax.axvline(available, color="0.6", linewidth=0.9, label=f"{available} objects available")
    reached = networks["enough"]
    if reached.notna().all():
        ax.plot([reached.mean()], [threshold], "o", color="#0072b2", markersize=4, label="enough from here on")
    ax.set_xlabel("number of objects $k$")
    ax.set_ylabel(f"$|L_{{k+1}}-L_k|$ at $\\hat\\theta$, {_unit(networks['loss'].iloc[0])}")
    titled_legend(drawing, f"{_title(results)}: how the loss settles", ax, 2)
    note = "Lines and bands: mean and range over seeds." if len(networks) > 1 else ""
    note += " Beyond what is available the law is an extrapolation." if laws else ""
    return Figure("own_loss_difference", drawing, "Mean |L_{k+1} - L_k| along random orderings.", note.strip())


def spectrum_figure(results: Results) -> Figure:
    """Draw the density of the Hessian's eigenvalues and the largest of them; the first seed's."""
    from landscape_cli.plotting.style import SINGLE_WIDTH, new_figure, titled_legend

    density, networks = results.frames["density"], results.frames["network"]
    seed = density["seed"].min()
    own = density[density["seed"] == seed]
    row = networks[networks["seed"] == seed].iloc[0]
    values = results.frames["eigenvalues"].query("seed == @seed")["eigenvalue"]
    unit = _unit(row["loss"])
    drawing, axes = new_figure(1, 1, SINGLE_WIDTH, 3.1)
    ax = axes[0, 0]
    ax.set_yscale("log")
    top = own["density"].max()
    floor = top * 10.0**-DECADES
    x, height, error = (own[name].to_numpy() for name in ("eigenvalue", "density", "density_error"))
    ax.plot(x, np.where(height > floor, height, np.nan), color="#0072b2", label="density of all eigenvalues")
    ax.fill_between(
        x,
        np.maximum(height - error, floor),
        np.maximum(height + error, floor),
        color="#0072b2",
        alpha=0.15,
        linewidth=0,
    )
    ax.plot(values, np.full(len(values), floor), "|", color="#d55e00", markersize=9, label=f"{len(values)} largest")
    ax.plot([row["smallest"]], [floor], "|", color="0.2", markersize=9, label="smallest")
    ax.set_ylim(floor / 1.6, 3 * top)
    ax.set_xlabel(f"eigenvalue $\\lambda$ of $H$, {unit} per parameter$^2$")
    ax.set_ylabel("density, parameter$^2$/nats" if unit == "nats" else "density, 1/unit of $\\lambda$")
    titled_legend(drawing, f"{_title(results)}: spectrum of the Hessian", ax, 3)
    note = (
        f"Seed {seed}, {int(row['parameters'])} parameters, Hessian of {int(row['hessian_objects'])} train objects; "
        f"stochastic Lanczos quadrature with {int(row['density_steps'])} steps, band: its standard error."
    )
    return Figure("own_spectrum", drawing, "Spectrum of the Hessian at the trained parameters.", note)


def summary_table(results: Results, config: Config) -> Table:
    """Every quantity: mean over seeds, 95 % interval, unit."""
    networks = networks_of(results, config.measure.threshold)
    unit = _unit(networks["loss"].iloc[0])
    curved = f"{unit} per parameter²"
    wanted = [
        ("train objects", "objects", "objects"),
        ("parameters", "parameters", ""),
        ("mean loss", "mean_loss", unit),
        ("accuracy", "accuracy", ""),
        ("mean test loss", "test_loss", unit),
        ("test accuracy", "test_accuracy", ""),
        ("mean absolute deviation of losses", "mad", unit),
        ("‖∇L(θ̂)‖", "gradient_norm", f"{unit} per parameter"),
        ("‖∇L‖²/(2‖H‖), what a gradient step can still gain", "gradient_step", unit),
        ("exponent of the decay of |L_{k+1} - L_k|", "exponent", ""),
        (f"k from which the moving average stays at most {config.measure.threshold:g}", "enough", "objects"),
        (f"k from which the mean itself stays at most {config.measure.threshold:g}", "enough_unsmoothed", "objects"),
        ("k at which the fitted law falls to it", "extrapolated", "objects"),
        ("landscape measure μ", "measure", curved),
        ("its standard error over objects", "standard_error", curved),
        ("‖H‖₂", "hessian_norm", curved),
        ("smallest eigenvalue of H", "smallest", curved),
    ]
    rows = []
    for label, column, of in wanted:
        values = networks[column].to_numpy(dtype=float)
        there = values[np.isfinite(values)]
        if not len(there) and column not in ("enough", "enough_unsmoothed"):
            continue
        interval = mean_interval(there) if len(there) == len(values) else Interval(math.nan, math.nan, math.nan)
        reached = f"{len(there)} of {len(values)}"
        low, high = (None if not math.isfinite(v) else v for v in (interval.low, interval.high))
        mean = None if math.isnan(interval.mean) else interval.mean
        rows.append({"quantity": label, "mean": mean, "low": low, "high": high, "unit": of, "seeds": reached})
    frame = pd.DataFrame(rows).astype({"mean": float, "low": float, "high": float})
    caption = (
        "A network and data of one's own: means over seeds and 95 % intervals. seeds: in how many of them there is a "
        "value; where it is not all, there is no mean."
    )
    return Table("own_summary", frame, caption)


def answers(results: Results, config: Config) -> Iterator[str]:
    """Say in lines what was asked: is it a minimum, how L_k settles, how much data is enough, how sharp it is."""
    networks = networks_of(results, config.measure.threshold)
    unit, row = _unit(networks["loss"].iloc[0]), networks.iloc[0]
    tested = f", test {_said(networks['test_loss'])}" if row["test_objects"] else ""
    right = f", accuracy {networks['accuracy'].mean():.1%}" if networks["accuracy"].notna().all() else ""
    right += f" (test {networks['test_accuracy'].mean():.1%})" if right and row["test_objects"] else ""
    sizes = f"{int(row['parameters'])} parameters, {int(row['objects'])} objects"
    yield f"{sizes}: mean loss {_said(networks['mean_loss'])}{tested} {unit}{right}"
    yield _minimum(networks, unit)
    yield f"|L_(k+1) - L_k| falls like k^-a with a = {_said(networks['exponent'])}, fitted over the last decade of k"
    yield from _enough(networks, config.measure.threshold, unit)
    if networks["measure"].notna().all():
        error = networks["standard_error"].mean()
        yield (
            f"landscape measure {_said(networks['measure'])} {unit} per parameter², standard error over "
            f"{int(row['samples'])} objects {error:.2g}"
        )
    if networks["hessian_norm"].notna().all():
        least = f"smallest eigenvalue {_said(networks['smallest'])}"
        yield f"‖H‖ = {_said(networks['hessian_norm'])}, {least} {unit} per parameter²"
    reasons: dict[str, list[str]] = {}
    for column, what in (("no_measure", "no landscape measure"), ("no_spectrum", "no Hessian spectrum")):
        for reason in networks[column][networks[column] != ""].unique():
            reasons.setdefault(reason, []).append(what)
    for reason, lacking in reasons.items():
        yield f"{', '.join(lacking)}: {reason}"


def _minimum(networks: pd.DataFrame, unit: str) -> str:
    """Say whether the parameters are near a minimum of the mean loss."""
    norm = f"‖∇L‖ = {_said(networks['gradient_norm'])} {unit} per parameter"
    if not networks["hessian_norm"].notna().all():
        return f"at θ̂ {norm}; without the Hessian there is no saying whether that is near a minimum"
    gain = networks["gradient_step"] / networks["mean_loss"].abs()
    flat = bool((gain <= CLOSE).all())
    bent = bool((networks["smallest"] >= -CLOSE * networks["hessian_norm"]).all())
    downward = "no direction bends down" if bent else "some directions bend down"
    verdict = "nearly a minimum of L" if flat and bent else "not a minimum of L"
    return f"θ̂ is {verdict}: {norm}, a gradient step can still gain {gain.mean():.2g} of the loss, {downward}"


def _enough(networks: pd.DataFrame, threshold: float, unit: str) -> Iterator[str]:
    """Say from how many objects on there is enough data; what is not reached is no number but an extrapolation."""
    available, reached = int(networks["objects"].iloc[0]), networks["enough"].notna()
    question = f"moving average of |L_(k+1) - L_k| at most {threshold:g} {unit}"
    if reached.all():
        raw = networks["enough_unsmoothed"]
        mean = f"; the mean itself from k = {_said(raw, whole=True)}" if raw.notna().all() else ""
        yield f"enough data: {question} from k = {_said(networks['enough'], whole=True)} of {available} objects{mean}"
        return
    where = f"by {int((~reached).sum())} of {len(reached)} seeds" if reached.any() else "by any seed"
    yield f"enough data: not reached {where} with all {available} objects ({question})"
    ahead = networks["extrapolated"]
    if networks["enough_unsmoothed"].notna().all():
        mean = _said(networks["enough_unsmoothed"], whole=True)
        yield f"the mean itself is there from k = {mean}, which the average's start hides: smaller measure.smoothing"
    elif np.isfinite(ahead).all():
        yield (
            f"extrapolated by the fitted law, which nothing here has tested beyond {available} objects: about "
            f"{_said(ahead, whole=True)}"
        )
    else:
        yield "the fitted law never falls so low, or there is none: no extrapolation"


def _said(values: pd.Series, whole: bool = False) -> str:
    """A mean over seeds and its interval."""
    interval = mean_interval(values.to_numpy(dtype=float))
    text = "{:.0f}" if whole else "{:.3g}"
    if not math.isfinite(interval.low) or len(values) < 2:
        return text.format(interval.mean)
    low = max(interval.low, 1.0) if whole else interval.low
    return f"{text.format(interval.mean)} [{text.format(low)}, {text.format(interval.high)}]"


def _title(results: Results) -> str:
    row = results.frames["network"].iloc[0]
    dataset = results.sources[row["dataset"]].title if row["dataset"] in results.sources else row["dataset"]
    return f"{row['model']}, {dataset}"
