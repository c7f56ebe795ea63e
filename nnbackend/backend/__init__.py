"""The interface between the engine and a device: the `Backend` base class and its registry."""

from nnbackend.backend.base import API_VERSION, Backend
from nnbackend.backend.registry import (
    BackendRow,
    BackendSpec,
    Device,
    Probe,
    backends,
    get_backend,
)

__all__ = [
    "API_VERSION",
    "Backend",
    "BackendRow",
    "BackendSpec",
    "Device",
    "Probe",
    "backends",
    "get_backend",
]
