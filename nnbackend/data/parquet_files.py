"""Reader of `.parquet` files; needs pyarrow, from the extra `parquet`."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.table_faults import check_names
from nnbackend.data.tables import EXACT, MANY_CODES, Column, LeastCodes, Table, marks_gap, with_na
from nnbackend.errors import DataError

logger = logging.getLogger("nnbackend")


def import_arrow(path: Path) -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet. Raises: DataError when it is missing."""
    try:
        # import_module, because pyarrow has no type annotations.
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            f"{path.name}: Parquet files are read with pyarrow, which must be importable. "
            f"Received: {error}. Install it with: pip install 'nnbackend[parquet]'"
        ) from error


def read_parquet(path: Path, least_codes: LeastCodes | None = None) -> Table:
    """Read a table of numbers, booleans, text and dates; columns of other types have no values.

    The index that pandas writes is left out. least_codes: see `read_csv`.
    Raises: DataError when pyarrow is missing, or the file is not such a table.
    """
    arrow, parquet = import_arrow(path)
    try:
        # ParquetFile, not read_table, which adds columns for folders named like key=value.
        with parquet.ParquetFile(path) as file:
            table = file.read()
            left_out = index_columns(file.schema_arrow)
        table.validate(full=True)  # finds invalid text and offsets outside the file
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path.name}: the file must be a complete Parquet file. Received: {error}"
        ) from error
    table = table.select([i for i, n in enumerate(table.column_names) if n not in left_out])
    names = tuple(str(name) for name in table.column_names)
    check_names(names, path.name)
    if table.num_rows == 0 or not names:
        raise DataError(
            f"{path.name}: a table must have rows and columns. "
            f"Received: {table.num_rows} rows, {len(names)} columns."
        )
    least = least_codes(names, path.name) if least_codes else {}
    columns = tuple(
        with_na(c, least.get(at, MANY_CODES)) if isinstance(c, list) else c
        for at, c in enumerate(
            column_of(arrow, name, column, path.name)
            for name, column in zip(names, table.columns, strict=True)
        )
    )
    return Table(path.name, names, columns, np.arange(1, table.num_rows + 1))


def column_of(arrow: Any, name: str, column: Any, where: str) -> Column:
    """Return a column as numbers, or as text without a value where there is none."""
    kind = column.type
    if arrow.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if arrow.types.is_boolean(kind) or _is_text(arrow, kind):
        cells = (None if cell is None else str(cell).strip() for cell in column.to_pylist())
        return [None if cell is None or marks_gap(cell) else cell for cell in cells]
    if arrow.types.is_integer(kind) and not column.null_count:
        whole: NDArray[Any] = column.to_numpy()
        exact = np.abs(whole.astype(np.float64)).max() < EXACT
        return whole.astype(np.float64) if exact else whole  # labels keep all their digits
    if arrow.types.is_integer(kind) or arrow.types.is_floating(kind):
        return np.array(column.to_numpy(), dtype=np.float64)
    if arrow.types.is_decimal(kind):
        return np.array(column.cast(arrow.float64()).to_numpy(), dtype=np.float64)
    if arrow.types.is_timestamp(kind) or arrow.types.is_date(kind):
        return [None if cell is None else cell.isoformat()[:19] for cell in column.to_pylist()]
    if arrow.types.is_null(kind):
        return np.full(len(column), np.nan)
    logger.warning("%s: column %r is of type %s, which is left out", where, name, kind)
    return [None] * len(column)


def index_columns(schema: Any) -> list[str]:
    """Return the columns of the index that pandas stores with a table."""
    described = (schema.metadata or {}).get(b"pandas")
    names = json.loads(described).get("index_columns", []) if described else []
    return [name for name in names if isinstance(name, str)]


def _is_text(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
