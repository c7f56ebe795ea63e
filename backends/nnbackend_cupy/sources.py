"""The text of every kernel: the files of `cuda/`, with formulas and dtypes filled in.

A file has placeholders: `// FORMULA` for generated lines, KERNEL for the kernel's name. Everything
else that varies is a macro. An instance defines its macros and undefines them, so that a program
may hold several.
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

from nnbackend.backend.formulas import Activation, Loss, Score, UpdateRule
from nnbackend_cupy.codegen import Printer, RowPrinter, has_reductions
from nnbackend_cupy.tracing import (
    ELEMENTS,
    XP,
    Shape,
    Symbol,
    Untraceable,
    as_symbol,
    inputs,
    traced,
)

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
Macros = Mapping[str, object]


@dataclass(frozen=True)
class Source:
    """A kernel's name and text, without the common part of all kernels.

    is_of_row: it is computed row by row, not element by element.
    """

    name: str
    text: str
    is_of_row: bool = False


def program(sources: Iterable[Source]) -> str:
    """Return the text of a complete program of kernels."""
    return _file("common.cu") + "\n" + "\n".join(source.text for source in sources)


@cache
def _file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _instance(
    file: str, label: str, macros: Macros, places: Mapping[str, Sequence[str]], is_of_row: bool
) -> Source:
    """Return a file with its macros defined and its placeholders replaced."""
    text = _file(file)
    for place, lines in places.items():
        text = text.replace(f"  // {place}\n", "".join(f"{line}\n" for line in lines))
    before = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    after = "".join(f"#undef {name.partition('(')[0]}\n" for name in macros)
    text = before + text + after
    # The digest distinguishes formulas with the same name.
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = f"{file.removesuffix('.cu')}_{re.sub(r'[^0-9A-Za-z]+', '_', label)}_{digest}"
    return Source(name, text.replace("KERNEL", name), is_of_row)


def _label(formula: Any, *more: str) -> str:
    name = getattr(formula, "name", None) or type(formula).__name__
    return "_".join((name, *more))


def _function(dtype: np.dtype[Any], loads: Mapping[str, str], result: Symbol) -> list[str]:
    """Return the body of a function of one element."""
    printer = Printer(dtype, loads)
    value = printer.value(result)
    return [*printer.lines, f"  return {value};"]


def _row_function(
    dtype: np.dtype[Any],
    loads: Mapping[str, str],
    results: Sequence[Symbol],
    writes: Sequence[tuple[str, Symbol]],
) -> list[str]:
    """Return the body of a function of one row."""
    printer = RowPrinter(dtype, loads)
    values = printer.program(results, writes)
    return [*printer.lines, *(f"  return {value};" for value in values)]


# ---- activations --------------------------------------------------------------------------------


def activation(phi: Activation, dtype: np.dtype[Any]) -> Source:
    """Return the kernel of z += b;  a = phi(z)."""
    (z,) = inputs(dtype, ELEMENTS, "z")
    a = as_symbol(traced(phi.value, z, XP), z, ELEMENTS)
    macros, label = {"T": C_NAMES[dtype.name]}, _label(phi, "value", dtype.name)
    if not has_reductions(a):
        lines = _function(dtype, {"z": "z"}, a)
        return _instance("activation.cu", label, macros, {"FORMULA": lines}, False)
    # First z, then a: they may be one array, which must end as a.
    lines = _row_function(dtype, {"z": "z[j] + b[j]"}, [], [("z[j]", z), ("a[j]", a)])
    macros |= {"IS_SLOPE": "0"}
    return _instance("row_activation.cu", label, macros, {"FORMULA": lines}, True)


def slope(phi: Activation, dtype: np.dtype[Any], with_bias: bool) -> Source:
    """Return the kernel of delta = dC/dz from dC/da; with_bias: and db, if it is element-wise."""
    da, z, a = inputs(dtype, ELEMENTS, "da", "z", "a")
    delta = as_symbol(traced(phi.delta, da, z, a, XP), z, ELEMENTS)
    macros: dict[str, object] = {"T": C_NAMES[dtype.name]}
    label = _label(phi, "slope", dtype.name)
    if has_reductions(delta):
        loads = {"da": "delta[j]", "z": "z[j]", "a": "a[j]"}
        lines = _row_function(dtype, loads, [], [("delta[j]", delta)])
        macros |= {"IS_SLOPE": 1}
        return _instance("row_activation.cu", label, macros, {"FORMULA": lines}, True)
    lines = _function(dtype, {"da": "da", "z": "z", "a": "a"}, delta)
    macros |= {"HAS_SLOPE": 1} if with_bias else {}
    file = "column_sums.cu" if with_bias else "slope.cu"
    return _instance(file, label, macros, {"FORMULA": lines}, False)


def bias_gradient(dtype: np.dtype[Any]) -> Source:
    """Return the kernel of db = sum of delta's rows."""
    macros = {"T": C_NAMES[dtype.name], "HAS_SLOPE": 0}
    return _instance("column_sums.cu", dtype.name, macros, {}, False)


