"""Layers: each operation's loop, headed by its record, then the kernels that run them.

Loops that take `first` and `last` compute these columns, exclusive. They slice each row before its
loop: with range(first, last) numba handles negative indices, which prevents vectorization.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.formulas import Array
from nnbackend_numba import scalars
from nnbackend_numba.compiling import Formula
from nnbackend_numba.intrinsics import gemm, high_word
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import INPUTS, ROWS, Split, operation
from nnbackend_numba.steps import HERE, AbstractStep, Where, kernel, recorded_kernel

formula: Any = None  # replaced, see `compiling`
OUTPUTS, COLUMNS = Split("rows", even="B", lines="O"), Split("columns", lines="I")

# ---- matrix products ----------------------------------------------------------------------------


@operation(ROWS, x="in B I", W="in I O", z="out B O", blas="blas")
def product(x, W, z, blas):
    """z = x W, own rows."""
    gemm(blas, x, False, W, False, z)


@operation(COLUMNS, x="in B I", W="in I O", parts="out workers B O", blas="blas")
def partial_product(x, W, parts, blas, first, last, worker):
    """Compute the part of x W that own columns of x contribute."""
    gemm(blas, x[:, first:last], False, W, False, parts[worker])


@operation(OUTPUTS, parts="in workers B O", z="out B O")
def add_parts(parts, z, row, first, last):
    """z = the sum of the parts."""
    for i in range(z.shape[0]):
        zi, p = z[i, first:last], parts[0, row + i, first:last]
        for j in range(zi.size):
            zi[j] = p[j]
        for k in range(1, parts.shape[0]):
            p = parts[k, row + i, first:last]
            for j in range(zi.size):
                zi[j] += p[j]


@operation(
    Split("rows", even="B", lines="I"), lambda delta, W, dx: np.dot(delta, W.T, out=dx),
    delta="in B O", W="in I O", dx="out B I", blas="blas",
)  # fmt: skip
def input_gradient(delta, W, dx, blas, first, last):
    """dx = delta W^T."""
    gemm(blas, delta, False, W, True, dx[:, first:last])


@operation(
    INPUTS, lambda x, delta, dW: np.dot(x.T, delta, out=dW),
    x="in B I", delta="in B O", dW="out I O", blas="blas",
)  # fmt: skip
def weight_gradient(x, delta, dW, blas, first, last):
    """dW = x^T delta, own rows of W."""
    if last > first:
        gemm(blas, x[:, first:last], True, delta, False, dW)


@operation(Split("inputs", lines="O"), delta="in B O", db="out O")
def bias_gradient(delta, db, first, last):
    """db = the sum of delta's rows."""
    for j in range(db.size):
        db[j] = 0
    for i in range(delta.shape[0]):
        di = delta[i, first:last]
        for j in range(di.size):
            db[j] += di[j]


# ---- activations --------------------------------------------------------------------------------


@operation(OUTPUTS, z="inout B O", b="in O", a="out B O")
def activate(z, b, a, first, last):
    """z += b;  a = phi(z)."""
    for i in range(z.shape[0]):
        zi, ai = z[i, first:last], a[i, first:last]
        for j in range(zi.size):
            v = zi[j] + b[j]
            zi[j] = v
            ai[j] = formula(v, scalars)


@operation(OUTPUTS, z="inout B O", b="in O")
def activate_in_place(z, b, first, last):
    """Compute the same if a is z, which the compiler needs to know to vectorize the loop."""
    for i in range(z.shape[0]):
        zi = z[i, first:last]
        for j in range(zi.size):
            zi[j] = formula(zi[j] + b[j], scalars)


@operation(OUTPUTS, delta="inout B O", z="in B O", a="in B O")
def slope(delta, z, a, first, last):
    """delta *= phi'(z)."""
    for i in range(delta.shape[0]):
        di, zi, ai = delta[i, first:last], z[i, first:last], a[i, first:last]
        for j in range(di.size):
            di[j] *= formula(zi[j], ai[j], scalars)


def softmax(z, b, a):
    """z += b;  a = e^z / sum e^z of a row. Only direct calls need it."""
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


