"""The page with all theorems, from :mod:`experiments.beyond.statements`; a hook of MkDocs."""

from __future__ import annotations

from typing import Any

from generate import as_cell, readable

THEOREMS = """---
hide: [toc]
---

# All theorems on one page

Theorems 4 to 30 as `landscape run experiment=theorems` takes them; it also searches for violations among random,
trained and adversarial networks. Formulas and reasons are on the pages of [chapter 1](chapter1.md),
[chapter 2](chapter2.md) and [chapter 3](chapter3.md).

| | as printed | what holds |
|---|---|---|"""

COUNTER = """
## Counterexamples

Each meets every printed hypothesis. The numbers are computed when this site is built, by the functions in
`landscape_cli.bounds` and from the exact Hessian.

| theorem | network | exact | printed bound | corrected bound |
|---|---|---|---|---|"""

_QUANTITIES = {
    "hessian": "‖H‖",
    "gauss_newton": "‖H_O‖",
    "network": "‖∂²Z‖",
    "layer_norm_jacobian": "‖J_LN‖",
    "layer_norm_hessian": "‖H_LN‖",
}


def theorems() -> str:
    """The page that states each theorem in a line, and shows its counterexamples with the numbers as computed now."""
    from experiments.beyond.statements import COUNTEREXAMPLES, SEQUENCES, STATEMENTS

    lines = [THEOREMS]
    for one in STATEMENTS:
        misprint = "; misprinted, as the derivation shows" if one.misprinted else ""
        lines.append(f"| {one.kind}\u00a0{one.theorem} | {as_cell(one.text)}{misprint} | {as_cell(one.corrected)} |")
    lines.append(COUNTER)
    for one in COUNTEREXAMPLES:
        found = one.values()
        text = one.text.rpartition(": ")[0]
        numbers = " | ".join(f"{found[name]:.4g}" for name in ("measured", "printed", "corrected"))
        lines.append(f"| {one.theorem}, {_QUANTITIES[one.quantity]} | {as_cell(text)} | {numbers} |")
    lines += ["", "Of the theorems about limits, sequences that meet the hypotheses:", ""]
    lines += [f"- Theorem {name}: {readable(text)}" for name, text in SEQUENCES.items()]
    return "\n".join([*lines, ""])


def on_files(files: Any, config: Any) -> Any:
    """Add the page."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "mathematics/theorems.md", content=theorems()))
    return files
