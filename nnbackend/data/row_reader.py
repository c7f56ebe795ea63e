"""Readers of the rows of mini-batches, one behind the other, for data larger than memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.host_rows import HostRows
from nnbackend.data.row_order import RowOrder, Rows

Part = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]  # rows, targets, weights
Order = RowOrder | NDArray[Any]


class RowReader(ABC):
    """Reads the rows of an epoch, any number at once.

    It holds one window, whose rows are read in long runs; later ones replace it.
    order: that of the epoch.  is_new_each_epoch: whether each epoch may have other rows.
    """

    is_new_each_epoch = False

    def __init__(self, order: Order) -> None:
        self.begin_epoch(order)

    def begin_epoch(self, order: Order) -> None:
        """Set the order of the rows in the next epoch."""
        self.order = order
        self._at = -1  # no window has been read
        self._window: Part | None = None

    @abstractmethod
    def fetch(self, start: int, stop: int) -> Part:
        """Return rows of the epoch in the order in which they are read, without windows."""

    def prefetch(self, start: int, stop: int) -> None:  # noqa: B027
        """Ask the system to read the rows of such a call, which follows soon."""

    def read(self, start: int, stop: int) -> Part:
        """Return the rows at the places start, ..., stop - 1 of the epoch."""
        window = self.order.window if isinstance(self.order, RowOrder) else 0
        if not window:
            return self.fetch(start, stop)
        parts = []
        while start < stop:
            number, first = divmod(start, window)
            n = min(stop - start, window - first)
            parts.append(self._part(number, first, n))
            start += n
        if len(parts) == 1:
            return parts[0]
        x, y, weight = zip(*parts, strict=True)
        return np.concatenate(x), np.concatenate(y), _joined(weight)

    def _part(self, number: int, first: int, n: int) -> Part:
        """Return n rows of a window from its place `first` on."""
        order = self.order
        assert isinstance(order, RowOrder)
        if number != self._at:
            self._window = None  # frees its memory before the next one is read
            self._window = self.fetch(*order.limits(number))
            self._places, self._at = order.places(number), number
            if (number + 1) * order.window < len(order):
                self.prefetch(*order.limits(number + 1))
        places = self._places[first : first + n]
        assert self._window is not None
        x, y, weight = self._window
        if order.limits(number)[0] + first + n == len(order):  # frees the last window's memory
            self._at, self._window = -1, None
        return x[places], y[places], None if weight is None else weight[places]


class HostReader(RowReader):
    """Reads rows of files or of a sparse matrix, with their targets and weights in memory.

    rows: the indices of the rows of an epoch.
    """

    def __init__(
        self, x: HostRows, y: NDArray[Any], weight: NDArray[Any] | None, rows: Rows
    ) -> None:
        self.x, self.y, self.weight, self.rows = x, y, weight, rows
        self.ends = x.take(rows).chunk_ends if x.is_read_in_order else None
        super().__init__(RowOrder(len(rows), 0, 0))

    def begin_epoch(self, order: Order) -> None:
        super().begin_epoch(order.within(self.ends) if isinstance(order, RowOrder) else order)

    def fetch(self, start: int, stop: int) -> Part:
        rows = self._rows(start, stop)
        return self.x[rows], self.y[rows], None if self.weight is None else self.weight[rows]

    def prefetch(self, start: int, stop: int) -> None:
        self.x.prefetch(self._rows(start, stop))

    def _rows(self, start: int, stop: int) -> Rows:
        order = self.order
        if isinstance(order, RowOrder):
            return self.rows[order.read_order(start, stop)]
        return self.rows[order[start:stop]]


def _joined(weights: Any) -> NDArray[Any] | None:
    return None if weights[0] is None else np.concatenate(weights)
