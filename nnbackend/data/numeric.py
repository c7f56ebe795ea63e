"""Conversion of arrays, tables and objects to NumPy arrays of numbers.

Tables of pandas, polars and Arrow are detected by their methods, so none of these is imported.
Anything but real numbers raises an error with the columns and the cure.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from numbers import Complex, Real
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.dataset import Dataset
from nnbackend.errors import DataError, ShapeError

Host = NDArray[Any]
MOST_NAMES = 10  # columns named in a message
CURES = {
    "text": "Use nnbackend.Model with a table of named columns, as a DataFrame, or encode them "
    "as numbers first, for example with pandas.get_dummies or scikit-learn's OneHotEncoder.",
    "dates": "Turn dates into numbers first, for example days: "
    "(dates - dates.min()) / numpy.timedelta64(1, 'D').",
    "durations": "Divide durations by a unit first: durations / numpy.timedelta64(1, 's').",
    "complex numbers": "Give real and imaginary parts as columns: numpy.hstack([x.real, x.imag]).",
    "named fields": "Turn fields into columns first: "
    "numpy.lib.recfunctions.structured_to_unstructured(x).",
    "arrays": "Stack the rows into one array first: numpy.stack(x).",
}
_KINDS = {"U": "text", "S": "text", "T": "text", "M": "dates", "m": "durations",
          "c": "complex numbers"}  # fmt: skip
_CLASSES: tuple[tuple[Any, str], ...] = (
    ((str, bytes), "text"),
    ((datetime.date, datetime.time, np.datetime64), "dates"),
    ((datetime.timedelta, np.timedelta64), "durations"),
    ((Real, Decimal, np.bool_), "numbers"),
    ((Complex,), "complex numbers"),
    ((np.ndarray, list, tuple), "arrays"),
)


def as_array(x: Any, what: str) -> Host:
    """Return a NumPy array of an object that is not a NumPy array; tables become numbers.

    Raises: ShapeError for anything but arrays and tables, and for tables of other values.
    """
    columns = _columns(x)
    if columns is not None:
        return _table(x, columns, what)
    if cure := _cure(x):
        raise ShapeError(f"{what} must be an array of numbers. Received: {type_name(x)}. {cure}")
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"{what} must be an array of numbers. Received: {type_name(x)} ({error})."
        ) from error
    if array.dtype == object and array.ndim == 0:
        raise ShapeError(f"{what} must be an array of numbers. Received: {type_name(x)}.")
    return array


def numbers(array: Host, what: str) -> Host:
    """Return an array of bool, int or float in native byte order; objects become float64.

    Raises: ShapeError for anything else.
    """
    kind = array.dtype.kind
    if kind == "O":
        wrong = kinds_of(array) - {"numbers", "nothing"}
        if wrong:
            raise _refusal(what, f"{what}.dtype=object ({' and '.join(sorted(wrong))})", wrong)
        return _floats(array, what)
    if kind not in "fiub":
        word = kind_of(array.dtype)
        raise _refusal(what, f"{what}.dtype={array.dtype} ({word})", {word})
    if array.dtype.itemsize > 8:  # longdouble, which no device supports
        with np.errstate(over="ignore"):  # a later check reports the infinity with its position
            return array.astype(np.float64)
    # Devices need not support foreign byte orders; they read any other layout.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def kind_of(dtype: Any) -> str:
    """Return the name of the contents of a non-numeric dtype, for messages."""
    return "named fields" if dtype.names else _KINDS.get(dtype.kind, "raw bytes")


def kinds_of(array: Host) -> set[str]:
    """Return the names of the contents of an object array; missing values are "nothing"."""
    return {_word(kind) for kind in set(map(type, array.flat))}


def type_name(x: Any) -> str:
    """Return the full name of the type of x, for messages."""
    return f"{type(x).__module__}.{type(x).__qualname__}"


def _word(kind: type) -> str:
    if kind is type(None) or kind.__name__ == "NAType":  # NAType: pandas.NA
        return "nothing"
    if kind.__name__ == "NaTType":
        return "dates"
    return next(
        (word for classes, word in _CLASSES if issubclass(kind, classes)),
        f"objects of type {kind.__name__}",
    )


def _floats(array: Host, what: str) -> Host:
    """Return objects that are numbers as float64, with NaN for missing values."""
    try:
        return array.astype(np.float64)
    except TypeError:  # NA has no float
        flat = [v if _word(type(v)) == "numbers" else np.nan for v in array.flat]
        return np.array(flat, np.float64).reshape(array.shape)
    except OverflowError as error:
        raise DataError(
            f"{what} must be finite in float64. Received: a larger whole number ({error}). "
            "Drop such rows or divide by a unit."
        ) from error


def _columns(x: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return the names and columns of a table; None for other objects and for plain tables.

    A table is plain if NumPy converts it to an array of numbers at once, possibly without a copy.
    """
    if isinstance(x, Mapping) or hasattr(x, "__array_interface__"):
        return None
    if hasattr(x, "itercolumns"):  # Arrow
        return zip(x.column_names, x.itercolumns(), strict=True)
    if hasattr(x, "iter_columns"):  # polars
        return zip(x.columns, x.iter_columns(), strict=True)
    # `items` first: a lazy table has none, and its `columns` would start a query plan.
    if not (hasattr(x, "items") and hasattr(x, "columns") and hasattr(x, "dtypes")):
        return None
    kinds = {d.kind if isinstance(d, np.dtype) else "O" for d in x.dtypes}
    columns: Iterable[tuple[Any, Any]] = x.items()
    return None if kinds <= set("fiu") or kinds == {"b"} else columns


