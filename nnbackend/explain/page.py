"""An explanation as one self-contained HTML page, with formulas in MathML."""

from __future__ import annotations

import html
import re

from nnbackend.explain.explanation import Block, Explanation, Step
from nnbackend.explain.lines import Line, number

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --box: #f4f6f8; --note: #5a6470; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #1b1d20; --box: #26292d; --note: #a8b0b8; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h3 { font-size: 1rem; margin: .8rem 0 .3rem; }
section > h2 { font-size: 1.2rem; border-bottom: 2px solid #0072b2; padding-bottom: .2rem; }
section.back > h2 { border-color: #d55e00; } section.update > h2 { border-color: #009e73; }
math { font-size: 1.08em; } .note { color: var(--note); font-size: .9rem; margin: .2rem 0; }
.lines { background: var(--box); border-radius: 4px; padding: .4rem .8rem; overflow-x: auto; }
.lines td { padding: .1rem .5rem .1rem 0; white-space: nowrap; vertical-align: baseline; }
.lines td:last-child { white-space: normal; }
.lines { font-variant-numeric: tabular-nums; } .value { font-weight: 600; }
svg { max-width: 100%; height: auto; } figure { margin: 1rem 0; background: white; }
"""
KINDS = {1: "", 2: "", 3: "back", 4: "back", 5: "update"}
# w^2_1,3: a letter with a layer above and a unit below; either may be missing. The layer may be
# l-1, l or l+1, the unit j or k.
INDEXED = re.compile(
    r"(?P<letter>[A-Za-zφδ])(?:\^(?P<layer>\d+|l(?:[-+]1)?|L))?"
    r"(?:_(?P<unit>(?:\d+|[jk])(?:,(?:\d+|[jk]))?))?(?![\w(])"
)
LONG = 130  # characters of a line
SUM = re.compile(r"Σ_k")


def to_html(explanation: Explanation, diagram: str = "") -> str:
    """Return the explanation as a page. diagram: the text of an SVG picture, shown first."""
    title = html.escape(explanation.title)
    # The XML header before <svg> is not valid inside HTML.
    picture = diagram[diagram.index("<svg") :] if "<svg" in diagram else ""
    return "\n".join([
        f'<!doctype html><html lang="{explanation.lang}"><head><meta charset="utf-8">',
        f'<title>{title}</title><meta name="viewport" content="width=device-width">',
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>",
        *(f'<p class="note">{_math(note)}</p>' for note in explanation.notes),
        f"<figure>{picture}</figure>" if picture else "",
        *map(_step, explanation.steps),
        f"<p><b>{html.escape(explanation.conclusion)}</b></p></body></html>\n",
    ])  # fmt: skip


def _step(step: Step) -> str:
    notes = "".join(f'<p class="note">{_math(note)}</p>' for note in step.notes)
    return (
        f'<section class="{KINDS[step.number]}"><h2>{step.label}. {_math(step.title)}</h2>'
        f"{notes}{''.join(map(_block, step.blocks))}</section>"
    )


def _block(block: Block) -> str:
    notes = "".join(f'<p class="note">{_math(note)}</p>' for note in block.notes)
    rows = "".join(map(_row, block.lines))
    title = _math(block.title)
    return f'<h3>{title}</h3>{notes}<div class="lines"><table>{rows}</table></div>'


def _row(line: Line) -> str:
    parts = [_math(part) for part in line.parts if part]
    note = f' <span class="note">({_math(line.note)})</span>' if line.note else ""
    parts.append(f'<span class="value">{number(line.value)}</span>{note}')
    equals = "<br>= " if len(line.text) > LONG else " = "  # a long line in several
    return f"<tr><td>{_math(line.name)}</td><td>{line.sign}</td><td>{equals.join(parts)}</td></tr>"


def _math(text: str) -> str:
    """Return text with its indexed symbols, such as w^2_1,3, as MathML."""
    text = SUM.sub("<math><munder><mo>Σ</mo><mi>k</mi></munder></math>", html.escape(text, False))
    return INDEXED.sub(_symbol, text)


def _symbol(match: re.Match[str]) -> str:
    letter, layer, unit = match["letter"], match["layer"], match["unit"]
    if layer is None and unit is None:
        return match[0]
    parts = [f"<mi>{letter}</mi>"]
    parts += [] if unit is None else [f"<mrow>{_index(unit)}</mrow>"]
    parts += [] if layer is None else [f"<mrow>{_index(layer)}</mrow>"]
    tag = "msub" if layer is None else "msup" if unit is None else "msubsup"
    return f"<math><{tag}>{''.join(parts)}</{tag}></math>"


def _index(text: str) -> str:
    """Return an index such as l-1 or 1,3 with its letters, numbers and signs as such."""
    found = []
    for part in re.findall(r"\d+|.", text):
        tag = "mn" if part.isdigit() else "mi" if part.isalpha() else "mo"
        found.append(f"<{tag}>{part}</{tag}>")
    return "".join(found)
