"""What the units of the first layer look for, as images."""

from __future__ import annotations

import math
import os

import numpy as np

from nnbackend.errors import ArgumentError
from nnbackend.network.network import Network
from nnbackend.plots.figures import SIGNED, new_figure, save

UNITS = 64  # drawn at most


def first_layer_weights(
    net: Network, path: str | os.PathLike[str], *, shape: tuple[int, int] | None = None
) -> None:
    """Draw the incoming weights of each unit of the first layer, the longest first.

    shape: rows and columns of an image; by default a square where n_in is one, else one row.
    Each image has a scale of its own: red is above 0, blue below.
    Raises: ArgumentError for a shape of another size than n_in.
    """
    side = math.isqrt(net.n_in)
    rows, columns = shape or ((side, side) if side * side == net.n_in else (1, net.n_in))
    if rows * columns != net.n_in:
        raise ArgumentError(
            f"shape must have n_in={net.n_in} places. Received: shape={(rows, columns)}."
        )
    W = net.get_parameters()[0][0]  # (I, O)
    lengths = np.linalg.norm(W, axis=0)
    order = np.argsort(-lengths, kind="stable")[:UNITS]
    across = math.ceil(math.sqrt(len(order))) if rows > 1 else 1
    down = math.ceil(len(order) / across)
    flat = rows == 1
    figure = new_figure(max(4.5, 1.0 * across), (0.36 if flat else 1.12) * down + 0.8)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, unit in zip(grid.flat, order, strict=False):
        limit = float(np.abs(W[:, unit]).max()) or 1.0
        image = W[:, unit].reshape(rows, columns)
        axes.imshow(image, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto" if flat else "equal")
        axes.set_title(f"{unit}", fontsize=7, pad=2, color="#555555")
    shown = f"{len(order)} longest of " if len(order) < W.shape[1] else ""
    figure.suptitle(
        f"Weights of the first layer, {shown}{W.shape[1]} units\n"
        "red above 0, blue below; the number is the unit's",
        fontsize=10,
    )
    save(figure, path)
