"""The operations of a recorded step, each for the part of one worker.

An operation is a function of five int64: the address of its operands `ints` (addresses of arrays,
then sizes), the address of its operands `floats`, the worker, the number of workers, and the step
counted from the start of the run. Arrays are C-contiguous. Sizes alone determine each worker's
part, see `partitioning`; no two workers write to the same element.

`compiling` replaces `kind` (the dtype), `loop` and the other placeholders below.
Shape letters: B rows, I inputs, O outputs, P parameters.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined, no-any-return"

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from nnbackend_numba import caching, intrinsics, scalars
from nnbackend_numba.intrinsics import gemm, pointer, size_of

kind: Any = None  # np.float32 or np.float64
loop: Any = None  # a compiled loop of `loops`
coefficients: Any = None  # convert an array to the tuple that an update rule expects
constants: Any = None
source: Any = None  # the dtype of the rows that are gathered or scaled
SLOT = 8  # the distance of the workers' partial sums, each in its own cache line
_inline = numba.njit(forceinline=True, **scalars.FAST)


@_inline
def words(address, n):
    """Return the n int64 at an address."""
    return numba.carray(pointer(address), (n,), np.int64)


@_inline
def doubles(address, n):
    """Return the n float64 at an address."""
    return numba.carray(pointer(address), (n,), np.float64)


@_inline
def begin(n, worker, workers):
    """Return the first index of a worker's part of n items; the next worker's is its end."""
    return n * worker // workers


@_inline
def part_of(n, worker, workers):
    """Return a worker's part of n columns: whole cache lines, if the parts stay balanced."""
    if n % (16 * workers) != 0 and n < 1024 * workers:
        return begin(n, worker, workers), begin(n, worker + 1, workers)
    lines = (n + 15) // 16
    first, last = begin(lines, worker, workers) * 16, begin(lines, worker + 1, workers) * 16
    return first, min(last, n)


@_inline
def block_of(by_columns, rows, columns, worker, workers):
    """Return a worker's block of a matrix: rows from lo to hi, columns from first to last."""
    if by_columns:
        first, last = part_of(columns, worker, workers)
        return 0, rows, first, last
    return begin(rows, worker, workers), begin(rows, worker + 1, workers), 0, columns


@_inline
def vector(address, first, n, kind):
    """Return n numbers of an array, starting at element `first`."""
    return numba.carray(pointer(address + first * size_of(kind)), (n,), kind)


@_inline
def matrix(address, first, rows, columns, kind):
    """Return rows of a matrix, starting at row `first`."""
    start = address + first * columns * size_of(kind)
    return numba.carray(pointer(start), (rows, columns), kind)


@_inline
def take0(v, kind):
    """Return no numbers, as a tuple."""
    return ()


@_inline
def take1(v, kind):
    """Return one number."""
    return (kind(v[0]),)


@_inline
def take2(v, kind):
    """Return two numbers."""
    return (kind(v[0]), kind(v[1]))


@_inline
def take3(v, kind):
    """Return three numbers."""
    return (kind(v[0]), kind(v[1]), kind(v[2]))


TAKE = (take0, take1, take2, take3)

# ---- start of a step, by the first worker ---------------------------------------------------


def tick(ints, floats, worker, workers, step):
    """ints: clock, rates, hyper, steps of the epoch."""
    if worker == 0:
        i = words(ints, 4)
        rates = numba.carray(pointer(i[1]), (2, i[3]), np.float64)
        loop(words(i[0], 2), rates, doubles(i[2], 3))


# ---- rows ---------------------------------------------------------------------------------------


def gather(ints, floats, worker, workers, step):
    """ints: by columns, data, order, clock, out, rows of the data, B, columns, batch size."""
    i = words(ints, 9)
    lo, hi, first, last = block_of(i[0], i[6], i[7], worker, workers)
    data = matrix(i[1], 0, i[5], i[7], source)
    order, start = words(i[2], i[5]), words(i[3], 2)[1] * i[8] + lo
    loop(data, order, start, matrix(i[4], lo, hi - lo, i[7], kind), first, last)


def scale(ints, floats, worker, workers, step):
    """ints: by columns, rows, shift, factor, out, B, I.  floats: clip, or 0."""
    i = words(ints, 7)
    n_in, clip = i[6], doubles(floats, 1)[0]
    lo, hi, first, last = block_of(i[0], i[5], n_in, worker, workers)
    shift, factor = doubles(i[2], n_in), doubles(i[3], n_in)
    rows, out = matrix(i[1], lo, hi - lo, n_in, source), matrix(i[4], lo, hi - lo, n_in, kind)
    loop(rows, shift, factor, clip, out, first, last)


