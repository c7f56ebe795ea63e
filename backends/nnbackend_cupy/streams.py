"""The streams of one backend: each thread captures on its own stream, with a side stream.

During a capture, weight gradients go to the side stream: they need the local gradient of their
layer, and only the update needs them. In the graph they run concurrently with the products that
lead to the layers below. Without capture, everything runs on one stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cupy

from nnbackend.backend.formulas import Array
from nnbackend_cupy.recorder import Recorder


class ThreadState(threading.local):
    """The state of a thread: the recorder of its calls, and why CuPy replaced kernels."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.fallbacks: dict[str, str] = {}  # kernel -> reason, of the current step


class Streams(threading.local):
    """The stream of a thread for captures, and its side stream, on the current device.

    is_forking: run captured weight gradients concurrently with the rest.
    """

    is_forking = True

    def __init__(self) -> None:
        self.main = cupy.cuda.Stream(non_blocking=True)
        self._side = cupy.cuda.Stream(non_blocking=True)
        self._pending: list[tuple[int, int]] = []  # memory that the side stream may use

    def is_recording(self) -> bool:
        """Return True if the current stream is one that this thread captures on."""
        return cupy.cuda.get_current_stream().ptr in (self.main.ptr, self._side.ptr)

    @contextmanager
    def beside(self, *arrays: Array) -> Iterator[int]:
        """Launch on the side stream during a capture, until `join`; yield the lane of products.

        arrays: all that the launches read and write. Outside of a capture the launches stay on the
        current stream, but use the same lane, whose workspace the capture needs later.
        """
        if not (self.is_forking and self.is_recording()):
            yield 1
            return
        self._side.wait_event(self.main.record())
        self._pending += map(_bounds, arrays)
        with self._side:
            yield 1

    def join(self) -> None:
        """Make the main stream wait for the work on the side stream."""
        if self._pending:
            self._pending.clear()
            self.main.wait_event(self._side.record())

    def join_before(self, *arrays: Array | None) -> None:
        """Call `join` if the side stream may use the memory of one of the arrays."""
        if self._pending:
            given = [_bounds(array) for array in arrays if array is not None]
            if any(a < d and c < b for a, b in given for c, d in self._pending):
                self.join()

    def abandon(self) -> None:
        """Forget the side stream's work after a failed capture."""
        self._pending.clear()


def _bounds(array: Array) -> tuple[int, int]:
    """Return the first address of a contiguous array and the address after its end."""
    begin = int(array.data.ptr)
    return begin, begin + int(array.nbytes)
