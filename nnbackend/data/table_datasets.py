"""Data sets made from tables: a new coding for training, a stored one for later tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.coding import ColumnCoding, encode
from nnbackend.data.columns import as_text
from nnbackend.data.dataset import Dataset
from nnbackend.data.dates import order_of
from nnbackend.data.deciding import Cells, decide, decimal_sign
from nnbackend.data.number_text import Decimal, are_numbers
from nnbackend.data.raw_tables import RawTable
from nnbackend.data.table_faults import infinity_faults, raise_all, target_faults
from nnbackend.data.tables import (
    Column,
    Numbers,
    Table,
    Text,
    find_column,
    handle_missing,
)
from nnbackend.data.targets import Target, Task, code_labels, code_target
from nnbackend.errors import DataError, Mention

Training = Callable[[Dataset], NDArray[np.int64]]
TARGET_NAMES = {"label", "target", "class", "y"}  # of a first column, as in Kaggle's MNIST


def fit_dataset(
    table: Table,
    name: str,
    *,
    target: str | int | None,
    task: Task | None,
    missing: str,
    kinds: Mapping[str, str],
    decimal: Decimal | None = None,
    training: Training | None = None,
    positive: str | None = None,
) -> Dataset:
    """Build a data set and its coding from a table; see `load` for the default target.

    kinds: the kinds of columns by name, where they shall not be decided.  decimal: the decimal sign
    of numbers in text, if it shall not be decided.  training: the rows to fit the columns to.
    positive: the class that becomes the second of two.
    Raises: DataError when the table cannot be used for training.
    """
    position = _target_position(table, target)
    decimal = decimal or decimal_sign(table, kinds)
    numbers = _numeric_target(table, position, task, kinds, decimal)
    faults = [*table.faults, *infinity_faults(table)]
    raise_all(faults + ([] if numbers is None else target_faults(table, position, numbers)))
    table, kept = handle_missing(table, missing, position)
    others = [i for i in range(len(table.names)) if i != position]
    features = table.select(others, [table.names[i] for i in others])
    y = table.columns[position] if numbers is None else numbers[... if kept is None else kept]
    coded = _fit_target(table, position, y, task, kinds)
    names = enumerate(features.names)
    decisions = tuple(decide(features, i, kinds.get(n), decimal) for i, n in names)
    coding = ColumnCoding(
        columns=(),
        target=table.names[position],
        task=coded.task,
        classes=coded.classes,
        has_header=table.has_header,
        target_position=position,
        decimal=decimal or ".",
    )
    data = _dataset(np.empty((features.n_rows, 0)), name, coding, coded, kept, {})
    data = replace(data, raw=RawTable(features, decisions)).with_positive(positive)
    rows = np.arange(data.n_samples) if training is None else training(data)
    data = data.fitted_to(rows)
    assert data.columns is not None
    _check_features(table, data.columns)
    return replace(data, ids=_ids(table, data.columns))


def _target_position(table: Table, target: str | int | None) -> int:
    """Return the position of the target. Raises: DataError, with the faults of the file."""
    try:
        position = find_column(default_target(table.names) if target is None else target, table)
        if len(table.names) > 1:
            return position
        raise DataError(
            f"{table.where}: a table must have a feature and a target. Received: only the column "
            f"{table.names[0]!r}. Separate columns by comma, semicolon or tab; convert a table "
            "with blanks or | with pandas.read_csv(path, sep=...).to_csv(...)."
        )
    except DataError as error:
        raise DataError(*table.faults, error) if table.faults else error from None


def _numeric_target(
    table: Table,
    position: int,
    task: Task | None,
    kinds: Mapping[str, str],
    decimal: Decimal | None,
) -> Numbers | None:
    """Return the numbers of a target in text (n_rows,), NaN for other cells; None for classes."""
    name, y = table.names[position], table.columns[position]
    if not isinstance(y, list) or kinds.get(name) == "category" or task == "classification":
        return None
    if not are_numbers(Counter(filter(None, y))):
        return None
    return Cells(table, name, y, decimal).numbers()


def _fit_target(
    table: Table, position: int, y: Column, task: Task | None, kinds: Mapping[str, str]
) -> Target:
    """Return the coded target of training rows."""
    name = table.names[position]
    y = as_text(y) if kinds.get(name) == "category" else y
    is_free = task is None and name not in kinds
    if is_free and isinstance(y, list) and order_of({c for c in y if c}) is not None:
        raise DataError(
            f"{table.where}: the target must be classes or numbers. Received: dates such as "
            f"{y[0]!r} in column {name!r}. Name another target, or pass ",
            Mention("column", f"{name}=category"), " to make each date a class.",
        )  # fmt: skip
    return code_target(_target_values(y), task, f"{table.where}, column {name!r}")


def _check_features(table: Table, coding: ColumnCoding) -> None:
    """Raise DataError if no column becomes a feature."""
    if coding.used:
        return
    raise DataError(
        f"{table.where}: a table must have a column that becomes a feature. Received: "
        f"{'; '.join(f'{c.name!r}: {c.why}' for c in coding.columns)}. Choose the kind of one "
        "with ", Mention("column", f"{coding.columns[0].name}=category"), ".",
    )  # fmt: skip


def code_dataset(table: Table, name: str, coding: ColumnCoding, *, missing: str) -> Dataset:
    """Build a data set from a table with an existing coding; the target may be absent.

    Columns are matched by name; other columns are ignored.

    Raises: DataError when a column does not match.
    """
    features, target = coding.match(table.names, table.where)
    names = [column.name for column in coding.used]
    used = table.select(features, names)
    if target is not None:
        used = table.select([*features, target], [*names, coding.target or ""])
    raise_all([*table.faults, *infinity_faults(used)])
    used, kept = handle_missing(used, missing, None if target is None else len(names))
    coded = None if target is None or coding.task is None else _code_target(used, coding)
    rows = table if kept is None else table.keep(kept)
    return _dataset(encode(used, coding), name, coding, coded, kept, _ids(rows, coding))


def default_target(names: Sequence[str]) -> int:
    """Return the position of the target: the first column by its name, else the last one."""
    first, last = names[0].lower(), names[-1].lower()
    return 0 if first in TARGET_NAMES and last not in TARGET_NAMES else -1


def _code_target(used: Table, coding: ColumnCoding) -> Target:
    """Return the target of a coding, the last column of a table."""
    assert coding.task is not None
    position, where = len(used.names) - 1, f"{used.where}, column {coding.target!r}"
    values = used.columns[position]
    if coding.classes is not None:
        y = code_labels(_target_values(values), coding.classes, where, used.row_numbers)
        return Target(y, coding.task, coding.classes)
    if isinstance(values, list):
        values = Cells(used, used.names[position], values, coding.decimal).numbers()
        raise_all(target_faults(used, position, values))
    return code_target(_target_values(values), "regression", where)


def _ids(table: Table, coding: ColumnCoding) -> dict[str, Text]:
    """Return the columns of a table that identify its rows."""
    names = table.names if coding.has_header else ()
    return {n: as_text(table.columns[names.index(n)]) for n in coding.ids if n in names}


def _dataset(
    x: Numbers,
    name: str,
    coding: ColumnCoding,
    coded: Target | None,
    kept: NDArray[np.bool_] | None,
    ids: dict[str, Text],
) -> Dataset:
    return Dataset(
        x=x,
        y=None if coded is None else coded.y,
        name=name,
        task=coding.task,
        classes=coding.classes,
        feature_names=coding.feature_names,
        columns=coding,
        n_dropped=0 if kept is None else int((~kept).sum()),
        kept=kept,
        ids=ids,
    )


def _target_values(column: Column) -> Any:
    """Return a target column as an array; text has no missing cells at this point."""
    return np.array(column, dtype=np.str_) if isinstance(column, list) else column
