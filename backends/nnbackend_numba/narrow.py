"""Operands of products in bfloat16: rounded and paired once per step, see `pairs`."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba.intrinsics import address_of
from nnbackend_numba.pairs import rounded, write_halves, write_pairs
from nnbackend_numba.panels import aligned
from nnbackend_numba.records import ROWS, Split, operation
from nnbackend_numba.steps import AbstractStep, Where


@operation(ROWS, x="in Q I L", pairs="out Q J L int32", halves="out Q N H int32")
def narrow_rows(x, pairs, halves):
    """Pair x along its units, and (N of them) along the rows of the batch."""
    n_panels, n, lanes = x.shape
    line, m = 4 * lanes, pairs.shape[1]
    for q in range(n_panels):
        for j in range(m):
            place = address_of(x) + (q * n + 2 * j) * line
            high = place + line if 2 * j + 1 < n else 0
            write_pairs(address_of(pairs) + (q * m + j) * line, place, high)
        for j in range(halves.shape[1]):
            place = address_of(halves) + (q * n + j) * line // 2
            write_halves(place, address_of(x) + (q * n + j) * line)


@operation(
    Split("pairs of inputs", lines="J"), W="in I O", lanes="int", pairs="out J O int32",
    halves="out I K int32",
)  # fmt: skip
def narrow_weights(W, lanes, pairs, halves, first, last):
    """Pair W along its rows, and along its columns (each row begins at a pair)."""
    n_in, n_out = W.shape
    k = halves.shape[1]
    for j in range(first, last):
        rows = min(2, n_in - 2 * j)
        row, to = address_of(W) + 2 * j * n_out * 4, address_of(pairs) + (j - first) * n_out * 4
        whole = n_out // lanes * lanes
        for o in range(0, whole, lanes):
            write_pairs(to + o * 4, row + o * 4, row + (n_out + o) * 4 if rows == 2 else 0)
        for r in range(rows):
            for o in range(0, whole, lanes):
                place = address_of(halves) + (2 * j + r) * k * 4 + o * 2
                write_halves(place, row + (r * n_out + o) * 4)
        for o in range(whole, n_out):
            low = rounded(W[2 * j, o])
            high = rounded(W[2 * j + 1, o]) if rows == 2 else 0
            pairs[j - first, o] = np.int32(low | (high << 16))
        for r in range(rows):
            for p in range(whole // 2, k):
                low = rounded(W[2 * j + r, 2 * p])
                high = rounded(W[2 * j + r, 2 * p + 1]) if 2 * p + 1 < n_out else 0
                halves[2 * j + r, p] = np.int32(low | (high << 16))


@operation(
    Split("inputs", lines="L"), turned="in workers H T L", rows="int",
    pairs="out workers H K L int32",
)  # fmt: skip
def narrow_transpose(turned, rows, pairs, worker):
    """Pair delta's transpose along the rows of the batch, each worker for itself."""
    _, n, height, lanes = turned.shape
    line = 4 * lanes
    for v in range(n):
        for k in range((rows + 1) // 2):
            place = address_of(turned) + ((worker * n + v) * height + 2 * k) * line
            to = address_of(pairs) + ((worker * n + v) * pairs.shape[2] + k) * line
            write_pairs(to, place, place + line if 2 * k + 1 < rows else 0)


def forward_operands(step: AbstractStep, call: Any) -> dict[str, Array]:
    """Round and pair x and W; return the operands of x W."""
    made = step.buffers.narrow(call.x, call.W)
    weights = {"pairs": made.W_pairs, "halves": made.W_halves, "lanes": step.lanes}
    step.run(narrow_weights, call, where=Where(step.phase), **weights)
    step.run(narrow_rows, call, pairs=made.x_pairs, halves=made.x_halves)
    step.barrier()
    return {"x": made.x_pairs, "W": made.W_pairs}


def backward_operands(step: AbstractStep, call: Any) -> dict[str, Array]:
    """Round and pair delta; return the operands of delta W^T."""
    made = step.buffers.narrow(call.x, call.W)
    given = {"x": call.delta, "pairs": made.delta_pairs, "halves": made.x_halves[:, :0]}
    step.run(narrow_rows, call, **given)
    step.barrier()
    return {"delta": made.delta_pairs, "W": made.W_halves}


def gradient_operands(step: AbstractStep, call: Any, turned: Array) -> dict[str, Any]:
    """Round and pair delta's transpose; return the operands of x^T delta."""
    made, (workers, n, height, lanes) = step.buffers.narrow(call.x, call.W), turned.shape
    pairs = aligned((workers, n, height // 2, lanes), np.int32)
    step.defer(narrow_transpose, call, turned=turned, rows=len(call.delta), pairs=pairs)
    return {"x": made.x_halves, "turned": pairs, "rows": (len(call.delta) + 1) // 2}
