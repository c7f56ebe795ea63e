"""Validation of what users pass: rows, targets, sample weights, sizes, dtypes and seeds.

Rows have two checks. `own_rows` is strict, for the network's computations: it accepts arrays on the
network's device and never copies arrays silently. `any_rows` is for data sets: it also accepts host
arrays, which are later copied batch by batch.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.data import numeric
from nnbackend.data.file_rows import in_files, selected
from nnbackend.data.foreign import check_readable
from nnbackend.data.host_rows import HostRows
from nnbackend.data.sparse import SparseRows
from nnbackend.errors import (
    ArgumentError,
    DataError,
    DeviceMismatchError,
    Fault,
    Mention,
    ShapeError,
)
from nnbackend.options import check

Host = NDArray[Any]
CHUNK = 1 << 22  # elements checked at once, so that a memory-mapped file stays on the disk
DEVICE_CHUNK = 1 << 24


def own_rows(x: Any, n_in: int, backend: Backend) -> Array:
    """Return validated rows that are on the device; lists and tables are copied to it."""
    if backend.owns(x):
        x = host_array(x, "x") if isinstance(x, np.ndarray) else x
        return _check_rows(x, n_in, "x")
    check_readable(x, "x")
    if hasattr(x, "__array_interface__") or hasattr(x, "__dlpack__"):
        host = "x" if isinstance(x, np.ndarray) else "numpy.asarray(x)"
        raise DeviceMismatchError(
            f"network is on {backend.device} but x is {numeric.type_name(x)}; "
            f"use net.backend.to_device({host})."
        )
    x = backend.to_device(backend.narrowed(host_array(x, "x")))
    return _check_rows(x, n_in, "x")


def any_rows(x: Any, n_in: int, backend: Backend, what: str = "x") -> Array:
    """Return validated rows on this device or the host, uncopied; SciPy matrices stay sparse."""
    if hasattr(x, "tocsr"):
        x = SparseRows(x)
    x = in_files(x)
    is_foreign = isinstance(x, np.ndarray) or not (backend.owns(x) or isinstance(x, HostRows))
    return _check_rows(host_array(x, what) if is_foreign else x, n_in, what)


def finite_rows(x: Any, n_in: int, dtype: str, backend: Backend, what: str = "x") -> Array:
    """Return rows as `any_rows` does; raise DataError for values that are not finite in `dtype`."""
    rows = any_rows(x, n_in, backend, what)
    _check_finite(rows, what, dtype, backend)
    return rows


def some_rows(x: Array, rows: Host, backend: Backend) -> Array:
    """Return the rows of x at the indices `rows` (n,), on the device of x."""
    if isinstance(x, (np.ndarray, HostRows)):
        return selected(x, rows)
    with backend.active():
        return backend.xp.take(x, backend.to_device(rows), axis=0)


def host_array(x: Any, what: str, backend: Backend | None = None) -> Host:
    """Return a NumPy array of real numbers, in a dtype that every device can read.

    Raises: ShapeError for anything but real numbers, DataError for masked values, and
    DeviceMismatchError for an array on a GPU that is not the backend's.
    """
    if type(x) is np.ndarray:
        return numeric.numbers(x, what)
    if np.ma.is_masked(x):
        raise DataError(
            f"{what} must have no masked values. Received: a masked array with "
            f"{int(np.sum(x.mask))} masked values. Fill them, or drop their rows."
        )
    if isinstance(x, np.ndarray):
        array = np.asarray(x)  # subclasses may override the arithmetic
    elif backend is not None and backend.owns(x):
        array = backend.to_host(x)
    elif hasattr(x, "__cuda_array_interface__"):
        raise DeviceMismatchError(
            f"{what} is {numeric.type_name(x)} on a GPU and the network is not. "
            f"Build the network with device='gpu', or copy {what} to the host."
        )
    else:
        check_readable(x, what)
        array = numeric.as_array(x, what)
    return numeric.numbers(array, what)


def _check_rows(x: Array, n_in: int, what: str) -> Array:
    """Return x if its shape is (n, n_in) with n >= 1; otherwise raise."""
    if getattr(x.dtype, "kind", "f") not in "fiub":  # a device array or a sparse one
        raise ShapeError(f"{what} must hold real numbers. Received: {what}.dtype={x.dtype}.")
    shape = tuple(int(n) for n in x.shape)
    if len(shape) != 2 or shape[1] != n_in:
        size = int(np.prod(shape))
        cure = f"Give {n_in} columns."
        if len(shape) != 2 and size and size % n_in == 0:
            cure = f"Reshape to ({size // n_in}, {n_in})."
        raise ShapeError(
            f"{what} must have {n_in} columns (the first layer's n_in). "
            f"Received: {what}.shape={shape}. {cure}"
        )
    if shape[0] == 0:
        raise DataError(f"{what} must have at least one row. Received: {what}.shape={shape}.")
    return x


def _check_finite(x: Array, what: str, dtype: str, backend: Backend | None = None) -> None:
    """Raise DataError for the first element that is NaN, or infinite in `dtype`."""
    largest = _largest(dtype)
    if isinstance(x, np.ndarray):
        if x.dtype.kind != "f":
            return
    elif isinstance(x, HostRows):
        if x.is_within(_largest_of(x, largest, np)):
            return
    # A device returns one flag; rows are copied to the host only to locate a bad element.
    elif backend is not None and _is_bounded_on_device(
        x, _largest_of(x, largest, backend.xp), backend
    ):
        return
    rows = max(1, CHUNK // (int(x.shape[1]) if x.ndim == 2 else 1))
    n = int(x.shape[0])
    for start in range(0, n, rows):
        part = host_array(x[start : min(start + rows, n), ...], what, backend)
        if _is_bounded(part, largest):
            continue
        finite = np.abs(part) <= largest  # false for NaN as well
        if not finite.all():
            row, *column = (int(i) for i in np.argwhere(~finite)[0])
            where = f"row {start + row}" + "".join(f", column {c}" for c in column)
            raise DataError(
                f"{what} must be finite in {dtype}. Received: {part[(row, *column)]} in {where}. "
                "Drop such rows or fill in the values before training."
            )


def _largest_of(x: Array, largest: Any, xp: Any) -> float:
    """Return the largest number allowed in x; a float32 array cannot be compared with 1e300."""
    try:
        return min(float(largest), float(xp.finfo(x.dtype).max))
    except (TypeError, ValueError):  # whole numbers
        return float(largest)


@cache
def _largest(dtype: str) -> Any:
    return np.finfo(dtype).max


def _is_bounded_on_device(x: Array, largest: float, backend: Backend) -> bool:
    """Return True if no element is larger; works in chunks, as x may fill the device's memory."""
    xp, fine = backend.xp, None
    rows = max(1, DEVICE_CHUNK // (int(x.shape[1]) if x.ndim == 2 else 1))
    with backend.active():
        n = int(x.shape[0])
        for start in range(0, n, rows):
            part = xp.all(xp.abs(x[start : min(start + rows, n), ...]) <= largest)
            fine = part if fine is None else xp.logical_and(fine, part)
    return fine is None or bool(backend.to_host(fine))


def _is_bounded(part: Host, largest: Any) -> bool:
    """Return True only if no element is larger; False means that one may be.

    One dot product: the sum of squares bounds every square. NaN and infinity propagate into it,
    and an overflow gives infinity.
    """
    if part.dtype.itemsize < 4 or not part.flags.c_contiguous:
        return False
    flat = part.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.sqrt(float(np.dot(flat, flat))) <= largest if flat.size else True


@dataclass(frozen=True)
class TargetForm:
    """The form of the targets that a network's loss expects: n_out columns, a dtype, a range."""

    n_out: int
    dtype: str
    loss: str


def targets(y: Any, n_rows: int, form: TargetForm, backend: Backend) -> Host:
    """Return targets on the host: (n,) int32 class labels, or (n, n_out) in the form's dtype.

    Labels stand for one-hot rows; they are codes 0 .. n_out - 1.
    """
    if isinstance(y, np.ndarray) or not (backend.owns(y) or hasattr(y, "__cuda_array_interface__")):
        if not isinstance(y, np.ndarray):
            check_readable(y, "y")
            y = numeric.as_array(y, "y")
        y = _numbers(y) if y.dtype.kind in "OUST" else y
    array, n_out = host_array(y, "y", backend), form.n_out
    if array.ndim not in (1, 2) or array.shape[0] != n_rows:
        raise ShapeError(
            f"y must have one target for each of the {n_rows} rows of x. "
            f"Received: y.shape={array.shape}."
        )
    _check_finite(array, "y", form.dtype)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 1 and (n_out > 1 or form.loss == "cross_entropy"):
        return _labels(array, n_out)
    array = array.reshape(n_rows, -1)
    if array.shape[1] != n_out:
        raise ShapeError(
            f"y must have {n_out} columns (the last layer's n_out), or be class labels (n,). "
            f"Received: y.shape={array.shape}."
        )
    _check_range(array, form.loss)
    return np.ascontiguousarray(array, form.dtype)


def _numbers(y: Host) -> Host:
    """Return objects that are numbers as numbers; raise DataError for text."""
    kinds = numeric.kinds_of(y) if y.dtype.kind == "O" else {"text"}
    if "text" in kinds:
        raise DataError(
            f"y must hold numbers. Received: text (y.dtype={y.dtype}). For classes use "
            "nnbackend.Model, which learns their labels (for one output with another loss than "
            "cross-entropy: Model(net, classes=[...])), or encode them: "
            "classes, y = numpy.unique(y, return_inverse=True)."
        )
    return numeric.numbers(y, "y")


def _labels(y: Host, n_out: int) -> Host:
    """Return class labels as int32; raise DataError unless they are whole and in 0 .. n_out - 1."""
    if y.min() < 0 or y.max() >= n_out:
        raise DataError(
            f"y must hold class labels from 0 to {n_out - 1}, one per output. "
            f"Received: labels from {y.min()} to {y.max()}. "
            "Use classes, y = numpy.unique(y, return_inverse=True)."
        )
    codes = y.astype(np.int32)
    if (codes != y).any():
        raise DataError(
            f"y (n,) must hold class labels, whole numbers, as the network has {n_out} outputs. "
            f"Received: {y[codes != y][0]}. Give targets (n, {n_out}), or build a network with "
            "one output."
        )
    return codes


def _check_range(y: Host, loss: str) -> None:
    """Raise DataError for targets outside the range of the loss."""
    limits = {"binary_cross_entropy": (0, 1), "cross_entropy": (0, 1), "poisson": (0, np.inf)}
    low, high = limits.get(loss, (-np.inf, np.inf))
    if y.min() < low or y.max() > high:
        raise DataError(
            f"targets of {loss} must lie between {low} and {high}. "
            f"Received: values from {y.min():g} to {y.max():g}."
        )


def sample_weights(
    weight: Any, n_rows: int, dtype: str, backend: Backend, is_part: bool = False
) -> Host | None:
    """Return sample weights as (n,) in `dtype`: finite, none negative, not all zero.

    is_part: whether these are not all weights, so that they may be zero.
    """
    if weight is None:
        return None
    array = host_array(weight, "sample_weight", backend)
    if array.shape != (n_rows,):
        raise ShapeError(
            f"sample_weight must have shape ({n_rows},), one weight per row. "
            f"Received: sample_weight.shape={array.shape}."
        )
    _check_finite(array, "sample_weight", dtype)
    weights = np.ascontiguousarray(array, dtype)
    if weights.any() or not is_part:
        check_some_weight(weights)
    return weights


def check_some_weight(weights: Host, what: str = "every row") -> None:
    """Raise DataError for weights that are negative, or all zero."""
    if weights.min() < 0 or not weights.any():
        raise DataError(
            f"sample_weight must not be negative, nor zero (in {weights.dtype}) for {what}. "
            f"Received: values from {weights.min()} to {weights.max()}."
        )


def check_size(name: str, value: Any) -> int:
    """Return a size as an int; raise ArgumentError unless it is an integer of at least 1."""
    try:
        size = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        size = 0
    if size < 1:
        raise ArgumentError(Fault(name, "a whole number, at least 1", value))
    return size


def check_dtype(dtype: Any, backend: Backend) -> str:
    """Return the name of a dtype; raise ArgumentError unless the backend supports it."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    if name not in backend.float_dtypes:
        expected = f"one of {', '.join(backend.float_dtypes)} on {backend.device}"
        raise ArgumentError(Fault("dtype", expected, name, _other_dtype(name, backend)))
    return str(name)


def _other_dtype(name: str, backend: Backend) -> tuple[str | Mention, ...]:
    if name != "float64":
        return ("Data in other dtypes is converted batch by batch.",)
    cures = Mention("dtype", "float32"), ", or ", Mention("device", "cpu"), "."
    return f"{backend.device} has no float64. Use ", *cures


def check_seed(seed: Any) -> int:
    """Return a seed as an int; raise ArgumentError unless it fits in 64 bits."""
    check(
        "seed",
        seed,
        lambda v: not isinstance(v, bool) and 0 <= operator.index(v) < 1 << 64,
        "a whole number from 0 to 2^64 - 1",
    )
    return operator.index(seed)
