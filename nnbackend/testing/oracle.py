"""The textbook's multilayer perceptron in float64, for comparison with the engine.

Written from books and papers, layer by layer, on the host. It shares names with the engine, but no
formula. It is slow and simple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import special

Array: TypeAlias = Any  # NumPy arrays of float64
Function = Callable[..., Array]

_SELU = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, appendix
_GELU = np.sqrt(2.0 / np.pi)


def _gelu(z: Array) -> Array:
    return z * special.expit(2.0 * _GELU * (z + 0.044715 * z**3))  # (1 + tanh u) / 2 = expit(2u)


def _softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


ACTIVATIONS: dict[str, Function] = {
    "identity": lambda z: z,
    "step": lambda z: np.heaviside(z, 0.0),
    "relu": lambda z: np.maximum(z, 0.0),
    "leaky_relu": lambda z, alpha=0.1: np.maximum(z, 0.0) + alpha * np.minimum(z, 0.0),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "exponential": np.exp,
    "elu": lambda z, alpha=1.0: np.maximum(z, 0.0) + alpha * np.expm1(np.minimum(z, 0.0)),
    "selu": lambda z: _SELU[0] * (np.maximum(z, 0.0) + _SELU[1] * np.expm1(np.minimum(z, 0.0))),
    "softplus": _softplus,
    "silu": lambda z: z * special.expit(z),
    "gelu": _gelu,
    "mish": lambda z: z * np.tanh(_softplus(z)),
    "softmax": lambda z: special.softmax(z, axis=1),
}


def _gelu_slope(z: Array) -> Array:
    u = 2.0 * _GELU * (z + 0.044715 * z**3)
    return special.expit(u) + z * special.expit(u) * special.expit(-u) * (
        2.0 * _GELU * (1.0 + 3 * 0.044715 * z**2)
    )


def _mish_slope(z: Array) -> Array:
    return np.tanh(_softplus(z)) + z * special.expit(z) / np.cosh(_softplus(z)) ** 2


SLOPES: dict[str, Function] = {
    "identity": np.ones_like,
    "step": np.zeros_like,
    "relu": lambda z: np.heaviside(z, 0.0),  # the slope at 0 is 0
    "leaky_relu": lambda z, alpha=0.1: np.where(z > 0, 1.0, alpha),
    "tanh": lambda z: 1.0 / np.cosh(z) ** 2,
    "sigmoid": lambda z: special.expit(z) * special.expit(-z),
    "exponential": np.exp,
    "elu": lambda z, alpha=1.0: np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0.0))),
    "selu": lambda z: _SELU[0] * np.where(z > 0, 1.0, _SELU[1] * np.exp(np.minimum(z, 0.0))),
    "softplus": special.expit,
    "silu": lambda z: special.expit(z) * (1.0 + z * special.expit(-z)),
    "gelu": _gelu_slope,
    "mish": _mish_slope,
}


def loss_rows(name: str, params: Sequence[float], a: Array, y: Array) -> Array:
    """Return each row's loss, (B,)."""
    e, (p, *_) = a - y, (*params, 0.0)
    if name == "quadratic":
        terms = e**2 / 2
    elif name == "absolute":
        terms = np.abs(e)
    elif name == "huber":
        terms = special.huber(p, e)
    elif name == "quantile":
        terms = np.maximum(p * -e, (p - 1.0) * -e)
    elif name == "poisson":
        terms = special.kl_div(y, a)
    elif name == "binary_cross_entropy":
        y = (1.0 - p) * y + p / 2
        terms = -special.xlogy(y, a) - special.xlog1py(1.0 - y, -a)
    elif name == "cross_entropy":
        terms = -special.xlogy((1.0 - p) * y + p / y.shape[1], a)
    else:
        raise KeyError(f"the oracle has no loss {name!r}")
    return terms.sum(axis=1)


def loss_slope(name: str, params: Sequence[float], a: Array, y: Array) -> Array:
    """Return dC/da of each row, (B, O)."""
    e, (p, *_) = a - y, (*params, 0.0)
    if name == "quadratic":
        return e
    if name == "absolute":
        return np.sign(e)
    if name == "huber":
        return np.clip(e, -p, p)
    if name == "quantile":
        return np.where(e > 0, 1.0 - p, -p)
    if name == "poisson":
        return 1.0 - y / a
    if name == "binary_cross_entropy":
        y = (1.0 - p) * y + p / 2
        return (1.0 - y) / (1.0 - a) - y / a
    if name == "cross_entropy":
        return -((1.0 - p) * y + p / y.shape[1]) / a
    raise KeyError(f"the oracle has no loss {name!r}")


@dataclass
class Layer:
    """One layer, by its name: "dense", "maxout" or "dropout"."""

    kind: str
    n_out: int
    activation: str = "identity"
    params: tuple[float, ...] = ()
    rate: float = 0.0


def describe(net: Any) -> list[Layer]:
    """Read the layers off a network, by name and number only."""
    layers, width = [], net.n_in
    for layer in net.layers:
        kind = type(layer).__name__.lower()
        width = getattr(layer, "n_out", width)
        phi = getattr(layer, "activation", None)
        name, params = (phi.name, phi.params) if phi is not None else ("identity", ())
        layers.append(Layer(kind, width, name, params, getattr(layer, "drop_rate", 0.0)))
    return layers


