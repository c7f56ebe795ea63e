"""Records: what an operation reads and writes, and how its work is divided among the workers.

From a record and its loop are made the check and the packing of a call, the code that unpacks a
worker's part of it (see `codegen`), and the arguments of a direct call. A mistake raises
OperandError as the record is made or a call is checked, before an address is used.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

SLOT = 8  # the distance of the workers' partial sums, each in its own cache line
ARRAYS, NUMBERS = ("in", "out", "inout", "sums", "line"), ("int", "float", "floats", "product")
# The dtype of an operand, if its text has no other.
DEFAULT_DTYPES = {"sums": "float64", "int": "int64", "product": "int64"}
FLOATS = ("float32", "float64")
FREE_DTYPES = ("kind", "source", "target")  # any, but the same for all operands of a call


class OperandError(ValueError):
    """A record that does not fit its loop, or a call that does not fit its record."""


@dataclass(frozen=True)
class Operand:
    """One operand, from a text: its role, its shape and its dtype, "out B O int32".

    role: "in", "out" or "inout", an array that the loop reads, writes or both; "sums", the workers'
    partial sums of what the loop returns; "line", an array whose row of the current step is passed
    as a tuple; "int"; "float"; "floats", a tuple; "product", the address of the matrix product.
    shape: letters (N rows of the data, M those that are trained on, I inputs, O outputs, K pieces,
    P parameters), on which the arrays of a call must agree, products as "K*O", numbers, and
    "workers". "Q", a letter, "L": a matrix of rows in Q panels of L lanes, see `panels`. With E
    between them, the loop treats all numbers alike.
    dtype: "kind", which is the default, for the step's; "source" and "target", those of rows before
    and after they are gathered; or a dtype's name.
    """

    role: str
    shape: tuple[str, ...]
    dtype: str

    @classmethod
    def parse(cls, text: str) -> Operand:
        """Return the operand of a text. Raises: OperandError for another text."""
        role, *words = text.split()
        shape = [w for w in words if re.fullmatch(r"\d+|workers|[A-Z](\*[A-Z])*", w)]
        names = [w for w in words if w not in shape] or [DEFAULT_DTYPES.get(role, "kind")]
        if role == "sums":
            shape = ["workers", str(SLOT)]
        is_known = len(names) == 1 and (names[0] in FREE_DTYPES or hasattr(np, names[0]))
        if role not in ARRAYS + NUMBERS or (role in ARRAYS) != bool(shape) or not is_known:
            raise OperandError(f"An operand must be like 'out B O int32'. Received: {text!r}.")
        return cls(role, tuple(shape), names[0])


class Split(NamedTuple):
    """How the work of an operation is divided among the workers, by letters of its shapes.

    phase: see `assembly`.  even: into equal parts.  lines: into parts of whole cache lines.  Both:
    into one of them, as the call says.  Neither: the first worker does all. An array that begins
    with the letter is cut to the worker's part. The loop may also take `row`, the first index of
    the even part, `first` and `last`, the ends of the other one, and `worker`.
    """

    phase: str
    even: str = ""
    lines: str = ""

    def bounds(self) -> dict[str, str]:
        """Return the other arguments that a loop may take, each with its variable in the code."""
        rows = {"row": f"lo_{self.even}"} if self.even else {}
        ends = {"first": f"lo_{self.lines}", "last": f"hi_{self.lines}"} if self.lines else {}
        return {**rows, **ends, "worker": "worker"}


# Nothing (the first worker does all), rows of the batch, rows of W, columns of W, the flat vector.
ONE, ROWS, INPUTS = Split("one"), Split("rows", even="Q"), Split("inputs", lines="I")
UNITS, VECTOR = Split("units", lines="O"), Split("vector", even="P")


class CheckedCall(NamedTuple):
    """A checked call: its operands by name, its sizes by letter, its dtypes by the record's."""

    values: dict[str, Any]
    sizes: dict[str, int]
    dtypes: dict[str, str]

    @property
    def kind(self) -> str:
        """The dtype of the step; float64 for sums and the like."""
        return self.dtypes.get("kind", "float64")

    def types(self) -> tuple[Any, ...]:
        """Return what an operation is compiled for: dtypes and lengths of tuples."""
        lengths = [len(value) for value in self.values.values() if isinstance(value, tuple)]
        return (*self.dtypes.items(), *lengths, self.sizes.get("C"))


