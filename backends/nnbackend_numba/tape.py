"""Recording a step: which kernels it calls, with which arrays.

A step calls kernels and nothing else, always with the same arrays, so that the list of its calls
is the whole step. While one is recorded, the backend's kernels write themselves down instead of
working. Kernels called from other threads meanwhile work as ever.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from nnbackend.backend import Backend

_lock = threading.Lock()


class NotRecordable(Exception):
    """The step does something that a recording cannot hold."""


class Call(NamedTuple):
    """One call of a kernel, with all its arguments by name."""

    kernel: str
    given: dict[str, Any]


def record(backend: Backend, step: Callable[[], None]) -> list[Call]:
    """Give the kernels that `step` calls, without doing their work.

    Raises: NotRecordable where it does anything else with the backend.
    """
    calls: list[Call] = []
    owner = threading.get_ident()

    def writing(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def kernel(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != owner:
                return method(*args, **kwargs)
            if name not in KERNELS:
                raise NotRecordable(name)
            given = _SIGNATURES[name].bind(backend, *args, **kwargs).arguments
            del given["self"]
            calls.append(Call(name, given))
            return None

        return kernel

    with _lock:
        replaced = {name: writing(name, getattr(backend, name)) for name in _METHODS}
        backend.__dict__.update(replaced)
        try:
            step()
        finally:
            for name in replaced:
                del backend.__dict__[name]
    return calls


_OTHERS = {"owns", "dtype_name", "active", "capture", "with_precision"}
_METHODS = [
    name
    for name, _ in inspect.getmembers(Backend, inspect.isfunction)
    if not name.startswith("_") and name not in _OTHERS
]
_TRANSFERS = {"empty", "zeros", "to_device", "to_host", "synchronize", "cast"}
KERNELS = frozenset(_METHODS) - _TRANSFERS
_SIGNATURES = {name: inspect.signature(getattr(Backend, name)) for name in KERNELS}
