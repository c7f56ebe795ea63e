"""The columns that say which rows belong together: groups, and the order of time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.columns import as_numbers, as_text
from nnbackend.data.dates import days_of, order_of
from nnbackend.data.number_text import Decimal, are_numbers
from nnbackend.data.raw_tables import RawTable
from nnbackend.data.tables import Column, missing_mask
from nnbackend.errors import ArgumentError, DataError, Fault, Mention
from nnbackend.suggestions import suggest


@dataclass(frozen=True)
class Keys:
    """How rows belong together; one of both is None.

    groups: the codes of the rows' groups (n,), which are never divided.
    order: the rows' times (n,); rows of the same time are never divided either.
    """

    groups: NDArray[np.int64] | None = None
    order: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.int64]) -> Keys:
        """Return the keys of some of the rows."""
        return Keys(
            None if self.groups is None else self.groups[rows],
            None if self.order is None else self.order[rows],
        )


def keys_of(
    raw: RawTable | None, name: str, group: str | None, time: str | None, decimal: Decimal = "."
) -> Keys | None:
    """Return the keys of the rows of a table by the names of columns; None without names.

    name: of the data, for errors.  decimal: the decimal sign of numbers in text.
    Raises: ArgumentError for both columns at once, or data that is no table; DataError for a
    column that does not exist, has gaps, or is no time.
    """
    if group is None and time is None:
        return None
    if group is not None and time is not None:
        raise ArgumentError(
            "Rows are divided by groups or by time. Received: ", Mention("group", group), " and ",
            Mention("time", time), ". Omit one of them.",
        )  # fmt: skip
    option, column = ("group", group) if time is None else ("time", time)
    assert column is not None
    if raw is None:
        raise ArgumentError(
            Mention(option), f" names a column of a table. Received: {name}, which is no table."
        )
    if column not in raw.table.names:
        cure = suggest(column, raw.table.names)
        raise DataError(Fault(option, f"a column of {name} besides the target", column, (cure,)))
    cells = raw.table.columns[raw.table.names.index(column)]
    if raw.rows is not None:
        cells = [cells[i] for i in raw.rows] if isinstance(cells, list) else cells[raw.rows]
    gaps = int(missing_mask(cells).sum())
    if gaps:
        raise DataError(
            f"{name}: the column {column!r} of ", Mention(option, column), " must have a value in "
            f"every row. Received: {gaps} rows without. Fill them, or remove these rows.",
        )  # fmt: skip
    if option == "group":
        return Keys(groups=np.unique(np.array(as_text(cells)), return_inverse=True)[1])
    return Keys(order=_times(cells, name, column, decimal))


def _times(cells: Column, name: str, column: str, decimal: Decimal) -> NDArray[np.float64]:
    """Return cells as numbers that grow with time."""
    if not isinstance(cells, list):
        return cells.astype(np.float64)
    known = Counter(cell for cell in cells if cell is not None)
    if are_numbers(known):
        return as_numbers(cells, decimal).astype(np.float64)
    order = order_of(known)
    if order is None:
        raise DataError(
            f"{name}: the column {column!r} of ", Mention("time", column), " must have dates or "
            f"numbers. Received: cells such as {min(known)!r}.",
        )  # fmt: skip
    return days_of(cells, order).astype(np.float64)
