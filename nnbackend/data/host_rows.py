"""Rows on the host that become an array batch by batch: of a sparse matrix, or of files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray


class HostRows(ABC):
    """Rows (n, n_features) that are too large for an array in memory.

    Indexing by a slice or an array returns some of them as an array.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    ndim = 2

    @abstractmethod
    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return the rows selected by a slice or an array as an array."""

    @abstractmethod
    def take(self, rows: NDArray[Any]) -> HostRows:
        """Return the rows at some indices, without reading them."""

    @abstractmethod
    def is_within(self, largest: float) -> bool:
        """Return True if every number is finite and at most `largest`."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """The bytes of all rows as an array."""
        return self.shape[0] * self.shape[1] * int(self.dtype.itemsize)
