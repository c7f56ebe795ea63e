"""Copies to the device that nobody waits for: through pinned memory.

`ndarray.set` reads the caller's memory as it is. A copy from ordinary memory waits for all work
that the stream was given before, and the driver stages it by itself; one from pinned memory is
queued, and may read it long after. So a small array is first copied into pinned memory, which is
kept until the device has read it: the caller is free at once, and the device is not waited for.
Source: CUDA driver API, "API synchronization behavior"; CuPy 14.2, `ndarray.set` in core.pyx
(`cupy.array` stages as is done here, but only into a new array).
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_cupy.failures import is_out_of_memory

# The order of the rows, rates, clocks. A data set comes once, and pinned memory as large would be
# taken from the host for good: CuPy's pool gives none back.
MAX_STAGED = 4 << 20  # bytes


class Staging:
    """The copies to one device; those of one object come one after another."""

    def __init__(self) -> None:
        self._pending: list[tuple[Any, Any]] = []  # an event, the memory that is read before it

    def send(self, host: np.ndarray, out: Array) -> None:
        """Copy to `out`, of the same shape and dtype, both contiguous; `host` is free at once.

        Raises: RuntimeError while the stream captures.
        """
        stream = cupy.cuda.get_current_stream()
        if stream.is_capturing():  # each replay would copy what lies there by then
            raise RuntimeError("a recorded step copies from the host")
        self._pending = [pair for pair in self._pending if not pair[0].done]
        memory = _pinned(host.nbytes) if 0 < host.nbytes <= MAX_STAGED else None
        if memory is None:
            out.set(host)
            stream.synchronize()  # `host` may be read until then: a caller's own pinned memory is
            return
        staged = np.frombuffer(memory, host.dtype, host.size).reshape(host.shape)
        staged[...] = host
        out.set(staged)
        self._pending.append((stream.record(), memory))


def _pinned(n_bytes: int) -> Any:
    """Return pinned memory, None where the host has none left: then the copy does without."""
    try:
        return cupy.cuda.alloc_pinned_memory(n_bytes)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
