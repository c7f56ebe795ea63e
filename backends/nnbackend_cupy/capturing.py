"""How captured steps are made: by one kernel, as a graph of few launches, or called one by one.

A step's calls are first written down, without effect. Where one kernel makes the whole step, it
does. Else neighbouring calls that have a kernel together are fused, and the step is recorded into
graphs. A step whose calls cannot be written down is recorded as it is, or called.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import cupy

from nnbackend_cupy.failures import STICKY
from nnbackend_cupy.fusing import fused
from nnbackend_cupy.graphs import Steps, nodes_without_effect
from nnbackend_cupy.narrow_source import Grid, NotNarrow
from nnbackend_cupy.recorder import Call, NotRecorded, Recorder, recorded

if TYPE_CHECKING:
    from nnbackend_cupy.backend import CuPyBackend

LOG = logging.getLogger("nnbackend.cupy")
MAX_REPORTED = 64  # captures that are reported
# What a kernel that does not suit the device raises: at its compilation, or at its launch.
NOT_LAUNCHED = (cupy.cuda.compiler.CompileException, cupy.cuda.driver.CUDADriverError)


class Captures:
    """The captured steps of one backend."""

    def __init__(self, backend: CuPyBackend) -> None:
        self._backend = backend
        self.narrow_reason: str | None = None  # why the last step was not made by one kernel
        self._recorded: deque[dict[int, int | None]] = deque(maxlen=MAX_REPORTED)  # nodes of its graphs
        self._not_recorded: deque[str] = deque(maxlen=MAX_REPORTED)  # why steps were called one by one
        self._narrow: deque[str] = deque(maxlen=MAX_REPORTED)  # on which grids

    def new_run(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return a function that makes n steps; nothing of the step has been executed yet."""
        backend = self._backend
        try:
            calls = self._calls(step)
        except NotRecorded as error:
            self.narrow_reason = str(error)
            return self._steps(step)
        general = self._steps(fused(calls, backend) if backend.uses_fused else step)
        try:
            if not backend.uses_narrow:
                raise NotNarrow("it is switched off")
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
        """Return the whole steps of one kernel, or the general ones where it cannot be launched."""

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
                LOG.warning("steps are not made in one kernel: %s", self.narrow_reason)
                with suppress(ValueError):
                    self._narrow.remove(str(grid))
                chosen = general
                general(n)  # nothing has been executed yet

        return make

    def report(self) -> dict[str, Any]:
        """Return the nodes of each recording, the reasons for none, the grids of whole steps."""
        return {
            "recorded": [dict(nodes) for nodes in self._recorded if nodes],
            "not_recorded": list(self._not_recorded),
            "narrow": list(self._narrow),
        }

    def _calls(self, step: Callable[[], None]) -> list[Call]:
        """Return the calls of a step, which has no effect."""
        streams, notes = self._backend._streams, self._backend._thread_state
        notes.recorder = recorder = Recorder()
        try:
            nodes: list[int | None] = []
            calls = recorded(
                lambda: nodes.append(nodes_without_effect(streams.main, step)), recorder
            )
        finally:
            notes.recorder = None
        if nodes[0]:
            raise NotRecorded(f"the step works on arrays beside its calls: {nodes[0]} launches")
        return calls

    def _steps(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return the function that replays a step, or calls it where it cannot be recorded."""
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
