"""Reader of `.csv` and `.csv.gz` files, which detects the delimiter and the header.

NumPy's compiled reader reads files with only numbers. The csv module reads other files, in chunks
that are converted to numbers if possible. Both give the same table.
"""

from __future__ import annotations

import csv
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from nnbackend.data.csv_layout import BLANKS, Layout, detect, is_filled, reader_of, with_tabs
from nnbackend.data.encodings import encoding_of, open_bytes
from nnbackend.data.table_faults import SHOWN, listed, raise_all
from nnbackend.data.tables import (
    EXACT,
    MANY_CODES,
    Column,
    LeastCodes,
    Numbers,
    Table,
    Text,
    has_long_integer,
    is_missing,
    marks_gap,
    with_long_integers,
    with_na,
)
from nnbackend.errors import DataError, Mention

CHUNK_CELLS = 1_000_000
LONGEST_CELL = 1 << 27  # characters

TextPositions = Callable[[tuple[str, ...], str], set[int]]


def read_csv(
    path: Path,
    *,
    header: bool | None = None,
    text_positions: TextPositions | None = None,
    encoding: str | None = None,
    least_codes: LeastCodes | None = None,
) -> Table:
    """Read a table of numbers and text.

    The first row is a header if it has text above a column of numbers, or if it has no numbers and
    none of its cells recurs in its column; `header` overrides this. `text_positions(names, where)`
    returns the columns to read as text even if they look like numbers. `encoding` None decides it
    from the bytes. `least_codes(names, where)` returns for columns by position from how many codes
    of two letters on NA is one of them: see `with_na`.

    Raises: DataError when the file is not such a table.
    """
    where = path.name
    with _errors(where):
        encoding = encoding_of(path, encoding)
    with _open_text(path, encoding) as stream:
        layout = detect(stream, header, where)._replace(encoding=encoding)
    text = text_positions(layout.names, where) if text_positions else set()
    columns, ragged = None if text else _read_numbers(path, layout), RaggedRows(layout, where)
    if columns is None:
        columns = _read_any(path, layout, text, ragged)
        least = least_codes(layout.names, where) if least_codes else {}
        columns = [
            with_na(c, least.get(at, MANY_CODES)) if isinstance(c, list) else c
            for at, c in enumerate(columns)
        ]
        # Whole numbers too long for float64 are still text here; they become int64 if they fit.
        columns = [c if at in text else with_long_integers(c) for at, c in enumerate(columns)]
    n_rows, faults = len(columns[0]), (*layout.faults, *ragged.faults())
    if n_rows == 0:
        raise_all(faults)
        raise DataError(
            f"{where}: a table must have data rows. Received: only the header "
            f"{', '.join(layout.names[:10])}."
        )
    rows = np.delete(np.arange(1, n_rows + len(ragged.rows) + 1), ragged.rows)
    return Table(where, layout.names, tuple(columns), rows, layout.has_header, faults)


def csv_chunks(
    path: Path, n_rows: int, encoding: str | None = None
) -> tuple[tuple[str, ...], Iterator[list[list[str]]]]:
    """Return the names of a table's columns, and its rows as text, at most `n_rows` at once.

    Raises: DataError when the file is no table, and for rows with more or fewer cells.
    """
    where = path.name
    with _errors(where):
        encoding = encoding_of(path, encoding)
    with _open_text(path, encoding) as stream:
        layout = detect(stream, None, where)._replace(encoding=encoding)
    raise_all(layout.faults)

    def chunks() -> Iterator[list[list[str]]]:
        ragged = RaggedRows(layout, where)
        with _open_text(path, layout.encoding) as stream:
            rows = _rows(stream, layout, ragged)
            while chunk := list(islice(rows, n_rows)):
                raise_all(ragged.faults())
                yield chunk
        raise_all(ragged.faults())

    return layout.names, chunks()


class RaggedRows:
    """The rows of a file that have not as many cells as the first one.

    rows: their positions among the rows of data.  lines: of the file, with the numbers of cells.
    """

    def __init__(self, layout: Layout, where: str) -> None:
        self.layout, self.where = layout, where
        self.clear()

    def clear(self) -> None:
        """Begin again with the first row."""
        self.rows, self.lines = list[int](), list[tuple[int, int]]()

    def add(self, row: int, line: int, n_cells: int) -> None:
        """Add a row, of which the message shows the first ones."""
        self.rows.append(row)
        if len(self.lines) < SHOWN:
            self.lines.append((line, n_cells))

    def faults(self) -> list[DataError]:
        """Return the fault of these rows, if there are any."""
        if not self.lines:
            return []
        layout, places = self.layout, (f"{n} cells in line {line}" for line, n in self.lines)
        cure = "Correct these lines, or put cells that contain the delimiter in quotation marks."
        if len(layout.names) == 1 or self.rows[0] == 0:
            cure = f"If the first line, {layout.first!r}, is a title, remove it."
        return [
            DataError(
                f"{self.where}: every row must have {len(layout.names)} cells, as the first row. "
                f"Received: {listed(places, len(self.rows))}. {cure}"
            )
        ]


