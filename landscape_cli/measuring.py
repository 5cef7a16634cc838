"""Measuring the points of a plan that are missing: claims, context, failures; several processes share the work."""

from __future__ import annotations

import json
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from omegaconf import OmegaConf
from tqdm import tqdm

from landscape_cli import provenance
from landscape_cli.claims import Claims
from landscape_cli.config import Config
from landscape_cli.dataset_identity import kind_of
from landscape_cli.errors import BadInput, DamagedPoint, LandscapeError, MeasurementFailed, out_of_space
from landscape_cli.experiment import Context, Measurement
from landscape_cli.plan import Located, Plan
from landscape_cli.submission import code_digest

WAIT = 0.2, 2.0  # seconds between two looks at points that others measure: at first, at most


@dataclass(frozen=True)
class Failure:
    """A point that could not be measured."""

    label: str
    error: Exception
    log: Path | None  # with the traceback

    @property
    def reason(self) -> str:
        """What went wrong, in one line."""
        expected = isinstance(self.error, LandscapeError)
        text = str(self.error) if expected else f"{type(self.error).__name__}: {self.error}"
        return text.partition("\n")[0]


@dataclass
class Outcome:
    """What became of the points that were to be measured."""

    failures: list[Failure] = field(default_factory=list)
    left: list[Located] = field(default_factory=list)  # to other processes, which are measuring them


@dataclass(frozen=True)
class Crew:
    """Processes that were begun together to measure the same points."""

    label: str  # that no other has
    size: int


def measure_all(plan: Plan, todo: Sequence[Located], wait: bool, crew: Crew | None = None) -> Outcome:
    """Measure points, each under a claim, so that processes that share a store share the work.

    Parameters
    ----------
    wait
        For points that other processes are measuring, to take them over if those stop or fail; else they are left.
    crew
        Of which this process is one: points that another of them could not measure are passed over.

    Raises
    ------
    CannotWrite
        If the disk is full or can only be read; what is stored stays.
    """
    claims = plan.store.claims(plan.family)
    measure = _measurer(plan, crew)
    todo = list({item.key: item for item in todo}.values())
    outcome, waits, told = Outcome(), WAIT[0], False
    try:
        with _bar(crew, total=len(todo), desc=plan.config.name, unit="point") as bar:
            while todo:
                left = []
                for batch in _batches(plan, todo, crew.size if crew else 1):
                    bar.set_postfix_str(batch[0].point.label)
                    taken = [item for item in batch if claims.take(item.key)]
                    left += [item for item in batch if item not in taken]
                    try:
                        # Another process may just have stored one.
                        outcome.failures += measure([item for item in taken if not _done(plan, item, crew)])
                    finally:
                        for item in taken:
                            claims.release(item.key)
                    bar.update(len(taken))
                if left and not wait:
                    outcome.left = left
                    break
                if len(left) == len(todo):
                    told = told or crew is not None or _tell(claims, left)
                    time.sleep(waits)
                    waits = min(1.5 * waits, WAIT[1])
                else:
                    waits = WAIT[0]
                todo = left
    finally:
        claims.close()
    return outcome


