"""Loss functions: a value and its gradient from one expression.

Each returns the loss of every row, summed over the outputs, and the gradient at the network's
output. Neither is divided by the batch size: only the kernel `Backend.loss_and_delta` computes the
mean over the batch. If the output activation is the loss's partner, `on_logits` takes z instead of
a, so that nothing overflows and delta is simply a - y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nnbackend.backend.formulas import Array, Namespace
from nnbackend.named import FAMILIES, Family, make_named
from nnbackend.network.factories import shared
from nnbackend.options import check

RowsAndGradient = tuple[Array, Array]
Formula = Callable[[Array, Array, Namespace], RowsAndGradient]


@dataclass(frozen=True)
class Loss:
    """A per-sample loss and its gradient.

        formula(a, y, xp) -> ((B,) losses, (B, O) gradient dC/da)

    partner: the output activation with which `on_logits`, the same loss as a function of z, is
    used. A network tests a custom formula on a few rows and refuses one that mixes rows.
    >>> import numpy as np
    >>> Loss("doubled", lambda a, y, xp: (xp.sum((a - y) ** 2, axis=1), 2 * (a - y))).rows(
    ...     np.array([[3.0]]), np.array([[1.0]]), np)
    (array([4.]), array([[4.]]))
    """

    name: str
    formula: Formula = field(repr=False, compare=False)
    params: tuple[float, ...] = ()
    partner: str | None = field(default=None, repr=False)
    on_logits: Formula | None = field(default=None, repr=False, compare=False)
    kernel: str | None = field(default=None, repr=False)

    def rows(self, out: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        """Return the losses and the gradient at `out`."""
        return self.formula(out, y, xp)

    def fused(self) -> Loss:
        """Return the loss as a function of z, which includes the partner's activation."""
        assert self.on_logits is not None
        kernel = f"{self.partner}_{self.kernel}" if self.kernel else None
        return Loss(f"{self.name} on logits", self.on_logits, self.params, kernel=kernel)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.kernel is not None and self.name in LOSSES:
            return get_loss, (self.name, *self.params)
        return super().__reduce__()  # type: ignore[return-value]


def _tiny(a: Array, xp: Namespace) -> float:
    """Return the least distance of clipped probabilities from 0 and 1."""
    return float(xp.finfo(a.dtype).eps)


def _inside(a: Array, xp: Namespace) -> Array:
    """Clip probabilities to where their logarithm and its slope are finite."""
    tiny = _tiny(a, xp)
    return xp.where(a < tiny, tiny, xp.where(a > 1.0 - tiny, 1.0 - tiny, a))


