"""``landscape figures``, ``show``, ``data`` and ``doctor``."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from omegaconf import OmegaConf

from landscape_cli import provenance
from landscape_cli.composing import load
from landscape_cli.config import ViTConfig
from landscape_cli.data.corpora import CorpusSource, load_corpus, locate_corpus
from landscape_cli.data.corpus_sets import CORPUS_SETS
from landscape_cli.data.locate import Source, data_roots, known_names, locate
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.data.tabular import TableSource, load_table, locate_table
from landscape_cli.dataset_identity import AnySource
from landscape_cli.draw import draw
from landscape_cli.errors import DamagedPoint, LandscapeError, MissingData
from landscape_cli.features.checkpoints import find_checkpoint
from landscape_cli.listing import check_experiment, check_no_experiment, items_of, shipped
from landscape_cli.plan import Plan, make_plan
from landscape_cli.store import StoredPoint
from landscape_cli.submission import code_digest

LAUNCHERS = (  # of a sweep: what they need
    ("hydra/launcher=local", "hydra_plugins.hydra_joblib_launcher", None),
    ("hydra/launcher=slurm", "hydra_plugins.hydra_submitit_launcher", "sbatch"),
    ("landscape submit", "landscape_cli", "sbatch"),
)


def figures(words: Sequence[str], chapter: int | None) -> int:
    """Draw experiments from stored results; list what is missing and the command that measures it.

    Parameters
    ----------
    words
        Names of experiments and overrides, mixed; no name: all (or those of `chapter`).

    Returns
    -------
    0 if every experiment named is complete, 1 otherwise.
    """
    names, overrides = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    check_no_experiment(overrides)
    for name in names:
        check_experiment(name)
    asked = bool(names)
    names = names or [n for n in shipped() if chapter is None or any(i.chapter == chapter for i in items_of(n))]
    if not names:
        print(f"no experiment of chapter {chapter} is built yet (landscape list)", file=sys.stderr)
        return 1
    incomplete, code = [], 0
    for name in names:
        plan = make_plan(load([f"experiment={name}", *overrides]), from_store=True)
        digest, stored = code_digest(plan.config.family), _read(plan)
        missing = len(plan.located) + len(plan.unlocated) - len(stored)
        if missing:
            command = shlex.join(["landscape", "run", f"experiment={name}", *overrides])
            incomplete.append(f"  {name}: {missing} of {missing + len(stored)} points: {command}")
        if stored:
            print(f"{name}: {plan.config.title}")
            for what, error, log in draw(plan, stored, overrides, digest):
                print(f"  {what} failed: {error} (log: {log})", file=sys.stderr)
                code = 1
    if incomplete:
        print("missing:", *incomplete, sep="\n", file=sys.stderr)
        code = code or int(asked or len(incomplete) == len(names))
    return code


def show(name: str, overrides: Sequence[str]) -> int:
    """Print what an experiment does, what it makes, its points and its resolved configuration."""
    check_experiment(name)
    config = load([f"experiment={name}", *overrides])
    plan = make_plan(config, from_store=True)
    print(f"{name}: {config.title}")
    for item in items_of(name):
        print(f"  makes {item.name}: {item.caption}")
    doc = type(plan.experiment).__doc__ or ""
    print("\n" + "\n".join(line.strip() for line in doc.strip().splitlines()))
    print("\npoints:")
    for item in plan.located:
        print(f"  {'stored ' if plan.stored(item) else 'missing'}  {item.key[:12]}  {item.point.label}")
    for point, error in plan.unlocated.values():
        print(f"  no data  {point.label}: {error}")
    print("\nconfiguration:")
    text = OmegaConf.to_yaml(OmegaConf.structured(config))
    print("\n".join("  " + line for line in text.splitlines()))
    return 0


def data(action: str, names: Sequence[str]) -> int:
    """List, fetch, verify or locate data sets.

    Returns
    -------
    0, or 3 if a set that was named is missing or damaged.
    """
    roots = data_roots(None)
    if action == "where":
        for root in roots:
            print(f"{root}  {'' if root.is_dir() else '(not there)'}".rstrip())
        if not names:
            return 0
    code = 0
    for name in names or _every_name(action, roots):
        try:
            source = _looked_up(action, name, roots)
        except LandscapeError as error:
            brief = not names and action in ("list", "where") and str(error).startswith(f"data set {name!r} (")
            text = "not found" if brief else str(error)
            print(f"{name:<14} {text}", file=sys.stderr if names else sys.stdout)
            code = error.exit_code if names or action in ("fetch", "verify") else code
            continue
        place = source.files[0].parent if source.files else "ships with scikit-learn"
        if isinstance(source, TableSource):
            place = {"generated": "generated"}.get(source.layout, place)
            size = f"{source.train_objects} objects, {source.features} features"
            task = f"{source.task}, {len(source.classes)} classes" if source.classes else source.task
            print(f"{name:<24} {size}, {task}, {source.checksum[:12]}, {place}")
            continue
        part = "whole" if source.whole else "a part of the published set"
        if isinstance(source, CorpusSource):
            size = f"{source.train_objects} aligned train lines, {source.test_objects} test"
            print(f"{name:<24} {size}, {' '.join(source.languages)}, {part}, {source.checksum[:12]}, {source.place}")
            continue
        size = f"{source.train_objects} train, {source.test_objects} test, {'x'.join(map(str, source.shape))}"
        print(f"{name:<14} {size}, {source.classes} classes, {part}, {source.checksum[:12]}, {place}")
    return code


def _every_name(action: str, roots: Sequence[Path]) -> tuple[str, ...]:
    """Every data set that is known or lies in a root; of those that are fetched what can be."""
    if action == "fetch":
        corpora = [name for name, corpus in CORPUS_SETS.items() if not corpus.get]
        return (*IMAGE_SETS, *TABLE_SETS, *corpora)
    return (*known_names(roots), *TABLE_SETS, *CORPUS_SETS)


def _looked_up(action: str, name: str, roots: Sequence[Path]) -> AnySource:
    """Find a data set, after fetching it, or read all of it, if that is the action."""
    from landscape_cli.data.fetch import fetch, writable_root

    if name in TABLE_SETS:
        try:
            source = locate_table({"name": name}, roots)
        except MissingData:
            if action != "fetch":
                raise
            from landscape_cli.data.fetch_tables import fetch_table

            return fetch_table(name, writable_root(roots))
        if action == "verify":
            load_table(source)
        return source
    if name in CORPUS_SETS:
        try:
            source = locate_corpus({"name": name}, roots)
        except MissingData:
            if action != "fetch":
                raise
            from landscape_cli.data.fetch_corpora import fetch_corpus

            return fetch_corpus(name, writable_root(roots))
        if action == "verify":
            load_corpus(source, teacher_size=1, student_size=1, test_size=1)
        return source
    if action == "fetch":
        return _whole(name, roots) or fetch(name, writable_root(roots))
    source = locate(name, roots)
    if action == "verify":
        from landscape_cli.data.images import read

        read(source)
    return source


def doctor() -> int:
    """Print versions, devices, data roots and the output folder: what works here and what does not.

    Returns
    -------
    0, or 1 if something that every run needs does not work.
    """
    print("versions")
    for name, version in provenance.versions().items():
        print(f"  {name} {version}")
    print(f"  commit {provenance.commit() or 'not a git checkout'}")
    healthy = True
    print("devices")
    import torch

    print(f"  cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(i).total_memory / 2**30
            print(f"  cuda:{i}: {torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
    else:
        print("  cuda: none")
    print(f"  mps: {'yes' if torch.backends.mps.is_available() else 'none'}")
    try:
        from landscape_cli.data.torchvision_import import torchvision

        print(f"  torchvision {torchvision.__version__} imports")
    except Exception as error:  # whatever keeps it from importing is what the user wants to read
        healthy = False
        print(f"  torchvision does not import: {error}")
    print("features")
    vit = ViTConfig()
    try:
        found = find_checkpoint(vit.checkpoint, vit.repository, vit.weights, vit.output, data_roots(None), False)
        print(f"  vit_b_16: {found.path}")
    except MissingData as error:
        print(f"  vit_b_16: {error}")
    print("launchers")
    for name, module, command in LAUNCHERS:
        missing = (
            []
            if find_spec(module.partition(".")[0]) and find_spec(module)
            else [f"{module.split('.')[-1]} is not installed (pip install 'landscape-cli[cluster]')"]
        )
        if command and shutil.which(command) is None:
            missing.append(f"no {command} on the PATH")
        print(f"  {name}: {', '.join(missing) or 'yes'}")
    print("data roots")
    for root in data_roots(None):
        print(f"  {root}{'' if root.is_dir() else ' (not there)'}")
    data("list", [])
    folder = Path(os.environ.get("LANDSCAPE_OUTPUTS") or "outputs").resolve()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    healthy &= writable
    print(f"output folder\n  {folder}{'' if writable else ' CANNOT BE WRITTEN'}")
    return 0 if healthy else 1


def _whole(name: str, roots: Sequence[Path]) -> Source | None:
    """The data set, if all of it is there and undamaged."""
    try:
        source = locate(name, roots)
    except MissingData:
        return None
    return source if source.whole else None


def _read(plan: Plan) -> dict[str, StoredPoint]:
    stored = {}
    for item in plan.located:
        if plan.store.has(plan.family, item.key):
            try:
                stored[item.key] = plan.store.read(plan.family, item.key)
            except DamagedPoint as error:
                print(f"damaged point {item.point.label}, run the experiment again: {error}", file=sys.stderr)
    return stored
