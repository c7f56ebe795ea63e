"""The text of kernels: their C source with types, formulas and constants filled in.

A source has placeholders: `// FORMULA` for generated lines, KERNEL for the kernel's name. All else
that varies is a macro. An instance defines its macros and undefines them, so that a program may
hold several.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.backend.formulas import Activation, Loss, Score
from nnbackend_cupy.codegen import Printer, RowPrinter, has_reductions
from nnbackend_cupy.tracing import ELEMENTS, XP, Symbol, Untraceable, as_symbol, inputs, traced

FOLDER = Path(__file__).parent / "cuda"
C_NAMES = {
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned",
    "uint64": "unsigned long long",
}


@dataclass(frozen=True)
class Source:
    """A kernel's name and text, without the common part of all kernels."""

    name: str
    text: str


class OfRow(Untraceable):
    """A formula that is not element-wise: its elements depend on others of their row."""


def program(sources: Iterable[Source]) -> str:
    """Return the text of a complete program of kernels."""
    return file_text("common.cu") + "\n" + "\n".join(source.text for source in sources)


@cache
def file_text(name: str) -> str:
    """Return the text of a file in `cuda/`."""
    return (FOLDER / name).read_text(encoding="utf-8")


def instance(text: str, label: str, filling: Mapping[str, object]) -> Source:
    """Return a text with its macros defined and its placeholders replaced.

    filling: by name, a list of lines to put in the place of a comment, or the value of a macro.
    """
    macros = {name: value for name, value in filling.items() if not isinstance(value, list)}
    for name, lines in filling.items():
        if isinstance(lines, list):
            text = text.replace(f"  // {name}\n", "".join(f"{line}\n" for line in lines))
    before = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    after = "".join(f"#undef {name.partition('(')[0]}\n" for name in macros)
    text = before + text + after
    # The digest distinguishes formulas with the same name.
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = f"{re.sub(r'[^0-9A-Za-z]+', '_', label)}_{digest}"
    return Source(name, text.replace("KERNEL", name))


def label_of(formula: Any) -> str:
    """Return the name of a formula."""
    return str(getattr(formula, "name", None) or type(formula).__name__)


# ---- lines of C from formulas -------------------------------------------------------------------


def value_of(dtype: np.dtype[Any], phi: Activation) -> Symbol:
    """Return a = phi(z)."""
    (z,) = inputs(dtype, ELEMENTS, "z")
    return as_symbol(traced(phi.value, z, XP), z, ELEMENTS)


def slope_of(dtype: np.dtype[Any], phi: Activation) -> Symbol:
    """Return delta = dC/dz from da = dC/da."""
    da, z, a = inputs(dtype, ELEMENTS, "da", "z", "a")
    return as_symbol(traced(phi.delta, da, z, a, XP), z, ELEMENTS)


def value_lines(dtype: np.dtype[Any], phi: Activation) -> list[str]:
    """Return the body of a function of one element: phi(z). Raises: OfRow."""
    return _element_lines(dtype, value_of(dtype, phi))


def slope_lines(dtype: np.dtype[Any], phi: Activation) -> list[str]:
    """Return the body of a function of one element: dC/dz from dC/da. Raises: OfRow."""
    return _element_lines(dtype, slope_of(dtype, phi))


def _element_lines(dtype: np.dtype[Any], result: Symbol) -> list[str]:
    if has_reductions(result):
        raise OfRow("an activation is not element-wise")
    printer = Printer(dtype, {name: name for name in ("da", "z", "a")})
    value = printer.value(result)
    return [*printer.lines, f"  return {value};"]


def row_value_lines(dtype: np.dtype[Any], phi: Activation) -> list[str]:
    """Return the body of a function of one row: z += b;  a = phi(z)."""
    (z,) = inputs(dtype, ELEMENTS, "z")
    # First z, then a: they may be one array, which must end as a.
    writes = [("z[j]", z), ("a[j]", value_of(dtype, phi))]
    return _row_lines(dtype, {"z": "z[j] + b[j]"}, [], writes)


def row_slope_lines(dtype: np.dtype[Any], phi: Activation) -> list[str]:
    """Return the body of a function of one row: dC/dz from dC/da, in place."""
    loads = {"da": "delta[j]", "z": "z[j]", "a": "a[j]"}
    return _row_lines(dtype, loads, [], [("delta[j]", slope_of(dtype, phi))])


def _row_lines(
    dtype: np.dtype[Any],
    loads: Mapping[str, str],
    results: Sequence[Symbol],
    writes: Sequence[tuple[str, Symbol]] = (),
) -> list[str]:
    printer = RowPrinter(dtype, loads)
    values = printer.program(results, writes)
    return [*printer.lines, *(f"  return {value};" for value in values)]


def loss_lines(dtype: np.dtype[Any], formula: Loss, at: str = "[j]") -> list[str]:
    """Return the body of a function of one row; `at` selects a column of out and delta."""
    out, y = inputs(dtype, ELEMENTS, "out", "y")
    share: Any = inputs(dtype, ("B", 1), "share")[0]
    rows, gradient = traced(tuple, traced(formula.rows, out, y, XP))
    rows, gradient = as_symbol(rows, out, ("B",)), as_symbol(gradient, out, ELEMENTS)
    loads = {"out": f"out{at}", "y": "Y_OF(j)", "share": "share"}
    return _row_lines(dtype, loads, [rows], [(f"delta{at}", gradient * share)])


def score_lines(dtype: np.dtype[Any], formula: Score) -> list[str]:
    """Return the body of a function of one row."""
    out, y = inputs(dtype, ELEMENTS, "out", "y")
    rows = as_symbol(traced(formula.rows, out, y, XP), out, ("B",))
    return _row_lines(dtype, {"out": "out[j]", "y": "Y_OF(j)"}, [rows])


def update_filling(dtype: np.dtype[Any], rule: Any, n: int) -> dict[str, object]:
    """Return the bodies of the functions of an update rule with n state vectors."""
    double = np.dtype(np.float64)
    numbers = inputs(double, (1,), "rate", "momentum", "count")
    coefficients = traced(tuple, traced(rule.coefficients, *numbers))
    printer = Printer(double, {name: name for name in ("rate", "momentum", "count")})
    values = [printer.value(as_symbol(c, numbers[0], (1,))) for c in coefficients]
    early = [re.sub(r"\bT\b", "double", line) for line in printer.lines]
    early += [f"  c[{k}] = (T)({value});" for k, value in enumerate(values)]

    names = ["theta", "g", *(f"s{k}" for k in range(n))]
    theta, g, *states = inputs(dtype, ("P",), *names)
    c = inputs(dtype, (1,), *(f"c{k}" for k in range(len(values))))
    arguments = (theta, g, tuple(states), tuple(c), tuple(rule.params), XP)
    moved, new = traced(tuple, traced(rule.recurrence, *arguments))
    results = [as_symbol(value, theta, ("P",)) for value in (moved, *traced(tuple, new))]
    if len(results) != 1 + n:
        raise ValueError(f"the rule returns {len(results) - 1} state vectors, expected {n}")
    loads = {name: name for name in names} | {f"c{k}": f"c[{k}]" for k in range(len(values))}
    printer = Printer(dtype, loads)
    texts = [printer.value(result) for result in results]
    moves = [f"  {n} = {text};" for n, text in zip(["theta", *names[2:]], texts, strict=True)]
    return {
        "COEFFICIENTS": early,
        "MOVE": [*printer.lines, *moves],
        "N_COEFFICIENTS": len(values),
    }
