"""The NumPy backend with compiled and fused element-wise loops.

NumPy's BLAS computes the matrix products. NumPy also evaluates formulas that numba cannot compile,
such as some custom ones, with the same results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.backend import philox
from nnbackend.backend.base import BATCH, COUNT, LOSS, MOMENTUM, PENALTY, RATE, STEP, WEIGHT
from nnbackend.backend.formulas import Activation, Loss, UpdateRule
from nnbackend_numba import forking, loops  # noqa: F401
from nnbackend_numba.assembly import ELEMENTWISE, UPDATES, is_readable
from nnbackend_numba.compiling import compiled, usable
from nnbackend_numba.program import Program
from nnbackend_numba.recorder import NotRecordable, RecordableBackend, record
from nnbackend_numpy import threads

logger = logging.getLogger("nnbackend")
Array = NDArray[Any]


class NumbaBackend(RecordableBackend):
    """NumPy arrays with loops compiled by numba."""

    name = "numba"
    device = "numba:0"

    def __init__(self) -> None:
        super().__init__()
        self._threads = threads.of_blas()

    # ---- layers -----------------------------------------------------------------------------

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        np.dot(x, W, out=z)
        if phi.kernel == "identity":
            compiled(loops.bias, z.dtype)(z, b, z, 0, b.size)
            if a is not z:
                np.copyto(a, z)
        elif phi.kernel == "softmax":
            compiled(loops.softmax, z.dtype)(z, b, a)
        elif (loop := self._activation(phi, "f", z.dtype)) is not None:
            loop(z, b, a, 0, b.size)
        else:
            z += b
            a[...] = phi.value(z, np)

    def dense_backward(
        self,
        x: Array,
        W: Array,
        z: Array,
        a: Array,
        phi: Activation,
        delta: Array,
        dW: Array,
        db: Array,
        dx: Array | None,
    ) -> None:
        if phi.kernel != "identity":
            if (loop := self._activation(phi, "df", delta.dtype)) is not None:
                loop(delta, z, a, 0, db.size)
            else:
                delta[...] = phi.delta(delta, z, a, np)
        compiled(loops.bias_gradient, delta.dtype)(delta, db, 0, db.size)
        np.dot(x.T, delta, out=dW)
        if dx is not None:
            np.dot(delta, W.T, out=dx)

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        compiled(loops.maxout, z.dtype)(z, a, which)

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        compiled(loops.maxout_gradient, delta.dtype)(delta, which, dz)

    def dropout_forward(
        self,
        x: Array,
        rate: float,
        key: tuple[int, int],
        clock: Array,
        first_row: int,
        a: Array,
        mask: Array,
    ) -> None:
        numbers = map(np.uint64, (*key, clock[STEP], first_row, philox.keep_threshold(rate)))
        scale = x.dtype.type(1.0 / (1.0 - rate))
        compiled(loops.dropout, x.dtype)(x, *numbers, scale, a, mask)

    def dropout_backward(self, da: Array, mask: Array, rate: float, dx: Array) -> None:
        scale = da.dtype.type(1.0 / (1.0 - rate))
        compiled(loops.dropout_gradient, da.dtype)(da, mask, scale, dx)

    # ---- loss -------------------------------------------------------------------------------

    def loss_and_delta(
        self, loss: Loss, out: Array, y: Array, weight: Array | None, delta: Array, totals: Array
    ) -> None:
        kind, rows = out.dtype.type, out.shape[0]
        if weight is None and loss.kernel == "softmax_cross_entropy" and y.ndim == 1:
            loop = compiled(loops.softmax_cross_entropy_labels, out.dtype)
            total = loop(out, y, kind(loss.params[0]), kind(1.0 / rows), delta)
        elif weight is None and loss.kernel in ELEMENTWISE and y.ndim == 2:
            loop = compiled(loops.loss_of_elements, out.dtype, loss.formula)
            total = loop(out, y, kind(1.0 / rows), delta)
        else:
            super().loss_and_delta(loss, out, y, weight, delta, totals)
            return
        totals[LOSS] += total
        totals[WEIGHT] += rows

    # ---- update -----------------------------------------------------------------------------

    def add_penalty(
        self, weights: Array, gradient: Array, l1: float, l2: float, rows: int, totals: Array
    ) -> None:
        kind = weights.dtype.type
        loop = compiled(loops.penalty, weights.dtype)
        totals[PENALTY] += rows * loop(weights, gradient, kind(l1), kind(l2))

    def optimizer_step(
        self,
        rule: UpdateRule,
        theta: Array,
        gradient: Array,
        state: Sequence[Array],
        hyper: Array,
        weight_decay: float,
        n_weights: int,
    ) -> None:
        if len(state) >= len(UPDATES):
            super().optimizer_step(rule, theta, gradient, state, hyper, weight_decay, n_weights)
            return
        kind, rate = theta.dtype.type, float(hyper[RATE])
        c = rule.coefficients(rate, float(hyper[MOMENTUM]), float(hyper[COUNT]))
        c = tuple([kind(v) for v in c])
        p = tuple([kind(v) for v in rule.params])
        if (loop := self._update(rule, len(state), c, p, theta.dtype)) is None:
            super().optimizer_step(rule, theta, gradient, state, hyper, weight_decay, n_weights)
            return
        vectors = [theta, gradient, *state, theta, theta][:4]  # the rule ignores the rest
        start = 0
        if weight_decay:
            keep = kind(1.0 - rate * weight_decay)
            loop(*vectors, c, p, keep, 0, n_weights)
            start = n_weights
        loop(*vectors, c, p, kind(1), start, theta.size)

    def max_norm(self, W: Array, limit: float) -> None:
        norms, n = self._scratch(W[0]), W.shape[1]
        compiled(loops.limit_columns, W.dtype)(W, W.dtype.type(limit), norms, 0, n)

    # ---- batches ----------------------------------------------------------------------------

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        compiled(loops.tick, hyper.dtype)(clock, rates, hyper)

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        start = int(clock[BATCH]) * batch_size
        if not is_readable(data):
            super().gather_rows(data, order, clock, batch_size, out)
            return
        rows, into = (data, out) if data.ndim == 2 else (data[:, None], out[:, None])
        compiled(loops.gather, out.dtype)(rows, order, start, into, 0, into.shape[1])

    def scale_rows(
        self, rows: Array, shift: Array, factor: Array, clip: float | None, out: Array
    ) -> None:
        if not is_readable(rows) or not rows.flags.c_contiguous:  # one compilation per layout
            super().scale_rows(rows, shift, factor, clip, out)
            return
        loop = compiled(loops.scale_rows, out.dtype)
        loop(rows, shift, factor, clip or 0.0, out, 0, out.shape[1])

    # ---- steps ------------------------------------------------------------------------------

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        try:
            return Program(record(self, step), self._threads).run
        except NotRecordable as reason:
            logger.info("steps run kernel by kernel: %s", str(reason).splitlines()[0])
            return super().capture(step)

    # ---- compiling --------------------------------------------------------------------------

    def _activation(self, phi: Activation, role: str, dtype: np.dtype[Any]) -> Any:
        """Return the compiled loop of an activation ("f") or its slope ("df"), or None."""
        if phi.kernel == "softmax":  # its units depend on each other
            return None
        loop = _ACTIVATIONS[role, getattr(phi, f"{role}_is_plain")]

        def two_numbers() -> list[Any]:
            z = np.full((1, 2), 0.5, dtype)
            return [z, z[0].copy() if role == "f" else z, z, 0, 2]

        return usable(loop, dtype, getattr(phi, role), two_numbers)

    def _update(self, rule: UpdateRule, n_states: int, c: Any, p: Any, dtype: np.dtype[Any]) -> Any:
        """Return the compiled loop of an update rule, or None if numba cannot compile it."""

        def one_number() -> list[Any]:
            return [*np.ones((4, 1), dtype), c, p, dtype.type(1), 0, 1]

        loop = UPDATES[n_states]
        return usable(loop, dtype, rule.recurrence, one_number, len(c), len(p))


_ACTIVATIONS = {
    ("f", True): loops.bias_value_plain,
    ("f", False): loops.bias_value,
    ("df", True): loops.slope_plain,
    ("df", False): loops.slope,
}
