"""A short name for what a function computes, the same in every process.

Compiled code is looked up by it, in memory and on the disk. Two functions with one fingerprint
must compute the same; a function that uses a value that cannot be described has none.
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

from nnbackend_numba import intrinsics, scalars

# What every formula and operation is compiled with.
_SOURCES = [Path(str(module.__file__)) for module in (scalars, intrinsics)]
_SOURCES.append(Path(__file__).with_name("compiling.py"))
_BASE = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES))
# Values whose text says all about them.
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype, types.Type)
# What is in these modules or packages is told by its name; other modules change.
_FIXED = sys.stdlib_module_names | {"numpy", "numba", scalars.__name__, intrinsics.__name__}
# A dropped formula is not kept alive. "": it has no fingerprint.
_known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def fingerprint(*functions: Any) -> str:
    """Return the name of what functions compute; text among them stands for itself.

    Raises: NotImplementedError where that depends on a value that cannot be described.
    """
    if len(functions) != 1:
        return _digest(functions)
    (function,) = functions
    try:
        name = _known.get(function)
    except TypeError:  # it cannot be referred to weakly, as NumPy's own functions
        return _digest(functions)
    if name is None:
        name = _remember(function)
    if not name:
        raise NotImplementedError(f"{function} uses a value that cannot be described")
    return name


def _remember(function: Any) -> str:
    """Store the name of a function once it is complete: another thread may ask meanwhile."""
    try:
        name = _digest((function,))
    except NotImplementedError:
        name = ""
    _known[function] = name
    return name


def _digest(values: tuple[Any, ...]) -> str:
    digest, seen, pending = _BASE.copy(), set(), list(values)

    def add(*parts: Any) -> None:
        for part in parts:  # with its length, so that 1, 23 is not 12, 3
            data = part if isinstance(part, bytes) else str(part).encode()
            digest.update(b"%d:" % len(data) + data)

    while pending:
        value = pending.pop()
        # A user's own may call what is compiled already.
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
            # The code of np.sin(z) and np.cos(z) is the same but for the names.
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
    """Return code and that of the functions inside it."""
    inner = [_parts(c) for c in code.co_consts if isinstance(c, CodeType)]
    return [code, *chain.from_iterable(inner)]


def _globals_of(function: FunctionType, cells: list[Any]) -> list[Any]:
    """Return the global values that a function uses, and what it may take from modules."""
    code, here = function.__code__, function.__globals__
    used = [here[k] for k in sorted(globals_in(code)) if k in here]
    names = sorted({name for part in _parts(code) for name in part.co_names})
    for module in (modules := [v for v in (*cells, *used) if isinstance(v, ModuleType)]):
        values = [vars(module)[k] for k in names if k in vars(module)]
        modules += [v for v in values if isinstance(v, ModuleType) and v not in modules]
        used += values
    return used


def _fixed_name(value: Any) -> str:
    """Return the full name of something that it tells all about, else ""."""
    name = str(getattr(value, "__qualname__", None) or getattr(value, "__name__", ""))
    for module in (str(getattr(value, "__module__", "")), "numpy"):
        is_fixed = module in _FIXED or module.partition(".")[0] in _FIXED
        if is_fixed and name and getattr(sys.modules.get(module), name, None) is value:
            return f"{module}.{name}"
    return ""


def _text(value: Any) -> str:
    """Return text that stands for a value and for no other."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, ModuleType):
        return value.__name__
    raise NotImplementedError(f"{value!r:.60} cannot be described")