class Record:
    """An operation: its split, its operands in the order of the loop's arguments, and the loop.

    Raises: OperandError if the loop takes other arguments.
    """

    def __init__(
        self,
        loop: Callable[..., Any],
        split: Split,
        operands: Mapping[str, str],
    ) -> None:
        self.__name__ = loop.__name__
        self.parameters = [*inspect.signature(loop).parameters]
        self.loop, self.split = loop, split
        try:
            self.operands = {name: Operand.parse(text) for name, text in operands.items()}
        except OperandError as error:
            raise OperandError(f"{self.__name__}: {error}") from None
        self.arrays = {name: o for name, o in self.operands.items() if o.shape}
        self.kinds = [name for name, o in self.arrays.items() if o.dtype == "kind"]
        self.sums = [name for name, o in self.arrays.items() if o.role == "sums"]
        self.asked = {name for name, o in self.operands.items() if o.role != "product"}
        self.panels = {
            name: o.shape[1] == "E"
            for name, o in self.arrays.items()
            if len(o.shape) == 3 and (o.shape[0], o.shape[2]) == ("Q", "L")
        }
        self.letters = sorted({*re.findall("[A-Z]", str([o.shape for o in self.arrays.values()]))})
        dims = [(name, *d) for name, o in self.arrays.items() for d in enumerate(o.shape)]
        self.dims = sorted(dims, key=lambda d: "*" in d[2])  # name, axis, size; products last
        expected = [name for name in self.operands if name not in self.sums]
        others = self.parameters[len(expected) :]
        if self.parameters[: len(expected)] != expected or not {*others} <= split.bounds().keys():
            raise OperandError(
                f"The loop {self.__name__} must take the operands of its record, {expected}, then "
                f"any of {[*split.bounds()]}. Received: {self.parameters}."
            )
        if unknown := {split.even, split.lines} - {"", *self.letters}:
            raise OperandError(f"{self.__name__} is split by {unknown}, which no operand has.")

    def check(self, given: Mapping[str, Any], workers: int) -> CheckedCall:
        """Return the operands of a call.

        given: operands by name; by letter also the sizes that no shape determines.
        Raises: OperandError for a missing, surplus or wrong operand.
        """
        self.check_names(given)
        sizes = {"workers": workers} | {c: given[c] for c in self.letters if c in given}
        dtypes: dict[str, str] = {}
        for name, operand in self.arrays.items():
            array, dtype = given[name], operand.dtype
            received = name_of(array.dtype)
            expected = dtypes.setdefault(dtype, received if dtype in FREE_DTYPES else dtype)
            if received != expected or (dtype == "kind" and expected not in FLOATS):
                expected = " or ".join(FLOATS) if received == expected else expected
                raise self._error(name, expected, received)
            if array.ndim != len(operand.shape):
                raise self._error(name, operand.shape, array.shape)
            if "out" in operand.role and not array.flags.writeable:
                raise self._error(name, "writeable", "a read-only array")
        for name, axis, dim in self.dims:
            n = given[name].shape[axis]
            is_letter = len(dim) == 1 and not dim.isdigit()
            if sizes.setdefault(dim, n) != n if is_letter else not _measure(dim, n, sizes):
                raise self._error(name, (*self.arrays[name].shape, sizes), given[name].shape)
        return CheckedCall({n: given[n] for n in self.operands if n in self.asked}, sizes, dtypes)

    def check_names(self, given: Mapping[str, Any]) -> None:
        """Raise OperandError for a missing or surplus operand."""
        if self.asked != given.keys() and (wrong := self.asked ^ given.keys() - {*self.letters}):
            raise OperandError(f"{self.__name__}: missing or surplus operands: {sorted(wrong)}.")

    def _error(self, name: str, expected: object, received: object) -> OperandError:
        return OperandError(f"{self.__name__}: {name} must be {expected}. Received: {received}.")

    def kind(self, given: Mapping[str, Any]) -> str:
        """Return the dtype of the step; float64 for sums and the like."""
        return name_of(given[self.kinds[0]].dtype) if self.kinds else "float64"

    def arguments(self, given: Mapping[str, Any]) -> list[Any]:
        """Return the loop's arguments in a direct call, which computes everything, unchecked."""
        values = {"row": 0, "first": 0, "last": 0, "worker": 0}
        for name, operand in self.operands.items():
            value: Any = 0 if operand.role == "product" else given[name]
            if self.split.lines in operand.shape:
                values["last"] = value.shape[operand.shape.index(self.split.lines)]
            if operand.role == "line":
                value = tuple(value[0])
            elif not operand.shape:
                kind = self.kind(given) if operand.dtype == "kind" else operand.dtype
                number = getattr(np, kind)
                value = tuple(map(number, value)) if operand.role == "floats" else number(value)
            values[name] = value
        return [values[name] for name in self.parameters]


def _measure(dim: str, n: int, sizes: dict[str, int]) -> bool:
    """Enter the size of a dimension's letter; return False if n contradicts the sizes."""
    known, unknown = 1, []
    for factor in dim.split("*"):
        if factor.isdigit() or factor in sizes:
            known *= int(sizes.get(factor, factor))
        else:
            unknown.append(factor)
    if len(unknown) == 1 and known and n % known == 0:
        sizes[unknown[0]] = n // known
        return True
    return not unknown and known == n


def operation(split: Split, /, **operands: str) -> Callable[[Callable[..., Any]], Record]:
    """Return a decorator that makes the record of a loop. Raises: OperandError, see `Record`."""
    return lambda loop: Record(loop, split, operands)


@cache
def name_of(dtype: Any) -> str:
    """Return a dtype's name, which NumPy builds at each access."""
    name: str = np.dtype(dtype).name
    return name
