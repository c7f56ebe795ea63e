"""The rows of a search in Python as a data set: an array or a table, with labels or values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from nnbackend.data import Dataset
from nnbackend.data.frames import as_table
from nnbackend.data.numeric import as_array
from nnbackend.data.table_datasets import fit_dataset
from nnbackend.data.targets import code_target
from nnbackend.errors import DataError, ShapeError
from nnbackend.model.labels import encode_labels, target_array
from nnbackend.model.tables import code_table
from nnbackend.model.tables import code_target as named_target

TARGET = "target"  # the name of targets beside a table


def as_dataset(x: Any, y: Any, task: Literal["classification", "regression"] | None) -> Dataset:
    """Return a data set of rows x and targets y, which may be the name of a column of the table x.

    Raises: DataError or ShapeError for rows that cannot be used for training.
    """
    table = as_table(x)
    if table is None:
        rows, targets = _array(x, "x"), target_array(y)
        if rows.ndim != 2 or len(rows) != len(targets):
            raise ShapeError(
                "x must be (n, n_in), and y have a target for each row. Received: "
                f"x.shape={rows.shape}, y.shape={targets.shape}."
            )
        coded = code_target(targets, task, "y")
        return Dataset(rows, coded.y, "data", coded.task, coded.classes)
    if isinstance(y, str):
        return fit_dataset(table, "data", target=y, task=task, missing="fill", kinds={})
    targets = target_array(y)
    if len(targets) != table.n_rows or targets.ndim != 1:
        raise ShapeError(
            f"y must have one target for each of the {table.n_rows} rows of x. Received: "
            f"y.shape={targets.shape}."
        )
    name = TARGET
    while name in table.names:
        name += "_"
    column = as_table({name: targets})
    assert column is not None
    whole = replace(table, names=(*table.names, name), columns=(*table.columns, *column.columns))
    data = fit_dataset(whole, "data", target=name, task=task, missing="fill", kinds={})
    assert data.columns is not None
    # The table has no column of that name.
    return replace(data, columns=replace(data.columns, target=None, target_position=None))


def code_validation(validation: Any, data: Dataset) -> Any:
    """Return a validation set as the trainer takes it; a fraction stays as it is.

    Raises: DataError for labels that the training rows do not have.
    """
    if not isinstance(validation, (tuple, list)):
        return validation
    if len(validation) not in (2, 3):
        raise DataError(
            "validation must be a fraction, (x, y) or (x, y, sample_weight). Received: "
            f"{len(validation)} parts."
        )
    x, y, *weight = validation
    columns = None if data.columns is None else data.columns.to_dict()
    targets = target_array(named_target(x, y, columns))
    codes = targets if data.classes is None else encode_labels(targets, data.classes)
    return (code_table(x, columns), codes, *weight)


def _array(x: Any, what: str) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else as_array(x, what)
