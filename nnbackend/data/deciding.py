"""The kind of each column of a table: decided from its cells, or given by the user.

Every decision has a reason, which `nnbackend train` prints.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
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
from nnbackend.data.many_levels import TargetValues, fit_means
from nnbackend.data.number_text import (
    Decimal,
    are_numbers,
    decimal_of,
    is_ambiguous,
    number_in,
)
from nnbackend.data.tables import Column, Numbers, Table, Text, missing_mask
from nnbackend.data.text_columns import TextColumn
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
    target: TargetValues | None = None

    def numbers(self) -> Numbers:
        """Return the cells as numbers. Raises: DataError if they could be other numbers too."""
        self.check_clear()
        return as_numbers(self.values, self.decimal or ".")

    def check_clear(self) -> None:
        """Raise DataError for cells that could be other numbers too."""
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


class Decision(NamedTuple):
    """The kind of a column: a key of FITS or LEFT_OUT, its reason, and the order of dates."""

    kind: str
    why: str
    order: str | None = None


def decide(
    table: Table, index: int, kind: str | None = None, decimal: Decimal | None = None
) -> Decision:
    """Return the kind of a column, from all its cells.

    kind: a key of FITS, or None to decide.  decimal: the decimal sign of the table, if it is known.
    Raises: DataError for a kind that the cells cannot have, and for unclear numbers.
    """
    name, values = table.names[index], table.columns[index]
    cells = Cells(table, name, values, decimal)
    if kind is not None:
        return _given(cells, kind)
    if missing_mask(values).all():
        return Decision("empty", "no value in any row")
    if not isinstance(values, list):
        return _identifier(name, values) or Decision("number", PLAIN)
    counts = Counter(cell for cell in values if cell is not None)
    if {cell.lower() for cell in counts} <= YES_OR_NO.keys():
        return Decision("yes/no", " or ".join(sorted(counts)))
    if order := order_of(counts):
        return Decision("date", f"dates, {_spelled(order)}", order)
    if are_numbers(counts):
        cells.check_clear()
        words = [cell for cell in counts if math.isnan(number_in(cell, "."))]
        return Decision("number", PLAIN + (f", and text such as {words[0]!r}" if words else ""))
    n = sum(counts.values())
    if n >= SOME_ROWS and len(counts) > MOST_DIFFERENT * n:
        return _different(values, f"{len(counts):,} different values in {n:,} rows")
    return Decision("category", "")


def fit_columns(
    table: Table,
    decisions: Sequence[Decision],
    decimal: Decimal | None,
    target: TargetValues | None = None,
) -> tuple[CodedColumn, ...]:
    """Return the coding of the columns of a table, fitted to its rows.

    target: the targets of the rows; without them, columns of many categories have no mean targets.
    """
    fitted = []
    for name, values, decided in zip(table.names, table.columns, decisions, strict=True):
        is_empty = decided.kind in FITS and decided.kind != "text" and missing_mask(values).all()
        what = Decision("empty", "no value in any training row") if is_empty else decided
        fit = {**FITS, **LEFT_OUT}[what.kind]
        fitted.append(fit(Cells(table, name, values, decimal, target), what))
    return tuple(fitted)


def _given(cells: Cells, kind: str) -> Decision:
    """Return the decision for a kind that the user chose, if the cells can have it."""
    known = [cell for cell in as_text(cells.values) if cell is not None]
    order = order_of(set(known)) if kind == "date" else None
    if (
        (kind == "date" and order is None)
        or (kind == "number" and np.isnan(cells.numbers()).all())
        or (kind == "yes/no" and not known)
        or (kind == "yes/no" and not {cell.lower() for cell in known} <= YES_OR_NO.keys())
    ):
        raise cells.error(kind)
    return Decision(kind, "as given", order)


def _number(cells: Cells, decided: Decision) -> CodedColumn:
    values, why = as_numbers(cells.values, cells.decimal or "."), decided.why
    gaps = np.isnan(values)
    if n_gaps := int(gaps.sum()):
        why += f", no value in {n_gaps / len(gaps):.1%} of the rows"
    elif len(values) > 1 and values.min() == values.max():
        why += ", the same in all rows"
    fill = float(np.median(values[~gaps])) if n_gaps < len(gaps) else 0.0
    return NumberColumn(cells.name, fill, n_gaps > 0, cells.decimal or ".", why=why)


def _yes_no(cells: Cells, decided: Decision) -> CodedColumn:
    values = [YES_OR_NO[cell.lower()] for cell in as_text(cells.values) if cell is not None]
    has_gaps = len(values) < len(cells.values)
    return YesNoColumn(cells.name, float(np.mean(values)), has_gaps, why=decided.why)


def _category(cells: Cells, decided: Decision) -> CodedColumn:
    counts = Counter(cell for cell in as_text(cells.values) if cell is not None)
    why = decided.why or f"{len(counts):,} different values"
    fewest = RARE if len(counts) > MANY_LEVELS else 1
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    levels = sorted(level for level in ranked[:MOST_LEVELS] if counts[level] >= fewest)
    n_other, has_gaps = len(counts) - len(levels), bool(missing_mask(cells.values).any())
    if n_other:
        why += f", {n_other:,} of them rare"
    column = CategoryColumn(cells.name, tuple(levels), n_other > 0, has_gaps, why=why)
    if len(counts) <= MOST_LEVELS or cells.target is None or not cells.target.names:
        return column
    return fit_means(column, cells.values, cells.target)


def _date(cells: Cells, decided: Decision) -> CodedColumn:
    assert decided.order is not None
    days = days_of(as_text(cells.values), decided.order)
    known = days[~np.isnan(days)]
    has_time = bool((known % 1.0 != 0).any())
    fill, last, has_gaps = float(np.median(known)), float(known.max()), len(known) < len(days)
    return DateColumn(cells.name, fill, has_gaps, decided.order, last, has_time, why=decided.why)


def _different(cells: Text, why: str) -> Decision:
    """Return the decision for text that differs in almost every row: an id, or free text."""
    words = np.mean([len(cell.split()) for cell in cells if cell is not None])
    if words < WORDS_OF_TEXT:
        return Decision("id", why)
    return Decision("unread", f"{why}; the kind text makes its words features")


def _identifier(name: str, cells: Numbers) -> Decision | None:
    """Return the decision for whole numbers that identify rows by their name; None for others."""
    values = as_numbers(cells, ".")
    n, known = len(values), np.unique(values)
    is_whole = bool((known == np.rint(known)).all())
    if n < SOME_ROWS or not is_whole or not ID_NAME.fullmatch(name):
        return None
    if len(known) <= MOST_DIFFERENT * n:
        return None
    return Decision("id", f"its name, and {len(known):,} different values")


def _left_out(what: str) -> Callable[[Cells, Decision], CodedColumn]:
    return lambda cells, decided: LeftOutColumn(cells.name, what, why=decided.why)


FITS: dict[str, Callable[[Cells, Decision], CodedColumn]] = {
    "number": _number, "yes/no": _yes_no, "category": _category, "date": _date,
    "id": _left_out("id"),
    "text": lambda cells, decided: TextColumn(cells.name, why=decided.why),
}  # fmt: skip
"""How a column of each kind is fitted; the user may choose these kinds."""

LEFT_OUT = {"empty": _left_out("empty"), "unread": _left_out("text")}


def _spelled(order: str) -> str:
    return "-".join({"y": "year", "m": "month", "d": "day"}[letter] for letter in order)
