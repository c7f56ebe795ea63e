"""Losses: delta = the gradient of the mean; the loops return the sum of their rows' losses."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

from nnbackend.backend.base import LOSS, WEIGHT
from nnbackend_numba import scalars
from nnbackend_numba.compiling import Formula
from nnbackend_numba.panels import flat
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
    ROWS, out="in Q O L", y="in Q 1 L int32", rows="int", smoothing="float", share="float",
    delta="out Q O L", sums="sums",
)  # fmt: skip
def cross_entropy_of_labels(out, y, rows, smoothing, share, delta, row):
    """Softmax and cross-entropy with class labels y; share = 1 / B."""
    n_panels, n_out, lanes = out.shape
    kind = out.dtype.type
    kept, other, total = kind(1) - smoothing, smoothing / n_out, 0.0
    for q in range(n_panels):
        labels, o, e = flat(y, q, 0, 1), flat(out, q, 0, n_out), flat(delta, q, 0, n_out)
        filled = min(lanes, rows - (row + q) * lanes)  # other lanes do not count
        for s in range(lanes):
            top, smooth = o[s], kind(0)
            for j in range(1, n_out):
                top = max(top, o[j * lanes + s])
            for j in range(n_out):
                t = o[j * lanes + s] - top
                e[j * lanes + s] = t
                smooth += t
            if s < filled:
                total -= kept * e[labels[s] * lanes + s] + other * smooth
        for i in range(e.size):
            e[i] = scalars.exp(e[i])
        for s in range(lanes):
            exponents = kind(0)
            for j in range(n_out):
                exponents += e[j * lanes + s]
            if s < filled:
                total += math.log(exponents)
            factor = share / exponents
            for j in range(n_out):
                e[j * lanes + s] = e[j * lanes + s] * factor - share * other
            e[labels[s] * lanes + s] -= share * kept
    return total


@operation(
    ROWS, out="in Q E L", y="in Q E L", lanes="int", share="float", delta="out Q E L",
    sums="sums",
)  # fmt: skip
def loss_of_elements(out, y, lanes, share, delta, row):
    """Compute a loss that is a sum over the outputs; the formula returns one's loss and slope.

    lanes: how many lanes of the panels the rows fill.
    """
    total, units, n = 0.0, out.shape[1], out.shape[2]
    kind = out.dtype.type
    for q in range(out.shape[0]):
        oq, yq, dq = flat(out, q, 0, units), flat(y, q, 0, units), flat(delta, q, 0, units)
        filled, sum_of_panel = min(n, lanes - (row + q) * n), kind(0)
        for i in range(dq.size):
            value, gradient = formula(oq[i], yq[i], scalars)
            sum_of_panel += value
            dq[i] = gradient * share
        if filled < n:  # lanes without a row do not count
            sum_of_panel = kind(0)
            for i in range(dq.size):
                if i % n < filled:
                    sum_of_panel += formula(oq[i], yq[i], scalars)[0]
        total += sum_of_panel
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
        given = {"rows": rows, "smoothing": smoothing, "share": 1.0 / rows, "sums": sums}
        step.run(cross_entropy_of_labels, call, **given)
    elif loss.kernel in ELEMENTWISE and call.y.ndim == 2:
        given = {"lanes": step.count(call.out), "share": 1.0 / rows, "sums": sums}
        step.run(loss_of_elements, call, Formula(loss.formula), **given)
    else:
        raise NotRecordable(f"the loss {loss} with targets {call.y.shape}")
    step.defer(add_up, call, slot=LOSS, factor=1.0, parts=sums, rows=rows)
