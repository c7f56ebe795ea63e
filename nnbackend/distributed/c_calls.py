"""Communication as calls of C functions, which compiled programs make without Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

MOST_ARGUMENTS = 7


class CCall(NamedTuple):
    """A C function with integer or pointer arguments, at most 7, which returns 0 if it succeeds.

    error: returns the exception for another number.  keeps: what must stay in memory.
    """

    address: int
    arguments: tuple[int, ...]
    error: Callable[[int], BaseException]
    keeps: Any = None


def python_call(function: Callable[[], None]) -> CCall:
    """Return a Python function as a C function without arguments, which takes the GIL.

    >>> call = python_call(lambda: print("called"))
    >>> ctypes.CFUNCTYPE(ctypes.c_int)(call.address)()
    called
    0
    """
    raised: list[BaseException] = []

    def run() -> int:
        try:
            function()
        except BaseException as error:
            raised.append(error)
            return 1
        return 0

    made = ctypes.CFUNCTYPE(ctypes.c_int)(run)
    address = int(ctypes.cast(made, ctypes.c_void_p).value or 0)
    return CCall(address, (), lambda _: raised.pop(), made)
