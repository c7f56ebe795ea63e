"""NumPy with compiled kernels: the backend of device="cpu" if numba is installed."""

from __future__ import annotations

import importlib.util

from nnbackend.backend import Backend, BackendSpec, Probe

CURE = "pip install numba"
UNSET = "unset NUMBA_DISABLE_JIT"


def _probe() -> Probe:
    if importlib.util.find_spec("numba") is None:
        return Probe(0, "numba is not installed; steps run several times slower without it", CURE)
    try:
        import numba  # the only way to check that it works with the installed NumPy
    except Exception as error:
        reason = f"numba cannot be imported ({type(error).__name__}: {error})"
        return Probe(0, reason, "pip install --upgrade numba")
    if numba.config.DISABLE_JIT:
        return Probe(0, "numba's compiler is switched off by NUMBA_DISABLE_JIT", UNSET)
    return Probe(1)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"numba {version('numba')}, NumPy {version('numpy')}"
    except PackageNotFoundError:
        return ""


def _load(index: int) -> Backend:
    from nnbackend_numba.backend import NumbaBackend

    return NumbaBackend()


SPEC = BackendSpec(
    name="numba", kind="cpu", priority=20, probe=_probe, load=_load, version=_version
)
