"""Run captured steps: with one kernel, as a graph of few launches, or call by call.

The calls of a step are first recorded, without effect. If one kernel supports the whole step, it
runs it. Otherwise consecutive calls with a common kernel are fused, and the step is captured into
graphs. A step whose calls cannot be recorded is captured unchanged, or called.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import cupy

from nnbackend_cupy.blaslt import BlasLt
from nnbackend_cupy.failures import STICKY
from nnbackend_cupy.fusing import FusedBackend, fused
from nnbackend_cupy.graphs import Steps, nodes_without_effect
from nnbackend_cupy.narrow import NarrowSteps
from nnbackend_cupy.narrow_source import Grid, NotNarrow
from nnbackend_cupy.recorder import Call, NotRecorded, Recorder, recorded
from nnbackend_cupy.streams import ThreadState

LOG = logging.getLogger("nnbackend.cupy")
MAX_REPORTED = 64  # captures in a report
# Raised for a kernel that the device does not support, at its compilation or launch.
NOT_LAUNCHED = (cupy.cuda.compiler.CompileException, cupy.cuda.driver.CUDADriverError)


class CapturedBackend(FusedBackend, Protocol):
    """What captures use of a backend."""

    uses_narrow: bool
    uses_fused: bool
    narrow_grid: Grid | None
    _blas: BlasLt
    _narrow: NarrowSteps
    _thread_state: ThreadState

    def _not_recorded(self, reason: str) -> None: ...


class Captures:
    """The captured steps of one backend."""

    def __init__(self, backend: CapturedBackend) -> None:
        self._backend = backend
        self.narrow_reason: str | None = None  # why one kernel did not run the last step
        self._recorded: deque[dict[int, int | None]] = deque(
            maxlen=MAX_REPORTED
        )  # nodes of each graph
        self._not_recorded: deque[str] = deque(maxlen=MAX_REPORTED)  # reasons
        self._narrow: deque[str] = deque(maxlen=MAX_REPORTED)  # grids of steps in one kernel

    def new_run(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return a function that runs n steps, without running one yet."""
        backend = self._backend
        try:
            calls = self._calls(step)
        except NotRecorded as error:
            self.narrow_reason = str(error)
            return self._steps(step)
        general = self._steps(fused(calls, backend) if backend.uses_fused else step)
        try:
            if not backend.uses_narrow:
                raise NotNarrow("it is disabled")
            run, grid = backend._narrow.plan(calls, backend.narrow_grid)
        except NotNarrow as error:
            self.narrow_reason = str(error)
            return general
        self.narrow_reason = None
        self._narrow.append(str(grid))
        return self._with_fallback(run, general, grid)

    def _with_fallback(
        self, run: Callable[[int], None], general: Callable[[int], None], grid: Grid
    ) -> Callable[[int], None]:
        """Return `run`, replaced by `general` if its kernel cannot be launched."""
        chosen: Callable[[int], None] | None = None

        def make(n: int) -> None:
            nonlocal chosen
            if chosen is not None:
                chosen(n)
                return
            try:
                run(n)
                chosen = run
            except NOT_LAUNCHED as error:
                if getattr(error, "status", None) in STICKY:
                    raise
                self.narrow_reason = f"{type(error).__name__}: {error}"
                LOG.warning("steps do not run in one kernel: %s", self.narrow_reason)
                with suppress(ValueError):
                    self._narrow.remove(str(grid))
                chosen = general
                general(n)  # no step has run yet

        return make

    def report(self) -> dict[str, Any]:
        """Return the nodes of each graph, reasons for missing ones, grids of one-kernel steps."""
        return {
            "recorded": [dict(nodes) for nodes in self._recorded if nodes],
            "not_recorded": list(self._not_recorded),
            "narrow": list(self._narrow),
        }

    def _calls(self, step: Callable[[], None]) -> list[Call]:
        """Return the calls of a step, without running them."""
        streams, state = self._backend._streams, self._backend._thread_state
        state.recorder = recorder = Recorder()
        try:
            nodes: list[int | None] = []
            calls = recorded(
                lambda: nodes.append(nodes_without_effect(streams.main, step)), recorder
            )
        finally:
            state.recorder = None
        if nodes[0]:
            raise NotRecorded(f"the step launches {nodes[0]} kernels outside of backend methods")
        return calls

    def _steps(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return the function that replays a step, or calls it if it cannot be captured."""
        backend = self._backend

        def counted() -> None:
            backend._thread_state.fallbacks.clear()
            step()
            backend._streams.join()

        def can_record() -> str | None:
            return "; ".join(dict.fromkeys(backend._thread_state.fallbacks.values())) or None

        def in_use() -> list[Any]:
            return [*backend._kernels.in_use(), *backend._blas.workspaces.values()]

        def on_fallback(reason: str) -> None:
            self._not_recorded.append(reason)
            backend._not_recorded(reason)

        steps = Steps(counted, backend._streams, can_record, in_use, on_fallback)
        self._recorded.append(steps.nodes)
        return steps.run
