"""The pages of the documentation site that are made when it is built, so that they cannot go stale; a hook of MkDocs.

The thesis map and the experiments' pages come from ``experiments/catalogue.yaml``, ``conf/experiment`` and docstrings,
blocks of code from the README. Nothing here needs MkDocs but the functions named ``on_…``.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from landscape_cli.data.tables import TABLE_SETS
from landscape_cli.experiment import Experiment
from landscape_cli.listing import Item, catalogue, items_of, shipped, thesis
from landscape_cli.validation import load_class

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ("paper", "quick", "embedded")
CHAPTERS = {  # package of experiments -> title
    **{f"chapter{number}": f"Chapter {number}: {texts['title']}" for number, texts in thesis().chapters.items()},
    "beyond": "Beyond the thesis",
}
OWN, YOURS = (
    "own",
    "model._target_=my_pkg.Net dataset._target_=my_pkg.data",
)  # what an experiment on your own data takes
SECTION = "Experiments"  # of the navigation: what the pages made here go below


MAP = """# Thesis map

Every one of the thesis's {figures} figures and {tables} tables: its caption (the thesis's own, translated), what is
wrong with the caption where something is, and the command that makes it. Where several commands are given, each makes
the item for other data sets.

Files are below `outputs/`; figures are written as PDF and PNG, tables as CSV, Markdown and LaTeX. With `profile=quick`
or `profile=embedded` they are small and go to a folder of that name (`figures/quick/…`).
"""

LIST = """---
hide: [toc]
---

# Experiments

{count} experiments are shipped. Each is a short file in `conf/experiment/`; those of one class stand on one page. The
[quickstart](../index.md) shows what a run looks like, the [thesis map](../thesis.md) where every figure and table comes
from. `landscape list` prints this list with the state of your results.

<input class="narrow" type="search" placeholder="Narrow the list: mnist, figure 1.3, hessian …" autocomplete="off"
aria-label="Narrow the list">

<div class="narrowed" markdown="1">

| experiment | what | makes | data |
|---|---|---|---|"""


@dataclass(frozen=True)
class Shipped:
    """One YAML file of ``conf/experiment``."""

    name: str
    text: str  # of the file

    @property
    def config(self) -> dict[str, Any]:
        """The file's own keys, nothing composed."""
        return yaml.safe_load(self.text)

    @property
    def family(self) -> str:
        """Path of its class."""
        return self.config["family"]

    @property
    def page(self) -> str:
        """Source of the page it stands on."""
        return f"experiments/{_snake(self.family.rpartition('.')[2])}.md"

    @property
    def items(self) -> list[Item]:
        """The figures and tables of the thesis that it makes."""
        return items_of(self.name)

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that it measures on."""
        several = self.config.get("grid", {}).get("dataset")
        chosen = [
            entry["override /dataset"] for entry in self.config.get("defaults", []) if "override /dataset" in entry
        ]
        return several or chosen

    def stand_in(self, dataset: str) -> str | None:
        """What is taken in the place of `dataset` under profile=embedded; None: the same."""
        own = (self.config.get("dataset") or {}).get("embedded")
        node = yaml.safe_load((ROOT / "conf" / "dataset" / f"{dataset}.yaml").read_text(encoding="utf-8"))
        known = TABLE_SETS[dataset].stand_in if dataset in TABLE_SETS else None
        found = own or node.get("embedded") or known
        return None if found == dataset else found

    @property
    def commands(self) -> list[str]:
        """The command at the thesis's size, and in the two small profiles; with what it needs of yours."""
        plain = f"landscape run experiment={self.name}" + (f" {YOURS}" if OWN in self.datasets else "")
        return [plain, *(f"{plain} profile={profile}" for profile in PROFILES[1:])]


