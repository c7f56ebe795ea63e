"""The streams of one backend: each thread records on its own, and may fork work beside it.

While a step is recorded, the weight gradients go to a second stream: they need the local gradient
of their layer, and nobody needs them before the update. In the graph they run beside the chain of
products that leads to the layers below. Called one by one, everything stays on one stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cupy

from nnbackend.backend.formulas import Array
from nnbackend_cupy.recorder import Recorder


class ThreadState(threading.local):
    """What one thread has under way: a recorder of its calls, and why CuPy replaced kernels."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.fallbacks: dict[str, str] = {}  # kernel -> reason, of the step under way


class Streams(threading.local):
    """One thread's stream for recording, and the one beside it; made on the current device.

    is_forking: let recorded weight gradients run beside the rest.
    """

    is_forking = True

    def __init__(self) -> None:
        self.main = cupy.cuda.Stream(non_blocking=True)
        self._side = cupy.cuda.Stream(non_blocking=True)
        self._pending: list[tuple[int, int]] = []  # memory that forked work still reads or writes

    def is_recording(self) -> bool:
        """Return True if the current stream is one that this thread records on."""
        return cupy.cuda.get_current_stream().ptr in (self.main.ptr, self._side.ptr)

    @contextmanager
    def beside(self, *arrays: Array) -> Iterator[int]:
        """Work beside the recorded step until `join`; yields the lane of its products.

        arrays: what the work reads and writes. Outside a recording the work stays where it is, but
        in the same lane: what a recording needs, memory and algorithms, is made when the step is
        first called.
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
        """`join` if work on the side stream still uses the memory of one of the arrays."""
        if self._pending:
            given = [_bounds(array) for array in arrays if array is not None]
            if any(a < d and c < b for a, b in given for c, d in self._pending):
                self.join()

    def abandon(self) -> None:
        """Forget the work beside a recording that has failed."""
        self._pending.clear()


def _bounds(array: Array) -> tuple[int, int]:
    """Return the first address of a contiguous array and the one after its last."""
    begin = int(array.data.ptr)
    return begin, begin + int(array.nbytes)
