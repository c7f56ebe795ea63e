"""A table of named columns, as read from a `.csv` or `.parquet` file, before feature coding.

A column is an array of numbers, with NaN for missing values, or a list of text, with None for
missing values.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnbackend.errors import ArgumentError, DataError, Fault, Mention
from nnbackend.suggestions import nearest

Numbers: TypeAlias = NDArray[np.float64] | NDArray[np.int64]  # int64: not exact in float64
Text: TypeAlias = list[str | None]
Column: TypeAlias = Numbers | Text
LeastCodes: TypeAlias = Callable[[tuple[str, ...], str], Mapping[int, float]]

logger = logging.getLogger("nnbackend")

MISSING = frozenset({
    *("", "na", "n/a", "nan", "?", "null"),
    # Further markers that pandas and spreadsheets write.
    *("<na>", "#na", "#n/a", "#n/a n/a", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
})  # fmt: skip
"""Cells that mean "no value", in upper or lower case and with blanks around them."""

NA = "NA"  # no value, or Namibia
CODE = re.compile("[A-Z]{2}")
MANY_CODES = 10

EXACT = 2.0**53  # float64 does not hold all whole numbers above
LONG = re.compile(r"\s*[+-]?\d{16,}\s*")


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length with different names.

    `where` names the file in messages; `row_numbers` are the row numbers in the file, from 1 below
    the header. Without a header the columns are named column_0, column_1, ... `faults` are those of
    the file, which the rows and columns here do not have.
    """

    where: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    row_numbers: NDArray[np.int64]
    has_header: bool = True
    faults: tuple[DataError, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.row_numbers)

    def keep(self, mask: NDArray[np.bool_]) -> Table:
        """Return the rows where the mask is true."""
        columns = tuple(
            [cell for cell, kept in zip(column, mask, strict=True) if kept]
            if isinstance(column, list)
            else column[mask]
            for column in self.columns
        )
        return replace(self, columns=columns, row_numbers=self.row_numbers[mask])

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return the rows at the given positions."""
        columns = tuple(
            [column[i] for i in rows] if isinstance(column, list) else column[rows]
            for column in self.columns
        )
        return replace(self, columns=columns, row_numbers=self.row_numbers[rows])

    def select(self, positions: Sequence[int], names: Sequence[str]) -> Table:
        """Return some of the columns, in the order of `positions`, under the given names."""
        columns = tuple(self.columns[position] for position in positions)
        return replace(self, names=tuple(names), columns=columns)


def default_names(n_columns: int) -> tuple[str, ...]:
    """Return the names of the columns of a table without header."""
    return tuple(f"column_{position}" for position in range(n_columns))


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with numbers behind those that occur before.

    >>> unique_names(["a", "b", "a"])
    ('a', 'b', 'a (2)')
    """
    unique: dict[str, None] = {}
    for name in names:
        candidate, n = name, 1
        while candidate in unique:
            n += 1
            candidate = f"{name} ({n})"
        unique[candidate] = None
    return tuple(unique)


def is_missing(cell: str) -> bool:
    """Return True if a cell of text marks a missing value."""
    return cell.strip().lower() in MISSING


def marks_gap(cell: str) -> bool:
    """Return True if a cell of text marks a missing value in any column, also one of codes."""
    return cell.strip() != NA and is_missing(cell)


def with_na(cells: Text, least: float = MANY_CODES) -> Text:
    """Return cells of which NA is one of many codes of two letters, such as Namibia's, or no value.

    least: the number of other codes from which on it is one; 0 for any cells.
    """
    if NA not in cells:
        return cells
    others = {cell for cell in cells if cell is not None} - {NA}
    if not least or (len(others) >= least and all(map(CODE.fullmatch, others))):
        return cells
    return [None if cell == NA else cell for cell in cells]


