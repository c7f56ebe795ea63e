"""The CuPy backend over the stand-in: the row `cupy_emulated` of the matrix."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from emulator import LACKING

from nnbackend.backend import Backend, BackendSpec, Probe
from nnbackend.errors import BackendUnavailableError


@cache
def modules() -> Any:
    """Return the backend's module, imported over the stand-in."""
    from stand_in import load_backend

    return load_backend()


def new_backend(precision: str = "float32") -> Any:
    """Return a new backend with its own model of cuBLASLt at `backend.model`."""
    from stand_in_blaslt import Model

    if LACKING is not None:
        raise BackendUnavailableError(LACKING)
    loaded, model = modules(), Model()
    blaslt = loaded.BlasLt.multiply.__globals__
    backend = loaded.CuPyBackend(0, precision)
    blaslt["load"] = lambda: model
    with suppress(blaslt["Refused"]):  # cached, and raised again at the first product
        backend._blas._open()
    backend.name, backend.device, backend.model = "cupy_emulated", "cupy_emulated:0", model
    return backend


def new_row() -> Any:
    """Return a backend for the matrix: a failed capture or an invalid call is an error.

    Some products have no algorithm, alone or with an epilogue, so that fallbacks are covered.
    """

    def check(reason: str) -> None:
        assert not reason.startswith("recording failed"), reason

    backend = new_backend()
    backend._not_recorded = check
    backend.model.is_strict = backend.model.is_choosy = True
    return backend


def _load(index: int) -> Backend:
    backend: Backend = new_row()
    return backend


def _probe() -> Probe:
    return Probe(0, LACKING) if LACKING else Probe(1)


SPEC = BackendSpec(name="cupy_emulated", kind="gpu", priority=-1, probe=_probe, load=_load)