@cache
def experiments() -> tuple[Shipped, ...]:
    """Every experiment that is shipped, by name."""
    folder = ROOT / "conf" / "experiment"
    return tuple(Shipped(name, (folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in shipped())


@cache
def families() -> Mapping[str, tuple[Shipped, ...]]:
    """Path of a class -> its experiments, by chapter and module."""
    found: dict[str, list[Shipped]] = {}
    for experiment in experiments():
        found.setdefault(experiment.family, []).append(experiment)
    order = list(CHAPTERS)
    return {
        path: tuple(sorted(found[path], key=lambda one: _first_item([one])))
        for path in sorted(found, key=lambda path: (order.index(path.split(".")[1]), _first_item(found[path]), path))
    }


def _first_item(several: Iterable[Shipped]) -> tuple[int, ...]:
    numbers = [tuple(map(int, item.name.split()[1].split("."))) for one in several for item in one.items]
    return min(numbers, default=(9,))


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _words(path: str) -> str:
    """``FullyConnected`` -> Fully connected."""
    return _snake(path.rpartition(".")[2]).replace("_", " ").capitalize()


# The thesis map


def output_file(item: Item, experiment: str) -> str:
    """Where below ``outputs/`` an item is written at the thesis's size."""
    folder, suffix = ("figures", "pdf") if item.name.startswith("figure") else ("tables", "csv")
    return f"{folder}/{item.experiments[experiment]}.{suffix}"


def anchor(item: Item) -> str:
    """Of an item on the thesis map: ``figure-1-3``."""
    return item.name.replace(" ", "-").replace(".", "-")


def thesis_map() -> str:
    """The page with every figure and table of the thesis."""
    figures = sum(item.name.startswith("figure") for item in catalogue())
    lines = [MAP.format(figures=figures, tables=len(catalogue()) - figures)]
    chapter = None
    for item in catalogue():
        if item.chapter != chapter:
            chapter = item.chapter
            lines += [f"## {CHAPTERS[f'chapter{chapter}']}", ""]
        lines += [*_item(item), ""]
    return "\n".join(lines)


def _item(item: Item) -> Iterator[str]:
    yield f"### {item.name.capitalize()} {{ #{anchor(item)} }}"
    yield ""
    yield item.caption.strip()
    yield ""
    if item.note:
        yield '!!! note "About the caption"'
        yield f"    {item.note.strip()}"
        yield ""
    by_name = {experiment.name: experiment for experiment in experiments()}
    yield '<div class="makes" markdown="1">'
    yield ""
    yield "| command | file |"
    yield "|---|---|"
    for name in item.experiments:
        command = (
            f"[`{by_name[name].commands[0]}`]({by_name[name].page}#{name})" if name in by_name else f"{name}: not built"
        )
        yield f"| {command} | `{output_file(item, name)}` |"
    yield ""
    yield "</div>"


# The experiments' pages


def listing() -> str:
    """The page that lists every experiment, with a box that narrows the list."""
    lines = [LIST.format(count=len(experiments()))]
    for several in families().values():
        for one in several:
            made = ", ".join(f"[{item.name}](../thesis.md#{anchor(item)})" for item in one.items) or "beyond the thesis"
            data = ", ".join(f"`{name}`" for name in one.datasets) or "none"
            page = one.page.partition("/")[2]
            lines.append(f"| [`{one.name}`]({page}#{one.name}) | {as_cell(shipped()[one.name])} | {made} | {data} |")
    return "\n".join([*lines, "", "</div>", ""])


def family_page(path: str) -> str:
    """The page of a class of experiments."""
    kind, several = load_class(path), families()[path]
    module = inspect.getmodule(kind)
    lines = [
        f"# {_words(path)}",
        "",
        readable(inspect.getdoc(kind) or ""),
        "",
        readable(inspect.getdoc(module) or ""),
        "",
        f"Class `{path}`{_version(kind)}.",
        "",
    ]
    for one in several:
        lines += [*_experiment(one), ""]
    lines += [*_stored(kind), *_options(kind, several)]
    return "\n".join(lines)


def _version(kind: type[Experiment]) -> str:
    shared = f"; its points are those of `{kind.stored_as}`" if kind.stored_as else ""
    return f", version {kind.version}{shared}"


def _experiment(one: Shipped) -> Iterator[str]:
    yield f"## {one.name} {{ #{one.name} }}"
    yield ""
    yield f"{shipped()[one.name]}."
    yield ""
    for item in one.items:
        yield f"- makes [{item.name}](../thesis.md#{anchor(item)}): `outputs/{output_file(item, one.name)}`"
    if not one.items:
        yield "- beyond the thesis: it has no such figure or table"
    for name in one.datasets:
        stand_in = one.stand_in(name)
        instead = f" (`{stand_in}` under `profile=embedded`)" if stand_in else ", with the installation"
        yield "- data: your own" if name == OWN else f"- data: `{name}`{instead}"
    if not one.datasets:
        yield "- data: none"
    yield ""
    yield "```sh"
    yield from one.commands
    yield f"landscape show {one.name}"
    yield "```"
    yield ""
    yield f'```yaml title="conf/experiment/{one.name}.yaml"'
    yield one.text.rstrip()
    yield "```"


def _stored(kind: type[Experiment]) -> Iterator[str]:
    text = inspect.getdoc(kind.measure) or ""
    if text and text != inspect.getdoc(Experiment.measure):
        yield "## What is stored of a point"
        yield ""
        yield readable(text)
        yield ""


def _options(kind: type[Experiment], several: tuple[Shipped, ...]) -> Iterator[str]:
    fields = dataclasses.fields(kind.Options)
    if not fields:
        return
    said = comments(kind.Options)
    for one in several:
        for name, comment in yaml_comments(one.text).items():
            said.setdefault(name, comment)
    yield "## Options of the measure"
    yield ""
    yield readable(inspect.getdoc(kind.Options) or "")
    yield "Set with `measure.NAME=VALUE`; the files above may set other values than the class's, which are these."
    yield ""
    yield "| option | default | allowed | what |"
    yield "|---|---|---|---|"
    for field in fields:
        yield f"| `{field.name}` | {_default(field)} | {_allowed(field)} | {as_cell(said.get(field.name, ''))} |"
    yield ""


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "none"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """As it is written in YAML and on the command line."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _allowed(field: dataclasses.Field) -> str:
    limits = field.metadata
    words = {"minimum": "≥ {}", "above": "> {}", "maximum": "≤ {}", "below": "< {}"}
    parts = [words[name].format(limits[name]) for name in words if name in limits]
    if "choices" in limits:
        parts.append(", ".join(f"`{choice}`" for choice in limits["choices"]))
    parts.append(str(limits["allowed"]) if "allowed" in limits else "")
    if "None" in str(field.type):
        parts.append("`null`")
    if not parts[0] and str(field.type) == "bool":
        parts = ["`true`, `false`"]
    return ", ".join(filter(None, parts))


def comments(options: type) -> dict[str, str]:
    """Field -> the comment behind it in the source, of a dataclass and of those that it inherits from."""
    found: dict[str, str] = {}
    for part in reversed(options.__mro__[:-1]):
        source = textwrap.dedent(inspect.getsource(part))
        rows = source.splitlines()
        for node in ast.parse(source).body[0].body:
            if isinstance(node, ast.AnnAssign):
                _, _, comment = rows[node.end_lineno - 1][node.end_col_offset :].partition("#")
                if comment.strip():
                    found[node.target.id] = comment.strip()
    return found


def yaml_comments(text: str) -> dict[str, str]:
    """Key -> the comment behind it, of the keys right below ``measure``."""
    found = {}
    inside = False
    for row in text.splitlines():
        if re.match(r"\S", row):
            inside = row.startswith("measure:")
        elif inside and (matched := re.match(r"  (\w+):.*?\s# (.+)", row)):
            found[matched[1]] = matched[2]
    return found


def as_cell(text: str) -> str:
    """A text as a cell of a table shows it, letter by letter."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def readable(docstring: str) -> str:
    """A docstring as Markdown: roles become code, bars are no tables, stars no emphasis."""
    plain = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{found[1].rpartition('.')[2]}`", docstring)
    plain = plain.replace("``", "`")
    pieces = re.split(r"(`[^`]*`)", plain)
    return "".join(
        p if p.startswith("`") else p.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_") for p in pieces
    )


# Blocks of the README


def readme_block(language: str, holding: str = "") -> str:
    """The first block of code in the README of a language that holds a text, with its fences."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(rf"^```{language}\n.*?^```$", text, re.DOTALL | re.MULTILINE):
        if holding in block:
            return block
    raise ValueError(f"README.md has no block of {language or 'commands'} with {holding!r}")


def with_blocks(markdown: str) -> str:
    """Put the README's blocks where a page has ``<!-- README LANGUAGE: TEXT -->``; commands have no language there."""

    def block(found: re.Match) -> str:
        language = "" if found[1] == "sh" else found[1]
        taken = readme_block(language, found[2])
        return taken if language else taken.replace("```\n", "```sh\n", 1)

    return re.sub(r"<!-- README (\w+): (.*?) -->", block, markdown)


# Hooks


def pages() -> dict[str, str]:
    """Source path -> Markdown of every page that is made here."""
    made = {"thesis.md": thesis_map(), "experiments/index.md": listing()}
    return made | {several[0].page: family_page(path) for path, several in families().items()}


def on_config(config: Any) -> Any:
    """Put the experiments' pages into the navigation, by chapter."""
    by_chapter: dict[str, list[dict[str, str]]] = {title: [] for title in CHAPTERS.values()}
    for path, several in families().items():
        by_chapter[CHAPTERS[path.split(".")[1]]].append({_words(path): several[0].page})
    for entry in config.nav:
        if SECTION in entry:
            entry[SECTION] += [{title: chapter} for title, chapter in by_chapter.items()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in the README's blocks."""
    return with_blocks(markdown)
