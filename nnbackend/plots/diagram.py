"""A network drawn as circles and lines, with one sample's z, a and delta."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nnbackend.network.network import Network
from nnbackend.network.printing import describe
from nnbackend.plots.figures import INK, SIGNED, new_figure, save

UNITS = 10  # drawn per layer at most
GAP = 1.0  # between units
APART = 2.2  # between layers
WRITTEN = 9  # weights between two layers with their number on the line, at most
# (layer, name of the input, title, units omitted) in each language
TEXTS = {
    "en": ("layer", "input",
           "One sample: cost C = {0:.4g}\nin a circle a, below it z and δ = ∂C/∂z", "⋮  {} more"),
    "es": ("capa", "entrada",
           "Una muestra: costo C = {0:.4g}\nen el círculo a, debajo z y δ = ∂C/∂z", "⋮  {} más"),
}  # fmt: skip


def network_diagram(
    net: Network, x: Any, y: Any, path: str | os.PathLike[str], *, lang: str = "en"
) -> None:
    """Draw the network with a (in the circle), z and delta = dC/dz (below it) of one sample.

    x: (1, n_in) as the first layer sees it; y: its target, as for `Network.backprop`.
    lang: "en" or "es". Layer 1 is the input.
    Lines are weights: red above 0, blue below, wider for larger ones. A maxout unit has weights
    and a z for each piece; those of the winning piece are drawn, whose z is a.
    Of a large layer the units are drawn that the cost depends on most, those with the largest
    a dC/da, with their numbers; of the output those with the largest delta.
    """
    trace, gradient = net.trace(x), net.backprop(x, y)
    host = net.backend.to_host
    columns = [host(a)[0] for a in (trace.x, *trace.a)]
    zs = [host(z)[0] for z in trace.z]
    notes = [[""] * len(columns[0])] + [
        _notes(z, host(d)[0], len(a))
        for z, d, a in zip(zs, gradient.deltas, columns[1:], strict=True)
    ]
    weights = net.get_parameters()[0]
    deltas = [host(d)[0] for d in gradient.deltas]
    # Of maxout's losing pieces delta is 0.
    sizes = [a * (W @ d) for a, W, d in zip(columns[:-1], weights, deltas, strict=True)]
    sizes.append(deltas[-1].reshape(-1, len(columns[-1])).sum(axis=0))
    shown = [_shown(np.abs(size)) for size in sizes]
    tallest = max(len(s) + 1 for s in shown)
    figure = new_figure(APART * len(columns) + 0.8, 0.72 * tallest + 1.4)
    axes = figure.subplots()
    axes.set_axis_off()
    places = [_heights(s, len(a)) for s, a in zip(shown, columns, strict=True)]
    for level, W in enumerate(weights):
        n = len(columns[level + 1])
        won = zs[level].reshape(-1, n).argmax(axis=0)  # 0 for all but maxout
        part = W[:, won * n + np.arange(n)]
        _draw_weights(axes, APART * level, part, shown[level : level + 2],
                      places[level : level + 2])  # fmt: skip
    layer, first, title, more = TEXTS[lang]
    names = [first, *(describe(each) for each in net.trainable_layers)]
    top = max(map(max, places)) + 0.5
    cut = GAP if any(len(s) < len(a) for s, a in zip(shown, columns, strict=True)) else 0.0
    for level, (a, units, heights) in enumerate(zip(columns, shown, places, strict=True)):
        _draw_units(axes, APART * level, a, units, heights, notes[level], more)
        # In several lines: neighbours are near.
        name = "\n".join([f"{layer} {level + 1}", *names[level].rsplit(" ", 1)])
        axes.text(APART * level, top, name, ha="center", fontsize=9, color=INK)
    axes.set_xlim(-0.7, APART * (len(columns) - 1) + 0.7)
    axes.set_ylim(min(map(min, places)) - 0.85 - cut, top + 0.75)
    axes.set_aspect("equal")
    axes.set_title(title.format(gradient.loss), fontsize=10)
    save(figure, path)


def _notes(z: np.ndarray, delta: np.ndarray, n: int) -> list[str]:
    """Return the text below each of a layer's n units."""
    if len(delta) == n:
        return [f"z {_short(v)}\nδ {_short(d)}" for v, d in zip(z, delta, strict=True)]
    # Of a maxout unit's pieces only the winner's delta is not 0.
    return [f"δ {_short(d)}" for d in delta.reshape(-1, n).sum(axis=0)]


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:+.1e}" if abs(value) < 0.01 else f"{value:+.3f}"


def _shown(sizes: np.ndarray) -> list[int]:
    """Return all units of a layer, or the UNITS largest in their order."""
    return sorted(int(i) for i in np.argsort(-sizes, kind="stable")[:UNITS])


def _heights(units: list[int], n: int) -> list[float]:
    """Return the height of each unit, with a place below them if units are omitted."""
    places = len(units) + (n > len(units))
    return [GAP * ((places - 1) / 2 - i) for i in range(len(units))]


def _draw_weights(
    axes: Any, left: float, W: np.ndarray, units: list[list[int]], heights: list[list[float]]
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    part = W[np.ix_(units[0], units[1])]
    strength = part / (np.abs(part).max() or 1.0)
    ends = [[(left + 0.28, below), (left + APART - 0.28, above)]
            for below in heights[0] for above in heights[1]]  # fmt: skip
    colors = colormaps[SIGNED](0.5 + 0.42 * np.sign(strength.ravel()))
    colors[:, 3] = 0.15 + 0.7 * np.abs(strength.ravel())
    widths = 0.3 + 2.2 * np.abs(strength.ravel())
    axes.add_collection(LineCollection(ends, colors=colors, linewidths=widths, zorder=1))
    if part.size <= WRITTEN:
        for (start, end), weight in zip(ends, part.ravel(), strict=True):
            # Before the middle, because lines cross there.
            x, y = (0.67 * a + 0.33 * b for a, b in zip(start, end, strict=True))
            axes.text(
                x, y, f"{weight:.2f}", ha="center", va="center", fontsize=6.5, color=INK,
                bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip


def _draw_units(
    axes: Any,
    left: float,
    a: np.ndarray,
    units: list[int],
    heights: list[float],
    notes: list[str],
    more: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Circle

    scale = float(np.abs(a).max()) or 1.0
    for unit, height in zip(units, heights, strict=True):
        value = float(a[unit])
        shown = f"{round(value, 2) + 0.0:.2f}"  # no -0.00
        face = colormaps[SIGNED](0.5 + 0.3 * value / scale)
        axes.add_patch(Circle((left, height), 0.29, facecolor=face, edgecolor=INK, zorder=2))
        axes.text(left, height, shown, ha="center", va="center", fontsize=7.5, zorder=3)
        axes.text(
            left, height - 0.31, notes[unit], ha="center", va="top", fontsize=6.5, color=INK,
            zorder=3, bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.4},
        )  # fmt: skip
        if len(a) > len(units):
            axes.text(
                left - 0.24, height + 0.2, str(unit + 1), ha="right", fontsize=6.5, color=INK,
                zorder=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
            )  # fmt: skip
    if len(a) > len(units):
        text = more.format(len(a) - len(units))
        axes.text(left, heights[-1] - GAP, text, ha="center", va="center", fontsize=8)
