"""`load`: read a built-in set or a file; the name and the suffix select the reader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nnbackend.data.array_files import read_npy, read_npz
from nnbackend.data.builtin import BUILTIN
from nnbackend.data.coding import ColumnCoding
from nnbackend.data.csv_files import read_csv
from nnbackend.data.dataset import Dataset
from nnbackend.data.idx_files import is_idx_name, read_idx_file, read_idx_folder
from nnbackend.data.parquet_files import read_parquet
from nnbackend.data.table_datasets import code_dataset, fit_dataset
from nnbackend.data.tables import Table, find_column, find_columns
from nnbackend.data.targets import Task, check_task
from nnbackend.errors import ArgumentError, DataError, Fault, Mention
from nnbackend.suggestions import suggest

TEXT_TABLES = (".csv", ".tsv", ".txt", ".data")  # one reader, which detects the delimiter
FORMATS = (
    ".csv, .tsv, .txt or .data (also .gz), .parquet, .npz, .npy (NAME_x.npy beside NAME_y.npy), "
    "an IDX folder or file (train-images-idx3-ubyte.gz)"
)


def load(
    source: str | os.PathLike[str],
    *,
    target: str | int | None = None,
    task: Task | None = None,
    missing: str = "error",
    header: bool | None = None,
    coding: ColumnCoding | None = None,
    categorical: Sequence[str | int] = (),
    ignore: Sequence[str | int] = (),
) -> Dataset:
    """Read a built-in set or a file as training data.

    `source` is a built-in name (digits, iris, wine, breast_cancer, diabetes, xor, spirals) or a
    path: .csv, .tsv, .txt or .data (also .gz), .parquet, .npz (arrays x and y), .npy (NAME_x.npy
    with NAME_y.npy beside it, memory-mapped), or an IDX folder or file. Write `./iris` for a file
    with the name of a built-in set.

    `target` is a column's name or index (negative from the end). **The default is the last
    column.** For .npz it names the array of targets, "y" by default. `header` sets whether a .csv
    has a header, if detection fails.

    `task` None infers the task. Text and booleans are classes; numbers with a fraction are
    regression. Whole numbers are classes if there are one or two different values, or up to 20 (if
    each occurs twice on average), and regression if there are more than 100. Otherwise `task` is
    required.

    `missing` "error" refuses cells without a value, "drop" drops their rows and counts them in
    `n_dropped`. `coding`, the `columns` of an earlier data set, reads a table in the same way as
    that one; the target may then be absent. `categorical` are columns to treat as categories
    although their values look like numbers, such as postal codes; `ignore` are columns to ignore.

    Raises: DataError when the data cannot be read or used for training; ArgumentError for an
    option that does not apply.
    >>> load("iris").x.shape
    (150, 4)
    """
    check_task(task)
    if missing not in ("error", "drop"):
        raise ArgumentError(Fault("missing", "'error' or 'drop'", missing))
    lists = {"categorical": list(categorical) or None, "ignore": list(ignore) or None}
    unused = partial(_check_unused, target=target, header=header)
    if isinstance(source, str) and source in BUILTIN:
        unused(f"the built-in set {source!r}", coding=coding, **lists)
        return _check_data_task(BUILTIN[source](), task)
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            "source must be the name of a built-in set or the path of a file. Received: "
            f"{type(source).__module__}.{type(source).__name__}. Pass arrays and "
            "tables to nnbackend.Model or an estimator; write CSV text to a file first."
        )
    path = Path(source)
    kind = _format(path)
    if kind in ("csv", "parquet"):
        if coding is None:
            name = path.name.split(".")[0]
            table, target, named = _read_table(path, kind, header, target, categorical, ignore)
            return fit_dataset(
                table, name, target=target, task=task, missing=missing, categorical=named
            )
        unused("a file read with a coding, which settles it", **lists)
        return _load_coded(path, kind, task, missing, coding)
    _check_unused(f"{path.name}, which is no table", header=header, coding=coding, **lists)
    return _load_arrays(path, kind, target, task, missing)


def _load_arrays(
    path: Path, kind: str, target: str | int | None, task: Task | None, missing: str
) -> Dataset:
    """Read a file of arrays: .npz, .npy or IDX."""
    if kind == "npz":
        if target is not None and not isinstance(target, str):
            raise ArgumentError(Fault("target", "the name of an array for a .npz file", target))
        return read_npz(path, target=target, task=task, missing=missing)
    _check_unused(f"{path.name}, which has no named columns", target=target)
    if kind == "npy":
        return read_npy(path, task=task, missing=missing)
    return _check_data_task(read_idx_folder(path) if path.is_dir() else read_idx_file(path), task)


def _load_coded(
    path: Path, kind: str, task: Task | None, missing: str, coding: ColumnCoding
) -> Dataset:
    """Read a table with the coding of an earlier one."""
    if task not in (None, coding.task):
        raise ArgumentError(Fault("task", f"that of the coding, {coding.task!r}, or None", task))
    if kind == "parquet":
        table = read_parquet(path)
    else:
        table = read_csv(path, header=coding.has_header, text_positions=coding.text_positions)
    return code_dataset(table, path.name.split(".")[0], coding, missing=missing)


def _read_table(
    path: Path,
    kind: str,
    header: bool | None,
    target: str | int | None,
    categorical: Sequence[str | int],
    ignore: Sequence[str | int],
) -> tuple[Table, str | int | None, list[str]]:
    """Read a table without the ignored columns; return (table, target, categorical columns).

    Indices count all columns of the file, also the ignored ones.
    """
    if kind == "parquet":
        _check_unused(f"{path.name}, whose columns always have names", header=header)
        table = read_parquet(path)
    else:

        def as_text(names: tuple[str, ...], where: str) -> set[int]:
            return find_columns(categorical, "categorical", names, where)

        table = read_csv(path, header=header, text_positions=as_text)
    names = table.names
    named = [names[i] for i in find_columns(categorical, "categorical", names, table.where)]
    left_out = find_columns(ignore, "ignore", names, table.where)
    if not left_out:
        return table, target, named
    if not table.has_header:
        raise ArgumentError(
            f"{table.where}: ", Mention("ignore"), " needs a header, so that later files match by "
            "column name. Received: ", Mention("ignore", list(ignore)), ". Add a header, or set ",
            Mention("header", True), " if the first row is one.",
        )  # fmt: skip
    if target is not None:
        target = names[find_column(target, table)]
    kept = [i for i in range(len(names)) if i not in left_out]
    return table.select(kept, [names[i] for i in kept]), target, named


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
    raise DataError(
        f"The file name must have the suffix of a known format. Received: {path.name!r}. "
        f"Formats: {FORMATS}. {suggest(path.stem, BUILTIN)}"
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
