"""Tables in memory: data frames, dictionaries of columns, and lists of rows.

Frames of pandas, polars and Arrow are detected by their methods, so none of them is imported.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from nnbackend.data.numeric import CURES, kind_of, kinds_of, type_name
from nnbackend.data.table_faults import check_names
from nnbackend.data.tables import EXACT, Column, Table, is_missing
from nnbackend.errors import DataError, ShapeError


def as_table(x: Any, where: str = "x", only: Collection[str] | None = None) -> Table | None:
    """Return a table of the named columns of x; None for an array and the like.

    x: a frame of pandas, polars or Arrow, a dictionary of columns, a dictionary that is one row, or
    a list of such rows.
    only: names of the columns to convert, where present; by default all.

    Raises: DataError or ShapeError for columns that are neither numbers, booleans nor text.
    """
    if not is_table(x):
        return None
    named = ((str(name), values) for name, values in _columns(x))
    pairs = [(name, values) for name, values in named if only is None or name in only]
    names = tuple(name for name, _ in pairs)
    check_names(names, where)
    columns = tuple(_column(name, values, where) for name, values in pairs)
    lengths = [len(column) for column in columns]
    if only is None and not sum(lengths):
        raise ShapeError(f"{where} must have columns and rows. Received: an empty table.")
    if len(set(lengths)) > 1:
        raise ShapeError(
            f"{where} must have columns of one length. Received: from {min(lengths)} to "
            f"{max(lengths)} rows."
        )
    return Table(where, names, columns, np.arange(1, (lengths or [0])[0] + 1))


def is_table(x: Any) -> bool:
    """Return True if x has named columns."""
    if has_named_rows(x) or hasattr(x, "itercolumns") or hasattr(x, "iter_columns"):
        return True
    # `items` first: a lazy table has none, and its `columns` would start a query plan.
    return hasattr(x, "items") and hasattr(x, "columns") and hasattr(x, "dtypes")


def has_named_rows(x: Any) -> bool:
    """Return True for a dictionary and for a list of dictionaries."""
    is_list = isinstance(x, (list, tuple)) and bool(x)
    return isinstance(x, Mapping) or (is_list and all(isinstance(row, Mapping) for row in x))


def _columns(x: Any) -> list[tuple[Any, Any]]:
    """Return the names and columns of a table."""
    if isinstance(x, Mapping):
        return [(name, _cells(value)) for name, value in x.items()]
    if isinstance(x, (list, tuple)):
        names = dict.fromkeys(name for row in x for name in row)
        return [(name, _objects([row.get(name) for row in x])) for name in names]
    if hasattr(x, "itercolumns"):  # Arrow
        return list(zip(x.column_names, x.itercolumns(), strict=True))
    if hasattr(x, "iter_columns"):  # polars
        return list(zip(x.columns, x.iter_columns(), strict=True))
    return list(x.items())


def _cells(value: Any) -> Any:
    """Return the values of a column; a single value is a column of one row."""
    is_many = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    if not is_many:
        return _objects([value])
    return _objects(value) if isinstance(value, (list, tuple)) else value


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _column(name: Any, values: Any, where: str) -> Column:
    """Return a column as float64 (int64 where that is not exact), or as text."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ShapeError(
            f"{where}: column {name!r} must have one value for each row. "
            f"Received: {type_name(values)} of shape {array.shape}."
        )
    kind = array.dtype.kind
    if kind == "O":
        wrong = kinds_of(array) - {"numbers", "nothing", "text"}
    else:
        wrong = set() if kind in "fiubUST" else {kind_of(array.dtype)}
    if wrong:
        raise DataError(
            f"{where}: column {name!r} must be numbers, booleans or text. Received: "
            f"{' and '.join(sorted(wrong))}. "
            + " ".join(CURES[word] for word in sorted(wrong) if word in CURES)
        )
    if kind == "f":
        return array.astype(np.float64)
    if kind in "iu":
        is_exact = not len(array) or float(np.abs(array.astype(np.float64)).max()) < EXACT
        return array.astype(np.float64) if is_exact else array.astype(np.int64)
    cells = array.tolist()
    known = [cell for cell in cells if not _is_nothing(cell)]
    if known and all(isinstance(c, (Real, Decimal)) and not isinstance(c, bool) for c in known):
        try:
            return np.array([math.nan if _is_nothing(cell) else float(cell) for cell in cells])
        except OverflowError as error:
            raise DataError(
                f"{where}: column {name!r} must be finite in float64. "
                f"Received: a larger number ({error})."
            ) from error
    return [None if _is_nothing(cell) else str(cell).strip() for cell in cells]


def _is_nothing(cell: Any) -> bool:
    """Return True for None, NaN, pandas.NA and text that marks a missing value."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, str):
        return is_missing(cell)
    return isinstance(cell, float) and math.isnan(cell)
