"""The interface between the engine and a device: the `Backend` base class and its records."""

from nnbackend.backend.base import API_VERSION, Backend
from nnbackend.backend.spec import BackendRow, BackendSpec, Device, Probe

__all__ = ["API_VERSION", "Backend", "BackendRow", "BackendSpec", "Device", "Probe"]
