"""CuPy on one CUDA GPU. Importing this package does not import CuPy; the probe does."""

from __future__ import annotations

from nnbackend.backend import Backend, BackendSpec, Probe


def _probe() -> Probe:
    from nnbackend_cupy.probe import probe

    return probe()


def _version() -> str:
    from nnbackend_cupy.probe import version

    return version()


def _load(index: int) -> Backend:
    from nnbackend_cupy.backend import CuPyBackend
    from nnbackend_cupy.probe import check_first_use

    check_first_use(index)
    return CuPyBackend(index)


SPEC = BackendSpec(name="cupy", kind="gpu", priority=10, probe=_probe, load=_load, version=_version)
