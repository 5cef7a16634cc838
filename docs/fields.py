"""Reads docstrings as they are written here; an extension of Griffe, from which the API's pages are made.

Dataclasses say what their fields are in comments behind them (``norms: torch.Tensor  # (n,) float64, …``), several
parameters share one description, and what a function returns is a sentence, where Griffe looks for a type first.
"""

from __future__ import annotations

import io
import re
import textwrap
import tokenize
from typing import Any

import griffe


class Comments(griffe.Extension):
    """Brings docstrings into the form that Griffe reads as numpy's."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Give each parameter an entry of its own, and what is returned the signature's type."""
        if func.docstring is not None:
            func.docstring.value = typed(apart(func.docstring.value), str(func.returns or "returned"))

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add a section with the comments, unless the docstring has one."""
        if cls.docstring is None:
            return
        cls.docstring.value = apart(cls.docstring.value)
        if "\nAttributes\n---" in cls.docstring.value:
            return
        said = {name: comment(member.source) for name, member in cls.members.items() if member.is_attribute}
        rows = [f"{name}\n    {text}" for name, text in said.items() if text]
        if rows:
            cls.docstring.value += "\n\nAttributes\n----------\n" + "\n".join(rows)


def comment(source: str) -> str:
    """The comment behind a statement, without its sign."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source.strip()).readline))
    except tokenize.TokenError:
        return ""
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return found[-1].lstrip("# ") if found else ""


def apart(docstring: str) -> str:
    """Repeat a description for each of the names that share it: Griffe would give all the first one's type."""

    def entries(found: re.Match) -> str:
        return "".join(f"{name}\n{found[2]}" for name in found[1].split(", "))

    return re.sub(r"^(\w+(?:, \w+)+)\n((?:[ ]+\S.*(?:\n|\Z))+)", entries, docstring, flags=re.MULTILINE)


def typed(docstring: str, annotation: str) -> str:
    """Indent the sentences below ``Returns`` or ``Yields`` and put a type before them."""

    def section(found: re.Match) -> str:
        if re.search(r"^\s+\S", found[2], re.MULTILINE):  # it names a type already
            return found[0]
        return f"{found[1]}{annotation}\n{textwrap.indent(found[2], '    ')}"

    return re.sub(r"((?:Returns|Yields)\n-+\n)(.*?)(?=\n\n\w+\n---|\Z)", section, docstring, flags=re.DOTALL)
