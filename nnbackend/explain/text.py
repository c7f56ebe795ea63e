"""An explanation as plain text for the terminal."""

from __future__ import annotations

import re
import textwrap

from nnbackend.explain.explanation import Block, Explanation
from nnbackend.explain.lines import Line, number

WIDTH = 100
KEPT = "\N{NO-BREAK SPACE}"


def to_text(explanation: Explanation) -> str:
    """Return the explanation as plain text."""
    lines = [explanation.title, "=" * len(explanation.title)]
    for note in explanation.notes:
        lines += ["", *textwrap.wrap(note, WIDTH, break_on_hyphens=False)]
    for step in explanation.steps:
        lines += ["", "", f"{step.label}. {step.title}"]
        for note in step.notes:
            lines += textwrap.wrap(note, WIDTH, initial_indent="   ", subsequent_indent="   ",
                                   break_on_hyphens=False)  # fmt: skip
        for block in step.blocks:
            lines += ["", *_block(block)]
    return "\n".join([*lines, "", explanation.conclusion])


def _block(block: Block) -> list[str]:
    notes = [
        line
        for note in block.notes
        for line in textwrap.wrap(note, WIDTH, initial_indent="  ", subsequent_indent="  ")
    ]
    return [block.title, *notes, *(text for line in block.lines for text in _line(line))]


def _line(line: Line) -> list[str]:
    """Return the text of a line; a long one has a line for each part and for the value."""
    if len(line.text) + 4 <= WIDTH or not line.parts:
        return [f"    {line.text}"]
    note = f"   ({line.note})" if line.note else ""
    parts = [*filter(None, line.parts), number(line.value) + note]
    space = " " * (len(line.name) + 1)
    found = []
    for i, part in enumerate(parts):
        start = f"    {line.name} {line.sign} " if i == 0 else f"    {space}= "
        # Break only at signs: a product stays in one line.
        part = re.sub(r"(?<![+/=·-]) (?![+/=·-])", KEPT, part)
        found += textwrap.wrap(
            part, WIDTH, initial_indent=start, subsequent_indent=" " * len(start),
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
    return [line.replace(KEPT, " ") for line in found]