def forward(ints, floats, worker, workers, step):
    """z = x W + b, a = phi(z), own rows.  ints: gemm, x, W, b, z, a, B, I, O."""
    i = words(ints, 9)
    n_in, n_out, size = i[7], i[8], size_of(kind)
    lo, hi = begin(i[6], worker, workers), begin(i[6], worker + 1, workers)
    gemm(
        i[0], 0, 0, n_out, hi - lo, n_in, kind(1),
        i[2], n_out, i[1] + lo * n_in * size, n_in, i[4] + lo * n_out * size, n_out,
    )  # fmt: skip
    z, a = matrix(i[4], lo, hi - lo, n_out, kind), matrix(i[5], lo, hi - lo, n_out, kind)
    loop(z, vector(i[3], 0, n_out, kind), a, 0, n_out)


def forward_part(ints, floats, worker, workers, step):
    """Partial sums of x W over own columns of x.

    ints: gemm, x, W, parts (workers, B, O), B, I, O.
    """
    i = words(ints, 7)
    rows, n_in, n_out, size = i[4], i[5], i[6], size_of(kind)
    lo, hi = part_of(n_in, worker, workers)
    gemm(
        i[0], 0, 0, n_out, rows, hi - lo, kind(1),
        i[2] + lo * n_out * size, n_out, i[1] + lo * size, n_in,
        i[3] + worker * rows * n_out * size, n_out,
    )  # fmt: skip


def add_parts(ints, floats, worker, workers, step):
    """z = the sum of the parts, own block.  ints: by columns, parts, z, B, O."""
    i = words(ints, 5)
    rows, n_out = i[3], i[4]
    lo, hi, first, last = block_of(i[0], rows, n_out, worker, workers)
    parts = numba.carray(pointer(i[1]), (workers, rows, n_out), kind)
    loop(parts, lo, matrix(i[2], lo, hi - lo, n_out, kind), first, last)


def activate(ints, floats, worker, workers, step):
    """z += b, a = phi(z), own block.  ints: by columns, z, b, a, B, O."""
    i = words(ints, 6)
    lo, hi, first, last = block_of(i[0], i[4], i[5], worker, workers)
    z, a = matrix(i[1], lo, hi - lo, i[5], kind), matrix(i[3], lo, hi - lo, i[5], kind)
    loop(z, vector(i[2], 0, i[5], kind), a, first, last)


def slope(ints, floats, worker, workers, step):
    """delta *= phi'(z), own block.  ints: by columns, delta, z, a, B, O."""
    i = words(ints, 6)
    lo, hi, first, last = block_of(i[0], i[4], i[5], worker, workers)
    n, n_out = hi - lo, i[5]
    delta = matrix(i[1], lo, n, n_out, kind)
    loop(delta, matrix(i[2], lo, n, n_out, kind), matrix(i[3], lo, n, n_out, kind), first, last)


def input_gradient(ints, floats, worker, workers, step):
    """dx = delta W^T, own block.  ints: by columns, gemm, delta, W, dx, B, I, O."""
    i = words(ints, 8)
    n_in, n_out, size = i[6], i[7], size_of(kind)
    lo, hi, first, last = block_of(i[0], i[5], n_in, worker, workers)
    gemm(
        i[1], 1, 0, last - first, hi - lo, n_out, kind(1), i[3] + first * n_out * size, n_out,
        i[2] + lo * n_out * size, n_out, i[4] + (lo * n_in + first) * size, n_in,
    )  # fmt: skip


def maxout(ints, floats, worker, workers, step):
    """ints: z, a, which, B, K * O, O."""
    i = words(ints, 6)
    lo, hi = begin(i[3], worker, workers), begin(i[3], worker + 1, workers)
    n = hi - lo
    loop(
        matrix(i[0], lo, n, i[4], kind),
        matrix(i[1], lo, n, i[5], kind),
        matrix(i[2], lo, n, i[5], np.int32),
    )


def maxout_gradient(ints, floats, worker, workers, step):
    """ints: delta, which, dz, B, O, K * O."""
    i = words(ints, 6)
    lo, hi = begin(i[3], worker, workers), begin(i[3], worker + 1, workers)
    n = hi - lo
    loop(
        matrix(i[0], lo, n, i[4], kind),
        matrix(i[1], lo, n, i[4], np.int32),
        matrix(i[2], lo, n, i[5], kind),
    )


