"""From a formula of the engine, or of a user, to a compiled loop that is kept on the disk.

A loop in `loops` calls `formula`; here it is given a real one and compiled. The
numbers in a formula's text are Python floats, which would drag single precision through double:
they are replaced by numbers of the loop's own dtype. Compiled loops are cached by numba under a
name that holds a fingerprint of the formula, so a changed formula is compiled anew.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core import event
from numba.core.errors import NumbaError

from nnbackend_numba import native, scalars

logger = logging.getLogger("nnbackend")
CANNOT = (NumbaError, TypeError, NotImplementedError)  # what a formula beyond numba raises
# What every formula and operation is compiled with.
_FILES = (scalars.__file__, native.__file__, __file__)
_BASE = b"".join(Path(str(file)).read_bytes() for file in _FILES)


def retyped(value: Any, dtype: str) -> Any:
    """Give a function with its floats in `dtype`, compiled; a float in it; others as they are."""
    if isinstance(value, float):
        return np.dtype(dtype).type(value)
    value = scalars.in_place_of(value)
    if not isinstance(value, FunctionType) or value.__module__ == scalars.__name__:
        return value
    code = value.__code__
    names = set(code.co_names)
    code = code.replace(co_consts=tuple(_plain(c, dtype) for c in code.co_consts))
    function = FunctionType(
        code,
        {k: retyped(v, dtype) for k, v in value.__globals__.items() if k in names}
        # Numba imports this module when it loads from the disk, where the formula's own may be
        # a script that is gone, or another one with the same formula.
        | {"__name__": scalars.__name__},
        value.__name__,
        value.__defaults__,
        tuple(CellType(retyped(c.cell_contents, dtype)) for c in value.__closure__ or ()),
    )
    return numba.njit(forceinline=True, **scalars.FAST)(function)


def _plain(constant: Any, dtype: str) -> Any:
    return np.dtype(dtype).type(constant) if isinstance(constant, float) else constant


def fingerprint(*functions: Any) -> str:
    """Give a short name for what functions compute, which may be given by their own such names."""
    digest, seen = hashlib.sha256(_BASE), set()
    pending: list[Any] = list(functions)
    while pending:
        value = pending.pop()
        value = getattr(value, "py_func", value)  # a user's own may call what is compiled already
        if isinstance(value, FunctionType):
            if value in seen:
                continue
            seen.add(value)
            pending += [value.__code__, value.__defaults__]
            pending += [cell.cell_contents for cell in value.__closure__ or ()]
            pending += _globals_of(value)
        elif isinstance(value, CodeType):
            # The code of np.sin(z) and np.cos(z) is the same but for the names.
            digest.update(value.co_code + repr(value.co_names).encode())
            pending += value.co_consts
        elif isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str} {value.shape}".encode() + value.tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:12]


def _globals_of(function: FunctionType) -> list[Any]:
    """Give the global values that a function uses; of modules, the numbers it takes from them."""
    names = function.__code__.co_names
    used = [v for k, v in sorted(function.__globals__.items()) if k in names]
    modules = [v for v in used if isinstance(v, ModuleType)]
    numbers = [getattr(m, k, None) for m in modules for k in names]
    return [v for v in used if not isinstance(v, ModuleType)] + [
        v for v in numbers if isinstance(v, (int, float))
    ]


_kept: dict[tuple[Any, ...], Any] = {}
_OPERATION = "void(int64, int64, int64, int64, int64)"


def compiled(
    loop: Callable[..., Any], dtype: str, formula: Callable[..., Any] | None = None
) -> Any:
    """Give a loop of `loops` with its formula, compiled when first called and cached on disk."""
    key = (loop, dtype, formula)
    if key not in _kept:
        assert isinstance(loop, FunctionType)
        function = FunctionType(loop.__code__, dict(loop.__globals__), loop.__name__)
        function.__globals__["formula"] = retyped(formula, dtype)
        name = f"{loop.__name__}_{dtype}_{fingerprint(loop, formula)}"
        function.__name__ = function.__qualname__ = name
        _kept[key] = numba.njit(cache=True, **scalars.FAST)(function)
    return _kept[key]


def operation(body: Callable[..., Any], dtype: str, loop: Any, **names: Any) -> Any:
    """Give an operation of `operations` with its loop, compiled, as a C function.

    names: what else its body asks for. The result's `address` is what a program calls.
    """
    key = (body, dtype, loop, *names.items())
    if key not in _kept:
        assert isinstance(body, FunctionType)
        function = FunctionType(body.__code__, dict(body.__globals__), body.__name__)
        function.__globals__.update(names, kind=np.dtype(dtype).type, loop=loop)
        known = [getattr(value, "__name__", value) for value in names.values()]
        inside = getattr(loop, "__name__", "")
        name = f"{body.__name__}_{dtype}_{fingerprint(body, inside, *known)}"
        function.__name__ = function.__qualname__ = name
        _kept[key] = numba.cfunc(_OPERATION, cache=True, **scalars.FAST)(function)
    return _kept[key]


class _Announcement(event.Listener):  # type: ignore[misc]
    """Says once in a process that kernels are compiled, when the first one really is."""

    is_said = False

    def on_start(self, event: Any) -> None:
        if not self.is_said and str(event.data["module"]).startswith(f"{__package__}."):
            self.is_said = True
            logger.warning("numba compiles kernels for this machine, once; this takes some seconds")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:run_pass", _Announcement())
