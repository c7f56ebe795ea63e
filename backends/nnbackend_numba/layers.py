"""Layers: each operation's loop, headed by its record, then the kernels that run them.

Loops that take `first` and `last` compute these columns, exclusive. The matrices of a batch lie in
panels: their last index is the lane, and each loop over it becomes vector instructions.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.formulas import Array
from nnbackend_numba import products, scalars
from nnbackend_numba.codegen import even_part, part_of_lines
from nnbackend_numba.compiling import Formula
from nnbackend_numba.intrinsics import address_of, cut, high_word, local_memory, vector
from nnbackend_numba.panels import flat, write_transposed
from nnbackend_numba.products import BLOCK
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import INPUTS, ROWS, Split, operation
from nnbackend_numba.steps import HERE, AbstractStep, Where, kernel, recorded_kernel

formula: Any = None  # replaced, see `compiling`
OUTPUTS = Split("rows", even="Q", lines="O")
ELEMENTS = Split("rows", even="Q", lines="E")
EVERYTHING = Split("inputs", lines="L")  # nothing is divided: each worker has its own copy
X = "in Q I L"

# ---- forward ------------------------------------------------------------------------------------


@operation(EVERYTHING, b="in O", wide_b="out workers O L")
def copy_biases(b, wide_b, worker):
    """Copy each bias to all lanes, each worker for itself."""
    n, lanes = b.size, wide_b.shape[2]
    wide = cut(wide_b, worker * n * lanes, n * lanes)
    for j in range(n):
        for s in range(lanes):
            wide[j * lanes + s] = b[j]


@operation(
    Split("columns", lines="I"), x=X, W="in I O", wide_b="in workers O L",
    parts="out workers Q O L", of_units="int", with_own="int", product="product",
)  # fmt: skip
def partial_product(x, W, wide_b, parts, of_units, with_own, product, first, last, worker):
    """Compute what own columns of x contribute to the others' part of x W + b.

    of_units: the workers own units of it, or else rows. with_own: compute also the own part, which
    otherwise follows in `forward`, as the others may not be ready yet. Each worker adds the biases
    to the part of the next one.
    """
    workers, n_panels, n_out, lanes = parts.shape
    for other in range(workers):
        if with_own or other != worker:
            panels, units, d = (0, n_panels), (0, n_out), 0
            if of_units:
                units = part_of_lines(n_out, other, workers)
            else:
                panels = even_part(n_panels, other, workers)
            if other == (worker + 1) % workers:
                d = address_of(wide_b) + worker * n_out * lanes * W.itemsize
            place = worker * n_panels + panels[0]
            products.forward(product, x, W, parts, place, panels, (first, last), units, d, 0)


FORWARD = {
    "x": X, "W": "in I O", "wide_b": "in workers O L", "parts": "in G Q O L",
    "with_own": "int", "z": "out Q O L",
}  # fmt: skip


@operation(OUTPUTS, **FORWARD, a="out Q O L", product="product")
def forward(x, W, wide_b, parts, with_own, z, a, product, row, first, last, worker):
    """z = x W + b;  a = phi(z).

    parts: what the other workers computed of z, and this one if `with_own`. Without parts it
    computes all of its part.
    """
    n, (n_panels, n_out, lanes) = parts.shape[0], z.shape
    line, inputs = lanes * z.itemsize, (0, W.shape[0])
    d, d_next, other, all_panels = address_of(wide_b) + worker * n_out * line, 0, 0, parts.shape[1]
    if n > 0:
        inputs, other = part_of_lines(W.shape[0], worker, n), (worker + n - 1) % n
        d, d_next = address_of(parts) + (other * all_panels + row) * n_out * line, n_out * line
    own, panels = W[inputs[0] : inputs[1]], (0, n_panels)
    for lo in range(first, last, BLOCK):
        hi = min(lo + BLOCK, last)
        if with_own == 0:
            products.forward(product, x, own, z, 0, panels, inputs, (lo, hi), d, d_next)
        for q in range(z.shape[0]):
            zq, aq = flat(z, q, lo, hi), flat(a, q, lo, hi)
            if with_own:
                part = flat(parts, worker * all_panels + row + q, lo, hi)
                more = flat(parts, other * all_panels + row + q, lo, hi)
                for i in range(zq.size):
                    zq[i] = part[i] + more[i]
            for g in range(n):
                if g != worker and g != other:
                    more = flat(parts, g * all_panels + row + q, lo, hi)
                    for i in range(zq.size):
                        zq[i] += more[i]
            for i in range(zq.size):
                aq[i] = formula(zq[i], scalars)


@operation(OUTPUTS, **FORWARD, product="product")
def forward_in_place(x, W, wide_b, parts, with_own, z, product, row, first, last, worker):
    """Compute the same if a is z, which the compiler needs to know to use vectors."""
    n, (n_panels, n_out, lanes) = parts.shape[0], z.shape
    line, inputs = lanes * z.itemsize, (0, W.shape[0])
    d, d_next, other, all_panels = address_of(wide_b) + worker * n_out * line, 0, 0, parts.shape[1]
    if n > 0:
        inputs, other = part_of_lines(W.shape[0], worker, n), (worker + n - 1) % n
        d, d_next = address_of(parts) + (other * all_panels + row) * n_out * line, n_out * line
    own, panels = W[inputs[0] : inputs[1]], (0, n_panels)
    for lo in range(first, last, BLOCK):
        hi = min(lo + BLOCK, last)
        if with_own == 0:
            products.forward(product, x, own, z, 0, panels, inputs, (lo, hi), d, d_next)
        for q in range(z.shape[0]):
            zq = flat(z, q, lo, hi)
            if with_own:
                part = flat(parts, worker * all_panels + row + q, lo, hi)
                more = flat(parts, other * all_panels + row + q, lo, hi)
                for i in range(zq.size):
                    zq[i] = part[i] + more[i]
            for g in range(n):
                if g != worker and g != other:
                    more = flat(parts, g * all_panels + row + q, lo, hi)
                    for i in range(zq.size):
                        zq[i] += more[i]
            for i in range(zq.size):
                zq[i] = formula(zq[i], scalars)


def _owned(by_columns: bool, way: str, array: Array) -> Where:
    """Return the phase in which workers own columns of an array, or else their rows."""
    return Where(f"{way} {id(array)}", True) if by_columns else HERE


@recorded_kernel
def dense_forward(step: AbstractStep, call: Any) -> None:
    """Run the product by rows or by inputs."""
    cut, x, W, z, a, phi = step.partitioning, call.x, call.W, call.z, call.a, call.phi
    if phi.kernel == "softmax":
        raise NotRecordable("softmax within the network")
    owned, parts = _owned(cut.is_next_by_inputs(W), "forward", a), step.panels(z)[None]
    # Without enough panels, some workers would wait for what others compute of their own.
    with_own = not owned.by_columns and cut.is_by_inputs(W) and len(parts[0]) % step.workers > 0
    given = {"parts": parts, "wide_b": step.wide(call.b), "with_own": with_own}
    by_inputs = HERE if x is cut.x or not cut.is_by_inputs(W) else _owned(True, "forward", x)
    step.run(copy_biases, call, where=Where(step.phase), wide_b=given["wide_b"])
    if cut.is_by_inputs(W):
        given["parts"] = step.parts(z)
        step.run(partial_product, call, where=by_inputs, **given, of_units=owned.by_columns)
    else:
        given["parts"] = parts[:0]
    loop = forward_in_place if a is z else forward
    step.run(loop, call, Formula(phi.f, phi.f_is_plain), owned, **given)


# ---- backward -----------------------------------------------------------------------------------


@operation(ELEMENTS, delta="inout Q E L", z="in Q E L", a="in Q E L")
def slope(delta, z, a, first, last):
    """delta *= phi'(z)."""
    for q in range(delta.shape[0]):
        dq = flat(delta, q, first, last)
        zq, aq = flat(z, q, first, last), flat(a, q, first, last)
        for i in range(dq.size):
            dq[i] *= formula(zq[i], aq[i], scalars)


