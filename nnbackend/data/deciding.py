"""The kind of each column of a table: decided from its cells, or given by the user.

Every decision has a reason, which `nnbackend train` prints.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from nnbackend.data.columns import (
    YES_OR_NO,
    CategoryColumn,
    CodedColumn,
    DateColumn,
    LeftOutColumn,
    NumberColumn,
    YesNoColumn,
    as_numbers,
    as_text,
)
from nnbackend.data.dates import days_of, order_of
from nnbackend.data.number_text import (
    Decimal,
    are_numbers,
    decimal_of,
    is_ambiguous,
    number_in,
)
from nnbackend.data.tables import Column, Numbers, Table, missing_mask
from nnbackend.errors import DataError, Mention

PLAIN = "numbers"  # the reason of a column of numbers with no gaps
MOST_LEVELS = 100  # further levels count as "other"
MANY_LEVELS = 20  # from here on, levels of fewer than RARE rows count as "other"
RARE = 3
WORDS_OF_TEXT = 2  # in a cell of free text on average
MOST_DIFFERENT = 0.9  # from this fraction of different cells on, text identifies rows
SOME_ROWS = 20  # fewer do not show that a column identifies rows
ID_NAME = re.compile(r"(?i)(.*[_\s-])?(id|uuid|guid|rowid|row_id|index)([_\s-].*)?|unnamed: \d+")


class Cells(NamedTuple):
    """The cells of a column, and what their table says about them."""

    table: Table
    name: str
    values: Column
    decimal: Decimal | None  # None: not known

    def numbers(self) -> Numbers:
        """Return the cells as numbers. Raises: DataError if they could be other numbers too."""
        values = self.values
        if self.decimal is None and isinstance(values, list):
            unclear = next((c for c in values if c is not None and is_ambiguous(c)), None)
            if unclear is not None:
                raise DataError(
                    f"{self.table.where}: a comma in a number must be either a decimal comma or a "
                    f"thousands separator. Received: {unclear!r} in column {self.name!r}, and no "
                    "number in the table that shows which. Pass ", Mention("decimal", ","), " or ",
                    Mention("decimal", "."), ".",
                )  # fmt: skip
        return as_numbers(values, self.decimal or ".")

    def error(self, kind: str) -> DataError:
        """Return the error for a kind that the cells cannot have."""
        example = next((cell for cell in as_text(self.values) if cell is not None), None)
        return DataError(
            f"{self.table.where}: column {self.name!r} cannot be of the kind {kind!r}. Received: "
            f"cells such as {example!r}. Leave out ", Mention("column", f"{self.name}={kind}"), ".",
        )  # fmt: skip


def decimal_sign(table: Table, kinds: Collection[str] = ()) -> Decimal | None:
    """Return the decimal sign of a table's numbers; None if every number could have either.

    kinds: the names of columns that are no numbers.
    """
    columns = (
        Counter(cell for cell in cells if cell is not None)
        for name, cells in zip(table.names, table.columns, strict=True)
        if isinstance(cells, list) and name not in kinds
    )
    return decimal_of(cells for cells in columns if are_numbers(cells))


def decide(
    table: Table, index: int, kind: str | None = None, decimal: Decimal | None = None
) -> CodedColumn:
    """Return the coding of a column, fitted to its cells.

    kind: a key of FITS, or None to decide.  decimal: the decimal sign of the table, if it is known.
    Raises: DataError for a kind that the cells cannot have, and for unclear numbers.
    """
    name, values = table.names[index], table.columns[index]
    cells = Cells(table, name, values, decimal)
    if kind is not None:
        return FITS[kind](cells, "as given")
    if missing_mask(values).all():
        return LeftOutColumn(name, "empty", why="no value in any row")
    if not isinstance(values, list):
        return _identifier(name, values) or _number(cells, PLAIN)
    counts = Counter(cell for cell in values if cell is not None)
    if {cell.lower() for cell in counts} <= YES_OR_NO.keys():
        return _yes_no(cells, " or ".join(sorted(counts)))
    if order := order_of(counts):
        return _date(cells, f"dates, {_spelled(order)}")
    if are_numbers(counts):
        words = [cell for cell in counts if math.isnan(number_in(cell, "."))]
        what = f", and text such as {words[0]!r}" if words else ""
        return _number(cells, f"numbers{what}")
    n = sum(counts.values())
    if n >= SOME_ROWS and len(counts) > MOST_DIFFERENT * n:
        return _different(cells, f"{len(counts):,} different values in {n:,} rows")
    return _category(cells, f"{len(counts):,} different values")


def _number(cells: Cells, why: str) -> CodedColumn:
    values = cells.numbers()
    gaps = np.isnan(values)
    if gaps.all():
        raise cells.error("number")
    n_gaps = int(gaps.sum())
    if n_gaps:
        why += f", no value in {n_gaps / len(gaps):.1%} of the rows"
    fill, decimal = float(np.median(values[~gaps])), cells.decimal or "."
    return NumberColumn(cells.name, fill, n_gaps > 0, decimal, why=why)


def _yes_no(cells: Cells, why: str) -> CodedColumn:
    values = [YES_OR_NO.get(cell.lower()) for cell in as_text(cells.values) if cell is not None]
    if not values or None in values:
        raise cells.error("yes/no")
    share = float(np.mean(np.array(values, np.float64)))
    return YesNoColumn(cells.name, share, bool(missing_mask(cells.values).any()), why=why)


def _category(cells: Cells, why: str) -> CodedColumn:
    counts = Counter(cell for cell in as_text(cells.values) if cell is not None)
    fewest = RARE if len(counts) > MANY_LEVELS else 1
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    levels = sorted(level for level in ranked[:MOST_LEVELS] if counts[level] >= fewest)
    if n_other := len(counts) - len(levels):
        why += f", {n_other:,} of them rare"
    has_gaps = bool(missing_mask(cells.values).any())
    return CategoryColumn(cells.name, tuple(levels), n_other > 0, has_gaps, why=why)


def _date(cells: Cells, why: str) -> CodedColumn:
    text = as_text(cells.values)
    order = order_of({cell for cell in text if cell is not None})
    if order is None:
        raise cells.error("date")
    days = days_of(text, order)
    known = days[~np.isnan(days)]
    has_time = bool((known % 1.0 != 0).any())
    fill, last = float(np.median(known)), float(known.max())
    return DateColumn(cells.name, fill, len(known) < len(days), order, last, has_time, why=why)


def _different(cells: Cells, why: str) -> CodedColumn:
    """Return the coding of text that differs in almost every row: an id, or free text."""
    known = [cell for cell in as_text(cells.values) if cell is not None]
    words = np.mean([len(cell.split()) for cell in known]) if known else 0
    return LeftOutColumn(cells.name, "id" if words < WORDS_OF_TEXT else "text", why=why)


def _identifier(name: str, cells: Column) -> CodedColumn | None:
    """Return the coding of whole numbers that identify rows by their name; None for others."""
    values = as_numbers(cells, ".")
    n, known = len(values), np.unique(values)
    is_whole = bool((known == np.rint(known)).all())
    if n < SOME_ROWS or not is_whole or not ID_NAME.fullmatch(name):
        return None
    if len(known) <= MOST_DIFFERENT * n:
        return None
    return LeftOutColumn(name, "id", why=f"its name, and {len(known):,} different values")


def _left_out(what: str) -> Callable[[Cells, str], CodedColumn]:
    return lambda cells, why: LeftOutColumn(cells.name, what, why=why)


FITS: dict[str, Callable[[Cells, str], CodedColumn]] = {
    "number": _number, "yes/no": _yes_no, "category": _category, "date": _date,
    "id": _left_out("id"), "text": _left_out("text"),
}  # fmt: skip
"""How a column of each kind is fitted."""


def _spelled(order: str) -> str:
    return "-".join({"y": "year", "m": "month", "d": "day"}[letter] for letter in order)
