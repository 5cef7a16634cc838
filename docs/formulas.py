"""Formulas (TeX) as MathML, which browsers show without a script, and docstrings' references; a hook of MkDocs."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any


def formulas(page: str) -> str:
    """Turn the TeX that arithmatex has found in a page into MathML."""

    def inline(found: re.Match) -> str:
        return mathml(html.unescape(found[1]), "inline")

    def display(found: re.Match) -> str:
        return f'<div class="formula">{mathml(html.unescape(found[1]), "block")}</div>'

    page = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', inline, page, flags=re.DOTALL)
    return re.sub(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', display, page, flags=re.DOTALL)


def mathml(tex: str, display: str) -> str:
    """A formula as MathML of the part that browsers know (MathML Core)."""
    from latex2mathml.converter import convert

    found = convert(" ".join(tex.split()), display=display)
    if "&</mi>" in found or "<mi>\\" in found:
        raise ValueError(f"latex2mathml does not know what is in: {tex}")
    word = r'<mrow>((?:<mi mathvariant="normal">\w</mi>){2,})</mrow>'
    found = re.sub(word, lambda letters: f"<mi>{re.sub('<[^>]+>', '', letters[1])}</mi>", found)
    found = re.sub(
        r'<mo(?: stretchy="false")?>(&#x0007C;|&#x02016;|/)</mo>',
        r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>',
        found,
    )
    found = found.replace("<mover>", '<mover accent="true">')  # hats and bars
    return re.sub(r'<mi mathvariant="(bold|script|double-struck|fraktur|sans-serif)">(\w)</mi>', _styled, found)


def _styled(found: re.Match) -> str:
    """A letter of a style as Unicode's character for it: browsers know no ``mathvariant`` but normal."""
    style, letter = found[1].upper(), found[2]
    name = unicodedata.name(letter).replace("LATIN ", "").replace("LETTER ", "")  # CAPITAL H, GREEK SMALL THETA
    kind = name.replace("GREEK ", "")
    for candidate in (f"MATHEMATICAL {style} {kind}", f"{style} {kind}", f"BLACK-LETTER {kind}"):
        try:
            return f"<mi>{unicodedata.lookup(candidate)}</mi>"
        except KeyError:
            continue
    return f"<mi>{letter}</mi>"


def roles(page: str) -> str:
    """Turn the references of docstrings (:func:`…`) into links where they name something of the API pages."""

    def link(found: re.Match) -> str:
        short, path = found[1] == "~", found[2]
        shown = path.rpartition(".")[2] if short else path
        code = f"<code>{shown}</code>"
        return f'<autoref optional identifier="{path}">{code}</autoref>' if path.startswith("landscape_cli.") else code

    return re.sub(r":(?:func|class|meth|mod|attr|data):<code>(~?)([\w.]+)</code>", link, page)


def on_page_content(html: str, **_: Any) -> str:
    """Mend what Markdown has left: formulas and references."""
    return roles(formulas(html))
