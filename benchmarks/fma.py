"""The peak of the cores: fused multiply-adds of whole vector registers, without memory accesses.

The function `peak` runs in a worker of `nnbackend.bench`. All threads compute x = x f + d at once,
each on as many registers as a tile of `nnbackend_numba.tiles` has for its sums: enough independent
instructions to keep all units busy.
"""
# numba reads an intrinsic's signature from its body, so it has no type annotations.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return, no-untyped-call"

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from nnbackend.bench.worker import Answer, sample
from nnbackend.machine import usable_cpus

ROUNDS = 100_000  # of the loop, in one call
FACTOR, ADDEND = np.float32(0.5), np.float32(1.0)  # x converges to 2: no overflow, no denormals


@cache
def compiled() -> tuple[Any, int]:
    """Return the loop, f(rounds, factor, addend, address of one vector), and its flops per round.

    The vector receives the sum of all registers, so that no part of the work is superfluous.
    """
    from llvmlite import ir
    from numba import njit, types
    from numba.extending import intrinsic

    from nnbackend_numba.tiles import FUSED, I32, I64, PAIR, lanes, register

    n_lanes, n_sums = lanes("float32"), PAIR * register()[1]
    kind = ir.VectorType(ir.FloatType(), n_lanes)

    @intrinsic
    def repeat(typingctx, rounds, factor, addend, to):
        def generate(context, build, signature, args):
            rounds, *numbers, to = args
            factor, addend = (_in_all_lanes(build, kind, number) for number in numbers)
            before, loop, after = build.block, *(build.append_basic_block() for _ in "12")
            build.branch(loop)
            build.position_at_end(loop)
            count, sums = build.phi(I64), [build.phi(kind) for _ in range(n_sums)]
            first = [I64(0), *(ir.Constant(kind, [float(i)] * n_lanes) for i in range(n_sums))]
            done = build.add(count, I64(1))
            later = [
                build.fadd(build.fmul(x, factor, flags=FUSED), addend, flags=FUSED) for x in sums
            ]
            for phi, old, new in zip([count, *sums], first, [done, *later], strict=True):
                phi.add_incoming(old, before)
                phi.add_incoming(new, loop)
            build.cbranch(build.icmp_signed("<", done, rounds), loop, after)
            build.position_at_end(after)
            total = later[0]
            for x in later[1:]:
                total = build.fadd(total, x)
            build.store(total, build.inttoptr(to, kind.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.float32, types.float32, types.int64), generate

    def _in_all_lanes(build: Any, kind: Any, number: Any) -> Any:
        undefined = ir.Constant(kind, ir.Undefined)
        vector = build.insert_element(undefined, number, I32(0))
        places = ir.Constant(ir.VectorType(I32, n_lanes), [0] * n_lanes)
        return build.shuffle_vector(vector, undefined, places)

    signature = types.void(types.int64, types.float32, types.float32, types.int64)

    @njit(signature, nogil=True)
    def loop(rounds, factor, addend, to):
        repeat(rounds, factor, addend, to)

    return loop, 2 * n_lanes * n_sums


def peak(seconds: float) -> Answer:
    """Return the rate of float32 multiply-adds in GFLOP/s, with all threads of this process."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or len(usable_cpus())
    loop, flops = compiled()
    results = np.zeros((threads, 64), np.float32)

    with ThreadPoolExecutor(threads) as pool:

        def work(times: int) -> None:
            calls = [
                pool.submit(loop, times * ROUNDS, FACTOR, ADDEND, row.ctypes.data)
                for row in results
            ]
            for call in calls:
                call.result()

        work(1)
        best = min(sample(work, seconds))
    return {"gflops": 1e-9 * threads * ROUNDS * flops / best, "threads": threads}
