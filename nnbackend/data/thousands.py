"""Points in whole numbers: 1.500 is 1500 in a table with decimal commas."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from nnbackend.data.tables import Column, Numbers, Table, is_number, with_long_integers
from nnbackend.errors import Mention

SOME_CELLS = 20  # with a point, to warn of them
NEED_ALL_DIGITS = 0.8  # of those cells: one in ten numbers ends in 0

logger = logging.getLogger("nnbackend")


def has_fractions(table: Table) -> bool:
    """Return True if a column was read as numbers, some of them not whole."""
    return any(
        not isinstance(column, list) and column.dtype.kind == "f" and len(_fractions(column)) > 0
        for column in table.columns
    )


def with_whole_numbers(table: Table) -> Table:
    """Return a table of text with the columns as numbers that have none with a point."""
    return replace(table, columns=tuple(map(_read_again, table.columns)))


def warn_of_thousands(table: Table, decimal: str | None) -> None:
    """Log a warning for columns whose points may separate thousands: 857, 2.145, 12.000.

    decimal: the decimal sign of the table, if it is known.
    """
    if decimal is not None:
        return
    for name, column in zip(table.names, table.columns, strict=True):
        if isinstance(column, list) or column.dtype.kind != "f":
            continue
        values = _fractions(column)
        whole = column[np.isfinite(column) & (column == np.rint(column))]
        if len(values) < SOME_CELLS or (np.abs(values) < 1).any() or not len(whole):
            continue
        thousandths = np.rint(values * 1000)
        is_exact = np.isclose(values * 1000, thousandths, rtol=0, atol=1e-6).all()
        has_digits = (thousandths % 10 != 0).mean() >= NEED_ALL_DIGITS
        # Of measured numbers with three decimals only one in a thousand is whole.
        if is_exact and has_digits and len(whole) > 0.02 * len(values) and (whole >= 100).any():
            logger.warning(
                "%s: column %r has numbers such as %.3f, which were read with a decimal point. If "
                "the point separates thousands, pass %s.",
                table.where, name, values[0], Mention("decimal", ","),
            )  # fmt: skip


def _fractions(column: Numbers) -> np.ndarray:
    """Return the finite numbers of a column that are not whole."""
    values: np.ndarray = column[np.isfinite(column) & (column != np.rint(column))]
    return values


def _read_again(column: Column) -> Column:
    if not isinstance(column, list):
        return column
    cells = {cell for cell in column if cell is not None}
    if not cells or not all(is_number(cell) and "." not in cell for cell in cells):
        return column
    long = with_long_integers(column)
    if not isinstance(long, list):
        return long
    return np.array([np.nan if cell is None else float(cell) for cell in column])
