"""Batches that a function makes: rows for training that are neither an array nor files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from nnbackend.data.foreign import check_readable
from nnbackend.data.numeric import as_array
from nnbackend.errors import ArgumentError, DataError, Fault
from nnbackend.options import AT_LEAST_1

SIZES = (2, 3)  # parts of a batch: x and y, or x, y and weights


class Part(NamedTuple):
    """A batch of a stream, as its function has made it; where: its place, for messages."""

    x: Any
    y: Any
    weight: Any
    where: str


class Stream:
    """Batches of rows for `nnbackend.train` and `Model.fit`, made by a function of the epoch.

    make_batches: a function such as a generator function; make_batches(epoch), epoch = 0, 1, ...,
    returns an iterable of (x, y) or (x, y, sample_weight), with any number of rows in each. Called
    again for the same epoch, as by a resumed run, it must return the same batches.
    n_rows: the rows of an epoch, at which an iterable of more is left. By default they are counted
    in a first pass through epoch 0.
    >>> def make_batches(epoch):
    ...     for i in range(3):
    ...         yield [[i, epoch], [0, 1]], [0, 1]
    >>> Stream(make_batches).n_rows
    6
    """

    # Rows can only be read in the order of the stream, which is one chunk.
    is_read_in_order = True

    def __init__(
        self, make_batches: Callable[[int], Iterable[Any]], n_rows: int | None = None
    ) -> None:
        if not callable(make_batches):
            raise ArgumentError(
                "make_batches must be a function of the epoch, which returns the batches of an "
                f"epoch. Received: {type(make_batches).__name__}. Pass the generator function "
                "itself, without calling it: def make_batches(epoch): ... yield x, y."
            )
        if n_rows is not None and not AT_LEAST_1.is_good(n_rows):
            raise ArgumentError(Fault("n_rows", f"{AT_LEAST_1.expected}, or None", n_rows))
        self.make_batches = make_batches
        self.encode: Callable[[Any], Any] = lambda y: y
        self.n_rows = self._counted() if n_rows is None else int(n_rows)

    def with_targets(self, encode: Callable[[Any], Any]) -> Stream:
        """Return the stream with encode(y) for the targets y of each batch."""
        stream = Stream(self.make_batches, self.n_rows)
        stream.encode = encode
        return stream

    def batches(self, epoch: int) -> Iterator[Part]:
        """Yield the batches of an epoch.

        Raises: DataError for anything else than (x, y) or (x, y, sample_weight).
        """
        found = self.make_batches(epoch)
        if not isinstance(found, Iterable):
            raise DataError(
                f"make_batches({epoch}) must return an iterable of batches. "
                f"Received: {type(found).__name__}. Use yield, or return a list."
            )
        for number, batch in enumerate(found):
            where = f"batch {number} of epoch {epoch} of the stream"
            if not isinstance(batch, (tuple, list)) or len(batch) not in SIZES:
                form = f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else (
                    type(batch).__name__
                )  # fmt: skip
                raise DataError(
                    f"{where} must be (x, y) or (x, y, sample_weight). Received: {form}."
                )
            x, y, *weight = batch
            yield Part(x, self.encode(y), weight[0] if weight else None, where)

    def _counted(self) -> int:
        """Return the number of rows of epoch 0."""
        n = 0
        for part in self.batches(0):
            n += n_rows_of(part)
        if not n:
            raise DataError(
                "A stream must have rows. Received: none in epoch 0. make_batches must return a "
                "new iterable at each call."
            )
        return n


def n_rows_of(part: Part) -> int:
    """Return the number of rows of a batch."""
    if not hasattr(part.x, "shape"):
        check_readable(part.x, "x")
        return len(as_array(part.x, "x"))
    return int(part.x.shape[0])