def weight_gradient(dtype: np.dtype[Any]) -> Source:
    """Return the kernels of dW = x^T delta and db for many rows and few units."""
    return _instance("weight_gradient.cu", dtype.name, {"T": C_NAMES[dtype.name]}, {}, False)


def thin_gradient(dtype: np.dtype[Any], n_few: int, is_delta_few: bool) -> Source:
    """Return the kernel of the partial sums of dW and db if delta (or x) has few columns."""
    macros = {"T": C_NAMES[dtype.name], "FEW": n_few, "IS_DELTA_FEW": int(is_delta_few)}
    label = f"{dtype.name}_{'delta' if is_delta_few else 'x'}_{n_few}"
    return _instance("thin_gradient.cu", label, macros, {}, False)


# ---- losses and scores --------------------------------------------------------------------------


def _comparing(
    file: str,
    formula: Loss | Score,
    dtype: np.dtype[Any],
    target: str,
    is_weighted: bool,
    lines: Sequence[str],
) -> Source:
    macros = {
        "T": C_NAMES[dtype.name],
        "Y": C_NAMES[target],
        "HAS_LABELS": int(target.startswith("int")),
        "IS_WEIGHTED": int(is_weighted),
        "SMALLEST": repr(float(np.finfo(dtype).smallest_normal)),
    }
    label = _label(formula, dtype.name, f"y_{target}", *(["weighted"] if is_weighted else []))
    return _instance(file, label, macros, {"FORMULA": lines}, True)


def _targets(target: str) -> dict[str, str]:
    """Return the C text that loads out and y; a class label is one-hot."""
    return {"out": "out[j]", "y": "(T)(label == j)" if target.startswith("int") else "y[j]"}


def loss(formula: Loss, dtype: np.dtype[Any], target: str, is_weighted: bool) -> Source:
    """Return the kernel of a loss and delta. target: the dtype of y; integers are labels (B,)."""
    lines = loss_lines(formula, dtype, _targets(target), "delta[j]")
    return _comparing("loss.cu", formula, dtype, target, is_weighted, lines)


def loss_lines(
    formula: Loss, dtype: np.dtype[Any], loads: Mapping[str, str], place: str
) -> list[str]:
    """Return the body of a function of one row, which writes delta to `place`."""
    out, y = inputs(dtype, ELEMENTS, "out", "y")
    share: Any = inputs(dtype, ("B", 1), "share")[0]
    result = traced(formula.rows, out, y, XP)
    rows, gradient = traced(tuple, result)
    rows, gradient = as_symbol(rows, out, ("B",)), as_symbol(gradient, out, ELEMENTS)
    loads = {**loads, "share": "share"}
    return _row_function(dtype, loads, [rows], [(place, gradient * share)])


def score(formula: Score, dtype: np.dtype[Any], target: str, is_weighted: bool) -> Source:
    """Return the kernel of a score's sum. target: as for `loss`."""
    out, y = inputs(dtype, ELEMENTS, "out", "y")
    rows = as_symbol(traced(formula.rows, out, y, XP), out, ("B",))
    lines = _row_function(dtype, _targets(target), [rows], [])
    return _comparing("score.cu", formula, dtype, target, is_weighted, lines)


def output(
    phi: Activation, formula: Loss, below: Activation | None, dtype: np.dtype[Any], target: str,
    n_out: int, warps: int,
) -> Source:  # fmt: skip
    """Return the kernel of an output layer with its loss and backward pass.

    below: activation of the layer below, or None.  warps: how many share a row, 1 or all 4.

    Raises: Untraceable if an activation is not element-wise.
    """
    macros = {
        "T": C_NAMES[dtype.name],
        "Y": C_NAMES[target],
        "HAS_LABELS": int(target.startswith("int")),
        "HAS_BELOW": int(below is not None),
        "O": n_out,
        "WARPS": warps,
    }
    places = {
        "VALUE": _value_lines(phi, dtype),
        "SLOPE": _slope_lines(phi, dtype),
        "BELOW": _slope_lines(phi if below is None else below, dtype),
        "FORMULA": loss_lines(formula, dtype, _targets(target), "delta[j]"),
    }
    label = _label(formula, _label(phi), dtype.name, f"y_{target}", f"{n_out}x{warps}")
    return _instance("output.cu", label, macros, places, True)


def _value_lines(phi: Activation, dtype: np.dtype[Any]) -> list[str]:
    (z,) = inputs(dtype, ELEMENTS, "z")
    return _element_lines(dtype, {"z": "z"}, as_symbol(traced(phi.value, z, XP), z, ELEMENTS))


