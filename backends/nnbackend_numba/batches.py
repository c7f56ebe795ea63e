"""Batches: the clock of a step, and its rows."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

from nnbackend.backend.base import BATCH, COUNT, FAR, MOMENTUM, RATE, STEP
from nnbackend.backend.formulas import Array
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import ONE, Split, operation
from nnbackend_numba.steps import HERE, AbstractStep, Where, kernel

BLOCK, BY_COLUMNS = Split("rows", even="B", lines="I"), Where("columns", True)


@kernel
@operation(
    ONE, clock="inout 2 int64", rates="in 2 S float64",
    hyper="out 3 float64",
)  # fmt: skip
def tick(clock, rates, hyper):
    """Begin a step: count it, read its learning rate and momentum."""
    clock[STEP] += 1
    clock[BATCH] += 1
    hyper[RATE] = rates[0, clock[BATCH]]
    hyper[MOMENTUM] = rates[1, clock[BATCH]]
    hyper[COUNT] = clock[STEP]


@operation(
    BLOCK, data="in N I source", order="in M int64",
    clock="in 2 int64", batch_size="int", out="out B I target",
)  # fmt: skip
def gather(data, order, clock, batch_size, out, row, first, last):
    """out[i] = data[order[batch * batch_size + i]], in out's dtype."""
    start = clock[BATCH] * batch_size + row
    for i in range(out.shape[0]):
        ri, oi = data[order[start + i], first:last], out[i, first:last]
        for j in range(oi.size):
            oi[j] = ri[j]


@kernel
def gather_rows(step: AbstractStep, call: Any) -> None:
    """Gather rows, or numbers as rows of one column, as the workers need them next."""
    _refuse_unreadable(call.data)
    is_x, views = step.partitioning.is_x(call.out), {}
    if call.data.ndim == 1:
        views = {"data": call.data[:, None], "out": call.out[:, None]}
    phase = BY_COLUMNS.phase if is_x or step.phase == BY_COLUMNS.phase else ""
    step.run(gather, call, where=Where(phase, is_x), **views)


@operation(
    BLOCK, rows="in B I source", shift="in I float64",
    factor="in I float64", clip="float float64", out="out B I",
)  # fmt: skip
def scale(rows, shift, factor, clip, out, first, last):
    """out = (rows - shift) * factor in float64, clipped smoothly where clip is above 0."""
    for i in range(rows.shape[0]):
        ri, oi = rows[i, first:last], out[i, first:last]
        for j in range(oi.size):
            t = (ri[j] - shift[j]) * factor[j]
            if clip > 0:
                u = max(min(t / clip, FAR), -FAR)
                t = u * clip / math.sqrt(1.0 + u * u)
            oi[j] = t


@kernel
def scale_rows(step: AbstractStep, call: Any) -> None:
    """Scale rows of one layout, as loops are compiled for each."""
    _refuse_unreadable(call.rows)
    if not call.rows.flags.c_contiguous:
        raise NotRecordable("rows that are not C-contiguous")
    where = BY_COLUMNS if step.partitioning.is_x(call.out) else HERE
    step.run(scale, call, where=where, clip=call.clip or 0.0)


def _refuse_unreadable(data: Array) -> None:
    """Raise NotRecordable unless loops can read an array: integers, float32 or float64."""
    kind, size = data.dtype.kind, data.dtype.itemsize
    if data.ndim > 2 or not (kind in "iu" or (kind == "f" and size in (4, 8))):
        raise NotRecordable(f"rows of {data.dtype} {data.shape}")
