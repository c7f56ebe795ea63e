"""The sums of a pass over the data, accurate also on devices without float64.

In float32 a count above 2^24 ignores increments of 1, and the loss of many rows loses its last
digits. So if a device sums in float32, its sums are added to float64 sums on the host every few
steps.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backend import Backend

SLOTS = 4  # LOSS, WEIGHT, PENALTY, SCORE
MAX_STEPS, MAX_ROWS = 64, 1 << 24  # between two transfers to the host


class Sums:
    """The sums `totals` on a device, and on the host the sums that were moved there.

    rows: rows per step.  every: number of steps after which `flush` must be called; a number of
    steps, not a time, so that a run is reproducible bit by bit.
    """

    def __init__(self, backend: Backend, rows: int = 1) -> None:
        self.backend, self.host = backend, np.zeros(SLOTS)
        self.totals = backend.zeros((SLOTS,), backend.sum_dtype)
        self.is_short = backend.sum_dtype != "float64"
        self.every = max(1, min(MAX_STEPS, MAX_ROWS // rows)) if self.is_short else 1 << 62

    def clear(self) -> None:
        """Set all sums to zero."""
        self.host[...] = 0.0
        self.backend.fill(self.totals, 0.0)

    def flush(self) -> None:
        """Move the device's sums to the host if the device has no float64."""
        if self.is_short:
            self.host += self.backend.to_host(self.totals)
            self.backend.fill(self.totals, 0.0)

    def read(self) -> np.ndarray:
        """Return the sums so far, float64."""
        total: np.ndarray = self.host + self.backend.to_host(self.totals)
        return total

    def load(self, totals: np.ndarray, host: np.ndarray | None) -> None:
        """Load saved sums, which may be from a device that sums in another dtype.

        host: the sums on the host, or None if they are from a device with float64.
        Raises: ValueError for arrays of another form.
        """
        forms = [(totals, "float64" if host is None else "float32"), (host, "float64")]
        for array, dtype in forms:
            if array is not None and (array.dtype.name, array.shape) != (dtype, (SLOTS,)):
                raise ValueError(f"sums in {array.dtype} {array.shape}")
        host = np.zeros(SLOTS) if host is None else host
        if totals.dtype.name != self.backend.sum_dtype:
            total, zeros = host + totals, np.zeros(SLOTS)
            totals, host = (zeros, total) if self.is_short else (total, zeros)
        self.host[...] = host
        self.backend.to_device(totals.astype(self.backend.sum_dtype), out=self.totals)
