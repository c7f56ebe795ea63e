"""The reference of the conformance kit, in float64, with an error bound for every number.

An array of `ErrorBoundBackend` holds values and the error bound of each value: tolerance * (the sum
of the element's absolute terms), plus the errors of the terms, propagated to first order. The
kernels are the base class's, so running a kernel, formula or network gives its bounds. Comparisons
that are undecided within the error are counted: there two correct results may differ, and the kit
draws other inputs.

Source: running error analysis, Higham 2002 (Accuracy and Stability), section 3.3; differs in that
errors of different terms add by their squares, as independent errors do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from nnbackend.backend import Backend

# Relative to the sum of the absolute terms, by dtype of the computation.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
# The fraction of it for one element-wise operation.
ELEMENTWISE = 1 / 8
# By dtype: the tolerance, and the smallest number that is not rounded to 0.
_LIMITS = {
    np.dtype(name): (tolerance, float(np.finfo(name).smallest_normal))
    for name, tolerance in TOLERANCE.items()
}


class BoundedArray:
    """Values in float64, their error bounds, and the dtype that they represent.

    Integers and booleans have bounds too: 0 if they are certain.
    """

    __slots__ = ("bound", "dtype", "value", "xp")
    __array_ufunc__ = None  # so that `numpy_array + bounded_array` calls our operator
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any, bound: Any, dtype: np.dtype[Any], xp: BoundedNamespace) -> None:
        self.value, self.bound = np.asarray(value), np.asarray(bound)
        self.dtype, self.xp = dtype, xp

    def __neg__(self) -> BoundedArray:
        return BoundedArray(-self.value, self.bound, self.dtype, self.xp)

    def __matmul__(self, other: BoundedArray) -> BoundedArray:
        return self.xp.matmul(self, other)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.value.ndim

    @property
    def T(self) -> BoundedArray:
        """The transposed view."""
        return BoundedArray(self.value.T, self.bound.T, self.dtype, self.xp)

    def __getitem__(self, key: Any) -> BoundedArray:
        return BoundedArray(self.value[key], self.bound[key], self.dtype, self.xp)

    def __setitem__(self, key: Any, new: Any) -> None:
        if isinstance(new, BoundedArray):
            new = self.xp.astype(new, self.dtype)
        self.value[key] = getattr(new, "value", new)
        self.bound[key] = getattr(new, "bound", 0.0)


def _give_operators() -> None:
    """Add the operators to BoundedArray."""

    def forward(name: str) -> Callable[..., Any]:
        return lambda self, other: getattr(self.xp, name)(self, other)

    def reflected(name: str) -> Callable[..., Any]:
        return lambda self, other: getattr(self.xp, name)(other, self)

    for symbol, name in (
        ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"),
        ("pow", "pow"),
    ):  # fmt: skip
        setattr(BoundedArray, f"__{symbol}__", forward(name))
        setattr(BoundedArray, f"__r{symbol}__", reflected(name))
    for symbol in ("lt", "le", "gt", "ge", "eq", "ne"):
        compare = getattr(operator, symbol)
        setattr(
            BoundedArray, f"__{symbol}__",
            lambda self, other, compare=compare: self.xp.compare(compare, self, other),
        )  # fmt: skip


_give_operators()

quiet = np.errstate(all="ignore")  # some tests overflow on purpose


class BoundedNamespace:
    """The functions of the array API that the base class and the formulas use.

    undecided: the comparisons within the error so far.  kinks: those whose two outcomes differ by
    more than both errors.
    """

    def __init__(self) -> None:
        self.undecided = self.kinks = 0
        for name in ("bool", "uint8", "int32", "int64", "float32", "float64"):
            setattr(self, name, np.dtype(name))
        self.finfo = np.finfo

    def _made(self, value: Any, bound: Any, terms: Any, dtype: Any, share: float) -> BoundedArray:
        """Return a result: the error of its operands, and that of its own rounding."""
        if dtype in _LIMITS:
            tolerance, smallest = _LIMITS[dtype]
            bound = np.hypot(bound, share * tolerance * np.abs(terms))
            bound = bound + smallest * np.not_equal(terms, 0)  # it may underflow
            if not (is_known := np.isfinite(bound)).all():
                bound = np.where(is_known, bound, np.inf)
                self.kinks += 1
        if np.shape(bound) != np.shape(value):
            bound = np.broadcast_to(bound, np.shape(value))
        return BoundedArray(value, bound, dtype, self)

    def _elementwise(self, value: Any, bound: Any, terms: Any, *operands: Any) -> BoundedArray:
        kinds = [o.dtype if isinstance(o, BoundedArray) else o for o in operands]
        return self._made(value, bound, terms, np.result_type(*kinds), ELEMENTWISE)

    # ---- arithmetic ---------------------------------------------------------------------------

    @quiet
    def add(self, a: Any, b: Any) -> BoundedArray:
        """Return a + b."""
        return self._sum_of_two(operator.add, a, b)

    @quiet
    def subtract(self, a: Any, b: Any) -> BoundedArray:
        """Return a - b."""
        return self._sum_of_two(operator.sub, a, b)

    def _sum_of_two(self, add: Callable[..., Any], a: Any, b: Any) -> BoundedArray:
        (u, e), (v, f) = _parts(a), _parts(b)
        total = add(u, v)
        # Exact cancellation, as in z - max(z), does not depend on the size of the terms.
        terms = np.where(total != 0, np.abs(u) + np.abs(v), 0.0)
        return self._elementwise(total, np.hypot(e, f), terms, a, b)

    @quiet
    def multiply(self, a: Any, b: Any) -> BoundedArray:
        """Return a * b."""
        (u, e), (v, f) = _parts(a), _parts(b)
        bound = np.hypot(_times(u, f), _times(v, e)) + _times(e, f)
        return self._elementwise(u * v, bound, u * v, a, b)

    @quiet
    def divide(self, a: Any, b: Any) -> BoundedArray:
        """Return a / b."""
        (u, e), (v, f) = _parts(a), _parts(b)
        quotient = np.true_divide(u, v)
        moved, least = np.hypot(e, _times(quotient, f)), np.abs(v) - f
        bound = np.where(moved == 0, 0.0, np.where(least > 0, moved / least, np.inf))
        return self._elementwise(quotient, bound, quotient, a, b)

    @quiet
    def pow(self, a: Any, b: Any) -> BoundedArray:
        """Return a ** b, where one of the two is a Python number."""
        if isinstance(a, BoundedArray):
            # Of |a| + error, whose powers have the larger errors.
            value, size = a.value**b, np.abs(a.value)
            return self._elementwise(value, np.abs((size + a.bound) ** b - size**b), value, a)
        return self._monotone(b, lambda v: a**v)

    @quiet
    def matmul(self, a: Any, b: Any) -> BoundedArray:
        """Return the matrix product a @ b."""
        u, v = np.abs(a.value), np.abs(b.value)
        bound = np.sqrt(u**2 @ b.bound**2 + a.bound**2 @ v**2) + a.bound @ b.bound
        dtype = np.result_type(a.dtype, b.dtype)
        return self._made(a.value @ b.value, bound, u @ v, dtype, 1.0)

    @quiet
    def sum(self, a: Any, axis: int | None = None, keepdims: bool = False) -> BoundedArray:
        """Return the sum along an axis."""

        def total(v: Any) -> Any:
            return np.sum(v, axis=axis, keepdims=keepdims)

        value = total(a.value)
        terms = total(np.abs(a.value)) if a.value.size > value.size else 0.0
        return self._made(value, np.sqrt(total(a.bound**2)), terms, a.dtype, 1.0)

    # ---- functions ----------------------------------------------------------------------------

    @quiet
    def _monotone(self, a: Any, f: Callable[..., Any], lowest: float = -np.inf) -> BoundedArray:
        value = f(a.value)
        above = f(a.value + a.bound) - value
        below = f(np.maximum(a.value - a.bound, lowest)) - value
        bound = np.where(a.bound > 0, np.maximum(np.abs(above), np.abs(below)), 0.0)
        return self._elementwise(value, bound, value, a)

    def exp(self, a: Any) -> BoundedArray:
        """Return e ** a."""
        return self._monotone(a, np.exp)

    def expm1(self, a: Any) -> BoundedArray:
        """Return e ** a - 1."""
        return self._monotone(a, np.expm1)

    def log(self, a: Any) -> BoundedArray:
        """Return the natural logarithm."""
        return self._monotone(a, np.log, 0.0)

    def log1p(self, a: Any) -> BoundedArray:
        """Return log(1 + a)."""
        return self._monotone(a, np.log1p, -1.0)

    def sqrt(self, a: Any) -> BoundedArray:
        """Return the square root."""
        return self._monotone(a, np.sqrt, 0.0)

    def tanh(self, a: Any) -> BoundedArray:
        """Return the hyperbolic tangent."""
        return self._monotone(a, np.tanh)

    def abs(self, a: Any) -> BoundedArray:
        """Return |a|, exact except for the kink at 0."""
        self._unsure(np.abs(a.value), a.bound)
        return BoundedArray(np.abs(a.value), a.bound, a.dtype, self)

    def sign(self, a: Any) -> BoundedArray:
        """Return -1, 0 or 1."""
        unsure = self._unsure(np.abs(a.value), a.bound)
        self.kinks += int(unsure.sum())
        return BoundedArray(np.sign(a.value), 2.0 * unsure, a.dtype, self)

    # ---- decisions ----------------------------------------------------------------------------

    def _unsure(self, distance: Any, bound: Any) -> Any:
        """Return where a distance may be 0; exact operands are compared exactly."""
        unsure = np.logical_and(distance <= bound, np.greater(bound, 0))
        self.undecided += int(unsure.sum())
        return unsure

    @quiet
    def compare(self, relation: Callable[..., Any], a: Any, b: Any) -> BoundedArray:
        """Return relation(a, b), uncertain where a and b are equal within their errors."""
        (u, e), (v, f) = _parts(a), _parts(b)
        unsure = self._unsure(np.abs(np.asarray(u, float) - v), e + f)
        return self._made(relation(u, v), 1.0 * unsure, 0.0, np.dtype(bool), 0.0)

    @quiet
    def where(self, condition: Any, a: Any, b: Any) -> BoundedArray:
        """Return a where the condition holds, else b; either where it is uncertain."""
        (u, e), (v, f) = _parts(a), _parts(b)
        largest, apart = np.maximum(e, f), np.abs(np.subtract(u, v))
        unsure = condition.bound > 0
        # Both sides of a continuous function's kink lie within the errors.
        self.kinks += int((unsure & (apart > 2 * largest)).sum())
        bound = np.where(unsure, largest + apart, np.where(condition.value, e, f))
        return self._elementwise(np.where(condition.value, u, v), bound, 0.0, a, b)

    def max(self, a: Any, axis: int, keepdims: bool = False) -> BoundedArray:
        """Return the largest along an axis."""
        top = a.value.max(axis=axis, keepdims=True)
        bound = np.where(a.value + a.bound >= top, a.bound, 0.0).max(axis=axis, keepdims=True)
        if not keepdims:
            top, bound = top.squeeze(axis), bound.squeeze(axis)
        return BoundedArray(top, bound, a.dtype, self)

    def argmax(self, a: Any, axis: int) -> BoundedArray:
        """Return the index of the first maximum; uncertain where another element may be larger."""
        place = np.expand_dims(a.value.argmax(axis=axis), axis)
        top, error = (np.take_along_axis(part, place, axis) for part in (a.value, a.bound))
        bound = a.bound + error
        np.put_along_axis(bound, place, 0.0, axis)
        unsure = self._unsure(top - a.value, bound).any(axis=axis)
        self.kinks += int(unsure.sum())
        return BoundedArray(
            place.squeeze(axis), unsure * float(a.shape[axis]), np.dtype("int64"), self
        )

    def all(self, a: Any, axis: int) -> BoundedArray:
        """Return whether all elements along an axis are true."""
        return BoundedArray(a.value.all(axis), 1.0 * (a.bound > 0).any(axis), a.dtype, self)

    # ---- shapes and dtypes --------------------------------------------------------------------

    def astype(self, a: Any, dtype: Any) -> BoundedArray:
        """Return the array in a dtype; a float or a large integer may lose digits in a narrower."""
        dtype = np.dtype(dtype)
        value = a.value.astype(np.float64 if dtype.kind == "f" else dtype)
        if dtype.kind == "f" and a.dtype.kind in "iu":
            loses = np.abs(value) > 2.0 ** (np.finfo(dtype).nmant + 1)
        else:
            loses = a.dtype.kind == "f" and dtype.itemsize < a.dtype.itemsize
        return self._made(value, a.bound, np.where(loses, value, 0.0), dtype, ELEMENTWISE)

    def reshape(self, a: Any, shape: tuple[int, ...]) -> BoundedArray:
        """Return a view in another shape."""
        return BoundedArray(a.value.reshape(shape), a.bound.reshape(shape), a.dtype, self)

    def take(self, a: Any, indices: Any, axis: int = 0) -> BoundedArray:
        """Return the rows at some indices."""
        value, bound = (np.take(part, indices.value, axis=axis) for part in (a.value, a.bound))
        return BoundedArray(value, bound, a.dtype, self)

    def ones_like(self, a: Any) -> BoundedArray:
        """Return ones in the shape of an array."""
        return BoundedArray(np.ones_like(a.value), np.zeros(a.shape), a.dtype, self)

    def zeros_like(self, a: Any) -> BoundedArray:
        """Return zeros in the shape of an array."""
        return BoundedArray(np.zeros_like(a.value), np.zeros(a.shape), a.dtype, self)


class ErrorBoundBackend(Backend):
    """The base class's kernels over arrays with error bounds.

    Create one per computation: its namespace counts the uncertain comparisons.
    """

    name = "error_bounds"
    device = "error_bounds:0"

    def __init__(self) -> None:
        self.xp: BoundedNamespace = BoundedNamespace()
        self.last_read: Any = None  # the array that `to_host` read last, with its bounds

    def empty(self, shape: tuple[int, ...], dtype: str) -> BoundedArray:
        return self.zeros(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> BoundedArray:
        return self.to_device(np.zeros(shape, dtype))

    def to_device(self, host: np.ndarray, out: BoundedArray | None = None) -> BoundedArray:
        value = host.astype(np.float64 if host.dtype.kind == "f" else host.dtype)
        if out is None:
            return BoundedArray(value, np.zeros(host.shape), host.dtype, self.xp)
        out[...] = value
        return out

    def to_host(self, array: BoundedArray) -> np.ndarray:
        self.last_read = array
        return np.array(array.value)

    def synchronize(self) -> None:
        """Return at once: there is nothing to wait for."""

    def owns(self, array: object) -> bool:
        return isinstance(array, BoundedArray) and array.xp is self.xp


def _parts(operand: Any) -> tuple[Any, Any]:
    """Return the value and the bound of an operand; Python numbers are exact."""
    if isinstance(operand, BoundedArray):
        return operand.value, operand.bound
    return operand, 0.0


def _times(a: Any, error: Any) -> Any:
    """Return a * error; 0 where a is 0, for any error."""
    return np.where((np.equal(a, 0)) | (np.equal(error, 0)), 0.0, a * error)
