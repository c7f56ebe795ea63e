"""Fingerprints: short names for what functions compute, the same in every process.

They are the keys of compiled code, in memory and on disk. Two functions with the same fingerprint
must compute the same. A function that uses a value without a description has none.
"""

from __future__ import annotations

import dis
import hashlib
import sys
from itertools import chain
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numba import types
from numba.np.ufunc.dufunc import DUFunc

from nnbackend_numba import intrinsics, pairs, panels, scalars, tiles

# The modules that every formula and operation is compiled with.
_MODULES = (scalars, intrinsics, tiles, panels, pairs)
_SOURCES = [Path(str(module.__file__)) for module in _MODULES]
_SOURCES += [
    Path(__file__).with_name(f"{name}.py") for name in ("compiling", "codegen", "products")
]
_BASE = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES))
# Types whose repr describes a value completely.
_DESCRIBED_BY_REPR = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    np.generic,
    np.dtype,
    types.Type,
)
# Members of these modules and packages are identified by name; other modules may change.
_FIXED_MODULES = sys.stdlib_module_names | {"numpy", "numba", *(m.__name__ for m in _MODULES)}
# Weak keys do not keep formulas alive. "": the function has no fingerprint.
_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def fingerprint(*functions: Any) -> str:
    """Return the fingerprint of functions and of strings.

    Raises: NotImplementedError for a function that uses a value without a description.
    """
    if len(functions) != 1:
        return _digest(functions)
    (function,) = functions
    try:
        name = _names.get(function)
    except TypeError:  # no weak references, as for NumPy's functions
        return _digest(functions)
    if name is None:
        name = _store_name(function)
    if not name:
        raise NotImplementedError(f"{function} uses a value that cannot be described")
    return name


def _store_name(function: Any) -> str:
    """Store the name of a function once it is complete, as other threads may read it."""
    try:
        name = _digest((function,))
    except NotImplementedError:
        name = ""
    _names[function] = name
    return name


def _digest(values: tuple[Any, ...]) -> str:
    digest, seen, pending = _BASE.copy(), set(), list(values)

    def add(*parts: Any) -> None:
        for part in parts:  # with its length, so that (1, 23) and (12, 3) differ
            data = part if isinstance(part, bytes) else str(part).encode()
            digest.update(b"%d:" % len(data) + data)

    while pending:
        value = pending.pop()
        # A custom formula may call functions that numba has compiled already.
        source = "__wrapped__" if isinstance(value, DUFunc) else "py_func"
        value = getattr(value, source, value)
        if name := _fixed_name(value):
            add("name", name)
        elif isinstance(value, FunctionType):
            if value in seen:
                continue
            seen.add(value)
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            add("function", len(cells))
            named = tuple(sorted((value.__kwdefaults__ or {}).items()))
            pending += [value.__code__, value.__defaults__, named]
            pending += [*cells, *_globals_of(value, cells)]
        elif isinstance(value, CodeType):
            # The code of np.sin(z) and of np.cos(z) differs only in the names.
            add("code", value.co_code, value.co_argcount, value.co_names)
            pending += value.co_consts
        elif isinstance(value, tuple):
            add(type(value).__qualname__, getattr(value, "_fields", ""), len(value))
            pending += value
        elif isinstance(value, frozenset):
            add("set", *sorted(map(repr, value)))
        elif isinstance(value, np.ndarray):
            add("array", value.dtype.str, value.shape, value.tobytes())
        else:
            add(type(value).__qualname__, _text(value))
    return digest.hexdigest()[:12]


def globals_in(code: CodeType) -> set[str]:
    """Return the names of the globals that code, and the functions inside it, use."""
    lines = (i for part in _parts(code) for i in dis.get_instructions(part))
    return {i.argval for i in lines if i.opname == "LOAD_GLOBAL"}


def _parts(code: CodeType) -> list[CodeType]:
    """Return a code object and those of the functions defined inside it."""
    inner = [_parts(c) for c in code.co_consts if isinstance(c, CodeType)]
    return [code, *chain.from_iterable(inner)]


def _globals_of(function: FunctionType, cells: list[Any]) -> list[Any]:
    """Return the global values that a function uses, and the members it may use of modules."""
    code, here = function.__code__, function.__globals__
    used = [here[k] for k in sorted(globals_in(code)) if k in here]
    names = sorted({name for part in _parts(code) for name in part.co_names})
    for module in (modules := [v for v in (*cells, *used) if isinstance(v, ModuleType)]):
        values = [vars(module)[k] for k in names if k in vars(module)]
        modules += [v for v in values if isinstance(v, ModuleType) and v not in modules]
        used += values
    return used


def _fixed_name(value: Any) -> str:
    """Return the full name of a member of a fixed module, else ""."""
    name = str(getattr(value, "__qualname__", None) or getattr(value, "__name__", ""))
    for module in (str(getattr(value, "__module__", "")), "numpy"):
        is_fixed = module in _FIXED_MODULES or module.partition(".")[0] in _FIXED_MODULES
        if is_fixed and name and getattr(sys.modules.get(module), name, None) is value:
            return f"{module}.{name}"
    return ""


def _text(value: Any) -> str:
    """Return text that identifies a value."""
    if isinstance(value, _DESCRIBED_BY_REPR):
        return repr(value)
    if isinstance(value, ModuleType):
        return value.__name__
    raise NotImplementedError(f"{value!r:.60} cannot be described")
