"""Steps as CUDA graphs: called once, captured, replayed.

Kernels read everything that changes between steps from device memory, so one graph replays every
step, and a longer graph several steps. A step that cannot be captured, or has no memory for its
graph, is called instead, with the same results.
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

GRAPH_STEPS = 16  # steps of the longer graph; launching a graph may take longer than a small step


class Steps:
    """One step and its graphs.

    run(n) runs n steps. The first step of a thread is called, which compiles kernels, chooses
    algorithms and allocates scratch memory; the others are replayed. After that call, can_record()
    returns None, or why the step cannot be captured. in_use() returns the objects that this
    thread's graphs need. on_fallback(reason) is called once if steps are not replayed.

    A graph allocates device memory at its capture and at its first launch. Without memory, the
    graph of one step replaces the longer one, and calls replace the graph of one step.
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
        # Not a set of thread ids, which the system reuses.
        self._thread = threading.local()
        self._graphs: dict[int, tuple[Any, list[Any]]] = {}  # each with the objects it points to
        self._longest = GRAPH_STEPS
        self.nodes: dict[int, int | None] = {}  # of each graph, by its length in steps
        self.reason: str | None = None  # why steps are called, not replayed

    def run(self, n: int) -> None:
        """Run n steps."""
        if n and not hasattr(self._thread, "has_run"):
            self._step()  # allocates this thread's scratch memory
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
        """Drop a graph that lacks memory, and free its memory for its replacement."""
        self._graphs.pop(length, None)
        self.nodes.pop(length, None)
        failures.free_memory()
        if length == 1:
            self._fall_back(reason)
        else:
            self._longest = 1

    def _record(self, length: int) -> bool:
        """Capture some steps without running them. Return False if that fails."""
        try:
            self._graphs[length] = self._captured(length), self._in_use()
            return True
        except Exception as error:
            reason = f"recording failed: {type(error).__name__}: {error}"
            is_short = failures.is_out_of_memory(error)
        # Here the error, and the memory that its frames referenced, are freed.
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
        """Launch a graph after earlier and before later work of the current stream.

        Return the number of launches: less than `times` if the device has no memory left.
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
    """Return how many nodes a stream has captured so far; None if the driver cannot be queried.

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
    """Return how many nodes a step launches outside of recorded calls; discard its capture."""
    with stream, cupy.cuda.using_allocator(_refuse):
        stream.begin_capture()
        try:
            step()
            return count_nodes(stream)
        finally:
            with suppress(Exception):  # the capture may be invalid by now
                stream.end_capture()


def _refuse(n_bytes: int) -> NoReturn:
    # The pool would hand out memory allocated during a capture again while the graph uses it.
    raise RuntimeError(f"a recorded step asked for {n_bytes:,} bytes of new memory")
