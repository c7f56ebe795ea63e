"""The arrays of a recorded step: panels of its matrices, and the workers' scratch memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba.panels import aligned
from nnbackend_numba.products import BLOCK, LONGER
from nnbackend_numba.recorder import NotRecordable


class Narrow(NamedTuple):
    """A layer's operands as pairs of bfloat16 in int32, see `pairs`.

    pairs: of units for x and delta, of rows for W.  halves: of rows of the batch for x, of columns
    for W.
    """

    x_pairs: Array
    x_halves: Array
    W_pairs: Array
    W_halves: Array
    delta_pairs: Array


class Buffers:
    """Arrays for a number of workers, with panels of so many lanes.

    unwritten: the matrices, by their panels' ids, that no operation of the step has used yet.
    """

    def __init__(self, workers: int, lanes: int) -> None:
        self.workers, self.lanes = workers, lanes
        self.unwritten: dict[int, Array] = {}
        self._narrow: dict[tuple[int, int], Narrow] = {}  # by the ids of x and W
        self._panels: dict[tuple[Any, ...], tuple[Array, Array]] = {}  # each matrix, its panels

    def panels(self, matrix: Array) -> Array:
        """Return the panels of a matrix, or of a vector as a matrix of one column.

        Raises: NotRecordable for matrices that overlap.
        """
        matrix = matrix.reshape(-1, 1) if matrix.ndim == 1 else matrix
        key = address_in_memory(matrix), matrix.shape, matrix.dtype
        if key not in self._panels:
            if any(np.may_share_memory(matrix, other) for other, _ in self._panels.values()):
                raise NotRecordable("arrays that overlap")
            rows, units = matrix.shape
            made = aligned((-(-rows // self.lanes), units, self.lanes), matrix.dtype)
            self._panels[key], self.unwritten[id(made)] = (matrix, made), matrix
        return self._panels[key][1]

    def parts(self, matrix: Array) -> Array:
        """Return panels of a matrix for each worker."""
        return aligned((self.workers, *self.panels(matrix).shape), matrix.dtype)

    def transposes(self, matrix: Array) -> Array:
        """Return panels of a matrix's transpose for each worker."""
        n_panels, units, lanes = self.panels(matrix).shape
        shape = (self.workers, -(-units // lanes), n_panels * lanes, lanes)
        return aligned(shape, matrix.dtype)

    def in_all_lanes(self, vector: Array) -> Array:
        """Return an array for the numbers of a vector in all lanes, for each worker."""
        return aligned((self.workers, vector.size, self.lanes), vector.dtype)

    def narrow(self, x: Array, W: Array) -> Narrow:
        """Return the arrays for a layer's operands in bfloat16."""
        key = id(x), id(W)
        if key not in self._narrow:
            (n_panels, n_in, lanes), n_out = self.panels(x).shape, W.shape[1]
            shapes = (
                *((n_panels, (n_in + 1) // 2, lanes), (n_panels, n_in, lanes // 2)),
                *(((n_in + 1) // 2, n_out), (n_in, (n_out + 1) // 2)),
                (n_panels, (n_out + 1) // 2, lanes),
            )
            self._narrow[key] = Narrow(*(aligned(shape, np.int32) for shape in shapes))
        return self._narrow[key]

    def scratch(self, dW: Array) -> Array:
        """Return an array for some rows of a weight gradient, for each worker."""
        return aligned((self.workers, BLOCK * dW.shape[1] + LONGER), dW.dtype)


def address_in_memory(array: Array) -> int:
    """Return an array's address. Raises: NotRecordable for one that operations cannot read."""
    if not array.flags.c_contiguous or not array.dtype.isnative:
        layout = f"{array.dtype} {array.strides}"
        raise NotRecordable(f"an array that is not C-contiguous and native: {layout}")
    return int(array.ctypes.data)


def offset(view: Array, vector: Array) -> int:
    """Return the place of a view's first number in a vector."""
    return (address_in_memory(view) - address_in_memory(vector)) // int(vector.itemsize)
