"""Copies for TensorBoard, when ``tracking=tensorboard``: each point's metrics as it is stored, and every figure.

They go to ``<output_dir>/tracking/``, one run a point; nothing reads them again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from landscape_cli.config import Config
from landscape_cli.errors import BadInput
from landscape_cli.experiment import Measurement
from landscape_cli.plan import Located

STEPS = ("k", "epoch", "step", "size", "objects", "iteration")  # columns that other columns are drawn against
MOST = 1000  # steps of a curve


def check_tracking(config: Config) -> None:
    """Refuse a tracking that is not installed, before anything is measured."""
    if config.tracking and find_spec("tensorboard") is None:
        raise BadInput("tracking: tensorboard is not installed here; pip install 'landscape-cli[tracking]'")


def track_point(config: Config, item: Located, measurement: Measurement, seconds: float) -> None:
    """Write a point's settings, its time, and each numeric column of its frames: a curve, or its mean."""
    from torch.utils.tensorboard import SummaryWriter

    name = re.sub(r"[^A-Za-z0-9_.=,-]+", "-", item.point.label)[:80]
    with SummaryWriter(_folder(config) / f"{name}_{item.key[:8]}") as writer:
        settings = json.dumps(item.point.settings, indent=1, ensure_ascii=False)
        writer.add_text("settings", "\n".join("    " + line for line in settings.splitlines()))
        writer.add_scalar("seconds", seconds)
        for tag, step, value in scalars(measurement):
            writer.add_scalar(tag, value, step)


def track_figures(config: Config, paths: Iterable[Path]) -> None:
    """Write the figures that were drawn as PNG."""
    from matplotlib.image import imread
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(_folder(config) / "figures") as writer:
        for path in paths:
            if path.suffix == ".png":
                writer.add_image(path.stem, imread(path)[..., :3], dataformats="HWC")


def scalars(measurement: Measurement) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each numeric column: against the frame's steps, if it has them, else its mean."""
    for name, frame in measurement.frames.items():
        numeric = frame.select_dtypes("number")
        steps = next((column for column in STEPS if column in numeric), None)
        columns = [column for column in numeric if column not in (steps, "seed")]
        if steps is None:
            for column, value in frame[columns].mean().items():
                yield f"{name}/{column}", 0, float(value)
            continue
        means = frame.groupby(steps)[columns].mean()
        for step, row in means.iloc[:: -(-len(means) // MOST)].iterrows():
            for column, value in row.items():
                yield f"{name}/{column}", int(step), float(value)


def _folder(config: Config) -> Path:
    return Path(config.output_dir).expanduser() / "tracking" / config.name