def _table(x: Any, columns: Iterable[tuple[Any, Any]], what: str) -> Host:
    """Return a table as one array in the common dtype of its columns."""
    arrays: list[Host] = []
    wrong: dict[str, list[Any]] = {}
    for name, column in columns:
        array = np.asarray(column)
        found = kinds_of(array) if array.dtype.kind == "O" else set()
        if array.dtype.kind not in "fiubO":
            found = {kind_of(array.dtype)}
        for word in sorted(found - {"numbers", "nothing"}):
            wrong.setdefault(word, []).append(name)
        if not wrong:
            arrays.append(numbers(array, what))
    if wrong:
        named = " and ".join(f"{word} in {_named(names)}" for word, names in wrong.items())
        raise _refusal(what, f"a {type(x).__name__} with {named}", wrong)
    return np.stack(arrays, axis=1) if arrays else np.empty(x.shape)


def _named(names: list[Any]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    shown = ", ".join(repr(name) for name in names[:MOST_NAMES])
    return f"the column{'s' if len(names) > 1 else ''} {shown}{more}"


def _refusal(what: str, received: str, found: Iterable[str]) -> ShapeError:
    cures = " ".join(CURES[word] for word in sorted(found) if word in CURES)
    return ShapeError(
        f"{what} must hold real numbers. Received: {received}. {cures or 'Give numbers.'}"
    )


def _cure(x: Any) -> str:
    """Return how to convert an object that is not an array to one; "" if unknown."""
    if isinstance(x, Dataset):
        return "Give its arrays: data.x and data.y."
    if hasattr(x, "toPandas"):  # Spark
        return "Collect it first: .toPandas()."
    if hasattr(x, "collect"):  # polars, lazy
        return "Collect it first: .collect()."
    if hasattr(x, "tocsr"):
        return "Convert the sparse matrix to a dense array: .toarray()."
    if isinstance(x, (str, bytes, PathLike)):
        return "Read a file first: data = nnbackend.data.load(path), then data.x and data.y."
    if isinstance(x, Mapping):
        return "Stack its columns into one array: numpy.column_stack(list(columns.values()))."
    if isinstance(x, (Iterator, set, frozenset)):
        return "Convert it to an array first: numpy.array(list(rows))."
    return ""
