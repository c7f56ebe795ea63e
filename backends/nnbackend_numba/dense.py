"""Dense layers: each operation's loop, headed by its record, then the kernels that run them.

Loops that take `first` and `last` compute these columns, exclusive. The matrices of a batch lie in
panels: their last index is the lane, and each loop over it becomes vector instructions.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numba

from nnbackend.backend.formulas import Array
from nnbackend_numba import narrow, products, scalars
from nnbackend_numba.codegen import even_part, part_of_lines
from nnbackend_numba.compiling import Formula
from nnbackend_numba.intrinsics import address_of, cut, local_memory, view
from nnbackend_numba.panels import flat, write_transposed
from nnbackend_numba.products import BLOCK
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import INPUTS, Split, operation
from nnbackend_numba.steps import HERE, AbstractStep, Where, recorded_kernel

formula: Any = None  # replaced, see `compiling`
OUTPUTS = Split("rows", even="Q", lines="O")
ELEMENTS = Split("rows", even="Q", lines="E")
X = "in Q I L source"
_inline: Any = numba.njit(**scalars.INNER)

# ---- forward ------------------------------------------------------------------------------------


@_inline
def write_to_all_lanes(b, wide_b, worker):
    """Write each bias to all lanes, for a worker; return the address."""
    n, lanes = b.size, wide_b.shape[2]
    wide = cut(wide_b, worker * n * lanes, n * lanes)
    for j in range(n):
        for s in range(lanes):
            wide[j * lanes + s] = b[j]
    return address_of(wide)


PRODUCT = {"x": X, "W": "in I O source", "b": "in O", "wide_b": "out workers O L"}


@operation(
    Split("columns", lines="I"), **PRODUCT, parts="out workers Q O L", of_units="int",
    with_own="int", product="product",
)  # fmt: skip
def partial_product(x, W, b, wide_b, parts, of_units, with_own, product, first, last, worker):
    """Compute what own columns of x contribute to the others' part of x W + b.

    of_units: the workers own units of it, or else rows. with_own: compute also the own part, which
    otherwise follows in `forward`, as the others may not be ready yet. Each worker adds the biases
    to the part of the next one.
    """
    workers, n_panels, n_out, _ = parts.shape
    biases = write_to_all_lanes(b, wide_b, worker)
    for other in range(workers):
        if with_own or other != worker:
            panels, units = (0, n_panels), (0, n_out)
            if of_units:
                units = part_of_lines(n_out, other, workers)
            else:
                panels = even_part(n_panels, other, workers)
            d = biases if other == (worker + 1) % workers else 0
            place = worker * n_panels + panels[0]
            products.forward(product, x, W, parts, place, panels, (first, last), units, d, 0)


@operation(
    Split("rows", even="Q"), **PRODUCT, z="out Q O L", product="product",
)  # fmt: skip
def forward(x, W, b, wide_b, z, product, worker):
    """z = x W + b, own rows."""
    d, inputs, units = write_to_all_lanes(b, wide_b, worker), (0, W.shape[0]), (0, W.shape[1])
    products.forward(product, x, W, z, 0, (0, z.shape[0]), inputs, units, d, 0)


@operation(
    OUTPUTS, x=X, W="in I O source", parts="in workers Q O L", with_own="int", z="out Q O L",
    product="product",
)  # fmt: skip
def complete(x, W, parts, with_own, z, product, row, first, last, worker):
    """z = the own part of x W + b, to which the others' parts are added. See `partial_product`."""
    n, all_panels, n_out, lanes = parts.shape
    line = lanes * W.itemsize
    inputs, before = part_of_lines(W.shape[0], worker, n), (worker + n - 1) % n
    if with_own == 0:
        own_at, panels = address_of(W) + inputs[0] * n_out * W.itemsize, (0, z.shape[0])
        own = view(own_at, (inputs[1] - inputs[0], n_out), W)
        d = address_of(parts) + (before * all_panels + row) * n_out * line
        products.forward(product, x, own, z, 0, panels, inputs, (first, last), d, n_out * line)
    for q in range(z.shape[0]):
        zq = flat(z, q, first, last)
        if with_own:
            part = flat(parts, worker * all_panels + row + q, first, last)
            other = flat(parts, before * all_panels + row + q, first, last)
            for i in range(zq.size):
                zq[i] = part[i] + other[i]
        for g in range(n):
            if g != before and g != worker:
                other = flat(parts, g * all_panels + row + q, first, last)
                for i in range(zq.size):
                    zq[i] += other[i]


