"""The loop: read what is stored, measure what is missing, store each point at once, then draw.

A point that fails does not stop the others; Ctrl-C and kill -9 lose at most the point being measured.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf
from tqdm import tqdm

from landscape_cli import provenance
from landscape_cli.config import Config
from landscape_cli.draw import draw, write_state
from landscape_cli.errors import INTERRUPTED, BadInput, DamagedPoint, LandscapeError, MeasurementFailed
from landscape_cli.experiment import Context, Measurement
from landscape_cli.plan import Located, Plan, make_plan
from landscape_cli.store import StoredPoint

WORTH_TELLING = 1e13  # floating-point operations, minutes on a CPU


@dataclass(frozen=True)
class Failure:
    """A point that could not be measured."""

    label: str
    error: Exception
    log: Path | None  # with the traceback


def run(config: Config, overrides: Sequence[str] = ()) -> int:
    """Measure an experiment's missing points, then draw its figures, tables and claims.

    Returns
    -------
    The exit code: 0; 2 or 3 if every failure is bad input or missing data; 1 otherwise; 130 after Ctrl-C.
    """
    plan = make_plan(config, download=not config.dry_run)
    if plan.unlocated and not plan.located:
        raise next(iter(plan.unlocated.values()))[1]
    if config.dry_run:
        return _dry_run(plan)
    _check_writable(plan)
    plan.store.clear_drafts(plan.family)
    failures = [Failure(point.label, error, None) for point, error in plan.unlocated_shard]
    print(f"{config.name}: {config.title}", flush=True)
    stored = _read_stored(plan, plan.located)
    todo = [located for located in plan.shard if located.key not in stored]
    share = f", shard {config.shard.index} of {config.shard.count}" if config.shard.count > 1 else ""
    print(f"  {len(plan.located)} points: {len(stored)} stored, {len(todo)} to measure{share}", flush=True)
    if todo:
        _check_cost(plan, todo)
        try:
            failures += _measure_all(plan, todo)
        except KeyboardInterrupt:
            done = sum(plan.stored(located) for located in plan.located)
            print(
                f"\nstopped: {done} of {len(plan.located)} points are stored; the same command goes on from there",
                file=sys.stderr,
            )
            return INTERRUPTED
        stored = _read_stored(plan, plan.located, stored)
    refused = {str(failure.error) for failure in failures if isinstance(failure.error, BadInput)}
    if not stored and len(refused) == 1 and all(isinstance(failure.error, BadInput) for failure in failures):
        raise failures[0].error  # found only when the data was read, but the same for all: one line
    whole = len(stored) == len(plan.located)
    if config.shard.count == 1 or whole:
        failures += [Failure(f"drawing {name}", error, log) for name, error, log in draw(plan, stored, overrides)]
    else:
        print(f"  shard done; {len(plan.located) - len(stored)} points of other shards are missing, nothing drawn yet")
    write_state(plan, len(stored), overrides)
    return _report(failures)


def _dry_run(plan: Plan) -> int:
    for located in plan.shard:
        state = "stored " if plan.stored(located) else "missing"
        print(f"{state}  {located.key[:12]}  {located.point.label}")
    for point, error in plan.unlocated_shard:
        print(f"no data  {'':12}  {point.label}: {error}")
    missing = sum(not plan.stored(located) for located in plan.shard)
    print(f"{plan.config.name}: {len(plan.shard)} points, {missing} to measure")
    return next((error.exit_code for _, error in plan.unlocated_shard), 0)


def _check_writable(plan: Plan) -> None:
    """Refuse an output folder that cannot be written before anything is trained."""
    probe = plan.store.root / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(f"output_dir: {plan.config.output_dir}: cannot be written ({error.strerror})") from error


def _check_cost(plan: Plan, todo: Sequence[Located]) -> None:
    """Say how long the points will take at least, if long; refuse what would keep a CPU busy for too long."""
    operations = sum(
        plan.experiment.operations(item.point, plan.sources[item.point.settings["dataset"]["name"]])
        for item in todo
        if item.point.settings.get("dataset", {}).get("name") in plan.sources
    )
    if operations < WORTH_TELLING:
        return
    config = plan.config
    device = _device(config.device)
    _use_threads(config.threads or plan.experiment.threads or _initial_threads(), run_tasks=False)
    rate = _matrix_rate(device)
    hours = operations / rate / 3600
    estimate = (
        f"about {operations:.2g} floating-point operations, at least {_duration(hours)} at the {rate / 1e9:.3g} GFLOP/s"
        f" that {_device_name(device)} reaches in matrix products"
    )
    if device.type == "cpu" and hours > config.max_cpu_hours:
        raise BadInput(
            f"{config.name}: {estimate}; allowed on a CPU: max_cpu_hours={config.max_cpu_hours:g}. Run it on a GPU, "
            "smaller (profile=quick), or with a larger max_cpu_hours"
        )
    print(f"  {estimate}", flush=True)


def _matrix_rate(device: object) -> float:
    """Floating-point operations a second in float32 matrix products, measured."""
    import torch

    size = 1024 if device.type == "cpu" else 8192
    left, rate = torch.rand(size, size, device=device), 0.0
    for _ in range(3):
        began = time.perf_counter()
        float((left @ left)[0, 0])  # waits for the device
        rate = max(rate, 2 * size**3 / (time.perf_counter() - began))
    return rate


def _duration(hours: float) -> str:
    return f"{hours:.2g} h" if hours >= 1 else f"{hours * 60:.2g} min"


def _read_stored(plan: Plan, located: Sequence[Located], known: dict[str, StoredPoint] | None = None) -> dict:
    stored = dict(known or {})
    for item in located:
        if item.key in stored or not plan.stored(item):
            continue
        try:
            stored[item.key] = plan.store.read(plan.family, item.key)
        except DamagedPoint as error:
            print(f"damaged point {item.point.label}, it is measured again: {error}", file=sys.stderr)
    return stored


def _measure_all(plan: Plan, todo: Sequence[Located]) -> list[Failure]:
    import torch

    config = plan.config
    device = _device(config.device)
    torch.backends.cudnn.allow_tf32 = False  # on by default; it keeps ten bits of a convolution's products
    threads = config.threads or plan.experiment.threads or _initial_threads()
    _use_threads(threads, plan.experiment.threads_run_tasks)
    folder = _run_folder(config)
    cached: dict[str, object] = {}
    failures = []
    with tqdm(todo, desc=config.name, unit="point", disable=None, dynamic_ncols=True) as bar:
        for item in bar:
            bar.set_postfix_str(item.point.label)
            source = plan.sources.get(item.point.settings.get("dataset", {}).get("name"))
            context = Context(
                device,
                source,
                lambda item=item: _images(plan, item, device, cached),
                _inner_bar,
                lambda item=item: _table(plan, item, cached),
                lambda item=item, **sizes: _corpus(plan, item, cached, sizes),
                mapping=plan.mappings.get(item.point.settings.get("mapping", {}).get("checksum")),
            )
            began, at = provenance.now(), time.perf_counter()
            try:
                measurement = plan.experiment.measure(item.point, context)
                _check(measurement)
                document = {
                    "coordinates": item.point.coordinates,
                    "settings": item.point.settings,
                    "version": plan.experiment.version,
                    "provenance": {
                        "command": provenance.command(),
                        "commit": provenance.commit(),
                        "versions": provenance.versions(),
                        "device": _device_name(device),
                        "threads": threads,
                        "began": began,
                        "seconds": round(time.perf_counter() - at, 3),
                    },
                }
                if not config.keep_parameters:
                    measurement = Measurement(measurement.frames, measurement.arrays)
                plan.store.write(plan.family, item.key, measurement, document)
            except Exception as error:  # any failure of one point must leave the others alone
                if config.debug:
                    raise
                log = None if isinstance(error, BadInput) else folder / f"failed_{item.key[:12]}.log"
                if log:
                    log.write_text(f"{item.point.label}\n{item.point.settings_json}\n\n{traceback.format_exc()}")
                failures.append(Failure(item.point.label, error, log))
    return failures


def _use_threads(count: int, run_tasks: bool) -> None:
    """Give an operator all the threads; or one, and the others to tasks side by side."""
    import torch

    from landscape_cli import parallel

    _initial_threads()  # kept before it is changed
    torch.set_num_threads(1 if run_tasks else count)
    parallel.use_workers(count if run_tasks else 1)


@cache
def _initial_threads() -> int:
    """Torch's own choice, as it was before the first job of a sweep changed it."""
    import torch

    return torch.get_num_threads()


