"""The sums of a step over the ranks: calls of C functions such as MPI's, between loops."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from nnbackend.backend.base import WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.backend.ranks import TINY, add_as_tree
from nnbackend_numba.intrinsics import call_function
from nnbackend_numba.panels import flat
from nnbackend_numba.records import ONE, VECTOR, Split, operation
from nnbackend_numba.steps import AbstractStep, recorded_kernel


@recorded_kernel
@operation(VECTOR, array="out P", value="float")
def fill(array, value):
    """Set all numbers."""
    for i in range(array.size):
        array[i] = value


@operation(VECTOR, one="in P", other="in P", out="out P")
def add(one, other, out):
    """out = one + other; out may be one of them."""
    for i in range(out.size):
        out[i] = one[i] + other[i]


@operation(VECTOR, source="in P", out="out P")
def copy(source, out):
    """out = source."""
    for i in range(out.size):
        out[i] = source[i]


ARGUMENTS = "abcdefg"


@operation(ONE, function="int", status="inout 1 int64", **dict.fromkeys(ARGUMENTS, "int"))
def exchange(function, status, a, b, c, d, e, f, g):
    """Call a C function, unless one has failed before: the ranks are no longer in step then."""
    if status[0] == 0:
        status[0] = call_function(function, (a, b, c, d, e, f, g))


@operation(
    Split("rows", even="Q", lines="E"), delta="inout Q E L", mine="in 4 float64",
    total="in 4 float64",
)  # fmt: skip
def weigh(delta, mine, total, first, last):
    """delta *= w_i / W."""
    factor = delta.dtype.type(mine[WEIGHT] / (total[WEIGHT] + TINY))
    for q in range(delta.shape[0]):
        dq = flat(delta, q, first, last)
        for i in range(dq.size):
            dq[i] *= factor


@recorded_kernel
def share_loss(step: AbstractStep, call: Any) -> None:
    """Add the figures of all ranks, then weigh the deltas."""
    total = np.zeros(len(call.totals))
    mine = [np.zeros(len(call.totals)) for _ in call.figures]
    for figures, summed in zip(call.figures, mine, strict=True):
        step.run(copy, call, source=figures, out=summed)
    add_ranks(step, call, mine, total)
    step.run(add, call, one=call.totals, other=total, out=call.totals)
    for figures, delta in zip(call.figures, call.deltas, strict=True):
        if delta is not None:
            step.run(weigh, call, delta=delta, mine=figures, total=total)


@recorded_kernel
def share_gradient(step: AbstractStep, call: Any) -> None:
    """Add the gradients of all ranks."""
    add_ranks(step, call, call.parts, call.gradient)


def add_ranks(step: AbstractStep, call: Any, parts: Sequence[Array], out: Array) -> None:
    """out = the sum of all ranks' parts, which are overwritten."""
    if call.ranks.size == 1:
        add_parts(step, call, parts, out)
    elif call.ranks.is_fixed:
        add_parts(step, call, parts, parts[0])
        every = np.zeros((call.ranks.size, out.size), out.dtype)
        call_c(step, call.ranks.c_gather(parts[0], every))
        add_parts(step, call, [*every], out)
    else:
        add_parts(step, call, parts, out)
        call_c(step, call.ranks.c_add(out))


def add_parts(step: AbstractStep, call: Any, parts: Sequence[Array], out: Array) -> None:
    """out = the sum of the parts as a binary tree; the parts are overwritten."""
    add_as_tree(
        parts, out,
        lambda one, other, to: step.run(add, call, one=one, other=other, out=to),
        lambda source, to: step.run(copy, call, source=source, out=to),
    )  # fmt: skip


def call_c(step: AbstractStep, call: Any) -> None:
    """Call a C function, whose status is checked after the steps."""
    status = np.zeros(1, np.int64)
    step.c_calls.append((call, status))
    arguments = [*call.arguments, *[0] * (len(ARGUMENTS) - len(call.arguments))]
    given = dict(zip(ARGUMENTS, arguments, strict=True))
    step.run(exchange, SimpleNamespace(), function=call.address, status=status, **given)
