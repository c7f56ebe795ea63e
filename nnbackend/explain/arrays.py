"""The numbers of one sample in the notation of textbooks: layer 1 is the input, units count from 1.

A maxout unit is shown with the weights, the bias and z of its winning piece, whose slope is 1: the
other pieces neither reach the output nor learn. Layers without parameters, such as dropout, which
is off here, are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnbackend.network.activations import Activation, Softmax, identity
from nnbackend.network.layers import Dense, Maxout
from nnbackend.network.network import Network
from nnbackend.network.printing import describe

Numbers = np.ndarray[Any, np.dtype[np.float64]]
ByLayer = dict[int, Numbers]


@dataclass(frozen=True)
class SampleArrays:
    """Every number of one sample, by layer; the first layer has only a.

    z[l][j - 1] is z^l_j, and w[l][j - 1, k - 1] is w^l_jk, from unit k of layer l - 1 to unit j of
    layer l. slope is phi'(z), None for a softmax, whose units depend on each other.
    da = dC/da, None at an output whose activation and loss are differentiated together.
    """

    n_layers: int
    cost: float
    y: Numbers
    a: ByLayer
    z: ByLayer = field(default_factory=dict)
    w: ByLayer = field(default_factory=dict)
    b: ByLayer = field(default_factory=dict)
    delta: ByLayer = field(default_factory=dict)
    dw: ByLayer = field(default_factory=dict)
    slope: dict[int, Numbers | None] = field(default_factory=dict)
    da: dict[int, Numbers | None] = field(default_factory=dict)
    phi: dict[int, Activation] = field(default_factory=dict)
    piece: dict[int, np.ndarray] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def layers(self) -> range:
        """The layers with parameters, 2 to L."""
        return range(2, self.n_layers + 1)

    @property
    def is_fused(self) -> bool:
        """Whether the output's delta is a - y."""
        return self.da[self.n_layers] is None


def arrays_of(net: Network, x: Any, y: Any) -> SampleArrays:
    """Return the numbers of one sample: x (1, n_in), and y its target as for `Network.backprop`."""
    trace, gradient = net.trace(x), net.backprop(x, y)
    found = SampleArrays(
        len(trace.a) + 1, gradient.loss, _target(net, y), {1: _host(net, trace.x)[0]}
    )
    deltas = [_host(net, d)[0] for d in gradient.deltas]
    for i, layer in enumerate(net.trainable_layers):
        level, n = i + 2, layer.n_out
        z = _host(net, trace.z[i])[0]
        won = z.reshape(-1, n).argmax(axis=0)  # 0 for all but maxout
        at = won * n + np.arange(n)
        found.a[level] = _host(net, trace.a[i])[0]
        found.z[level], found.b[level] = z[at], _host(net, net.biases[i])[at]
        found.w[level] = _host(net, net.weights[i]).T[at]
        found.delta[level] = deltas[i][at]
        found.dw[level] = _host(net, gradient.weights[i]).T[at]
        found.phi[level] = layer.activation if isinstance(layer, Dense) else identity()
        found.slope[level] = _slope(net, layer, trace.z[i], trace.a[i])
        found.names[level] = describe(layer)
        if isinstance(layer, Maxout):
            found.piece[level] = won + 1
    for level in found.layers[:-1]:
        found.da[level] = found.w[level + 1].T @ found.delta[level + 1]
    found.da[found.n_layers] = _output_da(net, trace.a[-1], y)
    return found


def _host(net: Network, array: Any) -> Numbers:
    return np.asarray(net.backend.to_host(array), np.float64)


def _slope(net: Network, layer: Dense | Maxout, z: Any, a: Any) -> Numbers | None:
    """Return phi'(z) of each unit."""
    if isinstance(layer, Maxout):
        return np.ones(layer.n_out)
    if isinstance(layer.activation, Softmax):
        return None
    slope = layer.activation.slope(z, a, net.backend.xp)
    return np.broadcast_to(_host(net, slope), (1, layer.n_out)).ravel()


def _output_da(net: Network, a: Any, y: Any) -> Numbers | None:
    """Return dC/da of the output, or None if the loss is fused with the activation."""
    last = net.layers[-1]
    if isinstance(last, Dense) and net.for_training()[1] is not net.loss:
        return None
    _, gradient = net.loss.rows(a, net.backend.to_device(_rows(net, y)), net.backend.xp)
    return np.broadcast_to(_host(net, gradient), (1, net.n_out)).ravel()


def _rows(net: Network, y: Any) -> np.ndarray:
    """Return the target as (1, n_out); a class label is a one-hot row."""
    host = net.backend.to_host(net.device_targets(y, None, 1)[0])
    return np.eye(net.n_out, dtype=net.dtype)[host] if host.ndim == 1 else host


def _target(net: Network, y: Any) -> Numbers:
    """Return the target that the loss compares with: with label smoothing, the smoothed one."""
    rows, loss = _rows(net, y).astype(np.float64).ravel(), net.loss
    if loss.kernel in ("cross_entropy", "binary_cross_entropy") and loss.params[0]:
        share = 1.0 / len(rows) if loss.kernel == "cross_entropy" else 0.5
        rows = (1.0 - loss.params[0]) * rows + loss.params[0] * share
    return rows
