"""Matrix products over register tiles: which blocks of C a tile computes, and in which order.

One compiled function per dtype computes the products of a layer. Its matrices lie in panels (see
`panels`) or row by row; the strides say which:

    product        C              A                     B
    z^T = W^T x^T  panels of z    W; its columns        panels of x
    dx^T = W dz^T  panels of dx   W; its rows           panels of dz
    dW = x^T dz    rows of dW     panels of x           panels of dz's transpose

The rows of C are divided into tiles of nearly the same height, its columns into pairs of vectors, k
into parts for which a pair of vectors of B fits the first-level cache. In its last vector a C that
lies row by row may have fewer columns than lanes. The tiles then write beyond the row, into the
beginning of the next one, which is written later: columns from the last to the first, rows from the
first to the last.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any

import numba
import numpy as np

from nnbackend_numba import caching, tiles
from nnbackend_numba.fingerprints import fingerprint
from nnbackend_numba.intrinsics import address_of, call_product, view
from nnbackend_numba.pairs import Pairs
from nnbackend_numba.scalars import INNER

PART = 256  # of k at once: 2 vectors of 64 bytes for each are 32 KB
LONG_PART = 1024  # for dW, where k are samples: the sums in C would be read again for each part
BLOCK = 2 * tiles.register()[1]  # rows of C whose results are used at once, while in a cache
LINE = 64  # bytes of a cache line
WIDE, _ = tiles.register()  # bytes of a vector
LONGER = 16  # see `weight_gradient`: at least the lanes of a vector, less 1
_inline = numba.njit(**INNER)

# Replaced for each dtype, see `product_of`: the tile, its rows, the lanes of a vector.
tile: Any = None
high, lanes = 0, 0


def _product(
    m, n, k, a, row, col, mask, panel, b, b_down, b_next, c, c_down, c_next,
    d, d_down, d_next, by_rows, part, ahead, count, size,
):  # fmt: skip
    """Compute C (m, n) = A (m, k) B (k, n), plus D if d is not 0. n, and only n, counts vectors.

    Strides are in bytes: `down` from row to row, `next` from vector to vector. A's rows are `row`
    apart, its columns `col`; after each mask + 1 columns (a power of two) the next begin `panel`
    further. With mask 0, panel must be col.
    by_rows: complete one tile of rows of C after the other, or else one pair of vectors, from the
    last to the first. part: how many of k at once.
    ahead, count, size: address of the addresses of stretches of memory to prefetch, their number,
    and the bytes of each. Without stretches, the next rows of A are prefetched.
    """
    heights, pairs = (m + high - 1) // high, (n + 1) // 2
    outer, inner = (heights, pairs) if by_rows else (pairs, heights)
    jump, start = panel - mask * col, 0
    parts = (k + part - 1) // part
    step = ((k + parts - 1) // parts + lanes - 1) // lanes * lanes
    stretches = view(ahead, (count,), np.int64)
    fetched, turn = 0, 0
    while start < k:
        depth = min(step, k - start)
        from_a, from_b = a + start // (mask + 1) * panel, b + start * b_down
        for i in range(outer):
            for j in range(inner):
                t, q = (i, j) if by_rows else (j, outer - 1 - i)
                first, last = m * t // heights, m * (t + 1) // heights
                vectors = min(2, n - 2 * q)
                here, place = from_a + first * row, c + first * c_down + 2 * q * c_next
                soon, pace = here, 0
                if fetched < size:
                    soon = stretches[turn] + fetched
                    pace = min(LINE, (size - fetched + depth - 1) // depth)
                    turn += 1
                    if turn == count:
                        turn, fetched = 0, fetched + depth * LINE
                elif count == 0 and j == 0:
                    soon, pace = here + (last - first) * row, col
                added, added_down, added_next = d, d_down, d_next
                if start > 0:
                    added, added_down, added_next = place, c_down, c_next
                elif d != 0:
                    added += first * d_down + 2 * q * d_next
                tile((
                    last - first, vectors, depth, here, row, col, mask, jump,
                    from_b + 2 * q * b_next, b_down, b_next, place, c_down, c_next,
                    added, added_down, added_next, soon, pace,
                ))  # fmt: skip
        start += step


@cache
def product_of(dtype: str) -> Any:
    """Return the compiled product of a dtype, whose `address` the functions below take.

    "bf16": of pairs of bfloat16 in int32, see `pairs`; C and D are float32.
    """
    kind, vectors = ("float32", Pairs) if dtype == "bf16" else (dtype, tiles.Vectors)
    tile, high = tiles.tile(kind, vectors), tiles.register()[1]
    given = {"tile": tile, "high": high, "lanes": tiles.lanes(kind)}
    function = FunctionType(_product.__code__, globals() | given)
    function.__name__ = function.__qualname__ = f"product_{fingerprint(dtype)}"
    signature = f"void({', '.join(['int64'] * _product.__code__.co_argcount)})"
    return caching.c_function(signature, function)


@_inline
def forward(product, x, W, z, place, panels, inputs, units, d, d_next):
    """z[:, units] = d + W[inputs, units]^T x[:, inputs], in these panels.

    panels, inputs, units: their ends.  place: the first panel of z.
    W: its rows of these inputs.  d: the address of what is added to unit 0, a vector; d_next: from
    there to the next panel's.
    """
    size, line = W.itemsize, x.shape[2] * x.itemsize
    (first, last), (start, end), (lo, hi) = panels, inputs, units
    n_in, n_out = x.shape[1], W.shape[1]
    if end > start and hi > lo and last > first:
        call_product(product, (
            hi - lo, last - first, end - start,
            address_of(W) + lo * size, size, n_out * size, 0, n_out * size,
            address_of(x) + (first * n_in + start) * line, line, n_in * line,
            address_of(z) + (place * n_out + lo) * line, line, n_out * line,
            d + lo * line if d != 0 else 0, line, d_next, 1, PART, 0, 0, 0,
        ))  # fmt: skip


@_inline
def input_gradient(product, delta, W, dx, row, inputs):
    """dx[:, inputs] = W[inputs] delta, in panels. row: the first input of W."""
    size, line = W.itemsize, delta.shape[2] * delta.itemsize
    n_out, (lo, hi) = W.shape[1], inputs
    if hi > lo and delta.shape[0] > 0:
        call_product(product, (
            hi - lo, delta.shape[0], n_out,
            address_of(W) + (lo - row) * n_out * size, n_out * size, size, 0, size,
            address_of(delta), line, n_out * line,
            address_of(dx) + lo * line, line, dx.shape[1] * line, 0, 0, 0, 0, PART, 0, 0, 0,
        ))  # fmt: skip


@_inline
def weight_gradient(product, x, turned, worker, dW, rows, n_out, inputs, ahead, count, size):
    """dW: rows `inputs` of x^T delta, one after the other.

    x: panels; turned: those of delta's transpose, for each worker; rows: of the batch. ahead: see
    `_product`.
    dW: an array that is longer than these rows by LONGER numbers, which are overwritten.
    """
    (n_in, at_once), line, lanes = x.shape[1:], x.shape[2] * x.itemsize, turned.shape[3]
    vector, height = lanes * turned.itemsize, turned.shape[2]
    lo, hi = inputs
    a, n = address_of(x) + lo * line, (n_out + lanes - 1) // lanes
    part = LONG_PART if n_out % lanes == 0 else rows  # added parts would be overwritten
    call_product(product, (
        hi - lo, n, rows, a, line, x.itemsize, at_once - 1, n_in * line,
        address_of(turned) + worker * n * height * vector, vector, height * vector,
        address_of(dW), n_out * dW.itemsize, vector, 0, 0, 0, 0, part, ahead, count, size,
    ))  # fmt: skip


@_inline
def multiply(product, m, n, k, a, row, col, b, b_down, c, c_down):
    """C = A B, where B and C lie row by row, in n whole vectors. See `_product`."""
    call_product(product, (
        m, n, k, a, row, col, 0, col, b, b_down, WIDE, c, c_down, WIDE, 0, 0, 0, 0, PART, 0, 0, 0,
    ))  # fmt: skip
