"""Layers: each operation's loop, headed by its record, then the kernels that run them.

Loops that take `first` and `last` compute these columns, exclusive. The matrices of a batch lie in
panels: their last index is the lane, and each loop over it becomes vector instructions.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.formulas import Array
from nnbackend_numba import products, scalars
from nnbackend_numba.codegen import even_part, part_of_lines
from nnbackend_numba.compiling import Formula
from nnbackend_numba.intrinsics import address_of, high_word, local_memory, pointer
from nnbackend_numba.panels import write_transposed
from nnbackend_numba.products import BLOCK
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import INPUTS, ROWS, Split, operation
from nnbackend_numba.steps import HERE, AbstractStep, Where, kernel, recorded_kernel

formula: Any = None  # replaced, see `compiling`
OUTPUTS = Split("rows", even="Q", lines="O")
ELEMENTS = Split("rows", even="Q", lines="E")
EVERYTHING = Split("inputs", lines="V")  # each worker its own copy
X, PARTS = "in Q I L", "in G Q O L"

# ---- forward ------------------------------------------------------------------------------------


@operation(
    Split("columns", lines="I"), x=X, W="in I O", parts="out workers Q O L",
    of_units="int", product="product",
)  # fmt: skip
def partial_product(x, W, parts, of_units, product, first, worker):
    """Compute what own columns of x contribute to the others' part of x W.

    of_units: the workers own units of it, or else rows.
    """
    (n_panels, n_out), workers, z = parts.shape[1:3], parts.shape[0], parts[worker]
    if of_units:
        lo, hi = part_of_lines(n_out, worker, workers)
        products.forward(product, x, W, z, first, (0, lo))
        products.forward(product, x, W, z, first, (hi, n_out))
    else:
        lo, hi = even_part(n_panels, worker, workers)
        products.forward(product, x[:lo], W, z[:lo], first, (0, n_out))
        products.forward(product, x[hi:], W, z[hi:], first, (0, n_out))


FORWARD = {"x": X, "W": "in I O", "b": "in O", "parts": PARTS, "z": "out Q O L"}


@operation(OUTPUTS, **FORWARD, a="out Q O L", product="product")
def forward(x, W, b, parts, z, a, product, row, first, last, worker):
    """z = x W + b;  a = phi(z).

    parts: what the other workers computed of z. Without them this one computes all of its part.
    """
    n = parts.shape[0]
    start, end = part_of_lines(W.shape[0], worker, n) if n > 0 else (0, W.shape[0])
    for lo in range(first, last, BLOCK):
        hi = min(lo + BLOCK, last)
        products.forward(product, x, W[start:end], z, start, (lo, hi))
        for q in range(z.shape[0]):
            for j in range(lo, hi):
                zj, aj, bj = z[q, j], a[q, j], b[j - first]
                for g in range(n):
                    if g != worker:
                        other = parts[g, row + q, j]
                        for s in range(zj.size):
                            zj[s] += other[s]
                for s in range(zj.size):
                    v = zj[s] + bj
                    zj[s] = v
                    aj[s] = formula(v, scalars)


@operation(OUTPUTS, **FORWARD, product="product")
def forward_in_place(x, W, b, parts, z, product, row, first, last, worker):
    """Compute the same if a is z, which the compiler needs to know to use vectors."""
    n = parts.shape[0]
    start, end = part_of_lines(W.shape[0], worker, n) if n > 0 else (0, W.shape[0])
    for lo in range(first, last, BLOCK):
        hi = min(lo + BLOCK, last)
        products.forward(product, x, W[start:end], z, start, (lo, hi))
        for q in range(z.shape[0]):
            for j in range(lo, hi):
                zj, bj = z[q, j], b[j - first]
                for g in range(n):
                    if g != worker:
                        other = parts[g, row + q, j]
                        for s in range(zj.size):
                            zj[s] += other[s]
                for s in range(zj.size):
                    zj[s] = formula(zj[s] + bj, scalars)


def _owned(by_columns: bool, way: str, array: Array) -> Where:
    """Return the phase in which workers own columns of an array, or else their rows."""
    return Where(f"{way} {id(array)}", True) if by_columns else HERE


@recorded_kernel
def dense_forward(step: AbstractStep, call: Any) -> None:
    """Run the product by rows or by inputs."""
    cut, x, W, z, a, phi = step.partitioning, call.x, call.W, call.z, call.a, call.phi
    if phi.kernel == "softmax":
        raise NotRecordable("softmax within the network")
    owned, parts = _owned(cut.is_next_by_inputs(W), "forward", a), step.panels(z)[None][:0]
    if cut.is_by_inputs(W):
        parts = step.parts(z)
        where = HERE if x is cut.x else _owned(True, "forward", x)
        step.run(partial_product, call, where=where, parts=parts, of_units=owned.by_columns)
    loop = forward_in_place if a is z else forward
    step.run(loop, call, Formula(phi.f, phi.f_is_plain), owned, parts=parts)


# ---- backward -----------------------------------------------------------------------------------


@operation(ELEMENTS, delta="inout Q E L", z="in Q E L", a="in Q E L")
def slope(delta, z, a, first, last):
    """delta *= phi'(z)."""
    for q in range(delta.shape[0]):
        for j in range(first, last):
            dj, zj, aj = delta[q, j], z[q, j], a[q, j]
            for s in range(dj.size):
                dj[s] *= formula(zj[s], aj[s], scalars)


