"""Generate the code of an operation from its record: it unpacks a worker's part and runs the loop.

An operation is a C function of four int64: the address of its words, the worker, the number of
workers, and the step, counted from the start of the run. The words are int64 and float64: sizes,
addresses of arrays, and numbers. Sizes alone determine each worker's part; no two workers write to
the same element.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba import intrinsics, scalars
from nnbackend_numba.products import product_of
from nnbackend_numba.records import CheckedCall, Operand, Record, Split

_inline: Any = numba.njit(**scalars.INNER)


@_inline
def even_part(n: int, worker: int, workers: int) -> tuple[int, int]:
    """Return the ends of a worker's part of n items."""
    return n * worker // workers, n * (worker + 1) // workers


@_inline
def part_of_lines(n: int, worker: int, workers: int) -> tuple[int, int]:
    """Return the ends of a part of n numbers: whole cache lines, if the parts stay balanced."""
    unit = 1 if n % (16 * workers) != 0 and n < 1024 * workers else 16
    lines = (n + unit - 1) // unit
    return lines * worker // workers * unit, min(lines * (worker + 1) // workers * unit, n)


HELPERS = {
    "load_words": intrinsics.load_words,
    "view": intrinsics.view,
    "even_part": even_part,
    "part_of_lines": part_of_lines,
}


def words_of(record: Record, call: CheckedCall, by_columns: bool = False) -> list[tuple[str, Any]]:
    """Return the words of an operation in their order in memory, each with the operand's name.

    First `by_columns`, then the sizes under their letters. Arrays stand for their addresses.
    """
    words: list[tuple[str, Any]] = [("by_columns", by_columns)]
    words += [(letter, call.sizes[letter]) for letter in record.letters]
    for name, operand in record.operands.items():
        if operand.role == "product":
            is_narrow = call.dtypes.get("source") == "int32"
            words.append((name, product_of("bf16" if is_narrow else call.kind).address))
        elif operand.role == "floats":
            words += [(f"{name}_{k}", float(v)) for k, v in enumerate(call.values[name])]
        else:
            value = call.values[name]
            words.append((name, float(value) if operand.role == "float" else value))
    return words


def pack(words: Iterable[int | float]) -> Array:
    """Return words, each an int64 or a float64, in one array."""
    values = [*words]
    return np.frombuffer(struct.pack("=" + "".join(map(_kind, values)), *values), np.int64)


def _kind(word: Any) -> str:
    """Return the letter of an int64 or float64 in `struct` and `load_words`."""
    return "d" if isinstance(word, float) else "q"


def source_of(record: Record, call: CheckedCall) -> str:
    """Return the code of an operation, for the dtypes and the lengths of tuples of a call."""
    words, split = words_of(record, call), record.split
    names = [f"{'n_' if name in record.letters else 'at_'}{name}" for name, _ in words[1:]]
    kinds = "".join(_kind(value) for _, value in words)
    body = [f"by_columns, {', '.join(names)} = load_words(words, {kinds!r})", *_part(split)]
    given = split.bounds()
    for name, operand in record.operands.items():
        kind = call.dtypes.get(operand.dtype, operand.dtype)
        if operand.role == "floats":
            given[name] = _tuple(f"{kind}(at_{name}_{k})" for k in range(len(call.values[name])))
        elif operand.role == "line":
            row = f"at_{name} + step * n_C * {np.dtype(kind).itemsize}"
            body.append(f"row_of_{name} = view({row}, (n_C,), {kind})")
            given[name] = _tuple(f"row_of_{name}[{k}]" for k in range(call.sizes["C"]))
        elif operand.shape:
            body.append(f"own_{name} = {_view(operand, f'at_{name}', kind, split)}")
            given[name] = f"own_{name}"
        else:
            given[name] = f"{kind}(at_{name})"
    targets = [f"own_{name}[worker, 0] = " for name in record.sums]
    arguments = ", ".join(given[name] for name in record.parameters)
    body.append(f"{''.join(targets)}loop({arguments})")
    return "\n    ".join(["def operation(words, worker, workers, step):", *body])


def _tuple(items: Iterable[str]) -> str:
    return f"({''.join(f'{item}, ' for item in items)})"


def _part(split: Split) -> list[str]:
    """Return the code that computes the ends of a worker's part."""
    code = []
    for letter, part in ((split.even, "even_part"), (split.lines, "part_of_lines")):
        if letter:
            code.append(f"lo_{letter}, hi_{letter} = {part}(n_{letter}, worker, workers)")
    if len(code) == 2:
        code.append(f"if by_columns: lo_{split.even}, hi_{split.even} = 0, n_{split.even}")
        code.append(f"else: lo_{split.lines}, hi_{split.lines} = 0, n_{split.lines}")
    return code or ["if worker > 0: return"]


def _view(operand: Operand, address: str, kind: str, split: Split) -> str:
    """Return the code for an array, cut to a worker's part if it begins with a letter of it."""
    dims = [re.sub(r"\b([A-Z])\b", r"n_\1", dim) for dim in operand.shape]
    letter = operand.shape[0].split("*")[0]
    if letter in (split.even, split.lines):
        start = "*".join(dims).replace(f"n_{letter}", f"lo_{letter}", 1)
        address += f" + {start}*{np.dtype(kind).itemsize}"
        dims[0] = dims[0].replace(f"n_{letter}", f"(hi_{letter} - lo_{letter})", 1)
    return f"view({address}, ({', '.join(dims)},), {kind})"
