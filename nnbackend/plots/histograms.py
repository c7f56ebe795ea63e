"""Activations and gradients of every layer over the epochs: dead units, vanishing gradients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.model.model import Model
from nnbackend.network.printing import describe
from nnbackend.plots.figures import INK, VALID, new_figure, save
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import Row
from nnbackend.training.preparation import encode_targets

if TYPE_CHECKING:
    from nnbackend.training.run import Run

BINS = 60
TINY = 1e-12  # a delta below counts as 0
ROWS = 256  # rows recorded each epoch at most


@dataclass(frozen=True)
class Signals:
    """One layer at one moment: its activations and deltas, flat, and how many units are dead."""

    a: np.ndarray
    delta: np.ndarray
    dead: float


class SignalRecorder(Callback):
    """Records every layer's activations and deltas on fixed rows: at first, and after each epoch.

    x: raw rows; y: their targets, classes as codes from 0. A unit is dead when its delta is 0 on
    all of the rows.
    """

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = np.asarray(x)[:ROWS], np.asarray(y)[:ROWS]
        self.epochs: list[int] = []
        self.layers: list[list[Signals]] = []  # by moment, then by layer
        self.names: list[str] = []

    def on_train_begin(self, trainer: Run) -> None:
        self._take(trainer)

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        self._take(trainer)
        return None

    def _take(self, run: Run) -> None:
        net, known, n = run.net, run.data.preprocessing, len(self.x)
        x = net.backend.to_device(Model.from_parts(net, known).inputs(self.x))
        host, y = net.backend.to_host, encode_targets(net, self.y, n, known)
        trace, gradient = net.trace(x), net.backprop(x, y)
        found = []
        for a, delta in zip(trace.a, gradient.deltas, strict=True):
            d = host(delta) * n  # of each sample, not of their mean
            dead = float((np.abs(d) < TINY).all(axis=0).mean())
            found.append(Signals(host(a).ravel(), d.ravel(), dead))
        self.epochs.append(run.state.epoch)
        self.layers.append(found)
        self.names = [describe(layer) for layer in net.trainable_layers]


def signal_histograms(recorder: SignalRecorder, path: str | os.PathLike[str]) -> None:
    """Draw the distribution of a and of |delta| of each layer (a row) at every epoch.

    Darker means more values. Zeros are frequent with ReLU and would hide the rest, so their share
    is a number.

    Raises: ArgumentError if nothing was recorded.
    """
    if not recorder.layers:
        raise ArgumentError(
            "The recorder must have data. Received: none. Pass it to train's callbacks."
        )
    n = len(recorder.names)
    figure = new_figure(9.0, 2.1 * n + 0.7)
    grid = figure.subplots(n, 2, squeeze=False, sharex=True)
    first, last = recorder.epochs[0], recorder.epochs[-1]
    sizes = [np.log10(np.maximum(np.abs(s.delta), TINY)) for m in recorder.layers for s in m]
    floor = min(float(np.min(v[v > -11.9], initial=-1.0)) for v in sizes)
    for level, (left, right) in enumerate(grid):
        moments = [moment[level] for moment in recorder.layers]
        values = [m.a[m.a != 0.0] for m in moments]
        low = min(float(v.min(initial=0.0)) for v in values)
        high = max(float(v.max(initial=0.0)) for v in values)
        _draw_spread(left, values, (low, high if high > low else low + 1.0), first, last)
        left.set_ylabel(f"layer {level + 2}\n{recorder.names[level]}", fontsize=9)
        last_a = moments[-1].a
        left.set_title(
            f"activations a; at the end {np.mean(last_a == 0.0):.0%} are 0, "
            f"{moments[-1].dead:.0%} of units dead",
            fontsize=9,
            loc="left",
        )
        logs = [np.log10(np.abs(m.delta[np.abs(m.delta) >= TINY])) for m in moments]
        _draw_spread(right, logs, (max(floor, -8.0), 1.0), first, last)
        middle = [np.median(v) if len(v) else np.nan for v in logs]
        right.plot(recorder.epochs, middle, color=VALID, linewidth=1.6)
        at_end = "all 0" if np.isnan(middle[-1]) else f"{10 ** middle[-1]:.1e}"
        right.set_title(
            f"log10 |δ|; the line is the median, at the end {at_end}", fontsize=9, loc="left"
        )
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    save(figure, path)


def _draw_spread(
    axes: Any, values: Sequence[np.ndarray], limits: tuple[float, float], first: int, last: int
) -> None:
    """Draw one histogram a column; the square root keeps rare values visible."""
    counts = np.array([np.histogram(v, BINS, range=limits)[0] for v in values], dtype=float).T
    shares = np.sqrt(counts / np.maximum(counts.max(axis=0, keepdims=True), 1.0))
    extent = (first - 0.5, last + 0.5, *limits)
    axes.imshow(shares, origin="lower", aspect="auto", cmap="Blues", extent=extent, vmin=0.0)
    axes.tick_params(colors=INK, labelsize=8)
