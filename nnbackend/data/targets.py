"""Inference of the task from the target, and coding of classes.

All formats use the same rules, so that the same values give the same task from a `.csv` and a
`.npz`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.table_faults import listed
from nnbackend.data.tables import EXACT
from nnbackend.errors import ArgumentError, DataError, Fault, Mention

logger = logging.getLogger("nnbackend")

Task = Literal["classification", "regression"]
Label = str | int

FEW = 20
MANY = 100
TASKS = ("classification", "regression")


class Target(NamedTuple):
    """A coded target: y as in Dataset, its task, and its classes (None for regression)."""

    y: NDArray[Any]
    task: Task
    classes: tuple[Label, ...] | None


def check_task(task: str | None) -> None:
    """Raise ArgumentError unless the task is one of the two, or None to infer it."""
    if task is not None and task not in TASKS:
        raise ArgumentError(Fault("task", "'classification', 'regression' or None", task))


def infer_task(values: NDArray[Any], where: str) -> Task:
    """Return the task that suits the target values.

    Text, booleans and one-hot arrays (n, k) are classes. Numbers with a fractional part are
    regression. Whole numbers are classes if there are one or two different values, or up to 20
    that occur twice or more on average; with more than 100 different values they are regression.

    Raises: DataError for whole numbers in between, and for text that differs in most rows.
    """
    if values.dtype.kind in "US" or values.dtype.kind == "b":
        n = len(np.unique(values))
        if n >= FEW and 2 * n > len(values):
            raise DataError(
                f"{where}: classes must recur. Received: text with {n} different values in "
                f"{len(values)} rows, such as {str(values[0])!r}. Name another column with ",
                Mention("target"), ", or pass ", Mention("task", "classification"), ".",
            )  # fmt: skip
        return "classification"
    if values.ndim == 2:
        return "classification" if _is_one_hot(values) else "regression"
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        return "regression"
    n_distinct = len(np.unique(values))
    if n_distinct > MANY:
        return "regression"
    if n_distinct <= 2 or (n_distinct <= FEW and 2 * n_distinct <= len(values)):
        return "classification"
    raise DataError(
        f"{where}: the target is whole numbers that could be classes or amounts. Received: "
        f"{n_distinct} different values in {len(values)} rows. "
        "Pass ", Mention("task", "classification"), " or ", Mention("task", "regression"), ".",
    )  # fmt: skip


def code_target(values: NDArray[Any], task: Task | None, where: str) -> Target:
    """Return target values as a coded target; infer the task if it is None.

    Classes are the different values in sorted order; (n, 1) counts as (n,).

    Shapes: values (n,) or (n, k); result y likewise, (n,) for classification.
    Raises: DataError when the values do not suit the task.
    """
    check_task(task)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if task is None:
        task = infer_task(values, where)
    if task == "regression":
        if values.dtype.kind in "US":
            raise DataError(
                f"{where}: the target of a regression must be numbers. "
                f"Received: text such as {str(values[0])!r}. Use ",
                Mention("task", "classification"), ".",
            )  # fmt: skip
        numbers = np.asarray(values, dtype=np.float64)
        if values.dtype.kind in "iu" and (np.abs(numbers) >= EXACT).any():
            logger.warning(
                "%s: targets above 2^53 are rounded to 16 digits. "
                "If they are names, pass %s.", where, Mention("task", "classification"),
            )  # fmt: skip
        return Target(numbers, task, None)
    if values.ndim == 2:
        if not _is_one_hot(values):
            raise DataError(
                f"{where}: a target of classes must have one value for each row, or one 1 in each "
                f"row of a one-hot table. Received: y.shape={values.shape}."
            )
        codes = values.argmax(axis=1).astype(np.int64)
        return Target(codes, task, tuple(range(values.shape[1])))
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise DataError(
            f"{where}: classes must be text or whole numbers. Received: numbers with a fractional "
            "part. Use ", Mention("task", "regression"), ", or write the classes as whole numbers.",
        )  # fmt: skip
    distinct = np.unique(values)
    codes = np.searchsorted(distinct, values)  # in less memory than the inverse of np.unique
    return Target(codes.astype(np.int64, copy=False), task, tuple(map(_label, distinct)))


def code_labels(
    values: NDArray[Any], classes: Sequence[Label], where: str, row_numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the position of each value among known classes.

    Shapes: values, row_numbers, result (n,).
    Raises: DataError with the rows of the values that are no known classes.
    """
    # Compared as text: a class 7 is read as text if another cell of its column is text.
    position = {str(label): code for code, label in enumerate(classes)}
    distinct, inverse = np.unique(values, return_inverse=True)
    codes = np.empty(len(distinct), dtype=np.int64)
    for i, value in enumerate(distinct):
        whole = values.dtype.kind not in "fc" or float(value).is_integer()
        codes[i] = position.get(str(_label(value)) if whole else "", -1)
    unknown = np.flatnonzero(codes[inverse] < 0)
    if len(unknown):
        known = ", ".join(repr(known) for known in classes)
        places = (f"{values[i].item()!r} in data row {row_numbers[i]}" for i in unknown)
        raise DataError(
            f"{where}: the target must be one of the model's classes: {known}. "
            f"Received: {listed(places, len(unknown))}. "
            "Correct or remove these rows, or train with such rows."
        )
    return codes[inverse]


def _is_one_hot(values: NDArray[Any]) -> bool:
    if values.dtype.kind not in "biuf" or values.shape[1] < 2:
        return False
    only_bits = bool(((values == 0) | (values == 1)).all())
    return only_bits and bool((values.sum(axis=1, dtype=np.float64) == 1.0).all())


def _label(value: Any) -> Label:
    """Return a class as Python str or int; numbers are whole here, booleans become text."""
    if isinstance(value, np.bool_):
        return str(bool(value))
    if isinstance(value, np.bytes_):
        return value.decode("utf-8", errors="replace")
    return str(value) if isinstance(value, np.str_) else int(value)
