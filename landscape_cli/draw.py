"""From stored points to figures, tables and claims on disk and on the terminal."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from landscape_cli.data.corpora import CorpusSource
from landscape_cli.data.locate import ARCHIVE
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.data.tabular import TableSource
from landscape_cli.dataset_identity import AnySource
from landscape_cli.distillation.checkpoints import mapping_name
from landscape_cli.drawn import Drawn, Piece, Record, keep_drawn, origin_of
from landscape_cli.errors import out_of_space
from landscape_cli.experiment import Results, Table, Verdict
from landscape_cli.plan import Plan
from landscape_cli.provenance import moment
from landscape_cli.store import StoredPoint
from landscape_cli.variant import telling, variant_name


def draw(
    plan: Plan, stored: Mapping[str, StoredPoint], overrides: Sequence[str], code: str
) -> list[tuple[str, Exception, Path]]:
    """Write figures, tables and claims; print where they are and each verdict.

    Parameters
    ----------
    code
        Digest of the family's code before the command began to work: if it is another one at the end, nobody knows
        which has drawn.

    Returns
    -------
    What could not be drawn: name, error and the log with its traceback.
    """
    if not stored:
        return []
    from landscape_cli.plotting.language import phrases_of
    from landscape_cli.plotting.output import save_figure, save_table
    from landscape_cli.plotting.style import style

    config, experiment = plan.config, plan.experiment
    phrases = phrases_of(config.plot.language)
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print("  " + text)

    results = gather(plan, stored)
    output = Path(config.output_dir).expanduser()
    variant = variant_name(config.profile.name, overrides)
    note = describe(plan, results)
    failures: list[tuple[str, Exception, Path]] = []
    pieces: list[Piece] = []
    if note:
        say(note)

    def attempt(what: str, make: object) -> None:
        try:
            make()
        except Exception as error:  # one figure that fails must not take the tables with it
            if config.debug or out_of_space(error):
                raise
            log = output / "runs" / f"{config.name}_{what}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(traceback.format_exc())
            failures.append((what, error, log))

    def figures() -> None:
        for figure in experiment.figures(results):
            files = save_figure(
                figure, output / "figures" / variant, config.plot.formats, config.plot.dpi, note, phrases
            )
            pieces.append(Piece("figure", figure.name, figure.caption, figure.note, files))

    def keep(kind: str, table: Table) -> None:
        spoken = None if kind == "claims" else phrases  # verdicts stay English
        files = save_table(table, output / "tables" / variant, note, spoken)
        pieces.append(Piece(kind, table.name, table.caption, "", files))

    def tables() -> None:
        for table in experiment.tables(results):
            keep("table", table)

    def claims() -> None:
        verdicts = list(experiment.claims(results))
        for verdict in verdicts:
            say(summary(verdict))
        if verdicts:
            keep("claims", claims_table(config.name, verdicts))

    def answers() -> None:
        for line in experiment.answers(results):
            say(line)

    with style(config.plot.size):
        attempt("figures", figures)
    attempt("tables", tables)
    attempt("claims", claims)
    attempt("answers", answers)
    paths = [path for piece in pieces for path in piece.files]
    if config.tracking:
        from landscape_cli.tracking import track_figures

        track_figures(config, paths)
    for path in paths:
        print(f"  {path}")
    sys.stdout.flush()
    documents = {key: point.document for key, point in stored.items()}
    record = Record(
        name=config.name,
        title=config.title,
        profile=config.profile.name,
        variant=variant,
        overrides=telling(overrides),
        note=note,
        pieces=pieces,
        failures=[f"{what}: {error}" for what, error, _ in failures],
        points=len(results.points) + len(results.missing),
        missing=[point.label for point in results.missing],
        origin=origin_of(documents),
        time=moment(),
    )
    keep_drawn(plan, overrides, documents, Drawn(lines, paths), code, record)
    return failures


def gather(plan: Plan, stored: Mapping[str, StoredPoint]) -> Results:
    """Concatenate the stored points' frames, each with its point's coordinates as first columns."""
    there = [item for item in plan.located if item.key in stored]
    pieces: dict[str, list[pd.DataFrame]] = {}
    for item in there:
        for name, own in stored[item.key].frames.items():
            frame = own.copy(deep=False)  # two points of one grid may be the same network
            for position, (column, value) in enumerate(item.point.coordinates.items()):
                frame.insert(position, column, value)
            pieces.setdefault(name, []).append(frame)
    missing = [item.point for item in plan.located if item.key not in stored]
    return Results(
        points=tuple(item.point for item in there),
        missing=(*missing, *(point for point, _ in plan.unlocated.values())),
        frames={name: pd.concat(frames, ignore_index=True) for name, frames in pieces.items()},
        arrays={item.point: stored[item.key].arrays for item in there},
        sources=plan.sources,
        profile=plan.config.profile.name,
    )


def describe(plan: Plan, results: Results) -> str:
    """Name the data sets, their sizes, the profile and what is missing, for the small print of figures and tables."""
    used, trainings, extractors, standardised, mappings = {}, {}, [], [], {}
    for point in results.points:
        dataset = point.settings.get("dataset")
        if dataset:
            used[dataset["name"]] = dataset["objects"]
            if dataset.get("normalisation") == "standard":
                standardised.append(dataset["name"])
            trainings[dataset["name"]] = point.settings.get("training")
        if "mapping" in point.settings:
            mappings[f"φ: {mapping_name(point.settings['mapping'])}"] = None
        if "features" in point.settings and point.settings["features"] not in extractors:
            extractors.append(point.settings["features"])
    parts = [
        _describe_data(name, count, results.sources.get(name)) + (", standardised" if name in standardised else "")
        for name, count in used.items()
    ]
    wanted = plan.config.dataset.in_place_of if plan.config.dataset else ()
    if wanted:
        parts.append(f"in place of {', '.join(wanted)}")
    parts += [_describe_extractor(extractor, plan, results) for extractor in extractors]
    parts += mappings
    if "training" in plan.experiment.uses:
        seeds = [_count(plan.config.seeds, "seed")] if "seeds" in plan.experiment.uses else []
        parts.append(", ".join([*seeds, _describe_training(trainings, results)]))
    measured = any(point.settings.get("measure") for point in results.points)
    if parts or (measured and results.profile != "paper"):
        parts.append(f"profile {results.profile}")
    if results.missing:
        parts.append(f"MISSING {len(results.missing)} of {len(results.missing) + len(results.points)} points")
    return "; ".join(parts) + "." if parts else ""


def _describe_training(trainings: Mapping[str, dict], results: Results) -> str:
    """How the networks were trained; by data set, where it differs."""
    texts: dict[str, list[str]] = {}
    for name, training in trainings.items():
        epochs = _count(training["epochs"], "epoch")
        name_of = "AdamW" if training.get("weight_decay") else "Adam"
        text = f"{epochs} of {name_of} {training['learning_rate']:g}, batches of {training['batch_size']}"
        if training.get("weight_decay"):
            text += f", weight decay {training['weight_decay']:g}"
        if training.get("warmup"):
            text += f", warm-up {training['warmup']:.0%}"
        if training.get("schedule", "constant") != "constant":
            text += f", {training['schedule']} schedule"
        if training.get("augmentation", "none") != "none":
            text += ", crops and flips"
        texts.setdefault(text, []).append(results.sources[name].title if name in results.sources else name)
    if len(texts) == 1:
        return next(iter(texts))
    return ", ".join(f"{text} ({', '.join(names)})" for text, names in texts.items())


def _describe_extractor(extractor: Mapping[str, Any], plan: Plan, results: Results) -> str:
    """Whose features were used."""
    stands_in = getattr(plan.config.features, "in_place_of", None)
    instead = f" in place of {stands_in}" if stands_in else ""
    if extractor["kind"] == "vit":
        checkpoint = plan.checkpoints.get(extractor["checksum"])
        named = f" {checkpoint.name}" if checkpoint else ""
        output = extractor["output"].replace("_", " ")
        return f"features: {output} of the vision transformer{named}, checksum {extractor['checksum'][:12]}"
    pooling = f", {extractor['pooling']} pooling after {extractor['position']}" if extractor["position"] else ""
    sizes = f"L={extractor['num_layers']}, C={extractor['channels']}, k={extractor['kernel_size']}{pooling}"
    if extractor["kind"] == "random_conv":
        return f"features of an untrained convolutional net ({sizes}){instead}"
    learned = extractor["dataset"]
    on = _describe_data(learned["name"], learned["objects"], results.sources.get(learned["name"]))
    return f"features of a convolutional net ({sizes}) trained {_count(extractor['epochs'], 'epoch')} on {on}{instead}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _describe_data(name: str, count: int, source: AnySource | None) -> str:
    if source is None:
        return f"{name}, {count} objects"
    if isinstance(source, TableSource) or source.layout == "function":
        whole = count == source.train_objects
        size = f"all {count} objects" if whole else f"a random {count} of {source.train_objects} objects"
        left = f", {_count(source.dropped, 'row')} with missing values left out" if source.dropped else ""
        return f"{source.title}, {size}{left}"
    part = "" if source.whole else f" (a part of {source.title})"
    if isinstance(source, CorpusSource):
        whole = count == source.train_objects
        size = f"all {count}" if whole else f"the first {count} of {source.train_objects}"
        teacher, student, target = source.languages
        left = f", {_count(source.dropped, 'line')} with a blank left out" if source.dropped else ""
        return f"{source.title} ({teacher}-{target}, {student}-{target}), {size} aligned train lines{part}{left}"
    if source.layout == ARCHIVE and name in IMAGE_SETS:
        part += f" from an archive of checksum {source.checksum[:12]}"
    size = f"all {count}" if count == source.train_objects else f"the first {count} of {source.train_objects}"
    return f"{source.title}, {size} train objects{part}"


def summary(verdict: Verdict) -> str:
    """Return a verdict in one line."""
    published = f", published {verdict.published:.3g}" if verdict.published is not None else ""
    interval = f"{verdict.effect:.3g} [{verdict.low:.3g}, {verdict.high:.3g}]{published}"
    if math.isnan(verdict.effect):
        interval = "no value"
    note = f" ({verdict.note})" if verdict.note else ""
    return f"{verdict.verdict}: {verdict.claim} - {verdict.statistic}: {interval}{note}"


def claims_table(name: str, verdicts: Sequence[Verdict]) -> Table:
    """Tabulate the verdicts of one experiment."""
    frame = pd.DataFrame([asdict(verdict) for verdict in verdicts])
    return Table(
        f"claims_{name}",
        frame,
        "Claims of the thesis, tested; intervals: 95 % over seeds, if any.",
    )