def _owned(by_columns: bool, way: str, array: Array) -> Where:
    """Return the phase in which workers own columns of an array, or else their rows."""
    return Where(f"{way} {id(array)}", True) if by_columns else HERE


@recorded_kernel
def dense_forward(step: AbstractStep, call: Any) -> None:
    """Run the product by rows or by inputs. Direct calls are in `backend`."""
    cut, x, W, z, a, phi = step.partitioning, call.x, call.W, call.z, call.a, call.phi
    if phi.kernel == "softmax":
        raise NotRecordable("softmax within the network")
    owned = _owned(cut.is_next_by_inputs(W), "forward", a)
    if cut.is_by_inputs(W):
        parts = np.empty((step.workers, *z.shape), z.dtype)
        where = HERE if x is cut.x else _owned(True, "forward", x)
        step.run(partial_product, call, where=where, parts=parts)
        step.run(add_parts, call, where=owned, parts=parts)
    else:
        step.run(product, call)
    activation = activate_in_place if a is z else activate
    step.run(activation, call, Formula(phi.f, phi.f_is_plain), owned)


@kernel
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
    step.defer(weight_gradient, call)
    step.defer(bias_gradient, call)


# ---- maxout -------------------------------------------------------------------------------------


@kernel
@operation(ROWS, z="in B K*O", a="out B O", which="out B O int32")
def maxout_forward(z, a, which):
    """Compute a = the largest piece, which = its index; ties: the first."""
    n_out = a.shape[1]
    for i in range(a.shape[0]):
        for j in range(n_out):
            a[i, j] = z[i, j]
            which[i, j] = 0
        for k in range(1, z.shape[1] // n_out):
            for j in range(n_out):
                v = z[i, k * n_out + j]
                if v > a[i, j]:
                    a[i, j] = v
                    which[i, j] = k


@kernel
@operation(ROWS, delta="in B O", which="in B O int32", dz="out B K*O")
def maxout_backward(delta, which, dz):
    """dz = delta at the winning piece, 0 at the others."""
    n_out = delta.shape[1]
    for i in range(delta.shape[0]):
        for k in range(dz.shape[1] // n_out):
            for j in range(n_out):
                won = which[i, j] == k
                dz[i, k * n_out + j] = delta[i, j] if won else delta.dtype.type(0)


# ---- dropout ------------------------------------------------------------------------------------

M0, M1 = (np.uint64(m) for m in philox.MULTIPLIERS)
BUMP0, BUMP1 = (np.uint64(b) for b in philox.KEY_BUMPS)


@operation(
    ROWS, x="in B O", a="out B O", mask="out B O bool",
    clock="in 2 int64", seed="int uint64", layer="int uint64", first_row="int uint64",
    threshold="int uint64", scale="float",
)  # fmt: skip
def dropout(x, a, mask, clock, seed, layer, first_row, threshold, scale, row):
    """Compute a = x * scale where the unit's 16 bits are below the threshold, else 0 (`philox`)."""
    n = x.shape[1]
    blocks = np.uint64((n + 15) // 16)
    for i in range(x.shape[0]):
        place = (first_row + np.uint64(row + i)) * blocks
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
                mask[i, j] = keep
                a[i, j] = x[i, j] * scale if keep else x.dtype.type(0)


@kernel
def dropout_forward(step: AbstractStep, call: Any) -> None:
    """Draw the mask and apply it."""
    (seed, layer), threshold = call.key, philox.keep_threshold(call.rate)
    scale = 1.0 / (1.0 - call.rate)
    step.run(dropout, call, seed=seed, layer=layer, threshold=threshold, scale=scale)


@operation(ROWS, da="in B O", mask="in B O bool", scale="float", dx="out B O")
def dropout_gradient(da, mask, scale, dx):
    """dx = da * scale where the unit was kept, else 0."""
    for i in range(da.shape[0]):
        for j in range(da.shape[1]):
            dx[i, j] = da[i, j] * scale if mask[i, j] else da.dtype.type(0)


@kernel
def dropout_backward(step: AbstractStep, call: Any) -> None:
    """Apply the mask to the gradient."""
    step.run(dropout_gradient, call, scale=1.0 / (1.0 - call.rate))
