"""The steps of one sample: what is computed, in which order, with which numbers.

All results come from `trace` and `backprop`; each line writes out the sum of one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.network.layers import Dense
from nnbackend.network.network import Network
from nnbackend.network.printing import describe, describe_formula

TERMS = 4  # of a sum written out


@dataclass(frozen=True)
class Step:
    """One layer in one direction: heading, formulas, numbers, one sum written out.

    values: (heading, numbers (n,)) pairs.
    """

    title: str
    formulas: tuple[str, ...]
    values: tuple[tuple[str, np.ndarray], ...]
    example: str


@dataclass(frozen=True)
class Explanation:
    """All steps of one sample: forward, the loss, backward."""

    title: str
    forward: tuple[Step, ...]
    loss: Step
    backward: tuple[Step, ...]


def explain(net: Network, x: Any, y: Any) -> Explanation:
    """Return how one sample is fed forward and its loss propagated back.

    x: (1, n_in) as the first layer sees it.  y: its target, as for `Network.backprop`.
    Layers are counted from 1, as in the course; layer 0 is the input.
    """
    host = net.backend.to_host
    trace, gradient = net.trace(x), net.backprop(x, y)
    a = [host(v)[0] for v in (trace.x, *trace.a)]
    z, deltas = [host(v)[0] for v in trace.z], [host(v)[0] for v in gradient.deltas]
    (W, b), dW = net.get_parameters(), [host(v) for v in gradient.weights]
    layers = net.trainable_layers
    forward = [
        _forward(
            level, describe(layer), a[level - 1], W[level - 1], b[level - 1], z[level - 1], a[level]
        )
        for level, layer in enumerate(layers, start=1)
    ]
    backward = []
    for level in range(len(layers), 0, -1):
        above = None if level == len(layers) else (W[level], deltas[level])
        backward.append(
            _backward(level, net, a[level - 1], deltas[level - 1], dW[level - 1], above)
        )
    loss = Step(
        "The loss",
        (f"C = {describe_formula(net.loss)}(a[{len(layers)}], y)",),
        (("output a", a[-1]), ("target y", np.ravel(np.asarray(y)))),
        f"C = {gradient.loss:.6g}",
    )
    shape = " - ".join(str(len(v)) for v in a)
    return Explanation(
        f"One sample through a {shape} network", tuple(forward), loss, tuple(backward)
    )


def _forward(
    level: int,
    name: str,
    below: np.ndarray,
    W: np.ndarray,
    b: np.ndarray,
    z: np.ndarray,
    a: np.ndarray,
) -> Step:
    k = int(np.argmax(np.abs(z)))
    return Step(
        f"Layer {level}: {name}",
        (f"z[{level}] = a[{level - 1}] W[{level}] + b[{level}]", f"a[{level}] = φ(z[{level}])"),
        ((f"a[{level - 1}]", below), (f"z[{level}]", z), (f"a[{level}]", a)),
        f"z[{level}]_{k} = {_sum(below, W[:, k])} + {_signed(b[k])} = {z[k]:.6g}",
    )


def _backward(
    level: int,
    net: Network,
    below: np.ndarray,
    delta: np.ndarray,
    dW: np.ndarray,
    above: tuple[np.ndarray, np.ndarray] | None,
) -> Step:
    layer = net.trainable_layers[level - 1]
    is_fused = isinstance(layer, Dense) and net.for_training()[1] is not net.loss
    if above is not None:
        formula = f"δ[{level}] = (δ[{level + 1}] W[{level + 1}]ᵀ) ⊙ φ'(z[{level}])"
    elif is_fused:
        formula = f"δ[{level}] = a[{level}] - y   (this output and this loss belong together)"
    else:
        formula = f"δ[{level}] = ∂C/∂a[{level}] ⊙ φ'(z[{level}])"
    i, k = (int(v) for v in np.unravel_index(np.argmax(np.abs(dW)), dW.shape))
    product = f"{_signed(below[i])}·{_signed(delta[k])} = {dW[i, k]:.6g}"
    lines = [
        f"∂C/∂w[{level}]_{i},{k} = a[{level - 1}]_{i} δ[{level}]_{k} = {product}   (the largest)"
    ]
    if above is not None:
        W, d = above
        unit = k if k < W.shape[0] else k % W.shape[0]
        back = float(d @ W[unit])
        lines.insert(0, f"∂C/∂a[{level}]_{unit} = {_sum(d, W[unit])} = {back:.6g}")
    return Step(
        f"Layer {level}: {describe(layer)}",
        (formula, f"∂C/∂W[{level}] = a[{level - 1}]ᵀ δ[{level}]", f"∂C/∂b[{level}] = δ[{level}]"),
        ((f"δ[{level}] = ∂C/∂b[{level}]", delta), (f"∂C/∂W[{level}], row by row", dW.ravel())),
        "\n".join(lines),
    )


def _sum(values: np.ndarray, weights: np.ndarray) -> str:
    """Write out the largest terms of a sum of products."""
    order = np.sort(np.argsort(-np.abs(values * weights), kind="stable")[:TERMS])
    text = " + ".join(f"{_signed(values[i])}·{_signed(weights[i])}" for i in order)
    left = len(values) - len(order)
    return f"{text} + ({left} smaller terms)" if left else text


def _signed(value: float) -> str:
    return f"({value:.4g})" if value < 0 else f"{value:.4g}"
