"""Where a device's memory does not hold a batch: the same step, made in parts.

The parts' gradients are added up to that of the whole batch, dropout masks included, so that only
the rounding differs; to halve the batch itself would be another training. It is tried on the first
step of a run, when all memory is asked for: the state is put back, and the step made anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nnbackend.backend.formulas import Array
from nnbackend.network.workspace import DropoutSource

if TYPE_CHECKING:
    from nnbackend.training.trainer import Trainer

Run = Callable[[int], None]

logger = logging.getLogger("nnbackend")


def new_run(trainer: Trainer, rows: int) -> Run:
    """Give a function that makes n steps on `rows` rows each; its first call may divide them.

    Raises: MemoryError, from its calls, when not even single rows find room.
    """
    backend = trainer.backend
    found: list[Run] = []

    def first(n: int) -> None:
        kept = [(vector, backend.to_host(vector)) for vector in _changing(trainer)]
        is_short = False
        while True:
            at_once = min(rows, trainer.rows_at_once)
            try:
                step = trainer.new_step(rows, at_once)
                is_whole = at_once == rows and not trainer.feed.is_sparse
                run = backend.capture(step) if is_whole else _one_by_one(step)
                run(n)
                break
            except MemoryError:
                if at_once == 1:
                    raise
            step = run = None  # type: ignore[assignment]  # gives their memory back
            is_short, trainer.rows_at_once = True, -(-at_once // 2)
            for vector, host in kept:
                backend.to_device(host, out=vector)
        if is_short:
            logger.warning(
                "%s has no memory for a batch of %d rows; a step makes it in parts of %d, whose "
                "gradients add up to the same", backend.device, rows, at_once,
            )  # fmt: skip
        found.append(run)

    return lambda n: found[0](n) if found else first(n)


def new_divided_pass(trainer: Trainer, rows: int, most: int) -> Callable[[], None]:
    """Give feed-forward, loss and backpropagation of `rows` rows, of at most so many at once.

        g = sum_i w_i g_i / sum_i w_i;  w_i the weight of part i, the number of its rows

    Shapes: as of the whole pass; every part's gradient goes through the trainer's vector.
    """
    backend, net, feed = trainer.backend, trainer.net, trainer.feed
    grad, clock, totals, xp = trainer.grad, trainer.clock, trainer.totals, backend.xp
    layers, loss = net.for_training()
    dropout = DropoutSource(trainer.recipe.seed, clock)
    firsts = range(0, rows, most)
    spaces: dict[int, Any] = {}
    for first in firsts:
        size = min(most, rows - first)
        if size not in spaces:
            batch = feed.new_part(size)
            space = net.workspace(batch.x, layers, grad=grad, dropout=dropout)
            spaces[size] = batch, space
    tiny = 0.0 if feed.weight is None else float(xp.finfo(grad.dtype).smallest_normal)
    total = backend.zeros((net.layout.size,), net.dtype)

    def compute() -> None:
        backend.fill(total, 0.0)
        weight: Array = 0.0
        for first in firsts:
            batch, space = spaces[min(most, rows - first)]
            for _, slot in space.chain:
                slot.first_row = first  # so that dropout draws the masks of these rows
            feed.load_part(batch, clock, first)
            out = space.forward()
            backend.loss_and_delta(loss, out, batch.y, batch.weight, space.out.delta, totals)
            space.backward()
            share = space.rows if batch.weight is None else xp.sum(batch.weight, keepdims=True)
            total[...] = total + grad * share
            weight = weight + share
        grad[...] = total / (weight + tiny)  # all weights of a batch may be 0

    return compute


def _changing(trainer: Trainer) -> list[Array]:
    """Give what a step changes."""
    shadow = [] if trainer.shadow is None else [trainer.shadow]
    changing = [trainer.net.theta, *trainer.state.values(), *shadow]
    return [*changing, trainer.clock, trainer.totals]


def _one_by_one(step: Callable[[], None]) -> Run:
    """Make steps without capturing them: parts would take memory, sparse rows use the host."""

    def run(n: int) -> None:
        for _ in range(n):
            step()

    return run