def _check(measurement: Measurement) -> None:
    if not measurement.frames:
        raise MeasurementFailed("the measurement returned no frame")
    for name, frame in measurement.frames.items():
        if frame.empty:
            raise MeasurementFailed(f"the measurement returned an empty frame {name!r}")


def _images(plan: Plan, item: Located, device: object, cache: dict[str, object]) -> object:
    from landscape_cli.data.images import load_images

    settings = item.point.settings
    wanted, features = settings["dataset"], settings.get("features")
    key = json.dumps([wanted, features], sort_keys=True)
    if key not in cache:
        cache.clear()  # one data set on the device at a time

        def load(wanted: dict) -> object:
            source, size = plan.sources[wanted["name"]], wanted["objects"]
            # More test objects than train objects would only take time from a small profile.
            tested = min(size, source.test_objects)
            return load_images(source, size, tested, device, wanted["normalisation"])

        if features:
            from landscape_cli.features.extract import load_features

            folder = Path(plan.config.output_dir).expanduser() / "features"
            checkpoint = plan.checkpoints.get(features.get("checksum"))
            threads, own = plan.config.threads or _initial_threads(), plan.experiment.threads
            _use_threads(threads, run_tasks=features["kind"] != "vit")
            try:
                cache[key] = load_features(features, wanted, load, checkpoint, folder, _inner_bar)
            finally:
                _use_threads(plan.config.threads or own or _initial_threads(), plan.experiment.threads_run_tasks)
        else:
            cache[key] = load(wanted)
    return cache[key]


