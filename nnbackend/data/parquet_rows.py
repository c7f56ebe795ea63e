"""Rows of Parquet files of numbers, decoded in order with a bounded memory; needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.host_rows import HostRows, narrow, places_of
from nnbackend.data.parquet_files import column_of, import_arrow, index_columns
from nnbackend.errors import DataError

ROWS = 8192  # decoded at once
EXACT = ("bool", "uint8", "int8", "uint16", "int16", "halffloat", "float")  # in float32


class ParquetRows(HostRows):
    """The rows of some columns of Parquet files, one behind another; or those at some indices."""

    is_read_in_order = True

    def __init__(self, decoder: Decoder, index: NDArray[Any] | None = None) -> None:
        self.decoder, self.index, self.dtype = decoder, index, decoder.dtype
        n = int(decoder.stops[-1]) if index is None else len(index)
        self.shape = n, len(decoder.names)

    def take(self, rows: NDArray[Any]) -> ParquetRows:
        return ParquetRows(self.decoder, narrow(places_of(rows, self.shape[0], self.index)))

    @property
    def chunk_ends(self) -> NDArray[np.int64]:
        if self.index is None:
            return self.decoder.stops
        of = np.searchsorted(self.decoder.stops, self.index, side="right")
        return np.append(np.flatnonzero(np.diff(of)) + 1, len(of)).astype(np.int64)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        rows = rows[0] if isinstance(rows, tuple) else rows
        places, stops = places_of(rows, self.shape[0], self.index), self.decoder.stops
        of = np.searchsorted(stops, places, side="right")
        _, firsts, which = np.unique(of, return_index=True, return_inverse=True)
        # Groups in the order in which they occur, and each in the order of its rows.
        order = np.lexsort((places, firsts[which]))
        read = np.empty((len(places), self.shape[1]), self.dtype)
        for part in np.split(order, np.flatnonzero(np.diff(of[order])) + 1):
            if len(part):
                group = int(of[part[0]])
                begin = int(stops[group - 1]) if group else 0
                read[part] = self.decoder.rows_of(group, places[part] - begin)
        return read


class Decoder:
    """Decodes rows of row groups, each from its start; it remembers one place in the files.

    So rows in the order of the files are decoded once. All selections of the rows share it: an open
    row group takes about 2 MB for each column.
    names: the columns, which are features.  stops: the ends of the row groups.
    """

    def __init__(self, paths: Sequence[Path], names: Sequence[str], dtype: Any) -> None:
        self.paths, self.names, self.dtype = tuple(paths), list(names), np.dtype(dtype)
        sizes = [(i, g, n) for i, path in enumerate(paths) for g, n in enumerate(_sizes(path))]
        self.groups = [(i, g) for i, g, _ in sizes]  # file, number in it
        self.stops = np.cumsum([n for *_, n in sizes], dtype=np.int64)
        self._group, self._begin = -1, 0  # none is open
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._block: NDArray[Any] | None = None  # the numbers of the batch

    def rows_of(self, group: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of a row group, at ascending places."""
        if group != self._group or rows[0] < self._begin:
            self._open(group)
        found, done = np.empty((len(rows), len(self.names)), self.dtype), 0
        while done < len(rows):
            while rows[done] >= self._begin + self._batch.num_rows:
                self._begin += self._batch.num_rows
                self._batch, self._block = next(self._batches), None
            if self._block is None:
                self._block = self._numbers(self._batch)
            stop = int(np.searchsorted(rows, self._begin + len(self._block)))
            found[done:stop] = self._block[rows[done:stop] - self._begin]
            done = stop
        return found

    def _open(self, group: int) -> None:
        number, of_file = self.groups[group]
        self._batch = self._block = None
        self._batches = iter(())  # closes the open one before
        self._batches = _batches(self.paths[number], of_file, self.names)
        self._group, self._begin = group, 0
        self._batch = next(self._batches)

    def _numbers(self, batch: Any) -> NDArray[Any]:
        block = np.empty((batch.num_rows, len(self.names)), self.dtype)
        for i, column in enumerate(batch.columns):
            numbers = column.cast("uint8") if str(column.type) == "bool" else column
            block[:, i] = numbers.to_numpy(zero_copy_only=False)  # no value: NaN
        return block


def column_names(paths: Sequence[Path], where: str) -> list[str]:
    """Return the columns of Parquet files. Raises: DataError for files with other columns."""
    schemas = [_schema(path) for path in paths]
    for path, schema in zip(paths, schemas, strict=True):
        if differing := sorted(set(schema) ^ set(schemas[0])):
            raise DataError(
                f"{where}: all Parquet files must have the same columns. Received: {paths[0].name} "
                f"and {path.name}, of which only one has {', '.join(differing[:5])}."
            )
    return list(schemas[0])


def read_columns(
    paths: Sequence[Path], features: Sequence[str], target: str | None, where: str
) -> tuple[ParquetRows, NDArray[Any] | None]:
    """Return the features of Parquet files, and the targets if there is a column of targets.

    Raises: DataError for features that are no numbers, and rows without a target.
    """
    types, is_exact = import_arrow(paths[0])[0].types, True
    for path in paths:
        schema = _schema(path)
        for name in features:
            kind = schema[name]
            is_exact &= str(kind) in EXACT
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
                raise DataError(
                    f"{where}: Parquet files that are read in parts must have numbers as "
                    f"features. Received: column {name!r} of type {kind} in {path.name}. Code it "
                    "as numbers before, or train on one file, which is read as a table."
                )
    x = ParquetRows(Decoder(paths, features, np.float32 if is_exact else np.float64))
    if target is None:
        return x, None
    return x, np.concatenate([_target(path, target, where) for path in paths])


def _target(path: Path, name: str, where: str) -> NDArray[Any]:
    arrow, parquet = import_arrow(path)
    with _reading(path), parquet.ParquetFile(path, memory_map=True) as file:
        values = column_of(arrow, name, file.read(columns=[name]).column(0), path.name)
    missing = (
        np.array([cell is None for cell in values])
        if isinstance(values, list)
        else np.isnan(values.astype(np.float64))
    )
    if missing.any():
        raise DataError(
            f"{where}: every row must have a target. Received: no value of {name!r} in "
            f"{int(missing.sum())} rows of {path.name}. Drop those rows."
        )
    return np.array(values)


def _schema(path: Path) -> dict[str, Any]:
    """Return the types of the columns by name, without the index that pandas stores."""
    _, parquet = import_arrow(path)
    with _reading(path), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
    left_out = index_columns(schema)
    return {str(f.name): f.type for f in schema if f.name not in left_out}


def _sizes(path: Path) -> list[int]:
    """Return the numbers of rows of the row groups of a file."""
    _, parquet = import_arrow(path)
    with _reading(path), parquet.ParquetFile(path) as file:
        facts = file.metadata
        return [facts.row_group(g).num_rows for g in range(facts.num_row_groups)]


def _batches(path: Path, group: int, names: Sequence[str]) -> Iterator[Any]:
    """Yield the batches of a row group, its columns in the order of names."""
    _, parquet = import_arrow(path)
    # Mapped and without pre-buffering: else the whole row group is read into memory.
    with _reading(path), parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS, row_groups=[group], columns=list(names)):
            yield batch.select(list(names))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise DataError for the errors of a damaged file."""
    arrow, _ = import_arrow(path)
    try:
        yield
    except (arrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path.name}: the file must be a complete Parquet file. Received: {error}"
        ) from error
