"""Tables as rows of a network: columns become features by a coding that is fitted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnbackend import validation
from nnbackend.backend import Backend
from nnbackend.data.coding import ColumnCoding, encode
from nnbackend.data.deciding import decide, decimal_sign
from nnbackend.data.frames import as_table, has_named_rows, is_table
from nnbackend.data.many_levels import TargetValues, target_values
from nnbackend.data.piecewise import PiecewiseEncoder
from nnbackend.data.raw_tables import RawTable
from nnbackend.data.tables import Table, find_column, missing_mask
from nnbackend.errors import ArgumentError, DataError, ShapeError

SHOWN = 10  # features in a message

Columns = Mapping[str, Any]


def split_table(x: Any, y: Any) -> tuple[Table | None, str | None, Any]:
    """Return the features of a table x, None for an array, the name of its target, and the targets.

    y: the name of a column of x, or the targets themselves.
    Raises: DataError for infinite numbers.
    """
    if y is None:
        raise ArgumentError("fit needs targets y, or the name of a column of x. Received: None.")
    table = as_table(x)
    if table is None:
        _check_no_name(x, y)
        return None, None, y
    features, values = _split(table, y)
    _check_values(features)
    return features, _name(y), values


def fit_table(
    table: Table,
    name: str | None,
    targets: Any,
    classes: Sequence[Any] | None,
    rows: np.ndarray | None,
    n_in: int,
) -> tuple[Any, Columns]:
    """Return the features of a table, and the coding of its columns.

    name: that of the target column, if it is one.  targets: class codes or values.
    rows: the positions of the rows to which the columns are fitted; None: all.
    Raises: ShapeError unless there are n_in features.
    """
    training = np.ones(table.n_rows, bool)
    if rows is not None and len(targets) == table.n_rows:
        training = np.isin(np.arange(table.n_rows), rows)
    coding, x = _fitted(table, name, training, _known_targets(targets, classes, table.n_rows))
    names = coding.feature_names
    if len(names) != n_in:
        raise ShapeError(
            f"x must have {n_in} features (the first layer's n_in). Received: a table of "
            f"{len(coding.columns)} columns, which become {len(names)} features: "
            f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}. "
            f"Build the network with n_in={len(names)}."
        )
    return x, coding.to_dict()


def _known_targets(targets: Any, classes: Sequence[Any] | None, n_rows: int) -> TargetValues | None:
    """Return the targets whose means describe categories; None for any that cannot."""
    if not isinstance(targets, np.ndarray) or len(targets) != n_rows:
        return None  # refused later, or on a device
    if targets.dtype.kind not in "biuf" or (classes is not None and targets.ndim != 1):
        return None
    return target_values(targets, classes) if np.isfinite(targets).all() else None


def training_features(x: Any, y: Any, is_labels: bool) -> tuple[Any, Columns | None]:
    """Return the features of training rows x and their coding; x and None for numbers alone.

    y: the labels or values of the rows.
    Raises: DataError for infinite numbers, and for a table without a column that can be used.
    """
    table = as_table(x)
    if table is None or not any(isinstance(c, list) or np.isnan(c).any() for c in table.columns):
        return x, None
    _check_values(table)
    targets, classes = np.asarray(y), None
    if is_labels and targets.ndim == 1:
        labels, targets = np.unique(targets, return_inverse=True)
        classes = labels.tolist()
    known = _known_targets(targets, classes, table.n_rows)
    coding, features = _fitted(table, None, np.ones(table.n_rows, bool), known)
    if not coding.used:
        raise DataError(
            "x must have a column that becomes a feature. Received: "
            f"{'; '.join(f'{c.name!r}: {c.why}' for c in coding.columns[:SHOWN])}."
        )
    return features, coding.to_dict()


def coded_rows(x: Any, columns: Columns | None) -> Any:
    """Return the features of a table by a coding; anything else unchanged."""
    return code_table(x, columns) if columns is not None else x


def _fitted(
    table: Table, name: str | None, training: np.ndarray, target: TargetValues | None
) -> tuple[ColumnCoding, Any]:
    """Return the coding fitted to the training rows of a table, and the features of all rows."""
    sign = decimal_sign(table)
    decisions = tuple(decide(table, i, None, sign) for i in range(len(table.names)))
    coding = ColumnCoding((), name, None, decimal=sign or ".")
    return RawTable(table, decisions).fit(coding, training, target)


def code_table(x: Any, columns: Columns | None) -> Any:
    """Return the features of x by a fitted coding; other columns are ignored.

    An array must have the features as its columns.
    Raises: DataError for columns that are not in the table.
    """
    if columns is None:
        return _without_names(x)
    if not is_table(x):
        return x
    coding = replace(ColumnCoding.from_dict(columns), has_header=True, target=None)
    names = [column.name for column in coding.used]
    least = coding.least_codes(tuple(names), "x")
    table = as_table(x, only=names, least_codes=dict(zip(names, least.values(), strict=True)))
    assert table is not None
    positions, _ = coding.match(table.names, table.where)
    features = table.select(positions, names)
    _check_values(features)
    return encode(features, coding)


def code_target(x: Any, y: Any, columns: Columns | None) -> Any:
    """Return the targets of a fitted model: y itself, or a column of x.

    y: None stands for the column that was the target of the fit.
    Raises: ArgumentError for another column than that of the fit.
    """
    name = _name(y)
    if y is not None and name is None:
        return y
    coding = None if columns is None else ColumnCoding.from_dict(columns)
    target = None if coding is None else coding.target
    if name is None:
        name = target
    features = [] if coding is None else [column.name for column in coding.columns]
    if name in features or (target is not None and name != target):
        raise ArgumentError(
            f"y must be the target of the fit, {target!r}. Received: y={y!r}."
            if target is not None
            else f"y must not be a feature of the model. Received: y={y!r}."
        )
    if name is None:
        return None
    table = as_table(x, only=[name])
    if table is None:
        _check_no_name(x, y)
        return None
    if name in table.names:
        return _target(table, 0)
    if y is None:
        return None
    raise DataError(f"x must have the target column {name!r}. Received: no such column.")


def encoded(x: Any, encoder: PiecewiseEncoder | None, backend: Backend) -> Any:
    """Return the inputs of a network for features x, which are x itself without an encoder.

    Raises: DataError or ShapeError for features that are not finite numbers.
    """
    if encoder is None:
        return x
    rows = validation.finite_rows(x, encoder.n_columns, "float64", backend)
    return encoder.transform(backend.to_host(rows) if backend.owns(rows) else np.asarray(rows[:]))


def _name(y: Any) -> str | None:
    """Return the name of a column, which some programs number; None for targets."""
    is_name = isinstance(y, (str, int, np.integer)) and not isinstance(y, bool)
    return str(y) if is_name else None


def _check_no_name(x: Any, y: Any) -> None:
    if _name(y) is not None:
        raise ArgumentError(
            f"y may name a column of a table only. Received: y={y!r} for {type(x).__name__}."
        )


def _split(table: Table, y: Any) -> tuple[Table, Any]:
    """Return the table without the target column, and the targets."""
    name = _name(y)
    if name is None:
        return table, y
    at = find_column(name, table)
    others = [i for i in range(len(table.names)) if i != at]
    if not others:
        raise DataError(f"x must have a column besides the target {name!r}. Received: only that.")
    return table.select(others, [table.names[i] for i in others]), _target(table, at)


def _check_values(table: Table) -> None:
    """Raise DataError for infinite numbers, with their column."""
    for name, column in zip(table.names, table.columns, strict=True):
        if not isinstance(column, list) and np.isinf(column).any():
            row = int(np.argmax(np.isinf(column))) + 1
            raise DataError(
                f"{table.where} must be finite. Received: infinity in column {name!r}, data row "
                f"{row}. Correct the value, or drop the row."
            )


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


def _without_names(x: Any) -> Any:
    """Return rows for a model that was fitted to an array: by position, so not from names."""
    if has_named_rows(x):
        raise DataError(
            "x must be an array (n, n_in), because the model was fitted to an array, whose columns "
            f"have no names. Received: {type(x).__name__} with names. Fit the model to a table."
        )
    return x
