"""Compile with numba's disk cache, made tolerant of failures: code is then used from memory.

A read-only folder, a full disk or a damaged file costs compilation time, nothing else. Each is
logged once. A damaged file is replaced.
"""

from __future__ import annotations

import gc
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.core import event, sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.ccallback import CFunc
from numba.core.serialize import dumps

from nnbackend_numba.scalars import FAST

logger = logging.getLogger("nnbackend")
CURE = "Set NUMBA_CACHE_DIR to a writable folder on a disk with free space."
_logged: set[str] = set()


def jit(function: Callable[..., Any]) -> Any:
    """Return a function that is compiled at its first call and cached on disk if possible."""
    compiled = numba.njit(**FAST)(function)
    compiled._cache = _cache_of(function)
    return compiled


def c_function(signature: str, function: Callable[..., Any]) -> Any:
    """Return a function compiled as a C function and cached on disk if possible."""
    types = sigutils.normalize_signature(signature)
    compiled: Any = CFunc(function, types, locals={}, options=dict(FAST))
    compiled._cache = _cache_of(function)
    with without_collection():
        compiled.compile()
    return compiled


@contextmanager
def without_collection() -> Iterator[None]:
    """Do not collect garbage: a compiler makes millions of objects, which takes a third longer."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Payload(CompileResultCacheImpl):  # type: ignore[misc]
    """Compiled code with its checksum: damaged code would crash the process."""

    def reduce(self, result: Any) -> Any:
        data = dumps(super().reduce(result))
        return sha256(data).digest(), data

    def rebuild(self, context: Any, payload: Any) -> Any:
        checksum, data = payload
        if sha256(data).digest() != checksum:
            raise ValueError("its checksum differs")
        return super().rebuild(context, pickle.loads(data))


class _Cache(FunctionCache):  # type: ignore[misc]
    """The cache of one function, which logs failures instead of raising them."""

    _impl_class = _Payload

    def load_overload(self, signature: Any, context: Any) -> Any:
        try:
            return super().load_overload(signature, context)
        except Exception as error:  # unpickling damaged bytes may raise anything
            _log_once(logger.info, "numba's cache holds a damaged file, which is replaced", error)
            with suppress(OSError):  # without its index a file is written again
                Path(self._cache_file._index_path).unlink()
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        try:
            super().save_overload(signature, result)
        except Exception as error:
            _log_unsaved(error)


def _cache_of(function: Callable[..., Any]) -> Any:
    try:
        return _Cache(function)
    except (RuntimeError, OSError) as error:  # no folder can be written
        _log_unsaved(error)
        return NullCache()


def _log_once(log: Callable[[str], None], what: str, error: Exception) -> None:
    """Log a failure once for each `what`."""
    if what not in _logged:
        _logged.add(what)
        log(f"{what} ({type(error).__name__}: {error})")


_UNSAVED = (
    "numba cannot cache compiled kernels on disk: every process compiles them again, which takes "
    f"some seconds. {CURE}"
)
_log_unsaved = partial(_log_once, logger.warning, _UNSAVED)


class _CompilationNotice(event.Listener):  # type: ignore[misc]
    """A listener that logs once per process, when numba compiles the first kernel."""

    is_logged = False

    def on_start(self, event: Any) -> None:
        if not self.is_logged and str(event.data["module"]).startswith(f"{__package__}."):
            self.is_logged = True
            once = "" if _UNSAVED in _logged else ", once"
            logger.warning(
                "numba compiles kernels for this machine%s; this takes some seconds", once
            )

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:run_pass", _CompilationNotice())
