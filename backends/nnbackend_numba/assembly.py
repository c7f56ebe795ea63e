"""Assemble the table of operations of a step from its recorded kernel calls.

A phase divides the work of its operations in one way. A barrier precedes each new phase, so that a
worker can read what the others wrote. Weight gradients need all rows, so they are deferred until
the backward pass has finished all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba.codegen import pack, words_of
from nnbackend_numba.compiling import Formula, operation
from nnbackend_numba.partitioning import choose_partitioning
from nnbackend_numba.recorder import Call, NotRecordable
from nnbackend_numba.records import INPUTS, ONE, UNITS, VECTOR, Record
from nnbackend_numba.steps import KERNELS, AbstractStep, Where

AFTER_ALL_ROWS = {split.phase for split in (ONE, INPUTS, UNITS, VECTOR)}
STEPS_AT_ONCE = 4096  # the rows of the table of coefficients


class Assembly(AbstractStep):
    """The table of one step's operations, and the state that a program needs to run it.

    Raises: NotRecordable for a kernel, a formula or an array that operations do not support.
    """

    def __init__(self, calls: Sequence[Call], workers: int) -> None:
        self.references: list[Any] = []  # keep alive what the table points to
        self._addresses: dict[int, int] = {}  # by the arrays' ids
        self.tick: Any = None  # the call of the kernel, as of the next one
        self.update: Any = None
        self.coefficient_table: Array = None
        self._words: list[int | float] = []  # of all operations
        self._lines: list[tuple[int, int]] = []  # address of an operation, its first word
        self._deferred: list[tuple[Record, Any, dict[str, Any]]] = []
        self.workers = workers
        self.partitioning = choose_partitioning(calls, workers)
        given = [call.arguments for call in calls if call.kernel == "dense_forward"]
        self._layers = [(arguments["W"], arguments["b"]) for arguments in given]
        for call in calls:
            self._add(call)
        self._flush()
        self.barrier()
        packed = pack(self._words)
        self.references.append(packed)
        self.table = np.array(self._lines, np.int64)  # addresses of operations and of their words
        self.table[:, 1] = packed.ctypes.data + packed.itemsize * self.table[:, 1]

    def _add(self, call: Call) -> None:
        """Append the operations of a kernel."""
        if call.kernel not in KERNELS:
            raise NotRecordable(f"{call.kernel} has no operations")
        arguments = SimpleNamespace(**call.arguments)
        if call.kernel == "tick":
            if self._lines:
                raise NotRecordable("a tick within a step")
            self.tick = arguments
        try:
            KERNELS[call.kernel](self, arguments)
        except NotImplementedError as error:
            raise NotRecordable(f"{call.kernel}: {error}") from error

    def _run(
        self, record: Record, given: dict[str, Any], formula: Formula | None, where: Where
    ) -> None:
        phase = where.phase or record.split.phase
        if phase in AFTER_ALL_ROWS:
            self._flush()
        if phase != self.phase:
            self.barrier()
            self.phase = phase
        call = record.check(given, self.workers)
        made = operation(record, call, formula)
        self._lines.append((made.address, len(self._words)))
        self._words += [self._word(v) for _, v in words_of(record, call, where.by_columns)]
        self.references += [made, *call.values.values()]

    def _word(self, value: Any) -> int | float:
        """Return a number unchanged, or an array's address, which is slow to read and cached."""
        if not isinstance(value, np.ndarray):
            return value if isinstance(value, float) else int(value)
        if (place := id(value)) not in self._addresses:  # ids stay valid: see `references`
            self._addresses[place] = _address(value)
        return self._addresses[place]

    def defer(self, record: Record, call: Any, **others: Any) -> None:
        self._deferred.append((record, call, others))

    def _flush(self) -> None:
        """Append the deferred operations."""
        deferred, self._deferred = self._deferred, []
        for record, call, others in deferred:
            self.run(record, call, where=Where(INPUTS.phase), **others)

    def barrier(self) -> None:
        if self._lines and self._lines[-1][0] != 0:
            self._lines.append((0, 0))

    def coefficients(self, call: Any) -> Array:
        if self.update is not None:
            raise NotRecordable("a second update within a step")
        n = len(call.rule.coefficients(0.1, 0.0, 1.0))
        self.update, self.coefficient_table = (
            call,
            np.zeros((STEPS_AT_ONCE, 1 + n), call.theta.dtype),
        )
        return self.coefficient_table

    def ranges(self, call: Any) -> list[tuple[int, int, int, bool]]:
        if self.workers == 1:
            return super().ranges(call)
        theta, found = call.theta, []
        for W, b in self._layers:
            start, after = ((_address(v) - _address(theta)) // theta.itemsize for v in (W, b))
            found += [(start, *W.shape, True), (after, b.size, 1, False)]
        if sum(rows * columns for _, rows, columns, _ in found) != theta.size:
            raise NotRecordable("parameters outside of the layers")
        return found


def _address(array: Array) -> int:
    """Return an array's address. Raises: NotRecordable for one that operations cannot read."""
    if not array.flags.c_contiguous or not array.dtype.isnative:
        layout = f"{array.dtype} {array.strides}"
        raise NotRecordable(f"an array that is not C-contiguous and native: {layout}")
    return int(array.ctypes.data)
