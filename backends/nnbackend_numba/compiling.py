"""From a formula of the engine, or of a user, to a compiled loop that is kept on the disk.

A loop in `loops` calls `formula`; here it is given a real one and compiled. The
numbers in a formula's text are Python floats, which would drag single precision through double:
they are replaced by numbers of the loop's own dtype. Compiled loops are found, in memory and on the
disk, by a name that holds a fingerprint of the formula: the same formula defined again finds its
loop, and a changed one is compiled anew.
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
# What a formula beyond numba raises.
CANNOT = (NumbaError, TypeError, NotImplementedError, RecursionError)


def retyped(value: Any, dtype: str) -> Any:
    """Return a function with its floats in `dtype`, compiled; a float in it; others as they are."""
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


T = TypeVar("T")
MOST = 512  # compiled things that are kept; what networks in use need they hold themselves
_kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()  # the last used at the end
_OPERATION = "void(int64, int64, int64, int64, int64)"


def keep(key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """Return what is kept under a key; made if it is not there. The longest unused makes room.

    A key holds names, not formulas: a formula that its user drops is not kept alive. That what was
    compiled for it stays for a while is meant: the same text defined again, as in a search over
    parameters, finds it, and the compiler gives back no memory for code that is dropped.
    """
    try:
        found: T = _kept[key]
        _kept.move_to_end(key)
    except KeyError:  # another thread may have dropped it just now
        found = _kept.setdefault(key, make())
        while len(_kept) > MOST:
            _kept.popitem(last=False)
    return found


@cache
def name_of(dtype: Any) -> str:
    """Return a dtype's name, which NumPy makes anew each time."""
    name: str = np.dtype(dtype).name
    return name


def compiled(
    loop: Callable[..., Any], dtype: Any, formula: Callable[..., Any] | None = None
) -> Any:
    """Return a loop of `loops` with its formula, compiled when first called and cached on disk.

    Raises: NotImplementedError for a formula whose result depends on what has no fingerprint.
    """
    dtype = name_of(dtype)

    def make() -> Any:
        assert isinstance(loop, FunctionType)
        function = FunctionType(loop.__code__, dict(loop.__globals__), loop.__name__)
        function.__globals__["formula"] = retyped(formula, dtype)
        return caching.jit(_named(function, dtype, fingerprint(loop, formula)))

    return keep((loop, dtype, None if formula is None else fingerprint(formula)), make)


def tried(loop: Any, use: Callable[[], T]) -> T | None:
    """Return what `use` makes of a compiled loop; None where numba cannot compile it.

    Such a loop is not kept: numba stores the error with it, and with the error every frame of the
    stack, which hold the network and its arrays.
    """
    try:
        return use()
    except CANNOT as error:
        for key in [k for k, kept in list(_kept.items()) if kept is loop]:
            _kept.pop(key, None)
        logger.info("numba cannot compile %s: NumPy serves (%s)", loop.__name__, error)
        return None


def usable(
    loop: Callable[..., Any],
    dtype: np.dtype[Any],
    formula: Callable[..., Any],
    arguments: Callable[[], Sequence[Any]],
    *sizes: int,
) -> Any:
    """Return a loop compiled with a formula, run once on arguments; None where numba cannot.

    sizes: the lengths of tuples among the arguments.
    """
    try:
        key = ("usable", loop, dtype, sizes, fingerprint(formula))
    except NotImplementedError:
        return None

    def make() -> Any:
        try:
            ready = compiled(loop, dtype, formula)
        except CANNOT:
            return None

        def use() -> Any:
            ready(*arguments())
            return ready

        return tried(ready, use)

    return keep(key, make)


def operation(body: Callable[..., Any], dtype: Any, loop: Any, **names: Any) -> Any:
    """Return an operation of `operations` with its loop, compiled, as a C function.

    names: what else its body asks for. The result's `address` is what a program calls.
    Raises: NotImplementedError where numba cannot compile the loop's formula.
    """
    dtype = name_of(dtype)
    inside = getattr(loop, "__name__", "")  # which says all about a compiled loop

    def make() -> Any:
        assert isinstance(body, FunctionType)
        function = FunctionType(body.__code__, dict(body.__globals__), body.__name__)
        function.__globals__.update(names, kind=np.dtype(dtype).type, loop=loop)
        known = [getattr(value, "__name__", value) for value in names.values()]
        name = fingerprint(body, inside, *known)
        return caching.c_function(_OPERATION, _named(function, dtype, name))

    key = (body, dtype, inside, *names.items())
    made = keep(key, make if loop is None else lambda: tried(loop, make))
    if made is None:
        raise NotImplementedError(f"numba cannot compile {inside}")
    return made


def _named(function: FunctionType, dtype: str, of: str) -> FunctionType:
    """Return a function with the name under which it is kept on the disk."""
    function.__name__ = function.__qualname__ = f"{function.__name__}_{dtype}_{of}"
    return function
