"""Reader of `.csv` and `.csv.gz` files, which detects the delimiter and the header.

NumPy's compiled reader reads files with only numbers. The csv module reads other files, in chunks
that are converted to numbers if possible. Both give the same table.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from nnbackend.data.gzip_files import is_gzip
from nnbackend.data.tables import (
    EXACT,
    Column,
    Numbers,
    Table,
    Text,
    check_names,
    default_names,
    has_long_integer,
    is_missing,
    with_long_integers,
)
from nnbackend.errors import DataError

DELIMITERS = ",;\t"
SAMPLE_CHARACTERS = 1 << 16
SAMPLE_ROWS = 100
CHUNK_CELLS = 1_000_000

TextPositions = Callable[[tuple[str, ...], str], set[int]]


@dataclass(frozen=True)
class _Layout:
    """The format of a file, detected from its beginning."""

    delimiter: str
    has_header: bool
    names: tuple[str, ...]
    first: str  # the first cell


def read_csv(
    path: Path, *, header: bool | None = None, text_positions: TextPositions | None = None
) -> Table:
    """Read a table of numbers and text.

    The first row is a header if it has text above a column of numbers, or if it has no numbers and
    none of its cells recurs in its column; `header` overrides this. `text_positions(names, where)`
    returns the columns to read as text even if they look like numbers.

    Raises: DataError when the file is not such a table.
    """
    where = path.name
    with _open_text(path) as stream:
        layout = _detect(stream.read(SAMPLE_CHARACTERS), header, where)
    text = text_positions(layout.names, where) if text_positions else set()
    columns = None if text else _read_numbers(path, layout)
    if columns is None:
        columns = _read_any(path, layout, text)
        # Whole numbers too long for float64 are still text here; they become int64 if they fit.
        columns = [c if at in text else with_long_integers(c) for at, c in enumerate(columns)]
    n_rows = len(columns[0])
    if n_rows == 0:
        raise DataError(
            f"{where}: a table must have data rows. Received: only the header "
            f"{', '.join(layout.names[:10])}."
        )
    row_numbers = np.arange(1, n_rows + 1)
    return Table(where, layout.names, tuple(columns), row_numbers, layout.has_header)


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a file for the csv module; errors while reading become DataError."""
    try:
        if is_gzip(path):
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as stream:
                yield stream
        else:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                yield stream
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: the text must be UTF-8. Received: the invalid byte "
            f"0x{error.object[error.start]:02x}. Save the file as UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path.name}: the text must be rows of delimited cells. Received: {error}. Check for "
            "an unclosed quotation mark; a cell holds at most "
            f"{csv.field_size_limit():,} characters."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name}: the file must be readable. Received: {error}.") from error


def _detect(sample: str, header: bool | None, where: str) -> _Layout:
    lines = list(io.StringIO(sample, newline=""))
    if len(sample) == SAMPLE_CHARACTERS and len(lines) > 1:
        lines.pop()  # cut off in the middle
    best: tuple[tuple[bool, int], str, list[list[str]]] | None = None
    for delimiter in DELIMITERS:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        rows = [_strip(row) for row in islice(filter(_is_filled, reader), SAMPLE_ROWS)]
        widths = {len(row) for row in rows}
        # A delimiter that gives every row the same width beats one that gives more columns.
        score = (len(widths) == 1 and max(widths) > 1, len(rows[0]) if rows else 0)
        if best is None or score > best[0]:
            best = (score, delimiter, rows)
    assert best is not None  # DELIMITERS is not empty
    _, delimiter, rows = best
    if not rows:
        raise DataError(f"{where}: a table must have rows. Received: an empty file.")
    has_header = _looks_like_header(rows[0], rows[1:]) if header is None else header
    if not has_header:
        return _Layout(delimiter, False, default_names(len(rows[0])), rows[0][0])
    check_names(rows[0], where)
    return _Layout(delimiter, True, tuple(rows[0]), rows[0][0])


