"""Distributions of z, a and delta in each layer, and hints on what hinders learning.

A hint is a code with its numbers; the page has the sentences in each language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.live_page.explaining import inputs_of
from nnbackend.live_page.phases import Phase
from nnbackend.live_page.sources import Source
from nnbackend.network.layers import Dense

SAMPLE, BINS = 256, 24
FLAT = 0.01  # a slope below it counts as saturated
SATURATING, CAN_DIE = ("sigmoid", "tanh"), ("relu",)
VANISHING, EXPLODING = 1e-3, 1e3  # ratio of the means of |delta|, first to last layer
LEARNT = 1e-3  # median of |delta| at the output, below which slow learning is no fault
OVERFIT = 1.3  # validation loss over its least value
Hint = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """z, a, delta and the slopes of some training rows, by layer: (rows, units)."""

    z: list[np.ndarray]
    a: list[np.ndarray]
    delta: list[np.ndarray]
    slope: list[np.ndarray | None]
    out_codes: np.ndarray | None

    @classmethod
    def of(cls, phase: Phase, source: Source) -> Sample:
        """Return the sample at the current weights, from evenly spaced training rows."""
        net, rows = phase.net, np.asarray(phase.data.rows)
        rows = rows[:: -(-len(rows) // SAMPLE)]
        x = inputs_of(phase, source, rows)
        trace, gradient = net.trace(x), net.backprop(x, phase.data.y[rows])
        host = net.backend.to_host
        z, a = ([host(v) for v in part] for part in (trace.z, trace.a))
        delta = [len(rows) * host(d) for d in gradient.deltas]  # of each row, not of the mean
        slopes = [
            np.asarray(layer.activation.slope(z[i], a[i], np)) if isinstance(layer, Dense) else None
            for i, layer in enumerate(net.trainable_layers)
        ]
        is_classes = phase.data.preprocessing.classes is not None and net.n_out > 1
        return cls(z, a, delta, slopes, a[-1].argmax(axis=1) if is_classes else None)


def histograms(sample: Sample) -> list[dict[str, Any]]:
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
    room = 0.0 if high > low else 0.5 * (abs(low) or 1.0)
    counts, _ = np.histogram(flat, BINS, (low - room, high + room))
    return {"low": low - room, "high": high + room, "counts": counts.tolist()}


def hints(phase: Phase, sample: Sample, curve: list[dict[str, float]]) -> list[Hint]:
    """Return what hinders learning, the most urgent first."""
    found: list[Hint] = []
    layers = phase.net.trainable_layers
    is_learnt = float(np.median(np.abs(sample.delta[-1]))) < LEARNT
    for i, layer in enumerate(layers[:-1]):
        slope = sample.slope[i]
        if not isinstance(layer, Dense) or slope is None:
            continue
        name = layer.activation.name
        if name in SATURATING and not is_learnt:
            share = float((np.abs(slope) < FLAT).mean())
            if share > 0.5:
                found.append({"code": "saturated", "layer": i + 2, "share": share})
        dead = int((sample.a[i] == 0.0).all(axis=0).sum()) if name in CAN_DIE else 0
        if dead:
            found.append({"code": "dead", "layer": i + 2, "count": dead, "of": layer.n_out})
        if name == "step":
            found.append({"code": "step", "layer": i + 2})
    found += [] if is_learnt else _gradients(sample)
    found += _weights(phase) + _curve(curve)
    if sample.out_codes is not None and phase.step > 50 and len(set(sample.out_codes)) == 1:
        found.append({"code": "majority"})
    return found


def _gradients(sample: Sample) -> list[Hint]:
    """Return a hint if delta vanishes or explodes on its way back."""
    if len(sample.delta) < 3:
        return []
    # Means, as half of the values behind ReLU are 0.
    sizes = [float(np.abs(d).mean()) for d in sample.delta]
    if not sizes[-1] or not np.isfinite(sizes).all():
        return []
    ratio = sizes[0] / sizes[-1]
    if ratio < VANISHING:
        return [{"code": "vanishing", "ratio": ratio}]
    return [{"code": "exploding", "ratio": ratio}] if ratio > EXPLODING else []


def _weights(phase: Phase) -> list[Hint]:
    """Return a hint if all units of a hidden layer are the same."""
    weights, _ = phase.net.get_parameters()
    for i, W in enumerate(weights[:-1]):
        if W.shape[1] > 1 and np.ptp(W, axis=1).max() == 0.0:
            return [{"code": "symmetric", "layer": i + 2}]
    return []


def _curve(curve: list[dict[str, float]]) -> list[Hint]:
    """Return hints on the course of the losses."""
    train = [row["train_loss"] for row in curve]
    if len(train) < 10:
        return []
    recent, before = np.mean(train[-5:]), np.mean(train[-10:-5])
    if recent > 1.2 * before and recent > 1.2 * min(train) and recent > 0.05 * train[0]:
        return [{"code": "rising"}]
    valid = [row["valid_loss"] for row in curve if "valid_loss" in row]
    if len(valid) > 20:
        best = valid.index(min(valid))
        is_worse = np.mean(valid[-5:]) > OVERFIT * valid[best] > 0 and best < len(valid) - 10
        if is_worse and recent <= before * 1.02:
            return [{"code": "overfit", "epoch": curve[best]["epoch"]}]
    if len(train) >= 30 and train[-30] - recent < 0.005 * abs(train[0]) and recent > 0.8 * train[0]:
        return [{"code": "plateau"}]
    return []
