"""Figures and tables in another language: the English texts that experiments write, replaced by those of a phrase file.

A phrase file (``<language>.yaml`` in the package of the experiments) has three parts, all from English to the other
language. ``phrases`` are whole texts. ``patterns`` have places: ``{#n}`` takes a number, ``{a}`` any text within a
sentence, and ``(s)`` an s or nothing; in the translation ``{n}`` and ``{a}`` stand for what was taken, itself
translated, ``{=a}`` for the same as it was, and ``{n|one|few|many}`` for the word that goes with the number. ``kept``
are names and words of code, which stay; so do the cells of the columns that ``verbatim`` names.

What is not found whole is divided - at line ends, sentences, semicolons, colons, commas, brackets - and each piece is
looked up; a piece that is not found stays English. Mathematics between dollar signs is never divided or changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from landscape_cli.experiment import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NUMBER = r"[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
WORDS = r"(?:(?!\. |; |\n).)+?"
SEPARATORS = ("\n", ". ", "; ", ": ", ", ", " - ", " and ", " or ", " = ", "=")
LINKS = {" and ": "and", " or ": "or"}  # separators that are words themselves


class Phrases:
    """The texts of one language.

    Parameters
    ----------
    phrases, patterns
        English -> the other language.
    kept
        What stays as it is: names, words of code.
    verbatim
        Columns of tables whose cells stay as they are.
    """

    def __init__(
        self,
        phrases: Mapping[str, str],
        patterns: Mapping[str, str] = MappingProxyType({}),
        kept: Iterable[str] = (),
        verbatim: Iterable[str] = (),
    ) -> None:
        self.phrases = dict(_without_stops(english, other) for english, other in phrases.items())
        self.patterns = [(_compiled(english), other) for english, other in patterns.items()]
        self.kept, self.verbatim = frozenset(kept), frozenset(verbatim)
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Return a text in the other language, white space at its ends kept; pieces that are not known as they are."""
        core = text.strip()
        if not re.search("[A-Za-z]", core):
            return text
        if core not in self._known:
            self._known[core] = self._translated(core)
        begin = len(text) - len(text.lstrip())
        return text[:begin] + self._known[core] + text[begin + len(core) :]

    def untranslated(self, text: str) -> list[str]:
        """List the English words of a translated text, mathematics and what is kept apart."""
        plain = re.sub(r"\$[^$]*\$", " ", text)
        for name in sorted(self.kept, key=len, reverse=True):
            plain = re.sub(rf"(?<![^\W\d_]){re.escape(name)}(?![^\W\d_])", " ", plain)
        return re.findall(r"\b[A-Za-z]{2,}\b", plain)

    def _translated(self, text: str) -> str:
        found = self._whole(text)
        if found is not None:
            return found
        for separator in SEPARATORS:
            pieces = _divided(text, separator)
            if len(pieces) > 1:
                link = separator
                if separator in LINKS:
                    link = f" {self.phrases.get(LINKS[separator], LINKS[separator])} "
                return link.join(self(piece) for piece in pieces)
        inside = re.fullmatch(r"(.*?)\(([^()]*)\)(.*)", text, re.DOTALL)
        if inside and inside[2]:
            before, within, after = (self(part) if part else "" for part in inside.groups())
            return f"{before}({within}){after}"
        return text

    def _whole(self, text: str) -> str | None:
        """Look up a text as it stands, then without its full stop, then with a small first letter."""
        if text in self.phrases:
            other = self.phrases[text]
            return other[:1].upper() + other[1:] if text[0].isupper() else other
        if text in self.kept:
            return text
        for pattern, other in self.patterns:
            match = pattern.fullmatch(text)
            if match:
                return self._filled(other, match.groupdict())
        for mark in ".:;,":
            if text.endswith(mark) and len(text) > 1:
                found = self._whole(text[:-1])
                return None if found is None else found + mark
        if text[:1].isupper() and text[1:2].islower():
            found = self._whole(text[0].lower() + text[1:])
            return None if found is None else found[:1].upper() + found[1:]
        return None

    def _filled(self, other: str, taken: Mapping[str, str]) -> str:
        def place(match: re.Match) -> str:
            name, *forms = match[1].split("|")
            if forms:
                return plural(taken[name], *forms)
            return taken[name[1:]] if name.startswith("=") else self(taken[name])

        return re.sub(r"\{(=?[a-z]\w*(?:\|[^{}]*)?)\}", place, other)


