"""Formulas of the pages as MathML, made when the site is built: readers need no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

# Signs that latex2mathml takes for identifiers: it would set them in italics with wide spaces.
PRIME = ("<msup><mi>&#x003C6;</mi><mi>&#x02032;</mi></msup>",
         "<msup><mi>&#x003C6;</mi><mo>&#x02032;</mo></msup>")  # fmt: skip


def formula(tex: str, display: str = "inline") -> str:
    """Return a formula of TeX as a MathML element, with its TeX for readers who copy it."""
    made = convert(tex, display=display).replace(*PRIME)
    text = nodes.unescape(tex).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return made.replace("<math ", f'<math alttext="{text}" ', 1)


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(formula(node.astext()))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    translator.body.append(f'<div class="formula">{formula(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer; conf.py selects it by `html_math_renderer`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