@dataclass
class Result:
    """The result of backpropagation; deltas are dC/dz of the trainable layers."""

    loss: float
    output: Array
    dW: list[Array]
    db: list[Array]
    deltas: list[Array]


def backprop(
    layers: Sequence[Layer],
    W: Sequence[Array],
    b: Sequence[Array],
    loss: tuple[str, Sequence[float]],
    x: Array,
    y: Array,
    weight: Array | None = None,
    masks: Sequence[Array | None] = (),
) -> Result:
    """Run the five steps of the algorithm on a batch; y is (B, O), float64 throughout.

    masks: of each layer, for dropout; without masks, dropout layers are the identity.
    """
    a, learning, memory = x, 0, []
    for i, layer in enumerate(layers):  # feed forward
        below = a
        if layer.kind == "dropout":
            mask = masks[i] if masks else None
            a = below if mask is None else below * mask / (1.0 - layer.rate)
            memory.append((below, mask, -1))
            continue
        z = below @ W[learning] + b[learning]
        if layer.kind == "maxout":
            a = np.stack(np.split(z, z.shape[1] // layer.n_out, axis=1)).max(axis=0)
        else:
            a = ACTIVATIONS[layer.activation](z, *layer.params)
        memory.append((below, z, learning))
        learning += 1
    share = np.full(len(x), 1.0) if weight is None else weight
    share = share / share.sum()
    rows = loss_rows(*loss, a, y)
    result = Result(float(share @ rows), a, [], [], [])
    da = share[:, None] * loss_slope(*loss, a, y)
    for layer, (below, z, place) in zip(reversed(layers), reversed(memory), strict=True):
        if place < 0:
            da = da if z is None else da * z / (1.0 - layer.rate)
            continue
        delta = _delta(layer, z, da)
        result.dW.insert(0, below.T @ delta)
        result.db.insert(0, delta.sum(axis=0))
        result.deltas.insert(0, delta)
        da = delta @ W[place].T
    return result


def _delta(layer: Layer, z: Array, da: Array) -> Array:
    """Return dC/dz from dC/da."""
    if layer.kind == "maxout":
        pieces = np.split(z, z.shape[1] // layer.n_out, axis=1)
        winner = np.stack(pieces).argmax(axis=0)
        return np.concatenate([da * (winner == k) for k in range(len(pieces))], axis=1)
    if layer.activation == "softmax":
        a = special.softmax(z, axis=1)
        jacobian = np.einsum("bi,ij->bij", a, np.eye(a.shape[1])) - np.einsum("bi,bj->bij", a, a)
        return np.einsum("bij,bi->bj", jacobian, da)
    return da * SLOPES[layer.activation](z, *layer.params)


class Descent:
    """An update rule of the papers on one vector, in float64, step by step."""

    def __init__(self, rule: Any, theta: Array) -> None:
        self.rule, self.name = rule, type(rule).__name__.lower()
        self.theta = theta.astype(np.float64)
        self.t = 0
        self.first, self.second = np.zeros_like(self.theta), np.zeros_like(self.theta)

    def step(self, g: Array) -> None:
        """Move theta once."""
        self.t += 1
        self.theta = self.theta + getattr(self, f"_{self.name}")(g, self.rule)

    def _sgd(self, g: Array, rule: Any) -> Array:
        # Sutskever et al. 2013, equations 1 and 3, with the look-ahead point as the parameters.
        before = self.first
        self.first = rule.momentum * before - rule.learning_rate * g
        if not rule.nesterov:
            return self.first
        return (1.0 + rule.momentum) * self.first - rule.momentum * before

    def _adagrad(self, g: Array, rule: Any) -> Array:
        self.first = self.first + g**2
        return -rule.learning_rate * g / (np.sqrt(self.first) + rule.eps)

    def _rmsprop(self, g: Array, rule: Any) -> Array:
        self.first = rule.rho * self.first + (1 - rule.rho) * g**2
        return -rule.learning_rate * g / (np.sqrt(self.first) + rule.eps)

    def _adadelta(self, g: Array, rule: Any) -> Array:
        # Zeiler 2012, algorithm 1: E[g^2], then the step, then E[dx^2].
        self.first = rule.rho * self.first + (1 - rule.rho) * g**2
        dx = -np.sqrt(self.second + rule.eps) / np.sqrt(self.first + rule.eps) * g
        self.second = rule.rho * self.second + (1 - rule.rho) * dx**2
        return rule.learning_rate * dx

    def _adam(self, g: Array, rule: Any) -> Array:
        # Kingma and Ba 2014, algorithm 1.
        self.first = rule.beta1 * self.first + (1 - rule.beta1) * g
        self.second = rule.beta2 * self.second + (1 - rule.beta2) * g**2
        m_hat = self.first / (1 - rule.beta1**self.t)
        v_hat = self.second / (1 - rule.beta2**self.t)
        return -rule.learning_rate * m_hat / (np.sqrt(v_hat) + rule.eps)

    def _adamw(self, g: Array, rule: Any) -> Array:
        return self._adam(g, rule)  # its decay applies to weights only: tested separately
