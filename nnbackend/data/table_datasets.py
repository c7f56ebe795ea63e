"""Data sets made from tables: a new coding for training, a stored one for later tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.coding import ColumnCoding, as_text, encode, fit_column
from nnbackend.data.dataset import Dataset
from nnbackend.data.tables import (
    Column,
    Table,
    check_no_infinity,
    check_not_mixed,
    find_column,
    find_columns,
    handle_missing,
    read_decimal_commas,
)
from nnbackend.data.targets import Target, Task, code_labels, code_target
from nnbackend.errors import DataError, Mention


def _names_cure(column: str) -> tuple[str | Mention, ...]:
    return "If all are names, pass ", Mention("categorical", [column]), "."


def fit_dataset(
    table: Table,
    name: str,
    *,
    target: str | int | None,
    task: Task | None,
    missing: str,
    categorical: Sequence[str | int] = (),
) -> Dataset:
    """Build a data set and its coding from a table; the default target is the last column.

    categorical: columns whose values are names, even if they look like numbers.
    Raises: DataError when the table cannot be used for training.
    """
    position = find_column(-1 if target is None else target, table)
    named = find_columns(categorical, "categorical", table.names, table.where)
    if len(table.names) < 2:
        raise DataError(
            f"{table.where}: a table must have a feature and a target. Received: only the column "
            f"{table.names[0]!r}. Separate columns by comma, semicolon or tab; convert a table "
            "with blanks or | with pandas.read_csv(path, sep=...).to_csv(...)."
        )
    table = read_decimal_commas(table, named)
    check_no_infinity(table)
    table, kept = handle_missing(table, missing)
    columns = [as_text(c) if i in named else c for i, c in enumerate(table.columns)]
    table = replace(table, columns=tuple(columns))
    for i, column in enumerate(table.names):
        if i == position and task != "classification":
            check_not_mixed(table, i, "For classes pass ", Mention("task", "classification"), ".")
        elif i != position and i not in named:
            check_not_mixed(table, i, *_names_cure(column))
    others = [i for i in range(len(table.names)) if i != position]
    features = table.select(others, [table.names[i] for i in others])
    values, name_of_y = _target_values(table.columns[position]), table.names[position]
    coded = code_target(values, task, f"{table.where}, column {name_of_y!r}")
    coding = ColumnCoding(
        columns=tuple(fit_column(features, i, others[i] in named) for i in range(len(others))),
        target=name_of_y,
        task=coded.task,
        classes=coded.classes,
        has_header=table.has_header,
        target_position=position,
    )
    return _dataset(features, name, coding, coded, kept)


def code_dataset(table: Table, name: str, coding: ColumnCoding, *, missing: str) -> Dataset:
    """Build a data set from a table with an existing coding; the target may be absent.

    Columns are matched by name; other columns are ignored.

    Raises: DataError when a column or category does not match.
    """
    features, target = coding.match(table.names, table.where)
    names = [column.name for column in coding.columns]
    used = table.select(features, names)
    if target is not None:
        used = table.select([*features, target], [*names, coding.target or ""])
    text = {i for i, column in enumerate(coding.columns) if column.kind != "numeric"}
    text |= {len(names)} if coding.classes else set()
    used = read_decimal_commas(used, text)
    check_no_infinity(used)
    used, kept = handle_missing(used, missing)
    coded = None
    if target is not None and coding.task is not None:
        values = _target_values(used.columns[-1])
        where = f"{table.where}, column {coding.target!r}"
        if coding.classes is None:
            coded = code_target(values, "regression", where)
        else:
            y = code_labels(values, coding.classes, where, used.row_numbers)
            coded = Target(y, coding.task, coding.classes)
    features_only = used.select(range(len(names)), names)
    return _dataset(features_only, name, coding, coded, kept)


def _dataset(
    features: Table,
    name: str,
    coding: ColumnCoding,
    coded: Target | None,
    kept: NDArray[np.bool_] | None,
) -> Dataset:
    return Dataset(
        x=encode(features, coding),
        y=None if coded is None else coded.y,
        name=name,
        task=coding.task,
        classes=coding.classes,
        feature_names=coding.feature_names,
        columns=coding,
        n_dropped=0 if kept is None else int((~kept).sum()),
        kept=kept,
    )


def _target_values(column: Column) -> Any:
    """Return a target column as an array; text has no missing cells at this point."""
    return np.array(column, dtype=np.str_) if isinstance(column, list) else column