@operation(
    Split("rows", even="Q", lines="I"), delta="in Q O L", W="in I O", dx="out Q I L",
    product="product",
)  # fmt: skip
def input_gradient(delta, W, dx, product, first, last):
    """dx = delta W^T."""
    for lo in range(first, last, BLOCK):
        products.input_gradient(product, delta, W, dx, first, (lo, min(lo + BLOCK, last)))


@operation(EVERYTHING, delta="in Q O L", turned="out workers V T L")
def transpose(delta, turned, worker):
    """Compute delta's transpose, each worker for itself."""
    write_transposed(delta, turned, worker)


@operation(
    INPUTS, x=X, turned="in workers V T L", scratch="inout workers R", dW="out I O", rows="int",
    product="product",
)  # fmt: skip
def weight_gradient(x, turned, scratch, dW, rows, product, first, last, worker):
    """dW = x^T delta, own rows of W."""
    n_out, own = dW.shape[1], cut(scratch, worker * scratch.shape[1], scratch.shape[1])
    for lo in range(first, last, BLOCK):
        inputs = lo, min(lo + BLOCK, last)
        products.weight_gradient(product, x, turned, worker, own, rows, n_out, inputs, 0, 0, 0)
        to = cut(dW, (lo - first) * n_out, (inputs[1] - lo) * n_out)
        for i in range(to.size):
            to[i] = own[i]