def _table(plan: Plan, item: Located, cache: dict[str, object]) -> object:
    from landscape_cli.data.tabular import load_table

    wanted = item.point.settings["dataset"]
    key = json.dumps([wanted, None], sort_keys=True)
    if key not in cache:
        cache.clear()  # one data set at a time
        cache[key] = load_table(plan.sources[wanted["name"]], wanted["objects"])
    return cache[key]


def _corpus(plan: Plan, item: Located, cache: dict[str, object], sizes: dict[str, int | None]) -> object:
    from landscape_cli.data.corpora import load_corpus

    wanted = item.point.settings["dataset"]
    key = json.dumps([wanted, sizes], sort_keys=True)
    if key not in cache:
        cache.clear()  # one data set at a time
        cache[key] = load_corpus(plan.sources[wanted["name"]], limit=wanted["objects"], **sizes)
    return cache[key]


def _inner_bar(iterable: object = None, **options: object) -> tqdm:
    return tqdm(iterable, disable=None, leave=False, dynamic_ncols=True, **options)


def _device(name: str) -> object:
    import torch

    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device: {name!r} is not here; CUDA devices found: {torch.cuda.device_count()}; try device=auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BadInput("device: 'mps' is not here; try device=auto")
    return device


def _device_name(device: object) -> str:
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _run_folder(config: Config) -> Path:
    """Make this command's folder in ``runs/``: its resolved configuration, and a log of every failed point."""
    stamp = provenance.now().replace(":", "").replace("-", "")
    folder = Path(config.output_dir).expanduser() / "runs" / f"{stamp}_{config.name}_{uuid.uuid4().hex[:4]}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    about = {"command": provenance.command(), "commit": provenance.commit(), "versions": provenance.versions()}
    (folder / "run.json").write_text(json.dumps(about, indent=1))
    return folder


def _report(failures: Sequence[Failure]) -> int:
    if not failures:
        return 0
    print(f"{len(failures)} failed:", file=sys.stderr)
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        expected = isinstance(failure.error, LandscapeError)
        what = str(failure.error) if expected else f"{type(failure.error).__name__}: {failure.error}"
        alike.setdefault(what.partition("\n")[0], []).append(failure)
    for what, group in alike.items():
        more = f" and {len(group) - 1} more points" if len(group) > 1 else ""
        where = f" (log: {group[0].log})" if group[0].log else ""
        print(f"  {group[0].label}{more}: {what}{where}", file=sys.stderr)
    codes = {f.error.exit_code if isinstance(f.error, LandscapeError) else 1 for f in failures}
    return codes.pop() if len(codes) == 1 else 1
