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
from nnbackend_numba.batches import source_of, to_panels
from nnbackend_numba.buffers import Buffers, address_in_memory, offset
from nnbackend_numba.codegen import pack, words_of
from nnbackend_numba.compiling import Formula, operation
from nnbackend_numba.dense import weight_gradient
from nnbackend_numba.partitioning import choose_partitioning
from nnbackend_numba.recorder import Call, NotRecordable
from nnbackend_numba.records import INPUTS, ONE, UNITS, VECTOR, Record
from nnbackend_numba.steps import HERE, KERNELS, AbstractStep, Range, Where, known
from nnbackend_numba.tiles import lanes

AFTER_ALL_ROWS = {split.phase for split in (ONE, INPUTS, UNITS, VECTOR)}
STEPS_AT_ONCE = 4096  # the rows of the table of coefficients


class Assembly(AbstractStep):
    """The table of one step's operations, and the state that a program needs to run it.

    Raises: NotRecordable for a kernel, a formula or an array that operations do not support.
    """

    def __init__(self, calls: Sequence[Call], workers: int, is_narrow: bool = False) -> None:
        self.references: list[Any] = []  # keep alive what the table points to
        self._addresses: dict[int, int] = {}  # by the arrays' ids
        self.tick: Any = None  # the call of the kernel, as of the next one
        self.update: Any = None
        self.coefficient_table: Array = None
        self._words: list[int | float] = []  # of all operations
        self._lines: list[tuple[int, int]] = []  # address of an operation, its first word
        self._last_words: list[int] = []  # that make the last step keep its gradient
        self._deferred: list[tuple[Record, Any, dict[str, Any]]] = []
        self.workers, self.c_calls = workers, []
        self.partitioning = choose_partitioning(calls, workers)
        given = {  # once for each layer, which has several calls if shards of a batch do
            id(call.arguments["W"]): call.arguments
            for call in calls
            if call.kernel == "dense_forward"
        }
        self._layers = [(arguments["W"], arguments["b"]) for arguments in given.values()]
        self.lanes = lanes(self._layers[0][0].dtype.name if given else "float32")
        self.buffers = Buffers(workers, self.lanes)
        self.is_narrow = is_narrow and bool(given) and self._layers[0][0].dtype == np.float32
        for call in calls:
            self._add(call)
        self._flush()
        self.barrier()
        packed = pack(self._words)
        kept = packed.copy()
        kept[self._last_words] = 1
        self.references += [packed, kept]
        self.table, self.last_table = self._table(packed), self._table(kept)

    def _table(self, words: Array) -> Array:
        """Return the addresses of all operations and of their words."""
        table = np.array(self._lines, np.int64)
        table[:, 1] = words.ctypes.data + words.itemsize * table[:, 1]
        return table

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
        call = record.check(given, self.workers)
        for name in record.panels:
            matrix = self.buffers.unwritten.pop(id(given[name]), None)
            if matrix is not None and record.operands[name].role != "out":
                self._pack(matrix, given[name])
        phase = where.phase or record.split.phase
        if phase in AFTER_ALL_ROWS:
            self._flush()
        if phase != self.phase:
            self.barrier()
            self.phase = phase
        made = operation(record, call, formula)
        self._lines.append((made.address, len(self._words)))
        for name, value in words_of(record, call, where.by_columns):
            if name == "keeps":
                self._last_words.append(len(self._words))
            self._words.append(self._word(value))
        self.references += [made, *call.values.values()]

    def _word(self, value: Any) -> int | float:
        """Return a number unchanged, or an array's address, which is slow to read and cached."""
        if not isinstance(value, np.ndarray):
            return value if isinstance(value, float) else int(value)
        if (place := id(value)) not in self._addresses:  # ids stay valid: see `references`
            self._addresses[place] = address_in_memory(value)
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

    def ranges(self, call: Any) -> list[Range]:
        found, theta = list[Range](), call.theta
        pending = [d for d in self._deferred if d[0] is weight_gradient]
        if self.workers == 1 and not pending:
            return super().ranges(call)
        for W, b in self._layers:
            start, after = offset(W, theta), offset(b, theta)
            gradients = [known(n, theta.dtype, self.workers, self.lanes) for n in (len(W), b.size)]
            for deferred in pending:
                _, own, given = deferred
                if offset(own.dW, call.gradient) == start:  # computed and used block by block
                    gradients[0] = {"keeps": 0, **given}
                    self._deferred = [d for d in self._deferred if d is not deferred]
            found.append(Range(start, len(W), b.size, True, gradients[0]))
            found.append(Range(after, b.size, 1, False, gradients[1]))
        if sum(part.rows * part.columns for part in found) != theta.size:
            raise NotRecordable("parameters outside of the layers")
        return found

    def panels(self, matrix: Array, is_flat: bool = False) -> Array:
        return self.buffers.panels(matrix)

    def count(self, matrix: Array) -> int:
        return len(matrix)

    def _pack(self, matrix: Array, panels: Array) -> None:
        """Copy a matrix that no operation of the step has written into its panels."""
        is_x = self.partitioning.is_x(matrix)
        where = Where("columns", True) if is_x else HERE
        given = source_of(matrix, matrix)
        self.run(to_panels, SimpleNamespace(), where=where, **given, out=panels)
