"""The layout of a text table, detected from its beginning: delimiter, title, header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TextIO

from nnbackend.data.number_text import number_in
from nnbackend.data.table_faults import name_faults
from nnbackend.data.tables import default_names, is_missing, unique_names
from nnbackend.errors import DataError

DELIMITERS = ",;\t|"
BLANKS = " "  # one or more blanks
SAMPLE_CHARACTERS = 1 << 16
MOST_CHARACTERS = 1 << 27  # of the first lines, which are the sample if they are longer
SAMPLE_ROWS = 100
MOST_COLUMNS = 100_000  # a model file holds no more
MOST_TITLES = 10  # lines above a table
QUOTED = re.compile('"[^"]*"')
SEPARATOR = re.compile(r"(?i)\s*sep=(.)\s*")  # Excel's first line


class Layout(NamedTuple):
    """The layout of a text table.

    skipped: rows before the table, such as a title.  first: the first cell of the table.
    faults: those of the header.
    """

    delimiter: str
    has_header: bool
    names: tuple[str, ...]
    first: str
    skipped: int = 0
    encoding: str = "utf-8"
    faults: tuple[DataError, ...] = ()

    @property
    def rows_before(self) -> int:
        """Number of rows before the data."""
        return self.skipped + self.has_header


def reader_of(lines: Iterable[str], delimiter: str, strict: bool = False) -> Any:
    """Return a csv.reader of the lines."""
    if delimiter == BLANKS:
        lines, delimiter = with_tabs(lines), "\t"
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)


def with_tabs(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines with a tab for each run of blanks."""
    return ("\t".join(line.split()) + "\n" for line in lines)


def is_filled(row: Sequence[str]) -> bool:
    """Return True if a row is not a blank line."""
    return len(row) > 1 or (len(row) == 1 and bool(row[0].strip()))


def detect(stream: TextIO, header: bool | None, where: str) -> Layout:
    """Return the layout of a table, from its first lines.

    Raises: DataError for a table without rows.
    """
    lines = _sample(stream)
    _check_width(lines, where)
    delimiter, skipped, rows = _split(lines)
    if not rows:
        raise DataError(f"{where}: a table must have rows. Received: an empty file.")
    has_header = _looks_like_header(rows[0], rows[1:]) if header is None else header
    if not has_header:
        return Layout(delimiter, False, default_names(len(rows[0])), rows[0][0], skipped)
    # As pandas names a column without a name, which usually is an index.
    names = tuple(name or f"Unnamed: {at}" for at, name in enumerate(rows[0]))
    faults = tuple(name_faults(names, where))
    return Layout(delimiter, True, unique_names(names), rows[0][0], skipped, faults=faults)


def _check_width(lines: list[str], where: str) -> None:
    """Raise DataError for a first line of very many characters or cells."""
    if lines and len(lines[0]) >= MOST_CHARACTERS // 2:
        raise DataError(
            f"{where}: rows must be on lines of their own. Received: a first line of more than "
            f"{MOST_CHARACTERS // 2:,} characters. Check that the file is a table."
        )
    first = QUOTED.sub("", lines[0]) if lines else ""
    width = max(first.count(delimiter) for delimiter in DELIMITERS) + 1
    if width > MOST_COLUMNS:
        raise DataError(
            f"{where}: a table must have at most {MOST_COLUMNS:,} columns. Received: {width:,} in "
            "the first line. Write each row on a line of its own, or the numbers as an array: .npz."
        )


def _sample(stream: TextIO) -> list[str]:
    """Return the first lines, whole."""
    text = stream.read(SAMPLE_CHARACTERS)
    is_whole = len(text) < SAMPLE_CHARACTERS
    lines = list(io.StringIO(text, newline=""))
    while not is_whole and len(lines) < 4 and len(text) < MOST_CHARACTERS:
        more = stream.read(len(text))
        is_whole, text = len(more) < len(text), text + more
        lines = list(io.StringIO(text, newline=""))
    if not is_whole and len(lines) > 1:
        lines.pop()  # cut off in the middle
    return lines


def _split(lines: list[str]) -> tuple[str, int, list[list[str]]]:
    """Return the delimiter, the number of rows before the table, and the first rows of it."""
    first = next((line for line in lines if line.strip()), "")
    if found := SEPARATOR.fullmatch(first):
        return found[1], 1, _rows(lines, found[1])[1:]
    best: tuple[tuple[bool, bool, int], str, int, list[list[str]]] | None = None
    for delimiter in DELIMITERS:
        rows = _rows(lines, delimiter)
        skipped = _count_titles(rows)
        widths = {len(row) for row in rows[skipped:]}
        # A delimiter that gives every row the same width beats one that gives more columns.
        width = len(rows[skipped]) if rows else 0
        score = len(widths) == 1 and width > 1, not skipped, width
        if best is None or score > best[0]:
            best = score, delimiter, skipped, rows[skipped:]
    assert best is not None  # DELIMITERS is not empty
    (*_, width), delimiter, skipped, rows = best
    blank = _rows(lines, BLANKS) if width <= 1 else []
    if len(blank) > 1 and len({len(row) for row in blank}) == 1 < len(blank[0]):
        is_table = 2 * sum(map(_is_number, blank[1])) >= len(blank[1])
        return (BLANKS, 0, blank) if is_table else (delimiter, skipped, rows)
    return delimiter, skipped, rows


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    filled = islice(filter(is_filled, reader_of(lines, delimiter)), SAMPLE_ROWS)
    return [[cell.strip() for cell in row] for row in filled]


def _count_titles(rows: list[list[str]]) -> int:
    """Return the number of first rows that are text in one cell, above rows of one width."""
    for skipped in range(1, min(MOST_TITLES + 1, len(rows) - 1)):
        filled = [cell for cell in rows[skipped - 1] if cell]
        if len(filled) != 1 or _is_number(filled[0]) or _is_split(filled[0]):
            return 0
        widths = {len(row) for row in rows[skipped:]}
        if len(widths) == 1 and max(widths) > max(1, *map(len, rows[:skipped])):
            return skipped
    return 0


def _is_split(cell: str) -> bool:
    """Return True if a cell has other delimiters: it is a header, not a title."""
    return sum(map(cell.count, ";\t|")) > 1


def _looks_like_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    def is_text(cell: str) -> bool:
        return not is_missing(cell) and not _is_number(cell)

    below = [row for row in below if len(row) == len(first)]
    # Names may be whole numbers, as pandas writes them, but not numbers like 5.1.
    if all(is_text(cell) or is_missing(cell) or cell.isdigit() for cell in first):
        for cell, *cells in zip(first, *below, strict=True):
            filled = [c for c in cells if not is_missing(c)]
            if filled and is_text(cell) and all(map(_is_number, filled)):
                return True
    if not all(is_text(cell) for cell in first):
        return False
    return not any(cell in cells for cell, *cells in zip(first, *below, strict=True))


def _is_number(cell: str) -> bool:
    value = number_in(cell, ".")
    return value == value or cell.lower().lstrip("+-") in ("inf", "infinity")