def dropout(ints, floats, worker, workers, step):
    """ints: x, a, mask, clock, seed, layer, first row, threshold, B, O.  floats: the scale."""
    i = words(ints, 10)
    lo, hi = begin(i[8], worker, workers), begin(i[8], worker + 1, workers)
    n = hi - lo
    loop(
        matrix(i[0], lo, n, i[9], kind),
        np.uint64(i[4]), np.uint64(i[5]), np.uint64(words(i[3], 2)[0]), np.uint64(i[6] + lo),
        np.uint64(i[7]), kind(doubles(floats, 1)[0]),
        matrix(i[1], lo, n, i[9], kind), matrix(i[2], lo, n, i[9], np.uint8),
    )  # fmt: skip


def dropout_gradient(ints, floats, worker, workers, step):
    """ints: da, mask, dx, B, O.  floats: the scale."""
    i = words(ints, 5)
    lo, hi = begin(i[3], worker, workers), begin(i[3], worker + 1, workers)
    n = hi - lo
    loop(
        matrix(i[0], lo, n, i[4], kind), matrix(i[1], lo, n, i[4], np.uint8),
        kind(doubles(floats, 1)[0]), matrix(i[2], lo, n, i[4], kind),
    )  # fmt: skip


def loss_of_labels(ints, floats, worker, workers, step):
    """ints: z, y, delta, partial sums, B, O.  floats: label smoothing."""
    i = words(ints, 6)
    lo, hi = begin(i[4], worker, workers), begin(i[4], worker + 1, workers)
    n = hi - lo
    doubles(i[3], SLOT * workers)[SLOT * worker] = loop(
        matrix(i[0], lo, n, i[5], kind), vector(i[1], lo, n, np.int32),
        kind(doubles(floats, 1)[0]), kind(1.0 / i[4]), matrix(i[2], lo, n, i[5], kind),
    )  # fmt: skip


def loss_of_elements(ints, floats, worker, workers, step):
    """ints: out, y, delta, partial sums, B, O."""
    i = words(ints, 6)
    lo, hi = begin(i[4], worker, workers), begin(i[4], worker + 1, workers)
    n = hi - lo
    doubles(i[3], SLOT * workers)[SLOT * worker] = loop(
        matrix(i[0], lo, n, i[5], kind), matrix(i[1], lo, n, i[5], kind),
        kind(1.0 / i[4]), matrix(i[2], lo, n, i[5], kind),
    )  # fmt: skip


# ---- parameters, layer by layer -----------------------------------------------------------------


def weight_gradient(ints, floats, worker, workers, step):
    """dW = x^T delta, own rows of W; db = sum of delta's rows, own units.

    ints: gemm, x, delta, dW, db, B, I, O.
    """
    i = words(ints, 8)
    rows, n_in, n_out, size = i[5], i[6], i[7], size_of(kind)
    lo, hi = part_of(n_in, worker, workers)
    if hi > lo:
        gemm(
            i[0], 0, 1, n_out, hi - lo, rows, kind(1),
            i[2], n_out, i[1] + lo * size, n_in, i[3] + lo * n_out * size, n_out,
        )  # fmt: skip
    first, last = part_of(n_out, worker, workers)
    loop(matrix(i[2], 0, rows, n_out, kind), vector(i[4], 0, n_out, kind), first, last)


def update(ints, floats, worker, workers, step):
    """Update a layer: own rows of W, then the biases of own units.

    ints: theta, gradient, first and second state, table, P, first index of W and of b, I, O.
    The table has a line for each step: 1 - rate * weight decay, then the rule's coefficients.
    floats: the rule's constants.
    """
    i = words(ints, 10)
    n, n_in, n_out = i[5], i[8], i[9]
    line = doubles(i[4] + step * 24, 3)
    c, p = coefficients(line[1:], kind), constants(doubles(floats, 3), kind)
    theta, g = vector(i[0], 0, n, kind), vector(i[1], 0, n, kind)
    s, r = vector(i[2], 0, n, kind), vector(i[3], 0, n, kind)
    lo, hi = part_of(n_in, worker, workers)
    loop(theta, g, s, r, c, p, kind(line[0]), i[6] + lo * n_out, i[6] + hi * n_out)
    first, last = part_of(n_out, worker, workers)
    loop(theta, g, s, r, c, p, kind(1), i[7] + first, i[7] + last)


def limit(ints, floats, worker, workers, step):
    """Max-norm of own columns.  ints: W, scratch (O,), I, O.  floats: the limit."""
    i = words(ints, 4)
    first, last = part_of(i[3], worker, workers)
    loop(
        matrix(i[0], 0, i[2], i[3], kind), kind(doubles(floats, 1)[0]),
        vector(i[1], 0, i[3], kind), first, last,
    )  # fmt: skip


