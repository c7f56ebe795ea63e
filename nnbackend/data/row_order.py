"""The order of the rows of an epoch, computed where it is read, for rows that are read in order.

A window shuffle reads files in long runs: chunks of consecutive rows are drawn in random order, and
the rows of some chunks at a time, a window, are permuted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.backend.philox import BATCH_ORDER, host_generator
from nnbackend.data.file_rows import FileRows
from nnbackend.errors import ArgumentError, Fault, Mention
from nnbackend.machine import memory

logger = logging.getLogger("nnbackend")

Rows = NDArray[np.int64]
Shuffle = bool | str | Callable[[int], NDArray[Any]]

WINDOW = "window"
CHUNKS = 16  # chunks of a window
MOST_ROWS = 16_384  # of a window, by default
MOST_NUMBERS = 1 << 24  # of a window, by default: 64 MB in float32


@dataclass(frozen=True, eq=False)
class RowOrder:
    """The order of n rows in an epoch, a pure function of (seed, epoch); slices are arrays.

    window: rows that are permuted together; 0 keeps the order of the rows.
    ends: the ends of the chunks, the last one n; by default each has window / 16 rows.
    >>> RowOrder(5, seed=0, epoch=0)[1:3].tolist()
    [1, 2]
    """

    n: int
    seed: int
    epoch: int
    window: int = 0
    ends: Rows | None = None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: Any) -> Any:
        if not isinstance(rows, slice):
            return np.asarray(self)[rows]
        start, stop, step = rows.indices(self.n)
        if not self.window or stop <= start:
            return self.read_order(start, stop)[::step]
        windows = range(start // self.window, -(-stop // self.window))
        found = [self.read_order(*self.limits(w))[self.places(w)] for w in windows]
        first = start - windows[0] * self.window
        return np.concatenate(found)[first : first + stop - start : step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found: NDArray[Any] = self[:].astype(dtype or np.int64, copy=False)
        return found

    def within(self, ends: Rows | None) -> RowOrder:
        """Return the order with other chunks, if it has chunks."""
        return self if ends is None or not self.window else replace(self, ends=ends)

    def limits(self, window: int) -> tuple[int, int]:
        """Return the first place of a window, and the one behind its last."""
        return window * self.window, min((window + 1) * self.window, self.n)

    def places(self, window: int) -> Rows:
        """Return the permutation of a window: of the rows in the order in which they are read."""
        start, stop = self.limits(window)
        generator = host_generator(self.seed, BATCH_ORDER, self.epoch, part=window + 1)
        return generator.permutation(stop - start).astype(np.int64, copy=False)

    def read_order(self, start: int, stop: int) -> Rows:
        """Return rows in the order in which they are read: chunk by chunk, each in its order."""
        at = np.arange(start, max(start, stop), dtype=np.int64)
        if not self.window:
            return at
        moves, places = self._chunks
        return at + moves[np.searchsorted(places, at, side="right")]

    @cached_property
    def _chunks(self) -> tuple[Rows, Rows]:
        """Return by how much the rows of each chunk read are moved, and where it ends."""
        ends = self.ends
        if ends is None:
            size = max(1, self.window // CHUNKS)
            ends = np.append(np.arange(size, self.n, size, dtype=np.int64), self.n)
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        order = host_generator(self.seed, BATCH_ORDER, self.epoch).permutation(len(ends))
        read = np.cumsum((ends - begins)[order])
        return begins[order] - (read - (ends - begins)[order]), read


def window_of(shuffle: Shuffle) -> int:
    """Return the rows of a window of "window:ROWS"; 0 for another shuffle.

    >>> window_of("window:512"), window_of(True)
    (512, 0)
    """
    return int(shuffle.partition(":")[2]) if isinstance(shuffle, str) else 0


def shuffle_for(shuffle: Shuffle, x: Any, n_columns: int) -> Shuffle:
    """Return the shuffle with the rows of its window; the window of rows that are read in order.

    Raises: ArgumentError for a function of the epoch, where rows can only be read in order.
    """
    if getattr(x, "is_read_in_order", False):
        if callable(shuffle):
            cure = "Use False, or window for an order in which windows of rows are permuted."
            expected = "True, False or window for data that is read in order"
            raise ArgumentError(Fault("shuffle", expected, shuffle, (cure,)))
        shuffle = shuffle if isinstance(shuffle, str) or not shuffle else WINDOW
    if shuffle is True and isinstance(x, FileRows) and x.nbytes > memory():
        logger.warning(
            "the rows are %.0f GB of files, more than the memory, and read one by one in random "
            "order; %s reads them in long runs", x.nbytes / 1e9, Mention("shuffle", WINDOW),
        )  # fmt: skip
    if shuffle != WINDOW:
        return shuffle
    return f"{WINDOW}:{max(CHUNKS, min(MOST_ROWS, MOST_NUMBERS // n_columns))}"
