"""Tables as rows of a network: columns become features by a coding that is fitted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nnbackend.data.coding import ColumnCoding, encode, fit_column
from nnbackend.data.frames import as_table
from nnbackend.data.tables import (
    Table,
    check_no_infinity,
    check_not_mixed,
    find_column,
    handle_missing,
    missing_mask,
)
from nnbackend.errors import ArgumentError, DataError, ShapeError

SHOWN = 10  # features in a message

Columns = Mapping[str, Any]


def fit_table(x: Any, y: Any, n_in: int) -> tuple[Any, Any, Columns | None]:
    """Return the features of x, the targets, and the coding of the columns.

    y: the name of a column of x, or the targets themselves. An array has no coding.
    Raises: DataError for missing values; ShapeError unless there are n_in features.
    """
    table = as_table(x)
    if table is None:
        if isinstance(y, str):
            raise ArgumentError(
                f"y may name a column of a table only. Received: y={y!r} for {type(x).__name__}."
            )
        return x, y, None
    features, values = _split(table, y)
    check_no_infinity(features)
    features, _ = handle_missing(features, "error")
    for position, name in enumerate(features.names):
        check_not_mixed(features, position, f"If all are names, convert column {name!r} to text.")
    columns = tuple(fit_column(features, position) for position in range(len(features.names)))
    coding = ColumnCoding(columns, y if isinstance(y, str) else None, None)
    names = coding.feature_names
    if len(names) != n_in:
        raise ShapeError(
            f"x must have {n_in} features (the first layer's n_in). Received: a table of "
            f"{len(columns)} columns, which become {len(names)} features: "
            f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}. "
            f"Build the network with n_in={len(names)}."
        )
    return encode(features, coding), values, coding.to_dict()


def code_table(x: Any, y: Any, columns: Columns | None) -> tuple[Any, Any]:
    """Return the features of x by a fitted coding, and the targets.

    y: None; a column's name; or the targets. An array must have the features as its columns.
    Raises: DataError for columns or categories that are not in the coding.
    """
    table = as_table(x)
    if table is None:
        return x, y
    if columns is None:
        if y is not None and isinstance(y, str):
            table, y = _split(table, y)
        return _numbers(table), y
    coding = ColumnCoding.from_dict(columns)
    if isinstance(y, str):
        table, y = _split(table, y)
    elif y is None and coding.target in table.names:
        _, y = _split(table, coding.target)
    positions, _ = replace(coding, has_header=True, target=None).match(table.names, table.where)
    features = table.select(positions, [column.name for column in coding.columns])
    check_no_infinity(features)
    features, _ = handle_missing(features, "error")
    return encode(features, coding), y


def _split(table: Table, y: Any) -> tuple[Table, Any]:
    """Return the table without the target column, and the targets."""
    if not isinstance(y, str):
        return table, y
    at = find_column(y, table)
    others = [i for i in range(len(table.names)) if i != at]
    if not others:
        raise DataError(f"x must have a column besides the target {y!r}. Received: only that.")
    rest = table.select(others, [table.names[i] for i in others])
    return rest, _target(table, at)


def _target(table: Table, at: int) -> np.ndarray:
    """Return a column as targets: numbers, booleans or text; refuse missing values."""
    column, name = table.columns[at], table.names[at]
    missing = missing_mask(column)
    if missing.any():
        raise DataError(
            f"The target must be known in every row. Received: missing values of {name!r} in "
            f"{int(missing.sum())} of {table.n_rows} rows. Drop those rows."
        )
    if not isinstance(column, list):
        return column
    if set(column) <= {"True", "False"}:
        return np.array([cell == "True" for cell in column])
    return np.array(column, dtype=np.str_)


def _numbers(table: Table) -> np.ndarray:
    """Return a table of numbers as an array, for a model that was fitted to an array."""
    text = [n for n, c in zip(table.names, table.columns, strict=True) if isinstance(c, list)]
    if text:
        raise DataError(
            f"x must hold numbers, as when the model was fitted. Received: text in {text[0]!r}."
        )
    return np.stack([np.asarray(column, np.float64) for column in table.columns], axis=1)
