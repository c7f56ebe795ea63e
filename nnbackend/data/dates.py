"""Dates in text: their order of year, month and day, and the days since 1970."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import date

import numpy as np

from nnbackend.data.tables import Numbers, Text

DAYS_OF_YEAR = 365.2425
TIME = r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?)?"
YEAR_FIRST = re.compile(rf"(\d{{4}})([-/.])(\d{{1,2}})\2(\d{{1,2}}){TIME}")
YEAR_LAST = re.compile(rf"(\d{{1,2}})([-/.])(\d{{1,2}})\2(\d{{4}}){TIME}")
# Where all dates fit two orders, the earlier one here is taken.
ORDERS = ("ymd", "dmy", "mdy")
_EPOCH = date(1970, 1, 1).toordinal()


def order_of(cells: Iterable[str]) -> str | None:
    """Return the first order in which all cells are dates; None if there is none."""
    cells = list(cells)
    fitting = (order for order in ORDERS if all(not math.isnan(_days(c, order)) for c in cells))
    return next(fitting, None) if cells else None


def days_of(cells: Text, order: str) -> Numbers:
    """Return the days since 1970 (n_rows,), with fractions for times; NaN for other text."""
    known = {cell: _days(cell or "", order) for cell in set(cells)}
    return np.array([known[cell] for cell in cells], np.float64)


def _days(cell: str, order: str) -> float:
    found = (YEAR_FIRST if order == "ymd" else YEAR_LAST).fullmatch(cell)
    if found is None:
        return math.nan
    first, _, second, third, *time = found.groups()
    parts = dict(zip(order, map(int, (first, second, third)), strict=True))
    hour, minute, second = (int(part or 0) for part in time)
    try:
        day = date(parts["y"], parts["m"], parts["d"]).toordinal() - _EPOCH
    except ValueError:
        return math.nan
    return day + (hour * 3600 + minute * 60 + second) / 86400
