"""Micro-batches: run a step in parts when the device has no memory for a whole batch.

The gradients of the parts add up to that of the whole batch, with the same dropout masks, so only
the rounding differs. (Smaller batches would change the training.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.network.network import Network
from nnbackend.network.workspace import DropoutSource
from nnbackend.training.batching import BatchLoader

T = TypeVar("T")

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


def uncaptured(step: Callable[[], None]) -> Callable[[int], None]:
    """Return a runner that captures nothing: parts need the memory, gathered rows the host."""

    def run(n: int) -> None:
        for _ in range(n):
            step()

    return run


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
