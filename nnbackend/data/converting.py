"""Tables of numbers, read in one pass with a bounded memory, for the shards of large data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.csv_files import csv_chunks
from nnbackend.data.number_text import number_in
from nnbackend.data.parquet_files import import_arrow
from nnbackend.data.readers import TEXT_TABLES
from nnbackend.data.shards import is_pattern
from nnbackend.data.table_datasets import default_target
from nnbackend.data.tables import marks_gap
from nnbackend.errors import ArgumentError, DataError, Fault, Mention
from nnbackend.suggestions import suggest

SHOWN = 10  # columns in a message
Part = tuple[NDArray[Any], NDArray[Any]]  # features (n, n_features), targets (n,)


def find_tables(source: str) -> list[Path]:
    """Return the sorted tables of a file, a folder or a pattern such as data/*.csv.

    Raises: ArgumentError if there are none.
    """
    path = Path(source)
    if is_pattern(source):
        found = [Path(name) for name in sorted(glob(source))]
    elif path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_table(p))
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise ArgumentError(
            "DATA must be an existing file, a folder of tables or a pattern in quotes. Received: "
            f"{source}."
        )
    return found


def table_parts(paths: Sequence[Path], target: str | None, n_rows: int) -> Iterator[Part]:
    """Yield the features and targets of .csv or .parquet tables, at most `n_rows` rows at once.

    target: the name of its column; by default the last one, or a first one with a name such as
    label. Targets may be text, features are numbers.
    Raises: DataError for other cells, with their rows, and for tables with other columns;
    ArgumentError for another file or column.
    """
    first: tuple[str, ...] = ()
    for path in paths:
        names, columns = _opened(path, n_rows)
        first = first or names
        if names != first:
            raise DataError(
                f"{path.name}: the tables must have the same columns. Received: "
                f"{', '.join(names[:SHOWN])} after {', '.join(first[:SHOWN])} in {paths[0].name}."
            )
        yield from _parts(path, names, columns, _position(names, target))


def _opened(path: Path, n_rows: int) -> tuple[tuple[str, ...], Iterator[list[Any]]]:
    """Return the names of a table's columns, and its columns in parts."""
    if not _is_table(path):
        raise ArgumentError(
            f"convert reads .csv or .parquet tables. Received: {path.name}. A .npy file needs no "
            "conversion."
        )
    if path.suffix.lower() == ".parquet":
        return _parquet(path, n_rows)
    names, chunks = csv_chunks(path, n_rows)
    return names, (list(zip(*chunk, strict=True)) for chunk in chunks)


def _is_table(path: Path) -> bool:
    name = path.name.lower()
    return name.removesuffix(".gz").endswith(TEXT_TABLES) or name.endswith(".parquet")


def _parts(
    path: Path, names: tuple[str, ...], columns: Iterator[list[Any]], at: int
) -> Iterator[Part]:
    """Yield the features and the targets, which are column `at`, of a table."""
    first = 1
    for cells in columns:
        y = _targets(cells[at])
        others = [(n, c) for i, (n, c) in enumerate(zip(names, cells, strict=True)) if i != at]
        x = np.empty((len(y), len(others)))
        for i, (column, values) in enumerate(others):
            x[:, i] = _numbers(values, column, path.name, first)
        yield x, y
        first += len(y)


def _position(names: tuple[str, ...], target: str | None) -> int:
    if target is None:
        return default_target(names) % len(names)
    if target not in names:
        raise ArgumentError(Fault("target", "a column", target, (suggest(target, names),)))
    return names.index(target)


def _parquet(path: Path, n_rows: int) -> tuple[tuple[str, ...], Iterator[list[Any]]]:
    arrow, parquet = import_arrow(path)
    file, types = parquet.ParquetFile(path), arrow.types

    def cells(column: Any) -> Any:
        kind = column.type  # Python's objects of numbers take ten times their memory
        is_plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        is_plain = is_plain and not column.null_count
        return column.to_numpy(zero_copy_only=False) if is_plain else column.to_pylist()

    def columns() -> Iterator[list[Any]]:
        for batch in file.iter_batches(batch_size=n_rows):
            yield [cells(column) for column in batch.columns]

    return tuple(map(str, file.schema_arrow.names)), columns()


def _targets(cells: Any) -> NDArray[Any]:
    values = [_number(cell) for cell in cells]
    if any(value is None for value in values):
        return np.array([str(cell).strip() for cell in cells])
    numbers = np.array(values, np.float64)
    is_whole = np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()
    return numbers.astype(np.int64) if is_whole else numbers


def _numbers(cells: Any, name: str, where: str, first: int) -> NDArray[np.float64]:
    """Return cells as numbers; raise DataError for the first one that is none."""
    try:
        numbers = np.array(cells, np.float64)
        if np.isfinite(numbers).all():
            return numbers
        values: list[float | None] = numbers.tolist()
    except (TypeError, ValueError):
        values = [_number(cell) for cell in cells]
    bad = next((i for i, value in enumerate(values) if value is None or value != value), None)
    if bad is not None:
        cell = cells[bad] if isinstance(cells[bad], str) else values[bad]
        raise DataError(
            f"{where}: convert needs numbers as features. Received: {cell!r} in column "
            f"{name!r}, data row {first + bad}. Fill or code such cells before, or train on the "
            "table itself.",
        )  # fmt: skip
    return np.array(values, np.float64)


def _number(cell: Any) -> float | None:
    """Return a cell as a number, NaN for no value, None for text."""
    if cell is None:
        return float("nan")
    if not isinstance(cell, str):
        return float(cell)
    value = number_in(cell.strip(), ".")
    if value == value:
        return value
    return value if marks_gap(cell) else None


def _cast(x: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return numbers in another dtype; raise DataError for those that it does not hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast: NDArray[Any] = x.astype(dtype)
    is_held = (cast == x).all() if dtype == "uint8" else np.isfinite(cast).all()
    if not is_held:
        worst = x[~np.isfinite(cast)] if dtype != "uint8" else x[cast != x]
        raise DataError(
            f"The features must fit in {dtype}. Received: {worst[0]:g}. Choose another ",
            Mention("dtype"), ".",
        )  # fmt: skip
    return cast


def convert(
    parts: Iterator[Part],
    write: Callable[[str, NDArray[Any]], None],
    done: int,
    dtype: str,
    show: Callable[[int, int], None],
) -> int:
    """Write the parts that are not done yet as shards x-000.npy, y-000.npy, ...; return the rows.

    write(name, array) writes a file as a whole.  done: shards that exist.
    show: is called with the number of shards and rows after each of them.
    """
    n = 0
    for i, (x, y) in enumerate(parts):
        n += len(y)
        if i >= done:
            write(f"x-{i:05}.npy", _cast(x, dtype))
            write(f"y-{i:05}.npy", y)  # last: a shard with targets is complete
        show(i + 1, n)
    return n