def _batches(plan: Plan, todo: Sequence[Located], processes: int) -> list[list[Located]]:
    """Points that are measured together.

    Each is alone with checkpoints, which are a point's own, and where an operator has several threads, which divide the
    work of several points otherwise, and round otherwise.
    """
    if plan.config.checkpoint or (find_device(plan.config.device).type == "cpu" and threads_of(plan) > 1):
        return [[item] for item in todo]
    items = {item.point: item for item in todo}
    batches = []
    for points in plan.experiment.together(list(items)):
        share = -(-len(points) // processes)
        batches += [[items[point] for point in points[begin : begin + share]] for begin in range(0, len(points), share)]
    return batches


def _done(plan: Plan, item: Located, crew: Crew | None) -> bool:
    """Whether a point is stored and undamaged, or another of the crew could not measure it."""
    if crew and plan.store.failure(plan.family, item.key).get("crew") == crew.label:
        return True
    if not plan.stored(item):
        return False
    try:
        plan.store.read(plan.family, item.key)
    except DamagedPoint:
        return False
    return True


def _tell(claims: Claims, left: Sequence[Located]) -> bool:
    owners = sorted({str(owner) for owner in (claims.owner(item.key) for item in left) if owner})
    if owners:
        points = "1 point" if len(left) == 1 else f"{len(left)} points"
        print(f"  waiting for {points} that {', '.join(owners)} is measuring", flush=True)
    return bool(owners)


def _measurer(plan: Plan, crew: Crew | None) -> Callable[[Sequence[Located]], list[Failure]]:
    """Get ready to measure points, one or several at once: device, threads, this command's folder."""
    import torch

    from landscape_cli.checkpointing import checkpoints_in
    from landscape_cli.tracking import track_point

    config = plan.config
    device = find_device(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # where what names no number goes
    torch.backends.cudnn.allow_tf32 = False  # on by default; it keeps ten bits of a convolution's products
    threads = threads_of(plan)
    use_threads(plan)
    folder = _run_folder(config)
    about = {
        "command": provenance.command(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "device": device_name(device),
        "threads": threads,
    }
    cached: dict[str, object] = {}
    inner_bar = partial(_bar, crew, leave=False)
    # Another code's trainings are not to be gone on with.
    code = code_digest(config.family) if config.checkpoint else ""

    def context_of(item: Located) -> Context:
        return Context(
            device,
            plan.sources.get(item.point.settings.get("dataset", {}).get("name")),
            lambda: _images(plan, item, device, cached, inner_bar),
            inner_bar,
            lambda: _table(plan, item, cached),
            lambda **sizes: _corpus(plan, item, cached, sizes),
            mapping=plan.mappings.get(item.point.settings.get("mapping", {}).get("checksum")),
            objects=lambda: _objects(plan, item, device, cached, inner_bar),
        )

    def measure_one(item: Located) -> Measurement:
        checkpoints = plan.store.checkpoints(plan.family, item.key) / code
        with checkpoints_in(checkpoints if config.checkpoint else None):
            return plan.experiment.measure(item.point, context_of(item))

    def store(items: Sequence[Located]) -> None:
        began, at = provenance.now(), time.perf_counter()
        if len(items) == 1:
            measurements = [measure_one(items[0])]
        else:
            measurements = plan.experiment.measure_together([item.point for item in items], context_of(items[0]))
        seconds = round((time.perf_counter() - at) / len(items), 3)
        for item, measurement in zip(items, measurements, strict=True):
            _check(measurement)
            document = {
                "coordinates": item.point.coordinates,
                "settings": item.point.settings,
                "version": plan.experiment.version,
                "provenance": {**about, "began": began, "seconds": seconds},
            }
            parameters = measurement.parameters if config.keep_parameters else {}
            kept = Measurement(measurement.frames, measurement.arrays, parameters)
            plan.store.write(plan.family, item.key, kept, document)
            plan.store.forget(plan.family, item.key)
            if config.tracking:
                track_point(config, item, kept, seconds)

    def measure(items: Sequence[Located]) -> list[Failure]:
        if len(items) > 1:
            try:
                store(items)
                return []
            except Exception as error:  # one of them cannot be measured: each by itself, to tell which
                if config.debug or out_of_space(error):
                    raise
            items = [item for item in items if not _done(plan, item, None)]
        failures = []
        for item in items:
            try:
                store([item])
            except Exception as error:  # any failure of one point must leave the others alone
                if config.debug or out_of_space(error):
                    raise
                failures.append(_failed(plan, item, error, folder, crew))
        return failures

    return measure


def _failed(plan: Plan, item: Located, error: Exception, folder: Path, crew: Crew | None) -> Failure:
    """Keep the traceback for the reader and one line for ``landscape status``."""
    log = None if isinstance(error, BadInput) else folder / f"failed_{item.key[:12]}.log"
    if log:
        log.write_text(f"{item.point.label}\n{item.point.settings_json}\n\n{traceback.format_exc()}")
    record = {
        "label": item.point.label,
        "error": " ".join(traceback.format_exception_only(error)[-1].split()),
        "log": str(log) if log else None,
        "host": socket.gethostname(),
        "time": provenance.now(),
        "crew": crew.label if crew else None,
    }
    plan.store.write_failure(plan.family, item.key, record)
    return Failure(item.point.label, error, log)


def threads_of(plan: Plan) -> int:
    """Threads of the CPU: as configured, else what was measured to be fastest, but no more than there are."""
    config, initial = plan.config, _initial_threads()
    return config.threads or min(plan.experiment.threads or initial, initial)


def use_threads(plan: Plan, features: str | None = None) -> None:
    """Give an operator all the threads; or one, and the others to tasks side by side.

    Parameters
    ----------
    features
        Kind of the features that are extracted next, for which the experiment's choice does not count.
    """
    import torch

    from landscape_cli import parallel

    available = plan.config.threads or _initial_threads()
    if features:
        run_tasks, threads = features != "vit", available
    else:
        run_tasks, threads = plan.experiment.threads_run_tasks, threads_of(plan)
    torch.set_num_threads(1 if run_tasks else threads)
    parallel.use_workers(available if run_tasks or threads == 1 else 1)


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


def _images(plan: Plan, item: Located, device: object, cache: dict[str, object], bar: Callable[..., tqdm]) -> object:
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
            streamed = plan.experiment.streams and not features
            return load_images(source, size, tested, device, wanted["normalisation"], streamed)

        if features:
            from landscape_cli.features.extract import load_features

            folder = Path(plan.config.output_dir).expanduser() / "features"
            checkpoint = plan.checkpoints.get(features.get("checksum"))
            use_threads(plan, features["kind"])
            try:
                cache[key] = load_features(features, wanted, load, checkpoint, folder, bar)
            finally:
                use_threads(plan)
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


def _objects(plan: Plan, item: Located, device: object, cache: dict[str, object], bar: Callable[..., tqdm]) -> object:
    from landscape_cli.data.objects import of_images, of_table

    wanted = item.point.settings["dataset"]
    kind = kind_of(wanted)
    if kind == "images":
        return of_images(_images(plan, item, device, cache, bar))
    if kind == "table":
        return of_table(_table(plan, item, cache)).to(device)
    from landscape_cli.own.data import load_own

    return load_own(plan.sources[wanted["name"]], wanted["normalisation"]).to(device)


def _corpus(plan: Plan, item: Located, cache: dict[str, object], sizes: dict[str, int | None]) -> object:
    from landscape_cli.data.corpora import load_corpus

    wanted = item.point.settings["dataset"]
    key = json.dumps([wanted, sizes], sort_keys=True)
    if key not in cache:
        cache.clear()  # one data set at a time
        cache[key] = load_corpus(plan.sources[wanted["name"]], limit=wanted["objects"], **sizes)
    return cache[key]


def _bar(crew: Crew | None, iterable: object = None, **options: object) -> tqdm:
    """A bar on a terminal; none of a process whose crew has one."""
    return tqdm(iterable, disable=True if crew else None, dynamic_ncols=True, **options)


def find_device(name: str) -> object:
    """Return the device that ``device`` means here.

    Raises
    ------
    BadInput
        If it is not here.
    """
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


def device_name(device: object) -> str:
    """Name a device with its model."""
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
