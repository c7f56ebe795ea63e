"""The five steps of backpropagation for one row, with the numbers of the engine.

All numbers are those of `Network.trace` and `Network.backprop`. Layers are numbered as in the
course, the input being layer 1; units are from 0 here and from 1 on the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.live_page.phases import Phase
from nnbackend.live_page.pictures import MAX_SHOWN, Plane, pieces
from nnbackend.live_page.sources import Source
from nnbackend.model.model import Model
from nnbackend.network.layers import Dense, Maxout


@dataclass(frozen=True)
class Focus:
    """The weight under the magnifying glass: from unit `input` to unit `unit` of a layer, from 2.

    piece: of a maxout unit.
    """

    layer: int
    unit: int
    input: int
    piece: int = 0


class Row:
    """One row as the network sees it, its target, and all results of both passes."""

    def __init__(self, phase: Phase, source: Source, index: int) -> None:
        net, self.index, self.phase = phase.net, index, phase
        x = inputs_of(phase, source, np.array([index]))
        target = phase.data.y[index : index + 1]
        trace, gradient = net.trace(x), net.backprop(x, target)
        host = net.backend.to_host
        self.x, self.loss = host(trace.x)[0], gradient.loss
        self.z, self.a = ([host(v)[0] for v in part] for part in (trace.z, trace.a))
        self.delta = [host(d)[0] for d in gradient.deltas]
        self.dW = [host(W) for W in gradient.weights]
        self.W, self.b = net.get_parameters()
        self.y = _one_hot(target, net.n_out)
        self.is_fused = net.for_training()[1] is not net.loss
        self.slope = [self._slope(i) for i in range(len(self.z))]

    def _slope(self, index: int) -> np.ndarray:
        """Return phi'(z) of a layer's units; of maxout 1, the slope of the winning piece."""
        layer = self.phase.net.trainable_layers[index]
        if isinstance(layer, Dense):
            z, a = self.z[index][None], self.a[index][None]
            slope: np.ndarray = np.asarray(layer.activation.slope(z, a, np))[0]
            return slope
        return np.ones(layer.n_out)

    def winner(self, layer: int, unit: int) -> int:
        """Return the winning piece of a maxout unit; 0 for other units."""
        n = pieces(self.phase.net.trainable_layers[layer])
        return int(np.argmax(self.z[layer].reshape(n, -1)[:, unit]))

    def units(self, layer: int, values: np.ndarray) -> np.ndarray:
        """Return the values of the winning pieces: (units,)."""
        made = self.phase.net.trainable_layers[layer]
        if not isinstance(made, Maxout):
            return values
        table = values.reshape(made.n_pieces, -1)
        which = np.argmax(self.z[layer].reshape(made.n_pieces, -1), axis=0)
        best: np.ndarray = table[which, np.arange(made.n_out)]
        return best


def inputs_of(phase: Phase, source: Source, rows: np.ndarray) -> Any:
    """Return rows as the first layer sees them, on the device: (rows, n_in)."""
    model = Model.from_parts(phase.net, phase.data.preprocessing)
    return phase.net.backend.to_device(model.inputs(source.data.x[rows]))


def explain(row: Row, plane: Plane, focus: Focus) -> dict[str, Any]:
    """Return the numbers of a row's five steps, as plain data.

    layers: for each layer from 2 on the shown units' z, a, slope and delta.
    focus: the sums of one unit, term by term, and the derivative of one weight.
    sums: the same for each shown unit of that layer, of a maxout unit for its winning piece.
    """
    net = row.phase.net
    layers = []
    for i, layer in enumerate(net.trainable_layers):
        units = list(plane.shown[i + 1])
        columns = {"z": row.units(i, row.z[i]), "a": row.a[i], "slope": row.slope[i],
                   "delta": row.units(i, row.delta[i])}  # fmt: skip
        table = {name: values[units].tolist() for name, values in columns.items()}
        name = layer.activation.name if isinstance(layer, Dense) else "maxout"
        layers.append({"units": units, "activation": name, **table})
    shown = list(plane.shown[0])
    return {
        "row": row.index, "x": row.x[shown].tolist(), "y": row.y.tolist(), "loss": row.loss,
        "loss_name": net.loss.name, "fused": row.is_fused, "layers": layers,
        "focus": _focus(row, focus),
        "sums": [
            _focus(row, Focus(focus.layer, j, 0, row.winner(focus.layer - 2, j)))
            for j in plane.shown[focus.layer - 1]
        ],
    }  # fmt: skip


def _focus(row: Row, focus: Focus) -> dict[str, Any]:
    """Return the sums of the unit in focus and the derivative of its weight."""
    i, j, k = focus.layer - 2, focus.unit, focus.input
    net = row.phase.net
    width = net.trainable_layers[i].n_out
    piece = focus.piece if pieces(net.trainable_layers[i]) > 1 else 0
    column = piece * width + j
    below = row.x if i == 0 else row.a[i - 1]
    found = {
        "layer": focus.layer, "unit": j, "input": k, "piece": piece,
        "winner": row.winner(i, j), "pieces": pieces(net.trainable_layers[i]),
        "z_terms": _terms(row.W[i][:, column], below), "b": float(row.b[i][column]),
        "z": float(row.z[i][column]), "a": float(row.a[i][j]), "slope": float(row.slope[i][j]),
        "delta": float(row.delta[i][column]), "w": float(row.W[i][k, column]),
        "a_below": float(below[k]), "dw": float(row.dW[i][k, column]),
        "y": float(row.y[j]) if i == len(row.z) - 1 else None,
    }  # fmt: skip
    if i + 1 < len(row.W):
        found["delta_terms"] = _terms(row.W[i + 1][j], row.delta[i + 1])
    else:
        found["dcda"] = _output_slope(row)[j]
    return found


def _terms(weights: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Return the terms of a sum of products, the largest if there are many, and the rest's sum."""
    products = weights.astype(np.float64) * values
    order = np.sort(np.argsort(-np.abs(products), kind="stable")[:MAX_SHOWN])
    terms = [[int(k), float(weights[k]), float(values[k])] for k in order]
    rest = float(products.sum() - products[order].sum())
    return {"terms": terms, "left": len(products) - len(order), "rest": rest}


def _output_slope(row: Row) -> list[float]:
    """Return dC/da of the output."""
    loss = row.phase.net.loss
    out: list[float] = loss.rows(row.a[-1][None], row.y[None], np)[1][0].tolist()
    return out


def _one_hot(target: np.ndarray, n_out: int) -> np.ndarray:
    """Return one row's target as the outputs' targets: (n_out,)."""
    if target.ndim == 1 and n_out > 1:
        one_hot: np.ndarray = np.eye(n_out)[int(target[0])]
        return one_hot
    return np.asarray(target, np.float64).reshape(-1)
