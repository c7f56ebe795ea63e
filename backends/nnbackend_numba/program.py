"""A recorded step as a program: a table of compiled operations, carried out by a team of threads.

No Python runs between the kernels of a step, nor between steps. Each worker of the team takes its
share of every operation, and they wait for each other a few times in a step. Matrix products are
SciPy's BLAS, on one thread for each worker.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np

from nnbackend.backend.base import BATCH, COUNT, MOMENTUM, RATE, STEP
from nnbackend_numba.assembly import STEPS_AT_ONCE, Assembly
from nnbackend_numba.intrinsics import yield_address
from nnbackend_numba.operations import make_all_shares, make_steps
from nnbackend_numba.recorder import Call
from nnbackend_numpy import threads

# Multiplications in a step for which it is worth sharing with one worker more; and in the steps of
# a run for which it is worth waking the others, half a millisecond where their processors sleep.
WORK_OF_ONE = 1 << 17
WORK_OF_A_RUN = 1 << 24


class Program:
    """The operations of one step, ready to be carried out any number of times.

    Raises: NotRecordable for a call that no operation stands for.
    """

    def __init__(self, calls: Sequence[Call], most_workers: int) -> None:
        self._step = Assembly(calls, most_workers)
        fair = 1 + self._step.multiplications // WORK_OF_ONE
        self.workers = max(1, min(most_workers, fair))

    def run(self, n: int) -> None:
        """Make n steps."""
        with threads.one_each():
            for done in range(0, n, STEPS_AT_ONCE):
                steps = min(STEPS_AT_ONCE, n - done)
                self._work_out_coefficients(steps)
                self._run_on_workers(steps)

    def _work_out_coefficients(self, n: int) -> None:
        """Write down what the update rule needs in each of the next n steps."""
        step = self._step
        if step.rule is None:
            return
        if step.clock is None:
            rates, momenta, counts = (np.full(n, step.hyper[k]) for k in (RATE, MOMENTUM, COUNT))
        else:
            first = int(step.clock[BATCH]) + 1
            rates, momenta = step.rates[:, first : first + n]
            counts = np.arange(1.0, n + 1.0) + int(step.clock[STEP])
        lines = step.coefficients[:n]
        lines[:, 0] = 1.0 - rates * step.weight_decay
        if step.rule.kernel is not None:
            for k, value in enumerate(step.rule.coefficients(rates, momenta, counts), 1):
                lines[:, k] = value
            return
        for line, *given in zip(lines, rates, momenta, counts, strict=True):  # a user's own
            own = step.rule.coefficients(*given)
            line[1 : len(own) + 1] = own

    def _run_on_workers(self, steps: int) -> None:
        """Let every worker make its share of some steps; this thread is the first of them.

        Where they are not worth waking, or cannot be had, it makes the shares of all.
        """
        table, workers = self._step.table, self.workers
        if workers == 1 or steps * self._step.multiplications < WORK_OF_A_RUN:
            make_all_shares(table, steps, workers)
            return
        barrier, give_way = np.zeros(16, np.int64), yield_address()
        barrier_address = barrier.ctypes.data
        all_are_asked, workers_asked = threading.Event(), list[Future[None]]()

        def join_in(worker: int) -> None:
            all_are_asked.wait()
            if len(workers_asked) == workers - 1:
                make_steps(table, steps, worker, workers, barrier_address, give_way)

        try:
            workers_asked.extend(_pool().submit(join_in, w) for w in range(1, workers))
        except RuntimeError:  # the system has no more threads
            _pool.cache_clear()  # the executor has lost count of its own
        all_are_asked.set()
        if len(workers_asked) == workers - 1:
            make_steps(table, steps, 0, workers, barrier_address, give_way)
        else:
            make_all_shares(table, steps, workers)
        for future in workers_asked:
            future.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """Return where workers wait for their next steps.

    To wake one takes a tenth of the time that a new thread does. There is one for everybody, as
    members of a team wait for each other.
    """
    return ThreadPoolExecutor(max_workers=1 << 16, thread_name_prefix="nnbackend")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
