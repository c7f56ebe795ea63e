"""CuPy as a complete namespace of the Python array API standard.

CuPy 14 has nearly all functions; which ones are missing depends on the minor version. This module
adds only the missing ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from nnbackend.backend.formulas import Array


def cumulative_sum(x: Array, /, *, axis: int | None = None, dtype: Any = None) -> Array:
    """Return cumulative sums along an axis."""
    return cupy.cumsum(x, axis, dtype)


def cumulative_prod(x: Array, /, *, axis: int | None = None, dtype: Any = None) -> Array:
    """Return cumulative products along an axis."""
    return cupy.cumprod(x, axis, dtype)


def matrix_transpose(x: Array, /) -> Array:
    """Swap the last two axes."""
    return cupy.swapaxes(x, -1, -2)


def vecdot(x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
    """Return the inner products of real vectors along an axis."""
    return cupy.sum(x1 * x2, axis=axis)


STAND_INS: dict[str, Callable[..., Any]] = {
    "cumulative_sum": cumulative_sum,
    "cumulative_prod": cumulative_prod,
    "matrix_transpose": matrix_transpose,
    "vecdot": vecdot,
    "isdtype": np.isdtype,  # CuPy's dtypes are NumPy's
}


class Completed:
    """A module with replacements for missing functions; it caches names as attributes."""

    def __init__(self, module: Any, stand_ins: dict[str, Callable[..., Any]]) -> None:
        self._module = module
        lacking = {n: f for n, f in stand_ins.items() if not hasattr(module, n)}
        self.__dict__.update(lacking)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle read these before `_module` is set
            raise AttributeError(name)
        value = self.__dict__[name] = getattr(self._module, name)
        return value


xp = Completed(cupy, STAND_INS)