@contextmanager
def _open_text(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a file for the csv module; errors while reading become DataError."""
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        with _errors(path.name), open_bytes(path) as stream:
            yield io.TextIOWrapper(stream, encoding=encoding, newline="")
    finally:
        csv.field_size_limit(limit)


@contextmanager
def _errors(where: str) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise DataError(
            f"{where}: the text must have a known encoding. Received: {error}. Save the file as "
            "UTF-8, or pass ", Mention("encoding", "NAME"), ".",
        ) from error  # fmt: skip
    except csv.Error as error:
        raise DataError(
            f"{where}: the text must be rows of delimited cells. Received: {error}. Check for "
            f"an unclosed quotation mark; a cell holds at most {LONGEST_CELL:,} characters."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: the file must be readable. Received: {error}.") from error


def _read_numbers(path: Path, layout: Layout) -> list[Column] | None:
    """Read a file of only numbers quickly; return None for other files."""
    with _open_text(path, layout.encoding) as stream:
        # A cheap check: give up if the first row of data is not all numbers.
        reader = reader_of(stream, layout.delimiter)
        start = list(islice(filter(is_filled, reader), layout.rows_before + 1))
        if len(start) <= layout.rows_before:
            return None
        first = start[-1]
        if len(first) != len(layout.names) or not _are_numbers(first):
            return None
        delimiter, rest = layout.delimiter, iter(stream)
        if delimiter == BLANKS:
            delimiter, rest = "\t", with_tabs(stream)
        lines = chain([delimiter.join(f'"{cell.strip()}"' for cell in first)], rest)
        try:
            values = np.loadtxt(lines, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
        except ValueError:  # text, a missing value or a ragged row: left to the slow reader
            return None
    if (np.abs(values) >= EXACT).any():  # the slow reader keeps all digits of whole numbers
        return None
    return list(values.T)


def _read_any(path: Path, layout: Layout, text: set[int], ragged: RaggedRows) -> list[Column]:
    """Read numbers and text; a column is text if any of its cells is; collect ragged rows."""
    text = set(text)
    while True:
        found = set(text)
        columns = _collect(path, layout, found, ragged)
        if columns is not None:
            return columns
        text = found


def _collect(path: Path, layout: Layout, text: set[int], ragged: RaggedRows) -> list[Column] | None:
    """Collect the columns, and add those with text to `text`.

    Returns None if text is found in a column of which earlier chunks are numbers already: their
    original text is lost, so the file must be read again with the updated `text`.
    """
    width = len(layout.names)
    numbers: list[list[Numbers]] = [[] for _ in range(width)]
    words: list[Text] = [[] for _ in range(width)]
    again = False
    with _open_text(path, layout.encoding) as stream:
        rows = _rows(stream, layout, ragged)
        while chunk := list(islice(rows, max(1, CHUNK_CELLS // width))):
            for at, cells in enumerate(zip(*chunk, strict=True)):
                values = None if at in text else _to_numbers(cells)
                if values is not None and not _loses_digits(values, cells):
                    numbers[at].append(values)
                    continue
                again = again or bool(numbers[at])
                text.add(at)
                # Interned: each category is stored once.
                words[at].extend(None if marks_gap(c) else sys.intern(c.strip()) for c in cells)
    if again:
        return None
    empty = np.empty(0)
    return [
        words[at] if at in text else np.concatenate([empty, *numbers[at]]) for at in range(width)
    ]


def _rows(stream: TextIO, layout: Layout, ragged: RaggedRows) -> Iterator[list[str]]:
    """Yield the data rows of the right width; collect the others."""
    reader, n = reader_of(stream, layout.delimiter, strict=True), -layout.rows_before
    ragged.clear()
    for row in reader:
        if not is_filled(row):
            continue
        n += 1
        if n <= 0:
            continue
        if len(row) == len(layout.names):
            yield row
        else:
            ragged.add(n - 1, reader.line_num, len(row))


def _to_numbers(cells: Sequence[str]) -> Numbers | None:
    """Return the cells as numbers, with NaN for missing values; None if any cell is text."""
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        try:
            known = ["nan" if _is_missing_number(cell) else cell for cell in cells]
            values = np.array(known, dtype=np.float64)
        except ValueError:
            return None
    # Python reads "2020_01" as a number; in a table it is text.
    if any("_" in cell for cell in cells):
        return None
    return values


def _are_numbers(cells: Sequence[str]) -> bool:
    return _to_numbers(cells) is not None


def _loses_digits(values: Numbers, cells: Sequence[str]) -> bool:
    """Return True if a cell is a whole number that float64 may round."""
    return bool((np.abs(values) >= EXACT).any()) and has_long_integer(cells)


def _is_missing_number(cell: str) -> bool:
    """Return True if a cell among numbers is missing; "None" counts too, unlike among text."""
    return is_missing(cell) or cell.strip() == "None"
