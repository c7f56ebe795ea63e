"""The steps of an epoch: captured for each batch size, and run in short bursts.

The first calls of a step allocate memory: scratch arrays, a recording, steps of other sizes. A call
that fails is undone and repeated in smaller parts.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnbackend.backend.base import BATCH, STEP
from nnbackend.backend.formulas import Array
from nnbackend.errors import ArgumentError
from nnbackend.network.network import Network
from nnbackend.training.batching import BatchLoader, batch_sizes, epoch_order
from nnbackend.training.config import TrainConfig
from nnbackend.training.micro_batches import halving, log_divided, uncaptured
from nnbackend.training.ranks import Ranks
from nnbackend.training.schedules import ScheduleContext, values_of
from nnbackend.training.state import TrainState
from nnbackend.training.step import StepBuilder

Steps = Callable[[int], None]

TRIALS = 2  # calls until a step has allocated all the memory that it needs
POLL_INTERVAL_SECONDS = 0.1  # target time of a burst, between two checks for Ctrl-C


class StepRunner:
    """Runs the steps of an epoch of gradient descent.

    It stores no reference to the trainer, so that the memory of a run is freed at its end.
    rows_at_once: rows of a part of a step; reduced when the device runs out of memory.
    burst: steps until `run_epoch` yields; it adapts the number to `POLL_INTERVAL_SECONDS`.
    first_step_end: when the run's first step, which compiles kernels, had ended.
    """

    def __init__(
        self, net: Network, loader: BatchLoader, config: TrainConfig, state: TrainState,
        ranks: Ranks | None = None,
    ) -> None:  # fmt: skip
        self.loader, self.config, self.state, self.ranks = loader, config, state, ranks
        self.backend, self.builder = net.backend, StepBuilder(net, loader, config, state, ranks)
        self.rows_at_once = loader.batch_size
        self.first_step_end = 0.0
        self.burst = 1  # steps
        self._prepared: dict[int, Steps] = {}
        self._calls: Counter[int] = Counter()  # of each size, since a step was last added
        self._rates = self.new_rates()  # raises for an invalid schedule before the first epoch

    # ---- an epoch ---------------------------------------------------------------------------

    def run_epoch(self) -> Iterator[None]:
        """Run the remaining steps of the epoch; yield after each burst of steps."""
        self._begin_epoch()
        state, sums = self.state, self.state.sums
        skipped = state.step_in_epoch  # above 0 when an interrupted epoch is resumed
        for count, rows in batch_sizes(self.loader.n, self.loader.batch_size):
            left = max(count - skipped, 0)
            skipped = max(skipped - count, 0)
            while left:
                begin = time.perf_counter()
                n = min(self.burst, left, sums.every - state.step_in_epoch % sums.every)
                self.run_steps(rows, n)
                self.backend.synchronize()
                left, now = left - n, time.perf_counter()
                state.step_in_epoch += n
                if state.step_in_epoch % sums.every == 0:
                    sums.flush()
                if state.epoch == 0 and state.step_in_epoch == 1:
                    self.first_step_end = now
                target = max(1, round(n * POLL_INTERVAL_SECONDS / max(now - begin, 1e-9)))
                self.burst = min(target, 2 * self.burst)
                if self.ranks is not None:
                    self.burst = self.ranks.agree(self.burst)
                yield

    def _begin_epoch(self) -> None:
        """Set the order of the rows, the learning rates and the clock of the epoch."""
        backend, state, config = self.backend, self.state, self.config
        self._rates = self.new_rates()
        rates = self._rates.astype(backend.sum_dtype, copy=False)
        backend.to_device(rates, out=self.builder.rates)
        clock = np.zeros(2, np.int64)
        clock[STEP], clock[BATCH] = state.step, state.step_in_epoch - 1
        backend.to_device(clock, out=state.clock)
        order = epoch_order(self.loader.n, config.seed, state.epoch, config.shuffle)
        self.loader.begin_epoch(order)
        if not state.step_in_epoch:
            state.sums.clear()

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self._rates[0, max(self.state.step_in_epoch - 1, 0)])

    def new_rates(self) -> np.ndarray:
        """Return the learning rate and the momentum of each step of this epoch: (2, steps)."""
        config, state = self.config, self.state
        steps = np.arange(state.steps_per_epoch, dtype=np.float64) + state.steps_done
        context = ScheduleContext(steps, state.steps_per_epoch, config.epochs, state.history.costs)
        rule = config.optimizer
        lr = _rates(config.schedule, rule.learning_rate, context, math.inf)
        return np.stack([lr, _rates(config.momentum_schedule, rule.momentum, context, 1.0)])

    # ---- steps that may run out of memory ---------------------------------------------------

    def run_steps(self, rows: int, n: int) -> None:
        """Run n steps on `rows` rows each, in parts when the device has no memory for all rows.

        Raises: MemoryError when one row does not fit, or when memory runs out after the first
        steps. The weights are then those before the failed step, and state.step_in_epoch counts
        the steps before it. (An update that itself runs out of memory may have changed some.)
        """
        while True:
            try:
                self._run_steps(rows, n)
                return
            except MemoryError:
                done = int(self.backend.to_host(self.state.clock)[BATCH])
                # Otherwise the clock has counted the failed step.
                is_unchanged = done < self.state.step_in_epoch
                self.state.step_in_epoch = max(self.state.step_in_epoch, done)
                if not (is_unchanged and self.can_free_memory()):
                    raise
            self.free_memory()

    def can_free_memory(self) -> bool:
        """Return True if smaller parts would free memory that the steps occupy."""
        return self.rows_at_once > 1 and bool(self._prepared)

    def free_memory(self) -> None:
        """Release the memory of all steps; later steps run in smaller parts."""
        self._prepared.clear()
        self._calls.clear()
        self.backend.release_memory()
        self.rows_at_once = -(-self.rows_at_once // 2)
        log_divided(self.backend, self.loader.batch_size, self.rows_at_once)

    def _run_steps(self, rows: int, n: int) -> None:
        if self._calls[rows] >= TRIALS:
            self._prepared[rows](n)
            return
        backend, before = self.backend, min(rows, self.rows_at_once)
        saved = [(vector, backend.to_host(vector)) for vector in self._changed_by_step()]
        existing = [self._prepared.pop(rows)] if rows in self._prepared else []
        if not existing:
            self._calls.clear()  # less memory is left for the other steps

        def attempt(most: int) -> Steps:
            if existing:
                steps = existing.pop()
            else:
                step = self.builder.new_step(rows, most)
                is_whole = most == rows and not self.loader.is_gathered
                can_capture = is_whole and (self.ranks is None or backend.captures_exchanges)
                steps = backend.capture(step) if can_capture else uncaptured(step)
            steps(n)
            return steps

        def restore() -> None:
            for vector, host in saved:
                backend.to_device(host, out=vector)

        self._prepared[rows], at_once = halving(backend, before, attempt, restore)
        self._calls[rows] += 1
        if at_once < before:
            self.rows_at_once = at_once
            log_divided(backend, rows, at_once)

    def _changed_by_step(self) -> list[Array]:
        vectors = {n: vector for n, vector in self.state.vectors().items() if n != "best"}
        return [self.state.theta, self.state.clock, *vectors.values()]


def _rates(schedule: Any, base: float, context: ScheduleContext, below: float) -> np.ndarray:
    """Return a schedule's validated value for each step."""
    values = values_of(schedule, base, context)
    if values.shape != context.step.shape or not ((values >= 0) & (values < below)).all():
        raise ArgumentError(
            "a schedule must return one finite number, at least 0, for each step"
            f"{f', below {below:g} for a momentum' if below == 1.0 else ''}. "
            f"Received: {schedule!r}, which returned {values!r}."
        )
    return values
