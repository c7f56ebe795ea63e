"""Per-sample scores, which `Network.evaluate` averages over a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nnbackend.backend.formulas import Array, Namespace


@dataclass(frozen=True)
class Score:
    """A per-sample score: formula(a, y, xp) -> (B,)."""

    name: str
    formula: Callable[[Array, Array, Namespace], Array] = field(repr=False)
    kernel: str | None = field(default=None, repr=False)

    def rows(self, out: Array, y: Array, xp: Namespace) -> Array:
        """Return the score of each row, in the dtype of `out`."""
        return self.formula(out, y, xp)


def _right_class(a: Array, y: Array, xp: Namespace) -> Array:
    return xp.astype(xp.argmax(a, axis=1) == xp.argmax(y, axis=1), a.dtype)


def _right_answers(a: Array, y: Array, xp: Namespace) -> Array:
    return xp.astype(xp.all((a > 0.5) == (y > 0.5), axis=1), a.dtype)


def _squared_error(a: Array, y: Array, xp: Namespace) -> Array:
    e = a - y
    return xp.sum(e * e, axis=1)


# A row counts when its largest output is its class.
ACCURACY = Score("accuracy", _right_class, "accuracy")
# A row counts when all its yes-or-no outputs are right.
BINARY_ACCURACY = Score("accuracy", _right_answers, "binary_accuracy")
# evaluate converts it to r2 = 1 - sum of squares / variance of the targets.
SQUARED_ERROR = Score("r2", _squared_error, "squared_error")
