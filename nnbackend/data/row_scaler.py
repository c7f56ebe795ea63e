"""Scaling of raw rows on their way to a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.data.scalers import Scaler


class RowScaler:
    """Scales raw rows to a network's dtype, in float64.

    on_host: True if rows from the host must be scaled there, because the device has no float64.
    """

    def __init__(self, scaler: Scaler, backend: Backend, dtype: str) -> None:
        self.scaler, self.backend, self.dtype = scaler, backend, dtype
        self.on_host = "float64" not in backend.float_dtypes
        # The factor of a nearly constant column may exceed the range of float32.
        factor = np.minimum(scaler.factor, np.finfo(backend.sum_dtype).max)
        shift, factor = map(backend.narrowed, (scaler.shift, factor))
        self._shift, self._factor = backend.to_device(shift), backend.to_device(factor)

    def scaled(self, rows: Any) -> np.ndarray:
        """Return host rows (B, I), scaled on the host."""
        return self.scaler.transform(rows, self.dtype)

    def scale(self, rows: Array, out: Array) -> None:
        """Scale rows (B, I) on the device into `out`."""
        self.backend.scale_rows(rows, self._shift, self._factor, self.scaler.clip, out)