@operation(Split("inputs", lines="O"), turned="in workers V T L", db="out O", rows="int")
def bias_gradient(turned, db, rows, first, last, worker):
    """db = the sum of delta's rows."""
    lanes, together = turned.shape[3], 8  # sums that do not wait for each other
    sums = vector(local_memory(), together * lanes, db)
    for v in range(first // lanes, (last + lanes - 1) // lanes):
        for s in range(sums.size):
            sums[s] = 0
        for start in range(0, rows, together):
            place, n = worker * turned.shape[1] + v, min(together, rows - start)
            some = cut(turned, (place * turned.shape[2] + start) * lanes, n * lanes)
            for s in range(some.size):
                sums[s] += some[s]
        for j in range(max(first, v * lanes), min(last, (v + 1) * lanes)):
            total = db.dtype.type(0)
            for i in range(together):
                total += sums[i * lanes + j - v * lanes]
            db[j - first] = total


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
    scratch = step.scratch(call.dW)
    step.defer(weight_gradient, call, turned=turned, rows=rows, scratch=scratch)
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
        aq, wq, zq = flat(a, q, 0, n_out), flat(which, q, 0, n_out), flat(z, q, 0, n_out)
        for i in range(aq.size):
            aq[i] = zq[i]
            wq[i] = 0
        for k in range(1, z.shape[1] // n_out):
            zq = flat(z, q, k * n_out, (k + 1) * n_out)
            for i in range(aq.size):
                is_larger = zq[i] > aq[i]
                wq[i] = k if is_larger else wq[i]
                aq[i] = zq[i] if is_larger else aq[i]


@kernel
@operation(ROWS, delta="in Q O L", which="in Q O L int32", dz="out Q K*O L")
def maxout_backward(delta, which, dz):
    """dz = delta at the winning piece, 0 at the others."""
    n_out = delta.shape[1]
    for q in range(delta.shape[0]):
        dq, wq = flat(delta, q, 0, n_out), flat(which, q, 0, n_out)
        for k in range(dz.shape[1] // n_out):
            zq = flat(dz, q, k * n_out, (k + 1) * n_out)
            for i in range(dq.size):
                zq[i] = dq[i] if wq[i] == k else delta.dtype.type(0)


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
    n = da.shape[1]
    for q in range(da.shape[0]):
        dq, mq, xq = flat(da, q, 0, n), flat(mask, q, 0, n), flat(dx, q, 0, n)
        for i in range(dq.size):
            xq[i] = dq[i] * scale if mq[i] else da.dtype.type(0)


@kernel
def dropout_backward(step: AbstractStep, call: Any) -> None:
    """Apply the mask to the gradient."""
    step.run(dropout_gradient, call, scale=1.0 / (1.0 - call.rate))
