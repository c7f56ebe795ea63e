"""Updates of the parameters, and of their gradient before: each loop headed by its record."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnbackend.backend.base import COUNT, PENALTY
from nnbackend_numba import scalars
from nnbackend_numba.compiling import Formula
from nnbackend_numba.losses import add_up
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

RANGE = "inout U*V"
RULE = {"line": "line S C", "p": "floats", "decays": "int"}
BY_ROWS = Split("inputs", lines="U")


@operation(BY_ROWS, theta=RANGE, g="in U*V", **RULE)
def update0(theta, g, line, p, decays):
    """One step of a rule without state."""
    keep, c = line[0] if decays else theta.dtype.type(1), line[1:]
    for i in range(theta.size):
        theta[i] = formula(theta[i] * keep, g[i], (), c, p, scalars)[0]


@operation(BY_ROWS, theta=RANGE, g="in U*V", s=RANGE, **RULE)
def update1(theta, g, s, line, p, decays):
    """One step of a rule with one state vector."""
    keep, c = line[0] if decays else theta.dtype.type(1), line[1:]
    for i in range(theta.size):
        t, (u,) = formula(theta[i] * keep, g[i], (s[i],), c, p, scalars)
        theta[i] = t
        s[i] = u


@operation(BY_ROWS, theta=RANGE, g="in U*V", s=RANGE, r=RANGE, **RULE)
def update2(theta, g, s, r, line, p, decays):
    """One step of a rule with two state vectors."""
    keep, c = line[0] if decays else theta.dtype.type(1), line[1:]
    for i in range(theta.size):
        t, (u, v) = formula(theta[i] * keep, g[i], (s[i], r[i]), c, p, scalars)
        theta[i] = t
        s[i] = u
        r[i] = v


@kernel
def optimizer_step(step: AbstractStep, call: Any) -> None:
    """Update the weights and the biases, with the loop for the rule's number of states."""
    if len(call.state) > 2:
        raise NotRecordable(f"the update {call.rule}")
    line, formula = step.coefficients(call), Formula(call.rule.recurrence)
    vectors = {"theta": call.theta, "g": call.gradient, **dict(zip("sr", call.state, strict=False))}
    for start, rows, columns, is_weights in step.ranges(call):
        cut = {name: vector[start : start + rows * columns] for name, vector in vectors.items()}
        update, p = (update0, update1, update2)[len(call.state)], call.rule.params
        step.run(update, call, formula, line=line, p=p, decays=is_weights, U=rows, V=columns, **cut)


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
