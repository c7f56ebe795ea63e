"""Workers: threads that execute a program's table of operations.

Each worker computes its part of every operation; a few barriers per step synchronize them. So one
worker that loses its core delays all. The time of steps is therefore measured, and one thread
computes all parts, with the same results, for as long as that is faster.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_numba import caching, intrinsics
from nnbackend_numba.intrinsics import yield_address
from nnbackend_numba.panels import aligned

SLICE_SECONDS = 0.02  # of steps between two measurements
SLICES_TOGETHER = 3  # before one thread is tried, so that its time is known
# Slices on one thread before all workers are tried again: 1, then twice as many each time that they
# are still slower.
MOST_SLICES_ALONE = 32


class Workers:
    """The workers of a program, and the present time of their steps.

    n: their number, into which every operation is divided.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._seconds: dict[bool, float] = {}  # of a step in the last slice, by `_is_alone`
        self._is_alone, self._slices = False, 0  # how many since that changed
        self._slices_alone = 1  # before all workers are tried again

    def run(self, table: Array, last: Array, steps: int, is_worth_it: bool) -> None:
        """Run steps. last: the table of the last one. is_worth_it: for more than one thread."""
        if self.n == 1 or not is_worth_it:
            make_all_shares(table, last, 0, steps, self.n)
            return
        done = 0
        while done < steps:
            known = self._seconds.get(not self._is_alone, SLICE_SECONDS)
            per_step = self._seconds.get(self._is_alone, known)
            n, left = max(1, round(SLICE_SECONDS / max(per_step, 1e-9))), steps - done
            n = left if left < 1.5 * n else n  # no short slice, whose start would count
            begin = time.perf_counter()
            if self._is_alone or not self._run_together(table, last, done, n):
                make_all_shares(table, last, done, n, self.n)
            self._note((time.perf_counter() - begin) / n)
            done += n

    def _note(self, seconds: float) -> None:
        """Note what a step of a slice took, and choose the threads of the next one."""
        self._seconds[self._is_alone] = seconds
        self._slices += 1
        other = self._seconds.get(not self._is_alone)
        is_slower = other is not None and seconds > other
        if self._is_alone:
            changes = is_slower or self._slices >= self._slices_alone
        elif other is None:
            changes = self._slices >= SLICES_TOGETHER
        else:
            changes = is_slower
            longer = min(2 * self._slices_alone, MOST_SLICES_ALONE)
            self._slices_alone = longer if is_slower and self._slices == 1 else 1
        if changes:
            self._is_alone, self._slices = not self._is_alone, 0

    def _run_together(self, table: Array, last: Array, start: int, steps: int) -> bool:
        """Run steps on all workers, of which this thread is the first.

        Return False, having done nothing, if threads cannot start.
        """
        workers, turns = self.n, aligned((self.n, 8), np.int64)
        state, give_way = turns.ctypes.data, yield_address()
        all_submitted, futures = threading.Event(), list[Future[None]]()

        def run_worker(worker: int) -> None:
            all_submitted.wait()
            if len(futures) == workers - 1:
                make_steps(table, last, start, steps, worker, workers, state, give_way)

        try:
            futures.extend(_executor().submit(run_worker, w) for w in range(1, workers))
        except RuntimeError:  # the system has no more threads
            _executor.cache_clear()  # the executor's count of its threads is wrong now
        all_submitted.set()
        is_complete = len(futures) == workers - 1
        if is_complete:
            make_steps(table, last, start, steps, 0, workers, state, give_way)
        for future in futures:
            future.result()
        return is_complete


def in_threads(n: int, compute: Callable[[int], None]) -> None:
    """Call compute(0) to compute(n - 1) at once, in this thread and others, or one by one."""
    futures = list[Future[None]]()
    try:
        futures.extend(_executor().submit(compute, k) for k in range(1, n))
    except RuntimeError:  # the system has no more threads
        _executor.cache_clear()
    for k in (0, *range(1 + len(futures), n)):
        compute(k)
    for future in futures:
        future.result()


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
    table: Array,
    last: Array,
    start: int,
    steps: int,
    worker: int,
    workers: int,
    state: int,
    give_way: int,
) -> None:
    """Run a worker's part of steps, of which the first is step `start` of the run.

    table: (n, 2) operation, words; operation 0: barrier. last: the same for the last step.
    """
    turn = 0
    for step in range(start, start + steps):
        lines = table if step < start + steps - 1 else last
        for k in range(lines.shape[0]):
            if lines[k, 0] != 0:
                intrinsics.call_operation(lines[k, 0], lines[k, 1], worker, workers, step)
            else:
                turn += 1
                barrier(state, turn, worker, workers, give_way)


@caching.jit
def make_all_shares(table: Array, last: Array, start: int, steps: int, workers: int) -> None:
    """Run the parts of all workers of some steps on one thread, with the same results."""
    for step in range(start, start + steps):
        lines, first = table if step < start + steps - 1 else last, 0
        while first < lines.shape[0]:
            end = first
            while end < lines.shape[0] and lines[end, 0] != 0:
                end += 1
            for worker in range(workers):
                for k in range(first, end):
                    intrinsics.call_operation(lines[k, 0], lines[k, 1], worker, workers, step)
            first = end + 1


@cache
def _executor() -> ThreadPoolExecutor:
    """Return the thread pool of all programs.

    Waking a waiting thread takes a tenth of the time of starting one. The pool has no effective
    limit: a queued worker would block the others of its program at a barrier.
    """
    return ThreadPoolExecutor(max_workers=1 << 16, thread_name_prefix="nnbackend")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_executor.cache_clear)
