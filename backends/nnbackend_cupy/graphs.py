"""Steps as CUDA graphs: made once in earnest, recorded, replayed.

Everything that changes from step to step is read from device memory, so that one recording serves
every step, and a recording of several steps as well. What cannot be recorded is called instead,
with the same results; so is what finds no memory for its graph.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import cupy

from nnbackend_cupy import failures
from nnbackend_cupy.streams import Streams

GRAPH_STEPS = 16  # steps of the longer graph: a launch costs the host more than a step of a small net


class Steps:
    """One step and its graphs.

    run(n) makes n steps. The first of a thread is a call, which compiles kernels, chooses
    algorithms and allocates scratch memory; the rest are replays. can_record() is asked after that
    call, and gives the reason where not; in_use() gives what this thread's recordings need as long
    as they are replayed; on_fallback() is told why steps are called one by one.

    A graph takes memory of the device, when it is made and when it is first launched. Where there
    is none, the graph of one step serves instead of the longer one, and calls instead of that.
    """

    def __init__(
        self,
        step: Callable[[], None],
        streams: Streams,
        can_record: Callable[[], str | None],
        in_use: Callable[[], list[Any]],
        on_fallback: Callable[[str], None],
    ) -> None:
        self._step, self._streams = step, streams
        self._can_record, self._in_use, self._on_fallback = can_record, in_use, on_fallback
        # Not by the number of the thread, which a later one may be given again.
        self._thread = threading.local()
        self._graphs: dict[int, tuple[Any, list[Any]]] = {}  # each with what it uses by address
        self._longest = GRAPH_STEPS
        self.nodes: dict[int, int | None] = {}  # of each graph, by its steps
        self.reason: str | None = None  # why steps are called one by one

    def run(self, n: int) -> None:
        """Make n steps."""
        if n and not hasattr(self._thread, "has_run"):
            self._step()  # each thread has scratch memory of its own, which this makes
            self._thread.has_run, n = True, n - 1
            self._fall_back(self._can_record())
        while n and self.reason is None:
            length = self._longest if n >= self._longest else 1
            if length in self._graphs or self._record(length):
                n -= length * self._replay(length, n // length)
        for _ in range(n):
            self._step()

    def _fall_back(self, reason: str | None) -> None:
        if reason is not None and self.reason is None:
            self.reason = reason
            self._on_fallback(reason)

    def _drop_graph(self, length: int, reason: str) -> None:
        """Drop a graph that finds no memory, and give back what it had for what takes its place."""
        self._graphs.pop(length, None)
        self.nodes.pop(length, None)
        failures.free_memory()
        if length == 1:
            self._fall_back(reason)
        else:
            self._longest = 1

    def _record(self, length: int) -> bool:
        """Record some steps, without making them. Return False where that fails."""
        try:
            self._graphs[length] = self._captured(length), self._in_use()
            return True
        except Exception as error:
            reason = f"recording failed: {type(error).__name__}: {error}"
            is_short = failures.is_out_of_memory(error)
        # Only now is the error gone, and with it what its frames held.
        if is_short:
            self._drop_graph(length, reason)
        else:
            self._fall_back(reason)
        return False

    def _captured(self, length: int) -> Any:
        stream = self._streams.main
        with stream, cupy.cuda.using_allocator(_refuse):
            stream.begin_capture()
            try:
                for _ in range(length):
                    self._step()
                nodes = count_nodes(stream)
            except BaseException:
                self._streams.abandon()
                with suppress(Exception):  # the capture may be invalid by now
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        self.nodes[length] = nodes
        return graph

    def _replay(self, length: int, times: int) -> int:
        """Launch a graph, after what was given to the current stream and before what will be.

        Return how many times it was launched: fewer where the device has no memory for it.
        """
        current, stream = cupy.cuda.get_current_stream(), self._streams.main
        stream.wait_event(current.record())
        launched, reason = 0, None
        try:
            while launched < times:
                self._graphs[length][0].launch(stream=stream)
                launched += 1
        except Exception as error:
            if not failures.is_out_of_memory(error):
                raise
            reason = f"a replay failed: {type(error).__name__}: {error}"
        current.wait_event(stream.record())
        if reason is not None:
            self._drop_graph(length, reason)
        return launched


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
