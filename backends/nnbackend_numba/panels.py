"""Panels: the layout of a batch's rows within a recorded step.

A panel holds as many rows as a vector has lanes, unit by unit: panels[q, j, s] is unit j of row
q * lanes + s. So the same unit of all rows of a panel is one vector: a product reads panels as they
lie, whether it needs the rows or their transpose, and element-wise loops are vector instructions
for any number of units. The last panel may have more lanes than there are rows left; what these
lanes contain has no effect.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba import tiles
from nnbackend_numba.intrinsics import address_of, local_memory, pointer
from nnbackend_numba.scalars import FAST

WIDE, _ = tiles.register()
_inline = numba.njit(inline="always", **FAST)


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array of zeros that begins at a cache line."""
    dtype = np.dtype(dtype)
    n = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(n + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n].view(dtype).reshape(shape)


def new_panels(rows: int, units: int, dtype: Any, lanes: int) -> Array:
    """Return panels for a matrix of rows and units."""
    return aligned((-(-rows // lanes), units, lanes), dtype)


@_inline
def flat(panels, q, first, last):
    """Return units first to last of a panel as one vector.

    Loops over it become vector instructions; loops over a constant number of lanes would not.
    """
    n, lanes = panels.shape[1], panels.shape[2]
    start = address_of(panels) + (q * n + first) * lanes * panels.itemsize
    return numba.carray(pointer(start), ((last - first) * lanes,), panels.dtype)


@_inline
def write_panel(out, places, rows, is_same, first, last):
    """Write columns first to last of rows into a panel.

    out: (units, lanes). places: the addresses of as many rows as lanes, int64. rows: an array of
    the dtype of the rows. is_same: 1 if that is the dtype of out, a float.
    """
    lanes, size, j = out.shape[1], out.itemsize, first
    side = WIDE // size  # of a square; 8-byte numbers among 4-byte ones fill two
    if is_same != 0 and side <= lanes:
        while j + side <= last:
            for s in range(0, lanes, side):
                to, rows_at = address_of(out) + (j * lanes + s) * size, address_of(places[s:])
                tiles.transpose(out, to, lanes * size, rows_at, j * size)
            j += side
    for s in range(lanes):
        row = numba.carray(pointer(places[s]), (last,), rows.dtype)
        for i in range(j, last):
            out[i, s] = row[i]


@_inline
def write_transposed(delta, turned):
    """Write the transpose of a matrix in panels (Q, O, L), in panels (V, Q * L, L)."""
    n_panels, n_units, lanes = delta.shape
    line = lanes * delta.itemsize
    places = numba.carray(pointer(local_memory()), (lanes,), np.int64)
    for v in range(turned.shape[0]):
        for i in range(lanes):  # beyond the last unit, that one: no lane that counts
            places[i] = address_of(delta) + min(v * lanes + i, n_units - 1) * line
        for q in range(n_panels):
            to = address_of(turned) + (v * n_panels + q) * lanes * line
            tiles.transpose(delta, to, line, address_of(places), q * n_units * line)
