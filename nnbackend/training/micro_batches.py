"""Micro-batches: run a step in parts when the device has no memory for a whole batch.

The gradients of the parts add up to that of the whole batch, with the same dropout masks, so only
the rounding differs. (Smaller batches would change the training.) The first steps allocate all
memory that the run needs. If one fails, its effects are undone and it runs again in smaller parts.
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

TRIALS = 2  # calls until a step has allocated all the memory that it needs

logger = logging.getLogger("nnbackend")


def halving(
    backend: Backend, most: int, attempt: Callable[[int], T], undo: Callable[[], None] | None = None
) -> tuple[T, int]:
    """Return attempt(most) and `most`, halved until the attempt raises no MemoryError.

    undo: restores what a failed attempt has changed.
    Raises: MemoryError, after undo, when attempt(1) raises it.
    """
    while True:
        try:
            return attempt(most), most
        except MemoryError:
            if most == 1:
                if undo is not None:
                    undo()
                raise
        # Outside of the handler: the error's frames, which reference the arrays, are freed.
        backend.release_memory()
        if undo is not None:
            undo()
        most = -(-most // 2)


class Runs:
    """The captured steps of a training run, one for each batch size.

    The first calls of a step allocate memory: scratch arrays, a recording, steps of other sizes.
    A call that fails is undone and repeated in smaller parts.
    It stores no reference to the trainer, so that the memory of a run is freed at its end.
    """

    def __init__(self) -> None:
        self._prepared: dict[int, Steps] = {}
        self._calls: Counter[int] = Counter()  # of each size, since a step was last added

    def make(self, trainer: Trainer, rows: int, n: int) -> None:
        """Run n steps on `rows` rows each, in parts when the device has no memory for all rows.

        Raises: MemoryError when one row does not fit, or when memory runs out after the first
        steps. The weights are then those before the failed step, and trainer.step_in_epoch counts
        the steps before it. (An update that itself runs out of memory may have changed some.)
        """
        while True:
            try:
                self._make(trainer, rows, n)
                return
            except MemoryError:
                done = int(trainer.backend.to_host(trainer.clock)[BATCH])
                # Otherwise the clock has counted the failed step.
                is_unchanged = done < trainer.step_in_epoch
                trainer.step_in_epoch = max(trainer.step_in_epoch, done)
                if not (is_unchanged and self.can_divide(trainer)):
                    raise
            self.divide(trainer)

    def can_divide(self, trainer: Trainer) -> bool:
        """Return True if smaller parts would free memory that the steps occupy."""
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
        saved = [(vector, backend.to_host(vector)) for vector in _changed_by_step(trainer)]
        existing = [self._prepared.pop(rows)] if rows in self._prepared else []
        if not existing:
            self._calls.clear()  # less memory is left for the other steps

        def attempt(most: int) -> Steps:
            if existing:
                steps = existing.pop()
            else:
                step = trainer.new_step(rows, most)
                is_whole = most == rows and not trainer.loader.is_sparse
                steps = backend.capture(step) if is_whole else _uncaptured(step)
            steps(n)
            return steps

        def restore() -> None:
            for vector, host in saved:
                backend.to_device(host, out=vector)

        self._prepared[rows], at_once = halving(backend, before, attempt, restore)
        self._calls[rows] += 1
        if at_once < before:
            trainer.rows_at_once = at_once
            log_divided(backend, rows, at_once)


def log_divided(backend: Backend, rows: int, at_once: int) -> None:
    """Log that steps run in parts from now on."""
    logger.warning(
        "%s has no memory for a batch of %d rows; each step processes parts of %d rows and adds "
        "up their gradients", backend.device, rows, at_once,
    )  # fmt: skip


def new_divided_pass(
    net: Network, loader: BatchLoader, rows: int, most: int, *,
    grad: Array, clock: Array, totals: Array, dropout: DropoutSource | None,
) -> Callable[[], None]:  # fmt: skip
    """Return the forward and backward pass over `rows` rows, in parts of at most `most` rows.

        g = sum_i w_i g_i / sum_i w_i;  w_i: sum of the sample weights of part i, or its rows

    Shapes: as in the whole pass; `grad` (P,) holds each part's gradient, and the total at the end.
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
                buffers.first_row = first  # addresses the dropout masks of these rows
            loader.load_part(batch, clock, first)
            out = space.forward()
            backend.loss_and_delta(loss, out, batch.y, batch.weight, space.out.delta, totals)
            space.backward()
            share = space.rows if batch.weight is None else xp.sum(batch.weight, keepdims=True)
            # In place: there may be no memory for a temporary vector (P,).
            grad *= share
            total += grad
            weight = weight + share
        total /= weight + tiny  # all weights of a batch may be 0
        backend.copy(total, grad)

    return compute


def _changed_by_step(trainer: Trainer) -> list[Array]:
    """Return the arrays that a step changes."""
    ema_weights = [] if trainer.ema_weights is None else [trainer.ema_weights]
    vectors = [trainer.net.theta, *trainer.state.values(), *ema_weights]
    return [*vectors, trainer.clock, trainer.totals]


def _uncaptured(step: Callable[[], None]) -> Steps:
    """Return a runner that captures nothing: parts need the memory, sparse rows the host."""

    def run(n: int) -> None:
        for _ in range(n):
            step()

    return run
