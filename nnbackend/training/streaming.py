"""Training on a stream: its checks, and the reader that divides its batches into mini-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data import stream as streams
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.row_order import RowOrder
from nnbackend.data.row_reader import Order, Part, RowReader
from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.data.stream import Stream
from nnbackend.errors import ArgumentError, DataError, Fault, Mention, NNBackendError
from nnbackend.network.network import Network
from nnbackend.training.config import TrainConfig
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.preparation import (
    TrainingData,
    check_monitor,
    check_part,
    check_scale_targets,
    check_validation,
    classes_measured,
    fit_rows_scaler,
    fitted_rows,
    score_for,
)


def check_stream_options(y: Any, weight: Any, validation_set: Any, config: TrainConfig) -> None:
    """Raise ArgumentError for arguments that a stream does not have."""
    if y is not None:
        raise ArgumentError(
            "y must be None for a stream, whose batches have the targets. "
            f"Received: {type(y).__name__}. Yield (x, y) from make_batches."
        )
    if weight is not None:
        cure = "Yield (x, y, sample_weight) from make_batches."
        raise ArgumentError(Fault("sample_weight", "None for a stream", weight, (cure,)))
    if isinstance(validation_set, Real) and validation_set is not True:
        raise ArgumentError(
            Mention("validation"), " must be rows (x, y) for a stream, of which no rows can be "
            "held out. Received: ", Mention("validation", validation_set), ". Keep some rows "
            "apart, or omit it.",
        )  # fmt: skip
    if isinstance(config.optimizer, LBFGS):
        raise ArgumentError(
            "L-BFGS needs all rows at every step, which a stream does not keep. Received: ",
            Mention("optimizer", "lbfgs"), ". Use another optimizer.",
        )  # fmt: skip


def prepare_stream(
    net: Network,
    stream: Stream,
    validation_set: Any,
    *,
    preprocessing: Preprocessing | None = None,
    scale: str | Scaler | None = None,
    scale_targets: bool = False,
    monitor: str | None = None,
) -> TrainingData:
    """Check the first batch of a stream, and fit the scalers to the first rows of epoch 0."""
    known = preprocessing or Preprocessing()
    check_scale_targets(net, scale_targets)
    reader = StreamReader(net, stream, known)
    if scale is not None or scale_targets:
        x, y, _ = reader.fetch(0, min(stream.n_rows, fitted_rows(net.n_in)))
        scaler = fit_rows_scaler(net, x, np.arange(len(x)), scale) or known.scaler
        known = replace(known, scaler=scaler)
        if scale_targets and known.classes is None and y.ndim == 2:
            known = replace(known, target_scaler=fit_scaler("standard", y))
    x, y, weight = StreamReader(net, stream, known).first_batch()
    part = None if validation_set is None else check_validation(net, validation_set, known)
    score = score_for(net, y, known)
    metrics = check_monitor(score, part, monitor, classes_measured(net, y, known))
    return TrainingData(
        x, y, weight, range(stream.n_rows), score, known, part, None, metrics, stream
    )


class StreamReader(RowReader):
    """Reads the rows of a stream in its order; it holds one of its batches."""

    is_new_each_epoch = True

    def __init__(self, net: Network, stream: Stream, known: Preprocessing) -> None:
        self.net, self.stream, self.known = net, stream, known
        self.has_weight: bool | None = None  # until the first batch
        super().__init__(RowOrder(stream.n_rows, 0, 0))

    def begin_epoch(self, order: Order) -> None:
        assert isinstance(order, RowOrder)
        # One chunk, of which windows of consecutive rows are permuted.
        super().begin_epoch(order.within(np.array([self.stream.n_rows])))
        self.epoch = order.epoch
        self._restart()

    def first_batch(self) -> Part:
        """Return the first batch of the epoch."""
        self._restart()
        self._next()
        return self._checked()

    def fetch(self, start: int, stop: int) -> Part:
        if start < self._begin:  # a step is repeated
            self._restart()
        parts = []
        while start < stop:
            while start >= self._end:
                self._next()
            chosen = slice(start - self._begin, min(stop, self._end) - self._begin)
            x, y, weight = self._checked()
            # Copies: make_batches may use its arrays again.
            some = None if weight is None else weight[chosen].copy()
            parts.append((x[chosen].copy(), y[chosen].copy(), some))
            start = self._begin + chosen.stop
        if len(parts) == 1:
            return parts[0]
        xs, ys, weights = zip(*parts, strict=True)
        return (
            np.concatenate(xs), np.concatenate(ys),
            np.concatenate(weights) if self.has_weight else None,
        )  # fmt: skip

    def _restart(self) -> None:
        """Begin with the first batch of the epoch."""
        self._begin = self._end = 0  # of the rows of the batch that is held
        self._batches: Iterator[streams.Part] | None = None
        self._raw: streams.Part | None = None
        self._held: Part | None = None

    def _next(self) -> None:
        """Read the next batch."""
        if self._batches is None:
            self._batches = self.stream.batches(self.epoch)
        self._raw = self._held = None  # frees its memory
        self._raw = next(self._batches, None)
        if self._raw is None:
            raise DataError(
                f"A stream must have {self.stream.n_rows:,} rows in each epoch. Received: "
                f"{self._end:,} in epoch {self.epoch}. make_batches must return a new iterable "
                "with all of them at each call; else set n_rows."
            )
        self._begin, self._end = self._end, self._end + streams.n_rows_of(self._raw)

    def _checked(self) -> Part:
        """Return the batch that is held: checked, on the host, its targets encoded."""
        if self._held is None:
            raw, net = self._raw, self.net
            assert raw is not None
            try:
                x, y, weight = check_part(net, raw.x, raw.y, raw.weight, self.known, is_part=True)
            except NNBackendError as error:
                raise type(error)(f"{raw.where}: ", *error.args) from error
            self._check_weight(weight, raw.where)
            is_on_host = isinstance(x, np.ndarray) or not net.backend.owns(x)
            self._held = x if is_on_host else net.backend.to_host(x), y, weight
        return self._held

    def _check_weight(self, weight: NDArray[Any] | None, where: str) -> None:
        has_weight = weight is not None
        if self.has_weight not in (None, has_weight):
            raise DataError(
                f"{where}: all batches must have weights, or none. Received: "
                f"{'weights' if has_weight else 'no weights'}, unlike the batches before."
            )
        self.has_weight = has_weight
