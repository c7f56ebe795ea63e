"""Losses: delta = the gradient of the mean; the loops return the sum of their rows' losses."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

from nnbackend.backend.base import LOSS, WEIGHT
from nnbackend_numba import scalars
from nnbackend_numba.compiling import Formula
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import ONE, ROWS, operation
from nnbackend_numba.steps import AbstractStep, kernel

formula: Any = None  # replaced, see `compiling`
# Losses that are a sum over the outputs of one term each.
ELEMENTWISE = {
    *("quadratic", "absolute", "huber", "quantile"),
    *("sigmoid_binary_cross_entropy", "exponential_poisson"),
}


@operation(
    ROWS, out="in B O", y="in B int32", smoothing="float", share="float",
    delta="out B O", sums="sums",
)  # fmt: skip
def cross_entropy_of_labels(out, y, smoothing, share, delta):
    """Softmax and cross-entropy with class labels y; share = 1 / B."""
    n_out = out.shape[1]
    one = out.dtype.type(1)
    other = smoothing / n_out
    total = 0.0
    for i in range(out.shape[0]):
        top = out[i, 0]
        for j in range(1, n_out):
            top = max(top, out[i, j])
        s = out.dtype.type(0)
        smooth = out.dtype.type(0)
        for j in range(n_out):
            t = out[i, j] - top
            e = scalars.exp(t)
            delta[i, j] = e
            s += e
            smooth += t
        log_s = math.log(s)
        hit = out[i, y[i]] - top
        total += log_s - (one - smoothing) * hit - other * smooth
        scale = share / s
        for j in range(n_out):
            delta[i, j] = delta[i, j] * scale - share * other
        delta[i, y[i]] -= share * (one - smoothing)
    return total


@operation(ROWS, out="in B O", y="in B O", share="float", delta="out B O", sums="sums")
def loss_of_elements(out, y, share, delta):
    """Compute a loss that is a sum over the outputs; the formula returns one's loss and slope."""
    total = 0.0
    for i in range(out.shape[0]):
        row = out.dtype.type(0)
        for j in range(out.shape[1]):
            value, gradient = formula(out[i, j], y[i, j], scalars)
            row += value
            delta[i, j] = gradient * share
        total += row
    return total


@operation(
    ONE, totals="inout 4 float64", slot="int", factor="float float64",
    parts="in workers 8 float64", rows="float float64",
)  # fmt: skip
def add_up(totals, slot, factor, parts, rows):
    """totals[slot] += factor * the sum of the workers' parts;  totals[WEIGHT] += rows."""
    total = 0.0
    for w in range(parts.shape[0]):
        total += parts[w, 0]
    totals[slot] += factor * total
    totals[WEIGHT] += rows


@kernel
def loss_and_delta(step: AbstractStep, call: Any) -> None:
    """Compute delta and the workers' losses, and add these when all rows are complete."""
    if call.weight is not None:
        raise NotRecordable("sample weights")
    loss, sums, rows = call.loss, step.sums(), len(call.out)
    if loss.kernel == "softmax_cross_entropy" and call.y.ndim == 1:
        smoothing = loss.params[0]
        step.run(cross_entropy_of_labels, call, share=1.0 / rows, smoothing=smoothing, sums=sums)
    elif loss.kernel in ELEMENTWISE and call.y.ndim == 2:
        step.run(loss_of_elements, call, Formula(loss.formula), share=1.0 / rows, sums=sums)
    else:
        raise NotRecordable(f"the loss {loss} with targets {call.y.shape}")
    step.defer(add_up, call, slot=LOSS, factor=1.0, parts=sums, rows=rows)
