"""Matrix products over register tiles: which blocks of C a tile computes, and in which order.

One compiled function per dtype computes the products of a layer. Its matrices lie in panels (see
`panels`) or row by row; the strides say which:

    product        C              A                     B
    z^T = W^T x^T  panels of z    W; its columns        panels of x
    dx^T = W dz^T  panels of dx   W; its rows           panels of dz
    dW = x^T dz    rows of dW     panels of x           panels of dz's transpose

The rows of C are divided into tiles of nearly the same height, its columns into pairs of vectors, k
into parts for which a pair of vectors of B fits the first-level cache. In the last vector C may
have fewer columns than lanes: the tile is then computed in a stash, and its valid part copied.
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
from nnbackend_numba.intrinsics import address_of, call_product, local_memory, pointer
from nnbackend_numba.scalars import FAST

PART = 256  # of k at once: 2 vectors of 64 bytes for each are 32 KB
LONG_PART = 1024  # for dW, where k are samples: the sums in C would be read again for each part
BLOCK = 2 * tiles.register()[1]  # rows of C whose results are used at once, while in a cache
LINE = 64  # bytes of a cache line
_inline = numba.njit(inline="always", **FAST)

# Replaced for each dtype, see `product_of`: the tile, its rows, the lanes and bytes of a vector.
tile: Any = None
high, lanes, wide = 0, 0, 0
kind: Any = None


def _product(
    m, n, edge, k, a, row, col, mask, panel, b, b_down, b_next, c, c_down, c_next,
    d, d_down, d_next, by_rows, part, ahead, count, size,
):  # fmt: skip
    """Compute C (m, n) = A (m, k) B (k, n), where n and only n counts vectors; plus D if d is not 0.

    Strides are in bytes: `down` from row to row, `next` from vector to vector. A's rows are `row`
    apart, its columns `col`; after each mask + 1 columns (a power of two) the next begin `panel`
    further. With mask 0, panel must be col.
    edge: the columns of C in its last vector.
    by_rows: complete the columns of C tile by tile of rows, or else the rows pair by pair of
    vectors. part: how many of k at once.
    ahead, count, size: address of the addresses of stretches of memory to prefetch, their number,
    and the bytes of each. Without stretches, the next rows of A are prefetched.
    """
    heights, pairs = (m + high - 1) // high, (n + 1) // 2
    outer, inner = (heights, pairs) if by_rows else (pairs, heights)
    jump, start = panel - mask * col, 0
    parts = (k + part - 1) // part
    step = ((k + parts - 1) // parts + lanes - 1) // lanes * lanes
    stretches = numba.carray(pointer(ahead), (count,), np.int64)
    stash, fetched, turn = local_memory(), 0, 0
    while start < k:
        depth = min(step, k - start)
        from_a, from_b = a + start // (mask + 1) * panel, b + start * b_down
        for i in range(outer):
            for j in range(inner):
                t, q = (i, j) if by_rows else (j, i)
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
                elif count == 0 and q == 0:
                    soon, pace = here + (last - first) * row, col
                is_cut = edge < lanes and 2 * q + vectors == n
                to, down, on = (stash, 2 * wide, wide) if is_cut else (place, c_down, c_next)
                added, added_down, added_next = d + first * d_down + 2 * q * d_next, d_down, d_next
                if start > 0:
                    added, added_down, added_next = place, c_down, c_next
                if is_cut or (start == 0 and d == 0):
                    added = 0
                tile((
                    last - first, vectors, depth, here, row, col, mask, jump,
                    from_b + 2 * q * b_next, b_down, b_next,
                    to, down, on, added, added_down, added_next, soon, pace,
                ))  # fmt: skip
                if is_cut:
                    _copy_edge(place, c_down, c_next, last - first, vectors, edge, stash, start > 0)
        start += step


def _copy_edge(place, c_down, c_next, m, n, edge, stash, is_added):
    """Copy or add the valid columns of a tile from the stash to C."""
    for r in range(m):
        for v in range(n):
            own = numba.carray(pointer(stash + (2 * r + v) * wide), (lanes,), kind)
            to = numba.carray(pointer(place + r * c_down + v * c_next), (lanes,), kind)
            for j in range(edge if v == n - 1 else lanes):
                to[j] = to[j] + own[j] if is_added else own[j]


@cache
def product_of(dtype: str) -> Any:
    """Return the compiled product of a dtype, whose `address` the functions below take."""
    given = {
        "tile": tiles.tile(dtype), "high": tiles.register()[1], "lanes": tiles.lanes(dtype),
        "wide": tiles.register()[0], "kind": np.dtype(dtype).type,
    }  # fmt: skip
    copied = FunctionType(_copy_edge.__code__, globals() | given)
    given["_copy_edge"] = numba.njit(**FAST)(copied)
    function = FunctionType(_product.__code__, globals() | given)
    function.__name__ = function.__qualname__ = f"product_{fingerprint(dtype)}"
    signature = f"void({', '.join(['int64'] * _product.__code__.co_argcount)})"
    return caching.c_function(signature, function)


@_inline
def forward(product, x, W, z, start, units, d, d_next):
    """z[:, units] = d + W[:, units]^T x[:, inputs], in panels.

    W: its rows of these inputs, of which the first is `start`. units: their ends.
    d: the address of what is added, lanes of unit 0; d_next: from there to the next panel's.
    """
    size, line = W.itemsize, x.shape[2] * x.itemsize
    depth, n_out = W.shape
    lo, hi = units
    a, b = address_of(W) + lo * size, address_of(x) + start * line
    if depth > 0 and hi > lo and x.shape[0] > 0:
        call_product(product, (
            hi - lo, x.shape[0], x.shape[2], depth, a, size, n_out * size, 0, n_out * size,
            b, line, x.shape[1] * line, address_of(z) + lo * line, line, n_out * line,
            d + lo * line if d != 0 else 0, line, d_next, 1, PART, 0, 0, 0,
        ))  # fmt: skip


@_inline
def input_gradient(product, delta, W, dx, start):
    """dx[:, inputs] = W delta, in panels. W: its rows of these inputs, the first is `start`."""
    size, line = W.itemsize, delta.shape[2] * delta.itemsize
    n, n_out = W.shape
    if n > 0 and delta.shape[0] > 0:
        call_product(product, (
            n, delta.shape[0], delta.shape[2], n_out, address_of(W), n_out * size, size, 0, size,
            address_of(delta), line, n_out * line,
            address_of(dx) + start * line, line, dx.shape[1] * line,
            0, 0, 0, 0, PART, 0, 0, 0,
        ))  # fmt: skip


@_inline
def weight_gradient(product, x, turned, dW, rows, n_out, inputs, ahead, count, size):
    """dW, an address: rows `inputs` of x^T delta, one after the other.

    x: panels; turned: panels of delta's transpose; rows: of the batch. ahead: see `_product`.
    """
    line, lanes = x.shape[2] * x.itemsize, x.shape[2]
    lo, hi = inputs
    n = (n_out + lanes - 1) // lanes
    a = address_of(x) + lo * line
    call_product(product, (
        hi - lo, n, n_out - (n - 1) * lanes, rows, a, line, x.itemsize, lanes - 1,
        x.shape[1] * line, address_of(turned), line, turned.shape[1] * line,
        dW, n_out * x.itemsize, line, 0, 0, 0, 0, LONG_PART, ahead, count, size,
    ))  # fmt: skip
