"""A recorded step as a program: a table of compiled operations, which workers execute.

No Python runs between the kernels of a step, nor between steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnbackend.backend.base import BATCH, COUNT, MOMENTUM, RATE, STEP
from nnbackend_numba.assembly import STEPS_AT_ONCE, Assembly
from nnbackend_numba.recorder import Call
from nnbackend_numba.workers import Workers

# Multiplications per step that justify one more worker; and per run that justify waking the other
# workers, which takes half a millisecond if their cores sleep.
WORK_PER_WORKER = 1 << 17
MIN_PARALLEL_WORK = 1 << 24


class Program:
    """The operations of one step, which `run` repeats any number of times.

    Raises: NotRecordable for a call without an operation.
    """

    def __init__(self, calls: Sequence[Call], most_workers: int, is_narrow: bool = False) -> None:
        self._multiplications = sum(map(_multiplications, calls))
        fair = 1 + self._multiplications // WORK_PER_WORKER
        self.workers = max(1, min(most_workers, fair))
        self._step = Assembly(calls, self.workers, is_narrow)
        self._workers = Workers(self.workers)

    def run(self, n: int) -> None:
        """Run n steps. Raises: the error of a C function that they call."""
        for done in range(0, n, STEPS_AT_ONCE):
            steps = min(STEPS_AT_ONCE, n - done)
            self._fill_coefficients(steps)
            is_worth_it = steps * self._multiplications >= MIN_PARALLEL_WORK
            self._workers.run(self._step.table, self._step.last_table, steps, is_worth_it)
            for call, status in self._step.c_calls:
                if status[0]:
                    raise call.error(int(status[0]))

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


def _multiplications(call: Call) -> int:
    """Return the number of multiplications in a kernel's matrix products."""
    if call.kernel not in ("dense_forward", "dense_backward"):
        return 0
    products = 1 if call.kernel == "dense_forward" or call.arguments.get("dx") is None else 2
    rows: int = call.arguments["x"].shape[0]
    return products * rows * int(call.arguments["W"].size)
