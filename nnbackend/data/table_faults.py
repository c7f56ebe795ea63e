"""Faults of a table, all of them in one error, each with the rows where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.tables import Numbers, Table
from nnbackend.errors import DataError, Mention

SHOWN = 10  # rows in a message


def raise_all(faults: Sequence[DataError]) -> None:
    """Raise one DataError for all faults, if there are any."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise DataError(*faults)


def listed(places: Iterable[str], n: int) -> str:
    """Return the first places as text, and how many more there are of n.

    >>> listed(["line 2", "line 3"], 5)
    'line 2, line 3, and 3 more'
    """
    shown = [place for place, _ in zip(places, range(SHOWN), strict=False)]
    return ", ".join([*shown, *([f"and {n - len(shown)} more"] if n > len(shown) else [])])


def check_names(names: Sequence[str], where: str) -> None:
    """Raise DataError unless every column has a unique name."""
    faults = name_faults(names, where)
    if "" in names:
        faults += [
            DataError(
                f"{where}: every column must have a name. Received: no name for column "
                f"{list(names).index('')} (from 0). Name it."
            )
        ]
    raise_all(faults)


def name_faults(names: Sequence[str], where: str) -> list[DataError]:
    """Return the fault of equal names."""
    equal = [name for name, n in Counter(names).items() if n > 1]
    if not equal:
        return []
    return [
        DataError(
            f"{where}: every column must have a unique name. "
            f"Received: {listed(map(repr, equal), len(equal))} more than once. Rename them."
        )
    ]


def infinity_faults(table: Table) -> list[DataError]:
    """Return the fault of infinite numbers, with their rows and columns."""
    found = [
        (name, np.flatnonzero(np.isinf(column)))
        for name, column in zip(table.names, table.columns, strict=True)
        if not isinstance(column, list)
    ]
    n = sum(len(rows) for _, rows in found)
    if not n:
        return []
    places = (
        f"data row {table.row_numbers[row]}, column {name!r}"
        for name, rows in found
        for row in rows
    )
    return [
        DataError(
            f"{table.where}: numbers must be finite. Received: infinity in {listed(places, n)}. "
            "Correct the cells or leave them empty.",
        )
    ]


def target_faults(table: Table, position: int, values: Numbers) -> list[DataError]:
    """Return the fault of cells in a target of numbers that are none.

    values: the numbers of the column (n_rows,), NaN for other cells.
    """
    column = table.columns[position]
    is_text = [cell is not None for cell in column] if isinstance(column, list) else False
    wrong: NDArray[np.int64] = np.flatnonzero(np.isnan(values) & np.array(is_text))
    if not len(wrong):
        return []
    cells = (f"{column[row]!r} in data row {table.row_numbers[row]}" for row in wrong)
    classes = Mention("task", "classification")
    return [
        DataError(
            f"{table.where}: a target must be numbers or classes. Received: numbers in column "
            f"{table.names[position]!r}, but text in {len(wrong)} of {len(values)} rows, "
            f"{listed(cells, len(wrong))}. Correct the cells or make them empty, or pass ",
            *(classes, " for classes."),
        )
    ]
