"""The picture of partial dependence: a panel for each column, with curves of single rows behind."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.model.dependence import Dependence
from nnbackend.plots.figures import PALETTE, TRAIN, VALID, as_date_axis, bare, new_figure, save

MOST = 12  # panels
MOST_LINES = 6  # outputs
MOST_WITH_CURVES = 3  # outputs, with which single rows are drawn
SQUARE = 4  # panels, two in a row; of other numbers three
LONGEST = 18  # characters of a level
WIDEST = 44  # characters of all levels side by side
SHOWN = 0.02, 0.98  # quantiles of the curves inside the panels
FEW = 12  # points, each of which is marked
THIN = "#8a8a8a"


def dependence_plot(found: Mapping[str, Dependence], path: str | os.PathLike[str]) -> None:
    """Draw the mean prediction over the values of each column, and the curves of single rows.

    Numbers and dates are lines, with their deciles as ticks at the lower edge; levels are dots. Of
    many outputs those six are drawn that change most; of more than three, no single rows.
    found: the result of `partial_dependence`, at most 12 columns.
    Raises: ArgumentError for none or more columns.
    """
    if not 1 <= len(found) <= MOST:
        raise ArgumentError(
            f"The picture has panels for 1 to {MOST} columns. Received: {len(found)}. Choose some."
        )
    n_wide = min(len(found), 2 if len(found) == SQUARE else 3)
    n_high = math.ceil(len(found) / n_wide)
    figure = new_figure(1.0 + 3.4 * n_wide, 0.9 + 2.9 * n_high)
    panels = figure.subplots(n_high, n_wide, sharey=True, squeeze=False).ravel()
    first = next(iter(found.values()))
    lines = _drawn(found)
    for axes, each in zip(panels, found.values(), strict=False):
        _draw_panel(axes, each, lines)
    panels[0].set_ylim(*_limits(found, list(lines)))
    for i, axes in enumerate(panels):
        axes.set_visible(i < len(found))
        if i % n_wide == 0:
            axes.set_ylabel(first.what, fontsize=9)
    notes = [f"thin: {first.curves.shape[0]} single rows"] * _has_curves(first, lines)
    notes += ["ticks inside: deciles"] * any(len(each.deciles) for each in found.values())
    about = f" ({'; '.join(notes)})" if notes else ""
    figure.suptitle(f"Mean prediction of {first.n_rows:,} rows{about}", fontsize=10)
    n_outputs = len(first.outputs)
    if n_outputs > 1:
        is_part = len(lines) < n_outputs
        title = f"the {len(lines)} of {n_outputs} that change most" if is_part else ""
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, title=title, loc="outside lower center", frameon=False, fontsize=8,
            title_fontsize=8, ncols=min(len(labels), 6),
        )  # fmt: skip
    save(figure, path)


def _drawn(found: Mapping[str, Dependence]) -> dict[int, str]:
    """Return the colour of each output to draw."""
    changes = np.max([np.ptp(each.mean, axis=0) for each in found.values()], axis=0)
    if len(changes) == 1:
        return {0: TRAIN}
    most = sorted(np.argsort(-changes, kind="stable")[:MOST_LINES].tolist())
    return dict(zip(most, PALETTE, strict=False))


def _has_curves(each: Dependence, outputs: Collection[int]) -> bool:
    """Whether single rows are drawn: of many outputs their lines would hide the means."""
    return len(outputs) <= MOST_WITH_CURVES and len(each.curves) > 0


def _limits(found: Mapping[str, Dependence], outputs: list[int]) -> tuple[float, float]:
    """Return the ends of the vertical axis: all means, and the curves but for extreme ones."""
    values = [each.mean[:, outputs].ravel() for each in found.values()]
    for each in found.values():
        if _has_curves(each, outputs):
            values.append(np.quantile(each.curves[:, :, outputs], SHOWN))
    low, high = float(np.min(np.concatenate(values))), float(np.max(np.concatenate(values)))
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _draw_panel(axes: Any, each: Dependence, lines: Mapping[int, str]) -> None:
    places = np.arange(len(each.grid)) if each.is_of_levels else each.grid
    is_one = len(lines) == 1
    for output, colour in lines.items():
        mean, curves = each.mean[:, output], each.curves[:, :, output]
        curves = curves if _has_curves(each, lines) else curves[:0]
        thin = THIN if is_one else colour
        if each.is_of_levels:
            shift = 0.0 if is_one else 0.6 * (list(lines).index(output) / (len(lines) - 1) - 0.5)
            at = np.broadcast_to(places + shift, curves.shape)
            axes.scatter(at, curves, s=5, color=thin, alpha=0.25, edgecolors="none")
            axes.scatter(
                places + shift, mean, s=34, color=colour, edgecolors="white", linewidths=0.7,
                zorder=4, label=each.outputs[output],
            )  # fmt: skip
        else:
            axes.plot(places, curves.T, color=thin, alpha=0.3 if is_one else 0.12, linewidth=0.6)
            axes.plot(
                places, mean, color=colour, linewidth=2.2, zorder=4, label=each.outputs[output],
                marker="o" if len(places) <= FEW else None, markersize=4,
            )  # fmt: skip
    axes.set_title(_short(each.column, 2 * LONGEST), fontsize=10)
    axes.tick_params(labelsize=8)
    bare(axes)
    if each.is_of_levels:
        _name_levels(axes, each)
    else:
        _mark_deciles(axes, each)


def _name_levels(axes: Any, each: Dependence) -> None:
    names = [
        f"{_short(str(level), LONGEST)} ({f'{share:.0%}' if share >= 0.01 else '<1%'})"
        for level, share in zip(each.grid, each.shares, strict=True)
    ]
    is_long = len(names) * max(map(len, names)) > WIDEST
    axes.set_xticks(range(len(names)), names, fontsize=7 if is_long else 8)
    if is_long:
        axes.tick_params(axis="x", rotation=45)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    axes.set_xlim(-0.6, len(names) - 0.4)
    if len(names) < each.n_levels:
        axes.set_xlabel(f"the {len(names)} most frequent of {each.n_levels:,} levels", fontsize=8)


def _mark_deciles(axes: Any, each: Dependence) -> None:
    if each.grid.dtype.kind == "M":
        as_date_axis(axes.xaxis)
    else:
        axes.locator_params(axis="x", nbins=6)
    inside = [d for d in np.unique(each.deciles) if each.grid[0] <= d <= each.grid[-1]]
    axes.plot(
        inside, [0.03] * len(inside), marker="|", markersize=6, color=VALID, linestyle="none",
        markeredgewidth=1.2, transform=axes.get_xaxis_transform(), label="_deciles", zorder=5,
    )  # fmt: skip


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
