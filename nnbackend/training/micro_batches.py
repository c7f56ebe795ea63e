"""Micro-batches: the same step in parts, where the device has no memory for a whole batch.

The gradients of the parts add up to that of the whole batch, dropout masks included, so that only
the rounding differs. (Smaller batches would be another training.) The first step of a run asks for
all memory that the run needs. If it fails, its effects are undone and it is made in smaller parts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.network.network import Network
from nnbackend.network.workspace import DropoutSource

if TYPE_CHECKING:
    from nnbackend.training.batching import Feed
    from nnbackend.training.trainer import Trainer

T = TypeVar("T")
Steps = Callable[[int], None]
Run = Callable[["Trainer", int], None]

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


def new_run(rows: int) -> Run:
    """Return run(trainer, n), which makes n steps on `rows` rows each, in parts where it must.

    It does not keep the trainer, which keeps it: what a run leaves is freed when it ends.
    Raises: MemoryError, from the first call, when not even one row finds memory; the weights and
    the optimizer's state are then those before the call.
    """
    steps: Steps | None = None

    def run(trainer: Trainer, n: int) -> None:
        nonlocal steps
        if steps is not None:
            steps(n)
            return
        backend, before = trainer.backend, min(rows, trainer.rows_at_once)
        kept = [(vector, backend.to_host(vector)) for vector in _changing(trainer)]

        def attempt(most: int) -> Steps:
            step = trainer.new_step(rows, most)
            is_whole = most == rows and not trainer.feed.is_sparse
            made = backend.capture(step) if is_whole else _one_by_one(step)
            made(n)
            return made

        def restore() -> None:
            for vector, host in kept:
                backend.to_device(host, out=vector)

        steps, at_once = halving(backend, before, attempt, restore)
        if at_once < before:
            trainer.rows_at_once = at_once
            say_divided(backend, rows, at_once)

    return run


def say_divided(backend: Backend, rows: int, at_once: int) -> None:
    """Log that steps are made in parts from now on."""
    logger.warning(
        "%s has no memory for a batch of %d rows; a step makes it in parts of %d, whose "
        "gradients add up to the same", backend.device, rows, at_once,
    )  # fmt: skip


def new_divided_pass(
    net: Network, feed: Feed, rows: int, most: int, *,
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
    """Return what a step changes."""
    shadow = [] if trainer.shadow is None else [trainer.shadow]
    changing = [trainer.net.theta, *trainer.state.values(), *shadow]
    return [*changing, trainer.clock, trainer.totals]


def _one_by_one(step: Callable[[], None]) -> Steps:
    """Make steps without capturing them: parts would take memory, sparse rows use the host."""

    def run(n: int) -> None:
        for _ in range(n):
            step()

    return run
