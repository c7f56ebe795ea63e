"""Generate the code of an operation from its record: it unpacks a worker's part and runs the loop.

An operation is a C function of four int64: the address of its words, the worker, the number of
workers, and the step, counted from the start of the run. The words are int64 and float64: sizes,
addresses of arrays, and numbers. Sizes alone determine each worker's part; no two workers write to
the same element.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numba
import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba import intrinsics, scalars
from nnbackend_numba.records import Call, Record, Split

_inline = numba.njit(forceinline=True, **scalars.FAST)


@_inline
def even_part(n: int, worker: int, workers: int) -> tuple[int, int]:
    """Return a worker's part of n items."""
    return n * worker // workers, n * (worker + 1) // workers


@_inline
def part_of_lines(n: int, worker: int, workers: int) -> tuple[int, int]:
    """Return a worker's part of n numbers: whole cache lines, if the parts stay balanced."""
    if n % (16 * workers) != 0 and n < 1024 * workers:
        return even_part(n, worker, workers)
    first, last = even_part((n + 15) // 16, worker, workers)
    return first * 16, min(last * 16, n)


@_inline
def block(
    by_columns: int, rows: int, columns: int, worker: int, workers: int
) -> tuple[int, int, int, int]:
    """Return a worker's block of a matrix: the ends of its rows, then of its columns."""
    if by_columns:
        first, last = part_of_lines(columns, worker, workers)
        return 0, rows, first, last
    lo, hi = even_part(rows, worker, workers)
    return lo, hi, 0, columns


HELPERS = {
    "carray": numba.carray,
    "pointer": intrinsics.pointer,
    **{f.__name__: f for f in (even_part, part_of_lines, block)},
}


def words_of(record: Record, call: Call) -> dict[str, tuple[int, int]]:
    """Return where an operation's words are: name -> first place, count."""
    places, start = {}, 0
    for name in ("by_columns", *record.letters, *record.operands):
        value = call.values.get(name)
        count = len(value) if isinstance(value, tuple) else 1
        places[name] = start, count
        start += count
    return places


def pack(record: Record, call: Call, numbers: Mapping[str, Any]) -> Array:
    """Return the words of an operation; `numbers` has those that are not floats."""
    places = words_of(record, call)
    words = np.zeros(sum(count for _, count in places.values()), np.int64)
    for name, (start, count) in places.items():
        if name in numbers:
            words[start] = numbers[name]
        else:
            words.view(np.float64)[start : start + count] = call.values[name]
    return words


def source_of(record: Record, call: Call) -> str:
    """Return the code of an operation, for the dtypes and the lengths of tuples of a call."""
    split, places = record.split, words_of(record, call)
    n_words = sum(count for _, count in places.values())
    body = ["if worker > 0: return"] * (not split.even and not split.lines)
    body += [f"i = carray(pointer(words), ({n_words},), int64)"]
    body += [f"f = carray(pointer(words), ({n_words},), float64)"]
    body += [f"n_{letter} = i[{places[letter][0]}]" for letter in record.letters]
    body += _part(split)
    for name, operand in record.operands.items():
        place, count = places[name]
        kind = call.dtypes.get(operand.dtype, operand.dtype)
        if operand.role in ("int", "blas", "float"):
            value = f"{kind}({'f' if operand.role == 'float' else 'i'}[{place}])"
        elif operand.role == "floats":
            value = _tuple(f"{kind}(f[{k}])" for k in range(place, place + count))
        elif operand.role == "line":
            row = f"i[{place}] + step * n_C * {np.dtype(kind).itemsize}"
            body.append(f"row_of_{name} = carray(pointer({row}), (n_C,), {kind})")
            value = _tuple(f"row_of_{name}[{k}]" for k in range(call.sizes["C"]))
        else:
            value = _view(operand.shape, f"i[{place}]", kind, {split.even, split.lines})
        body.append(f"{name} = {value}")
    arguments = ", ".join(split.bounds().get(name, name) for name in record.parameters)
    targets = [f"{name}[worker, 0] = " for name in record.sums]
    body.append(f"{''.join(targets)}loop({arguments})")
    return "\n    ".join([f"def {record.name}(words, worker, workers, step):", *body])


def _tuple(items: Iterable[str]) -> str:
    return f"({''.join(f'{item}, ' for item in items)})"


def _part(split: Split) -> list[str]:
    """Return the code that computes the ends of a worker's part."""
    letters = [letter for letter in (split.even, split.lines) if letter]
    names = {"": "even_part", split.lines: "part_of_lines"}
    function = "block" if len(letters) == 2 else names[split.lines]
    ends = ", ".join(f"lo_{letter}, hi_{letter}" for letter in letters)
    sizes = ", ".join(["i[0]"] * (len(letters) == 2) + [f"n_{letter}" for letter in letters])
    return [f"{ends} = {function}({sizes}, worker, workers)"] * bool(letters)


def _view(shape: tuple[str, ...], address: str, dtype: str, cut: set[str]) -> str:
    """Return the code for an array, of which a worker sees its part of a first letter in `cut`."""
    dims = [re.sub(r"\b([A-Z])\b", r"n_\1", dim) for dim in shape]
    letter = shape[0].split("*")[0]
    if letter in cut:
        offset = "*".join(dims).replace(f"n_{letter}", f"lo_{letter}", 1)
        address += f" + {offset}*{np.dtype(dtype).itemsize}"
        dims[0] = dims[0].replace(f"n_{letter}", f"(hi_{letter} - lo_{letter})", 1)
    return f"carray(pointer({address}), ({', '.join(dims)},), {dtype})"
