"""Micro-batches: the same step in parts, where the device has no memory for a whole batch.

The gradients of the parts add up to that of the whole batch, dropout masks included, so that only
the rounding differs. (Smaller batches would be another training.) The first steps of a run ask for
all memory that the run needs. If one fails, its effects are undone and it is made in smaller parts.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from nnbackend.backend import Backend
from nnbackend.backend.base import BATCH
from nnbackend.backend.formulas import Array
from nnbackend.network.network import Network
from nnbackend.network.workspace import DropoutSource

if TYPE_CHECKING:
    from nnbackend.training.batching import BatchLoader
    from nnbackend.training.trainer import Trainer

T = TypeVar("T")
Steps = Callable[[int], None]

TRIALS = 2  # calls until the memory that a step needs is known

logger = logging.getLogger("nnbackend")


def halving(
    backend: Backend, most: int, attempt: Callable[[int], T], undo: Callable[[], None] | None = None
) -> tuple[T, int]:
    """Return attempt(most) and `most`, which is halved until the attempt finds memory.

    undo: restores what a failed attempt has changed.
    Raises: MemoryError, after undo, when not even one row finds memory.
    """
    while True:
        try:
            return attempt(most), most
        except MemoryError:
            if most == 1:
                if undo is not None:
                    undo()
                raise
        # Only now is the error gone, and with it the frames that held the attempt's arrays.
        backend.release_memory()
        if undo is not None:
            undo()
        most = -(-most // 2)


class Runs:
    """What makes the steps of a training run, by their rows; made at the first step of so many.

    The first calls may find no memory, of which one later has less than the first: scratch memory,
    a recording, steps on other rows have come to stay. They can be undone, and are then divided.
    It does not keep the trainer, which keeps it, so that the memory of a run is freed at its end.
    """

    def __init__(self) -> None:
        self._prepared: dict[int, Steps] = {}
        self._calls: Counter[int] = Counter()  # since the last of them was made

    def make(self, trainer: Trainer, rows: int, n: int) -> None:
        """Make n steps on `rows` rows each, in parts where the device has no memory for them.

        Raises: MemoryError when not even one row finds memory, or when it runs out after the first
        steps. The weights are then those before the failed step, and trainer.step_in_epoch counts
        the steps before it. (An update that itself runs out of memory may have changed some.)
        """
        while True:
            try:
                self._make(trainer, rows, n)
                return
            except MemoryError:
                done = int(trainer.backend.to_host(trainer.clock)[BATCH])
                is_unchanged = (
                    done < trainer.step_in_epoch
                )  # else the clock has counted the failed step
                trainer.step_in_epoch = max(trainer.step_in_epoch, done)
                if not (is_unchanged and self.can_divide(trainer)):
                    raise
            self.divide(trainer)

    def can_divide(self, trainer: Trainer) -> bool:
        """Return True if smaller parts would give memory back that steps keep now."""
        return trainer.rows_at_once > 1 and bool(self._prepared)

    def divide(self, trainer: Trainer) -> None:
        """Release the memory of all steps; later steps run in smaller parts."""
        self._prepared.clear()
        self._calls.clear()
        trainer.backend.release_memory()
        trainer.rows_at_once = -(-trainer.rows_at_once // 2)

    def _make(self, trainer: Trainer, rows: int, n: int) -> None:
        if self._calls[rows] >= TRIALS:
            self._prepared[rows](n)
            return
        backend, before = trainer.backend, min(rows, trainer.rows_at_once)
        kept = [(vector, backend.to_host(vector)) for vector in _changing(trainer)]
        held = [self._prepared.pop(rows)] if rows in self._prepared else []
        if not held:
            self._calls.clear()  # the others have less memory now

        def attempt(most: int) -> Steps:
            if held:
                made = held.pop()
            else:
                step = trainer.new_step(rows, most)
                is_whole = most == rows and not trainer.loader.is_sparse
                made = backend.capture(step) if is_whole else _one_by_one(step)
            made(n)
            return made

        def restore() -> None:
            for vector, host in kept:
                backend.to_device(host, out=vector)

        self._prepared[rows], at_once = halving(backend, before, attempt, restore)
        self._calls[rows] += 1
        if at_once < before:
            trainer.rows_at_once = at_once
            say_divided(backend, rows, at_once)


def say_divided(backend: Backend, rows: int, at_once: int) -> None:
    """Log that steps are made in parts from now on."""
    logger.warning(
        "%s has no memory for a batch of %d rows; a step makes it in parts of %d, whose "
        "gradients add up to the same", backend.device, rows, at_once,
    )  # fmt: skip


def new_divided_pass(
    net: Network, loader: BatchLoader, rows: int, most: int, *,
    grad: Array, clock: Array, totals: Array, dropout: DropoutSource | None,
) -> Callable[[], None]:  # fmt: skip
    """Return feed-forward, loss and backpropagation of `rows` rows, of at most so many at once.

        g = sum_i w_i g_i / sum_i w_i;  w_i the weight of part i, the number of its rows

    Shapes: as of the whole pass; every part's gradient goes through `grad` (P,).
    """
    backend, xp = net.backend, net.backend.xp
    layers, loss = net.for_training()
    firsts = range(0, rows, most)
    spaces: dict[int, Any] = {}
    for first in firsts:
        size = min(most, rows - first)
        if size not in spaces:
            batch = loader.new_part(size)
            space = net.workspace(batch.x, layers, grad=grad, dropout=dropout)
            spaces[size] = batch, space
    tiny = 0.0 if loader.weight is None else float(xp.finfo(grad.dtype).smallest_normal)
    total = backend.zeros((net.layout.size,), net.dtype)

    def compute() -> None:
        nonlocal grad, total  # the same arrays: an in-place operator assigns
        backend.fill(total, 0.0)
        weight: Array = 0.0
        for first in firsts:
            batch, space = spaces[min(most, rows - first)]
            for _, buffers in space.chain:
                buffers.first_row = first  # so that dropout draws the masks of these rows
            loader.load_part(batch, clock, first)
            out = space.forward()
            backend.loss_and_delta(loss, out, batch.y, batch.weight, space.out.delta, totals)
            space.backward()
            share = space.rows if batch.weight is None else xp.sum(batch.weight, keepdims=True)
            # In place: a temporary vector (P,) may be more than there is room for.
            grad *= share
            total += grad
            weight = weight + share
        total /= weight + tiny  # all weights of a batch may be 0
        backend.copy(total, grad)

    return compute


def _changing(trainer: Trainer) -> list[Array]:
    """Return what a step changes."""
    ema_weights = [] if trainer.ema_weights is None else [trainer.ema_weights]
    changing = [trainer.net.theta, *trainer.state.values(), *ema_weights]
    return [*changing, trainer.clock, trainer.totals]


def _one_by_one(step: Callable[[], None]) -> Steps:
    """Make steps without capturing them: parts would take memory, sparse rows use the host."""

    def run(n: int) -> None:
        for _ in range(n):
            step()

    return run
