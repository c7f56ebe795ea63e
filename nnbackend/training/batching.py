"""Mini-batches: the order of the rows in an epoch, and the loading of a step's rows.

The order of an epoch is drawn on the host and copied, so that every device uses the same batches.
The training data stays on the device, and each step gathers its rows from it; rows of files, of
sparse matrices and of streams are read on the host for each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.base import BATCH
from nnbackend.backend.formulas import Array
from nnbackend.backend.philox import BATCH_ORDER, host_generator
from nnbackend.data.file_rows import FileRows
from nnbackend.data.host_rows import HostRows
from nnbackend.data.row_order import RowOrder, Shuffle, window_of
from nnbackend.data.row_reader import HostReader, Order, RowReader
from nnbackend.data.row_scaler import RowScaler
from nnbackend.errors import DeviceMemoryError, Mention
from nnbackend.network.network import Network
from nnbackend.training.preparation import TrainingData
from nnbackend.training.streaming import StreamReader


def epoch_order(n: int, seed: int, epoch: int, shuffle: Shuffle) -> Order:
    """Return the order of the rows in an epoch, a pure function of (seed, epoch): (n,) int64.

    shuffle: True, False, "window:ROWS", or a function epoch -> permutation of 0 .. n-1.
    """
    if callable(shuffle):
        return shuffle(epoch).astype(np.int64, copy=False)
    if isinstance(shuffle, str) or not shuffle:
        return RowOrder(n, seed, epoch, window_of(shuffle))
    return host_generator(seed, BATCH_ORDER, epoch).permutation(n).astype(np.int64, copy=False)


@dataclass
class Batch:
    """The arrays that a step of `rows` rows fills: inputs, targets, weights.

    raw: the inputs before scaling; x itself, unless the data need a wider dtype.
    """

    x: Array
    y: Array
    weight: Array | None
    raw: Array


class BatchLoader:
    """The training rows on the device, in their own dtype, and the order of the epoch.

    reader: reads the rows of each step on the host instead; None: they are on the device.
    shuffle: as in `TrainConfig`.
    """

    def __init__(
        self, net: Network, data: TrainingData, batch_size: int, shuffle: Shuffle = True
    ) -> None:
        backend, scaler = net.backend, data.preprocessing.scaler
        self.net, self.backend, self.batch_size = net, backend, batch_size
        # A window is read from files in long runs, so not in place.
        data = data if isinstance(shuffle, str) else _in_one_file(data, backend)
        self.n = len(data.rows)
        self.rows: Any = data.rows
        self.reader = _new_reader(net, data)
        is_in_place = self.is_gathered or backend.owns(data.x)
        self.x, self.y, self.weight = data.x, data.y, data.weight
        try:
            self.scaler = None if scaler is None else RowScaler(scaler, backend, net.dtype)
            if self.reader is None:
                self.x = data.x if is_in_place else backend.to_device(self._for_device(data.x))
                self.y = backend.to_device(data.y)
                self.weight = None if data.weight is None else backend.to_device(data.weight)
                self.order = backend.zeros((self.n,), "int64")
        except MemoryError as error:
            raise _memory_error(data, is_in_place, backend) from error
        self.begin_epoch(RowOrder(self.n, 0, 0))
        # Rows of sparse matrices and of files are scaled on the host, batch by batch.
        is_scaled = self.scaler is not None and self.scaler.on_host and not is_in_place
        self._scales_batches = not (self.scaler is None or self.is_gathered or is_scaled)
        self._raw_dtype = net.dtype
        if self._scales_batches and not is_exact(self.x, net.dtype):
            self._raw_dtype = numpy_name(self.x.dtype)
        self._y_dtype = str(data.y.dtype)

    @property
    def is_gathered(self) -> bool:
        """Whether the rows are read on the host: such a step cannot be captured."""
        return self.reader is not None

    @property
    def _is_whole(self) -> bool:
        """Whether all rows are one batch, the same in each epoch."""
        is_new = self.reader is not None and self.reader.is_new_each_epoch
        return self.batch_size >= self.n and not is_new

    def new_batch(self, rows: int) -> Batch:
        """Make the arrays of a batch; a batch of all rows is filled once, here."""
        batch = self.new_part(rows)
        if rows == self.n and self._is_whole:
            self._gather(batch, self.backend.zeros((2,), "int64"))
        return batch

    def new_part(self, rows: int) -> Batch:
        """Make the arrays of a part of a batch."""
        empty, dtype, shape = self.backend.empty, self.net.dtype, (rows, self.net.n_in)
        x = empty(shape, dtype)
        return Batch(
            x,
            empty((rows, *self.y.shape[1:]), self._y_dtype),
            None if self.weight is None else empty((rows,), dtype),
            x if self._raw_dtype == dtype else empty(shape, self._raw_dtype),
        )

    def begin_epoch(self, order: Order) -> None:
        """Set the order of the rows, a permutation of 0 .. n-1."""
        if self.reader is not None:
            self.reader.begin_epoch(RowOrder(self.n, 0, 0) if self._is_whole else order)
            return
        order = np.asarray(order)
        rows = self.rows[order] if self.batch_size < self.n else self.rows
        self.backend.to_device(rows, out=self.order)

    def load(self, batch: Batch, clock: Array) -> None:
        """Fill a batch with the scaled rows of the mini-batch that `clock` counts."""
        if not self._is_whole:
            self._gather(batch, clock)

    def load_part(self, batch: Batch, clock: Array, first: int) -> None:
        """Fill a part of the mini-batch with its scaled rows from row `first` on."""
        self._gather(batch, clock, first)

    def _gather(self, batch: Batch, clock: Array, first: int = 0) -> None:
        backend, size = self.backend, self.batch_size
        if self.reader is not None:
            start = int(backend.to_host(clock)[BATCH]) * size + first
            self._read(batch, self.reader, start)
            return
        order = self.order[first:] if first else self.order
        backend.gather_rows(self.x, order, clock, size, batch.raw)
        backend.gather_rows(self.y, order, clock, size, batch.y)
        if self.weight is not None:
            backend.gather_rows(self.weight, order, clock, size, batch.weight)
        if self._scales_batches and self.scaler is not None:
            self.scaler.scale(batch.raw, batch.x)

    def _read(self, batch: Batch, reader: RowReader, start: int) -> None:
        """Fill a batch with the rows of the epoch from `start` on, scaled on the host."""
        x, y, weight = reader.read(start, start + int(batch.x.shape[0]))
        x = x.astype(self.net.dtype) if self.scaler is None else self.scaler.scaled(x)
        self.backend.to_device(x, out=batch.x)
        self.backend.to_device(y, out=batch.y)
        if weight is not None:
            self.backend.to_device(weight, out=batch.weight)

    def _for_device(self, x: np.ndarray) -> np.ndarray:
        """Return host rows to copy to the device: scaled or narrowed if it lacks float64."""
        if self.scaler is not None and self.scaler.on_host:
            return self.scaler.scaled(x)
        return self.backend.narrowed(x)


def _new_reader(net: Network, data: TrainingData) -> RowReader | None:
    if data.stream is not None:
        return StreamReader(net, data.stream, data.preprocessing)
    if isinstance(data.x, HostRows):
        assert isinstance(data.rows, np.ndarray)
        return HostReader(data.x, data.y, data.weight, data.rows)
    return None


def _in_one_file(data: TrainingData, backend: Backend) -> TrainingData:
    """Return the data with rows selected from one file as rows of the whole file.

    So that a step reads them in place, and can be captured.
    """
    x = data.x
    if not isinstance(x, FileRows) or len(x.parts) > 1 or not backend.owns(x.parts[0]):
        return data
    if x.index is None:
        return replace(data, x=x.parts[0])
    whole, places = x.parts[0], x.places(slice(None))

    def spread(values: np.ndarray) -> np.ndarray:
        result = np.zeros((len(whole), *values.shape[1:]), values.dtype)
        result[places] = values
        return result

    weight = None if data.weight is None else spread(data.weight)
    return replace(data, x=whole, y=spread(data.y), weight=weight, rows=places[data.rows])


def numpy_name(dtype: object) -> str:
    """Return NumPy's name of any library's dtype.

    >>> numpy_name(np.dtype("uint8"))
    'uint8'
    """
    return str(dtype).rpartition(".")[2]  # torch.float64


def is_exact(array: Array, dtype: str) -> bool:
    """Return True if a dtype represents all values of the array's dtype exactly."""
    return np.can_cast(numpy_name(array.dtype), dtype)


def _memory_error(data: TrainingData, is_in_place: bool, backend: Backend) -> DeviceMemoryError:
    """Return the error for a data set that does not fit on the device."""
    x, y, weight = (data.x, data.y, data.weight)
    copied = [*([] if is_in_place else [x]), y, *([] if weight is None else [weight])]
    n_bytes = sum(array.nbytes for array in copied) + 8 * len(data.rows)
    return DeviceMemoryError(
        f"{backend.device} has no memory for the training data, which stays on the device: "
        f"x {tuple(x.shape)} {x.dtype}, {n_bytes:,} bytes with targets, weights and order. Use "
        "fewer rows, a narrower dtype (x.astype('float32'), or uint8 for images), or ",
        Mention("device", "cpu"), ".",
    )  # fmt: skip


def batch_sizes(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return (number of steps, rows) of an epoch: the full batches, then the rest if any.

    >>> batch_sizes(10, 4)
    [(2, 4), (1, 2)]
    """
    full, rest = divmod(n, batch_size)
    return [(count, rows) for count, rows in ((full, batch_size), (1, rest)) if count and rows]
