"""The devices of this machine: which backends are installed and usable, and which one is meant."""

from nnbackend.devices import pickling as pickling
from nnbackend.devices.registry import backends, get_backend

__all__ = ["backends", "get_backend"]
