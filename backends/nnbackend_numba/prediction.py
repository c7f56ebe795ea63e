"""Products of many rows in a direct call, as of a prediction: in parts, one for each thread."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba import caching, products
from nnbackend_numba.intrinsics import address_of
from nnbackend_numba.tiles import lanes
from nnbackend_numba.workers import in_threads

WORK_PER_THREAD = 1 << 21  # multiplications that justify one more thread
FEWEST_ROWS = 64  # NumPy's product is as fast for fewer
ROWS_AT_ONCE = 8 * products.BLOCK  # of which the products with each pair of vectors of W follow


def forward(
    x: Array, W: Array, z: Array, activate: Callable[[slice], None], most_threads: int
) -> None:
    """Compute z = x W, then activate each part of the rows, on threads if there is enough work."""
    n = max(1, min(most_threads, x.shape[0] * W.size // WORK_PER_THREAD))
    if len(x) < FEWEST_ROWS or not all(v.flags.c_contiguous and v.dtype == z.dtype for v in (x, W)):
        np.dot(x, W, out=z)
        activate(slice(None))
        return
    product, width = products.product_of(z.dtype.name).address, lanes(z.dtype.name)
    rest = W.shape[1] % width
    edge = np.zeros((len(W) if rest else 0, width), z.dtype)  # the columns beyond whole vectors
    edge[:, :rest] = W[:, W.shape[1] - rest :][: len(edge)]

    def compute(worker: int) -> None:
        part = slice(len(x) * worker // n, len(x) * (worker + 1) // n)
        scratch = np.empty((ROWS_AT_ONCE, width), z.dtype)
        multiply_rows(product, x[part], W, edge, scratch, z[part])
        activate(part)

    in_threads(n, compute)


@caching.jit
def multiply_rows(product, x, W, edge, scratch, z):
    """z = x W, row by row. edge: the columns of W beyond whole vectors; scratch: for those of z."""
    (n_in, n_out), width, size = W.shape, edge.shape[1], W.itemsize
    whole, rest = n_out // width, n_out % width
    for lo in range(0, x.shape[0], ROWS_AT_ONCE):
        hi = min(lo + ROWS_AT_ONCE, x.shape[0])
        a = address_of(x) + lo * n_in * size
        c = address_of(z) + lo * n_out * size
        if whole > 0:
            products.multiply(
                product, hi - lo, whole, n_in, a, n_in * size, size,
                address_of(W), n_out * size, c, n_out * size,
            )  # fmt: skip
        if rest > 0:
            products.multiply(
                product, hi - lo, 1, n_in, a, n_in * size, size,
                address_of(edge), width * size, address_of(scratch), width * size,
            )  # fmt: skip
            for i in range(hi - lo):
                for j in range(rest):
                    z[lo + i, whole * width + j] = scratch[i, j]
