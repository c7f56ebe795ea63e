"""Updates of the parameters, and of their gradient before: each loop headed by its record."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnbackend.backend.base import COUNT, PENALTY
from nnbackend_numba import scalars
from nnbackend_numba.compiling import Formula
from nnbackend_numba.intrinsics import address_of, cut
from nnbackend_numba.losses import add_up
from nnbackend_numba.panels import addresses
from nnbackend_numba.products import BLOCK, weight_gradient
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import UNITS, VECTOR, Split, operation
from nnbackend_numba.steps import AbstractStep, Where, kernel, recorded_kernel

formula: Any = None  # replaced, see `compiling`

# ---- the gradient -------------------------------------------------------------------------------


@operation(VECTOR, weights="in P", gradient="inout P", l1="float", l2="float", sums="sums")
def penalty(weights, gradient, l1, l2):
    """gradient += l2 w + l1 sign(w); return l1 sum |w| + l2 / 2 sum w^2."""
    first = 0.0
    second = 0.0
    for i in range(weights.size):
        w = weights[i]
        first += abs(w)
        second += w * w
        gradient[i] += l2 * w + l1 * np.sign(w)
    return l1 * first + 0.5 * l2 * second


@kernel
def add_penalty(step: AbstractStep, call: Any) -> None:
    """Add to the gradient, then add the workers' penalties."""
    sums = step.sums()
    step.run(penalty, call, sums=sums)
    step.barrier()
    where = Where(VECTOR.phase)
    given = {"slot": PENALTY, "factor": call.rows, "parts": sums, "rows": 0}
    step.run(add_up, call, where=where, **given)


@operation(VECTOR, gradient="in P", sums="sums")
def squares(gradient):
    """Return the sum of squares."""
    total = 0.0
    for i in range(gradient.size):
        total += gradient[i] * gradient[i]
    return total


@operation(VECTOR, gradient="inout P", squares="in workers 8 float64", max_norm="float float64")
def shrink(gradient, squares, max_norm):
    """Clip the gradient to a norm, from the workers' sums of squares."""
    square = 0.0
    for w in range(squares.shape[0]):
        square += squares[w, 0]
    norm = math.sqrt(square)
    if norm <= max_norm:
        return
    factor = gradient.dtype.type(max_norm / norm)
    for i in range(gradient.size):
        gradient[i] *= factor


@recorded_kernel
def clip_norm(step: AbstractStep, call: Any) -> None:
    """Add the squares, then scale the gradient."""
    sums = step.sums()
    step.run(squares, call, sums=sums)
    step.barrier()
    step.run(shrink, call, squares=sums)


# ---- the optimizer's step, layer by layer -------------------------------------------------------
# A range of theta has U rows of V numbers: the weights' inputs are divided, or the biases' units.
# line: 1 - rate * weight decay, then the rule's coefficients.  p: the rule's constants.
# With rows above 0, the gradient is computed here, x^T delta, some rows of W at a time, and these
# are updated while it is in a cache. It is written to a scratch array, and to g if that `keeps` it.

RANGE = "inout U*V"
PRODUCT = {
    "x": "in Q U M source",
    "turned": "in workers H T L source",
    "scratch": "inout workers R",
}
RULE = {
    "line": "line S C", "p": "floats", "decays": "int",
    "rows": "int", "columns": "int", "keeps": "int", "product": "product",
}  # fmt: skip
BY_ROWS = Split("inputs", lines="U")


@operation(BY_ROWS, **PRODUCT, theta=RANGE, g=RANGE, **RULE)
def update0(
    x, turned, scratch, theta, g, line, p, decays, rows, columns, keeps, product,
    first, last, worker,
):  # fmt: skip
    """One step of a rule without state."""
    keep, c = line[0] if decays else theta.dtype.type(1), line[1:]
    at_once = BLOCK if rows > 0 else max(last - first, 1)
    for lo in range(first, last, at_once):
        hi = min(lo + at_once, last)
        start, n = (lo - first) * columns, (hi - lo) * columns
        t, gradient = cut(theta, start, n), cut(g, start, n)
        if rows > 0:
            kept, gradient = gradient, cut(scratch, worker * scratch.shape[1], n)
            ahead = addresses(1)
            ahead[0] = address_of(t)
            weight_gradient(
                product, x, turned, worker, gradient, rows, columns, (lo, hi),
                address_of(ahead), 1, n * t.itemsize,
            )  # fmt: skip
            for i in range(n if keeps else 0):
                kept[i] = gradient[i]
        for i in range(n):
            t[i] = formula(t[i] * keep, gradient[i], (), c, p, scalars)[0]


