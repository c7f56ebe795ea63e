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
from nnbackend_numba.batches import to_panels
from nnbackend_numba.codegen import pack, words_of
from nnbackend_numba.compiling import Formula, operation
from nnbackend_numba.dense import weight_gradient
from nnbackend_numba.panels import aligned, new_panels
from nnbackend_numba.partitioning import choose_partitioning
from nnbackend_numba.products import BLOCK, LONGER
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

    def __init__(self, calls: Sequence[Call], workers: int) -> None:
        self.references: list[Any] = []  # keep alive what the table points to
        self._addresses: dict[int, int] = {}  # by the arrays' ids
        self.tick: Any = None  # the call of the kernel, as of the next one
        self.update: Any = None
        self.coefficient_table: Array = None
        self._words: list[int | float] = []  # of all operations
        self._lines: list[tuple[int, int]] = []  # address of an operation, its first word
        self._last_words: list[int] = []  # those that tell the last step to keep its gradient
        self._deferred: list[tuple[Record, Any, dict[str, Any]]] = []
        self._panels: dict[tuple[Any, ...], tuple[Array, Array]] = {}  # each matrix, its panels
        self._unwritten: dict[int, Array] = {}  # matrices by their panels' ids
        self.workers = workers
        self.partitioning = choose_partitioning(calls, workers)
        given = [call.arguments for call in calls if call.kernel == "dense_forward"]
        self._layers = [(arguments["W"], arguments["b"]) for arguments in given]
        self.lanes = lanes(self._layers[0][0].dtype.name if given else "float32")
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
        for name in record.panels:
            if (matrix := self._unwritten.pop(id(given[name]), None)) is not None:
                if record.operands[name].role != "out":
                    self._pack(matrix, given[name])
        phase = where.phase or record.split.phase
        if phase in AFTER_ALL_ROWS:
            self._flush()
        if phase != self.phase:
            self.barrier()
            self.phase = phase
        call = record.check(given, self.workers)
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

    def ranges(self, call: Any) -> list[Range]:
        found, theta, dtype = list[Range](), call.theta, call.theta.dtype
        pending = [(c, given) for r, c, given in self._deferred if r is weight_gradient]
        if self.workers == 1 and not pending:
            return super().ranges(call)
        for W, b in self._layers:
            start, after = ((_address(v) - _address(theta)) // theta.itemsize for v in (W, b))
            gradient = known(len(W), dtype, self.workers, self.lanes)
            for own, given in pending:
                if _address(own.dW) - _address(call.gradient) == start * theta.itemsize:
                    gradient = {"x": own.x, "keeps": 0, **given}
                    self._deferred = [
                        d for d in self._deferred if d[0] is not weight_gradient or d[1] is not own
                    ]
            of_b = known(b.size, dtype, self.workers, self.lanes)
            found += [Range(start, *W.shape, True, gradient), Range(after, b.size, 1, False, of_b)]
        if sum(part.rows * part.columns for part in found) != theta.size:
            raise NotRecordable("parameters outside of the layers")
        return found

    def panels(self, matrix: Array, is_flat: bool = False) -> Array:
        matrix = matrix.reshape(-1, 1) if matrix.ndim == 1 else matrix
        key = _address(matrix), matrix.shape, matrix.dtype
        if key not in self._panels:
            if any(np.may_share_memory(matrix, other) for other, _ in self._panels.values()):
                raise NotRecordable("arrays that overlap")
            made = new_panels(*matrix.shape, matrix.dtype, self.lanes)
            self._panels[key], self._unwritten[id(made)] = (matrix, made), matrix
        return self._panels[key][1]

    def count(self, matrix: Array) -> int:
        return len(matrix)

    def parts(self, matrix: Array) -> Array:
        """Return panels of a matrix for each worker."""
        return aligned((self.workers, *self.panels(matrix).shape), matrix.dtype)

    def wide(self, vector: Array) -> Array:
        """Return an array for the numbers of a vector in all lanes, for each worker."""
        return aligned((self.workers, vector.size, self.lanes), vector.dtype)

    def scratch(self, dW: Array) -> Array:
        """Return an array for some rows of a weight gradient, for each worker."""
        return aligned((self.workers, BLOCK * dW.shape[1] + LONGER), dW.dtype)

    def transposes(self, matrix: Array) -> Array:
        """Return panels of a matrix's transpose for each worker."""
        n_panels, units, width = self.panels(matrix).shape
        shape = (self.workers, -(-units // width), n_panels * width, width)
        return aligned(shape, matrix.dtype)

    def _pack(self, matrix: Array, panels: Array) -> None:
        """Copy a matrix that no operation of the step has written into its panels."""
        is_x = self.partitioning.is_x(matrix)
        where = Where("columns", True) if is_x else HERE
        given = {"data": matrix, "rows": len(matrix), "is_same": int(matrix.dtype.kind == "f")}
        self.run(to_panels, SimpleNamespace(), where=where, **given, out=panels)


def _address(array: Array) -> int:
    """Return an array's address. Raises: NotRecordable for one that operations cannot read."""
    if not array.flags.c_contiguous or not array.dtype.isnative:
        layout = f"{array.dtype} {array.strides}"
        raise NotRecordable(f"an array that is not C-contiguous and native: {layout}")
    return int(array.ctypes.data)
