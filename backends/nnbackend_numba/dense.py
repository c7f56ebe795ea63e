"""Dense layers: each operation's loop, headed by its record, then the kernels that run them.

Loops that take `first` and `last` compute these columns, exclusive. The matrices of a batch lie in
panels: their last index is the lane, and each loop over it becomes vector instructions.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

from nnbackend.backend.formulas import Array
from nnbackend_numba import products, scalars
from nnbackend_numba.codegen import even_part, part_of_lines
from nnbackend_numba.compiling import Formula
from nnbackend_numba.intrinsics import address_of, cut, local_memory, vector
from nnbackend_numba.panels import flat, write_transposed
from nnbackend_numba.products import BLOCK
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import INPUTS, Split, operation
from nnbackend_numba.steps import HERE, AbstractStep, Where, recorded_kernel

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
    given = {"parts": parts, "wide_b": step.buffers.in_all_lanes(call.b), "with_own": with_own}
    by_inputs = HERE if x is cut.x or not cut.is_by_inputs(W) else _owned(True, "forward", x)
    step.run(copy_biases, call, where=Where(step.phase), wide_b=given["wide_b"])
    if cut.is_by_inputs(W):
        given["parts"] = step.buffers.parts(z)
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
    turned, rows = step.buffers.transposes(call.delta), len(call.delta)
    step.defer(transpose, call, turned=turned)
    scratch = step.buffers.scratch(call.dW)
    step.defer(weight_gradient, call, turned=turned, rows=rows, scratch=scratch)
    step.defer(bias_gradient, call, turned=turned, rows=rows)