def plural(number: str, one: str, few: str, many: str) -> str:
    """Return the Russian word that goes with a number: 1 эпоха, 2 эпохи, 5 эпох; 1.5 эпохи."""
    if not re.fullmatch(r"\d+", number):
        return few
    count = int(number)
    if count % 10 == 1 and count % 100 != 11:
        return one
    return few if count % 10 in (2, 3, 4) and count % 100 not in (12, 13, 14) else many


@cache
def phrases_of(language: str, package: str = "experiments") -> Phrases | None:
    """Read the phrase file of a language; English has none."""
    names = {"ru": "russian"}
    if language not in names:
        return None
    spec = find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / f"{names[language]}.yaml"
    return Phrases(**yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader))


def translated_figure(figure: Figure, phrases: Phrases) -> Figure:
    """Replace every text of a drawing, in place; return the figure with its caption and note in the language."""
    translate_drawing(figure.drawing, phrases)
    return replace(figure, caption=phrases(figure.caption), note=phrases(figure.note))


def translate_drawing(drawing: Drawing, phrases: Phrases) -> None:
    """Replace every text of a drawing; of the labels of ticks the formatters, which write them anew at every draw."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    def wrapped(formatter: FixedFormatter | FuncFormatter) -> FuncFormatter:
        return FuncFormatter(lambda value, place: phrases(str(formatter(value, place))))

    for ax in drawing.axes:
        for axis in ax._axis_map.values():  # three of them where the axes are in space
            for minor, formatter in ((False, axis.get_major_formatter()), (True, axis.get_minor_formatter())):
                if isinstance(formatter, FixedFormatter | FuncFormatter):
                    (axis.set_minor_formatter if minor else axis.set_major_formatter)(wrapped(formatter))
    for text in drawing.findobj(Text):
        own = text.get_text()
        if own.strip():
            text.set_text(phrases(own))


def translated_frame(shown: pd.DataFrame, phrases: Phrases) -> pd.DataFrame:
    """Translate the headers and cells of a table as it is displayed; two headers never become one."""
    headers = [phrases(str(column)) for column in shown.columns]
    twice = {header for header in headers if headers.count(header) > 1}
    headers = [f"{h} ({c})" if h in twice else h for h, c in zip(headers, shown.columns, strict=True)]
    spoken = [str(column) not in phrases.verbatim for column in shown.columns]
    cells = [
        [phrases(str(cell)) if own else str(cell) for cell, own in zip(row, spoken, strict=True)]
        for row in shown.itertuples(index=False)
    ]
    return pd.DataFrame(cells, columns=headers, dtype=object)


def _without_stops(english: str, other: str) -> tuple[str, str]:
    """Leave out the full stop that both texts end with: a sentence is looked up without it."""
    return (english[:-1], other[:-1]) if english.endswith(".") and other.endswith(".") else (english, other)


def _compiled(english: str) -> re.Pattern:
    pieces = re.split(r"(\{#?[a-z]\w*\}|\(s\))", english)
    regex, seen = "", set()
    for piece in pieces:
        name = piece[1:-1].lstrip("#")
        if piece == "(s)":
            regex += "s?"
        elif re.fullmatch(r"\{#?[a-z]\w*\}", piece):
            what = NUMBER if piece[1] == "#" else WORDS
            regex += f"(?P={name})" if name in seen else f"(?P<{name}>{what})"
            seen.add(name)
        else:
            regex += re.escape(piece)
    return re.compile(regex, re.DOTALL)


def _divided(text: str, separator: str) -> list[str]:
    """Divide a text at a separator, outside mathematics and brackets."""
    pieces, begin, depth, math = [], 0, 0, False
    for place, letter in enumerate(text):
        if letter == "$":
            math = not math
        elif not math and letter in "([":
            depth += 1
        elif not math and letter in ")]":
            depth -= 1
        if not math and depth <= 0 and place >= begin and text.startswith(separator, place):
            pieces.append(text[begin:place])
            begin = place + len(separator)
    return [*pieces, text[begin:]]