def _slope_lines(phi: Activation, dtype: np.dtype[Any]) -> list[str]:
    da, z, a = inputs(dtype, ELEMENTS, "da", "z", "a")
    delta = as_symbol(traced(phi.delta, da, z, a, XP), z, ELEMENTS)
    return _element_lines(dtype, {"da": "da", "z": "z", "a": "a"}, delta)


def _element_lines(dtype: np.dtype[Any], loads: Mapping[str, str], result: Symbol) -> list[str]:
    if has_reductions(result):
        raise Untraceable("an activation is not element-wise")
    return _function(dtype, loads, result)


# ---- updates ------------------------------------------------------------------------------------


def update(rule: UpdateRule, dtype: np.dtype[Any], n_states: int) -> Source:
    """Return the kernel of an update rule with `n_states` state vectors."""
    places, macros = update_lines(rule, dtype, n_states)
    label = _label(rule, getattr(rule, "kernel", None) or "", dtype.name)
    return _instance("update.cu", label, macros, places, False)


def update_lines(
    rule: UpdateRule, dtype: np.dtype[Any], n_states: int
) -> tuple[dict[str, list[str]], dict[str, object]]:
    """Return the bodies of an update rule's functions, and their macros."""
    double = np.dtype(np.float64)
    numbers = inputs(double, (1,), "rate", "momentum", "count")
    coefficients = traced(tuple, traced(rule.coefficients, *numbers))
    printer = Printer(double, {"rate": "rate", "momentum": "momentum", "count": "count"})
    values = [printer.value(as_symbol(c, numbers[0], (1,))) for c in coefficients]
    early = [re.sub(r"\bT\b", "double", line) for line in printer.lines]
    early += [f"  c[{k}] = (T)({value});" for k, value in enumerate(values)]

    vector: Shape = ("P",)
    names = [f"s{k}" for k in range(n_states)]
    theta, g, *states = inputs(dtype, vector, "theta", "g", *names)
    c = inputs(dtype, (1,), *(f"c{k}" for k in range(len(values))))
    arguments = (theta, g, tuple(states), tuple(c), tuple(rule.params), XP)
    moved, new = traced(tuple, traced(rule.recurrence, *arguments))
    results = [as_symbol(value, theta, vector) for value in (moved, *traced(tuple, new))]
    if len(results) != 1 + n_states:
        raise ValueError(f"the rule returns {len(results) - 1} state vectors, expected {n_states}")
    loads = {name: name for name in ("theta", "g", *names)}
    printer = Printer(dtype, loads | {f"c{k}": f"c[{k}]" for k in range(len(values))})
    texts = [printer.value(result) for result in results]
    lines = [*printer.lines, *(
        f"  {name} = {text};" for name, text in zip(("theta", *names), texts, strict=True)
    )]  # fmt: skip
    macros = {
        "T": C_NAMES[dtype.name],
        "N_COEFFICIENTS": len(values),
        "STATES(DO)": " ".join(f"DO({k})" for k in range(n_states)),
    }
    return {"COEFFICIENTS": early, "FORMULA": lines}, macros


# ---- kernels without a formula ------------------------------------------------------------------


def layers(dtype: np.dtype[Any]) -> Source:
    """Return the kernels of maxout and dropout."""
    return _instance("layers.cu", dtype.name, {"T": C_NAMES[dtype.name]}, {}, False)


def vectors(dtype: np.dtype[Any]) -> Source:
    """Return the kernels of penalties, norms and averages."""
    macros = {"T": C_NAMES[dtype.name], "SQRT": "sqrtf" if dtype == np.float32 else "sqrt"}
    return _instance("vectors.cu", dtype.name, macros, {}, False)


def gather(data: str, out: str) -> Source:
    """Return the kernel that gathers rows, from one dtype to another."""
    macros = {"In": C_NAMES[data], "Out": C_NAMES[out]}
    return _instance("gather.cu", f"{data}_{out}", macros, {}, False)


def scale(rows: str, out: str) -> Source:
    """Return the kernel that scales inputs, from one dtype to another."""
    macros = {"In": C_NAMES[rows], "Out": C_NAMES[out]}
    return _instance("scale.cu", f"{rows}_{out}", macros, {}, False)


def tick() -> Source:
    """Return the kernel that starts a step."""
    return _instance("tick.cu", "clock", {}, {}, False)


def begin(dtypes: Sequence[tuple[str, str]]) -> Source:
    """Return the kernel that starts a step and gathers rows. dtypes: (data, out) of each array."""
    macros: dict[str, object] = {
        f"{side}{k}": C_NAMES[name]
        for k, pair in enumerate(dtypes)
        for side, name in zip(("In", "Out"), pair, strict=True)
    }
    macros["ARRAYS(DO)"] = " ".join(f"DO({k})" for k in range(len(dtypes)))
    return _instance("begin.cu", "_".join(map("_".join, dtypes)), macros, {}, False)
