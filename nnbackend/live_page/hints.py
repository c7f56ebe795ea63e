"""Distributions of z, a and delta in each layer, and hints on what hinders learning.

A hint is a code with its numbers; the page has the sentences in each language.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.explain.hints import (
    Hint,
    Signals,
    of_answers,
    of_curves,
    of_network,
    of_poor,
    some_rows,
)
from nnbackend.live_page.explaining import inputs_of
from nnbackend.live_page.phases import Phase
from nnbackend.live_page.sources import Source

BINS = 24
FIRST_STEPS = 50  # after which one class for all rows is a fault


def signals_of(phase: Phase, source: Source) -> Signals:
    """Return the signals of some training rows at the current weights."""
    rows = np.asarray(phase.data.rows)[some_rows(len(phase.data.rows))]
    is_classes = phase.data.preprocessing.classes is not None
    return Signals.of(phase.net, inputs_of(phase, source, rows), phase.data.y[rows], is_classes)


def histograms(sample: Signals) -> list[dict[str, Any]]:
    """Return for each layer the counts of z, a and delta between their limits."""
    return [
        {name: _histogram(values[i]) for name, values in
         (("z", sample.z), ("a", sample.a), ("delta", sample.delta))}
        for i in range(len(sample.z))
    ]  # fmt: skip


def _histogram(values: np.ndarray) -> dict[str, Any]:
    flat = values[np.isfinite(values)].astype(np.float64)
    if not flat.size:
        return {"low": 0.0, "high": 0.0, "counts": [0] * BINS}
    low, high = float(flat.min()), float(flat.max())
    largest = max(abs(low), abs(high))
    # NumPy refuses bins that rounding leaves without a width.
    is_wide = high - low > max(1e-9 * largest, 1e-300)
    room = 0.0 if is_wide else 0.5 * (largest if largest > 1e-300 else 1.0)
    counts, _ = np.histogram(flat, BINS, (low - room, high + room))
    return {"low": low - room, "high": high + room, "counts": counts.tolist()}


def hints(
    phase: Phase, sample: Signals, curve: Sequence[dict[str, float]], score: float
) -> list[Hint]:
    """Return what hinders learning, the most urgent first; score: that of the training rows."""
    found = of_network(phase.net, sample)
    losses = [row["train_loss"] for row in curve]
    seen = of_curves(
        [row["epoch"] for row in curve],
        losses,
        [row["valid_loss"] for row in curve if "valid_loss" in row],
    )
    found += seen or of_poor(losses, score, sample.constant)
    return found + (of_answers(sample) if phase.step > FIRST_STEPS else [])
