"""Batches: the clock of a step, and its rows."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

from nnbackend.backend.base import BATCH, COUNT, FAR, MOMENTUM, RATE, STEP
from nnbackend.backend.formulas import Array
from nnbackend_numba.intrinsics import address_of
from nnbackend_numba.panels import addresses, write_panel
from nnbackend_numba.recorder import NotRecordable
from nnbackend_numba.records import ONE, Split, operation
from nnbackend_numba.steps import HERE, AbstractStep, Where, kernel, recorded_kernel

BLOCK, BY_COLUMNS = Split("rows", even="Q", lines="I"), Where("columns", True)


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


# Rows that are read: where they begin, and the bytes from row to row and from column to column.
SOURCE = {"data": "in 1 1 source", "down": "int", "across": "int", "rows": "int", "is_same": "int"}


@operation(
    BLOCK, **SOURCE, order="in M int64", clock="in 2 int64", batch_size="int",
    out="out Q I L target",
)  # fmt: skip
def gather(
    data, down, across, rows, is_same, order, clock, batch_size, out, row, first, last
):  # fmt: skip
    """out[i] = data[order[batch * batch_size + i]], in out's dtype."""
    lanes, begin = out.shape[2], clock[BATCH] * batch_size
    places = addresses(lanes)
    for q in range(out.shape[0]):
        for s in range(lanes):  # beyond the last row, that one: no lane that counts
            i = order[begin + min((row + q) * lanes + s, rows - 1)]
            places[s] = address_of(data) + i * down
        write_panel(out[q], places, data, across, is_same, first, last)


@recorded_kernel
def gather_rows(step: AbstractStep, call: Any) -> None:
    """Gather rows, or numbers as rows of one column, as the workers need them next."""
    is_x = step.partitioning.is_x(call.out)
    phase = BY_COLUMNS.phase if is_x or step.phase == BY_COLUMNS.phase else ""
    step.run(gather, call, where=Where(phase, is_x), **source_of(call.data, call.out))


@operation(BLOCK, **SOURCE, out="out Q I L target")
def to_panels(data, down, across, rows, is_same, out, row, first, last):
    """out = data, in panels."""
    lanes = out.shape[2]
    places = addresses(lanes)
    for q in range(out.shape[0]):
        for s in range(lanes):
            places[s] = address_of(data) + min((row + q) * lanes + s, rows - 1) * down
        write_panel(out[q], places, data, across, is_same, first, last)


def source_of(data: Array, out: Array) -> dict[str, Any]:
    """Return the operands of SOURCE for rows of data that become rows of `out`, in any layout.

    Raises: NotRecordable for rows that loops cannot read.
    """
    _refuse_unreadable(data)
    if data.shape[1:] != out.shape[1:] or not data.dtype.isnative or not data.size:
        raise NotRecordable(f"rows of {data.dtype} {data.shape} for {out.shape}")
    data = data[:, None] if data.ndim == 1 else data
    down, across = data.strides
    is_same = data.dtype == out.dtype and data.dtype.kind == "f" and across == data.itemsize
    given = {"data": data[:1, :1], "down": down, "across": across}
    return {**given, "rows": len(out), "is_same": int(is_same)}


@operation(
    BLOCK, rows="in Q I L source", shift="in I float64", factor="in I float64",
    clip="float float64", out="out Q I L",
)  # fmt: skip
def scale(rows, shift, factor, clip, out, first, last):
    """out = (rows - shift) * factor in float64, clipped smoothly where clip is above 0."""
    for q in range(rows.shape[0]):
        for j in range(first, last):
            rj, oj, shift_j, factor_j = rows[q, j], out[q, j], shift[j - first], factor[j - first]
            for s in range(rj.size):
                t = (rj[s] - shift_j) * factor_j
                if clip > 0:
                    u = max(min(t / clip, FAR), -FAR)
                    t = u * clip / math.sqrt(1.0 + u * u)
                oj[s] = t


@recorded_kernel
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