def is_number(cell: str) -> bool:
    """Return True if a cell of text is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    # float() accepts "1_000"; the table readers do not.
    return "_" not in cell


def has_long_integer(cells: Iterable[str]) -> bool:
    """Return True if a cell is a whole number that float64 may not hold."""
    return any(LONG.fullmatch(cell) and abs(int(cell)) >= EXACT for cell in cells)


def with_long_integers(column: Column) -> Column:
    """Return a column of text as int64 if it is whole numbers of which some exceed float64.

    Numbers with missing values or fractions become float64. Other columns stay as they are.
    """
    if not isinstance(column, list):
        return column
    cells = [cell for cell in column if cell is not None]
    if not has_long_integer(cells) or not all(map(is_number, cells)):
        return column
    try:
        return np.array([int(cell or "missing") for cell in column], np.int64)
    except ValueError:  # a missing value or a fraction
        return np.array([np.nan if cell is None else float(cell) for cell in column])
    except OverflowError:  # longer than int64: treated as names
        return column


def warn_of_lost_digits(name: str, column: Column, where: str) -> None:
    """Log a warning for whole numbers that the conversion to float64 rounds."""
    if isinstance(column, list) or column.dtype.kind == "f":
        return
    if (np.abs(column.astype(np.float64)) >= EXACT).any():
        logger.warning(
            "%s: column %r has whole numbers above 2^53, which are rounded to 16 digits. "
            "If they are names, pass %s.", where, name, Mention("categorical", [name]),
        )  # fmt: skip


def missing_mask(column: Column) -> NDArray[np.bool_]:
    """Return a mask that is true where a value is missing."""
    if isinstance(column, list):
        return np.fromiter((cell is None for cell in column), dtype=bool, count=len(column))
    return np.isnan(column)


def find_column(target: str | int, table: Table) -> int:
    """Return the position of a column given by name or index (negative from the end).

    Text that is not a name but a whole number counts as an index, for the command line.

    Raises: DataError when there is no such column; ArgumentError for other types.
    """
    names, n = table.names, len(table.names)
    if isinstance(target, bool) or not isinstance(target, str | int):
        raise ArgumentError(Fault("target", "a column name or index", target))
    if isinstance(target, str):
        if target in names:
            return names.index(target)
        if not target.removeprefix("-").isdecimal():
            raise _no_such_column(target, table)
        target = int(target)
    if not -n <= target < n:
        raise DataError(
            f"{table.where}: the target index must lie between {-n} and {n - 1} for {n} columns. "
            "Received: ", Mention("target", target), ".",
        )  # fmt: skip
    return target % n


def find_columns(
    wanted: Sequence[str | int], option: str, names: tuple[str, ...], where: str
) -> set[int]:
    """Return the positions of columns given by names or indices, as `find_column` does.

    Raises: DataError when there is no such column; ArgumentError for anything but a list of
    columns.
    """
    if isinstance(wanted, str) or not all(isinstance(w, str | int) for w in wanted):
        raise ArgumentError(Fault(option, "a list of columns", wanted))
    n, found = len(names), set()
    for column in wanted:
        if column in names:
            found.add(names.index(str(column)))
            continue
        text = str(column)
        if not text.removeprefix("-").isdecimal() or not -n <= int(text) < n:
            raise DataError(
                f"{where}: ", Mention(option), " must be columns of the table. Received: "
                f"{column!r}. {near_names(text, names)}",
            )  # fmt: skip
        found.add(int(text) % n)
    return found


def _no_such_column(target: str, table: Table) -> DataError:
    received = "Received: ", Mention("target", target)
    if not table.has_header:
        return DataError(
            f"{table.where}: a target name needs a header with column names. ", *received,
            " for a file whose first row looks like data. Give the index of the column (-1 is the "
            "last), or ", Mention("header", True), " if that row is a header.",
        )  # fmt: skip
    return DataError(
        f"{table.where}: the target must be one of the columns. ", *received,
        f". {near_names(target, table.names)}",
    )  # fmt: skip


def near_names(name: str, names: Iterable[str], most: int = 20) -> str:
    """Return a message with the columns, at most `most` of them, and the nearest to a name."""
    known = list(names)
    near = nearest(name, known)
    hint = f" Did you mean {near!r}?" if near else ""
    more = f", ... ({len(known)} in total)" if len(known) > most else ""
    return f"Columns: {', '.join(known[:most])}{more}.{hint}"


def handle_missing(
    table: Table, missing: str, target: int | None
) -> tuple[Table, NDArray[np.bool_] | None]:
    """Return the table without the rows that cannot be used, and the mask of its rows; None: all.

    missing: "fill" keeps rows with missing values, other than of the target.
    Raises: DataError for missing values with missing="error", and if every row has some.
    """
    lacking = np.zeros(table.n_rows, dtype=bool)
    counts: list[str] = []
    for i, (name, column) in enumerate(zip(table.names, table.columns, strict=True)):
        mask = missing_mask(column)
        if mask.any() and (missing != "fill" or i == target):
            lacking |= mask
            counts.append(f"{name}: {int(mask.sum())}")
    if not counts:
        return table, None
    n_lacking = int(lacking.sum())
    summary = ", ".join(counts[:20]) + (", ..." if len(counts) > 20 else "")
    if missing == "error":
        raise DataError(
            f"{table.where}: every cell must have a value. Received: missing values in {n_lacking} "
            f"of {table.n_rows} rows ({summary}). Fill them in, or leave out ",
            Mention("missing", "error"), ".",
        )  # fmt: skip
    if n_lacking == table.n_rows:
        what = "the target" if missing == "fill" else "all values"
        raise DataError(
            f"{table.where}: at least one row must have {what}. Received: missing values in "
            f"all {table.n_rows} rows ({summary}). Remove the columns that are empty."
        )
    return table.keep(~lacking), ~lacking
