"""Writes figures (PDF, PNG, SVG) and tables (CSV, Markdown, LaTeX): whole or not at all, and the same bytes again."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from landscape_cli.claims import clear_drafts, draft_name, make_folder
from landscape_cli.experiment import Figure, Table
from landscape_cli.plotting.language import Phrases, translated_figure, translated_frame
from landscape_cli.plotting.sizes import size_of, stacked


def save_figure(
    figure: Figure, folder: Path, formats: Sequence[str], dpi: int, note: str, phrases: Phrases | None = None
) -> list[Path]:
    """Write one figure in every format, with `note` (data set, sizes, profile) in small print below it.

    Parameters
    ----------
    dpi
        Pixels an inch; of a slide, an inch of one that is 13.33 inches wide.
    phrases
        The language of the figure, where it is not English.
    """
    import matplotlib.pyplot as plt

    make_folder(folder)
    clear_drafts(folder)
    if stacked(figure.drawing):
        figure = replace(figure, note=_above_for_left(figure.note))
    letters = 22  # of the small print, an inch
    if phrases is not None:
        figure, note = translated_figure(figure, phrases), phrases(note)
        letters = 18  # Cyrillic ones are wider
    width = figure.drawing.get_size_inches()[0]
    small_print = f"{figure.note} {note}".strip()
    wrapped = textwrap.fill(small_print, int(width * letters))
    figure.drawing.supxlabel(wrapped, fontsize=6, color="0.35", x=0.01, ha="left", linespacing=1.4)
    size = size_of(figure.drawing)
    if phrases is not None or size.name != "own":
        from landscape_cli.plotting.fitting import fit

        fit(figure.drawing)
    dpi = dpi * size.magnified
    figure.drawing.draw_without_rendering()
    figure.drawing.set_layout_engine("none")  # laid out once, not again for each format
    paths = [folder / f"{figure.name}.{suffix}" for suffix in formats]
    for path in paths:
        _whole(
            path,
            lambda draft, kind=path.suffix[1:]: figure.drawing.savefig(
                draft, format=kind, dpi=dpi, metadata=_metadata(kind, f"{figure.caption} {small_print}")
            ),
        )
    plt.close(figure.drawing)
    return paths


def _above_for_left(note: str) -> str:
    """Say where the panels are that stood side by side and are now stacked."""
    words = {"Left:": "Top:", "Right:": "Bottom:", "Left and middle:": "Top and middle:"}
    words |= {"from the network on the left": "from the network above", "Lower row:": "Lower half:"}
    pattern = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.sub(pattern, lambda match: words[match[0]], note)


def save_table(table: Table, folder: Path, note: str, phrases: Phrases | None = None) -> list[Path]:
    """Write one table as CSV (full precision), Markdown and LaTeX (booktabs).

    In another language than English Markdown and LaTeX are translated; the CSV is for programs and stays.
    """
    make_folder(folder)
    clear_drafts(folder)
    shown = displayed(table.frame, table.formats)
    caption = f"{table.caption} {note}".strip()
    if phrases is not None:
        shown = translated_frame(shown, phrases)
        caption = f"{phrases(table.caption)} {phrases(note)}".strip()
    written = {
        "csv": table.frame.to_csv(index=False, lineterminator="\n"),
        "md": f"{caption}\n\n{markdown(shown)}\n",
        "tex": _latex(shown, caption, table.name),
    }
    paths = []
    for suffix, text in written.items():
        path = folder / f"{table.name}.{suffix}"
        _whole(path, lambda draft, text=text: draft.write_text(text, encoding="utf-8"))
        paths.append(path)
    return paths


def displayed(frame: pd.DataFrame, formats: Mapping[str, str]) -> pd.DataFrame:
    """Return the frame as text: numbers by their column's format (default ``.4g``), missing values as a dash."""

    def text(value: object, spec: str) -> str:
        if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
            return "–"
        if isinstance(value, float):
            return format(value, spec or ".4g")
        return format(value, spec) if spec else str(value)

    return pd.DataFrame({c: [text(v, formats.get(c, "")) for v in frame[c]] for c in frame.columns}, dtype=object)


def markdown(shown: pd.DataFrame) -> str:
    """Return a frame of text as a Markdown table."""
    rows = [list(map(str, shown.columns)), *([str(v) for v in row] for row in shown.itertuples(index=False))]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _latex(shown: pd.DataFrame, caption: str, label: str) -> str:
    escaped = shown.rename(columns=latex_text).map(latex_text)
    text = escaped.style.hide(axis="index").to_latex(
        hrules=True, caption=latex_text(caption), label=f"tab:{label}", position_float="centering"
    )
    return text if text.endswith("\n") else text + "\n"


_GREEK = {
    **{0x393: "Gamma", 0x394: "Delta", 0x398: "Theta", 0x39B: "Lambda", 0x39E: "Xi", 0x3A0: "Pi", 0x3A3: "Sigma"},
    **{0x3A6: "Phi", 0x3A8: "Psi", 0x3A9: "Omega", 0x3B1: "alpha", 0x3B2: "beta", 0x3B3: "gamma", 0x3B4: "delta"},
    **{0x3BA: "kappa", 0x3BB: "lambda", 0x3BC: "mu", 0x3BE: "xi", 0x3C0: "pi", 0x3C3: "sigma", 0x3C4: "tau"},
    **{0x3C6: "varphi", 0x3C9: "omega"},
}
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "→": r"$\to$",
    "θ": r"$\theta$",
    "ε": r"$\varepsilon$",
    "∇": r"$\nabla$",
    "‖": r"$\|$",
    "₂": r"$_2$",
    "²": r"$^2$",
    "³": r"$^3$",
    "±": r"$\pm$",
    "½": r"$\frac{1}{2}$",
    "√": r"$\surd$",
    "ᵀ": r"$^\top$",
    "·": r"$\cdot$",
    "∂": r"$\partial$",
    "⊗": r"$\otimes$",
    "ℓ": r"$\ell$",
    "…": r"\dots{}",
    **{chr(code): rf"$\{name}$" for code, name in _GREEK.items()},
    "\N{COMBINING MACRON}": "",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "",
}


def latex_text(text: object) -> str:
    """Return a text as LaTeX sets it: special characters escaped, letters and signs outside of ASCII as mathematics."""
    accented = re.sub("(.)\N{COMBINING TILDE}", "\0\\1\0", str(text))  # the letter between two marks
    pieces = accented.split("\0")
    return "".join(
        rf"$\tilde{{{piece}}}$" if number % 2 else "".join(_LATEX.get(c, c) for c in piece)
        for number, piece in enumerate(pieces)
    )


def _metadata(kind: str, text: str) -> dict[str, str | None]:
    """Caption and small print, and nothing that differs from one run to the next."""
    if kind == "pdf":
        return {"Subject": text, "CreationDate": None, "ModDate": None}
    return {"Description": text, "Date": None} if kind == "svg" else {"Description": text, "Software": None}


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    draft = path.with_name(draft_name())
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
