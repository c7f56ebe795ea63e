"""Assemble the table of operations of a step from its recorded kernel calls.

Each kernel has a method of its name, which appends its operations. A phase partitions the work of
its operations in one of the ways below. A barrier precedes each new phase, so that a worker can
read what the others wrote. Weight gradients need all rows, so they are deferred until the backward
pass has finished all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.base import LOSS, PENALTY, WEIGHT
from nnbackend.backend.formulas import Activation, Array, Loss, UpdateRule
from nnbackend_numba import loops, operations
from nnbackend_numba.compiling import COMPILE_ERRORS, compiled, operation
from nnbackend_numba.intrinsics import gemm_address
from nnbackend_numba.partitioning import choose_partitioning
from nnbackend_numba.recorder import Call, NotRecordable

# What a phase partitions: nothing (the first worker does it), rows of the batch, columns of the
# first x, rows of each W, columns of each W, the flat vector. Layers partitioned by inputs add
# phases.
ONE, ROWS, COLUMNS, INPUTS, UNITS, VECTOR = "one", "rows", "columns", "inputs", "units", "vector"
STEPS_AT_ONCE = 4096  # the lines of the table of coefficients
UPDATES = (loops.update0, loops.update1, loops.update2)
# Losses that are a sum over the outputs of one term each.
ELEMENTWISE = {
    *("quadratic", "absolute", "huber", "quantile"),
    *("sigmoid_binary_cross_entropy", "exponential_poisson"),
}


class Assembly:
    """The table of one step's operations, and the state that a program needs to run it.

    Raises: NotRecordable for a kernel, a formula or an array that operations do not support.
    """

    def __init__(self, calls: Sequence[Call], most_workers: int) -> None:
        self.references: list[Any] = []  # keep alive what the table points to
        self._addresses: dict[int, int] = {}  # by the arrays' ids
        self.multiplications = 0
        self.clock: Array = None
        self.rates: Array = None
        self.rule: UpdateRule | None = None
        self.hyper: Array = None
        self.weight_decay = 0.0
        self.coefficients = np.zeros((STEPS_AT_ONCE, 3))
        self._lines: list[tuple[int, int, int]] = []
        self._phase = ""
        self._deferred: list[tuple[Any, ...]] = []
        self._workers = most_workers
        self._partitioning = choose_partitioning(calls, most_workers)
        self._layers: list[tuple[Array, Array]] = []  # W, b
        for call in calls:
            try:
                getattr(self, call.kernel, _unknown)(**call.arguments)
            except COMPILE_ERRORS as error:
                raise NotRecordable(f"{call.kernel}: {error}") from error
        self._flush()
        self._add_barrier()
        self.table = np.array(self._lines, np.int64)

    # ---- the table --------------------------------------------------------------------------

    def _add(
        self,
        phase: str,
        body: Callable[..., Any],
        dtype: Any,
        loop: Any,
        ints: Sequence[Any],
        floats: Sequence[float] = (),
        **names: Any,
    ) -> None:
        """Append an operation; arrays among `ints` become addresses."""
        if phase in (ONE, INPUTS, UNITS, VECTOR):
            self._flush()
        if phase != self._phase:
            self._add_barrier()
            self._phase = phase
        made = operation(body, dtype, loop, **names)
        numbers = np.array([self._number(v) for v in ints], np.int64)
        reals = np.array([*floats, 0.0, 0.0, 0.0], np.float64)
        self.references += [made, numbers, reals, *ints]
        self._lines.append((made.address, numbers.ctypes.data, reals.ctypes.data))

    def _number(self, value: Any) -> int:
        """Return a number unchanged, or an array's address, which is slow to read and cached."""
        if not isinstance(value, np.ndarray):
            return int(value)
        if (place := id(value)) not in self._addresses:  # ids stay valid: see `references`
            self._addresses[place] = _address(value)
        return self._addresses[place]

    def _add_barrier(self) -> None:
        """Append a barrier, unless the last line is one."""
        if self._lines and self._lines[-1][0] != 0:
            self._lines.append((0, 0, 0))

    def _flush(self) -> None:
        """Append the deferred operations."""
        deferred, self._deferred = self._deferred, []
        for arguments in deferred:
            self._add(INPUTS, *arguments)

    def _sums(self) -> Array:
        """Return an array for one partial sum per worker."""
        return np.zeros(operations.SLOT * self._workers)

    # ---- layers -----------------------------------------------------------------------------

    def dense_forward(
        self, x: Array, W: Array, b: Array, phi: Activation, z: Array, a: Array
    ) -> None:
        if phi.kernel == "softmax" or (phi.kernel == "identity" and a is not z):
            raise NotRecordable(f"{phi.kernel} within the network")
        loop: Callable[..., Any] = loops.bias_value_plain if phi.f_is_plain else loops.bias_value
        if a is z and not phi.f_is_plain:
            loop = loops.bias_value_in_place
        ready = (
            compiled(loops.bias, z.dtype)
            if phi.kernel == "identity"
            else compiled(loop, z.dtype, phi.f)
        )
        (B, n_in), n_out, dtype = x.shape, W.shape[1], z.dtype
        gemm = gemm_address(dtype.name)
        self.multiplications += B * n_in * n_out
        self._layers.append((W, b))
        if not self._partitioning.is_by_inputs(W):
            ints = [gemm, x, W, b, z, a, B, n_in, n_out]
            self._add(ROWS, operations.forward, dtype, ready, ints)
            return
        parts = np.empty((self._workers, B, n_out), dtype)
        phase = COLUMNS if x is self._partitioning.x else f"forward {_address(x)}"
        ints = [gemm, x, W, parts, B, n_in, n_out]
        self._add(phase, operations.forward_part, dtype, None, ints)
        by_columns = self._partitioning.is_next_by_inputs(W)
        phase, adding = (f"forward {_address(a)}" if by_columns else ROWS), loops.add_parts
        ints = [by_columns, parts, z, B, n_out]
        self._add(phase, operations.add_parts, dtype, compiled(adding, dtype), ints)
        self._add(phase, operations.activate, dtype, ready, [by_columns, z, b, a, B, n_out])

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
        dx: Array | None = None,
    ) -> None:
        if phi.kernel == "softmax":
            raise NotRecordable("softmax within the network")
        (B, n_in), n_out, dtype = x.shape, W.shape[1], z.dtype
        gemm = gemm_address(dtype.name)
        if phi.kernel != "identity":
            by_columns = self._partitioning.is_next_by_inputs(W)
            phase = f"back {_address(delta)}" if by_columns else ROWS
            loop: Callable[..., Any] = loops.slope_plain if phi.df_is_plain else loops.slope
            ready = compiled(loop, dtype, phi.df)
            self._add(phase, operations.slope, dtype, ready, [by_columns, delta, z, a, B, n_out])
        if dx is not None:
            self.multiplications += B * n_in * n_out
            by_columns = self._partitioning.is_by_inputs(W)
            phase = f"back {_address(dx)}" if by_columns else ROWS
            ints = [by_columns, gemm, delta, W, dx, B, n_in, n_out]
            self._add(phase, operations.input_gradient, dtype, None, ints)
        self.multiplications += B * n_in * n_out
        ints = [gemm, x, delta, dW, db, B, n_in, n_out]
        summing = compiled(loops.bias_gradient, dtype)
        self._deferred.append((operations.weight_gradient, dtype, summing, ints))

    def maxout_forward(self, z: Array, a: Array, which: Array) -> None:
        ints = [z, a, which, len(z), z.shape[1], a.shape[1]]
        self._add(ROWS, operations.maxout, z.dtype, compiled(loops.maxout, z.dtype), ints)

    def maxout_backward(self, delta: Array, which: Array, dz: Array) -> None:
        ready = compiled(loops.maxout_gradient, dz.dtype)
        ints = [delta, which, dz, len(dz), delta.shape[1], dz.shape[1]]
        self._add(ROWS, operations.maxout_gradient, dz.dtype, ready, ints)

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
        ready = compiled(loops.dropout, x.dtype)
        threshold = philox.keep_threshold(rate)
        ints = [x, a, mask, clock, *key, first_row, threshold, len(x), x.shape[1]]
        self._add(ROWS, operations.dropout, x.dtype, ready, ints, [1.0 / (1.0 - rate)])

    def dropout_backward(self, da: Array, mask: Array, rate: float, dx: Array) -> None:
        ready = compiled(loops.dropout_gradient, da.dtype)
        ints = [da, mask, dx, len(da), da.shape[1]]
        self._add(ROWS, operations.dropout_gradient, da.dtype, ready, ints, [1.0 / (1.0 - rate)])

    # ---- loss -------------------------------------------------------------------------------

    def loss_and_delta(
        self, loss: Loss, out: Array, y: Array, weight: Array | None, delta: Array, totals: Array
    ) -> None:
        dtype, (B, n_out), sums = out.dtype, out.shape, self._sums()
        ints = [out, y, delta, sums, B, n_out]
        if weight is not None:
            raise NotRecordable("sample weights")
        if loss.kernel == "softmax_cross_entropy" and y.ndim == 1:
            ready = compiled(loops.softmax_cross_entropy_labels, dtype)
            self._add(ROWS, operations.loss_of_labels, dtype, ready, ints, [loss.params[0]])
        elif loss.kernel in ELEMENTWISE and y.ndim == 2:
            ready = compiled(loops.loss_of_elements, dtype, loss.formula)
            self._add(ROWS, operations.loss_of_elements, dtype, ready, ints)
        else:
            raise NotRecordable(f"the loss {loss} with targets {y.shape}")
        self._deferred += [
            (operations.add_up, "float64", None, [totals, LOSS, sums], [1.0]),
            (operations.add, "float64", None, [totals, WEIGHT], [float(B)]),
        ]

    # ---- gradient and update ----------------------------------------------------------------

    def add_penalty(
        self, weights: Array, gradient: Array, l1: float, l2: float, rows: int, totals: Array
    ) -> None:
        dtype, sums = weights.dtype, self._sums()
        ready = compiled(loops.penalty, dtype)
        ints = [weights, gradient, sums, weights.size]
        self._add(VECTOR, operations.penalty, dtype, ready, ints, [l1, l2])
        self._add_barrier()
        self._add(VECTOR, operations.add_up, "float64", None, [totals, PENALTY, sums], [rows])

    def clip_norm(self, gradient: Array, max_norm: float) -> None:
        dtype, ints = gradient.dtype, [gradient, self._sums(), gradient.size]
        self._add(VECTOR, operations.squares, dtype, compiled(loops.squares, dtype), ints)
        self._add_barrier()
        ready = compiled(loops.shrink, dtype)
        self._add(VECTOR, operations.shrink, dtype, ready, ints, [max_norm])

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
        n_coefficients = len(rule.coefficients(0.1, 0.0, 1.0))
        if self.rule is not None or len(state) > 2 or n_coefficients > 2 or len(rule.params) > 3:
            raise NotRecordable(f"the update {rule}")
        self.rule, self.hyper, self.weight_decay = rule, hyper, weight_decay
        ready = compiled(UPDATES[len(state)], theta.dtype, rule.recurrence)
        states = [*state, theta, theta][:2]  # the rule ignores the surplus
        names = {
            "coefficients": operations.TAKE[n_coefficients],
            "constants": operations.TAKE[len(rule.params)],
        }
        ints = [theta, gradient, *states, self.coefficients, theta.size]
        for W, b in self._layers:
            places = [(_address(v) - _address(theta)) // theta.itemsize for v in (W, b)]
            self._add(
                INPUTS, operations.update, theta.dtype, ready, [*ints, *places, *W.shape],
                rule.params, **names,
            )  # fmt: skip
        if sum(W.size + b.size for W, b in self._layers) != theta.size:
            raise NotRecordable("parameters outside of the layers")

    def max_norm(self, W: Array, limit: float) -> None:
        norms, ready = np.empty(W.shape[1], W.dtype), compiled(loops.limit_columns, W.dtype)
        self._add(UNITS, operations.limit, W.dtype, ready, [W, norms, *W.shape], [limit])

    def average(self, theta: Array, ema_weights: Array, decay: float, hyper: Array) -> None:
        ready, ints = compiled(loops.average, theta.dtype), [theta, ema_weights, hyper, theta.size]
        self._add(VECTOR, operations.average, theta.dtype, ready, ints, [decay])

    # ---- batches ----------------------------------------------------------------------------

    def tick(self, clock: Array, rates: Array, hyper: Array) -> None:
        if self._lines:
            raise NotRecordable("a tick within a step")
        self.clock, self.rates = clock, rates
        ready = compiled(loops.tick, "float64")
        self._add(ONE, operations.tick, "float64", ready, [clock, rates, hyper, rates.shape[1]])

    def gather_rows(
        self, data: Array, order: Array, clock: Array, batch_size: int, out: Array
    ) -> None:
        if not is_readable(data):
            raise NotRecordable(f"rows of {data.dtype} {data.shape}")
        ready = compiled(loops.gather, out.dtype)
        columns = data.shape[1] if data.ndim == 2 else 1
        by_columns = self._partitioning.is_x(out)
        self._add(
            COLUMNS if by_columns or self._phase == COLUMNS else ROWS,
            operations.gather, out.dtype, ready,
            [by_columns, data, order, clock, out, len(data), len(out), columns, batch_size],
            source=data.dtype.type,
        )  # fmt: skip

    def scale_rows(
        self, rows: Array, shift: Array, factor: Array, clip: float | None, out: Array
    ) -> None:
        if not is_readable(rows):
            raise NotRecordable(f"rows of {rows.dtype} {rows.shape}")
        ready, by_columns = compiled(loops.scale_rows, out.dtype), self._partitioning.is_x(out)
        self._add(
            COLUMNS if by_columns else ROWS, operations.scale, out.dtype, ready,
            [by_columns, rows, shift, factor, out, *out.shape], [clip or 0.0],
            source=rows.dtype.type,
        )  # fmt: skip


def is_readable(data: Array) -> bool:
    """Return True if compiled loops can read an array: integers, float32 or float64."""
    kind, size = data.dtype.kind, data.dtype.itemsize
    return data.ndim <= 2 and (kind in "iu" or (kind == "f" and size in (4, 8)))


def _unknown(**given: Any) -> None:
    raise NotRecordable("a kernel without operations")


def _address(value: Array) -> int:
    """Return an array's address."""
    if not value.flags.c_contiguous or not value.dtype.isnative:
        raise NotRecordable(
            f"an array that is not C-contiguous and native: {value.dtype} {value.strides}"
        )
    return int(value.ctypes.data)
