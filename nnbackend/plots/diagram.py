"""A network drawn as circles and lines, with one sample's activations and deltas."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nnbackend.network.architecture import describe
from nnbackend.network.network import Network
from nnbackend.plots.figures import INK, SIGNED, new_figure, save

UNITS = 10  # drawn of a layer at most: the first and the last ones
GAP = 1.0  # between units


def network_diagram(net: Network, x: Any, y: Any, path: str | os.PathLike[str]) -> None:
    """Draw the network with a (in the circle) and delta = dC/dz (below it) of one sample.

    x: (1, n_in) as the first layer sees it; y: its target, as for `Network.backprop`.
    Lines are weights: red above 0, blue below, the stronger the wider.
    """
    trace, gradient = net.trace(x), net.backprop(x, y)
    host = net.backend.to_host
    columns = [host(a)[0] for a in (trace.x, *trace.a)]
    deltas = [None, *(_of_units(host(d)[0], len(a)) for d, a in
                      zip(gradient.deltas, columns[1:], strict=True))]  # fmt: skip
    shown = [_shown(len(a)) for a in columns]
    tallest = max(len(s) + 1 for s in shown)
    figure = new_figure(2.2 * len(columns) + 0.8, 0.72 * tallest + 1.4)
    axes = figure.subplots()
    axes.set_axis_off()
    places = [_heights(s, len(a)) for s, a in zip(shown, columns, strict=True)]
    for level, W in enumerate(net.get_parameters()[0]):
        _draw_weights(
            axes,
            2.2 * level,
            W[:, : len(columns[level + 1])],
            shown[level : level + 2],
            places[level : level + 2],
        )
    names = ["input"] + [describe(layer) for layer in net.learning_layers]
    top = max(map(max, places)) + 0.75
    for level, (a, units, heights, delta) in enumerate(
        zip(columns, shown, places, deltas, strict=True)
    ):
        _draw_units(axes, 2.2 * level, a, units, heights, delta)
        axes.text(2.2 * level, top, names[level], ha="center", fontsize=9, color=INK)  # fmt: skip
    axes.set_xlim(-0.7, 2.2 * (len(columns) - 1) + 0.7)
    axes.set_ylim(min(map(min, places)) - 0.85, max(map(max, places)) + 1.1)
    axes.set_aspect("equal")
    axes.set_title(
        f"One sample: loss {gradient.loss:.4g}\nin a circle a, below it δ = ∂C/∂z", fontsize=10
    )
    save(figure, path)


def _of_units(delta: np.ndarray, n: int) -> np.ndarray:
    """Give one delta a unit; of a maxout unit's pieces only the winner's is not 0."""
    return delta if len(delta) == n else delta.reshape(-1, n).sum(axis=0)


def _shown(n: int) -> list[int]:
    half = UNITS // 2
    return list(range(n)) if n <= UNITS else [*range(half), *range(n - half, n)]


def _heights(units: list[int], n: int) -> list[float]:
    """Give the height of each unit, with a gap where some are left out."""
    steps = [i + (1 if n > len(units) and i >= len(units) // 2 else 0) for i in range(len(units))]
    return [GAP * (steps[-1] / 2 - s) for s in steps]


def _draw_weights(
    axes: Any, left: float, W: np.ndarray, units: list[list[int]], heights: list[list[float]]
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    part = W[np.ix_(units[0], units[1])]
    strength = part / (np.abs(part).max() or 1.0)
    ends = [[(left + 0.28, h0), (left + 2.2 - 0.28, h1)] for h0 in heights[0] for h1 in heights[1]]
    colors = colormaps[SIGNED](0.5 + 0.42 * np.sign(strength.ravel()))
    colors[:, 3] = 0.15 + 0.7 * np.abs(strength.ravel())
    widths = 0.3 + 2.2 * np.abs(strength.ravel())
    axes.add_collection(LineCollection(ends, colors=colors, linewidths=widths, zorder=1))


def _draw_units(
    axes: Any,
    left: float,
    a: np.ndarray,
    units: list[int],
    heights: list[float],
    delta: np.ndarray | None,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Circle

    scale = float(np.abs(a).max()) or 1.0
    for unit, height in zip(units, heights, strict=True):
        value = float(a[unit])
        face = colormaps[SIGNED](0.5 + 0.3 * value / scale)
        axes.add_patch(Circle((left, height), 0.29, facecolor=face, edgecolor=INK, zorder=2))
        axes.text(left, height, f"{value:.2f}", ha="center", va="center", fontsize=7.5, zorder=3)
        if delta is not None:
            text = f"δ {delta[unit]:+.1e}" if abs(delta[unit]) < 0.01 else f"δ {delta[unit]:+.3f}"
            axes.text(
                left, height - 0.31, text if delta[unit] else "δ 0", ha="center", va="top",
                fontsize=6.5, color=INK, zorder=3,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.4},
            )  # fmt: skip
    if len(a) > len(units):
        axes.text(left, 0.0, f"⋮  {len(a) - len(units)} more", ha="center", va="center", fontsize=8)
