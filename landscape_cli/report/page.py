"""The report as one page of HTML that needs nothing beside it: no script, no network, no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from landscape_cli import __version__, provenance
from landscape_cli.cost import duration
from landscape_cli.drawn import Origin, Piece
from landscape_cli.report.gather import VERDICTS, Report, number, picture_of, table_of

MOST_ROWS = 60
SHOWN = 130.0  # pixels of the page an inch of the paper
COLOURS = 256  # of an embedded picture: a third of its bytes, and no difference that an eye can see
MARKS = {
    **{"reproduced": "✓", "not reproduced": "✗", "inconclusive": "~"},
    **{"holds": "✓", "holds loosely": "✓", "fails": "✗"},
    **{"drawn": "✓", "drawn in part": "~", "not drawn": "✗"},
}
PROFILE_NOTES = {
    "quick": "Real data and small sizes: 1000 objects, three seeds, three values an axis. A verdict at this size is no "
    "verdict on the thesis's own sizes.",
    "embedded": "Every data set is replaced by one that ships with the installation, at small sizes: this shows that "
    "everything runs and what it looks like. Its verdicts are not verdicts on the thesis.",
    "smoke": "Sizes for tests: nothing here says anything of the thesis.",
}


@dataclass(frozen=True)
class Picture:
    """A picture inside of the page."""

    source: str  # data URI
    width: int  # pixels as shown
    height: int


def page(report: Report) -> str:
    """Render the page."""
    environment = Environment(
        loader=PackageLoader("landscape_cli.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "duration": duration}
    pieces = [piece for record in report.records.values() for piece in record.pieces]
    pictures = _pictures([piece for piece in pieces if piece.kind == "figure"])
    tables = {piece.name: table_of(piece) for piece in pieces if piece.kind == "table"}
    return environment.get_template("page.html.j2").render(
        report=report,
        pictures=lambda piece: pictures.get(piece.name),
        tables=lambda piece: tables.get(piece.name),
        most=MOST_ROWS,
        marks=MARKS,
        verdicts=VERDICTS,
        profile_notes=PROFILE_NOTES,
        origin=_origin(report),
        command=provenance.command(),
        commit=provenance.commit(),
        version=__version__,
        style=(Path(__file__).parent / "page.css").read_text(encoding="utf-8"),
    )


def _pictures(pieces: Sequence[Piece]) -> dict[str, Picture]:
    """Every figure's picture by its name; encoding is the longest part of a report, and threads share it."""
    files = [(piece.name, path) for piece in pieces if (path := picture_of(piece))]
    with ThreadPoolExecutor() as threads:
        made = threads.map(lambda entry: (_vector if entry[1].suffix == ".svg" else _pixels)(entry[1]), files)
        return {name: picture for (name, _), picture in zip(files, made, strict=True)}


def _pixels(path: Path) -> Picture:
    with Image.open(path) as image:
        inches = [size / dpi for size, dpi in zip(image.size, image.info.get("dpi", (200, 200)), strict=True)]
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    content = io.BytesIO()
    few.save(content, "PNG")
    return Picture(_uri("image/png", content.getvalue()), *(round(size * SHOWN) for size in inches))


def _vector(path: Path) -> Picture:
    content = path.read_bytes()
    root = ElementTree.fromstring(content)
    sizes = [float(root.get(name, "400").removesuffix("pt")) / 72 for name in ("width", "height")]
    return Picture(_uri("image/svg+xml", content), *(round(size * SHOWN) for size in sizes))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _origin(report: Report) -> Origin:
    """Sum up where all experiments come from; points that several share once."""
    origins = [record.origin for record in report.records.values()]
    return Origin(
        commits=list(dict.fromkeys(commit for one in origins for commit in one.commits)),
        devices=list(dict.fromkeys(device for one in origins for device in one.devices)),
        versions=list(dict.fromkeys(version for one in origins for version in one.versions)),
        began=min((one.began for one in origins), default=""),
        ended=max((one.ended for one in origins), default=""),
        seconds={key: taken for one in origins for key, taken in one.seconds.items()},
    )
