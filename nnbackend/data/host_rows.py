"""Rows on the host that become an array batch by batch: of a sparse matrix, or of files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20  # numbers checked at once


class HostRows(ABC):
    """Rows (n, n_features) that are too large for an array in memory.

    Indexing by a slice or an array returns some of them as an array.
    is_read_in_order: whether a row can only be read after those before it in its chunk.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    ndim = 2
    is_read_in_order = False

    @property
    def chunk_ends(self) -> NDArray[np.int64] | None:
        """The ends of the chunks of rows that are read in order; None: all rows are one."""
        return None

    @abstractmethod
    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return the rows selected by a slice or an array as an array."""

    @abstractmethod
    def take(self, rows: NDArray[Any]) -> HostRows:
        """Return the rows at some indices, without reading them."""

    def is_within(self, largest: float) -> bool:
        """Return True if every number is finite and at most `largest`."""
        if self.dtype.kind != "f":
            return True
        step = max(1, CHUNK // self.shape[1])
        starts = range(0, self.shape[0], step)
        return all(bool((np.abs(self[i : i + step]) <= largest).all()) for i in starts)

    def prefetch(self, rows: NDArray[np.int64]) -> None:  # noqa: B027
        """Ask the system to read some rows, in this order, which are needed soon."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes of all rows as an array."""
        return self.shape[0] * self.shape[1] * int(self.dtype.itemsize)


def places_of(rows: Any, n: int, index: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the places, in 0 .. n - 1, that a slice or an array selects.

    index: the places among which it selects; None: all.
    """
    if index is not None:
        known: NDArray[np.int64] = index[rows]
        return known
    if isinstance(rows, slice):
        return np.arange(*rows.indices(n), dtype=np.int64)
    rows = np.asarray(rows)
    found: NDArray[np.int64] = np.flatnonzero(rows) if rows.dtype == bool else rows
    return found % n


def narrow(index: NDArray[Any]) -> NDArray[Any]:
    """Return indices as int32 if they fit: there is one for each row of large data."""
    fits = not len(index) or int(index.max()) <= np.iinfo(np.int32).max
    return index.astype(np.int32, copy=False) if fits else index
