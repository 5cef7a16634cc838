"""What the benchmarks share: real pictures where there are some, and a JSON file a run with its environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from landscape_cli import provenance
from landscape_cli.data.images import load_images
from landscape_cli.data.locate import data_roots, locate
from landscape_cli.errors import MissingData


def pictures(
    name: str, shape: tuple[int, int, int], count: int, device: torch.device, normalisation: str
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """First train pictures and labels of a data set, or random ones of its shape (C, H, W); and what they are."""
    try:
        data = load_images(locate(name, data_roots(None)), count, 0, device, normalisation)
        return data.x_train, data.y_train, data.source.title
    except MissingData:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(count, *shape, generator=draw).to(device)
        y = torch.randint(10, (count,), generator=draw).to(device)
        return x, y, f"random pictures of the size of {name}'s (none found)"


def write(benchmark: str, found: dict[str, Any]) -> None:
    """Write what was found beside threads, cores, time, commit and versions, and print the path."""
    folder = Path(os.environ.get("LANDSCAPE_OUTPUTS") or "outputs") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}_{provenance.now().replace(':', '')}.json"
    about = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "time": provenance.now()}
    about |= {"commit": provenance.commit(), "versions": provenance.versions()}
    path.write_text(json.dumps({**about, **found}))
    print(path)