def quadratic() -> Loss:
    """Return the quadratic loss, C = 1/2 sum_k (a_k - y_k)^2;  dC/da = a - y."""

    def formula(a: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        e = a - y
        return 0.5 * xp.sum(e * e, axis=1), e

    return Loss("quadratic", formula, kernel="quadratic")


def absolute() -> Loss:
    """Return the absolute loss, C = sum_k |a_k - y_k|;  dC/da = sign(a - y)."""

    def formula(a: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        e = a - y
        return xp.sum(xp.abs(e), axis=1), xp.sign(e)

    return Loss("absolute", formula, kernel="absolute")


def huber(threshold: float = 1.0) -> Loss:
    """Return the Huber loss of e = a - y. Source: Huber 1964.

    C = sum_k e^2 / 2 where |e| <= threshold, else threshold (|e| - threshold / 2).
    """
    check("threshold", threshold, lambda v: v > 0, "above 0", "huber")

    def formula(a: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        e = a - y
        slope = xp.where(e > threshold, threshold, xp.where(e < -threshold, -threshold, e))
        return xp.sum(slope * (e - 0.5 * slope), axis=1), slope

    return Loss("huber", formula, (threshold,), kernel="huber")


def quantile(q: float = 0.5) -> Loss:
    """Return the loss whose minimum is the q-quantile. Source: Koenker and Bassett 1978.

    C = sum_k q e where e >= 0, else (q - 1) e; e = y - a.
    """
    check("q", q, lambda v: 0 < v < 1, "between 0 and 1", "quantile")

    def formula(a: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        e = y - a
        slope = xp.where(e > 0, q, xp.where(e < 0, q - 1.0, xp.zeros_like(e)))
        return xp.sum(slope * e, axis=1), -slope

    return Loss("quantile", formula, (q,), kernel="quantile")


def poisson() -> Loss:
    """Return half the Poisson deviance, C = sum_k a - y + y log(y / a);  dC/da = 1 - y / a.

    Targets are counts, at least 0; outputs must be above 0. With the exponential: delta = a - y.
    """

    def constant(y: Array, xp: Namespace) -> Array:
        return y * xp.log(xp.where(y > 0, y, 1.0)) - y

    def formula(a: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        tiny = _tiny(a, xp)
        a = xp.where(a < tiny, tiny, a)
        return xp.sum(a - y * xp.log(a) + constant(y, xp), axis=1), 1.0 - y / a

    def on_logits(z: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        a = xp.exp(z)
        return xp.sum(a - y * z + constant(y, xp), axis=1), a - y

    return Loss("poisson", formula, (), "exponential", on_logits, "poisson")


def binary_cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Return the cross-entropy of independent outputs; with sigmoid, delta = a - y.

    C = -sum_k y log a + (1 - y) log(1 - a). Smoothing moves y to (1 - s) y + s / 2.
    """
    _check_smoothing(label_smoothing, "binary_cross_entropy")

    def smooth(y: Array) -> Array:
        return (1.0 - label_smoothing) * y + 0.5 * label_smoothing if label_smoothing else y

    def formula(a: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        a, y = _inside(a, xp), smooth(y)
        rows = -xp.sum(y * xp.log(a) + (1.0 - y) * xp.log1p(-a), axis=1)
        return rows, (a - y) / (a * (1.0 - a))

    def on_logits(z: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        y, e = smooth(y), xp.exp(-xp.abs(z))
        rows = xp.sum(xp.where(z > 0, z, 0.0) - z * y + xp.log1p(e), axis=1)
        return rows, xp.where(z >= 0, xp.ones_like(e), e) / (1.0 + e) - y

    return Loss(
        "binary_cross_entropy", formula, (label_smoothing,), "sigmoid", on_logits,
        "binary_cross_entropy",
    )  # fmt: skip


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Return C = -sum_k y_k log a_k over exclusive classes; with softmax, delta = a - y.

    Smoothing moves y to (1 - s) y + s / K. Source: Szegedy et al. 2015, section 7.
    """
    _check_smoothing(label_smoothing, "cross_entropy")

    def smooth(y: Array) -> Array:
        return (1.0 - label_smoothing) * y + label_smoothing / y.shape[1] if label_smoothing else y

    def formula(a: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        a, y = _inside(a, xp), smooth(y)
        return -xp.sum(y * xp.log(a), axis=1), -y / a

    def on_logits(z: Array, y: Array, xp: Namespace) -> RowsAndGradient:
        y = smooth(y)
        z = z - xp.max(z, axis=1, keepdims=True)
        e = xp.exp(z)
        total = xp.sum(e, axis=1, keepdims=True)
        rows = -xp.sum(y * (z - xp.log(total)), axis=1)
        return rows, e / total * xp.sum(y, axis=1, keepdims=True) - y

    return Loss("cross_entropy", formula, (label_smoothing,), "softmax", on_logits, "cross_entropy")


def _check_smoothing(value: float, loss: str) -> None:
    check("label_smoothing", value, lambda v: 0 <= v < 1, "at least 0 and below 1", loss)


LOSSES: dict[str, Callable[..., Loss]] = {
    make.__name__: shared(make)
    for make in (
        *(quadratic, absolute, huber, quantile, poisson, binary_cross_entropy, cross_entropy),
    )
}

# The activation of a last layer that is written as a number.
OUTPUT_ACTIVATIONS = {
    "cross_entropy": "softmax",
    "binary_cross_entropy": "sigmoid",
    "poisson": "exponential",
}


FAMILIES["loss"] = Family(LOSSES, "a name or an nnbackend loss")


def get_loss(choice: str | Loss, *params: float) -> Loss:
    """Return the loss of a name such as "huber:2"; return a Loss unchanged.

    Raises: ArgumentError for an unknown name, with the closest known name.
    >>> get_loss("huber", 2.0)
    Loss(name='huber', params=(2.0,))
    """
    if isinstance(choice, Loss):
        return choice
    made: Loss = make_named("loss", choice, *params)
    return made
