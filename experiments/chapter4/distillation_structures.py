"""Fig 4.10 and Tables 4.3 to 4.5: pictures before and after φ, the networks' layers, the parts of the data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from experiments.chapter4.distillation_results import TEXT
from experiments.reference import published_table
from landscape_cli.data.sets import IMAGE_SETS
from landscape_cli.experiment import NOT_REPRODUCED, REPRODUCED, Figure, Results, Table, Verdict
from landscape_cli.geometry import Shape, lenet_geometry
from landscape_cli.validation import model_node

THESIS_SET = "imagenette"
PARTS = {  # of Table 4.5: row, what our number is the sum of
    "ImageNet-Train": ("teacher_objects", "student_objects"),
    "ImageNet-Big": ("teacher_objects",),
    "ImageNet-Small": ("student_objects",),
    "ImageNet-Test": ("test_objects",),
}


def layers(model: Mapping[str, Any], shape: Shape, classes: int) -> pd.DataFrame:
    """Output size, weights and biases of a network's layers, one a row.

    Parameters
    ----------
    model
        Fields of :class:`~landscape_cli.config.LeNetConfig`.
    shape
        (C, H, W) of one picture.
    """
    geometry = lenet_geometry(model, shape)
    rows = [("input", "input", shape, 0, 0)]
    channels = shape[0]
    stages = zip(model["kernel_sizes"], geometry.convolved, geometry.pooled, strict=True)
    for stage, (kernel, convolved, pooled) in enumerate(stages, start=1):
        rows.append(
            (f"CONV{stage}", f"CONV{stage} (kernel {kernel})", convolved, convolved[0] * channels * kernel**2, 1)
        )
        rows.append((f"POOL{stage}", f"POOL{stage}", pooled, 0, 0))
        channels = convolved[0]
    rows.append(("flat", "connected", (geometry.features,), 0, 0))
    fan_in = geometry.features
    for width in (*model["hidden"], classes):
        rows.append((f"FC {width}", "connected", (width,), fan_in * width, 1))
        fan_in = width
    found = pd.DataFrame(rows, columns=["key", "layer", "output", "weights", "biases"])
    found["biases"] = [
        out[0] if has and model["bias"] else 0 for out, has in zip(found["output"], found["biases"], strict=True)
    ]
    found["output"] = ["(" + ", ".join(map(str, size)) + ")" for size in found["output"]]
    return found


def networks(results: Results, config: Any) -> dict[str, tuple[dict[str, Any], Shape, int]]:
    """Teacher and student with the pictures that they take: those of the thesis, or those that were trained."""
    teacher = asdict(model_node(config.measure.teacher, "measure.teacher"))
    if config.thesis:
        own = IMAGE_SETS[THESIS_SET]
        return {"teacher": (teacher, own.shape, own.classes), "student": (asdict(config.model), own.shape, own.classes)}
    settings = results.points[0].settings
    source = results.sources.get(settings["dataset"]["name"]) or IMAGE_SETS.get(settings["dataset"]["name"])
    if source is None:
        return {}
    found = {"teacher": settings["measure"]["teacher"], "student": settings["model"]}
    return {name: (node, source.shape, source.classes) for name, node in found.items()}


def tables(results: Results, config: Any) -> Iterator[Table]:
    """Tables 4.3, 4.4 and 4.5."""
    for name, (model, shape, classes) in networks(results, config).items():
        if model["kind"] != "lenet":
            continue
        found = layers(model, shape, classes)
        total = {
            "key": "total",
            "layer": "sum",
            "output": "",
            "weights": found["weights"].sum(),
            "biases": found["biases"].sum(),
        }
        found = pd.concat([found, pd.DataFrame([total])], ignore_index=True)
        keys = found.pop("key")
        caption = f"Structure of the {name}: the output of each layer, its weights, and its biases apart."
        file = f"{config.name}_{name}"
        if config.thesis:
            number = {"teacher": "4.3", "student": "4.4"}[name]
            printed = published_table(number).set_index("row")["value"]
            # The thesis prints 0 for what has no weights.
            found["published"] = [printed.get(key, "0" if _without_weights(key, printed) else "-") for key in keys]
            file = f"table_{number.replace('.', '_')}_vision_{name}"
            caption += f" Beside Table {number}, which counts no biases; pictures of {shape[1]}x{shape[2]}."
            if results.points[0].settings["dataset"]["name"] != THESIS_SET:
                caption += (
                    " Counted of the thesis's network; the one that was trained here is smaller, as its pictures are."
                )
        yield Table(file, found, caption)
    sizes = results.frames["sizes"].iloc[0]
    if config.thesis:
        printed = published_table("4.5").set_index("row")["value"]
        rows = [
            {"part": name, "objects": int(sizes[list(columns)].sum()), "published": int(printed[name])}
            for name, columns in PARTS.items()
        ]
        about = (
            next(iter(results.sources.values())).title
            if results.sources
            else results.points[0].settings["dataset"]["name"]
        )
        caption = f"Parts of the data set ({about}), beside Table 4.5, whose data set is Imagenette."
        yield Table("table_4_5_vision_datasets", pd.DataFrame(rows), caption)


def _without_weights(key: str, printed: pd.Series) -> bool:
    """Whether a layer of the thesis's has none."""
    return key in ("input", "flat") or (key.startswith("POOL") and key.replace("POOL", "CONV") in printed)


