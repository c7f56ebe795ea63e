"""What the page draws of a network: its answer over a plane, each unit over it, and its weights.

All arrays are float32 on the host. A layer shows at most `MAX_SHOWN` units, those with the largest
weights, so that wide networks stay legible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.live_page.phases import Phase
from nnbackend.live_page.sources import Source
from nnbackend.model.model import Model
from nnbackend.network.layers import Maxout

GRID, CURVE = 64, 128  # points along each side of the plane, and along a curve
EVERY = 2  # a unit's picture has every second point of the grid
MAX_SHOWN = 12
MAX_OUTPUTS = 10  # of the result
MARGIN = 0.1
SAMPLED = 10_000  # rows, at most, that determine the limits of the plane and the medians

Arrays = dict[str, np.ndarray]


class Plane:
    """The points at which a network is drawn: a grid over two features, or a line along one.

    features: those that span the plane; the others are set to their median.
    """

    def __init__(self, phase: Phase, source: Source, features: Sequence[int] = (0, 1)) -> None:
        x = source.data.x[:: -(-source.data.n_samples // SAMPLED)]
        self.is_curve = x.shape[1] == 1
        self.features = (0,) if self.is_curve else tuple(features)
        self.spans = [_span(np.asarray(x[:, f], np.float64)) for f in self.features]
        self.phase = phase
        self.shown = shown_units(phase)
        self._scaler = phase.data.preprocessing.target_scaler
        net = phase.net
        inputs = Model.from_parts(net, phase.data.preprocessing).inputs(self._points(x))
        self._space = net.workspace(net.backend.to_device(inputs))

    def _points(self, x: np.ndarray) -> np.ndarray:
        axes = [np.linspace(*span, CURVE if self.is_curve else GRID) for span in self.spans]
        if self.is_curve:
            return axes[0][:, None]
        rows = np.repeat(np.median(x, axis=0, keepdims=True), GRID * GRID, axis=0)
        rows = rows.astype(np.float64)
        grids = np.meshgrid(*axes)
        for feature, grid in zip(self.features, grids, strict=True):
            rows[:, feature] = grid.ravel()
        return rows

    def arrays(self) -> Arrays:
        """Return the pictures at the current weights.

        result (K, points): the outputs.  units (U, points): those shown of the hidden layers, in
        the order of `shown`; of a grid every second point of every second line.
        """
        space, to_host = self._space, self.phase.net.backend.to_host
        space.forward()
        activations = [to_host(buffers.a) for buffers in space.trainable]
        result = activations[-1]
        if self._scaler is not None:
            result = self._scaler.inverse(result)
        units = [a[:, list(s)] for a, s in zip(activations, self.shown[1:-1], strict=False)]
        hidden = np.concatenate(units, axis=1) if units else np.zeros((len(result), 0))
        if not self.is_curve:
            hidden = hidden.reshape(GRID, GRID, -1)[::EVERY, ::EVERY].reshape(
                (GRID // EVERY) ** 2, -1
            )
        return {"result": _f32(result[:, :MAX_OUTPUTS].T), "units": _f32(hidden.T)}

    def weights(self) -> Arrays:
        """Return the weights and biases between the shown units.

        w2, w3, ... (pieces, J, K): from unit k of the layer before to unit j; one piece but for
        maxout.  b2, b3, ... (pieces, J).
        """
        net, found = self.phase.net, {}
        for index, (W, b) in enumerate(zip(*net.get_parameters(), strict=True)):
            n_pieces = pieces(net.trainable_layers[index])
            rows, columns = list(self.shown[index]), list(self.shown[index + 1])
            W = W.reshape(W.shape[0], n_pieces, -1)
            found[f"w{index + 2}"] = _f32(W[rows][:, :, columns].transpose(1, 2, 0))
            found[f"b{index + 2}"] = _f32(b.reshape(n_pieces, -1)[:, columns])
        return found


def pieces(layer: Any) -> int:
    """Return the number of affine pieces of a layer's units: 1 but for maxout."""
    return layer.n_pieces if isinstance(layer, Maxout) else 1


def shown_units(phase: Phase) -> list[tuple[int, ...]]:
    """Return the units that are drawn of each layer, the input first, from 0.

    Of a layer with more than `MAX_SHOWN` units those with the largest weights, in their order.
    """
    net = phase.net
    weights, _ = net.get_parameters()
    shown = []
    for layer in range(len(weights) + 1):
        width = net.n_in if layer == 0 else net.trainable_layers[layer - 1].n_out
        size = np.zeros(width)
        if layer > 0:
            W = weights[layer - 1]
            size += np.abs(W.reshape(-1, width)).sum(axis=0)
        if layer < len(weights):
            size += np.abs(weights[layer]).sum(axis=1)
        largest = np.sort(np.argsort(-size, kind="stable")[:MAX_SHOWN])
        shown.append(tuple(int(i) for i in largest))
    return shown


def _span(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = MARGIN * (high - low or 1.0)
    return low - room, high + room


def _f32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
