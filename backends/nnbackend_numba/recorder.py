"""Recording a step: which kernels it calls, with which arrays.

A step calls kernels and nothing else, always with the same arrays, so that the list of its calls
is the whole step. While a thread records one, the backend's kernels write themselves down instead
of working. Which thread records is known to that thread alone: there is no lock, and nothing that
other threads or a forked process could find half done.
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
    """The step does something that a recording cannot hold."""


class Call(NamedTuple):
    """One call of a kernel, with all its arguments by name."""

    kernel: str
    given: dict[str, Any]


class _Recording(threading.local):
    """What this thread records, if it does: of which backend, and the calls so far."""

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
    """Return the kernels that `step` calls, without doing their work.

    Raises: NotRecordable where it does anything else with the backend.
    """
    if replaced := _METHODS & vars(backend).keys():
        raise NotRecordable(f"{', '.join(sorted(replaced))} of this backend alone")
    calls: list[Call] = []
    before = _recording.backend, _recording.calls
    _recording.backend, _recording.calls = backend, calls
    try:
        step()
    finally:
        _recording.backend, _recording.calls = before
    return calls


def _recordable(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel that works, or writes itself down while its thread records."""

    @wraps(method)
    def kernel(self: Backend, *args: Any, **kwargs: Any) -> Any:
        if _recording.backend is not self:
            return method(self, *args, **kwargs)
        if name not in KERNELS:
            raise NotRecordable(name)
        given = _SIGNATURES[name].bind(self, *args, **kwargs).arguments
        del given["self"]
        _recording.calls.append(Call(name, given))
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
_SIGNATURES = {name: inspect.signature(getattr(Backend, name)) for name in KERNELS}
