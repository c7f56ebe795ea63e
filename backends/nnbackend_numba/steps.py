"""Kernels, and the steps to which they give their operations.

A kernel computes a method of Backend. It is a record, if its operands are the method's arguments,
or a function of a step and of the call, which has the method's arguments as attributes. It does not
know whether the step runs an operation at once or records it, see `assembly`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nnbackend.backend.base import COUNT, MOMENTUM, RATE
from nnbackend.backend.formulas import Array
from nnbackend_numba.compiling import Formula, compiled
from nnbackend_numba.partitioning import Partitioning
from nnbackend_numba.recorder import SIGNATURES
from nnbackend_numba.records import SLOT, OperandError, Record

KERNELS: dict[str, Callable[[AbstractStep, Any], None]] = {}  # by the names of Backend's methods
RECORDED_ONLY: set[str] = set()


class Where(NamedTuple):
    """The phase of an operation, "" for its record's, and if workers own columns, not rows."""

    phase: str = ""
    by_columns: bool = False


HERE = Where()


class Range(NamedTuple):
    """A part of theta: rows of as many columns, from an index on.

    gradient: what computes its gradient, see `updates`.
    """

    start: int
    rows: int
    columns: int
    is_weights: bool
    gradient: dict[str, Any]


def known(rows: int, dtype: Any, workers: int = 1, lanes: int = 1) -> dict[str, Any]:
    """Return the operands of an update whose gradient is known."""
    x, turned = np.empty((0, rows, lanes), dtype), np.empty((workers, 0, 0, lanes), dtype)
    scratch = np.empty((workers, 0), dtype)
    return {"x": x, "turned": turned, "scratch": scratch, "rows": 0, "keeps": 1}


class AbstractStep(ABC):
    """What kernels give their operations to.

    c_calls: calls of C functions, each with its status: 0, or the number of an error.
    """

    workers = lanes = 1
    is_narrow = False  # products have operands in bfloat16, see `narrow`
    phase = ""
    partitioning = Partitioning()
    buffers: Any = None  # see `buffers`; a direct call has none
    c_calls: list[tuple[Any, Array]]

    def run(
        self,
        record: Record,
        call: Any,
        formula: Formula | None = None,
        where: Where = HERE,
        **others: Any,
    ) -> None:
        """Run an operation. Its operands are `others`, or else attributes of the call.

        Raises: OperandError for wrong operands; NotImplementedError for a formula that numba cannot
        compile.
        """
        own = vars(call)
        given = {name: own[name] for name in record.asked if name in own} | others
        for name, is_flat in record.panels.items():
            if name in given and given[name].ndim < 3:
                given[name] = self.panels(given[name], is_flat)
        self._run(record, given, formula, where)

    @abstractmethod
    def _run(
        self, record: Record, given: dict[str, Any], formula: Formula | None, where: Where
    ) -> None:
        """Run an operation on its operands by name."""

    @abstractmethod
    def panels(self, matrix: Array, is_flat: bool = False) -> Array:
        """Return the panels of a matrix. is_flat: they are used number by number."""

    @abstractmethod
    def count(self, matrix: Array) -> int:
        """Return how many lanes the panels of a matrix fill, if they are flat."""

    def defer(self, record: Record, call: Any, **others: Any) -> None:
        """Run an operation when all rows are complete."""
        self.run(record, call, **others)

    def barrier(self) -> None:  # noqa: B027 - one worker waits for no other
        """Wait until all workers have finished their operations."""

    def sums(self) -> Array:
        """Return an array for the workers' partial sums."""
        return np.zeros((self.workers, SLOT))

    @abstractmethod
    def coefficients(self, call: Any) -> Array:
        """Return a table with a row a step: 1 - rate * weight decay, the rule's coefficients."""

    def ranges(self, call: Any) -> list[Range]:
        """Return the parts of theta to update."""
        n, dtype = call.n_weights if call.weight_decay else 0, call.theta.dtype
        all_parts = (0, n, True), (n, call.theta.size - n, False)
        return [
            Range(start, m, 1, flag, known(m, dtype, self.workers, self.lanes))
            for start, m, flag in all_parts
            if m
        ]


class DirectStep(AbstractStep):
    """A step that runs each operation at once, on the whole arrays."""

    def _run(
        self, record: Record, given: dict[str, Any], formula: Formula | None, where: Where
    ) -> None:
        record.check_names(given)
        arguments = record.arguments(given)
        if record.split.even or record.split.lines:
            result = compiled(record.loop, record.kind(given), arguments, formula)(*arguments)
        else:
            result = record.loop(*arguments)  # a few numbers
        for name in record.sums:
            given[name][0, 0] = result

    def panels(self, matrix: Array, is_flat: bool = False) -> Array:
        matrix = matrix.reshape(-1, 1) if matrix.ndim == 1 else matrix
        return matrix[:, None, :] if is_flat else matrix[:, :, None]

    def count(self, matrix: Array) -> int:
        return int(matrix.size)

    def coefficients(self, call: Any) -> Array:
        rate, momentum, count = (float(call.hyper[k]) for k in (RATE, MOMENTUM, COUNT))
        c = call.rule.coefficients(rate, momentum, count)
        return np.array([[1.0 - rate * call.weight_decay, *c]], call.theta.dtype)


def kernel(computes: Any) -> Any:
    """Register a kernel, a record or a function, under its name.

    Raises: OperandError if Backend has no such method, or if the method has other arguments.
    """
    is_record = isinstance(computes, Record)
    name = computes.__name__
    if name not in SIGNATURES:
        raise OperandError(f"A kernel must be named like one of Backend. Received: {name!r}.")
    if is_record and (wrong := computes.asked ^ (SIGNATURES[name].parameters.keys() - {"self"})):
        raise OperandError(f"{name} must have the arguments of Backend's method: {sorted(wrong)}.")
    KERNELS[name] = (lambda step, call: step.run(computes, call)) if is_record else computes
    return computes


def recorded_kernel(computes: Any) -> Any:
    """Register a kernel for recorded steps only; NumPy computes direct calls."""
    RECORDED_ONLY.add(computes.__name__)
    return kernel(computes)
