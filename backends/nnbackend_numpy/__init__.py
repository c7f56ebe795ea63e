"""NumPy: the reference backend, available in every installation."""

from __future__ import annotations

from nnbackend.backend import Backend, BackendSpec, Probe


def _probe() -> Probe:
    return Probe(device_count=1)


def _version() -> str:
    from importlib.metadata import version

    return f"NumPy {version('numpy')}"


def _load(index: int) -> Backend:
    from nnbackend_numpy.kernels import NumPyBackend

    return NumPyBackend()


SPEC = BackendSpec(
    name="numpy", kind="cpu", priority=10, probe=_probe, load=_load, version=_version
)
