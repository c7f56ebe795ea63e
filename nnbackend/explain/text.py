"""An explanation as plain text for the terminal."""

from __future__ import annotations

import numpy as np

from nnbackend.explain.explanation import Explanation, Step

SHOWN = 12  # numbers of a vector


def to_text(explanation: Explanation) -> str:
    """Return the explanation as plain text."""
    lines = [explanation.title, "=" * len(explanation.title)]
    for heading, steps in (
        ("FEED FORWARD", explanation.forward),
        ("LOSS", (explanation.loss,)),
        ("BACKPROPAGATION", explanation.backward),
    ):
        lines += ["", heading]
        for step in steps:
            lines += ["", *_step(step)]
    return "\n".join(lines)


def numbers(values: np.ndarray) -> str:
    """Return the first numbers of a vector and the count of the others; -0 is shown as 0."""
    text = "  ".join(f"{v + 0.0:.4g}" for v in values[:SHOWN])
    return text if len(values) <= SHOWN else f"{text}  ... ({len(values) - SHOWN} more)"


def _step(step: Step) -> list[str]:
    width = max(len(name) for name, _ in step.values)
    return [
        step.title,
        *(f"    {formula}" for formula in step.formulas),
        *(f"  {name:<{width}} = {numbers(values)}" for name, values in step.values),
        *(f"  > {line}" for line in step.example.split("\n")),
    ]
