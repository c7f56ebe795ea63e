"""Rows of a sparse matrix, converted to dense arrays batch by batch.

The dense form of a large sparse matrix, such as word counts, does not fit in memory. So only the
rows of a mini-batch become dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.host_rows import HostRows


class SparseRows(HostRows):
    """The rows of a SciPy sparse matrix; indexing returns some of them as a dense array.

    >>> import numpy as np, scipy.sparse
    >>> rows = SparseRows(scipy.sparse.eye_array(3, format="csc"))
    >>> rows.shape, rows[1:2]
    ((3, 3), array([[0., 1., 0.]]))
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr()
        self.shape: tuple[int, int] = self.matrix.shape
        self.dtype = self.matrix.dtype

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return the rows selected by a slice or an array as a dense array."""
        rows = rows[0] if isinstance(rows, tuple) else rows
        dense: NDArray[Any] = self.matrix[rows].toarray()
        return dense

    def take(self, rows: NDArray[Any]) -> SparseRows:
        """Return the rows at some indices, still sparse."""
        return SparseRows(self.matrix[rows])

    def is_within(self, largest: float) -> bool:
        """Return True if every number is finite and at most `largest`."""
        return bool((np.abs(self.matrix.data) <= largest).all())
