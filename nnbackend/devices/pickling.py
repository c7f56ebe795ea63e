"""Pickling of devices: by name where the registry can open them again, else as an object."""

from __future__ import annotations

import pickle
from typing import Any

from nnbackend.backend import Backend
from nnbackend.devices.registry import get_backend
from nnbackend.errors import ArgumentError, BackendError


def reduced(backend: Backend) -> tuple[Any, ...]:
    """Return what a pickle stores of a device: its string, or its class and attributes.

    Raises: BackendError when the attributes cannot be pickled.
    """
    if _is_registered(backend):
        return _opened, (backend.device, backend.precision)
    state = {name: value for name, value in backend.__dict__.items() if name != "_ranges"}
    try:
        pickle.dumps((type(backend), state))
    except Exception as error:  # an attribute's __reduce__ may raise anything
        raise BackendError(
            "A backend in a pickle must be registered under an entry point of "
            "nnbackend.backends, or have a class and attributes that can be pickled. "
            f"Received: {backend!r} ({type(backend).__qualname__}; {error}). Register it, "
            "or save the network with nnbackend.Model(net).save(path)."
        ) from error
    return _restored, (type(backend), state)


def _is_registered(backend: Backend) -> bool:
    """Return True if `get_backend(backend.device)` returns a backend of the same class."""
    try:
        return type(get_backend(backend.device)) is type(backend)
    except (BackendError, ArgumentError):
        return False


def _opened(device: str, precision: str) -> Backend:
    return get_backend(device).with_precision(precision)


def _restored(kind: type[Backend], state: dict[str, Any]) -> Backend:
    backend = kind.__new__(kind)
    backend.__dict__.update(state)
    return backend


Backend.reduced = reduced