@operation(BY_ROWS, **PRODUCT, theta=RANGE, g=RANGE, s=RANGE, **RULE)
def update1(
    x, turned, scratch, theta, g, s, line, p, decays, rows, columns, keeps, product,
    first, last, worker,
):  # fmt: skip
    """One step of a rule with one state vector."""
    keep, c = line[0] if decays else theta.dtype.type(1), line[1:]
    at_once = BLOCK if rows > 0 else max(last - first, 1)
    for lo in range(first, last, at_once):
        hi = min(lo + at_once, last)
        start, n = (lo - first) * columns, (hi - lo) * columns
        t, gradient = cut(theta, start, n), cut(g, start, n)
        state = cut(s, start, n)
        if rows > 0:
            kept, gradient = gradient, cut(scratch, worker * scratch.shape[1], n)
            ahead = addresses(2)
            ahead[0], ahead[1] = address_of(t), address_of(state)
            weight_gradient(
                product, x, turned, worker, gradient, rows, columns, (lo, hi),
                address_of(ahead), 2, n * t.itemsize,
            )  # fmt: skip
            for i in range(n if keeps else 0):
                kept[i] = gradient[i]
        for i in range(n):
            t[i], (state[i],) = formula(t[i] * keep, gradient[i], (state[i],), c, p, scalars)


@operation(BY_ROWS, **PRODUCT, theta=RANGE, g=RANGE, s=RANGE, r=RANGE, **RULE)
def update2(
    x, turned, scratch, theta, g, s, r, line, p, decays, rows, columns, keeps, product,
    first, last, worker,
):  # fmt: skip
    """One step of a rule with two state vectors."""
    keep, c = line[0] if decays else theta.dtype.type(1), line[1:]
    at_once = BLOCK if rows > 0 else max(last - first, 1)
    for lo in range(first, last, at_once):
        hi = min(lo + at_once, last)
        start, n = (lo - first) * columns, (hi - lo) * columns
        t, gradient = cut(theta, start, n), cut(g, start, n)
        one, two = cut(s, start, n), cut(r, start, n)
        if rows > 0:
            kept, gradient = gradient, cut(scratch, worker * scratch.shape[1], n)
            ahead = addresses(3)
            ahead[0], ahead[1], ahead[2] = address_of(t), address_of(one), address_of(two)
            weight_gradient(
                product, x, turned, worker, gradient, rows, columns, (lo, hi),
                address_of(ahead), 3, n * t.itemsize,
            )  # fmt: skip
            for i in range(n if keeps else 0):
                kept[i] = gradient[i]
        for i in range(n):
            new, (u, v) = formula(t[i] * keep, gradient[i], (one[i], two[i]), c, p, scalars)
            t[i] = new
            one[i] = u
            two[i] = v


@kernel
def optimizer_step(step: AbstractStep, call: Any) -> None:
    """Update the weights and the biases, with the loop for the rule's number of states."""
    if len(call.state) > 2:
        raise NotRecordable(f"the update {call.rule}")
    line, formula = step.coefficients(call), Formula(call.rule.recurrence)
    vectors = {"theta": call.theta, "g": call.gradient, **dict(zip("sr", call.state, strict=False))}
    update, p = (update0, update1, update2)[len(call.state)], call.rule.params
    for part in step.ranges(call):
        end = part.start + part.rows * part.columns
        cut = {name: vector[part.start : end] for name, vector in vectors.items()}
        given = {"line": line, "p": p, "decays": part.is_weights, "columns": part.columns}
        given |= {"U": part.rows, "V": part.columns, **part.gradient}
        step.run(update, call, formula, **given, **cut)


@operation(UNITS, W="inout I O", limit="float", norms="out O")
def limit_columns(W, limit, norms, first, last):
    """Shrink columns to a norm of at most `limit`."""
    for j in range(norms.size):
        norms[j] = 0
    for i in range(W.shape[0]):
        w = W[i, first:last]
        for j in range(w.size):
            norms[j] += w[j] * w[j]
    for j in range(norms.size):
        n = math.sqrt(norms[j])
        norms[j] = limit / n if n > limit else 1
    for i in range(W.shape[0]):
        w = W[i, first:last]
        for j in range(w.size):
            w[j] *= norms[j]


@kernel
def max_norm(step: AbstractStep, call: Any) -> None:
    """Shrink the columns, with scratch for their norms."""
    step.run(limit_columns, call, norms=np.empty(call.W.shape[1], call.W.dtype))


@recorded_kernel
@operation(
    VECTOR, theta="in P", ema_weights="inout P", hyper="in 3 float64",
    decay="float float64",
)  # fmt: skip
def average(theta, ema_weights, hyper, decay):
    """ema_weights += (1 - d) (theta - ema_weights), d = min(decay, (1 + t) / (10 + t))."""
    t = hyper[COUNT]
    move = theta.dtype.type(1.0 - min((1.0 + t) / (10.0 + t), decay))
    for i in range(theta.size):
        ema_weights[i] += move * (theta[i] - ema_weights[i])
