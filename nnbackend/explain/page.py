"""An explanation as one self-contained HTML page."""

from __future__ import annotations

import html
import re

from nnbackend.explain.explanation import Explanation, Step
from nnbackend.explain.text import numbers

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { border-bottom: 2px solid #0072b2; padding-bottom: .2rem; }
section { border-left: 4px solid #56b4e9; margin: 1.2rem 0; padding: .1rem 1rem; }
section.back { border-color: #d55e00; }
.formula { font: italic 1.1rem Georgia, serif; margin: .3rem 0; }
table { border-collapse: collapse; } td { padding: .15rem .8rem .15rem 0; vertical-align: top; }
td + td, .example { font-family: ui-monospace, monospace; font-size: .85rem; }
.example { background: #f4f6f8; padding: .5rem .8rem; white-space: pre-wrap; }
svg { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { body { background: #1b1d20; color: #e6e6e6; }
  .example { background: #2a2d31; } figure { background: white; } }
"""


def to_html(explanation: Explanation, diagram: str = "") -> str:
    """Return the explanation as a page. diagram: the text of an SVG picture, shown first."""
    title = html.escape(explanation.title)
    # The XML header before <svg> is not valid inside HTML.
    picture = diagram[diagram.index("<svg") :] if "<svg" in diagram else ""
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>',
        f"<body><h1>{title}</h1>{f'<figure>{picture}</figure>' if picture else ''}",
        "<h2>Feed forward</h2>", *map(_section, explanation.forward),
        "<h2>Loss</h2>", _section(explanation.loss),
        "<h2>Backpropagation</h2>", *(_section(step, "back") for step in explanation.backward),
        "</body></html>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _section(step: Step, kind: str = "") -> str:
    formulas = "".join(f'<p class="formula">{_indexed(f)}</p>' for f in step.formulas)
    rows = "".join(
        f"<tr><td>{_indexed(name)}</td><td>{html.escape(numbers(values))}</td></tr>"
        for name, values in step.values
    )
    return (
        f'<section class="{kind}"><h3>{html.escape(step.title)}</h3>{formulas}'
        f'<table>{rows}</table><p class="example">{_indexed(step.example)}</p></section>'
    )


def _indexed(text: str) -> str:
    """Write [l] as a raised layer number and _k as a lowered unit."""
    text = re.sub(r"\[(\d+)\]", r"<sup>\1</sup>", html.escape(text, quote=False))
    return re.sub(r"_(\d+(?:,\d+)?)", r"<sub>\1</sub>", text)