@operation(
    Split("rows", even="Q", lines="I"), delta="in Q O L", W="in I O", dx="out Q I L",
    product="product",
)  # fmt: skip
def input_gradient(delta, W, dx, product, first, last):
    """dx = delta W^T."""
    for lo in range(first, last, BLOCK):
        own = W[lo - first : min(lo + BLOCK, last) - first]
        products.input_gradient(product, delta, own, dx, lo)


@operation(EVERYTHING, delta="in Q O L", turned="out workers V T L")
def transpose(delta, turned, worker):
    """Compute delta's transpose, each worker for itself."""
    write_transposed(delta, turned[worker])


@operation(
    INPUTS, x=X, turned="in workers V T L", dW="out I O", rows="int", product="product",
)  # fmt: skip
def weight_gradient(x, turned, dW, rows, product, first, last, worker):
    """dW = x^T delta, own rows of W."""
    size = dW.shape[1] * dW.itemsize
    for lo in range(first, last, BLOCK):
        inputs, place = (lo, min(lo + BLOCK, last)), address_of(dW) + (lo - first) * size
        products.weight_gradient(
            product, x, turned[worker], place, rows, dW.shape[1], inputs, 0, 0, 0
        )


@operation(Split("inputs", lines="O"), turned="in workers V T L", db="out O", rows="int")
def bias_gradient(turned, db, rows, first, last, worker):
    """db = the sum of delta's rows."""
    lanes = turned.shape[3]
    for v in range(first // lanes, (last + lanes - 1) // lanes):
        sums = numba.carray(pointer(local_memory()), (lanes,), db.dtype)
        for s in range(lanes):
            sums[s] = 0
        for i in range(rows):
            unit = turned[worker, v, i]
            for s in range(lanes):
                sums[s] += unit[s]
        for j in range(max(first, v * lanes), min(last, (v + 1) * lanes)):
            db[j - first] = sums[j - v * lanes]


@recorded_kernel
def dense_backward(step: AbstractStep, call: Any) -> None:
    """Convert delta; compute dx by rows or by inputs, and dW and db when all rows are complete."""
    cut, phi = step.partitioning, call.phi
    if phi.kernel == "softmax":
        raise NotRecordable("softmax within the network")
    if phi.kernel != "identity":
        owned = _owned(cut.is_next_by_inputs(call.W), "back", call.delta)
        step.run(slope, call, Formula(phi.df, phi.df_is_plain), owned)
    if call.dx is not None:
        step.run(input_gradient, call, where=_owned(cut.is_by_inputs(call.W), "back", call.dx))
    turned, rows = step.transposes(call.delta), len(call.delta)
    step.defer(transpose, call, turned=turned)
    step.defer(weight_gradient, call, turned=turned, rows=rows)
    step.defer(bias_gradient, call, turned=turned, rows=rows)


# ---- direct calls: matrices row by row ----------------------------------------------------------


def activate(z, b, a):
    """z += b;  a = phi(z)."""
    for i in range(z.shape[0]):
        zi, ai = z[i], a[i]
        for j in range(zi.size):
            v = zi[j] + b[j]
            zi[j] = v
            ai[j] = formula(v, scalars)


def activate_in_place(z, b):
    """Compute the same if a is z."""
    for i in range(z.shape[0]):
        zi = z[i]
        for j in range(zi.size):
            zi[j] = formula(zi[j] + b[j], scalars)


def softmax(z, b, a):
    """z += b;  a = e^z / sum e^z of a row."""
    for i in range(z.shape[0]):
        zi, ai = z[i], a[i]
        top = -zi.dtype.type(np.inf)
        for j in range(zi.size):
            zi[j] += b[j]
            top = max(top, zi[j])
        total = zi.dtype.type(0)
        for j in range(zi.size):
            ai[j] = scalars.exp(zi[j] - top)
            total += ai[j]
        for j in range(zi.size):
            ai[j] /= total


# ---- maxout -------------------------------------------------------------------------------------


@kernel
@operation(ROWS, z="in Q K*O L", a="out Q O L", which="out Q O L int32")
def maxout_forward(z, a, which):
    """Compute a = the largest piece, which = its index; ties: the first."""
    n_out = a.shape[1]
    for q in range(a.shape[0]):
        for j in range(n_out):
            aj, wj, zj = a[q, j], which[q, j], z[q, j]
            for s in range(aj.size):
                aj[s] = zj[s]
                wj[s] = 0
            for k in range(1, z.shape[1] // n_out):
                zk = z[q, k * n_out + j]
                for s in range(aj.size):
                    is_larger = zk[s] > aj[s]
                    wj[s] = k if is_larger else wj[s]
                    aj[s] = zk[s] if is_larger else aj[s]


@kernel
@operation(ROWS, delta="in Q O L", which="in Q O L int32", dz="out Q K*O L")
def maxout_backward(delta, which, dz):
    """dz = delta at the winning piece, 0 at the others."""
    n_out = delta.shape[1]
    for q in range(delta.shape[0]):
        for k in range(dz.shape[1] // n_out):
            for j in range(n_out):
                dj, wj, zk = delta[q, j], which[q, j], dz[q, k * n_out + j]
                for s in range(dj.size):
                    zk[s] = dj[s] if wj[s] == k else delta.dtype.type(0)


# ---- dropout ------------------------------------------------------------------------------------

M0, M1 = (np.uint64(m) for m in philox.MULTIPLIERS)
BUMP0, BUMP1 = (np.uint64(b) for b in philox.KEY_BUMPS)


@operation(
    ROWS, x="in Q O L", a="out Q O L", mask="out Q O L bool",
    clock="in 2 int64", seed="int uint64", layer="int uint64", first_row="int uint64",
    threshold="int uint64", scale="float",
)  # fmt: skip
def dropout(x, a, mask, clock, seed, layer, first_row, threshold, scale, row):
    """Compute a = x * scale where the unit's 16 bits are below the threshold, else 0 (`philox`)."""
    n, lanes = x.shape[1], x.shape[2]
    blocks = np.uint64((n + 15) // 16)
    for i in range(x.shape[0] * lanes):
        q, s = i // lanes, i % lanes
        place = (first_row + np.uint64(row * lanes + i)) * blocks
        for block in range((n + 15) // 16):
            c0, c1 = place + np.uint64(block + 1), np.uint64(0)
            c2, c3 = np.uint64(clock[0]), np.uint64(0)
            k0, k1 = seed, layer
            for _ in range(10):
                high0, high1 = high_word(c0, M0), high_word(c2, M1)
                c0, c1, c2, c3 = high1 ^ c1 ^ k0, c2 * M1, high0 ^ c3 ^ k1, c0 * M0
                k0, k1 = k0 + BUMP0, k1 + BUMP1
            for j in range(block * 16, min(n, block * 16 + 16)):
                word = (c0, c1, c2, c3)[(j & 15) >> 2]
                keep = ((word >> np.uint64(16 * (j & 3))) & np.uint64(0xFFFF)) < threshold
                mask[q, j, s] = keep
                a[q, j, s] = x[q, j, s] * scale if keep else x.dtype.type(0)


@kernel
def dropout_forward(step: AbstractStep, call: Any) -> None:
    """Draw the mask and apply it."""
    (seed, layer), threshold = call.key, philox.keep_threshold(call.rate)
    scale = 1.0 / (1.0 - call.rate)
    step.run(dropout, call, seed=seed, layer=layer, threshold=threshold, scale=scale)


@operation(ROWS, da="in Q E L", mask="in Q E L bool", scale="float", dx="out Q E L")
def dropout_gradient(da, mask, scale, dx):
    """dx = da * scale where the unit was kept, else 0."""
    for q in range(da.shape[0]):
        for j in range(da.shape[1]):
            dj, mj, xj = da[q, j], mask[q, j], dx[q, j]
            for s in range(dj.size):
                xj[s] = dj[s] * scale if mj[s] else da.dtype.type(0)


@kernel
def dropout_backward(step: AbstractStep, call: Any) -> None:
    """Apply the mask to the gradient."""
    step.run(dropout_gradient, call, scale=1.0 / (1.0 - call.rate))
