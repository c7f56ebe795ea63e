"""Compile built-in and custom formulas into loops that are cached in memory and on disk.

A loop in `loops` calls the placeholder `formula`; this module replaces it and compiles the loop.
The constants of a formula are Python floats, which would convert single precision to double, so
they are replaced by numbers of the loop's dtype. The name of a compiled loop holds a fingerprint
of its formula: the same formula, defined again, reuses the loop; a changed one is compiled again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from types import CellType, FunctionType
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core.errors import NumbaError

from nnbackend_numba import caching, scalars
from nnbackend_numba.fingerprints import fingerprint, globals_in

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
    return numba.njit(forceinline=True, **scalars.FAST)(function)


def _plain(constant: Any, dtype: str) -> Any:
    return np.dtype(dtype).type(constant) if isinstance(constant, float) else constant


T = TypeVar("T")
MAX_CACHED = 512  # entries; networks in use hold their own references to compiled code
_cache: OrderedDict[tuple[Any, ...], Any] = OrderedDict()  # the most recently used last
_OPERATION = "void(int64, int64, int64, int64, int64)"


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


@cache
def name_of(dtype: Any) -> str:
    """Return a dtype's name, which NumPy builds at each access."""
    name: str = np.dtype(dtype).name
    return name


def compiled(
    loop: Callable[..., Any], dtype: Any, formula: Callable[..., Any] | None = None
) -> Any:
    """Return a loop of `loops` with its formula, compiled at its first call and cached on disk.

    Raises: NotImplementedError for a formula that uses a value without a fingerprint.
    """
    dtype = name_of(dtype)

    def make() -> Any:
        assert isinstance(loop, FunctionType)
        function = FunctionType(loop.__code__, dict(loop.__globals__), loop.__name__)
        function.__globals__["formula"] = retyped(formula, dtype)
        return caching.jit(_named(function, dtype, fingerprint(loop, formula)))

    return cached((loop, dtype, None if formula is None else fingerprint(formula)), make)


def try_compiled(loop: Any, use: Callable[[], T]) -> T | None:
    """Return the result of `use`, which calls a loop; None if numba cannot compile the loop.

    Such a loop is removed from the cache: numba stores the error in it, and with the error all
    stack frames, which hold the network and its arrays.
    """
    try:
        return use()
    except COMPILE_ERRORS as error:
        for key in [k for k, value in list(_cache.items()) if value is loop]:
            _cache.pop(key, None)
        logger.info("numba cannot compile %s: NumPy computes it (%s)", loop.__name__, error)
        return None


def usable(
    loop: Callable[..., Any],
    dtype: np.dtype[Any],
    formula: Callable[..., Any],
    arguments: Callable[[], Sequence[Any]],
    *sizes: int,
) -> Any:
    """Return a loop compiled with a formula and run once; None if numba cannot compile it.

    sizes: the lengths of tuples among the arguments.
    """
    try:
        key = ("usable", loop, dtype, sizes, fingerprint(formula))
    except NotImplementedError:
        return None

    def make() -> Any:
        try:
            ready = compiled(loop, dtype, formula)
        except COMPILE_ERRORS:
            return None

        def use() -> Any:
            ready(*arguments())
            return ready

        return try_compiled(ready, use)

    return cached(key, make)


def operation(body: Callable[..., Any], dtype: Any, loop: Any, **names: Any) -> Any:
    """Return an operation of `operations` with its loop, compiled, as a C function.

    names: the other globals of its body. A program calls the `address` of the result.
    Raises: NotImplementedError if numba cannot compile the loop's formula.
    """
    dtype = name_of(dtype)
    inside = getattr(loop, "__name__", "")  # identifies a compiled loop

    def make() -> Any:
        assert isinstance(body, FunctionType)
        function = FunctionType(body.__code__, dict(body.__globals__), body.__name__)
        function.__globals__.update(names, kind=np.dtype(dtype).type, loop=loop)
        known = [getattr(value, "__name__", value) for value in names.values()]
        name = fingerprint(body, inside, *known)
        return caching.c_function(_OPERATION, _named(function, dtype, name))

    key = (body, dtype, inside, *names.items())
    made = cached(key, make if loop is None else lambda: try_compiled(loop, make))
    if made is None:
        raise NotImplementedError(f"numba cannot compile {inside}")
    return made


def _named(function: FunctionType, dtype: str, of: str) -> FunctionType:
    """Return a function renamed to its key in the disk cache."""
    function.__name__ = function.__qualname__ = f"{function.__name__}_{dtype}_{of}"
    return function
