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

from nnbackend_cupy.recorder import Recorder


class Streams(threading.local):
    """One thread's stream for recording, and the one beside it.

    is_forking: let recorded weight gradients run beside the rest.
    recorder: takes this thread's calls, while a step is written down.
    """

    is_forking = True
    recorder: Recorder | None = None

    def __init__(self) -> None:
        self.main = cupy.cuda.Stream(non_blocking=True)
        self._side = cupy.cuda.Stream(non_blocking=True)
        self._is_forked = False

    def is_recording(self) -> bool:
        """Return True if the current stream is one that this thread records on."""
        return cupy.cuda.get_current_stream().ptr in (self.main.ptr, self._side.ptr)

    @contextmanager
    def beside(self) -> Iterator[int]:
        """Work beside the recorded step until `join`; yields the lane of its products.

        Outside a recording the work stays where it is, but in the same lane: what a recording
        needs, memory and algorithms, is made when the step is first called.
        """
        if not (self.is_forking and self.is_recording()):
            yield 1
            return
        self._side.wait_event(self.main.record())
        self._is_forked = True
        with self._side:
            yield 1

    def join(self) -> None:
        """Let the recorded step wait for what runs beside it."""
        if self._is_forked:
            self._is_forked = False
            self.main.wait_event(self._side.record())

    def abandon(self) -> None:
        """Forget the work beside a recording that has failed."""
        self._is_forked = False