def fewer_weights(results: Results, config: Any) -> Iterator[Verdict]:
    """Judge "the student has fewer parameters than the teacher" by counting."""
    if not config.thesis:  # the sizes of other networks are not the thesis's
        return
    there = networks(results, config)
    if any(model["kind"] != "lenet" for model, _, _ in there.values()) or not there:
        return
    counts = {name: int(layers(*given)["weights"].sum()) for name, given in there.items()}
    ratio = counts["student"] / counts["teacher"]
    published = {
        n: float(published_table(t).set_index("row").loc["total", "value"])
        for n, t in (("teacher", "4.3"), ("student", "4.4"))
    }
    yield Verdict(
        claim="the student has fewer parameters than its teacher",
        source=f"{TEXT}, Tables 4.3 and 4.4",
        statistic="the student's weights over the teacher's, counted; to be below 1",
        verdict=REPRODUCED if ratio < 1 else NOT_REPRODUCED,
        effect=ratio,
        low=ratio,
        high=ratio,
        published=published["student"] / published["teacher"],
        note=f"weights without biases: student {counts['student']}, teacher {counts['teacher']}; no interval, a count",
    )


def pictures(results: Results, config: Any) -> Iterator[Figure]:
    """Objects of the student's before and after φ."""
    from landscape_cli.plotting.style import COLUMN_WIDTH, new_figure

    before, after = results.arrays[results.points[0]]["pictures"]
    low, high = float(before.min()), float(before.max())
    drawing, axes = new_figure(2, len(before), COLUMN_WIDTH, COLUMN_WIDTH / len(before) + 0.1)
    for row, (pictures, label) in enumerate(((before, "before"), (after, "after φ"))):
        for ax, picture in zip(axes[row], pictures, strict=True):
            shown = np.clip((picture.transpose(1, 2, 0) - low) / max(high - low, 1e-12), 0, 1)
            ax.imshow(shown.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            for spine in ax.spines.values():
                spine.set_visible(False)
        axes[row, 0].set_ylabel(label)
    name = "fig_4_10_vision_mapping" if config.thesis else f"{config.name}_mapping"
    note = "Objects of the student's, each of another class."
    if results.points[0].settings["mapping"]["kind"] == "style":
        note += " The stylisation is not injective, as Definition 16 would have it."
    yield Figure(name, drawing, "Example objects before and after the mapping φ.", note)
