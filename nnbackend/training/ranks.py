"""A run on several ranks: their common gradient, and decisions that all of them make alike.

Each rank holds the network and the data, computes the gradients of its shards of every mini-batch,
and makes the same update. Order, dropout masks and rates follow from the seed, so that nothing else
travels.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TypeVar

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.distributed import Communicator
from nnbackend.errors import ArgumentError, NNBackendError
from nnbackend.network.evaluation.sums import SLOTS
from nnbackend.network.network import Network
from nnbackend.network.workspace import DropoutSource
from nnbackend.training.batching import BatchLoader
from nnbackend.training.config import TrainConfig
from nnbackend.training.fingerprints import fingerprint
from nnbackend.training.interrupt import SIGNALS, InterruptGuard
from nnbackend.training.preparation import TrainingData

T = TypeVar("T")

logger = logging.getLogger("nnbackend")


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

    def check_start(self, net: Network, data: TrainingData, config: TrainConfig) -> None:
        """Raise ArgumentError if the ranks do not begin the same run.

        Each rank needs all rows, of which it takes its share of every mini-batch.
        """
        theta = net.backend.to_host(net.theta)
        mine = {
            "rows": len(data.rows), "columns": net.n_in,
            "batch_size": config.batch_rows(len(data.rows)), "epochs": config.epochs,
            "seed": config.seed, "optimizer": type(config.optimizer).__name__,
            "learning_rate": getattr(config.optimizer, "learning_rate", None),
            "data": fingerprint(data, net.backend)[:12],
            "initial weights": hashlib.sha256(theta.tobytes()).hexdigest()[:12],
        }  # fmt: skip
        found = self.communicator.share(mine)
        differing = [
            f"{name} of rank {rank}: {other[name]}, of rank 0: {found[0][name]}"
            for rank, other in enumerate(found)
            for name in other
            if other[name] != found[0][name]
        ]
        if differing:
            raise ArgumentError(
                "All ranks must pass the same rows, options and network, with the same seed; each "
                "takes its share of every mini-batch by itself. Received: "
                f"{'; '.join(differing[:5])}."
            )
        if self.is_first and self.communicator.is_fixed and net.backend.threads > 1:
            logger.warning(
                "each rank has %d threads, whose number changes how sums are rounded: for the same "
                "bits on 1, 2, 4 and 8 ranks set OPENBLAS_NUM_THREADS=1", net.backend.threads,
            )  # fmt: skip

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
    shards, slots, parts = list[_Shard](), list[Array](), communicator.parts(rows)
    for part in parts:
        slot = grad if len(parts) == 1 else backend.zeros((net.layout.size,), net.dtype)
        shards.append(_Shard(net, loader, part.start, part.stop - part.start, slot, dropout))
        slots.append(slot)
    figures, deltas = [shard.figures for shard in shards], [shard.delta for shard in shards]

    def compute() -> None:
        for shard in shards:
            shard.forward(clock)
        backend.share_loss(communicator, figures, deltas, totals)
        for shard in shards:
            shard.backward()
        backend.share_gradient(communicator, slots, grad)

    return compute


class _Shard:
    """Some rows of every mini-batch, from row `first` on, which may be none.

    figures (4,): its sums, as `totals`.  delta: that of its outputs, or None without rows.
    grad (P,): its gradient.
    """

    def __init__(
        self, net: Network, loader: BatchLoader, first: int, rows: int, grad: Array,
        dropout: DropoutSource | None,
    ) -> None:  # fmt: skip
        self.loader, self.first, self.rows, self.grad = loader, first, rows, grad
        self.backend, self.delta = net.backend, None
        layers, self.loss = net.for_training()
        self.figures = net.backend.zeros((SLOTS,), net.backend.sum_dtype)
        if rows:
            self.batch = loader.new_part(rows)
            self.space = net.workspace(self.batch.x, layers, grad=grad, dropout=dropout)
            self.delta = self.space.out.delta
            for _, buffers in self.space.chain:
                buffers.first_row = first  # addresses the dropout masks of these rows

    def forward(self, clock: Array) -> None:
        """Compute the outputs, their losses and deltas."""
        self.backend.fill(self.figures, 0.0)
        if not self.rows:
            self.backend.fill(self.grad, 0.0)
            return
        batch = self.batch
        self.loader.load_part(batch, clock, self.first)
        out = self.space.forward()
        self.backend.loss_and_delta(self.loss, out, batch.y, batch.weight, self.delta, self.figures)

    def backward(self) -> None:
        """Compute the gradient."""
        if self.rows:
            self.space.backward()
