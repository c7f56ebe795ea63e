"""Asynchronous copies to the device, through pinned memory.

`ndarray.set` reads the caller's memory directly. A copy from pageable memory waits for all earlier
work of the stream; one from pinned memory is queued, and may read the memory later. So a small
array is first copied into pinned memory, which is reserved until the device has read it: the
caller may change the array at once, and does not wait for the device.
Source: CUDA driver API, "API synchronization behavior"; CuPy 14.2, `ndarray.set` in core.pyx
(`cupy.array` stages as is done here, but only into a new array).
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from nnbackend.backend.formulas import Array
from nnbackend_cupy.failures import is_out_of_memory

# Enough for row orders, rates and clocks. A data set is copied once, and pinned memory of its size
# would never be freed: CuPy's pool keeps it.
MAX_STAGED = 4 << 20  # bytes


class Staging:
    """The copies to one device. Not thread-safe."""

    def __init__(self) -> None:
        self._pending: list[tuple[Any, Any]] = []  # an event, and the memory to reserve until then

    def send(self, host: np.ndarray, out: Array) -> None:
        """Copy to `out`, contiguous, of the same shape and dtype; `host` may be changed afterwards.

        Raises: RuntimeError while the stream captures.
        """
        stream = cupy.cuda.get_current_stream()
        if stream.is_capturing():  # a replay would copy later contents
            raise RuntimeError("a recorded step copies from the host")
        self._pending = [pair for pair in self._pending if not pair[0].done]
        memory = _pinned(host.nbytes) if 0 < host.nbytes <= MAX_STAGED else None
        if memory is None:
            out.set(host)
            stream.synchronize()  # a copy from a caller's pinned memory may still read it
            return
        staged = np.frombuffer(memory, host.dtype, host.size).reshape(host.shape)
        staged[...] = host
        out.set(staged)
        self._pending.append((stream.record(), memory))


def _pinned(n_bytes: int) -> Any:
    """Return pinned memory, or None if the host has none left."""
    try:
        return cupy.cuda.alloc_pinned_memory(n_bytes)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
