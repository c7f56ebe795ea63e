"""The weights of the first layer's units, as images or as one table."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnbackend.errors import ArgumentError, Fault
from nnbackend.network.network import Network
from nnbackend.plots.figures import SIGNED, new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = 64  # drawn at most
PICTURE_FROM = 16  # inputs; fewer are drawn as a table's columns, even if their number is a square
NAMES_UP_TO = 40  # inputs or units with a label each


def first_layer_weights(
    net: Network,
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Draw the incoming weights of each unit of the first layer, the longest first.

    shape: rows and columns of an image for each unit, each with a separate scale; by default a
    square if n_in is a square number, else all units are columns of one table.
    names: of the inputs, for a table.
    Red is above 0, blue below.
    Raises: ArgumentError for a shape of another size than n_in.
    """
    side = math.isqrt(net.n_in)
    if shape is None and side * side == net.n_in >= PICTURE_FROM:
        shape = (side, side)
    if shape is not None and shape[0] * shape[1] != net.n_in:
        raise ArgumentError(Fault("shape", f"a shape of n_in={net.n_in} elements", shape))
    W = net.get_parameters()[0][0]  # (I, O)
    order = np.argsort(-np.linalg.norm(W, axis=0), kind="stable")[:UNITS]
    shown = f"{len(order)} longest of " if len(order) < W.shape[1] else ""
    title = f"Weights of the first layer, {shown}{W.shape[1]} units; red above 0, blue below"
    figure = _draw_images(W, order, shape) if shape else _draw_table(W, order, names)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def _draw_images(W: np.ndarray, order: np.ndarray, shape: tuple[int, int]) -> Figure:
    across = math.ceil(math.sqrt(len(order)))
    down = math.ceil(len(order) / across)
    figure = new_figure(max(5.5, 1.0 * across), 1.12 * down + 0.8)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, unit in zip(grid.flat, order, strict=False):
        limit = float(np.abs(W[:, unit]).max()) or 1.0
        axes.imshow(W[:, unit].reshape(shape), cmap=SIGNED, vmin=-limit, vmax=limit)
        axes.set_title(f"unit {unit}", fontsize=7, pad=2, color="#555555")
    return figure


def _draw_table(W: np.ndarray, order: np.ndarray, names: Sequence[str] | None) -> Figure:
    part = W[:, order]  # (I, units drawn)
    n_in, n_units = part.shape
    figure = new_figure(
        min(max(5.5, 0.24 * n_units + 2.2), 16.0), min(max(1.8, 0.26 * n_in + 1.4), 12.0)
    )
    axes = figure.subplots()
    limit = float(np.abs(part).max()) or 1.0
    image = axes.imshow(part, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xlabel("unit")
    if n_units <= NAMES_UP_TO:
        axes.set_xticks(range(n_units), [str(unit) for unit in order], fontsize=7)
    else:
        axes.set_xticks([])
    if n_in <= NAMES_UP_TO:
        axes.set_yticks(range(n_in), names or [f"feature {i}" for i in range(n_in)], fontsize=8)
    else:
        axes.set_ylabel("feature")
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("weight")
    bar.outline.set_visible(False)
    return figure
