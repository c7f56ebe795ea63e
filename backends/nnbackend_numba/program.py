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
from nnbackend.backend.formulas import Array
from nnbackend_numba import caching, intrinsics
from nnbackend_numba.assembly import STEPS_AT_ONCE, Assembly
from nnbackend_numba.intrinsics import yield_address
from nnbackend_numba.panels import aligned
from nnbackend_numba.recorder import Call

# Multiplications per step that justify one more worker; and per run that justify waking the other
# workers, which takes half a millisecond if their cores sleep.
WORK_PER_WORKER = 1 << 17
MIN_PARALLEL_WORK = 1 << 24


class Program:
    """The operations of one step, which `run` repeats any number of times.

    Raises: NotRecordable for a call without an operation.
    """

    def __init__(self, calls: Sequence[Call], most_workers: int) -> None:
        self._multiplications = sum(map(_multiplications, calls))
        fair = 1 + self._multiplications // WORK_PER_WORKER
        self.workers = max(1, min(most_workers, fair))
        self._step = Assembly(calls, self.workers)

    def run(self, n: int) -> None:
        """Run n steps."""
        for done in range(0, n, STEPS_AT_ONCE):
            steps = min(STEPS_AT_ONCE, n - done)
            self._fill_coefficients(steps)
            self._run_on_workers(steps)

    def _fill_coefficients(self, n: int) -> None:
        """Store the coefficients of the update rule for each of the next n steps."""
        tick, update = self._step.tick, self._step.update
        if update is None:
            return
        if tick is None:
            rates, momenta, counts = (np.full(n, update.hyper[k]) for k in (RATE, MOMENTUM, COUNT))
        else:
            first = int(tick.clock[BATCH]) + 1
            rates, momenta = tick.rates[:, first : first + n]
            counts = np.arange(1.0, n + 1.0) + int(tick.clock[STEP])
        lines = self._step.coefficient_table[:n]
        lines[:, 0] = 1.0 - rates * update.weight_decay
        if update.rule.kernel is not None:
            for k, value in enumerate(update.rule.coefficients(rates, momenta, counts), 1):
                lines[:, k] = value
            return
        for line, *arguments in zip(lines, rates, momenta, counts, strict=True):  # a custom rule
            line[1:] = update.rule.coefficients(*arguments)

    def _run_on_workers(self, steps: int) -> None:
        """Run some steps on all workers, of which this thread is the first.

        This thread computes all parts if there is too little work, or if threads cannot start.
        """
        table, last, workers = self._step.table, self._step.last_table, self.workers
        if workers == 1 or steps * self._multiplications < MIN_PARALLEL_WORK:
            make_all_shares(table, last, steps, workers)
            return
        turns, yield_function = aligned((workers, 8), np.int64), yield_address()
        all_submitted, futures = threading.Event(), list[Future[None]]()

        def run_worker(worker: int) -> None:
            all_submitted.wait()
            if len(futures) == workers - 1:
                make_steps(table, last, steps, worker, workers, turns.ctypes.data, yield_function)

        try:
            futures.extend(_executor().submit(run_worker, w) for w in range(1, workers))
        except RuntimeError:  # the system has no more threads
            _executor.cache_clear()  # the executor's count of its threads is wrong now
        all_submitted.set()
        if len(futures) == workers - 1:
            make_steps(table, last, steps, 0, workers, turns.ctypes.data, yield_function)
        else:
            make_all_shares(table, last, steps, workers)
        for future in futures:
            future.result()


def _multiplications(call: Call) -> int:
    """Return the number of multiplications in a kernel's matrix products."""
    if call.kernel not in ("dense_forward", "dense_backward"):
        return 0
    products = 1 if call.kernel == "dense_forward" or call.arguments.get("dx") is None else 2
    rows: int = call.arguments["x"].shape[0]
    return products * rows * int(call.arguments["W"].size)


@caching.jit
def barrier(state: int, turn: int, worker: int, workers: int, give_way: int) -> None:
    """Wait for all workers. state: the address of their turns, each in a cache line of its own.

    A worker writes only its own turn, which takes one transfer between cores; a common counter
    takes two for each worker.
    """
    intrinsics.atomic_store(state + 64 * worker, turn)
    for other in range(workers):
        spins = 0
        while intrinsics.atomic_load(state + 64 * other) < turn:
            spins += 1
            if spins > 4000:  # a worker has lost its core: yield this one
                intrinsics.call_plain(give_way)


@caching.jit
def make_steps(
    table: Array, last: Array, steps: int, worker: int, workers: int, state: int, give_way: int
) -> None:
    """Run a worker's part of steps.

    table: (n, 2) operation, words; operation 0: barrier. last: the same for the last step.
    """
    turn = 0
    for step in range(steps):
        lines = table if step < steps - 1 else last
        for k in range(lines.shape[0]):
            if lines[k, 0] != 0:
                intrinsics.call_operation(lines[k, 0], lines[k, 1], worker, workers, step)
            else:
                turn += 1
                barrier(state, turn, worker, workers, give_way)


@caching.jit
def make_all_shares(table: Array, last: Array, steps: int, workers: int) -> None:
    """Run the parts of all workers of some steps on one thread, with the same results."""
    for step in range(steps):
        lines, first = table if step < steps - 1 else last, 0
        while first < lines.shape[0]:
            state = first
            while state < lines.shape[0] and lines[state, 0] != 0:
                state += 1
            for worker in range(workers):
                for k in range(first, state):
                    intrinsics.call_operation(lines[k, 0], lines[k, 1], worker, workers, step)
            first = state + 1


@cache
def _executor() -> ThreadPoolExecutor:
    """Return the thread pool of all programs.

    Waking a waiting thread takes a tenth of the time of starting one. The pool has no effective
    limit: a queued worker would block the others of its program at a barrier.
    """
    return ThreadPoolExecutor(max_workers=1 << 16, thread_name_prefix="nnbackend")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_executor.cache_clear)
