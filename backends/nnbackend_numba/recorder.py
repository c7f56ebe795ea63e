"""Record a step: the kernels that it calls, with their arguments.

A step only calls kernels, always with the same arrays, so the list of its calls describes it
completely. While a thread records, the backend's kernels append their calls to a list instead of
running. The recording is thread-local: there is no lock, and no half-done state that other threads
or a forked process could see.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

from nnbackend.backend import Backend
from nnbackend_numpy.kernels import NumPyBackend


class NotRecordable(Exception):
    """The step does something other than call kernels that can be recorded."""


class Call(NamedTuple):
    """One call of a kernel, with all its arguments by name."""

    kernel: str
    arguments: dict[str, Any]


class _Recording(threading.local):
    """The recording of a thread: the backend (None: not recording) and the calls so far."""

    backend: Backend | None = None
    calls: list[Call] = []  # noqa: RUF012 - each recording sets its own


_recording = _Recording()


class RecordableBackend(NumPyBackend):
    """A backend whose kernels, inherited or overridden, can be recorded."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in _METHODS:
            method = getattr(cls, name)
            if not hasattr(method, "records"):
                setattr(cls, name, _recordable(name, method))


def record(backend: RecordableBackend, step: Callable[[], None]) -> list[Call]:
    """Return the kernel calls of `step`, without running the kernels.

    Raises: NotRecordable if it uses the backend in any other way.
    """
    if replaced := _METHODS & vars(backend).keys():
        raise NotRecordable(f"{', '.join(sorted(replaced))} replaced on this instance")
    calls: list[Call] = []
    before = _recording.backend, _recording.calls
    _recording.backend, _recording.calls = backend, calls
    try:
        step()
    finally:
        _recording.backend, _recording.calls = before
    return calls


def _recordable(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel that runs, or appends its call while its thread records."""

    @wraps(method)
    def kernel(self: Backend, *args: Any, **kwargs: Any) -> Any:
        if _recording.backend is not self:
            return method(self, *args, **kwargs)
        if name not in KERNELS:
            raise NotRecordable(name)
        arguments = SIGNATURES[name].bind(self, *args, **kwargs).arguments
        del arguments["self"]
        _recording.calls.append(Call(name, arguments))
        return None

    kernel.records = True  # type: ignore[attr-defined]
    return kernel


_OTHERS = {"owns", "dtype_name", "active", "capture", "with_precision"}
_METHODS = {
    name
    for name, _ in inspect.getmembers(Backend, inspect.isfunction)
    if not name.startswith("_") and name not in _OTHERS
}
_TRANSFERS = {"empty", "zeros", "to_device", "to_host", "synchronize", "cast"}
KERNELS = frozenset(_METHODS) - _TRANSFERS
SIGNATURES = {name: inspect.signature(getattr(Backend, name)) for name in KERNELS}
