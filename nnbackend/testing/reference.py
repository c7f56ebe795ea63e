"""The reference of the conformance kit: the base class's kernels over NumPy."""

from __future__ import annotations

import numpy as np

from nnbackend.backend import Backend, BackendSpec, Probe


class ReferenceBackend(Backend):
    """The six methods over NumPy, nothing else: the shortest possible backend.

    Every override is compared with it in float64. It is also a template for new backends.
    """

    name = "defaults"
    device = "defaults:0"
    xp = np
    capabilities = frozenset({"uint64"})

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)

    def to_device(self, host: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            return np.array(host)
        out[...] = host
        return out

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array)

    def synchronize(self) -> None:
        """Return at once: NumPy has nothing to wait for."""

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)


def _probe() -> Probe:
    return Probe(device_count=1)


SPEC = BackendSpec(
    name="defaults", kind="cpu", priority=-1, probe=_probe, load=lambda index: ReferenceBackend()
)
