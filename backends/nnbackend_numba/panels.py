"""Panels: the layout of a batch's rows within a recorded step.

A panel holds as many rows as a vector has lanes, unit by unit: panels[q, j, s] is unit j of row
q * lanes + s. So the same unit of all rows of a panel is one vector: a product reads panels as they
lie, whether it needs the rows or their transpose, and element-wise loops are vector instructions
for any number of units. The last panel may have more lanes than there are rows left; what these
lanes contain has no effect.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nnbackend.backend.formulas import Array
from nnbackend_numba import tiles
from nnbackend_numba.intrinsics import address_of, array_of, local_memory, view
from nnbackend_numba.scalars import INNER

WIDE, _ = tiles.register()
_inline = numba.njit(**INNER)


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array of zeros that begins at a cache line."""
    dtype = np.dtype(dtype)
    n = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(n + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n].view(dtype).reshape(shape)


@_inline
def addresses(n):
    """Return an array for n addresses, in memory of this call."""
    return view(local_memory(), (n,), np.int64)


@intrinsic
def flat(typingctx, panels, q, first, last):
    """Return units first to last of a panel as one vector.

    Loops over it become vector instructions; loops over few lanes would not.
    """
    result = types.Array(panels.dtype, 1, "C")

    def generate(context, builder, signature, args):
        made = context.make_array(panels)(context, builder, args[0])
        n, lanes = cgutils.unpack_tuple(builder, made.shape)[-2:]
        unit = builder.add(builder.mul(args[1], n), args[2])
        kind = context.get_data_type(panels.dtype)
        place = builder.gep(made.data, [builder.mul(unit, lanes)], source_etype=kind)
        size = builder.mul(builder.sub(args[3], args[2]), lanes)
        return array_of(context, builder, result, place, size)

    return result(panels, *[types.int64] * 3), generate


@_inline
def write_panel(out, places, rows, across, is_same, first, last):
    """Write columns first to last of rows into a panel.

    out: (units, lanes). places: the addresses of as many rows as lanes, int64. rows: an array of
    the dtype of the rows. across: the bytes from column to column. is_same: 1 if that is the dtype
    of out, a float, and no bytes lie between columns.
    """
    lanes, size, j = out.shape[1], out.itemsize, first
    side = WIDE // size  # of a square; 8-byte numbers among 4-byte ones fill two
    if is_same != 0 and side <= lanes:
        while j + side <= last:
            for s in range(0, lanes, side):
                to, rows_at = address_of(out) + (j * lanes + s) * size, address_of(places) + s * 8
                tiles.transpose(out, to, lanes * size, rows_at, j * size)
            j += side
    for s in range(lanes):
        for i in range(j, last):
            out[i, s] = view(places[s] + i * across, (1,), rows)[0]


@_inline
def write_transposed(delta, turned, worker):
    """Write the transpose of a matrix in panels (Q, O, L), in a worker's panels (V, Q * L, L)."""
    n_panels, n_units, lanes = delta.shape
    line = lanes * delta.itemsize
    places = addresses(lanes)
    for v in range(turned.shape[1]):
        for i in range(lanes):  # beyond the last unit, that one: no lane that counts
            places[i] = address_of(delta) + min(v * lanes + i, n_units - 1) * line
        for q in range(n_panels):
            here = (worker * turned.shape[1] + v) * n_panels + q
            to = address_of(turned) + here * lanes * line
            tiles.transpose(delta, to, line, address_of(places), q * n_units * line)
