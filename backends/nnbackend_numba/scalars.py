"""Scalar versions of the array functions that formulas use, for compiled loops.

This module is passed as `xp` to a formula, or replaces NumPy in it; missing functions are NumPy's.
The single-precision exponential and tanh are polynomials, which LLVM can vectorize; calls of the C
library are not vectorized.

Source of the polynomials: Moshier's Cephes library, expf.c and tanhf.c.
"""
# numba compares an overload's signature with its implementation's: no type annotations.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return"

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

# Without "nnan" and "ninf": divergence must be detected.
FAST: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "arcp", "nsz", "afn"},
    "error_model": "numpy",  # the default checks divisions for zero, which prevents vectorization
    "nogil": True,
}
# For functions that only compiled code calls: without the wrappers for other callers.
INNER: dict[str, Any] = {**FAST, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inline = numba.njit(forceinline=True, **INNER)
_f = np.float32


@_inline
def _power_of_two(n: np.int32) -> np.float32:
    return np.int32((n + 127) << 23).view(np.float32)


@_inline
def _expm1_reduced(r: np.float32) -> np.float32:
    """e^r - 1 for |r| <= log(2) / 2."""
    p = _f(1.9875691500e-4)
    p = p * r + _f(1.3981999507e-3)
    p = p * r + _f(8.3334519073e-3)
    p = p * r + _f(4.1665795894e-2)
    p = p * r + _f(1.6666665459e-1)
    p = p * r + _f(5.0000001201e-1)
    return p * r * r + r


@_inline
def _exp32(x: np.float32) -> np.float32:
    x = max(min(x, _f(89.0)), _f(-104.0))
    n = np.floor(x * _f(1.44269504088896341) + _f(0.5))
    r = x - n * _f(0.693359375) + n * _f(2.12194440e-4)
    k = np.int32(n)
    half = k >> 1  # two factors, as 2^k alone may not be a normal number
    return (_expm1_reduced(r) + _f(1.0)) * _power_of_two(half) * _power_of_two(k - half)


@_inline
def _expm132(x: np.float32) -> np.float32:
    x = max(min(x, _f(88.0)), _f(-88.0))
    n = np.floor(x * _f(1.44269504088896341) + _f(0.5))
    r = x - n * _f(0.693359375) + n * _f(2.12194440e-4)
    scale = _power_of_two(np.int32(n))
    return _expm1_reduced(r) * scale + (scale - _f(1.0))


@_inline
def _tanh32(x: np.float32) -> np.float32:
    s = x * x
    p = _f(-5.70498872745e-3)
    p = p * s + _f(2.06390887954e-2)
    p = p * s + _f(-5.37397155531e-2)
    p = p * s + _f(1.33314422036e-1)
    p = p * s + _f(-3.33332819422e-1)
    near = p * s * x + x
    size = abs(x)
    far = _f(1.0) - _f(2.0) / (_exp32(_f(2.0) * size) + _f(1.0))
    far = -far if x < _f(0.0) else far
    return near if size < _f(0.625) else far


def _missing(*args: Any) -> Any:
    raise NotImplementedError("only inside compiled code")


def _function(name: str, single: Callable[..., Any], double: Callable[..., Any]) -> Any:
    """Make a function of one number: `single` for float32, `double` for anything else."""

    def stub(z: Any) -> Any:
        return _missing(z)

    stub.__name__ = stub.__qualname__ = name

    @overload(stub, jit_options={"forceinline": True, **FAST})
    def _typed(z):
        if z == numba.float32:
            return lambda z: single(z)
        return lambda z: double(z)

    return stub


exp = _function("exp", _exp32, math.exp)
expm1 = _function("expm1", _expm132, math.expm1)
tanh = _function("tanh", _tanh32, math.tanh)
log = _function("log", math.log, math.log)
log1p = _function("log1p", math.log1p, math.log1p)
sqrt = _function("sqrt", math.sqrt, math.sqrt)


def abs(z: Any) -> Any:
    """|z|."""
    return _missing(z)


@overload(abs, jit_options={"forceinline": True, **FAST})
def _abs(z):
    return lambda z: math.fabs(z)


def _as_float(x: Any, y: Any) -> Any:
    """Return the float type of a float and an integer type, without promotion to double; else None.

    x, y: numba types.
    """
    whole = (types.Integer, types.Boolean)
    if isinstance(x, types.Float) and isinstance(y, whole):
        return x
    return y if isinstance(y, types.Float) and isinstance(x, whole) else None


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return x where the condition holds, else y."""
    return _missing(condition, x, y)


@overload(where, jit_options={"forceinline": True, **FAST})
def _where(condition, x, y):
    kind = _as_float(x, y)
    if kind is not None:
        return lambda condition, x, y: kind(x) if condition else kind(y)
    return lambda condition, x, y: x if condition else y


def maximum(x1: Any, x2: Any) -> Any:
    """Return the larger of two numbers; NaN if either is."""
    return _missing(x1, x2)


@overload(maximum, jit_options={"forceinline": True, **FAST})
def _maximum(x1, x2):
    return lambda x1, x2: where((x1 > x2) | (x1 != x1), x1, x2)


def minimum(x1: Any, x2: Any) -> Any:
    """Return the smaller of two numbers; NaN if either is."""
    return _missing(x1, x2)


@overload(minimum, jit_options={"forceinline": True, **FAST})
def _minimum(x1, x2):
    return lambda x1, x2: where((x1 < x2) | (x1 != x1), x1, x2)


def clip(a: Any, a_min: Any, a_max: Any) -> Any:
    """Limit a to the range from a_min to a_max."""
    return _missing(a, a_min, a_max)


@overload(clip, jit_options={"forceinline": True, **FAST})
def _clip(a, a_min, a_max):
    if isinstance(a_min, types.NoneType):
        return lambda a, a_min, a_max: minimum(a, a_max)
    if isinstance(a_max, types.NoneType):
        return lambda a, a_min, a_max: maximum(a, a_min)
    return lambda a, a_min, a_max: minimum(maximum(a, a_min), a_max)


def ones_like(z: Any) -> Any:
    """1 in the type of z."""
    return _missing(z)


@overload(ones_like, jit_options={"forceinline": True, **FAST})
def _ones_like(z):
    kind = z
    return lambda z: kind(1)


def zeros_like(z: Any) -> Any:
    """0 in the type of z."""
    return _missing(z)


@overload(zeros_like, jit_options={"forceinline": True, **FAST})
def _zeros_like(z):
    kind = z
    return lambda z: kind(0)


def sign(z: Any) -> Any:
    """-1, 0 or 1."""
    return _missing(z)


@overload(sign, jit_options={"forceinline": True, **FAST})
def _sign(z):
    return lambda z: np.sign(z)


def sum(z: Any, axis: int) -> Any:
    """Return the term of one output in a sum over a row's outputs."""
    return _missing(z)


@overload(sum, jit_options={"forceinline": True, **FAST})
def _sum(z, axis):
    return lambda z, axis: z


# ---- replacements of NumPy's functions -----------------------------------------------------------


def __getattr__(name: str) -> Any:
    """Return NumPy's function; numba compiles many of them, such as sin, for scalars."""
    if name.startswith("_"):
        raise AttributeError(name)
    return getattr(np, name)


def in_place_of(value: Any) -> Any:
    """Return this module for NumPy, its function for NumPy's, and any other value unchanged."""
    if value is np:
        return sys.modules[__name__]
    name = getattr(value, "__name__", "")
    is_ours = isinstance(name, str) and getattr(np, name, None) is value
    return globals().get("abs" if name == "absolute" else name, value) if is_ours else value
