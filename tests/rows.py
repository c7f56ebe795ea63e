"""The rows of the test matrix: every backend that the conformance kit runs on here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import stand_in_backend
import torch_rows

from nnbackend.backend import Backend, BackendSpec, Probe
from nnbackend.devices import get_backend, registry
from nnbackend.errors import BackendUnavailableError
from nnbackend.testing import GhostBackend, ReferenceBackend
from nnbackend.testing.skipping import skip


class StrictBackend(Backend):
    """The six methods over array_api_strict, which has the standard's functions only.

    Without the capability "uint64", so dropout masks are drawn on the host.
    """

    name = "strict"
    device = "strict:0"

    def __init__(self) -> None:
        try:
            import array_api_strict
        except ImportError as error:
            raise BackendUnavailableError("array-api-strict is not installed") from error
        self.xp = array_api_strict
        self._array = type(array_api_strict.zeros((1,)))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.xp.empty(shape, dtype=getattr(self.xp, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype))

    def to_device(self, host: np.ndarray, out: Any = None) -> Any:
        array = self.xp.asarray(host, copy=True)
        if out is None:
            return array
        out[...] = array
        return out

    def to_host(self, array: Any) -> np.ndarray:
        return np.array(array)

    def synchronize(self) -> None:
        pass

    def owns(self, array: object) -> bool:
        return isinstance(array, self._array)


def _probe_strict() -> Probe:
    try:
        import array_api_strict  # noqa: F401
    except ImportError:
        return Probe(0, reason="array-api-strict is not installed")
    return Probe(device_count=1)


STRICT = BackendSpec(
    name="strict",
    kind="cpu",
    priority=-1,
    probe=_probe_strict,
    load=lambda index: StrictBackend(),
)

# Backends that are only for tests: how to make one, and its spec for the registry's table.
TEST_ONLY: dict[str, tuple[Callable[[], Backend], str]] = {
    "ghost": (GhostBackend, "nnbackend.testing.ghost:SPEC"),
    "ghost32": (partial(GhostBackend, has_float64=False), "nnbackend.testing.ghost:SPEC32"),
    "defaults": (ReferenceBackend, "nnbackend.testing.reference:SPEC"),
    "strict": (StrictBackend, "rows:STRICT"),
    "torch32": (torch_rows.new_backend, "torch_rows:SPEC"),
    "cupy_emulated": (stand_in_backend.new_row, "stand_in_backend:SPEC"),
}
SHIPPED = [name for name in ("numpy", "numba", "cupy", "torch") if name in registry.BUILT_IN]
ROWS = [*SHIPPED, *TEST_ONLY]


def make(row: str) -> Backend:
    """Return a row's backend; raises BackendUnavailableError with the reason."""
    return TEST_ONLY[row][0]() if row in TEST_ONLY else get_backend(row)


def make_or_skip(row: str) -> Backend:
    """Return a row's backend, or skip the test with the reason."""
    try:
        return make(row)
    except BackendUnavailableError as error:
        skip(row, " ".join(str(error).split()))


@contextmanager
def registered(*names: str) -> Iterator[None]:
    """Add backends that are only for tests to the registry's table inside the context."""
    try:
        registry.BUILT_IN.update({name: TEST_ONLY[name][1] for name in names})
        registry.refresh()
        yield
    finally:
        for name in names:
            registry.BUILT_IN.pop(name, None)
        registry.refresh()
