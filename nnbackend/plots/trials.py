"""The trials of a search: value by trial with the best so far, and value by setting."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.plots.figures import FAINT, INK, TRAIN, VALID, bare, new_figure, save

GREY = "#9a9a9a"
COLUMNS = 3  # of panels of settings
WIDE_RANGE = 20.0  # values above 0 whose range has this ratio are drawn on a logarithmic scale
FEW = 6  # different numbers are drawn side by side
NARROW = 30.0  # ratio of the ends of a logarithmic axis, below which 2 and 5 are marked too
SHIFT = 0.22  # spread of the points of a category
MARKS: tuple[tuple[tuple[str, ...], str, dict[str, Any]], ...] = (
    (("pruned", "out of time"), "pruned", {"marker": "x", "color": GREY, "markersize": 5}),
    (("diverged", "failed"), "failed", {"marker": "|", "color": VALID, "markersize": 9}),
    (
        ("complete",),
        "complete",
        {"marker": "o", "color": TRAIN, "markersize": 5.5, "markeredgecolor": "white"},
    ),
)
BEST: dict[str, Any] = {
    "marker": "*", "markersize": 14, "color": VALID, "markeredgecolor": "white", "zorder": 5,
}  # fmt: skip
OUTLIER = 3.0  # values worse than the median by this many (median - best) are cut off


def trials(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    metric: str,
    is_maximised: bool,
    settings: Sequence[str],
    logarithmic: Collection[str] = (),
) -> None:
    """Draw the trials of a search into a file: complete ones as dots, pruned ones as crosses.

    rows: with the columns trial, state, value and the settings, as `TuneResult.trials`.
    settings: those that get a panel of their own.  logarithmic: of them, those with such an axis.
    Raises: ArgumentError unless a trial is complete.
    """
    done = [row for row in rows if row["state"] == "complete"]
    if not done:
        raise ArgumentError("The trials must have a complete one. Received: none.")
    best = (max if is_maximised else min)(done, key=lambda row: row["value"])
    n_rows = -(-len(settings) // COLUMNS)
    figure = new_figure(10.5, 3.6 + 2.6 * n_rows)
    grid = figure.add_gridspec(1 + n_rows, COLUMNS, height_ratios=[1.3, *[1.0] * n_rows])
    scale = _Scale([row["value"] for row in done], is_maximised)
    _draw_course(figure.add_subplot(grid[0, :]), rows, best, metric, is_maximised, scale)
    for i, name in enumerate(settings):
        axes = figure.add_subplot(grid[1 + i // COLUMNS, i % COLUMNS])
        _draw_setting(axes, name, rows, best, name in logarithmic, scale)
        if i % COLUMNS == 0:
            axes.set_ylabel(metric)
    save(figure, path)


class _Scale:
    """The axis of the values: logarithmic for a wide range, and without the worst outliers."""

    def __init__(self, values: Sequence[float], is_maximised: bool) -> None:
        array = np.array(values)
        low, high = float(array.min()), float(array.max())
        self.is_log = low > 0 and high / low > WIDE_RANGE
        median = float(np.median(array))
        if is_maximised:
            low = max(low, median - OUTLIER * (high - median))
        elif not self.is_log:
            high = min(high, median + OUTLIER * (median - low))
        if low == high:
            low, high = low - 0.5, high + 0.5
        self.is_maximised = is_maximised
        margin = 0.06 * (high - low)
        self.limits = (low / 1.2, high * 1.2) if self.is_log else (low - margin, high + margin)

    def inside(self, value: float | None) -> float:
        """Return the value, or the limit that it is beyond; without a value the worst limit."""
        if value is None:
            return self.limits[0 if self.is_maximised else 1]
        return min(max(value, self.limits[0]), self.limits[1])

    def apply(self, axes: Any) -> None:
        """Set the axis of values."""
        if self.is_log:
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis, self.limits[1] / self.limits[0])
        axes.set_ylim(*self.limits)


def _draw_course(
    axes: Any, rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any], metric: str,
    is_maximised: bool, scale: _Scale,
) -> None:  # fmt: skip
    """Draw the value of each trial, and the best so far."""
    _dots(axes, [row["trial"] for row in rows], rows, scale)
    done = [row for row in rows if row["state"] == "complete"]
    so_far = (np.maximum if is_maximised else np.minimum).accumulate([r["value"] for r in done])
    axes.step(
        [*(row["trial"] for row in done), rows[-1]["trial"]], [*so_far, so_far[-1]],
        where="post", color=INK, linewidth=1.4, label="best so far",
    )  # fmt: skip
    axes.plot(best["trial"], best["value"], **BEST)
    scale.apply(axes)
    axes.set_title(
        f"{metric} {best['value']:.4g} is the best, of trial {best['trial']}",
        fontsize=11, loc="left", pad=10,
    )  # fmt: skip
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    _finish(axes)


def _draw_setting(
    axes: Any, name: str, rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any],
    is_logarithmic: bool, scale: _Scale,
) -> None:  # fmt: skip
    """Draw the value over a setting: numbers on an axis, other values side by side."""
    known = [row for row in rows if row.get(name) is not None]
    values = [row[name] for row in known]
    different = set(values)
    is_number = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in different)
    if is_number and len(different) > FEW:
        places = {row["trial"]: float(row[name]) for row in known}
        if is_logarithmic:
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis, max(values) / min(values))
    else:
        order = sorted(different, key=None if is_number else str)
        spread = np.random.Generator(np.random.Philox(0)).uniform(-SHIFT, SHIFT, len(known))
        places = {
            row["trial"]: order.index(row[name]) + float(shift)
            for row, shift in zip(known, spread, strict=True)
        }
        axes.set_xticks(range(len(order)), list(map(str, order)))
        axes.set_xlim(-0.6, len(order) - 0.4)
    _dots(axes, [places[row["trial"]] for row in known], known, scale)
    if best["trial"] in places:
        axes.plot(places[best["trial"]], best["value"], **BEST)
    scale.apply(axes)
    axes.set_xlabel(name)
    _finish(axes)


def _plain_ticks(axis: Any, ratio: float) -> None:
    """Mark a logarithmic axis with plain numbers, and few of them."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < NARROW else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _dots(
    axes: Any, places: Sequence[float], rows: Sequence[Mapping[str, Any]], scale: _Scale
) -> None:
    """Draw the values of trials by their state; without a value at the worst edge."""
    for states, label, look in MARKS:
        found = [
            (place, scale.inside(row["value"]))
            for place, row in zip(places, rows, strict=True)
            if row["state"] in states
        ]
        if found:
            axes.plot(*zip(*found, strict=True), label=label, linestyle="", clip_on=False, **look)


def _finish(axes: Any) -> None:
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    bare(axes)
