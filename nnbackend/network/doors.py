"""Where arrays come in: what a network accepts as rows, targets and weights, and what it says else.

Two doors. The strict one (`own_rows`) is for the mathematics: arrays of the network's own device,
never copied silently. The wide one (`any_rows`) is for data: host arrays too, which then travel
batch by batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.errors import DataError, DeviceMismatchError, ShapeError

CHUNK = 1 << 22  # elements looked at in one go, so that a memory-mapped file stays on the disk


def own_rows(x: Any, n_in: int, backend: Backend, what: str = "x") -> Array:
    """Give rows that are on the device already; plain lists are brought there."""
    if not backend.owns(x):
        if hasattr(x, "__array_interface__") or hasattr(x, "__dlpack__"):
            raise DeviceMismatchError(
                f"network is on {backend.device} but {what} is {_type_name(x)}; "
                f"use net.backend.to_device({what})."
            )
        x = backend.to_device(host_array(x, what))
    return check_rows(x, n_in, what)


def any_rows(x: Any, n_in: int, backend: Backend, what: str = "x") -> Array:
    """Give rows of this device or of the host, uncopied."""
    return check_rows(x if backend.owns(x) else host_array(x, what), n_in, what)


def host_array(x: Any, what: str) -> np.ndarray:
    """Give a NumPy array of real numbers, or say why it cannot be one."""
    if hasattr(x, "__cuda_array_interface__"):
        raise DeviceMismatchError(
            f"{what} is {_type_name(x)} on a GPU and the network is not. "
            f"Build the network with device='gpu', or bring {what} to the host."
        )
    try:
        array = x if isinstance(x, np.ndarray) else np.asarray(x)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"{what} must be an array of numbers. Received: {_type_name(x)} ({error})."
        ) from error
    if array.dtype.kind not in "fiub":
        raise ShapeError(
            f"{what} must hold real numbers. Received: {what}.dtype={array.dtype}. "
            "Encode text and categories as numbers first, for example one-hot; the readers in "
            "nnbackend.data do."
        )
    return array


def check_rows(x: Array, n_in: int, what: str = "x") -> Array:
    """Check the shape of rows: (n, n_in), at least one."""
    shape = tuple(x.shape)
    if len(shape) != 2 or shape[1] != n_in:
        size = int(np.prod(shape))
        cure = f"Reshape to ({size // n_in}, {n_in})." if size and size % n_in == 0 else (
            f"Give {n_in} columns, or build the network with n_in={shape[-1]}." if shape else ""
        )  # fmt: skip
        raise ShapeError(
            f"{what} must have {n_in} columns (the first layer's n_in). "
            f"Received: {what}.shape={shape}. {cure}"
        )
    if shape[0] == 0:
        raise DataError(f"{what} must have at least one row. Received: {what}.shape={shape}.")
    return x


def check_finite(x: Array, backend: Backend, what: str = "x") -> None:
    """Refuse NaN and infinity, naming the first one."""
    owned = not isinstance(x, np.ndarray)
    if not owned and x.dtype.kind != "f":
        return
    width = int(x.shape[1]) if x.ndim == 2 else 1
    rows = max(1, CHUNK // width)
    for start in range(0, x.shape[0], rows):
        part = x[start : start + rows]
        if owned:
            part = backend.to_host(part)
        finite = np.isfinite(part)
        if not finite.all():
            place = [int(i) for i in np.argwhere(~finite)[0]]
            value = part[tuple(place)]
            place[0] += start
            where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
            raise DataError(
                f"{what} must be finite. Received: {value} in {where}. "
                "Drop such rows or fill the gaps before training."
            )


def host_targets(
    y: Any,
    n_rows: int,
    n_out: int,
    backend: Backend,
    *,
    labels_only: bool,
    classes: tuple[Any, ...] | None,
    dtype: str,
) -> np.ndarray:
    """Give targets as the loss takes them: (n,) int32 class labels, or (n, n_out) in `dtype`.

    Labels stand for one-hot rows. They are codes 0 .. n_out - 1, or text found in `classes`.
    labels_only says that whole numbers (n,) are labels even where n_out is 1.
    """
    if backend.owns(y) and not isinstance(y, np.ndarray):
        y = backend.to_host(y)
    if not hasattr(y, "__cuda_array_interface__"):
        y = np.asarray(y)
        y = _codes(y, classes) if y.dtype.kind in "OUST" else y
    array = host_array(y, "y")
    if array.ndim not in (1, 2) or array.shape[0] != n_rows:
        raise ShapeError(
            f"y must have one target for each of x's {n_rows} rows. Received: y.shape={array.shape}."
        )
    if array.ndim == 2 and array.shape[1] == 1 and n_out > 1:
        array = array[:, 0]
    if array.ndim == 1 and (n_out > 1 or labels_only):
        return _labels(array, n_out)
    if array.ndim == 1:
        array = array[:, None]
    if array.shape[1] != n_out:
        raise ShapeError(
            f"y must have {n_out} columns (the last layer's n_out), or be class labels (n,). "
            f"Received: y.shape={array.shape}."
        )
    check_finite(array, backend, "y")
    return np.ascontiguousarray(array, dtype)


def _codes(y: np.ndarray, classes: tuple[Any, ...] | None) -> np.ndarray:
    """Turn labels of text into their places in `classes`; objects that are numbers, into numbers."""
    if y.dtype.kind == "O" and all(isinstance(v, (int, float, np.number)) for v in y.flat):
        return y.astype(np.float64)
    if classes is None:
        raise DataError(
            f"y holds text (y.dtype={y.dtype}) and the network has no classes. Use "
            "classes, y = numpy.unique(y, return_inverse=True) and Network(..., classes=classes)."
        )
    place = {label: code for code, label in enumerate(classes)}
    try:
        return np.array([place[label] for label in y.flat]).reshape(y.shape)
    except KeyError as error:
        raise DataError(
            f"y must hold labels of the network's classes {classes}. Received: {error.args[0]!r}."
        ) from None


def _labels(y: np.ndarray, n_out: int) -> np.ndarray:
    """Check class labels: whole numbers in 0 .. n_out - 1."""
    check_finite(y, _NO_BACKEND, "y")
    codes = y.astype(np.int64)
    if y.dtype.kind == "f" and (codes != y).any():
        raise DataError(
            f"y (n,) must hold class labels, whole numbers, as the network has {n_out} outputs. "
            f"Received: {y[codes != y][0]}. Give (n, {n_out}) targets, or a network with one output."
        )
    if codes.min() < 0 or codes.max() >= n_out:
        raise DataError(
            f"y must hold class labels from 0 to {n_out - 1}, one per output. "
            f"Received: labels from {codes.min()} to {codes.max()}. "
            "Use classes, y = numpy.unique(y, return_inverse=True)."
        )
    return codes.astype(np.int32)


_NO_BACKEND: Any = None  # check_finite asks a backend only about arrays that are not NumPy's


def plain_labels(y: Any) -> np.ndarray | None:
    """Give y as labels (n,) to stratify by, or None where it holds no whole numbers or text."""
    labels = np.asarray(y) if not hasattr(y, "__cuda_array_interface__") else np.asarray(y.get())
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_labels = labels.ndim == 1 and labels.dtype.kind in "iubOUS"
    return labels if is_labels and len(np.unique(labels)) <= max(2, len(labels) // 2) else None


def host_weight(weight: Any, n_rows: int, backend: Backend, dtype: str) -> np.ndarray | None:
    """Give sample weights as (n,) in `dtype`: finite, none negative, not all zero."""
    if weight is None:
        return None
    if backend.owns(weight) and not isinstance(weight, np.ndarray):
        weight = backend.to_host(weight)
    array = host_array(weight, "sample_weight")
    if array.shape != (n_rows,):
        raise ShapeError(
            f"sample_weight must have shape ({n_rows},), one weight a row. "
            f"Received: sample_weight.shape={array.shape}."
        )
    check_finite(array, backend, "sample_weight")
    if array.min() < 0 or not array.any():
        raise DataError(
            "sample_weight must not be negative, nor zero for every row. "
            f"Received: values from {array.min()} to {array.max()}."
        )
    return np.ascontiguousarray(array, dtype)


def _type_name(x: Any) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}"
