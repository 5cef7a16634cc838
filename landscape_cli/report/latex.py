r"""The thesis's figures and tables as one LaTeX file that a paper takes in with ``\\input``."""

from __future__ import annotations

from pathlib import Path

from landscape_cli.plotting.output import latex_text
from landscape_cli.report.gather import Entry, Part, Report

HEAD = r"""% Every figure and table of the thesis that was drawn, with its number there. To use it in a paper:
%   \usepackage{graphicx,booktabs%(packages)s}
%   \newcommand{\landscapeoutputs}{path/to/outputs}   % by default %(above)s
%   \input{path/to/thesis}
\providecommand{\landscapeoutputs}{%(above)s}
"""
MOST_FLOATS = 12  # that wait for a page: LaTeX takes 18, and a paper may have some of its own


def latex(report: Report, output: Path, above: str = "..") -> str:
    """Return the file: one float a figure or table, those of each chapter after another.

    Parameters
    ----------
    above
        The output folder as seen from the file's own.
    """
    russian = any(_cyrillic(_caption(report, entry)) for entry in report.entries)
    head = HEAD.replace("%(packages)s", "} \\usepackage[T2A]{fontenc" if russian else "")
    lines = [head.replace("%(above)s", above)]
    floats = 0
    for entry in report.entries:
        for part in entry.parts:
            if part.piece:
                lines += ["", *_float(report, entry, part, output)]
                floats += 1
                lines += [r"\clearpage"] * (floats % MOST_FLOATS == 0)
            else:
                why = "; ".join(part.reasons) or "not drawn"
                lines += ["", *(f"% {line}" for line in f"{entry.item.name}, {part.name}: {why}".splitlines())]
    return "\n".join([*lines, ""])


def _float(report: Report, entry: Entry, part: Part, output: Path) -> list[str]:
    kind, number = entry.item.name.split()
    several = f" {part.title}." if len(entry.parts) > 1 else ""
    small_print = f" {part.record.note}" if part.record else ""
    caption = latex_text(f"{kind.capitalize()} {number} of the thesis. {_caption(report, entry)}{several}{small_print}")
    label = f"{'fig' if kind == 'figure' else 'tab'}:{number}:{part.name}"
    suffix = ".pdf" if kind == "figure" else ".tex"
    path = next((one for one in part.piece.files if one.suffix == suffix), None)
    path = path or next((one for one in part.piece.files if one.suffix == ".png"), None)
    if path is None:
        return [f"% {entry.item.name}, {part.name}: neither PDF nor PNG was written"]
    place = rf"\landscapeoutputs/{path.relative_to(output).with_suffix('').as_posix()}{path.suffix}"
    if kind == "figure":
        content = [rf"\includegraphics[width=\linewidth,height=.7\textheight,keepaspectratio]{{{place}}}"]
        return [
            r"\begin{figure}[!htbp]",
            r"\centering",
            *content,
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}",
            r"\end{figure}",
        ]
    rows = _tabular(path.read_text(encoding="utf-8"))
    fitted = [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", f"{rows}%", "}"]
    return [
        r"\begin{table}[!htbp]",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        *fitted,
        r"\end{table}",
    ]


def _tabular(text: str) -> str:
    """The rows of a table's file, without its float and its own caption."""
    begin, end = r"\begin{tabular}", r"\end{tabular}"
    return text[text.index(begin) : text.index(end) + len(end)]


def _caption(report: Report, entry: Entry) -> str:
    return entry.item.russian if report.russian and entry.item.russian else entry.item.caption


def _cyrillic(text: str) -> bool:
    return any("Ѐ" <= letter <= "ӿ" for letter in text)
