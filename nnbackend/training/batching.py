"""Mini-batches: in which order the rows come, and how a step gets hold of its own.

The order of an epoch is drawn on the host and copied, so that every device sees the same batches.
Data of the device stays there and a step gathers its rows; it is never copied as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend.backend.philox import BATCH_ORDER, host_generator
from nnbackend.network.network import Network
from nnbackend.training.intake import TrainingData


def epoch_order(n: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """Give the order of the rows in an epoch, a pure function of (seed, epoch): (n,) int64."""
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    return host_generator(seed, BATCH_ORDER, epoch).permutation(n).astype(np.int64, copy=False)


@dataclass
class Batch:
    """The arrays that a step of `rows` rows fills: inputs, targets, weights."""

    x: Array
    y: Array
    weight: Array | None


class Feed:
    """The training rows on the device, in their own dtype, and the order of the epoch."""

    def __init__(
        self,
        net: Network,
        data: TrainingData,
        batch_size: int,
    ) -> None:
        backend = net.backend
        self.net, self.backend, self.batch_size = net, backend, batch_size
        self.rows, self.n = data.rows, len(data.rows)
        self.x = data.x if backend.owns(data.x) else backend.to_device(data.x)
        self.y = backend.to_device(data.y)
        self.weight = None if data.weight is None else backend.to_device(data.weight)
        self.order = backend.zeros((self.n,), "int64")
        backend.to_device(data.rows, out=self.order)
        self.scaler = net.device_scaler() if net.scaler is not None else None
        self._y_dtype = str(data.y.dtype)

    def new_batch(self, rows: int) -> Batch:
        """Make the arrays of a batch; one that holds all rows is filled for good."""
        batch = self.new_part(rows)
        if rows == self.n:
            self._gather(batch, self.backend.zeros((2,), "int64"), self.order)
        return batch

    def new_part(self, rows: int) -> Batch:
        """Make the arrays of a part of a batch."""
        empty, dtype = self.backend.empty, self.net.dtype
        return Batch(
            empty((rows, self.net.n_in), dtype),
            empty((rows, *self.y.shape[1:]), self._y_dtype),
            None if self.weight is None else empty((rows,), dtype),
        )

    def begin_epoch(self, order: np.ndarray) -> None:
        """Set the order of the rows, a permutation of 0 .. n-1."""
        if self.batch_size < self.n:
            self.backend.to_device(self.rows[order], out=self.order)

    def load(self, batch: Batch, clock: Array) -> None:
        """Fill a batch with the rows that the clock says, scaled."""
        if self.batch_size < self.n:
            self._gather(batch, clock, self.order)

    def load_part(self, batch: Batch, clock: Array, first: int) -> None:
        """Fill a part of the mini-batch, from its row `first` on, scaled."""
        self._gather(batch, clock, self.order[first:])

    def _gather(self, batch: Batch, clock: Array, order: Array) -> None:
        backend = self.backend
        backend.gather_rows(self.x, order, clock, self.batch_size, batch.x)
        backend.gather_rows(self.y, order, clock, self.batch_size, batch.y)
        if self.weight is not None:
            backend.gather_rows(self.weight, order, clock, self.batch_size, batch.weight)
        if self.scaler is not None and self.net.scaler is not None:
            backend.scale_rows(batch.x, *self.scaler, self.net.scaler.clip)


def batch_sizes(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Give (number of steps, rows) of an epoch: the full batches, then the rest if any.

    >>> batch_sizes(10, 4)
    [(2, 4), (1, 2)]
    """
    full, rest = divmod(n, batch_size)
    return [(count, rows) for count, rows in ((full, batch_size), (1, rest)) if count and rows]
