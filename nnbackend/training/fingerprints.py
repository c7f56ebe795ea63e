"""A fingerprint of a run's data: a resumed run, and the ranks of one, must have the same."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.data.host_rows import HostRows
from nnbackend.training.preparation import TrainingData
from nnbackend.validation import host_array, some_rows

SAMPLED_ROWS = 4096  # rows in the fingerprint of larger data, evenly spaced


def fingerprint(data: TrainingData, backend: Backend) -> str:
    """Return a hash of the rows (a sample of large data), the targets and the sample weights."""
    # Of a stream, the first batch.
    rows = data.rows if data.stream is None else range(len(data.y))
    parts: list[tuple[Array, Any]] = [(data.x, rows)]
    digest = hashlib.sha256()
    _add(digest, "y", data.y)
    _add(digest, "weight", data.weight)
    _add(
        digest,
        "rows",
        np.array([len(data.rows)]) if data.stream else np.asarray(data.rows, np.int64),
    )
    if data.validation is not None:
        x, y, weight = data.validation
        parts.append((x, range(int(x.shape[0]))))
        _add(digest, "validation y", y)
        _add(digest, "validation weight", weight)
    for x, rows in parts:
        every = max(1, -(-len(rows) // SAMPLED_ROWS))
        sample = np.asarray(rows[::every], np.int64)
        part = some_rows(x, sample, backend)
        host = host_array(part[:] if isinstance(part, HostRows) else part, "x", backend)
        _add(digest, f"x of {int(x.shape[0])}", host)
    return digest.hexdigest()


def _add(digest: Any, name: str, array: np.ndarray | None) -> None:
    if array is None:
        digest.update(f"{name} none\n".encode())
        return
    digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
