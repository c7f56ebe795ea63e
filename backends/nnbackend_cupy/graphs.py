"""Steps as CUDA graphs: made once in earnest, recorded, replayed.

Everything that changes from step to step is read from device memory, so that one recording serves
every step, and a recording of several steps as well. What cannot be recorded is called instead,
with the same results.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import cupy

from nnbackend_cupy.streams import Streams

LONG = 16  # steps of the longer graph: a launch costs the host more than a step of a small net


class Steps:
    """One step and its graphs.

    run(n) makes n steps. The first of a thread is a call, which compiles kernels, chooses
    algorithms and allocates scratch memory; the rest are replays. can_record() is asked after that
    call, and gives the reason where not; say() is told why steps are called one by one.
    """

    def __init__(
        self,
        step: Callable[[], None],
        streams: Streams,
        can_record: Callable[[], str | None],
        say: Callable[[str], None],
    ) -> None:
        self._step, self._streams, self._can_record, self._say = step, streams, can_record, say
        # Not by the number of the thread, which a later one may be given again.
        self._here = threading.local()
        self._graphs: dict[int, Any] = {}
        self._kept: dict[int, Any] = {}
        self.nodes: dict[int, int | None] = {}  # of each graph, by its steps
        self.reason: str | None = None  # why steps are called one by one

    def keep(self, *memory: Any) -> None:
        """Keep memory that a recording uses by address, whichever thread ends before it."""
        self._kept.update({id(each): each for each in memory})

    def run(self, n: int) -> None:
        """Make n steps."""
        if n and not hasattr(self._here, "was_called"):
            self._step()  # each thread has scratch memory of its own, which this makes
            self._here.was_called, n = True, n - 1
            self._fall_back(self._can_record())
        while n and self.reason is None:
            length = LONG if n >= LONG else 1
            graph = self._graphs.get(length) or self._record(length)
            if graph is None:
                break
            self._replay(graph, n // length)
            n %= length
        for _ in range(n):
            self._step()

    def _fall_back(self, reason: str | None) -> None:
        if reason is not None and self.reason is None:
            self.reason = reason
            self._say(reason)

    def _record(self, length: int) -> Any:
        """Record some steps, without making them; None where that fails."""
        stream = self._streams.main
        try:
            with stream, cupy.cuda.using_allocator(_refuse):
                stream.begin_capture()
                try:
                    for _ in range(length):
                        self._step()
                    self.nodes[length] = count_nodes(stream)
                except BaseException:
                    self._streams.abandon()
                    self.nodes.pop(length, None)
                    with suppress(Exception):  # the capture may be invalid by now
                        stream.end_capture()
                    raise
                graph = stream.end_capture()
        except Exception as error:
            self._fall_back(f"recording failed: {type(error).__name__}: {error}")
            return None
        self._graphs[length] = graph
        return graph

    def _replay(self, graph: Any, times: int) -> None:
        """Launch a graph, after what was given to the current stream and before what will be."""
        current, stream = cupy.cuda.get_current_stream(), self._streams.main
        stream.wait_event(current.record())
        for _ in range(times):
            graph.launch(stream=stream)
        current.wait_event(stream.record())


def count_nodes(stream: Any) -> int | None:
    """Return how many nodes a stream has recorded so far; None where the driver cannot be asked.

    Source: CUDA Driver API, cuStreamGetCaptureInfo_v2 and cuGraphGetNodes.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        status, number = ctypes.c_int(), ctypes.c_size_t()
        graph = ctypes.c_void_p()
        failed = driver.cuStreamGetCaptureInfo_v2(
            ctypes.c_void_p(stream.ptr), ctypes.byref(status), None, ctypes.byref(graph), None, None
        )
        failed = failed or driver.cuGraphGetNodes(graph, None, ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed else number.value


def nodes_without_effect(stream: Any, step: Callable[[], None]) -> int | None:
    """Call a step; what it asks of the device is recorded, counted and thrown away."""
    with stream, cupy.cuda.using_allocator(_refuse):
        stream.begin_capture()
        try:
            step()
            return count_nodes(stream)
        finally:
            with suppress(Exception):  # the capture may be invalid by now
                stream.end_capture()


def _refuse(n_bytes: int) -> NoReturn:
    # Memory given out during a capture would be given out again while the graph still uses it.
    raise RuntimeError(f"a recorded step asked for {n_bytes:,} bytes of new memory")
