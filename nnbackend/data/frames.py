"""Tables in memory: data frames, dictionaries of columns, and lists of rows.

Frames of pandas, polars and Arrow are detected by their methods, so none of them is imported and
predicting needs NumPy alone. Other frames, such as a query of polars, DuckDB, Ibis or Spark, are
read with narwhals.
"""

from __future__ import annotations

import datetime
import importlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from nnbackend.data.numeric import CURES, kind_of, kinds_of, type_name
from nnbackend.data.table_faults import check_names
from nnbackend.data.tables import EXACT, MANY_CODES, Column, Table, marks_gap, with_na
from nnbackend.errors import DataError, ShapeError

# Libraries of frames that are read with narwhals.
OTHERS = {"polars", "duckdb", "ibis", "pyspark", "dask", "sqlframe", "cudf", "daft"}


def as_table(
    x: Any,
    where: str = "x",
    only: Collection[str] | None = None,
    least_codes: Mapping[str, float] | None = None,
) -> Table | None:
    """Return a table of the named columns of x; None for an array and the like.

    x: a frame, also a query that is not yet run, a dictionary of columns, a dictionary that is one
    row, or a list of such rows.
    only: names of the columns to convert, where present; by default all.
    least_codes: by names, from how many codes on NA is one of them: see `with_na`.

    Raises: DataError or ShapeError for columns that are not numbers, booleans, dates or text.
    """
    if not is_table(x):
        return None
    named = ((str(name), values) for name, values in _columns(x))
    pairs = [(name, values) for name, values in named if only is None or name in only]
    names = tuple(name for name, _ in pairs)
    check_names(names, where)
    least = least_codes or {}
    columns = tuple(
        _column(name, values, where, least.get(name, MANY_CODES)) for name, values in pairs
    )
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
    if _is_of_others(x):
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
    return _columns_by_narwhals(x) if _is_of_others(x) else list(x.items())


def _is_of_others(x: Any) -> bool:
    """Return True for a frame of another library, also a query that is not yet run."""
    has_frames = type(x).__module__.partition(".")[0] in OTHERS
    # Columns have no names of columns. Their attributes are not read: this may run a query.
    return has_frames and any(hasattr(type(x), name) for name in ("columns", "collect"))


def _columns_by_narwhals(x: Any) -> list[tuple[Any, Any]]:
    """Return the names and columns of a frame that narwhals knows.

    Raises: DataError for another object, and without narwhals.
    """
    try:
        narwhals: Any = importlib.import_module("narwhals")
    except ImportError as error:
        raise DataError(
            f"Frames of {type(x).__module__.partition('.')[0]} are read with narwhals, which must "
            f"be importable. Received: {error}. Install it with: pip install narwhals"
        ) from error
    try:
        frame = narwhals.from_native(x)
    except TypeError as error:
        raise DataError(
            f"x must be a table that narwhals knows. Received: {type_name(x)} ({error})."
        ) from error
    frame = frame.collect() if isinstance(frame, narwhals.LazyFrame) else frame
    return [(column.name, column.to_numpy()) for column in frame.iter_columns()]


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


def _column(name: Any, values: Any, where: str, least_codes: float) -> Column:
    """Return a column as float64 (int64 where that is not exact), or as text, also dates."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ShapeError(
            f"{where}: column {name!r} must have one value for each row. "
            f"Received: {type_name(values)} of shape {array.shape}."
        )
    kind = array.dtype.kind
    if kind == "O":
        wrong = kinds_of(array) - {"numbers", "nothing", "text", "dates"}
    else:
        wrong = set() if kind in "fiubUSTM" else {kind_of(array.dtype)}
    if wrong:
        raise DataError(
            f"{where}: column {name!r} must be numbers, booleans, dates or text. Received: "
            f"{' and '.join(sorted(wrong))}. "
            + " ".join(CURES[word] for word in sorted(wrong) if word in CURES)
        )
    if kind == "f":
        return array.astype(np.float64)
    if kind in "iu":
        is_exact = not len(array) or float(np.abs(array.astype(np.float64)).max()) < EXACT
        return array.astype(np.float64) if is_exact else array.astype(np.int64)
    if kind == "M":
        array = array.astype("M8[s]").astype(object)
    cells = array.tolist()
    known = [cell for cell in cells if not _is_nothing(cell)]
    if known and all(isinstance(c, (Real, Decimal)) and not isinstance(c, bool) for c in known):
        try:
            if len(known) == len(cells) and all(isinstance(c, Integral) for c in known):
                whole = np.array([int(cell) for cell in cells], np.int64)
                if np.abs(whole.astype(np.float64)).max() >= EXACT:
                    return whole  # labels keep all their digits
            return np.array([math.nan if _is_nothing(cell) else float(cell) for cell in cells])
        except OverflowError as error:
            raise DataError(
                f"{where}: column {name!r} must be finite in float64. "
                f"Received: a larger number ({error})."
            ) from error
    return with_na([_as_text(cell) for cell in cells], least_codes)


def _as_text(cell: Any) -> str | None:
    """Return a cell as text, None for no value; dates as in 2024-03-31T12:00:00."""
    if _is_nothing(cell):
        return None
    if isinstance(cell, datetime.date):
        return cell.isoformat()[:19]
    return str(cell).strip()


def _is_nothing(cell: Any) -> bool:
    """Return True for None, NaN, pandas.NA and text that marks a missing value."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, str):
        return marks_gap(cell)
    return isinstance(cell, float) and math.isnan(cell)
