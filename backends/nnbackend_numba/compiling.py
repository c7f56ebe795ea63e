"""Compile loops for direct calls and operations for recorded steps; cache them, also on disk.

A loop may call the placeholder `formula`, which this module replaces. The constants of a formula
are Python floats, which would convert single precision to double, so they are replaced by numbers
of the loop's dtype. The name of a compiled function holds a fingerprint of its code and formula:
the same ones, defined again, reuse it; changed ones are compiled again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import CellType, FunctionType
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba.core.errors import NumbaError

from nnbackend_numba import caching, scalars
from nnbackend_numba.codegen import HELPERS, source_of
from nnbackend_numba.fingerprints import fingerprint, globals_in
from nnbackend_numba.records import CheckedCall, Record

logger = logging.getLogger("nnbackend")
# Raised for a formula that numba cannot compile.
COMPILE_ERRORS = (NumbaError, TypeError, NotImplementedError, RecursionError)


def retyped(value: Any, dtype: str) -> Any:
    """Return a function compiled with its floats in `dtype`, or a float converted to it.

    Return any other value unchanged.
    """
    if isinstance(value, float):
        return np.dtype(dtype).type(value)
    value = scalars.in_place_of(value)
    if not isinstance(value, FunctionType) or value.__module__ == scalars.__name__:
        return value
    code = value.__code__
    names = globals_in(code)
    code = code.replace(co_consts=tuple(_plain(c, dtype) for c in code.co_consts))
    function = FunctionType(
        code,
        {k: retyped(v, dtype) for k, v in value.__globals__.items() if k in names}
        # Numba imports this module when it loads from the cache. The module of the formula may be
        # a deleted script, or another one with the same formula.
        | {"__name__": scalars.__name__},
        value.__name__,
        value.__defaults__,
        tuple(CellType(retyped(c.cell_contents, dtype)) for c in value.__closure__ or ()),
    )
    return numba.njit(forceinline=True, **scalars.INNER)(function)


def _plain(constant: Any, dtype: str) -> Any:
    return np.dtype(dtype).type(constant) if isinstance(constant, float) else constant


T = TypeVar("T")
MAX_CACHED = 512  # entries; networks in use hold their own references to compiled code
_cache: OrderedDict[tuple[Any, ...], Any] = OrderedDict()  # the most recently used last
_OPERATION = "void(int64, int64, int64, int64)"


def cached(key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """Return the cached value of a key, made at the first call; evict the least recently used.

    Keys hold names, not formulas, so the cache keeps no formula alive. Its compiled code stays on
    purpose: the same text defined again, as in a search over parameters, reuses it, and the
    compiler frees no memory for dropped code.
    """
    try:
        found: T = _cache[key]
        _cache.move_to_end(key)
    except KeyError:  # not cached, or another thread has just evicted it
        found = _cache.setdefault(key, make())
        while len(_cache) > MAX_CACHED:
            _cache.popitem(last=False)
    return found


class Formula(NamedTuple):
    """A formula that a loop calls; is_plain: a function of the first argument alone."""

    function: Callable[..., Any]
    is_plain: bool = False

    def inside(self, loop: Callable[..., Any], dtype: str) -> FunctionType:
        """Return a copy of a loop that calls the formula, in a dtype."""
        function = _copy(loop)
        plain = formula = retyped(self.function, dtype)
        if self.is_plain:
            adapter = lambda z, a=None, xp=None: plain(z)  # noqa: E731
            formula = numba.njit(forceinline=True, **scalars.INNER)(adapter)
        function.__globals__["formula"] = formula
        return function


def _copy(loop: Callable[..., Any]) -> FunctionType:
    assert isinstance(loop, FunctionType)
    return FunctionType(loop.__code__, dict(loop.__globals__), loop.__name__)


def compiled(
    loop: Callable[..., Any], dtype: str, arguments: Sequence[Any], formula: Formula | None = None
) -> Any:
    """Return a loop with its formula, compiled for the types of arguments, cached on disk.

    Raises: NotImplementedError if numba cannot compile the formula.
    """

    def make(*key: str) -> Any:
        function = formula.inside(loop, dtype) if formula else _copy(loop)
        ready = caching.jit(_named(function, loop.__name__, fingerprint(loop, dtype, *key)))
        with caching.without_collection():
            ready.compile(tuple(map(numba.typeof, arguments)))
        return ready

    return _made(loop, dtype, formula, make)


def operation(record: Record, call: CheckedCall, formula: Formula | None = None) -> Any:
    """Return a record's operation, compiled as a C function for the dtypes of a call.

    A program calls the `address` of the result. The loop is inlined, not called: that takes a third
    less time to compile.
    Raises: NotImplementedError if numba cannot compile the formula.
    """

    def make(*key: str) -> Any:
        text, loop = source_of(record, call), record.loop
        if formula is not None:
            loop = formula.inside(loop, call.kind)
        scope = {**HELPERS, "loop": numba.njit(inline="always", **scalars.FAST)(loop)}
        names = {"int64", "uint64", "float64", call.kind, *call.dtypes.values()}
        scope |= {name: np.dtype(name).type for name in names} | {"__name__": loop.__module__}
        exec(compile(text, loop.__code__.co_filename, "exec"), scope)
        name = fingerprint(record.loop, call.kind, text, *key)
        return caching.c_function(_OPERATION, _named(scope["operation"], record.__name__, name))

    return _made(record, call.types(), formula, make)


def _made(what: Any, types: Any, formula: Formula | None, make: Callable[..., T]) -> T:
    """Return a cached function. Raises: NotImplementedError if numba cannot compile the formula.

    A failure is cached too, without the error, which holds all stack frames and so the network.
    """
    if formula is None:
        return cached((what, types), make)
    key, name = (fingerprint(formula.function), str(formula.is_plain)), what.__name__

    def attempt() -> T | None:
        try:
            return make(*key)
        except COMPILE_ERRORS as error:
            logger.info("numba cannot compile %s: NumPy computes it (%s)", name, error)
            return None

    if (made := cached((what, types, *key), attempt)) is None:
        raise NotImplementedError(f"numba cannot compile the formula in {name}")
    return made


def _named(function: FunctionType, name: str, of: str) -> FunctionType:
    """Return a function renamed to its key in the disk cache."""
    function.__name__ = function.__qualname__ = f"{name}_{of}"
    return function
