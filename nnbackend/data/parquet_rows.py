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
    """The rows of some columns of Parquet files, one behind another; or those at some indices.

    A row group is decoded from its start. One place in the files is remembered, so that rows in
    the order of the files are decoded once.
    names: the columns, which are features.  sizes: (file, row group in it, rows).
    """

    is_read_in_order = True

    def __init__(
        self,
        paths: Sequence[Path],
        names: Sequence[str],
        dtype: np.dtype[Any],
        index: NDArray[np.int64] | None = None,
        sizes: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        self.paths, self.names, self.dtype, self.index = tuple(paths), list(names), dtype, index
        self.sizes = sizes or [
            (i, g, n) for i, path in enumerate(paths) for g, n in enumerate(_sizes(path))
        ]
        self._stops = np.cumsum([n for *_, n in self.sizes], dtype=np.int64)
        n = int(self._stops[-1]) if index is None else len(index)
        self.shape = n, len(self.names)
        self._group, self._begin = -1, 0  # none is open
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._block: NDArray[Any] | None = None  # the numbers of the batch

    def take(self, rows: NDArray[Any]) -> ParquetRows:
        index = narrow(places_of(rows, self.shape[0], self.index))
        return ParquetRows(self.paths, self.names, self.dtype, index, self.sizes)

    @property
    def chunk_ends(self) -> NDArray[np.int64]:
        if self.index is None:
            return self._stops
        of = np.searchsorted(self._stops, self.index, side="right")
        return np.append(np.flatnonzero(np.diff(of)) + 1, len(of)).astype(np.int64)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        rows = rows[0] if isinstance(rows, tuple) else rows
        places = places_of(rows, self.shape[0], self.index)
        of = np.searchsorted(self._stops, places, side="right")
        _, firsts, which = np.unique(of, return_index=True, return_inverse=True)
        # Groups in the order in which they occur, and each in the order of its rows.
        order = np.lexsort((places, firsts[which]))
        read = np.empty((len(places), self.shape[1]), self.dtype)
        for part in np.split(order, np.flatnonzero(np.diff(of[order])) + 1):
            if len(part):
                group = int(of[part[0]])
                begin = int(self._stops[group - 1]) if group else 0
                read[part] = self._of_group(group, places[part] - begin)
        return read

    def _of_group(self, group: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of a row group, at ascending places."""
        if group != self._group or rows[0] < self._begin:
            self._open(group)
        found, done = np.empty((len(rows), self.shape[1]), self.dtype), 0
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
        number, of_file, _ = self.sizes[group]
        self._batches = _batches(self.paths[number], of_file, self.names)
        self._group, self._begin = group, 0
        self._block = None
        self._batch = next(self._batches)

    def _numbers(self, batch: Any) -> NDArray[Any]:
        block = np.empty((batch.num_rows, self.shape[1]), self.dtype)
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
    x = ParquetRows(paths, features, np.dtype(np.float32 if is_exact else np.float64))
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
