"""The sums of a pass over the data, kept exact on devices without float64 as well.

In float32 a count beyond 2^24 loses ones, and the loss of many rows its last digits. So where a
device sums in float32, its sums are brought to the host every few steps and added up there.
"""

from __future__ import annotations

import numpy as np

from nnbackend.backend import Backend

SLOTS = 4  # LOSS, WEIGHT, PENALTY, SCORE
MOST_STEPS, MOST_ROWS = 64, 1 << 24  # between two visits of the host


class Sums:
    """The slots of `totals` on a device, and on the host what was brought from there.

    every: steps of so many rows after which `bring` must be called; a number of steps, not a time,
    so that a run gives the same bits each time.
    """

    def __init__(self, backend: Backend, rows: int = 1) -> None:
        self.backend, self.host = backend, np.zeros(SLOTS)
        self.totals = backend.zeros((SLOTS,), backend.sum_dtype)
        self.is_short = backend.sum_dtype != "float64"
        self.every = max(1, min(MOST_STEPS, MOST_ROWS // rows)) if self.is_short else 1 << 62

    def clear(self) -> None:
        """Begin anew."""
        self.host[...] = 0.0
        self.backend.fill(self.totals, 0.0)

    def bring(self) -> None:
        """Add the device's sums to the host's, where the device has no float64."""
        if self.is_short:
            self.host += self.backend.to_host(self.totals)
            self.backend.fill(self.totals, 0.0)

    def read(self) -> np.ndarray:
        """Return the sums so far, float64."""
        total: np.ndarray = self.host + self.backend.to_host(self.totals)
        return total

    def put(self, totals: np.ndarray, host: np.ndarray) -> None:
        """Take the state of another object, perhaps of a device that sums in another dtype."""
        if totals.dtype.name != self.backend.sum_dtype:
            whole, nothing = host + totals, np.zeros(SLOTS)
            totals, host = (nothing, whole) if self.is_short else (whole, nothing)
        self.host[...] = host
        self.backend.to_device(totals.astype(self.backend.sum_dtype), out=self.totals)
