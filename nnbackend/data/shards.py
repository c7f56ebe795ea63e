"""Data in several files: a folder or a pattern of .npy, .npz or Parquet files, read in parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.array_files import map_array, map_member
from nnbackend.data.dataset import Dataset
from nnbackend.data.file_rows import FileRows
from nnbackend.data.host_rows import narrow
from nnbackend.data.parquet_rows import column_names, read_columns
from nnbackend.data.table_datasets import default_target
from nnbackend.data.targets import Target, Task, code_target
from nnbackend.errors import ArgumentError, DataError, Fault
from nnbackend.suggestions import suggest

FOLDER = ("x-*.npy", "*.npz", "*.parquet")  # the files of a folder, the first kind that it has
KINDS = (".npy", ".npz", ".parquet")
MAGIC = re.compile(r"[*?[]")
# Names of files of features and of their targets: pattern, replacement.
PAIRS = ((r"^x-", "y-"), (r"_x$", "_y"), (r"^x$", "y"))


def is_pattern(source: str | Path) -> bool:
    """Return True if a source is a pattern such as data/x-*.npy, and no existing file."""
    return bool(MAGIC.search(str(source))) and not Path(source).exists()


def exists(source: str | Path) -> bool:
    """Return True if a file or folder exists, or a pattern matches files."""
    return bool(glob(str(source))) if is_pattern(source) else Path(source).exists()


def find_shards(source: str | Path) -> list[Path]:
    """Return the sorted files of a folder of shards, or of a pattern; none for other sources.

    Raises: DataError for a pattern that matches no files, or files of other kinds.
    """
    if not is_pattern(source):
        folder = Path(source)
        found = (sorted(folder.glob(files)) for files in FOLDER if folder.is_dir())
        return next((paths for paths in found if paths), [])
    paths = sorted(map(Path, glob(str(source))))
    if not paths:
        raise DataError(f"The pattern must match files. Received: {str(source)!r}, without any.")
    suffixes = {path.suffix.lower() for path in paths}
    if len(suffixes) > 1 or not suffixes <= set(KINDS):
        cure = f" Convert a table in text: nnbackend convert '{source}' FOLDER."
        raise DataError(
            f"The files of a pattern must be of one kind: {', '.join(KINDS)}. Received: "
            f"{', '.join(sorted(suffixes))}.{cure if any('.csv' in s for s in suffixes) else ''}"
        )
    return paths


def is_parquet(paths: Sequence[Path]) -> bool:
    """Return True for shards that are Parquet files."""
    return bool(paths) and paths[0].suffix.lower() == ".parquet"


def name_of(source: str | Path) -> str:
    """Return the name of the data of a folder or a pattern.

    >>> name_of("data/clicks-*.npy"), name_of("clicks/x-*.npy"), name_of("clicks/*.parquet")
    ('clicks', 'clicks', 'clicks')
    """
    if not is_pattern(source):
        return Path(source).resolve().name
    stem = MAGIC.split(Path(source).stem)[0].strip("-_.")
    folder = Path(source).resolve().parent
    return stem if len(stem) > 1 else MAGIC.sub("", folder.name) or "shards"


def read_shards(
    paths: Sequence[Path], where: str, *, target: str | None, task: Task | None
) -> Dataset:
    """Read shards in the order of their names; the features stay in the files.

    target: the column of Parquet files, or the array of .npz files.
    Raises: DataError for files that are not readable, that do not match, or lack their targets.
    """
    if is_parquet(paths):
        return read_parquet_shards(paths, where, target=target, task=task)
    if paths[0].suffix.lower() == ".npz":
        x, y = _read_npz(paths, target or "y", where)
    elif target is not None:
        cure = "Targets are in the file y-NAME.npy beside x-NAME.npy. Leave it out."
        raise ArgumentError(Fault("target", "None for .npy files", target, (cure,)))
    else:
        x, y = _read_npy(paths, where)
    if y is None:
        return Dataset(x, None, where, None)  # type: ignore[arg-type]
    coded = _coded(y, task, where)
    return Dataset(x, coded.y, where, coded.task, coded.classes)  # type: ignore[arg-type]


def read_parquet_shards(
    paths: Sequence[Path], where: str, *, target: str | None, task: Task | None,
    n_features: int | None = None,
) -> Dataset:  # fmt: skip
    """Read Parquet files of numbers, whose rows are decoded in parts.

    n_features: of a network, for which files without the target have this number of columns.
    """
    names = column_names(paths, where)
    if n_features == len(names):
        target = None
    elif target is None:
        target = names[default_target(names)]
    elif target not in names:
        raise ArgumentError(Fault("target", "a column", target, (suggest(target, names),)))
    others = [name for name in names if name != target]
    if not others:
        raise DataError(f"{where}: there must be a column besides the target. Received: {names}.")
    x, y = read_columns(paths, others, target, where)
    features: Any = x
    if y is None:
        return Dataset(features, None, where, None, feature_names=tuple(others))
    coded = _coded(y, task, where)
    return Dataset(features, coded.y, where, coded.task, coded.classes, tuple(others))


def _coded(y: NDArray[Any], task: Task | None, where: str) -> Target:
    """Return a coded target, its codes in as few bytes as the memory of large data allows."""
    coded = code_target(y, task, where)
    return coded if coded.classes is None else coded._replace(y=narrow(coded.y))


def _read_npy(paths: Sequence[Path], where: str) -> tuple[FileRows, NDArray[Any] | None]:
    """Return the rows of .npy files, and the targets of the files beside them if all have some."""
    pairs = {path: _targets_of(path) for path in paths}
    paths = [path for path in paths if path not in pairs.values()]
    targets = [pairs[path] for path in paths]
    parts = [map_array(path) for path in paths]
    lacking = [path.name for path in targets if not path.is_file()]
    if lacking and len(lacking) < len(targets):
        raise DataError(
            f"{where}: every shard must have its targets, or none. Received: no "
            f"{', '.join(lacking[:5])}."
        )
    ys = None if lacking else [map_array(path) for path in targets]
    return _checked(paths, parts, ys, where)


def _targets_of(path: Path) -> Path:
    """Return the file of the targets of a file of features, which may not exist."""
    for pattern, by in PAIRS:
        if re.search(pattern, path.stem):
            return path.with_name(re.sub(pattern, by, path.stem) + path.suffix)
    return path.with_name(f"y-{path.stem}{path.suffix}")


def _read_npz(
    paths: Sequence[Path], target: str, where: str
) -> tuple[FileRows, NDArray[Any] | None]:
    """Return the rows x of .npz archives, and their targets if they have some."""
    found = [(map_member(path, "x"), map_member(path, target)) for path in paths]
    parts = [x for x, _ in found if x is not None]
    if len(parts) < len(paths):
        lacking = [path.name for path, (x, _) in zip(paths, found, strict=True) if x is None]
        raise DataError(
            f"{where}: every archive must hold an array 'x'. Received: none in "
            f"{', '.join(lacking[:5])}. Write it with np.savez(path, x=..., y=...)."
        )
    ys = [y for _, y in found if y is not None]
    if ys and len(ys) < len(paths):
        lacking = [path.name for path, (_, y) in zip(paths, found, strict=True) if y is None]
        raise DataError(
            f"{where}: every shard must have its targets, or none. Received: no array {target!r} "
            f"in {', '.join(lacking[:5])}."
        )
    return _checked(paths, parts, ys or None, where)


def _checked(
    paths: Sequence[Path], parts: list[NDArray[Any]], ys: list[NDArray[Any]] | None, where: str
) -> tuple[FileRows, NDArray[Any] | None]:
    """Return the rows and the targets of files that match.

    Raises: DataError for others.
    """
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if (
            part.ndim != 2
            or part.dtype.kind not in "fiub"
            or part.flags.f_contiguous > (part.shape[1] == 1 or len(part) <= 1)
        ):
            raise DataError(
                f"{where}/{path.name}: a shard must be rows of numbers, in C order. "
                f"Received: shape {part.shape}, dtype {part.dtype}."
            )
        if part.shape[1] != first.shape[1] or part.dtype != first.dtype:
            raise DataError(
                f"{where}: all shards must have the same columns and dtype. Received: "
                f"{paths[0].name} of {first.shape[1]} columns in {first.dtype}, {path.name} of "
                f"{part.shape[1]} in {part.dtype}."
            )
    for path, part, y in zip(paths, parts, ys or (), strict=bool(ys)):
        if len(y) != len(part):
            raise DataError(
                f"{where}/{path.name}: there must be a target for each row. Received: "
                f"{len(y)} targets for {len(part)} rows."
            )
    return FileRows(parts), None if ys is None else np.concatenate([np.asarray(y) for y in ys])
