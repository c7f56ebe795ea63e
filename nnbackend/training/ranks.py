"""A run on several ranks: their common gradient, and decisions that all of them make alike.

Each rank holds the network and the data, computes the gradients of its shards of every mini-batch,
and makes the same update. Order, dropout masks and rates follow from the seed, so that nothing else
travels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.base import WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.distributed import Communicator
from nnbackend.errors import NNBackendError
from nnbackend.network.evaluation.sums import SLOTS
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network
from nnbackend.network.workspace import DropoutSource, Workspace
from nnbackend.training.batching import Batch, BatchLoader
from nnbackend.training.interrupt import SIGNALS, InterruptGuard
from nnbackend.training.micro_batches import uncaptured

T = TypeVar("T")


class RanksDisagree(NNBackendError):
    """The ranks of a run have different weights."""


class Ranks:
    """The ranks of a run, and the interrupts that they agree on."""

    def __init__(self, communicator: Communicator, interrupt: InterruptGuard) -> None:
        self.communicator, self.interrupt = communicator, interrupt
        interrupt.is_shared = True
        interrupt.signals = SIGNALS  # to any rank, not only to the first, which has the callbacks

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and calls callbacks."""
        return self.communicator.rank == 0

    def agree(self, steps: int) -> int:
        """Return the next number of steps; an interrupt of any rank becomes one of all ranks."""
        received = self.interrupt.received or 0
        steps, is_asked, number = self.communicator.maximum(
            [steps, int(self.interrupt.is_asked), received]
        )
        self.interrupt.agree(bool(is_asked), number or None)
        return steps

    def agreed(self, value: T) -> T:
        """Return the value of the first rank."""
        found: T = self.communicator.share(value if self.is_first else None)[0]
        return found

    def check(self, theta: Array, backend: Backend) -> None:
        """Raise RanksDisagree if the ranks have different parameters."""
        digest = hashlib.blake2b(backend.to_host(theta).tobytes(), digest_size=16)
        found = self.communicator.share(digest.hexdigest())
        if len(set(found)) > 1:
            others = [str(rank) for rank, value in enumerate(found) if value != found[0]]
            raise RanksDisagree(
                "The ranks must have the same weights after each epoch. Received: others on rank "
                f"{', '.join(others)} than on rank 0. Use the same processors, versions and number "
                "of threads on all ranks."
            )


def new_shared_pass(
    net: Network, loader: BatchLoader, rows: int, ranks: Ranks, *,
    grad: Array, clock: Array, totals: Array, dropout: DropoutSource | None,
) -> Callable[[], None]:  # fmt: skip
    """Return the forward and backward pass of all ranks over `rows` rows of a mini-batch.

        g = sum_i w_i g_i / sum_i w_i;  w_i: sum of the sample weights of shard i, or its rows

    The sums are binary trees over the shards, the lower levels within a rank.
    Shapes: `grad` (P,) is the gradient of the whole mini-batch at the end, on every rank.
    """
    backend, communicator = net.backend, ranks.communicator
    layers, loss = net.for_training()
    numbers = communicator.shards
    slots = [backend.zeros((net.layout.size,), net.dtype) for _ in numbers]
    sums = [backend.zeros((SLOTS,), backend.sum_dtype) for _ in numbers]
    # Each shard is captured alone: what a recording does may depend on all of it.
    capture = uncaptured if loader.is_gathered else backend.capture
    passes = []
    for number, slot, sums_of in zip(numbers, slots, sums, strict=True):
        first, end = (rows * i // communicator.n_shards for i in (number, number + 1))
        if end > first:
            batch = loader.new_part(end - first)
            space = net.workspace(batch.x, layers, grad=slot, dropout=dropout)
            for _, buffers in space.chain:
                buffers.first_row = first  # addresses the dropout masks of these rows
            passes.append(
                capture(partial(_pass, loss, loader, batch, clock, first, space, sums_of))
            )

    total = _Total(net, communicator)

    def compute() -> None:
        for sums_of in sums:
            backend.fill(sums_of, 0.0)
        for run in passes:
            run(1)
        vector, figures = total.of(slots, sums)
        backend.to_device(vector, out=grad)
        all_figures = backend.to_host(totals) + figures
        backend.to_device(all_figures.astype(backend.sum_dtype), out=totals)

    return compute


def _pass(
    loss: Loss, loader: BatchLoader, batch: Batch, clock: Array, first: int, space: Workspace,
    sums: Array,
) -> None:  # fmt: skip
    """Compute the gradient of the rows of a mini-batch from row `first` on."""
    loader.load_part(batch, clock, first)
    out = space.forward()
    loader.net.backend.loss_and_delta(loss, out, batch.y, batch.weight, space.out.delta, sums)
    space.backward()


class _Total:
    """The sums over the shards of all ranks, of gradients and of losses."""

    def __init__(self, net: Network, communicator: Communicator) -> None:
        self.communicator, self.backend, self.dtype = communicator, net.backend, np.dtype(net.dtype)
        self.tiny = float(np.finfo(self.dtype).smallest_normal)
        n_bytes = net.layout.size * self.dtype.itemsize
        self.vector = slice(0, n_bytes)
        self.figures = slice(-(-n_bytes // 8) * 8, -(-n_bytes // 8) * 8 + 8 * SLOTS)
        self.mine = np.zeros(self.figures.stop, np.uint8)
        self.all = np.zeros((communicator.size, self.figures.stop), np.uint8)

    def of(self, slots: list[Array], sums: list[Array]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean gradient (P,), and the sums of losses and weights (SLOTS,).

        The slots (P,) of this rank's shards are overwritten.
        """
        figures = [_on_host(self.backend, one).astype(np.float64) for one in sums]
        vectors = [_on_host(self.backend, slot) for slot in slots]
        for vector, figure in zip(vectors, figures, strict=True):
            vector *= self.dtype.type(figure[WEIGHT])
        self.mine[self.vector] = _tree(vectors).view(np.uint8)
        self.mine[self.figures] = _tree(figures).view(np.uint8)
        if self.communicator.is_fixed:
            self.communicator.gather(self.mine, self.all)
            vector = _tree([*self.all[:, self.vector].view(self.dtype)])
            figure = _tree([*self.all[:, self.figures].view(np.float64)])
        else:
            vector = self.mine[self.vector].view(self.dtype)
            figure = self.mine[self.figures].view(np.float64)
            self.communicator.add(vector)
            self.communicator.add(figure)
        vector /= self.dtype.type(figure[WEIGHT] + self.tiny)  # all weights may be 0
        return vector, figure


def _tree(vectors: list[np.ndarray]) -> np.ndarray:
    """Return the sum of 1, 2, 4 or 8 vectors as a binary tree; the vectors are overwritten."""
    while len(vectors) > 1:
        for first, second in zip(vectors[::2], vectors[1::2], strict=True):
            first += second
        vectors = vectors[::2]
    return vectors[0]


def _on_host(backend: Backend, array: Array) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else backend.to_host(array)