# ---- parameters, as one vector ------------------------------------------------------------------


def penalty(ints, floats, worker, workers, step):
    """ints: weights, gradient, partial sums, n_weights.  floats: l1, l2."""
    i, f = words(ints, 4), doubles(floats, 2)
    lo, hi = begin(i[3], worker, workers), begin(i[3], worker + 1, workers)
    n = hi - lo
    doubles(i[2], SLOT * workers)[SLOT * worker] = loop(
        vector(i[0], lo, n, kind), vector(i[1], lo, n, kind), kind(f[0]), kind(f[1])
    )


def squares(ints, floats, worker, workers, step):
    """Sum own squares.  ints: vector, partial sums, P."""
    i = words(ints, 3)
    lo, hi = begin(i[2], worker, workers), begin(i[2], worker + 1, workers)
    doubles(i[1], SLOT * workers)[SLOT * worker] = loop(vector(i[0], lo, hi - lo, kind))


def shrink(ints, floats, worker, workers, step):
    """Clip to a norm.  ints: vector, partial sums of squares, P.  floats: the largest norm."""
    i, longest = words(ints, 3), doubles(floats, 1)[0]
    parts, square = doubles(i[1], SLOT * workers), 0.0
    for w in range(workers):
        square += parts[SLOT * w]
    norm = math.sqrt(square)
    if norm <= longest:
        return
    lo, hi = begin(i[2], worker, workers), begin(i[2], worker + 1, workers)
    loop(vector(i[0], lo, hi - lo, kind), kind(longest / norm))


def average(ints, floats, worker, workers, step):
    """Update a moving average.  ints: theta, ema_weights, hyper, P.  floats: its decay."""
    i = words(ints, 4)
    lo, hi = begin(i[3], worker, workers), begin(i[3], worker + 1, workers)
    t = doubles(i[2], 3)[2]
    move = kind(1.0 - min((1.0 + t) / (10.0 + t), doubles(floats, 1)[0]))
    loop(vector(i[0], lo, hi - lo, kind), vector(i[1], lo, hi - lo, kind), move)


# ---- sums over the workers, by the first --------------------------------------------------------


def add_up(ints, floats, worker, workers, step):
    """totals[slot] += factor * sum.  ints: totals, slot, partial sums.  floats: the factor."""
    if worker == 0:
        i, total = words(ints, 3), 0.0
        parts = doubles(i[2], SLOT * workers)
        for w in range(workers):
            total += parts[SLOT * w]
        doubles(i[0], 4)[i[1]] += doubles(floats, 1)[0] * total


def add(ints, floats, worker, workers, step):
    """totals[slot] += number.  ints: totals, slot.  floats: the number."""
    if worker == 0:
        i = words(ints, 2)
        doubles(i[0], 4)[i[1]] += doubles(floats, 1)[0]


# ---- the loop over steps ------------------------------------------------------------------------


@caching.jit
def barrier(state, workers, give_way):
    """Wait for all workers. state: the address of a counter; 64 bytes further, of the round."""
    now = intrinsics.atomic_load(state + 64)
    if intrinsics.fetch_add(state, 1) == workers - 1:
        intrinsics.atomic_store(state, 0)
        intrinsics.fetch_add(state + 64, 1)
        return
    spins = 0
    while intrinsics.atomic_load(state + 64) == now:
        spins += 1
        if spins > 4000:  # a worker has lost its core: yield this one
            intrinsics.call_plain(give_way)


@caching.jit
def make_steps(table, steps, worker, workers, state, give_way):
    """Run a worker's part of steps. table: (n, 3) operation, ints, floats; operation 0: barrier."""
    for step in range(steps):
        for k in range(table.shape[0]):
            if table[k, 0] != 0:
                intrinsics.call_operation(
                    table[k, 0], table[k, 1], table[k, 2], worker, workers, step
                )
            else:
                barrier(state, workers, give_way)


@caching.jit
def make_all_shares(table, steps, workers):
    """Run the parts of all workers of some steps on one thread, with the same results."""
    for step in range(steps):
        first = 0
        while first < table.shape[0]:
            state = first
            while state < table.shape[0] and table[state, 0] != 0:
                state += 1
            for worker in range(workers):
                for k in range(first, state):
                    intrinsics.call_operation(
                        table[k, 0], table[k, 1], table[k, 2], worker, workers, step
                    )
            first = state + 1