def _looks_like_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    def is_text(cell: str) -> bool:
        return not is_missing(cell) and not _are_numbers([cell])

    below = [row for row in below if len(row) == len(first)]
    # Names may be whole numbers, as pandas writes them, but not numbers like 5.1.
    if all(is_text(cell) or is_missing(cell) or cell.isdigit() for cell in first):
        for cell, *cells in zip(first, *below, strict=True):
            filled = [c for c in cells if not is_missing(c)]
            if filled and is_text(cell) and _are_numbers(filled):
                return True
    if not all(is_text(cell) for cell in first):
        return False
    return not any(cell in cells for cell, *cells in zip(first, *below, strict=True))


def _read_numbers(path: Path, layout: _Layout) -> list[Column] | None:
    """Read a file of only numbers quickly; return None for other files."""
    with _open_text(path) as stream:
        # A cheap check: give up if the first row of data is not all numbers.
        reader = csv.reader(stream, delimiter=layout.delimiter, skipinitialspace=True)
        start = list(islice(filter(_is_filled, reader), 2 if layout.has_header else 1))
        if len(start) < (2 if layout.has_header else 1):
            return None
        first = start[-1]
        if len(first) != len(layout.names) or not _are_numbers(first):
            return None
        quoted = [f'"{cell.strip()}"' for cell in first]
        lines = chain([layout.delimiter.join(quoted)], stream)
        try:
            values = np.loadtxt(
                lines, delimiter=layout.delimiter, comments=None, quotechar='"', ndmin=2
            )
        except ValueError:  # text, a missing value or a ragged row: left to the slow reader
            return None
    if (np.abs(values) >= EXACT).any():  # the slow reader keeps all digits of whole numbers
        return None
    return list(values.T)


def _read_any(path: Path, layout: _Layout, text: set[int]) -> list[Column]:
    """Read numbers and text; a column is text if any of its cells is."""
    text = set(text)
    while True:
        found = set(text)
        columns = _collect(path, layout, found)
        if columns is not None:
            return columns
        text = found


def _collect(path: Path, layout: _Layout, text: set[int]) -> list[Column] | None:
    """Collect the columns, and add those with text to `text`.

    Returns None if text is found in a column of which earlier chunks are numbers already: their
    original text is lost, so the file must be read again with the updated `text`.
    """
    width = len(layout.names)
    numbers: list[list[Numbers]] = [[] for _ in range(width)]
    words: list[Text] = [[] for _ in range(width)]
    again = False
    with _open_text(path) as stream:
        rows = _rows(stream, layout, path.name)
        while chunk := list(islice(rows, max(1, CHUNK_CELLS // width))):
            for at, cells in enumerate(zip(*chunk, strict=True)):
                values = None if at in text else _to_numbers(cells)
                if values is not None and not _loses_digits(values, cells):
                    numbers[at].append(values)
                    continue
                again = again or bool(numbers[at])
                text.add(at)
                # Interned: each category is stored once.
                words[at].extend(None if is_missing(c) else sys.intern(c.strip()) for c in cells)
    if again:
        return None
    empty = np.empty(0)
    return [
        words[at] if at in text else np.concatenate([empty, *numbers[at]]) for at in range(width)
    ]


def _rows(stream: TextIO, layout: _Layout, where: str) -> Iterator[list[str]]:
    """Yield the data rows; raise DataError for a row of another width."""
    reader = csv.reader(stream, delimiter=layout.delimiter, skipinitialspace=True, strict=True)
    is_header = layout.has_header
    for row in reader:
        if not _is_filled(row):
            continue
        if len(row) != len(layout.names):
            raise DataError(
                f"{where}: every row must have {len(layout.names)} cells, as the first row. "
                f"Received: {len(row)} cells in line {reader.line_num}. {_ragged_cure(layout)}"
            )
        if not is_header:
            yield row
        is_header = False


def _ragged_cure(layout: _Layout) -> str:
    if layout.first.lower().startswith("sep="):
        return f"Remove the first line, {layout.first!r}: the separator is detected without it."
    if len(layout.names) == 1:
        return f"If the first line, {layout.first!r}, is a title, remove it."
    return "Correct that line, or put cells that contain the delimiter in quotation marks."


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


def _is_filled(row: Sequence[str]) -> bool:
    """Return True if a row is not a blank line."""
    return len(row) > 1 or (len(row) == 1 and bool(row[0].strip()))


def _strip(row: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in row]
