"""A folder of shards: files x-*.npy with the features and y-*.npy with the targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnbackend.data.array_files import map_array
from nnbackend.data.dataset import Dataset
from nnbackend.data.file_rows import FileRows
from nnbackend.data.targets import Task, code_target
from nnbackend.errors import DataError

X, Y = "x-*.npy", "y-*.npy"


def is_shards(folder: Path) -> bool:
    """Return True if a folder holds shards."""
    return next(folder.glob(X), None) is not None


def read_shards(folder: Path, *, task: Task | None) -> Dataset:
    """Read a folder of shards, in the order of their names; the features stay in the files.

    Raises: DataError for files that are no arrays, that do not match, or lack their targets.
    """
    paths = sorted(folder.glob(X))
    parts = [map_array(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if (
            part.ndim != 2
            or part.dtype.kind not in "fiub"
            or part.flags.f_contiguous > (part.shape[1] == 1 or len(part) <= 1)
        ):
            raise DataError(
                f"{folder.name}/{path.name}: a shard must be rows of numbers, in C order. "
                f"Received: shape {part.shape}, dtype {part.dtype}."
            )
        if part.shape[1] != first.shape[1] or part.dtype != first.dtype:
            raise DataError(
                f"{folder.name}: all shards must have the same columns and dtype. Received: "
                f"{paths[0].name} of {first.shape[1]} columns in {first.dtype}, {path.name} of "
                f"{part.shape[1]} in {part.dtype}."
            )
    targets = [path.with_name(f"y{path.name[1:]}") for path in paths]
    lacking = [path.name for path in targets if not path.is_file()]
    if lacking and len(lacking) < len(targets):
        raise DataError(
            f"{folder.name}: every shard must have its targets, or none. Received: no "
            f"{', '.join(lacking[:5])}."
        )
    x = FileRows(parts)
    if lacking:
        return Dataset(x, None, folder.name, None)  # type: ignore[arg-type]
    ys = [np.asarray(map_array(path)) for path in targets]
    for path, y, part in zip(targets, ys, parts, strict=True):
        if len(y) != len(part):
            raise DataError(
                f"{folder.name}/{path.name}: there must be a target for each row. Received: "
                f"{len(y)} targets for {len(part)} rows."
            )
    coded = code_target(np.concatenate(ys), task, folder.name)
    return Dataset(x, coded.y, folder.name, coded.task, coded.classes)  # type: ignore[arg-type]
