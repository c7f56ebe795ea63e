"""`load`: read a built-in set or a file; the name and the suffix select the reader."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnbackend.data.array_files import read_npy, read_npz
from nnbackend.data.builtin import BUILTIN
from nnbackend.data.coding import ColumnCoding
from nnbackend.data.dataset import Dataset
from nnbackend.data.deciding import FITS, decimal_sign
from nnbackend.data.frames import is_table
from nnbackend.data.idx_files import is_idx_name, read_idx_file, read_idx_folder
from nnbackend.data.number_text import Decimal
from nnbackend.data.shards import find_shards, is_pattern, name_of, read_shards
from nnbackend.data.sql_tables import is_url
from nnbackend.data.table_datasets import Training, code_dataset, fit_dataset
from nnbackend.data.table_sources import TableSource
from nnbackend.data.tables import Table, find_column, find_columns
from nnbackend.data.targets import Task, check_task
from nnbackend.data.thousands import has_fractions, warn_of_thousands, with_whole_numbers
from nnbackend.errors import ArgumentError, DataError, Fault, Mention
from nnbackend.suggestions import suggest

WORKBOOKS = (".xlsx", ".xls", ".ods")
TEXT_TABLES = (".csv", ".tsv", ".txt", ".data")  # one reader, which detects the delimiter
TABLES = ("csv", "parquet", "sql", "frame")
MISSING_CHOICES = ("fill", "drop", "error")
FORMATS = (
    ".csv, .tsv, .txt or .data (also .gz), .parquet, .npz, .npy (NAME_x.npy beside NAME_y.npy), "
    "an IDX folder or file (train-images-idx3-ubyte.gz), a folder or a pattern such as "
    "'data/*.parquet' of .npy, .npz or .parquet files"
)


def load(
    source: Any,
    *,
    target: str | int | None = None,
    task: Task | None = None,
    missing: str = "fill",
    header: bool | None = None,
    coding: ColumnCoding | None = None,
    column: Mapping[str, str] | Sequence[str] = (),
    categorical: Sequence[str | int] = (),
    ignore: Sequence[str | int] = (),
    decimal: Decimal | None = None,
    encoding: str | None = None,
    query: str | None = None,
    training: Training | None = None,
    group: str | None = None,
    positive: str | None = None,
) -> Dataset:
    """Read a built-in set, a file, a table of a database or a frame as training data.

    source: a built-in name (digits, iris, wine, breast_cancer, diabetes, xor, spirals); or a path:
        .csv, .tsv, .txt or .data (also .gz), .parquet, .npz (arrays x and y), .npy (NAME_x.npy
        with NAME_y.npy beside it, memory-mapped), or an IDX folder or file; ./iris is a file with
        the name of a built-in set; a folder, or a pattern such as "data/*.npz", of .npy (x-NAME.npy
        with y-NAME.npy), .npz or .parquet files of numbers, read in parts; or the URL of a
        database, sqlite:///shop.db?table=orders; or a frame of pandas, polars, Arrow or another
        library that narwhals knows.
    target: a column's name or index (negative from the end), by default the last column, or the
        first if its name is label, target, class or y; for .npz the array of targets, by default y.
    task: "classification" or "regression"; None infers it. Text and booleans are classes; numbers
        with a fraction are regression. Whole numbers are classes if there are one or two different
        values, or up to 20 (if each occurs twice on average), and regression if there are more
        than 100; otherwise the task is required.
    missing: "fill" uses a table's rows with missing values, "drop" drops them and counts them in
        `n_dropped`, "error" refuses them; arrays with missing values are refused unless "drop". A
        row without a target is dropped.
    header: whether a .csv has a header, if detection fails.
    coding: the `columns` of an earlier data set, to read a table in the same way; the target may
        then be absent.
    column: kinds of columns, {name: kind} or ["name=kind"]: number, yes/no, category, date, id or
        text.
    categorical: columns of categories whose values look like numbers, such as postal codes.
    ignore: columns to ignore.
    decimal: the decimal sign, "." or ",", of numbers such as 1,234 that could be either.
    encoding: that of a text file.
    query: selects other rows of a database.
    training: a function of the data set without features that returns the positions of the rows to
        which a table's columns are fitted; all by default.
    group: a column that says which rows belong together, so no feature; see `Dataset.keys`.
    positive: the class that becomes the second of two, by default the last in sorted order.

    Raises: DataError when the data cannot be read or used for training; ArgumentError for an
    option that does not apply.
    >>> load("iris").x.shape
    (150, 4)
    """
    _check_choices(task, missing, decimal)
    lists: dict[str, Any] = {
        "column": column or None, "categorical": list(categorical) or None,
        "ignore": list(ignore) or None, "decimal": decimal,
    }  # fmt: skip
    others = {"coding": coding, "encoding": encoding, "query": query}
    more = {"target": target, "header": header, **lists}
    if isinstance(source, str) and source in BUILTIN:
        _check_unused(f"the built-in set {source!r}", **others, **more)
        return _check_data_task(BUILTIN[source](), task).with_positive(positive)
    kind = _kind_of(source)
    if kind not in TABLES:
        _check_unused(f"{Path(source).name}, which is no table", header=header, **others, **lists)
        return _load_arrays(Path(source), kind, target, task, missing).with_positive(positive)
    table = TableSource(source, kind, header, encoding, query)
    _check_unused(table.where, **table.unused)
    if coding is not None:
        _check_unused("a file read with a coding, which settles it", **more)
        return _load_coded(table, task, missing, coding)
    options = _TableOptions(target, column, categorical, ignore, group)
    return _load_new(table, options, task, missing, decimal, training, positive)


def _check_choices(task: str | None, missing: str, decimal: str | None) -> None:
    """Raise ArgumentError for an unknown choice."""
    check_task(task)
    if missing not in MISSING_CHOICES:
        raise ArgumentError(Fault("missing", "'fill', 'drop' or 'error'", missing))
    if decimal not in (None, ".", ","):
        raise ArgumentError(Fault("decimal", "'.' or ','", decimal))


def _kind_of(source: Any) -> str:
    """Return the kind of a source: one of TABLES, or of a file of arrays."""
    if is_url(source):
        return "sql"
    if isinstance(source, (str, os.PathLike)):
        is_shards = is_pattern(os.fspath(source)) or find_shards(os.fspath(source))
        return "shards" if is_shards else _format(Path(source))
    if is_table(source):
        return "frame"
    raise ArgumentError(
        "source must be the name of a built-in set, the path of a file, the URL of a database or a "
        f"frame. Received: {type(source).__module__}.{type(source).__name__}. Pass arrays to "
        "nnbackend.Model or an estimator; write CSV text to a file first."
    )


def _load_arrays(
    path: Path, kind: str, target: str | int | None, task: Task | None, missing: str
) -> Dataset:
    """Read a file of arrays: .npz, .npy or IDX."""
    missing = "error" if missing == "fill" else missing
    if kind == "shards":
        if target is not None and not isinstance(target, str):
            raise ArgumentError(Fault("target", "the name of a column or an array", target))
        return read_shards(find_shards(path), name_of(path), target=target, task=task)
    if kind == "npz":
        if target is not None and not isinstance(target, str):
            raise ArgumentError(Fault("target", "the name of an array for a .npz file", target))
        return read_npz(path, target=target, task=task, missing=missing)
    _check_unused(f"{path.name}, which has no named columns", target=target)
    if kind == "npy":
        return read_npy(path, task=task, missing=missing)
    return _check_data_task(read_idx_folder(path) if path.is_dir() else read_idx_file(path), task)


def _load_coded(
    source: TableSource, task: Task | None, missing: str, coding: ColumnCoding
) -> Dataset:
    """Read a table with the coding of an earlier one."""
    if task not in (None, coding.task):
        raise ArgumentError(Fault("task", f"that of the coding, {coding.task!r}, or None", task))
    source = source._replace(header=coding.has_header)
    table = source.read(coding.text_positions, coding.least_codes)
    return code_dataset(table, source.name, coding, missing=missing)


class _TableOptions(NamedTuple):
    """The options of `load` on the columns of a table."""

    target: str | int | None
    column: Mapping[str, str] | Sequence[str]
    categorical: Sequence[str | int]
    ignore: Sequence[str | int]
    group: str | None

    def kinds(self, names: tuple[str, ...], where: str) -> dict[int, str]:
        """Return the given kinds by the positions of the columns."""
        pairs = self.column.items() if isinstance(self.column, Mapping) else _pairs(self.column)
        found = dict.fromkeys(
            find_columns(self.categorical, "categorical", names, where), "category"
        )
        if self.group is not None:
            found |= dict.fromkeys(find_columns([self.group], "group", names, where), "id")
        for name, kind in pairs:
            if kind not in FITS:
                expected = f"NAME=KIND, where KIND is {', '.join(FITS)}"
                cure = (suggest(str(kind), FITS),)
                raise ArgumentError(Fault("column", expected, f"{name}={kind}", cure))
            found |= dict.fromkeys(find_columns([name], "column", names, where), kind)
        return found


def _pairs(column: Sequence[str]) -> list[tuple[str, str]]:
    if isinstance(column, str) or not all(isinstance(text, str) and "=" in text for text in column):
        raise ArgumentError(Fault("column", "a list of NAME=KIND", column))
    return [(name, kind) for name, _, kind in (text.rpartition("=") for text in column)]


def _load_new(
    source: TableSource, options: _TableOptions, task: Task | None, missing: str,
    decimal: Decimal | None, training: Training | None, positive: str | None,
) -> Dataset:  # fmt: skip
    """Read a table for training; in a table with decimal commas 1.500 is 1500."""
    cells, target, kinds = _read_table(source, options)
    if source.kind == "csv" and has_fractions(cells):
        sign = decimal or decimal_sign(cells, kinds)
        if sign == ",":  # it was read as 1.5, as nothing else in its column is text
            cells = with_whole_numbers(_read_table(source, options, all_text=True)[0])
        warn_of_thousands(cells, sign)
    return fit_dataset(
        cells, source.name, target=target, task=task, missing=missing, kinds=kinds, decimal=decimal,
        training=training, positive=positive,
    )  # fmt: skip


def _read_table(
    source: TableSource, options: _TableOptions, all_text: bool = False
) -> tuple[Table, str | int | None, dict[str, str]]:
    """Read a table without the ignored columns; return (table, target, kinds of columns by name).

    Indices count all columns of the file, also the ignored ones.
    """

    def as_text(names: tuple[str, ...], where: str) -> set[int]:
        if all_text:
            return set(range(len(names)))
        return {i for i, k in options.kinds(names, where).items() if k != "number"}

    def least_codes(names: tuple[str, ...], where: str) -> dict[int, float]:
        return {i: 1.0 for i, k in options.kinds(names, where).items() if k == "category"}

    table = source.read(as_text, least_codes)
    names, target = table.names, options.target
    kinds = {names[i]: k for i, k in options.kinds(names, table.where).items()}
    left_out = find_columns(options.ignore, "ignore", names, table.where)
    if not left_out:
        return table, target, kinds
    if not table.has_header:
        raise ArgumentError(
            f"{table.where}: ", Mention("ignore"), " needs a header, so that later files match by "
            "column name. Received: ", Mention("ignore", list(options.ignore)), ". Add a header, "
            "or set ", Mention("header", True), " if the first row is one.",
        )  # fmt: skip
    if target is not None:
        target = names[find_column(target, table)]
    kept = [i for i in range(len(names)) if i not in left_out]
    return table.select(kept, [names[i] for i in kept]), target, kinds


def _format(path: Path) -> str:
    """Return the format by name and suffix; raise DataError for a missing file or other suffix."""
    lowered = path.name.lower()
    if not path.exists():
        raise DataError(_missing_source(path))
    if path.is_dir() or is_idx_name(path.name):
        return "idx"
    if lowered.removesuffix(".gz").endswith(TEXT_TABLES):
        return "csv"
    for suffix in ("parquet", "npz", "npy"):
        if lowered.endswith(f".{suffix}"):
            return suffix
    cure = "Save the sheet as CSV. " if path.suffix.lower() in WORKBOOKS else ""
    raise DataError(
        f"The file name must have the suffix of a known format. Received: {path.name!r}. "
        f"{cure}Formats: {FORMATS}. {suggest(path.stem, BUILTIN)}"
    )


def _missing_source(path: Path) -> str:
    if path.suffix or path.parent != Path():
        return f"The file must exist. Received: {str(path)!r}. Formats: {FORMATS}."
    return (
        f"source must be a built-in set or a file. Received: {str(path)!r}, which is neither. "
        f"{suggest(path.name, BUILTIN)} Formats: {FORMATS}."
    )


def _check_unused(what: str, **options: object) -> None:
    """Raise ArgumentError for an option that would be ignored."""
    for option, value in options.items():
        if value is not None:
            shown = "coding=a coding" if option == "coding" else Mention(option, value)
            raise ArgumentError(
                Mention(option), f" has no effect for {what}. Received: ", shown, ". Leave it out."
            )


def _check_data_task(data: Dataset, task: Task | None) -> Dataset:
    if task not in (None, data.task):
        expected = f"{data.task!r} for the set {data.name!r}"
        raise ArgumentError(Fault("task", expected, task, ("Leave it out.",)))
    return data
