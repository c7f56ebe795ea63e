"""Numbers in text: decimal commas, thousands separators, currencies and per cent."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Literal

import numpy as np

from nnbackend.data.tables import Numbers, Text, is_number

Decimal = Literal[".", ","]
FEW_WORDS = 0.1  # up to this fraction of other text, cells count as numbers

UNIT = r"(?:[€$£¥₹]|EUR|USD|GBP|CHF|JPY|kr|zł)"
GROUPS = r"[1-9]\d{0,2}(?:%s\d{3})+"
BLANKS = r"[ '’\u00a0\u202f]"


def _pattern(point: str, separator: str) -> re.Pattern[str]:
    whole = f"(?:{GROUPS % separator}|{GROUPS % BLANKS}|\\d+)"
    number = f"(?:{whole}(?:{point}\\d*)?|{point}\\d+)(?:[eE][+-]?\\d+)?"
    return re.compile(f"(?:{UNIT}\\s*)?([+-]?)\\s*{UNIT}?\\s*({number})\\s*(?:{UNIT}|%)?")


PATTERNS: dict[Decimal, re.Pattern[str]] = {".": _pattern(r"\.", ","), ",": _pattern(",", r"\.")}
_SEPARATORS = {".": re.compile(f",|{BLANKS}"), ",": re.compile(rf"\.|{BLANKS}")}
OTHER: dict[Decimal, Decimal] = {".": ",", ",": "."}


def number_in(cell: str, decimal: Decimal) -> float:
    """Return the finite number that a cell is, NaN for other text.

    decimal: how a cell is read that could be either; others are clear.
    >>> number_in("1.213,09", "."), number_in("1,213", "."), number_in("1,213", ",")
    (1213.09, 1213.0, 1.213)
    """
    for style in (decimal, OTHER[decimal]):
        if found := PATTERNS[style].fullmatch(cell):
            digits = _SEPARATORS[style].sub("", found[2]).replace(",", ".")
            return float(found[1] + digits)
    value = float(cell) if is_number(cell) else math.nan
    return value if math.isfinite(value) else math.nan


def numbers_in(cells: Text, decimal: Decimal) -> Numbers:
    """Return the numbers that cells are (n_rows,), NaN for other text and for no value."""
    known = {cell: math.nan if cell is None else number_in(cell, decimal) for cell in set(cells)}
    return np.array([known[cell] for cell in cells], np.float64)


def are_numbers(cells: Counter[str]) -> bool:
    """Return True if cells are numbers, except in a few rows or for a few different words."""
    words = [cell for cell in cells if math.isnan(number_in(cell, "."))]
    few_different = len(words) <= FEW_WORDS * len(cells)
    few_rows = sum(cells[word] for word in words) <= FEW_WORDS * cells.total()
    return bool(cells) and (few_different or few_rows)


def decimal_of(columns: Iterable[Collection[str]]) -> Decimal | None:
    """Return the decimal sign of columns of numbers, None if every number could be either.

    A table has one number format, so one clear number decides for all columns.
    """
    for cells in columns:
        for cell in cells:
            fits = [sign for sign, pattern in PATTERNS.items() if pattern.fullmatch(cell)]
            if len(fits) == 1 and any(sign in cell for sign in PATTERNS):
                return fits[0]
    return None


def is_ambiguous(cell: str) -> bool:
    """Return True if a cell is a different number with a decimal comma and with a decimal point."""
    return number_in(cell, ".") != number_in(cell, ",") and not math.isnan(number_in(cell, "."))