@operation(ELEMENTS, z="in Q E L", a="out Q E L")
def activate(z, a, first, last):
    """Compute a = phi(z)."""
    for q in range(z.shape[0]):
        zq, aq = flat(z, q, first, last), flat(a, q, first, last)
        for i in range(zq.size):
            aq[i] = formula(zq[i], scalars)


@operation(ELEMENTS, z="inout Q E L")
def activate_in_place(z, first, last):
    """Compute the same if a is z, which the compiler needs to know to use vectors."""
    for q in range(z.shape[0]):
        zq = flat(z, q, first, last)
        for i in range(zq.size):
            zq[i] = formula(zq[i], scalars)


def _owned(by_columns: bool, way: str, array: Array) -> Where:
    """Return the phase in which workers own columns of an array, or else their rows."""
    return Where(f"{way} {id(array)}", True) if by_columns else HERE


@recorded_kernel
def dense_forward(step: AbstractStep, call: Any) -> None:
    """Run the product by rows or by inputs, then the activation."""
    cut, x, W, z, a, phi = step.partitioning, call.x, call.W, call.z, call.a, call.phi
    if phi.kernel == "softmax":
        raise NotRecordable("softmax within the network")
    owned = _owned(cut.is_next_by_inputs(W), "forward", a)
    wide_b, operands = step.buffers.in_all_lanes(call.b), dict[str, Array]()
    if step.is_narrow:
        operands = narrow.forward_operands(step, call)
    if not cut.is_by_inputs(W):
        step.run(forward, call, wide_b=wide_b, **operands)
    else:
        parts = step.buffers.parts(z)
        # With too few panels, some workers would wait for what others compute of their own.
        with_own = not owned.by_columns and parts.shape[1] % step.workers > 0
        given: dict[str, Any] = {"parts": parts, "with_own": with_own, **operands}
        where = HERE if x is cut.x else _owned(True, "forward", x)
        of_units = owned.by_columns
        step.run(partial_product, call, where=where, **given, wide_b=wide_b, of_units=of_units)
        step.run(complete, call, where=owned, **given)
    if a is not z:
        step.run(activate, call, Formula(phi.f, phi.f_is_plain), owned)
    elif phi.kernel != "identity":
        step.run(activate_in_place, call, Formula(phi.f, phi.f_is_plain), owned)


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
    Split("rows", even="Q", lines="I"), delta="in Q O L source", W="in I O source",
    dx="out Q I L",
    product="product",
)  # fmt: skip
def input_gradient(delta, W, dx, product, first, last):
    """dx = delta W^T."""
    for lo in range(first, last, BLOCK):
        products.input_gradient(product, delta, W, dx, first, (lo, min(lo + BLOCK, last)))


@operation(
    Split("inputs", lines="O"), delta="in Q O L", turned="out workers H T L", db="out O",
    rows="int",
)  # fmt: skip
def transpose(delta, turned, db, rows, first, last, worker):
    """Compute delta's transpose, each worker for itself, and db = the sum of delta's rows."""
    write_transposed(delta, turned, worker)
    lanes, together = delta.shape[2], 8  # sums that do not wait for each other
    sums = view(local_memory(), (together * lanes,), db)
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


@operation(
    INPUTS, x="in Q I M source", turned="in workers H T L source", scratch="inout workers R",
    dW="out I O", rows="int", product="product",
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
        operands = narrow.backward_operands(step, call) if step.is_narrow else {}
        where = _owned(cut.is_by_inputs(call.W), "back", call.dx)
        step.run(input_gradient, call, where=where, **operands)
    turned, rows = step.buffers.transposes(call.delta), len(call.delta)
    step.defer(transpose, call, turned=turned, rows=rows)
    given = {"x": step.panels(call.x), "turned": turned, "rows": rows}
    if step.is_narrow:
        given = narrow.gradient_operands(step, call, turned)
    step.defer(weight_gradient, call, scratch=step.buffers.scratch(call.dW), **given)
