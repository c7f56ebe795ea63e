"""A recorded step as a program: a table of compiled operations, which worker threads execute.

No Python runs between the kernels of a step, nor between steps. Each worker computes its part of
every operation; a few barriers per step synchronize the workers. SciPy's BLAS computes the matrix
products, on one thread per worker.
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

# Multiplications per step that justify one more worker; and per run that justify waking the other
# workers, which takes half a millisecond if their cores sleep.
WORK_PER_WORKER = 1 << 17
MIN_PARALLEL_WORK = 1 << 24


class Program:
    """The operations of one step, which `run` repeats any number of times.

    Raises: NotRecordable for a call without an operation.
    """

    def __init__(self, calls: Sequence[Call], most_workers: int) -> None:
        self._step = Assembly(calls, most_workers)
        fair = 1 + self._step.multiplications // WORK_PER_WORKER
        self.workers = max(1, min(most_workers, fair))

    def run(self, n: int) -> None:
        """Run n steps."""
        with threads.one_each():
            for done in range(0, n, STEPS_AT_ONCE):
                steps = min(STEPS_AT_ONCE, n - done)
                self._fill_coefficients(steps)
                self._run_on_workers(steps)

    def _fill_coefficients(self, n: int) -> None:
        """Store the coefficients of the update rule for each of the next n steps."""
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
        for line, *arguments in zip(lines, rates, momenta, counts, strict=True):  # a custom rule
            values = step.rule.coefficients(*arguments)
            line[1 : len(values) + 1] = values

    def _run_on_workers(self, steps: int) -> None:
        """Run some steps on all workers, of which this thread is the first.

        This thread computes all parts if there is too little work, or if threads cannot start.
        """
        table, workers = self._step.table, self.workers
        if workers == 1 or steps * self._step.multiplications < MIN_PARALLEL_WORK:
            make_all_shares(table, steps, workers)
            return
        barrier, yield_function = np.zeros(16, np.int64), yield_address()
        barrier_address = barrier.ctypes.data
        all_submitted, futures = threading.Event(), list[Future[None]]()

        def run_worker(worker: int) -> None:
            all_submitted.wait()
            if len(futures) == workers - 1:
                make_steps(table, steps, worker, workers, barrier_address, yield_function)

        try:
            futures.extend(_executor().submit(run_worker, w) for w in range(1, workers))
        except RuntimeError:  # the system has no more threads
            _executor.cache_clear()  # the executor's count of its threads is wrong now
        all_submitted.set()
        if len(futures) == workers - 1:
            make_steps(table, steps, 0, workers, barrier_address, yield_function)
        else:
            make_all_shares(table, steps, workers)
        for future in futures:
            future.result()


@cache
def _executor() -> ThreadPoolExecutor:
    """Return the thread pool of all programs.

    Waking a waiting thread takes a tenth of the time of starting one. The pool has no effective
    limit: a queued worker would block the others of its program at a barrier.
    """
    return ThreadPoolExecutor(max_workers=1 << 16, thread_name_prefix="nnbackend")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_executor.cache_clear)
